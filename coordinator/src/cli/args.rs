//! Arguments. The doc comments are what `muster help` prints.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use muster_common::manifest::CheckpointChoice;

use super::exit::CODES;
use super::manual::{self, Shell};
use super::model_args::{ExplainArguments, PredictArguments};
use super::report::ReportArguments;
use crate::access::token_book::Scope;
use crate::import::Dialect;
use crate::settings::{SettingsFlags, Tls};

/// Distributed training and hyperparameter sweeps from one manifest
///
/// `muster validate FILE` checks a manifest, `muster run FILE` trains what it says here and waits for the result.
/// `muster serve` does the same as a service: `submit` hands it manifests, most other commands ask it, and they also
/// find a `muster run` that goes on in the same directory.
#[derive(Debug, Parser)]
#[command(name = "muster", version, propagate_version = true, after_help = CODES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a manifest here, with local workers, and wait for the result
    Run(RunArguments),
    /// Check a manifest and say what it would do
    Validate(ValidateArguments),
    /// Say what a manifest would cost: trials per rung, steps, checkpoints, time
    Plan(PlanArguments),
    /// Print the JSON Schema of manifests, for editors
    Schema,
    /// Make a manifest of a Determined, W&B or Katib file
    Import(ImportArguments),
    /// Classify texts with a model that a run has written
    Predict(PredictArguments),
    /// Say why a model classifies texts as it does: words, layers, attention
    Explain(ExplainArguments),
    /// Serve experiments until stopped, with local workers and those that dial in
    Serve(ServeArguments),
    /// Hand a manifest to a serving coordinator
    Submit(SubmitArguments),
    /// List experiments, or the trials of one
    Ls(LsArguments),
    /// Look at experiments, trials, curves, slots and logs on one screen, or follow one experiment by lines
    Watch(WatchArguments),
    /// List slots and what they do
    Slots(SlotsArguments),
    /// Say which hyperparameters make the trials of an experiment differ
    Importance(ImportanceArguments),
    /// Say why a trial waits, has stopped or has failed
    Why(WhyArguments),
    /// Print what was logged about an experiment or one trial, by a coordinator or out of the object store
    Logs(LogsArguments),
    /// Show what a trial has measured, now or while it goes on
    Curves(CurvesArguments),
    /// Write an experiment for MLflow or TensorBoard, or a model for ONNX Runtime
    Export(ExportArguments),
    /// Write one HTML file about an experiment or a trial: curves, ranking, scores, mistakes
    Report(ReportArguments),
    /// Save what runs of an experiment, or one trial, and start no more of it
    Pause(SubjectArguments),
    /// Let a paused experiment or trial go on, or write a model that could not be written at the end
    Resume(SubjectArguments),
    /// End an experiment, or one trial
    Cancel(SubjectArguments),
    /// Serve an experiment before those with less priority, and give it their slots
    Prioritize(PriorityArguments),
    /// Submit the manifest of an experiment again, or that of one trial alone, with changes
    Fork(ForkArguments),
    /// Say whether store, disk, worker and GPUs are ready, and how to mend what is not
    Doctor(DoctorArguments),
    /// Make, list and take away the tokens of a coordinator, on its machine
    #[command(subcommand)]
    Token(TokenCommand),
    /// List, check, fetch and delete checkpoints in the store
    #[command(subcommand)]
    Checkpoints(CheckpointsCommand),
    /// Print the script that completes commands, options and names of experiments in a shell
    #[command(after_help = COMPLETION_HELP)]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print the manual's page, or write one for each command
    Man {
        /// Write the pages into this directory
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
}

/// Where shells look for completions.
const COMPLETION_HELP: &str = "\
For all new shells of a user:
  bash         muster completions bash > ~/.local/share/bash-completion/completions/muster
  zsh          muster completions zsh > DIRECTORY/_muster   (a directory of $fpath)
  fish         muster completions fish > ~/.config/fish/completions/muster.fish
  elvish       muster completions elvish >> ~/.config/elvish/rc.elv
  powershell   muster completions powershell >> $PROFILE";

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print it or write an access file with it
    Create {
        /// What it is for; `muster token revoke` takes the name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it opens
        #[arg(long, value_name = "SCOPE", default_value = "user")]
        scope: Scope,
        /// How long it can be used: 90d, 12h, 30m, 45s, or never
        #[arg(long, value_name = "TIME", default_value = "90d")]
        expires: String,
        /// Write an access file (URL, fingerprint and token) instead of printing the token
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// URL of the coordinator in the access file; without it, what it was started with
        #[arg(long, value_name = "URL", requires = "output")]
        url: Option<String>,
        #[command(flatten)]
        place: StateArguments,
    },
    /// List tokens; their secrets are not kept anywhere
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: StateArguments,
    },
    /// Take a token away; what it has opened ends within a second
    Revoke {
        /// Name or tag
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        place: StateArguments,
    },
}

