//! The real programs under a real Slurm: a sweep to its end although jobs are canceled from outside or a node fails,
//! a time limit in the middle of a trial, a node that is drained, a coordinator that is killed and started again,
//! workers as steps of an allocation. Nothing is asked for twice, nothing is left behind, and nothing is lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod discretion;
mod lifetime;
mod site;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use muster_coordinator::access::WorkerAccess;
use muster_coordinator::launcher::cluster::Identity;
use muster_coordinator::launcher::profile::Profile;
use muster_coordinator::launcher::slurm::Slurm as Cluster;
use muster_coordinator::launcher::slurm::script::Start;
use muster_tests::cluster::{Parties, conform};
use muster_tests::gang::FOUR_TRIALS;
use muster_tests::ground::{GANG, ONE, SECRET, SWEEP, come_back, live_on};
use muster_tests::process::{descendants, processes_with, program, send_signal};
use muster_tests::service::{await_checkpoints, exported_weights, summary, undisturbed_weights};
use muster_tests::skip;
use muster_tests::slurm::{JobLine, Slurm};

use site::{Site, variable};

/// Of the test that lets a node fail: three, one job on each.
const FRAIL: &str = "exclusive = true\noptions = {exclude = \"n[1-2,6-7]\"}\n";
/// Of the test that drains a node.
const DRAINED: &str = "options = {exclude = \"n[1-5]\"}\n";

