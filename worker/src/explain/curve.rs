//! Whether an attribution is faithful: the words that it calls important are taken away first, and the probability
//! of the class should fall fast (deletion), or given first, and it should rise fast (insertion). Petsiuk, Das,
//! Saenko 2018, "RISE", arXiv 1806.07421, section 4.2, with words in place of pixels; a random order stands beside,
//! as an attribution that does no better than chance says nothing.

use muster_common::seed::Seed;
use serde::Serialize;

use super::attribution::mask;
use super::subject::Subject;
use crate::model::ModelError;

/// Points of a curve behind its first one: every word of shorter texts has its own.
const POINTS: usize = 20;
/// Random orders in the mean.
const RANDOM_ORDERS: u64 = 8;

/// Probability of the class while words are taken away, or given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Share of the words that are taken away, or given; from 0 to 1.
    pub shares: Vec<f64>,
    /// Probability of the class, 0 to 1.
    pub probabilities: Vec<f64>,
    /// Area below, 0 to 1: small is good for deletion, large for insertion.
    pub area: f64,
}

/// Both curves of one order of the words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Faithfulness {
    /// Words are taken away, the most important first.
    pub deletion: Curve,
    /// Words are given, the most important first.
    pub insertion: Curve,
}

impl Curve {
    /// Through these points, whose shares rise from 0 to 1.
    fn new(shares: Vec<f64>, probabilities: Vec<f64>) -> Self {
        let ends = shares.windows(2).zip(probabilities.windows(2));
        let parts = ends.map(|(x, y)| match (x, y) {
            ([left, right], [from, to]) => (right - left) * f64::midpoint(*from, *to),
            _ => 0.0,
        });
        let area = parts.sum();
        Self { shares, probabilities, area }
    }

    /// The probability at a share, between the points.
    pub(super) fn at(&self, share: f64) -> f64 {
        let points = || self.shares.iter().zip(&self.probabilities);
        let before = points().rfind(|(x, _)| **x <= share);
        let after = points().find(|(x, _)| **x >= share);
        match (before, after) {
            (Some((left, from)), Some((right, to))) if right > left => {
                from + (to - from) * (share - left) / (right - left)
            }
            (Some((_, value)), _) | (None, Some((_, value))) => *value,
            (None, None) => 0.0,
        }
    }

    /// The mean of curves, at shares 0, 0.05 ... 1; none of none.
    pub fn mean(curves: &[&Self]) -> Option<Self> {
        let count = curves.len();
        if count == 0 {
            return None;
        }
        let shares: Vec<f64> = (0..=POINTS).map(|point| point as f64 / POINTS as f64).collect();
        let mean =
            |share: &f64| curves.iter().map(|curve| curve.at(*share)).sum::<f64>() / count as f64;
        let probabilities = shares.iter().map(mean).collect();
        Some(Self::new(shares, probabilities))
    }
}

/// Both curves of an order of `words`, each given by its tokens; `order` holds their numbers, the most important first.
/// There must be a word.
pub(super) fn faithfulness(
    subject: &Subject<'_>,
    words: &[Vec<usize>],
    order: &[usize],
) -> Result<Faithfulness, ModelError> {
    let counts = counts(order.len());
    let shares: Vec<f64> =
        counts.iter().map(|count| *count as f64 / order.len().max(1) as f64).collect();
    let marked = |count: &usize| {
        let tokens: Vec<usize> = order
            .iter()
            .take(*count)
            .filter_map(|word| words.get(*word))
            .flatten()
            .copied()
            .collect();
        mask(subject.length(), &tokens)
    };
    let taken: Vec<Vec<bool>> = counts.iter().map(marked).collect();
    // What is not given yet is absent, apart from special tokens, which never are.
    let absent = |taken: &Vec<bool>| -> Vec<bool> {
        taken.iter().zip(subject.ordinary()).map(|(given, ordinary)| *ordinary && !given).collect()
    };
    let masks: Vec<Vec<bool>> = taken.iter().cloned().chain(taken.iter().map(absent)).collect();
    let mut probabilities = subject.probabilities_without(&masks)?;
    let given = probabilities.split_off(counts.len());
    Ok(Faithfulness {
        deletion: Curve::new(shares.clone(), probabilities),
        insertion: Curve::new(shares, given),
    })
}

/// The mean over random orders of the words.
pub(super) fn random_faithfulness(
    subject: &Subject<'_>,
    words: &[Vec<usize>],
    seed: Seed,
) -> Result<Faithfulness, ModelError> {
    let drawn = (0..RANDOM_ORDERS).map(|number| {
        let mut order: Vec<usize> = (0..words.len()).collect();
        seed.child("word order", number).draws().shuffle(&mut order);
        faithfulness(subject, words, &order)
    });
    let drawn = drawn.collect::<Result<Vec<_>, _>>()?;
    let mean = |curve: fn(&Faithfulness) -> &Curve| {
        let curves: Vec<&Curve> = drawn.iter().map(curve).collect();
        let shares = curves.first().map_or_else(Vec::new, |curve| curve.shares.clone());
        let at = |point: usize| {
            let values = curves.iter().filter_map(|curve| curve.probabilities.get(point));
            values.sum::<f64>() / curves.len().max(1) as f64
        };
        let probabilities = (0..shares.len()).map(at).collect();
        Curve::new(shares, probabilities)
    };
    Ok(Faithfulness {
        deletion: mean(|both| &both.deletion),
        insertion: mean(|both| &both.insertion),
    })
}

/// Numbers of the values, the largest first; equal ones in their order.
pub(super) fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let value = |at: &usize| values.get(*at).copied().unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|a, b| value(b).total_cmp(&value(a)));
    order
}

/// How many words are taken at each point: from none to all.
fn counts(num_words: usize) -> Vec<usize> {
    let points = num_words.min(POINTS);
    let count = |point: usize| (point * num_words + points / 2) / points.max(1);
    (0..=points).map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_go_from_none_to_all() {
        assert_eq!(counts(1), [0, 1]);
        assert_eq!(counts(3), [0, 1, 2, 3]);
        for num_words in [20, 21, 39, 400] {
            let counts = counts(num_words);
            assert_eq!((counts.len(), counts[0], counts[POINTS]), (POINTS + 1, 0, num_words));
            assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
        }
    }

    #[test]
    fn areas_and_means_are_those_of_trapezoids() {
        let curve = |values: [f64; 3]| Curve::new(vec![0.0, 0.5, 1.0], values.to_vec());
        let (fall, rise) = (curve([1.0, 0.0, 0.0]), curve([0.0, 0.5, 1.0]));
        assert!((fall.area - 0.25).abs() < 1e-12 && (rise.area - 0.5).abs() < 1e-12);
        assert!((fall.at(0.25) - 0.5).abs() < 1e-12);
        let mean = Curve::mean(&[&fall, &rise]).unwrap();
        assert!((mean.area - 0.375).abs() < 1e-12);
        assert_eq!(Curve::mean(&[]), None);
    }

    #[test]
    fn equal_values_keep_their_order() {
        assert_eq!(descending(&[1.0, 3.0, 1.0, f64::INFINITY]), [3, 1, 0, 2]);
    }
}
