//! Waiting for the store from a thread that computes, never without end.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

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
    runtime.block_on(async {
        let timed = tokio::time::timeout(STORE_DEADLINE, operation).await;
        timed.map_err(|_| Overdue(STORE_DEADLINE))
    })
}

/// Waits for `operation` as long as something moves: until `moves`, asked twenty times in `silence`, has given the
/// same number for so long.
pub async fn while_it_moves<T>(
    operation: impl Future<Output = T>,
    moves: impl Fn() -> u64,
    silence: Duration,
) -> Result<T, Overdue> {
    let mut operation = std::pin::pin!(operation);
    let (mut seen, mut since) = (moves(), Instant::now());
    loop {
        if let Ok(done) = tokio::time::timeout(silence / 20, &mut operation).await {
            return Ok(done);
        }
        let now = moves();
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() >= silence {
            return Err(Overdue(silence));
        }
    }
}

/// An operation that goes on while its caller does something else. Given up when it is dropped.
#[derive(Debug)]
pub struct Beside<T> {
    runtime: Handle,
    task: AbortOnDropHandle<Result<T, Overdue>>,
}

/// Begins an operation that moves `num_bytes`, on a runtime with threads of its own. It has [`STORE_DEADLINE`] and
/// the time that its bytes take.
pub fn beside_for<T: Send + 'static>(
    runtime: &Handle,
    num_bytes: u64,
    operation: impl Future<Output = T> + Send + 'static,
) -> Beside<T> {
    let deadline = STORE_DEADLINE + moving_time(num_bytes);
    let task = runtime.spawn(async move {
        let timed = tokio::time::timeout(deadline, operation).await;
        timed.map_err(|_| Overdue(deadline))
    });
    Beside { runtime: runtime.clone(), task: AbortOnDropHandle::new(task) }
}

impl<T> Beside<T> {
    /// Waits for its end.
    pub fn wait(self) -> Result<T, Overdue> {
        match self.runtime.block_on(self.task) {
            Ok(result) => result,
            // A runtime that shuts down takes its tasks along: as with a store that is silent, nothing is known.
            Err(error) if error.is_cancelled() => Err(Overdue(Duration::ZERO)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Time to move so many bytes to or from the slowest store that is put up with.
pub fn moving_time(num_bytes: u64) -> Duration {
    Duration::from_secs(num_bytes / BYTES_PER_SECOND_MIN)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_moves_may_take_longer_than_silence_lasts() {
        let (silence, moves) = (Duration::from_millis(500), Cell::new(0u64));
        let slow = async {
            for step in 1..=20 {
                tokio::time::sleep(silence / 5).await;
                moves.set(step);
            }
            "done"
        };
        assert_eq!(while_it_moves(slow, || moves.get(), silence).await, Ok("done"));
        let hung = std::future::pending::<()>();
        assert_eq!(while_it_moves(hung, || moves.get(), silence).await, Err(Overdue(silence)));
    }
}
