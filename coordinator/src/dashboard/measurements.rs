//! What a trial has measured and saved: curves, checkpoints and what it trained with, from the store and, while it
//! runs, from its run.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use muster_common::equipment::{Workers, by_kind, read_trial};
use muster_common::id::{Generation, TrialId};
use muster_common::metric::MetricName;
use muster_common::storage::{CheckpointKey, FoundCheckpoint, Scope, Store};
use tokio::time::timeout;

use super::answer::{
    CheckpointAnswer, CheckpointsAnswer, CurveAnswer, CurvesAnswer, EquipmentAnswer,
};
use super::problem::Problem;
use super::query::Query;
use super::{Reply, Room, json, trial_id};
use crate::curve::{Curve, CurveSet};
use crate::measured::{MeasuredError, joined, look, read};

/// Points of a curve, if nothing is said.
const POINTS: usize = 256;
/// Most points of a curve.
const POINTS_MAX: usize = 512;
/// Trials whose curves are kept, some hundred kilobytes each.
const TRIALS_KEPT: usize = 64;
/// Longest wait for a listing of checkpoints, and for what a trial trained with.
const LISTING: Duration = Duration::from_secs(15);

/// A trial, what it had when it was read, and that.
type Kept = (TrialId, (u32, Option<Generation>), Arc<CurveSet>);

/// Curves that were read from the store, the latest last. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct CurveCache(Arc<Mutex<VecDeque<Kept>>>);

impl CurveCache {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, trial: &TrialId, epoch: (u32, Option<Generation>)) -> Option<Arc<CurveSet>> {
        let kept = self.kept();
        let found = kept.iter().find(|(known, at, _)| known == trial && *at == epoch);
        found.map(|(_, _, curves)| Arc::clone(curves))
    }

    fn put(&self, trial: &TrialId, epoch: (u32, Option<Generation>), curves: &Arc<CurveSet>) {
        let mut kept = self.kept();
        kept.retain(|(known, _, _)| known != trial);
        while kept.len() >= TRIALS_KEPT {
            kept.pop_front();
        }
        kept.push_back((trial.clone(), epoch, Arc::clone(curves)));
    }
}

impl From<MeasuredError> for Problem {
    fn from(error: MeasuredError) -> Self {
        let text = error.to_string();
        match error {
            MeasuredError::Missing(_) => Self::Missing(text),
            MeasuredError::Unreadable(_) | MeasuredError::Stopped(_) => Self::Unavailable(text),
        }
    }
}

/// Curves of one trial; `name` may be given several times, `points` says how fine.
pub(super) async fn curves(
    State(room): State<Room>,
    Path((id, number)): Path<(String, u32)>,
    RawQuery(raw): RawQuery,
) -> Reply {
    let query = Query::of(raw.as_deref());
    let points_max = query.count("points", POINTS, POINTS_MAX)?;
    let names: Vec<&str> = query.with_prefix("name").map(|(_, name)| name).collect();
    let trial = trial_id(&id, number)?;
    let at = look(&room.service.driver, &trial).await?;
    let stored = if let Some(curves) = room.curves.get(&trial, at.epoch()) {
        curves
    } else {
        let curves = Arc::new(read(&at.store, &trial).await?);
        room.curves.put(&trial, at.epoch(), &curves);
        curves
    };
    let all = joined(&stored, &room.service.live, at.run);
    let wanted = all.iter().filter(|(name, _)| names.is_empty() || names.contains(&name.as_str()));
    let curves = wanted.map(|(name, curve)| answer(name, &curve.at_most(points_max))).collect();
    json(&CurvesAnswer { curves })
}

fn answer(name: &MetricName, curve: &Curve) -> CurveAnswer {
    let points = curve.points();
    CurveAnswer {
        name: name.to_string(),
        unit: name.unit(),
        steps: points.iter().map(|point| point.last_step).collect(),
        means: points.iter().map(|point| point.mean).collect(),
        minima: points.iter().map(|point| point.min).collect(),
        maxima: points.iter().map(|point| point.max).collect(),
    }
}

/// What the ranks of one trial trained with.
pub(super) async fn equipment(
    State(room): State<Room>,
    Path((id, number)): Path<(String, u32)>,
) -> Reply {
    let trial = trial_id(&id, number)?;
    let at = look(&room.service.driver, &trial).await?;
    let (workers, problem) = match kept(&at.store, &trial).await {
        Ok(workers) => (workers, String::new()),
        Err(problem) => (Vec::new(), problem),
    };
    json(&EquipmentAnswer { workers, problem })
}

async fn kept(store: &str, trial: &TrialId) -> Result<Vec<Workers>, String> {
    let store = Store::open(store).map_err(|error| error.to_string())?;
    let found = timeout(LISTING, read_trial(&store, trial)).await.map_err(|_| silent())?;
    Ok(by_kind(&found.map_err(|error| error.to_string())?))
}

fn silent() -> String {
    format!("the store did not answer within {} s", LISTING.as_secs())
}

/// Checkpoints of one trial: the engine knows which there are, the store how large.
pub(super) async fn checkpoints(
    State(room): State<Room>,
    Path((id, number)): Path<(String, u32)>,
) -> Reply {
    let trial = trial_id(&id, number)?;
    let wanted = trial.clone();
    let known = room.look_at(&id, move |_, experiment, _| {
        let found = experiment.trials.get(&number);
        let found = found.ok_or_else(|| Problem::Missing(format!("no trial `{wanted}`")))?;
        let best = found.best_result(&experiment.goal()).map(|best| best.checkpoint.clone());
        Ok((experiment.store.clone(), found.checkpoints.clone(), best))
    });
    let (store, keys, best) = known.await?;
    let (found, problem) = match listing(&store, trial).await {
        Ok(found) => (found, String::new()),
        Err(problem) => (Vec::new(), problem),
    };
    let describe = |key: CheckpointKey| described(&key, &found, best.as_ref());
    json(&CheckpointsAnswer { checkpoints: keys.into_iter().map(describe).collect(), problem })
}

async fn listing(store: &str, trial: TrialId) -> Result<Vec<FoundCheckpoint>, String> {
    let store = Store::open(store).map_err(|error| error.to_string())?;
    match timeout(LISTING, store.checkpoints(&Scope::Trial(trial))).await {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(_) => Err(silent()),
    }
}

fn described(
    key: &CheckpointKey,
    found: &[FoundCheckpoint],
    best: Option<&CheckpointKey>,
) -> CheckpointAnswer {
    let stored = found.iter().find(|found| found.key == *key);
    let index = stored.and_then(|stored| stored.index.as_ref().ok());
    CheckpointAnswer {
        name: key.name(),
        step: key.step,
        run: key.generation.0,
        bytes: stored.map(FoundCheckpoint::bytes),
        written_at_ms: stored.map(|stored| stored.modified_at().0),
        parent: index.and_then(|index| index.parent.as_ref()).map(CheckpointKey::name),
        is_best: best == Some(key),
    }
}
