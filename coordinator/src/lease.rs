//! Leases: a worker that is silent for too long has lost its run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use muster_common::id::{Generation, WorkerId};
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::engine::{Engine, Event, LossCause};
use crate::live::Live;

/// Looks at every lease, a few times per lease, until `shutdown`. Workers go on when the coordinator is
/// away, so after a restart, or after this process stood still itself, every lease starts afresh. Nor is a worker lost
/// whose words lie unread because its session still deals with earlier ones; see [`Live::silence`].
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
        let names = |engine: &Engine| {
            let workers: Vec<WorkerId> = engine.workers().keys().cloned().collect();
            let runs: BTreeSet<Generation> = engine.runs().keys().copied().collect();
            (workers, runs)
        };
        let Ok((workers, runs)) = driver.read(names).await else { return };
        // A journal that stood still counts too: sessions wait for it.
        if asleep_at.elapsed() > lease / 2 {
            // What workers said in the meantime lies unread in the sockets.
            tracing::warn!("this process or its disk stood still; every lease starts afresh");
            live.renew_leases(Instant::now());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn workers_are_not_lost_because_the_journal_stood_still() {
        let lease = Duration::from_secs(2);
        let directory = tempfile::tempdir().unwrap();
        let (journal, engine) = Journal::open(directory.path()).unwrap();
        let (effects, _inbox) = tokio::sync::mpsc::unbounded_channel();
        let (driver, thread) = Driver::start(journal, engine, effects).unwrap();
        let (live, shutdown) = (Live::default(), CancellationToken::new());
        let worker: WorkerId = "w1".parse().unwrap();
        let (host, token_name) = ("h".to_owned(), None);
        let joined = Event::WorkerJoined { worker: worker.clone(), host, token_name };
        driver.apply(joined).await.unwrap();
        let _messages = live.connect(&worker, 1, None, None, Instant::now()).unwrap();
        let watching = tokio::spawn(watch_leases(driver.clone(), live, lease, shutdown.clone()));
        driver.read(move |_| std::thread::sleep(lease * 5 / 2)).await.unwrap();
        tokio::time::sleep(lease / 5).await;
        let num_workers = |engine: &Engine| engine.workers().len();
        assert_eq!(driver.read(num_workers).await.unwrap(), 1, "its words lie unread");
        let is_lost = async {
            while driver.read(num_workers).await.unwrap() > 0 {
                tokio::time::sleep(lease / 20).await;
            }
        };
        // It has had a whole lease.
        tokio::time::timeout(lease * 30, is_lost).await.unwrap();
        shutdown.cancel();
        watching.await.unwrap();
        driver.stop().await;
        thread.join().unwrap().unwrap();
    }
}