#[derive(Debug, Args)]
pub(super) struct StateArguments {
    /// Settings file (TOML); without it `muster.toml` is read if it is there
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// State directory of the coordinator
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum CheckpointsCommand {
    /// List checkpoints: all, or those of an experiment or of a trial
    Ls {
        /// An experiment (demo-1), a trial (demo-1/t3) or one checkpoint (demo-1/t3/400-7)
        #[arg(value_name = "EXPERIMENT[/TRIAL]")]
        subject: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Read checkpoints whole and compare them with their indexes; exit code 1 if one is damaged
    Verify {
        /// An experiment (demo-1), a trial (demo-1/t3) or one checkpoint (demo-1/t3/400-7)
        #[arg(value_name = "EXPERIMENT[/TRIAL]")]
        subject: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Fetch a checkpoint's parts, verified, into a new directory
    Get {
        /// The checkpoint, for example demo-1/t3/400-7
        #[arg(value_name = "CHECKPOINT")]
        checkpoint: String,
        /// Where to
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Delete a checkpoint
    Rm {
        /// The checkpoint, for example demo-1/t3/400-7
        #[arg(value_name = "CHECKPOINT")]
        checkpoint: String,
        /// Even if it is the newest of its trial
        #[arg(long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Delete what no run goes on from: parts without an index, steps that a trial has gone back behind
    Gc {
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
        /// Leave alone what has been written to in the last so many hours: a run may be at it. With 0 nothing
        /// may be writing into the store
        #[arg(long, value_name = "N", default_value_t = 24)]
        older_than_hours: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
}

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) settings: SettingsFlags,
}

#[derive(Debug, Args)]
pub(super) struct StoreArguments {
    /// Settings file (TOML); without it `muster.toml` is read if it is there
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Object store: a directory, or a file://, s3://, gs:// or az:// URL
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<String>,
}

impl StoreArguments {
    pub(super) fn settings(&self) -> SettingsFlags {
        let (config, store) = (self.config.clone(), self.store.clone());
        SettingsFlags { config, store, ..SettingsFlags::default() }
    }
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The manifest
    #[arg(value_name = "MANIFEST", required_unless_present = "resume")]
    pub(super) manifest: Option<PathBuf>,
    /// Go on with an interrupted experiment: the given one, or the latest
    #[arg(long, value_name = "EXPERIMENT", num_args = 0..=1, conflicts_with = "manifest")]
    #[expect(clippy::option_option, reason = "absent, without a value, with one: as typed")]
    pub(super) resume: Option<Option<String>>,
    /// Write a summary of the experiment to this file (JSON) when it ends
    #[arg(long, value_name = "FILE")]
    pub(super) summary: Option<PathBuf>,
    /// Write a report on the experiment to this file (HTML) when it ends, as `muster report` does
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: SettingsFlags,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArguments {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
    /// Slots that there will be; without it, those of one trial
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) slots: Option<u32>,
    /// Training examples, without what is held out; without it, lines of local files are counted
    #[arg(long, value_name = "N")]
    pub(super) train_examples: Option<u64>,
    /// Speed of training on one slot; without it, no times are told
    #[arg(long, value_name = "X")]
    pub(super) examples_per_second: Option<f64>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// The file: a Determined experiment, a W&B sweep or a Katib Experiment
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Whose file it is; without it, its keys tell
    #[arg(long, value_name = "SYSTEM")]
    pub(super) from: Option<Dialect>,
    /// Write the manifest to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// For `model.pretrained`
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Option<String>,
    /// For `data.train.path`
    #[arg(long, value_name = "FILE")]
    pub(super) data: Option<String>,
    /// For `data.text`
    #[arg(long, value_name = "COLUMN")]
    pub(super) text: Option<String>,
    /// For `data.label.column`
    #[arg(long, value_name = "COLUMN")]
    pub(super) label: Option<String>,
    /// Exit with code 1 if a key is not carried over
    #[arg(long)]
    pub(super) strict: bool,
}

fn address_and_port(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| {
        "write IP:PORT, for example 127.0.0.1:7700, or 0.0.0.0:7700 for all of this machine's"
            .to_owned()
    })
}

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Address and port to listen on; 127.0.0.1:7700 where the settings say nothing else
    #[arg(long, value_name = "ADDRESS", value_parser = address_and_port)]
    pub(super) listen: Option<std::net::SocketAddr>,
    /// Encrypt connections with a certificate that is made and kept in the state directory, and ask for tokens
    #[arg(long, value_name = "auto|off", conflicts_with = "tls_cert")]
    pub(super) tls: Option<Tls>,
    /// Encrypt connections with this certificate (PEM), and ask for tokens
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Its key (PEM), a file that only you can read
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// URL under which other machines reach it
    #[arg(long, value_name = "URL")]
    pub(super) advertise: Option<String>,
    /// Start no local workers; others dial in
    #[arg(long, conflicts_with = "slots")]
    pub(super) no_workers: bool,
    #[command(flatten)]
    pub(super) settings: SettingsFlags,
}

#[derive(Debug, Args)]
pub(super) struct ClientArguments {
    /// URL of the coordinator; without it, that of the access file, else this machine's port 7700
    #[arg(long, value_name = "URL", env = "MUSTER_COORDINATOR")]
    pub(super) coordinator: Option<String>,
    /// Access file with URL, fingerprint and token; without it, that of a coordinator which was started here, else
    /// ~/.config/muster/access.json
    #[arg(long, value_name = "FILE", env = "MUSTER_ACCESS")]
    pub(super) access: Option<PathBuf>,
    /// What the coordinator's certificate is known by, sha256:...
    #[arg(long, value_name = "FINGERPRINT", env = "MUSTER_FINGERPRINT")]
    pub(super) fingerprint: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SubmitArguments {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    pub(super) manifest: PathBuf,
    /// Wait for the end, like `muster watch`
    #[arg(long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct LsArguments {
    /// Experiment whose trials are listed
    #[arg(value_name = "EXPERIMENT", add = ArgValueCompleter::new(manual::experiments))]
    pub(super) experiment: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    /// The experiment that is looked at first; its end decides the exit code
    #[arg(value_name = "EXPERIMENT", add = ArgValueCompleter::new(manual::experiments))]
    pub(super) experiment: Option<String>,
    /// Print lines until the experiment ends, on a terminal too
    #[arg(long, requires = "experiment")]
    pub(super) plain: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct SlotsArguments {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ImportanceArguments {
    /// The experiment, for example demo-1
    #[arg(value_name = "EXPERIMENT", add = ArgValueCompleter::new(manual::experiments))]
    pub(super) experiment: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct SubjectArguments {
    /// An experiment (demo-1) or one of its trials (demo-1/t3)
    #[arg(value_name = "EXPERIMENT[/TRIAL]", add = ArgValueCompleter::new(manual::subjects))]
    pub(super) subject: String,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct PriorityArguments {
    /// The experiment, for example demo-1
    #[arg(value_name = "EXPERIMENT", add = ArgValueCompleter::new(manual::experiments))]
    pub(super) experiment: String,
    /// From -100 to 100; those with more go first
    #[arg(value_name = "PRIORITY", allow_negative_numbers = true)]
    pub(super) priority: i32,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ForkArguments {
    /// An experiment (demo-1), or a trial (demo-1/t3) whose hyperparameters become constants
    #[arg(value_name = "EXPERIMENT[/TRIAL]", add = ArgValueCompleter::new(manual::subjects))]
    pub(super) subject: String,
    /// Begin where the trial was instead of at the pretrained weights: at its `last` checkpoint, its `best`, or that
    /// of a step
    #[arg(long, value_name = "CHECKPOINT")]
    pub(super) from: Option<CheckpointChoice>,
    /// Change a value of the manifest, for example `budget.epochs=3`; `searcher=null` takes one out
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Print the manifest instead of submitting it
    #[arg(long)]
    pub(super) print: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct WhyArguments {
    /// The trial, for example demo-1/t3
    #[arg(value_name = "TRIAL", add = ArgValueCompleter::new(manual::subjects))]
    pub(super) trial: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct CurvesArguments {
    /// The trial, for example demo-1/t3
    #[arg(value_name = "TRIAL", add = ArgValueCompleter::new(manual::subjects))]
    pub(super) trial: String,
    /// Only this metric; can be given several times
    #[arg(long, value_name = "METRIC")]
    pub(super) name: Vec<String>,
    /// Print every step instead of one line per metric, and go on until the trial ends
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Print one JSON object per metric, with all points
    #[arg(long, conflicts_with = "follow")]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// An experiment (demo-1) or one of its trials (demo-1/t3)
    #[arg(value_name = "EXPERIMENT[/TRIAL]", add = ArgValueCompleter::new(manual::subjects))]
    pub(super) subject: String,
    /// Go on until the experiment ends; with `--store`, until interrupted
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Read them from this object store, where they stay when the coordinator is gone
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The experiment, for example demo-1; with --onnx the directory of a fine-tuned model, or its name on a hub
    #[arg(value_name = "EXPERIMENT|MODEL", add = ArgValueCompleter::new(manual::experiments))]
    pub(super) experiment: String,
    /// Write a fine-tuned model to this file, for ONNX Runtime and others
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mlflow", "tensorboard"])]
    pub(super) onnx: Option<PathBuf>,
    /// Write its trials as runs into this directory, a file store of MLflow (mlruns)
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) mlflow: Option<PathBuf>,
    /// Write an event file of TensorBoard for each trial into this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) tensorboard: Option<PathBuf>,
    /// The worker program, for --onnx
    #[arg(long, value_name = "FILE", env = "MUSTER_WORKER_BINARY")]
    pub(super) worker_binary: Option<PathBuf>,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}
