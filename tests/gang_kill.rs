//! A trial on three slots under a real coordinator. Whatever is killed, it goes on from its last
//! checkpoint and ends with the same weights, bit for bit, as one that was left alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use muster_tests::gang::Laboratory;
use muster_tests::process::{Muster, descendants, send_signal};
use muster_tests::sample::repository;
use serde_json::Value;

const RUN: [&str; 6] = ["run", "gang.yaml", "--slots", "3", "--summary", "summary.json"];
const SETTINGS: &str = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9, micro_batch_size: 2, dropout: 0.2}
checkpoint: {every_steps: 50}
resources: {slots: 3}
training: {step_deadline_s: 20}
";

fn prepare() -> Laboratory {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let laboratory = Laboratory::new(&model, 60, SETTINGS).unwrap();
    let text = laboratory.text.replace("{steps: 1000000}", "{steps: 1500}");
    fs::write(laboratory.directory.path().join("gang.yaml"), text).unwrap();
    laboratory
}

/// The exported weights and how often the trial was started again.
fn outcome(directory: &Path) -> (Vec<u8>, u64) {
    let summary = fs::read_to_string(directory.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["state"], "completed", "{summary}");
    let attempts = summary["trials"][0]["attempts"].as_u64().unwrap();
    let model = summary["best"]["model"].as_str().unwrap().trim_start_matches("file://").to_owned();
    (fs::read(directory.join(model).join("model.safetensors")).unwrap(), attempts)
}

/// Runs it, and kills what `victim` chooses once two checkpoints are there.
fn killed(victim: impl Fn(&Muster) -> u32) -> (Vec<u8>, u64) {
    let laboratory = prepare();
    let directory = laboratory.directory.path();
    let mut run = Muster::start(directory, "run", &RUN).unwrap();
    let checkpoints = directory.join("muster-data/experiments/gang-1/trials/1/checkpoints");
    run.wait_for("two checkpoints", |_| {
        let entries = fs::read_dir(&checkpoints).ok()?.flatten();
        let committed = entries.filter(|entry| entry.path().join("index.json").is_file());
        (committed.count() >= 2).then_some(())
    })
    .unwrap();
    send_signal("KILL", victim(&run)).unwrap();
    run.succeed().unwrap();
    outcome(directory)
}

#[test]
fn whatever_is_killed_the_weights_are_the_same() {
    let quiet = prepare();
    Muster::start(quiet.directory.path(), "quiet", &RUN).unwrap().succeed().unwrap();
    let (wanted, attempts) = outcome(quiet.directory.path());
    assert_eq!(attempts, 1);
    let runner =
        |number: usize| move |run: &Muster| descendants(run.pid(), "muster-worker runner")[number];
    let supervisor = |run: &Muster| descendants(run.pid(), "muster-worker supervise")[1];
    for (what, (found, attempts)) in [
        ("a runner", killed(runner(0))),
        ("another runner", killed(runner(2))),
        ("a supervisor", killed(supervisor)),
    ] {
        assert!(attempts >= 2, "{what}: {attempts} attempts");
        assert!(found == wanted, "{what}: the weights differ");
    }
}
