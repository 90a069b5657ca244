//! One trial.
//!
//! ```text
//! Pending -> Running -> Paused -> Running ... -> Completed
//!    ^          |          `-> Stopped (pruned)
//!    `----------'-> Stopped (diverged or early), Failed;   any of them -> Canceled
//! ```

use std::collections::BTreeSet;

use muster_common::evaluation::Evaluation;
use muster_common::goal::{Goal, Merit};
use muster_common::id::{ExperimentId, Generation};
use muster_common::manifest::{Assignment, CheckpointSettings};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::population::Descent;
use super::table::Row;
use crate::sweep::front;

/// One assignment of hyperparameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Number within the experiment, from 1.
    pub number: u32,
    /// Its hyperparameters.
    pub assignment: Assignment,
    /// Where it is.
    pub state: TrialState,
    /// Index of the rung that its first result is at.
    #[serde(default)]
    pub first_rung: usize,
    /// Rungs whose result is in.
    pub rungs_passed: usize,
    /// One result per passed rung.
    pub results: Vec<RungResult>,
    /// Checkpoints that exist, oldest first.
    pub checkpoints: Vec<CheckpointKey>,
    /// Checkpoints that are being deleted.
    pub deleting: Vec<CheckpointKey>,
    /// Runs started.
    pub attempts: u32,
    /// Runs that failed and were followed by another.
    pub restarts: u32,
    /// Runs lost with their worker that cost no restart.
    pub losses: u32,
    /// Its last run stopped early, with the best weights after so many updates.
    #[serde(default)]
    pub early_stop: Option<u64>,
    /// Where it went on from another trial's checkpoint, oldest first.
    #[serde(default)]
    pub lineage: Vec<Descent>,
    /// That checkpoint, until there is one of its own that was made since.
    #[serde(default)]
    pub origin: Option<CheckpointKey>,
    /// Number of the trial whose random choices it began with, if these are not its own.
    #[serde(default)]
    pub began_as: Option<u32>,
    /// Not started again before then.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// Runs for which memory was too small.
    #[serde(default)]
    pub memory_failures: u32,
    /// Runs in a row that were preempted, and not by the engine, before they had saved anything.
    #[serde(default)]
    pub preempted_in_vain: u32,
    /// A user holds it back.
    #[serde(default)]
    pub held: bool,
    /// Time of all its runs that are over, milliseconds.
    #[serde(default)]
    pub used_ms: u64,
    /// It diverged, and that counts at the rung that it was on its way to: behind all results.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ranks_last: bool,
}

/// Where a trial is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialState {
    /// Wants a slot.
    Pending,
    /// A run has it.
    Running {
        /// Which.
        generation: Generation,
    },
    /// Waits at a rung for promotion.
    Paused,
    /// Used its whole budget.
    Completed,
    /// Ended by the searcher.
    Stopped {
        /// Why.
        reason: StopReason,
    },
    /// A user ended the experiment.
    Canceled,
    /// Failed too often, or for a reason that stays.
    Failed {
        /// The last failure.
        message: String,
    },
}

/// What the scheduler asks of trials; those that are over are of no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrialKind {
    /// Wants a slot.
    Pending,
    /// A run has it.
    Running,
    /// Waits at a rung.
    Paused,
}

impl Row for Trial {
    type Kind = TrialKind;

    fn kind(&self) -> Option<TrialKind> {
        match self.state {
            TrialState::Pending => Some(TrialKind::Pending),
            TrialState::Running { .. } => Some(TrialKind::Running),
            TrialState::Paused => Some(TrialKind::Paused),
            TrialState::Completed
            | TrialState::Stopped { .. }
            | TrialState::Canceled
            | TrialState::Failed { .. } => None,
        }
    }
}

/// Why the searcher ended a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Others were better at its last rung.
    Pruned {
        /// Its place among the results of the rung, from 1.
        place: usize,
        /// Results of the rung.
        num_results: usize,
    },
    /// Its validation metric did not improve any more.
    NoImprovement {
        /// Optimizer updates of its best weights.
        best_step: u64,
    },
    /// A pruner's rule.
    Rule {
        /// The numbers that were compared, for people.
        text: String,
    },
    /// A trial was as good as was asked for.
    TargetReached {
        /// Which.
        by: u32,
    },
    /// Loss or objective not finite.
    Diverged {
        /// The step at which it was seen.
        step: u64,
    },
}

