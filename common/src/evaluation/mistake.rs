//! The mistakes that a model was surest of: wrong labels and blind spots are found there first.

use super::prediction::Prediction;

/// Places in `predictions` of at most `count` wrong ones, those with the highest probability of the wrong class first,
/// then in the order of their rows.
pub fn confident_mistakes(predictions: &[Prediction], count: usize) -> Vec<usize> {
    let mut wrong: Vec<(f64, u64, usize)> = predictions
        .iter()
        .enumerate()
        .filter(|(_, prediction)| !prediction.is_right())
        .map(|(place, prediction)| (prediction.confidence(), prediction.row, place))
        .collect();
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    wrong.truncate(count);
    wrong.into_iter().map(|(.., place)| place).collect()
}
