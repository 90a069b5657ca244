//! The result of an experiment as text.

use std::fmt::Write as _;

use muster_common::count::counted;
use muster_common::evaluation::{Evaluation, Intervals, classification_report, confusion_table};
use muster_common::goal::Merit;
use muster_common::manifest::{Assignment, TrainingObjective};

use super::number::{clock, fit};
use super::run::{program, short_path};
use crate::view::{ExperimentState, ExperimentView, FrontView, TrialView};

/// Longest reason shown in a table.
const REASON_WIDTH: usize = 60;

/// Everything at the end: ranking, scores of the best trial, where it all is, what to try.
pub(super) fn render(view: &ExperimentView) -> String {
    let mut text = String::new();
    let elapsed = clock(view.elapsed_seconds());
    line(&mut text, format!("\n{} {} after {elapsed}", view.id, view.state.name()));
    if !view.reason.is_empty() {
        line(&mut text, format!("  {}", view.reason));
    }
    text += &data(view);
    for warning in &view.warnings {
        line(&mut text, format!("warning  {warning}"));
    }
    if !view.trials.is_empty() {
        line(&mut text, "");
        text += &trials(view);
    }
    text += &front(view);
    text += &best(view);
    line(&mut text, format!("\nwritten  {}", short_path(&view.location)));
    if view.state == ExperimentState::Completed
        && let Some(best) = view.best.as_ref().filter(|best| !best.model.is_empty())
    {
        let model = short_path(&best.model);
        line(&mut text, format!("model    {model}  (a Hugging Face directory)"));
        let program = program();
        let sample = "A warm, funny, beautifully acted film.";
        let next = if view.training_objective == TrainingObjective::Classification {
            format!("try      {program} predict {model} \"{sample}\"")
        } else {
            format!(
                "next     fine-tune it: write `pretrained: {model}` in a manifest that classifies"
            )
        };
        line(&mut text, next);
    }
    text
}

fn line(text: &mut String, content: impl AsRef<str>) {
    text.push_str(content.as_ref());
    text.push('\n');
}

fn data(view: &ExperimentView) -> String {
    let Some(data) = &view.data else { return String::new() };
    let mut text = String::new();
    line(
        &mut text,
        format!(
            "data     {}: {} train, {} validation, {} test, {} left out by label, {}",
            counted(data.num_rows, "row"),
            data.num_train,
            data.num_validation,
            data.num_test,
            data.num_left_out,
            counted(data.num_duplicates, "duplicate")
        ),
    );
    for remark in &data.remarks {
        line(&mut text, format!("         {remark}"));
    }
    text
}

/// Where the ranks of running gangs are, one line for each.
pub(super) fn ranks(view: &ExperimentView) -> String {
    let mut text = String::new();
    for trial in view.trials.iter().filter(|trial| trial.ranks.len() > 1) {
        for rank in &trial.ranks {
            line(&mut text, format!("t{}  {rank}", trial.id.number));
        }
    }
    text
}

/// The ranked table of trials.
pub(super) fn trials(view: &ExperimentView) -> String {
    let ranked = view.ranked();
    let names: Vec<&String> =
        ranked.first().map_or_else(Vec::new, |t| t.assignment.keys().collect());
    let metrics: Vec<&str> =
        view.goal.objectives().map(|objective| objective.metric.name()).collect();
    let has_bounds = !view.goal.constraints.is_empty();
    let mut header: Vec<String> =
        ["rank", "trial", "state", "step"].map(ToOwned::to_owned).to_vec();
    header.extend(metrics.iter().map(|name| (*name).to_owned()));
    header.extend(has_bounds.then(|| "broken by".to_owned()));
    header.push("attempts".to_owned());
    header.extend(names.iter().map(|name| (*name).clone()));
    header.push(String::new());
    let row = |(index, trial): (usize, &&TrialView)| {
        let mut row = vec![
            trial.merit.map_or_else(|| "-".to_owned(), |_| (index + 1).to_string()),
            format!("t{}", trial.id.number),
            trial.state.name().to_owned(),
            trial.step.to_string(),
        ];
        let values = trial.merit.as_ref().map(Merit::values).unwrap_or_default();
        row.extend((0..metrics.len()).map(|place| number(values.get(place).copied())));
        let broken = trial.merit.map(|merit| merit.violation()).filter(|sum| *sum > 0.0);
        row.extend(has_bounds.then(|| number(broken)));
        row.push(trial.attempts.to_string());
        row.extend(names.iter().map(|name| value(&trial.assignment, name)));
        row.push(fit(&trial.reason, REASON_WIDTH));
        row
    };
    let mut rows = vec![header];
    rows.extend(ranked.iter().enumerate().map(row));
    align(&rows)
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

fn value(assignment: &Assignment, name: &str) -> String {
    assignment.get(name).map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Columns padded to their widest cell: words to the left, numbers to the right.
fn align(rows: &[Vec<String>]) -> String {
    let num_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..num_columns)
        .map(|column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0))
        .collect();
    let is_number = |column: usize| {
        rows.iter().skip(1).all(|row| {
            let text = cell(row, column);
            text == "-" || text.parse::<f64>().is_ok()
        })
    };
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = (0..num_columns)
            .map(|column| {
                let width = widths[column];
                let content = cell(row, column);
                if is_number(column) {
                    format!("{content:>width$}")
                } else {
                    format!("{content:<width$}")
                }
            })
            .collect();
        line(&mut text, format!("  {}", cells.join("  ")).trim_end());
    }
    text
}

