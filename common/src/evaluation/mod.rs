//! What an evaluation says: counts first, scores derived from them.

mod report;

pub use report::{classification_report, confusion_table};

use serde::{Deserialize, Serialize};

use crate::objective::ObjectiveMetric;

/// Result of scoring one split. Counts are exact, so ranks can be added up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy per example, nats.
    pub loss: f64,
    /// `confusion[truth][prediction]` counts examples; classes in the order of their numbers.
    pub confusion: Vec<Vec<u64>>,
}

/// Precision, recall and F1 of one class, 0 where the denominator is 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScore {
    /// Share of predictions of the class that are right.
    pub precision: f64,
    /// Share of examples of the class that are found.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Examples of the class.
    pub support: u64,
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Evaluation {
    /// Examples scored.
    pub fn num_examples(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// Share of examples on the diagonal.
    pub fn accuracy(&self) -> f64 {
        let right = self.confusion.iter().enumerate().filter_map(|(i, row)| row.get(i)).sum();
        share(right, self.num_examples())
    }

    /// Scores of every class, in the order of the classes.
    pub fn class_scores(&self) -> Vec<ClassScore> {
        let cell = |truth: usize, guess: usize| self.confusion[truth].get(guess).copied();
        (0..self.confusion.len())
            .map(|class| {
                let hits = cell(class, class).unwrap_or(0);
                let support: u64 = self.confusion[class].iter().sum();
                let guessed =
                    (0..self.confusion.len()).filter_map(|truth| cell(truth, class)).sum();
                ClassScore {
                    precision: share(hits, guessed),
                    recall: share(hits, support),
                    f1: share(2 * hits, support + guessed),
                    support,
                }
            })
            .collect()
    }

    /// Unweighted mean of the per-class F1.
    pub fn macro_f1(&self) -> f64 {
        let scores = self.class_scores();
        scores.iter().map(|score| score.f1).sum::<f64>() / scores.len().max(1) as f64
    }

    /// The value a sweep optimises.
    pub fn value(&self, metric: ObjectiveMetric) -> f64 {
        match metric {
            ObjectiveMetric::Accuracy => self.accuracy(),
            ObjectiveMetric::MacroF1 => self.macro_f1(),
            ObjectiveMetric::Loss => self.loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_from_counts() {
        let evaluation = Evaluation { loss: 0.5, confusion: vec![vec![3, 1], vec![2, 4]] };
        assert_eq!(evaluation.num_examples(), 10);
        assert!((evaluation.accuracy() - 0.7).abs() < 1e-12);
        let scores = evaluation.class_scores();
        assert!((scores[0].precision - 0.6).abs() < 1e-12);
        assert!((scores[0].recall - 0.75).abs() < 1e-12);
        assert!((scores[1].f1 - 8.0 / 11.0).abs() < 1e-12);
    }

    #[test]
    fn a_class_never_seen_scores_zero_not_nan() {
        let evaluation = Evaluation { loss: 0.0, confusion: vec![vec![2, 0], vec![0, 0]] };
        assert_eq!(evaluation.class_scores()[1].f1.to_bits(), 0.0f64.to_bits());
    }
}
