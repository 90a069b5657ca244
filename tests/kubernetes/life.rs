//! The real programs from their start to their end: sweeps and gangs although pods are evicted and lost, a coordinator
//! and an API server that are killed and come back, Jobs that cannot begin.

use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::{Pod, Secret};
use muster_common::access::Access;
use muster_coordinator::launcher::kubernetes::manifest::ACCESS_KEY;
use muster_tests::gang::FOUR_TRIALS;
use muster_tests::ground::{GANG, ONE, SECRET, SWEEP, come_back, live_on};
use muster_tests::process::{await_ends, send_signal};
use muster_tests::service::{await_checkpoints, exported_weights, undisturbed_weights};

use crate::forbid;
use crate::site::Site;

#[test]
fn kubernetes_keeps_what_everything_has_to_that_starts_workers() {
    let name = "kubernetes_keeps_what_everything_has_to_that_starts_workers";
    let profile = "max_allocations = 2\nidle_seconds = 6\n";
    let Some(site) = Site::new(name, FOUR_TRIALS, 600, profile) else { return };
    let _idle = live_on(&site.ground, || site.workers()).unwrap();
    site.await_nothing_left();
}

#[test]
fn a_sweep_ends_well_although_pods_are_evicted_and_lost() {
    let name = "a_sweep_ends_well_although_pods_are_evicted_and_lost";
    let Some(site) = Site::new(name, SWEEP, 1200, "max_allocations = 2\n") else { return };
    let run = site.start("run", &["run", "gang.yaml", "--summary", "summary.json"]);
    // It grows to what is allowed.
    let first = site.await_running("two Jobs", |running| running.len() == 2);
    await_checkpoints(site.directory(), "gang-1", 1).unwrap();
    // Only of what was seen to run is told how it ended.
    for pod in &first {
        let (job, _) = pod.rsplit_once('-').unwrap();
        site.await_words(&["ls"], &format!("job {job}: workers 1"));
    }
    // No secret is where others could see it.
    let pods = serde_json::to_string(&site.all::<Pod>()).unwrap();
    assert!(pods.contains("supervise") && !pods.contains(SECRET), "{pods}");
    site.evict(&first[0]);
    let second = site.await_running("another pod for the one that was evicted", |running| {
        running.len() == 2 && !running.contains(&first[0])
    });
    let lost = second.iter().find(|pod| first.contains(pod)).unwrap();
    let killed = site.processes("muster-worker supervise", lost);
    assert_eq!(killed.len(), 1, "{lost}");
    send_signal("KILL", killed[0]).unwrap();
    let told = site.ground.await_words(&["ls"], &format!("pod {lost} has failed: exit code 137"));
    assert!(told.is_ok(), "{told:?}\n{}", run.stderr());

    let summary = site.ground.complete(run).unwrap();
    let trials = summary["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 4);
    let restarts: u64 = trials.iter().map(|trial| trial["restarts"].as_u64().unwrap()).sum();
    assert!(restarts <= 1, "an eviction is nobody's fault: {summary}");
    assert_eq!(site.record()["next_number"], 3, "the Jobs themselves have replaced their pods");
    site.await_nothing_left();
    await_ends(|| site.processes("muster-worker", "")).unwrap();
}

#[test]
fn coordinator_and_api_server_are_killed_and_find_everything_again() {
    let name = "coordinator_and_api_server_are_killed_and_find_everything_again";
    let profile = "max_allocations = 1\nidle_seconds = 3\n";
    let Some(site) = Site::new(name, ONE, 1500, profile) else { return };
    let wanted = undisturbed_weights(site.directory(), "1").unwrap();
    let runners = || site.processes("muster-worker runner", "");
    let away = || {
        // The token is where the worker reads it, and nowhere else.
        let secret = site.all::<Secret>().remove(0);
        let file = site.directory().join("handed-over.json");
        muster_common::access::write_private(&file, &secret.data.unwrap()[ACCESS_KEY].0).unwrap();
        let token = Access::read(&file).unwrap().token.unwrap().reveal();
        let objects = serde_json::to_string(&(site.all::<Pod>(), site.all::<JobObject>())).unwrap();
        assert!(!objects.contains(&token));

        assert_eq!(site.running().len(), 1);
        site.kubernetes.restart_api_server().unwrap();
    };
    // The API server goes while somebody watches.
    let back = || site.kubernetes.restart_api_server().unwrap();
    let again = come_back(&site.ground, runners, away, back).unwrap();
    assert_eq!(site.record()["next_number"], 2, "nothing was asked for twice");
    assert!(exported_weights(site.directory(), "gang-1").unwrap() == wanted, "the same bits");
    let why = site.ask(&["why", "gang-1/t1"]);
    assert!(!why.contains("lost with a worker"), "it counts as no failure: {why}");
    // What has nothing to do is given back.
    site.await_nothing_left();
    drop(again);
}

#[test]
fn what_cannot_begin_says_why_and_leaves_nothing() {
    let name = "what_cannot_begin_says_why_and_leaves_nothing";
    let Some(site) = Site::new(name, ONE, 300, "max_allocations = 1\n") else { return };
    site.kubelet.set_full(true);
    let mut run = site.start("run", &["run", "gang.yaml"]);
    run.wait_for("submission", |_| (!site.all::<Pod>().is_empty()).then_some(())).unwrap();
    site.await_words(&["ls"], "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.");
    // Interrupted, it leaves nothing behind.
    send_signal("INT", run.pid()).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    site.await_nothing_left();

    let site = Site::new(name, ONE, 300, "max_allocations = 1\n").unwrap();
    site.runtime.block_on(forbid(&site.client, &site.namespace, "pods"));
    let server = site.serve("serve");
    site.ask(&["submit", "gang.yaml"]);
    site.await_words(&["ls"], "exceeded quota: none");
    drop(server);
}

#[test]
fn ranks_of_a_gang_are_pods_of_one_job_and_one_may_be_lost() {
    let name = "ranks_of_a_gang_are_pods_of_one_job_and_one_may_be_lost";
    let profile = "max_allocations = 1\nworkers_per_job = 2\n";
    let Some(site) = Site::new(name, GANG, 1500, profile) else { return };
    let run = site.ground.run(2).unwrap();
    let both = site.await_running("two pods", |running| running.len() == 2);
    assert_eq!(site.all::<JobObject>().len(), 1);
    site.lose(&both[0]);
    site.await_running("another pod for the one that is lost", |running| {
        running.len() == 2 && running.contains(&both[1]) && !running.contains(&both[0])
    });
    let summary = site.ground.complete(run).unwrap();
    assert_eq!(summary["trials"][0]["attempts"], 2, "{summary}");
    assert_eq!(site.record()["next_number"], 2, "the Job itself has replaced its pod");
    site.await_nothing_left();
}

/// Outside of the cluster no object of it stands for the coordinator, so that nothing there ends with it.
#[test]
fn a_coordinator_that_is_gone_for_good_leaves_nothing() {
    let name = "a_coordinator_that_is_gone_for_good_leaves_nothing";
    // This API server does not know the rule about exit codes: a second worker has to find out as well.
    let profile = "max_allocations = 1\nalone_seconds = 10\nkeep_seconds = 0\nmax_failures = 1\n";
    let Some(site) = Site::new(name, ONE, 600, profile) else { return };
    let mut run = site.ground.run(2).unwrap();
    let first = site.running();
    let workers = site.processes("muster-worker", "");
    assert!(first.len() == 1 && workers.len() >= 2, "{first:?} {workers:?}");
    run.kill().unwrap();
    site.await_nothing_left();
    let log = site.directory().join(format!("node/{}.log", first[0]));
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("no coordinator for too long"), "{said}");
    await_ends(|| workers.clone()).unwrap();
}
