//! Activations of the frozen prefix (embeddings and lowest layers), computed once per example and
//! read by every trial that freezes the same. Of the training split only where the trials are
//! expected to read more examples than it has: else computing each when it is read is less work.
//!
//! A cache entry is a number of blocks of plain 32-bit floats, `[rows, D]`, one row per token and
//! nothing for padding, each with a small index that is written last. Blocks are mapped into
//! memory, so that workers of one host share them. The key is a hash over everything the numbers
//! depend on, so an entry is never out of date, and whoever finds a block missing computes it.

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Coverage, PrefixSplit};

use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;
use muster_common::digest::ContentHash;
use muster_common::storage::{Layout, Store, StoreError};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tokio::runtime::Handle;

use crate::data::{Dataset, Split};
use crate::deadline::{Overdue, within};
use crate::model::{Classifier, Frame, Hidden, ModelError, Pretrained, TokenBatch, extent};
use plan::Plan;

/// Version of the blocks and of how they are computed.
const PREFIX_FORMAT: u32 = 2;

/// Why activations cannot be cached.
#[derive(Debug, thiserror::Error)]
pub enum PrefixError {
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not answer.
    #[error(transparent)]
    Overdue(#[from] Overdue),
    /// A block is not what its index says.
    #[error(
        "block {path} of the activation cache is damaged ({reason}); delete its directory, it is computed again"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Wanted and found.
        reason: String,
    },
}

/// Contents of a block's index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BlockIndex {
    format: u32,
    rows: u64,
    width: u64,
    sha256: ContentHash,
}

/// The cache entry of one prefix over one dataset; knows where everything lies, holds no numbers.
#[derive(Debug)]
pub struct Prefix {
    store: Store,
    key: String,
    width: i64,
    plan: Plan,
}

/// The blocks of an entry, mapped into memory.
#[derive(Debug)]
pub struct PrefixCache {
    prefix: Prefix,
    blocks: Vec<Tensor>, // each [rows, D]
}

/// Progress of a computation: blocks done and to do, and examples done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixProgress {
    /// Blocks looked at so far.
    pub blocks_done: u64,
    /// Blocks to look at.
    pub num_blocks: u64,
    /// Examples computed so far.
    pub examples_done: u64,
}

impl Prefix {
    /// The entry for `model`'s frozen prefix; `None` when too little is frozen to be worth it.
    ///
    /// `store` is where the experiment lies. Blocks must be files to be mapped, so for a store
    /// that is not on this host's disk they go to a cache directory of this user instead.
    pub fn find(
        store: &Store,
        pretrained: &Pretrained,
        model: &Classifier,
        data: &Dataset,
        coverage: Coverage,
    ) -> Result<Option<Self>, PrefixError> {
        let layers = model.frozen().prefix().unwrap_or(0);
        if layers == 0 {
            return Ok(None);
        }
        let identity = format!(
            "prefix {PREFIX_FORMAT} of {} layers {layers} over {}{}",
            pretrained.sha256.as_str(),
            coverage.of_cache(),
            data.summary.cache
        );
        let key = ContentHash::of(identity.as_bytes()).short().to_owned();
        let store = match store.local_path(&Layout::cache(&key)) {
            Some(_) => store.clone(),
            None => Store::open(&host_cache().display().to_string())?,
        };
        let plan = Plan::new(&data.train, &data.validation, coverage);
        Ok(Some(Self { store, key, width: model.config().hidden_size, plan }))
    }

