//! A bounded buffer between the training loop and the store.
//!
//! ```text
//! record() --> pending --(64 k points at most; more are dropped and counted)
//!                 |  task: every 30 s, at 8192 points, at a flush
//!                 v
//!              batch ----> ATTEMPT-RANK-SEQUENCE.parquet   tried again until it is stored
//! ```
//!
//! A batch keeps its sequence number when it is tried again, so a file whose answer got lost is
//! written over with itself. Before the first batch goes what the rank trains with, so that values in the
//! store can be said to come from somewhere; values are worth more, so they do not wait for a store that refuses it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use muster_common::equipment::{self, Equipment};
use muster_common::id::{Attempt, TrialId};
use muster_common::metric::{MetricError, MetricName, MetricPoint, encode};
use muster_common::storage::{Layout, Store};
use muster_common::time::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::Instrument as _;

/// Points held while the store is slow.
const PENDING_MAX: usize = 65_536;
/// Points that are written without waiting for more.
const BATCH_POINTS: usize = 8192;
/// Oldest age of a point that is not yet written.
const BATCH_AGE: Duration = Duration::from_secs(30);
/// Longest wait for one write.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// Pause before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait of a flush: longer than the two minutes that a store may be away.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3 * 60);

/// Whose metrics a sink takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricOrigin {
    /// The trial.
    pub trial: TrialId,
    /// Number of the run within the trial.
    pub attempt: Attempt,
    /// The rank that records.
    pub rank: u32,
    /// Step of the checkpoint the run continued from; 0 for a fresh start. Readers drop what
    /// earlier attempts recorded behind it.
    pub resumed_from: u64,
    /// Name of this machine.
    pub host: Arc<str>,
}

/// Why metrics are not in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricSinkError {
    /// The store did not take them in time.
    #[error("{waiting} metric values are not in the store after {seconds} s{}", cause(.reason.as_deref()))]
    Overdue {
        /// Values recorded before the flush that are not stored.
        waiting: u64,
        /// How long the flush has waited.
        seconds: u64,
        /// What the last write said, if one failed.
        reason: Option<String>,
    },
    /// The task that writes is gone: the process is shutting down.
    #[error("metrics cannot be written any more: the runtime has stopped")]
    Stopped,
}

fn cause(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// Takes the metrics of one run. Dropping it writes what is left, in the background.
#[derive(Debug)]
pub struct MetricSink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origin: MetricOrigin,
    state: Mutex<State>,
    /// There may be something to write.
    work: Notify,
    /// `num_stored` or `ended` has changed.
    stored: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<MetricPoint>,
    /// Points taken since the start, dropped ones not counted.
    num_recorded: u64,
    /// Of these, the first so many are in the store.
    num_stored: u64,
    num_dropped: u64,
    /// Dropped points that no flush has reported yet.
    num_unreported: u64,
    /// Somebody waits for everything up to here.
    wanted: u64,
    last_failure: Option<String>,
    /// The sink has been dropped: write what is left and end.
    closing: bool,
    /// The task has ended.
    ended: bool,
}

impl MetricSink {
    /// A sink that writes to `store` from a task on `runtime`.
    pub fn new(store: Store, origin: MetricOrigin, runtime: &Handle) -> Self {
        Self::begin(store, origin, None, runtime)
    }

    /// [`MetricSink::new`] that writes what the rank trains with, too.
    pub fn with_equipment(
        store: Store,
        origin: MetricOrigin,
        equipment: Equipment,
        runtime: &Handle,
    ) -> Self {
        Self::begin(store, origin, Some(equipment), runtime)
    }

    fn begin(
        store: Store,
        origin: MetricOrigin,
        equipment: Option<Equipment>,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared {
            origin,
            state: Mutex::default(),
            work: Notify::new(),
            stored: Condvar::new(),
        });
        let ending = Ending(Arc::clone(&shared));
        let task = Arc::clone(&shared);
        runtime.spawn(
            async move {
                let _ending = ending;
                write_all(&task, &store, equipment).await;
            }
            .in_current_span(),
        );
        Self { shared }
    }

    /// Takes a value. Never waits; if the buffer is full the value is dropped and counted.
    pub fn record(&self, step: u64, name: MetricName, value: f64) {
        let origin = &self.shared.origin;
        let point = MetricPoint {
            trial: origin.trial.clone(),
            attempt: origin.attempt,
            resumed_from: origin.resumed_from,
            rank: origin.rank,
            step,
            unit: name.unit().into(),
            name,
            value,
            recorded_at: Timestamp::now(),
            host: Arc::clone(&origin.host),
            superseded: false,
        };
        let mut state = self.shared.lock();
        if state.pending.len() >= PENDING_MAX {
            state.num_dropped += 1;
            state.num_unreported += 1;
            return;
        }
        state.pending.push(point);
        state.num_recorded += 1;
        if state.pending.len() == BATCH_POINTS {
            self.shared.work.notify_one();
        }
    }

    /// Values dropped so far because the buffer was full.
    pub fn num_dropped(&self) -> u64 {
        self.shared.lock().num_dropped
    }

    /// Waits until everything recorded so far is in the store, at most three minutes. Must not be called
    /// on a thread of the runtime.
    pub fn flush(&self) -> Result<(), MetricSinkError> {
        self.flush_within(FLUSH_DEADLINE)
    }

    /// [`MetricSink::flush`] with a deadline of the caller's.
    pub fn flush_within(&self, deadline: Duration) -> Result<(), MetricSinkError> {
        let until = Instant::now() + deadline;
        let mut state = self.shared.lock();
        let target = state.num_recorded;
        state.wanted = state.wanted.max(target);
        self.shared.work.notify_one();
        while state.num_stored < target && !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(MetricSinkError::Overdue {
                    waiting: target - state.num_stored,
                    seconds: deadline.as_secs(),
                    reason: state.last_failure.clone(),
                });
            }
            let waited = self.shared.stored.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.num_stored < target {
            return Err(MetricSinkError::Stopped);
        }
        let unreported = std::mem::take(&mut state.num_unreported);
        drop(state);
        if unreported > 0 {
            tracing::warn!("{unreported} metric values were dropped: the store is too slow");
        }
        Ok(())
    }
}

