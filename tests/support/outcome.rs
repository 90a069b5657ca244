//! How an experiment ended, as a list of facts: of two that should have ended alike, only what differs is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

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
    let (course, expected_course) = (course(directory), course(other));
    anyhow::bail!("{differences:#?}\n--- its course\n{course}--- the other's\n{expected_course}")
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
