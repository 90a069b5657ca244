//! Scoring a split: counts and sums, so that parts can be added up.

use std::ops::ControlFlow;

use muster_common::evaluation::Evaluation;
use tch::{Kind, Reduction, Tensor};

use super::batch::Examples;
use crate::model::{Classifier, Dropout, ModelError};

/// Examples per forward.
const EVALUATION_BATCH: usize = 64;

/// Target value that `cross_entropy_loss` leaves out; no class has it.
pub(super) const IGNORE_NOTHING: i64 = -100;

/// Scores every example. `None`: `go_on`, asked between batches, said to stop.
///
/// The result does not depend on the order of the examples in the split: batches are cut from the
/// examples sorted by (length, index).
pub fn evaluate(
    model: &Classifier,
    examples: Examples<'_>,
    mut go_on: impl FnMut() -> ControlFlow<()>,
) -> Result<Option<Evaluation>, ModelError> {
    let num_classes = model.labels().len();
    let mut confusion = vec![vec![0u64; num_classes]; num_classes];
    let mut loss_sum = 0.0;
    let lengths = examples.lengths();
    let mut order: Vec<u32> = (0..).take(lengths.len()).collect();
    order.sort_by_key(|index| (lengths.get(*index as usize).copied(), *index));
    for indices in order.chunks(EVALUATION_BATCH) {
        if go_on().is_break() {
            return Ok(None);
        }
        let (guesses, loss) = tch::no_grad(|| score(model, examples, indices))?;
        loss_sum += loss;
        for (index, guess) in indices.iter().zip(guesses) {
            let row = confusion.get_mut(examples.label(*index) as usize);
            let cell = row.zip(usize::try_from(guess).ok());
            if let Some(cell) = cell.and_then(|(row, guess)| row.get_mut(guess)) {
                *cell += 1;
            }
        }
    }
    let loss = loss_sum / order.len().max(1) as f64;
    Ok(Some(Evaluation { loss, confusion }))
}

/// Predicted classes and the sum of the losses of a batch.
fn score(
    model: &Classifier,
    examples: Examples<'_>,
    indices: &[u32],
) -> Result<(Vec<i64>, f64), ModelError> {
    let logits = examples.logits(model, indices, Dropout::NONE)?; // [B, C]
    let labels = examples.labels(indices, model.device())?;
    let loss = logits.f_cross_entropy_loss(
        &labels,
        None::<Tensor>,
        Reduction::Sum,
        IGNORE_NOTHING,
        0.0,
    )?;
    let guesses = Vec::<i64>::try_from(logits.f_argmax(-1, false)?.f_to_kind(Kind::Int64)?)?;
    Ok((guesses, loss.f_double_value(&[])?))
}
