//! Wakes the engine, which reads no clock, when something is due.

use std::time::Duration;

use muster_common::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::engine::{Engine, Event};

/// Between two attempts when the wall clock does not get there.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Sends [`Event::TimerFired`] whenever the engine's next time has come, until `shutdown`.
pub async fn ring(driver: Driver, shutdown: CancellationToken) {
    let mut changes = driver.changes();
    loop {
        let Ok(next) = driver.read(Engine::next_timer).await else { return };
        let due = async {
            match next {
                Some(at) => tokio::time::sleep(at.since(Timestamp::now()).max(PAUSE_MIN)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {
                if driver.apply(Event::TimerFired).await.is_err() {
                    return;
                }
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}
