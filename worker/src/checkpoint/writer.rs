//! Writing checkpoints beside the training: the loop hands over a copy and goes on.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use muster_common::digest::ContentHash;
use muster_common::id::{Attempt, Generation, TrialId};
use muster_common::storage::{
    CHECKPOINT_FORMAT, CheckpointIndex, CheckpointKey, CheckpointPart, Store, StoreError,
};
use muster_common::time::Timestamp;
use tokio::runtime::Handle;

use super::{SaveError, Snapshot, part};
use crate::deadline::{Beside, beside_for, moving_time, within};

/// Longest wait for a checkpoint that is on its way, besides the time that its bytes take. Each operation
/// of the store has a shorter deadline of its own; this one catches a writer that makes no progress at all.
const COMMIT_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// Whose checkpoints a writer writes.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The trial.
    pub trial: TrialId,
    /// The run.
    pub generation: Generation,
    /// Number of the run within the trial.
    pub attempt: Attempt,
    /// The checkpoint the run continued from.
    pub parent: Option<CheckpointKey>,
    /// Digest of the pretrained weights.
    pub pretrained: ContentHash,
}

/// What must succeed before an index is written, such as getting the metrics into the store.
pub type BeforeCommit = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Writes the checkpoints of one run, one at a time, on a thread of its own.
pub struct Writer {
    runtime: Handle,
    store: Store,
    origin: Origin,
    before_commit: BeforeCommit,
    in_flight: Option<InFlight>,
}

struct InFlight {
    checkpoint: CheckpointKey,
    deadline: Duration,
    result: Receiver<Result<(), SaveError>>,
}

impl Writer {
    /// Writes to `store`; `before_commit` runs on the writing thread before each index.
    pub fn new(runtime: Handle, store: Store, origin: Origin, before_commit: BeforeCommit) -> Self {
        Self { runtime, store, origin, before_commit, in_flight: None }
    }

    /// Starts writing. Waits for the checkpoint before it, if that is still on its way, and returns
    /// its key: it is committed now.
    pub fn begin(&mut self, snapshot: Snapshot) -> Result<Option<CheckpointKey>, SaveError> {
        let before = self.finish()?;
        let checkpoint = CheckpointKey {
            trial: self.origin.trial.clone(),
            step: snapshot.progress.step,
            generation: self.origin.generation,
        };
        let deadline = COMMIT_DEADLINE + moving_time(snapshot.num_bytes());
        let (sender, result) = mpsc::channel();
        let key = checkpoint.clone();
        let (runtime, store) = (self.runtime.clone(), self.store.clone());
        let (origin, before_commit) = (self.origin.clone(), Arc::clone(&self.before_commit));
        let span = tracing::error_span!("save", step = checkpoint.step);
        let write = move || {
            let _saving = span.entered();
            let written = commit(&runtime, &store, &origin, &key, snapshot, &before_commit);
            tracing::debug!(is_committed = written.is_ok(), "the checkpoint is written");
            // Nobody listens any more when the run has ended in the meantime.
            let _unheard = sender.send(written);
        };
        let spawned = thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
        if let Err(error) = spawned {
            let reason = format!("no thread: {error}");
            return Err(SaveError::NotReady { checkpoint, reason });
        }
        self.in_flight = Some(InFlight { checkpoint, deadline, result });
        Ok(before)
    }

    /// The key of the checkpoint on its way if it has been committed since; does not wait.
    pub fn poll(&mut self) -> Result<Option<CheckpointKey>, SaveError> {
        let Some(InFlight { result, .. }) = &self.in_flight else { return Ok(None) };
        match result.try_recv() {
            Ok(written) => self.take(written),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => self.overdue(),
        }
    }

    /// Waits for the checkpoint on its way, if there is one, and returns its key.
    pub fn finish(&mut self) -> Result<Option<CheckpointKey>, SaveError> {
        let Some(InFlight { result, deadline, .. }) = &self.in_flight else { return Ok(None) };
        match result.recv_timeout(*deadline) {
            Ok(written) => self.take(written),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => self.overdue(),
        }
    }

