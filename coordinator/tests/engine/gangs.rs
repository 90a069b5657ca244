//! Who gets slots, what happens when a rank leaves, what follows from failures.

use muster_common::id::WorkerId;
use muster_common::run::{Directive, FailureClass, RunExit, RunReport, Task};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use muster_coordinator::engine::trial::TrialState;
use muster_coordinator::engine::{Action, Admission, Event, LossCause, Run};

use super::cluster::{Cluster, FOUR, ONE, failed, lost, manifest};

#[test]
fn rank_0_begins_and_the_others_are_called_to_its_rendezvous() {
    let mut cluster = Cluster::new(&FOUR);
    cluster.submit(manifest("g", "3", ONE));
    let first = cluster.only();
    let generation = first.generation;
    let gang = first.gang.clone().unwrap();
    assert_eq!((gang.rank, gang.world_size, gang.rendezvous), (0, 3, None));
    assert_eq!(cluster.members(generation), ["w1", "w2", "w3"]);
    // A rank that comes back before the rendezvous is told nothing yet.
    assert_eq!(cluster.engine.spec(generation, &"w2".parse().unwrap()), None);
    cluster.open(generation);
    let places: Vec<_> = cluster.started().into_iter().map(|spec| spec.gang.unwrap()).collect();
    assert_eq!(places.iter().map(|gang| gang.rank).collect::<Vec<_>>(), [1, 2]);
    assert!(places.iter().all(|gang| gang.rendezvous.as_deref() == Some("10.0.0.1:4711")));
    assert!(cluster.engine.spec(generation, &"w2".parse().unwrap()).is_some());
    cluster.finish(&first);
    assert_eq!(cluster.trial("g-1").state, TrialState::Completed);
}

#[test]
fn when_a_rank_ends_all_do_and_the_next_attempt_waits_for_the_last_slot() {
    let mut cluster = Cluster::new(&FOUR);
    cluster.submit(manifest("g", "4", ONE));
    let generation = cluster.only().generation;
    cluster.open(generation);
    cluster.end(generation, 2, lost());
    let told: Vec<String> = cluster.told().into_iter().map(|(worker, _)| worker).collect();
    assert_eq!(told, ["w1", "w2", "w4"]);
    assert!(cluster.told().iter().all(|(_, directive)| *directive == Directive::Cancel));
    cluster.end(generation, 0, failed(FailureClass::Lost));
    assert!(cluster.told().is_empty(), "said once");
    cluster.end(generation, 1, RunExit::Canceled);
    assert!(cluster.started().is_empty(), "rank 3 has not confirmed its end");
    assert!(matches!(cluster.trial("g-1").state, TrialState::Running { .. }));
    cluster.end(generation, 3, RunExit::Canceled);
    let next = cluster.only();
    assert!(next.generation > generation);
    let Task::Train(task) = &next.task else { panic!("{next:?}") };
    assert_eq!(task.attempt.0, 2);
    assert_eq!(cluster.trial("g-1").restarts, 1);
    let said = cluster.said("g-1");
    assert!(said.contains("rank 2 on b: the runner died: signal 9"), "{said}");
}

#[test]
fn late_and_repeated_reports_of_a_rank_change_nothing() {
    let mut cluster = Cluster::new(&FOUR);
    cluster.submit(manifest("g", "2", ONE));
    let generation = cluster.only().generation;
    cluster.open(generation);
    assert_eq!(cluster.engine.admit(generation, 0, 1), Admission::Old);
    assert_eq!(cluster.engine.admit(generation, 1, 1), Admission::New);
    assert_eq!(cluster.engine.admit(generation, 1, 2), Admission::Gap);
    assert_eq!(cluster.engine.admit(generation, 2, 1), Admission::Old, "there is no rank 2");
    cluster.end(generation, 1, lost());
    assert_eq!(cluster.engine.admit(generation, 1, 2), Admission::Old, "rank 1 has ended");
    cluster.end(generation, 0, RunExit::Canceled);
    assert_eq!(cluster.engine.admit(generation, 0, 3), Admission::Old, "the run is over");
    let before = cluster.engine.clone();
    let report = RunReport::Ended { exit: RunExit::Completed };
    cluster.apply(Event::RunReported { generation, rank: 0, sequence: 3, report });
    assert_eq!(cluster.engine, before);
    // Only rank 0 speaks of the work.
    let generation = *cluster.engine.runs().keys().next().unwrap();
    cluster.open(generation);
    let steps = cluster.trial("g-1").checkpoints.len();
    let checkpoint = CheckpointKey { trial: "g-1/t1".parse().unwrap(), step: 10, generation };
    cluster.report(generation, 1, RunReport::CheckpointCommitted { checkpoint });
    assert!(matches!(cluster.actions[0], Action::Rejected { .. }));
    assert_eq!(cluster.trial("g-1").checkpoints.len(), steps);
}

