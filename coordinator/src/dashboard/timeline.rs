//! Which slot did what when. The engine forgets runs that have ended, so they are noted here as they come and go, and
//! in a file beside the logs. Soft state: if the file is lost, a picture is.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_common::id::{ExperimentId, Generation};
use muster_common::run::Task;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::answer::{SlotName, SpanAnswer, TimelineAnswer};
use crate::driver::Driver;
use crate::engine::Engine;
use crate::engine::run::{MemberState, Run};

/// Runs that are remembered, some hundred bytes each.
const RUNS_MAX: usize = 20_000;
/// The file is made anew with these when it has this many bytes.
const FILE_MAX: u64 = 16 << 20;
/// Its name. No experiment's log begins with `_`.
const FILE: &str = "_timeline.jsonl";
/// Spans of one answer: more than a picture can show.
const SPANS_MAX: usize = 3000;
/// Shortest time between two looks; runs that are shorter may be missed.
const LOOK: Duration = Duration::from_millis(100);

/// One rank of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Span {
    slot: SlotName,
    rank: usize,
    to: Option<Timestamp>,
}

/// A run as it was seen last; a line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    generation: Generation,
    experiment: ExperimentId,
    trial: Option<u32>,
    task: String,
    from: Timestamp,
    spans: Vec<Span>,
}

#[derive(Debug)]
struct State {
    path: PathBuf,
    since: Timestamp,
    going: BTreeMap<Generation, Seen>,
    over: VecDeque<Seen>,
}

/// Runs of the recent past. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Timeline(Arc<Mutex<State>>);

pub(super) fn task_name(task: &Task) -> &'static str {
    match task {
        Task::Prepare { .. } => "prepare",
        Task::Train(_) => "train",
        Task::Finish { .. } => "finish",
    }
}

impl Seen {
    fn of(generation: Generation, run: &Run, now: Timestamp) -> Self {
        let span = |(rank, member): (usize, &crate::engine::run::Member)| Span {
            slot: SlotName { host: member.host.clone(), worker: member.worker.to_string() },
            rank,
            to: matches!(member.state, MemberState::Ended { .. }).then_some(now),
        };
        Self {
            generation,
            experiment: run.experiment.clone(),
            trial: run.task.trial().map(|trial| trial.number),
            task: task_name(&run.task).to_owned(),
            from: run.started_at,
            spans: run.members.iter().enumerate().map(span).collect(),
        }
    }

    /// What ended before stays ended when it did.
    fn after(mut self, before: &Self) -> Self {
        for (span, earlier) in self.spans.iter_mut().zip(&before.spans) {
            span.to = span.to.and(earlier.to.or(span.to));
        }
        self
    }

    fn ended(mut self, now: Timestamp) -> Self {
        for span in &mut self.spans {
            span.to.get_or_insert(now);
        }
        self
    }
}

