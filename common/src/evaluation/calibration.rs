//! Whether probabilities mean what they say: of the predictions made with 80 % certainty, are 80 % right?

use super::prediction::Prediction;

/// Predictions of about the same confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfidenceBin {
    /// Confidences above this, or 0 and above.
    pub low: f64,
    /// Up to this.
    pub high: f64,
    /// Predictions in it, one at least.
    pub count: u64,
    /// Mean probability of the predicted class.
    pub confidence: f64,
    /// Share of them that are right.
    pub accuracy: f64,
}

/// How well a model knows how sure it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Bins of equal width that hold a prediction, the least confident first: the reliability diagram.
    pub bins: Vec<ConfidenceBin>,
    /// Expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3): mean distance of confidence and
    /// accuracy of a bin, weighted by its predictions; 0 is best.
    pub expected_error: f64,
    /// Brier score (Brier 1950): mean squared distance of probabilities and truth, 0 is best. As
    /// `sklearn.metrics.brier_score_loss`: of two classes that of the second, 0 to 1; of more the sum over classes,
    /// 0 to 2.
    pub brier: f64,
}

impl Calibration {
    /// With so many bins of equal width from 0 to 1. `None` where nothing was predicted, or a probability is none.
    pub fn of(predictions: &[Prediction], num_bins: usize) -> Option<Self> {
        let legal = |p: &f64| (-1e-9..=1.0 + 1e-9).contains(p);
        let whole =
            |one: &Prediction| !one.probabilities.is_empty() && one.probabilities.iter().all(legal);
        if predictions.is_empty() || num_bins == 0 || !predictions.iter().all(whole) {
            return None;
        }
        let width = 1.0 / num_bins as f64;
        let edge = |index: usize| if index == num_bins { 1.0 } else { index as f64 * width };
        let mut sums = vec![(0u64, 0.0f64, 0u64); num_bins];
        for prediction in predictions {
            let confidence = prediction.confidence();
            // A value on an edge belongs below it, as in scikit-learn.
            let bin = (1..num_bins).filter(|inner| edge(*inner) < confidence).count();
            if let Some((count, sum, right)) = sums.get_mut(bin) {
                *count += 1;
                *sum += confidence;
                *right += u64::from(prediction.is_right());
            }
        }
        let filled = sums.iter().enumerate().filter(|(_, (count, ..))| *count > 0);
        let bins: Vec<ConfidenceBin> = filled
            .map(|(index, (count, sum, right))| ConfidenceBin {
                low: edge(index),
                high: edge(index + 1),
                count: *count,
                confidence: sum / *count as f64,
                accuracy: *right as f64 / *count as f64,
            })
            .collect();
        let total = predictions.len() as f64;
        let gap =
            |bin: &ConfidenceBin| bin.count as f64 / total * (bin.accuracy - bin.confidence).abs();
        let expected_error = bins.iter().map(gap).sum();
        let brier = predictions.iter().map(squared_distance).sum::<f64>() / total;
        Some(Self { bins, expected_error, brier })
    }
}

fn squared_distance(prediction: &Prediction) -> f64 {
    let truth = prediction.label as usize;
    let off = |(class, p): (usize, &f64)| {
        let distance = p - f64::from(u8::from(class == truth));
        distance * distance
    };
    match prediction.probabilities.as_slice() {
        [_, second] => off((1, second)),
        all => all.iter().enumerate().map(off).sum(),
    }
}
