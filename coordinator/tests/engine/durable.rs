//! A coordinator that is killed after any event goes on as if nothing had happened; and what the
//! invariants are for: a state with a broken rule is found.

use muster_common::id::Generation;
use muster_common::manifest::{Category, Domain, ParameterValue};
use muster_common::run::{RunExit, RunReport, Task};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use muster_coordinator::engine::saved::{Restoring, RowKey};
use muster_coordinator::engine::{Action, Admission, Engine, Event};
use muster_coordinator::journal::Journal;
use serde_json::{Value, json};

use super::cluster::{Cluster, manifest, scored};

const SWEEP: &str = "max_trials: 6, sampler: tpe, pruner: {type: asha, reduction_factor: 2, min_budget: {steps: 20}}";

/// A sweep over numbers and words from its submission to its end, with a lost worker on the way.
fn sweep() -> Cluster {
    let mut cluster = Cluster::new(&[("w0", "a"), ("w1", "b")]);
    let mut manifest = manifest("e", "1", SWEEP);
    let words = [Category::Linear, Category::Cosine, Category::Constant];
    let words = Domain::Values(words.map(ParameterValue::Category).to_vec());
    manifest.hyperparameters.insert("schedule".to_owned(), words);
    cluster.submit(manifest);
    let mut num_done = 0;
    while let Some(generation) = cluster.engine.runs().keys().next().copied() {
        let worker = cluster.engine.runs()[&generation].members[0].worker.clone();
        let spec = cluster.engine.spec(generation, &worker).unwrap();
        num_done += 1;
        match &spec.task {
            Task::Train(task) if num_done == 3 => {
                cluster.commit(&task.trial.to_string(), 10, generation);
                cluster.end(generation, 0, RunExit::Lost { reason: "gone".to_owned() });
            }
            Task::Train(_) => cluster.finish(&spec),
            Task::Prepare { .. } | Task::Finish { .. } => {
                cluster.end(generation, 0, RunExit::Canceled);
                break;
            }
        }
        cluster.now += 1000;
    }
    cluster
}

#[test]
fn killed_after_every_event_it_decides_the_same() {
    let cluster = sweep();
    assert!(cluster.events.len() > 30, "{}", cluster.events.len());
    let directory = tempfile::tempdir().unwrap();
    let mut undisturbed = Engine::default();
    for (position, (at, event)) in cluster.events.iter().enumerate() {
        let (mut journal, mut engine) = Journal::open(directory.path()).unwrap();
        assert_eq!((journal.position(), &engine), (position as u64, &undisturbed));
        let wanted = undisturbed.apply(*at, event.clone());
        assert_eq!(engine.apply(*at, event.clone()), wanted, "position {position}");
        journal.append(&[(*at, event.clone())]).unwrap();
        if position % 7 == 0 {
            journal.snapshot(&mut engine).unwrap();
        }
        // A report that was not acknowledged comes again, and counts once.
        if let Event::RunReported { generation, rank, sequence, .. } = event {
            assert_ne!(engine.admit(*generation, *rank, *sequence), Admission::New);
        }
    }
    let (_, engine) = Journal::open(directory.path()).unwrap();
    assert_eq!(engine, cluster.engine);
    assert_eq!(engine.experiments().next().unwrap().trials.len(), 6);
}

#[test]
fn what_was_not_journaled_did_not_happen() {
    let cluster = sweep();
    let directory = tempfile::tempdir().unwrap();
    let (half, rest) = cluster.events.split_at(cluster.events.len() / 2);
    {
        let (mut journal, mut engine) = Journal::open(directory.path()).unwrap();
        journal.append(half).unwrap();
        for (at, event) in &cluster.events {
            engine.apply(*at, event.clone());
        }
        // Killed before the rest was durable.
    }
    let (_, mut engine) = Journal::open(directory.path()).unwrap();
    for (at, event) in rest {
        engine.apply(*at, event.clone());
    }
    assert_eq!(engine, cluster.engine, "delivered again, it is decided the same");
}

