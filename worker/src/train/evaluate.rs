//! Scoring a split: what the model says about every example, once, and what that comes to.

use std::ops::ControlFlow;

use muster_common::evaluation::prediction::Prediction;
use muster_common::evaluation::{Evaluation, MaskedScore, roc_auc};
use muster_common::manifest::Precision;
use tch::{Kind, Tensor};

use super::batch::Examples;
use super::precision::autocast;
use crate::model::{Dropout, LanguageModel, ModelError, TaskModel, forward_batches};

/// Examples per forward, at most.
const EVALUATION_BATCH: usize = 64;

/// The same where tokens are guessed: every hidden one has a score for every token of the vocabulary.
const MASKED_BATCH: usize = 16;

/// How a split is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scoring {
    /// Number format of matrix products.
    pub precision: Precision,
    /// This process among those that share the work, from 0.
    pub rank: u32,
    /// How many share it, one at least. Each example is scored by exactly one of them.
    pub num_ranks: u32,
}

impl Scoring {
    /// One process scores everything.
    pub fn alone(precision: Precision) -> Self {
        Self { precision, rank: 0, num_ranks: 1 }
    }
}

/// What was found out about a split or a part of it. Parts can be merged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// Sum of the cross-entropies, nats.
    pub loss_sum: f64,
    /// One per example, in no particular order; none where there are no classes.
    pub predictions: Vec<Prediction>,
    /// What was found out about hidden tokens; absent where none are hidden.
    pub masked: Option<MaskedTally>,
}

/// Guesses of hidden tokens, counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MaskedTally {
    /// Sum of the cross-entropies, nats.
    pub loss_sum: f64,
    /// Tokens to guess.
    pub num_masked: u64,
    /// Right guesses.
    pub num_right: u64,
}

impl MaskedTally {
    fn merge(&mut self, other: Self) {
        self.loss_sum += other.loss_sum;
        self.num_masked += other.num_masked;
        self.num_right += other.num_right;
    }

    /// The loss of nothing is not a number.
    fn score(self) -> MaskedScore {
        let Self { loss_sum, num_masked, num_right } = self;
        MaskedScore { loss: loss_sum / num_masked as f64, num_masked, num_right }
    }
}

impl Tally {
    /// Takes in what another process found out about other examples.
    pub fn merge(&mut self, other: Self) {
        self.loss_sum += other.loss_sum;
        self.predictions.extend(other.predictions);
        if let Some(masked) = other.masked {
            self.masked.get_or_insert_default().merge(masked);
        }
    }

    /// Counts and figures; `num_classes` is 0 where there are none.
    pub fn evaluation(&self, num_classes: usize) -> Evaluation {
        let mut confusion = vec![vec![0u64; num_classes]; num_classes];
        let mut labels = Vec::with_capacity(self.predictions.len());
        let mut rows = Vec::with_capacity(self.predictions.len());
        for prediction in &self.predictions {
            let row = confusion.get_mut(prediction.label as usize);
            if let Some(cell) = row.and_then(|row| row.get_mut(prediction.class())) {
                *cell += 1;
            }
            labels.push(prediction.label);
            rows.push(prediction.probabilities.clone());
        }
        let masked = self.masked.map(MaskedTally::score);
        let of_classes = self.loss_sum / self.predictions.len().max(1) as f64;
        let loss = of_classes + masked.map_or(0.0, |masked| masked.loss);
        Evaluation { loss, confusion, auc: roc_auc(&labels, &rows), masked }
    }

    /// The predictions in the order of the split.
    pub fn into_rows(mut self) -> Vec<Prediction> {
        self.predictions.sort_by_key(|prediction| prediction.row);
        self.predictions
    }
}

/// Scores this process's share of the examples. `None`: `go_on`, asked between batches, said to stop.
///
/// What comes out does not depend on the order of the examples in the split: batches are cut from the
/// examples sorted by (length, index), and dealt out to the ranks one by one.
pub fn evaluate(
    model: &TaskModel,
    examples: Examples<'_>,
    scoring: Scoring,
    mut go_on: impl FnMut() -> ControlFlow<()>,
) -> Result<Option<Tally>, ModelError> {
    let examples = examples.whole()?;
    let mut order: Vec<u32> = (0..).take(examples.len()).collect();
    let lengths = examples.lengths(&order)?;
    order.sort_by_key(|index| (lengths.get(*index as usize).copied(), *index));
    let mut scored: Vec<(&[u32], Scored)> = Vec::new();
    let batch_size = match model {
        TaskModel::Language(model) if model.objective().masks() => MASKED_BATCH,
        _ => EVALUATION_BATCH,
    };
    let length = |index: &u32| lengths.get(*index as usize).map_or(0, |length| *length as usize);
    let batches = forward_batches(&order, batch_size, model.device(), length);
    let ranks = (0..scoring.num_ranks.max(1)).cycle();
    for (indices, rank) in batches.into_iter().zip(ranks) {
        if rank != scoring.rank {
            continue;
        }
        if go_on().is_break() {
            return Ok(None);
        }
        scored.push((indices, tch::no_grad(|| score(model, examples, indices, scoring))?));
    }
    // Read back only now: nothing waits for the device in between.
    let mut tally = Tally::default();
    for (indices, Scored { logits, masked }) in scored {
        if let Some(guesses) = masked {
            tally.masked.get_or_insert_default().merge(guesses.read()?);
        }
        let Some(logits) = logits else { continue };
        let (_, num_classes) = logits.size2()?;
        let flat = Vec::<f64>::try_from(logits.f_to_kind(Kind::Double)?.f_view([-1])?)?;
        let width = usize::try_from(num_classes).unwrap_or(1).max(1);
        for (index, logits) in indices.iter().zip(flat.chunks(width)) {
            let label = examples.label(*index);
            let (probabilities, loss) = softmax(logits, label);
            tally.loss_sum += loss;
            tally.predictions.push(Prediction::new(u64::from(*index), label, probabilities));
        }
    }
    Ok(Some(tally))
}