#[test]
fn freed_slots_are_kept_for_the_oldest_waiting_gang() {
    let mut cluster = Cluster::new(&[("w1", "a"), ("w2", "a")]);
    cluster.submit(manifest("old", "1", "max_trials: 9, max_concurrent: 1"));
    let single = cluster.only();
    cluster.submit(manifest("gang", "2", ONE));
    assert!(cluster.started().is_empty(), "one slot is free, which is not enough");
    cluster.submit(manifest("late", "1", ONE));
    let late = cluster.only().generation;
    assert!(cluster.engine.runs()[&late].lent, "the free slot is kept, and lent meanwhile");
    assert!(cluster.said("gang-1").contains("waits for 2 slots; 1 free"));
    // The older experiment's next trial came after the gang's turn.
    cluster.finish(&single);
    assert!(cluster.started().is_empty());
    cluster.end(late, 0, RunExit::Preempted);
    assert_eq!(cluster.only().gang.unwrap().world_size, 2);
    let gang = cluster.only();
    assert_eq!(gang.experiment.as_str(), "gang-1");
    cluster.finish(&gang);
    let next: Vec<String> =
        cluster.engine.runs().values().map(|run| run.experiment.to_string()).collect();
    assert_eq!(next, ["old-1", "gang-1"], "the older one again, and the finish of the gang");
    assert!(!cluster.engine.experiment(&"late-1".parse().unwrap()).unwrap().is_ended());
}

#[test]
fn a_gang_larger_than_the_cluster_keeps_nothing_until_workers_come() {
    let mut cluster = Cluster::new(&[("w1", "a"), ("w2", "a")]);
    cluster.submit(manifest("gang", "3", ONE));
    cluster.submit(manifest("late", "1", "max_trials: 2"));
    assert!(!cluster.engine.runs().is_empty(), "smaller runs go on");
    let single = cluster.engine.runs().keys().next().copied().unwrap();
    cluster.join("w3", "a");
    let world = |cluster: &Cluster| -> u32 {
        cluster.engine.runs().values().map(Run::world_size).max().unwrap()
    };
    // The worker that came is kept, and so are those that are freed.
    assert_eq!(world(&cluster), 1);
    for generation in cluster.engine.runs().keys().copied().collect::<Vec<_>>() {
        cluster.end(generation, 0, RunExit::Canceled);
    }
    assert_eq!(world(&cluster), 3);
    assert!(!cluster.engine.runs().contains_key(&single));
}

#[test]
fn an_elastic_gang_goes_on_with_fewer_after_the_grace_and_grows_at_a_checkpoint() {
    let mut cluster = Cluster::new(&FOUR[..3]);
    cluster.submit(manifest("e", "{min: 2, max: 3, grace_seconds: 5}", ONE));
    let generation = cluster.only().generation;
    assert_eq!(cluster.members(generation).len(), 3);
    cluster.open(generation);
    cluster.commit("e-1/t1", 10, generation);
    cluster.lose(&"w3".parse().unwrap(), LossCause::LeaseExpired);
    cluster.end(generation, 0, failed(FailureClass::Lost));
    cluster.end(generation, 1, RunExit::Canceled);
    assert!(cluster.started().is_empty(), "another worker may come");
    assert_eq!(cluster.engine.next_timer(), Some(Timestamp(cluster.now + 5000)));
    cluster.wait(5);
    let smaller = cluster.only();
    assert_eq!(smaller.gang.as_ref().unwrap().world_size, 2);
    let Task::Train(task) = &smaller.task else { panic!("{smaller:?}") };
    assert_eq!(task.resume_from.as_ref().unwrap().step, 10);
    cluster.open(smaller.generation);
    cluster.join("w9", "c");
    assert!(cluster.started().is_empty() && cluster.told().is_empty(), "not before a checkpoint");
    cluster.commit("e-1/t1", 20, smaller.generation);
    assert_eq!(cluster.told().len(), 2);
    assert!(cluster.told().iter().all(|(_, directive)| *directive == Directive::Preempt));
    // What it grows into is not given away meanwhile.
    cluster.submit(manifest("late", "1", ONE));
    assert!(cluster.started().is_empty());
    cluster.end(smaller.generation, 1, RunExit::Preempted);
    cluster.end(smaller.generation, 0, RunExit::Preempted);
    let larger = cluster.only();
    assert_eq!(larger.gang.unwrap().world_size, 3);
    assert_eq!(cluster.trial("e-1").restarts, 1, "growing costs none");
}

