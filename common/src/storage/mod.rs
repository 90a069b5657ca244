//! The object store: where every key lies ([`layout`]), when a checkpoint exists ([`checkpoint`]) and
//! how bytes get there ([`store`]).

mod checkpoint;
mod credentials;
mod failure;
mod inventory;
mod layout;
mod location;
mod probe;
mod remote;
mod store;
mod transfer;
mod uploads;

pub use checkpoint::{
    CHECKPOINT_FORMAT, CheckpointError, CheckpointIndex, CheckpointPart, WHOLE_CHECKPOINT_FORMAT,
};
pub use inventory::{FoundCheckpoint, Garbage, ObjectEntry, Scope, garbage};
pub use layout::{CheckpointKey, KeyError, Layout, PROVENANCE_FILE};
pub use location::{StoreOptions, holds_secret, object_url};
pub use probe::StoreFindings;
pub use store::{Store, StoreError};
pub use transfer::ObjectNote;
pub use uploads::BegunUpload;
