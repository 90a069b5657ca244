//! Writing checkpoints beside the training: the loop hands over a copy and goes on. Where several ranks write
//! shards of one checkpoint, rank 0 writes the index once all of them are in the store.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use muster_common::digest::ContentHash;
use muster_common::id::{Attempt, Generation, TrialId};
use muster_common::storage::{
    CHECKPOINT_FORMAT, CheckpointIndex, CheckpointKey, CheckpointPart, Store, StoreError,
    WHOLE_CHECKPOINT_FORMAT,
};
use muster_common::time::Timestamp;
use tokio::runtime::Handle;

use super::{SaveError, Shard, Snapshot, part};
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

/// The other ranks of a run, which write shards of the same checkpoints.
pub trait Colleagues: Send + Sync {
    /// Tells rank 0 which objects of the checkpoint of `step` this rank has in the store.
    fn tell(&self, step: u64, written: Vec<CheckpointPart>);

    /// Waits until these ranks have told the same, and returns all of it. `Err`: one of them will not.
    fn hear(
        &self,
        step: u64,
        ranks: &[u32],
        deadline: Duration,
    ) -> Result<Vec<CheckpointPart>, String>;
}

/// Writes the checkpoints of one run, one at a time, on a thread of its own.
pub struct Writer {
    runtime: Handle,
    store: Store,
    origin: Origin,
    before_commit: BeforeCommit,
    colleagues: Option<Arc<dyn Colleagues>>,
    in_flight: Option<InFlight>,
}

/// What the writing thread needs for one checkpoint.
struct Work {
    runtime: Handle,
    store: Store,
    origin: Origin,
    checkpoint: CheckpointKey,
    deadline: Duration,
    before_commit: BeforeCommit,
    colleagues: Option<Arc<dyn Colleagues>>,
}

struct InFlight {
    checkpoint: CheckpointKey,
    deadline: Duration,
    result: Receiver<Result<(), SaveError>>,
    /// What [`Writer::poll`] has found out, for whoever waits next.
    failed: Option<SaveError>,
}

impl Writer {
    /// Writes to `store`; `before_commit` runs on the writing thread before each index.
    pub fn new(runtime: Handle, store: Store, origin: Origin, before_commit: BeforeCommit) -> Self {
        Self { runtime, store, origin, before_commit, colleagues: None, in_flight: None }
    }

    /// Shards are written together with `colleagues`.
    #[must_use]
    pub fn with(mut self, colleagues: Option<Arc<dyn Colleagues>>) -> Self {
        self.colleagues = colleagues;
        self
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
        let work = Work {
            runtime: self.runtime.clone(),
            store: self.store.clone(),
            origin: self.origin.clone(),
            checkpoint: checkpoint.clone(),
            deadline,
            before_commit: Arc::clone(&self.before_commit),
            colleagues: self.colleagues.clone(),
        };
        let span = tracing::error_span!("save", step = checkpoint.step);
        let write = move || {
            let _saving = span.entered();
            let written = work.commit(snapshot);
            tracing::debug!(is_committed = written.is_ok(), "the checkpoint is written");
            // Nobody listens any more when the run has ended in the meantime.
            let _unheard = sender.send(written);
        };
        let spawned = thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
        if let Err(error) = spawned {
            let reason = format!("no thread: {error}");
            return Err(SaveError::NotReady { checkpoint, reason });
        }
        self.in_flight = Some(InFlight { checkpoint, deadline, result, failed: None });
        Ok(before)
    }

    /// The key of the checkpoint on its way if it has been committed since; does not wait. That it was not is said
    /// by the next [`Writer::begin`] or [`Writer::finish`].
    pub fn poll(&mut self) -> Option<CheckpointKey> {
        let in_flight = self.in_flight.as_mut()?;
        match in_flight.result.try_recv() {
            Ok(Ok(())) => self.in_flight.take().map(|done| done.checkpoint),
            Ok(Err(error)) => {
                in_flight.failed = Some(error);
                None
            }
            Err(_nothing_yet) => None,
        }
    }

