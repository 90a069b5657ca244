//! When a trial has ended, one file of metrics takes the place of the many that its runs have written.
//! What was done is soft state, but for a list of experiments that are done as a whole; losing it costs
//! a look at each trial's directory. A failure is tried again, and never holds anything up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use muster_common::id::{ExperimentId, TrialId};
use muster_common::metric::{Compaction, MetricError, by_time, compact, event_file, read_trial};
use muster_common::storage::{Layout, Store};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Stopped};
use crate::engine::Engine;
use crate::engine::experiment::Experiment;
use crate::engine::trial::Trial;

/// Between two looks at what has ended.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Trials at the same time; each may hold all its rows.
const AT_ONCE: usize = 2;
/// Longest time for one trial.
const TRIAL_DEADLINE: Duration = Duration::from_secs(300);
/// Pause after a look in which a trial failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Longest wait for the last look when the coordinator stops.
const LAST_LOOK: Duration = Duration::from_secs(20);
/// File of the state directory that lists experiments whose every trial is done.
const DONE_FILE: &str = "compacted-experiments.txt";

/// Compacts the metrics of trials that have ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Compactor {
    driver: Driver,
    /// Write event files of TensorBoard too.
    tensorboard: bool,
    /// One look at a time: a trial must not be compacted twice at once.
    known: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    file: PathBuf,
    /// Ended, and nothing is left to do.
    experiments: BTreeSet<ExperimentId>,
    trials: BTreeMap<ExperimentId, BTreeSet<u32>>,
}

/// Trials of one experiment that have ended, and whether these are all it will ever have.
struct Ended {
    experiment: ExperimentId,
    store: String,
    trials: Vec<TrialId>,
    is_whole: bool,
}

impl Compactor {
    /// For the experiments of `driver`; `state` is the directory of its journal. `tensorboard`: an event
    /// file is written for every trial too.
    pub fn new(driver: Driver, state: &Path, tensorboard: bool) -> Self {
        let file = state.join(DONE_FILE);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let experiments = text.lines().filter_map(|line| line.parse().ok()).collect();
        let known = Known { file, experiments, trials: BTreeMap::new() };
        Self { driver, tensorboard, known: Arc::new(Mutex::new(known)) }
    }

