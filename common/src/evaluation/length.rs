//! Whether long texts are harder: accuracy by number of tokens.

use super::bootstrap::Interval;
use super::prediction::Prediction;
use super::proportion::wilson;

/// Examples of about the same length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LengthBin {
    /// Tokens of the shortest, special tokens counted.
    pub shortest: u32,
    /// Tokens of the longest.
    pub longest: u32,
    /// Examples in it.
    pub count: u64,
    /// Those whose class was predicted.
    pub num_right: u64,
    /// 95 % interval of the share of right ones.
    pub interval: Interval,
}

impl LengthBin {
    /// Share of right predictions, 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.num_right as f64 / self.count.max(1) as f64
    }
}

/// At most `num_bins` bins with about as many examples each, the shortest first; examples of one length stay together.
/// Empty where lengths are not known.
pub fn accuracy_by_length(predictions: &[Prediction], num_bins: usize) -> Vec<LengthBin> {
    let mut known: Vec<(u32, bool)> = predictions
        .iter()
        .filter_map(|prediction| Some((prediction.num_tokens?, prediction.is_right())))
        .collect();
    known.sort_unstable();
    let wanted = known.len().div_ceil(num_bins.max(1)).max(1);
    let mut bins = Vec::new();
    let mut open: Vec<(u32, bool)> = Vec::new();
    for same in known.chunk_by(|a, b| a.0 == b.0) {
        // A length that would make the bin much too large begins the next one.
        if !open.is_empty() && open.len() + same.len() > wanted + wanted / 2 {
            bins.extend(closed(&open));
            open.clear();
        }
        open.extend_from_slice(same);
        if open.len() >= wanted {
            bins.extend(closed(&open));
            open.clear();
        }
    }
    bins.extend(closed(&open));
    bins
}

fn closed(examples: &[(u32, bool)]) -> Option<LengthBin> {
    let (first, last) = (examples.first()?, examples.last()?);
    let count = examples.len() as u64;
    let num_right = examples.iter().filter(|(_, is_right)| *is_right).count() as u64;
    let interval = wilson(num_right, count)?;
    Some(LengthBin { shortest: first.0, longest: last.0, count, num_right, interval })
}
