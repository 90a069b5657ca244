//! The process that owns a device and trains: reads [`ToRunner`] lines, writes [`FromRunner`]
//! lines, and keeps weights, data and activations between runs. Logs go to standard error.

mod failure;
mod outbox;
mod predictions;
mod task;
mod trial;
mod warm;

pub use warm::Warm;

use std::io::{BufRead, stdin};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use muster_common::id::Generation;
use muster_common::run::{Directive, RunExit, RunSpec};
use muster_common::telemetry::{RunIds, one_line};
use tch::Device;
use tokio::signal::unix::{SignalKind, signal};

use crate::pipe::{FromRunner, ToRunner};
use outbox::Outbox;

/// How many threads libtorch computes with; part of what makes a resumed trial exact.
const THREADS_VARIABLE: &str = "MUSTER_THREADS_PER_SLOT";

/// The device that this process trains on: `cpu`, the default, or `cuda:0` and so on.
const DEVICE_VARIABLE: &str = "MUSTER_SLOT_DEVICE";

/// A runner that has had nothing to do for so long lets go of what only a run that follows at once has use for: the
/// state that its last run left takes as much memory as training.
const LEFT_FOR: Duration = Duration::from_secs(30);

/// The latest directive, with the run it is meant for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directives(Arc<Mutex<Option<(Generation, Directive)>>>);

impl Directives {
    fn put(&self, generation: Generation, directive: Directive) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = match *latest {
            // Who cancels does not want anything saved any more.
            Some((of, Directive::Cancel)) if of == generation => Some((of, Directive::Cancel)),
            _ => Some((generation, directive)),
        };
    }

    /// What run `generation` should do.
    pub(crate) fn of(&self, generation: Generation) -> Option<Directive> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.filter(|(of, _)| *of == generation).map(|(_, directive)| directive)
    }
}

/// Runs until standard input ends, which ends the process at once, whatever it is doing.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("store")
        .enable_all()
        .build()
        .context("cannot start the threads that talk to the store")?;
    // A cluster that takes its machine back signals every process there. What a run does about it is for
    // the supervisor to say.
    let entered = runtime.enter();
    let _caught = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    drop(entered);
    let threads = threads()?;
    // Before anything else of libtorch: its CUDA part must be there when it looks for it.
    let device = device_of_slot()?;
    tch::set_num_threads(threads);
    tch::set_num_interop_threads(1);
    let outbox = Outbox::default();
    outbox.report_panics();
    let directives = Directives::default();
    let (sender, starts) = mpsc::channel();
    {
        let directives = directives.clone();
        thread::Builder::new()
            .name("pipe".to_owned())
            .spawn(move || listen(&sender, &directives))
            .context("cannot start the thread that reads standard input")?;
    }
    tracing::info!(threads, ?device, "runner is ready");
    serve(device, &starts, &outbox, &directives, runtime.handle());
    Ok(())
}

/// Does one run after the other.
fn serve(
    device: Device,
    starts: &Receiver<Box<RunSpec>>,
    outbox: &Outbox,
    directives: &Directives,
    runtime: &tokio::runtime::Handle,
) {
    let mut warm = Warm::new(device);
    outbox::send(&FromRunner::Ready);
    loop {
        let spec = match starts.recv_timeout(LEFT_FOR) {
            Ok(spec) => spec,
            Err(RecvTimeoutError::Timeout) => {
                warm.rest();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let generation = spec.generation;
        outbox.begin(generation);
        // Entered once for all steps.
        let run = RunIds::of(&spec).span().entered();
        let exit = match task::execute(&spec, &mut warm, outbox, directives, runtime) {
            Ok(exit) => exit,
            Err(error) => {
                let (permanent, class) = (error.is_permanent(), failure::class_of(&error));
                let message = one_line(&error);
                tracing::error!(permanent, "{message}");
                RunExit::Failed { message, permanent, class }
            }
        };
        tracing::info!("run {exit}");
        drop(run);
        // What ranks have in flight together when one fails cannot be called back.
        let is_spent = spec.gang.is_some() && matches!(exit, RunExit::Failed { .. });
        outbox.conclude(generation, exit);
        if is_spent {
            crate::ffi::leave_process(1);
        }
    }
}

/// Reads standard input until it ends; then the supervisor is gone and so must this process be.
fn listen(starts: &Sender<Box<RunSpec>>, directives: &Directives) {
    for line in stdin().lock().lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(ToRunner::Start(spec)) => {
                if starts.send(spec).is_err() {
                    break;
                }
            }
            Ok(ToRunner::Direct { generation, directive }) => directives.put(generation, directive),
            Err(error) => tracing::error!("a line from the supervisor is not understood: {error}"),
        }
    }
    // The thread that computes cannot be asked: it may be deep inside a tensor operation. Nothing
    // is lost: what is not committed to the store does not exist.
    crate::ffi::leave_process(0);
}

/// The device of this process, opened: before anything else of libtorch.
pub fn device_of_slot() -> anyhow::Result<Device> {
    let name = std::env::var(DEVICE_VARIABLE).unwrap_or_else(|_| "cpu".to_owned());
    crate::ffi::open_device(&name).context(DEVICE_VARIABLE)
}

fn threads() -> anyhow::Result<i32> {
    Ok(threads_of_slot()?.unwrap_or(1))
}

/// How many threads a slot has, where the environment says so.
pub fn threads_of_slot() -> anyhow::Result<Option<i32>> {
    let Ok(text) = std::env::var(THREADS_VARIABLE) else { return Ok(None) };
    let threads = text.parse().ok().filter(|threads| (1..=1024).contains(threads));
    let threads = threads
        .with_context(|| format!("{THREADS_VARIABLE} is `{text}`, not a number from 1 to 1024"))?;
    Ok(Some(threads))
}
