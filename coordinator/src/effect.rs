//! Performs actions. What fails here is said in the log and tried again at the next start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use muster_common::storage::{Layout, Store, StoreError};
use muster_common::telemetry::RunIds;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::driver::Driver;
use crate::engine::{Action, Event};
use crate::live::{Live, ToWorker};

/// Work on object stores at the same time.
const CHORES_AT_ONCE: usize = 8;

/// Takes actions until the driver is gone. What workers are told goes out at once, and never waits for an
/// object store.
pub async fn perform_all(mut actions: mpsc::UnboundedReceiver<Action>, driver: Driver, live: Live) {
    let (chores, waiting) = mpsc::unbounded_channel();
    let metrics = driver.metrics().clone();
    let of_chores = metrics.clone();
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
                Action::StoreManifest { .. } | Action::DeleteCheckpoint { .. } => {
                    if chores.send(action).is_err() {
                        return;
                    }
                    metrics.pending("chore", 1);
                }
                Action::Rejected { reason } => tracing::debug!(reason, "event changes nothing"),
                Action::Created { .. } => {}
            }
            metrics.pending("message", -1);
        }
    };
    let stores = Arc::new(Stores::default());
    let keep_house =
        UnboundedReceiverStream::new(waiting).for_each_concurrent(CHORES_AT_ONCE, move |chore| {
            let (stores, driver) = (Arc::clone(&stores), driver.clone());
            let metrics = of_chores.clone();
            async move {
                do_chore(chore, &stores, &driver).await;
                metrics.pending("chore", -1);
            }
        });
    tokio::join!(tell, keep_house);
}

async fn do_chore(chore: Action, stores: &Stores, driver: &Driver) {
    match chore {
        Action::StoreManifest { experiment, store, text } => {
            let key = Layout::manifest(&experiment);
            let written = match stores.open(&store) {
                Ok(store) => store.put(&key, Bytes::from(text)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                tracing::warn!(%experiment, error = &error as &dyn std::error::Error, "manifest not stored");
            }
        }
        Action::DeleteCheckpoint { store, checkpoint } => {
            let deleted = match stores.open(&store) {
                Ok(store) => store.delete_checkpoint(&checkpoint).await,
                Err(error) => Err(error),
            };
            match deleted {
                Ok(()) => {
                    // A driver that is gone finds it again at the next start.
                    let _stopping = driver.apply(Event::CheckpointDeleted { checkpoint }).await;
                }
                Err(error) => {
                    tracing::warn!(%checkpoint, error = &error as &dyn std::error::Error, "checkpoint not deleted");
                }
            }
        }
        Action::StartRun { .. }
        | Action::DirectRun { .. }
        | Action::Rejected { .. }
        | Action::Created { .. } => {}
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
