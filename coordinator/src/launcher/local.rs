//! Local workers: one `muster-worker` child per slot, pinned to the slot's processors, started again when it dies,
//! ended with us. Inside an allocation of a cluster they are steps of it.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use muster_common::access::{self, ACCESS_VARIABLE};
use muster_common::id::WorkerId;
use muster_common::telemetry::{FORMAT_VARIABLE, LogFormat};
use muster_common::time::Timestamp;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::WorkerAccess;
use crate::driver::Driver;
use crate::engine::{Event, LossCause};
use crate::live::Live;
use crate::logs::Logs;
use crate::machine::slots::{LocalSlot, LocalSlots};
use crate::machine::topology::pinned_to;

/// Ids of local workers start so; a coordinator knows by it that they died with its predecessor.
pub const LOCAL_PREFIX: &str = "local-";
/// Pause before a dead worker is started again, times the number of deaths in a row.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Time a worker gets to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// How local workers are started.
#[derive(Debug, Clone)]
pub struct LocalLauncher {
    /// The program.
    pub worker_binary: PathBuf,
    /// Words before it on the command line: a program that starts it elsewhere.
    pub wrapper: Vec<String>,
    /// More variables for the workers' environment.
    pub environment: Vec<(String, String)>,
    /// URL of the coordinator, and how workers get in.
    pub access: WorkerAccess,
    /// Log filter of the workers.
    pub log: String,
    /// Format of their log lines.
    pub log_format: LogFormat,
    /// The engine, to report deaths.
    pub driver: Driver,
    /// Soft state, to forget the dead.
    pub live: Live,
    /// Where their lines go while they have no session.
    pub logs: Logs,
}

/// Where workers of one slot live, one after the other.
#[derive(Debug)]
struct Place {
    /// How their ids begin.
    name: String,
    slot: LocalSlot,
    threads: u32,
}

impl LocalLauncher {
    /// Keeps a worker alive on each slot until `shutdown`; the tracker is empty when all have ended.
    pub fn start(self, slots: LocalSlots, shutdown: &CancellationToken, tasks: &TaskTracker) {
        let started_at = Timestamp::now().0;
        let threads = slots.threads_per_slot;
        for (number, slot) in slots.slots.into_iter().enumerate() {
            tracing::info!(number, %slot, threads, "local slot");
            let place =
                Place { name: format!("{LOCAL_PREFIX}{started_at}-{number}"), slot, threads };
            let (launcher, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move { launcher.keep(place, shutdown).await });
        }
    }

    async fn keep(self, place: Place, shutdown: CancellationToken) {
        let mut deaths = 0u32;
        for life in 0u32.. {
            let Ok(worker) = format!("{}-{life}", place.name).parse::<WorkerId>() else { return };
            let born_at = tokio::time::Instant::now();
            let reason = match self.spawn(&worker, &place) {
                Ok(child) => match self.attend(child, &worker, &shutdown).await {
                    None => return,
                    Some(status) => format!("the worker process ended: {status}"),
                },
                Err(error) => format!("{} does not start: {error}", self.worker_binary.display()),
            };
            tracing::warn!(%worker, reason, "local worker is gone");
            self.live.forget(&worker);
            let event = Event::WorkerLost { worker, cause: LossCause::Died { reason } };
            if self.driver.apply(event).await.is_err() {
                return;
            }
            deaths = if born_at.elapsed() > RESTART_PAUSE_MAX { 1 } else { deaths + 1 };
            let pause = (RESTART_PAUSE * deaths).min(RESTART_PAUSE_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn spawn(&self, worker: &WorkerId, place: &Place) -> std::io::Result<Child> {
        let mut command = match self.wrapper.split_first() {
            None => Command::new(&self.worker_binary),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.worker_binary);
                command
            }
        };
        // What the user has set is for clients.
        for name in access::VARIABLES {
            command.env_remove(name);
        }
        command
            .arg("supervise")
            .args(["--coordinator", &self.access.url])
            .envs(self.access.file.iter().map(|file| (ACCESS_VARIABLE, file)))
            .args(["--worker-id", worker.as_str()])
            .arg("--end-with-stdin")
            .env("MUSTER_THREADS_PER_SLOT", place.threads.to_string())
            .env("MUSTER_LOG", &self.log)
            .env(FORMAT_VARIABLE, self.log_format.name())
            .envs(place.slot.environment())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // The end of this pipe tells the worker that we are gone, however we went.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C in the terminal is for us; we end the workers in order.
            .process_group(0)
            .kill_on_drop(true);
        pinned_to(&place.slot.cpus, || command.spawn())
    }

    /// Waits for the end of a worker. `None`: it was ended because of `shutdown`.
    async fn attend(
        &self,
        mut child: Child,
        worker: &WorkerId,
        shutdown: &CancellationToken,
    ) -> Option<ExitStatus> {
        let stdin = child.stdin.take();
        let mut lines = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        loop {
            tokio::select! {
                status = child.wait() => return status.ok(),
                line = next_line(&mut lines) => match line {
                    Some(line) => self.logs.append(worker, None, &[line]),
                    None => lines = None,
                },
                () = shutdown.cancelled() => break,
            }
        }
        drop(stdin);
        if tokio::time::timeout(GOODBYE, child.wait()).await.is_err() {
            // Too late to be polite; its own children end with its pipes.
            if let Err(error) = child.kill().await {
                tracing::warn!(%worker, %error, "worker cannot be killed");
            }
        }
        None
    }
}

type Lines = tokio::io::Lines<BufReader<tokio::process::ChildStderr>>;

async fn next_line(lines: &mut Option<Lines>) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}
