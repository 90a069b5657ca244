//! A trainer among others that train the same trial: gradients and losses are sums over all ranks,
//! directives are agreed on, and evaluations are put together.

use muster_common::evaluation::prediction::Prediction;
use muster_common::manifest::GradientCompression;
use muster_common::run::Directive;
use tch::{Kind, Tensor};

use super::evaluate::{MaskedTally, Tally};
use crate::collective::{Group, PendingMax, share};
use crate::ffi::{GradientReducer, ReductionTimes, ShimError};
use crate::model::ModelError;

/// What a trainer knows of the others.
#[derive(Debug)]
pub(super) struct Ranks {
    group: Group,
    format: Option<Kind>,
    reducer: Option<GradientReducer>,
    /// The ranks' directives of one step before, on their way.
    asked: Option<PendingMax>,
}

impl Ranks {
    pub(super) fn new(group: Group, compression: GradientCompression) -> Self {
        let format = match compression {
            GradientCompression::Off => None,
            GradientCompression::Bfloat16 => Some(Kind::BFloat16),
            GradientCompression::Float16 => Some(Kind::Half),
        };
        Self { group, format, reducer: None, asked: None }
    }

    /// The part of a global batch that this rank computes.
    pub(super) fn own(&self, batch: &[u32], length: impl Fn(u32) -> u64) -> Vec<u32> {
        share(batch, length, self.group.rank(), self.group.world_size())
    }

    /// Gradients of these parameters, in the order of the forward pass, are reduced from now on.
    pub(super) fn cover(&mut self, parameters: &[(String, Tensor)]) -> Result<(), ShimError> {
        self.reducer = None; // its hooks go before others come
        self.reducer = Some(GradientReducer::new(self.group.processes(), parameters, self.format)?);
        Ok(())
    }

    pub(super) fn is_covered(&self) -> bool {
        self.reducer.is_some()
    }

    /// Comes before the last forward of a step.
    pub(super) fn before_forward(&self) -> Result<(), ShimError> {
        self.reducer.as_ref().map_or(Ok(()), GradientReducer::before_forward)
    }

    /// Comes before its backward, which then reduces.
    pub(super) fn before_backward(&self) -> Result<(), ShimError> {
        self.reducer.as_ref().map_or(Ok(()), GradientReducer::before_backward)
    }

    pub(super) fn times(&self) -> Result<ReductionTimes, ShimError> {
        self.reducer.as_ref().map_or_else(|| Ok(ReductionTimes::default()), GradientReducer::times)
    }

    /// The strongest directive that any rank had one step ago. Every rank calls it before every step
    /// and gets the same answer; nobody waits, because all have begun that step long since.
    pub(super) fn agree(&mut self, own: Option<Directive>) -> Result<Option<Directive>, ShimError> {
        let agreed = self.settle()?;
        if agreed.is_none() {
            self.asked = Some(self.group.begin_max(code(own))?);
        }
        Ok(agreed)
    }

    /// The strongest directive that any rank has now; waits for all.
    pub(super) fn agree_now(&self, own: Option<Directive>) -> Result<Option<Directive>, ShimError> {
        self.group.max(code(own)).map(directive)
    }

    /// Waits for what is on its way between the ranks.
    pub(super) fn settle(&mut self) -> Result<Option<Directive>, ShimError> {
        self.asked.take().map_or(Ok(None), |asked| asked.finish().map(directive))
    }

    /// Sums over all ranks of values that belong together.
    pub(super) fn sums(&self, own: &[f64]) -> Result<Vec<f64>, ShimError> {
        self.group.sum_all(own)
    }

    /// Gives all ranks the weights of rank 0.
    pub(super) fn equalize(&self, tensors: &[Tensor]) -> Result<(), ShimError> {
        self.group.broadcast(tensors)
    }
}

fn code(directive: Option<Directive>) -> i64 {
    match directive {
        None => 0,
        Some(Directive::Preempt) => 1,
        Some(Directive::Cancel) => 2,
    }
}

fn directive(code: i64) -> Option<Directive> {
    match code {
        ..=0 => None,
        1 => Some(Directive::Preempt),
        _ => Some(Directive::Cancel),
    }
}

/// Numbers in front of the rows that ranks put together: loss of classes, ranks that stopped, ranks
/// that had hidden tokens, their loss, how many, and how many were guessed.
const HEAD: usize = 6;

/// Puts together what the ranks found out about their parts of a split of `num_examples`; every rank
/// gets the whole. `None` when one of them has not looked at all of its part.
///
/// Fails when not every example was scored exactly once.
pub fn gather(
    group: &Group,
    part: Option<Tally>,
    num_examples: usize,
    num_classes: usize,
) -> Result<Option<Tally>, ModelError> {
    // One row per example: how often it was scored, its class, the probabilities. Exactly one rank
    // fills it, so that the sum is that rank's row. In front: counts of the whole part.
    let width = 2 + num_classes;
    let num_rows = if num_classes == 0 { 0 } else { num_examples };
    let mut table = vec![0.0f64; HEAD + num_rows.saturating_mul(width)];
    let (head, rows) = table.split_at_mut(HEAD);
    match part {
        None => head.copy_from_slice(&[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
        Some(part) => {
            let hides = f64::from(u8::from(part.masked.is_some()));
            let masked = part.masked.unwrap_or_default();
            let (num_masked, num_right) = (masked.num_masked as f64, masked.num_right as f64);
            head.copy_from_slice(&[
                part.loss_sum,
                0.0,
                hides,
                masked.loss_sum,
                num_masked,
                num_right,
            ]);
            for prediction in part.predictions {
                let at = usize::try_from(prediction.row).unwrap_or(usize::MAX);
                let row = rows.chunks_mut(width).nth(at);
                let Some([count, label, probabilities @ ..]) = row else { continue };
                *count += 1.0;
                *label = f64::from(prediction.label);
                for (to, from) in probabilities.iter_mut().zip(prediction.probabilities) {
                    *to = from;
                }
            }
        }
    }
    let table = group.sum_all(&table)?;
    let [loss_sum, stopped, hides, masked_loss, num_masked, num_right, rows @ ..] =
        table.as_slice()
    else {
        return Ok(None);
    };
    if *stopped > 0.0 {
        return Ok(None);
    }
    let masked = (*hides > 0.0).then(|| MaskedTally {
        loss_sum: *masked_loss,
        num_masked: whole(*num_masked),
        num_right: whole(*num_right),
    });
    let mut predictions = Vec::with_capacity(num_rows);
    for (row, values) in (0u64..).zip(rows.chunks(width)) {
        let [count, label, probabilities @ ..] = values else { continue };
        if (*count - 1.0).abs() > 0.5 {
            let message = format!("example {row} was scored {count} times instead of once");
            return Err(ShimError { operation: "putting an evaluation together", message }.into());
        }
        let label = u32::try_from(whole(*label)).unwrap_or(u32::MAX);
        predictions.push(Prediction::new(row, label, probabilities.to_vec()));
    }
    Ok(Some(Tally { loss_sum: *loss_sum, predictions, masked }))
}

/// A count that went through a sum of floating-point numbers.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and not negative"
)]
fn whole(count: f64) -> u64 {
    count.round() as u64
}
