//! Who goes first, who may have how much, who has to give back: priorities, shares, quotas, lent slots,
//! limits, and what users ask of single trials.

use std::collections::BTreeMap;

use muster_common::id::Generation;
use muster_common::manifest::Manifest;
use muster_common::run::{DataSummary, Directive, RunExit, RunReport, RunSpec, Task};
use muster_common::time::Timestamp;
use muster_coordinator::engine::experiment::{Experiment, ExperimentEnd, Phase};
use muster_coordinator::engine::line::ProjectPolicy;
use muster_coordinator::engine::trial::{StopReason, TrialState};
use muster_coordinator::engine::{Action, Event};
use muster_coordinator::view::why;

use super::cluster::{Cluster, manifest};
use crate::sample;

const MANY: &str = "max_trials: 50";

/// A manifest with more keys at the top level.
fn with(name: &str, slots: &str, searcher: &str, more: &str) -> Manifest {
    let plain = manifest(name, slots, searcher);
    let text = serde_json::to_value(&plain).unwrap();
    let mut found: Manifest = serde_json::from_value(text).unwrap();
    let more = sample::manifest(name, &format!("budget: {{steps: 1}}\n{more}\n"));
    found.project = more.project;
    found.limits = more.limits;
    found.resources.priority = more.resources.priority;
    found.resources.max_slots = more.resources.max_slots;
    found
}

fn workers(cluster: &mut Cluster, count: usize) {
    for number in 0..count {
        cluster.join(&format!("w{number}"), "h");
    }
}

impl Cluster {
    fn experiment(&self, id: &str) -> &Experiment {
        self.engine.experiment(&id.parse().unwrap()).unwrap()
    }

    fn held(&self, id: &str) -> u32 {
        self.engine.held(&id.parse().unwrap())
    }

    /// What is known of a run that has not ended.
    fn spec(&self, generation: Generation) -> RunSpec {
        let worker = self.engine.runs()[&generation].members[0].worker.clone();
        self.engine.spec(generation, &worker).unwrap()
    }

    /// Runs of an experiment, oldest first.
    fn runs_of(&self, id: &str) -> Vec<Generation> {
        let runs = self.engine.runs().iter();
        runs.filter(|(_, run)| run.experiment.as_str() == id).map(|(g, _)| *g).collect()
    }

    fn leaving(&self) -> Vec<Generation> {
        let told = |action: &Action| match action {
            Action::DirectRun { generation, directive: Directive::Preempt, .. } => {
                Some(*generation)
            }
            _ => None,
        };
        self.actions.iter().filter_map(told).collect()
    }

    fn why(&self, id: &str, number: u32) -> String {
        let lines = why(&self.engine, self.experiment(id), number, Timestamp(self.now)).unwrap();
        lines.join("\n")
    }
}

#[test]
fn more_priority_takes_slots_and_gives_them_back_later() {
    let mut cluster = Cluster::new(&[("w0", "h"), ("w1", "h")]);
    cluster.submit(manifest("low", "1", MANY));
    let before = cluster.runs_of("low-1");
    assert_eq!(before.len(), 2);
    cluster.submit(with("high", "1", "max_trials: 1", "resources: {priority: 10}"));
    // One slot is enough for what it can begin, and the younger run gives it.
    assert_eq!(cluster.leaving(), [before[1]]);
    assert!(cluster.said("low-1").contains("leaves its slots to high-1: priority 10 is above 0"));
    cluster.commit("low-1/t2", 30, before[1]);
    cluster.end(before[1], 0, RunExit::Preempted);
    let prepare = cluster.only();
    assert!(matches!(prepare.task, Task::Prepare { .. }));
    assert_eq!(cluster.held("high-1"), 1);
    assert!(cluster.why("low-1", 2).contains("high-1 has priority 10, this one 0"));
    assert!(cluster.leaving().is_empty(), "nobody else has to leave");
    cluster.apply(Event::ExperimentCanceled { experiment: "high-1".parse().unwrap() });
    cluster.end(prepare.generation, 0, RunExit::Canceled);
    let resumed = cluster.only();
    let Task::Train(task) = &resumed.task else { panic!("{resumed:?}") };
    assert_eq!((task.trial.number, task.resume_from.as_ref().unwrap().step), (2, 30));
    assert_eq!(cluster.experiment("low-1").trials[&2].restarts, 0);
}

#[test]
fn nobody_leaves_for_slots_that_could_not_be_used() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    let high = "resources: {priority: 1, max_slots: 2}";
    cluster.submit(with("high", "2", MANY, high));
    cluster.apply(Event::ExperimentPaused { experiment: "high-1".parse().unwrap() });
    cluster.submit(manifest("low", "1", MANY));
    for number in 1..5 {
        cluster.join(&format!("w{number}"), "h");
    }
    assert_eq!((cluster.held("high-1"), cluster.held("low-1")), (0, 5));
    cluster.apply(Event::ExperimentResumed { experiment: "high-1".parse().unwrap() });
    assert_eq!(cluster.leaving().len(), 2, "{}", cluster.said("low-1"));
}

