//! The end of an experiment: its best trial is scored and written, and what happens where that fails.

use muster_common::run::{FailureClass, RunExit, RunReport, Task};
use muster_common::time::Timestamp;
use muster_coordinator::engine::experiment::{Experiment, ExperimentEnd, Phase};
use muster_coordinator::engine::trial::TrialState;
use muster_coordinator::engine::{Action, Engine, Event};

use super::cluster::{Cluster, ONE, failed, manifest, scored};

/// One trial has trained, and its model is being written.
fn at_the_end() -> Cluster {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.submit(manifest("e", "1", ONE));
    let spec = cluster.only();
    cluster.finish(&spec);
    assert!(matches!(cluster.only().task, Task::Finish { .. }));
    cluster
}

fn experiment(cluster: &Cluster) -> &Experiment {
    cluster.engine.experiment(&"e-1".parse().unwrap()).unwrap()
}

/// The run that writes the model fails.
fn fail(cluster: &mut Cluster, class: FailureClass) {
    let generation = cluster.current().unwrap().generation;
    cluster.end(generation, 0, failed(class));
}

fn resume(cluster: &mut Cluster) {
    cluster.apply(Event::ExperimentResumed { experiment: "e-1".parse().unwrap() });
}

#[test]
fn a_model_that_finds_the_disk_full_waits_and_is_written_when_asked_for_after_all() {
    let mut cluster = at_the_end();
    for seconds in [10, 20] {
        fail(&mut cluster, FailureClass::DiskFull);
        assert!(cluster.engine.runs().is_empty(), "a disk does not become empty at once");
        let due = Timestamp(cluster.now + seconds * 1000);
        assert_eq!(cluster.engine.next_timer(), Some(due));
        let said = cluster.said("e-1");
        let words = format!(
            "writing the best model (disk full): its last words; trying again in {seconds} s"
        );
        assert!(said.ends_with(&words), "{said}");
        cluster.wait(seconds - 1);
        assert!(cluster.engine.runs().is_empty(), "not a second earlier");
        cluster.wait(1);
        assert!(matches!(cluster.only().task, Task::Finish { .. }));
    }
    fail(&mut cluster, FailureClass::DiskFull);
    let found = experiment(&cluster);
    assert!(found.lacks_model() && found.ended_at.is_some());
    let Phase::Ended { end: ExperimentEnd::Failed { message } } = &found.phase else {
        panic!("{:?}", found.phase)
    };
    assert_eq!(message, "writing the best model (disk full): its last words");
    assert_eq!(found.trials[&1].state, TrialState::Completed, "what it has reached stays");
    assert_eq!(found.trials[&1].results.len(), 1);

    resume(&mut cluster);
    let spec = cluster.only();
    let Task::Finish { checkpoint, .. } = &spec.task else { panic!("{spec:?}") };
    assert_eq!(*checkpoint, experiment(&cluster).best.as_ref().unwrap().checkpoint);
    assert_eq!(experiment(&cluster).ended_at, None);
    fail(&mut cluster, FailureClass::DiskFull);
    assert!(!experiment(&cluster).is_ended(), "its failures are counted anew");
    cluster.wait(10);
    let generation = cluster.only().generation;
    let report = RunReport::Finished { test: Some(scored(900)), model: "best".to_owned() };
    cluster.report(generation, 0, report);
    cluster.end(generation, 0, RunExit::Completed);
    let found = experiment(&cluster);
    assert_eq!(found.phase, Phase::Ended { end: ExperimentEnd::Completed });
    assert!(!found.lacks_model());

    resume(&mut cluster);
    assert!(matches!(&cluster.actions[..], [Action::Rejected { .. }]), "{:?}", cluster.actions);
    let mut replayed = Engine::default();
    for (at, event) in &cluster.events {
        replayed.apply(*at, event.clone());
    }
    assert_eq!(replayed, cluster.engine);
}

#[test]
fn what_is_somebody_elses_failure_is_tried_again_at_once_and_then_later() {
    let mut cluster = at_the_end();
    fail(&mut cluster, FailureClass::Lost);
    assert!(matches!(cluster.only().task, Task::Finish { .. }), "at once");
    fail(&mut cluster, FailureClass::Lost);
    assert!(cluster.engine.runs().is_empty());
    cluster.wait(1);
    assert!(matches!(cluster.only().task, Task::Finish { .. }));
}

#[test]
fn an_older_journal_ends_as_it_did() {
    let mut cluster = Cluster::new(&[("w0", "h")]);
    cluster.apply(Event::RulesAdopted { rules: 4 });
    cluster.submit(manifest("e", "1", ONE));
    let spec = cluster.only();
    cluster.finish(&spec);
    for _ in 0..2 {
        fail(&mut cluster, FailureClass::DiskFull);
        assert!(matches!(cluster.only().task, Task::Finish { .. }), "at once");
    }
    fail(&mut cluster, FailureClass::DiskFull);
    resume(&mut cluster);
    assert!(matches!(&cluster.actions[..], [Action::Rejected { .. }]), "{:?}", cluster.actions);
    assert!(experiment(&cluster).is_ended());
}
