//! Shared by the system tests: real processes in temporary directories, and how a test that cannot
//! run says so.

pub mod browser;
pub mod cluster;
pub mod gang;
pub mod gradient;
pub mod ground;
pub mod hosts;
pub mod http;
pub mod hub;
pub mod kubelet;
pub mod kubernetes;
pub mod limits;
pub mod outcome;
pub mod process;
pub mod proxy;
pub mod s3;
pub mod sample;
pub mod service;
pub mod slurm;
pub mod snapshot;
pub mod terminal;

/// Reports a test as skipped. The runner of the tests counts these lines, and refuses in CI every
/// reason whose first word is not among `MUSTER_ALLOWED_SKIPS`.
pub fn skip(name: &str, reason: &str) {
    println!("MUSTER-SKIP {name}: {reason}");
}
