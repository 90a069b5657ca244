//! Every key in the object store is built and parsed here and nowhere else.
//!
//! ```text
//! experiments/EXPERIMENT/manifest.yaml
//! experiments/EXPERIMENT/trials/N/checkpoints/STEP-GENERATION/{PART.safetensors, index.json}
//! experiments/EXPERIMENT/trials/N/metrics/ATTEMPT-RANK-SEQUENCE.parquet
//! experiments/EXPERIMENT/trials/N/metrics/trial.parquet    in their place, when the trial has ended
//! experiments/EXPERIMENT/trials/N/equipment/ATTEMPT-RANK.json   what a rank trained with: hardware, versions
//! experiments/EXPERIMENT/trials/N/report/test.parquet   what the chosen trial said of the test split
//! experiments/EXPERIMENT/trials/N/tensorboard/events.out.tfevents.SECONDS.muster    if the settings say so
//! experiments/EXPERIMENT/trials/N/logs/GENERATION-RANK-SEQUENCE.log    what a run of the trial said
//! experiments/EXPERIMENT/logs/GENERATION-RANK-SEQUENCE.log      what a run said that is of no trial
//! experiments/EXPERIMENT/best/            a Hugging Face directory
//! cache/CONTENT_HASH/                     tokenized data, activations of frozen layers
//! logs/coordinator/STARTED-SEQUENCE.log    what a coordinator said
//! logs/workers/WORKER-STARTED-SEQUENCE.log    what a worker said while it had no run
//! ```

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::id::{Attempt, ExperimentId, Generation, TrialId, WorkerId};
use crate::telemetry::RunIds;
use crate::time::Timestamp;

/// Name of the object whose presence commits a checkpoint or a cache entry.
pub(super) const INDEX: &str = "index.json";

/// The file of an exported model that says where it comes from.
pub const PROVENANCE_FILE: &str = "muster.json";

/// Where one checkpoint lies. Steps are zero-padded so that keys sort by step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointKey {
    /// Whose it is.
    pub trial: TrialId,
    /// Optimizer updates it contains.
    pub step: u64,
    /// The run that wrote it.
    pub generation: Generation,
}

/// Why a key is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the key of an object of a checkpoint.
    #[error("`{key}` is no object of a checkpoint")]
    NotCheckpoint {
        /// What was given.
        key: String,
    },
    /// Not what a person calls a checkpoint.
    #[error(
        "`{text}` is no checkpoint: write EXPERIMENT/tN/STEP-GENERATION, for example demo-1/t3/400-7; \
         `muster checkpoints ls` lists them"
    )]
    NotCheckpointName {
        /// What was given.
        text: String,
    },
    /// Not the key of a checkpoint's index.
    #[error("`{key}` is not the index of a checkpoint")]
    NotCheckpointIndex {
        /// What was given.
        key: String,
    },
}

impl fmt::Display for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} step {} (generation {})", self.trial, self.step, self.generation)
    }
}

impl CheckpointKey {
    /// Directory of the checkpoint.
    pub fn directory(&self) -> Path {
        Layout::checkpoints(&self.trial).join(format!("{:08}-{}", self.step, self.generation))
    }

    /// The object whose presence commits it.
    pub fn index(&self) -> Path {
        self.directory().join(INDEX)
    }

    /// One part, by name without ending.
    pub fn part(&self, name: &str) -> Path {
        self.directory().join(format!("{name}.safetensors"))
    }

    /// Parses the key of an index as [`CheckpointKey::index`] builds it.
    pub fn parse_index(path: &Path) -> Result<Self, KeyError> {
        match Self::of_object(path) {
            Ok(key) if key.index() == *path => Ok(key),
            _ => Err(KeyError::NotCheckpointIndex { key: path.to_string() }),
        }
    }

    /// The checkpoint in whose directory an object lies.
    pub fn of_object(path: &Path) -> Result<Self, KeyError> {
        let wrong = || KeyError::NotCheckpoint { key: path.to_string() };
        let parts: Vec<_> = path.parts().map(|part| part.as_ref().to_owned()).collect();
        let [root, experiment, trials, number, checkpoints, name, _] = &parts[..] else {
            return Err(wrong());
        };
        if (&**root, &**trials, &**checkpoints) != ("experiments", "trials", "checkpoints") {
            return Err(wrong());
        }
        let trial = TrialId {
            experiment: experiment.parse().map_err(|_| wrong())?,
            number: number.parse().map_err(|_| wrong())?,
        };
        Self::of_name(trial, name)
            .filter(|key| key.directory().filename() == Some(name))
            .ok_or_else(wrong)
    }

    /// `STEP-GENERATION` of a trial.
    fn of_name(trial: TrialId, name: &str) -> Option<Self> {
        let (step, generation) = name.split_once('-')?;
        let generation = Generation(generation.parse().ok()?);
        Some(Self { trial, step: step.parse().ok()?, generation })
    }

    /// As a person types it, and [`FromStr`] reads it: `EXPERIMENT/tN/STEP-GENERATION`.
    pub fn name(&self) -> String {
        format!("{}/{}-{}", self.trial, self.step, self.generation)
    }
}

impl FromStr for CheckpointKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError::NotCheckpointName { text: text.to_owned() };
        let (trial, name) = text.rsplit_once('/').ok_or_else(wrong)?;
        Self::of_name(trial.parse().map_err(|_| wrong())?, name).ok_or_else(wrong)
    }
}

/// Builders of all other keys.
#[derive(Debug)]
pub struct Layout;