    /// Computes what is missing of part `part` of `num_parts`. `false`: `go_on`, asked before every
    /// batch, said to stop.
    pub fn compute(
        &self,
        runtime: &Handle,
        model: &Classifier,
        data: &Dataset,
        (part, num_parts): (u32, u32),
        mut go_on: impl FnMut(PrefixProgress) -> ControlFlow<()>,
    ) -> Result<bool, PrefixError> {
        let mine: Vec<usize> = (0..self.plan.num_blocks())
            .filter(|block| *block as u64 % u64::from(num_parts.max(1)) == u64::from(part))
            .collect();
        let num_blocks = mine.len() as u64;
        let mut progress = PrefixProgress { blocks_done: 0, num_blocks, examples_done: 0 };
        for block in mine {
            if !self.is_there(runtime, block)? {
                let Some(rows) =
                    self.compute_block(model, data, block, &mut progress, &mut go_on)?
                else {
                    return Ok(false);
                };
                self.write_block(runtime, block, rows)?;
            }
            progress.blocks_done += 1;
            if go_on(progress).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Maps all blocks, which must be there: [`Prefix::compute`] of every part has run.
    pub fn open(self, runtime: &Handle) -> Result<PrefixCache, PrefixError> {
        let mut blocks = Vec::with_capacity(self.plan.num_blocks());
        for block in 0..self.plan.num_blocks() {
            let mapped = self.map_block(runtime, block);
            if let Err(PrefixError::Damaged { .. }) = &mapped {
                within(runtime, self.store.delete(&self.index_key(block)))??;
            }
            blocks.push(mapped?);
        }
        Ok(PrefixCache { prefix: self, blocks })
    }

    fn block_key(&self, block: usize) -> Path {
        Layout::cache(&self.key).join(format!("{}.f32", Self::block_name(block)))
    }

    fn index_key(&self, block: usize) -> Path {
        Layout::cache_index(&self.key, &Self::block_name(block))
    }

    fn block_name(block: usize) -> String {
        format!("prefix-{block:02}")
    }

    fn is_there(&self, runtime: &Handle, block: usize) -> Result<bool, PrefixError> {
        let Some(index) = within(runtime, self.store.find(&self.index_key(block)))?? else {
            return Ok(false);
        };
        let complete = self.check_index(block, &index).is_ok();
        Ok(complete && self.store.local_path(&self.block_key(block)).is_some_and(|p| p.is_file()))
    }

    fn check_index(&self, block: usize, bytes: &[u8]) -> Result<BlockIndex, PrefixError> {
        let damaged = |reason: String| PrefixError::Damaged {
            path: self.store.display(&self.index_key(block)),
            reason,
        };
        let index: BlockIndex =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let wanted = (PREFIX_FORMAT, self.plan.num_rows(block) as u64, self.width.unsigned_abs());
        let found = (index.format, index.rows, index.width);
        if found != wanted {
            return Err(damaged(format!("format, rows, width {found:?} instead of {wanted:?}")));
        }
        Ok(index)
    }

    /// The rows of a block as little-endian bytes; `None`: told to stop.
    fn compute_block(
        &self,
        model: &Classifier,
        data: &Dataset,
        block: usize,
        progress: &mut PrefixProgress,
        go_on: &mut impl FnMut(PrefixProgress) -> ControlFlow<()>,
    ) -> Result<Option<Vec<u8>>, PrefixError> {
        let mut bytes = Vec::with_capacity(self.plan.num_rows(block) * self.row_bytes());
        for batch in self.plan.batches(block) {
            if go_on(*progress).is_break() {
                return Ok(None);
            }
            let examples: Vec<(&Split, usize)> = batch
                .iter()
                .map(|example| match self.plan.origin(*example) {
                    (PrefixSplit::Train, index) => (&data.train, index),
                    (PrefixSplit::Validation, index) => (&data.validation, index),
                })
                .collect();
            let Hidden { states, frame } = model.prefix(&token_batch(model, &examples)?)?;
            let states = states.f_to_device(Device::Cpu).map_err(ModelError::from)?; // [T, D]
            for (number, (split, index)) in examples.iter().enumerate() {
                let sequence = split.tokens(*index);
                let real = states.f_narrow(0, frame.start(number), extent(sequence.len()));
                let real = real.map_err(ModelError::from)?; // [length, D], contiguous
                let start = bytes.len();
                bytes.resize(start + sequence.len() * self.row_bytes(), 0);
                real.f_copy_data_u8(&mut bytes[start..], real.numel()).map_err(ModelError::from)?;
            }
            progress.examples_done += batch.len() as u64;
        }
        Ok(Some(bytes))
    }

    fn row_bytes(&self) -> usize {
        usize::try_from(self.width).unwrap_or(0) * size_of::<f32>()
    }

    fn write_block(
        &self,
        runtime: &Handle,
        block: usize,
        rows: Vec<u8>,
    ) -> Result<(), PrefixError> {
        let index = BlockIndex {
            format: PREFIX_FORMAT,
            rows: self.plan.num_rows(block) as u64,
            width: self.width.unsigned_abs(),
            sha256: ContentHash::of(&rows),
        };
        let index = serde_json::to_vec(&index).map_err(|error| PrefixError::Damaged {
            path: self.store.display(&self.index_key(block)),
            reason: error.to_string(),
        })?;
        within(runtime, self.store.put(&self.block_key(block), Bytes::from(rows)))??;
        // Another worker may have written the same bytes; whoever is later changes nothing.
        within(runtime, self.store.put(&self.index_key(block), Bytes::from(index)))??;
        Ok(())
    }

    fn map_block(&self, runtime: &Handle, block: usize) -> Result<Tensor, PrefixError> {
        let index = within(runtime, self.store.get(&self.index_key(block)))??;
        let index = self.check_index(block, &index)?;
        let key = self.block_key(block);
        let path = self.store.local_path(&key).unwrap_or_default();
        let damaged =
            |reason: String| PrefixError::Damaged { path: path.display().to_string(), reason };
        let file = std::fs::File::open(&path).map_err(|error| damaged(error.to_string()))?;
        let sha256 = ContentHash::of_reader(file).map_err(|error| damaged(error.to_string()))?;
        if sha256 != index.sha256 {
            return Err(damaged(format!(
                "sha256 {} instead of {}",
                sha256.short(),
                index.sha256.short()
            )));
        }
        let name = path.to_str().ok_or_else(|| damaged("the path is not UTF-8".to_owned()))?;
        let rows = extent(self.plan.num_rows(block));
        // Private and lazy: pages come from the file when they are read, and are never written.
        let options = (Kind::Float, Device::Cpu);
        let mapped = Tensor::f_from_file(name, false, rows * self.width, options)
            .and_then(|flat| flat.f_view([rows, self.width]));
        Ok(mapped.map_err(ModelError::from)?)
    }
}

impl PrefixCache {
    /// Whether this is the cache of `prefix`.
    pub fn is_of(&self, prefix: &Prefix) -> bool {
        self.prefix.key == prefix.key && self.prefix.store.url() == prefix.store.url()
    }

    /// Which splits it has activations of.
    pub fn coverage(&self) -> Coverage {
        self.prefix.plan.coverage()
    }

    /// What [`Classifier::prefix`] gives for these examples.
    pub fn gather(
        &self,
        split: PrefixSplit,
        indices: &[u32],
        device: Device,
    ) -> Result<Hidden, ModelError> {
        let plan = &self.prefix.plan;
        let missing = |index: u32| ModelError::MissingParameter {
            name: format!("activations of example {index}"),
        };
        let locations = indices
            .iter()
            .map(|index| {
                let number = plan.number(split, *index as usize);
                number.and_then(|number| plan.at(number)).ok_or(missing(*index))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = locations.iter().map(|location| location.rows).collect();
        let frame = Frame::new(&lengths, device)?;
        let shape = [frame.num_rows(), self.prefix.width];
        let states = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?;
        let _zeroed = states
            .f_narrow(0, frame.num_tokens(), frame.num_rows() - frame.num_tokens())?
            .f_zero_()?;
        for ((place, location), index) in locations.iter().enumerate().zip(indices) {
            let block = self.blocks.get(location.block).ok_or(missing(*index))?;
            let rows = extent(location.rows);
            let source = block.f_narrow(0, extent(location.first_row), rows)?;
            states.f_narrow(0, frame.start(place), rows)?.f_copy_(&source)?;
        }
        Ok(Hidden { states: states.f_to_device(device)?, frame })
    }
}

/// Tokens of examples, and their segments where they have any, for `model`.
pub(crate) fn token_batch(
    model: &Classifier,
    examples: &[(&Split, usize)],
) -> Result<TokenBatch, ModelError> {
    let sequences: Vec<&[u32]> =
        examples.iter().map(|(split, index)| split.tokens(*index)).collect();
    let first_segments: Option<Vec<usize>> =
        examples.iter().map(|(split, index)| split.first_segment(*index)).collect();
    match first_segments {
        None => model.batch(&sequences),
        Some(first_segments) => model.batch_of_pairs(&sequences, &first_segments),
    }
}

/// A directory of this user on this host, for stores that are elsewhere.
pub(crate) fn host_cache() -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    home.unwrap_or_else(std::env::temp_dir).join("muster")
}
