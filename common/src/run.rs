//! A run: what a worker is told to do, what it says while it does it, and how it ends.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::evaluation::Evaluation;
use crate::id::{Attempt, ExperimentId, Generation, TrialId};
use crate::manifest::{Assignment, Manifest};
use crate::storage::CheckpointKey;

/// Everything a worker needs for one run. Self-contained: the worker asks nobody anything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Names the run and fences off older ones.
    pub generation: Generation,
    /// The experiment it belongs to.
    pub experiment: ExperimentId,
    /// What to do.
    pub task: Task,
    /// The experiment's manifest.
    #[serde(with = "crate::shared")]
    pub manifest: Arc<Manifest>,
    /// URL of the object store, for example `file:///data/muster` or `s3://container/prefix`.
    pub store: String,
    /// Its place among the processes that train one trial together; absent: it trains alone.
    #[serde(default)]
    pub gang: Option<Gang>,
}

/// One process's place in a gang: the processes, one per slot, that do one run together. They share
/// the run's generation and are told apart by their ranks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gang {
    /// Its number, from 0.
    pub rank: u32,
    /// How many there are, at least 2.
    pub world_size: u32,
    /// Where rank 0 waits for the others (`host:port`); absent for rank 0 itself, which says it by
    /// [`RunReport::RendezvousOpened`].
    pub rendezvous: Option<String>,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Read, check and split the data, begin to tokenize it, and compute this part of the frozen
    /// layers' activations.
    Prepare {
        /// Which part, from 0.
        part: u32,
        /// Parts in all.
        num_parts: u32,
    },
    /// Train a trial up to a rung.
    Train(TrainTask),
    /// Score the chosen trial on the test split and write its model as a Hugging Face directory.
    Finish {
        /// The chosen trial.
        trial: TrialId,
        /// Its hyperparameters.
        assignment: Assignment,
        /// The checkpoint to export.
        checkpoint: CheckpointKey,
    },
}

/// One attempt to bring a trial to a rung.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainTask {
    /// The trial.
    pub trial: TrialId,
    /// Number of this run within the trial.
    pub attempt: Attempt,
    /// Values of the searched hyperparameters.
    pub assignment: Assignment,
    /// Train until this step, then evaluate, save and report.
    pub target_step: u64,
    /// Steps of the whole budget: the learning-rate schedule is laid out over them.
    pub total_steps: u64,
    /// Continue from here; absent: from the pretrained weights. A checkpoint of another trial of the
    /// experiment may have been made with other hyperparameters, of those that can change; one of another
    /// experiment with any.
    pub resume_from: Option<CheckpointKey>,
    /// Earlier checkpoints of the same lineage, newest first, that stand in for one that has come to harm.
    #[serde(default)]
    pub earlier: Vec<CheckpointKey>,
    /// Number of the trial whose random choices it goes on with; absent: its own.
    #[serde(default)]
    pub seed_of: Option<u32>,
}

impl Task {
    /// The trial the run is for, when there is one.
    pub fn trial(&self) -> Option<&TrialId> {
        match self {
            Self::Prepare { .. } => None,
            Self::Train(task) => Some(&task.trial),
            Self::Finish { trial, .. } => Some(trial),
        }
    }
}

/// What a run says that must not be lost: delivered at least once, in order, and counted once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunReport {
    /// Trials can start (from [`Task::Prepare`]): the data is read and split.
    Prepared(DataSummary),
    /// A checkpoint exists: its index is written.
    CheckpointCommitted {
        /// Where it is.
        checkpoint: CheckpointKey,
    },
    /// The validation split was scored at a rung.
    Evaluated {
        /// Optimizer updates so far.
        step: u64,
        /// The scores.
        evaluation: Evaluation,
    },
    /// The validation metric has not improved for as long as the manifest allows; instead of
    /// [`RunReport::Evaluated`], before its rung.
    EarlyStopped {
        /// Optimizer updates so far; a checkpoint of this step exists and holds the best weights.
        step: u64,
        /// Optimizer updates of the best weights.
        best_step: u64,
        /// Scores of the best weights.
        evaluation: Evaluation,
    },
    /// The chosen model was scored on the test split and written (from [`Task::Finish`]).
    Finished {
        /// Scores on the test split; absent when the manifest has none.
        test: Option<Evaluation>,
        /// URL or path of the Hugging Face directory.
        model: String,
    },
    /// Rank 0 of a gang waits for the others; its first report.
    RendezvousOpened {
        /// Where, as `host:port` that the others can reach.
        address: String,
    },
    /// The run is over; nothing follows. Every rank of a gang says it; of the other reports all but
    /// this one are rank 0's.
    Ended {
        /// How.
        exit: RunExit,
    },
}