impl Drop for MetricSink {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
    }
}

/// Tells waiting flushes when the task is gone, however it ended.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.stored.notify_all();
    }
}

impl Shared {
    /// Every change of the state is complete in itself, so one that panicked has left it usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, if it is time for one; `is_due`: the oldest point has waited long enough.
    fn take_batch(&self, is_due: bool) -> Option<Vec<MetricPoint>> {
        let mut state = self.lock();
        let flushed = state.wanted > state.num_stored || state.closing;
        let ready = is_due || flushed || state.pending.len() >= BATCH_POINTS;
        (ready && !state.pending.is_empty()).then(|| std::mem::take(&mut state.pending))
    }

    fn is_finished(&self) -> bool {
        let state = self.lock();
        state.closing && state.pending.is_empty()
    }

    fn note_stored(&self, count: usize) {
        let mut state = self.lock();
        state.num_stored += count as u64;
        state.last_failure = None;
        drop(state);
        self.stored.notify_all();
    }

    /// Whether the batch should be tried again.
    fn note_failure(&self, reason: String) -> bool {
        let mut state = self.lock();
        state.last_failure = Some(reason);
        !state.closing
    }
}

/// The task: batches to files until the sink is dropped.
async fn write_all(shared: &Shared, store: &Store, mut equipment: Option<Equipment>) {
    let mut sequence = 0;
    loop {
        let is_due = timeout(BATCH_AGE, shared.work.notified()).await.is_err();
        while let Some(points) = shared.take_batch(is_due) {
            equipment = left_to_write(shared, store, equipment).await;
            write(shared, store, sequence, &points).await;
            // A store that was away for a moment takes it now, and a short run has no further batch.
            equipment = left_to_write(shared, store, equipment).await;
            sequence += 1;
        }
        if shared.is_finished() {
            return;
        }
    }
}

/// Tries once to write what the rank trains with; it is given back if it is not in the store.
async fn left_to_write(
    shared: &Shared,
    store: &Store,
    equipment: Option<Equipment>,
) -> Option<Equipment> {
    let equipment = equipment?;
    let MetricOrigin { trial, attempt, rank, .. } = &shared.origin;
    let put = equipment::write(store, trial, (*attempt, *rank), &equipment);
    let reason = match timeout(WRITE_DEADLINE, put).await {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
        Err(_) => silence(),
    };
    tracing::warn!("cannot write what the rank trains with: {reason}");
    Some(equipment)
}

