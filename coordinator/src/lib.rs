//! The coordinator, in the order in which things flow: a command line ([`cli`]) or a client ([`rpc`])
//! whom [`access`] lets in brings an event to the [`driver`], which applies it to the pure [`engine`] (what to
//! try and stop is decided in [`sweep`]), makes it durable in the [`journal`], and hands the actions to [`effect`].
//! [`live`] and [`lease`] know who is there, [`greeting`] what a worker is told that comes back, [`mod@curve`] and
//! [`measured`] how runs go, [`alarm`] when something is due, [`capacity`] how large a gang may be, [`launcher`]
//! starts workers, on the slots that [`machine`] makes of this machine or on a cluster, [`compaction`] tidies the
//! metrics of trials that have ended, [`view`] shows it all, [`dashboard`] in a browser, [`metrics`] counts it,
//! [`request`] is what users ask, [`logs`] and [`own_log`] keep what was said, [`report`] tells all of an experiment
//! in one file. [`plan`] lets the engine go through an experiment before it is run, [`import`] makes manifests of
//! others' files.
//!
//! Nothing here links libtorch.

pub mod access;
pub mod alarm;
pub mod capacity;
pub mod cli;
pub mod compaction;
pub mod curve;
pub mod dashboard;
pub mod driver;
pub mod effect;
pub mod engine;
pub mod greeting;
pub mod import;
pub mod journal;
pub mod launcher;
pub mod lease;
pub mod live;
pub mod logs;
pub mod machine;
pub mod measured;
pub mod metrics;
pub mod own_log;
pub mod plan;
pub mod plan_bytes;
pub mod report;
pub mod request;
pub mod rpc;
#[cfg(test)]
mod sample;
pub mod settings;
pub mod sweep;
pub mod system;
pub mod view;
