//! The parts of a checkpoint as bytes. All are safetensors files, so one reader shows them all.

use std::collections::BTreeMap;

use muster_common::manifest::{TrainingSettings, TrialSettings};
use muster_common::seed::Seed;
use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::model::{ModelError, NamedTensors, named_tensors, serialize_tensors, texts_of};
use crate::train::StoppingState;

pub(super) const AVERAGE: &str = "average";
pub(super) const BEST: &str = "best";
pub(super) const MODEL: &str = "model";
pub(super) const OPTIMIZER: &str = "optimizer";
pub(super) const PROGRESS: &str = "progress";

/// Where a trial is, and what its random choices and its schedule depend on. Order and dropout are
/// pure functions of this, so there is no generator state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates done; also the optimizer's step.
    pub step: u64,
    /// Passes over the training split completed.
    pub epoch: u64,
    /// Updates done in the current pass: the data position.
    pub step_in_epoch: u64,
    /// Root of the trial's random choices.
    pub seed: Seed,
    /// Steps of the whole budget: the schedule is laid out over them.
    pub total_steps: u64,
    /// Content hash of the tokenized data: the order of the examples is laid out over it.
    pub data: String,
    /// The trial's hyperparameters.
    pub settings: TrialSettings,
    /// How it trains otherwise.
    #[serde(default)]
    pub training: TrainingSettings,
    /// Updates done when the validation split was last scored on the way; 0: never.
    #[serde(default)]
    pub evaluated_step: u64,
    /// What early stopping remembers.
    #[serde(default)]
    pub stopping: StoppingState,
}

/// Name and bytes of every part, sorted by name; those that hold nothing are left out.
pub(super) fn encode(snapshot: &Snapshot) -> Result<Vec<(&'static str, Vec<u8>)>, ModelError> {
    let file = |tensors: &NamedTensors, texts| {
        let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        serialize_tensors(tensors, texts)
    };
    let progress = serde_json::to_string(&snapshot.progress)
        .map_err(|error| ModelError::Torch(format!("cannot write the progress: {error}")))?;
    let texts = BTreeMap::from([(PROGRESS.to_owned(), progress)]);
    let mut parts = Vec::with_capacity(5);
    for (name, tensors) in [(AVERAGE, &snapshot.average), (BEST, &snapshot.best)] {
        if !tensors.is_empty() {
            parts.push((name, file(tensors, BTreeMap::new())?));
        }
    }
    parts.push((MODEL, file(&snapshot.model, BTreeMap::new())?));
    parts.push((OPTIMIZER, file(&snapshot.optimizer, BTreeMap::new())?));
    parts.push((PROGRESS, file(&NamedTensors::new(), texts)?));
    Ok(parts)
}

pub(super) fn decode_tensors(bytes: &[u8]) -> Result<NamedTensors, String> {
    named_tensors(bytes)
}

pub(super) fn decode_progress(bytes: &[u8]) -> Result<Progress, String> {
    let texts = texts_of(bytes)?;
    let text = texts.get(PROGRESS).ok_or("the progress is missing")?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}
