//! What an experiment waits for, in words.

use std::collections::BTreeMap;

use muster_common::id::ExperimentId;
use muster_common::manifest::Slots;
use muster_common::time::Timestamp;

use crate::engine::Engine;
use crate::engine::experiment::Experiment;
use crate::engine::trial::TrialState;

/// Why nothing runs, if nothing runs; or why slots stand empty.
pub(super) fn waiting(engine: &Engine, experiment: &Experiment, now: Timestamp) -> String {
    let is_running = engine.runs().values().any(|run| run.experiment == experiment.id);
    if is_running && experiment.waiting_since.is_none() {
        return String::new();
    }
    if experiment.paused {
        return format!("paused; `muster resume {}` lets it go on", experiment.id);
    }
    if engine.workers().is_empty() {
        return "waiting for workers: none is connected".to_owned();
    }
    let Some(slots) = experiment.slots_wanted(now) else { return backing_off(experiment, now) };
    let num_usable = engine.num_usable();
    let held = held(engine);
    let num_free = num_usable.saturating_sub(held.values().sum());
    let mut text = match slots {
        Slots::Fixed(1) => "waiting for a slot".to_owned(),
        _ => format!("waiting for {slots}"),
    };
    if slots.min() > num_usable {
        text += &format!(": there are {num_usable}; more workers must come");
    } else {
        let is_kept = if experiment.waiting_since.is_some() { ", kept for it" } else { "" };
        text += &format!(": {num_free} of {num_usable} free{is_kept}");
    }
    for (id, count) in &held {
        text += &format!(", {count} held by {id}");
    }
    let ahead = engine.experiments().find(|other| {
        other.id != experiment.id
            && other
                .waiting_since
                .is_some_and(|since| experiment.waiting_since.is_none_or(|own| since <= own))
    });
    if let Some(other) = ahead.filter(|_| num_free > 0) {
        text += &format!("; free slots are kept for {}", other.id);
    }
    if experiment.waiting_since.is_some() && num_free >= slots.min() && slots.is_elastic() {
        text += "; a worker may come for one that was lost";
    }
    let aside = hosts_aside(engine, now);
    if aside.is_empty() { text } else { format!("{text}; {}", aside.join("; ")) }
}

/// Slots by the experiment that has them.
fn held(engine: &Engine) -> BTreeMap<ExperimentId, u32> {
    let mut held = BTreeMap::new();
    for generation in engine.workers().values().filter_map(|worker| worker.run) {
        if let Some(run) = engine.runs().get(&generation) {
            *held.entry(run.experiment.clone()).or_insert(0) += 1;
        }
    }
    held
}

/// The trial that is tried again next, if that is what is waited for.
fn backing_off(experiment: &Experiment, now: Timestamp) -> String {
    let pending = experiment.trials.values().filter(|trial| trial.state == TrialState::Pending);
    let next = pending.filter_map(|trial| Some((trial.not_before?, trial.number))).min();
    next.map_or_else(String::new, |(at, number)| {
        let seconds = at.since(now).as_secs_f64().ceil();
        format!("t{number} failed and is tried again in {seconds} s")
    })
}

/// Machines that get no new runs for a while, one text for each.
pub fn hosts_aside(engine: &Engine, now: Timestamp) -> Vec<String> {
    let text = |(host, until, failures, last): (&String, Timestamp, usize, &String)| {
        let minutes = (until.since(now).as_secs_f64() / 60.0).ceil();
        format!(
            "host {host} is set aside for {minutes} minutes: {failures} failures, the last: {last}"
        )
    };
    let aside = engine.hosts().iter().filter_map(|(host, record)| {
        Some((host, record.aside_until?, record.failures.len(), &record.last))
    });
    aside.map(text).collect()
}
