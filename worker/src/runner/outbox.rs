//! The way out: one JSON line per message on standard output.

use std::io::{Write, stdout};
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};

use muster_common::id::Generation;
use muster_common::metric::MetricSeries;
use muster_common::run::{FailureClass, RunExit, RunProgress, RunReport};

use crate::pipe::FromRunner;

/// Writes messages of the run that is going on. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    generation: Arc<Mutex<Option<Generation>>>,
}

impl Outbox {
    /// Messages are about run `generation` from here on.
    pub(super) fn begin(&self, generation: Generation) {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(generation);
    }

    /// No run is going on.
    pub(super) fn end(&self) {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn generation(&self) -> Option<Generation> {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A report of the run that is going on.
    pub(super) fn report(&self, report: RunReport) {
        if let Some(generation) = self.generation() {
            send(&FromRunner::Report { generation, report });
        }
    }

    /// Progress of the run that is going on.
    pub(super) fn progress(&self, progress: RunProgress) {
        if let Some(generation) = self.generation() {
            send(&FromRunner::Progress { generation, progress });
        }
    }

    /// What the run that is going on has measured.
    pub(super) fn measured(&self, series: Vec<MetricSeries>) {
        if let Some(generation) = self.generation().filter(|_| !series.is_empty()) {
            send(&FromRunner::Measured { generation, series });
        }
    }

    /// Makes a panic of any thread the end of the run and of the process.
    pub(super) fn report_panics(&self) {
        let outbox = self.clone();
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A reader of foreign files panics on some damaged ones; it is caught and becomes an error.
            if muster_common::columnar::is_contained() {
                return;
            }
            before(info);
            let message = format!("the runner has an error in itself: {info}");
            // `try_lock`: the panicking thread may hold the lock.
            if let Some(generation) = outbox.generation.try_lock().ok().and_then(|held| *held) {
                let exit =
                    RunExit::Failed { message, permanent: false, class: FailureClass::Other };
                let report = RunReport::Ended { exit };
                send(&FromRunner::Report { generation, report });
            }
            std::process::abort();
        }));
    }
}

/// Writes one line. A supervisor that does not read is gone; the thread on standard input
/// notices that and ends the process.
pub(super) fn send(message: &FromRunner) {
    match serde_json::to_vec(message) {
        Ok(mut line) => {
            line.push(b'\n');
            let mut out = stdout().lock();
            if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
                tracing::error!("cannot write to the supervisor: {error}");
            }
        }
        Err(error) => tracing::error!("a message to the supervisor is lost: {error}"),
    }
}