/// A result at a rung.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RungResult {
    /// Optimizer updates.
    pub step: u64,
    /// Scores on the validation split.
    pub evaluation: Evaluation,
    /// The state that was scored.
    pub checkpoint: CheckpointKey,
}

impl Trial {
    pub(super) fn new(number: u32, first_rung: usize, assignment: Assignment) -> Self {
        Self {
            number,
            assignment,
            state: TrialState::Pending,
            first_rung,
            rungs_passed: 0,
            results: Vec::new(),
            checkpoints: Vec::new(),
            deleting: Vec::new(),
            attempts: 0,
            restarts: 0,
            losses: 0,
            early_stop: None,
            lineage: Vec::new(),
            origin: None,
            began_as: None,
            not_before: None,
            memory_failures: 0,
            preempted_in_vain: 0,
            held: false,
            used_ms: 0,
            ranks_last: false,
        }
    }

    /// Whether nothing can happen to it any more.
    pub fn is_terminal(&self) -> bool {
        self.kind().is_none()
    }

    /// Whether it could be run now, if it waits for a slot.
    pub fn is_due(&self, now: Timestamp) -> bool {
        !self.held && self.not_before.is_none_or(|at| at <= now)
    }

    /// Index of the rung it trains for next; its last result is at the one below.
    pub fn rung(&self) -> usize {
        self.first_rung + self.rungs_passed
    }

    /// Its result at a rung.
    pub fn result_at(&self, rung: usize) -> Option<&RungResult> {
        self.results.get(rung.checked_sub(self.first_rung)?)
    }

    /// Steps that survive anything: those of the checkpoint it would go on from.
    pub fn committed_step(&self) -> u64 {
        self.resume_point().map_or(0, |checkpoint| checkpoint.step)
    }

    /// How good its results are, lowest rung first.
    pub fn merits(&self, goal: &Goal) -> impl DoubleEndedIterator<Item = Merit> {
        self.results.iter().map(|result| goal.merit(&result.evaluation))
    }

    /// How good it is at each rung that it counts at, lowest first: its results, and nothing where it diverged
    /// before there was one.
    pub fn counted_merits(&self, goal: &Goal) -> impl Iterator<Item = Merit> {
        self.merits(goal).chain(self.ranks_last.then_some(Merit::NONE))
    }

    /// How good it is at a rung; `None`: it does not count there.
    pub fn merit_at(&self, rung: usize, goal: &Goal) -> Option<Merit> {
        let missed = || (self.ranks_last && rung == self.rung()).then_some(Merit::NONE);
        self.result_at(rung).map(|result| goal.merit(&result.evaluation)).or_else(missed)
    }

    /// How good the last one is.
    pub fn last_merit(&self, goal: &Goal) -> Merit {
        self.results.last().map_or(Merit::NONE, |last| goal.merit(&last.evaluation))
    }

    /// Its best result, by rung.
    pub fn best_result(&self, goal: &Goal) -> Option<&RungResult> {
        let merit = |result: &RungResult| goal.merit(&result.evaluation);
        self.results
            .iter()
            .rev()
            .filter(|result| merit(result).is_finite())
            .min_by(|a, b| goal.standing(&merit(a), &merit(b)))
    }

    /// The results whose checkpoints are kept: the best, and of several objectives those of its own that
    /// none of them dominates.
    pub fn kept_results(&self, goal: &Goal) -> Vec<&RungResult> {
        let mut kept: Vec<&RungResult> = self.best_result(goal).into_iter().collect();
        if !goal.is_single() {
            let merits: Vec<Merit> = self.merits(goal).collect();
            let front = front::front(goal, &merits);
            kept.extend(front.into_iter().filter_map(|index| self.results.get(index)));
        }
        kept
    }

