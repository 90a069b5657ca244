//! What an object store alone can tell of an experiment: its manifest, what trials measured, and the chosen model with
//! what it said. States, decisions and the other trials' hyperparameters are with the coordinator.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use muster_common::evaluation::Evaluation;
use muster_common::goal::{Goal, Merit};
use muster_common::id::{ExperimentId, TrialId};
use muster_common::manifest::{Assignment, Category, Manifest, ParameterValue, SearcherSettings};
use muster_common::metric::{MetricName, MetricPoint};
use muster_common::objective::{Objective, ObjectiveMetric};
use muster_common::run::DataSummary;
use muster_common::storage::{Layout, Store, StoreError};
use muster_common::time::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;

use super::{READS, STORE_DEADLINE, kept};
use crate::report::{Measured, Predictions};
use crate::view::{BestView, ExperimentState, ExperimentView, TrialStateName, TrialView};

/// What a report of this kind lacks.
const WARNING: &str = "made of the object store alone, without a coordinator: states, decisions, hyperparameters of \
    trials other than the chosen one, and scores on the validation split other than the objectives' are not in it; \
    times are those of the first and the last value that was measured";

/// What an exported model says of itself.
#[derive(Debug, Deserialize)]
struct Provenance {
    trial: String,
    step: u64,
    hyperparameters: BTreeMap<String, Written>,
    test: Option<TestRecord>,
}

/// The value of a hyperparameter.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Word(Category),
}

#[derive(Debug, Deserialize)]
struct TestRecord {
    scores: BTreeMap<String, Option<f64>>,
    confusion: Vec<Vec<u64>>,
}

/// The manifest and its text.
pub(super) async fn manifest(
    store: &Store,
    id: &ExperimentId,
) -> anyhow::Result<(Manifest, String)> {
    let Some(bytes) = object(store.find(&Layout::manifest(id))).await? else {
        bail!("there is no experiment {id} in {}", store.url());
    };
    let text = String::from_utf8(bytes.into()).context("the manifest of the experiment")?;
    Ok((Manifest::parse(&text).context("the manifest of the experiment")?, text))
}

/// The experiment as far as it can be seen, and what its trials measured.
pub(super) async fn view(
    store: &Store,
    id: &ExperimentId,
    manifest: &Manifest,
) -> anyhow::Result<(ExperimentView, Vec<Measured>)> {
    let metric = manifest.objective.natural_metric();
    let natural = || Objective { metric, mode: metric.natural_mode() }.into();
    let goal: Goal = manifest.searcher.as_ref().map_or_else(natural, SearcherSettings::goal);
    let listed = timeout(STORE_DEADLINE, store.list(&Layout::experiment(id))).await;
    let listed = listed.context("the store did not answer in time")??;
    let found: BTreeSet<TrialId> = listed.iter().filter_map(Layout::trial_of).collect();
    let reads = found.into_iter().map(|trial| look(store, trial, &goal));
    let seen: Vec<Seen> = stream::iter(reads).buffered(READS).try_collect().await?;
    let mut trials: Vec<TrialView> = seen.iter().map(|seen| seen.trial.clone()).collect();
    let spans = || seen.iter().flat_map(|seen| &seen.measured.spans);
    let now = Timestamp::now();
    let created_at = Timestamp(spans().map(|span| span.from_ms).min().unwrap_or(now.0));
    let ended_at = Timestamp(spans().map(|span| span.to_ms).max().unwrap_or(now.0));
    let best = chosen(store, id, &mut trials).await?;
    let view = ExperimentView {
        id: id.clone(),
        description: manifest.description.clone().unwrap_or_default(),
        state: ExperimentState::Completed,
        reason: String::new(),
        paused: false,
        created_at,
        ended_at: Some(ended_at),
        now: ended_at,
        goal,
        max_trials: manifest.searcher.as_ref().map_or(1, |searcher| searcher.max_trials),
        rungs: Vec::new(),
        trials,
        data: None,
        parts_done: 0,
        num_parts: 0,
        num_workers: 0,
        examples_per_second: 0.0,
        seconds_left: None,
        best,
        front: Vec::new(),
        decisions: Vec::new(),
        location: store.display(&Layout::experiment(id)),
        ordered: false,
        warnings: vec![WARNING.to_owned()],
        training_objective: manifest.objective,
    };
    Ok((view, seen.into_iter().map(|seen| seen.measured).collect()))
}

