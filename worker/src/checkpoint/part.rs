//! The parts of a checkpoint as bytes. All are safetensors files, so one reader shows them all.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use muster_common::manifest::{TrainingSettings, TrialSettings};
use muster_common::seed::Seed;
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use super::Snapshot;
use crate::model::{ModelError, NamedTensors, named_tensors, serialize_tensors, texts_of};
use crate::train::StoppingState;

pub(super) const AVERAGE: &str = "average";
pub(super) const BEST: &str = "best";
pub(super) const MODEL: &str = "model";
pub(super) const OPTIMIZER: &str = "optimizer";
pub(super) const PROGRESS: &str = "progress";

/// All parts, in the order in which a reader needs them.
pub(super) const IN_ORDER: [&str; 5] = [PROGRESS, MODEL, OPTIMIZER, AVERAGE, BEST];

/// Whether a checkpoint may be without it.
pub(super) fn is_optional(name: &str) -> bool {
    name == AVERAGE || name == BEST
}

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

/// Name and bytes of every part, sorted by name; those that hold nothing are left out. Each part is
/// made when it is asked for, and its tensors are let go on the way: a checkpoint is never in memory
/// twice.
pub(super) fn encode(
    snapshot: Snapshot,
) -> Result<impl Iterator<Item = Result<(&'static str, Vec<u8>), ModelError>>, ModelError> {
    let progress = serde_json::to_string(&snapshot.progress)
        .map_err(|error| ModelError::Torch(format!("cannot write the progress: {error}")))?;
    let Snapshot { model, optimizer, average, best, .. } = snapshot;
    let optional = [(AVERAGE, average), (BEST, best)];
    let optional = optional.into_iter().filter(|(_, tensors)| !tensors.is_empty());
    let files = optional.chain([(MODEL, model), (OPTIMIZER, optimizer)]);
    let files = files.map(|(name, tensors)| Ok((name, tensor_file(tensors)?)));
    let progress = || {
        let texts = BTreeMap::from([(PROGRESS.to_owned(), progress)]);
        Ok((PROGRESS, serialize_tensors([], texts)?))
    };
    Ok(files.chain(std::iter::once_with(progress)))
}

/// A tensor that is let go once it is written, 32-bit.
struct Written<'a> {
    tensor: Tensor,
    shape: Vec<usize>,
    /// The writer cannot be told of an error, so it is kept here.
    failure: &'a RefCell<Option<TchError>>,
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let count = self.tensor.numel();
        let mut data = vec![0; count * size_of::<f32>()];
        let flat = self.tensor.f_to_kind(Kind::Float).and_then(|flat| flat.f_contiguous());
        let copied = flat.and_then(|flat| flat.f_copy_data_u8(&mut data, count));
        if let Err(error) = copied {
            *self.failure.borrow_mut() = Some(error);
        }
        Cow::Owned(data)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * size_of::<f32>()
    }
}

/// The same bytes as [`serialize_tensors`] gives, in half the memory.
fn tensor_file(tensors: NamedTensors) -> Result<Vec<u8>, ModelError> {
    let failure = RefCell::new(None);
    let written = tensors.into_iter().map(|(name, tensor)| {
        let sizes = tensor.size().into_iter();
        let shape = sizes.map(|size| usize::try_from(size).unwrap_or(0)).collect();
        (name, Written { tensor, shape, failure: &failure })
    });
    let bytes = safetensors::serialize(written, None)
        .map_err(|error| ModelError::Torch(format!("cannot write safetensors: {error}")))?;
    match failure.take() {
        Some(error) => Err(error.into()),
        None => Ok(bytes),
    }
}

pub(super) fn decode_tensors(bytes: &[u8]) -> Result<NamedTensors, String> {
    named_tensors(bytes)
}

pub(super) fn decode_progress(bytes: &[u8]) -> Result<Progress, String> {
    let texts = texts_of(bytes)?;
    let text = texts.get(PROGRESS).ok_or("the progress is missing")?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn files_are_those_of_the_other_writer_whatever_the_layout_of_the_tensors() {
        let tensors = || {
            let table = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]);
            NamedTensors::from([
                ("b.transposed".to_owned(), table.transpose(0, 1)),
                ("a.number".to_owned(), Tensor::from(7i32).to_kind(Kind::Int)),
                ("c".to_owned(), table),
            ])
        };
        let named = tensors();
        let named = named.iter().map(|(name, tensor)| (name.clone(), tensor));
        let wanted = serialize_tensors(named, BTreeMap::new()).unwrap();
        assert_eq!(tensor_file(tensors()).unwrap(), wanted);
    }
}
