//! The run card: what was run, on what, where, how long and at what cost.

use std::collections::BTreeMap;

use muster_common::equipment::{self, Workers};
use muster_common::manifest::TrialSettings;
use muster_common::run::DataSummary;
use serde::Serialize;
use serde_json::Value;

use super::Source;
use crate::view::{TrialStateName, TrialView, mode_name};

/// A state that only the coordinator could tell.
pub(super) const NOT_KNOWN: &str = "not known";

/// What was run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    /// The experiment.
    pub experiment: String,
    /// The trial that the report is about; absent: all of them.
    pub trial: Option<String>,
    /// Free text of the manifest.
    pub description: String,
    /// `completed`, `searching` ...
    pub state: String,
    /// Why it failed or what it waits for; empty when all is well.
    pub reason: String,
    /// Version of Muster that has made the report.
    pub muster_version: String,
    /// When the report was made, Unix milliseconds.
    pub made_at_ms: u64,
    /// When the experiment was submitted, Unix milliseconds.
    pub created_at_ms: u64,
    /// When it ended, Unix milliseconds.
    pub ended_at_ms: Option<u64>,
    /// From submission to the end or to the report, seconds.
    pub wall_seconds: f64,
    /// Time that ranks of training runs measured something, hours, all slots together; absent where nothing was
    /// measured.
    pub slot_hours: Option<f64>,
    /// Machines that trained.
    pub hosts: Vec<Host>,
    /// What they trained with: a row for each kind of hardware and version, most workers first. Empty where builds that
    /// kept nothing have trained.
    pub workers: Vec<Workers>,
    /// Slots that one trial occupies, for people.
    pub slots_per_trial: String,
    /// What trials learn.
    pub training_objective: String,
    /// What is wanted: `max accuracy`, then constraints.
    pub goal: Vec<String>,
    /// The pretrained model.
    pub model: String,
    /// Longest sequence, tokens.
    pub max_length: u32,
    /// Root of every random choice.
    pub seed: u64,
    /// What the data turned out to be.
    pub data: Option<DataCard>,
    /// Trials in each state.
    pub trials: BTreeMap<&'static str, usize>,
    /// The best trial, and its hyperparameters; of one trial, that one.
    pub chosen: Option<Chosen>,
    /// Where everything lies.
    pub location: String,
    /// What is legal but rarely meant.
    pub warnings: Vec<String>,
    /// The manifest as it was submitted.
    pub manifest: String,
}

/// A machine, as its metrics tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Host {
    /// Its name; empty where files are too old to say.
    pub name: String,
    /// Time that ranks measured something there, seconds, all slots together.
    pub slot_seconds: f64,
    /// Runs that had a rank there.
    pub num_runs: usize,
    /// A GPU was measured.
    pub has_gpu: bool,
}

/// What the data turned out to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataCard {
    /// Files, or the name of a data set on a hub.
    pub sources: Vec<String>,
    /// Content hash of the rows, the tokenizer and how both are used.
    pub cache: String,
    /// Examples of each split.
    pub train: u64,
    /// Of the validation split.
    pub validation: u64,
    /// Of the test split.
    pub test: u64,
    /// Rows read, all files together.
    pub rows: u64,
    /// Class names in the order of their numbers.
    pub labels: Vec<String>,
    /// Mean tokens of a training example, where all were tokenized.
    pub mean_tokens: Option<f64>,
    /// What was taken out or was wrong, and in how many rows; only what happened.
    pub removed: Vec<(&'static str, u64)>,
    /// For people: what was wrong with rows.
    pub remarks: Vec<String>,
}

/// A trial in detail.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chosen {
    /// Which.
    pub trial: String,
    /// After how many steps.
    pub step: u64,
    /// The first objective on the validation split.
    pub objective: Option<f64>,
    /// Where the model lies; empty until it is written.
    pub model: String,
    /// Every hyperparameter with its value, searched or not.
    pub settings: BTreeMap<String, Value>,
}