#[test]
fn a_replacement_within_the_grace_keeps_the_size() {
    let mut cluster = Cluster::new(&FOUR[..3]);
    cluster.submit(manifest("e", "{min: 2, max: 3, grace_seconds: 5}", ONE));
    let generation = cluster.only().generation;
    cluster.open(generation);
    let died = LossCause::Died { reason: "signal 9".to_owned() };
    cluster.lose(&"w1".parse().unwrap(), died);
    cluster.end(generation, 1, RunExit::Canceled);
    cluster.end(generation, 2, RunExit::Canceled);
    assert!(cluster.started().is_empty());
    cluster.join("w5", "a");
    assert_eq!(cluster.only().gang.unwrap().world_size, 3);
}

#[test]
fn each_class_of_failure_has_its_rule() {
    // What a trial's run ends with, one after the other, and what it comes to.
    let again = |exits: &[RunExit]| {
        let mut cluster = Cluster::new(&FOUR[..1]);
        cluster.submit(manifest("f", "1", ONE));
        for exit in exits {
            let generation = *cluster.engine.runs().keys().next().unwrap();
            cluster.end(generation, 0, exit.clone());
            cluster.wait(400);
        }
        let trial = cluster.trial("f-1").clone();
        (trial.restarts, trial.state, cluster.said("f-1"))
    };
    for class in [FailureClass::BadData, FailureClass::Diverged] {
        let (restarts, state, _) = again(&[failed(class)]);
        assert_eq!(restarts, 0);
        assert!(matches!(state, TrialState::Failed { .. }), "{class:?}");
    }
    let (_, state, _) = again(&[failed(FailureClass::OutOfMemory)]);
    assert!(matches!(state, TrialState::Running { .. }));
    let twice = [failed(FailureClass::OutOfMemory), failed(FailureClass::OutOfMemory)];
    let (restarts, state, _) = again(&twice);
    let TrialState::Failed { message } = state else { panic!("{state:?}") };
    assert_eq!(restarts, 1);
    assert!(message.starts_with("out of memory, given up after 1 restart:"), "{message}");
    let classes = [FailureClass::Lost, FailureClass::Hang, FailureClass::DiskFull];
    for class in classes.into_iter().chain([FailureClass::Other]) {
        let (restarts, state, said) = again(&[failed(class), lost(), failed(class)]);
        let TrialState::Failed { message } = state else { panic!("{class:?}: {state:?}") };
        assert_eq!(restarts, 2, "max_restarts");
        assert!(message.contains("its last words"), "{message}");
        assert!(said.contains("restart 1 of 2") && said.contains("given up"), "{said}");
    }
    let free = vec![failed(FailureClass::Preempted); 9];
    let (restarts, state, _) = again(&free);
    assert_eq!(restarts, 0);
    assert!(matches!(state, TrialState::Running { .. }));
}

