//! The wire. Messages live in `generated` (committed, refreshed by `tests/generated.rs`); `convert`
//! turns them into domain types and back. Beyond this crate wire types appear only where bytes come
//! in or go out.
//!
//! Compatibility: fields are added, never renumbered or reused; both sides of a worker session check
//! [`PROTOCOL_VERSION`].

mod codec;
#[cfg(feature = "convert")]
pub mod convert;
pub mod dial;

/// Version of the worker session, compared at Hello: 3 since a manifest's hyperparameters may be words, which an older
/// worker cannot read.
pub const PROTOCOL_VERSION: u32 = 3;

/// Messages and services of package `muster.v1`.
#[allow(
    missing_docs,
    clippy::pedantic,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated; the proto files carry the comments"
)]
pub mod v1 {
    include!("generated/muster.v1.rs");
}
