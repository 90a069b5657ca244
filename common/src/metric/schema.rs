//! The one schema of metrics files.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `trial` | string | `EXPERIMENT/tN` |
//! | `attempt` | uint32 | number of the run within the trial, from 1 |
//! | `resumed_from` | uint64 | step the attempt continued from, 0 for a fresh start |
//! | `rank` | uint32 | the rank that recorded the value |
//! | `step` | uint64 | optimizer updates done |
//! | `name` | string | what was measured |
//! | `value` | double | how much |
//! | `recorded_at` | timestamp, milliseconds, UTC | when, by the clock of the host |
//! | `experiment` | string | `EXPERIMENT` |
//! | `unit` | string | what the value counts: `nats`, `tokens/s`, `bytes`; `1` for plain numbers |
//! | `host` | string | name of the machine that recorded it |
//! | `superseded` | boolean | it does not count any more; known only in `trial.parquet` |
//!
//! The last four came with format 2. No column is ever null. The file's key-value metadata holds
//! [`METRIC_FORMAT_KEY`]. Columns are only ever added, at the end, with a higher [`METRIC_FORMAT`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

/// Version of the schema this build writes, and the highest it reads.
pub const METRIC_FORMAT: u32 = 2;

/// Key of the version in the file's key-value metadata.
pub const METRIC_FORMAT_KEY: &str = "muster.metrics.format";

/// The Arrow schema of every metrics file.
pub fn metric_schema() -> Arc<Schema> {
    let column = |name: &str, kind: DataType| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        column("trial", DataType::Utf8),
        column("attempt", DataType::UInt32),
        column("resumed_from", DataType::UInt64),
        column("rank", DataType::UInt32),
        column("step", DataType::UInt64),
        column("name", DataType::Utf8),
        column("value", DataType::Float64),
        column("recorded_at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
        column("experiment", DataType::Utf8),
        column("unit", DataType::Utf8),
        column("host", DataType::Utf8),
        column("superseded", DataType::Boolean),
    ]))
}
