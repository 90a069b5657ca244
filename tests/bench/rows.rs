//! Metrics on their way to the store and back: the part `storage`, rows `metric_*`.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use muster_common::id::{Attempt, TrialId};
use muster_common::metric::{self, MetricName};
use muster_common::seed::Seed;
use muster_common::storage::Store;
use muster_worker::metrics::{MetricOrigin, MetricSink};
use serde_json::{Value, json};

use super::Flags;

/// Values of a step, as the trainer records them.
const NAMES: [MetricName; 3] =
    [MetricName::TRAIN_LOSS, MetricName::LEARNING_RATE, MetricName::GRAD_NORM];

/// Records the values of `--steps` steps into a store in `--store`, as a trial does, flushing every
/// 1,000 steps as a checkpoint does; then compacts and reads them.
pub(super) fn rows(flags: &Flags) -> anyhow::Result<Value> {
    let steps: u64 = flags.number("steps", 20_000)?;
    let store = Store::open(flags.text("store")?)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let trial = TrialId { experiment: "bench-1".parse()?, number: 1 };
    let origin = MetricOrigin {
        trial: trial.clone(),
        attempt: Attempt(1),
        rank: 0,
        resumed_from: 0,
        host: "bench".into(),
    };
    let sink = MetricSink::new(store.clone(), origin, runtime.handle());
    let mut draws = Seed(1).draws();
    let begun = Instant::now();
    for step in 1..=steps {
        for name in &NAMES {
            sink.record(step, name.clone(), draws.unit());
        }
        if step % 1000 == 0 {
            sink.flush()?;
        }
    }
    sink.flush()?;
    let write_seconds = begun.elapsed().as_secs_f64();
    let folder = store.local_path(&metric::directory(&trial)).context("no directory")?;
    let part_bytes = size_of_all(&folder)?;
    let begun = Instant::now();
    runtime.block_on(metric::compact(&store, &trial))?;
    let compact_seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let num_read = runtime.block_on(metric::read_trial(&store, &trial))?.len();
    let read_seconds = begun.elapsed().as_secs_f64();
    Ok(json!({
        "rows": num_read,
        "write_seconds": write_seconds,
        "compact_seconds": compact_seconds,
        "read_seconds": read_seconds,
        "part_bytes": part_bytes,
        "trial_bytes": size_of_all(&folder)?,
    }))
}

fn size_of_all(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}
