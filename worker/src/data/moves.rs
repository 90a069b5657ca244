//! Whether reading and tokenizing moves: deadlines are for what hangs, not for what is large.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of this process, whichever data it is.
static MOVES: AtomicU64 = AtomicU64::new(0);

/// Some rows were read or tokenized, here or by the worker that is waited for.
pub(super) fn moved() {
    MOVES.fetch_add(1, Ordering::Relaxed);
}

/// How often data has moved in this process; the same number twice: it has not meanwhile.
pub fn moves() -> u64 {
    MOVES.load(Ordering::Relaxed)
}
