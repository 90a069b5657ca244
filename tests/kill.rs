//! Real processes, killed with `kill -9` in the middle of a real sweep on real weights. With one slot
//! everything is determined, so the killed sweeps must end exactly like the one that was left alone:
//! same trials, same promotions, same numbers to the last bit.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use muster_tests::outcome::{Outcome, assert_alike, outcome as outcome_of};
use muster_tests::process::{Muster, PATIENCE, descendants, is_alive, send_signal};
use muster_tests::sample::{Sample, write_slow_manifest};
use muster_tests::service::summary;
use muster_tests::skip;

const SAMPLE: Sample = Sample { max_trials: 4, min_steps: 12 };
const RUN: [&str; 6] = ["run", "sample.yaml", "--slots", "1", "--summary", "summary.json"];
const RESUME: [&str; 6] = ["run", "--resume", "--slots", "1", "--summary", "summary.json"];

/// What must not depend on whether anybody was killed.
fn outcome(directory: &Path) -> Outcome {
    let of_trials = ["state", "hyperparameters", "steps", "objective"];
    outcome_of(directory, &of_trials, &["trial", "step", "validation", "test"]).unwrap()
}

/// Decision lines without their times.
fn decisions(stderr: &str) -> Vec<String> {
    let is_decision = |line: &&str| line.contains(" rung ") || line.contains("promoted");
    let text = |line: &str| line.trim_start().split_once("  ").map(|(_, text)| text.to_owned());
    stderr.lines().filter(is_decision).filter_map(text).collect()
}

fn undisturbed(directory: &Path) -> (Outcome, Vec<String>) {
    let (_, stderr) = Muster::start(directory, "undisturbed", &RUN).unwrap().succeed().unwrap();
    (outcome(directory), decisions(&stderr))
}

fn prepare(name: &str) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    // Slow, so that it is not over before somebody who has seen something can kill.
    match write_slow_manifest(directory.path(), &SAMPLE) {
        Ok(_) => Some(directory),
        Err(reason) => {
            skip(name, &reason);
            None
        }
    }
}

#[test]
fn a_killed_coordinator_goes_on_with_the_same_decisions() {
    let Some(quiet) = prepare("a_killed_coordinator_goes_on_with_the_same_decisions") else {
        return;
    };
    let (expected, expected_decisions) = undisturbed(quiet.path());

    let directory = prepare("unreachable").unwrap();
    let mut first = Muster::start(directory.path(), "first", &RUN).unwrap();
    first
        .wait_for("the second result", |run| (decisions(&run.stderr()).len() >= 2).then_some(()))
        .unwrap();
    let workers = descendants(first.pid(), "muster-worker");
    assert!(workers.len() >= 2, "a supervisor and its runner: {workers:?}");
    first.kill().unwrap();
    let before = decisions(&first.stderr());
    wait_until_gone(&workers);

    let resumed = Muster::start(directory.path(), "resumed", &RESUME).unwrap();
    let (_, stderr) = resumed.succeed().unwrap();
    let after = decisions(&stderr);
    assert_eq!(after[..before.len()], before[..], "journaled decisions never change");
    assert_eq!(after, expected_decisions);
    let found = outcome(directory.path());
    assert_alike((&found, directory.path()), (&expected, quiet.path())).unwrap();
    println!("killed after {} of {} decisions", before.len(), after.len());
}

#[test]
fn a_killed_runner_continues_from_its_last_checkpoint() {
    let Some(quiet) = prepare("a_killed_runner_continues_from_its_last_checkpoint") else { return };
    let (expected, _) = undisturbed(quiet.path());

    let directory = prepare("unreachable").unwrap();
    let mut run = Muster::start(directory.path(), "run", &RUN).unwrap();
    // Two checkpoints of the second trial lie in the first half of its first rung. The first is
    // reported before the second is begun, so by then the coordinator is sure to hear of it.
    let checkpoints =
        directory.path().join("muster-data/experiments/sample-1/trials/2/checkpoints");
    run.wait_for("two checkpoints of trial 2", |_| {
        let entries = fs::read_dir(&checkpoints).ok()?.flatten();
        let committed = entries.filter(|entry| entry.path().join("index.json").is_file());
        (committed.count() >= 2).then_some(())
    })
    .unwrap();
    let runners = descendants(run.pid(), "muster-worker runner");
    assert_eq!(runners.len(), 1, "one slot, one runner");
    send_signal("KILL", runners[0]).unwrap();
    run.succeed().unwrap();

    let found = outcome(directory.path());
    assert_alike((&found, directory.path()), (&expected, quiet.path())).unwrap();
    let trial = &summary(directory.path()).unwrap()["trials"][1];
    assert_eq!(trial["restarts"], 1, "{trial}");
    let log =
        fs::read_to_string(directory.path().join("muster-data/coordinator/logs/sample-1.log"))
            .unwrap();
    let resumed = log.lines().any(|line| line.starts_with("t2\t") && line.contains("resumed"));
    assert!(resumed, "the log says where trial 2 went on:\n{log}");
}

/// Orphans end by themselves: nobody has to clean up after a kill.
fn wait_until_gone(pids: &[u32]) {
    let started_at = std::time::Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(started_at.elapsed() < PATIENCE, "orphans of a killed coordinator live on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
