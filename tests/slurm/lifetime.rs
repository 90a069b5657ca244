//! How long allocations and their workers last: without a coordinator, requeued, on several nodes at once.

use std::collections::BTreeMap;

use muster_tests::ground::{GANG, ONE};
use muster_tests::process::send_signal;
use muster_tests::service::{exported_weights, undisturbed_weights};
use muster_tests::slurm::JobLine;

use crate::site::{Site, variable};

#[test]
fn a_coordinator_that_is_gone_for_good_leaves_nothing() {
    let name = "a_coordinator_that_is_gone_for_good_leaves_nothing";
    // Neither its time nor its idleness ends the allocation within the patience of this test.
    let profile = "max_allocations = 1\nworkers_per_node = 2\nidle_seconds = 3600\n\
                   alone_seconds = 10\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, ONE, 600, profile) else { return };
    let mut run = site.ground.run(2).unwrap();
    site.await_running(1);
    // One of its two workers has a run, the other has none.
    assert_eq!(site.workers().len(), 2);
    run.kill().unwrap();
    site.await_nothing_left();
    site.await_no_process();
    let jobs = site.jobs();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert!(!["TIMEOUT", "CANCELLED"].contains(&jobs[0].state.as_str()), "{jobs:?}");
}

#[test]
fn an_allocation_that_is_requeued_costs_nothing() {
    let name = "an_allocation_that_is_requeued_costs_nothing";
    let profile = "max_allocations = 1\nidle_seconds = 120\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, ONE, 3000, profile) else { return };
    let wanted = undisturbed_weights(site.directory(), "1").unwrap();
    let run = site.ground.run(2).unwrap();
    let job = site.await_running(1).remove(0);
    let before = site.workers();
    site.slurm.ask("scontrol", &["requeue", &job.id]).unwrap();
    // The same job, begun anew.
    let has_begun_anew = |jobs: &[JobLine]| {
        let is_running = jobs.iter().any(|line| line.id == job.id && line.state == "RUNNING");
        let said = site.slurm.ask("scontrol", &["show", "job", &job.id]).unwrap_or_default();
        (is_running && said.contains(" Restarts=1 ")).then_some(())
    };
    site.slurm.wait_for(&site.prefix(), "second start", has_begun_anew).unwrap();
    let summary = site.ground.complete(run).unwrap();
    assert_eq!(before.len(), 1);
    assert!(!site.workers().contains(&before[0]), "it has another worker");
    let trial = &summary["trials"][0];
    assert_eq!(
        (trial["attempts"].as_u64(), trial["restarts"].as_u64()),
        (Some(2), Some(0)),
        "{summary}"
    );
    assert!(exported_weights(site.directory(), "gang-1").unwrap() == wanted, "the same bits");
    assert_eq!(site.jobs().len(), 1, "nothing was asked for besides: {:?}", site.jobs());
    site.await_nothing_left();
}

#[test]
fn a_gang_of_four_has_an_allocation_of_two_nodes_and_a_gpu_for_each_rank() {
    let name = "a_gang_of_four_has_an_allocation_of_two_nodes_and_a_gpu_for_each_rank";
    let profile = "max_allocations = 1\nnodes = 2\nworkers_per_node = 2\ndrain_seconds = 20\n";
    let gang = GANG.replace("{slots: 2}", "{slots: 4}");
    let Some(site) = Site::new(name, &gang, 600, profile) else { return };
    let run = site.ground.run(1).unwrap();
    let runners = site.processes("muster-worker runner");
    for pid in &runners {
        send_signal("STOP", *pid).unwrap();
    }
    let mut gpus: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pid in site.workers() {
        let of = |name: &str| variable(pid, name).unwrap_or_else(|| panic!("{pid} has no {name}"));
        gpus.entry(of("SLURMD_NODENAME")).or_default().push(of("CUDA_VISIBLE_DEVICES"));
    }
    for pid in &runners {
        send_signal("CONT", *pid).unwrap();
    }
    assert_eq!(runners.len(), 4, "{gpus:?}");
    assert_eq!(gpus.len(), 2, "two nodes: {gpus:?}");
    for (node, gpus) in &mut gpus {
        gpus.sort_unstable();
        // Which ones they are depends on who else is on the node; alone they are 0 and 1.
        let is_one = |gpu: &String| gpu.parse::<u32>().is_ok();
        assert!(gpus.len() == 2 && gpus.iter().all(is_one), "one for each: {node} {gpus:?}");
        assert_ne!(gpus[0], gpus[1], "shared with nobody: {node}");
    }
    let summary = site.ground.complete(run).unwrap();
    assert_eq!(summary["trials"][0]["attempts"], 1, "{summary}");
    assert_eq!(site.jobs().len(), 1, "one allocation: {:?}", site.jobs());
    site.await_nothing_left();
}
