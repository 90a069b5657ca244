//! `muster report`: gathers what a report is made of, from the coordinator and from the object store, and writes it.

mod args;
mod stored;
mod weighed;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::{StreamExt, TryStreamExt, future, stream};
use muster_common::equipment::{self, Equipment};
use muster_common::evaluation::prediction;
use muster_common::id::{ExperimentId, TrialId};
use muster_common::manifest::Manifest;
use muster_common::metric::{MetricName, MetricPoint, read_trial};
use muster_common::storage::{Layout, Store};
use muster_common::time::Timestamp;
use muster_common::whole_file::write_whole;
use tokio::time::timeout;

use super::args::StoreArguments;
use super::checkpoints;
use super::client::fetch;
use super::exit::Exit;
use super::export::store_of;
use crate::report::{Measured, Predictions, Report, ReportError, Rival, Source, Weighed, page};
use crate::view::ExperimentView;

pub(super) use args::ReportArguments;

/// Longest wait for what the store has of one trial.
const STORE_DEADLINE: Duration = Duration::from_secs(60);
/// Trials that are read at a time.
const READS: usize = 8;

pub(super) async fn report(arguments: ReportArguments) -> anyhow::Result<Exit> {
    let (id, trial) = match arguments.subject.parse::<TrialId>() {
        Ok(trial) => (trial.experiment, Some(trial.number)),
        Err(_) => (arguments.subject.parse::<ExperimentId>()?, None),
    };
    let mut gathered = if let Some(store) = &arguments.store {
        Gathered::of_store(&open(store).await?, &id).await?
    } else {
        let (view, text) = fetch(&arguments.client, &id).await?;
        Gathered::read(view, text, trial).await?
    };
    let other = match &arguments.against {
        None => None,
        Some(other) => Some(Gathered::of_rival(&arguments, &other.parse()?).await?),
    };
    if arguments.no_explanations {
        gathered.weighed = Weighed::absent("--no-explanations was given");
    } else {
        gathered.weigh(arguments.worker_binary.as_deref(), trial).await;
    }
    let report = gathered.report(trial, other.as_ref())?;
    let output = arguments.output.unwrap_or_else(|| {
        let number = trial.map(|number| format!("-t{number}")).unwrap_or_default();
        PathBuf::from(format!("{id}{number}-report.html"))
    });
    write(&report, &output)?;
    if let Some(json) = arguments.json {
        put(&json, &(report.to_json()? + "\n"))?;
    }
    println!("{}", output.display());
    Ok(Exit::Done)
}

async fn open(url: &str) -> anyhow::Result<Store> {
    checkpoints::open(&StoreArguments { config: None, store: Some(url.to_owned()) }).await
}

/// The report on an experiment whose view is at hand, for `muster run`.
pub(super) async fn write_of(
    view: ExperimentView,
    text: String,
    worker_binary: Option<&Path>,
    path: &Path,
) -> anyhow::Result<()> {
    let mut gathered = Gathered::read(view, text, None).await?;
    gathered.weigh(worker_binary, None).await;
    write(&gathered.report(None, None)?, path)
}

