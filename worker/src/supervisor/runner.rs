//! The runner as the supervisor sees it: a child in a process group of its own, lines in, lines out.

use std::io;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use muster_common::id::WorkerId;
use muster_common::{access, compute};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::gpu::GpuMemory;
use super::group::ProcessGroup;
use super::memory::MemoryKills;
use crate::collective::ADDRESS_VARIABLE;
use crate::equipment::WORKER_VARIABLE;
use crate::pipe::{FromRunner, ToRunner};

/// Number of the signal that cannot be caught.
const KILL: i32 = 9;

/// Longest wait for a line of a runner that is gone: its pipe may be held by what it started.
const LAST_LINES: Duration = Duration::from_millis(100);

/// What a runner does.
#[derive(Debug)]
pub(super) enum RunnerEvent {
    /// A message on its standard output.
    Said(FromRunner),
    /// A line on its standard error, or one on standard output that is no message.
    Logged(String),
    /// It is dead, and so is its process group.
    Ended(Death),
}

/// How a runner died.
#[derive(Debug)]
pub(super) struct Death {
    /// For people.
    pub(super) how: String,
    /// The kernel killed it because memory ran out.
    pub(super) for_memory: bool,
}

/// A child process.
#[derive(Debug)]
pub(super) struct Runner {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    stderr: Option<Lines<BufReader<ChildStderr>>>,
    group: Option<ProcessGroup>,
    gpu: Option<GpuMemory>,
    memory: MemoryKills,
    /// How it ended, once it has; its last words may still be in the pipes.
    status: Option<io::Result<ExitStatus>>,
    is_dead: bool,
}

impl Runner {
    /// Of the worker of this name. `host` is the address of this host for the other ranks of a gang, unless
    /// the environment names one.
    pub(super) fn spawn(
        worker: &WorkerId,
        host: Option<IpAddr>,
        gpu: Option<GpuMemory>,
    ) -> io::Result<Self> {
        let host = host.filter(|_| std::env::var_os(ADDRESS_VARIABLE).is_none());
        let mut command = Command::new(std::env::current_exe()?);
        // It talks to its supervisor only.
        for name in access::VARIABLES {
            command.env_remove(name);
        }
        let mut child = command
            .envs(compute::environment())
            .envs(host.map(|host| (ADDRESS_VARIABLE, host.to_string())))
            .env(WORKER_VARIABLE, worker.as_str())
            .arg("runner")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(|pipe| BufReader::new(pipe).lines());
        let stderr = child.stderr.take().map(|pipe| BufReader::new(pipe).lines());
        let group = child.id().and_then(ProcessGroup::of);
        let memory = MemoryKills::watch();
        Ok(Self { child, stdin, stdout, stderr, group, gpu, memory, status: None, is_dead: false })
    }

    /// Writes one message.
    pub(super) async fn tell(&mut self, message: &ToRunner) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        stdin.write_all(line.as_bytes()).await?;
        stdin.flush().await
    }

    /// The next thing it does; for ever pending once it is dead. Its last words come before its end.
    pub(super) async fn next(&mut self) -> RunnerEvent {
        if self.is_dead {
            return std::future::pending().await;
        }
        loop {
            if self.stdout.is_none()
                && self.stderr.is_none()
                && let Some(status) = &self.status
            {
                let (how, signal) = match status {
                    Ok(status) => (status.to_string(), status.signal()),
                    Err(error) => (error.to_string(), None),
                };
                self.gone().await;
                self.is_dead = true;
                let for_memory = signal == Some(KILL) && self.memory.any();
                return RunnerEvent::Ended(Death { how, for_memory });
            }
            tokio::select! {
                // What it leaves behind goes too; it would keep the pipes open.
                status = self.child.wait(), if self.status.is_none() => {
                    self.status = Some(status);
                    if let Some(group) = self.group {
                        group.kill();
                    }
                }
                line = next_line(&mut self.stdout) => match line {
                    Some(line) => return match serde_json::from_str(&line) {
                        Ok(message) => RunnerEvent::Said(message),
                        // Libraries print where they should not.
                        Err(_) => RunnerEvent::Logged(line),
                    },
                    None => self.stdout = None,
                },
                line = next_line(&mut self.stderr) => match line {
                    Some(line) => return RunnerEvent::Logged(line),
                    None => self.stderr = None,
                },
            }
        }
    }

    /// Kills its process group and waits until nothing of it lives; nothing is heard of it any more.
    pub(super) async fn kill(&mut self) {
        self.is_dead = true;
        self.stdin = None;
        if let Some(group) = self.group {
            group.kill();
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the runner cannot be killed");
        }
        self.gone().await;
    }

    /// Waits until nothing of it holds the slot: no process, and no memory of its GPU.
    async fn gone(&self) {
        if let Some(group) = self.group {
            group.gone().await;
        }
        if let Some(gpu) = &self.gpu {
            gpu.freed().await;
        }
    }

    /// What it had logged before it was killed and nobody has read.
    pub(super) async fn last_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(Some(line)) = timeout(LAST_LINES, next_line(&mut self.stderr)).await {
            lines.push(line);
        }
        lines
    }
}

/// The next line of a pipe; `None` at its end. A pipe that is not there gives nothing for ever.
async fn next_line<R: tokio::io::AsyncRead + Unpin>(
    lines: &mut Option<Lines<BufReader<R>>>,
) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Called in the runner: the kernel kills it when its supervisor dies. The end of its input tells it
/// so too, but a runner that is stopped or stuck would not read it.
pub(super) fn die_with_supervisor() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

/// Called in the supervisor of a local worker: the kernel wakes it when its coordinator dies. The end of its input
/// then ends it in good order, which one that is stopped would not see.
pub(super) fn wake_without_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::CONT))?;
    Ok(())
}
