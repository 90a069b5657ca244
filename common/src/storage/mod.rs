//! The object store: where every key lies ([`layout`]), when a checkpoint exists ([`checkpoint`]) and
//! how bytes get there ([`store`]).

mod checkpoint;
mod layout;
mod store;
mod transfer;

pub use checkpoint::{CHECKPOINT_FORMAT, CheckpointError, CheckpointIndex, CheckpointPart};
pub use layout::{CheckpointKey, KeyError, Layout};
pub use store::{Store, StoreError};
pub use transfer::ObjectNote;