    /// Looks again and again until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut changes = self.driver.changes();
        loop {
            changes.mark_unchanged();
            let Ok(num_failed) = self.look().await else { return };
            let next = async {
                if num_failed > 0 {
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
                // A driver that is gone changes nothing any more; the next look says so.
                let _gone = changes.changed().await;
            };
            tokio::select! {
                () = next => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// The last look of a process that stops, not longer than a deadline.
    pub async fn finish(&self) {
        if timeout(LAST_LOOK, self.look()).await.is_err() {
            tracing::warn!(
                "metrics of trials that have ended are still in parts; the next start goes on"
            );
        }
    }

    /// Compacts what has ended and is not known to be done; gives how many failed.
    async fn look(&self) -> Result<usize, Stopped> {
        let mut known = self.known.lock().await;
        let (experiments, trials) = (known.experiments.clone(), known.trials.clone());
        let find = move |engine: &Engine| -> Vec<Ended> {
            let of = |experiment: &Experiment| ended(engine, experiment, &trials);
            let open = engine.experiments().filter(|found| !experiments.contains(&found.id));
            open.map(of).filter(|found| found.is_whole || !found.trials.is_empty()).collect()
        };
        let mut num_failed = 0;
        for Ended { experiment, store, trials, is_whole } in self.driver.read(find).await? {
            let num_trials = trials.len();
            let done = compact_all(&store, trials, self.tensorboard).await;
            let failed = num_trials.saturating_sub(done.len());
            num_failed += failed;
            if is_whole && failed == 0 {
                known.settle(experiment);
            } else {
                known.trials.entry(experiment).or_default().extend(done);
            }
        }
        Ok(num_failed)
    }
}

impl Known {
    fn settle(&mut self, experiment: ExperimentId) {
        self.trials.remove(&experiment);
        let file = std::fs::File::options().create(true).append(true).open(&self.file);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{experiment}")) {
            tracing::warn!(path = %self.file.display(), %error, "cannot note that metrics are compacted");
        }
        self.experiments.insert(experiment);
    }
}

/// Trials that have ended, that no run is at work for, and that are not in `known`.
fn ended(
    engine: &Engine,
    experiment: &Experiment,
    known: &BTreeMap<ExperimentId, BTreeSet<u32>>,
) -> Ended {
    let at_work: BTreeSet<u32> = engine
        .runs()
        .values()
        .filter(|run| run.experiment == experiment.id)
        .filter_map(|run| Some(run.task.trial()?.number))
        .collect();
    let known = known.get(&experiment.id);
    let is_left = |number: &u32| known.is_none_or(|known| !known.contains(number));
    let is_over = |trial: &&Trial| trial.is_terminal() || experiment.is_ended();
    let over = experiment.trials.values().filter(is_over);
    let numbers = over.map(|trial| trial.number).filter(is_left);
    Ended {
        experiment: experiment.id.clone(),
        store: experiment.store.clone(),
        trials: numbers
            .filter(|number| !at_work.contains(number))
            .map(|number| experiment.trial_id(number))
            .collect(),
        is_whole: experiment.is_ended() && at_work.is_empty(),
    }
}

/// Compacts these trials and gives the numbers of those that need no more work.
async fn compact_all(store: &str, trials: Vec<TrialId>, tensorboard: bool) -> Vec<u32> {
    if trials.is_empty() {
        return Vec::new();
    }
    let store = match Store::open(store) {
        Ok(store) => store,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "metrics not compacted");
            return Vec::new();
        }
    };
    let each = futures::stream::iter(trials)
        .map(move |trial| compact_one(store.clone(), trial, tensorboard))
        .buffer_unordered(AT_ONCE);
    let done: Vec<Option<u32>> = each.collect().await;
    done.into_iter().flatten().collect()
}

/// Compacts a trial and gives its number, unless there is more to do.
async fn compact_one(store: Store, trial: TrialId, tensorboard: bool) -> Option<u32> {
    let work = async {
        let result = compact(&store, &trial).await?;
        if tensorboard {
            write_events(&store, &trial).await?;
        }
        Ok(result)
    };
    let Ok(result) = timeout(TRIAL_DEADLINE, work).await else {
        tracing::warn!(%trial, "metrics not compacted: the store takes too long");
        return None;
    };
    note(&trial, result)
}

/// Writes what counts of `trial` as an event file, the same one each time.
async fn write_events(store: &Store, trial: &TrialId) -> Result<(), MetricError> {
    let points = by_time(read_trial(store, trial).await?);
    let Some(first) = points.first() else { return Ok(()) };
    let key = Layout::trial_events(trial, first.recorded_at);
    Ok(store.put(&key, event_file(&points)).await?)
}

/// The number of a trial that needs no more work.
fn note(trial: &TrialId, result: Result<Compaction, MetricError>) -> Option<u32> {
    match result {
        Ok(Compaction::Done { num_rows, num_files }) => {
            tracing::debug!(%trial, num_rows, num_files, "metrics compacted");
        }
        Ok(Compaction::TooLarge) => tracing::info!(%trial, "metrics stay in parts: they are large"),
        Ok(Compaction::Needless) => {}
        // What is damaged now is so next time; its files stay.
        Err(error @ (MetricError::File { .. } | MetricError::Encode { .. })) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(%trial, error, "metrics stay in parts");
        }
        Err(error) => {
            tracing::warn!(%trial, error = &error as &dyn std::error::Error, "metrics not compacted");
            return None;
        }
    }
    Some(trial.number)
}
