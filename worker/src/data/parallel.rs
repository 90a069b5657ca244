//! Work on many items by the threads of a slot.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Items that a thread takes at once: few enough that threads end together.
const PART: usize = 64;

/// Cores of this slot, from the environment; 1 if it says nothing.
const THREADS_VARIABLE: &str = "MUSTER_THREADS_PER_SLOT";

/// Threads that this slot may use.
pub(super) fn threads_per_slot() -> usize {
    let text = std::env::var(THREADS_VARIABLE).ok();
    text.and_then(|text| text.parse().ok()).filter(|threads| *threads > 0).unwrap_or(1)
}

/// `work` on every item, results in order; the result does not depend on `num_threads`. Threads take
/// small parts one after the other, so that long texts in one place do not keep one thread while the
/// others wait. `None`: `work` panicked.
pub(super) fn each<T: Sync, R: Send>(
    items: &[T],
    num_threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Option<Vec<R>> {
    let parts: Vec<&[T]> = items.chunks(PART).collect();
    let done: Vec<Mutex<Option<Vec<R>>>> = parts.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let span = tracing::Span::current();
    let take = || {
        let _run = span.enter();
        while let Some((part, slot)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            parts.get(index).zip(done.get(index))
        } {
            let results = part.iter().map(&work).collect();
            if let Ok(mut slot) = slot.lock() {
                *slot = Some(results);
            }
        }
    };
    let panicked = thread::scope(|scope| {
        let num_threads = num_threads.clamp(1, parts.len().max(1));
        let threads: Vec<_> = (0..num_threads).map(|_| scope.spawn(take)).collect();
        threads.into_iter().filter_map(|thread| thread.join().err()).count() > 0
    });
    let mut results = Vec::with_capacity(items.len());
    for slot in done {
        results.extend(slot.into_inner().ok().flatten().filter(|_| !panicked)?);
    }
    Some(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_a_panic_is_told() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 1, 3, 50] {
            assert_eq!(each(&items, threads, |item| item + 1), Some((1..=1000).collect()));
            let unlucky = each(&items, threads, |item| assert_ne!(*item, 700));
            assert_eq!(unlucky, None);
        }
        assert_eq!(each(&[] as &[u8], 2, |item| *item), Some(Vec::new()));
    }
}
