//! The parts of a checkpoint as bytes. All are safetensors files, so one reader shows them all.

use std::collections::BTreeMap;
use std::fmt::Display;

use bytes::Bytes;
use muster_common::manifest::{TrainingSettings, TrialSettings};
use muster_common::seed::Seed;
use object_store::PutPayload;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::ffi::Elements;
use crate::model::{ModelError, NamedTensors, named_tensors, serialize_tensors, texts_of};
use crate::prefix::Coverage;
use crate::train::StoppingState;

pub(super) const AVERAGE: &str = "average";
pub(super) const BEST: &str = "best";
pub(super) const MODEL: &str = "model";
pub(super) const OPTIMIZER: &str = "optimizer";
pub(super) const PROGRESS: &str = "progress";

/// The head of a safetensors file takes a multiple of so many bytes.
const HEAD_ALIGNMENT: usize = 8;

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
    /// Of which splits activations of frozen layers were computed ahead, which decides their last bits.
    #[serde(default)]
    pub coverage: Coverage,
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

/// Name and bytes of every object of a snapshot's shard; parts that hold nothing are left out. The bytes of
/// the tensors are not copied: they are let go with the object.
pub(super) fn encode(
    snapshot: Snapshot,
) -> Result<impl Iterator<Item = Result<(String, PutPayload), ModelError>>, ModelError> {
    let progress = serde_json::to_string(&snapshot.progress)
        .map_err(|error| ModelError::Torch(format!("cannot write the progress: {error}")))?;
    let Snapshot { shard, model, optimizer, average, best, .. } = snapshot;
    let files = [(AVERAGE, average), (BEST, best), (MODEL, model), (OPTIMIZER, optimizer)];
    // A reader wants every part that is not optional, even if it is empty.
    let is_written = move |(name, tensors): &(&str, NamedTensors)| {
        !tensors.is_empty() || (!is_optional(name) && shard.is_first())
    };
    let files = files.into_iter().filter(is_written);
    let files = files.map(move |(name, tensors)| Ok((shard.name(name), tensor_file(&tensors)?)));
    let progress = move || {
        let texts = BTreeMap::from([(PROGRESS.to_owned(), progress)]);
        Ok((PROGRESS.to_owned(), serialize_tensors([], texts)?.into()))
    };
    Ok(files.chain(std::iter::once_with(progress).take(usize::from(shard.is_first()))))
}

/// The same bytes as [`serialize_tensors`] gives, those of the tensors where they lie. Source of the layout:
/// `safetensors`' README, "Format".
fn tensor_file(tensors: &NamedTensors) -> Result<PutPayload, ModelError> {
    let mut pieces = Vec::with_capacity(1 + tensors.len());
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for (name, tensor) in tensors {
        let bytes = Bytes::from_owner(Elements::of(tensor)?);
        let sizes = tensor.size().into_iter();
        let shape = sizes.map(|size| usize::try_from(size).unwrap_or(0)).collect();
        let data_offsets = (end, end + bytes.len());
        end = data_offsets.1;
        infos.push((name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets }));
        pieces.push(bytes);
    }
    let failed = |error: &dyn Display| {
        ModelError::Torch(format!("cannot write the head of a safetensors file: {error}"))
    };
    let metadata = Metadata::new(None, infos).map_err(|error| failed(&error))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| failed(&error))?;
    text.resize(text.len().next_multiple_of(HEAD_ALIGNMENT), b' ');
    let mut head = (text.len() as u64).to_le_bytes().to_vec();
    head.append(&mut text);
    Ok(std::iter::once(Bytes::from(head)).chain(pieces).collect())
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
    use tch::{Device, Kind, Tensor};

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
        let file: Vec<Bytes> = tensor_file(&tensors()).unwrap().into_iter().collect();
        assert_eq!(file.concat(), wanted);
    }
}