    fn take(&mut self, written: Result<(), SaveError>) -> Result<Option<CheckpointKey>, SaveError> {
        let done = self.in_flight.take();
        written.map(|()| done.map(|done| done.checkpoint))
    }

    fn overdue(&mut self) -> Result<Option<CheckpointKey>, SaveError> {
        match self.in_flight.take() {
            Some(InFlight { checkpoint, .. }) => Err(SaveError::Overdue { checkpoint }),
            None => Ok(None),
        }
    }
}

/// Parts first, then whatever must come before, then the index.
fn commit(
    runtime: &Handle,
    store: &Store,
    origin: &Origin,
    checkpoint: &CheckpointKey,
    snapshot: Snapshot,
    before_commit: &BeforeCommit,
) -> Result<(), SaveError> {
    let overdue = |_| SaveError::Overdue { checkpoint: checkpoint.clone() };
    let refused = |source| SaveError::Store { checkpoint: checkpoint.clone(), source };
    let broken = |source| SaveError::Model { checkpoint: checkpoint.clone(), source };
    let mut parts = Vec::new();
    // One part is on its way while its digest is taken and the next one is made.
    let mut sending: Option<Beside<Result<(), StoreError>>> = None;
    let sent = |sending: Option<Beside<Result<(), StoreError>>>| {
        sending.map_or(Ok(()), |sending| sending.wait().map_err(overdue)?.map_err(refused))
    };
    for content in part::encode(snapshot).map_err(broken)? {
        let (name, content) = content.map_err(broken)?;
        sent(sending.take())?;
        let num_bytes = content.content_length() as u64;
        let (store, key, copy) = (store.clone(), checkpoint.part(name), content.clone());
        let put = async move { store.put_large(&key, copy).await };
        sending = Some(beside_for(runtime, num_bytes, put));
        let sha256 = ContentHash::of_pieces(content.iter().map(AsRef::as_ref));
        parts.push(CheckpointPart { name: name.to_owned(), bytes: num_bytes, sha256 });
    }
    sent(sending)?;
    let not_ready = |reason: String| SaveError::NotReady { checkpoint: checkpoint.clone(), reason };
    before_commit().map_err(not_ready)?;
    let index = CheckpointIndex {
        format: CHECKPOINT_FORMAT,
        checkpoint: checkpoint.clone(),
        attempt: origin.attempt,
        parent: origin.parent.clone(),
        pretrained: origin.pretrained.clone(),
        created_at: Timestamp::now(),
        parts,
    };
    commit_index(runtime, store, &index)
}

/// Writes the index, only if there is none. One that is there may be of an earlier try of this run.
fn commit_index(runtime: &Handle, store: &Store, index: &CheckpointIndex) -> Result<(), SaveError> {
    let checkpoint = &index.checkpoint;
    let overdue = |_| SaveError::Overdue { checkpoint: checkpoint.clone() };
    let refused = |source| SaveError::Store { checkpoint: checkpoint.clone(), source };
    let bytes = serde_json::to_vec_pretty(index).map_err(|error| SaveError::NotReady {
        checkpoint: checkpoint.clone(),
        reason: error.to_string(),
    })?;
    let created = within(runtime, store.create(&checkpoint.index(), bytes));
    match created.map_err(overdue)? {
        Ok(()) => Ok(()),
        Err(StoreError::Exists { .. }) => {
            let found = within(runtime, store.get(&checkpoint.index()));
            let found = found.map_err(overdue)?.map_err(refused)?;
            let same = CheckpointIndex::parse(checkpoint, &found)
                .is_ok_and(|found| found.parts == index.parts && found.attempt == index.attempt);
            if same { Ok(()) } else { Err(SaveError::Conflict { checkpoint: checkpoint.clone() }) }
        }
        Err(source) => Err(refused(source)),
    }
}
