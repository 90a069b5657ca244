//! Counting, without processes.

use muster_common::id::WorkerId;
use muster_common::time::Timestamp;

use super::*;
use crate::engine::{Engine, Event, LossCause};

fn apply(watch: &mut Watch, metrics: &Metrics, engine: &mut Engine, at: u64, event: Event) {
    let before = watch.before(engine, &event);
    let actions = engine.apply(Timestamp(at), event.clone());
    watch.after(metrics, Timestamp(at), engine, before, &event, &actions);
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

#[test]
fn many_experiments_make_a_bounded_number_of_series() {
    let (metrics, mut engine) = (Metrics::default(), Engine::default());
    let mut watch = Watch::new(&engine);
    let mut sizes = Vec::new();
    for number in 0..400 {
        let manifest = Box::new(manifest(&format!("e{number}")));
        let event = Event::ExperimentSubmitted {
            manifest,
            text: String::new(),
            store: "file:///s".to_owned(),
        };
        apply(&mut watch, &metrics, &mut engine, 1, event);
        if number % 100 == 99 {
            let census = Census::of(&engine);
            sizes.push(metrics.text(&census, 0).unwrap().lines().count());
        }
    }
    assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
    let census = Census::of(&engine);
    assert_eq!(census.experiments[&label("phase", "preparing")], 400);
}

#[test]
fn waits_and_losses_are_counted() {
    let (metrics, mut engine) = (Metrics::default(), Engine::default());
    let mut watch = Watch::new(&engine);
    let worker: WorkerId = "w".parse().unwrap();
    let mut at = |at: u64, event| apply(&mut watch, &metrics, &mut engine, at, event);
    let text = String::new();
    let store = "file:///s".to_owned();
    at(1_000, Event::ExperimentSubmitted { manifest: Box::new(manifest("a")), text, store });
    at(3_000, Event::WorkerJoined { worker: worker.clone(), host: "h".to_owned() });
    assert_shows(&metrics, "muster_queue_wait_seconds_sum 2.0");
    assert_shows(&metrics, "muster_slot_idle_seconds_sum 0.0");
    assert_shows(&metrics, "muster_slot_idle_seconds_count 1");
    at(4_000, Event::WorkerLost { worker: worker.clone(), cause: LossCause::LeaseExpired });
    at(9_000, Event::WorkerJoined { worker, host: "h".to_owned() });
    assert_shows(&metrics, "muster_queue_wait_seconds_sum 7.0");
    let cause = label("cause", "lease_expired");
    assert_eq!(metrics.workers_lost.get_or_create_owned(&cause).get(), 1);
    let task = label("task", "prepare");
    assert_eq!(metrics.runs_started.get_or_create_owned(&task).get(), 2);
}
