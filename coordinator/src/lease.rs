//! Leases: a worker that is silent for too long has lost its run.

use std::time::{Duration, Instant};

use muster_common::id::WorkerId;
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::engine::{Engine, Event, LossCause};
use crate::live::Live;

/// Looks at every lease, a few times per lease, until `shutdown`. After a restart of the coordinator
/// every lease starts afresh.
pub async fn watch_leases(
    driver: Driver,
    live: Live,
    lease: Duration,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(lease / 5) => {}
            () = shutdown.cancelled() => return,
        }
        let names = |engine: &Engine| engine.workers().keys().cloned().collect::<Vec<WorkerId>>();
        let Ok(workers) = driver.read(names).await else { return };
        let now = Instant::now();
        for worker in workers {
            if live.silence(&worker, now) < lease {
                continue;
            }
            tracing::warn!(%worker, "nothing heard for a whole lease");
            live.forget(&worker);
            let event = Event::WorkerLost { worker, cause: LossCause::LeaseExpired };
            if driver.apply(event).await.is_err() {
                return;
            }
        }
    }
}