#[test]
fn a_second_restart_waits_and_others_go_on_meanwhile() {
    let mut cluster = Cluster::new(&FOUR[..1]);
    cluster.submit(manifest("f", "1", "max_trials: 2"));
    let running = |cluster: &Cluster| -> Option<String> {
        let run = cluster.engine.runs().values().next()?;
        Some(run.task.trial()?.to_string())
    };
    let current = |cluster: &Cluster| *cluster.engine.runs().keys().next().unwrap();
    let generation = current(&cluster);
    cluster.end(generation, 0, failed(FailureClass::Lost));
    assert_eq!(running(&cluster).unwrap(), "f-1/t1", "the first restart is made at once");
    let generation = current(&cluster);
    cluster.end(generation, 0, failed(FailureClass::Lost));
    assert_eq!(running(&cluster).unwrap(), "f-1/t2");
    assert_eq!(cluster.engine.next_timer(), Some(Timestamp(cluster.now + 1000)));
    let generation = current(&cluster);
    cluster.end(generation, 0, failed(FailureClass::BadData));
    assert_eq!(running(&cluster), None);
    cluster.wait(1);
    assert_eq!(running(&cluster).unwrap(), "f-1/t1");
}

#[test]
fn leaving_in_good_order_and_a_restarted_coordinator_cost_nothing() {
    let mut cluster = Cluster::new(&FOUR[..2]);
    cluster.submit(manifest("g", "2", ONE));
    let left = LossCause::Left { reason: "the worker was terminated".to_owned() };
    for cause in [left, LossCause::CoordinatorRestarted] {
        let generation = *cluster.engine.runs().keys().next().unwrap();
        cluster.open(generation);
        let workers: Vec<WorkerId> =
            cluster.engine.runs()[&generation].members.iter().map(|m| m.worker.clone()).collect();
        cluster.lose(&workers[1], cause);
        cluster.end(generation, 0, failed(FailureClass::Lost));
        assert_eq!(cluster.trial("g-1").state, TrialState::Pending);
        cluster.join(&format!("{}-again", workers[1]), "a");
    }
    assert_eq!(cluster.trial("g-1").restarts, 0);
    assert!(cluster.engine.hosts().is_empty());
}

#[test]
fn a_gang_that_never_meets_is_ended() {
    let mut cluster = Cluster::new(&FOUR[..2]);
    cluster.submit(manifest("g", "2", ONE));
    let generation = cluster.only().generation;
    let deadline = cluster.engine.next_timer().unwrap();
    cluster.now = deadline.0;
    cluster.apply(Event::TimerFired);
    assert_eq!(cluster.told(), [("w1".to_owned(), Directive::Cancel)]);
    // Too late: the others have been let go.
    cluster.open(generation);
    assert!(cluster.started().is_empty());
    cluster.end(generation, 0, RunExit::Canceled);
    assert_eq!(cluster.trial("g-1").restarts, 1);
    assert!(cluster.said("g-1").contains("failed (hang)"), "{}", cluster.said("g-1"));
}

#[test]
fn a_pause_before_the_rendezvous_loses_nothing() {
    let mut cluster = Cluster::new(&FOUR[..2]);
    cluster.submit(manifest("g", "2", ONE));
    let generation = cluster.only().generation;
    let experiment = "g-1".parse().unwrap();
    cluster.apply(Event::ExperimentPaused { experiment });
    assert_eq!(cluster.told(), [("w1".to_owned(), Directive::Cancel)]);
    cluster.end(generation, 0, RunExit::Canceled);
    assert_eq!(cluster.trial("g-1").state, TrialState::Pending);
    let experiment = "g-1".parse().unwrap();
    cluster.apply(Event::ExperimentResumed { experiment });
    assert_eq!(cluster.only().gang.unwrap().world_size, 2);
}

#[test]
fn a_host_that_fails_again_and_again_is_set_aside_for_a_while() {
    let mut cluster = Cluster::new(&[("w1", "bad"), ("w2", "good")]);
    cluster.submit(manifest("f", "1", "max_trials: 9, max_concurrent: 1"));
    for _ in 0..3 {
        let (generation, run) = cluster.engine.runs().iter().next().unwrap();
        let generation = *generation;
        assert_eq!(run.members[0].host, "bad", "the first by name");
        cluster.end(generation, 0, lost());
        cluster.wait(10);
    }
    let run = cluster.engine.runs().values().next().unwrap();
    assert_eq!(run.members[0].host, "good");
    assert!(cluster.said("f-1").contains("host bad is set aside"), "{}", cluster.said("f-1"));
    assert_eq!(cluster.engine.num_usable(), 1);
    // The only one left is never set aside.
    for _ in 0..4 {
        let generation = *cluster.engine.runs().keys().next().unwrap();
        cluster.end(generation, 0, lost());
        cluster.wait(10);
    }
    assert_eq!(cluster.engine.num_usable(), 1);
    cluster.wait(600);
    assert_eq!(cluster.engine.num_usable(), 2, "it comes back");
}

