//! What there is, counted from the engine.

use std::collections::BTreeMap;

use muster_common::run::Task;

use super::{Labels, label};
use crate::engine::Engine;
use crate::engine::experiment::{Experiment, ExperimentEnd, Phase};
use crate::engine::trial::TrialState;

/// Experiments that have not ended and get series of their own, the newest ones.
const NAMED_MAX: usize = 50;
/// Label of the older experiments that have not ended; no experiment can be called so.
const OTHERS: &str = "_others";
/// Label of the experiments that have ended.
const ENDED: &str = "_ended";

/// Kinds of runs.
pub(super) const TASKS: [&str; 3] = ["prepare", "train", "finish"];
const PHASES: [&str; 6] =
    ["preparing", "searching", "finishing", "completed", "canceled", "failed"];

/// How many there are of everything, by labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    pub(super) experiments: BTreeMap<Labels, usize>,
    pub(super) num_paused: usize,
    pub(super) trials: BTreeMap<Labels, usize>,
    pub(super) runs: BTreeMap<Labels, usize>,
    pub(super) slots: BTreeMap<Labels, usize>,
    pub(super) num_hosts_aside: usize,
}

impl Census {
    /// Counts once over everything: some nanoseconds per trial.
    pub fn of(engine: &Engine) -> Self {
        let mut census = Self::default();
        for (name, values) in [("phase", &PHASES[..]), ("task", &TASKS[..])] {
            let counts = if name == "phase" { &mut census.experiments } else { &mut census.runs };
            counts.extend(values.iter().map(|value| (label(name, value), 0)));
        }
        census.slots.extend(["free", "busy", "draining"].map(|state| (label("state", state), 0)));
        let num_going = engine.experiments().filter(|experiment| !experiment.is_ended()).count();
        let mut num_older = num_going.saturating_sub(NAMED_MAX);
        for experiment in engine.experiments() {
            add(&mut census.experiments, label("phase", phase_name(&experiment.phase)), 1);
            let owner = if experiment.is_ended() {
                ENDED
            } else if num_older > 0 {
                num_older -= 1;
                OTHERS
            } else {
                experiment.id.as_str()
            };
            census.num_paused += usize::from(experiment.paused && !experiment.is_ended());
            census.count_trials(owner, experiment);
        }
        for run in engine.runs().values() {
            add(&mut census.runs, label("task", task_name(&run.task)), 1);
        }
        for worker in engine.workers().values() {
            let state = match (&worker.run, worker.draining) {
                (Some(_), _) => "busy",
                (None, true) => "draining",
                (None, false) => "free",
            };
            add(&mut census.slots, label("state", state), 1);
        }
        census.num_hosts_aside =
            engine.hosts().values().filter(|record| record.aside_until.is_some()).count();
        census
    }

    fn count_trials(&mut self, owner: &str, experiment: &Experiment) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for trial in experiment.trials.values() {
            *counts.entry(state_name(&trial.state)).or_default() += 1;
        }
        for (state, number) in counts {
            let labels = vec![("experiment", owner.to_owned()), ("state", state.to_owned())];
            add(&mut self.trials, labels, number);
        }
    }
}

fn add(counts: &mut BTreeMap<Labels, usize>, labels: Labels, number: usize) {
    *counts.entry(labels).or_default() += number;
}

pub(super) fn task_name(task: &Task) -> &'static str {
    match task {
        Task::Prepare { .. } => "prepare",
        Task::Train(_) => "train",
        Task::Finish { .. } => "finish",
    }
}

fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Preparing { .. } => "preparing",
        Phase::Searching => "searching",
        Phase::Finishing { .. } => "finishing",
        Phase::Ended { end: ExperimentEnd::Completed } => "completed",
        Phase::Ended { end: ExperimentEnd::Canceled } => "canceled",
        Phase::Ended { end: ExperimentEnd::Failed { .. } } => "failed",
    }
}

fn state_name(state: &TrialState) -> &'static str {
    match state {
        TrialState::Pending => "pending",
        TrialState::Running { .. } => "running",
        TrialState::Paused => "paused",
        TrialState::Completed => "completed",
        TrialState::Stopped { .. } => "stopped",
        TrialState::Canceled => "canceled",
        TrialState::Failed { .. } => "failed",
    }
}
