//! Limits of time: what an experiment or a trial may use, and what happens when it has.

use std::time::Duration;

use muster_common::id::ExperimentId;
use muster_common::manifest::Limits;
use muster_common::run::{Directive, Task};
use muster_common::time::Timestamp;

use super::experiment::{Experiment, ExperimentEnd, Phase};
use super::trial::{StopReason, Trial, TrialKind, TrialState};
use super::{Action, Engine, Rules};

impl Engine {
    /// Ends what has reached a limit.
    pub(super) fn enforce_limits(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let limited =
            self.experiments.of(()).filter(|(_, e)| e.manifest.limits != Limits::default());
        let limited: Vec<ExperimentId> = limited.map(|(id, _)| id.clone()).collect();
        for id in limited {
            let is_due = |(at, _): &(Timestamp, String)| *at <= now;
            let due = self.experiments.get(&id).and_then(|experiment| self.limit_of(experiment));
            if let Some((_, text)) = due.filter(is_due) {
                self.end_at_limit(now, &id, &text, actions);
                continue;
            }
            for (number, _, text) in
                self.trial_limits(&id).into_iter().filter(|(_, at, _)| *at <= now)
            {
                self.stop_at_limit(now, &id, number, &text, actions);
            }
            if self.is_strict() {
                self.stop_used_up(now, &id);
            }
        }
    }

    /// Ends trials that are not at work and have used all their time: they would begin in vain.
    fn stop_used_up(&mut self, now: Timestamp, id: &ExperimentId) {
        let Some(experiment) = self.experiments.get(id) else { return };
        let Some(hours) = experiment.manifest.limits.trial_hours else { return };
        let left = |trial: &Trial| {
            Limits::time(hours).saturating_sub(Duration::from_millis(trial.used_ms))
        };
        let waiting = [TrialKind::Pending, TrialKind::Paused].into_iter();
        let waiting = waiting.flat_map(|kind| experiment.trials.of(kind));
        let used_up: Vec<u32> =
            waiting.filter(|(_, trial)| left(trial).is_zero()).map(|(number, _)| *number).collect();
        for number in used_up {
            let Some(experiment) = self.experiments.get_mut(id) else { return };
            let Some(trial) = experiment.trials.get_mut(&number) else { continue };
            let text = trial_limit(hours);
            trial.state = TrialState::Stopped { reason: StopReason::Rule { text: text.clone() } };
            experiment.decide(now, Some(number), format!("stopped: {text}"));
        }
    }

    /// When the next limit is reached if all goes on as it does.
    pub(super) fn next_limit(&self) -> Option<Timestamp> {
        let limited =
            self.experiments.of(()).filter(|(_, e)| e.manifest.limits != Limits::default());
        let times = limited.flat_map(|(id, experiment)| {
            let own = self.limit_of(experiment).map(|(at, _)| at);
            own.into_iter().chain(self.trial_limits(id).into_iter().map(|(_, at, _)| at))
        });
        times.min()
    }

    /// When an experiment's search reaches a limit, and which.
    fn limit_of(&self, experiment: &Experiment) -> Option<(Timestamp, String)> {
        if experiment.limit_reached.is_some() || matches!(experiment.phase, Phase::Finishing { .. })
        {
            return None;
        }
        let limits = experiment.manifest.limits;
        let by_time = limits.hours.and_then(|hours| {
            let at = experiment.begun_at?.after(Limits::time(hours));
            Some((at, format!("limits.hours: {hours} h have passed")))
        });
        let by_use = limits.slot_hours.and_then(|hours| {
            let text = format!("limits.slot_hours: {hours} slot-hours are used");
            Some((self.use_reaches(experiment, Limits::time(hours))?, text))
        });
        by_time.into_iter().chain(by_use).min_by_key(|(at, _)| *at)
    }

    /// When an experiment has used its slots for so long in all; `None`: not as it is now.
    fn use_reaches(&self, experiment: &Experiment, limit: Duration) -> Option<Timestamp> {
        let clock = self.clock?;
        let runs = self.runs.values().filter(|run| run.experiment == experiment.id);
        let mut used = Duration::from_millis(experiment.used_slot_ms);
        let mut num_slots = 0;
        for run in runs {
            let working = u32::try_from(run.num_working()).unwrap_or(u32::MAX);
            used += clock.since(run.started_at) * working;
            num_slots += working;
        }
        let left = limit.saturating_sub(used);
        if left.is_zero() {
            return Some(clock);
        }
        (num_slots > 0).then(|| clock.after((left / num_slots).max(Duration::from_millis(1))))
    }

    /// Trials at work that may use only so much time: number, when it is used up, the limit.
    fn trial_limits(&self, id: &ExperimentId) -> Vec<(u32, Timestamp, String)> {
        let Some(experiment) = self.experiments.get(id) else { return Vec::new() };
        let Some(hours) = experiment.manifest.limits.trial_hours else { return Vec::new() };
        let running = experiment.trials.of(TrialKind::Running);
        let limit = |trial: &Trial| {
            let TrialState::Running { generation } = trial.state else { return None };
            let run = self.runs.get(&generation)?;
            let left = Limits::time(hours).saturating_sub(Duration::from_millis(trial.used_ms));
            Some((trial.number, run.started_at.after(left), trial_limit(hours)))
        };
        running.filter_map(|(_, trial)| limit(trial)).collect()
    }

    fn end_at_limit(
        &mut self,
        now: Timestamp,
        id: &ExperimentId,
        text: &str,
        actions: &mut Vec<Action>,
    ) {
        let rules = Rules(self.rules);
        let Some(experiment) = self.experiments.get_mut(id) else { return };
        experiment.limit_reached = Some(text.to_owned());
        experiment.decide(now, None, format!("{text}: the search ends"));
        if matches!(experiment.phase, Phase::Preparing { .. }) {
            let message = format!("{text} before a trial could begin");
            experiment.end(now, ExperimentEnd::Failed { message });
        }
        let state = TrialState::Stopped { reason: StopReason::Rule { text: text.to_owned() } };
        experiment.end_trials(now, &state, &format!("stopped: {text}"), rules);
        self.direct_runs(now, id, Directive::Cancel, actions);
    }

    fn stop_at_limit(
        &mut self,
        now: Timestamp,
        id: &ExperimentId,
        number: u32,
        text: &str,
        actions: &mut Vec<Action>,
    ) {
        let Some(experiment) = self.experiments.get_mut(id) else { return };
        let Some(trial) = experiment.trials.get_mut(&number) else { return };
        let TrialState::Running { generation } = trial.state else { return };
        trial.state = TrialState::Stopped { reason: StopReason::Rule { text: text.to_owned() } };
        experiment.decide(now, Some(number), format!("stopped: {text}"));
        self.direct(now, generation, Directive::Cancel, actions);
    }

    /// Counts the time of a trial's run that is over.
    pub(super) fn count_trial_time(&mut self, now: Timestamp, run: &super::Run) {
        let Task::Train(task) = &run.task else { return };
        let Some(experiment) = self.experiments.get_mut(&run.experiment) else { return };
        if let Some(trial) = experiment.trials.get_mut(&task.trial.number) {
            let used = u64::try_from(now.since(run.started_at).as_millis()).unwrap_or(u64::MAX);
            trial.used_ms = trial.used_ms.saturating_add(used);
        }
    }
}

/// Why a trial ends that has used its time.
fn trial_limit(hours: f64) -> String {
    format!("limits.trial_hours: {hours} h are used")
}
