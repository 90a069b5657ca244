//! Leases: a worker that is silent for too long has lost its run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use muster_common::id::{Generation, WorkerId};
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
        let names = |engine: &Engine| {
            let workers: Vec<WorkerId> = engine.workers().keys().cloned().collect();
            let runs: BTreeSet<Generation> = engine.runs().keys().copied().collect();
            (workers, runs)
        };
        let Ok((workers, runs)) = driver.read(names).await else { return };
        // A run that was lost has not said that it is over.
        live.keep_runs(|generation| runs.contains(&generation));
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
