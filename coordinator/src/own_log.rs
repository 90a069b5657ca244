//! What this coordinator says, on its way to the object store: when it is dead, the reasons are there.

use std::time::Duration;

use muster_common::log_store::LogStore;
use muster_common::storage::{Layout, Store};
use muster_common::telemetry::recent_lines;
use muster_common::time::Timestamp;
use tokio_util::sync::CancellationToken;

/// Between two looks at what was said.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the store when the coordinator stops.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// The log of this process in the object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OwnLog {
    logs: LogStore,
    store: Store,
    started_at: Timestamp,
}

impl OwnLog {
    /// A new one in `store`.
    pub fn new(store: Store) -> Self {
        Self { logs: LogStore::default(), store, started_at: Timestamp::now() }
    }

    /// Takes and writes what is said, until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let writing = self.logs.clone().keep();
        let taking = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                self.take();
            }
        };
        tokio::select! {
            () = writing => {}
            () = taking => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Writes what is left, if the store answers soon.
    pub async fn finish(&self) {
        self.take();
        if !self.logs.flush(LAST_WRITE).await {
            tracing::warn!("the last lines of this log are not in the store");
        }
    }

    fn take(&self) {
        let stem = Layout::coordinator_log(self.started_at);
        for line in recent_lines() {
            self.logs.push(&self.store, &stem, "coordinator", &line);
        }
    }
}
