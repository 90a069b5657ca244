//! How sure the scores of a split are: Wilson's interval of the accuracy, which is a share, bootstrap intervals of the
//! others.

use super::{Evaluation, wilson};
use crate::seed::{Draws, Seed};

/// Resamples drawn. The ends of a 95 % interval are then known to about a tenth of its width.
pub(super) const NUM_RESAMPLES: usize = 1000;
/// Share of the resamples within the interval.
const CONFIDENCE: f64 = 0.95;
/// Root of the draws: the same counts always give the same interval.
pub(super) const SEED: Seed = Seed(0x626f_6f74_7374_7261);

/// Ends of a 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Intervals of the scores that are reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    /// Of the accuracy: the score interval of a share, see [`wilson`]. A bootstrap draws only what it has seen, and
    /// says 1 to 1 where 40 of 40 are right.
    pub accuracy: Interval,
    /// Of the macro-averaged F1: a percentile bootstrap (Efron 1979). F1 is no share of examples.
    pub macro_f1: Interval,
}

impl Intervals {
    /// Of an evaluation. The bootstrap draws as many examples as there are, with replacement, a
    /// thousand times. Pure: the counts decide the draws. `None` where nothing was scored.
    pub fn of(evaluation: &Evaluation) -> Option<Self> {
        let accuracy = wilson(evaluation.num_right(), evaluation.num_examples())?;
        let mut draws = SEED.draws();
        let scores = (0..NUM_RESAMPLES).map(|_| resample(evaluation, &mut draws).macro_f1());
        Some(Self { accuracy, macro_f1: interval(scores.collect()) })
    }
}

/// Counts of as many examples, drawn with replacement.
fn resample(evaluation: &Evaluation, draws: &mut Draws) -> Evaluation {
    let cells: Vec<u64> = evaluation.confusion.iter().flatten().copied().collect();
    let mut drawn = drawn(&cells, draws).into_iter();
    let confusion = evaluation.confusion.iter();
    let confusion = confusion.map(|row| drawn.by_ref().take(row.len()).collect()).collect();
    Evaluation { confusion, ..Evaluation::default() }
}

/// As many examples as the cells hold together, drawn with replacement; how many of each cell.
pub(super) fn drawn(cells: &[u64], draws: &mut Draws) -> Vec<u64> {
    let mut ends = Vec::with_capacity(cells.len());
    let mut total = 0u64;
    for count in cells {
        total += count;
        ends.push(total);
    }
    let mut drawn = vec![0u64; cells.len()];
    for _ in 0..total {
        // Uniform to about total / 2^64; a million examples are drawn with an error below 1e-13.
        let wide = u128::from(draws.next_u64()) * u128::from(total);
        let example = u64::try_from(wide >> 64).unwrap_or(0);
        let cell = ends.partition_point(|end| *end <= example);
        if let Some(count) = drawn.get_mut(cell) {
            *count += 1;
        }
    }
    drawn
}

/// The middle 95 % of values.
pub(super) fn interval(mut values: Vec<f64>) -> Interval {
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Interval { low: quantile(&values, tail), high: quantile(&values, 1.0 - tail) }
}

/// Linear between neighbours, as numpy's default.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * sorted.len().saturating_sub(1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a short list"
    )]
    let below = position.floor() as usize;
    let at = |index: usize| sorted.get(index.min(sorted.len().saturating_sub(1))).copied();
    let (low, high) = (at(below).unwrap_or(f64::NAN), at(below + 1).unwrap_or(f64::NAN));
    low + (high - low) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(confusion: Vec<Vec<u64>>) -> Evaluation {
        Evaluation { confusion, ..Evaluation::default() }
    }

    #[test]
    fn resamples_have_as_many_examples_and_only_of_cells_that_have_some() {
        let original = evaluation(vec![vec![40, 0], vec![7, 53]]);
        let mut draws = Seed(1).draws();
        for _ in 0..50 {
            let drawn = resample(&original, &mut draws);
            assert_eq!(drawn.num_examples(), 100);
            assert_eq!(drawn.confusion[0][1], 0);
            assert_eq!(drawn.confusion.len(), 2);
        }
    }

    #[test]
    fn the_same_counts_give_the_same_interval_and_none_give_none() {
        let split = evaluation(vec![vec![432, 72], vec![75, 421]]);
        let intervals = Intervals::of(&split).unwrap();
        assert_eq!(Intervals::of(&split), Some(intervals));
        assert!(intervals.accuracy.low < 0.853 && 0.853 < intervals.accuracy.high);
        assert_eq!(Intervals::of(&evaluation(vec![vec![0, 0], vec![0, 0]])), None);
    }

    #[test]
    fn no_mistake_in_few_examples_proves_little() {
        let perfect = Intervals::of(&evaluation(vec![vec![20, 0], vec![0, 20]])).unwrap();
        assert!((perfect.accuracy.low - 0.912_378_398_8).abs() < 1e-9, "{perfect:?}");
        assert!((perfect.accuracy.high - 1.0).abs() < 1e-12, "{perfect:?}");
        let hopeless = Intervals::of(&evaluation(vec![vec![0, 20], vec![20, 0]])).unwrap();
        assert!((hopeless.accuracy.high - 0.087_621_601_2).abs() < 1e-9, "{hopeless:?}");
        // All that a bootstrap can say of it.
        assert!((perfect.macro_f1.low - 1.0).abs() < 1e-12, "{perfect:?}");
    }
}
