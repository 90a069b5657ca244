//! Metrics files in the hands of other people's readers: pyarrow sees the schema that is documented,
//! and DuckDB, with the query that is documented, sees the same points as our own reader.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop, helper or not"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use muster_common::evaluation::prediction::{self, Origin, Prediction};
use muster_common::id::{Attempt, TrialId};
use muster_common::metric::{
    self, Compaction, EFFECTIVE_SQL, METRIC_FORMAT_KEY, MetricName, MetricPoint,
};
use muster_common::seed::Seed;
use muster_common::storage::{Layout, Store};
use muster_worker::metrics::{MetricOrigin, MetricSink};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Longest time the other readers may take.
const READER_DEADLINE: Duration = Duration::from_secs(120);

/// A store in a directory, and a runtime for sinks.
struct Bench {
    directory: tempfile::TempDir,
    store: Store,
    runtime: Runtime,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store").to_str().unwrap()).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    Bench { directory, store, runtime: runtime.unwrap() }
}

fn trial() -> TrialId {
    TrialId { experiment: "readable-1".parse().unwrap(), number: 3 }
}

fn python() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/python/bin/python");
    path.exists().then_some(path)
}

impl Bench {
    fn sink(&self, attempt: u32, rank: u32, resumed_from: u64) -> MetricSink {
        let (trial, attempt, host) = (trial(), Attempt(attempt), format!("node-{rank}").into());
        let origin = MetricOrigin { trial, attempt, rank, resumed_from, host };
        MetricSink::new(self.store.clone(), origin, self.runtime.handle())
    }

    fn ours(&self) -> Vec<MetricPoint> {
        self.runtime.block_on(metric::read_trial(&self.store, &trial())).unwrap()
    }