    /// Lets all that name its experiment share one name: each row of a snapshot brought its own.
    pub(super) fn share_name(&mut self, id: &ExperimentId) {
        let results = self.results.iter_mut().map(|result| &mut result.checkpoint);
        let kept = self.checkpoints.iter_mut().chain(&mut self.deleting).chain(&mut self.origin);
        for key in results.chain(kept).filter(|key| key.trial.experiment == *id) {
            key.trial.experiment = id.clone();
        }
    }

    /// Checkpoints of the results that are kept whatever else is, and of the best, of at most so many.
    fn best_checkpoints(&self, count: u32, goal: &Goal) -> BTreeSet<CheckpointKey> {
        let merit = |result: &RungResult| goal.merit(&result.evaluation);
        let finite = self.results.iter().rev().filter(|result| merit(result).is_finite());
        let mut ranked: Vec<&RungResult> = finite.collect();
        ranked.sort_by(|a, b| goal.standing(&merit(a), &merit(b)));
        let best = ranked.into_iter().take(count as usize).chain(self.kept_results(goal));
        best.map(|result| result.checkpoint.clone()).collect()
    }

    /// Moves checkpoints that nothing needs to `deleting`: those that `policy` does not keep, nor other
    /// trials have `wanted`.
    pub(super) fn retire_checkpoints(
        &mut self,
        policy: &CheckpointSettings,
        goal: &Goal,
        wanted: &BTreeSet<CheckpointKey>,
    ) -> Vec<CheckpointKey> {
        let best = self.best_checkpoints(policy.keep_best, goal);
        let num_old = self.checkpoints.len().saturating_sub(policy.keep_last as usize);
        let (old, new) = self.checkpoints.split_at(num_old);
        let is_due =
            |step: u64| policy.keep_every_steps.is_some_and(|every| step.is_multiple_of(every));
        let (kept, retired): (Vec<_>, Vec<_>) = old.iter().cloned().partition(|checkpoint| {
            best.contains(checkpoint) || is_due(checkpoint.step) || wanted.contains(checkpoint)
        });
        self.checkpoints = kept.into_iter().chain(new.iter().cloned()).collect();
        self.deleting.extend(retired.iter().cloned());
        retired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::id::TrialId;
    use muster_common::objective::{Mode, Objective, ObjectiveMetric};

    fn key(step: u64) -> CheckpointKey {
        let trial = TrialId { experiment: "demo-1".parse().unwrap(), number: 1 };
        CheckpointKey { trial, step, generation: Generation(1) }
    }

    /// Steps kept of ten checkpoints with results at the even ones, of which those in the middle are best.
    fn kept(policy: &CheckpointSettings) -> Vec<u64> {
        let mut trial = Trial::new(1, 0, Assignment::new());
        let goal = Goal::from(Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min });
        let mut all = Vec::new();
        for step in 1..=10 {
            trial.checkpoints.push(key(step));
            if step % 2 == 0 {
                let loss = step.abs_diff(5) as f64;
                let evaluation = Evaluation { loss, ..Evaluation::default() };
                trial.results.push(RungResult { step, evaluation, checkpoint: key(step) });
            }
            all.extend(trial.retire_checkpoints(policy, &goal, &BTreeSet::new()));
        }
        assert_eq!(trial.deleting, all);
        trial.checkpoints.iter().map(|checkpoint| checkpoint.step).collect()
    }

    #[test]
    fn the_newest_the_best_and_every_so_many_are_kept() {
        let policy = CheckpointSettings::DEFAULT;
        // Of equal results the later one is the best.
        assert_eq!(kept(&policy), [6, 9, 10]);
        assert_eq!(kept(&CheckpointSettings { keep_best: 2, ..policy.clone() }), [4, 6, 9, 10]);
        assert_eq!(kept(&CheckpointSettings { keep_last: 4, ..policy.clone() }), [6, 7, 8, 9, 10]);
        let every = CheckpointSettings { keep_every_steps: Some(3), ..policy };
        assert_eq!(kept(&every), [3, 6, 9, 10]);
    }
}
