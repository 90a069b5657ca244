//! Whatever state a trial is in, it can be asked why.

use muster_common::manifest::Limits;
use muster_common::run::{FailureClass, RunExit, RunReport, RunSpec, Task};
use muster_common::time::Timestamp;
use muster_coordinator::engine::Event;
use muster_coordinator::view::why;

use super::cluster::{Cluster, FOUR, ONE, failed, lost, manifest, scored};

const ASHA: &str =
    "max_trials: 3, pruner: {type: asha, reduction_factor: 2, min_budget: {steps: 20}}";

/// The answer about a trial of the first experiment.
fn ask(cluster: &Cluster, number: u32) -> Vec<String> {
    let experiment = cluster.engine.experiments().next().unwrap();
    why(&cluster.engine, experiment, number, Timestamp(cluster.now)).unwrap()
}

/// A search on one worker, and the run of its first trial.
fn begun(searcher: &str) -> (Cluster, RunSpec) {
    let mut cluster = Cluster::new(&[("w1", "a")]);
    cluster.submit(manifest("e", "1", searcher));
    let spec = cluster.only();
    (cluster, spec)
}

/// A run trains to its rung, with a share of so many thousandths right.
fn score(cluster: &mut Cluster, spec: &RunSpec, right: u64) {
    let Task::Train(task) = &spec.task else { panic!("{spec:?}") };
    let step = task.target_step;
    cluster.commit(&task.trial.to_string(), step, spec.generation);
    let evaluation = scored(right);
    cluster.report(spec.generation, 0, RunReport::Evaluated { step, evaluation });
    cluster.end(spec.generation, 0, RunExit::Completed);
}

/// Trains as long as there is anything to train; the first trial is good and the others are not.
fn train_all(cluster: &mut Cluster) {
    while let Some(spec) = cluster.current().filter(|spec| matches!(spec.task, Task::Train(_))) {
        let is_first = spec.task.trial().is_some_and(|trial| trial.number == 1);
        score(cluster, &spec, if is_first { 900 } else { 100 });
    }
}

fn pause(cluster: &mut Cluster, trial: &str) {
    cluster.apply(Event::TrialPaused { trial: trial.parse().unwrap() });
}

fn pause_all(cluster: &mut Cluster) {
    cluster.apply(Event::ExperimentPaused { experiment: "e-1".parse().unwrap() });
}

fn drain(cluster: &mut Cluster) {
    let reason = "its time is over".to_owned();
    cluster.apply(Event::WorkerDraining { worker: "w1".parse().unwrap(), reason });
}

/// A state, and two things that are said of it: how the first line begins, and what a line ends with.
struct Case {
    cluster: Cluster,
    number: u32,
    first: &'static str,
    line: &'static str,
}

fn case((cluster, number): (Cluster, u32), first: &'static str, line: &'static str) -> Case {
    Case { cluster, number, first, line }
}

/// What a run of the first trial, alone on its worker, comes to.
fn first(searcher: &str, what: impl Fn(&mut Cluster, &RunSpec)) -> (Cluster, u32) {
    let (mut cluster, spec) = begun(searcher);
    what(&mut cluster, &spec);
    (cluster, 1)
}

/// The same of a gang of two, which has met.
fn gang(slots: &str, what: impl Fn(&mut Cluster, &RunSpec)) -> (Cluster, u32) {
    let mut cluster = Cluster::new(&FOUR[..2]);
    cluster.submit(manifest("e", slots, ONE));
    let spec = cluster.only();
    cluster.open(spec.generation);
    what(&mut cluster, &spec);
    (cluster, 1)
}

fn check(cases: Vec<Case>) {
    for Case { cluster, number, first, line } in cases {
        let lines = ask(&cluster, number);
        assert!(lines[0].starts_with(first), "wanted `{first}`: {lines:#?}");
        assert!(lines.iter().any(|said| said.ends_with(line)), "wanted `{line}`: {lines:#?}");
    }
}

