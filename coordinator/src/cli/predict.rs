//! `muster predict`: tensors live in the worker program, so a one-shot worker does it.

use std::process::Stdio;

use anyhow::Context;
use muster_common::compute;
use tokio::process::Command;

use super::exit::Exit;
use super::model_args::PredictArguments;
use crate::launcher::find_worker;

pub(super) async fn predict(arguments: PredictArguments) -> anyhow::Result<Exit> {
    let worker = find_worker(arguments.worker_binary.as_deref())?;
    let mut command = Command::new(&worker);
    command.arg("predict");
    if arguments.json {
        command.arg("--json");
    }
    if let Some(file) = &arguments.file {
        command.arg("--file").arg(file);
    }
    command.arg("--").arg(&arguments.model).args(&arguments.texts);
    let status = command
        .envs(compute::environment())
        .stdin(Stdio::inherit())
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
