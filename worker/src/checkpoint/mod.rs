//! Saving and loading a checkpoint: `model` (what training changed), `optimizer` (both moments),
//! `progress` (step, data position, seed, evaluations), and where there are any, `average` (of the
//! weights) and `best` (the weights that scored best), each one object, or one for each rank that writes a
//! shard of it; the index last.

mod part;
mod shard;
mod writer;

pub use part::Progress;
pub use shard::Shard;
pub use writer::{BeforeCommit, Colleagues, Origin, Writer};

use std::panic::resume_unwind;
use std::thread;

use bytes::Bytes;
use muster_common::digest::ContentHash;
use muster_common::storage::{CheckpointError, CheckpointIndex, CheckpointKey, Store, StoreError};
use tch::{Device, Kind, Tensor};
use tokio::runtime::Handle;

use crate::deadline::{Beside, Overdue, beside_for, within};
use crate::model::{ModelError, NamedTensors, duplicate};

/// Everything a trial needs to continue exactly, in memory, or one rank's shard of it.
#[derive(Debug)]
pub struct Snapshot {
    /// Which of its tensors these are.
    pub shard: Shard,
    /// Where it is.
    pub progress: Progress,
    /// The trained parameters.
    pub model: NamedTensors,
    /// The optimizer's moments, and under loss scaling its scale.
    pub optimizer: NamedTensors,
    /// What an average of the weights remembers; empty where there is none.
    pub average: NamedTensors,
    /// The weights that scored best, where a trial watches for improvements.
    pub best: NamedTensors,
}

impl Snapshot {
    /// The tensors of `shard` among weights, optimizer's state, that of the average, and best weights, copied.
    pub(crate) fn copied(
        shard: Shard,
        progress: Progress,
        state: [NamedTensors; 4],
    ) -> Result<Self, ModelError> {
        let copied = |named: NamedTensors| -> Result<NamedTensors, ModelError> {
            named.into_iter().map(|(name, tensor)| Ok((name, host_copy(&tensor)?))).collect()
        };
        let [model, optimizer, average, best] = shard.select(state);
        let (model, optimizer, average) = (copied(model)?, copied(optimizer)?, copied(average)?);
        // The best weights are replaced as a whole and never written to: they can be shared.
        Ok(Self { shard, progress, model, optimizer, average, best })
    }

    /// The whole of it, tensors not copied: nobody may write to them any more.
    pub(crate) fn shared(progress: Progress, state: [NamedTensors; 4]) -> Self {
        let [model, optimizer, average, best] = state;
        Self { shard: Shard::WHOLE, progress, model, optimizer, average, best }
    }

    /// Whether a checkpoint of it holds the same bits: all its tensors are as they are written.
    pub(crate) fn is_as_written(&self) -> bool {
        let files = [&self.model, &self.optimizer, &self.average, &self.best];
        files.into_iter().flat_map(NamedTensors::values).all(|tensor| tensor.kind() == Kind::Float)
    }

    /// Bytes of its tensors, which all take 32 bits an element in a checkpoint.
    pub fn num_bytes(&self) -> u64 {
        let files = [&self.model, &self.optimizer, &self.average, &self.best];
        let tensors = files.into_iter().flat_map(NamedTensors::values);
        tensors.map(|tensor| 4 * tensor.numel() as u64).sum()
    }
}

/// A copy in the host's memory, wherever the tensor lies: a GPU may have no room for a second set of weights.
fn host_copy(tensor: &Tensor) -> Result<Tensor, ModelError> {
    if tensor.device() == Device::Cpu {
        return duplicate(tensor);
    }
    Ok(tensor.f_detach()?.f_to_device(Device::Cpu)?)
}

/// Why a checkpoint could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The store refused.
    #[error("checkpoint {checkpoint} could not be written")]
    Store {
        /// Which.
        checkpoint: CheckpointKey,
        /// The cause.
        #[source]
        source: StoreError,
    },
    /// The tensors could not be copied out.
    #[error("checkpoint {checkpoint} could not be written")]
    Model {
        /// Which.
        checkpoint: CheckpointKey,
        /// The cause.
        #[source]
        source: ModelError,
    },
    /// What must be in the store before the checkpoint exists is not there.
    #[error("checkpoint {checkpoint} was not committed: {reason}")]
    NotReady {
        /// Which.
        checkpoint: CheckpointKey,
        /// What failed.
        reason: String,
    },
    /// Another checkpoint lies under the same key.
    #[error("checkpoint {checkpoint} exists already and has other contents")]
    Conflict {
        /// Which.
        checkpoint: CheckpointKey,
    },
    /// The store did not answer, or the writing thread is gone.
    #[error("checkpoint {checkpoint} was not written in time")]
    Overdue {
        /// Which.
        checkpoint: CheckpointKey,
    },
}

impl SaveError {
    /// Trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.is_permanent())
    }
}

/// Why a checkpoint could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is damaged, foreign or made by a newer build.
    #[error(transparent)]
    Invalid(#[from] CheckpointError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not answer.
    #[error(transparent)]
    Overdue(#[from] Overdue),
}

impl LoadError {
    /// Trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Invalid(_) => true,
            Self::Store(error) => error.is_permanent(),
            Self::Overdue(_) => false,
        }
    }

    fn is_harm(&self) -> bool {
        matches!(self, Self::Invalid(error) if error.is_harm())
    }
}

