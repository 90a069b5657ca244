//! Shared by the system tests: real processes in temporary directories, and how a test that cannot
//! run says so.

pub mod gang;
pub mod gradient;
pub mod process;
pub mod sample;

/// Reports a test as skipped. The runner of the tests counts these lines, and refuses in CI every
/// reason that does not start with `gpu` or `parity`.
pub fn skip(name: &str, reason: &str) {
    println!("MUSTER-SKIP {name}: {reason}");
}
