//! Population-based training with real processes on real weights: whoever exploits goes on from the
//! other's checkpoint, and with the same hyperparameters has the other's bits from there on, whoever is
//! killed in between.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use muster_tests::outcome::{Outcome, assert_alike, outcome as outcome_of};
use muster_tests::process::{Muster, descendants, send_signal};
use muster_tests::sample::{Sample, slow_down, write_manifest};
use muster_tests::skip;
use serde_json::Value;

const SAMPLE: Sample = Sample { max_trials: 4, min_steps: 6 };
const RUN: [&str; 6] = ["run", "sample.yaml", "--slots", "1", "--summary", "summary.json"];
const RESUME: [&str; 6] = ["run", "--resume", "--slots", "1", "--summary", "summary.json"];

/// Four members that are compared after 6, 12 and 18 of 24 steps. `rest` are more keys of the pruner.
fn prepare(name: &str, rest: &str) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let path = match write_manifest(directory.path(), &SAMPLE) {
        Ok(path) => path,
        Err(reason) => {
            skip(name, &reason);
            return None;
        }
    };
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("pruner:")).collect();
    let pruner = format!("  pruner: {{type: population, every: {{steps: 6}}{rest}}}");
    let text = kept.join("\n").replace("  metric: loss", &format!("  metric: loss\n{pruner}"));
    let text = text.replace("{every_steps: 3}", "{every_steps: 3, keep_last: 100}");
    fs::write(path, text + "\n").unwrap();
    Some(directory)
}

/// Who exploited whom, from which step, in which run.
fn exploits(stderr: &str) -> Vec<(u32, u64, u64)> {
    let number = |text: &str, words: &str| -> Option<u64> {
        let rest = text.split_once(words)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let read = |line: &str| {
        let source = u32::try_from(number(line, "exploits t")?).ok()?;
        Some((source, number(line, "goes on from step ")?, number(line, " of run ")?))
    };
    stderr.lines().filter_map(read).collect()
}

/// Digests of the parts of every checkpoint, by trial and step, with the checkpoint that each run went
/// on from.
type Checkpoints = BTreeMap<(u64, u64, u64), (Value, Value)>;

fn checkpoints(directory: &Path) -> Checkpoints {
    let mut found = Checkpoints::new();
    for trial in 1..=u64::from(SAMPLE.max_trials) {
        let folder =
            directory.join(format!("muster-data/experiments/sample-1/trials/{trial}/checkpoints"));
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let Ok(text) = fs::read_to_string(entry.path().join("index.json")) else { continue };
            let index: Value = serde_json::from_str(&text).unwrap();
            let weights: Vec<&Value> = index["parts"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|part| part["name"] == "model" || part["name"] == "optimizer")
                .collect();
            let step = index["checkpoint"]["step"].as_u64().unwrap();
            let generation = index["checkpoint"]["generation"].as_u64().unwrap();
            let parts = serde_json::json!(weights);
            found.insert((trial, step, generation), (parts, index["parent"].clone()));
        }
    }
    found
}

/// What must not depend on whether anybody was killed: every checkpoint's weights, and the results.
fn outcome(directory: &Path) -> Outcome {
    let of_trials = ["state", "hyperparameters", "objective"];
    let mut said = outcome_of(directory, &of_trials, &["trial", "validation"]).unwrap();
    // Of several runs that reached a step the last one counts.
    for ((trial, step, _), (parts, _)) in checkpoints(directory) {
        said.insert(format!("checkpoint of t{trial} at step {step:02}"), parts.to_string());
    }
    said
}

#[test]
fn whoever_exploits_has_the_bits_of_whom_it_exploits() {
    let name = "whoever_exploits_has_the_bits_of_whom_it_exploits";
    let Some(directory) = prepare(name, ", resample_probability: 0, factors: [1]") else { return };
    let (_, stderr) = Muster::start(directory.path(), "run", &RUN).unwrap().succeed().unwrap();
    let exploits = exploits(&stderr);
    assert!(!exploits.is_empty(), "{stderr}");
    let found = checkpoints(directory.path());
    let mut num_compared = 0;
    for (source, from, generation) in exploits {
        // The run that went on from there, and the other's own next run.
        let is_child = |parent: &Value| {
            parent["trial"] == format!("sample-1/t{source}")
                && parent["step"] == from
                && parent["generation"] == generation
        };
        let next = |of: bool| {
            found.iter().filter(move |((trial, step, _), (_, parent))| {
                (*trial == u64::from(source)) == of && *step == from + 3 && is_child(parent)
            })
        };
        let own: Vec<_> = next(true).collect();
        for (child, (parts, _)) in next(false) {
            for (other, (wanted, _)) in &own {
                assert_eq!(parts, wanted, "{child:?} and {other:?}");
                num_compared += 1;
            }
        }
    }
    assert!(num_compared > 0, "{stderr}");
    println!("{num_compared} checkpoints have the bits of whom they came from");
}

#[test]
fn a_killed_population_ends_like_one_that_was_left_alone() {
    let name = "a_killed_population_ends_like_one_that_was_left_alone";
    let Some(quiet) = prepare(name, "") else { return };
    // Slow, so that it is not over before somebody who has seen something can kill.
    let slow = |directory: &Path| slow_down(&directory.join("sample.yaml")).unwrap();
    slow(quiet.path());
    Muster::start(quiet.path(), "undisturbed", &RUN).unwrap().succeed().unwrap();
    let expected = outcome(quiet.path());

    let directory = prepare(name, "").unwrap();
    slow(directory.path());
    let mut first = Muster::start(directory.path(), "first", &RUN).unwrap();
    let exploited = |run: &Muster| (!exploits(&run.stderr()).is_empty()).then_some(());
    first.wait_for("somebody who exploits", exploited).unwrap();
    // The run that goes on from another's checkpoint, or the next one, is cut short.
    for runner in descendants(first.pid(), "muster-worker runner") {
        send_signal("KILL", runner).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    first.kill().unwrap();
    let (_, stderr) =
        Muster::start(directory.path(), "resumed", &RESUME).unwrap().succeed().unwrap();
    assert!(!exploits(&stderr).is_empty(), "{stderr}");
    let found = outcome(directory.path());
    assert_alike((&found, directory.path()), (&expected, quiet.path())).unwrap();
}
