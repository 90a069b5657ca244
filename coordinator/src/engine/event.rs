//! Everything that can happen. Events are journaled as JSON: variants and fields are added, never
//! renamed.

use std::collections::BTreeMap;

use muster_common::id::{ExperimentId, Generation, ProjectName, TrialId, WorkerId};
use muster_common::manifest::Manifest;
use muster_common::run::RunReport;
use muster_common::storage::CheckpointKey;
use serde::{Deserialize, Serialize};

use super::line::ProjectPolicy;

/// Input of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A user submitted a manifest.
    ExperimentSubmitted {
        /// Validated, with absolute paths.
        manifest: Box<Manifest>,
        /// As the user wrote it.
        text: String,
        /// URL of the object store.
        store: String,
        /// The user who did; their experiments without a project share slots as a project of theirs.
        #[serde(default)]
        owner: Option<ProjectName>,
        /// Directory that relative paths of the text start at.
        #[serde(default)]
        base: Option<String>,
    },
    /// A user gives it another priority.
    ExperimentPrioritized {
        /// Which.
        experiment: ExperimentId,
        /// Those with more go first.
        priority: i32,
    },
    /// A user wants one trial off its slots until they say otherwise.
    TrialPaused {
        /// Which.
        trial: TrialId,
    },
    /// A user wants a trial to go on.
    TrialResumed {
        /// Which.
        trial: TrialId,
    },
    /// A user wants one trial to end; what it has reached counts.
    TrialCanceled {
        /// Which.
        trial: TrialId,
    },
    /// What projects may use, from the settings.
    ProjectsSet {
        /// By name; others have the defaults.
        projects: BTreeMap<ProjectName, ProjectPolicy>,
    },
    /// A user wants no new runs, and running ones saved and off their slots.
    ExperimentPaused {
        /// Which.
        experiment: ExperimentId,
    },
    /// A user wants it to go on.
    ExperimentResumed {
        /// Which.
        experiment: ExperimentId,
    },
    /// A user wants it to end.
    ExperimentCanceled {
        /// Which.
        experiment: ExperimentId,
    },
    /// A worker offers its slot.
    WorkerJoined {
        /// Who.
        worker: WorkerId,
        /// The machine it runs on, for people.
        host: String,
        /// Name of the token it came in with; absent: none was asked for, or an older build has written this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_name: Option<String>,
    },
    /// A worker is about to leave: its time is nearly over, or somebody wants its place.
    WorkerDraining {
        /// Who.
        worker: WorkerId,
        /// Why, for people.
        reason: String,
    },
    /// A worker is gone.
    WorkerLost {
        /// Who.
        worker: WorkerId,
        /// Why.
        cause: LossCause,
    },
    /// A run said something.
    RunReported {
        /// Which run.
        generation: Generation,
        /// Which of its ranks.
        #[serde(default)]
        rank: u32,
        /// Number of the report within the rank's part of the run, from 1.
        sequence: u64,
        /// What it said.
        report: RunReport,
    },
    /// A checkpoint that was to be deleted is gone, as earlier builds wrote it.
    CheckpointDeleted {
        /// Which.
        checkpoint: CheckpointKey,
    },
    /// Checkpoints that were to be deleted are gone.
    CheckpointsDeleted {
        /// Which, of any experiments.
        checkpoints: Vec<CheckpointKey>,
    },
    /// A build with other rules took over. What was decided before stays decided by the rules of then,
    /// in every replay.
    RulesAdopted {
        /// Number of the rules; see [`RULES`](super::RULES).
        rules: u32,
    },
    /// Something is due; see [`Engine::next_timer`](super::Engine::next_timer).
    TimerFired,
}

/// Why a worker is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossCause {
    /// Nothing was heard of it for a whole lease.
    LeaseExpired,
    /// It said goodbye. Never counted against a trial.
    Left {
        /// What it said.
        reason: String,
    },
    /// Its process ended without a goodbye.
    Died {
        /// How, for people.
        reason: String,
    },
    /// It was a child of a coordinator that is gone. Never counted against a trial.
    CoordinatorRestarted,
}
