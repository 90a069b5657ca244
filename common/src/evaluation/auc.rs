//! The area under the ROC curve: the one figure that needs scores and not only counts.

use std::cmp::Ordering;

/// Area under the ROC curve of `probabilities` (one row per example, one column per class) against
/// `labels`, as `sklearn.metrics.roc_auc_score` computes it: for two classes by the second column,
/// for more the unweighted mean of each class against the rest. Ties count one half. `None` where it
/// is not defined: fewer than two classes, a class without examples or without counterexamples, or a
/// score that is not a number.
pub fn roc_auc(labels: &[u32], probabilities: &[Vec<f64>]) -> Option<f64> {
    let num_classes = probabilities.first()?.len();
    let of_class = |class: usize| {
        let scored = labels.iter().zip(probabilities).map(|(label, row)| {
            let score = row.get(class).copied().filter(|score| !score.is_nan())?;
            Some((score, *label as usize == class))
        });
        one_against_rest(scored.collect::<Option<Vec<_>>>()?)
    };
    match num_classes {
        0 | 1 => None,
        2 => of_class(1),
        _ => {
            let areas: Option<Vec<f64>> = (0..num_classes).map(of_class).collect();
            Some(areas?.iter().sum::<f64>() / num_classes as f64)
        }
    }
}

/// Chance that a positive example has a higher score than a negative one (Mann, Whitney 1947).
fn one_against_rest(mut scored: Vec<(f64, bool)>) -> Option<f64> {
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut wins, mut negatives, mut positives) = (0.0, 0.0, 0.0);
    // Equal by value: -0 and 0 are one score.
    for ties in scored.chunk_by(|a, b| a.0.partial_cmp(&b.0) == Some(Ordering::Equal)) {
        let positive = ties.iter().filter(|(_, positive)| *positive).count() as f64;
        let negative = ties.len() as f64 - positive;
        wins += positive * (negatives + negative / 2.0);
        negatives += negative;
        positives += positive;
    }
    (positives > 0.0 && negatives > 0.0).then(|| wins / (positives * negatives))
}
