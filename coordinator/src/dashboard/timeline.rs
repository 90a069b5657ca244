//! Which slot did what when. The engine forgets runs that have ended, so they are noted here as they come and go.
//! Soft state: it begins when the coordinator starts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_common::id::{ExperimentId, Generation};
use muster_common::run::Task;
use muster_common::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::answer::{SlotName, SpanAnswer, TimelineAnswer};
use crate::driver::Driver;
use crate::engine::Engine;
use crate::engine::run::{MemberState, Run};

/// Runs that are remembered, some hundred bytes each.
const RUNS_MAX: usize = 20_000;
/// Spans of one answer: more than a picture can show.
const SPANS_MAX: usize = 3000;
/// Shortest time between two looks; runs that are shorter may be missed.
const LOOK: Duration = Duration::from_millis(100);

/// One rank of a run.
#[derive(Debug, Clone)]
struct Span {
    slot: SlotName,
    rank: usize,
    to: Option<Timestamp>,
}

/// A run as it was seen last.
#[derive(Debug, Clone)]
struct Seen {
    generation: Generation,
    experiment: ExperimentId,
    trial: Option<u32>,
    task: &'static str,
    from: Timestamp,
    spans: Vec<Span>,
}

#[derive(Debug)]
struct State {
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
            task: task_name(&run.task),
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
    pub(super) fn new(now: Timestamp) -> Self {
        let state = State { since: now, going: BTreeMap::new(), over: VecDeque::new() };
        Self(Arc::new(Mutex::new(state)))
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
            if driver.read(look).await.is_err() {
                return;
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

    /// One look.
    fn note(&self, engine: &Engine, now: Timestamp) {
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
        state.over.extend(gone);
        while state.over.len() > RUNS_MAX {
            state.over.pop_front();
        }
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
                    task: run.task,
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
