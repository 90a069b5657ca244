//! The runner as the supervisor sees it: a child in a process group of its own, lines in, lines out.

use std::io;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use muster_common::compute;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::collective::ADDRESS_VARIABLE;
use crate::pipe::{FromRunner, ToRunner};

/// Longest wait for a line of a runner that is gone: its pipe may be held by what it started.
const LAST_LINES: Duration = Duration::from_millis(100);

/// What a runner does.
#[derive(Debug)]
pub(super) enum RunnerEvent {
    /// A message on its standard output.
    Said(FromRunner),
    /// A line on its standard error, or one on standard output that is no message.
    Logged(String),
    /// It is dead; how, for people.
    Ended(String),
}

/// A child process.
#[derive(Debug)]
pub(super) struct Runner {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    stderr: Option<Lines<BufReader<ChildStderr>>>,
    is_dead: bool,
}

impl Runner {
    /// `host` is the address of this host for the other ranks of a gang, unless the environment names
    /// one.
    pub(super) fn spawn(host: Option<IpAddr>) -> io::Result<Self> {
        let host = host.filter(|_| std::env::var_os(ADDRESS_VARIABLE).is_none());
        let mut child = Command::new(std::env::current_exe()?)
            .envs(compute::environment())
            .envs(host.map(|host| (ADDRESS_VARIABLE, host.to_string())))
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
        Ok(Self { child, stdin, stdout, stderr, is_dead: false })
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
            if self.stdout.is_none() && self.stderr.is_none() {
                let how = match self.child.wait().await {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                self.is_dead = true;
                return RunnerEvent::Ended(how);
            }
            tokio::select! {
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

    /// Kills it and all it has started, and waits for its end; nothing is heard of it any more.
    pub(super) async fn kill(&mut self) {
        self.is_dead = true;
        self.stdin = None;
        // It leads a group of its own.
        let group = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::warn!(%error, "the runner's processes cannot be killed");
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the runner cannot be killed");
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
