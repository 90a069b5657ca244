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

    /// Run `generation` is not going on any more. `false`: it was not.
    pub(super) fn end(&self, generation: Generation) -> bool {
        let mut current = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        current.take_if(|current| *current == generation).is_some()
    }

    /// Says how run `generation` ended, if nobody has: the thread that trains and the one that watches other ranks
    /// may both know. `false`: its end had been said.
    pub(super) fn conclude(&self, generation: Generation, exit: RunExit) -> bool {
        let is_first = self.end(generation);
        if is_first {
            send(&FromRunner::Report { generation, report: RunReport::Ended { exit } });
        }
        is_first
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_once_and_another_does_not_end_with_it() {
        let outbox = Outbox::default();
        let (old, new) = (Generation(1), Generation(2));
        assert!(!outbox.end(old), "it has not begun");
        outbox.begin(old);
        assert!(outbox.end(old) && !outbox.end(old));
        // Whoever learns late of a failure in the old run must not end the one that has begun since.
        outbox.begin(new);
        assert!(!outbox.end(old));
        assert_eq!(outbox.generation(), Some(new));
    }
}