    /// Waits for the checkpoint on its way, if there is one, and returns its key.
    pub fn finish(&mut self) -> Result<Option<CheckpointKey>, SaveError> {
        let Some(InFlight { result, deadline, failed, .. }) = &mut self.in_flight else {
            return Ok(None);
        };
        if let Some(error) = failed.take() {
            return self.take(Err(error));
        }
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

impl Work {
    /// Parts first, then whatever must come before, then the index, which is rank 0's.
    fn commit(&self, snapshot: Snapshot) -> Result<(), SaveError> {
        let (shard, step) = (snapshot.shard, snapshot.progress.step);
        let mut parts = self.put(snapshot)?;
        (self.before_commit)().map_err(|reason| self.not_ready(reason))?;
        if shard.is_one_of_several() {
            let alone = || self.not_ready("it is a shard, and there are no other ranks".to_owned());
            let colleagues = self.colleagues.as_ref().ok_or_else(alone)?;
            if !shard.is_first() {
                colleagues.tell(step, parts);
                return Ok(());
            }
            let others: Vec<u32> = shard.others().collect();
            let heard = colleagues.hear(step, &others, self.deadline);
            parts.extend(heard.map_err(|reason| self.not_ready(reason))?);
        }
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        self.commit_index(&CheckpointIndex {
            format: format_of(shard),
            checkpoint: self.checkpoint.clone(),
            attempt: self.origin.attempt,
            parent: self.origin.parent.clone(),
            pretrained: self.origin.pretrained.clone(),
            created_at: Timestamp::now(),
            parts,
        })
    }

    /// Every object of the snapshot, in the store.
    fn put(&self, snapshot: Snapshot) -> Result<Vec<CheckpointPart>, SaveError> {
        let broken = |source| SaveError::Model { checkpoint: self.checkpoint.clone(), source };
        let mut parts = Vec::new();
        // One object is on its way while its digest is taken and the next one is made.
        let mut sending: Option<Beside<Result<(), StoreError>>> = None;
        let sent = |sending: Option<Beside<Result<(), StoreError>>>| {
            sending.map_or(Ok(()), |sending| {
                let sent = sending.wait().map_err(|_| self.overdue())?;
                sent.map_err(|source| self.refused(source))
            })
        };
        for content in part::encode(snapshot).map_err(broken)? {
            let (name, content) = content.map_err(broken)?;
            sent(sending.take())?;
            let num_bytes = content.content_length() as u64;
            let (store, key) = (self.store.clone(), self.checkpoint.part(&name));
            let copy = content.clone();
            let put = async move { store.put_large(&key, copy).await };
            sending = Some(beside_for(&self.runtime, num_bytes, put));
            let sha256 = ContentHash::of_pieces(content.iter().map(AsRef::as_ref));
            parts.push(CheckpointPart { name, bytes: num_bytes, sha256 });
        }
        sent(sending)?;
        Ok(parts)
    }

    /// Writes the index, only if there is none. One that is there may be of an earlier try of this run.
    fn commit_index(&self, index: &CheckpointIndex) -> Result<(), SaveError> {
        let (checkpoint, store) = (&index.checkpoint, &self.store);
        let bytes = serde_json::to_vec_pretty(index);
        let bytes = bytes.map_err(|error| self.not_ready(error.to_string()))?;
        let created = within(&self.runtime, store.create(&checkpoint.index(), bytes));
        match created.map_err(|_| self.overdue())? {
            Ok(()) => Ok(()),
            Err(StoreError::Exists { .. }) => {
                let found = within(&self.runtime, store.get(&checkpoint.index()));
                let found = found.map_err(|_| self.overdue())?;
                let found = found.map_err(|source| self.refused(source))?;
                let same = CheckpointIndex::parse(checkpoint, &found).is_ok_and(|found| {
                    found.parts == index.parts && found.attempt == index.attempt
                });
                let conflict = || SaveError::Conflict { checkpoint: checkpoint.clone() };
                if same { Ok(()) } else { Err(conflict()) }
            }
            Err(source) => Err(self.refused(source)),
        }
    }

    fn not_ready(&self, reason: String) -> SaveError {
        SaveError::NotReady { checkpoint: self.checkpoint.clone(), reason }
    }

    fn overdue(&self) -> SaveError {
        SaveError::Overdue { checkpoint: self.checkpoint.clone() }
    }

    fn refused(&self, source: StoreError) -> SaveError {
        SaveError::Store { checkpoint: self.checkpoint.clone(), source }
    }
}

/// Builds that know of no shards can read a checkpoint without them.
fn format_of(shard: Shard) -> u32 {
    if shard.is_one_of_several() { CHECKPOINT_FORMAT } else { WHOLE_CHECKPOINT_FORMAT }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use muster_common::manifest::{Assignment, SearchSpace, TrainingSettings, TrialSettings};
    use muster_common::seed::Seed;

    use super::*;
    use crate::checkpoint::Progress;
    use crate::model::NamedTensors;
    use crate::prefix::Coverage;
    use crate::train::StoppingState;

    fn origin() -> Origin {
        Origin {
            trial: TrialId { experiment: "demo-1".parse().unwrap(), number: 1 },
            generation: Generation(3),
            attempt: Attempt(1),
            parent: None,
            pretrained: ContentHash::of(b"weights"),
        }
    }

    fn snapshot(step: u64) -> Snapshot {
        let progress = Progress {
            step,
            epoch: 0,
            step_in_epoch: step,
            seed: Seed(1),
            total_steps: 100,
            data: String::new(),
            coverage: Coverage::default(),
            settings: TrialSettings::resolve(&SearchSpace::new(), &Assignment::new()),
            training: TrainingSettings::default(),
            evaluated_step: 0,
            stopping: StoppingState::default(),
        };
        let none = NamedTensors::new;
        let (model, optimizer, average, best) = (none(), none(), none(), none());
        Snapshot { shard: Shard::WHOLE, progress, model, optimizer, average, best }
    }

    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "nothing happens");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_checkpoint_is_known_once_it_is_in_the_store_and_a_failure_is_kept_for_who_waits() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = Store::open(&directory.path().display().to_string()).unwrap();
        let (sender, ready) = mpsc::channel::<Result<(), String>>();
        let ready = Mutex::new(ready);
        let before_commit = Arc::new(move || ready.lock().unwrap().recv().unwrap());
        let mut writer = Writer::new(runtime.handle().clone(), store, origin(), before_commit);

        assert_eq!(writer.begin(snapshot(10)).unwrap(), None);
        assert_eq!(writer.poll(), None, "it is on its way");
        sender.send(Ok(())).unwrap();
        assert_eq!(until(|| writer.poll()).step, 10);
        assert_eq!(writer.finish().unwrap(), None, "said once");

        assert_eq!(writer.begin(snapshot(20)).unwrap(), None);
        sender.send(Err("no metrics".to_owned())).unwrap();
        until(|| {
            assert_eq!(writer.poll(), None);
            writer.in_flight.as_ref().and_then(|one| one.failed.as_ref()).map(|_failed| ())
        });
        let error = writer.begin(snapshot(30)).unwrap_err().to_string();
        assert!(error.contains("no metrics"), "{error}");
        assert_eq!(writer.finish().unwrap(), None);
    }
}
