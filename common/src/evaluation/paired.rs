//! Whether one model is better than another on the same examples, or was only luckier.

use super::bootstrap::{Interval, NUM_RESAMPLES, SEED, drawn, interval};
use super::prediction::Prediction;

/// What one model says about a split, and the names of the classes.
pub type Said<'a> = (&'a [Prediction], &'a [String]);

/// Two models on the same examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paired {
    /// Examples that both are right about.
    pub both_right: u64,
    /// Only the first.
    pub only_first: u64,
    /// Only the second.
    pub only_second: u64,
    /// Neither.
    pub neither: u64,
    /// Accuracy of the first minus that of the second.
    pub difference: f64,
    /// Its 95 % interval: a percentile bootstrap over examples, each drawn with what both say about it.
    pub interval: Interval,
    /// Exact test of McNemar 1947, two-sided: how often two models that are equally good would disagree as unevenly as
    /// this, or more.
    pub p_value: f64,
}

/// Why two models cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// They tell other classes apart.
    #[error("the classes differ: {first} and {second}")]
    Classes {
        /// Of the first, for people.
        first: String,
        /// Of the second.
        second: String,
    },
    /// One has scored more examples.
    #[error("the test splits differ: {first} and {second} examples")]
    Counts {
        /// Of the first.
        first: usize,
        /// Of the second.
        second: usize,
    },
    /// An example is not the same.
    #[error("the test splits differ: row {row} is `{first}` in one and `{second}` in the other")]
    Labels {
        /// Place of the first such example in the first split.
        row: u64,
        /// Its class in the first split.
        first: String,
        /// What stands there in the second.
        second: String,
    },
    /// Nothing was scored.
    #[error("the test splits are empty")]
    Empty,
}

impl Paired {
    /// Compares predictions that are sorted by row. Rows and labels must be the same; that they stand for the same
    /// texts follows from nothing that is in the files.
    pub fn of(first: Said<'_>, second: Said<'_>) -> Result<Self, PairingError> {
        check(first, second)?;
        let [mut both_right, mut only_first, mut only_second, mut neither] = [0u64; 4];
        for (a, b) in first.0.iter().zip(second.0) {
            match (a.is_right(), b.is_right()) {
                (true, true) => both_right += 1,
                (true, false) => only_first += 1,
                (false, true) => only_second += 1,
                (false, false) => neither += 1,
            }
        }
        let num_rows = first.0.len() as f64;
        let difference = |cells: &[u64]| match cells {
            [first, second, ..] => (*first as f64 - *second as f64) / num_rows,
            _ => f64::NAN,
        };
        let cells = [only_first, only_second, both_right + neither];
        let mut draws = SEED.child("paired", 0).draws();
        let resamples = (0..NUM_RESAMPLES).map(|_| difference(&drawn(&cells, &mut draws)));
        Ok(Self {
            both_right,
            only_first,
            only_second,
            neither,
            difference: difference(&cells),
            interval: interval(resamples.collect()),
            p_value: mcnemar_exact(only_first, only_second),
        })
    }

    /// Examples compared.
    pub fn num_rows(&self) -> u64 {
        self.both_right + self.only_first + self.only_second + self.neither
    }
}

fn check(first: Said<'_>, second: Said<'_>) -> Result<(), PairingError> {
    if first.1 != second.1 {
        let (first, second) = (first.1.join(", "), second.1.join(", "));
        return Err(PairingError::Classes { first, second });
    }
    if first.0.len() != second.0.len() {
        let (first, second) = (first.0.len(), second.0.len());
        return Err(PairingError::Counts { first, second });
    }
    if first.0.is_empty() {
        return Err(PairingError::Empty);
    }
    let same = |(a, b): &(&Prediction, &Prediction)| (a.row, a.label) == (b.row, b.label);
    let Some((a, b)) = first.0.iter().zip(second.0).find(|pair| !same(pair)) else { return Ok(()) };
    let name = |label: u32| first.1.get(label as usize).cloned().unwrap_or_default();
    let second = if a.row == b.row { name(b.label) } else { format!("row {}", b.row) };
    Err(PairingError::Labels { row: a.row, first: name(a.label), second })
}

/// `min(1, 2 P(X <= min(b, c)))` for a binomial X of `b + c` fair coins; 1 where the models never disagree.
pub fn mcnemar_exact(b: u64, c: u64) -> f64 {
    let (least, coins) = (b.min(c), b + c);
    if b == c {
        return 1.0;
    }
    // ln of the largest term, C(coins, least) / 2^coins; the sum of the others relative to it.
    let mut ln_term = -(coins as f64) * std::f64::consts::LN_2;
    for k in 0..least {
        ln_term += ((coins - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    let (mut sum, mut ratio) = (1.0, 1.0);
    for k in (0..least).rev() {
        ratio *= (k + 1) as f64 / (coins - k) as f64;
        sum += ratio;
        if ratio < 1e-18 {
            break;
        }
    }
    (2.0 * ln_term.exp() * sum).min(1.0)
}
