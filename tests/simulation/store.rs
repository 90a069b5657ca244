//! The object store, and the coordinator's work on it: chores are done in any order, may fail, and are tried again by
//! the next start.

use std::collections::BTreeSet;

use muster_common::id::ExperimentId;
use muster_common::storage::CheckpointKey;
use muster_coordinator::engine::experiment::Experiment;
use muster_coordinator::engine::{Action, Event};
use muster_coordinator::live::ToWorker;

use super::Simulation;
use super::chance::Chance;

/// What lies in the store.
#[derive(Debug, Default)]
pub(super) struct ObjectStore {
    pub(super) checkpoints: BTreeSet<CheckpointKey>,
    /// Those of them that cannot be read any more.
    pub(super) harmed: BTreeSet<CheckpointKey>,
    manifests: BTreeSet<ExperimentId>,
}

impl Simulation {
    /// Performs the next action: workers are told at once, the store has to wait.
    pub(super) fn perform(&mut self) -> bool {
        let Some(action) = self.messages.pop_front() else { return false };
        let (worker, message) = match action {
            Action::StartRun { worker, spec } => (worker, ToWorker::Assign(spec)),
            Action::DirectRun { worker, generation, directive } => {
                (worker, ToWorker::Direct { generation, directive })
            }
            Action::StoreManifest { .. } | Action::DeleteCheckpoint { .. } => {
                self.chores.push(action);
                return true;
            }
            Action::Created { .. } | Action::Rejected { .. } => return true,
        };
        // One that is not connected will be told when it comes back.
        let process = self.processes.get_mut(&worker);
        if let Some(process) = process.filter(|process| process.line.session.is_some()) {
            process.line.down.push_back(message);
        }
        true
    }

    /// Does one of the chores.
    pub(super) fn do_chore(&mut self) -> bool {
        let count = self.chores.len() as u64;
        if count == 0 {
            return false;
        }
        let index = usize::try_from(self.draws.below(count)).unwrap();
        match self.chores.swap_remove(index) {
            Action::StoreManifest { experiment, .. } => {
                if self.happens(Chance::StoreFails) {
                    self.see("manifest not stored");
                } else {
                    self.store.manifests.insert(experiment);
                }
            }
            Action::DeleteCheckpoint { checkpoint, .. } => self.delete(checkpoint),
            other => panic!("{other:?} is no chore"),
        }
        true
    }

    fn delete(&mut self, checkpoint: CheckpointKey) {
        if self.happens(Chance::DeleteFails) {
            self.see("checkpoint not deleted");
            // The answer got lost, or nothing came of it.
            if self.draws.below(2) == 0 {
                self.store.checkpoints.remove(&checkpoint);
            }
            return;
        }
        self.store.checkpoints.remove(&checkpoint);
        self.store.harmed.remove(&checkpoint);
        self.memory.deleted(&checkpoint);
        self.apply(Event::CheckpointDeleted { checkpoint });
    }

    /// A start finds everything again that may not have happened.
    pub(super) fn check_outstanding(&self, outstanding: &[Action]) {
        let mut manifests: BTreeSet<&ExperimentId> = self.store.manifests.iter().collect();
        let mut deletions = BTreeSet::new();
        for action in outstanding {
            match action {
                Action::StoreManifest { experiment, .. } => {
                    manifests.insert(experiment);
                }
                Action::DeleteCheckpoint { checkpoint, .. } => {
                    deletions.insert(checkpoint);
                }
                other => panic!("{other:?} is outstanding"),
            }
        }
        for experiment in self.live.experiments() {
            let has_manifest = experiment.is_ended() || manifests.contains(&experiment.id);
            assert!(has_manifest, "the manifest of {} is never stored", experiment.id);
            for checkpoint in experiment.trials.values().flat_map(|trial| &trial.deleting) {
                assert!(deletions.contains(checkpoint), "{checkpoint} is never deleted");
            }
        }
        self.check_checkpoints();
    }

    /// What is kept lies in the store, and what was ever spoken of is kept, or is being deleted.
    pub(super) fn check_checkpoints(&self) {
        let kept = |experiment: &Experiment| {
            let kept = experiment.trials.values().flat_map(|trial| trial.checkpoints.clone());
            kept.collect::<Vec<CheckpointKey>>()
        };
        for checkpoint in self.live.experiments().flat_map(kept) {
            assert!(self.store.checkpoints.contains(&checkpoint), "{checkpoint} is not there");
        }
        self.memory.check_checkpoints(&self.live);
    }
}
