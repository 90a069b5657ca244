//! Curves of one class against the rest: what every threshold on its probability would do.

use std::cmp::Ordering;

use super::prediction::Prediction;

/// What a threshold does: everything scored at least so high counts as the class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// The threshold; infinite where nothing counts as the class.
    pub threshold: f64,
    /// Examples of the class that count as it.
    pub hits: u64,
    /// Other examples that count as it.
    pub false_alarms: u64,
}

/// Every threshold that makes a difference, the highest first, and how many examples there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Cuts {
    all: Vec<Cut>,
    num_positive: u64,
    num_negative: u64,
}

/// A curve as points, and one number for it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreCurve {
    /// Points from the highest threshold to the lowest, as (x, y), both from 0 to 1.
    pub points: Vec<(f64, f64)>,
    /// What the curve comes to, 0 to 1.
    pub value: f64,
}

impl Cuts {
    /// Of the probability of `class`. `None` if an example has none, or one that is not a number.
    pub fn of_class(predictions: &[Prediction], class: usize) -> Option<Self> {
        let scored = predictions.iter().map(|prediction| {
            let score = prediction.probabilities.get(class).copied()?;
            Some((score, prediction.label as usize == class))
        });
        Self::new(scored.collect::<Option<Vec<_>>>()?)
    }

    /// Of scores and whether the example is of the class. `None` if a score is not a number.
    pub fn new(mut scored: Vec<(f64, bool)>) -> Option<Self> {
        if scored.iter().any(|(score, _)| score.is_nan()) {
            return None;
        }
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut now = Cut { threshold: f64::INFINITY, hits: 0, false_alarms: 0 };
        let mut cuts = vec![now];
        // Equal by value: -0 and 0 are one score.
        for ties in scored.chunk_by(|a, b| a.0.partial_cmp(&b.0) == Some(Ordering::Equal)) {
            let hits = ties.iter().filter(|(_, is_positive)| *is_positive).count() as u64;
            now.threshold = ties.first().map_or(now.threshold, |(score, _)| *score);
            now.hits += hits;
            now.false_alarms += ties.len() as u64 - hits;
            cuts.push(now);
        }
        Some(Self { all: cuts, num_positive: now.hits, num_negative: now.false_alarms })
    }

    /// The thresholds, the highest first.
    pub fn cuts(&self) -> &[Cut] {
        &self.all
    }

    /// True positive rate (y) over false positive rate (x), and the area below, as
    /// `sklearn.metrics.roc_curve` without dropping points, and `auc`. `None` where there is no example of the
    /// class, or none of the others.
    pub fn roc(&self) -> Option<ScoreCurve> {
        if self.num_positive == 0 || self.num_negative == 0 {
            return None;
        }
        let (positive, negative) = (self.num_positive as f64, self.num_negative as f64);
        let point = |cut: &Cut| (cut.false_alarms as f64 / negative, cut.hits as f64 / positive);
        let points: Vec<(f64, f64)> = self.all.iter().map(point).collect();
        let trapezoid = |pair: &[(f64, f64)]| match pair {
            [(x0, y0), (x1, y1)] => (x1 - x0) * (y0 + y1) / 2.0,
            _ => 0.0,
        };
        let value = points.windows(2).map(trapezoid).sum();
        Some(ScoreCurve { points, value })
    }

    /// Precision (y) over recall (x), and the average precision, `sum (R_n - R_{n-1}) P_n`, as
    /// `sklearn.metrics.precision_recall_curve` and `average_precision_score`. It begins at recall 0 with precision 1.
    /// `None` where there is no example of the class.
    pub fn precision_recall(&self) -> Option<ScoreCurve> {
        if self.num_positive == 0 {
            return None;
        }
        let point = |cut: &Cut| {
            let counted = cut.hits + cut.false_alarms;
            let precision = if counted == 0 { 1.0 } else { cut.hits as f64 / counted as f64 };
            (cut.hits as f64 / self.num_positive as f64, precision)
        };
        let points: Vec<(f64, f64)> = self.all.iter().map(point).collect();
        let step = |pair: &[(f64, f64)]| match pair {
            [(before, _), (recall, precision)] => (recall - before) * precision,
            _ => 0.0,
        };
        let value = points.windows(2).map(step).sum();
        Some(ScoreCurve { points, value })
    }
}

impl ScoreCurve {
    /// The same curve for the eye: both ends, and of the points between only those that are further than
    /// `1 / points_max` along the curve from the last one that was kept; at most about twice as many as that.
    pub fn thinned(&self, points_max: usize) -> Vec<(f64, f64)> {
        let stride = 1.0 / points_max.max(1) as f64;
        let mut kept: Vec<(f64, f64)> = Vec::new();
        for (index, (x, y)) in self.points.iter().enumerate() {
            let is_end = index == 0 || index + 1 == self.points.len();
            let is_far =
                kept.last().is_none_or(|last| (x - last.0).abs() + (y - last.1).abs() >= stride);
            if is_end || is_far {
                kept.push((*x, *y));
            }
        }
        kept
    }
}
