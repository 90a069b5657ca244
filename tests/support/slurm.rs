//! A real Slurm, one for each test program: a controller and several emulated nodes with fake GPUs. It ends
//! with the program, however that ends.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::process::{PATIENCE, processes_with, send_signal};
use crate::sample::repository;

/// Emulated nodes, `n1` and so on, with eight processors each. Tests of nodes that fail or are drained have some for
/// themselves.
pub const NUM_NODES: u16 = 7;
/// Fake GPUs of each.
const NUM_GPUS: u16 = 8;

/// The running daemons.
#[derive(Debug)]
pub struct Slurm {
    /// Whose standard input keeps them alive.
    _keeper: Child,
    directory: PathBuf,
}

/// A job as `squeue` shows it, those that are over included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLine {
    /// Its number.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state, as Slurm writes it.
    pub state: String,
    /// Its nodes.
    pub nodes: String,
}

impl JobLine {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        !["PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED"]
            .contains(&self.state.as_str())
    }
}

impl Slurm {
    /// The Slurm of this test program, or why there is none.
    pub fn shared() -> Result<&'static Self, String> {
        static SLURM: OnceLock<Result<Slurm, String>> = OnceLock::new();
        SLURM.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self, String> {
        if !rustix::process::getuid().is_root() {
            return Err("root: only root can start the daemons of Slurm".to_owned());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there =
            |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
        if !["slurmctld", "slurmd", "munged", "sbatch"].into_iter().all(is_there) {
            return Err("slurm: Slurm is not installed; run deploy/setup/slurm.sh".to_owned());
        }
        Self::spawn().map_err(|error| format!("slurm: it does not start here: {error:#}"))
    }

    fn spawn() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("muster-slurm-").tempdir()?.keep();
        let port = free_ports()?;
        let mut keeper = Command::new(repository().join("tests/support/slurm.sh"))
            .arg(&directory)
            .args([port, NUM_NODES, NUM_GPUS].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = keeper.stdout.take().context("its output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("the nodes do not come up");
        }
        Ok(Self { _keeper: keeper, directory })
    }

    /// The value of `SLURM_CONF`.
    pub fn configuration(&self) -> String {
        self.directory.join("slurm.conf").display().to_string()
    }

    /// Whether `sacct` knows of what is over.
    pub fn has_accounts(&self) -> bool {
        let text = std::fs::read_to_string(self.configuration()).unwrap_or_default();
        text.contains("accounting_storage/slurmdbd")
    }

    /// Runs one of Slurm's commands, or another program among its nodes.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.configuration());
        command
    }

    /// What a command prints that ends well.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(program).args(arguments).output()?;
        if !output.status.success() {
            bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Every job whose name begins with `prefix`, oldest first.
    pub fn jobs(&self, prefix: &str) -> anyhow::Result<Vec<JobLine>> {
        let arguments =
            ["--noheader", "--array", "--states=all", "--sort=i", "--format=%i|%j|%T|%N"];
        let text = self.ask("squeue", &arguments)?;
        let job = |line: &str| {
            let mut fields = line.split('|').map(|field| field.trim().to_owned());
            let [id, name, state, nodes] = [(); 4].map(|()| fields.next().unwrap_or_default());
            JobLine { id, name, state, nodes }
        };
        Ok(text.lines().map(job).filter(|job| job.name.starts_with(prefix)).collect())
    }

    /// A node loses its power: its daemon, those of its steps and everything that jobs have started there is gone at
    /// once, and nobody is told.
    pub fn fail_node(&self, node: &str) -> anyhow::Result<()> {
        let file = self.directory.join(format!("run/slurmd.{node}.pid"));
        let daemon: u32 = std::fs::read_to_string(&file)?.trim().parse()?;
        // Whoever cleans up later must not take somebody else for it.
        std::fs::remove_file(&file)?;
        // The daemon of a step writes to the node's log.
        let log = self.directory.join(format!("log/slurmd.{node}.log"));
        let writes = |pid: u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
            files.flatten().flat_map(|file| std::fs::read_link(file.path())).any(|to| to == log)
        };
        let mut steps = processes_with("slurmstepd: ", |_| true);
        steps.retain(|pid| writes(*pid));
        let (name, own) =
            (format!("SLURMD_NODENAME={node}"), format!("SLURM_CONF={}", self.configuration()));
        let is_there = |environment: &str| {
            let has = |wanted: &str| environment.lines().any(|line| line == wanted);
            has(&name) && has(&own)
        };
        let jobs = processes_with("", is_there);
        send_signal("KILL", daemon)?;
        for pid in steps.into_iter().chain(jobs) {
            // Some end with others.
            let _gone = send_signal("KILL", pid);
        }
        Ok(())
    }

    /// Waits until something can be said of those jobs.
    pub fn wait_for<T>(
        &self,
        prefix: &str,
        what: &str,
        mut found: impl FnMut(&[JobLine]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            let jobs = self.jobs(prefix)?;
            if let Some(found) = found(&jobs) {
                return Ok(found);
            }
            if begun.elapsed() > PATIENCE {
                bail!("no {what}: {jobs:?}");
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// The first of several ports in a row that are free.
fn free_ports() -> anyhow::Result<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let seed = u16::try_from(std::process::id() % 500).unwrap_or_default();
    (0..500)
        .map(|n| 17_000 + (seed + n) % 500 * (NUM_NODES + 2))
        .find(|port| (0..NUM_NODES + 2).all(|n| free(port + n)))
        .context("no free ports")
}
