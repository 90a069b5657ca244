//! The file store of MLflow: one directory per experiment and run, with small YAML and text files.
//!
//! ```text
//! EXPERIMENT_ID/meta.yaml
//! EXPERIMENT_ID/RUN_ID/meta.yaml
//! EXPERIMENT_ID/RUN_ID/params/NAME       one value
//! EXPERIMENT_ID/RUN_ID/metrics/NAME      a line per value: TIME_MS VALUE STEP
//! EXPERIMENT_ID/RUN_ID/tags/NAME         one value
//! ```
//!
//! Both ids are made of ours, so that exporting again writes the same files.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use muster_common::digest::ContentHash;
use muster_common::manifest::{Manifest, TrialSettings};
use muster_common::metric::MetricPoint;
use serde_json::{Value, json};

use super::put;
use crate::view::{ExperimentView, TrialStateName, TrialView};

/// Writes one trial as a run, and its experiment.
pub(super) fn write(
    directory: &Path,
    view: &ExperimentView,
    manifest: &Manifest,
    trial: &TrialView,
    points: &[MetricPoint],
) -> anyhow::Result<()> {
    let experiment_id = experiment_id(view);
    let folder = directory.join(&experiment_id);
    put(&folder, "meta.yaml", experiment_meta(view, &folder)?.as_bytes())?;
    let run_id = digits(&format!("{} {}", view.created_at.0, trial.id), 32);
    let run = folder.join(&run_id);
    for (name, value) in params(manifest, trial) {
        put(&run.join("params"), &name, value.as_bytes())?;
    }
    for (name, lines) in metrics(points) {
        put(&run.join("metrics"), &name, lines.as_bytes())?;
    }
    for (name, value) in tags(view, trial) {
        put(&run.join("tags"), name, value.as_bytes())?;
    }
    for part in ["params", "metrics", "tags", "artifacts"] {
        // Its client takes a directory without one of them for something else.
        let part = run.join(part);
        std::fs::create_dir_all(&part)
            .with_context(|| format!("cannot create {}", part.display()))?;
    }
    // Last: a directory without it is no run.
    let meta = run_meta(view, trial, points, &experiment_id, &run_id, &run)?;
    put(&run, "meta.yaml", meta.as_bytes())
}

/// Hexadecimal digits made of a text.
fn digits(text: &str, count: usize) -> String {
    ContentHash::of(text.as_bytes()).as_str().chars().take(count).collect()
}

/// 18 decimal digits, as MLflow's own are.
fn experiment_id(view: &ExperimentView) -> String {
    let hash = digits(&format!("{} {}", view.created_at.0, view.id), 14);
    let number = u64::from_str_radix(&hash, 16).unwrap_or_default();
    // 56 bits are at most 7.2e16: with a digit before them they never begin with zero.
    format!("1{number:017}")
}

fn url(path: &Path) -> anyhow::Result<String> {
    Ok(format!("file://{}", std::path::absolute(path)?.display()))
}

/// JSON is YAML.
fn yaml(value: &Value) -> String {
    format!("{value:#}\n")
}

fn experiment_meta(view: &ExperimentView, folder: &Path) -> anyhow::Result<String> {
    Ok(yaml(&json!({
        "artifact_location": url(folder)?,
        "creation_time": view.created_at.0,
        "experiment_id": experiment_id(view),
        "last_update_time": view.ended_at.unwrap_or(view.now).0,
        "lifecycle_stage": "active",
        "name": view.id.as_str(),
    })))
}

fn run_meta(
    view: &ExperimentView,
    trial: &TrialView,
    points: &[MetricPoint],
    experiment_id: &str,
    run_id: &str,
    run: &Path,
) -> anyhow::Result<String> {
    let times = || points.iter().map(|point| point.recorded_at.0);
    let started_at = times().min().unwrap_or(view.created_at.0);
    let (status, is_over) = status(trial.state);
    Ok(yaml(&json!({
        "artifact_uri": url(&run.join("artifacts"))?,
        "end_time": is_over.then(|| times().max().unwrap_or(started_at)),
        "entry_point_name": "",
        "experiment_id": experiment_id,
        "lifecycle_stage": "active",
        "run_id": run_id,
        "run_name": trial.id.to_string(),
        "source_name": "muster",
        "source_type": SOURCE_JOB,
        "source_version": "",
        "start_time": started_at,
        "status": status,
        "tags": [],
        "user_id": "",
    })))
}

/// MLflow's `SourceType.JOB`.
const SOURCE_JOB: u32 = 2;

/// MLflow's `RunStatus`, and whether nothing follows.
fn status(state: TrialStateName) -> (u32, bool) {
    match state {
        TrialStateName::Running => (1, false),
        TrialStateName::Pending | TrialStateName::Paused => (2, false),
        TrialStateName::Completed | TrialStateName::Stopped => (3, true),
        TrialStateName::Failed => (4, true),
        TrialStateName::Canceled => (5, true),
    }
}

/// Every hyperparameter with its value, searched or not.
fn params(manifest: &Manifest, trial: &TrialView) -> BTreeMap<String, String> {
    let settings = TrialSettings::resolve(&manifest.hyperparameters, &trial.assignment);
    let mut params: BTreeMap<String, String> = BTreeMap::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(settings) {
        params.extend(fields.into_iter().map(|(name, value)| (name, value.to_string())));
    }
    let training = manifest.training_of(&trial.assignment);
    let words = manifest.hyperparameters.keys().filter_map(|name| {
        let word = training.category(name)?;
        Some((name.clone(), word.to_string()))
    });
    params.extend(words);
    for (name, value) in &trial.assignment {
        params.entry(name.clone()).or_insert_with(|| value.exact());
    }
    params
}

fn metrics(points: &[MetricPoint]) -> BTreeMap<String, String> {
    let mut metrics: BTreeMap<String, String> = BTreeMap::new();
    for MetricPoint { rank, name, recorded_at, value, step, .. } in points {
        let name = match rank {
            0 => name.to_string(),
            rank => format!("rank_{rank}/{name}"),
        };
        // Rust and Python write infinities and NaN alike, up to case, which Python does not mind.
        *metrics.entry(name).or_default() += &format!("{} {value} {step}\n", recorded_at.0);
    }
    metrics
}

fn tags(view: &ExperimentView, trial: &TrialView) -> Vec<(&'static str, String)> {
    let mut tags = vec![
        ("mlflow.runName", trial.id.to_string()),
        ("muster.trial", trial.id.to_string()),
        ("muster.state", trial.state.name().to_owned()),
        ("muster.attempts", trial.attempts.to_string()),
    ];
    if !trial.reason.is_empty() {
        tags.push(("muster.reason", trial.reason.clone()));
    }
    if view.best.as_ref().is_some_and(|best| best.trial == trial.id) {
        tags.push(("muster.best", "true".to_owned()));
    }
    tags
}