#[test]
fn those_that_want_a_slot_say_what_they_lack() {
    let preempted = |cluster: &mut Cluster, spec: &RunSpec| {
        cluster.end(spec.generation, 0, RunExit::Preempted);
    };
    let nowhere = first(ONE, |cluster, spec| {
        drain(cluster);
        preempted(cluster, spec);
    });
    let backing_off = first(ONE, |cluster, spec| {
        cluster.end(spec.generation, 0, failed(FailureClass::Other));
        let again = cluster.only();
        cluster.end(again.generation, 0, failed(FailureClass::Other));
    });
    let held = first(ONE, |cluster, spec| {
        pause(cluster, "e-1/t1");
        preempted(cluster, spec);
    });
    let paused = first(ONE, |cluster, spec| {
        pause_all(cluster);
        preempted(cluster, spec);
    });
    let both = first(ONE, |cluster, spec| {
        pause(cluster, "e-1/t1");
        preempted(cluster, spec);
        pause_all(cluster);
    });
    let too_many = first("max_trials: 3, max_concurrent: 1", |cluster, spec| {
        pause(cluster, "e-1/t1");
        preempted(cluster, spec);
        cluster.apply(Event::TrialResumed { trial: "e-1/t1".parse().unwrap() });
    });
    check(vec![
        case(
            nowhere,
            "pending, to train to step 100, rung 1 (100 steps): waiting for a slot: there are 0",
            "run 2 leaves its slots: its time is over",
        ),
        case(
            backing_off,
            "pending, to train to step 100, rung 1 (100 steps): its last run failed, it is tried again in 1 s",
            "run 3 failed: its last words; restart 2 of 2 in 1 s",
        ),
        case(
            held,
            "pending, to train to step 100, rung 1 (100 steps): paused by a user; `muster resume e-1/t1`",
            "paused by a user",
        ),
        case(
            paused,
            "pending, to train to step 100, rung 1 (100 steps): the experiment is paused; `muster resume e-1`",
            "lets it go on",
        ),
        case(
            both,
            "pending, to train to step 100, rung 1 (100 steps): paused by a user",
            "the experiment is paused; `muster resume e-1` lets it go on",
        ),
        case(
            too_many,
            "pending, to train to step 100, rung 1 (100 steps): as many trials run as \
             searcher.max_concurrent allows, 1",
            "resumed by a user",
        ),
    ]);
}

#[test]
fn those_at_work_say_why_they_leave() {
    let held = first(ONE, |cluster, _| pause(cluster, "e-1/t1"));
    let taken_back = first(ONE, |cluster, _| {
        pause(cluster, "e-1/t1");
        cluster.apply(Event::TrialResumed { trial: "e-1/t1".parse().unwrap() });
    });
    let paused = first(ONE, |cluster, _| pause_all(cluster));
    let drained = first(ONE, |cluster, _| drain(cluster));
    let outranked = first(ONE, |cluster, _| {
        let mut urgent = manifest("urgent", "1", ONE);
        urgent.resources.priority = 5;
        cluster.submit(urgent);
    });
    let grows = gang("{min: 2, max: 3}", |cluster, spec| {
        cluster.join("w9", "a");
        cluster.commit("e-1/t1", 10, spec.generation);
    });
    let broken = gang("2", |cluster, spec| cluster.end(spec.generation, 1, lost()));
    let at_work = "running: run 2 on a trains to step 100, rung 1 (100 steps)";
    let together = "running: run 2 on a, a trains to step 100, rung 1 (100 steps)";
    check(vec![
        case(first(ONE, |_, _| {}), at_work, "rung 1 (100 steps)"),
        case(
            held,
            at_work,
            "it saves itself and leaves: paused by a user; `muster resume e-1/t1` lets it go on",
        ),
        case(taken_back, at_work, "it saves itself and leaves: it goes on at once"),
        case(
            paused,
            at_work,
            "it saves itself and leaves: the experiment is paused; `muster resume e-1` lets it go on",
        ),
        case(
            drained,
            at_work,
            "it saves itself and leaves: run 2 leaves its slots: its time is over",
        ),
        case(
            outranked,
            at_work,
            "it saves itself and leaves: run 2 leaves its slots to urgent-1: priority 5 is above 0",
        ),
        case(
            grows,
            together,
            "it saves itself and leaves: run 2 on 2 slots ends to grow: 1 more free",
        ),
        case(broken, together, "it ends, because one of its ranks has"),
    ]);
}

