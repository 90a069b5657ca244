//! What a download tells while it runs: lines in the log, and signs of life.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};

/// Lines of one file follow each other at most so often.
const PERIOD: Duration = Duration::from_secs(5);

/// Watches the files of one model.
pub(super) struct Watch {
    model: String,
    state: Mutex<State>,
}

struct State {
    file: String,
    /// Bytes of the file, as announced; 0: not announced.
    size: u64,
    alive: Instant,
    shown: Instant,
}

impl Watch {
    pub(super) fn new(model: String) -> Self {
        let now = Instant::now();
        let state = State { file: String::new(), size: 0, alive: now, shown: now };
        Self { model, state: Mutex::new(state) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another file begins.
    pub(super) fn begin(&self, file: &str) {
        let now = Instant::now();
        self.with(|state| {
            *state = State { file: file.to_owned(), size: 0, alive: now, shown: now }
        });
    }

    /// Something came.
    pub(super) fn alive(&self) {
        self.with(|state| state.alive = Instant::now());
    }

    /// How long nothing has come.
    pub(super) fn silence(&self) -> Duration {
        self.with(|state| state.alive.elapsed())
    }

    /// Bytes of the file, as announced; 0: not announced.
    pub(super) fn size(&self) -> u64 {
        self.with(|state| state.size)
    }

    fn came(&self, bytes: u64) {
        let line = self.with(|state| {
            state.alive = Instant::now();
            if state.shown.elapsed() < PERIOD {
                return None;
            }
            state.shown = state.alive;
            let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let (done, all) = (mebibytes(bytes), mebibytes(state.size));
            Some(format!("{}: {} {done:.0} of {all:.0} MiB", self.model, state.file))
        });
        if let Some(line) = line {
            tracing::info!("{line}");
        }
    }
}

impl ProgressHandler for Watch {
    fn on_progress(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Download(DownloadEvent::Start { total_bytes, .. }) => {
                self.with(|state| {
                    state.size = *total_bytes;
                    state.alive = Instant::now();
                });
            }
            ProgressEvent::Download(DownloadEvent::Progress { files }) => {
                self.came(files.iter().map(|file| file.bytes_completed).sum());
            }
            ProgressEvent::Download(DownloadEvent::AggregateProgress {
                bytes_completed, ..
            }) => {
                self.came(*bytes_completed);
            }
            _ => self.alive(),
        }
    }
}
