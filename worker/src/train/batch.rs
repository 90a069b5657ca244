//! Examples on their way into the model: tokens, tokens of which some are hidden, or what the frozen
//! prefix made of them.

use muster_common::manifest::MaskingSettings;
use muster_common::seed::Seed;
use tch::{Device, Tensor};

use crate::data::{FOLLOWS, Split};
use crate::model::{
    Classifier, Dropout, LanguageBatch, LanguageExample, LanguageModel, MaskedTokens,
    MaskingVocabulary, ModelError, mask_tokens,
};
use crate::prefix::{PrefixCache, PrefixSplit, token_batch};

/// How tokens are hidden.
#[derive(Debug, Clone, PartialEq)]
pub struct Masking {
    /// What the tokenizer knows.
    pub vocabulary: MaskingVocabulary,
    /// How many are hidden, and behind what.
    pub settings: MaskingSettings,
    /// Root of the masks of evaluations: the same for every trial and every time, so that scores
    /// compare.
    pub evaluation: Seed,
}

/// A split, and how its examples are read.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    split: &'a Split,
    reading: Reading<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Reading<'a> {
    /// Every token goes through the whole model.
    Tokens,
    /// Some tokens are hidden.
    Masked(&'a Masking),
    /// What the frozen prefix made of the tokens.
    Prefix(&'a PrefixCache, PrefixSplit),
}

impl<'a> Examples<'a> {
    /// Examples that go through the whole model.
    pub fn of_tokens(split: &'a Split) -> Self {
        Self { split, reading: Reading::Tokens }
    }

    /// Examples of which some tokens are hidden, each time others.
    pub fn of_masked(split: &'a Split, masking: &'a Masking) -> Self {
        Self { split, reading: Reading::Masked(masking) }
    }

    /// Examples that enter behind the frozen prefix; `which` says which split `split` is.
    pub fn of_prefix(split: &'a Split, cache: &'a PrefixCache, which: PrefixSplit) -> Self {
        Self { split, reading: Reading::Prefix(cache, which) }
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
        if let Reading::Prefix(cache, which) = self.reading {
            let hidden = cache.gather(which, indices, model.device())?;
            return model.forward_from_prefix(&hidden, rates);
        }
        let examples: Vec<(&Split, usize)> =
            indices.iter().map(|index| (self.split, *index as usize)).collect();
        model.forward(&token_batch(model, &examples)?, rates)
    }

    /// The examples at `indices` for a language model, tokens hidden by `masks`. What is hidden of
    /// an example depends on `masks` and the example alone, not on the batch it is in.
    pub fn language_batch(
        &self,
        model: &LanguageModel,
        indices: &[u32],
        masks: Seed,
    ) -> Result<LanguageBatch, ModelError> {
        if model.objective().masks() && !matches!(self.reading, Reading::Masked(_)) {
            let reason = "no tokens are hidden of the examples".to_owned();
            return Err(ModelError::Masking { reason });
        }
        let hidden: Vec<MaskedTokens> =
            indices.iter().map(|index| self.hidden(*index, masks)).collect();
        let examples = indices.iter().zip(&hidden).map(|(index, masked)| {
            let first_segment = self.split.first_segment(*index as usize);
            LanguageExample {
                masked,
                first_segment: first_segment.unwrap_or(masked.tokens.len()),
                follows: self.label(*index) == FOLLOWS,
            }
        });
        let examples: Vec<LanguageExample<'_>> = examples.collect();
        model.batch(&examples)
    }

    /// How many tokens of the examples at `indices` are hidden by `masks`.
    pub fn num_masked(&self, indices: &[u32], masks: Seed) -> u64 {
        match self.reading {
            Reading::Masked(_) => {
                let count = |index: &u32| self.hidden(*index, masks).positions.len() as u64;
                indices.iter().map(count).sum()
            }
            Reading::Tokens | Reading::Prefix(..) => 0,
        }
    }

    /// Root of the masks of evaluations.
    pub(super) fn evaluation_masks(&self) -> Seed {
        match self.reading {
            Reading::Masked(masking) => masking.evaluation,
            Reading::Tokens | Reading::Prefix(..) => Seed(0),
        }
    }

    fn hidden(&self, index: u32, masks: Seed) -> MaskedTokens {
        let tokens = self.split.tokens(index as usize);
        match self.reading {
            Reading::Masked(Masking { vocabulary, settings, .. }) => {
                let seed = masks.child("example", u64::from(index));
                mask_tokens(tokens, vocabulary, settings, seed)
            }
            Reading::Tokens | Reading::Prefix(..) => tokens.to_vec().into(),
        }
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
