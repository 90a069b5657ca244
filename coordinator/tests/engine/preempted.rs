//! Runs that are preempted by somebody else than the engine, again and again.

use muster_common::run::{DataSummary, Directive, FailureClass, RunExit, RunReport, Task};
use muster_coordinator::engine::experiment::Phase;
use muster_coordinator::engine::trial::TrialState;
use muster_coordinator::engine::{Engine, Event};

use super::cluster::{Cluster, FOUR, ONE, failed, lost, manifest};

/// Seconds until the next run, which the engine wants to be woken for; then it begins.
fn wait(cluster: &mut Cluster) -> u64 {
    if cluster.engine.runs().is_empty() {
        let seconds = (cluster.engine.next_timer().unwrap().0 - cluster.now) / 1000;
        assert!(seconds > 0);
        cluster.wait(seconds - 1);
        assert!(cluster.engine.runs().is_empty(), "not a second earlier");
        cluster.wait(1);
        assert_eq!(cluster.started().len(), 1);
        return seconds;
    }
    0
}

/// The only run is preempted; seconds until the next one begins.
fn preempt(cluster: &mut Cluster, exit: &RunExit) -> u64 {
    let spec = cluster.current().unwrap();
    cluster.end(spec.generation, 0, exit.clone());
    wait(cluster)
}

#[test]
fn a_trial_that_is_preempted_in_vain_waits_longer_and_longer_and_never_fails() {
    for exit in [RunExit::Preempted, failed(FailureClass::Preempted)] {
        let mut cluster = Cluster::new(&[("w0", "h")]);
        cluster.submit(manifest("e", "1", ONE));
        let waits: Vec<u64> = (0..10).map(|_| preempt(&mut cluster, &exit)).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60], "{exit}");
        let trial = cluster.trial("e-1");
        assert_eq!((trial.restarts, trial.attempts), (0, 11));
        let said = cluster.said("e-1");
        assert!(said.contains("it goes on in 60 s, which costs no restart"), "{said}");

        // Whoever has saved something was not preempted in vain.
        let generation = cluster.current().unwrap().generation;
        cluster.commit("e-1/t1", 10, generation);
        assert_eq!([0, 1].map(|_| preempt(&mut cluster, &exit)), [0, 1]);
        let Task::Train(task) = cluster.current().unwrap().task else { panic!("it trains") };
        assert_eq!(task.resume_from.unwrap().step, 10);

        let mut replayed = Engine::default();
        for (at, event) in &cluster.events {
            replayed.apply(*at, event.clone());
        }
        assert_eq!(replayed, cluster.engine, "it waits for the same after a restart");
    }
}

#[test]
fn a_trial_that_the_engine_told_to_leave_goes_on_at_once() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.submit(manifest("e", "1", ONE));
    for _ in 0..4 {
        let generation = cluster.current().unwrap().generation;
        let experiment = || "e-1".parse().unwrap();
        cluster.apply(Event::ExperimentPaused { experiment: experiment() });
        cluster.end(generation, 0, RunExit::Preempted);
        cluster.apply(Event::ExperimentResumed { experiment: experiment() });
        assert_eq!(cluster.started().len(), 1);
    }
    assert_eq!(cluster.trial("e-1").preempted_in_vain, 0);
}

#[test]
fn a_gang_that_the_engine_told_to_leave_before_it_met_goes_on_at_once() {
    for exit in [RunExit::Canceled, lost()] {
        let mut cluster = Cluster::new(&FOUR[..2]);
        cluster.submit(manifest("g", "2", ONE));
        for _ in 0..4 {
            let generation = cluster.only().generation;
            let experiment = || "g-1".parse().unwrap();
            cluster.apply(Event::ExperimentPaused { experiment: experiment() });
            cluster.end(generation, 0, exit.clone());
            cluster.apply(Event::ExperimentResumed { experiment: experiment() });
        }
        let trial = cluster.trial("g-1");
        assert_eq!((trial.preempted_in_vain, trial.restarts), (0, 0), "{exit}");
        assert!(matches!(trial.state, TrialState::Running { .. }), "{exit}");
    }
}

#[test]
fn a_gang_of_which_one_rank_was_preempted_has_not_failed() {
    // Its worker was told to go and could not say so; the other misses it, or is told to give up and is too slow.
    for exit in [failed(FailureClass::Lost), lost(), RunExit::Canceled] {
        let mut cluster = Cluster::new(&FOUR[..2]);
        cluster.submit(manifest("g", "2", ONE));
        let generation = cluster.only().generation;
        cluster.open(generation);
        cluster.end(generation, 1, RunExit::Preempted);
        assert_eq!(cluster.told(), [("w1".to_owned(), Directive::Cancel)]);
        cluster.end(generation, 0, exit.clone());
        let trial = cluster.trial("g-1");
        assert_eq!((trial.restarts, trial.preempted_in_vain), (0, 1), "{exit}");
        assert!(matches!(trial.state, TrialState::Running { .. }), "{exit}");
        assert!(cluster.engine.hosts().is_empty(), "{exit}");
    }
}

#[test]
fn the_preparation_waits_as_trials_do() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    let submitted = Event::ExperimentSubmitted {
        manifest: Box::new(manifest("e", "1", ONE)),
        text: String::new(),
        store: "file:///store".to_owned(),
        owner: None,
        base: None,
    };
    cluster.apply(submitted);
    let waits = [0; 5].map(|_| preempt(&mut cluster, &failed(FailureClass::Preempted)));
    assert_eq!(waits, [0, 1, 2, 4, 8]);
    let said = cluster.said("e-1");
    let words = "preparing the data was preempted, 5 times in a row and in vain; it goes on in 8 s";
    assert!(said.contains(words), "{said}");
    let prepare = cluster.current().unwrap();
    cluster.report(prepare.generation, 0, RunReport::Prepared(DataSummary::default()));
    cluster.end(prepare.generation, 0, RunExit::Completed);
    let experiment = cluster.engine.experiments().next().unwrap();
    assert_eq!((&experiment.phase, experiment.preempted_in_vain), (&Phase::Searching, 0));
    assert!(matches!(cluster.trial("e-1").state, TrialState::Running { .. }));
}

#[test]
fn older_rules_know_no_wait() {
    let mut cluster = Cluster::under(4, &[("w0", "h")]);
    cluster.submit(manifest("e", "1", ONE));
    for exit in [RunExit::Preempted, failed(FailureClass::Preempted)] {
        let waits: Vec<u64> = (0..6).map(|_| preempt(&mut cluster, &exit)).collect();
        assert_eq!(waits, [0; 6]);
    }
}
