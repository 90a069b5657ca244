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
//! [`effective`] does it here. In DuckDB, with DIRECTORY the trial's `metrics` directory:
//!
//! ```sql
#![doc = include_str!("effective.sql")]
//! ```

mod parquet;
mod schema;

pub use parquet::{decode, encode};
pub use schema::{METRIC_FORMAT, METRIC_FORMAT_KEY, metric_schema};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::id::{Attempt, TrialId};
use crate::objective::ObjectiveMetric;
use crate::storage::{Layout, Store, StoreError};
use crate::time::Timestamp;

/// The query that [`effective`] equals, with `DIRECTORY` to be replaced.
pub const EFFECTIVE_SQL: &str = include_str!("effective.sql");

/// Longest metric name accepted, in bytes.
const NAME_BYTES_MAX: usize = 63;

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

/// Name of a metric. Those the trainer writes are constants here; readers accept any legal name,
/// so that old builds read the files of new ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MetricName(Cow<'static, str>);

impl MetricName {
    /// Mean cross-entropy of a step's examples, dropout on; nats.
    pub const TRAIN_LOSS: Self = Self(Cow::Borrowed("train_loss"));
    /// Learning rate of a step.
    pub const LEARNING_RATE: Self = Self(Cow::Borrowed("learning_rate"));
    /// Norm of all gradients of a step before clipping.
    pub const GRAD_NORM: Self = Self(Cow::Borrowed("grad_norm"));
    /// Training examples per second over the last steps.
    pub const EXAMPLES_PER_SECOND: Self = Self(Cow::Borrowed("examples_per_second"));
    /// Real tokens per second over the last steps; padding does not count.
    pub const TOKENS_PER_SECOND: Self = Self(Cow::Borrowed("tokens_per_second"));
    /// Accuracy on the validation split, 0 to 1.
    pub const VALIDATION_ACCURACY: Self = Self(Cow::Borrowed("validation_accuracy"));
    /// Macro-averaged F1 on the validation split, 0 to 1.
    pub const VALIDATION_MACRO_F1: Self = Self(Cow::Borrowed("validation_macro_f1"));
    /// Mean cross-entropy on the validation split, nats.
    pub const VALIDATION_LOSS: Self = Self(Cow::Borrowed("validation_loss"));

    /// What is recorded for a metric of the validation split: `validation_` and its name.
    pub fn validation(metric: ObjectiveMetric) -> Self {
        Self(Cow::Owned(format!("validation_{}", metric.name())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MetricName {
    type Error = MetricError;
    fn try_from(text: String) -> Result<Self, MetricError> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        if first && text.len() <= NAME_BYTES_MAX && text.chars().all(legal) {
            Ok(Self(Cow::Owned(text)))
        } else {
            Err(MetricError::Name { text })
        }
    }
}

impl FromStr for MetricName {
    type Err = MetricError;
    fn from_str(text: &str) -> Result<Self, MetricError> {
        Self::try_from(text.to_owned())
    }
}

impl From<MetricName> for String {
    fn from(name: MetricName) -> String {
        name.0.into_owned()
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One value, as one row of a metrics file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// When.
    pub recorded_at: Timestamp,
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

/// The points that count, sorted by trial, rank, step and name; see the module for the rule.
pub fn effective(points: Vec<MetricPoint>) -> Vec<MetricPoint> {
    let mut attempts: BTreeMap<TrialId, BTreeMap<Attempt, u64>> = BTreeMap::new();
    for point in &points {
        let rewound = attempts.entry(point.trial.clone()).or_default();
        // Ranks of one attempt continue from one checkpoint; the lowest wins if a file disagrees.
        let step = rewound.entry(point.attempt).or_insert(point.resumed_from);
        *step = (*step).min(point.resumed_from);
    }
    for rewound in attempts.values_mut() {
        keep_lowest_rewind_of_later_attempts(rewound);
    }
    let superseded = |point: &MetricPoint| {
        attempts
            .get(&point.trial)
            .and_then(|rewound| rewound.get(&point.attempt))
            .is_some_and(|lowest| point.step > *lowest)
    };
    let mut kept: BTreeMap<(TrialId, u32, u64, MetricName), MetricPoint> = BTreeMap::new();
    for point in points {
        if superseded(&point) {
            continue;
        }
        let key = (point.trial.clone(), point.rank, point.step, point.name.clone());
        match kept.get(&key) {
            Some(other) if !is_later(&point, other) => {}
            _ => {
                kept.insert(key, point);
            }
        }
    }
    kept.into_values().collect()
}

/// Turns "continued from" into "the lowest step that any later attempt continued from".
fn keep_lowest_rewind_of_later_attempts(rewound: &mut BTreeMap<Attempt, u64>) {
    let mut lowest = u64::MAX;
    for (_, step) in rewound.iter_mut().rev() {
        let own = *step;
        *step = lowest;
        lowest = lowest.min(own);
    }
}

fn is_later(point: &MetricPoint, other: &MetricPoint) -> bool {
    let order = point.attempt.cmp(&other.attempt);
    let order = order.then(point.recorded_at.cmp(&other.recorded_at));
    order.then(point.value.total_cmp(&other.value)).is_gt()
}

/// Key of the directory that holds the metrics files of `trial`.
pub fn directory(trial: &TrialId) -> Path {
    let file = Layout::metrics(trial, Attempt(1), 0, 0);
    let mut parts: Vec<_> = file.parts().collect();
    parts.pop();
    parts.into_iter().collect()
}

/// Reads every metrics file of `trial` and returns the points that count. A trial that has
/// recorded nothing yet has no points.
pub async fn read_trial(store: &Store, trial: &TrialId) -> Result<Vec<MetricPoint>, MetricError> {
    let mut points = Vec::new();
    for key in store.list(&directory(trial)).await? {
        if !key.as_ref().ends_with(".parquet") {
            continue;
        }
        let file = decode(store.get(&key).await?).map_err(|source| MetricError::File {
            key: store.display(&key),
            source: Box::new(source),
        })?;
        points.extend(file);
    }
    Ok(effective(points))
}

#[cfg(test)]
mod tests;
