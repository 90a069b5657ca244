//! Real programs: started in a directory of their own, watched through files, killed by pid.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Nothing a test waits for takes longer, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Names a folder with other programs than those that were built with the tests.
const PROGRAMS_VARIABLE: &str = "MUSTER_PROGRAMS";

/// A built program, beside the test's own directory or where `MUSTER_PROGRAMS` says.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.ancestors().nth(2).context("tests lie in target/PROFILE/deps")?;
    let named = std::env::var_os(PROGRAMS_VARIABLE).map(PathBuf::from);
    let built = named.unwrap_or_else(|| beside.to_owned()).join(name);
    if !built.is_file() {
        bail!("{} is not built; run `cargo build --release`", built.display());
    }
    Ok(built)
}

/// A running `muster`.
#[derive(Debug)]
pub struct Muster {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Muster {
    /// Starts `muster ARGUMENTS` in `directory`; its output goes to `LABEL.out` and `LABEL.err` there.
    pub fn start(directory: &Path, label: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_program("muster", directory, label, arguments)
    }

    /// As [`Muster::start`], for another of the built programs.
    pub fn start_program(
        name: &str,
        directory: &Path,
        label: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_command(Command::new(program(name)?), directory, label, arguments)
    }

    /// As [`Muster::start`], for a command that becomes one of the built programs.
    pub fn start_command(
        mut command: Command,
        directory: &Path,
        label: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let stdout = directory.join(format!("{label}.out"));
        let stderr = directory.join(format!("{label}.err"));
        let child = command
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()?;
        Ok(Self { child, stdout, stderr })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits until `ready` gives something; fails when the program ends first.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<T> {
        let started_at = Instant::now();
        loop {
            if let Some(found) = ready(self) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                // What it did last may be what was waited for.
                if let Some(found) = ready(self) {
                    return Ok(found);
                }
                bail!("it ended ({status}) before {what}:\n{}{}", self.stdout(), self.stderr());
            }
            if started_at.elapsed() > PATIENCE {
                bail!("no {what} in {PATIENCE:?}:\n{}{}", self.stdout(), self.stderr());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`, and nothing else: its children are on their own.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// `kill -TERM`.
    pub fn terminate(&self) -> anyhow::Result<()> {
        send_signal("TERM", self.pid())
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let started_at = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started_at.elapsed() > PATIENCE {
                bail!("no end in {PATIENCE:?}:\n{}{}", self.stdout(), self.stderr());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a good end.
    pub fn succeed(mut self) -> anyhow::Result<(String, String)> {
        let status = self.wait()?;
        let (stdout, stderr) = (self.stdout(), self.stderr());
        if !status.success() {
            bail!("{status}:\n{stdout}{stderr}");
        }
        Ok((stdout, stderr))
    }
}

impl Drop for Muster {
    fn drop(&mut self) {
        // A test that failed must not leave anything running; one that ended is gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Sends a signal by name.
pub fn send_signal(name: &str, pid: u32) -> anyhow::Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    if !status.success() {
        bail!("kill -{name} {pid}: {status}");
    }
    Ok(())
}

/// Process ids of all descendants of `root` whose command line contains `words`.
pub fn descendants(root: u32, words: &str) -> Vec<u32> {
    let mut family = vec![root];
    let mut index = 0;
    while let Some(parent) = family.get(index).copied() {
        index += 1;
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    let says = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(words)
    };
    family.into_iter().skip(1).filter(says).collect()
}

/// Process ids of all processes whose command line contains `words` and whose environment is `wanted`: it is given
/// `NAME=VALUE`, one a line.
pub fn processes_with(words: &str, wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let read = |pid: u32, file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', "\n")
    };
    let found = |pid: &u32| {
        read(*pid, "cmdline").replace('\n', " ").contains(words) && wanted(&read(*pid, "environ"))
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(found).collect()
}

/// Those of them whose parent is not among them: until a child has become the program that it is to be, it has the
/// command line of its parent.
pub fn without_children(pids: &[u32]) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(1)?.parse().ok()
    };
    let is_own = |pid: &u32| !parent(*pid).is_some_and(|parent| pids.contains(&parent));
    pids.iter().copied().filter(is_own).collect()
}

/// Waits until none of these processes is there; they are looked for again and again.
pub fn await_ends(found: impl Fn() -> Vec<u32>) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let alive: Vec<u32> = found().into_iter().filter(|pid| is_alive(*pid)).collect();
        if alive.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("left behind: {alive:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a process is there and not a zombie.
pub fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    state.is_some_and(|state| state != 'Z' && state != 'X')
}