/// The engine of a cluster with two runs at work, after something is done to its snapshot.
fn damaged(change: impl Fn(&mut Value, &mut Vec<(RowKey, Value)>)) -> Result<(), String> {
    let mut cluster = Cluster::new(&[("w0", "a"), ("w1", "b")]);
    cluster.submit(manifest("e", "1", SWEEP));
    let first = cluster.engine.runs().keys().next().copied().unwrap();
    let worker = cluster.engine.runs()[&first].members[0].worker.clone();
    let spec = cluster.engine.spec(first, &worker).unwrap();
    cluster.finish(&spec);
    let mut head: Value = serde_json::from_str(&cluster.engine.head().unwrap()).unwrap();
    let rows = cluster.engine.unsaved().unwrap().into_iter();
    let mut rows: Vec<(RowKey, Value)> =
        rows.map(|(key, row)| (key, serde_json::from_str(&row).unwrap())).collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    change(&mut head, &mut rows);
    let mut restoring = Restoring::new(&head.to_string()).unwrap();
    for (key, row) in rows {
        match key {
            RowKey::Experiment(_) => restoring.experiment(&row.to_string()).unwrap(),
            RowKey::Trial(_) => restoring.trial(&row.to_string()).unwrap(),
            RowKey::Decision(..) => restoring.decision(&row.to_string()).unwrap(),
        }
    }
    restoring.finish().check_invariants()
}

#[test]
fn broken_rules_are_found() {
    assert_eq!(damaged(|_, _| {}), Ok(()), "an undamaged state keeps them");
    let of_trial = |rows: &mut Vec<(RowKey, Value)>, change: &dyn Fn(&mut Value)| {
        let trials = rows.iter_mut().filter(|(key, _)| matches!(key, RowKey::Trial(_)));
        trials.for_each(|(_, row)| change(row));
    };
    let found = [
        (
            "a slot twice",
            damaged(|head, _| head["workers"]["w0"]["run"] = head["workers"]["w1"]["run"].clone()),
        ),
        ("a slot nobody gave", damaged(|head, _| head["workers"]["w0"]["run"] = json!(99))),
        ("a run whose slot is free", damaged(|head, _| head["workers"]["w0"]["run"] = Value::Null)),
        ("a run that vanished", damaged(|head, _| head["runs"] = json!({}))),
        ("a generation from the future", damaged(|head, _| head["last_generation"] = json!(1))),
        (
            "a result nobody counted",
            damaged(|_, rows| of_trial(rows, &|trial| trial["rungs_passed"] = json!(3))),
        ),
        (
            "the best checkpoint deleted",
            damaged(|_, rows| of_trial(rows, &|trial| trial["checkpoints"] = json!([]))),
        ),
        (
            "an end before its trials'",
            damaged(|_, rows| rows[0].1["phase"] = json!({"ended": {"end": "completed"}})),
        ),
        (
            "more trials than asked for",
            damaged(|_, rows| rows[0].1["manifest"]["searcher"]["max_trials"] = json!(1)),
        ),
        (
            "more slots than allowed",
            damaged(|_, rows| rows[0].1["manifest"]["resources"]["max_slots"] = json!(1)),
        ),
    ];
    for (what, found) in found {
        assert!(found.is_err(), "{what} is not found");
        println!("{what}: {}", found.unwrap_err());
    }
}

#[test]
fn time_does_not_run_backwards() {
    let mut cluster = Cluster::new(&[("w0", "a")]);
    cluster.submit(manifest("e", "1", "max_trials: 1"));
    let before = cluster.engine.clone();
    cluster.engine.apply(Timestamp(5), Event::TimerFired);
    assert_eq!(before, cluster.engine, "a clock that is set back changes nothing");
}

/// Trains everything there is to train; a trial's share of right answers depends on its number, and on `from`.
fn play(cluster: &mut Cluster, from: u64) {
    while let Some(spec) = cluster.current() {
        let generation = spec.generation;
        match &spec.task {
            Task::Train(task) => {
                let step = task.target_step;
                cluster.commit(&task.trial.to_string(), step, generation);
                let right = from + u64::from(task.trial.number) * 7 % 10 * 10;
                let evaluation = scored(right);
                cluster.report(generation, 0, RunReport::Evaluated { step, evaluation });
            }
            Task::Prepare { .. } | Task::Finish { .. } => {
                let model = "m".to_owned();
                cluster.report(generation, 0, RunReport::Finished { test: None, model });
            }
        }
        cluster.end(generation, 0, RunExit::Completed);
    }
}

