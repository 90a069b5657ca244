//! Log lines of every process in the object store, so that they outlive the process, its machine and
//! the coordinator.
//!
//! ```text
//! push() --> text of the open object --(written over with itself every 2 s while it grows)--> STEM-000000.log
//!                  |  256 KiB: the next object                                          --> STEM-000001.log
//! ```
//!
//! An object store knows no appending, so an object grows by being written again; a kill costs what was
//! said in the last two seconds. A line is `TIME<tab>PROCESS<tab>TEXT`, the time when it was taken, in
//! UTC. Pushing never waits; while the store does not answer lines are held, then dropped and counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use tokio::time::timeout;

use crate::storage::{Layout, Store, StoreError};
use crate::telemetry::timestamp;

/// Between two writes of an object that grows.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for one write.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// An object is not made larger.
const OBJECT_BYTES: usize = 256 << 10;
/// Full objects of one log that may wait for the store.
const WAITING_MAX: usize = 16;

/// Which log: the beginning of its objects' keys, in one store.
type LogId = (Arc<str>, Path);

/// Takes lines and writes them in the background. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LogStore {
    state: Arc<Mutex<State>>,
    /// One pass over all logs at a time.
    pass: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<LogId, Log>,
}

#[derive(Debug)]
struct Log {
    store: Store,
    /// Number of the open object.
    sequence: u32,
    open: String,
    /// Bytes of the open object that are in the store.
    num_written: usize,
    full: VecDeque<(u32, Bytes)>,
    num_lost: u64,
    /// No line follows.
    is_over: bool,
}

/// Something to be written: an object as it is now.
struct Due {
    id: LogId,
    store: Store,
    sequence: u32,
    bytes: Bytes,
    is_full: bool,
}

impl LogStore {
    /// Takes the lines of `text`, of the process called `process`, for the log at `stem` in `store`.
    pub fn push(&self, store: &Store, stem: &Path, process: &str, text: &str) {
        let now = timestamp();
        let mut state = self.state();
        let id = (store.url().into(), stem.clone());
        let log = state.logs.entry(id).or_insert_with(|| Log::new(store.clone()));
        for line in text.lines() {
            log.push(&now, &format!("{now}\t{process}\t{line}\n"));
        }
    }

    /// No line follows for the log at `stem`: it is forgotten when it is written.
    pub fn end(&self, store: &Store, stem: &Path) {
        if let Some(log) = self.state().logs.get_mut(&(store.url().into(), stem.clone())) {
            log.is_over = true;
        }
    }

    /// Writes what has grown, again and again, for ever.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(WRITE_EVERY).await;
            self.write().await;
        }
    }

    /// Writes what has grown, now, not longer than `deadline`. `false`: some of it is not in the store.
    pub async fn flush(&self, deadline: Duration) -> bool {
        timeout(deadline, self.write()).await.unwrap_or(false)
    }

    async fn write(&self) -> bool {
        let _alone = self.pass.lock().await;
        let mut all_written = true;
        let due = self.due();
        let mut failed: Option<LogId> = None;
        for due in due {
            // Of a log whose store does not answer the rest can wait for the next time.
            if failed.as_ref() == Some(&due.id) {
                continue;
            }
            let key = Layout::log_object(&due.id.1, due.sequence);
            let put = due.store.put(&key, due.bytes.clone());
            match timeout(WRITE_DEADLINE, put).await {
                Ok(Ok(())) => self.note_written(&due),
                outcome => {
                    let reason = outcome.err().map_or("refused", |_| "no answer in time");
                    // Not a warning: it would be a line to be written too.
                    tracing::debug!(%key, reason, "log lines are not in the store");
                    all_written = false;
                    failed = Some(due.id);
                }
            }
        }
        // Also those whose last line was written before their end was known.
        self.state().logs.retain(|_, log| !log.is_done());
        all_written
    }

    fn due(&self) -> Vec<Due> {
        let state = self.state();
        let mut due = Vec::new();
        for (id, log) in &state.logs {
            let of = |sequence, bytes, is_full| Due {
                id: id.clone(),
                store: log.store.clone(),
                sequence,
                bytes,
                is_full,
            };
            let full = log.full.iter();
            due.extend(full.map(|(sequence, bytes)| of(*sequence, bytes.clone(), true)));
            if log.open.len() > log.num_written {
                due.push(of(log.sequence, Bytes::copy_from_slice(log.open.as_bytes()), false));
            }
        }
        due
    }

    fn note_written(&self, due: &Due) {
        let mut state = self.state();
        let Some(log) = state.logs.get_mut(&due.id) else { return };
        if due.is_full {
            log.full.retain(|(sequence, _)| *sequence != due.sequence);
        } else if log.sequence == due.sequence {
            log.num_written = due.bytes.len();
        }
    }

    /// Every change is complete in itself, so a panic elsewhere leaves nothing half-done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn new(store: Store) -> Self {
        Self {
            store,
            sequence: 0,
            open: String::new(),
            num_written: 0,
            full: VecDeque::new(),
            num_lost: 0,
            is_over: false,
        }
    }

    /// No line follows, and all are in the store.
    fn is_done(&self) -> bool {
        self.is_over && self.full.is_empty() && self.num_written == self.open.len()
    }

    fn push(&mut self, now: &str, line: &str) {
        if self.open.len() + line.len() > OBJECT_BYTES && !self.open.is_empty() {
            if self.full.len() == WAITING_MAX {
                self.num_lost += 1;
                return;
            }
            let full = std::mem::take(&mut self.open);
            self.full.push_back((self.sequence, full.into()));
            self.sequence += 1;
            self.num_written = 0;
        }
        if self.num_lost > 0 {
            let lost = std::mem::take(&mut self.num_lost);
            self.open +=
                &format!("{now}\tmuster\t{lost} lines are lost: the store did not answer\n");
        }
        self.open += line;
    }
}