/// Of several objectives the results to choose from.
pub(super) fn front(view: &ExperimentView) -> String {
    if view.front.is_empty() {
        return String::new();
    }
    let mut header = ["trial", "step"].map(ToOwned::to_owned).to_vec();
    header.extend(view.goal.objectives().map(|objective| objective.metric.name().to_owned()));
    let row = |result: &FrontView| {
        let mut row = vec![format!("t{}", result.trial.number), result.step.to_string()];
        row.extend(result.values.iter().map(|value| number(Some(*value))));
        row
    };
    let mut rows = vec![header];
    rows.extend(view.front.iter().map(row));
    let results = counted(view.front.len(), "result");
    format!("\nfront    {results} that no other one beats in every metric\n{}", align(&rows))
}

fn best(view: &ExperimentView) -> String {
    let Some(best) = &view.best else { return String::new() };
    let mut text = String::new();
    let metric = view.goal.objective.metric.name();
    let words = view.goal.words(&view.goal.merit(&best.validation));
    let _infallible = writeln!(
        text,
        "\nbest     t{} after {}: {words} on the validation split",
        best.trial.number,
        counted(best.step, "step"),
    );
    if !view.front.is_empty() {
        line(&mut text, format!("         the best {metric} of the front"));
    }
    for breach in view.breaches() {
        line(&mut text, format!("warning  no result keeps all constraints: {}", breach.words()));
    }
    let labels = view.data.as_ref().map(|data| data.labels.clone()).unwrap_or_default();
    let (name, evaluation): (&str, &Evaluation) = match &best.test {
        Some(test) => ("test", test),
        None => ("validation", &best.validation),
    };
    if let Some(masked) = &evaluation.masked {
        let _infallible = writeln!(
            text,
            "\nThe best trial on the {name} split ({} hidden tokens): masked loss {:.4}, perplexity \
             {:.2}, masked accuracy {:.4}",
            masked.num_masked,
            masked.loss,
            masked.perplexity(),
            masked.accuracy()
        );
    }
    if evaluation.confusion.is_empty() {
        return text;
    }
    let _infallible = writeln!(
        text,
        "\nThe best trial on the {name} split ({}, accuracy {:.4}, loss {:.4}):\n",
        counted(evaluation.num_examples(), "example"),
        evaluation.accuracy(),
        evaluation.loss
    );
    for part in [confusion_table(evaluation, &labels), classification_report(evaluation, &labels)] {
        for content in part.trim_end_matches('\n').lines() {
            line(&mut text, format!("  {content}").trim_end());
        }
        line(&mut text, "");
    }
    for content in figures(evaluation, view.ordered) {
        line(&mut text, format!("  {content}"));
    }
    text
}

/// What the report does not say: how sure it is, and scores of all classes together.
fn figures(evaluation: &Evaluation, ordered: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(Intervals { accuracy, macro_f1 }) = Intervals::of(evaluation) {
        lines.push(format!(
            "95 % intervals: accuracy {:.4} to {:.4}, macro F1 {:.4} to {:.4}",
            accuracy.low, accuracy.high, macro_f1.low, macro_f1.high
        ));
    }
    let mut figures = vec![format!("MCC {:.4}", evaluation.mcc())];
    figures.extend(evaluation.auc.map(|auc| format!("AUC {auc:.4}")));
    lines.push(figures.join(", "));
    if ordered {
        lines.push(format!(
            "off by one at most {:.4}, mean absolute error {:.4}, quadratic kappa {:.4}",
            evaluation.off_by_one_accuracy(),
            evaluation.mean_absolute_error(),
            evaluation.quadratic_kappa()
        ));
    }
    lines
}
