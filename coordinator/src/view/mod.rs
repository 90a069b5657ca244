//! What people see of an experiment: a projection of engine and soft state, the same for the terminal,
//! for clients and for the summary. Nothing here can change anything.

mod importance;
mod project;
pub mod remaining;
mod setting;
mod slots;
mod waiting;
mod why;

pub use importance::{ImportanceView, Observed};
pub use project::{assignment_of, committed_step, head, project, stop_reason, trial_view};
pub use setting::Setting;
pub use slots::{SlotStateName, SlotView, WorkView, slots};
pub use waiting::hosts_aside;
pub use why::why;

use muster_common::evaluation::Evaluation;
use muster_common::goal::{Breach, Goal, Merit};
use muster_common::id::{ExperimentId, TrialId};
use muster_common::manifest::{Assignment, TrainingObjective};
use muster_common::objective::{Mode, ObjectiveMetric};
use muster_common::run::DataSummary;
use muster_common::time::Timestamp;

use crate::engine::trial::TrialState;
use crate::sweep::front;

/// One experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentView {
    /// Its id.
    pub id: ExperimentId,
    /// Free text of the manifest.
    pub description: String,
    /// Where it is.
    pub state: ExperimentState,
    /// Why it failed or what it waits for; empty when all is well.
    pub reason: String,
    /// Held back by a user.
    pub paused: bool,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When this view was made.
    pub now: Timestamp,
    /// What is wanted.
    pub goal: Goal,
    /// Trials it creates at most.
    pub max_trials: u32,
    /// Budgets of the rungs, lowest first, for people.
    pub rungs: Vec<String>,
    /// Trials by number.
    pub trials: Vec<TrialView>,
    /// What the data turned out to be.
    pub data: Option<DataSummary>,
    /// Parts of the preparation that are done.
    pub parts_done: u32,
    /// Parts of the preparation.
    pub num_parts: u32,
    /// Workers of the coordinator.
    pub num_workers: u32,
    /// Training speed, all trials together.
    pub examples_per_second: f64,
    /// A guess; absent when there is nothing to guess from.
    pub seconds_left: Option<f64>,
    /// The best so far; at the end, the chosen one.
    pub best: Option<BestView>,
    /// Of several objectives the results that none dominates, the best in the first objective first.
    pub front: Vec<FrontView>,
    /// Why things happened, oldest first.
    pub decisions: Vec<DecisionView>,
    /// Where everything is written.
    pub location: String,
    /// The classes are in an order.
    pub ordered: bool,
    /// What is legal but rarely meant, for people.
    pub warnings: Vec<String>,
    /// What the trials learn.
    pub training_objective: TrainingObjective,
}

/// Where an experiment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExperimentState {
    /// Data and activations are prepared.
    Preparing,
    /// Trials train.
    Searching,
    /// The best model is scored and written.
    Finishing,
    /// Done.
    Completed,
    /// Ended by a user.
    Canceled,
    /// Could not go on.
    Failed,
}

impl ExperimentState {
    /// The word for people and for the summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Searching => "searching",
            Self::Finishing => "finishing",
            Self::Completed => "completed",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing will change any more.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Canceled | Self::Failed)
    }
}

/// One trial.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialView {
    /// Its id.
    pub id: TrialId,
    /// Where it is.
    pub state: TrialStateName,
    /// Why it stopped or failed.
    pub reason: String,
    /// Its hyperparameters.
    pub assignment: Assignment,
    /// Steps so far, as far as known.
    pub step: u64,
    /// Where its present or last run ends.
    pub target_step: u64,
    /// How good its best result is.
    pub merit: Option<Merit>,
    /// Training loss of a recent step.
    pub last_loss: Option<f64>,
    /// Runs started.
    pub attempts: u32,
    /// Runs that failed and were followed by another.
    pub restarts: u32,
    /// Rungs passed, those below its first one too.
    pub rungs_passed: u32,
    /// Training speed.
    pub examples_per_second: f64,
    /// The ranks of its run, for people; empty when it does not run.
    pub ranks: Vec<String>,
}

/// State of a trial without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrialStateName {
    /// Has a slot.
    Running,
    /// Wants a slot.
    Pending,
    /// Waits for promotion.
    Paused,
    /// Used its budget.
    Completed,
    /// Ended by the searcher.
    Stopped,
    /// Ended by a user.
    Canceled,
    /// Ended by errors.
    Failed,
}

impl TrialStateName {
    /// Every state, in the order of display.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Pending,
        Self::Paused,
        Self::Completed,
        Self::Stopped,
        Self::Canceled,
        Self::Failed,
    ];

    /// That of a state.
    pub fn of(state: &TrialState) -> Self {
        match state {
            TrialState::Running { .. } => Self::Running,
            TrialState::Pending => Self::Pending,
            TrialState::Paused => Self::Paused,
            TrialState::Completed => Self::Completed,
            TrialState::Stopped { .. } => Self::Stopped,
            TrialState::Canceled => Self::Canceled,
            TrialState::Failed { .. } => Self::Failed,
        }
    }

    /// The word for people and for the summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Pending => "pending",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing can happen to it any more.
    pub fn is_ended(self) -> bool {
        !matches!(self, Self::Running | Self::Pending | Self::Paused)
    }
}

/// The best trial.
#[derive(Debug, Clone, PartialEq)]
pub struct BestView {
    /// Which.
    pub trial: TrialId,
    /// After how many steps.
    pub step: u64,
    /// Its objective on the validation split.
    pub objective: f64,
    /// Scores on the validation split.
    pub validation: Evaluation,
    /// Scores on the test split, at the end.
    pub test: Option<Evaluation>,
    /// Where the model lies; empty until it is written.
    pub model: String,
}

/// A result that no other one is better than in all objectives.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontView {
    /// Whose.
    pub trial: TrialId,
    /// After how many steps.
    pub step: u64,
    /// A value for each objective.
    pub values: Vec<f64>,
}

/// One line of explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionView {
    /// When.
    pub at: Timestamp,
    /// About which trial; absent: the experiment.
    pub trial: Option<TrialId>,
    /// For people.
    pub text: String,
}

impl ExperimentView {
    /// Seconds from submission to the end, or to now.
    pub fn elapsed_seconds(&self) -> f64 {
        self.ended_at.unwrap_or(self.now).since(self.created_at).as_secs_f64()
    }

    /// Trials, best first: by their best results, then by more steps, then by number.
    pub fn ranked(&self) -> Vec<&TrialView> {
        let mut trials: Vec<&TrialView> = self.trials.iter().collect();
        trials.sort_by(|a, b| {
            b.rungs_passed.cmp(&a.rungs_passed).then_with(|| a.id.number.cmp(&b.id.number))
        });
        let merits: Vec<Merit> =
            trials.iter().map(|trial| trial.merit.unwrap_or(Merit::NONE)).collect();
        let places = front::arranged(&self.goal, &merits);
        places.into_iter().filter_map(|index| trials.get(index).copied()).collect()
    }

    /// The constraints that the best result breaks.
    pub fn breaches(&self) -> Vec<Breach> {
        self.best.as_ref().map_or_else(Vec::new, |best| self.goal.breaches(&best.validation))
    }

    /// Number of trials in a state.
    pub fn count(&self, state: TrialStateName) -> usize {
        self.trials.iter().filter(|trial| trial.state == state).count()
    }
}

/// `max` or `min`.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Max => "max",
        Mode::Min => "min",
    }
}

/// The metric called `name`.
pub fn metric_named(name: &str) -> Option<ObjectiveMetric> {
    ObjectiveMetric::ALL.into_iter().find(|metric| metric.name() == name)
}
