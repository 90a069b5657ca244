//! `--summary FILE`: one JSON object that scripts and benchmarks read.

use std::path::Path;

use anyhow::Context;
use muster_common::evaluation::{Evaluation, Interval, Intervals};
use muster_common::goal::{Breach, Goal, Merit};
use muster_common::objective::Objective;
use muster_common::whole_file::write_whole;
use serde_json::{Value, json};

use super::run::short_path;
use crate::view::{ExperimentView, mode_name};

/// Writes the summary, creating the directory.
pub(super) fn write(view: &ExperimentView, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&summary(view))?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    write_whole(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// What programs read of an experiment.
pub(super) fn summary(view: &ExperimentView) -> Value {
    let trials: Vec<Value> = view
        .trials
        .iter()
        .map(|trial| {
            let assignment: serde_json::Map<String, Value> = trial
                .assignment
                .iter()
                .map(|(name, value)| (name.clone(), value.to_json()))
                .collect();
            let own = view.decisions.iter().filter(|d| d.trial.as_ref() == Some(&trial.id));
            let decisions: Vec<&str> = own.map(|decision| decision.text.as_str()).collect();
            json!({
                "id": trial.id.to_string(),
                "state": trial.state.name(),
                "reason": trial.reason,
                "hyperparameters": assignment,
                "steps": trial.step,
                "objective": trial.merit.as_ref().map(Merit::first),
                "objectives": trial.merit.as_ref().map(|merit| named(&view.goal, merit.values())),
                "violation": trial.merit.as_ref().map(Merit::violation),
                "attempts": trial.attempts,
                "restarts": trial.restarts,
                "decisions": decisions,
            })
        })
        .collect();
    let best = view.best.as_ref().map(|best| {
        json!({
            "trial": best.trial.to_string(),
            "step": best.step,
            "objective": best.objective,
            "breaks": view.breaches().iter().map(Breach::words).collect::<Vec<_>>(),
            "validation": scores(&best.validation, view.ordered),
            "test": best.test.as_ref().map(|test| test_scores(test, view.ordered)),
            "model": short_path(&best.model),
        })
    });
    let front: Vec<Value> = view
        .front
        .iter()
        .map(|result| {
            json!({
                "trial": result.trial.to_string(),
                "step": result.step,
                "objectives": named(&view.goal, &result.values),
            })
        })
        .collect();
    json!({
        "experiment": view.id.to_string(),
        "state": view.state.name(),
        "reason": view.reason,
        "wall_seconds": view.elapsed_seconds(),
        "objective": described(view.goal.objective),
        "objectives": view.goal.objectives().map(described).collect::<Vec<_>>(),
        "constraints": view.goal.constraints,
        "front": front,
        "warnings": view.warnings,
        "trials": trials,
        "best": best,
        "location": short_path(&view.location),
    })
}

fn described(objective: Objective) -> Value {
    json!({"metric": objective.metric.name(), "mode": mode_name(objective.mode)})
}

/// Values of the objectives by their metrics.
pub(super) fn named(goal: &Goal, values: &[f64]) -> Value {
    let names = goal.objectives().map(|objective| objective.metric.name().to_owned());
    Value::Object(names.zip(values.iter().map(|value| json!(value))).collect())
}

fn scores(evaluation: &Evaluation, ordered: bool) -> Value {
    let values = evaluation.values(ordered).into_iter();
    let mut scores: serde_json::Map<String, Value> =
        values.map(|(metric, value)| (metric.name().to_owned(), json!(value))).collect();
    if !evaluation.confusion.is_empty() {
        scores.insert("num_examples".to_owned(), json!(evaluation.num_examples()));
        scores.insert("confusion".to_owned(), json!(evaluation.confusion));
    }
    if let Some(masked) = evaluation.masked {
        scores.insert("num_masked".to_owned(), json!(masked.num_masked));
    }
    Value::Object(scores)
}

/// Scores with how sure they are.
fn test_scores(evaluation: &Evaluation, ordered: bool) -> Value {
    let mut scores = scores(evaluation, ordered);
    if let (Some(intervals), Value::Object(fields)) = (Intervals::of(evaluation), &mut scores) {
        let ends = |interval: Interval| json!([interval.low, interval.high]);
        let intervals = json!({
            "accuracy": ends(intervals.accuracy),
            "macro_f1": ends(intervals.macro_f1),
        });
        fields.insert("intervals_95".to_owned(), intervals);
    }
    scores
}