#[test]
fn a_host_is_not_blamed_for_missing_another() {
    let mut cluster = Cluster::new(&[("w1", "bad"), ("w2", "good"), ("w3", "spare")]);
    cluster.submit(manifest("g", "2", ONE));
    let generation = cluster.only().generation;
    cluster.open(generation);
    cluster.end(generation, 1, failed(FailureClass::Lost));
    cluster.end(generation, 0, lost());
    let blamed: Vec<&String> = cluster.engine.hosts().keys().collect();
    assert_eq!(blamed, ["bad"]);
}

#[test]
fn a_journal_of_before_there_were_gangs_is_replayed_by_its_own_rules() {
    let old = r#"{"run_reported":{"generation":1,"sequence":1,"report":{"ended":{"exit":
        {"failed":{"message":"m","permanent":false}}}}}}"#;
    let event: Event = serde_json::from_str(old).unwrap();
    assert!(matches!(event, Event::RunReported { rank: 0, .. }));
    // Under the old rules a failed run is started again in the same instant, however often.
    let mut cluster = Cluster::new(&FOUR[..1]);
    cluster.apply(Event::RulesAdopted { rules: 0 });
    cluster.submit(manifest("f", "1", ONE));
    for expected in [1, 2] {
        let generation = *cluster.engine.runs().keys().next().unwrap();
        cluster.end(generation, 0, failed(FailureClass::Other));
        assert_eq!(cluster.trial("f-1").restarts, expected);
        assert_eq!(cluster.engine.runs().len(), 1);
    }
    // A worker that left counted as a loss, and a loss cost no restart.
    let run = cluster.engine.runs().values().next().unwrap();
    let worker = run.members[0].worker.clone();
    cluster.lose(&worker, LossCause::Left { reason: "left".to_owned() });
    assert_eq!((cluster.trial("f-1").restarts, cluster.trial("f-1").losses), (2, 1));
}

