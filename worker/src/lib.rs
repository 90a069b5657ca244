//! The worker, in reading order. [`supervisor`] is the light process of a slot: it talks to the
//! coordinator and owns one [`runner`], the process that trains. They speak over [`pipe`].
//!
//! A run reads [`data`], takes the frozen layers' activations from [`prefix`], fine-tunes a [`model`]
//! in the loop of [`train`], alone or with others ([`collective`]), writes [`checkpoint`]s and
//! [`metrics`], and at the end an [`export`]. [`predict`] uses what was exported, and [`explain`] says why
//! it predicts what it does; [`onnx`] writes a model for other runtimes. Everything unsafe is in [`ffi`].

pub mod checkpoint;
pub mod collective;
pub mod data;
pub mod deadline;
mod equipment;
pub mod explain;
pub mod export;
pub mod ffi;
mod machine;
pub mod metrics;
pub mod model;
pub mod onnx;
pub mod pipe;
pub mod predict;
pub mod prefix;
pub mod runner;
pub mod supervisor;
pub mod train;
