//! What an experiment waits for, in words.

use muster_common::manifest::Slots;
use muster_common::time::Timestamp;

use crate::engine::Engine;
use crate::engine::experiment::Experiment;
use crate::engine::line::Bound;
use crate::engine::trial::TrialKind;

/// Why nothing runs, if nothing runs; or why slots stand empty.
pub(super) fn waiting(engine: &Engine, experiment: &Experiment, now: Timestamp) -> String {
    let is_running = engine.held(&experiment.id) > 0;
    if is_running && experiment.waiting_since.is_none() {
        return String::new();
    }
    what_is_missing(engine, experiment, now)
}

/// Why its next run does not begin, whatever else it does.
pub(super) fn what_is_missing(engine: &Engine, experiment: &Experiment, now: Timestamp) -> String {
    if experiment.paused {
        return format!("paused; `muster resume {}` lets it go on", experiment.id);
    }
    if engine.workers().is_empty() {
        return "waiting for workers: none is connected".to_owned();
    }
    let Some(slots) = experiment.slots_wanted(now) else {
        return concurrent(experiment).unwrap_or_else(|| backing_off(experiment, now));
    };
    let room = engine.room(experiment);
    if slots.min() > room.slots {
        let held = engine.held(&experiment.id);
        return match room.bound {
            Bound::Experiment(most) => {
                format!("it has {held} of the {most} slots that resources.max_slots allows")
            }
            Bound::Project(most) => {
                let project = experiment.project.as_ref().map_or("", |project| project.as_str());
                let held = engine.held_by_project();
                let held = held.iter().find(|(name, _)| name.as_str() == project);
                let held = held.map_or(0, |(_, held)| *held);
                format!("project {project} has {held} of the {most} slots of its quota")
            }
            Bound::Nothing => String::new(),
        };
    }
    let num_usable = engine.num_usable();
    let held = engine.all_held();
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
    for (id, count) in held {
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
    let above = engine
        .open_experiments()
        .into_iter()
        .find(|other| other.priority > experiment.priority && held.contains_key(&other.id));
    if let Some(other) = above {
        text += &format!(
            "; {} has priority {}, this one {}",
            other.id, other.priority, experiment.priority
        );
    }
    if experiment.waiting_since.is_some() && num_free >= slots.min() && slots.is_elastic() {
        text += "; a worker may come for one that was lost";
    }
    let aside = hosts_aside(engine, now);
    if aside.is_empty() { text } else { format!("{text}; {}", aside.join("; ")) }
}

/// The most trials that may run at the same time, if as many do.
fn concurrent(experiment: &Experiment) -> Option<String> {
    let most = experiment.manifest.searcher.as_ref()?.max_concurrent?;
    let is_full = experiment.trials.count(TrialKind::Running) >= most as usize;
    is_full.then(|| format!("as many trials run as searcher.max_concurrent allows, {most}"))
}

/// The trial that is tried again next, if that is what is waited for.
fn backing_off(experiment: &Experiment, now: Timestamp) -> String {
    if let Some(at) = experiment.not_before.filter(|at| *at > now) {
        let seconds = at.since(now).as_secs_f64().ceil();
        let fate = if experiment.preempted_in_vain > 0 { "was preempted" } else { "failed" };
        return format!("its last run {fate}, it is tried again in {seconds} s");
    }
    let pending = || experiment.trials.of(TrialKind::Pending).map(|(_, trial)| trial);
    let backing = pending().filter(|trial| !trial.held);
    let next = backing.filter_map(|trial| Some((trial.not_before?, trial.number))).min();
    let paused = experiment.trials.of(TrialKind::Paused).map(|(_, trial)| trial);
    if let (None, Some(held)) = (next, pending().chain(paused).find(|trial| trial.held)) {
        let (id, number) = (&experiment.id, held.number);
        return format!(
            "t{number} is paused by a user; `muster resume {id}/t{number}` lets it go on"
        );
    }
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
