//! Who has which slots: the one place where a slot is given and taken back, and the books about it.

use std::collections::BTreeMap;

use muster_common::id::{ExperimentId, Generation, WorkerId};
use muster_common::time::Timestamp;

use super::Engine;

impl Engine {
    /// Gives a slot to a run.
    pub(super) fn occupy(&mut self, id: &WorkerId, generation: Generation, owner: &ExperimentId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.run = Some(generation);
            *self.held.entry(owner.clone()).or_insert(0) += 1;
        }
    }

    /// Takes the slot of a run's rank back, and counts how long it was used.
    pub(super) fn vacate(&mut self, now: Timestamp, id: &WorkerId, generation: Generation) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.run == Some(generation) {
            worker.run = None;
            self.settle_slot(now, generation);
        }
    }

    /// Books the end of one slot's use.
    pub(super) fn settle_slot(&mut self, now: Timestamp, generation: Generation) {
        let Some(run) = self.runs.get(&generation) else { return };
        if let Some(held) = self.held.get_mut(&run.experiment) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&run.experiment);
            }
        }
        let used = u64::try_from(now.since(run.started_at).as_millis()).unwrap_or(u64::MAX);
        if let Some(experiment) = self.experiments.get_mut(&run.experiment) {
            experiment.used_slot_ms = experiment.used_slot_ms.saturating_add(used);
        }
    }

    /// Slots that an experiment has now.
    pub fn held(&self, id: &ExperimentId) -> u32 {
        self.held.get(id).copied().unwrap_or(0)
    }

    /// Slots by the experiment that has them.
    pub fn all_held(&self) -> &BTreeMap<ExperimentId, u32> {
        &self.held
    }

    /// The books, from what workers say.
    pub(super) fn count_held(&self) -> BTreeMap<ExperimentId, u32> {
        let mut held = BTreeMap::new();
        for generation in self.workers.values().filter_map(|worker| worker.run) {
            if let Some(run) = self.runs.get(&generation) {
                *held.entry(run.experiment.clone()).or_insert(0) += 1;
            }
        }
        held
    }
}