#[test]
fn those_that_wait_at_a_rung_say_for_what() {
    let waits = |what: &dyn Fn(&mut Cluster)| {
        first(ASHA, |cluster, spec| {
            score(cluster, spec, 900);
            what(cluster);
        })
    };
    let held = waits(&|cluster| pause(cluster, "e-1/t1"));
    let paused = waits(&pause_all);
    let promotable = waits(&|cluster| {
        let second = cluster.only();
        drain(cluster);
        score(cluster, &second, 100);
    });
    check(vec![
        case(
            waits(&|_| {}),
            "paused: one in 2 goes on, so the best 0 of 1 so far; 1 trial is still to begin",
            "accuracy 0.9000 is place 1 of 1 at rung 1 (20 steps)",
        ),
        case(held, "paused by a user; `muster resume e-1/t1` lets it go on", "paused by a user"),
        case(
            paused,
            "paused: one in 2 goes on, so the best 0 of 1 so far; 1 trial is still to begin; the \
             experiment is paused",
            "`muster resume e-1` lets it go on",
        ),
        case(
            promotable,
            "paused: one in 2 goes on, so the best 1 of 2 so far; 1 trial is still to begin; it is \
             one of them, waiting for a slot: there are 0",
            "behind it t2 with 0.1000",
        ),
    ]);
}

/// What a run of the first trial comes to that ends so.
fn ends(exit: &RunExit) -> (Cluster, u32) {
    first(ONE, |cluster, spec| cluster.end(spec.generation, 0, exit.clone()))
}

#[test]
fn those_that_were_stopped_say_by_what() {
    let early = first(ONE, |cluster, spec| {
        cluster.commit("e-1/t1", 60, spec.generation);
        let report = RunReport::EarlyStopped { step: 60, best_step: 40, evaluation: scored(900) };
        cluster.report(spec.generation, 0, report);
        cluster.end(spec.generation, 0, RunExit::Completed);
    });
    let second = |searcher: &str| (first(searcher, |cluster, _| train_all(cluster)).0, 2);
    let stopping = ASHA.replace("asha", "asha_stopping");
    let mut targets = Cluster::new(&FOUR[..2]);
    targets.submit(manifest("e", "1", "max_trials: 2, target: 0.8"));
    let good = targets.current().unwrap();
    score(&mut targets, &good, 900);
    let mut limited = Cluster::new(&[("w1", "a")]);
    let mut short = manifest("e", "1", ONE);
    short.limits = Limits { hours: Some(1.0), ..Limits::default() };
    limited.submit(short);
    limited.wait(3600);
    check(vec![
        case(
            second(ASHA),
            "stopped: place 2 of 3 at its rung",
            "the best 1 go on, and no more results come",
        ),
        case(
            second(&stopping),
            "stopped: accuracy 0.1000 is place 2 of 2 so far, the best 1 go on",
            "the best 1 go on (down to 0.9000)",
        ),
        case(
            early,
            "stopped: no improvement after step 40",
            "no improvement until step 60; accuracy 0.9000 after 40 steps",
        ),
        case(
            (targets, 2),
            "stopped: t1 reached the target",
            "t1 reached the target, accuracy 0.9000",
        ),
        case(
            ends(&RunExit::Diverged { step: 7 }),
            "stopped: diverged at step 7",
            "s: stopped: diverged at step 7",
        ),
        case(
            (limited, 1),
            "stopped: limits.hours: 1 h have passed",
            "after 3600.0 s: stopped: limits.hours: 1 h have passed",
        ),
    ]);
}

#[test]
fn those_that_ended_otherwise_say_who_ended_them() {
    let canceled = first(ONE, |cluster, _| {
        cluster.apply(Event::TrialCanceled { trial: "e-1/t1".parse().unwrap() });
    });
    let with_all = first(ONE, |cluster, _| {
        cluster.apply(Event::ExperimentCanceled { experiment: "e-1".parse().unwrap() });
    });
    check(vec![
        case(
            first(ONE, |cluster, spec| score(cluster, spec, 900)),
            "completed: it has used its whole budget",
            "accuracy 0.9000 after 100 steps, rung 1 of 1",
        ),
        case(canceled, "canceled by a user", "s: canceled by a user"),
        case(
            with_all,
            "canceled: a user ended the experiment",
            "s: canceled: a user ended the experiment",
        ),
        case(ends(&RunExit::Canceled), "canceled: run 2 gave up", "s: canceled: run 2 gave up"),
        case(
            ends(&failed(FailureClass::BadData)),
            "failed: its last words",
            "its last words; given up",
        ),
    ]);
}

/// What an earlier build decided is decided the same again, and what it left out is told from what came of it.
#[test]
fn decisions_of_earlier_rules_stay_as_they_were() {
    let (mut cluster, _) = begun(ONE);
    cluster.apply(Event::RulesAdopted { rules: 4 });
    cluster.apply(Event::ExperimentCanceled { experiment: "e-1".parse().unwrap() });
    assert_eq!(ask(&cluster, 1)[0], "canceled: a user ended the experiment");
    assert_eq!(ask(&cluster, 1).len(), 2, "and what it has");
}
