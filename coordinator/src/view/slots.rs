//! What every slot does.

use muster_common::id::{ExperimentId, TrialId, WorkerId};
use muster_common::metric::MetricName;
use muster_common::run::Task;
use muster_common::time::Timestamp;

use crate::engine::run::Run;
use crate::engine::{Engine, Worker};
use crate::live::Live;

/// One slot: there is a worker for each.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotView {
    /// Its worker.
    pub worker: WorkerId,
    /// The machine.
    pub host: String,
    /// Whether it can be given work.
    pub state: SlotStateName,
    /// What it does; absent: nothing.
    pub work: Option<WorkView>,
}

/// Whether a slot can be given work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotStateName {
    /// It can.
    Free,
    /// It works.
    Busy,
    /// It is about to leave.
    Draining,
}

impl SlotStateName {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Busy => "busy",
            Self::Draining => "draining",
        }
    }
}

/// What a slot does.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkView {
    /// For which experiment.
    pub experiment: ExperimentId,
    /// For which trial; absent: for the whole experiment.
    pub trial: Option<TrialId>,
    /// What, for people.
    pub text: String,
    /// Its rank.
    pub rank: u32,
    /// Ranks of the run.
    pub num_ranks: u32,
    /// When it was assigned.
    pub started_at: Timestamp,
    /// Steps so far, as far as known.
    pub step: u64,
    /// Where the run ends; 0: that is not known.
    pub target_step: u64,
    /// Training speed of the run, examples per second.
    pub examples_per_second: f64,
    /// The same in tokens that are no padding; 0: that is not known yet.
    pub tokens_per_second: f64,
}

/// Every slot, by host and worker.
pub fn slots(engine: &Engine, live: &Live) -> Vec<SlotView> {
    let view = |(id, worker): (&WorkerId, &Worker)| {
        let state = match (worker.draining, worker.run) {
            (true, _) => SlotStateName::Draining,
            (false, Some(_)) => SlotStateName::Busy,
            (false, None) => SlotStateName::Free,
        };
        let run = worker.run.and_then(|run| Some((run, engine.runs().get(&run)?)));
        let work = run.map(|(generation, run)| {
            let progress = live.progress(generation);
            let mut work = work(run, id);
            let tokens = live.latest(generation, &MetricName::TOKENS_PER_SECOND);
            work.tokens_per_second = tokens.unwrap_or(0.0);
            if let Some(progress) = progress {
                work.step = progress.step;
                work.target_step = progress.target_step;
                work.examples_per_second = progress.examples_per_second;
                work.text = progress.activity.unwrap_or(work.text);
            }
            work
        });
        SlotView { worker: id.clone(), host: worker.host.clone(), state, work }
    };
    let mut slots: Vec<SlotView> = engine.workers().iter().map(view).collect();
    slots.sort_by(|a, b| a.host.cmp(&b.host).then_with(|| a.worker.cmp(&b.worker)));
    slots
}

fn work(run: &Run, worker: &WorkerId) -> WorkView {
    let rank = run.members.iter().position(|member| member.worker == *worker).unwrap_or(0);
    let (trial, text, target_step) = match &run.task {
        Task::Prepare { part, num_parts } => {
            (None, format!("prepares data, part {} of {num_parts}", part + 1), 0)
        }
        Task::Train(task) => (Some(task.trial.clone()), "trains".to_owned(), task.target_step),
        Task::Finish { trial, .. } => {
            (Some(trial.clone()), "scores the test split and writes the model".to_owned(), 0)
        }
    };
    let text = if run.directive.is_some() { format!("{text}, told to leave") } else { text };
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    WorkView {
        experiment: run.experiment.clone(),
        trial,
        text,
        rank: number(rank),
        num_ranks: number(run.members.len()),
        started_at: run.started_at,
        step: 0,
        target_step,
        examples_per_second: 0.0,
        tokens_per_second: 0.0,
    }
}
