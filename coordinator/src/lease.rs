//! Leases: a worker that is silent for too long has lost its run.

use std::time::{Duration, Instant};

use muster_common::id::WorkerId;
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::engine::{Engine, Event, LossCause};
use crate::live::Live;

/// Looks at every lease, a few times per lease, until `shutdown`. Workers go on when the coordinator is
/// away, so after a restart, or after this process stood still itself, every lease starts afresh.
pub async fn watch_leases(
    driver: Driver,
    live: Live,
    lease: Duration,
    shutdown: CancellationToken,
) {
    loop {
        let asleep_at = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(lease / 5) => {}
            () = shutdown.cancelled() => return,
        }
        if asleep_at.elapsed() > lease / 2 {
            // What workers said in the meantime lies unread in the sockets.
            tracing::warn!("this process stood still; every lease starts afresh");
            live.renew_leases(Instant::now());
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
