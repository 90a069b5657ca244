//! How an experiment ended, as a list of facts: of two that should have ended alike, only what differs is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context;
use muster_common::id::TrialId;
use muster_common::metric::{MetricName, read_trial};
use muster_common::storage::Store;
use serde_json::Value;
use tokio::runtime;

use crate::service::summary;

/// Facts by their names.
pub type Outcome = BTreeMap<String, String>;

/// What the summary in `directory` says of trials (`facts` of each) and of the best one (`best_facts`).
pub fn outcome(directory: &Path, facts: &[&str], best_facts: &[&str]) -> anyhow::Result<Outcome> {
    let summary = summary(directory)?;
    let mut said = Outcome::new();
    said.insert("state".to_owned(), summary["state"].to_string());
    for trial in summary["trials"].as_array().context("a summary has trials")? {
        let named = |fact: &&str| (format!("{fact} of {}", trial["id"]), trial[*fact].to_string());
        said.extend(facts.iter().map(named));
    }
    let of_best = |fact: &&str| (format!("{fact} of the best"), summary["best"][*fact].to_string());
    said.extend(best_facts.iter().map(of_best));
    Ok(said)
}

/// Fails with what only one of two experiments says, and with the course of both: the journaled decisions and the
/// logs of the runs in `directory` and in `other`.
pub fn assert_alike(
    (found, directory): (&Outcome, &Path),
    (expected, other): (&Outcome, &Path),
) -> anyhow::Result<()> {
    let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let differs = names.into_iter().filter(|name| found.get(*name) != expected.get(*name));
    let differences: Vec<String> = differs
        .map(|name| format!("{name}: {:?}, not {:?}", found.get(name), expected.get(name)))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    let numbers = other_numbers(directory, other);
    let numbers = numbers.unwrap_or_else(|error| vec![format!("not known: {error:#}")]);
    let (course, expected_course) = (course(directory), course(other));
    anyhow::bail!(
        "{differences:#?}\n--- where numbers of steps that both did begin to differ\n{numbers:#?}\n\
         --- its course\n{course}--- the other's\n{expected_course}"
    )
}

/// What training itself measured, by trial, step and name.
type Measured = BTreeMap<(u32, u64, String), f64>;

/// Where trials of two experiments begin to have other numbers: of each the first step that both did. None: what
/// was computed is the same, and what was decided is not.
fn other_numbers(directory: &Path, other: &Path) -> anyhow::Result<Vec<String>> {
    let (found, expected) = (measured(directory)?, measured(other)?);
    let mut first: BTreeMap<u32, String> = BTreeMap::new();
    for (place, value) in &found {
        let (trial, step, name) = place;
        let differs = |wanted: &&f64| wanted.to_bits() != value.to_bits();
        if let Some(wanted) = expected.get(place).filter(differs) {
            let text = || format!("t{trial}, step {step}: {name} {value}, not {wanted}");
            first.entry(*trial).or_insert_with(text);
        }
    }
    Ok(first.into_values().collect())
}

fn measured(directory: &Path) -> anyhow::Result<Measured> {
    let names = [MetricName::TRAIN_LOSS, MetricName::GRAD_NORM, MetricName::VALIDATION_LOSS];
    let store = Store::open(&directory.join("muster-data").display().to_string())?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = summary(directory)?;
    let mut measured = Measured::new();
    for trial in summary["trials"].as_array().context("a summary has trials")? {
        let id: TrialId = trial["id"].as_str().context("a trial has an id")?.parse()?;
        let points = runtime.block_on(read_trial(&store, &id))?.into_iter();
        let counted = points.filter(|point| names.contains(&point.name));
        measured.extend(
            counted.map(|point| ((id.number, point.step, point.name.to_string()), point.value)),
        );
    }
    Ok(measured)
}

/// What the programs that ran in `directory` said, and what their runs logged.
fn course(directory: &Path) -> String {
    let said = fs::read_dir(directory).into_iter().flatten().flatten();
    let logs = fs::read_dir(directory.join("muster-data/coordinator/logs"));
    let logged = logs.into_iter().flatten().flatten();
    let mut paths: Vec<_> = said
        .chain(logged)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "err" || kind == "log"))
        .collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}