/// Reads the first of `keys`, newest first, that has not come to harm, as [`load`] does. Each that has is
/// named in the log. When all have, the error is that of the newest.
pub fn load_newest<'a>(
    runtime: &Handle,
    store: &Store,
    keys: impl IntoIterator<Item = &'a CheckpointKey>,
    pretrained: &ContentHash,
) -> Result<Option<(CheckpointKey, Snapshot)>, LoadError> {
    let mut first = None;
    for key in keys {
        match load(runtime, store, key, pretrained) {
            Ok(snapshot) => return Ok(Some((key.clone(), snapshot))),
            Err(error) if error.is_harm() => {
                tracing::warn!("{error}; the checkpoint before it is used, if there is one");
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    first.map_or(Ok(None), Err)
}

/// Reads the checkpoint at `key`, every part verified against the index. `pretrained` is the
/// digest of the weights that the trial started from.
pub fn load(
    runtime: &Handle,
    store: &Store,
    key: &CheckpointKey,
    pretrained: &ContentHash,
) -> Result<Snapshot, LoadError> {
    let found = within(runtime, store.find(&key.index()))??;
    let found = found.ok_or_else(|| CheckpointError::NoIndex { checkpoint: key.clone() })?;
    let index = CheckpointIndex::parse(key, &found)?;
    if index.pretrained != *pretrained {
        let found = index.pretrained.short().to_owned();
        return Err(CheckpointError::OtherPretrained { checkpoint: key.clone(), found }.into());
    }
    let mut reading = Reading::begin(runtime, store, &index)?;
    let damaged = |name: &str, reason: String| CheckpointError::DamagedPart {
        checkpoint: key.clone(),
        part: name.to_owned(),
        reason,
    };
    let (_, bytes) = reading.take(part::PROGRESS)?.unwrap_or_default();
    index.verify(part::PROGRESS, &bytes)?;
    let progress =
        part::decode_progress(&bytes).map_err(|reason| damaged(part::PROGRESS, reason))?;
    if progress.step != key.step {
        let reason = format!("it is of step {}", progress.step);
        return Err(damaged(part::PROGRESS, reason).into());
    }
    let mut tensors = |part: &str| -> Result<NamedTensors, LoadError> {
        let mut all = NamedTensors::new();
        while let Some((name, bytes)) = reading.take(part)? {
            // Taken apart while the digest is made; nothing of it is used before that is right.
            let (verified, tensors) = thread::scope(|scope| {
                let verifying = scope.spawn(|| index.verify(&name, &bytes));
                let tensors = part::decode_tensors(&bytes);
                (verifying.join().unwrap_or_else(|panic| resume_unwind(panic)), tensors)
            });
            verified?;
            all.append(&mut tensors.map_err(|reason| damaged(&name, reason))?);
        }
        Ok(all)
    };
    let (model, optimizer) = (tensors(part::MODEL)?, tensors(part::OPTIMIZER)?);
    let (average, best) = (tensors(part::AVERAGE)?, tensors(part::BEST)?);
    Ok(Snapshot { shard: Shard::WHOLE, progress, model, optimizer, average, best })
}

/// The objects of a checkpoint in the order in which they are needed: the next one is on its way while one is
/// verified and taken apart.
struct Reading<'a> {
    runtime: &'a Handle,
    store: &'a Store,
    index: &'a CheckpointIndex,
    /// Those that were not asked for yet, the next one last.
    names: Vec<String>,
    next: Option<(String, Beside<Result<Bytes, StoreError>>)>,
}

impl<'a> Reading<'a> {
    fn begin(
        runtime: &'a Handle,
        store: &'a Store,
        index: &'a CheckpointIndex,
    ) -> Result<Self, CheckpointError> {
        let mut names = Vec::new();
        for part in part::IN_ORDER {
            let all = index.parts.iter().map(|object| &object.name);
            let before = names.len();
            names.extend(all.filter(|name| shard::holds(name, part)).cloned());
            if names.len() == before && !part::is_optional(part) {
                index.part(part)?;
            }
        }
        names.reverse();
        let mut reading = Self { runtime, store, index, names, next: None };
        reading.ask()?;
        Ok(reading)
    }

    fn ask(&mut self) -> Result<(), CheckpointError> {
        let Some(name) = self.names.pop() else { return Ok(()) };
        let num_bytes = self.index.part(&name)?.bytes;
        let (store, key) = (self.store.clone(), self.index.checkpoint.part(&name));
        let get = async move { store.get_large(&key, num_bytes).await };
        self.next = Some((name, beside_for(self.runtime, num_bytes, get)));
        Ok(())
    }

    /// The next object if it is of part `part`, with its name, not verified yet. `None`: there is none, or no more.
    fn take(&mut self, part: &str) -> Result<Option<(String, Bytes)>, LoadError> {
        let Some((name, next)) = self.next.take_if(|(next, _)| shard::holds(next, part)) else {
            return Ok(None);
        };
        let bytes = next.wait()?.map_err(|error| match error {
            StoreError::Missing { .. } => {
                let (checkpoint, part) = (self.index.checkpoint.clone(), name.clone());
                LoadError::from(CheckpointError::LostPart { checkpoint, part })
            }
            error => error.into(),
        })?;
        self.ask()?;
        Ok(Some((name, bytes)))
    }
}
