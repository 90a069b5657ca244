//! What of a checkpoint is in the store: every rank that writes a shard of it tells rank 0.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_common::storage::CheckpointPart;

use super::message::Message;
use super::watch::Shared;
use crate::checkpoint::Colleagues;

/// Between two looks at whether the run is over.
const LOOK: Duration = Duration::from_millis(200);

/// One rank's view of it.
pub struct Ledger {
    shared: Arc<Shared>,
}

impl Ledger {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Colleagues for Ledger {
    fn tell(&self, step: u64, parts: Vec<CheckpointPart>) {
        if let Some(first) = self.shared.state().peers.get_mut(&0) {
            first.tell(&Message::Written { step, parts });
        }
    }

    fn hear(
        &self,
        step: u64,
        ranks: &[u32],
        deadline: Duration,
    ) -> Result<Vec<CheckpointPart>, String> {
        let begun = Instant::now();
        let mut state = self.shared.state();
        loop {
            let missing = ranks.iter().find(|rank| !state.written.contains_key(&(step, **rank)));
            let Some(missing) = missing else {
                let all = ranks.iter().filter_map(|rank| state.written.remove(&(step, *rank)));
                return Ok(all.flatten().collect());
            };
            if let Some(failure) = &state.failure {
                return Err(format!("rank {} failed: {}", failure.rank, failure.message));
            }
            if state.is_over || state.peers.get(missing).is_none_or(|peer| peer.has_left) {
                return Err(format!("rank {missing} left before its shard was written"));
            }
            if begun.elapsed() > deadline {
                let seconds = deadline.as_secs();
                return Err(format!("rank {missing} did not write its shard within {seconds} s"));
            }
            state = match self.shared.changed.wait_timeout(state, LOOK) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}