#[test]
fn slurm_keeps_what_every_cluster_has_to() {
    let slurm = match Slurm::shared() {
        Ok(slurm) => slurm,
        Err(reason) => return skip("slurm_keeps_what_every_cluster_has_to", &reason),
    };
    let party = |number: u8, option: (&str, &str)| {
        let profile = Profile {
            gpus_per_worker: 0,
            options: [(option.0.to_owned(), option.1.to_owned())].into(),
            ..Profile::default()
        };
        let start = Start {
            access: WorkerAccess { url: "http://127.0.0.1:9".to_owned(), file: None },
            worker_binary: "/bin/true".into(),
            output: "/tmp".into(),
            log: "info".to_owned(),
            log_format: "text".to_owned(),
        };
        let environment = std::env::vars();
        let own = std::iter::once(("SLURM_CONF".to_owned(), slurm.configuration()));
        let environment = environment.filter(|(name, _)| name != "SLURM_CONF").chain(own);
        let [a, b, c, d] = std::process::id().to_be_bytes();
        let identity = Identity::of_bytes([a, b, c, d, 0, number]);
        Cluster::new(profile.checked().unwrap(), start, identity, environment)
    };
    let parties = Parties {
        own: party(1, ("begin", "now+1hour")),
        other: party(2, ("begin", "now+1hour")),
        refused: party(3, ("licenses", "nowhere")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(conform(&parties)).unwrap();
}

#[test]
fn slurm_keeps_what_everything_has_to_that_starts_workers() {
    let name = "slurm_keeps_what_everything_has_to_that_starts_workers";
    let profile = "max_allocations = 2\nidle_seconds = 6\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, FOUR_TRIALS, 600, profile) else { return };
    let _idle = live_on(&site.ground, || site.workers()).unwrap();
    site.await_nothing_left();
}

#[test]
fn a_sweep_ends_well_although_a_job_is_canceled_from_outside() {
    let name = "a_sweep_ends_well_although_a_job_is_canceled_from_outside";
    let profile = "max_allocations = 2\nworkers_per_node = 2\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, SWEEP, 1200, profile) else { return };
    let run = site.ground.run(2).unwrap();
    let victim = site.await_running(1).remove(0);
    // No secret is where others could see it.
    let script = site.slurm.ask("scontrol", &["write", "batch_script", &victim.id, "-"]).unwrap();
    assert!(script.contains("supervise") && !script.contains(SECRET), "{script}");
    site.slurm.ask("scancel", &[&victim.id]).unwrap();

    let summary = site.ground.complete(run).unwrap();
    let trials = summary["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 4);
    for trial in trials {
        assert_eq!(trial["restarts"], 0, "nobody's fault: {trial}");
    }
    let jobs = site.jobs();
    assert!(jobs.len() >= 2, "another came for it: {jobs:?}");
    site.await_nothing_left();
    site.await_no_process();
}

#[test]
fn a_node_that_fails_in_the_middle_of_a_sweep_loses_nothing() {
    let name = "a_node_that_fails_in_the_middle_of_a_sweep_loses_nothing";
    let profile = format!("{FRAIL}max_allocations = 2\nidle_seconds = 120\ndrain_seconds = 20\n");
    let Some(site) = Site::new(name, FOUR_TRIALS, 1000, &profile) else { return };
    let wanted = undisturbed_weights(site.directory(), "2").unwrap();
    let run = site.ground.run(2).unwrap();
    let why = site.ask(&["why", "gang-1/t1"]);
    let (_, place) = why.split_once(" on ").unwrap();
    let (node, _) = place.split_once(" trains to ").unwrap();
    // It stands still, so that it has not ended by itself when its node fails.
    let named = |environment: &str| {
        let wanted = format!("SLURMD_NODENAME={node}");
        environment.contains(&site.prefix()) && environment.lines().any(|line| line == wanted)
    };
    let runners = processes_with("muster-worker runner", named);
    assert_eq!(runners.len(), 1, "{why}");
    send_signal("STOP", runners[0]).unwrap();
    let both = site.await_running(2);
    let victim = both.iter().find(|job| job.nodes == node).unwrap();
    site.slurm.fail_node(&victim.nodes).unwrap();
    // Slurm takes its time to notice; Muster has long gone on elsewhere.
    let has_left = |jobs: &[JobLine]| {
        let is_there = |job: &&JobLine| job.state == "RUNNING" && job.nodes == victim.nodes;
        jobs.iter().find(is_there).is_none().then_some(())
    };
    site.slurm.wait_for(&site.prefix(), "end on the failed node", has_left).unwrap();

    let summary = site.ground.complete(run).unwrap();
    let count = |field: &str| {
        let trials = summary["trials"].as_array().unwrap();
        trials.iter().map(|trial| trial[field].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(count("restarts"), [1, 0, 0, 0], "{summary}");
    assert_eq!(count("attempts"), [2, 1, 1, 1], "nothing was done twice: {summary}");
    assert!(exported_weights(site.directory(), "gang-1").unwrap() == wanted, "the same bits");
    let jobs = site.jobs();
    let names: BTreeSet<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names.len(), jobs.len(), "no allocation is there twice: {jobs:?}");
    site.await_nothing_left();
}

#[test]
fn a_node_that_is_drained_keeps_its_job_and_gets_no_other() {
    let name = "a_node_that_is_drained_keeps_its_job_and_gets_no_other";
    let profile = format!("{DRAINED}max_allocations = 1\nidle_seconds = 60\ndrain_seconds = 20\n");
    let Some(site) = Site::new(name, ONE, 1500, &profile) else { return };
    let wanted = undisturbed_weights(site.directory(), "1").unwrap();
    let server = site.serve("serve");
    site.ask(&["submit", "gang.yaml"]);
    await_checkpoints(site.directory(), "gang-1", 2).unwrap();
    let first = site.await_running(1).remove(0);
    let node = format!("nodename={}", first.nodes);
    let update = ["update", &node, "state=drain", "reason=tests"];
    site.slurm.ask("scontrol", &update).unwrap();
    let standing = ["--noheader", "--nodes", &first.nodes, "--format=%T"];
    assert_eq!(site.slurm.ask("sinfo", &standing).unwrap().trim(), "draining");
    // Nobody takes the job away; when it ends all the same, the next one begins elsewhere.
    assert_eq!(site.await_running(1), std::slice::from_ref(&first));
    site.slurm.ask("scancel", &[&first.id]).unwrap();
    let another = |jobs: &[JobLine]| {
        let is_it = |job: &&JobLine| job.state == "RUNNING" && job.id != first.id;
        jobs.iter().find(is_it).cloned()
    };
    let second = site.slurm.wait_for(&site.prefix(), "another job", another).unwrap();
    assert_ne!(second.nodes, first.nodes);
    site.await_words(&["ls"], "completed");
    assert!(exported_weights(site.directory(), "gang-1").unwrap() == wanted, "the same bits");
    let why = site.ask(&["why", "gang-1/t1"]);
    assert!(!why.contains("lost with a worker"), "it was nobody's fault: {why}");
    if site.slurm.has_accounts() {
        let end = format!("job {} has ended: somebody has canceled it (CANCELLED by 0", first.id);
        site.await_words(&["ls"], &end);
    } else {
        let said = server.stderr();
        assert_eq!(said.matches("keeps no records").count(), 1, "it is said once: {said}");
    }
    drop(server);
    for job in site.jobs().iter().filter(|job| !job.is_over()) {
        site.slurm.ask("scancel", &[&job.id]).unwrap();
    }
}

#[test]
fn a_time_limit_in_the_middle_of_a_trial_costs_nothing() {
    let name = "a_time_limit_in_the_middle_of_a_trial_costs_nothing";
    let profile = "max_allocations = 2\ntime_minutes = 1\ndrain_seconds = 29\nidle_seconds = 3\n";
    let Some(site) = Site::new(name, ONE, 1500, profile) else { return };
    let wanted = undisturbed_weights(site.directory(), "1").unwrap();
    let server = site.serve("serve");
    site.ask(&["submit", "gang.yaml"]);
    await_checkpoints(site.directory(), "gang-1", 2).unwrap();
    // It stands still until it is told to leave, however fast this machine is.
    let runners = site.processes("muster-worker runner");
    assert_eq!(runners.len(), 1);
    send_signal("STOP", runners[0]).unwrap();
    site.await_words(&["why", "gang-1/t1"], "leaves its slots");
    send_signal("CONT", runners[0]).unwrap();

    site.await_words(&["ls"], "completed");
    assert!(exported_weights(site.directory(), "gang-1").unwrap() == wanted, "the same bits");
    let why = site.ask(&["why", "gang-1/t1"]);
    assert!(!why.contains("lost with a worker"), "it counts as no failure: {why}");
    let jobs = site.jobs();
    assert!(jobs.len() >= 2, "{jobs:?}");
    assert!(jobs.iter().all(|job| job.state != "TIMEOUT"), "it left before: {jobs:?}");
    // What has nothing to do is given back.
    site.await_nothing_left();
    drop(server);
}

#[test]
fn a_killed_coordinator_finds_its_jobs_again() {
    let name = "a_killed_coordinator_finds_its_jobs_again";
    let profile = "max_allocations = 1\nidle_seconds = 3\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, ONE, 1500, profile) else { return };
    let runners = || site.processes("muster-worker runner");
    let away = || assert_eq!(site.jobs().len(), 1);
    let again = come_back(&site.ground, runners, away, || ()).unwrap();
    assert_eq!(site.jobs().len(), 1, "nothing was asked for twice");
    site.await_nothing_left();
    drop(again);
}

/// A folder with an `sbatch` that asks the real one, says so, and never comes back.
fn slow_sbatch(directory: &Path) -> PathBuf {
    let folder = directory.join("slow");
    fs::create_dir(&folder).unwrap();
    let text = format!(
        "#!/bin/sh\n/usr/bin/sbatch \"$@\"\ntouch {}\nexec sleep 600\n",
        directory.join("submitted").display()
    );
    fs::write(folder.join("sbatch"), text).unwrap();
    fs::set_permissions(folder.join("sbatch"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_coordinator_killed_before_the_answer_asks_once() {
    let name = "a_coordinator_killed_before_the_answer_asks_once";
    let profile = "max_allocations = 1\nidle_seconds = 3\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, ONE, 300, profile) else { return };
    let folder = slow_sbatch(site.directory());
    let mut first = site.start("first", &["run", "gang.yaml"], Some(&folder));
    let marker = site.directory().join("submitted");
    first.wait_for("submission", |_| marker.is_file().then_some(())).unwrap();
    let sleepers = descendants(first.pid(), "sleep 600");
    first.kill().unwrap();
    for pid in sleepers {
        send_signal("KILL", pid).unwrap();
    }
    assert_eq!(site.jobs().len(), 1);
    let arguments = ["run", "--resume", "--summary", "summary.json"];
    site.start("second", &arguments, None).succeed().unwrap();
    assert_eq!(summary(site.directory()).unwrap()["state"], "completed");
    assert_eq!(site.jobs().len(), 1, "it was found again");
    site.await_nothing_left();
}

#[test]
fn workers_share_gpus_where_the_profile_says_so() {
    let name = "workers_share_gpus_where_the_profile_says_so";
    let profile =
        "max_allocations = 1\nworkers_per_node = 4\nslots_per_gpu = 2\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, ONE, 600, profile) else { return };
    let server = site.serve("serve");
    site.ask(&["submit", "gang.yaml"]);
    site.await_words(&["ls"], "workers 4");
    let place =
        |pid| variable(pid, "CUDA_VISIBLE_DEVICES").zip(variable(pid, "MUSTER_SLOTS_ON_GPU"));
    let mut found: Vec<(String, String)> = site.workers().into_iter().filter_map(place).collect();
    found.sort();
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|(gpu, shared)| !gpu.contains(',') && shared == "2"), "{found:?}");
    assert!(found[0] == found[1] && found[2] == found[3] && found[1] != found[2], "{found:?}");
    site.await_words(&["ls"], "completed");
    drop(server);
    for job in site.jobs().iter().filter(|job| !job.is_over()) {
        site.slurm.ask("scancel", &[&job.id]).unwrap();
    }
}

#[test]
fn inside_an_allocation_workers_are_steps_of_it() {
    let name = "inside_an_allocation_workers_are_steps_of_it";
    let Some(site) = Site::new(name, GANG, 300, "drain_seconds = 20\n") else { return };
    let (directory, port) = (site.directory().display(), site.ground.port);
    let job = format!("inside-{port}");
    let script = format!(
        "#!/bin/bash
#SBATCH --job-name={job} --nodes=2 --ntasks=2 --ntasks-per-node=1 --gpus-per-task=1 --time=5
#SBATCH --exclude=n[3-7]
#SBATCH --chdir={directory} --output={directory}/inside.log
export MUSTER_LISTEN=127.0.0.1:{port}
exec {} run gang.yaml --cluster cluster.toml --summary summary.json
",
        program("muster").unwrap().display()
    );
    let file = site.directory().join("inside.sh");
    fs::write(&file, script).unwrap();
    site.slurm.ask("sbatch", &[file.to_str().unwrap()]).unwrap();
    let over = |jobs: &[JobLine]| jobs.first().filter(|job| job.is_over()).cloned();
    let ended = site.slurm.wait_for(&job, "end of it", over).unwrap();
    let said = fs::read_to_string(site.directory().join("inside.log")).unwrap_or_default();
    assert_eq!(ended.state, "COMPLETED", "{said}");
    let summary = summary(site.directory()).unwrap();
    assert_eq!(summary["state"], "completed", "{summary}");
    assert_eq!(site.jobs(), [], "nothing was submitted");
}

#[test]
fn what_cannot_be_had_says_why() {
    let name = "what_cannot_be_had_says_why";
    let profile = "max_allocations = 1\npartition = \"nowhere\"\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, ONE, 300, profile) else { return };
    let server = site.serve("serve");
    site.ask(&["submit", "gang.yaml"]);
    site.await_words(&["ls"], "invalid partition specified: nowhere");
    assert_eq!(site.jobs(), []);
    drop(server);

    let profile =
        "max_allocations = 1\nnodes = 4\noptions = {begin = \"now+1hour\"}\ndrain_seconds = 20\n";
    let site = Site::new(name, ONE, 300, profile).unwrap();
    let mut run = site.start("run", &["run", "gang.yaml"], None);
    site.slurm.wait_for(&site.prefix(), "job", |jobs| (!jobs.is_empty()).then_some(())).unwrap();
    site.await_words(&["ls"], "waits in the cluster's queue: BeginTime");
    // Interrupted, it leaves nothing behind.
    send_signal("INT", run.pid()).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    site.await_nothing_left();
}