/// What a model says about a batch, on the device.
struct Scored {
    /// Of classes, `[B, C]`.
    logits: Option<Tensor>,
    masked: Option<Guesses>,
}

/// Guesses of the hidden tokens of a batch: sum of the losses and right ones, each 0-d.
struct Guesses {
    loss_sum: Tensor,
    num_masked: u64,
    num_right: Tensor,
}

impl Guesses {
    /// Waits for the device.
    fn read(&self) -> Result<MaskedTally, ModelError> {
        let num_right = u64::try_from(self.num_right.f_int64_value(&[])?).unwrap_or(0);
        let loss_sum = self.loss_sum.f_double_value(&[])?;
        Ok(MaskedTally { loss_sum, num_masked: self.num_masked, num_right })
    }
}

fn score(
    model: &TaskModel,
    examples: Examples<'_>,
    indices: &[u32],
    scoring: Scoring,
) -> Result<Scored, ModelError> {
    match model {
        TaskModel::Classifier(model) => {
            let _precision = autocast(scoring.precision, model.device())?;
            let logits = examples.logits(model, indices, Dropout::NONE)?;
            Ok(Scored { logits: Some(logits), masked: None })
        }
        TaskModel::Language(model) => score_language(model, examples, indices, scoring),
    }
}

fn score_language(
    model: &LanguageModel,
    examples: Examples<'_>,
    indices: &[u32],
    scoring: Scoring,
) -> Result<Scored, ModelError> {
    let batch = examples.language_batch(model, indices, examples.evaluation_masks())?;
    let logits = {
        let _precision = autocast(scoring.precision, model.device())?;
        model.logits(&batch, Dropout::NONE)?
    };
    let guesses = logits.losses(&batch)?.masked.zip(logits.num_right(&batch)?);
    let masked = guesses.map(|(losses, num_right)| Guesses {
        loss_sum: losses.sum,
        num_masked: losses.count,
        num_right,
    });
    Ok(Scored { logits: logits.next_sentence, masked })
}

/// Probabilities of one example and its cross-entropy in nats.
fn softmax(logits: &[f64], label: u32) -> (Vec<f64>, f64) {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let own = logits.get(label as usize).copied().unwrap_or(f64::NAN);
    (powers.into_iter().map(|power| power / sum).collect(), sum.ln() + highest - own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_and_losses_follow_from_logits() {
        let (probabilities, loss) = softmax(&[1000.0, 1000.0 + 3f64.ln()], 1);
        assert!((probabilities[0] - 0.25).abs() < 1e-12 && (probabilities[1] - 0.75).abs() < 1e-12);
        assert!((loss + 0.75f64.ln()).abs() < 1e-12);
        assert!(softmax(&[f64::NAN, 0.0], 0).1.is_nan());
        assert!(softmax(&[f64::INFINITY, 0.0], 1).1.is_nan());
    }

    #[test]
    fn parts_add_up() {
        let prediction = |row, label, p: f64| Prediction::new(row, label, vec![1.0 - p, p]);
        let (rows, losses) = ([prediction(1, 1, 0.9), prediction(0, 0, 0.6)], [0.5, 1.5]);
        let part = |i: usize| Tally {
            loss_sum: losses[i],
            predictions: vec![rows[i].clone()],
            masked: None,
        };
        let mut tally = part(0);
        tally.merge(part(1));
        let evaluation = tally.evaluation(2);
        assert_eq!(evaluation.confusion, [[0, 1], [0, 1]]);
        assert_eq!((evaluation.loss.to_bits(), evaluation.auc), (1.0f64.to_bits(), Some(1.0)));
        assert_eq!(tally.into_rows().iter().map(|p| p.row).collect::<Vec<_>>(), [0, 1]);
    }
}
