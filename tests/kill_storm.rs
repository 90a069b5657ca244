//! Runner, supervisor and coordinator are killed with `kill -9` at random moments of a training run, alone
//! and together, again and again: no half checkpoint is ever visible, no metric is lost or doubled, and
//! weights and metrics are those of a run that was left alone.
//!
//! `MUSTER_KILLS` says how often (12; `make kills` 200), `MUSTER_SEED` which moments.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use muster_common::id::TrialId;
use muster_common::metric::{MetricName, MetricPoint, decode};
use muster_common::seed::{Draws, Seed};
use muster_common::storage::{CheckpointError, Layout, Scope, Store};
use muster_tests::gang::Laboratory;
use muster_tests::process::{Muster, PATIENCE, descendants, send_signal};
use muster_tests::sample::repository;
use muster_tests::service::{Place, Service, exported_weights};
use tokio::runtime::Runtime;

const STEPS: u64 = 900;
/// Kills that cost the trial a restart, in one run: before each of the next it would pause longer.
const RESTARTS: u32 = 4;
/// Longest time between two kills; every third time longer, so that a lease ends and a run is begun again.
const PAUSE_MS: [u64; 3] = [500, 2000, 4000];

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Runner,
    Worker,
    Coordinator,
    Everything,
}

fn prepare() -> Laboratory {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let settings = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9, dropout: 0.2}
checkpoint: {every_steps: 15}
max_restarts: 1000
";
    let laboratory = Laboratory::new(&model, 60, settings).unwrap();
    let text = laboratory.text.replace("{steps: 1000000}", &format!("{{steps: {STEPS}}}"));
    fs::write(laboratory.directory.path().join("gang.yaml"), text).unwrap();
    // A worker that was killed is missed after that time, and again after a restart of the coordinator.
    fs::write(laboratory.directory.path().join("muster.toml"), "lease_seconds = 2\n").unwrap();
    laboratory
}

fn trial() -> TrialId {
    TrialId { experiment: "gang-1".parse().unwrap(), number: 1 }
}

/// What must not depend on kills: every value of the training itself, by step and name, as bits.
fn training(points: &[MetricPoint]) -> BTreeMap<(u64, String), u64> {
    let names = [
        MetricName::TRAIN_LOSS,
        MetricName::LEARNING_RATE,
        MetricName::GRAD_NORM,
        MetricName::VALIDATION_ACCURACY,
        MetricName::VALIDATION_LOSS,
    ];
    let counted = points.iter().filter(|point| !point.superseded && names.contains(&point.name));
    counted
        .map(|point| ((point.step, point.name.as_str().to_owned()), point.value.to_bits()))
        .collect()
}

