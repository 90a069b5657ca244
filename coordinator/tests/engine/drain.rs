//! Workers that are about to leave, and how many slots would be of use.

use muster_common::run::{Directive, FailureClass, RunExit};
use muster_common::time::Timestamp;
use muster_coordinator::engine::trial::TrialState;
use muster_coordinator::engine::{Event, LossCause};

use crate::cluster::{Cluster, FOUR, ONE, failed, manifest};

fn drain(cluster: &mut Cluster, worker: &str) {
    let (worker, reason) = (worker.parse().unwrap(), "its time is over".to_owned());
    cluster.apply(Event::WorkerDraining { worker, reason });
}

#[test]
fn a_run_saves_itself_and_goes_on_where_nobody_leaves() {
    let mut cluster = Cluster::new(&[("w1", "a")]);
    cluster.submit(manifest("e", "1", ONE));
    let first = cluster.only();
    drain(&mut cluster, "w1");
    assert_eq!(cluster.told(), [("w1".to_owned(), Directive::Preempt)]);
    drain(&mut cluster, "w1");
    assert_eq!(cluster.told(), [], "said once");
    cluster.commit("e-1/t1", 10, first.generation);
    cluster.end(first.generation, 0, RunExit::Preempted);
    assert_eq!(cluster.started().len(), 0, "the worker that leaves gets nothing");
    assert_eq!(cluster.engine.num_usable(), 0);
    cluster.join("w2", "b");
    let again = cluster.only();
    assert_eq!(cluster.members(again.generation), ["w2"]);
    let trial = cluster.trial("e-1");
    assert_eq!((trial.attempts, trial.restarts), (2, 0), "nobody's fault");
    assert!(cluster.said("e-1").contains("leaves its slots: its time is over"));
}

#[test]
fn all_ranks_of_a_gang_leave_with_one() {
    let mut cluster = Cluster::new(&FOUR);
    cluster.submit(manifest("e", "2", ONE));
    let first = cluster.only();
    cluster.open(first.generation);
    let members = cluster.members(first.generation);
    drain(&mut cluster, &members[1]);
    let told = members.iter().map(|worker| (worker.clone(), Directive::Preempt));
    assert_eq!(cluster.told(), told.collect::<Vec<_>>());
    cluster.commit("e-1/t1", 10, first.generation);
    cluster.end(first.generation, 0, RunExit::Preempted);
    cluster.end(first.generation, 1, RunExit::Preempted);
    let again = cluster.only();
    assert!(!cluster.members(again.generation).contains(&members[1]));
    assert_eq!(cluster.trial("e-1").restarts, 0);
}

#[test]
fn a_worker_that_was_to_leave_and_vanishes_costs_no_restart() {
    for (drains, restarts) in [(true, 0), (false, 1)] {
        let mut cluster = Cluster::new(&[("w1", "a")]);
        cluster.submit(manifest("e", "1", ONE));
        if drains {
            drain(&mut cluster, "w1");
        }
        cluster.lose(&"w1".parse().unwrap(), LossCause::LeaseExpired);
        let trial = cluster.trial("e-1");
        assert_eq!((trial.state.clone(), trial.restarts), (TrialState::Pending, restarts));
    }
}

#[test]
fn what_is_of_use_is_what_runs_and_what_could_begin() {
    let mut cluster = Cluster::new(&[]);
    let of_use = |cluster: &Cluster| cluster.engine.slots_of_use(Timestamp(cluster.now));
    assert_eq!(of_use(&cluster), 0);
    let eight = Event::ExperimentSubmitted {
        manifest: Box::new(manifest("prepares", "1", ONE)),
        text: String::new(),
        store: "file:///store".to_owned(),
        owner: None,
        base: None,
    };
    cluster.apply(eight);
    let parts = of_use(&cluster);
    assert!(parts >= 1, "the parts of its preparation");
    cluster.join("w1", "a");
    assert_eq!(of_use(&cluster), parts, "what was waited for is in use");

    let mut cluster = Cluster::new(&[("w1", "a"), ("w2", "a")]);
    cluster.submit(manifest("e", "2", "max_trials: 5, max_concurrent: 3"));
    assert_eq!(of_use(&cluster), 6, "three trials at once, on two slots each");
    let experiment = || "e-1".parse().unwrap();
    let generation = *cluster.engine.runs().keys().next().unwrap();
    cluster.open(generation);
    cluster.apply(Event::ExperimentPaused { experiment: experiment() });
    assert_eq!(of_use(&cluster), 2, "those in use");
    cluster.end(generation, 0, RunExit::Preempted);
    cluster.end(generation, 1, RunExit::Preempted);
    assert_eq!(of_use(&cluster), 0);
    cluster.apply(Event::ExperimentResumed { experiment: experiment() });
    assert_eq!(of_use(&cluster), 6);
    let generation = *cluster.engine.runs().keys().next().unwrap();
    cluster.open(generation);
    cluster.end(generation, 0, failed(FailureClass::DiskFull));
    cluster.end(generation, 1, RunExit::Canceled);
    assert!(of_use(&cluster) <= 6, "what backs off is not asked for twice");
}