impl Card {
    pub(super) fn of(source: &Source<'_>, trial: Option<&TrialView>) -> Self {
        let (view, manifest) = (source.view, source.manifest);
        let hosts = hosts(source);
        let slot_seconds: f64 = hosts.iter().map(|host| host.slot_seconds).sum();
        let all = TrialStateName::ALL.into_iter();
        let counts = all.map(|state| (state.name(), view.count(state)));
        let objectives = view.goal.objectives();
        let wanted = objectives.map(|one| format!("{} {}", mode_name(one.mode), one.metric.name()));
        let bounds = view.goal.constraints.iter().map(muster_common::goal::Constraint::words);
        Self {
            experiment: view.id.to_string(),
            trial: trial.map(|trial| trial.id.to_string()),
            description: view.description.clone(),
            state: if source.is_stored {
                NOT_KNOWN.to_owned()
            } else {
                trial.map_or(view.state.name(), |trial| trial.state.name()).to_owned()
            },
            reason: trial.map_or(&view.reason, |trial| &trial.reason).clone(),
            muster_version: env!("CARGO_PKG_VERSION").to_owned(),
            made_at_ms: source.made_at.0,
            created_at_ms: view.created_at.0,
            ended_at_ms: view.ended_at.map(|at| at.0),
            wall_seconds: view.elapsed_seconds(),
            slot_hours: (!hosts.is_empty()).then_some(slot_seconds / 3600.0),
            hosts,
            workers: workers(source),
            slots_per_trial: manifest.resources.slots.to_string(),
            training_objective: manifest.objective.name().to_owned(),
            goal: wanted.chain(bounds).collect(),
            model: manifest.model.pretrained.clone(),
            max_length: manifest.model.max_length,
            seed: manifest.seed.0,
            data: view
                .data
                .as_ref()
                .filter(|_| !source.is_stored)
                .map(|data| DataCard::of(source, data)),
            trials: if source.is_stored {
                BTreeMap::from([("in the store", view.trials.len())])
            } else {
                counts.filter(|(_, count)| *count > 0).collect()
            },
            chosen: chosen(source, trial),
            location: view.location.clone(),
            warnings: view.warnings.clone(),
            manifest: source.manifest_text.to_owned(),
        }
    }
}

impl DataCard {
    fn of(source: &Source<'_>, data: &DataSummary) -> Self {
        let train = &source.manifest.data.train;
        let hub = train.hub.iter().map(|hub| hub.name.to_string());
        let flaws = &data.flaws;
        let removed = [
            ("the same text in an earlier row", data.num_duplicates),
            ("a label in no range", data.num_left_out),
            ("no text", flaws.num_empty),
            ("an unknown label", flaws.num_unknown_labels),
            ("bytes that are not UTF-8", flaws.num_bad_utf8),
            ("the text of a held-out row", flaws.num_leaks),
            ("nearly the text of a held-out row", flaws.num_near_leaks),
            ("nearly the text of another training row", flaws.num_near_duplicates),
        ];
        Self {
            sources: hub.chain(train.paths.iter().cloned()).collect(),
            cache: data.cache.clone(),
            train: data.num_train,
            validation: data.num_validation,
            test: data.num_test,
            rows: data.num_rows,
            labels: data.labels.clone(),
            mean_tokens: data.mean_tokens,
            removed: removed.into_iter().filter(|(_, count)| *count > 0).collect(),
            remarks: data.remarks.clone(),
        }
    }
}

fn chosen(source: &Source<'_>, trial: Option<&TrialView>) -> Option<Chosen> {
    let best = source.view.best.as_ref();
    let number = trial.map(|trial| trial.id.number).or(best.map(|best| best.trial.number))?;
    let found = source.view.trials.iter().find(|trial| trial.id.number == number)?;
    let best = best.filter(|best| best.trial.number == number);
    if source.is_stored && best.is_none() {
        // The store has the hyperparameters of the chosen one alone.
        return None;
    }
    let all = TrialSettings::resolve(&source.manifest.hyperparameters, &found.assignment);
    let settings = match serde_json::to_value(all) {
        Ok(Value::Object(fields)) => fields.into_iter().filter(|(_, value)| !value.is_null()),
        _ => return None,
    };
    Some(Chosen {
        trial: found.id.to_string(),
        step: best.map_or(found.step, |best| best.step),
        objective: found.merit.as_ref().map(muster_common::goal::Merit::first),
        model: best.map(|best| best.model.clone()).unwrap_or_default(),
        settings: settings.chain(words(source, found)).collect(),
    })
}

/// What of a trial is a word that the hyperparameters name.
fn words(source: &Source<'_>, trial: &TrialView) -> Vec<(String, Value)> {
    let space = &source.manifest.hyperparameters;
    let training = source.manifest.training_of(&trial.assignment);
    let names = space.keys().chain(trial.assignment.keys());
    let word = |name: &String| Some((name.clone(), Value::from(training.category(name)?.name())));
    names.filter_map(word).collect()
}

fn workers(source: &Source<'_>) -> Vec<Workers> {
    let measured = source.measured();
    equipment::by_kind(measured.iter().flat_map(|(_, measured)| &measured.equipment))
}

fn hosts(source: &Source<'_>) -> Vec<Host> {
    let mut hosts: BTreeMap<&str, Host> = BTreeMap::new();
    for (_, measured) in source.measured() {
        let mut runs: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for span in &measured.spans {
            let host = hosts.entry(&span.host).or_insert_with(|| Host {
                name: span.host.clone(),
                slot_seconds: 0.0,
                num_runs: 0,
                has_gpu: false,
            });
            host.slot_seconds += span.seconds();
            host.has_gpu |= span.has_gpu;
            let attempts = runs.entry(&span.host).or_default();
            if !attempts.contains(&span.attempt) {
                attempts.push(span.attempt);
                host.num_runs += 1;
            }
        }
    }
    hosts.into_values().collect()
}