/// Every row of the trial's one file, of which none is there twice.
fn rows(store: &Store, runtime: &Runtime) -> Vec<MetricPoint> {
    let key = Layout::trial_metrics(&trial());
    let begun = Instant::now();
    let bytes = loop {
        match runtime.block_on(store.find(&key)).unwrap() {
            Some(bytes) => break bytes,
            None => assert!(begun.elapsed() < PATIENCE, "the metrics were not put together"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let points = decode(bytes).unwrap();
    let mut seen = BTreeSet::new();
    let mut counted = BTreeSet::new();
    for point in &points {
        let place = (point.rank, point.step, point.name.as_str());
        assert!(seen.insert((point.attempt, place)), "twice: {point:?}");
        assert!(point.superseded || counted.insert(place), "counted twice: {point:?}");
    }
    points
}

/// Every checkpoint that can be seen is whole. Gives the step of the newest.
fn check_visible(store: &Store, runtime: &Runtime) -> u64 {
    let found = runtime.block_on(store.checkpoints(&Scope::Trial(trial()))).unwrap();
    let mut newest = 0;
    for checkpoint in &found {
        if matches!(checkpoint.index, Err(CheckpointError::NoIndex { .. })) {
            continue;
        }
        let wrong = runtime.block_on(store.verify_checkpoint(checkpoint)).unwrap();
        // It may have been retired while it was read, index first.
        let is_there = || runtime.block_on(store.find(&checkpoint.key.index())).unwrap().is_some();
        assert!(wrong.is_empty() || !is_there(), "{}: {wrong:?}", checkpoint.key);
        if wrong.is_empty() {
            newest = newest.max(checkpoint.key.step);
        }
    }
    newest
}

fn choose(draws: &mut Draws, num_restarts: u32) -> Victim {
    if num_restarts >= RESTARTS {
        return Victim::Coordinator;
    }
    match draws.below(6) {
        0 | 1 => Victim::Runner,
        2 => Victim::Worker,
        3 => Victim::Everything,
        _ => Victim::Coordinator,
    }
}

/// Kills, and starts again what does not come back by itself.
fn kill(service: &mut Service, worker: &mut Muster, victim: Victim) {
    match victim {
        Victim::Runner => {
            for pid in descendants(worker.pid(), "muster-worker runner") {
                // It may be between two runners.
                let _gone = send_signal("KILL", pid);
            }
        }
        Victim::Worker => worker.kill().unwrap(),
        Victim::Coordinator => service.kill_and_start().unwrap(),
        Victim::Everything => {
            worker.kill().unwrap();
            service.kill_and_start().unwrap();
        }
    }
    if matches!(victim, Victim::Worker | Victim::Everything) {
        *worker = service.worker(Place::Here, "worker").unwrap();
    }
}

/// Trains once under kills until `num_left` are used or the run ends; gives how many there were of which
/// kind, and the metrics.
fn storm(
    directory: &Path,
    draws: &mut Draws,
    num_left: usize,
    runtime: &Runtime,
) -> (BTreeMap<Victim, usize>, Vec<MetricPoint>) {
    let mut service = Service::start(directory, Place::Here).unwrap();
    let mut worker = service.worker(Place::Here, "worker").unwrap();
    service.ask(Place::Here, &["submit", "gang.yaml"]).unwrap();
    let store = Store::open(directory.join("muster-data").to_str().unwrap()).unwrap();
    let (mut kills, mut num_restarts) = (BTreeMap::new(), 0);
    let begun = Instant::now();
    while kills.values().sum::<usize>() < num_left {
        let longest = PAUSE_MS[usize::try_from(draws.below(3)).unwrap()];
        std::thread::sleep(Duration::from_millis(draws.below(longest)));
        if exported_weights(directory, "gang-1").is_ok() {
            break;
        }
        let victim = choose(draws, num_restarts);
        kill(&mut service, &mut worker, victim);
        *kills.entry(victim).or_default() += 1;
        num_restarts += u32::from(victim != Victim::Coordinator);
        let newest = check_visible(&store, runtime);
        println!("{:6.2} s: {victim:?}, newest checkpoint {newest}", begun.elapsed().as_secs_f64());
    }
    service.await_coordinator().unwrap();
    let (said, _) = service.ask(Place::Here, &["watch", "gang-1"]).unwrap();
    assert!(said.contains("gang-1 completed"), "{said}");
    assert_eq!(check_visible(&store, runtime), STEPS);
    // Whatever was left to tidy is tidied by the next coordinator.
    service.kill_and_start().unwrap();
    (kills, rows(&store, runtime))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn killed_at_random_moments_a_run_ends_as_if_nothing_had_happened() {
    let num_kills = usize::try_from(number("MUSTER_KILLS", 12)).unwrap();
    let seed = Seed(number("MUSTER_SEED", 1));
    let runtime = Runtime::new().unwrap();
    let quiet = prepare();
    let directory = quiet.directory.path();
    // As many threads as a worker that dials in has: sums in another order have other bits.
    let run = ["run", "gang.yaml", "--slots", "1", "--threads-per-slot", "1"];
    Muster::start(directory, "quiet", &run).unwrap().succeed().unwrap();
    let weights = exported_weights(directory, "gang-1").unwrap();
    let store = Store::open(directory.join("muster-data").to_str().unwrap()).unwrap();
    let expected = training(&rows(&store, &runtime));
    assert!(expected.len() as u64 > STEPS, "there are {} values", expected.len());

    let mut kills: BTreeMap<Victim, usize> = BTreeMap::new();
    let (mut num_runs, mut num_superseded) = (0, 0);
    while kills.values().sum::<usize>() < num_kills {
        num_runs += 1;
        let laboratory = prepare();
        let directory = laboratory.directory.path();
        let mut draws = seed.child("run", num_runs).draws();
        let num_left = num_kills - kills.values().sum::<usize>();
        println!("run {num_runs} of seed {}: {num_left} kills left", seed.0);
        let (of_run, rows) = storm(directory, &mut draws, num_left, &runtime);
        for (victim, count) in of_run {
            *kills.entry(victim).or_default() += count;
        }
        assert!(exported_weights(directory, "gang-1").unwrap() == weights, "run {num_runs}");
        num_superseded += rows.iter().filter(|point| point.superseded).count();
        assert!(training(&rows) == expected, "run {num_runs}: other metrics");
    }
    println!("{kills:?} in {num_runs} runs; {num_superseded} values were trained again");
}
