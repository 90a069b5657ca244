//! What attention does: what each head looks at, and what the first token has seen when the last layer is done.
//!
//! Rollout: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", arXiv 2005.00928, section 3: with
//! `A` the mean over the heads of a layer, `A' = 0.5 A + 0.5 I` (whose rows sum to 1) stands for attention and
//! residual, and the product over the layers for the whole encoder. Attention shows where information may flow, not
//! what the class follows from: see it beside attributions, which can be tested (`curve`).
//!
//! Shapes: `H` heads, `L` tokens.

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::subject::doubles;
use crate::model::{ModelError, extent};

/// What one head looks at, in the mean over the queries of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct HeadSummary {
    /// Entropy of the shares in nats: 0 where every query looks at one token, `ln(L)` where at all alike.
    pub entropy: f64,
    /// Mean distance of what is looked at, in tokens.
    pub distance: f64,
    /// Share on the first token, `[CLS]` or `<s>`, 0 to 1.
    pub first_share: f64,
    /// Share on tokens that end a text, `[SEP]` or `</s>`, 0 to 1.
    pub separator_share: f64,
}

impl HeadSummary {
    fn values(self) -> [f64; 4] {
        [self.entropy, self.distance, self.first_share, self.separator_share]
    }

    /// The mean of the summaries, field by field; of none it is all zero.
    pub fn mean(summaries: impl IntoIterator<Item = Self>) -> Self {
        let (mut sums, mut count) = ([0.0; 4], 0.0);
        for summary in summaries {
            for (sum, value) in sums.iter_mut().zip(summary.values()) {
                *sum += value;
            }
            count += 1.0;
        }
        let [entropy, distance, first_share, separator_share] =
            sums.map(|sum: f64| if count > 0.0 { sum / count } else { 0.0 });
        Self { entropy, distance, first_share, separator_share }
    }
}

/// Of every head of a layer, whose attention is `[1, H, L, L]`; `separators` are places of tokens that end a text.
pub fn summarize_heads(
    attention: &Tensor,
    separators: &[usize],
) -> Result<Vec<HeadSummary>, ModelError> {
    let shares = attention.f_squeeze_dim(0)?.f_to_kind(Kind::Double)?; // [H, L, L]
    let (_, length, _) = shares.size3()?;
    let options = (Kind::Double, shares.device());
    let logs = shares.f_clamp_min(f64::MIN_POSITIVE)?.f_log()?;
    let over_keys = |x: &Tensor| x.f_sum_dim_intlist(-1i64, false, Kind::Double); // [H, L]
    let over_queries = |x: &Tensor| x.f_mean_dim(-1i64, false, Kind::Double); // [H]
    let entropy = doubles(&over_queries(&over_keys(&shares.f_mul(&logs)?)?.f_neg()?)?)?;
    let places = Tensor::f_arange(length, options)?;
    let apart = places.f_unsqueeze(0)?.f_sub(&places.f_unsqueeze(1)?)?.f_abs()?; // [L, L]
    let distance = doubles(&over_queries(&over_keys(&shares.f_mul(&apart)?)?)?)?;
    let first = doubles(&over_queries(&shares.f_select(-1, 0)?)?)?;
    let separators: Vec<i64> = separators.iter().map(|at| extent(*at)).collect();
    let separators = Tensor::f_from_slice(&separators)?.f_to_device(shares.device())?;
    let ends = doubles(&over_queries(&over_keys(&shares.f_index_select(-1, &separators)?)?)?)?;
    let heads = entropy.into_iter().zip(distance).zip(first.into_iter().zip(ends));
    Ok(heads
        .map(|((entropy, distance), (first_share, separator_share))| HeadSummary {
            entropy,
            distance,
            first_share,
            separator_share,
        })
        .collect())
}

/// What the first token has of every token after each layer, from attentions `[1, H, L, L]`: as many rows of `L`
/// shares, each of which sums to 1, as there are layers.
pub fn rollout(attentions: &[Tensor]) -> Result<Vec<Vec<f64>>, ModelError> {
    let mut rolled: Option<Tensor> = None;
    let mut rows = Vec::with_capacity(attentions.len());
    for attention in attentions {
        let heads = attention.f_squeeze_dim(0)?.f_to_device(Device::Cpu)?;
        let mean = heads.f_mean_dim(0i64, false, Kind::Double)?; // [L, L]
        let length = mean.size2()?.0;
        let identity = Tensor::f_eye(length, (Kind::Double, Device::Cpu))?;
        let flow = mean.f_add(&identity)?.f_mul_scalar(0.5)?;
        let next = match rolled {
            Some(below) => flow.f_matmul(&below)?,
            None => flow,
        };
        rows.push(doubles(&next.f_select(0, 0)?)?);
        rolled = Some(next);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() < 1e-9
    }

    #[test]
    fn heads_are_summarized_by_hand() {
        // Head 0 looks at everything alike, head 1 at the last token only.
        let even = [0.25f64; 16];
        let last: Vec<f64> = (0..16).map(|at| f64::from(u8::from(at % 4 == 3))).collect();
        let shares: Vec<f64> = even.into_iter().chain(last).collect();
        let attention = Tensor::from_slice(&shares).view([1, 2, 4, 4]);
        let heads = summarize_heads(&attention, &[2, 3]).unwrap();
        assert!(close(heads[0].entropy, 4f64.ln()) && close(heads[1].entropy, 0.0));
        // Distances of all pairs of four places sum to 20; those from the last to 6.
        assert!(close(heads[0].distance, 20.0 / 16.0) && close(heads[1].distance, 6.0 / 4.0));
        assert!(close(heads[0].first_share, 0.25) && close(heads[1].first_share, 0.0));
        assert!(close(heads[0].separator_share, 0.5) && close(heads[1].separator_share, 1.0));
        let mean = HeadSummary::mean(heads);
        assert!(close(mean.separator_share, 0.75));
        assert_eq!(HeadSummary::mean([]), HeadSummary::default());
    }

    #[test]
    fn rollout_multiplies_layers_with_residuals() {
        // The first token looks at the second, the second at itself.
        let attention = || Tensor::from_slice(&[0.0f64, 1.0, 0.0, 1.0]).view([1, 1, 2, 2]);
        let rows = rollout(&[attention(), attention()]).unwrap();
        assert_eq!(rows, [vec![0.5, 0.5], vec![0.25, 0.75]]);
    }
}
