//! What a run's words change.

use std::time::Duration;

use muster_common::count::counted;
use muster_common::evaluation::Evaluation;
use muster_common::goal::{Breach, Goal};
use muster_common::id::Generation;
use muster_common::run::{FailureClass, RunExit, RunReport, Task};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;

use super::experiment::{Experiment, ExperimentEnd, Part, Phase};
use super::failure::{
    Retry, class_of, retry, set_back_text, wait_after, wait_after_preemptions, when,
};
use super::run::Ending;
use super::trial::{RungResult, StopReason, Trial, TrialState};
use super::{Action, Engine, Rules, Run};

/// Runs of one trial that may be lost with their workers before the trial itself is suspected, under
/// the rules of before there were classes.
const LOSSES_MAX: u32 = 16;

impl Engine {
    /// Counts an admitted report.
    pub(super) fn report(
        &mut self,
        now: Timestamp,
        (generation, rank): (Generation, u32),
        report: RunReport,
        actions: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get_mut(&generation) else { return };
        let Some(member) = run.member_mut(rank) else { return };
        member.next_sequence += 1;
        match report {
            RunReport::Ended { exit } => {
                self.end_member(now, (generation, rank), exit, actions);
            }
            report if rank > 0 => {
                let reason =
                    format!("rank {rank} of run {generation} has no business to report {report:?}");
                actions.push(Action::Rejected { reason });
            }
            RunReport::RendezvousOpened { address } => {
                self.open_rendezvous(generation, address, actions);
            }
            report => self.count(now, generation, report, actions),
        }
    }

