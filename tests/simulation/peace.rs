//! The end of a simulation: no more faults, everything must come to an end, and all of it is looked at once more.

use muster_common::id::{ExperimentId, TrialId};
use muster_common::manifest::PrunerSettings;
use muster_coordinator::engine::experiment::Experiment;
use muster_coordinator::engine::{Engine, Event};
use muster_tests::snapshot::Snapshots;

use super::Simulation;
use super::disk::REMOTE;

/// Messages and reports that must suffice to end everything.
const PEACE_MAX: usize = 200_000;

impl Simulation {
    /// No more faults: everything must come to an end.
    pub(super) fn make_peace(&mut self) {
        self.is_faulty = false;
        self.disk.stall = 0;
        for id in self.processes.keys().cloned().collect::<Vec<_>>() {
            if let Some(process) = self.processes.get_mut(&id) {
                process.line.is_cut = false;
            }
            self.close(&id);
        }
        self.expire_dead();
        let experiments: Vec<ExperimentId> =
            self.live.experiments().map(|experiment| experiment.id.clone()).collect();
        for experiment in experiments {
            self.apply(Event::ExperimentResumed { experiment });
        }
        let held: Vec<TrialId> = self
            .live
            .experiments()
            .flat_map(|e| e.trials.values().filter(|t| t.held).map(|t| e.trial_id(t.number)))
            .collect();
        for trial in held {
            self.apply(Event::TrialResumed { trial });
        }
        for _ in 0..4 {
            self.start_worker(REMOTE);
        }
        self.settle();
        self.check_last_start();
    }

    /// Goes on until everything has ended.
    fn settle(&mut self) {
        for _ in 0..PEACE_MAX {
            if self.progress() {
                continue;
            }
            if self.live.experiments().all(Experiment::is_ended) && self.live.runs().is_empty() {
                return;
            }
            // Nobody has anything to say: time must bring what is missing.
            let Some(at) = self.live.next_timer() else {
                panic!("nothing is waited for, and nothing ends")
            };
            self.now = self.now.max(at.0);
            self.apply(Event::TimerFired);
        }
        panic!("something never ends");
    }

    /// A start after the end finds everything as it was, and nothing is left to do after what it does.
    fn check_last_start(&mut self) {
        let before = self.live.clone();
        self.power_cut();
        assert_eq!(before, self.live, "what was durable is all there was");
        self.start_again();
        self.expire_dead();
        self.settle();
        let outstanding = self.live.outstanding();
        assert!(outstanding.is_empty(), "never done: {outstanding:?}");
        self.check_checkpoints();
    }

    /// Li et al. 2020, algorithm 2: whoever is promoted is among the best of so many at that moment.
    pub(super) fn check_promotions(&mut self) {
        let mut num_checked = 0;
        for experiment in self.live.experiments() {
            let Some(searcher) = &experiment.manifest.searcher else { continue };
            let PrunerSettings::Asha(asha) = &searcher.pruner else { continue };
            for decision in experiment.decisions.iter() {
                let Some((_, standing)) = decision.text.split_once("is place ") else { continue };
                if !decision.text.starts_with("promoted to ") {
                    continue;
                }
                let words: Vec<&str> = standing.split(' ').collect();
                let (place, results): (u32, u32) =
                    (words[0].parse().unwrap(), words[2].parse().unwrap());
                let eta = asha.reduction_factor;
                assert!(place * eta <= results, "1 in {eta} goes on: {}", decision.text);
                num_checked += 1;
            }
        }
        *self.seen.entry("promoted").or_default() += num_checked;
    }

    /// Everything that was journaled is decided anew, by an engine that is killed again and again.
    pub(super) fn check_replay(&mut self) {
        let (mut replayed, mut saved) = (Engine::default(), Snapshots::default());
        // Killed after every event, or now and then.
        let pause = if self.draws.below(20) == 0 { 1 } else { 40 };
        self.see(if pause == 1 { "killed at every position" } else { "killed now and then" });
        for ((at, event), asked) in self.disk.events.iter().zip(&self.disk.asked) {
            let again = replayed.apply(*at, event.clone());
            assert_eq!(again, *asked, "decided anew is decided the same");
            if self.draws.below(pause) == 0 {
                replayed = saved.restore(&mut replayed).unwrap();
            }
        }
        assert_eq!(replayed, self.live);
    }
}
