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
    /// Mean cross-entropy per example, nats.
    Loss,
}

impl ObjectiveMetric {
    /// Every metric, in the order the documentation lists them.
    pub const ALL: [Self; 3] = [Self::Accuracy, Self::MacroF1, Self::Loss];

    /// The name in manifests, metrics and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro_f1",
            Self::Loss => "loss",
        }
    }

    /// The direction that is better unless the manifest says otherwise.
    pub fn natural_mode(self) -> Mode {
        match self {
            Self::Accuracy | Self::MacroF1 => Mode::Max,
            Self::Loss => Mode::Min,
        }
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