    /// Counts what rank 0 says of the work itself.
    fn count(
        &mut self,
        now: Timestamp,
        generation: Generation,
        report: RunReport,
        actions: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get(&generation) else { return };
        let id = run.experiment.clone();
        let Some(experiment) = self.experiments.get_mut(&id) else { return };
        let was_reached = experiment.target_reached.is_some();
        match (&run.task, report) {
            (Task::Prepare { .. }, RunReport::Prepared(data)) => {
                experiment.data.get_or_insert(data);
            }
            // Whoever names another's would have it deleted in time.
            (Task::Train(task), RunReport::CheckpointCommitted { checkpoint })
                if checkpoint.trial == task.trial && checkpoint.generation == generation =>
            {
                let is_last = checkpoint.step >= task.target_step;
                experiment.commit(task.trial.number, checkpoint, actions);
                if !is_last {
                    self.grow(now, generation, actions);
                }
                return;
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
        if !was_reached && experiment.target_reached.is_some() {
            self.leave_at_target(now, &id, generation, actions);
        }
    }

    /// Ends a run that has been taken out of the books.
    pub(super) fn end_run(&mut self, now: Timestamp, generation: Generation, run: &Run) {
        let rules = Rules(self.rules);
        let Some(experiment) = self.experiments.get_mut(&run.experiment) else { return };
        let ending = run.ending(rules);
        match &run.task {
            Task::Prepare { part, .. } => {
                experiment.end_part(now, *part as usize, generation, ending, rules);
            }
            Task::Train(task) => {
                let number = task.trial.number;
                experiment.end_training(now, number, generation, ending, rules);
                // The slots of a gang that goes on at once do not go to somebody else.
                let goes_on = |trial: &Trial| {
                    trial.state == TrialState::Pending && trial.not_before.is_none() && !trial.held
                };
                if run.members.len() > 1 && experiment.trials.get(&number).is_some_and(goes_on) {
                    experiment.waiting_since.get_or_insert(now);
                }
            }
            Task::Finish { .. } => experiment.end_finish(now, generation, ending, rules),
        }
    }
}

/// What a failure says of itself.
fn words(exit: RunExit) -> String {
    match exit {
        RunExit::Failed { message, .. } => message,
        RunExit::Lost { reason } => reason,
        other => other.to_string(),
    }
}

/// Its last result with the constraints that it breaks.
fn last_words(trial: &Trial, goal: &Goal) -> String {
    let Some(last) = trial.results.last() else { return String::new() };
    let breaches: Vec<String> = goal.breaches(&last.evaluation).iter().map(Breach::words).collect();
    let broken =
        if breaches.is_empty() { String::new() } else { format!(" ({})", breaches.join("; ")) };
    goal.words(&goal.merit(&last.evaluation)) + &broken
}

impl Experiment {
    /// A checkpoint exists; older ones that nothing needs go.
    fn commit(&mut self, number: u32, mut checkpoint: CheckpointKey, actions: &mut Vec<Action>) {
        let goal = self.goal();
        // The report brought a copy of the name; there is one for all.
        if checkpoint.trial.experiment == self.id {
            checkpoint.trial.experiment = self.id.clone();
        }
        let Some(trial) = self.trials.get_mut(&number) else { return };
        if trial.checkpoints.contains(&checkpoint) {
            return;
        }
        trial.checkpoints.push(checkpoint);
        trial.origin = None;
        trial.preempted_in_vain = 0;
        let mut wanted = self.wanted_checkpoints();
        wanted.extend(self.pinned.iter().cloned());
        // Results that come in while it is written, or after, do not make it another one.
        wanted.extend(self.best.iter().map(|best| best.checkpoint.clone()));
        // In a population, what others have may be needed no more either.
        let members: Vec<u32> = match self.population() {
            Some(_) => self.trials.keys().copied().collect(),
            None => vec![number],
        };
        let policy = self.manifest.checkpoint.clone();
        for number in members {
            let has_more = |trial: &Trial| trial.checkpoints.len() > policy.keep_last as usize;
            if !self.trials.get(&number).is_some_and(has_more) {
                continue;
            }
            let Some(trial) = self.trials.get_mut(&number) else { continue };
            for checkpoint in trial.retire_checkpoints(&policy, &goal, &wanted) {
                let store = self.store.clone();
                actions.push(Action::DeleteCheckpoint { store, checkpoint });
            }
        }
    }

    /// A rung's result is in. The checkpoint that was scored has been committed before.
    fn evaluated(&mut self, now: Timestamp, number: u32, step: u64, evaluation: Evaluation) {
        let goal = self.goal();
        let ladder_length = self.ladder.len();
        let Some(trial) = self.trials.get(&number) else { return };
        let is_due = self.target_step(trial) == Some(step);
        if !is_due || !self.pass_rung(number, step, evaluation) {
            return;
        }
        let Some(trial) = self.trials.get(&number) else { return };
        let (rung, words) = (trial.rung(), last_words(trial, &goal));
        let text =
            format!("{words} after {}, rung {rung} of {ladder_length}", counted(step, "step"));
        self.decide(now, Some(number), text);
        self.check_target(now, number);
    }

    /// A trial gave up on its way to a rung, or at it: its result counts at that rung.
    fn stopped_early(
        &mut self,
        now: Timestamp,
        number: u32,
        (step, best_step): (u64, u64),
        evaluation: Evaluation,
    ) {
        let goal = self.goal();
        let Some(trial) = self.trials.get(&number) else { return };
        let is_due = self.target_step(trial).is_some_and(|target| step <= target);
        if !is_due || !self.pass_rung(number, step, evaluation) {
            return;
        }
        let Some(trial) = self.trials.get_mut(&number) else { return };
        trial.early_stop = Some(best_step);
        let words = last_words(trial, &goal);
        let text = format!(
            "stopped: no improvement until step {step}; {words} after {}",
            counted(best_step, "step")
        );
        self.decide(now, Some(number), text);
        self.check_target(now, number);
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
        ending: Ending,
        rules: Rules,
    ) {
        let ladder_length = self.ladder.len();
        let is_target = self.target_reached == Some(number);
        let has_rung_behind = self.has_rung_behind(number, generation);
        // A member of a population that is gone takes no place from those that train on.
        let ranks_last = rules.count_divergence() && self.population().is_none();
        let Some(trial) = self.trials.get_mut(&number) else { return };
        if trial.state != (TrialState::Running { generation }) {
            return; // canceled in the meantime
        }
        let passed = trial.results.last().is_some_and(|result| {
            result.checkpoint.generation == generation && trial.results.len() == trial.rungs_passed
        });
        let is_set_back = ending.is_set_back(rules);
        let mut note = None;
        trial.state = match ending.exit {
            // The result is in, so the run's work is done however its process ended.
            _ if passed && trial.early_stop.is_some() => {
                let best_step = trial.early_stop.unwrap_or_default();
                TrialState::Stopped { reason: StopReason::NoImprovement { best_step } }
            }
            _ if passed && trial.rung() == ladder_length => TrialState::Completed,
            _ if passed && is_target => {
                TrialState::Stopped { reason: StopReason::TargetReached { by: number } }
            }
            _ if passed => {
                trial.state = TrialState::Paused;
                return self.judge(now, (number, generation), rules);
            }
            RunExit::Diverged { step } if has_rung_behind => {
                trial.state = TrialState::Paused;
                return self.judge_member(now, (number, generation), Some(step), rules);
            }
            RunExit::Diverged { step } => {
                trial.ranks_last = ranks_last;
                note = Some(format!("stopped: diverged at step {step}"));
                TrialState::Stopped { reason: StopReason::Diverged { step } }
            }
            RunExit::Preempted => TrialState::Pending,
            RunExit::Canceled => TrialState::Canceled,
            exit @ (RunExit::Lost { .. } | RunExit::Failed { .. }) => {
                let ending = Ending { exit, ..ending };
                return self.fail_training(now, number, generation, ending, rules);
            }
            RunExit::Completed => {
                let message = "the run ended without a result".to_owned();
                note = Some(format!("run {generation} failed: {message}"));
                TrialState::Failed { message }
            }
        };
        if trial.state == TrialState::Canceled && rules.have_every_end_explained() {
            note = Some(format!("canceled: run {generation} gave up"));
        }
        if is_set_back && trial.state == TrialState::Pending {
            note =
                trial.set_back(now).map(|times| format!("run {generation} was preempted, {times}"));
        }
        if let Some(text) = note {
            self.decide(now, Some(number), text);
        }
    }

    /// A trial's run failed or was lost: the rule of its class says what follows.
    fn fail_training(
        &mut self,
        now: Timestamp,
        number: u32,
        generation: Generation,
        ending: Ending,
        rules: Rules,
    ) {
        let (max_restarts, slots) = (self.manifest.max_restarts, self.manifest.resources.slots);
        let Some(trial) = self.trials.get_mut(&number) else { return };
        let class = class_of(&ending.exit).unwrap_or_default();
        if class == FailureClass::Preempted && ending.is_set_back(rules) {
            trial.preempted_in_vain = trial.preempted_in_vain.saturating_add(1);
        }
        let verdict = match (&ending.exit, rules.have_classes()) {
            (RunExit::Lost { .. }, _) if !ending.counts => Retry::Free(Duration::ZERO),
            (RunExit::Lost { .. }, false) if trial.losses >= LOSSES_MAX => Retry::Never,
            (RunExit::Lost { .. }, false) => Retry::Free(Duration::ZERO),
            (RunExit::Failed { permanent: true, .. }, false) => Retry::Never,
            (_, false) if trial.restarts >= max_restarts => Retry::Never,
            (_, false) => Retry::After(Duration::ZERO),
            (_, true) => retry(class, trial, max_restarts, slots.is_elastic()),
        };
        let message = words(ending.exit);
        let kind = class.name();
        let what = match class {
            FailureClass::Other => format!("run {generation} failed: {message}"),
            _ => format!("run {generation} failed ({kind}): {message}"),
        };
        trial.losses += u32::from(matches!(verdict, Retry::Free(_)) && ending.counts);
        trial.memory_failures += u32::from(class == FailureClass::OutOfMemory);
        let text = match verdict {
            Retry::Free(wait) => {
                trial.wait(now, wait);
                let when = match wait.as_secs() {
                    0 => String::new(),
                    seconds => format!(" in {seconds} s"),
                };
                format!("{what}; it goes on{when}, which costs no restart")
            }
            Retry::After(wait) => {
                trial.restarts += 1;
                trial.wait(now, wait);
                let when = when(wait);
                format!("{what}; restart {} of {max_restarts} {when}", trial.restarts)
            }
            Retry::Never => {
                let message = match (class, trial.restarts) {
                    (FailureClass::BadData | FailureClass::Other, 0) => message,
                    (_, 0) => format!("{kind}: {message}"),
                    (_, restarts) => {
                        format!(
                            "{kind}, given up after {}: {message}",
                            counted(restarts, "restart")
                        )
                    }
                };
                trial.state = TrialState::Failed { message };
                format!("{what}; given up")
            }
        };
        self.decide(now, Some(number), text);
    }

    fn end_part(
        &mut self,
        now: Timestamp,
        index: usize,
        generation: Generation,
        ending: Ending,
        rules: Rules,
    ) {
        let Phase::Preparing { parts } = &mut self.phase else { return };
        let Some(part) = parts.get_mut(index).filter(|part| **part == Part::Running(generation))
        else {
            return;
        };
        *part = if ending.exit == RunExit::Completed && self.data.is_some() {
            self.preempted_in_vain = 0;
            Part::Done
        } else {
            Part::Waiting
        };
        self.note_failure(now, "preparing the data", ending, rules);
    }

    fn end_finish(&mut self, now: Timestamp, generation: Generation, ending: Ending, rules: Rules) {
        if self.phase != (Phase::Finishing { run: Some(generation) }) {
            return;
        }
        let is_written = self.best.as_ref().is_some_and(|best| best.model.is_some());
        if is_written {
            return self.end(now, ExperimentEnd::Completed);
        }
        self.phase = Phase::Finishing { run: None };
        self.note_failure(now, "writing the best model", ending, rules);
    }

    /// Work that is not a trial's was preempted. What its parts have done stays done, so nothing else is in vain.
    fn set_back(&mut self, now: Timestamp, what: &str) {
        self.preempted_in_vain = self.preempted_in_vain.saturating_add(1);
        let wait = wait_after_preemptions(self.preempted_in_vain);
        self.not_before = (!wait.is_zero()).then(|| now.after(wait));
        if let Some(times) = set_back_text(self.preempted_in_vain, wait) {
            self.decide(now, None, format!("{what} was preempted, {times}"));
        }
    }

    /// Ends the experiment when work that is not a trial's failed for good or too often.
    fn note_failure(&mut self, now: Timestamp, what: &str, ending: Ending, rules: Rules) {
        if ending.is_set_back(rules) {
            return self.set_back(now, what);
        }
        let permanent = match &ending.exit {
            RunExit::Failed { class: FailureClass::Preempted, .. } if rules.have_classes() => {
                return;
            }
            RunExit::Failed { permanent, class, .. } => {
                *permanent || (rules.have_classes() && *class == FailureClass::BadData)
            }
            RunExit::Lost { .. } if rules.have_classes() && ending.counts => false,
            _ => return,
        };
        let num_before = self.failures;
        self.failures += 1;
        let class = class_of(&ending.exit).unwrap_or_default();
        let kind = match class {
            FailureClass::BadData | FailureClass::Other => String::new(),
            class => format!(" ({})", class.name()),
        };
        let message = format!("{what}{kind}: {}", words(ending.exit));
        if permanent || self.failures > self.manifest.max_restarts {
            let why = format!("canceled: the experiment failed: {message}");
            self.end_trials(now, &TrialState::Canceled, &why, rules);
            self.end(now, ExperimentEnd::Failed { message });
        } else if rules.retry_ends() {
            let wait = wait_after(class, num_before);
            self.not_before = (!wait.is_zero()).then(|| now.after(wait));
            self.decide(now, None, format!("{message}; trying again {}", when(wait)));
        } else {
            self.decide(now, None, format!("{message}; trying again"));
        }
    }
}
