//! Workers that are about to leave, and how many slots would be of use: what a cluster is asked for.

use muster_common::id::WorkerId;
use muster_common::run::Directive;
use muster_common::time::Timestamp;

use super::{Action, Engine};

impl Engine {
    /// A worker gets no new runs. The one it has saves itself, with all its ranks, and goes on elsewhere.
    pub(super) fn drain(
        &mut self,
        now: Timestamp,
        id: &WorkerId,
        reason: &str,
        actions: &mut Vec<Action>,
    ) {
        let Some(worker) = self.workers.get_mut(id).filter(|worker| !worker.draining) else {
            return;
        };
        worker.draining = true;
        let Some(generation) = worker.run else { return };
        let Some(run) = self.runs.get(&generation).filter(|run| run.directive.is_none()) else {
            return;
        };
        let number = run.task.trial().map(|trial| trial.number);
        if let Some(experiment) = self.experiments.get_mut(&run.experiment) {
            let text = format!("run {generation} leaves its slots: {reason}");
            experiment.decide(now, number, text);
        }
        self.direct(now, generation, Directive::Preempt, actions);
    }

    /// Slots that would be of use now: those in use, and those that could begin something at once.
    pub fn slots_of_use(&self, now: Timestamp) -> u32 {
        let held = self.held.values().fold(0u32, |sum, held| sum.saturating_add(*held));
        self.open_experiments().into_iter().fold(held, |sum, experiment| {
            let Some(slots) = experiment.slots_wanted(now) else { return sum };
            let wanted = experiment.num_startable(now).saturating_mul(slots.max());
            sum.saturating_add(wanted.min(self.room(experiment).slots))
        })
    }
}