fn write(report: &Report, path: &Path) -> anyhow::Result<()> {
    put(path, &page::render(report)?)
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    write_whole(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What a report is made of.
struct Gathered {
    view: ExperimentView,
    manifest: Manifest,
    text: String,
    measured: Vec<Measured>,
    predictions: Option<Predictions>,
    weighed: Weighed,
    /// Nobody was asked but the store.
    is_stored: bool,
}

impl Gathered {
    /// Reads what the store has of the trials, or of `trial` alone.
    async fn read(view: ExperimentView, text: String, trial: Option<u32>) -> anyhow::Result<Self> {
        let store = Store::open(store_of(&view)?)?;
        let objective = MetricName::validation(view.goal.objective.metric);
        let wanted = view.trials.iter().map(|trial| trial.id.clone());
        let wanted = wanted.filter(|id| trial.is_none_or(|number| id.number == number));
        let wanted: Vec<TrialId> = wanted.collect();
        let reads = wanted.into_iter().map(|id| measure(&store, id, &objective));
        let measured: Vec<Measured> = stream::iter(reads).buffered(READS).try_collect().await?;
        let predictions = predictions(&store, &view).await?;
        let manifest = Manifest::parse(&text).context("the manifest of the experiment")?;
        let weighed = Weighed::default();
        Ok(Self { view, manifest, text, measured, predictions, weighed, is_stored: false })
    }

    /// What the store has of an experiment.
    async fn of_store(store: &Store, id: &ExperimentId) -> anyhow::Result<Self> {
        let (manifest, text) = stored::manifest(store, id).await?;
        let (mut view, measured) = stored::view(store, id, &manifest).await?;
        let predictions = predictions(store, &view).await?;
        stored::name_classes(&mut view, &manifest, predictions.as_ref());
        let weighed = Weighed::default();
        Ok(Self { view, manifest, text, measured, predictions, weighed, is_stored: true })
    }

    /// Of the other side of a comparison only what it said counts.
    async fn of_rival(arguments: &ReportArguments, id: &ExperimentId) -> anyhow::Result<Self> {
        if let Some(store) = &arguments.store {
            return Self::of_store(&open(store).await?, id).await;
        }
        let (view, text) = fetch(&arguments.client, id).await?;
        let store = Store::open(store_of(&view)?)?;
        let predictions = predictions(&store, &view).await?;
        let manifest = Manifest::parse(&text).context("the manifest of the other experiment")?;
        let (measured, weighed) = (Vec::new(), Weighed::default());
        Ok(Self { view, manifest, text, measured, predictions, weighed, is_stored: false })
    }

    /// Has the chosen model explain its mistakes, if the report will show them.
    async fn weigh(&mut self, worker_binary: Option<&Path>, trial: Option<u32>) {
        let (Some(best), Some(predictions)) = (&self.view.best, &self.predictions) else { return };
        if trial.is_none_or(|number| number == best.trial.number) {
            let pairs = self.manifest.data.text_pair.is_some();
            self.weighed = weighed::ask(worker_binary, &best.model, predictions, pairs).await;
        }
    }

    fn report(&self, subject: Option<u32>, other: Option<&Self>) -> Result<Report, ReportError> {
        let against = other.map(|other| {
            let none = || ReportError::NotScored { experiment: other.view.id.to_string() };
            let predictions = other.predictions.as_ref().ok_or_else(none)?;
            Ok(Rival { view: &other.view, manifest: &other.manifest, predictions })
        });
        Report::of(&Source {
            view: &self.view,
            manifest: &self.manifest,
            manifest_text: &self.text,
            subject,
            measured: &self.measured,
            predictions: self.predictions.as_ref(),
            weighed: &self.weighed,
            is_stored: self.is_stored,
            against: against.transpose()?,
            made_at: Timestamp::now(),
        })
    }
}

async fn measure(
    store: &Store,
    trial: TrialId,
    objective: &MetricName,
) -> anyhow::Result<Measured> {
    let (points, equipment) = kept(store, &trial).await?;
    Ok(Measured::of(&trial, &points, objective, equipment))
}

/// What the store has of a trial: its metrics, and what it was trained with. A report is worth more than the latter, so
/// it is made without it too.
async fn kept(
    store: &Store,
    trial: &TrialId,
) -> anyhow::Result<(Vec<MetricPoint>, Vec<Equipment>)> {
    let points = timeout(STORE_DEADLINE, read_trial(store, trial));
    let equipment = timeout(STORE_DEADLINE, equipment::read_trial(store, trial));
    // Sweeps have thousands of trials, and a store that is far away takes its time to answer.
    let (points, equipment) = future::join(points, equipment).await;
    let points = points.map_err(|_| silent(trial))?;
    let points = points.with_context(|| format!("cannot read the metrics of {trial}"))?;
    let problem = match equipment {
        Ok(Ok(equipment)) => return Ok((points, equipment)),
        Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
        Err(_) => silent(trial).to_string(),
    };
    eprintln!("warning: the report does not say what {trial} was trained with: {problem}");
    Ok((points, Vec::new()))
}

fn silent(trial: &TrialId) -> anyhow::Error {
    let seconds = STORE_DEADLINE.as_secs();
    anyhow!("the store did not answer within {seconds} s about {trial}")
}

/// What the chosen model said about the test split, once it is scored.
async fn predictions(store: &Store, view: &ExperimentView) -> anyhow::Result<Option<Predictions>> {
    let Some(best) = view.best.as_ref().filter(|best| best.test.is_some()) else { return Ok(None) };
    let key = Layout::predictions(&best.trial);
    let bytes = timeout(STORE_DEADLINE, store.find(&key)).await;
    // A language model has none, and experiments of old builds have none.
    let Some(bytes) = bytes.map_err(|_| silent(&best.trial))?? else { return Ok(None) };
    let found = prediction::decode(bytes);
    Ok(Some(found.with_context(|| format!("cannot use {}", store.display(&key)))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::id::Attempt;

    #[tokio::test]
    async fn a_report_is_made_without_what_cannot_be_read_of_the_machines() {
        let store = Store::in_memory();
        let trial: TrialId = "demo-1/t1".parse().unwrap();
        let key = Layout::equipment(&trial, Attempt(1), 0);
        store.put(&key, &b"{\"host\": 7}"[..]).await.unwrap();
        let (points, equipment) = kept(&store, &trial).await.unwrap();
        assert!(points.is_empty() && equipment.is_empty());
    }
}
