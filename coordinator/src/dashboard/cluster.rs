//! Hosts, slots, what they do, and why others wait.

use std::collections::BTreeMap;

use muster_common::id::WorkerId;
use muster_common::time::Timestamp;

use super::answer::{ClusterAnswer, HostAnswer, SlotAnswer, WaitingAnswer};
use super::timeline::task_name;
use crate::engine::experiment::Experiment;
use crate::engine::trial::TrialKind;
use crate::engine::{Engine, Worker};
use crate::live::Live;
use crate::view::{head, hosts_aside};

/// Everything about slots.
pub(super) fn cluster(engine: &Engine, live: &Live, now: Timestamp) -> ClusterAnswer {
    let mut hosts: BTreeMap<&str, Vec<SlotAnswer>> = BTreeMap::new();
    for (id, worker) in engine.workers() {
        hosts.entry(&worker.host).or_default().push(slot(engine, live, id, worker));
    }
    // One that has failed and is gone is still set aside.
    for host in engine.hosts().keys() {
        hosts.entry(host).or_default();
    }
    let host = |(name, slots): (&str, Vec<SlotAnswer>)| {
        let record = engine.hosts().get(name);
        HostAnswer {
            name: name.to_owned(),
            num_failures: record.map_or(0, |record| record.failures.len()),
            aside_until_ms: record.and_then(|record| record.aside_until).map(|at| at.0),
            slots,
        }
    };
    let mut notes = hosts_aside(engine, now);
    notes.extend(live.allocations());
    let busy = engine.workers().values().filter(|worker| worker.run.is_some());
    let open = engine.open_experiments().into_iter();
    ClusterAnswer {
        now_ms: now.0,
        num_slots: engine.workers().len(),
        num_busy: busy.count(),
        examples_per_second: live.examples_per_second(),
        hosts: hosts.into_iter().map(host).collect(),
        waiting: open.map(|experiment| waiting(engine, live, experiment, now)).collect(),
        notes,
    }
}

fn slot(engine: &Engine, live: &Live, id: &WorkerId, worker: &Worker) -> SlotAnswer {
    let found =
        worker.run.and_then(|generation| Some((generation, engine.runs().get(&generation)?)));
    let progress = worker.run.and_then(|generation| live.progress(generation));
    let state = match (worker.draining, worker.run) {
        (true, _) => "leaving",
        (false, Some(_)) => "working",
        (false, None) => "free",
    };
    SlotAnswer {
        worker: id.to_string(),
        state,
        run: worker.run.map(|generation| generation.0),
        rank: found.and_then(|(_, run)| run.rank_of(id)),
        experiment: found.map(|(_, run)| run.experiment.to_string()),
        trial: found.and_then(|(_, run)| run.task.trial()).map(|trial| trial.number),
        task: found.map(|(_, run)| task_name(&run.task)),
        started_at_ms: found.map(|(_, run)| run.started_at.0),
        step: progress.as_ref().map(|progress| progress.step),
        target_step: progress.as_ref().map(|progress| progress.target_step),
        examples_per_second: progress.map(|progress| progress.examples_per_second),
    }
}

fn waiting(engine: &Engine, live: &Live, experiment: &Experiment, now: Timestamp) -> WaitingAnswer {
    WaitingAnswer {
        experiment: experiment.id.to_string(),
        project: experiment.project.as_ref().map(ToString::to_string),
        priority: experiment.priority,
        slots: engine.held(&experiment.id),
        num_running: experiment.trials.count(TrialKind::Running),
        num_pending: experiment.trials.count(TrialKind::Pending),
        reason: head(engine, experiment, live, now).reason,
    }
}
