//! The engine by seed, with all that it has to do with simulated: workers of several hosts and their network, users,
//! the clock, the disk and the object store. Workers come, go, are lost and come back under their names; ranks of gangs
//! fail before and after they have met; messages are late, arrive twice, overtake each other or are lost with their
//! session; the coordinator is killed with all that its disk did not have yet; the store refuses.
//!
//! After every event the invariants hold: a gang has all its slots or none, no slot is used twice, no trial has two
//! generations alive, nothing that could be started waits on an idle cluster; and what was seen once stays: no trial
//! is lost or becomes another one, an end is an end, each report counts once and in its turn. After every crash there
//! is what was durable, and everything is found again that may not have happened. At the end everything has ended, and
//! a replay of the events, with snapshots taken at random places, gives the same state to the last bit and asks for the
//! same at every event: decisions are not made anew.
//!
//! In reading order: `chance` (what happens how often), `manifests`, `process` and `training` (workers), `network`,
//! `disk`, `store`, `users`, `memory` (what was seen), `peace` (the end), `outcome` (whether that was enough).
//!
//! A failure prints its seed; `MUSTER_SEED=N cargo test --release -p muster-tests --test simulation`
//! runs that one alone, `make sim SEEDS=100000` more of them than `make test` does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chance;
mod disk;
mod manifests;
mod memory;
mod network;
mod outcome;
mod peace;
mod process;
mod store;
mod training;
mod users;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use muster_common::id::WorkerId;
use muster_common::seed::{Draws, Seed};
use muster_common::time::Timestamp;
use muster_coordinator::engine::{Action, Engine, Event, RULES};

use chance::{Chance, Chances};
use disk::{Disk, REMOTE};
use memory::Memory;
use outcome::{cause, count, is_telling};
use process::Process;
use store::ObjectStore;

/// Seeds without `MUSTER_SEEDS`.
const NUM_SEEDS: u64 = 1000;
/// Steps of one simulation before it is left in peace.
const NUM_FAULTY: usize = 1500;
/// One step in so many is something that comes by itself; in the others the work goes on.
const ONE_BEFALLS: u64 = 12;

struct Simulation {
    draws: Draws,
    chances: Chances,
    /// What a clock on the wall says, milliseconds.
    now: u64,
    is_faulty: bool,
    /// The coordinator's engine, ahead of its disk.
    live: Engine,
    disk: Disk,
    /// What is durable and to be done: in order, and on the store.
    messages: VecDeque<Action>,
    chores: Vec<Action>,
    store: ObjectStore,
    /// Processes of workers, whatever the coordinator thinks of them.
    processes: BTreeMap<WorkerId, Process>,
    num_workers: u32,
    num_sessions: u64,
    memory: Memory,
    /// How often something was seen that a simulation without it would say nothing about.
    seen: BTreeMap<&'static str, u32>,
    /// World size of each trial's last run.
    sizes: BTreeMap<String, u32>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            draws: Seed(seed).draws(),
            chances: Chances::of_environment(),
            now: 1_000,
            is_faulty: true,
            live: Engine::default(),
            disk: Disk::default(),
            messages: VecDeque::new(),
            chores: Vec::new(),
            store: ObjectStore::default(),
            processes: BTreeMap::new(),
            num_workers: 0,
            num_sessions: 0,
            memory: Memory::default(),
            seen: BTreeMap::new(),
            sizes: BTreeMap::new(),
        }
    }

    /// Applies an event. It is durable, and what it leads to happens, after the next flush.
    fn apply(&mut self, event: Event) {
        self.now += self.draws.below(50);
        self.apply_at(Timestamp(self.now), event);
    }

    fn apply_at(&mut self, at: Timestamp, event: Event) {
        let actions = self.live.apply(at, event.clone());
        self.live.check_invariants().unwrap();
        for action in &actions {
            self.check_action(action);
        }
        self.memory.observe(&self.live);
        self.disk.append(at, event, actions);
    }

    /// A run is begun by those only who may.
    fn check_action(&self, action: &Action) {
        let Action::StartRun { spec, worker } = action else { return };
        let run = &self.live.runs()[&spec.generation];
        let leaves = self.live.workers().get(worker).is_some_and(|w| w.draining);
        assert!(!leaves, "a worker that is about to leave is given a run");
        let rank = run.rank_of(worker).unwrap();
        assert_eq!(spec.gang.as_ref().map_or(0, |gang| gang.rank), rank);
        let paused = self.live.experiment(&spec.experiment).unwrap().paused;
        assert!(!paused || rank > 0, "a paused experiment begins a run");
    }

    fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// Whether something comes with something else this time.
    fn happens(&mut self, chance: Chance) -> bool {
        self.is_faulty && self.chances.happens(chance, &mut self.draws)
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        let count = items.len() as u64;
        (count > 0).then(|| items[usize::try_from(self.draws.below(count)).unwrap()].clone())
    }

    fn step(&mut self) {
        if self.draws.below(ONE_BEFALLS) == 0 {
            self.befall();
        } else {
            self.progress();
        }
    }

    /// Lets the work go on somewhere; whether there was any.
    fn progress(&mut self) -> bool {
        let ways: [fn(&mut Self) -> bool; 7] = [
            Self::speak,
            Self::hear,
            Self::flush,
            Self::perform,
            Self::do_chore,
            Self::tell,
            Self::connect,
        ];
        let first = usize::try_from(self.draws.below(ways.len() as u64)).unwrap();
        ways.iter().cycle().skip(first).take(ways.len()).any(|way| way(self))
    }
}

fn simulate(seed: u64) -> Simulation {
    let mut simulation = Simulation::new(seed);
    simulation.apply(Event::RulesAdopted { rules: RULES });
    simulation.submit();
    simulation.start_worker(REMOTE);
    for _ in 0..NUM_FAULTY {
        simulation.step();
    }
    simulation.make_peace();
    simulation.check_promotions();
    simulation.check_replay();
    simulation
}

#[test]
fn every_seed_keeps_the_invariants_ends_and_replays() {
    let only = std::env::var("MUSTER_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let wanted = std::env::var("MUSTER_SEEDS").ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = only.map_or(0..wanted.unwrap_or(NUM_SEEDS), |seed| seed..seed + 1);
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    // Where one has failed, those before it may too: the first is what is told.
    let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let (sender, outcomes) = mpsc::sync_channel(8);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(8) {
            let (sender, next, end) = (sender.clone(), &next, &end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| simulate(seed)).map_err(cause);
                    if outcome.is_err() {
                        end.fetch_min(seed, Ordering::Relaxed);
                    }
                    if sender.send((seed, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        count(outcomes, &mut ends);
    });
    println!("{} seeds: {ends:?}", seeds.end - seeds.start);
    let is_whole = std::env::var_os("MUSTER_SIM_WITHOUT").is_none();
    if only.is_none() && is_whole {
        is_telling(&ends);
    }
}
