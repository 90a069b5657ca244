//! One file in place of the many that a trial has written, once it has ended.
//!
//! ```text
//! 1. read every file of the trial, mark what is superseded
//! 2. write trial.parquet: one object, there whole or not at all
//! 3. delete the files that were read, and no others
//! ```
//!
//! Killed before 2 nothing has happened; killed before the end of 3 the next call finishes the work. A
//! store cannot change several objects at once, so between 2 and 3 a reader that lists the directory
//! sees rows twice, in `trial.parquet` and in a file it was made of. The other order would let it see
//! none, and lose them for ever with a kill. Both are the same row by trial, attempt, rank, step and name,
//! which is why the documented query counts each key once; and `trial.parquet` alone never has a
//! key twice. A reader that has listed a file before it was deleted finds it missing and lists again.
//!
//! A file that comes later, of a worker that was thought lost, stays beside `trial.parquet` until the
//! next call, and is read like any other.

use object_store::path::Path;

use super::parquet::encode_small;
use super::{MetricError, directory, is_file, marked, read_file};
use crate::id::TrialId;
use crate::storage::{Layout, Store};

/// Rows beyond which a trial keeps its files: they are large ones then, and a compaction holds all
/// rows in memory, some 200 bytes each.
const ROWS_MAX: usize = 1_000_000;

/// What a compaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// One file holds everything now.
    Done {
        /// Its rows, superseded ones among them.
        num_rows: usize,
        /// Files that it was made of.
        num_files: usize,
    },
    /// One file, or none, held everything before.
    Needless,
    /// There are more rows than [`ROWS_MAX`]; nothing was changed.
    TooLarge,
}

/// Puts `trial.parquet` in place of the files of `trial`, which must have ended. May be called again at
/// any time, but by one caller at once: the coordinator whose experiment it is.
pub async fn compact(store: &Store, trial: &TrialId) -> Result<Compaction, MetricError> {
    let whole = Layout::trial_metrics(trial);
    let mut files: Vec<Path> = store.list(&directory(trial)).await?;
    files.retain(is_file);
    if files.iter().all(|file| *file == whole) {
        return Ok(Compaction::Needless);
    }
    let mut points = Vec::new();
    for file in &files {
        points.extend(read_file(store, file).await?);
        if points.len() > ROWS_MAX {
            return Ok(Compaction::TooLarge);
        }
    }
    let points = marked(points);
    let num_rows = points.len();
    let encoded = tokio::task::spawn_blocking(move || encode_small(&points)).await;
    let bytes = encoded.map_err(|error| MetricError::Encode { reason: error.to_string() })??;
    store.put(&whole, bytes).await?;
    for file in &files {
        if *file != whole {
            store.delete(file).await?;
        }
    }
    Ok(Compaction::Done { num_rows, num_files: files.len() })
}
