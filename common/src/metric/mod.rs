//! Metrics: named values at steps, written by workers as Parquet straight into the object store.
//!
//! A trial that restarts rewinds to a checkpoint and trains some steps again, so the files of a
//! trial may say two things about one step. Every row therefore carries the step its attempt
//! continued from (`resumed_from`, 0 for a fresh start), and readers keep
//!
//! 1. rows that no later attempt has rewound behind: an attempt that continued from step `s`
//!    supersedes every row of earlier attempts with a step above `s`;
//! 2. of what is left, one row per trial, rank, step and name: that of the highest attempt, and
//!    within an attempt the latest (a file that was uploaded twice counts once).
//!
//! [`effective`] does it here; in SQL it is
//!
//! ```sql
#![doc = include_str!("effective.sql")]
//! ```
//!
//! When a trial has ended, [`compact`] puts one file in place of the many, with what is superseded
//! marked. `common/README.md` says what readers see, and has queries.

mod compact;
mod name;
mod parquet;
mod schema;
mod supersede;
mod tensorboard;

pub use compact::{Compaction, compact};
pub use name::MetricName;
pub use parquet::{decode, encode};
pub use schema::{METRIC_FORMAT, METRIC_FORMAT_KEY, metric_schema};
pub use supersede::{effective, marked};
pub use tensorboard::{by_time, event_file};

use std::sync::Arc;

use object_store::path::Path;

use serde::{Deserialize, Serialize};

use crate::id::{Attempt, TrialId};
use crate::storage::{Layout, Store, StoreError};
use crate::time::Timestamp;
use name::NAME_BYTES_MAX;

/// The query that [`effective`] equals, over the files of a directory called `muster-data`.
pub const EFFECTIVE_SQL: &str = include_str!("effective.sql");

/// Why metrics cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// The text is no metric name.
    #[error(
        "`{text}` is not a metric name: use 1 to {NAME_BYTES_MAX} of a-z, 0-9 and `_`, with a letter first"
    )]
    Name {
        /// What was given.
        text: String,
    },
    /// The bytes are not a metrics file, or not a whole one.
    #[error("damaged metrics file: {reason}")]
    Damaged {
        /// What the reader says.
        reason: String,
    },
    /// Written by a newer build.
    #[error(
        "metrics file has format {format}, this build reads up to {METRIC_FORMAT}: use a newer muster"
    )]
    NewerFormat {
        /// Format of the file.
        format: u32,
    },
    /// The points cannot be written.
    #[error("cannot encode metrics: {reason}")]
    Encode {
        /// What the writer says.
        reason: String,
    },
    /// One file of a trial cannot be used.
    #[error("cannot use {key}")]
    File {
        /// Key of the file.
        key: String,
        /// The cause.
        #[source]
        source: Box<MetricError>,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(Box<StoreError>),
}

impl From<StoreError> for MetricError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// One value, as one row of a metrics file.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPoint {
    /// Whose it is.
    pub trial: TrialId,
    /// The run within the trial that recorded it.
    pub attempt: Attempt,
    /// Step of the checkpoint that run continued from; 0 for a fresh start.
    pub resumed_from: u64,
    /// The rank that recorded it.
    pub rank: u32,
    /// Optimizer updates done, the one this value belongs to included.
    pub step: u64,
    /// What was measured.
    pub name: MetricName,
    /// How much; may be infinite or not a number, as a loss may.
    pub value: f64,
    /// When, by the clock of the host.
    pub recorded_at: Timestamp,
    /// What the value counts; see [`MetricName::unit`].
    pub unit: Arc<str>,
    /// Name of the machine that recorded it; empty in files of format 1.
    pub host: Arc<str>,
    /// It does not count any more. Only [`marked`] knows: a worker writes `false`.
    pub superseded: bool,
}

/// Values of one metric of a run, for live views.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSeries {
    /// What was measured.
    pub name: MetricName,
    /// Optimizer updates done, rising.
    pub steps: Vec<u64>,
    /// As many values; `None` where one is not finite.
    pub values: Vec<Option<f64>>,
}

/// Key of the directory that holds the metrics files of `trial`.
pub fn directory(trial: &TrialId) -> Path {
    let file = Layout::metrics(trial, Attempt(1), 0, 0);
    let mut parts: Vec<_> = file.parts().collect();
    parts.pop();
    parts.into_iter().collect()
}

/// Whether `key` is a metrics file.
fn is_file(key: &Path) -> bool {
    key.as_ref().ends_with(".parquet")
}

async fn read_file(store: &Store, key: &Path) -> Result<Vec<MetricPoint>, MetricError> {
    decode(store.get(key).await?)
        .map_err(|source| MetricError::File { key: store.display(key), source: Box::new(source) })
}

/// Reads every metrics file of `trial` and returns the points that count. A trial that has
/// recorded nothing yet has no points.
pub async fn read_trial(store: &Store, trial: &TrialId) -> Result<Vec<MetricPoint>, MetricError> {
    // A file that is gone when it is read has become part of another that was written before: what
    // was listed is out of date.
    for _ in 0..READS {
        match read_listed(store, trial).await {
            Err(MetricError::Store(error)) if matches!(*error, StoreError::Missing { .. }) => {}
            result => return result,
        }
    }
    read_listed(store, trial).await
}

/// Listings that may be out of date before one of them counts.
const READS: usize = 3;

async fn read_listed(store: &Store, trial: &TrialId) -> Result<Vec<MetricPoint>, MetricError> {
    let mut points = Vec::new();
    for key in store.list(&directory(trial)).await? {
        if is_file(&key) {
            points.extend(read_file(store, &key).await?);
        }
    }
    Ok(effective(points))
}

#[cfg(test)]
mod tests;
