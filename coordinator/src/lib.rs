//! The coordinator.
pub mod engine;
pub mod sweep;
