//! The worker program: supervisor of a slot, runner, and one-shot commands that need tensors.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use muster_common::id::WorkerId;
use muster_common::telemetry::{LogFormat, install};
use muster_common::time::Timestamp;
use muster_worker::supervisor::{SupervisorOptions, supervise};
use muster_worker::{predict, runner};

/// Worker of Muster: one process per slot
#[derive(Debug, Parser)]
#[command(name = "muster-worker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Offer a slot to a coordinator
    Supervise {
        /// URL of the coordinator
        #[arg(long, value_name = "URL", env = "MUSTER_COORDINATOR")]
        coordinator: String,
        /// Name of this process; never used twice
        #[arg(long, value_name = "NAME")]
        worker_id: Option<WorkerId>,
        /// End when standard input ends
        #[arg(long)]
        end_with_stdin: bool,
    },
    /// Train; started by the supervisor
    #[command(hide = true)]
    Runner,
    /// Classify texts with a model directory
    Predict {
        /// Directory of the model
        model: PathBuf,
        /// Texts; without any, lines of standard input
        texts: Vec<String>,
        /// Print one JSON object per text
        #[arg(long)]
        json: bool,
        /// Add the raw scores (with --json)
        #[arg(long, requires = "json")]
        logits: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = std::env::var("MUSTER_LOG").unwrap_or_else(|_| "info".to_owned());
    let outcome = match arguments.command {
        Command::Supervise { coordinator, worker_id, end_with_stdin } => {
            install(&filter, LogFormat::Text);
            start(coordinator, worker_id, end_with_stdin)
        }
        Command::Runner => {
            install(&filter, LogFormat::Text);
            runner::run()
        }
        Command::Predict { model, texts, json, logits } => {
            install("warn", LogFormat::Text);
            classify(&model, texts, json, logits)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(
    coordinator: String,
    worker_id: Option<WorkerId>,
    end_with_stdin: bool,
) -> anyhow::Result<()> {
    let worker = match worker_id {
        Some(worker) => worker,
        None => format!("worker-{}-{}", Timestamp::now().0, std::process::id()).parse()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = SupervisorOptions { coordinator, worker, end_with_stdin };
    let outcome = runtime.block_on(supervise(options));
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn classify(
    model: &std::path::Path,
    mut texts: Vec<String>,
    json: bool,
    logits: bool,
) -> anyhow::Result<()> {
    if texts.is_empty() {
        let lines: Result<Vec<String>, _> = std::io::stdin().lock().lines().collect();
        texts = lines.context("standard input is not readable text")?;
    }
    for prediction in predict::predict(model, texts)? {
        println!("{}", if json { prediction.to_json(logits) } else { prediction.to_line() });
    }
    Ok(())
}