#[test]
fn a_rank_that_hangs_is_named_and_blamed_and_one_that_waits_for_the_dead_is_not() {
    let killed = || RunExit::Lost { reason: "it did not leave its slot in time".to_owned() };
    let hosts = [("w1", "a"), ("w2", "b"), ("w3", "c")];
    let mut cluster = Cluster::new(&hosts);
    cluster.submit(manifest("g", "3", ONE));
    // Rank 1 is stopped: the others find out, and it has to be killed.
    let generation = *cluster.engine.runs().keys().next().unwrap();
    cluster.open(generation);
    cluster.end(generation, 0, failed(FailureClass::Hang));
    cluster.end(generation, 2, failed(FailureClass::Hang));
    cluster.end(generation, 1, killed());
    let said = cluster.said("g-1");
    assert!(said.contains("(hang)") && said.contains("rank 1 on b: it did not leave"), "{said}");
    assert_eq!(cluster.engine.hosts().keys().collect::<Vec<_>>(), ["b"]);
    // Rank 2 dies, and rank 0 is stuck waiting for it.
    let generation = *cluster.engine.runs().keys().next().unwrap();
    cluster.open(generation);
    cluster.end(generation, 2, lost());
    cluster.end(generation, 1, failed(FailureClass::Lost));
    cluster.end(generation, 0, killed());
    let said = cluster.said("g-1");
    assert!(said.contains("(lost): rank 2 on c: the runner died"), "{said}");
    assert_eq!(cluster.engine.hosts().keys().collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn a_run_that_was_told_to_give_up_is_not_asked_to_save_itself() {
    let mut cluster = Cluster::new(&FOUR[..2]);
    cluster.submit(manifest("g", "2", ONE));
    let generation = cluster.only().generation;
    cluster.open(generation);
    cluster.end(generation, 1, lost());
    assert_eq!(cluster.told(), [("w1".to_owned(), Directive::Cancel)]);
    // Rank 0 may be stuck waiting for rank 1; asked to save itself it would have two minutes for that.
    cluster.apply(Event::ExperimentPaused { experiment: "g-1".parse().unwrap() });
    assert!(cluster.told().is_empty(), "{:?}", cluster.told());
    cluster.apply(Event::TrialPaused { trial: "g-1/t1".parse().unwrap() });
    assert!(cluster.told().is_empty(), "{:?}", cluster.told());
    assert_eq!(cluster.engine.runs()[&generation].directive, Some(Directive::Cancel));
}

#[test]
fn an_elastic_gang_grows_although_one_waits_that_fits_nowhere() {
    let mut cluster = Cluster::new(&FOUR);
    cluster.submit(manifest("e", "{min: 2, max: 3, grace_seconds: 5}", ONE));
    let generation = cluster.only().generation;
    cluster.open(generation);
    cluster.commit("e-1/t1", 10, generation);
    cluster.submit(manifest("big", "4", ONE));
    let prepare = cluster.engine.runs().keys().next_back().copied().unwrap();
    assert_eq!(prepare, generation, "it is prepared and waits");
    assert!(cluster.said("big-1").contains("kept for it"), "{}", cluster.said("big-1"));
    for worker in ["w3", "w4"] {
        cluster.lose(&worker.parse().unwrap(), LossCause::LeaseExpired);
    }
    cluster.end(generation, 0, failed(FailureClass::Lost));
    cluster.end(generation, 1, RunExit::Canceled);
    cluster.wait(5);
    let smaller = cluster.only();
    assert_eq!(smaller.gang.as_ref().unwrap().world_size, 2);
    cluster.open(smaller.generation);
    cluster.join("w9", "c");
    assert!(cluster.started().is_empty(), "four slots are more than there are");
    cluster.commit("e-1/t1", 20, smaller.generation);
    assert_eq!(cluster.told().len(), 2, "{}", cluster.said("e-1"));
}

#[test]
fn no_machine_is_blamed_for_ranks_that_are_slow_to_leave_a_trial_nobody_wants() {
    let mut cluster = Cluster::new(&[("w1", "a"), ("w2", "a"), ("w3", "b"), ("w4", "b")]);
    cluster.submit(manifest("g", "2", "max_trials: 9, max_concurrent: 1"));
    for number in 1..=3 {
        let generation = *cluster.engine.runs().keys().next().unwrap();
        cluster.open(generation);
        let trial = format!("g-1/t{number}").parse().unwrap();
        cluster.apply(Event::TrialCanceled { trial });
        assert_eq!(cluster.told().len(), 2);
        for rank in [0, 1] {
            let reason = "it did not leave its slot in time".to_owned();
            cluster.end(generation, rank, RunExit::Lost { reason });
        }
    }
    assert!(cluster.engine.hosts().is_empty(), "{:?}", cluster.engine.hosts());
    assert_eq!(cluster.engine.num_usable(), 4);
}

#[test]
fn an_elastic_gang_waits_for_its_grace_only_however_many_others_are_lost() {
    let mut cluster = Cluster::new(&[("w1", "a"), ("w2", "a"), ("w3", "b")]);
    cluster.submit(manifest("e", "{min: 2, max: 3, grace_seconds: 5}", ONE));
    let generation = cluster.only().generation;
    cluster.open(generation);
    cluster.join("x1", "c");
    cluster.submit(manifest("other", "1", "max_trials: 1"));
    cluster.lose(&"w3".parse().unwrap(), LossCause::LeaseExpired);
    cluster.end(generation, 0, failed(FailureClass::Lost));
    cluster.end(generation, 1, RunExit::Canceled);
    assert!(cluster.started().is_empty(), "another worker may come");
    cluster.wait(3);
    cluster.lose(&"x1".parse().unwrap(), LossCause::LeaseExpired);
    assert!(cluster.started().is_empty());
    assert_eq!(cluster.engine.next_timer(), Some(Timestamp(cluster.now + 2000)));
    cluster.wait(2);
    assert_eq!(cluster.only().gang.unwrap().world_size, 2);
}
