//! Which hyperparameters matter. A forest of ten thousand results takes the better part of a second to grow, so that
//! what was learned is kept for as long as there is little new to learn from.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, State};
use muster_common::count::counted;
use muster_common::id::ExperimentId;

use super::answer::{ImportanceAnswer, ShareAnswer};
use super::problem::Problem;
use super::{Reply, Room, experiment_id, json};
use crate::sweep::importance::Share;
use crate::view::Observed;

/// Experiments whose answers are kept.
const EXPERIMENTS_KEPT: usize = 64;
/// While an experiment goes on, so many results more, as a part of those that were compared, change little.
const NEWS_SHARE: f64 = 0.05;

type Kept = (ExperimentId, Arc<ImportanceAnswer>);

/// Answers, the latest last. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct ImportanceCache(Arc<Mutex<VecDeque<Kept>>>);

impl ImportanceCache {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was said of an experiment, if that still holds for what it has now.
    fn get(&self, id: &ExperimentId, now: &Compared) -> Option<Arc<ImportanceAnswer>> {
        let kept = self.kept();
        let (_, answer) = kept.iter().find(|(known, _)| known == id)?;
        now.fits(&answer.rung, answer.num_results).then(|| Arc::clone(answer))
    }

    fn put(&self, id: ExperimentId, answer: &Arc<ImportanceAnswer>) {
        let mut kept = self.kept();
        kept.retain(|(known, _)| *known != id);
        while kept.len() >= EXPERIMENTS_KEPT {
            kept.pop_front();
        }
        kept.push_back((id, Arc::clone(answer)));
    }
}

/// What there is to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Compared {
    rung: String,
    num_results: usize,
    is_ended: bool,
}

impl Compared {
    /// Whether shares of `num_results` results of `rung` say enough.
    fn fits(&self, rung: &str, num_results: usize) -> bool {
        let news = self.num_results.saturating_sub(num_results) as f64;
        let is_near = !self.is_ended && news <= NEWS_SHARE * num_results as f64;
        rung == self.rung && (num_results == self.num_results || is_near)
    }
}

/// Shares of an experiment's hyperparameters.
pub(super) async fn of_experiment(State(room): State<Room>, Path(id): Path<String>) -> Reply {
    let look = room.look_at(&id, |_, experiment, _| {
        let (rung, num_results) = Observed::extent(experiment);
        Ok(Compared { rung, num_results, is_ended: experiment.is_ended() })
    });
    let (compared, known) = (look.await?, experiment_id(&id)?);
    if let Some(answer) = room.importances.get(&known, &compared) {
        return json(&*answer);
    }
    let found = room.look_at(&id, |_, experiment, _| Ok(Observed::of(experiment))).await?;
    // Trees are grown outside the engine's thread, where nobody waits for them.
    let grown = tokio::task::spawn_blocking(move || answer(found)).await;
    let answer = Arc::new(grown.map_err(|error| Problem::Unavailable(error.to_string()))?);
    room.importances.put(known, &answer);
    json(&*answer)
}

/// The most important one first.
fn answer(observed: Observed) -> ImportanceAnswer {
    let view = observed.view();
    let num_results = view.num_results as usize;
    if view.shares.is_empty() {
        let reason = format!("nothing can be told from {}", counted(num_results, "result"));
        return ImportanceAnswer { num_results, rung: view.rung, shares: None, reason };
    }
    let share = |share: Share| ShareAnswer { name: share.name, share: share.share };
    let shares = Some(view.shares.into_iter().map(share).collect());
    ImportanceAnswer { num_results, rung: view.rung, shares, reason: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(num_results: usize, is_ended: bool) -> Compared {
        Compared { rung: "rung 1".to_owned(), num_results, is_ended }
    }

    #[test]
    fn an_answer_is_kept_while_little_is_new() {
        let cache = ImportanceCache::default();
        let id: ExperimentId = "a-1".parse().unwrap();
        assert!(cache.get(&id, &compared(100, false)).is_none());
        let answer = ImportanceAnswer {
            num_results: 100,
            rung: "rung 1".to_owned(),
            shares: None,
            reason: String::new(),
        };
        cache.put(id.clone(), &Arc::new(answer));
        for (now, holds) in [
            (compared(100, false), true),
            (compared(105, false), true),
            (compared(106, false), false),
            (compared(100, true), true),
            // What has ended is told to the last result.
            (compared(101, true), false),
            (Compared { rung: "rung 2".to_owned(), ..compared(100, false) }, false),
        ] {
            assert_eq!(cache.get(&id, &now).is_some(), holds, "{now:?}");
        }
        assert!(cache.get(&"a-2".parse().unwrap(), &compared(100, false)).is_none());
    }
}
