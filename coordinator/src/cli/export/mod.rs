//! `muster export`: an experiment, or a model, in the files of other tools.

mod mlflow;

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use muster_common::count::counted;
use muster_common::id::ExperimentId;
use muster_common::manifest::Manifest;
use muster_common::metric::{MetricPoint, by_time, event_file, read_trial};
use muster_common::storage::{Layout, Store};

use super::args::ExportArguments;
use super::client::fetch;
use super::exit::{Exit, Misuse};
use super::one_shot::one_shot;
use crate::view::{ExperimentView, TrialView};

pub(super) async fn export(arguments: ExportArguments) -> anyhow::Result<Exit> {
    let ExportArguments { experiment, onnx, mlflow, tensorboard, worker_binary, client } =
        arguments;
    if let Some(file) = onnx {
        // The worker has the tensors.
        let words = ["export-onnx".into(), "--".into(), experiment.into(), file.into()];
        return one_shot(worker_binary.as_deref(), words, Stdio::null()).await;
    }
    let id: ExperimentId = experiment.parse()?;
    if mlflow.is_none() && tensorboard.is_none() {
        let message = "say what to write: --mlflow DIRECTORY, --tensorboard DIRECTORY or both, or --onnx FILE of a \
                       model";
        return Err(Misuse(message.to_owned()).into());
    }
    let (view, text) = fetch(&client, &id).await?;
    let manifest = Manifest::parse(&text).context("the manifest of the experiment")?;
    let store = Store::open(store_of(&view)?)?;
    let mut num_values = 0;
    for trial in &view.trials {
        let points = read_trial(&store, &trial.id).await?;
        num_values += points.len();
        if let Some(directory) = &tensorboard {
            write_events(directory, trial, &points)?;
        }
        if let Some(directory) = &mlflow {
            mlflow::write(directory, &view, &manifest, trial, &points)?;
        }
    }
    for directory in [&mlflow, &tensorboard].into_iter().flatten() {
        let (trials, directory) = (view.trials.len(), directory.display());
        let (trials, values) = (counted(trials, "trial"), counted(num_values, "value"));
        println!("{id}: {trials}, {values} in {directory}");
    }
    Ok(Exit::Done)
}

/// The object store that an experiment lies in.
pub(super) fn store_of(view: &ExperimentView) -> anyhow::Result<&str> {
    let key = format!("/{}", Layout::experiment(&view.id));
    let store = view.location.strip_suffix(&key);
    store.with_context(|| format!("{} is not where experiments lie", view.location))
}

/// `EXPERIMENT/tN/events.out.tfevents.SECONDS.muster`, the same name each time.
fn write_events(directory: &Path, trial: &TrialView, points: &[MetricPoint]) -> anyhow::Result<()> {
    let points = by_time(points.to_vec());
    let Some(first) = points.first() else { return Ok(()) };
    let name = Layout::event_file(first.recorded_at);
    put(&directory.join(trial.id.to_string()), &name, &event_file(&points))
}

/// Writes a file whole, in a directory that is made if need be.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(name);
    // Names of metrics may have a directory before them.
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}", parent.display()))?;
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
