//! Performs actions. What fails here is said in the log and tried again at the next start.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use muster_common::id::ExperimentId;
use muster_common::storage::{CheckpointKey, Layout, Store, StoreError};
use muster_common::telemetry::RunIds;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::driver::Driver;
use crate::engine::{Action, Event};
use crate::live::{Live, ToWorker};
use crate::metrics::Metrics;

/// Work on object stores at the same time.
const CHORES_AT_ONCE: usize = 8;
/// Of what is to be done, so much is done together where it can be.
const CHORES_MAX: usize = 64;
/// Deleted checkpoints of one event, at most, and how long the first of them waits for others. Nobody waits for
/// these events: what a crash leaves unsaid is deleted again.
const DELETED_MAX: usize = 256;
const DELETED_WAIT: Duration = Duration::from_millis(250);

/// Work on an object store.
enum Chore {
    Write { experiment: ExperimentId, store: String, text: String },
    Delete { store: String, checkpoint: CheckpointKey },
}

/// Takes actions until the driver is gone. What workers are told goes out at once, and never waits for an
/// object store.
pub async fn perform_all(mut actions: mpsc::UnboundedReceiver<Action>, driver: Driver, live: Live) {
    let (chores, waiting) = mpsc::unbounded_channel();
    let metrics = driver.metrics().clone();
    let of_chores = metrics.clone();
    let counted = metrics.clone();
    let queue = move |chore| {
        counted.pending("chore", 1);
        // Whoever does them lives for as long as they are handed on.
        let _sent = chores.send(chore);
    };
    let tell = async move {
        while let Some(action) = actions.recv().await {
            match action {
                Action::StartRun { worker, spec } => {
                    if tracing::enabled!(tracing::Level::DEBUG) {
                        let _run = RunIds::of(&spec).span().entered();
                        tracing::debug!(%worker, "the run is assigned");
                    }
                    live.send(&worker, ToWorker::Assign(spec));
                }
                Action::DirectRun { worker, generation, directive } => {
                    live.send(&worker, ToWorker::Direct { generation, directive });
                }
                Action::StoreManifest { experiment, store, text } => {
                    queue(Chore::Write { experiment, store, text });
                }
                Action::DeleteCheckpoint { store, checkpoint } => {
                    queue(Chore::Delete { store, checkpoint });
                }
                Action::Rejected { reason } => tracing::debug!(reason, "event changes nothing"),
                Action::Created { .. } => {}
            }
            metrics.pending("message", -1);
        }
    };
    let (gone, deleted) = mpsc::unbounded_channel();
    tokio::join!(tell, keep_house(waiting, gone, of_chores), note_deleted(deleted, driver));
}

/// Works on object stores until nobody asks for it any more.
async fn keep_house(
    waiting: mpsc::UnboundedReceiver<Chore>,
    gone: mpsc::UnboundedSender<CheckpointKey>,
    metrics: Metrics,
) {
    let opened = Stores::default();
    let (stores, gone, metrics) = (&opened, &gone, &metrics);
    let work = move |chores: Vec<Chore>| async move {
        let number = i64::try_from(chores.len()).unwrap_or(i64::MAX);
        do_chores(chores, stores, gone).await;
        metrics.pending("chore", -number);
    };
    let chunks = UnboundedReceiverStream::new(waiting).ready_chunks(CHORES_MAX);
    chunks.for_each_concurrent(CHORES_AT_ONCE, work).await;
}

/// Tells the engine which checkpoints are gone, many at a time: there are more of them than of results.
async fn note_deleted(mut deleted: mpsc::UnboundedReceiver<CheckpointKey>, driver: Driver) {
    while let Some(first) = deleted.recv().await {
        let mut checkpoints = vec![first];
        let collect = async {
            while checkpoints.len() < DELETED_MAX
                && let Some(next) = deleted.recv().await
            {
                checkpoints.push(next);
            }
        };
        // Few come, or enough.
        let _waited = tokio::time::timeout(DELETED_WAIT, collect).await;
        // A driver that is gone finds them again at the next start.
        let _stopping = driver.apply(Event::CheckpointsDeleted { checkpoints }).await;
    }
}

/// Writes manifests one by one, then deletes what lies in one store together. A store that does not answer keeps
/// deletions in no other waiting.
async fn do_chores(
    chores: Vec<Chore>,
    stores: &Stores,
    gone: &mpsc::UnboundedSender<CheckpointKey>,
) {
    let mut deletions: BTreeMap<String, Vec<CheckpointKey>> = BTreeMap::new();
    for chore in chores {
        match chore {
            Chore::Write { experiment, store, text } => {
                let key = Layout::manifest(&experiment);
                let written = match stores.open(&store) {
                    Ok(store) => store.put(&key, Bytes::from(text)).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = written {
                    tracing::warn!(%experiment, error = &error as &dyn std::error::Error, "manifest not stored");
                }
            }
            Chore::Delete { store, checkpoint } => {
                deletions.entry(store).or_default().push(checkpoint);
            }
        }
    }
    let delete = |(store, checkpoints)| delete_from(store, checkpoints, stores, gone);
    futures::future::join_all(deletions.into_iter().map(delete)).await;
}

async fn delete_from(
    url: String,
    checkpoints: Vec<CheckpointKey>,
    stores: &Stores,
    gone: &mpsc::UnboundedSender<CheckpointKey>,
) {
    let deleted = match stores.open(&url) {
        Ok(store) => store.delete_checkpoints(checkpoints).await,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(url, error, "checkpoints not deleted");
            return;
        }
    };
    for (checkpoint, deleted) in deleted {
        match deleted {
            Ok(()) => {
                // Whoever writes it down ends after all chores.
                let _sent = gone.send(checkpoint);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%checkpoint, error, "checkpoint not deleted");
            }
        }
    }
}

/// Opened stores by URL.
#[derive(Default)]
struct Stores(Mutex<BTreeMap<String, Store>>);

impl Stores {
    fn open(&self, url: &str) -> Result<Store, StoreError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(url) {
            return Ok(store.clone());
        }
        let store = Store::open(url)?;
        open.insert(url.to_owned(), store.clone());
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use muster_common::id::Generation;
    use tokio::time::timeout;

    /// Longest wait for anything here.
    const DEADLINE: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn checkpoints_that_go_together_are_written_down_together() {
        const NUM_DELETED: u64 = 40;
        let (state, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (journal, engine) = Journal::open(state.path()).unwrap();
        let (effects, inbox) = mpsc::unbounded_channel();
        let wanted = effects.clone();
        let (driver, thread) = Driver::start(journal, engine, effects).unwrap();
        let performing = tokio::spawn(perform_all(inbox, driver.clone(), Live::default()));
        let url = format!("file://{}", store.path().display());
        for step in 1..=NUM_DELETED {
            let trial = "e-1/t1".parse().unwrap();
            let checkpoint = CheckpointKey { trial, step, generation: Generation(1) };
            wanted.send(Action::DeleteCheckpoint { store: url.clone(), checkpoint }).unwrap();
        }
        let mut changes = driver.changes();
        timeout(DEADLINE, changes.wait_for(|position| *position > 0)).await.unwrap().unwrap();
        drop((wanted, changes));
        driver.stop().await;
        thread.join().unwrap().unwrap();
        // It ends with the driver, and does not wait for deletions that nobody asks for.
        timeout(DEADLINE, performing).await.unwrap().unwrap();
        let (journal, _engine) = Journal::open(state.path()).unwrap();
        assert!((1..NUM_DELETED / 4).contains(&journal.position()), "{}", journal.position());
    }
}