impl Layout {
    /// Everything of all experiments.
    pub fn experiments() -> Path {
        Path::from("experiments")
    }

    /// Everything of one experiment.
    pub fn experiment(experiment: &ExperimentId) -> Path {
        Self::experiments().join(experiment.as_str())
    }

    /// The manifest as the user wrote it.
    pub fn manifest(experiment: &ExperimentId) -> Path {
        Self::experiment(experiment).join("manifest.yaml")
    }

    /// The exported best model, a Hugging Face directory.
    pub fn best(experiment: &ExperimentId) -> Path {
        Self::experiment(experiment).join("best")
    }

    /// Everything of one trial.
    pub fn trial(trial: &TrialId) -> Path {
        Self::experiment(&trial.experiment).join("trials").join(trial.number.to_string())
    }

    /// All checkpoints of one trial.
    pub fn checkpoints(trial: &TrialId) -> Path {
        Self::trial(trial).join("checkpoints")
    }

    /// One file of metrics.
    pub fn metrics(trial: &TrialId, attempt: Attempt, rank: u32, sequence: u32) -> Path {
        let name = format!("{attempt}-{rank}-{sequence:06}.parquet");
        Self::trial(trial).join("metrics").join(name)
    }

    /// What a rank of a run trained with.
    pub fn equipment(trial: &TrialId, attempt: Attempt, rank: u32) -> Path {
        Self::all_equipment(trial).join(format!("{attempt}-{rank}.json"))
    }

    /// What the ranks of all runs of a trial trained with.
    pub fn all_equipment(trial: &TrialId) -> Path {
        Self::trial(trial).join("equipment")
    }

    /// The one file of metrics of a trial that has ended.
    pub fn trial_metrics(trial: &TrialId) -> Path {
        Self::trial(trial).join("metrics").join("trial.parquet")
    }

    /// The event file of TensorBoard of a trial whose first value is of that time.
    pub fn trial_events(trial: &TrialId, first: Timestamp) -> Path {
        Self::trial(trial).join("tensorboard").join(Self::event_file(first))
    }

    /// Name of an event file: readers of TensorBoard look for the second part and sort by the third.
    pub fn event_file(first: Timestamp) -> String {
        format!("events.out.tfevents.{:010}.muster", first.0 / 1000)
    }

    /// Logs of the runs of a trial, or of those that are of none.
    pub fn run_logs(experiment: &ExperimentId, trial: Option<&TrialId>) -> Path {
        trial.map_or_else(|| Self::experiment(experiment), Self::trial).join("logs")
    }

    /// Stem of the log of one rank of a run; see [`Layout::log_object`].
    pub fn run_log(ids: &RunIds) -> Path {
        let directory = Self::run_logs(&ids.experiment, ids.trial.as_ref());
        directory.join(format!("{}-{}", ids.run, ids.rank))
    }

    /// Logs of coordinators.
    pub fn coordinator_logs() -> Path {
        Path::from("logs").join("coordinator")
    }

    /// Stem of the log of the coordinator that started then.
    pub fn coordinator_log(started_at: Timestamp) -> Path {
        Self::coordinator_logs().join(format!("{:014}", started_at.0))
    }

    /// Stem of the log of the worker that started then, of what is about no run.
    pub fn worker_log(worker: &WorkerId, started_at: Timestamp) -> Path {
        Path::from("logs").join("workers").join(format!("{worker}-{:014}", started_at.0))
    }

    /// One object of the log with this stem.
    pub fn log_object(stem: &Path, sequence: u32) -> Path {
        Path::from(format!("{stem}-{sequence:06}.log"))
    }

    /// The trial that an object belongs to.
    pub fn trial_of(key: &Path) -> Option<TrialId> {
        let mut parts = key.as_ref().split('/');
        let [root, experiment, trials, number] =
            [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        // The object itself.
        parts.next()?;
        if (root, trials) != ("experiments", "trials") {
            return None;
        }
        Some(TrialId { experiment: experiment.parse().ok()?, number: number.parse().ok()? })
    }

    /// What an exported model says about itself.
    pub fn provenance(experiment: &ExperimentId) -> Path {
        Self::best(experiment).join(PROVENANCE_FILE)
    }

    /// What the model of a trial said about every example of the test split.
    pub fn predictions(trial: &TrialId) -> Path {
        Self::trial(trial).join("report").join("test.parquet")
    }

    /// A cache entry, by content hash.
    pub fn cache(hash: &str) -> Path {
        Path::from("cache").join(hash)
    }

    /// The object whose presence commits a part of a cache entry.
    pub fn cache_index(hash: &str, part: &str) -> Path {
        Self::cache(hash).join(format!("{part}.index.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn checkpoint_keys_round_trip(number in 1u32.., step: u64, generation: u64) {
            let trial = TrialId { experiment: "demo-1".parse().unwrap(), number };
            let key = CheckpointKey { trial, step, generation: Generation(generation) };
            prop_assert_eq!(&CheckpointKey::parse_index(&key.index()).unwrap(), &key);
            prop_assert_eq!(&CheckpointKey::of_object(&key.part("model")).unwrap(), &key);
            prop_assert_eq!(Layout::trial_of(&key.index()), Some(key.trial.clone()));
            prop_assert_eq!(key.name().parse::<CheckpointKey>().unwrap(), key);
        }

        #[test]
        fn foreign_keys_are_refused(text in "[a-z0-9/.-]{0,60}") {
            prop_assert!(CheckpointKey::parse_index(&Path::from(text.as_str())).is_err());
            prop_assert_eq!(Layout::trial_of(&Path::from(text)), None);
        }
    }
}
