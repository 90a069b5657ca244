//! The metric a sweep optimises, and the total order over its values.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// Whether larger or smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Larger is better.
    Max,
    /// Smaller is better.
    Min,
}

/// Metrics of an evaluation that a sweep can optimise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveMetric {
    /// Share of examples classified correctly, 0 to 1.
    Accuracy,
    /// Unweighted mean of the per-class F1, 0 to 1.
    MacroF1,
    /// Mean of the per-class F1, weighted by the examples of the class, 0 to 1.
    WeightedF1,
    /// F1 of all decisions together, 0 to 1; the accuracy, as every example has one class.
    MicroF1,
    /// Unweighted mean of the per-class precision, 0 to 1.
    MacroPrecision,
    /// Unweighted mean of the per-class recall, 0 to 1.
    MacroRecall,
    /// Matthews correlation coefficient, -1 to 1 (Gorodkin 2004 for more than two classes).
    Mcc,
    /// Area under the ROC curve, 0 to 1; for more than two classes the unweighted mean of each class
    /// against the rest.
    Auc,
    /// Share of examples whose class or a neighbour of it was predicted, 0 to 1.
    OffByOneAccuracy,
    /// Mean distance of prediction and truth in classes.
    MeanAbsoluteError,
    /// Cohen's kappa with squared distances, -1 to 1.
    QuadraticKappa,
    /// What training minimizes, without weights and smoothing: mean cross-entropy per example, per
    /// hidden token, or the sum of both, nats.
    Loss,
    /// Mean cross-entropy per hidden token, nats.
    MaskedLoss,
    /// Exponential of [`ObjectiveMetric::MaskedLoss`], 1 at least.
    Perplexity,
    /// Share of hidden tokens guessed correctly, 0 to 1.
    MaskedAccuracy,
}

impl ObjectiveMetric {
    /// Every metric, in the order the documentation lists them.
    pub const ALL: [Self; 15] = [
        Self::Accuracy,
        Self::MacroF1,
        Self::WeightedF1,
        Self::MicroF1,
        Self::MacroPrecision,
        Self::MacroRecall,
        Self::Mcc,
        Self::Auc,
        Self::OffByOneAccuracy,
        Self::MeanAbsoluteError,
        Self::QuadraticKappa,
        Self::Loss,
        Self::MaskedLoss,
        Self::Perplexity,
        Self::MaskedAccuracy,
    ];

    /// The name in manifests, metrics and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro_f1",
            Self::WeightedF1 => "weighted_f1",
            Self::MicroF1 => "micro_f1",
            Self::MacroPrecision => "macro_precision",
            Self::MacroRecall => "macro_recall",
            Self::Mcc => "mcc",
            Self::Auc => "auc",
            Self::OffByOneAccuracy => "off_by_one_accuracy",
            Self::MeanAbsoluteError => "mean_absolute_error",
            Self::QuadraticKappa => "quadratic_kappa",
            Self::Loss => "loss",
            Self::MaskedLoss => "masked_loss",
            Self::Perplexity => "perplexity",
            Self::MaskedAccuracy => "masked_accuracy",
        }
    }

    /// The direction that is better unless the manifest says otherwise.
    pub fn natural_mode(self) -> Mode {
        match self {
            Self::Loss | Self::MeanAbsoluteError | Self::MaskedLoss | Self::Perplexity => Mode::Min,
            _ => Mode::Max,
        }
    }

    /// The smallest and the largest value that it can have.
    pub fn range(self) -> (f64, f64) {
        match self {
            Self::Mcc | Self::QuadraticKappa => (-1.0, 1.0),
            Self::Loss | Self::MaskedLoss | Self::MeanAbsoluteError => (0.0, f64::INFINITY),
            Self::Perplexity => (1.0, f64::INFINITY),
            _ => (0.0, 1.0),
        }
    }

    /// The same for people.
    pub fn range_words(self) -> String {
        match self.range() {
            (low, high) if high.is_finite() => format!("{low} to {high}"),
            (low, _) => format!("{low} or more"),
        }
    }

    /// Whether it means something only where classes are in an order.
    pub fn needs_order(self) -> bool {
        matches!(self, Self::OffByOneAccuracy | Self::MeanAbsoluteError | Self::QuadraticKappa)
    }

    /// Whether it is about guesses of hidden tokens.
    pub fn needs_masks(self) -> bool {
        matches!(self, Self::MaskedLoss | Self::Perplexity | Self::MaskedAccuracy)
    }

    /// Whether it is about classes of examples.
    pub fn needs_classes(self) -> bool {
        self != Self::Loss && !self.needs_masks()
    }
}

/// Metric and direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    /// What is measured on the validation split.
    pub metric: ObjectiveMetric,
    /// Which way is better.
    pub mode: Mode,
}

impl Objective {
    /// Better first. A value that is not finite has diverged and stands behind every finite one.
    pub fn standing(&self, a: f64, b: f64) -> Ordering {
        match (a.is_finite(), b.is_finite()) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => Ordering::Equal,
            (true, true) => match self.mode {
                Mode::Max => b.total_cmp(&a),
                Mode::Min => a.total_cmp(&b),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diverged_values_stand_last_in_both_modes() {
        for mode in [Mode::Max, Mode::Min] {
            let objective = Objective { metric: ObjectiveMetric::Loss, mode };
            let mut values = [f64::NAN, 1.0, f64::INFINITY, 0.5];
            values.sort_by(|a, b| objective.standing(*a, *b));
            let best = if mode == Mode::Max { 1.0 } else { 0.5 };
            assert_eq!(values[0].to_bits(), f64::to_bits(best));
            assert!(!values[2].is_finite() && !values[3].is_finite());
        }
    }
}
