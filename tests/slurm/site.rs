//! A directory with a manifest and a cluster of Slurm, and the real programs in it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use muster_tests::ground::Ground;
use muster_tests::process::{
    Muster, PATIENCE, await_ends, is_alive, processes_with, without_children,
};
use muster_tests::skip;
use muster_tests::slurm::{JobLine, Slurm};
use serde_json::Value;

/// Of every cluster here: small and impatient.
const PROFILE: &str = "gpus_per_worker = 1
device = \"cpu\"
cpus_per_worker = 1
renew_seconds = 40
";
/// Where a test says nothing else.
const POLL: &str = "poll_seconds = 1\n";
/// Two nodes are enough for most; nothing happens to them.
const STURDY: &str = "options = {exclude = \"n[3-7]\"}\n";

/// A directory with a manifest and a cluster of Slurm.
pub(crate) struct Site {
    pub(crate) slurm: &'static Slurm,
    pub(crate) ground: Ground,
}

impl Site {
    /// `None`: it cannot be had here, which has been said.
    pub(crate) fn new(test: &str, settings: &str, steps: u32, profile: &str) -> Option<Self> {
        let slurm = match Slurm::shared() {
            Ok(slurm) => slurm,
            Err(reason) => {
                skip(test, &reason);
                return None;
            }
        };
        let nodes = if profile.contains("options") { "" } else { STURDY };
        let poll = if profile.contains("poll_seconds") { "" } else { POLL };
        let whole = format!("{PROFILE}{poll}{nodes}{profile}");
        let ground = Ground::new(settings, steps, &whole).unwrap();
        let ground = ground.with("SLURM_CONF", slurm.configuration());
        Some(Self { slurm, ground })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.ground.directory()
    }

    /// Starts `muster` with the cluster.
    pub(crate) fn start(&self, label: &str, arguments: &[&str], path: Option<&Path>) -> Muster {
        let mut command = self.ground.command().unwrap();
        if let Some(path) = path {
            let usual = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{usual}", path.display()));
        }
        self.ground.start_command(command, label, arguments).unwrap()
    }

    /// `muster serve`, once it answers.
    pub(crate) fn serve(&self, label: &str) -> Muster {
        self.ground.serve(label).unwrap()
    }

    /// What a client prints that ends well.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        self.ground.ask(arguments).unwrap()
    }

    /// Asks until the answer says these words.
    pub(crate) fn await_words(&self, arguments: &[&str], words: &str) -> String {
        self.ground.await_words(arguments, words).unwrap()
    }

    /// What the names of this coordinator's jobs begin with.
    pub(crate) fn prefix(&self) -> String {
        let path = self.directory().join("muster-data/coordinator/allocations.json");
        let begun = Instant::now();
        let text = loop {
            if let Ok(text) = fs::read_to_string(&path) {
                break text;
            }
            assert!(begun.elapsed() < PATIENCE, "no {}", path.display());
            std::thread::sleep(Duration::from_millis(20));
        };
        let record: Value = serde_json::from_str(&text).unwrap();
        format!("muster-{}-", record["identity"].as_str().unwrap())
    }

    /// Every job that this coordinator ever had.
    pub(crate) fn jobs(&self) -> Vec<JobLine> {
        self.slurm.jobs(&self.prefix()).unwrap()
    }

    pub(crate) fn await_running(&self, number: usize) -> Vec<JobLine> {
        let running = |jobs: &[JobLine]| {
            let running = jobs.iter().filter(|job| job.state == "RUNNING").cloned();
            let running: Vec<JobLine> = running.collect();
            (running.len() >= number).then_some(running)
        };
        self.slurm.wait_for(&self.prefix(), "running jobs", running).unwrap()
    }

    pub(crate) fn await_nothing_left(&self) {
        let over = |jobs: &[JobLine]| jobs.iter().all(JobLine::is_over).then_some(());
        self.slurm.wait_for(&self.prefix(), "end of all jobs", over).unwrap();
    }

    /// Processes with these words in their command line that were started by jobs of this coordinator.
    pub(crate) fn processes(&self, words: &str) -> Vec<u32> {
        let allocation = format!("MUSTER_ALLOCATION={}", self.prefix());
        processes_with(words, |environment| {
            environment.lines().any(|line| line.starts_with(&allocation))
        })
    }

    /// The processes of the workers, without the `srun` whose command line has the same words.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let mut pids = self.processes("muster-worker supervise");
        let is_worker = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "muster-worker" && is_alive(*pid)
        };
        pids.retain(is_worker);
        pids.sort_unstable();
        without_children(&pids)
    }

    /// Waits until no process is left that jobs of this coordinator have started.
    pub(crate) fn await_no_process(&self) {
        await_ends(|| self.processes("muster-worker")).unwrap();
    }
}

/// A variable of a process's environment, as it was started.
pub(crate) fn variable(pid: u32, name: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let of = |entry: &str| entry.strip_prefix(name)?.strip_prefix('=').map(ToOwned::to_owned);
    text.split('\0').find_map(of)
}
