//! What an evaluation says: counts first, scores derived from them.

mod agreement;
mod attribution;
mod auc;
mod bootstrap;
mod calibration;
mod curves;
mod length;
mod mistake;
mod paired;
pub mod prediction;
mod proportion;
mod report;

pub use attribution::{AttributedText, Attribution, WordWeight};
pub use auc::roc_auc;
pub use bootstrap::{Interval, Intervals};
pub use calibration::{Calibration, ConfidenceBin};
pub use curves::{Cut, Cuts, ScoreCurve};
pub use length::{LengthBin, accuracy_by_length};
pub use mistake::confident_mistakes;
pub use paired::{Paired, PairingError, Said, mcnemar_exact};
pub use proportion::wilson;
pub use report::{classification_report, confusion_table};

use serde::{Deserialize, Serialize};

use crate::elementary::Elementary;
use crate::objective::ObjectiveMetric;

/// Result of scoring one split. Counts are exact, so ranks can be added up.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy, nats: per example, per hidden token where these are all there is to
    /// guess, and the sum of the two where both are.
    pub loss: f64,
    /// `confusion[truth][prediction]` counts examples; classes in the order of their numbers. Empty
    /// where there are no classes.
    pub confusion: Vec<Vec<u64>>,
    /// Area under the ROC curve, see [`roc_auc`]; the only figure that does not follow from counts.
    #[serde(default)]
    pub auc: Option<f64>,
    /// How well hidden tokens were guessed; absent where none are hidden.
    #[serde(default)]
    pub masked: Option<MaskedScore>,
}

/// How well hidden tokens were guessed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MaskedScore {
    /// Mean cross-entropy per hidden token, nats.
    pub loss: f64,
    /// Tokens to guess.
    pub num_masked: u64,
    /// Those for which the right token had the highest score.
    pub num_right: u64,
}

impl MaskedScore {
    /// Share of hidden tokens guessed correctly, 0 to 1.
    pub fn accuracy(&self) -> f64 {
        share(self.num_right, self.num_masked)
    }

    /// Between how many tokens the model wavers, on average.
    pub fn perplexity(&self) -> f64 {
        Elementary::Portable.exp(self.loss)
    }
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

    /// Examples on the diagonal.
    pub fn num_right(&self) -> u64 {
        self.confusion.iter().enumerate().filter_map(|(i, row)| row.get(i)).sum()
    }

    /// Share of examples on the diagonal.
    pub fn accuracy(&self) -> f64 {
        share(self.num_right(), self.num_examples())
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
        self.even(|score| score.f1)
    }

    /// Mean of a per-class score, weighted by the examples of the class.
    fn weighted(&self, score: fn(&ClassScore) -> f64) -> f64 {
        let scores = self.class_scores();
        let sum: f64 = scores.iter().map(|class| score(class) * class.support as f64).sum();
        sum / self.num_examples().max(1) as f64
    }

    /// Unweighted mean of a per-class score.
    fn even(&self, score: fn(&ClassScore) -> f64) -> f64 {
        let scores = self.class_scores();
        scores.iter().map(score).sum::<f64>() / scores.len().max(1) as f64
    }

    /// The value of a metric; not a number where it is not defined.
    pub fn value(&self, metric: ObjectiveMetric) -> f64 {
        if metric.needs_classes() && self.confusion.is_empty() {
            return f64::NAN;
        }
        let masked =
            |figure: fn(&MaskedScore) -> f64| self.masked.as_ref().map_or(f64::NAN, figure);
        match metric {
            ObjectiveMetric::Accuracy | ObjectiveMetric::MicroF1 => self.accuracy(),
            ObjectiveMetric::MacroF1 => self.macro_f1(),
            ObjectiveMetric::WeightedF1 => self.weighted(|score| score.f1),
            ObjectiveMetric::MacroPrecision => self.even(|score| score.precision),
            ObjectiveMetric::MacroRecall => self.even(|score| score.recall),
            ObjectiveMetric::Mcc => self.mcc(),
            ObjectiveMetric::Auc => self.auc.unwrap_or(f64::NAN),
            ObjectiveMetric::OffByOneAccuracy => self.off_by_one_accuracy(),
            ObjectiveMetric::MeanAbsoluteError => self.mean_absolute_error(),
            ObjectiveMetric::QuadraticKappa => self.quadratic_kappa(),
            ObjectiveMetric::Loss => self.loss,
            ObjectiveMetric::MaskedLoss => masked(|score| score.loss),
            ObjectiveMetric::Perplexity => masked(MaskedScore::perplexity),
            ObjectiveMetric::MaskedAccuracy => masked(MaskedScore::accuracy),
        }
    }

    /// As [`Self::value`], for decisions that are made again with the functions they were made with.
    pub fn value_by(&self, metric: ObjectiveMetric, functions: Elementary) -> f64 {
        match (metric, &self.masked) {
            (ObjectiveMetric::Perplexity, Some(masked)) => functions.exp(masked.loss),
            _ => self.value(metric),
        }
    }

    /// Every metric that is defined, in the order of [`ObjectiveMetric::ALL`]; those of ordered
    /// classes only if the classes are `ordered`.
    pub fn values(&self, ordered: bool) -> Vec<(ObjectiveMetric, f64)> {
        let shown = |metric: &ObjectiveMetric| ordered || !metric.needs_order();
        let all = ObjectiveMetric::ALL.into_iter().filter(shown);
        all.map(|metric| (metric, self.value(metric)))
            .filter(|(_, value)| !value.is_nan())
            .collect()
    }
}

#[cfg(test)]
mod prediction_tests;
#[cfg(test)]
mod tests;
