//! What users ask of experiments and trials while they run.

use muster_common::id::{ExperimentId, TrialId};
use muster_common::run::Directive;
use muster_common::time::Timestamp;

use super::experiment::{Experiment, ExperimentEnd};
use super::trial::TrialState;
use super::{Action, Engine, Rules};

impl Engine {
    /// Holds an experiment back: running trials save themselves and leave.
    pub(super) fn pause(&mut self, now: Timestamp, id: &ExperimentId, actions: &mut Vec<Action>) {
        let Some(experiment) = self.open_mut(id, actions) else { return };
        if !experiment.paused {
            experiment.paused = true;
            experiment.decide(now, None, "paused".to_owned());
        }
        self.direct_runs(now, id, Directive::Preempt, actions);
    }

    /// Lets an experiment go on that is paused, or that has ended without the model of its best trial.
    pub(super) fn resume(&mut self, now: Timestamp, id: &ExperimentId, actions: &mut Vec<Action>) {
        let retries_ends = Rules(self.rules).retry_ends();
        let lacking = self.experiments.get(id).is_some_and(Experiment::lacks_model);
        if let Some(experiment) = self.experiments.get_mut(id).filter(|_| lacking && retries_ends) {
            return experiment.finish_again(now);
        }
        let Some(experiment) = self.open_mut(id, actions) else { return };
        if experiment.paused {
            experiment.paused = false;
            experiment.decide(now, None, "resumed".to_owned());
        }
    }

    /// Ends an experiment.
    pub(super) fn cancel(&mut self, now: Timestamp, id: &ExperimentId, actions: &mut Vec<Action>) {
        let rules = Rules(self.rules);
        let Some(experiment) = self.open_mut(id, actions) else { return };
        let why = "canceled: a user ended the experiment";
        experiment.end_trials(now, &TrialState::Canceled, why, rules);
        experiment.end(now, ExperimentEnd::Canceled);
        self.direct_runs(now, id, Directive::Cancel, actions);
    }

    /// Gives an experiment another priority.
    pub(super) fn prioritize(
        &mut self,
        now: Timestamp,
        id: &ExperimentId,
        priority: i32,
        actions: &mut Vec<Action>,
    ) {
        let Some(experiment) = self.open_mut(id, actions) else { return };
        if experiment.priority != priority {
            let text = format!("priority {priority} instead of {}", experiment.priority);
            experiment.priority = priority;
            experiment.decide(now, None, text);
        }
    }

    /// Holds one trial back; a running one saves itself and leaves.
    pub(super) fn hold_trial(&mut self, now: Timestamp, id: &TrialId, actions: &mut Vec<Action>) {
        let Some(experiment) = self.open_trial(id, actions) else { return };
        let Some(trial) = experiment.trials.get_mut(&id.number) else { return };
        let generation = match trial.state {
            TrialState::Running { generation } => Some(generation),
            _ => None,
        };
        if !trial.held {
            trial.held = true;
            experiment.decide(now, Some(id.number), "paused by a user".to_owned());
        }
        if let Some(generation) = generation {
            self.direct(now, generation, Directive::Preempt, actions);
        }
    }

    /// Lets a trial that was held back go on.
    pub(super) fn release_trial(
        &mut self,
        now: Timestamp,
        id: &TrialId,
        actions: &mut Vec<Action>,
    ) {
        let Some(experiment) = self.open_trial(id, actions) else { return };
        let Some(trial) = experiment.trials.get_mut(&id.number) else { return };
        if trial.held {
            trial.held = false;
            experiment.decide(now, Some(id.number), "resumed by a user".to_owned());
        }
    }

    /// Ends one trial; what it has reached so far counts.
    pub(super) fn cancel_trial(&mut self, now: Timestamp, id: &TrialId, actions: &mut Vec<Action>) {
        let Some(experiment) = self.open_trial(id, actions) else { return };
        let Some(trial) = experiment.trials.get_mut(&id.number) else { return };
        let before = std::mem::replace(&mut trial.state, TrialState::Canceled);
        experiment.decide(now, Some(id.number), "canceled by a user".to_owned());
        if let TrialState::Running { generation } = before {
            self.direct(now, generation, Directive::Cancel, actions);
        }
    }

    fn open_mut(
        &mut self,
        id: &ExperimentId,
        actions: &mut Vec<Action>,
    ) -> Option<&mut Experiment> {
        let reason = match self.experiments.get(id) {
            None => format!("no experiment `{id}`; `muster ls` lists them"),
            Some(experiment) if experiment.is_ended() => {
                format!("experiment {id} has ended; `muster fork {id}` runs it again")
            }
            Some(_) => return self.experiments.get_mut(id),
        };
        actions.push(Action::Rejected { reason });
        None
    }

    /// The experiment of a trial that has not ended.
    fn open_trial(&mut self, id: &TrialId, actions: &mut Vec<Action>) -> Option<&mut Experiment> {
        let experiment = self.open_mut(&id.experiment, actions)?;
        let reason = match experiment.trials.get(&id.number) {
            None => format!("no trial `{id}`; there are {} so far", experiment.trials.len()),
            Some(trial) if trial.is_terminal() => format!("trial {id} has ended"),
            Some(_) => return Some(experiment),
        };
        actions.push(Action::Rejected { reason });
        None
    }
}
