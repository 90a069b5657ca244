//! What coordinator and workers share, in reading order: identities and quantities, the manifest,
//! what a run is and how it ends, what an evaluation says, where things are stored.
//!
//! This crate knows no gRPC and no tensors.

pub mod access;
pub mod colours;
pub mod columnar;
pub mod compute;
pub mod count;
pub mod digest;
pub mod elementary;
pub mod equipment;
pub mod evaluation;
pub mod goal;
pub mod id;
pub mod log_store;
pub mod manifest;
pub mod metric;
pub mod model;
pub mod objective;
pub mod run;
pub mod seed;
pub mod shared;
pub mod storage;
pub mod telemetry;
pub mod time;
pub mod whole_file;