/// Names of the classes are in the file of predictions.
pub(super) fn name_classes(
    view: &mut ExperimentView,
    manifest: &Manifest,
    predictions: Option<&Predictions>,
) {
    let Some((_, labels)) = predictions else { return };
    view.ordered = manifest.evaluation.is_ordered(labels);
    view.data = Some(DataSummary { labels: labels.clone(), ..DataSummary::default() });
}

/// A trial as its metrics show it.
struct Seen {
    trial: TrialView,
    measured: Measured,
}

async fn look(store: &Store, id: TrialId, goal: &Goal) -> anyhow::Result<Seen> {
    let (points, equipment) = kept(store, &id).await?;
    let objective = MetricName::validation(goal.objective.metric);
    let measured = Measured::of(&id, &points, &objective, equipment);
    let attempts = points.iter().map(|point| point.attempt.0).max().unwrap_or_default();
    let trial = TrialView {
        // Nobody is told: the report knows that this is not known.
        state: TrialStateName::Completed,
        reason: String::new(),
        assignment: Assignment::new(),
        step: points.iter().map(|point| point.step).max().unwrap_or_default(),
        target_step: 0,
        merit: best_merit(goal, &points),
        last_loss: None,
        attempts,
        restarts: 0,
        rungs_passed: 0,
        examples_per_second: 0.0,
        ranks: Vec::new(),
        id,
    };
    Ok(Seen { trial, measured })
}

/// The best of the results that were measured on the validation split.
fn best_merit(goal: &Goal, points: &[MetricPoint]) -> Option<Merit> {
    let mut results: BTreeMap<u64, BTreeMap<&str, f64>> = BTreeMap::new();
    for point in points.iter().filter(|point| point.rank == 0) {
        results.entry(point.step).or_default().insert(point.name.as_str(), point.value);
    }
    let merit = |values: &BTreeMap<&str, f64>| {
        let value = |metric: ObjectiveMetric| {
            let name = MetricName::validation(metric);
            values.get(name.as_str()).copied().unwrap_or(f64::NAN)
        };
        let violations = goal.constraints.iter().map(|bound| bound.violation(value(bound.metric)));
        let objectives = goal.objectives().map(|objective| value(objective.metric));
        Merit::new(objectives, violations.sum())
    };
    let measured = results.values().map(merit).filter(|merit| !merit.first().is_nan());
    measured.min_by(|a, b| goal.standing(a, b))
}

/// The chosen trial, once its model is written. Its hyperparameters are put into `trials`.
async fn chosen(
    store: &Store,
    id: &ExperimentId,
    trials: &mut [TrialView],
) -> anyhow::Result<Option<BestView>> {
    let key = Layout::provenance(id);
    let Some(bytes) = object(store.find(&key)).await? else { return Ok(None) };
    let found: Provenance = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not readable", store.display(&key)))?;
    let trial: TrialId = found.trial.parse().context("the trial of the exported model")?;
    let mut objective = f64::NAN;
    if let Some(own) = trials.iter_mut().find(|own| own.id == trial) {
        let values = found.hyperparameters.into_iter();
        let values = values.map(|(name, value)| match value {
            Written::Number(value) => (name, ParameterValue::Float(value)),
            Written::Word(word) => (name, ParameterValue::Category(word)),
        });
        own.assignment = values.collect();
        objective = own.merit.map_or(f64::NAN, |merit| merit.first());
    }
    let test = found.test.filter(|test| !test.confusion.is_empty()).map(|test| {
        let score = |metric: ObjectiveMetric| test.scores.get(metric.name()).copied().flatten();
        let loss = score(ObjectiveMetric::Loss).unwrap_or(f64::NAN);
        let auc = score(ObjectiveMetric::Auc);
        Evaluation { loss, confusion: test.confusion.clone(), auc, masked: None }
    });
    Ok(Some(BestView {
        trial,
        step: found.step,
        objective,
        validation: Evaluation::default(),
        test,
        model: store.display(&Layout::best(id)),
    }))
}

/// An object's bytes, if it is there; `read` asks the store.
async fn object(
    read: impl Future<Output = Result<Option<Bytes>, StoreError>>,
) -> anyhow::Result<Option<Bytes>> {
    Ok(timeout(STORE_DEADLINE, read).await.context("the store did not answer in time")??)
}
