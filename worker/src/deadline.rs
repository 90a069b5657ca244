//! Waiting for the store from a thread that computes, never without end.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;

/// Longest wait for one operation of the store. Its client retries on its own well within.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// A store that takes or gives less than so many bytes a second over minutes counts as silent.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// The store did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the object store did not answer within {} s", .0.as_secs())]
pub struct Overdue(pub Duration);

/// Waits for `operation` on `runtime`, at most [`STORE_DEADLINE`]. For threads outside the runtime.
pub fn within<T>(runtime: &Handle, operation: impl Future<Output = T>) -> Result<T, Overdue> {
    within_time(runtime, STORE_DEADLINE, operation)
}

/// As [`within`], for an operation that moves `num_bytes`.
pub fn within_for<T>(
    runtime: &Handle,
    num_bytes: u64,
    operation: impl Future<Output = T>,
) -> Result<T, Overdue> {
    within_time(runtime, STORE_DEADLINE + moving_time(num_bytes), operation)
}

/// Time to move so many bytes to or from the slowest store that is put up with.
pub fn moving_time(num_bytes: u64) -> Duration {
    Duration::from_secs(num_bytes / BYTES_PER_SECOND_MIN)
}

fn within_time<T>(
    runtime: &Handle,
    deadline: Duration,
    operation: impl Future<Output = T>,
) -> Result<T, Overdue> {
    runtime.block_on(async {
        let timed = tokio::time::timeout(deadline, operation).await;
        timed.map_err(|_| Overdue(deadline))
    })
}
