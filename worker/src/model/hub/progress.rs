//! What a download tells while it runs: a line for whoever looks, lines in the log, and signs of life.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};

/// Lines of one file in the log follow each other at most so often.
const PERIOD: Duration = Duration::from_secs(5);

/// Watches the files of one model or data set.
pub(crate) struct Watch {
    name: String,
    state: Mutex<State>,
}

struct State {
    doing: Doing,
    /// Bytes of the file, as announced; 0: not announced.
    size: u64,
    alive: Instant,
    shown: Instant,
}

enum Doing {
    /// The hub is asked what there is.
    Asking,
    /// Another process downloads the same.
    Waiting,
    /// A file comes, so many bytes of it so far.
    Loading { file: String, bytes: u64 },
}

impl Watch {
    pub(crate) fn new(name: String) -> Self {
        let now = Instant::now();
        let state = State { doing: Doing::Asking, size: 0, alive: now, shown: now };
        Self { name, state: Mutex::new(state) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The hub is asked what there is.
    pub(super) fn ask(&self) {
        self.with(|state| {
            state.doing = Doing::Asking;
            state.alive = Instant::now();
        });
    }

    /// Another process has the lock, for longer.
    pub(super) fn wait(&self) {
        self.with(|state| {
            state.doing = Doing::Waiting;
            state.alive = Instant::now();
        });
    }

    /// Another file begins.
    pub(crate) fn begin(&self, file: &str) {
        let now = Instant::now();
        let doing = Doing::Loading { file: file.to_owned(), bytes: 0 };
        self.with(|state| *state = State { doing, size: 0, alive: now, shown: now });
    }

    /// Something came.
    pub(crate) fn alive(&self) {
        self.with(|state| state.alive = Instant::now());
    }

    /// How long nothing has come.
    pub(super) fn silence(&self) -> Duration {
        self.with(|state| state.alive.elapsed())
    }

    /// Bytes of the file, as announced; 0: not announced.
    pub(crate) fn size(&self) -> u64 {
        self.with(|state| state.size)
    }

    /// What goes on, for people.
    pub(super) fn line(&self) -> String {
        let name = &self.name;
        self.with(|state| match &state.doing {
            Doing::Asking => format!("asking the hub for {name}"),
            Doing::Waiting => format!("another process downloads {name}; waiting for it"),
            Doing::Loading { file, bytes } => {
                let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
                let (done, all) = (mebibytes(*bytes), mebibytes(state.size));
                // Names of files are the hub's.
                let file = file.replace(char::is_control, " ");
                format!("downloading {name}: {file} {done:.0} of {all:.0} MiB")
            }
        })
    }

    fn came(&self, now_there: u64) {
        let is_due = self.with(|state| {
            state.alive = Instant::now();
            if let Doing::Loading { bytes, .. } = &mut state.doing {
                *bytes = now_there;
            }
            let is_due = state.shown.elapsed() >= PERIOD;
            if is_due {
                state.shown = state.alive;
            }
            is_due
        });
        if is_due {
            tracing::info!("{}", self.line());
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
