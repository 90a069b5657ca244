//! What runner and supervisor say, on its way to the object store: lines of a run into its log there,
//! others into that of the worker, in the store of the run before. Until a worker has had a run it
//! knows no store; what it says then goes into the log of the first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_common::id::{Generation, WorkerId};
use muster_common::log_store::LogStore;
use muster_common::storage::{Layout, Store};
use muster_common::telemetry::{RunIds, named_run, recent_lines};
use muster_common::time::Timestamp;
use object_store::path::Path;

/// Between two looks at what this process has said.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the store when this process ends.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Lines that are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct KeptLines {
    logs: LogStore,
    worker: WorkerId,
    started_at: Timestamp,
    place: Arc<Mutex<Place>>,
}

/// Where lines go now.
#[derive(Debug, Default)]
struct Place {
    store: Option<Store>,
    run: Option<RunLog>,
    /// A runner's last lines come after its last report; those that name their run are its own.
    before: Option<RunLog>,
}

/// The log of a run.
#[derive(Debug, Clone)]
struct RunLog {
    store: Store,
    stem: Path,
    run: Generation,
}

impl KeptLines {
    /// Of this process, with a task that writes them.
    pub(super) fn begin(worker: WorkerId) -> Self {
        let logs = LogStore::default();
        let started_at = Timestamp::now();
        let kept = Self { logs, worker, started_at, place: Arc::default() };
        tokio::spawn(kept.logs.clone().keep());
        let looking = kept.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                looking.take_own();
            }
        });
        kept
    }

    /// What follows is about the run with these ids.
    pub(super) fn begin_run(&self, store: &str, ids: &RunIds) {
        let is_open = self.place().store.as_ref().is_some_and(|open| open.url() == store);
        if !is_open {
            match Store::open(store) {
                Ok(store) => self.place().store = Some(store),
                // The run itself will fail for it, and say so to the coordinator.
                Err(_) => return,
            }
        }
        self.take_own();
        let mut place = self.place();
        let store = place.store.clone();
        place.run = store.map(|store| RunLog { store, stem: Layout::run_log(ids), run: ids.run });
    }

    /// What follows is about no run, unless it names this one.
    pub(super) fn end_run(&self) {
        self.take_own();
        let mut place = self.place();
        let Some(run) = place.run.take() else { return };
        if let Some(before) = place.before.replace(run) {
            self.logs.end(&before.store, &before.stem);
        }
    }

    /// Keeps a line of the runner.
    pub(super) fn runner_said(&self, line: &str) {
        // What was said before it comes first.
        self.take_own();
        self.keep("runner", line);
    }

    /// Writes what is left, if the store answers soon.
    pub(super) async fn finish(&self) {
        self.end_run();
        self.logs.flush(LAST_WRITE).await;
    }

    /// Keeps what this process has said.
    fn take_own(&self) {
        if self.place().store.is_some() {
            for line in recent_lines() {
                self.keep("supervisor", &line);
            }
        }
    }

    fn keep(&self, process: &str, line: &str) {
        let place = self.place();
        let before = place.before.as_ref().filter(|before| named_run(line) == Some(before.run));
        let log = before.or(place.run.as_ref());
        if let Some(log) = log {
            self.logs.push(&log.store, &log.stem, process, line);
        } else if let Some(store) = &place.store {
            let stem = Layout::worker_log(&self.worker, self.started_at);
            self.logs.push(store, &stem, process, line);
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Every change is a single assignment, so a panic elsewhere leaves nothing half-done.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
