//! One sequence, its baseline, and the score that is explained: what attributions are computed from.
//!
//! The score is the logit of one class. The baseline is the same sequence with every ordinary token's word embedding
//! replaced; special tokens, positions and segments stay as they are, so that nothing is measured but the words.

use tch::{Kind, Tensor};

use super::eager::{Eager, Pass, Reading};
use crate::model::{ModelError, extent};

/// Products of two lengths in one pass: bounds the memory that attention takes.
const PASS_CELLS: usize = 1 << 19;
/// Sequences in one pass.
const PASS_SEQUENCES: usize = 64;

/// A sequence and what it is compared with.
#[derive(Debug)]
pub struct Subject<'a> {
    eager: &'a Eager,
    reading: Reading,
    words: Tensor,    // [1, L, D]
    baseline: Tensor, // [1, L, D]
    ordinary: Vec<bool>,
    class: i64,
}

impl<'a> Subject<'a> {
    /// Of a reading of one sequence. `ordinary` says of each token whether it is one of the text; `absent` is the word
    /// embedding, `[D]`, of a token that says nothing. `class` is the number of the class whose logit is explained.
    pub fn new(
        eager: &'a Eager,
        reading: Reading,
        ordinary: Vec<bool>,
        absent: &Tensor,
        class: usize,
    ) -> Result<Self, ModelError> {
        let words = eager.words(&reading)?;
        let replaced = mask_of(&[ordinary.as_slice()], &words)?;
        let baseline = absent.f_where_self(&replaced, &words)?;
        Ok(Self { eager, reading, words, baseline, ordinary, class: extent(class) })
    }

    /// Tokens, special ones included.
    pub fn length(&self) -> usize {
        self.reading.length()
    }

    /// Whether each token is one of the text.
    pub(super) fn ordinary(&self) -> &[bool] {
        &self.ordinary
    }

    /// Layers of the encoder.
    pub(super) fn num_layers(&self) -> usize {
        self.eager.num_layers()
    }

    /// Word embeddings of the text, `[1, L, D]`.
    pub(super) fn words(&self) -> &Tensor {
        &self.words
    }

    /// From the baseline to the text, `[1, L, D]`.
    pub(super) fn difference(&self) -> Result<Tensor, ModelError> {
        Ok(self.words.f_sub(&self.baseline)?)
    }

    /// How many sequences one pass takes.
    pub(super) fn sequences_per_pass(&self) -> usize {
        let cells = self.length().saturating_mul(self.length()).max(1);
        (PASS_CELLS / cells).clamp(1, PASS_SEQUENCES)
    }

    /// A pass of the text alone, without gradients.
    pub fn pass(&self) -> Result<Pass, ModelError> {
        tch::no_grad(|| self.eager.forward(&self.words, &self.reading))
    }

    /// Word embeddings on the straight way from the baseline (0) to the text (1), `[N, L, D]`.
    pub(super) fn between(&self, places: &[f64]) -> Result<Tensor, ModelError> {
        let shape = [extent(places.len()), 1, 1];
        let places = Tensor::f_from_slice(places)?.f_to_kind(self.words.kind())?;
        let places = places.f_to_device(self.words.device())?.f_view(shape)?;
        Ok(self.baseline.f_add(&self.difference()?.f_mul(&places)?)?)
    }

    /// A pass from word embeddings `[N, L, D]`, with gradients to them.
    pub(super) fn watched(&self, words: &Tensor) -> Result<(Tensor, Pass), ModelError> {
        let words = words.f_detach()?.f_set_requires_grad(true)?;
        let pass = self.eager.forward(&words, &self.reading)?;
        Ok((words, pass))
    }

    /// Gradients of the score with respect to each of `inputs`, all of whose first dimension are the sequences of
    /// `pass`.
    pub(super) fn gradients(
        &self,
        pass: &Pass,
        inputs: &[&Tensor],
    ) -> Result<Vec<Tensor>, ModelError> {
        // Sequences do not meet, so that the gradient of the sum holds those of all.
        let score = pass.logits.f_select(1, self.class)?.f_sum(Kind::Float)?;
        Ok(Tensor::f_run_backward(&[score], inputs, false, false)?)
    }

    /// The score of the text, and that of the baseline.
    pub(super) fn ends(&self) -> Result<[f64; 2], ModelError> {
        let masks = [vec![false; self.length()], self.ordinary.clone()];
        let scores = self.scores_without(&masks)?;
        Ok([scores.first().copied().unwrap_or(0.0), scores.get(1).copied().unwrap_or(0.0)])
    }

    /// The score where the tokens marked in each mask are those of the baseline.
    pub(super) fn scores_without(&self, masks: &[Vec<bool>]) -> Result<Vec<f64>, ModelError> {
        self.each(masks, |logits| Ok(logits.f_select(1, self.class)?))
    }

    /// The probability of the class, 0 to 1, where the tokens marked in each mask are those of the baseline.
    pub(super) fn probabilities_without(
        &self,
        masks: &[Vec<bool>],
    ) -> Result<Vec<f64>, ModelError> {
        self.each(masks, |logits| Ok(logits.f_softmax(-1, Kind::Float)?.f_select(1, self.class)?))
    }

    fn each(
        &self,
        masks: &[Vec<bool>],
        read: impl Fn(&Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<Vec<f64>, ModelError> {
        let mut found = Vec::with_capacity(masks.len());
        for masks in masks.chunks(self.sequences_per_pass()) {
            let values = tch::no_grad(|| {
                let masks: Vec<&[bool]> = masks.iter().map(Vec::as_slice).collect();
                let replaced = mask_of(&masks, &self.words)?;
                let words = self.baseline.f_where_self(&replaced, &self.words)?; // [N, L, D]
                read(&self.eager.forward(&words, &self.reading)?.logits)
            })?;
            found.extend(doubles(&values)?);
        }
        Ok(found)
    }
}

/// `[N, L, 1]`, true where marked, on the device of `like`.
fn mask_of(masks: &[&[bool]], like: &Tensor) -> Result<Tensor, ModelError> {
    let length = masks.first().map_or(0, |mask| mask.len());
    let flat: Vec<bool> = masks.iter().flat_map(|mask| mask.iter().copied()).collect();
    let shape = [extent(masks.len()), extent(length), 1];
    Ok(Tensor::f_from_slice(&flat)?.f_view(shape)?.f_to_device(like.device())?)
}

/// All values of a tensor, in order.
pub(super) fn doubles(tensor: &Tensor) -> Result<Vec<f64>, ModelError> {
    let flat = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?;
    Ok(Vec::<f64>::try_from(&flat.f_contiguous()?.f_view([-1])?)?)
}
