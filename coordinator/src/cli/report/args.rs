//! Arguments of `muster report`.

use std::path::PathBuf;

use clap::Args;

use super::super::args::ClientArguments;

#[derive(Debug, Args)]
pub(in crate::cli) struct ReportArguments {
    /// An experiment (demo-1) or one of its trials (demo-1/t3)
    #[arg(value_name = "EXPERIMENT[/TRIAL]")]
    pub(super) subject: String,
    /// The file; without it, EXPERIMENT-report.html here
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Compare with the model of another experiment on the same test examples (paired test)
    #[arg(long, value_name = "EXPERIMENT")]
    pub(super) against: Option<String>,
    /// Write everything that is in the report to this file too (JSON)
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Do not ask the model which words its mistakes are due to, which takes it some seconds
    #[arg(long)]
    pub(super) no_explanations: bool,
    /// Make it of what this object store has, without a coordinator: no states, decisions and hyperparameters but
    /// those of the chosen trial
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<String>,
    /// The worker program, which has the model explain
    #[arg(long, value_name = "FILE", env = "MUSTER_WORKER_BINARY")]
    pub(super) worker_binary: Option<PathBuf>,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}
