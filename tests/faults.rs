//! What can happen to a gang on a real cluster, with real processes: hosts that lose each other, a worker
//! that goes and one that comes, a rank without memory, a disk that is full.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use muster_tests::gang::Laboratory;
use muster_tests::hosts::{Host, Hosts};
use muster_tests::limits::{Disk, MemoryLimit};
use muster_tests::process::{Muster, descendants, send_signal};
use muster_tests::sample::repository;
use muster_tests::service::{Place, Service, await_checkpoints, exported_weights};
use muster_tests::skip;

/// Writes a gang's data and manifest into a new directory.
fn prepare(slots: &str, steps: u64) -> Laboratory {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let settings = format!(
        "hyperparameters: {{learning_rate: 1e-3, global_batch_size: 9, micro_batch_size: 2, dropout: 0.2}}
checkpoint: {{every_steps: 50}}
resources: {{slots: {slots}}}
training: {{step_deadline_s: 20}}
"
    );
    let laboratory = Laboratory::new(&model, 60, &settings).unwrap();
    let text = laboratory.text.replace("{steps: 1000000}", &format!("{{steps: {steps}}}"));
    fs::write(laboratory.directory.path().join("gang.yaml"), text).unwrap();
    fs::write(laboratory.directory.path().join("muster.toml"), "max_slots = 3\n").unwrap();
    laboratory
}

/// The weights of a run that nothing happens to.
fn undisturbed(slots: u32, steps: u64) -> Vec<u8> {
    let quiet = prepare(&slots.to_string(), steps);
    let directory = quiet.directory.path();
    // As many threads as a worker that dials in has: sums in another order have other bits.
    let slots = slots.to_string();
    let run = ["run", "gang.yaml", "--slots", &slots, "--threads-per-slot", "1"];
    Muster::start(directory, "quiet", &run).unwrap().succeed().unwrap();
    exported_weights(directory, "gang-1").unwrap()
}

/// Whether a thread of the process waits for its standard input: the first words of the file are the
/// number of the system call, 0 for `read` on this architecture, and its first argument.
fn reads_standard_input(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut calls = tasks.filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok());
    calls.any(|call| call.starts_with("0 0x0 "))
}

#[test]
fn two_hosts_that_lose_each_other_end_with_the_same_weights() {
    let hosts = match Hosts::new() {
        Ok(hosts) => hosts,
        Err(reason) => {
            return skip("two_hosts_that_lose_each_other_end_with_the_same_weights", &reason);
        }
    };
    let laboratory = prepare("2", 1500);
    let directory = laboratory.directory.path();
    let (first, second) = (Place::On(&hosts, Host::First), Place::On(&hosts, Host::Second));
    let service = Service::start(directory, first).unwrap();
    let _near = service.worker(first, "near").unwrap();
    let _far = service.worker(second, "far").unwrap();
    service.ask(first, &["submit", "gang.yaml"]).unwrap();
    await_checkpoints(directory, "gang-1", 2).unwrap();
    hosts.cut(Host::Second).unwrap();
    let said = service.wait_for(first, &["logs", "gang-1"], "the way to its host is cut").unwrap();
    println!("{said}");
    println!("{}", service.wait_for(first, &["ls"], "waiting").unwrap());
    hosts.heal(Host::Second).unwrap();
    let (result, told) = service.ask(first, &["watch", "gang-1"]).unwrap();
    println!("{result}\n{told}");
    assert!(result.contains("gang-1 completed"), "{result}");
    assert!(exported_weights(directory, "gang-1").unwrap() == undisturbed(2, 1500));
}

