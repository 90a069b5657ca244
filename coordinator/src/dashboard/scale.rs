//! Ten thousand trials: what the pages ask for stays small and takes a moment.

use std::time::{Duration, Instant};

use muster_common::evaluation::Evaluation;
use muster_common::manifest::Manifest;
use muster_common::run::{DataSummary, RunExit, RunReport, RunSpec, Task};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use serde::Serialize;

use super::query::Query;
use super::{cluster, experiments, plots, trials};
use crate::engine::experiment::Experiment;
use crate::engine::{Action, Engine, Event, RULES};
use crate::live::Live;
use crate::sample;

const NUM_TRIALS: u32 = 10_000;
const NUM_SLOTS: usize = 64;
/// Longest answer of a page, before it is compressed.
const BYTES_MAX: usize = 400_000;
/// What one request may take of the engine's thread.
const TIME_MAX: Duration = Duration::from_millis(300);

/// An engine and what it has asked for.
struct Bench {
    engine: Engine,
    now: u64,
    waiting: Vec<RunSpec>,
}

impl Bench {
    fn apply(&mut self, event: Event) {
        self.now += 10;
        for action in self.engine.apply(Timestamp(self.now), event) {
            if let Action::StartRun { spec, .. } = action {
                self.waiting.push(*spec);
            }
        }
    }

    fn report(&mut self, spec: &RunSpec, sequence: u64, report: RunReport) {
        let generation = spec.generation;
        self.apply(Event::RunReported { generation, rank: 0, sequence, report });
    }

    fn perform(&mut self, spec: &RunSpec) {
        let Task::Train(task) = &spec.task else {
            let labels = vec!["a".to_owned(), "b".to_owned()];
            let data = DataSummary { num_train: 1000, labels, ..DataSummary::default() };
            self.report(spec, 1, RunReport::Prepared(data));
            self.report(spec, 2, RunReport::Ended { exit: RunExit::Completed });
            return;
        };
        let (step, trial) = (task.target_step, task.trial.clone());
        let right = 500 + u64::from(trial.number) * 7919 % 400 + step.min(90);
        let confusion = vec![vec![right, 1000 - right], vec![1000 - right, right]];
        let evaluation = Evaluation { loss: 0.5, confusion, auc: None, masked: None };
        let checkpoint = CheckpointKey { trial, step, generation: spec.generation };
        self.report(spec, 1, RunReport::CheckpointCommitted { checkpoint });
        self.report(spec, 2, RunReport::Evaluated { step, evaluation });
        self.report(spec, 3, RunReport::Ended { exit: RunExit::Completed });
    }
}

/// An experiment of which all trials have begun.
fn large() -> Engine {
    let more = format!(
        "hyperparameters:
  learning_rate: {{min: 1e-5, max: 1e-3, scale: log}}
  dropout: {{min: 0.0, max: 0.3}}
  global_batch_size: {{values: [8, 16, 32]}}
searcher:
  metric: accuracy
  max_trials: {NUM_TRIALS}
  pruner: {{type: asha_stopping, reduction_factor: 4, min_budget: {{steps: 10}}}}
budget: {{steps: 160}}
"
    );
    let text = sample::text("large", &more);
    let mut bench = Bench { engine: Engine::default(), now: 1000, waiting: Vec::new() };
    bench.apply(Event::RulesAdopted { rules: RULES });
    for slot in 0..NUM_SLOTS {
        let worker = format!("w{slot}").parse().unwrap();
        let host = format!("h{}", slot / 8);
        bench.apply(Event::WorkerJoined { worker, host, token_name: None });
    }
    bench.apply(Event::ExperimentSubmitted {
        manifest: Box::new(Manifest::parse(&text).unwrap()),
        text,
        store: "file:///store".to_owned(),
        owner: None,
        base: None,
    });
    while let Some(spec) = bench.waiting.pop() {
        if matches!(spec.task, Task::Finish { .. }) {
            break;
        }
        bench.perform(&spec);
    }
    bench.engine
}

/// Makes an answer several times; its size is what counts everywhere, its time where the build is optimized.
fn small<T: Serialize>(name: &str, make: impl Fn() -> T) {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..5 {
        let begun = Instant::now();
        let answer = make();
        times.push(begun.elapsed());
        bytes = serde_json::to_vec(&answer).unwrap().len();
    }
    times.sort();
    assert!(bytes < BYTES_MAX, "{name}: {bytes} bytes");
    // The quickest: the others may have been kept from the processor.
    assert!(cfg!(debug_assertions) || times[0] < TIME_MAX, "{name}: {times:?}");
    println!("{name}: {bytes} bytes, {:.1} ms", times[2].as_secs_f64() * 1e3);
}

#[test]
fn ten_thousand_trials_are_looked_at_in_a_moment() {
    let (engine, live, now) = (large(), Live::default(), Timestamp(9_000_000));
    let experiment: &Experiment = engine.experiment(&"large-1".parse().unwrap()).unwrap();
    assert_eq!(experiment.trials.len(), NUM_TRIALS as usize);
    let query = |text: &str| Query::of(Some(text));
    small("list", || experiments::list(&engine, &live, &query(""), now).unwrap());
    small("experiment", || experiments::one(&engine, experiment, &live, now));
    for sort in ["rank", "objective&descending=1", "p.learning_rate", "state"] {
        let text = format!("sort={sort}&size=50&page=3&min.dropout=0.1");
        small(sort, || trials::page(&engine, experiment, &live, &query(&text)).unwrap());
    }
    small("results", || plots::results(experiment, &query("limit=300")).unwrap());
    small("points", || plots::points(experiment, &query("limit=500")).unwrap());
    small("rungs", || plots::rungs(experiment, &query("limit=50")).unwrap());
    small("trial", || trials::one(&engine, experiment, 7, &live, now).unwrap());
    small("cluster", || cluster::cluster(&engine, &live, now));
}
