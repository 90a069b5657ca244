//! A directory with a manifest and a cluster of Slurm, and the real programs in it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use muster_tests::gang::Laboratory;
use muster_tests::process::{Muster, PATIENCE, is_alive, processes_with, program};
use muster_tests::sample::repository;
use muster_tests::service::{await_words, served_address};
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

/// A directory with a manifest and a cluster, and where its coordinator listens.
pub(crate) struct Site {
    pub(crate) slurm: &'static Slurm,
    pub(crate) laboratory: Laboratory,
    pub(crate) port: u16,
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
        let model = repository().join("tests/golden/hf/families/bert-classification");
        let laboratory = Laboratory::new(&model, 60, settings).unwrap();
        let directory = laboratory.directory.path();
        let text = laboratory.text.replace("{steps: 1000000}", &format!("{{steps: {steps}}}"));
        fs::write(directory.join("gang.yaml"), text).unwrap();
        let nodes = if profile.contains("options") { "" } else { STURDY };
        let poll = if profile.contains("poll_seconds") { "" } else { POLL };
        let whole = format!("{PROFILE}{poll}{nodes}{profile}");
        fs::write(directory.join("cluster.toml"), whole).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(Self { slurm, laboratory, port })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.laboratory.directory.path()
    }

    /// Starts `muster` with the cluster.
    pub(crate) fn start(&self, label: &str, arguments: &[&str], path: Option<&Path>) -> Muster {
        let mut command = self.slurm.command(program("muster").unwrap().to_str().unwrap());
        command.env("MUSTER_LISTEN", format!("127.0.0.1:{}", self.port));
        command.env("AWS_SECRET_ACCESS_KEY", "hunter2");
        if let Some(path) = path {
            let usual = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{usual}", path.display()));
        }
        let arguments = [arguments, &["--cluster", "cluster.toml"]].concat();
        Muster::start_command(command, self.directory(), label, &arguments).unwrap()
    }

    /// `muster serve`, once it answers.
    pub(crate) fn serve(&self, label: &str) -> Muster {
        let mut server = self.start(label, &["serve"], None);
        served_address(&mut server).unwrap();
        server
    }

    /// What a client prints that ends well.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let owner = self.directory().join("muster-data/coordinator/access.json");
        let url = format!("http://127.0.0.1:{}", self.port);
        let mut command = Command::new(program("muster").unwrap());
        // Where there is an access file it names the address.
        let named = ["--coordinator", url.as_str()];
        let named: &[&str] = if owner.is_file() { &[] } else { &named };
        if owner.is_file() {
            command.env("MUSTER_ACCESS", owner);
        }
        let arguments = [arguments, named].concat();
        let client = Muster::start_command(command, self.directory(), "client", &arguments);
        client.unwrap().succeed().unwrap().0
    }

    /// Asks until the answer says these words.
    pub(crate) fn await_words(&self, arguments: &[&str], words: &str) -> String {
        await_words(words, || Ok(self.ask(arguments))).unwrap()
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
        pids
    }

    /// Waits until no process is left that jobs of this coordinator have started.
    pub(crate) fn await_no_process(&self) {
        let begun = Instant::now();
        while self.processes("muster-worker").iter().any(|pid| is_alive(*pid)) {
            assert!(begun.elapsed() < PATIENCE, "workers are left behind");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A variable of a process's environment, as it was started.
pub(crate) fn variable(pid: u32, name: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let of = |entry: &str| entry.strip_prefix(name)?.strip_prefix('=').map(ToOwned::to_owned);
    text.split('\0').find_map(of)
}
