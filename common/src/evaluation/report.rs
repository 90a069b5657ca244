//! Evaluations as text: the classification report of scikit-learn and the confusion counts.

use std::fmt::Write as _;

use super::{ClassScore, Evaluation};

/// Digits behind the point, scikit-learn's default.
const DIGITS: usize = 2;
/// Label of the last row; the name column is at least this wide.
const WEIGHTED: &str = "weighted avg";

/// Name of class `class` for people: its label, or its number where `labels` is too short.
fn label(labels: &[String], class: usize) -> String {
    labels.get(class).cloned().unwrap_or_else(|| class.to_string())
}

fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// The text that `sklearn.metrics.classification_report` prints for the same predictions, with
/// `labels` as target names (every class is listed, so there is an accuracy row) and
/// `zero_division=0`. Ends with a line break.
pub fn classification_report(evaluation: &Evaluation, labels: &[String]) -> String {
    let scores = evaluation.class_scores();
    let names: Vec<String> = (0..scores.len()).map(|class| label(labels, class)).collect();
    let width = names.iter().map(|name| width_of(name)).chain([WEIGHTED.len(), DIGITS]).max();
    let width = width.unwrap_or(DIGITS);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _infallible = writeln!(
        text,
        "{:>width$} {:>9} {:>9} {:>9} {:>9}\n",
        "", "precision", "recall", "f1-score", "support"
    );
    for (name, score) in names.iter().zip(&scores) {
        push_row(&mut text, width, name, score);
    }
    text.push('\n');
    let total = evaluation.num_examples();
    let _infallible = writeln!(
        text,
        "{:>width$} {:>9} {:>9} {:>9.DIGITS$} {total:>9}",
        "accuracy",
        "",
        "",
        evaluation.accuracy()
    );
    let even = mean_score(&scores, total, |_| 1.0);
    push_row(&mut text, width, "macro avg", &even);
    let weighted = mean_score(&scores, total, |score| score.support as f64);
    push_row(&mut text, width, WEIGHTED, &weighted);
    text
}

fn push_row(text: &mut String, width: usize, name: &str, score: &ClassScore) {
    let ClassScore { precision, recall, f1, support } = score;
    let _infallible = writeln!(
        text,
        "{name:>width$} {precision:>9.DIGITS$} {recall:>9.DIGITS$} {f1:>9.DIGITS$} {support:>9}"
    );
}

fn mean_score(scores: &[ClassScore], support: u64, weight: fn(&ClassScore) -> f64) -> ClassScore {
    let total: f64 = scores.iter().map(weight).sum();
    let mean = |value: fn(&ClassScore) -> f64| {
        let sum: f64 = scores.iter().map(|score| value(score) * weight(score)).sum();
        if total > 0.0 { sum / total } else { 0.0 }
    };
    ClassScore {
        precision: mean(|score| score.precision),
        recall: mean(|score| score.recall),
        f1: mean(|score| score.f1),
        support,
    }
}

/// Counts of truth (rows) against prediction (columns), for a terminal. Ends with a line break.
pub fn confusion_table(evaluation: &Evaluation, labels: &[String]) -> String {
    let names: Vec<String> =
        (0..evaluation.confusion.len()).map(|class| label(labels, class)).collect();
    let corner = "truth \\ prediction";
    let first = names.iter().map(|name| width_of(name)).chain([width_of(corner)]).max();
    let first = first.unwrap_or_default();
    let widths: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let cells = evaluation.confusion.iter().filter_map(|row| row.get(class));
            let widest = cells.map(|count| count.to_string().len()).max();
            width_of(name).max(widest.unwrap_or_default())
        })
        .collect();
    let mut text = format!("{corner:<first$}");
    for (name, width) in names.iter().zip(&widths) {
        let _infallible = write!(text, "  {name:>width$}");
    }
    text.push('\n');
    for (name, row) in names.iter().zip(&evaluation.confusion) {
        let _infallible = write!(text, "{name:<first$}");
        for (count, width) in row.iter().zip(&widths) {
            let _infallible = write!(text, "  {count:>width$}");
        }
        text.push('\n');
    }
    text
}
