//! Examples on their way into the model: tokens, tokens of which some are hidden, or what the frozen
//! prefix made of them.

use muster_common::manifest::MaskingSettings;
use muster_common::seed::Seed;
use tch::{Device, Tensor};

use crate::data::{FOLLOWS, Split, StreamedSplit};
use crate::model::{
    Classifier, Dropout, LanguageBatch, LanguageExample, LanguageModel, MaskedTokens,
    MaskingVocabulary, ModelError, TokenBatch, mask_tokens,
};
use crate::prefix::{Coverage, PrefixCache, PrefixSplit, token_batch};

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
    origin: Origin<'a>,
    reading: Reading<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    Split(&'a Split),
    /// Tokenized when it is read.
    Stream(&'a StreamedSplit),
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
        Self { origin: Origin::Split(split), reading: Reading::Tokens }
    }

    /// The same where tokens are made when they are needed.
    pub fn of_stream(split: &'a StreamedSplit) -> Self {
        Self { origin: Origin::Stream(split), reading: Reading::Tokens }
    }

    /// Examples of which some tokens are hidden, each time others.
    pub fn of_masked(split: &'a Split, masking: &'a Masking) -> Self {
        Self { origin: Origin::Split(split), reading: Reading::Masked(masking) }
    }

    /// Examples that enter behind the frozen prefix; `which` says which split `split` is.
    pub fn of_prefix(split: &'a Split, cache: &'a PrefixCache, which: PrefixSplit) -> Self {
        Self { origin: Origin::Split(split), reading: Reading::Prefix(cache, which) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self.origin {
            Origin::Split(split) => split.len(),
            Origin::Stream(split) => split.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether activations of training examples were computed ahead, if these are training examples.
    pub fn coverage(&self) -> Coverage {
        match self.reading {
            Reading::Prefix(..) => Coverage::Everything,
            Reading::Tokens | Reading::Masked(_) => Coverage::Validation,
        }
    }

    /// The same with everything tokenized: now, if it is not yet.
    pub fn whole(self) -> Result<Self, ModelError> {
        Ok(Self { origin: Origin::Split(self.split()?), ..self })
    }

    fn split(&self) -> Result<&'a Split, ModelError> {
        match self.origin {
            Origin::Split(split) => Ok(split),
            Origin::Stream(split) => Ok(split.whole()?),
        }
    }

    /// Tokens of each of the examples at `indices`, special tokens counted. Where tokens are made when
    /// they are needed, these are made.
    pub fn lengths(&self, indices: &[u32]) -> Result<Vec<u32>, ModelError> {
        match self.origin {
            Origin::Split(split) => {
                let length = |index: &u32| split.length(*index as usize);
                let length = |index| u32::try_from(length(index)).unwrap_or(u32::MAX);
                Ok(indices.iter().map(length).collect())
            }
            Origin::Stream(split) => Ok(split.lengths(indices)?),
        }
    }

    /// Token ids of the example at `index`, special tokens counted: of one text, or of each of a pair. Everything
    /// is tokenized then, if it is not yet.
    pub fn texts(&self, index: u32) -> Result<Vec<&'a [u32]>, ModelError> {
        let (split, index) = (self.split()?, index as usize);
        let tokens = split.tokens(index);
        Ok(match split.first_segment(index).and_then(|first| tokens.split_at_checked(first)) {
            Some((first, second)) => vec![first, second],
            None => vec![tokens],
        })
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
        let batch = match self.origin {
            Origin::Split(split) => {
                let examples: Vec<(&Split, usize)> =
                    indices.iter().map(|index| (split, *index as usize)).collect();
                token_batch(model, &examples)?
            }
            Origin::Stream(split) => streamed_batch(model, split, indices)?,
        };
        model.forward(&batch, rates)
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
        let split = self.split()?;
        let hidden: Vec<MaskedTokens> =
            indices.iter().map(|index| self.hidden(split, *index, masks)).collect();
        let examples = indices.iter().zip(&hidden).map(|(index, masked)| {
            let first_segment = split.first_segment(*index as usize);
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
        match (self.reading, self.origin) {
            (Reading::Masked(_), Origin::Split(split)) => {
                let count = |index: &u32| self.hidden(split, *index, masks).positions.len() as u64;
                indices.iter().map(count).sum()
            }
            _ => 0,
        }
    }

    /// Root of the masks of evaluations.
    pub(super) fn evaluation_masks(&self) -> Seed {
        match self.reading {
            Reading::Masked(masking) => masking.evaluation,
            Reading::Tokens | Reading::Prefix(..) => Seed(0),
        }
    }

    fn hidden(&self, split: &Split, index: u32, masks: Seed) -> MaskedTokens {
        let tokens = split.tokens(index as usize);
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
        match self.origin {
            Origin::Split(split) => split.label(index as usize),
            Origin::Stream(split) => split.label(index as usize),
        }
    }

    /// Classes of the examples at `indices`, `[B]`, 64-bit.
    pub fn labels(&self, indices: &[u32], device: Device) -> Result<Tensor, ModelError> {
        let labels: Vec<i64> = indices.iter().map(|index| i64::from(self.label(*index))).collect();
        Ok(Tensor::f_from_slice(&labels)?.f_to_device(device)?)
    }
}

/// Tokens of examples that are made when they are needed, for `model`.
fn streamed_batch(
    model: &Classifier,
    split: &StreamedSplit,
    indices: &[u32],
) -> Result<TokenBatch, ModelError> {
    let sequences = split.sequences(indices)?;
    let tokens: Vec<&[u32]> = sequences.iter().map(|sequence| sequence.ids.as_slice()).collect();
    if !split.has_pairs() {
        return model.batch(&tokens);
    }
    let firsts: Vec<usize> = sequences.iter().map(|sequence| sequence.first_segment).collect();
    model.batch_of_pairs(&tokens, &firsts)
}
