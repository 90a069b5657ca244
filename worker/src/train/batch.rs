//! Examples on their way into the model: tokens, or what the frozen prefix made of them.

use tch::{Device, Tensor};

use crate::data::Split;
use crate::model::{Classifier, Dropout, ModelError};
use crate::prefix::{PrefixCache, PrefixSplit, token_batch};

/// A split, and the cached activations of its examples where there are any.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    split: &'a Split,
    prefix: Option<(&'a PrefixCache, PrefixSplit)>,
}

impl<'a> Examples<'a> {
    /// Examples that go through the whole model.
    pub fn of_tokens(split: &'a Split) -> Self {
        Self { split, prefix: None }
    }

    /// Examples that enter behind the frozen prefix; `which` says which split `split` is.
    pub fn of_prefix(split: &'a Split, cache: &'a PrefixCache, which: PrefixSplit) -> Self {
        Self { split, prefix: Some((cache, which)) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.split.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.split.is_empty()
    }

    /// Tokens of every example, special tokens counted.
    pub fn lengths(&self) -> Vec<u32> {
        let length = |index| u32::try_from(self.split.length(index)).unwrap_or(u32::MAX);
        (0..self.split.len()).map(length).collect()
    }

    /// Logits, `[B, C]`, of the examples at `indices`.
    pub fn logits(
        &self,
        model: &Classifier,
        indices: &[u32],
        rates: Dropout,
    ) -> Result<Tensor, ModelError> {
        if let Some((cache, which)) = self.prefix {
            let hidden = cache.gather(which, indices, model.device())?;
            return model.forward_from_prefix(&hidden, rates);
        }
        let examples: Vec<(&Split, usize)> =
            indices.iter().map(|index| (self.split, *index as usize)).collect();
        model.forward(&token_batch(model, &examples)?, rates)
    }

    /// Class of the example at `index`.
    pub fn label(&self, index: u32) -> u32 {
        self.split.label(index as usize)
    }

    /// Classes of the examples at `indices`, `[B]`, 64-bit.
    pub fn labels(&self, indices: &[u32], device: Device) -> Result<Tensor, ModelError> {
        let labels: Vec<i64> = indices.iter().map(|index| i64::from(self.label(*index))).collect();
        Ok(Tensor::f_from_slice(&labels)?.f_to_device(device)?)
    }
}
