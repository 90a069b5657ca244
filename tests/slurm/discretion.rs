//! What others see of a coordinator: no secret, and few questions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_common::access::Access;
use muster_tests::gang::FOUR_TRIALS;
use muster_tests::ground::ONE;
use muster_tests::process::send_signal;
use muster_tests::service::{await_checkpoints, served_address};

use crate::site::{Site, variable};

/// The command lines of all processes.
fn command_lines() -> String {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn workers_get_in_with_a_token_that_nobody_else_sees() {
    let name = "workers_get_in_with_a_token_that_nobody_else_sees";
    let profile = "max_allocations = 1\nidle_seconds = 3\ndrain_seconds = 20\n";
    let Some(site) = Site::new(name, ONE, 600, profile) else { return };
    let mut server = site.start("serve", &["serve", "--tls", "auto"], None);
    let url = served_address(&mut server).unwrap();
    assert!(url.starts_with("https://"), "{url}");
    site.ask(&["submit", "gang.yaml"]);
    await_checkpoints(site.directory(), "gang-1", 2).unwrap();
    let runners = site.processes("muster-worker runner");
    assert_eq!(runners.len(), 1);
    send_signal("STOP", runners[0]).unwrap();

    let job = site.await_running(1).remove(0);
    let worker = site.workers()[0];
    let file = PathBuf::from(variable(worker, "MUSTER_ACCESS").unwrap());
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    let read = |file: &Path| Access::read(file).unwrap().token.unwrap().reveal();
    let own = read(&file);
    let owner = read(&site.directory().join("muster-data/coordinator/access.json"));
    assert_ne!(own, owner, "a worker has less than its owner");
    let script = site.slurm.ask("scontrol", &["write", "batch_script", &job.id, "-"]).unwrap();
    let shown = site.slurm.ask("scontrol", &["--details", "show", "job", &job.id]).unwrap();
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    for (place, text, usual) in [
        ("a command line", command_lines(), "muster-worker supervise"),
        ("the batch script", script, "MUSTER_ACCESS"),
        ("what Slurm shows", shown, "JobName=muster-"),
        ("the environment", environment, "MUSTER_ACCESS="),
    ] {
        assert!(text.contains(usual), "{place} is not what was looked at: {text}");
        for token in [&own, &owner] {
            assert!(!text.contains(token.as_str()), "a token stands in {place}");
        }
    }
    send_signal("CONT", runners[0]).unwrap();
    site.await_words(&["ls"], "completed");
    site.await_nothing_left();
}

/// A folder with a `squeue` that notes its arguments in `asked` and asks the real one.
fn counting_squeue(directory: &Path) -> PathBuf {
    let folder = directory.join("counting");
    fs::create_dir(&folder).unwrap();
    let asked = directory.join("asked").display().to_string();
    let text = format!("#!/bin/sh\necho \"$*\" >>{asked}\nexec /usr/bin/squeue \"$@\"\n");
    fs::write(folder.join("squeue"), text).unwrap();
    fs::set_permissions(folder.join("squeue"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn slurm_is_asked_for_all_jobs_at_once_seldom_and_only_while_there_are_some() {
    let name = "slurm_is_asked_for_all_jobs_at_once_seldom_and_only_while_there_are_some";
    let profile = "max_allocations = 2\nidle_seconds = 3\ndrain_seconds = 20\npoll_seconds = 3\n";
    let Some(site) = Site::new(name, FOUR_TRIALS, 600, profile) else { return };
    let folder = counting_squeue(site.directory());
    // Batch scripts may ask for their own end, by the number of their job.
    let count = || {
        let asked = fs::read_to_string(site.directory().join("asked")).unwrap_or_default();
        asked.lines().filter(|line| line.contains("--user")).count()
    };
    let begun = Instant::now();
    let mut server = site.start("serve", &["serve"], Some(&folder));
    served_address(&mut server).unwrap();
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(count(), 1, "it looks once what is there from before");
    site.ask(&["submit", "gang.yaml"]);
    site.await_running(2);
    site.await_words(&["ls"], "completed");
    site.await_nothing_left();
    // It has to see that itself, and how they have ended.
    std::thread::sleep(Duration::from_secs(8));
    let asked = count();
    let most = usize::try_from(begun.elapsed().as_secs() / 3).unwrap() + 2;
    assert!((4..=most).contains(&asked), "{asked} questions, {most} at most");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(count(), asked, "nobody asks while there is nothing");
}