#[test]
fn what_earlier_experiments_taught_is_the_same_after_a_snapshot() {
    for sampler in ["tpe", "cmaes"] {
        let mut cluster = Cluster::new(&[("w0", "a")]);
        cluster.submit(manifest("old", "1", "max_trials: 9"));
        play(&mut cluster, 500);
        let searcher = format!("max_trials: 9, sampler: {sampler}, warm_start: [old-1]");
        cluster.submit(manifest("new", "1", &searcher));
        let num_before = cluster.events.len();
        // Worse than all before: what is known of those must go on counting.
        play(&mut cluster, 100);
        let (before, after) = cluster.events.split_at(num_before);
        let directory = tempfile::tempdir().unwrap();
        let mut undisturbed = Engine::default();
        {
            let (mut journal, mut engine) = Journal::open(directory.path()).unwrap();
            for (at, event) in before {
                undisturbed.apply(*at, event.clone());
                engine.apply(*at, event.clone());
            }
            journal.append(before).unwrap();
            journal.snapshot(&mut engine).unwrap();
        }
        let (_, mut restored) = Journal::open(directory.path()).unwrap();
        for (at, event) in after {
            let wanted = undisturbed.apply(*at, event.clone());
            assert_eq!(restored.apply(*at, event.clone()), wanted, "{sampler} at {event:?}");
        }
        assert_eq!(restored.experiments().last().unwrap().trials.len(), 9);
    }
}

#[test]
fn deleted_checkpoints_are_forgotten_one_by_one_and_together() {
    let mut cluster = Cluster::new(&[("w0", "a")]);
    cluster.submit(manifest("e", "1", "max_trials: 1"));
    let run = cluster.only().generation;
    for step in [10, 20, 30, 40, 50] {
        cluster.commit("e-1/t1", step, run);
    }
    let deleted = |engine: &Engine| -> Vec<CheckpointKey> {
        let wanted = engine.outstanding().into_iter().filter_map(|action| match action {
            Action::DeleteCheckpoint { checkpoint, .. } => Some(checkpoint),
            _ => None,
        });
        wanted.collect()
    };
    let mut going = deleted(&cluster.engine);
    assert_eq!(going.iter().map(|key| key.step).collect::<Vec<_>>(), [10, 20, 30]);
    // As builds wrote it that knew of nothing else.
    let first = json!({"checkpoint_deleted": {"checkpoint": going.remove(0)}});
    cluster.apply(serde_json::from_value(first).unwrap());
    assert_eq!(deleted(&cluster.engine), going);
    // Of one that was there before nothing changes, nor of an experiment that is unknown.
    let trial = "x-1/t1".parse().unwrap();
    let unknown = CheckpointKey { trial, step: 1, generation: run };
    let twice = going.iter().chain(&going).cloned().chain([unknown]).collect();
    cluster.apply(Event::CheckpointsDeleted { checkpoints: twice });
    assert_eq!(deleted(&cluster.engine), []);
    assert_eq!(cluster.trial("e-1").checkpoints.len(), 2);
}

#[test]
fn a_run_speaks_of_checkpoints_of_its_own_only() {
    let mut cluster = Cluster::new(&[("w0", "a"), ("w1", "b")]);
    cluster.submit(manifest("e", "1", "max_trials: 2"));
    let runs: Vec<Generation> = cluster.engine.runs().keys().copied().collect();
    cluster.commit("e-1/t1", 10, runs[0]);
    for (trial, generation) in [("e-1/t1", runs[1]), ("e-1/t2", runs[0]), ("x-1/t1", runs[1])] {
        let checkpoint = CheckpointKey { trial: trial.parse().unwrap(), step: 20, generation };
        cluster.report(runs[1], 0, RunReport::CheckpointCommitted { checkpoint });
        assert!(
            matches!(cluster.actions[0], Action::Rejected { .. }),
            "{trial}: {:?}",
            cluster.actions
        );
    }
    let experiment = cluster.engine.experiments().next().unwrap();
    assert!(experiment.trials[&2].checkpoints.is_empty());
}