    /// What pyarrow and DuckDB say about the files.
    fn theirs(&self, python: &Path) -> Value {
        let directory = self.store.local_path(&metric::directory(&trial())).unwrap();
        let sql = self.directory.path().join("effective.sql");
        let store = self.directory.path().join("store").display().to_string();
        std::fs::write(&sql, EFFECTIVE_SQL.replace("muster-data", &store)).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("metrics_readable.py");
        let mut reader = tokio::process::Command::new(python);
        reader.arg(script).args([&directory, &sql]).stdin(Stdio::null()).kill_on_drop(true);
        let output = self
            .runtime
            .block_on(async { tokio::time::timeout(READER_DEADLINE, reader.output()).await })
            .expect("the reader is done in time")
            .expect("the reader starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// A point as the script prints it.
fn row(point: &MetricPoint) -> Value {
    let MetricPoint { trial, rank, step, name, value, attempt, recorded_at, .. } = point;
    let bits = format!("{:016x}", value.to_bits());
    json!([trial.to_string(), rank, step, name.as_str(), bits, attempt.0, recorded_at.0])
}

fn assert_same(theirs: &Value, ours: &[MetricPoint]) {
    let theirs = theirs["effective"].as_array().unwrap();
    assert_eq!(theirs.len(), ours.len());
    for (theirs, ours) in theirs.iter().zip(ours) {
        assert_eq!(*theirs, row(ours));
    }
}

fn skipped(test: &str) {
    muster_tests::skip(test, ".cache/python is missing: run deploy/setup/python_readers.sh");
}

#[test]
fn a_superseded_attempt_is_read_alike_by_everybody() {
    let Some(python) = python() else {
        return skipped("a_superseded_attempt_is_read_alike_by_everybody");
    };
    let bench = bench();
    // Checkpoint at 40; the steps behind it are lost with the worker and trained again.
    let first = bench.sink(1, 0, 0);
    for step in 1..=60 {
        first.record(step, MetricName::TRAIN_LOSS, 1.0 / step as f64);
        if step % 20 == 0 {
            first.flush().unwrap();
        }
    }
    first.record(40, MetricName::VALIDATION_LOSS, f64::INFINITY);
    first.flush().unwrap();
    let second = bench.sink(2, 0, 40);
    for step in 41..=50 {
        second.record(step, MetricName::TRAIN_LOSS, -1.0);
    }
    // The rung is evaluated again, and a loss went wrong.
    second.record(40, MetricName::VALIDATION_LOSS, 0.25);
    second.record(50, MetricName::GRAD_NORM, f64::NAN);
    second.flush().unwrap();
    // A file that was uploaded twice.
    let file = Layout::metrics(&trial(), Attempt(2), 0, 0);
    let twin = Layout::metrics(&trial(), Attempt(2), 0, 77);
    let bytes = bench.runtime.block_on(bench.store.get(&file)).unwrap();
    bench.runtime.block_on(bench.store.put(&twin, bytes)).unwrap();

    let ours = bench.ours();
    let losses = ours.iter().filter(|point| point.name == MetricName::TRAIN_LOSS);
    let losses: Vec<(u64, bool)> = losses.map(|point| (point.step, point.value > 0.0)).collect();
    assert_eq!(losses, (1..=50).map(|step| (step, step <= 40)).collect::<Vec<_>>());
    assert_eq!(ours.len(), 52);

    let theirs = bench.theirs(&python);
    assert_same(&theirs, &ours);
    assert_eq!(theirs["rows"], 60 + 1 + 2 * 12);
    // One file in place of all says the same, with every key once.
    let compaction = bench.runtime.block_on(metric::compact(&bench.store, &trial())).unwrap();
    assert_eq!(compaction, Compaction::Done { num_rows: 60 + 1 + 12, num_files: 6 });
    // As text, which compares a loss that is not a number too.
    assert_eq!(format!("{:?}", bench.ours()), format!("{ours:?}"));
    let theirs = bench.theirs(&python);
    assert_same(&theirs, &ours);
    assert_eq!(theirs["rows"], 60 + 1 + 12);
    assert_eq!(theirs["metadata"][METRIC_FORMAT_KEY], "2");
    let columns = json!([
        ["trial", "string"],
        ["attempt", "uint32"],
        ["resumed_from", "uint64"],
        ["rank", "uint32"],
        ["step", "uint64"],
        ["name", "string"],
        ["value", "double"],
        ["recorded_at", "timestamp[ms, tz=UTC]"],
        ["experiment", "string"],
        ["unit", "string"],
        ["host", "string"],
        ["superseded", "bool"]
    ]);
    assert_eq!(theirs["columns"], columns);
}

#[test]
fn any_history_of_attempts_is_read_alike_by_everybody() {
    let Some(python) = python() else {
        return skipped("any_history_of_attempts_is_read_alike_by_everybody");
    };
    for seed in 1..=6 {
        let bench = bench();
        let mut draws = Seed(seed).draws();
        let mut reached = 0;
        for attempt in 1..=6 {
            let resumed_from = draws.below(reached + 1);
            let ranks =
                [bench.sink(attempt, 0, resumed_from), bench.sink(attempt, 1, resumed_from)];
            reached = resumed_from + draws.below(12);
            for step in resumed_from + 1..=reached {
                for sink in &ranks {
                    sink.record(step, MetricName::TRAIN_LOSS, draws.unit());
                }
                ranks[0].record(step, MetricName::LEARNING_RATE, draws.unit());
            }
            // Also at the step it resumed from, as a rung that is evaluated again.
            ranks[0].record(resumed_from, MetricName::VALIDATION_ACCURACY, draws.unit());
            for sink in &ranks {
                sink.flush().unwrap();
            }
        }
        let ours = bench.ours();
        assert!(!ours.is_empty());
        assert_same(&bench.theirs(&python), &ours);
    }
}

#[test]
fn predictions_are_read_alike_by_everybody() {
    let Some(python) = python() else {
        return skipped("predictions_are_read_alike_by_everybody");
    };
    let labels = ["bad", "so-so", "gut, \"naja\""].map(str::to_owned);
    let mut draws = Seed(1).draws();
    let predictions: Vec<Prediction> = (0..100)
        .map(|row| {
            let raw: Vec<f64> = labels.iter().map(|_| draws.unit()).collect();
            let sum: f64 = raw.iter().sum();
            let probabilities = raw.iter().map(|value| value / sum).collect();
            let one = Prediction::new(row, (row % 3) as u32, probabilities);
            let one = Prediction { num_tokens: u32::try_from(row).ok(), ..one };
            let origin = Origin { file: "/data/größe, 1.csv".into(), row: 3 * row };
            let one = Prediction { origin: (row % 2 == 0).then_some(origin), ..one };
            if row % 7 == 0 { one.with_text("\"schön\"\n") } else { one }
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("predictions.parquet");
    std::fs::write(&file, prediction::encode(&predictions, &labels).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("predictions_readable.py");
    let output = std::process::Command::new(python).arg(script).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let columns = json!([
        ["row", "uint64"],
        ["label", "string"],
        ["prediction", "string"],
        ["probabilities", "list<item: double not null>"],
        ["num_tokens", "uint32"],
        ["text", "string"],
        ["file", "string"],
        ["file_row", "uint64"]
    ]);
    assert_eq!(found["columns"], columns);
    assert_eq!(found["metadata"][prediction::PREDICTION_FORMAT_KEY], "3");
    assert_eq!(found["metadata"][prediction::LABELS_KEY], json!(labels).to_string());
    let rows: Vec<Value> = predictions
        .iter()
        .map(|one| {
            let bits = one.probabilities.iter().map(|value| format!("{:016x}", value.to_bits()));
            let bits: Vec<String> = bits.collect();
            let (label, guess) = (&labels[one.label as usize], &labels[one.class()]);
            let (file, row) = match &one.origin {
                Some(origin) => (json!(&*origin.file), json!(origin.row)),
                None => (Value::Null, Value::Null),
            };
            json!([one.row, label, guess, bits, one.num_tokens, one.text, file, row])
        })
        .collect();
    assert_eq!(found["pyarrow"], json!(rows));
    assert_eq!(found["duckdb"], json!(rows));
}