#[test]
fn a_priority_can_be_given_later_and_equals_take_nothing() {
    let mut cluster = Cluster::new(&[("w0", "h"), ("w1", "h")]);
    cluster.submit(manifest("one", "1", MANY));
    cluster.submit(manifest("two", "1", MANY));
    assert!(cluster.leaving().is_empty());
    let experiment = "two-1".parse().unwrap();
    cluster.apply(Event::ExperimentPrioritized { experiment, priority: 1 });
    // It has parts to prepare for only one slot.
    assert_eq!(cluster.leaving().len(), 1);
    assert!(cluster.said("two-1").contains("priority 1 instead of 0"));
}

#[test]
fn projects_share_by_weight_and_what_one_leaves_the_other_uses() {
    let mut cluster = Cluster::new(&[]);
    let weight = |weight| ProjectPolicy { weight, max_slots: None };
    let projects = BTreeMap::from([
        ("big".parse().unwrap(), weight(3)),
        ("small".parse().unwrap(), weight(1)),
    ]);
    cluster.apply(Event::ProjectsSet { projects });
    workers(&mut cluster, 1);
    cluster.submit(with("a", "1", "max_trials: 50", "project: small"));
    let first = cluster.runs_of("a-1")[0];
    cluster.submit(with("b", "1", "max_trials: 6", "project: big"));
    cluster.end(first, 0, RunExit::Completed);
    // The preparation of the other goes first now: it has none of its share.
    let prepare = cluster.only();
    assert_eq!(prepare.experiment.as_str(), "b-1");
    cluster.report(prepare.generation, 0, RunReport::Prepared(DataSummary::default()));
    cluster.end(prepare.generation, 0, RunExit::Completed);
    for number in 1..8 {
        cluster.join(&format!("w{number}"), "h");
    }
    assert_eq!((cluster.held("b-1"), cluster.held("a-1")), (6, 2));
    // Its last trials are at work; what it leaves goes to the other.
    for generation in cluster.runs_of("b-1") {
        let spec = cluster.spec(generation);
        cluster.finish(&spec);
    }
    assert_eq!(cluster.held("b-1") + cluster.held("a-1"), 8);
    assert!(cluster.held("a-1") >= 7);
}

#[test]
fn quotas_and_bounds_leave_slots_to_others() {
    let mut cluster = Cluster::new(&[]);
    let policy = ProjectPolicy { weight: 1, max_slots: Some(2) };
    cluster
        .apply(Event::ProjectsSet { projects: BTreeMap::from([("lab".parse().unwrap(), policy)]) });
    workers(&mut cluster, 5);
    cluster.submit(with("a", "1", MANY, "project: lab"));
    cluster.submit(with("b", "1", MANY, "project: lab"));
    cluster.submit(with("c", "1", MANY, "resources: {max_slots: 2}"));
    assert_eq!((cluster.held("a-1"), cluster.held("b-1"), cluster.held("c-1")), (2, 0, 2));
    let view = |id: &str| {
        let live = muster_coordinator::live::Live::default();
        let experiment = cluster.experiment(id);
        muster_coordinator::view::project(
            &cluster.engine,
            experiment,
            &live,
            Timestamp(cluster.now),
        )
        .reason
    };
    assert_eq!(view("b-1"), "project lab has 2 of the 2 slots of its quota");
}

#[test]
fn slots_that_are_kept_for_a_gang_are_lent_and_come_back() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.submit(manifest("first", "1", "max_trials: 1"));
    let first = cluster.only();
    cluster.join("w1", "h");
    cluster.submit(manifest("gang", "3", "max_trials: 1"));
    cluster.join("w2", "h");
    assert!(cluster.said("gang-1").contains("kept for it"));
    cluster.submit(manifest("small", "1", MANY));
    let borrowed = cluster.runs_of("small-1");
    assert_eq!(borrowed.len(), 2, "what is kept is not idle");
    assert!(borrowed.iter().all(|generation| cluster.engine.runs()[generation].lent));
    // A fourth slot is kept, and not lent: with it the gang could begin if it got the others back.
    cluster.finish(&first);
    let mut told = cluster.leaving();
    told.sort_unstable();
    assert_eq!(told, borrowed, "{}", cluster.said("small-1"));
    for generation in borrowed {
        cluster.end(generation, 0, RunExit::Preempted);
    }
    assert_eq!(cluster.held("gang-1"), 3);
    assert_eq!(cluster.experiment("small-1").trials[&1].restarts, 0);
}

