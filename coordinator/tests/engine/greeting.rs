//! What a worker is told that comes back, what a start does again, and what comes of reports out of their turn.

use muster_common::id::Generation;
use muster_common::run::{Directive, RunReport};
use muster_common::storage::CheckpointKey;
use muster_coordinator::engine::{Action, Admission, Event};
use muster_coordinator::greeting::{Greeting, greet};
use muster_coordinator::live::ToWorker;

use super::cluster::{Cluster, ONE, manifest};

fn greeting(cluster: &Cluster, held: Option<Generation>) -> Greeting {
    greet(&cluster.engine, &"w0".parse().unwrap(), held).unwrap()
}

#[test]
fn a_worker_that_comes_back_is_told_what_it_missed() {
    let mut cluster = Cluster::new(&[("w0", "a")]);
    assert_eq!(greet(&cluster.engine, &"w9".parse().unwrap(), None), None, "it has to join first");
    let idle = greeting(&cluster, None);
    assert!(idle.run.is_none() && idle.messages.is_empty(), "{idle:?}");
    cluster.submit(manifest("e", "1", ONE));
    let spec = cluster.only();
    let generation = spec.generation;
    let told = greeting(&cluster, None);
    assert_eq!(told.run, Some(generation));
    assert_eq!(told.messages, [ToWorker::Assign(Box::new(spec))], "what was sent got lost");
    assert!(greeting(&cluster, Some(generation)).messages.is_empty(), "it has it");
    let experiment = "e-1".parse().unwrap();
    cluster.apply(Event::ExperimentPaused { experiment });
    let direct = ToWorker::Direct { generation, directive: Directive::Preempt };
    assert_eq!(greeting(&cluster, Some(generation)).messages, [direct], "said while it was away");
    assert!(!greeting(&cluster, None).has_forgotten, "nothing was reported yet");
    cluster.commit("e-1/t1", 10, generation);
    assert!(!greeting(&cluster, Some(generation)).has_forgotten);
    for held in [None, Some(Generation(99))] {
        assert!(greeting(&cluster, held).has_forgotten, "another process has reported");
    }
}

#[test]
fn a_start_finds_what_may_not_have_happened() {
    let mut cluster = Cluster::new(&[("w0", "a")]);
    cluster.submit(manifest("e", "1", ONE));
    let generation = cluster.only().generation;
    let mut asked = Vec::new();
    for step in [10, 20, 30, 40] {
        cluster.commit("e-1/t1", step, generation);
        let is_deletion = |action: &&Action| matches!(action, Action::DeleteCheckpoint { .. });
        asked.extend(cluster.actions.iter().filter(is_deletion).cloned());
    }
    assert_eq!(asked.len(), 2, "{asked:?}");
    let outstanding = cluster.engine.outstanding();
    assert!(matches!(outstanding[0], Action::StoreManifest { .. }), "{outstanding:?}");
    assert_eq!(outstanding[1..], asked);
    let trial = "e-1/t1".parse().unwrap();
    let checkpoint = CheckpointKey { trial, step: 10, generation };
    cluster.apply(Event::CheckpointDeleted { checkpoint });
    assert_eq!(cluster.engine.outstanding()[1..], asked[1..], "what is done is not done again");
    let experiment = "e-1".parse().unwrap();
    cluster.apply(Event::ExperimentCanceled { experiment });
    assert_eq!(cluster.engine.outstanding(), asked[1..], "deletions are, when all has ended");
}

#[test]
fn a_report_before_its_turn_changes_nothing() {
    let mut cluster = Cluster::new(&[("w0", "a")]);
    cluster.submit(manifest("e", "1", ONE));
    let generation = cluster.only().generation;
    let trial = "e-1/t1".parse().unwrap();
    let checkpoint = CheckpointKey { trial, step: 10, generation };
    let report = RunReport::CheckpointCommitted { checkpoint };
    assert_eq!(cluster.engine.admit(generation, 0, 2), Admission::Gap);
    let before = cluster.engine.clone();
    cluster.apply(Event::RunReported { generation, rank: 0, sequence: 2, report: report.clone() });
    assert!(matches!(cluster.actions[..], [Action::Rejected { .. }]), "{:?}", cluster.actions);
    assert_eq!(cluster.engine, before);
    cluster.apply(Event::RunReported { generation, rank: 0, sequence: 1, report });
    assert_eq!(cluster.trial("e-1").checkpoints.len(), 1);
}
