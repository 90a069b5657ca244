//! What a run's words change.

use muster_common::evaluation::Evaluation;
use muster_common::id::Generation;
use muster_common::objective::ObjectiveMetric;
use muster_common::run::{RunExit, RunReport, Task};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;

use super::experiment::{Experiment, ExperimentEnd, Part, Phase};
use super::trial::{RungResult, StopReason, Trial, TrialState};
use super::{Action, Engine, Run};

/// Runs of one trial that may be lost with their workers before the trial itself is suspected.
const LOSSES_MAX: u32 = 16;

impl Engine {
    /// Counts an admitted report.
    pub(super) fn report(
        &mut self,
        now: Timestamp,
        generation: Generation,
        report: RunReport,
        actions: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get_mut(&generation) else { return };
        run.next_sequence += 1;
        if let RunReport::Ended { exit } = report {
            let Some(run) = self.runs.remove(&generation) else { return };
            if let Some(worker) = self.workers.get_mut(&run.worker) {
                worker.run = None;
            }
            return self.end_run(now, generation, &run, exit, true);
        }
        let Some(experiment) = self.experiments.get_mut(&run.experiment) else { return };
        match (&run.task, report) {
            (Task::Prepare { .. }, RunReport::Prepared(data)) => {
                experiment.data.get_or_insert(data);
            }
            (Task::Train(task), RunReport::CheckpointCommitted { checkpoint }) => {
                let number = task.trial.number;
                experiment.commit(number, checkpoint, actions);
            }
            (Task::Train(task), RunReport::Evaluated { step, evaluation }) => {
                experiment.evaluated(now, task.trial.number, step, evaluation);
            }
            (Task::Train(task), RunReport::EarlyStopped { step, best_step, evaluation }) => {
                let number = task.trial.number;
                experiment.stopped_early(now, number, (step, best_step), evaluation);
            }
            (Task::Finish { .. }, RunReport::Finished { test, model }) => {
                if let Some(best) = &mut experiment.best {
                    best.test = test;
                    best.model = Some(model);
                }
            }
            (_, report) => {
                let reason = format!("run {generation} has no business to report {report:?}");
                actions.push(Action::Rejected { reason });
            }
        }
    }

    /// Ends a run that has been taken out of the books. `counts`: a loss counts against the trial.
    pub(super) fn end_run(
        &mut self,
        now: Timestamp,
        generation: Generation,
        run: &Run,
        exit: RunExit,
        counts: bool,
    ) {
        let Some(experiment) = self.experiments.get_mut(&run.experiment) else { return };
        match &run.task {
            Task::Prepare { part, .. } => {
                experiment.end_part(now, *part as usize, generation, exit);
            }
            Task::Train(task) => {
                experiment.end_training(now, task.trial.number, generation, exit, counts);
            }
            Task::Finish { .. } => experiment.end_finish(now, generation, exit),
        }
    }
}

fn last_value(trial: &Trial, metric: ObjectiveMetric) -> f64 {
    trial.results.last().map_or(f64::NAN, |result| result.evaluation.value(metric))
}

impl Experiment {
    /// A checkpoint exists; older ones that nothing needs go.
    fn commit(&mut self, number: u32, checkpoint: CheckpointKey, actions: &mut Vec<Action>) {
        let objective = self.objective();
        let Some(trial) = self.trials.get_mut(&number) else { return };
        if trial.checkpoints.contains(&checkpoint) {
            return;
        }
        trial.checkpoints.push(checkpoint);
        let retired = trial.retire_checkpoints(self.manifest.checkpoint.keep_last, objective);
        for checkpoint in retired {
            let store = self.store.clone();
            actions.push(Action::DeleteCheckpoint { store, checkpoint });
        }
    }

    /// A rung's result is in. The checkpoint that was scored has been committed before.
    fn evaluated(&mut self, now: Timestamp, number: u32, step: u64, evaluation: Evaluation) {
        let metric = self.objective().metric;
        let ladder_length = self.ladder.len();
        let Some(trial) = self.trials.get(&number) else { return };
        let is_due = self.target_step(trial) == Some(step);
        if !is_due || !self.pass_rung(number, step, evaluation) {
            return;
        }
        let Some(trial) = self.trials.get(&number) else { return };
        let (rung, value) = (trial.rungs_passed, last_value(trial, metric));
        let text = format!(
            "{} {value:.4} after {step} steps, rung {rung} of {ladder_length}",
            metric.name()
        );
        self.decide(now, Some(number), text);
    }