#[test]
fn an_experiment_ends_at_its_limits_with_its_best() {
    for limits in ["limits: {hours: 1}", "limits: {slot_hours: 2}"] {
        let mut cluster = Cluster::new(&[("w0", "h"), ("w1", "h")]);
        cluster.submit(with("e", "1", MANY, limits));
        let runs = cluster.runs_of("e-1");
        let first = cluster.spec(runs[0]);
        cluster.finish(&first);
        let at = cluster.engine.next_timer().unwrap();
        assert_eq!(at, Timestamp(1_000_000 + 3_600_000), "{limits}");
        cluster.wait(3599);
        assert!(cluster.told().is_empty());
        cluster.wait(1);
        assert_eq!(cluster.told().len(), 2, "{limits}: both trials at work are ended");
        assert!(cluster.said("e-1").contains("the search ends"), "{}", cluster.said("e-1"));
        for generation in cluster.runs_of("e-1") {
            cluster.end(generation, 0, RunExit::Canceled);
        }
        let experiment = cluster.experiment("e-1");
        assert!(matches!(experiment.phase, Phase::Finishing { run: Some(_) }), "{limits}");
        assert_eq!(experiment.best.as_ref().unwrap().trial, 1);
    }
}

#[test]
fn a_limit_before_any_result_is_a_failure_that_says_so() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.submit(with("e", "1", MANY, "limits: {hours: 1}"));
    cluster.wait(3600);
    let end = &cluster.experiment("e-1").phase;
    let Phase::Ended { end: ExperimentEnd::Failed { message } } = end else { panic!("{end:?}") };
    assert_eq!(message, "no trial has a result: limits.hours: 1 h have passed");
}

#[test]
fn a_trial_may_use_only_its_time_over_all_its_runs() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.submit(with("e", "1", "max_trials: 1", "limits: {trial_hours: 1}"));
    let first = cluster.only();
    cluster.now += 1_800_000;
    cluster.commit("e-1/t1", 10, first.generation);
    cluster.end(first.generation, 0, RunExit::Lost { reason: "gone".to_owned() });
    let second = cluster.only();
    cluster.wait(1799);
    assert!(cluster.told().is_empty());
    cluster.wait(1);
    assert_eq!(cluster.told(), [("w0".to_owned(), Directive::Cancel)]);
    cluster.end(second.generation, 0, RunExit::Canceled);
    let state = &cluster.trial("e-1").state;
    let TrialState::Stopped { reason: StopReason::Rule { text } } = state else {
        panic!("{state:?}")
    };
    assert_eq!(text, "limits.trial_hours: 1 h are used");
}

#[test]
fn a_trial_that_is_lost_after_its_time_does_not_begin_again() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.submit(with("e", "1", "max_trials: 1", "limits: {trial_hours: 1}"));
    let first = cluster.only();
    cluster.now += 3_600_000;
    // Nobody has looked at the time before: the loss is the first that is heard.
    cluster.end(first.generation, 0, RunExit::Lost { reason: "gone".to_owned() });
    assert!(cluster.started().is_empty(), "it would go on with no limit until it says something");
    assert!(matches!(cluster.trial("e-1").state, TrialState::Stopped { .. }));
    let said = cluster.said("e-1");
    assert!(said.contains("stopped: limits.trial_hours: 1 h are used"), "{said}");
}

#[test]
fn a_paused_trial_frees_its_slot_and_its_experiment_waits_for_it() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.submit(manifest("e", "1", "max_trials: 2"));
    let first = cluster.only();
    let trial = || "e-1/t1".parse().unwrap();
    cluster.apply(Event::TrialPaused { trial: trial() });
    assert_eq!(cluster.leaving(), [first.generation]);
    cluster.commit("e-1/t1", 20, first.generation);
    cluster.end(first.generation, 0, RunExit::Preempted);
    let second = cluster.only();
    assert!(cluster.why("e-1", 1).contains("`muster resume e-1/t1` lets it go on"));
    cluster.finish(&second);
    assert_eq!(cluster.experiment("e-1").phase, Phase::Searching, "it does not end without it");
    cluster.apply(Event::TrialResumed { trial: trial() });
    let resumed = cluster.only();
    let Task::Train(task) = &resumed.task else { panic!("{resumed:?}") };
    assert_eq!(task.resume_from.as_ref().unwrap().step, 20);
    cluster.apply(Event::TrialCanceled { trial: trial() });
    assert_eq!(cluster.told(), [("w0".to_owned(), Directive::Cancel)]);
    cluster.end(resumed.generation, 0, RunExit::Canceled);
    assert_eq!(cluster.trial("e-1").state, TrialState::Canceled);
    assert!(matches!(cluster.experiment("e-1").phase, Phase::Finishing { .. }));
    cluster.apply(Event::TrialCanceled { trial: trial() });
    let refused = |action: &Action| matches!(action, Action::Rejected { reason } if reason.contains("has ended"));
    assert!(cluster.actions.iter().any(refused));
}
