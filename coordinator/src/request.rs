//! What users ask of the engine, whichever way they come: gRPC clients and the dashboard say the same here.

use std::path::Path;

use muster_common::id::{ExperimentId, ProjectName};
use muster_common::manifest::{Manifest, ManifestError};

use crate::capacity::{Capacity, TooLarge};
use crate::driver::{Driver, Stopped};
use crate::engine::{Action, Event};

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It could never start.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The engine refuses it.
    #[error("{0}")]
    Rejected(String),
    /// It was done, and left no trace.
    #[error("no experiment was made")]
    Nothing,
    /// The coordinator is stopping.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// An experiment to be.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The manifest as the user wrote it.
    pub text: String,
    /// Directory that its relative paths start at.
    pub base: String,
    /// Whose share it uses, if the manifest does not say.
    pub owner: Option<ProjectName>,
}

/// Applies an event that the engine may refuse.
pub async fn apply(driver: &Driver, event: Event) -> Result<Vec<Action>, RequestError> {
    let actions = driver.apply(event).await?;
    let rejected = actions.iter().find_map(|action| match action {
        Action::Rejected { reason } => Some(reason.clone()),
        _ => None,
    });
    rejected.map_or(Ok(actions), |reason| Err(RequestError::Rejected(reason)))
}

/// Makes an experiment, whose files go into `store`.
pub async fn submit(
    driver: &Driver,
    capacity: &Capacity,
    store: &str,
    submission: Submission,
) -> Result<ExperimentId, RequestError> {
    let Submission { text, base, owner } = submission;
    let mut manifest = Manifest::parse(&text)?;
    manifest.rebase(Path::new(&base));
    let num_workers = driver.read(|engine| engine.workers().len()).await?;
    capacity.check(manifest.resources.slots, num_workers)?;
    let event = Event::ExperimentSubmitted {
        manifest: Box::new(manifest),
        text,
        store: store.to_owned(),
        owner,
        base: Some(base),
    };
    let actions = apply(driver, event).await?;
    let created = actions.into_iter().find_map(|action| match action {
        Action::Created { experiment } => Some(experiment),
        _ => None,
    });
    created.ok_or(RequestError::Nothing)
}
