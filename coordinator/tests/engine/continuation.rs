//! Experiments that begin at a checkpoint of another.

use muster_common::id::Generation;
use muster_common::manifest::{Budget, CheckpointChoice, Continuation, Manifest};
use muster_common::run::{RunExit, RunReport, Task, TrainTask};
use muster_common::storage::CheckpointKey;
use muster_coordinator::engine::experiment::Experiment;
use muster_coordinator::engine::trial::TrialState;
use muster_coordinator::engine::{Action, RULES};

use super::cluster::{Cluster, ONE, lost, manifest, scored};
use crate::sample;

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

/// Two members of a population under a budget of epochs: one takes 125 steps for an epoch, the other 63.
fn of_two_batch_sizes(seed: u64) -> Manifest {
    let more = format!(
        "seed: {seed}
hyperparameters:
  learning_rate: {{min: 1e-5, max: 1e-3}}
  global_batch_size: {{values: [8, 16]}}
searcher: {{metric: accuracy, max_trials: 2, pruner: {{type: population, every: {{epochs: 1}}}}}}
budget: {{epochs: 2}}
checkpoint: {{every_steps: 5, keep_last: 9}}
"
    );
    sample::manifest("p", &more)
}

fn members(cluster: &Cluster) -> &Experiment {
    cluster.engine.experiment(&"p-1".parse().unwrap()).unwrap()
}

/// The run of a member, and the step that it trains to.
fn run_of(cluster: &Cluster, number: u32) -> (Generation, u64) {
    let trial = &members(cluster).trials[&number];
    let TrialState::Running { generation } = trial.state else { panic!("{:?}", trial.state) };
    (generation, members(cluster).target_step(trial).unwrap())
}

/// A member's run comes to its rung.
fn pass(cluster: &mut Cluster, number: u32, right: u64) {
    let (generation, step) = run_of(cluster, number);
    cluster.commit(&format!("p-1/t{number}"), step, generation);
    cluster.report(generation, 0, RunReport::Evaluated { step, evaluation: scored(right) });
    cluster.end(generation, 0, RunExit::Completed);
}

/// Two members at work, and the numbers of the one with the smaller batches and of the other.
fn of_two_sizes(rules: u32) -> (Cluster, u32, u32) {
    for seed in 1..50 {
        let mut cluster = Cluster::under(rules, &[("w1", "a"), ("w2", "a")]);
        cluster.submit(of_two_batch_sizes(seed));
        let batch = |number: u32| {
            members(&cluster).trials[&number].assignment["global_batch_size"].as_f64()
        };
        let (small, large) = if batch(1) < batch(2) { (1, 2) } else { (2, 1) };
        if batch(small) < batch(large) {
            return (cluster, small, large);
        }
    }
    panic!("all members have the same batch size")
}

/// Number of the trial whose random choices a new experiment begins with, on a worker of its own.
fn seed_at(cluster: &mut Cluster, worker: &str, trial: &str, step: u64) -> u32 {
    cluster.join(worker, "a");
    cluster.submit(from(trial, CheckpointChoice::Step(step), 1000));
    let begun = task(cluster);
    assert_eq!(begun.resume_from.unwrap().step, step);
    begun.seed_of.unwrap_or(begun.trial.number)
}

/// Older rules looked at the steps: a trial's own checkpoint may be behind the one that it went on from later.
const RULES_AND_WHETHER_RIGHT: [(u32, bool); 2] = [(4, false), (RULES, true)];

#[test]
fn the_random_choices_of_a_checkpoint_are_those_of_the_trial_that_led_to_it() {
    for (rules, is_right) in RULES_AND_WHETHER_RIGHT {
        let (mut cluster, small, large) = of_two_sizes(rules);
        pass(&mut cluster, large, 900);
        pass(&mut cluster, small, 500);
        let trial = &members(&cluster).trials[&small];
        let steps = (trial.results[0].step, trial.lineage[0].parent.step);
        assert_eq!((trial.lineage.len(), steps), (1, (125, 63)), "it went on from fewer steps");
        let (generation, _) = run_of(&cluster, small);
        let name = format!("p-1/t{small}");
        cluster.commit(&name, 70, generation);
        let own = if is_right { small } else { large };
        assert_eq!(seed_at(&mut cluster, "w3", &name, 125), own, "rules {rules}");
        assert_eq!(seed_at(&mut cluster, "w4", &name, 70), large, "rules {rules}");
    }
}

#[test]
fn what_a_run_saved_before_it_diverged_is_its_own() {
    for (rules, is_right) in RULES_AND_WHETHER_RIGHT {
        let (mut cluster, small, large) = of_two_sizes(rules);
        pass(&mut cluster, large, 500);
        pass(&mut cluster, small, 900);
        let (generation, _) = run_of(&cluster, small);
        let name = format!("p-1/t{small}");
        cluster.commit(&name, 130, generation);
        cluster.end(generation, 0, RunExit::Diverged { step: 140 });
        let trial = &members(&cluster).trials[&small];
        assert_eq!((trial.lineage.len(), trial.lineage[0].parent.step), (1, 63));
        let own = if is_right { small } else { large };
        assert_eq!(seed_at(&mut cluster, "w3", &name, 130), own, "rules {rules}");
    }
}