/// Reads logs, and what has been added to them since the last time.
#[derive(Debug)]
pub struct LogReader {
    store: Store,
    prefix: Path,
    /// Bytes of each object that were handed out.
    read: BTreeMap<Path, usize>,
}

impl LogReader {
    /// Of everything below the directory `prefix` in `store`.
    pub fn new(store: Store, prefix: Path) -> Self {
        Self { store, prefix, read: BTreeMap::new() }
    }

    /// Lines that were not handed out before, in the order of their times.
    pub async fn read(&mut self) -> Result<Vec<String>, StoreError> {
        let mut lines = Vec::new();
        for key in self.store.list(&self.prefix).await? {
            if key.as_ref().strip_suffix(".log").is_none() {
                continue;
            }
            let read = self.read.entry(key.clone()).or_default();
            if self.store.note(&key).await?.bytes <= *read as u64 {
                continue;
            }
            let Some(bytes) = self.store.find(&key).await? else { continue };
            let new = bytes.get(*read..).unwrap_or_default();
            // A writer ends with whole lines; whoever else wrote it may not have.
            let end = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let text = String::from_utf8_lossy(new.get(..end).unwrap_or_default()).into_owned();
            lines.extend(text.lines().map(str::to_owned));
            *read += end;
        }
        // By time; lines of the same one stay in the order of their objects.
        lines.sort_by(|a, b| time_of(a).cmp(time_of(b)));
        Ok(lines)
    }
}

fn time_of(line: &str) -> &str {
    line.split('\t').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stem() -> Path {
        Path::from("logs/here")
    }

    fn texts(lines: &[String]) -> Vec<&str> {
        lines.iter().map(|line| line.splitn(3, '\t').nth(2).unwrap()).collect()
    }

    #[tokio::test]
    async fn an_object_grows_until_it_is_full() {
        let (store, logs) = (Store::in_memory(), LogStore::default());
        let mut reader = LogReader::new(store.clone(), Path::from("logs"));
        logs.push(&store, &stem(), "runner", "one\ntwo");
        assert!(logs.flush(WRITE_DEADLINE).await);
        let lines = reader.read().await.unwrap();
        assert_eq!(texts(&lines), ["one", "two"]);
        assert!(lines[0].contains("Z\trunner\t"), "{lines:?}");
        logs.push(&store, &stem(), "runner", &"x".repeat(OBJECT_BYTES - 200));
        logs.push(&store, &stem(), "runner", "three");
        logs.push(&store, &stem(), "runner", &"y".repeat(300));
        assert!(logs.flush(WRITE_DEADLINE).await);
        let lines = reader.read().await.unwrap();
        let lengths: Vec<usize> = texts(&lines).iter().map(|text| text.len()).collect();
        assert_eq!(lengths, [OBJECT_BYTES - 200, 5, 300]);
        assert_eq!(reader.read().await.unwrap(), Vec::<String>::new());
        assert_eq!(store.list(&Path::from("logs")).await.unwrap().len(), 2);
        logs.end(&store, &stem());
        logs.push(&store, &stem(), "runner", "last");
        assert!(logs.flush(WRITE_DEADLINE).await);
        assert_eq!(texts(&reader.read().await.unwrap()), ["last"]);
        assert!(logs.state().logs.is_empty());
    }

    #[tokio::test]
    async fn a_log_that_ends_after_it_was_written_is_forgotten_too() {
        let (store, logs) = (Store::in_memory(), LogStore::default());
        logs.push(&store, &stem(), "runner", "all there is");
        assert!(logs.flush(WRITE_DEADLINE).await);
        logs.end(&store, &stem());
        assert!(logs.flush(WRITE_DEADLINE).await);
        assert!(logs.state().logs.is_empty(), "a worker keeps the log of every run it has had");
    }

    #[tokio::test]
    async fn lines_are_held_while_the_store_fails_and_counted_when_there_are_too_many() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let logs = LogStore::default();
        // A file where the directory should be.
        std::fs::write(directory.path().join("logs"), b"in the way").unwrap();
        let line = "x".repeat(OBJECT_BYTES / 2);
        for _ in 0..2 * WAITING_MAX + 20 {
            logs.push(&store, &stem(), "runner", &line);
        }
        assert!(!logs.flush(WRITE_DEADLINE).await);
        std::fs::remove_file(directory.path().join("logs")).unwrap();
        assert!(logs.flush(WRITE_DEADLINE).await);
        logs.push(&store, &stem(), "runner", "after");
        assert!(logs.flush(WRITE_DEADLINE).await);
        let lines = LogReader::new(store, Path::from("logs")).read().await.unwrap();
        let texts = texts(&lines);
        assert_eq!(texts.iter().filter(|text| **text == line).count(), WAITING_MAX + 1);
        assert!(texts[WAITING_MAX + 1].contains("lines are lost"), "{}", texts[WAITING_MAX + 1]);
        assert_eq!(texts.last(), Some(&"after"));
    }
}
