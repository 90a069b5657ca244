//! What users do, and everything else that comes by itself.

use std::collections::BTreeMap;

use muster_common::id::{ExperimentId, TrialId, WorkerId};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use muster_coordinator::engine::line::ProjectPolicy;
use muster_coordinator::engine::{Admission, Event};

use super::Simulation;
use super::chance::Chance;
use super::disk::{LOCAL, REMOTE};
use super::manifests::manifest;
use super::process::Process;

/// Passes of the engine until it has no more to say, at most.
const PASSES_MAX: usize = 4;

impl Simulation {
    /// Something comes by itself.
    pub(super) fn befall(&mut self) {
        let Some(chance) = self.chances.draw(&mut self.draws) else { return };
        match chance {
            Chance::Submit => self.submit(),
            Chance::Join => {
                let kind = if self.draws.below(3) == 0 { LOCAL } else { REMOTE };
                self.start_worker(kind);
            }
            Chance::Kill => self.kill(),
            Chance::Restart => self.restart(),
            Chance::Leave => {
                let is_meant = |p: &Process| p.line.session.is_some() && !p.is_leaving;
                let id = self.pick_process(is_meant);
                self.with_process(id, Process::leave);
            }
            Chance::Drain => {
                let id = self.pick_process(|p| !p.is_draining && !p.is_leaving);
                self.with_process(id, Process::drain);
            }
            Chance::Lease => self.expire_lease(),
            Chance::Pause | Chance::Resume | Chance::Cancel => self.steer(chance),
            Chance::Wish => self.wish(),
            Chance::Twice => self.say_twice(),
            Chance::Wait => self.wait(),
            Chance::ClockSetBack => {
                self.see("clock set back");
                self.now = self.now.saturating_sub(self.draws.below(30_000));
            }
            Chance::Partition => self.part(),
            Chance::Heal => self.heal(),
            Chance::Crash => {
                self.power_cut();
                self.start_again();
            }
            Chance::Stall => {
                self.see("disk stalled");
                self.disk.stall = 1 + self.draws.below(30);
            }
            Chance::Harm => self.harm(),
            _ => panic!("{chance:?} does not come by itself"),
        }
    }

    fn with_process(&mut self, id: Option<WorkerId>, change: impl Fn(&mut Process)) {
        let Some(id) = id else { return };
        if let Some(process) = self.processes.get_mut(&id) {
            change(process);
        }
    }

    pub(super) fn submit(&mut self) {
        let manifest = Box::new(manifest(&mut self.draws));
        if let Some(searcher) = &manifest.searcher {
            self.see(searcher.sampler.name());
            self.see(searcher.pruner.name());
        }
        let (text, store) = ("text".to_owned(), "file:///store".to_owned());
        let users = ["ada", "ben", "cleo"];
        let owner = self.pick(&users).map(|name| name.parse().unwrap());
        self.apply(Event::ExperimentSubmitted { manifest, text, store, owner, base: None });
    }

    fn steer(&mut self, chance: Chance) {
        let experiments: Vec<ExperimentId> =
            self.live.experiments().map(|experiment| experiment.id.clone()).collect();
        let Some(experiment) = self.pick(&experiments) else { return };
        match chance {
            Chance::Pause => self.apply(Event::ExperimentPaused { experiment }),
            Chance::Resume => self.apply(Event::ExperimentResumed { experiment }),
            Chance::Cancel if self.draws.below(6) == 0 => {
                self.apply(Event::ExperimentCanceled { experiment });
            }
            _ => {}
        }
    }

    /// Lets time pass, up to a minute, or until what the engine waits for.
    fn wait(&mut self) {
        match self.live.next_timer().filter(|_| self.draws.below(2) == 0) {
            Some(at) => self.now = self.now.max(at.0),
            None => self.now += self.draws.below(60_000),
        }
        self.apply(Event::TimerFired);
    }

    /// A report that was counted comes once more.
    fn say_twice(&mut self) {
        let count = self.disk.events.len() as u64;
        if count == 0 {
            return;
        }
        let index = usize::try_from(self.draws.below(count)).unwrap();
        let (_, event) = self.disk.events[index].clone();
        if let Event::RunReported { generation, rank, sequence, .. } = event {
            let admission = self.live.admit(generation, rank, sequence);
            assert_ne!(admission, Admission::New, "what was counted is not new");
            self.stays_the_same(event);
        }
    }

    /// Applies an event that must change nothing but the clock.
    pub(super) fn stays_the_same(&mut self, event: Event) {
        // Brings the clock to where the event finds it, and does what is due; what an end sets free in one pass is
        // spoken for in the next.
        let mut before = self.live.clone();
        for _ in 0..PASSES_MAX {
            self.apply(Event::TimerFired);
            let is_quiet = std::mem::replace(&mut before, self.live.clone()) == self.live;
            if is_quiet {
                break;
            }
        }
        self.apply_at(Timestamp(self.now), event);
        assert_eq!(before, self.live, "what was counted counts once");
    }

    /// A user changes their mind about a trial, a priority, or what projects may use.
    fn wish(&mut self) {
        let trials: Vec<TrialId> = self
            .live
            .experiments()
            .flat_map(|e| e.trials.keys().map(|number| e.trial_id(*number)))
            .collect();
        match (self.draws.below(8), self.pick(&trials)) {
            (0, _) => {
                let policy =
                    ProjectPolicy { weight: 1 + self.draw(4), max_slots: Some(4 + self.draw(3)) };
                let projects = BTreeMap::from([("ada".parse().unwrap(), policy)]);
                // Not while more are in use: runs are not stopped for a quota.
                if self.live.held_by_project().values().all(|held| *held <= 4) {
                    self.apply(Event::ProjectsSet { projects });
                }
            }
            (1 | 2, Some(trial)) => {
                let priority = i32::try_from(self.draws.below(3)).unwrap() * 5 - 5;
                let experiment = trial.experiment;
                self.apply(Event::ExperimentPrioritized { experiment, priority });
            }
            (3 | 4, Some(trial)) => self.apply(Event::TrialPaused { trial }),
            (5 | 6, Some(trial)) => self.apply(Event::TrialResumed { trial }),
            (_, Some(trial)) if self.draws.below(3) == 0 => {
                self.apply(Event::TrialCanceled { trial });
            }
            _ => {}
        }
    }

    fn draw(&mut self, below: u64) -> u32 {
        u32::try_from(self.draws.below(below)).unwrap()
    }

    /// A checkpoint cannot be read any more.
    fn harm(&mut self) {
        let all: Vec<CheckpointKey> = self.store.checkpoints.iter().cloned().collect();
        if let Some(checkpoint) = self.pick(&all) {
            self.store.harmed.insert(checkpoint);
        }
    }
}
