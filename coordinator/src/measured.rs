//! What a trial has measured up to now: what is in the object store, and behind it what its run has said since.

use std::time::Duration;

use muster_common::id::{Generation, TrialId};
use muster_common::metric::read_trial;
use muster_common::storage::Store;
use tokio::time::timeout;

use crate::curve::{CurveSet, stored};
use crate::driver::{Driver, Stopped};
use crate::engine::Engine;
use crate::engine::trial::TrialState;
use crate::live::Live;

/// Longest wait for the store.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// Why curves cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasuredError {
    /// There is no such experiment or trial.
    #[error("{0}")]
    Missing(String),
    /// The store does not answer, or holds what cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The coordinator is stopping.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Where a trial is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// URL of the store.
    pub store: String,
    /// Runs started.
    pub attempts: u32,
    /// The run that has it.
    pub run: Option<Generation>,
    /// Step of its newest checkpoint, with which what was measured up to then came into the store.
    pub committed_step: u64,
    /// Nothing more is measured.
    pub is_over: bool,
}

impl Whereabouts {
    /// As long as it is the same, so is what the store has: what a run has measured is there when it has ended.
    pub fn epoch(&self) -> (u32, Option<Generation>) {
        (self.attempts, self.run)
    }
}

/// Asks the engine about a trial.
pub async fn look(driver: &Driver, trial: &TrialId) -> Result<Whereabouts, MeasuredError> {
    let wanted = trial.clone();
    let find = move |engine: &Engine| {
        let experiment = engine.experiment(&wanted.experiment).ok_or_else(|| {
            MeasuredError::Missing(format!("no experiment `{}`", wanted.experiment))
        })?;
        let count = experiment.trials.len();
        let found = experiment.trials.get(&wanted.number).ok_or_else(|| {
            MeasuredError::Missing(format!("no trial `{wanted}`; there are {count} so far"))
        })?;
        let run = match found.state {
            TrialState::Running { generation } => Some(generation),
            _ => None,
        };
        Ok(Whereabouts {
            store: experiment.store.clone(),
            attempts: found.attempts,
            run,
            committed_step: found.committed_step(),
            is_over: found.is_terminal() || experiment.is_ended(),
        })
    };
    driver.read(find).await?
}

/// What the store has.
pub async fn read(store: &str, trial: &TrialId) -> Result<CurveSet, MeasuredError> {
    let unreadable = |error: &dyn std::error::Error| {
        let mut text = format!("cannot read the metrics of {trial}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        MeasuredError::Unreadable(text)
    };
    let store = Store::open(store).map_err(|error| unreadable(&error))?;
    let reading = timeout(STORE_DEADLINE, read_trial(&store, trial)).await;
    let points = reading.map_err(|_| {
        let seconds = STORE_DEADLINE.as_secs();
        MeasuredError::Unreadable(format!("the store did not answer within {seconds} s"))
    })?;
    Ok(stored(&points.map_err(|error| unreadable(&error))?))
}

/// What the store had, and behind it what the run has said since.
pub fn joined(kept: &CurveSet, live: &Live, run: Option<Generation>) -> CurveSet {
    let mut all = run.map(|run| live.curves_of(run)).unwrap_or_default();
    for (name, curve) in kept {
        let later = all.remove(name).unwrap_or_default();
        all.insert(name.clone(), curve.followed_by(&later));
    }
    all.retain(|_, curve| !curve.points().is_empty());
    all
}
