//! The queries of `common/README.md`, as they stand there, over a store with trials that run, that
//! were interrupted, and that have ended.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop, helper or not"
)]

use std::path::Path;
use std::process::Command;

use muster_common::id::{Attempt, TrialId};
use muster_common::metric::{self, Compaction, EFFECTIVE_SQL, MetricName, MetricPoint};
use muster_common::seed::Seed;
use muster_common::storage::Store;
use muster_worker::metrics::{MetricOrigin, MetricSink};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../common/README.md");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/python/bin/python");

/// Values that JSON takes without loss, so that all sides can be compared.
fn value(draws: &mut muster_common::seed::Draws) -> f64 {
    draws.below(1000) as f64 / 8.0
}

/// Three attempts of a trial on two machines, the second and third from checkpoints of the one before.
fn record(store: &Store, runtime: &Runtime, trial: &TrialId) {
    let mut draws = Seed(u64::from(trial.number)).draws();
    let mut reached = 0;
    for attempt in 1..=3 {
        let resumed_from = draws.below(reached + 1);
        reached = resumed_from + 5 + draws.below(12);
        let sinks = [0, 1].map(|rank| {
            let (trial, host) = (trial.clone(), format!("node-{}", (attempt + rank) % 2).into());
            let origin =
                MetricOrigin { trial, attempt: Attempt(attempt), rank, resumed_from, host };
            MetricSink::new(store.clone(), origin, runtime.handle())
        });
        for step in resumed_from + 1..=reached {
            sinks[0].record(step, MetricName::TRAIN_LOSS, value(&mut draws));
            sinks[0].record(step, MetricName::TOKENS_PER_SECOND, value(&mut draws));
            sinks[1].record(step, MetricName::CPU_SHARE, value(&mut draws));
            if step % 3 == 0 {
                sinks[0].record(step, MetricName::VALIDATION_ACCURACY, value(&mut draws));
                for sink in &sinks {
                    sink.flush().unwrap();
                }
            }
        }
        // A rung that is evaluated again.
        sinks[0].record(resumed_from, MetricName::VALIDATION_ACCURACY, value(&mut draws));
        for sink in &sinks {
            sink.flush().unwrap();
        }
    }
}

struct Bench {
    directory: tempfile::TempDir,
    /// Points that count, by trial.
    trials: Vec<Vec<MetricPoint>>,
}

/// Two experiments; of the first, with three trials, two have ended.
fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().to_str().unwrap()).unwrap();
    let runtime = Runtime::new().unwrap();
    let mut trials = Vec::new();
    for (experiment, number) in [("demo-1", 1), ("demo-1", 2), ("demo-1", 3), ("demo-2", 4)] {
        let trial = TrialId { experiment: experiment.parse().unwrap(), number };
        record(&store, &runtime, &trial);
        trials.push(runtime.block_on(metric::read_trial(&store, &trial)).unwrap());
        if number < 3 {
            let part = runtime.block_on(store.list(&metric::directory(&trial))).unwrap().remove(1);
            let bytes = runtime.block_on(store.get(&part)).unwrap();
            let done = runtime.block_on(metric::compact(&store, &trial)).unwrap();
            assert!(matches!(done, Compaction::Done { .. }));
            // As a reader finds it that looks before all parts are deleted.
            if number == 2 {
                runtime.block_on(store.put(&part, bytes)).unwrap();
            }
        }
    }
    Bench { directory, trials }
}

fn row(point: &MetricPoint) -> Value {
    let MetricPoint { trial, rank, step, name, value, attempt, .. } = point;
    json!([trial.to_string(), rank, step, name.as_str(), value, attempt.0])
}

/// Points of this name.
fn of<'a>(trial: &'a [MetricPoint], name: &MetricName) -> Vec<&'a MetricPoint> {
    trial.iter().filter(|point| point.name == *name).collect()
}

#[test]
fn the_queries_of_the_document_say_what_our_reader_says() {
    if !Path::new(PYTHON).exists() {
        let reason = ".cache/python is missing: run deploy/setup/python_readers.sh";
        muster_tests::skip("the_queries_of_the_document_say_what_our_reader_says", reason);
        return;
    }
    let bench = bench();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/metrics_queries.py");
    let output = Command::new(PYTHON).args([script, DOCUMENT]).arg(bench.directory.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let [view, last, curve, best, throughput, ended, pandas, polars] = &found[..] else {
        unreachable!("the document has other blocks now: {}", found.len());
    };
    assert_eq!(*view, Value::Null);

    let accuracies: Vec<Vec<&MetricPoint>> =
        bench.trials.iter().map(|trial| of(trial, &MetricName::VALIDATION_ACCURACY)).collect();
    let last_of = |trial: &Vec<&MetricPoint>| {
        let point = trial.iter().max_by_key(|point| point.step).unwrap();
        json!([point.trial.to_string(), point.step, point.value])
    };
    assert_eq!(*last, json!(accuracies.iter().map(last_of).collect::<Vec<_>>()));

    let losses = of(&bench.trials[2], &MetricName::TRAIN_LOSS);
    assert!(losses.len() > 5);
    let points: Vec<Value> = losses.iter().map(|point| json!([point.step, point.value])).collect();
    assert_eq!(*curve, json!(points));

    let best_of = |trial: &Vec<&MetricPoint>| {
        let value = trial.iter().map(|point| point.value).fold(f64::MIN, f64::max);
        let steps: Vec<u64> =
            trial.iter().filter(|point| point.value >= value).map(|point| point.step).collect();
        (trial[0].trial.to_string(), value, steps)
    };
    let mut all: Vec<_> = accuracies[..3].iter().map(best_of).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    assert_eq!((&best[0][0], &best[0][2]), (&json!(all[0].0), &json!(all[0].1)));
    assert!(all[0].2.contains(&best[0][1].as_u64().unwrap()));

    let speeds: Vec<&MetricPoint> =
        bench.trials.iter().flat_map(|trial| of(trial, &MetricName::TOKENS_PER_SECOND)).collect();
    for (line, host) in throughput.as_array().unwrap().iter().zip(["node-0", "node-1"]) {
        let here: Vec<&&MetricPoint> = speeds.iter().filter(|point| &*point.host == host).collect();
        let mean = here.iter().map(|point| point.value).sum::<f64>() / here.len() as f64;
        assert_eq!(line[0], host);
        assert!((line[2].as_f64().unwrap() - mean).abs() < 1e-9 * mean, "{line} {mean}");
    }

    let counted = bench.trials[0].len() + bench.trials[1].len();
    assert_eq!(*ended, json!([["demo-1", 2, counted]]));

    let mut rows: Vec<&MetricPoint> = bench.trials.iter().flatten().collect();
    rows.sort_by_key(|p| (p.trial.to_string(), p.rank, p.step, p.name.as_str().to_owned()));
    let rows = json!(rows.into_iter().map(row).collect::<Vec<_>>());
    assert_eq!(*pandas, rows);
    assert_eq!(*polars, rows);
}

#[test]
fn the_document_has_the_query_that_the_code_has() {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let query = format!("CREATE VIEW metrics AS\n{};\n", EFFECTIVE_SQL.trim_end());
    assert!(text.contains(&query), "the view in {DOCUMENT} is not effective.sql");
    let names = MetricName::KNOWN.iter().map(|(name, _)| name.as_str());
    for name in names.filter(|name| !name.starts_with("validation_")) {
        assert!(text.contains(&format!("`{name}`")), "{DOCUMENT} does not explain `{name}`");
    }
}
