//! Slots on their way out: whether anybody can have them. Under the rules of before all of them counted, so that who
//! waited for those of a worker that leaves waited in vain.

use muster_common::id::Generation;
use muster_common::manifest::Manifest;
use muster_common::run::{Directive, RunExit};
use muster_coordinator::engine::{Event, LossCause, RULES};

use super::cluster::{Cluster, ONE, lost, manifest};

const MANY: &str = "max_trials: 50";
const OLDER: u32 = 4;

fn urgent(slots: &str) -> Manifest {
    let mut urgent = manifest("urgent", slots, ONE);
    urgent.resources.priority = 10;
    urgent
}

fn drain(cluster: &mut Cluster, worker: &str) {
    let (worker, reason) = (worker.parse().unwrap(), "its time is over".to_owned());
    cluster.apply(Event::WorkerDraining { worker, reason });
}

/// Runs of an experiment, oldest first.
fn runs_of(cluster: &Cluster, id: &str) -> Vec<Generation> {
    let runs = cluster.engine.runs().iter();
    runs.filter(|(_, run)| run.experiment.as_str() == id).map(|(g, _)| *g).collect()
}

#[test]
fn the_urgent_do_not_wait_for_the_slot_of_a_worker_that_leaves() {
    for (rules, told) in [(OLDER, vec![]), (RULES, vec![("w1".to_owned(), Directive::Preempt)])] {
        let mut cluster = Cluster::under(rules, &[("w0", "h"), ("w1", "h")]);
        cluster.submit(manifest("low", "1", MANY));
        let runs = runs_of(&cluster, "low-1");
        drain(&mut cluster, "w0");
        cluster.submit(urgent("1"));
        assert_eq!(cluster.told(), told, "rules {rules}");
        // What leaves with its worker is of no use; sooner or later the other one has to go.
        cluster.end(runs[0], 0, RunExit::Preempted);
        cluster.lose(&"w0".parse().unwrap(), LossCause::Left { reason: "left".to_owned() });
        assert_eq!(cluster.engine.runs()[&runs[1]].directive, Some(Directive::Preempt));
    }
}

#[test]
fn slots_are_lent_as_long_as_a_gang_could_not_begin_with_them() {
    for (rules, num_lent) in [(OLDER, 0), (RULES, 2)] {
        let mut cluster = Cluster::under(rules, &[("w0", "h")]);
        cluster.submit(manifest("first", "1", ONE));
        cluster.join("w3", "h");
        cluster.submit(manifest("other", "1", ONE));
        drain(&mut cluster, "w3");
        cluster.join("w1", "h");
        cluster.join("w2", "h");
        cluster.submit(manifest("gang", "3", ONE));
        assert!(cluster.said("gang-1").contains("waits for 3 slots; 2 free, kept for it"));
        // The third is that of `first`, and not the one that leaves.
        cluster.submit(manifest("small", "1", MANY));
        assert_eq!(runs_of(&cluster, "small-1").len(), num_lent, "rules {rules}");
        let first = runs_of(&cluster, "first-1")[0];
        cluster.apply(Event::ExperimentCanceled { experiment: "first-1".parse().unwrap() });
        cluster.end(first, 0, RunExit::Canceled);
        for generation in runs_of(&cluster, "small-1") {
            cluster.end(generation, 0, RunExit::Preempted);
        }
        assert_eq!(runs_of(&cluster, "gang-1").len(), 1, "rules {rules}");
    }
}

#[test]
fn what_was_to_grow_and_is_held_back_gives_its_slots_to_others() {
    for (rules, told) in [(OLDER, Some(Directive::Preempt)), (RULES, None)] {
        let mut cluster = Cluster::under(rules, &[("w0", "a")]);
        cluster.submit(manifest("low", "1", ONE));
        let low = cluster.only().generation;
        cluster.join("w1", "a");
        cluster.join("w2", "a");
        cluster.submit(manifest("e", "{min: 2, max: 3, grace_seconds: 5}", ONE));
        let gang = cluster.only().generation;
        cluster.open(gang);
        cluster.join("w9", "a");
        cluster.commit("e-1/t1", 10, gang);
        assert!(cluster.engine.runs()[&gang].grows);
        cluster.apply(Event::TrialPaused { trial: "e-1/t1".parse().unwrap() });
        // Three slots are free or on their way out, and it needs two of them.
        cluster.submit(urgent("2"));
        assert_eq!(cluster.engine.runs()[&low].directive, told, "rules {rules}");
        cluster.end(gang, 0, RunExit::Preempted);
        cluster.end(gang, 1, RunExit::Preempted);
        assert_eq!(runs_of(&cluster, "urgent-1").len(), 1, "rules {rules}");
    }
}

#[test]
fn nobody_leaves_a_machine_that_is_set_aside() {
    for (rules, told) in [(OLDER, "w3"), (RULES, "w1")] {
        let mut cluster = Cluster::under(rules, &[("w1", "a"), ("w3", "b"), ("w4", "b")]);
        cluster.submit(manifest("low", "1", MANY));
        // Three runs are lost on w4. Host b is set aside with one still at work, which is younger than that on a.
        for _ in 0..3 {
            let runs = cluster.engine.runs().iter();
            let on_w4 = runs.filter(|(_, run)| run.members[0].worker.as_str() == "w4");
            let generation = on_w4.map(|(generation, _)| *generation).next().unwrap();
            cluster.end(generation, 0, lost());
        }
        assert!(cluster.said("low-1").contains("host b is set aside"));
        cluster.submit(urgent("1"));
        assert_eq!(cluster.told(), [(told.to_owned(), Directive::Preempt)], "rules {rules}");
    }
}
