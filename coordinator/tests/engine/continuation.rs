//! Experiments that begin at a checkpoint of another.

use muster_common::manifest::{Budget, CheckpointChoice, Continuation, Manifest};
use muster_common::run::{RunExit, Task, TrainTask};
use muster_common::storage::CheckpointKey;
use muster_coordinator::engine::Action;

use super::cluster::{Cluster, ONE, lost, manifest};

fn task(cluster: &Cluster) -> TrainTask {
    match cluster.only().task {
        Task::Train(task) => task,
        other => panic!("{other:?}"),
    }
}

fn from(trial: &str, checkpoint: CheckpointChoice, steps: u64) -> Manifest {
    let trial = trial.parse().unwrap();
    let begun = manifest("f", "1", ONE);
    let continue_from = Some(Continuation { trial, checkpoint });
    Manifest { continue_from, budget: Budget::Steps(steps), ..begun }
}

fn deleted(cluster: &Cluster) -> Vec<u64> {
    let step = |action: &Action| match action {
        Action::DeleteCheckpoint { checkpoint, .. } => Some(checkpoint.step),
        _ => None,
    };
    cluster.actions.iter().filter_map(step).collect()
}

#[test]
fn it_begins_there_until_it_has_a_checkpoint_of_its_own() {
    let mut cluster = Cluster::new(&[("w1", "a"), ("w2", "b")]);
    cluster.submit(manifest("e", "1", "max_trials: 2"));
    let started = cluster.started();
    let (first, second) = (started[0].generation, started[1].generation);
    for step in [10, 20] {
        cluster.commit("e-1/t2", step, second);
    }
    cluster.end(first, 0, RunExit::Canceled);
    cluster.submit(from("e-1/t2", CheckpointChoice::Last, 100));
    let begun = task(&cluster);
    let parent = CheckpointKey { trial: "e-1/t2".parse().unwrap(), step: 20, generation: second };
    assert_eq!((begun.resume_from.as_ref(), begun.seed_of), (Some(&parent), Some(2)));

    // Lost before it has saved anything, it begins there again; afterwards it goes on from its own.
    let run = cluster.only().generation;
    cluster.end(run, 0, lost());
    assert_eq!(task(&cluster).resume_from, Some(parent.clone()));
    let run = cluster.only().generation;
    cluster.commit("f-1/t1", 30, run);
    cluster.end(run, 0, lost());
    // A second restart is not at once.
    cluster.wait(600);
    let again = task(&cluster);
    assert_eq!((again.resume_from.unwrap().step, again.seed_of), (30, Some(2)));

    // The other trial goes on, and its old checkpoints go, but not this one.
    for (step, gone) in [(30, vec![10]), (40, vec![]), (50, vec![30])] {
        cluster.commit("e-1/t2", step, second);
        assert_eq!(deleted(&cluster), gone, "step {step}");
    }
}

#[test]
fn what_cannot_begin_is_refused_or_ends_with_the_reason() {
    let mut cluster = Cluster::new(&[("w1", "a")]);
    cluster.submit(manifest("e", "1", ONE));
    let run = cluster.only().generation;
    cluster.commit("e-1/t1", 10, run);
    for (wrong, why) in [
        (from("g-1/t1", CheckpointChoice::Last, 100), "no experiment `g-1` is known"),
        (from("e-1/t2", CheckpointChoice::Last, 100), "no trial `e-1/t2`; there are 1"),
        (
            from("e-1/t1", CheckpointChoice::Best, 100),
            "no checkpoint `best`; it has those of steps 10",
        ),
        (
            from("e-1/t1", CheckpointChoice::Step(7), 100),
            "no checkpoint `7`; it has those of steps 10",
        ),
        (from("e-1/t1", CheckpointChoice::Last, 10), "write more than 10, not 10"),
    ] {
        cluster.submit(wrong);
        let [Action::Rejected { reason }] = cluster.actions.as_slice() else {
            panic!("{why}: {:?}", cluster.actions);
        };
        assert!(reason.starts_with("continue_from: ") && reason.contains(why), "{reason}");
    }

    // Ten epochs' worth of examples are fewer steps than the other trial has done; known with the data.
    cluster.end(run, 0, RunExit::Canceled);
    let short = from("e-1/t1", CheckpointChoice::Last, 100);
    cluster.submit(Manifest { budget: Budget::Examples(32), ..short });
    let said = cluster.said("f-1");
    assert!(said.contains("it begins at step 10, and its first rung is at step"), "{said}");
    let experiment = cluster.engine.experiment(&"f-1".parse().unwrap()).unwrap();
    assert!(experiment.is_ended(), "{said}");
}
