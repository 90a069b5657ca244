//! Performs actions. What fails here is said in the log and tried again at the next start.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_common::storage::{CheckpointKey, Layout, Store, StoreError};
use tokio::sync::mpsc;

use crate::driver::Driver;
use crate::engine::{Action, Event};
use crate::live::{Live, ToWorker};

/// Takes actions until the driver is gone.
pub async fn perform_all(mut actions: mpsc::UnboundedReceiver<Action>, driver: Driver, live: Live) {
    let mut stores = Stores::default();
    while let Some(action) = actions.recv().await {
        match action {
            Action::StartRun { worker, spec } => live.send(&worker, ToWorker::Assign(spec)),
            Action::DirectRun { worker, generation, directive } => {
                live.send(&worker, ToWorker::Direct { generation, directive });
            }
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
                    Ok(store) => delete(&store, &checkpoint).await,
                    Err(error) => Err(error),
                };
                match deleted {
                    Ok(()) => {
                        if driver.apply(Event::CheckpointDeleted { checkpoint }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%checkpoint, error = &error as &dyn std::error::Error, "checkpoint not deleted");
                    }
                }
            }
            Action::Rejected { reason } => tracing::debug!(reason, "event changes nothing"),
            Action::Created { .. } => {}
        }
    }
}

/// Index first: from then on the checkpoint does not exist, whatever happens to the rest.
async fn delete(store: &Store, checkpoint: &CheckpointKey) -> Result<(), StoreError> {
    store.delete(&checkpoint.index()).await?;
    for key in store.list(&checkpoint.directory()).await? {
        store.delete(&key).await?;
    }
    Ok(())
}

/// Opened stores by URL.
#[derive(Default)]
struct Stores(BTreeMap<String, Store>);

impl Stores {
    fn open(&mut self, url: &str) -> Result<Store, StoreError> {
        if let Some(store) = self.0.get(url) {
            return Ok(store.clone());
        }
        let store = Store::open(url)?;
        self.0.insert(url.to_owned(), store.clone());
        Ok(store)
    }
}
