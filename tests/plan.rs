//! What `muster plan` says of a search whose course does not depend on results is what then happens, to the byte.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::service::summary;
use muster_tests::skip;
use serde_json::Value;

/// Rungs of 4, 8 and 16 steps, for four, two trials and one.
const SAMPLE: Sample = Sample { max_trials: 4, min_steps: 4 };

/// The sample's manifest with some of its text replaced, and more at its end.
fn change(path: &Path, changes: &[(&str, &str)], more: &str) {
    let mut text = fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replace(from, to);
    }
    fs::write(path, text + more).unwrap();
}

/// The indexes of all checkpoints below a directory.
fn indexes(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.append(&mut indexes(&path));
        } else if path.ends_with("index.json") && path.iter().any(|part| part == "checkpoints") {
            found.push(path);
        }
    }
    found
}

/// Bytes of a checkpoint by part, as its index says and as the files are.
fn parts(index: &Path) -> BTreeMap<String, u64> {
    let text: Value = serde_json::from_slice(&fs::read(index).unwrap()).unwrap();
    let part = |part: &Value| {
        let (name, bytes) = (part["name"].as_str().unwrap(), part["bytes"].as_u64().unwrap());
        let file = index.with_file_name(format!("{name}.safetensors"));
        assert_eq!(fs::metadata(&file).unwrap().len(), bytes, "{}", file.display());
        (name.to_owned(), bytes)
    };
    text["parts"].as_array().unwrap().iter().map(part).collect()
}

/// Plans and runs `sample.yaml`; returns the names of the parts of the last checkpoint, by steps.
fn planned_and_run(directory: &Path) -> Vec<String> {
    let plan = ["plan", "sample.yaml", "--slots", "1", "--json"];
    let (plan, _) = Muster::start(directory, "plan", &plan).unwrap().succeed().unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let run = ["run", "sample.yaml", "--slots", "1", "--summary", "summary.json"];
    Muster::start(directory, "run", &run).unwrap().succeed().unwrap();

    let summary = summary(directory).unwrap();
    let trials = summary["trials"].as_array().unwrap();
    let steps: Vec<u64> = trials.iter().map(|trial| trial["steps"].as_u64().unwrap()).collect();
    assert_eq!(plan["num_trials"], trials.len(), "{plan:#}");
    assert_eq!(plan["steps"], steps.iter().sum::<u64>(), "{plan:#}\n{summary:#}");
    for (rung, budget) in plan["rungs"].as_array().unwrap().iter().zip([4, 8, 16]) {
        assert_eq!(rung["num_trials"], steps.iter().filter(|steps| **steps >= budget).count());
    }

    let mut checkpoints = indexes(&directory.join("muster-data/experiments/sample-1/trials"));
    checkpoints.sort_by_key(|index| index.parent().unwrap().file_name().unwrap().to_owned());
    assert_eq!(plan["num_checkpoints"], checkpoints.len(), "{plan:#}\n{checkpoints:?}");
    assert_eq!(plan["most_checkpoints"], checkpoints.len(), "all are kept: {plan:#}");
    let parts: Vec<BTreeMap<String, u64>> = checkpoints.iter().map(|index| parts(index)).collect();
    let tensors = |parts: &BTreeMap<String, u64>| -> u64 {
        parts.iter().filter(|(name, _)| *name != "progress").map(|(_, bytes)| bytes).sum()
    };
    let sizes: Vec<u64> = parts.iter().map(tensors).collect();
    assert_eq!(plan["checkpoint_bytes"], *sizes.iter().max().unwrap(), "{plan:#}\n{parts:#?}");
    assert_eq!(plan["written_bytes"], sizes.iter().sum::<u64>(), "{plan:#}\n{parts:#?}");
    // What the plan leaves out is small.
    assert!(parts.iter().all(|parts| parts["progress"] < 4096), "{parts:#?}");
    parts.last().unwrap().keys().cloned().collect()
}

#[test]
fn a_plan_comes_true_in_trials_steps_checkpoints_and_bytes() {
    let freeze = "freeze: {embeddings: true, layers: 5}";
    let patterns =
        "freeze: {embeddings: true, layers: 4, patterns: ['*.attention.*', '*.pooler.*']}";
    let watched = "training: {evaluate_every: {steps: 6}, early_stopping: {patience: 100}, \
                   average: {type: checkpoints, last: 2, every: {steps: 5}}}\n";
    for (frozen, more, expected) in [
        (freeze, "", "model optimizer progress"),
        (
            patterns,
            "training: {average: {type: ema, decay: 0.9}}\n",
            "average model optimizer progress",
        ),
        (freeze, watched, "average best model optimizer progress"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let manifest = match write_manifest(directory.path(), &SAMPLE) {
            Ok(manifest) => manifest,
            Err(reason) => {
                let name = "a_plan_comes_true_in_trials_steps_checkpoints_and_bytes";
                return skip(name, &reason);
            }
        };
        let changes = [
            ("type: asha", "type: hyperband"),
            ("checkpoint: {every_steps: 3}", "checkpoint: {every_steps: 3, keep_last: 100}"),
            (freeze, frozen),
        ];
        change(&manifest, &changes, more);
        assert_eq!(planned_and_run(directory.path()).join(" "), expected);
    }
}
