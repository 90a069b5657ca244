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
/// `zero_division=0`. Ends with a line break. One difference: where not a single prediction is right,
/// scikit-learn writes the counts as `4.0`; here they stay `4`.
pub fn classification_report(evaluation: &Evaluation, labels: &[String]) -> String {
    let scores = evaluation.class_scores();
    let names: Vec<String> = (0..scores.len()).map(|class| label(labels, class)).collect();
    let width = names.iter().map(|name| width_of(name)).chain([WEIGHTED.len(), DIGITS]).max();
    let width = width.unwrap_or(DIGITS);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _infallible = writeln!(
        text,
        "{:>width$}  {:>9} {:>9} {:>9} {:>9}\n",
        "", "precision", "recall", "f1-score", "support"
    );
    for (name, score) in names.iter().zip(&scores) {
        push_row(&mut text, width, name, score);
    }
    text.push('\n');
    let total = evaluation.num_examples();
    let _infallible = writeln!(
        text,
        "{:>width$}  {:>9} {:>9} {:>9.DIGITS$} {total:>9}",
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
        "{name:>width$}  {precision:>9.DIGITS$} {recall:>9.DIGITS$} {f1:>9.DIGITS$} {support:>9}"
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `tests/golden/sklearn/generate.py`.
    const GOLDEN: &str = include_str!("../../../tests/golden/sklearn/reports.json");

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        labels: Vec<String>,
        confusion: Vec<Vec<u64>>,
        report: String,
    }

    #[test]
    fn reports_equal_those_of_scikit_learn_byte_for_byte() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        assert!(golden.cases.len() > 60);
        for Case { name, labels, confusion, report } in golden.cases {
            let evaluation = Evaluation { confusion, ..Evaluation::default() };
            let nothing_right = evaluation.accuracy() == 0.0;
            let report = if nothing_right { with_whole_counts(&report) } else { report };
            assert_eq!(classification_report(&evaluation, &labels), report, "{name}");
        }
    }

    /// `4` for `4.0` at the ends of lines, right-aligned as before.
    fn with_whole_counts(report: &str) -> String {
        let whole = |line: &str| match line.strip_suffix(".0") {
            Some(line) => {
                let start = line.rfind(' ').map_or(0, |space| space + 1);
                format!("{}  {}\n", &line[..start], &line[start..])
            }
            None => format!("{line}\n"),
        };
        report.lines().map(whole).collect()
    }

    #[test]
    fn the_confusion_table_lines_up() {
        let confusion = vec![vec![437, 63], vec![71, 4290]];
        let evaluation = Evaluation { confusion, ..Evaluation::default() };
        let labels = ["negative".to_owned(), "positive".to_owned()];
        let expected = "\
truth \\ prediction  negative  positive
negative                 437        63
positive                  71      4290
";
        assert_eq!(confusion_table(&evaluation, &labels), expected);
    }

    #[test]
    fn nothing_scored_is_no_reason_to_panic() {
        let evaluation = Evaluation::default();
        assert!(classification_report(&evaluation, &[]).contains("accuracy"));
        assert_eq!(confusion_table(&evaluation, &[]).lines().count(), 1);
    }
}