/// One file, tried until it is stored; given up only when the sink is dropped.
async fn write(shared: &Shared, store: &Store, sequence: u32, points: &[MetricPoint]) {
    let MetricOrigin { trial, attempt, rank, .. } = &shared.origin;
    let key = Layout::metrics(trial, *attempt, *rank, sequence);
    loop {
        let reason = match timeout(WRITE_DEADLINE, put(store, &key, points)).await {
            Ok(Ok(())) => return shared.note_stored(points.len()),
            Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
            Err(_) => silence(),
        };
        tracing::warn!("cannot write metrics: {reason}");
        if !shared.note_failure(reason) {
            return;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn silence() -> String {
    format!("no answer within {} s", WRITE_DEADLINE.as_secs())
}

async fn put(
    store: &Store,
    key: &object_store::path::Path,
    points: &[MetricPoint],
) -> Result<(), MetricError> {
    Ok(store.put(key, encode(points)?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::metric::read_trial;
    use tokio::runtime::Runtime;

    fn origin() -> MetricOrigin {
        let trial = TrialId { experiment: "demo-1".parse().unwrap(), number: 1 };
        MetricOrigin { trial, attempt: Attempt(1), rank: 0, resumed_from: 0, host: "here".into() }
    }

    struct Bench {
        directory: tempfile::TempDir,
        store: Store,
        runtime: Runtime,
    }

    fn bench() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Bench { directory, store, runtime: runtime.unwrap() }
    }

    #[test]
    fn what_was_recorded_before_a_flush_is_in_the_store_after_it() {
        let Bench { store, runtime, directory: _kept } = bench();
        let sink = MetricSink::new(store.clone(), origin(), runtime.handle());
        sink.flush().unwrap();
        for step in 1..=3 {
            sink.record(step, MetricName::TRAIN_LOSS, step as f64);
            sink.flush().unwrap();
            let points = runtime.block_on(read_trial(&store, &origin().trial)).unwrap();
            assert_eq!(points.len() as u64, step);
        }
    }

    #[test]
    fn what_a_rank_trains_with_comes_before_its_first_value() {
        let Bench { store, runtime, directory: _kept } = bench();
        let (own, trial) = (crate::equipment::of_slot(), origin().trial);
        let handle = runtime.handle();
        let sink = MetricSink::with_equipment(store.clone(), origin(), own.clone(), handle);
        let read = || runtime.block_on(equipment::read_trial(&store, &trial)).unwrap();
        sink.flush().unwrap();
        assert!(read().is_empty(), "a run that measured nothing trained nothing");
        for step in 1..=2 {
            sink.record(step, MetricName::TRAIN_LOSS, 0.5);
            sink.flush().unwrap();
            assert_eq!(read(), std::slice::from_ref(&own));
        }
    }

    #[test]
    fn values_do_not_wait_for_a_store_that_refuses_what_a_rank_trains_with() {
        let Bench { store, runtime, directory: _kept } = bench();
        let (own, trial) = (crate::equipment::of_slot(), origin().trial);
        // A file where its directory should be: every write fails, whoever runs this.
        let blocked = store.local_path(&Layout::all_equipment(&trial)).unwrap();
        std::fs::create_dir_all(blocked.parent().unwrap()).unwrap();
        std::fs::write(&blocked, b"in the way").unwrap();
        let handle = runtime.handle();
        let sink = MetricSink::with_equipment(store.clone(), origin(), own.clone(), handle);
        for step in 1..=2 {
            sink.record(step, MetricName::TRAIN_LOSS, 0.5);
            sink.flush_within(Duration::from_secs(60)).unwrap();
            let points = runtime.block_on(read_trial(&store, &trial)).unwrap();
            assert_eq!(points.len() as u64, step);
        }
        std::fs::remove_file(&blocked).unwrap();
        sink.record(3, MetricName::TRAIN_LOSS, 0.5);
        sink.flush().unwrap();
        // It comes before the batch, or right behind the one before.
        assert_eq!(runtime.block_on(equipment::read_trial(&store, &trial)).unwrap(), [own]);
    }

    #[test]
    fn dropping_the_sink_writes_what_is_left() {
        let Bench { store, runtime, directory: _kept } = bench();
        let sink = MetricSink::new(store.clone(), origin(), runtime.handle());
        sink.record(1, MetricName::TRAIN_LOSS, 0.5);
        let shared = Arc::clone(&sink.shared);
        drop(sink);
        let state = shared.lock();
        let waited = shared.stored.wait_timeout_while(state, FLUSH_DEADLINE, |state| !state.ended);
        assert!(!waited.unwrap().1.timed_out());
        let points = runtime.block_on(read_trial(&store, &origin().trial)).unwrap();
        assert_eq!(points.len(), 1);
    }

    #[test]
    fn a_store_that_fails_makes_a_flush_overdue_and_no_step_wait() {
        let Bench { store, runtime, directory } = bench();
        // A file where the directory of metrics should be: every write fails, whoever runs this.
        let blocked = store.local_path(&muster_common::metric::directory(&origin().trial)).unwrap();
        std::fs::create_dir_all(blocked.parent().unwrap()).unwrap();
        std::fs::write(&blocked, b"in the way").unwrap();
        let sink = MetricSink::new(store.clone(), origin(), runtime.handle());
        sink.record(1, MetricName::TRAIN_LOSS, 0.5);
        // Time for a write to fail on a busy machine too.
        let error = sink.flush_within(Duration::from_secs(5)).unwrap_err();
        assert!(matches!(&error, MetricSinkError::Overdue { waiting: 1, reason: Some(_), .. }));
        let started = Instant::now();
        for step in 0..PENDING_MAX as u64 + 10 {
            sink.record(step, MetricName::TRAIN_LOSS, 0.5);
        }
        assert!(started.elapsed() < WRITE_DEADLINE, "a step waits for the store");
        assert_eq!(sink.num_dropped(), 10);
        std::fs::remove_file(&blocked).unwrap();
        sink.flush().unwrap();
        let points = runtime.block_on(read_trial(&store, &origin().trial)).unwrap();
        // Step 1 was recorded twice and counts once.
        assert_eq!(points.len(), PENDING_MAX);
        drop(directory);
    }

    #[test]
    fn a_flush_without_a_runtime_does_not_hang() {
        let Bench { store, runtime, directory: _kept } = bench();
        let sink = MetricSink::new(store, origin(), runtime.handle());
        runtime.shutdown_timeout(Duration::from_secs(5));
        sink.record(1, MetricName::TRAIN_LOSS, 0.5);
        assert_eq!(sink.flush(), Err(MetricSinkError::Stopped));
    }
}
