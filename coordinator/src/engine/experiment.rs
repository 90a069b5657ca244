//! One experiment: its manifest, its phase, its trials.
//!
//! ```text
//! Preparing --parts done--> Searching --nothing left to try--> Finishing --model written--> Ended
//!     any of them --canceled or failed--> Ended;  `paused` holds back new runs in any phase
//!     Ended, as the model could not be written --resumed--> Finishing
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_common::elementary::Elementary;
use muster_common::evaluation::Evaluation;
use muster_common::goal::{Goal, Merit};
use muster_common::id::{ExperimentId, Generation, ProjectName, TrialId};
use muster_common::manifest::{
    Assignment, Budget, Manifest, PrunerSettings, SearcherSettings, TrialSettings, ladder,
};
use muster_common::objective::Objective;
use muster_common::run::DataSummary;
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rules;
use super::continuation::Start;
use super::decision::{Decision, Decisions};
use super::table::{Row, Table};
use super::trial::{Trial, TrialState};
use crate::sweep::asha::Standing;
use crate::sweep::front;

/// Parts of the preparation when lower layers are frozen: more than most machines have slots, so
/// that slots which finish early take another.
const NUM_PARTS: usize = 8;

/// One submitted manifest and everything it caused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Its id.
    pub id: ExperimentId,
    /// What was submitted.
    #[serde(with = "muster_common::shared")]
    pub manifest: Arc<Manifest>,
    /// As the user wrote it.
    pub text: String,
    /// Directory that relative paths of the text start at, if that is known.
    #[serde(default)]
    pub base: Option<String>,
    /// URL of the object store.
    pub store: String,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Where it is.
    pub phase: Phase,
    /// No new runs until it is resumed.
    pub paused: bool,
    /// Budgets of the rungs, lowest first.
    pub ladder: Vec<Budget>,
    /// What the data turned out to be; known once the first part is prepared.
    pub data: Option<DataSummary>,
    /// Trials by number.
    #[serde(default, skip_serializing)]
    pub trials: Table<u32, Trial>,
    /// Why things happened, oldest first.
    #[serde(default, skip_serializing)]
    pub decisions: Decisions,
    /// Runs of preparation and finish that failed.
    pub failures: u32,
    /// The outcome.
    pub best: Option<Best>,
    /// The trial that was as good as was asked for: nothing more is tried.
    #[serde(default)]
    pub target_reached: Option<u32>,
    /// What earlier experiments found, as it was when this one was submitted.
    #[serde(default)]
    pub prior: Vec<Prior>,
    /// Where its trials begin, if not at the pretrained weights.
    #[serde(default)]
    pub start: Option<Start>,
    /// Checkpoints of its trials that later experiments begin at.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub pinned: BTreeSet<CheckpointKey>,
    /// Whose share of the slots it uses.
    #[serde(default)]
    pub project: Option<ProjectName>,
    /// Those with more go first.
    #[serde(default)]
    pub priority: i32,
    /// When its first run began.
    #[serde(default)]
    pub begun_at: Option<Timestamp>,
    /// Time of all its slots that are free again, milliseconds.
    #[serde(default)]
    pub used_slot_ms: u64,
    /// The limit that was reached: nothing more is tried.
    #[serde(default)]
    pub limit_reached: Option<String>,
    /// How many were submitted before it.
    #[serde(default)]
    pub number: usize,
    /// Since when free slots are kept for its next run, which needs more of them.
    #[serde(default)]
    pub waiting_since: Option<Timestamp>,
    /// What its hyperparameters and comparisons are computed with: those of the rules that are in force.
    #[serde(default)]
    pub functions: Elementary,
    /// Runs of preparation and finish in a row that were preempted, and not by the engine.
    #[serde(default)]
    pub preempted_in_vain: u32,
    /// No such run is started again before then.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
}

/// What comes with a manifest.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    /// The manifest as the user wrote it.
    pub(super) text: String,
    /// URL of the object store.
    pub(super) store: String,
    /// Who the user is.
    pub(super) owner: Option<ProjectName>,
    /// Directory that relative paths of the text start at.
    pub(super) base: Option<String>,
}

/// Where an experiment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Data is tokenized, activations of frozen layers are computed.
    Preparing {
        /// The parts, in order.
        parts: Vec<Part>,
    },
    /// Trials train.
    Searching,
    /// The chosen trial is scored on the test split and written.
    Finishing {
        /// Who does it.
        run: Option<Generation>,
    },
    /// Over.
    Ended {
        /// How.
        end: ExperimentEnd,
    },
}

/// One part of the preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Nobody does it.
    Waiting,
    /// A run does it.
    Running(Generation),
    /// Done.
    Done,
}

