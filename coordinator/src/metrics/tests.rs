//! Counting, without processes.

use muster_common::id::WorkerId;
use muster_common::run::{DataSummary, RunExit, RunReport, Task};
use muster_common::time::Timestamp;

use super::*;
use crate::engine::{Action, Engine, Event, LossCause};

fn apply(watch: &mut Watch, metrics: &Metrics, engine: &mut Engine, at: u64, event: &Event) {
    let before = watch.before(engine, event);
    let actions = engine.apply(Timestamp(at), event.clone());
    watch.after(metrics, Timestamp(at), engine, before, &actions);
}

fn manifest(name: &str) -> muster_common::manifest::Manifest {
    let text = format!(
        "version: 1\nname: {name}\nmodel: {{pretrained: /m}}\ndata:\n  train: {{path: /d.csv}}\n  \
         validation: {{fraction: 0.1}}\n  text: text\n  label: {{column: label}}\n\
         budget: {{epochs: 1}}\n"
    );
    muster_common::manifest::Manifest::parse(&text).unwrap()
}

fn assert_shows(metrics: &Metrics, line: &str) {
    let text = metrics.text(&Census::default(), 0).unwrap();
    assert!(text.lines().any(|shown| shown == line), "no `{line}`:\n{text}");
}

/// Brings `num` experiments to their first trial, each on a worker of its own.
fn searching(num: u64) -> (Metrics, Engine) {
    let (metrics, mut engine) = (Metrics::default(), Engine::default());
    let mut watch = Watch::new(&engine);
    let mut waiting = Vec::new();
    for number in 0..num {
        let text = String::new();
        let manifest = Box::new(manifest(&format!("e{number}")));
        let store = "file:///s".to_owned();
        waiting.push(Event::ExperimentSubmitted { manifest, text, store, owner: None, base: None });
        let worker = format!("w{number}").parse().unwrap();
        waiting.push(Event::WorkerJoined { worker, host: "h".to_owned(), token_name: None });
    }
    while let Some(event) = waiting.pop() {
        let before = watch.before(&engine, &event);
        let actions = engine.apply(Timestamp(1), event);
        watch.after(&metrics, Timestamp(1), &engine, before, &actions);
        for action in actions {
            let Action::StartRun { spec, .. } = action else { continue };
            if !matches!(spec.task, Task::Prepare { .. }) {
                continue;
            }
            let data = DataSummary { num_train: 100, num_validation: 10, ..DataSummary::default() };
            let reports =
                [RunReport::Ended { exit: RunExit::Completed }, RunReport::Prepared(data)];
            for (sequence, report) in [2, 1].into_iter().zip(reports) {
                let generation = spec.generation;
                waiting.push(Event::RunReported { generation, rank: 0, sequence, report });
            }
        }
    }
    (metrics, engine)
}

#[test]
fn many_experiments_make_a_bounded_number_of_series() {
    let num_series = |num: u64| {
        let (metrics, engine) = searching(num);
        let text = metrics.text(&Census::of(&engine), 0).unwrap();
        let trials: Vec<&str> =
            text.lines().filter(|line| line.starts_with("muster_trials{")).collect();
        let sum: u64 = trials
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(sum, num, "{trials:?}");
        (trials.len(), text.lines().count())
    };
    let (few, many, more) = (num_series(10), num_series(120), num_series(240));
    assert_eq!((few.0, many.0), (10, 51));
    assert_eq!(many, more);
}

#[test]
fn waits_and_losses_are_counted() {
    let (metrics, mut engine) = (Metrics::default(), Engine::default());
    let mut watch = Watch::new(&engine);
    let worker: WorkerId = "w".parse().unwrap();
    let mut at = |at: u64, event: Event| apply(&mut watch, &metrics, &mut engine, at, &event);
    let text = String::new();
    let store = "file:///s".to_owned();
    at(
        1_000,
        Event::ExperimentSubmitted {
            manifest: Box::new(manifest("a")),
            text,
            store,
            owner: None,
            base: None,
        },
    );
    at(
        3_000,
        Event::WorkerJoined { worker: worker.clone(), host: "h".to_owned(), token_name: None },
    );
    assert_shows(&metrics, "muster_queue_wait_seconds_sum 2.0");
    assert_shows(&metrics, "muster_slot_idle_seconds_sum 0.0");
    assert_shows(&metrics, "muster_slot_idle_seconds_count 1");
    at(4_000, Event::WorkerLost { worker: worker.clone(), cause: LossCause::LeaseExpired });
    at(9_000, Event::WorkerJoined { worker, host: "h".to_owned(), token_name: None });
    assert_shows(&metrics, "muster_queue_wait_seconds_sum 7.0");
    let cause = [("cause", "lease_expired")];
    assert_eq!(metrics.workers_lost.get_or_create_owned(&cause).get(), 1);
    let task = [("task", "prepare")];
    assert_eq!(metrics.runs_started.get_or_create_owned(&task).get(), 2);
}
