//! Everything the engine asks for. Every action may be performed twice: a crash after the journal and
//! before the effect makes the next start perform it again.

use muster_common::id::{ExperimentId, Generation, WorkerId};
use muster_common::run::{Directive, RunSpec};
use muster_common::storage::CheckpointKey;

/// Output of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A new experiment has this id.
    Created {
        /// The id.
        experiment: ExperimentId,
    },
    /// Write the manifest beside what the experiment will write.
    StoreManifest {
        /// Which experiment.
        experiment: ExperimentId,
        /// URL of the object store.
        store: String,
        /// As the user wrote it.
        text: String,
    },
    /// Give a worker its run.
    StartRun {
        /// To whom.
        worker: WorkerId,
        /// What.
        spec: Box<RunSpec>,
    },
    /// Tell a running run something.
    DirectRun {
        /// Who has it.
        worker: WorkerId,
        /// Which run.
        generation: Generation,
        /// What to do.
        directive: Directive,
    },
    /// Delete a checkpoint that nothing can need any more: index first, then the parts.
    DeleteCheckpoint {
        /// URL of the object store.
        store: String,
        /// Which.
        checkpoint: CheckpointKey,
    },
    /// The event was legal to send but changes nothing.
    Rejected {
        /// Why, for whoever sent it.
        reason: String,
    },
}
