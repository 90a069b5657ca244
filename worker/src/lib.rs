//! x
pub mod data;
pub mod metrics;
pub mod checkpoint;
pub mod deadline;
pub mod export;
pub mod ffi;
pub mod model;
pub mod pipe;
pub mod prefix;
pub mod runner;
pub mod train;