#[test]
fn an_elastic_gang_goes_on_with_fewer_and_grows_again() {
    let laboratory = prepare("{min: 2, max: 3, grace_seconds: 1}", 1200);
    let directory = laboratory.directory.path();
    // Nobody is lost but who is killed.
    fs::write(directory.join("muster.toml"), "lease_seconds = 8\nmax_slots = 3\n").unwrap();
    let service = Service::start(directory, Place::Here).unwrap();
    let mut workers: Vec<Muster> =
        ["w1", "w2", "w3"].map(|label| service.worker(Place::Here, label).unwrap()).into();
    service.await_workers(3).unwrap();
    service.ask(Place::Here, &["submit", "gang.yaml"]).unwrap();
    await_checkpoints(directory, "gang-1", 2).unwrap();
    workers[1].kill().unwrap();
    let told = |words: &str| {
        let mut watch = service.client(Place::Here, &["watch", "gang-1"]).unwrap();
        watch.wait_for(words, |watch| watch.stderr().contains(words).then_some(())).unwrap();
    };
    told("on 2 slots");
    // They stand still until another one is there, however fast this machine is.
    let runner = |worker: &Muster| descendants(worker.pid(), "muster-worker runner").pop();
    let runners = [0, 2].map(|index: usize| workers[index].wait_for("a runner", runner).unwrap());
    for pid in runners {
        send_signal("STOP", pid).unwrap();
    }
    let _again = service.worker(Place::Here, "w4").unwrap();
    service.await_workers(3).unwrap();
    for pid in runners {
        send_signal("CONT", pid).unwrap();
    }
    let (result, told) = service.ask(Place::Here, &["watch", "gang-1"]).unwrap();
    println!("{result}\n{told}");
    assert!(result.contains("gang-1 completed"), "{result}");
    let sizes: Vec<&str> = told
        .lines()
        .filter(|line| line.ends_with(" slots"))
        .filter_map(|line| line.rsplit(" on ").next())
        .collect();
    assert_eq!(sizes, ["3 slots", "2 slots", "3 slots"], "{told}");
}

#[test]
fn a_rank_without_memory_is_named_and_started_again() {
    let name = "a_rank_without_memory_is_named_and_started_again";
    let limit = match MemoryLimit::new(64 << 10) {
        Ok(limit) => limit,
        Err(reason) => return skip(name, &reason),
    };
    // The data is prepared by the first worker: the second has never done anything.
    let laboratory = prepare("1", 10);
    let directory = laboratory.directory.path();
    let service = Service::start(directory, Place::Here).unwrap();
    let _first = service.worker(Place::Here, "first").unwrap();
    service.ask(Place::Here, &["submit", "gang.yaml", "--watch"]).unwrap();
    let pair = prepare("2", 300);
    let text = fs::read_to_string(pair.directory.path().join("gang.yaml")).unwrap();
    let data = |of: &Laboratory| of.directory.path().join("data.csv").display().to_string();
    let text = text.replace(&data(&pair), &data(&laboratory));
    fs::write(directory.join("pair.yaml"), text).unwrap();
    let mut second = service.worker(Place::Here, "second").unwrap();
    let runner = second
        .wait_for("a runner that waits for work", |worker| {
            let runners = descendants(worker.pid(), "muster-worker runner");
            runners.first().copied().filter(|pid| reads_standard_input(*pid))
        })
        .unwrap();
    limit.hold(runner).unwrap();
    service.ask(Place::Here, &["submit", "pair.yaml"]).unwrap();
    let (result, told) = service.ask(Place::Here, &["watch", "gang-2"]).unwrap();
    println!("{result}\n{told}");
    assert!(result.contains("gang-2 completed"), "{result}");
    assert!(told.contains("failed (out of memory): rank 1"), "{told}");
    assert!(exported_weights(directory, "gang-2").unwrap() == undisturbed(2, 300));
}