/// How an experiment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExperimentEnd {
    /// The best model is written.
    Completed,
    /// A user ended it.
    Canceled,
    /// It cannot go on.
    Failed {
        /// Why.
        message: String,
    },
}

/// A trial of an earlier experiment, as the sampler sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// Its hyperparameters.
    pub assignment: Assignment,
    /// Index of the rung that its first value is at.
    pub first_rung: usize,
    /// How good it was at each rung, finite: JSON has no word for what is not.
    pub values: Vec<Merit>,
}

/// The chosen trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Number of the trial.
    pub trial: u32,
    /// The checkpoint that is exported.
    pub checkpoint: CheckpointKey,
    /// Scores on the validation split, which chose it.
    pub validation: Evaluation,
    /// Scores on the test split, once known.
    pub test: Option<Evaluation>,
    /// Where the model lies, once written.
    pub model: Option<String>,
}

impl Row for Experiment {
    /// Not over.
    type Kind = ();

    fn kind(&self) -> Option<()> {
        (!self.is_ended()).then_some(())
    }
}

impl Experiment {
    /// A fresh experiment.
    pub(super) fn new(
        id: ExperimentId,
        now: Timestamp,
        manifest: Manifest,
        submission: Submission,
    ) -> Self {
        let Submission { text, store, owner, base } = submission;
        let project = manifest.project.clone().or(owner);
        let priority = manifest.resources.priority;
        let freezes = manifest.model.freezes();
        let num_parts = if freezes { NUM_PARTS } else { 1 };
        let pruner = manifest.searcher.as_ref().map_or(&PrunerSettings::None, |s| &s.pruner);
        let ladder = ladder(manifest.budget, pruner);
        Self {
            id,
            manifest: Arc::new(manifest),
            start: None,
            pinned: BTreeSet::new(),
            text,
            base,
            store,
            created_at: now,
            ended_at: None,
            phase: Phase::Preparing { parts: vec![Part::Waiting; num_parts] },
            paused: false,
            ladder,
            data: None,
            trials: Table::default(),
            decisions: Decisions::default(),
            failures: 0,
            best: None,
            target_reached: None,
            prior: Vec::new(),
            project,
            priority,
            begun_at: None,
            used_slot_ms: 0,
            limit_reached: None,
            number: 0,
            waiting_since: None,
            functions: Elementary::default(),
            preempted_in_vain: 0,
            not_before: None,
        }
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether it failed when all there was left to do was to score and write the chosen trial: that can be done later.
    pub fn lacks_model(&self) -> bool {
        let failed = matches!(&self.phase, Phase::Ended { end: ExperimentEnd::Failed { .. } });
        failed && self.best.as_ref().is_some_and(|best| best.model.is_none())
    }

    /// Writes the best model after all.
    pub(super) fn finish_again(&mut self, now: Timestamp) {
        self.decide(now, None, "resumed: the best model is written after all".to_owned());
        self.phase = Phase::Finishing { run: None };
        (self.ended_at, self.not_before) = (None, None);
        (self.failures, self.paused) = (0, false);
    }

    /// Trials it creates at most.
    pub fn max_trials(&self) -> u32 {
        self.manifest.searcher.as_ref().map_or(1, |searcher| searcher.max_trials)
    }

    /// What is wanted; where nothing is searched, what suits what is learned.
    pub fn goal(&self) -> Goal {
        let metric = self.manifest.objective.natural_metric();
        let plain = || Objective { metric, mode: metric.natural_mode() }.into();
        let goal = self.manifest.searcher.as_ref().map_or_else(plain, SearcherSettings::goal);
        Goal { functions: self.functions, ..goal }
    }

    /// Full id of trial `number`.
    pub fn trial_id(&self, number: u32) -> TrialId {
        TrialId { experiment: self.id.clone(), number }
    }

    /// Steps of a budget for one trial; 0 until the data is known.
    pub fn steps(&self, trial: &Trial, budget: Budget) -> u64 {
        let Some(data) = &self.data else { return 0 };
        let space = &self.manifest.hyperparameters;
        let settings = TrialSettings::resolve(space, &trial.assignment);
        budget.steps(settings.global_batch_size, data.num_train)
    }

    /// Step at which a trial's next rung is, if one is left.
    pub fn target_step(&self, trial: &Trial) -> Option<u64> {
        self.ladder.get(trial.rung()).map(|budget| self.steps(trial, *budget))
    }

    /// Who counts at each rung, for the pruner: those with a result there, and those that diverged on their way to
    /// it.
    pub fn standings(&self) -> Vec<Vec<Standing>> {
        let goal = self.goal();
        (0..self.ladder.len())
            .map(|rung| {
                let standing = |trial: &Trial| {
                    let merit = trial.merit_at(rung, &goal)?;
                    let is_waiting = trial.state == TrialState::Paused && !trial.held;
                    let waits = is_waiting && trial.rung() == rung + 1;
                    Some(Standing { trial: trial.number, merit, waits })
                };
                self.trials.values().filter_map(standing).collect()
            })
            .collect()
    }

    /// What a later experiment with these rungs can learn from this one: all results if the rungs are
    /// the same, else those of trials that used their whole budget. They are judged by the later one's
    /// goal.
    pub(super) fn findings(&self, ladder: &[Budget], goal: &Goal) -> Vec<Prior> {
        let is_same = self.ladder == ladder;
        let finding = |trial: &Trial| {
            let values: Vec<Merit> = trial.merits(goal).collect();
            let (first_rung, values) = match (is_same, &trial.state) {
                (true, _) => (trial.first_rung, values),
                (false, TrialState::Completed) => {
                    (ladder.len().saturating_sub(1), vec![*values.last()?])
                }
                (false, _) => return None,
            };
            // Of one that changed its hyperparameters nobody knows which of them did it.
            let is_useful = trial.lineage.is_empty()
                && !values.is_empty()
                && values.iter().all(|v| v.is_finite() && v.violation().is_finite());
            is_useful.then(|| Prior { assignment: trial.assignment.clone(), first_rung, values })
        };
        self.trials.values().filter_map(finding).collect()
    }

    /// The best result of any trial, by number and rung: the one that stands first by the goal, then the
    /// higher rung, then the older trial.
    pub fn leader(&self) -> Option<(u32, usize)> {
        let goal = self.goal();
        let mut all: Vec<_> = self
            .trials
            .values()
            .flat_map(|trial| {
                (trial.first_rung..)
                    .zip(trial.merits(&goal))
                    .map(move |(rung, merit)| (trial, rung, merit))
            })
            .filter(|(_, _, merit)| merit.is_finite())
            .collect();
        all.sort_by(|(a_trial, a_rung, a), (b_trial, b_rung, b)| {
            goal.standing(a, b)
                .then_with(|| b_rung.cmp(a_rung))
                .then_with(|| a_trial.number.cmp(&b_trial.number))
        });
        all.first().map(|(trial, rung, _)| (trial.number, *rung))
    }

    /// Of several objectives the results that none dominates and that keep all constraints, by number,
    /// rung and a value for each objective, the best in the first objective first.
    pub fn front(&self) -> Vec<(u32, usize, Vec<f64>)> {
        let goal = self.goal();
        if goal.is_single() {
            return Vec::new();
        }
        // Of a trial's equal results the one of the highest rung.
        let results: Vec<(u32, usize, Merit)> = self
            .trials
            .values()
            .flat_map(|trial| {
                let rungs = trial.first_rung..trial.rung();
                let results = rungs.rev().zip(trial.merits(&goal).rev());
                results.map(|(rung, merit)| (trial.number, rung, merit))
            })
            .collect();
        let merits: Vec<Merit> = results.iter().map(|(_, _, merit)| *merit).collect();
        let found = front::front(&goal, &merits).into_iter().filter_map(|index| results.get(index));
        let mut found: Vec<(u32, usize, Vec<f64>)> =
            found.map(|(number, rung, merit)| (*number, *rung, merit.values().to_vec())).collect();
        found.dedup_by(|b, a| a.0 == b.0 && a.2 == b.2);
        found
    }

    pub(super) fn decide(&mut self, at: Timestamp, trial: Option<u32>, text: String) {
        let trial = trial.map(|number| self.trial_id(number));
        self.decisions.push(Decision { at, trial, text });
    }

    /// Ends the trials that have not ended, and says why of each.
    pub(super) fn end_trials(
        &mut self,
        now: Timestamp,
        state: &TrialState,
        why: &str,
        rules: Rules,
    ) {
        let mut ended = Vec::new();
        for trial in self.trials.values_mut_if(|trial| !trial.is_terminal()) {
            trial.state = state.clone();
            ended.push(trial.number);
        }
        if !rules.have_every_end_explained() {
            return;
        }
        for number in ended {
            self.decide(now, Some(number), why.to_owned());
        }
    }

    pub(super) fn end(&mut self, now: Timestamp, end: ExperimentEnd) {
        let text = match &end {
            ExperimentEnd::Completed => "completed".to_owned(),
            ExperimentEnd::Canceled => "canceled".to_owned(),
            ExperimentEnd::Failed { message } => format!("failed: {message}"),
        };
        self.decide(now, None, text);
        self.phase = Phase::Ended { end };
        self.ended_at = Some(now);
    }
}