impl Timeline {
    /// Goes on with what an earlier coordinator has noted in the directory of the logs.
    pub(super) fn open(directory: &Path, now: Timestamp) -> Self {
        let path = directory.join(FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        // The last line may be half a line, if the process was killed.
        let known = text.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
        let mut over: VecDeque<Seen> = VecDeque::new();
        for seen in known.take(RUNS_MAX) {
            over.push_front(seen);
        }
        let since = over.front().map_or(now, |first| first.from);
        Self(Arc::new(Mutex::new(State { path, since, going: BTreeMap::new(), over })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what comes and goes, until `shutdown` or the end of the driver.
    pub(super) async fn keep(self, driver: Driver, shutdown: CancellationToken) {
        let mut changes = driver.changes();
        loop {
            let timeline = self.clone();
            let look = move |engine: &Engine| timeline.note(engine, Timestamp::now());
            let Ok(gone) = driver.read(look).await else { return };
            if !gone.is_empty() {
                let timeline = self.clone();
                let written = tokio::task::spawn_blocking(move || timeline.write(&gone)).await;
                if let Ok(Err(error)) = written {
                    tracing::warn!(%error, "the timeline is not kept for later");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Appends runs to the file, or makes it anew if it has grown too long.
    fn write(&self, gone: &[Seen]) -> std::io::Result<()> {
        let (path, all) = {
            let state = self.state();
            let is_long = fs::metadata(&state.path).is_ok_and(|file| file.len() > FILE_MAX);
            (state.path.clone(), is_long.then(|| state.over.clone()))
        };
        let line = |seen: &Seen| serde_json::to_string(seen).map(|text| text + "\n");
        let Some(all) = all else {
            fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
            let text: String = gone.iter().map(line).collect::<Result<_, _>>()?;
            return File::options()
                .create(true)
                .append(true)
                .open(path)?
                .write_all(text.as_bytes());
        };
        let text: String = all.iter().map(line).collect::<Result<_, _>>()?;
        let fresh = path.with_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(fresh, path)
    }

    /// One look; the runs that are over since the last one.
    fn note(&self, engine: &Engine, now: Timestamp) -> Vec<Seen> {
        let mut state = self.state();
        let before = std::mem::take(&mut state.going);
        for (generation, run) in engine.runs() {
            let seen = Seen::of(*generation, run, now);
            let seen = match before.get(generation) {
                Some(before) => seen.after(before),
                None => seen,
            };
            state.going.insert(*generation, seen);
        }
        let gone =
            before.into_iter().filter(|(generation, _)| !engine.runs().contains_key(generation));
        let gone: Vec<Seen> = gone.map(|(_, seen)| seen.ended(now)).collect();
        state.over.extend(gone.iter().cloned());
        while state.over.len() > RUNS_MAX {
            state.over.pop_front();
        }
        gone
    }

    /// What is known, of one experiment or of all.
    pub(super) fn answer(
        &self,
        experiment: Option<&ExperimentId>,
        now: Timestamp,
    ) -> TimelineAnswer {
        let state = self.state();
        let meant = |seen: &&Seen| experiment.is_none_or(|wanted| *wanted == seen.experiment);
        let runs: Vec<&Seen> =
            state.over.iter().chain(state.going.values()).filter(meant).collect();
        let mut slots: Vec<SlotName> =
            runs.iter().flat_map(|run| &run.spans).map(|span| span.slot.clone()).collect();
        slots.sort();
        slots.dedup();
        let mut spans: Vec<SpanAnswer> = Vec::new();
        for run in &runs {
            for span in &run.spans {
                let Ok(slot) = slots.binary_search(&span.slot) else { continue };
                spans.push(SpanAnswer {
                    slot,
                    run: run.generation.0,
                    rank: span.rank,
                    experiment: run.experiment.to_string(),
                    trial: run.trial,
                    task: run.task.clone(),
                    from_ms: run.from.0,
                    to_ms: span.to.map(|at| at.0),
                });
            }
        }
        let num_left_out = spans.len().saturating_sub(SPANS_MAX);
        spans.drain(..num_left_out);
        TimelineAnswer { now_ms: now.0, since_ms: state.since.0, slots, spans, num_left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(generation: u64) -> Seen {
        let slot = SlotName { host: "h".to_owned(), worker: format!("w{}", generation % 2) };
        Seen {
            generation: Generation(generation),
            experiment: "demo-1".parse().unwrap(),
            trial: Some(3),
            task: "train".to_owned(),
            from: Timestamp(10 * generation),
            spans: vec![Span { slot, rank: 0, to: Some(Timestamp(10 * generation + 5)) }],
        }
    }

    #[test]
    fn what_slots_did_is_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let timeline = Timeline::open(&directory.path().join("logs"), Timestamp(7));
        assert!(timeline.answer(None, Timestamp(9)).spans.is_empty());
        timeline.write(&[seen(1), seen(2)]).unwrap();
        timeline.write(&[seen(3)]).unwrap();
        let path = directory.path().join("logs").join(FILE);
        let half = fs::read_to_string(&path).unwrap() + "{\"generation\": 4";
        fs::write(&path, half).unwrap();
        let again = Timeline::open(&directory.path().join("logs"), Timestamp(99));
        let answer = again.answer(Some(&"demo-1".parse().unwrap()), Timestamp(99));
        let runs: Vec<u64> = answer.spans.iter().map(|span| span.run).collect();
        assert_eq!((runs, answer.since_ms, answer.slots.len()), (vec![1, 2, 3], 10, 2));
        assert!(again.answer(Some(&"demo-2".parse().unwrap()), Timestamp(99)).spans.is_empty());
    }

    #[test]
    fn a_rank_that_ended_before_the_others_keeps_its_end() {
        let (mut before, mut now) = (seen(1), seen(1));
        before.spans[0].to = Some(Timestamp(12));
        now.spans[0].to = Some(Timestamp(20));
        assert_eq!(now.clone().after(&before).spans[0].to, Some(Timestamp(12)));
        before.spans[0].to = None;
        assert_eq!(now.after(&before).spans[0].to, Some(Timestamp(20)));
        assert_eq!(before.ended(Timestamp(30)).spans[0].to, Some(Timestamp(30)));
    }
}
