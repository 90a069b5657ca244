//! Waiting for the store from a thread that computes, never without end.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;

/// Longest wait for one operation of the store. Its client retries on its own well within.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// The store did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the object store did not answer within {} s", .0.as_secs())]
pub struct Overdue(pub Duration);

/// Waits for `operation` on `runtime`, at most [`STORE_DEADLINE`]. For threads outside the runtime.
pub fn within<T>(runtime: &Handle, operation: impl Future<Output = T>) -> Result<T, Overdue> {
    runtime.block_on(async {
        let timed = tokio::time::timeout(STORE_DEADLINE, operation).await;
        timed.map_err(|_| Overdue(STORE_DEADLINE))
    })
}
