//! Commands that a worker carries out once: tensors live in its program.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use muster_common::compute;
use tokio::process::Command;

use super::exit::Exit;
use crate::launcher::find_worker;

/// An option and its value as one argument: a value may begin with a dash.
pub(super) fn joined(name: &str, value: &OsStr) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value);
    option
}

/// Runs the worker program with these arguments and this standard input, and hands on how it ended; its output is this
/// one's.
pub(super) async fn one_shot(
    worker_binary: Option<&Path>,
    arguments: impl IntoIterator<Item = OsString>,
    input: Stdio,
) -> anyhow::Result<Exit> {
    let worker = find_worker(worker_binary)?;
    let status = Command::new(&worker)
        .args(arguments)
        .envs(compute::environment())
        .stdin(input)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("{} does not start", worker.display()))?;
    Ok(match status.code() {
        Some(0) => Exit::Done,
        Some(2) => Exit::Usage,
        _ => Exit::Failed,
    })
}