#[test]
fn a_coordinator_whose_disk_is_full_says_so_and_goes_on_when_there_is_room() {
    let name = "a_coordinator_whose_disk_is_full_says_so_and_goes_on_when_there_is_room";
    // So many steps that the disk is full before they are done.
    let laboratory = prepare("1", 800);
    let directory = laboratory.directory.path();
    let disk = match Disk::mount(&directory.join("muster-data/coordinator"), 16) {
        Ok(disk) => disk,
        Err(reason) => return skip(name, &reason),
    };
    let mut service = Service::start(directory, Place::Here).unwrap();
    let worker = service.worker(Place::Here, "first").unwrap();
    service.ask(Place::Here, &["submit", "gang.yaml"]).unwrap();
    await_checkpoints(directory, "gang-1", 2).unwrap();
    disk.fill().unwrap();
    assert!(!service.server.wait().unwrap().success());
    let said = service.server.stderr();
    assert!(said.contains("error: no space is left for the journal"), "{said}");
    drop(worker);
    disk.clear().unwrap();
    let service = Service::start(directory, Place::Here).unwrap();
    let _worker = service.worker(Place::Here, "second").unwrap();
    let (result, _) = service.ask(Place::Here, &["watch", "gang-1"]).unwrap();
    assert!(result.contains("gang-1 completed"), "{result}");
    assert!(exported_weights(directory, "gang-1").unwrap() == undisturbed(1, 800));
}

#[test]
fn a_model_that_found_the_disk_full_is_written_when_there_is_room() {
    let name = "a_model_that_found_the_disk_full_is_written_when_there_is_room";
    let laboratory = prepare("1", 60);
    let directory = laboratory.directory.path();
    let text = fs::read_to_string(directory.join("gang.yaml")).unwrap();
    fs::write(directory.join("gang.yaml"), format!("{text}max_restarts: 1\n")).unwrap();
    // Only the model goes there: everything before it finds room.
    let disk = match Disk::mount(&directory.join("muster-data/experiments/gang-1/best"), 16) {
        Ok(disk) => disk,
        Err(reason) => return skip(name, &reason),
    };
    disk.fill().unwrap();
    let service = Service::start(directory, Place::Here).unwrap();
    let _worker = service.worker(Place::Here, "first").unwrap();
    service.ask(Place::Here, &["submit", "gang.yaml"]).unwrap();
    println!("{}", service.wait_for(Place::Here, &["ls"], "is tried again in").unwrap());
    let listed = service.wait_for(Place::Here, &["ls"], "muster resume gang-1").unwrap();
    assert!(listed.contains("writing the best model (disk full)"), "{listed}");
    assert!(listed.contains("all results are kept"), "{listed}");
    let mut watch = service.client(Place::Here, &["watch", "gang-1"]).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(1), "{}", watch.stderr());
    let (why, _) = service.ask(Place::Here, &["why", "gang-1/t1"]).unwrap();
    assert!(why.contains("its model is not written; `muster resume gang-1`"), "{why}");
    disk.clear().unwrap();
    service.ask(Place::Here, &["resume", "gang-1"]).unwrap();
    let (result, told) = service.ask(Place::Here, &["watch", "gang-1"]).unwrap();
    println!("{result}\n{told}");
    assert!(result.contains("gang-1 completed"), "{result}");
    assert!(exported_weights(directory, "gang-1").unwrap() == undisturbed(1, 60));
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_time_only() {
    let name = "a_disk_that_is_full_for_a_while_costs_time_only";
    let laboratory = prepare("2", 1500);
    let directory = laboratory.directory.path();
    let disk = match Disk::mount(&directory.join("muster-data/experiments"), 512) {
        Ok(disk) => disk,
        Err(reason) => return skip(name, &reason),
    };
    let service = Service::start(directory, Place::Here).unwrap();
    let workers = ["first", "second"].map(|label| service.worker(Place::Here, label).unwrap());
    service.ask(Place::Here, &["submit", "gang.yaml"]).unwrap();
    await_checkpoints(directory, "gang-1", 2).unwrap();
    disk.fill().unwrap();
    let waits = service.wait_for(Place::Here, &["ls"], "is tried again in").unwrap();
    disk.clear().unwrap();
    let (result, told) = service.ask(Place::Here, &["watch", "gang-1"]).unwrap();
    println!("{waits}\n{result}\n{told}");
    drop(workers);
    assert!(result.contains("gang-1 completed"), "{result}");
    assert!(exported_weights(directory, "gang-1").unwrap() == undisturbed(2, 1500));
}