    /// A trial gave up on its way to a rung, or at it: its result counts at that rung.
    fn stopped_early(
        &mut self,
        now: Timestamp,
        number: u32,
        (step, best_step): (u64, u64),
        evaluation: Evaluation,
    ) {
        let metric = self.objective().metric;
        let Some(trial) = self.trials.get(&number) else { return };
        let is_due = self.target_step(trial).is_some_and(|target| step <= target);
        if !is_due || !self.pass_rung(number, step, evaluation) {
            return;
        }
        let Some(trial) = self.trials.get_mut(&number) else { return };
        trial.early_stop = Some(best_step);
        let (name, value) = (metric.name(), last_value(trial, metric));
        let text = format!(
            "stopped: no improvement until step {step}; {name} {value:.4} after {best_step} steps"
        );
        self.decide(now, Some(number), text);
    }

    /// Adds a result whose checkpoint is known; whether it is.
    fn pass_rung(&mut self, number: u32, step: u64, evaluation: Evaluation) -> bool {
        let Some(trial) = self.trials.get_mut(&number) else { return false };
        let scored = trial.checkpoints.iter().rev().find(|checkpoint| checkpoint.step == step);
        let Some(checkpoint) = scored.cloned() else { return false };
        trial.results.push(RungResult { step, evaluation, checkpoint });
        trial.rungs_passed += 1;
        true
    }

    fn end_training(
        &mut self,
        now: Timestamp,
        number: u32,
        generation: Generation,
        exit: RunExit,
        counts: bool,
    ) {
        let max_restarts = self.manifest.max_restarts;
        let ladder_length = self.ladder.len();
        let Some(trial) = self.trials.get_mut(&number) else { return };
        if trial.state != (TrialState::Running { generation }) {
            return; // canceled in the meantime
        }
        let passed = trial.results.last().is_some_and(|result| {
            result.checkpoint.generation == generation && trial.results.len() == trial.rungs_passed
        });
        let mut note = None;
        trial.state = match exit {
            // The result is in, so the run's work is done however its process ended.
            _ if passed && trial.early_stop.is_some() => {
                let best_step = trial.early_stop.unwrap_or_default();
                TrialState::Stopped { reason: StopReason::NoImprovement { best_step } }
            }
            _ if passed && trial.rungs_passed == ladder_length => TrialState::Completed,
            _ if passed => TrialState::Paused,
            RunExit::Diverged { step } => {
                note = Some(format!("stopped: diverged at step {step}"));
                TrialState::Stopped { reason: StopReason::Diverged { step } }
            }
            RunExit::Preempted => TrialState::Pending,
            RunExit::Canceled => TrialState::Canceled,
            RunExit::Lost { reason } => {
                trial.losses += u32::from(counts);
                note = Some(format!("run {generation} lost: {reason}"));
                if trial.losses > LOSSES_MAX {
                    let message = format!("{} runs were lost, the last: {reason}", trial.losses);
                    TrialState::Failed { message }
                } else {
                    TrialState::Pending
                }
            }
            RunExit::Failed { message, permanent, .. } => {
                note = Some(format!("run {generation} failed: {message}"));
                if permanent || trial.restarts >= max_restarts {
                    TrialState::Failed { message }
                } else {
                    trial.restarts += 1;
                    TrialState::Pending
                }
            }
            RunExit::Completed => {
                let message = "the run ended without a result".to_owned();
                note = Some(format!("run {generation} failed: {message}"));
                TrialState::Failed { message }
            }
        };
        if let Some(text) = note {
            self.decide(now, Some(number), text);
        }
    }

    fn end_part(&mut self, now: Timestamp, index: usize, generation: Generation, exit: RunExit) {
        let Phase::Preparing { parts } = &mut self.phase else { return };
        let Some(part) = parts.get_mut(index).filter(|part| **part == Part::Running(generation))
        else {
            return;
        };
        *part = if exit == RunExit::Completed && self.data.is_some() {
            Part::Done
        } else {
            Part::Waiting
        };
        self.note_failure(now, "preparing the data", exit);
    }

    fn end_finish(&mut self, now: Timestamp, generation: Generation, exit: RunExit) {
        if self.phase != (Phase::Finishing { run: Some(generation) }) {
            return;
        }
        let is_written = self.best.as_ref().is_some_and(|best| best.model.is_some());
        if is_written {
            return self.end(now, ExperimentEnd::Completed);
        }
        self.phase = Phase::Finishing { run: None };
        self.note_failure(now, "writing the best model", exit);
    }

    /// Ends the experiment when work that is not a trial's failed for good or too often.
    fn note_failure(&mut self, now: Timestamp, what: &str, exit: RunExit) {
        let RunExit::Failed { message, permanent, .. } = exit else { return };
        self.failures += 1;
        let message = format!("{what}: {message}");
        if permanent || self.failures > self.manifest.max_restarts {
            for trial in self.trials.values_mut().filter(|trial| !trial.is_terminal()) {
                trial.state = TrialState::Canceled;
            }
            self.end(now, ExperimentEnd::Failed { message });
        } else {
            self.decide(now, None, format!("{message}; trying again"));
        }
    }
}
