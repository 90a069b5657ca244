//! An experiment in the files of MLflow and TensorBoard, read by MLflow's client and TensorBoard's
//! reader, says what our own files say.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on should stop, helper or not"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use muster_common::id::TrialId;
use muster_common::metric::{MetricPoint, directory, read_trial};
use muster_common::storage::Store;
use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::skip;
use serde_json::{Value, json};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/python/bin/python");

/// Steps and values of every metric, by name.
fn curves(points: &[MetricPoint]) -> BTreeMap<String, Vec<&MetricPoint>> {
    let mut curves: BTreeMap<String, Vec<&MetricPoint>> = BTreeMap::new();
    for point in points {
        curves.entry(point.name.to_string()).or_default().push(point);
    }
    curves
}

/// What MLflow's client and TensorBoard's reader have `found` of `trial` are `points`.
fn assert_same(trial: &TrialId, points: &[MetricPoint], found: &Value) {
    let runs = found["mlflow"]["sample-1"].as_array().unwrap();
    let run = runs.iter().find(|run| run["name"] == trial.to_string()).unwrap();
    assert_eq!(run["status"], "FINISHED");
    assert_eq!(run["tags"]["muster.trial"], trial.to_string());
    assert!(run["params"]["learning_rate"].as_str().unwrap().parse::<f64>().unwrap() > 0.0);
    assert_eq!(run["params"]["adam_beta2"], "0.999");
    let curves = curves(points);
    for name in ["train_loss", "memory_bytes", "padding_share", "cpu_share"] {
        assert!(curves.contains_key(name), "{name}");
    }
    assert_eq!(run["metrics"].as_object().unwrap().len(), curves.len());
    for (name, points) in curves {
        let full = points.iter().map(|p| json!([p.step, p.value, p.recorded_at.0]));
        assert_eq!(run["metrics"][&name], full.collect::<Value>(), "{name}");
        let single = |p: &&MetricPoint| json!([p.step, f64::from(p.value as f32)]);
        let single: Value = points.iter().map(single).collect();
        assert_eq!(found["tensorboard"][trial.to_string()][&name], single, "{name}");
    }
}

#[test]
fn others_read_what_we_read() {
    let name = "others_read_what_we_read";
    if !Path::new(PYTHON).exists() {
        return skip(name, ".cache/python is missing: run deploy/setup/python_readers.sh");
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    if let Err(reason) = write_manifest(root, &Sample { max_trials: 2, min_steps: 8 }) {
        return skip(name, &reason);
    }
    std::fs::write(root.join("muster.toml"), "tensorboard = true\n").unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--slots", "1"];
    let mut server = Muster::start(root, "serve", &arguments).unwrap();
    let url = server.wait_for("address", |server| {
        server.stdout().lines().next()?.strip_prefix("serving on ").map(ToOwned::to_owned)
    });
    let url = url.unwrap();
    let ask = |label: &str, arguments: &[&str]| {
        let all = [arguments, &["--coordinator", &url]].concat();
        Muster::start(root, label, &all).unwrap().succeed().unwrap().0
    };
    ask("submit", &["submit", "sample.yaml", "--watch"]);
    let export = ["export", "sample-1", "--mlflow", "mlruns", "--tensorboard", "events"];
    let said = ask("export", &export);
    assert!(said.contains("sample-1: 2 trials, ") && said.contains(" values in mlruns"), "{said}");
    // Once more: the same files, no second copy.
    ask("again", &export);
    let mut refused =
        Muster::start(root, "refused", &["export", "sample-1", "--coordinator", &url]).unwrap();
    assert!(!refused.wait().unwrap().success());
    assert!(refused.stderr().contains("--mlflow DIRECTORY"), "{}", refused.stderr());
    server.terminate().unwrap();
    server.wait().unwrap();

    let store = Store::open(root.join("muster-data").to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/exports.py");
    let read = |events: &Path| -> Value {
        let output =
            Command::new(PYTHON).arg(script).args([events, &root.join("mlruns")]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = read(&root.join("events"));
    assert_eq!(found["mlflow"]["sample-1"].as_array().map(Vec::len), Some(2));
    for number in 1..=2 {
        let trial = TrialId { experiment: "sample-1".parse().unwrap(), number };
        let points = runtime.block_on(read_trial(&store, &trial)).unwrap();
        // The coordinator has put one file in place of all before it ended.
        let files = runtime.block_on(store.list(&directory(&trial))).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_same(&trial, &points, &found);
    }
    // What the coordinator itself wrote, because the settings say so.
    let own = root.join("muster-data/experiments/sample-1/trials");
    let written = read(&own);
    for number in 1..=2 {
        let own = &written["tensorboard"][format!("{number}/tensorboard")];
        assert_eq!(own, &found["tensorboard"][format!("sample-1/t{number}")]);
    }
}
