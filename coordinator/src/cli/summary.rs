//! `--summary FILE`: one JSON object that scripts and benchmarks read.

use std::path::Path;

use anyhow::Context;
use muster_common::evaluation::Evaluation;
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
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

fn summary(view: &ExperimentView) -> Value {
    let trials: Vec<Value> = view
        .trials
        .iter()
        .map(|trial| {
            let assignment: serde_json::Map<String, Value> = trial
                .assignment
                .iter()
                .map(|(name, value)| (name.clone(), json!(value.as_f64())))
                .collect();
            json!({
                "id": trial.id.to_string(),
                "state": trial.state.name(),
                "reason": trial.reason,
                "hyperparameters": assignment,
                "steps": trial.step,
                "objective": trial.objective,
                "attempts": trial.attempts,
                "restarts": trial.restarts,
            })
        })
        .collect();
    let best = view.best.as_ref().map(|best| {
        json!({
            "trial": best.trial.to_string(),
            "step": best.step,
            "objective": best.objective,
            "validation": scores(&best.validation),
            "test": best.test.as_ref().map(scores),
            "model": short_path(&best.model),
        })
    });
    json!({
        "experiment": view.id.to_string(),
        "state": view.state.name(),
        "reason": view.reason,
        "wall_seconds": view.elapsed_seconds(),
        "objective": {
            "metric": view.objective.metric.name(),
            "mode": mode_name(view.objective.mode),
        },
        "trials": trials,
        "best": best,
        "location": short_path(&view.location),
    })
}

fn scores(evaluation: &Evaluation) -> Value {
    json!({
        "loss": evaluation.loss,
        "accuracy": evaluation.accuracy(),
        "macro_f1": evaluation.macro_f1(),
        "num_examples": evaluation.num_examples(),
        "confusion": evaluation.confusion,
    })
}