impl RunReport {
    /// What it is about, as log lines of every process say it, and of which step it is.
    pub fn subject(&self) -> (&'static str, Option<u64>) {
        match self {
            Self::Prepared(_) => ("prepared", None),
            Self::CheckpointCommitted { checkpoint } => {
                ("checkpoint committed", Some(checkpoint.step))
            }
            Self::Evaluated { step, .. } => ("evaluated", Some(*step)),
            Self::EarlyStopped { step, .. } => ("early stopped", Some(*step)),
            Self::Finished { .. } => ("finished", None),
            Self::RendezvousOpened { .. } => ("rendezvous opened", None),
            Self::Ended { exit: RunExit::Diverged { step } } => ("ended", Some(*step)),
            Self::Ended { .. } => ("ended", None),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunExit {
    /// The task is done; a training run has reached its target step.
    Completed,
    /// The coordinator asked it to stop: the experiment was canceled.
    Canceled,
    /// Told to leave its slot; saved before it went.
    Preempted,
    /// The loss or the objective is not finite.
    Diverged {
        /// The step at which it was seen.
        step: u64,
    },
    /// The runner reported an error, or its memory ran out.
    Failed {
        /// For people: one line, and the last lines of the log when the runner died.
        message: String,
        /// Trying again cannot help: the input itself is wrong.
        permanent: bool,
        /// What kind of failure; decides whether and when it is tried again.
        #[serde(default)]
        class: FailureClass,
    },
    /// Its process vanished without a word, or its worker did. A rank that only misses another one
    /// says so by [`RunExit::Failed`] with [`FailureClass::Lost`].
    Lost {
        /// For people, with the last lines of the log when there are any.
        reason: String,
    },
}

/// Kinds of failure, each with a rule of its own for trying again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Memory ran out, of the host or of the device.
    OutOfMemory,
    /// A process or the way to it is gone.
    Lost,
    /// A process stood still for longer than its deadline.
    Hang,
    /// A loss or a gradient is not finite.
    Diverged,
    /// The input itself is wrong: data, model or settings.
    BadData,
    /// Somebody else needs the slot.
    Preempted,
    /// A disk or the object store has no room left.
    DiskFull,
    /// Anything else.
    #[default]
    Other,
}

impl FailureClass {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::OutOfMemory,
        Self::Lost,
        Self::Hang,
        Self::Diverged,
        Self::BadData,
        Self::Preempted,
        Self::DiskFull,
        Self::Other,
    ];

    /// The words for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out of memory",
            Self::Lost => "lost",
            Self::Hang => "hang",
            Self::Diverged => "diverged",
            Self::BadData => "bad data",
            Self::Preempted => "preempted",
            Self::DiskFull => "disk full",
            Self::Other => "error",
        }
    }
}

/// What the data turned out to be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DataSummary {
    /// Directory key of the tokenized data in the store's cache, a content hash.
    pub cache: String,
    /// Examples to train on.
    pub num_train: u64,
    /// Examples the searcher decides on.
    pub num_validation: u64,
    /// Examples scored once.
    pub num_test: u64,
    /// Class names in the order of their numbers.
    pub labels: Vec<String>,
    /// Rows read, all files together.
    pub num_rows: u64,
    /// Rows whose label lies in no range, left out as the manifest says.
    pub num_left_out: u64,
    /// Rows dropped because the same text stands in an earlier row.
    pub num_duplicates: u64,
    /// Mean tokens of a training example, special tokens counted; absent where trials may start before
    /// everything is tokenized.
    pub mean_tokens: Option<f64>,
    /// For people: what was wrong with rows, one line for each kind.
    pub remarks: Vec<String>,
    /// How many rows something was wrong with.
    #[serde(default)]
    pub flaws: DataFlaws,
}

/// Rows that something was wrong with, by kind. What became of them is the manifest's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataFlaws {
    /// Without text.
    pub num_empty: u64,
    /// With a label that is none of the classes.
    pub num_unknown_labels: u64,
    /// With bytes that are not UTF-8.
    pub num_bad_utf8: u64,
    /// With a text that stands in a held-out file.
    pub num_leaks: u64,
    /// Nearly the same as a row of a held-out file.
    pub num_near_leaks: u64,
    /// Rows of the training files that are nearly the same as another one of them.
    pub num_near_duplicates: u64,
}

/// What a run says that may be lost: thinned, for live views only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunProgress {
    /// Optimizer updates so far; parts done for a preparation.
    pub step: u64,
    /// Where this run ends.
    pub target_step: u64,
    /// Training examples per second over the last moments.
    pub examples_per_second: f64,
    /// Training loss of a recent step, nats.
    pub loss: Option<f64>,
    /// What it does before anything else, for people: how far a download is.
    #[serde(default)]
    pub activity: Option<String>,
}

/// Coordinator to runner, while a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Directive {
    /// Save a checkpoint, then leave the slot: [`RunExit::Preempted`].
    Preempt,
    /// Leave the slot without saving: [`RunExit::Canceled`].
    Cancel,
}

impl fmt::Display for RunExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Canceled => f.write_str("canceled"),
            Self::Preempted => f.write_str("preempted"),
            Self::Diverged { step } => write!(f, "diverged at step {step}"),
            Self::Failed { message, .. } => write!(f, "failed: {message}"),
            Self::Lost { reason } => write!(f, "lost: {reason}"),
        }
    }
}
