//! The worker program: supervisor of a slot, runner, and one-shot commands that need tensors.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use muster_common::access::{AccessError, AccessFlags};
use muster_common::id::WorkerId;
use muster_common::telemetry::{FORMAT_VARIABLE, LogFormat, hold_lines, install};
use muster_common::time::Timestamp;
use muster_worker::data::TableColumns;
use muster_worker::explain::{Baseline, Outputs, Request, SettingsRecord, SplitOptions, Style};
use muster_worker::model::Classifier;
use muster_worker::predict::{TableKind, Text, TextSource};
use muster_worker::supervisor::{
    Allocation, Departure, Refused, Solitude, SupervisorOptions, die_with_supervisor, supervise,
};
use muster_worker::{collective, onnx, predict, runner};

/// Exit code of a worker that the coordinator does not let in, or that finds another one in its place.
const REFUSED: u8 = 4;

/// Exit code where what was given cannot be used (clap uses 2 too).
const USAGE: u8 = 2;

/// Exit code of a worker that was without a coordinator for longer than it may.
const ALONE: u8 = 5;

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
        /// URL of the coordinator; without it, that of the access file
        #[arg(long, value_name = "URL", env = "MUSTER_COORDINATOR")]
        coordinator: Option<String>,
        /// Access file with URL, fingerprint and token
        #[arg(long, value_name = "FILE", env = "MUSTER_ACCESS")]
        access: Option<PathBuf>,
        /// What the coordinator's certificate is known by, sha256:...
        #[arg(long, value_name = "FINGERPRINT", env = "MUSTER_FINGERPRINT")]
        fingerprint: Option<String>,
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
    Predict(PredictArguments),
    /// Say why a model classifies texts as it does
    Explain(ExplainArguments),
    /// Say how much the words of texts have to do with their predictions; for reports
    #[command(hide = true)]
    Attribute {
        /// Directory of the model
        directory: PathBuf,
    },
    /// Write a model as an ONNX file
    ExportOnnx {
        /// Directory of the model, or its name on the Hugging Face hub
        model: String,
        /// Where to
        file: PathBuf,
    },
    /// Say whether this slot's device can be used
    CheckDevice,
    /// Say what gradients on this slot's device are reduced with, and whether it works here
    CheckCollectives,
}

#[derive(Debug, Args)]
struct PredictArguments {
    /// Directory of the model, or its name on the Hugging Face hub
    model: String,
    /// Texts; without any and without a file, or as `-`, lines of standard input
    texts: Vec<String>,
    /// A file of texts; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
    /// What the file is; without it, its name tells
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "csv", "tsv", "jsonl", "parquet"])]
    format: Option<String>,
    /// Column of the file with the text
    #[arg(long, value_name = "COLUMN")]
    text_column: Option<String>,
    /// Column of the file with the second text of a pair
    #[arg(long, value_name = "COLUMN")]
    pair_column: Option<String>,
    /// Write the rows of the file with their predictions to this file
    #[arg(long, value_name = "FILE", conflicts_with = "json", value_parser = table_file)]
    output: Option<PathBuf>,
    /// Print one JSON object per text, with class, probabilities, scores and token ids
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ExplainArguments {
    /// Directory of the model, or its name on the Hugging Face hub
    model: String,
    /// A text to explain; can be given several times
    #[arg(long = "text", value_name = "TEXT", required_unless_present = "file")]
    texts: Vec<String>,
    /// The second text of a pair: one for each --text, or none
    #[arg(long = "pair", value_name = "TEXT")]
    pairs: Vec<String>,
    /// A file of texts to explain on the whole
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Column of the file with the text
    #[arg(long, value_name = "COLUMN", default_value = "text")]
    text_column: String,
    /// Column of the file with the second text of a pair
    #[arg(long, value_name = "COLUMN")]
    pair_column: Option<String>,
    /// Column of the file with the label
    #[arg(long, value_name = "COLUMN")]
    label_column: Option<String>,
    /// Texts of the file whose words' importance is measured
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Mistakes of the file that are shown
    #[arg(long, value_name = "N", default_value_t = 10)]
    mistakes: usize,
    /// Class to explain, by name or number
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Points of integrals
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: u32,
    /// What stands for a word that is not there
    #[arg(long, value_name = "BASELINE", value_enum, default_value = "pad")]
    baseline: Baseline,
    /// Write everything as JSON to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write one page with everything in it to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = std::env::var("MUSTER_LOG").unwrap_or_else(|_| "info".to_owned());
    let format = LogFormat::of_environment();
    let named = std::env::var(FORMAT_VARIABLE).unwrap_or_else(|_| format.name().to_owned());
    if named != format.name() {
        eprintln!("error: {FORMAT_VARIABLE} is `{named}`; write text or json");
        return ExitCode::FAILURE;
    }
    let mut good = ExitCode::SUCCESS;
    let outcome = match arguments.command {
        Command::Supervise { coordinator, access, fingerprint, worker_id, end_with_stdin } => {
            let access = AccessFlags { coordinator, fingerprint, file: access };
            hold_lines();
            install("supervisor", &filter, format);
            start(access, worker_id, end_with_stdin).map(|code| good = code)
        }
        Command::Runner => {
            install("runner", &filter, format);
            die_with_supervisor().map_err(anyhow::Error::new).and_then(|()| runner::run())
        }
        Command::Predict(arguments) => {
            // Downloads take minutes, and say so.
            install("predict", "warn,muster_worker::model::hub=info", format);
            classify(arguments)
        }
        Command::Explain(arguments) => {
            install(
                "explain",
                "warn,muster_worker::model::hub=info,muster_worker::explain=info",
                format,
            );
            explain(arguments)
        }
        Command::Attribute { directory } => {
            install("explain", "warn", format);
            attribute(&directory)
        }
        Command::ExportOnnx { model, file } => {
            install("export", "warn,muster_worker::model::hub=info", format);
            export_onnx(&model, &file)
        }
        Command::CheckDevice => {
            install("check", &filter, format);
            check_device()
        }
        Command::CheckCollectives => {
            install("check", &filter, format);
            check_collectives()
        }
    };
    match outcome {
        Ok(()) => good,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.downcast_ref::<Refused>().is_some() {
                return ExitCode::from(REFUSED);
            }
            if error.downcast_ref::<AccessError>().is_some() {
                return ExitCode::from(USAGE);
            }
            ExitCode::FAILURE
        }
    }
}

fn start(
    access: AccessFlags,
    worker_id: Option<WorkerId>,
    end_with_stdin: bool,
) -> anyhow::Result<ExitCode> {
    let worker = match worker_id {
        Some(worker) => worker,
        None => new_name()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (allocation, solitude) = (Allocation::of_environment()?, Solitude::of_environment()?);
    let options = SupervisorOptions { access, worker, end_with_stdin, allocation, solitude };
    let outcome = runtime.block_on(supervise(options));
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_background();
    Ok(match outcome? {
        Departure::Told => ExitCode::SUCCESS,
        Departure::Deserted => ExitCode::from(ALONE),
    })
}

/// A name that no process had before. Where a cluster has started this one, it begins with the name of the
/// allocation, so that the coordinator knows whose worker it is.
fn new_name() -> anyhow::Result<WorkerId> {
    let (now, pid) = (Timestamp::now().0, std::process::id());
    let name = match std::env::var("MUSTER_ALLOCATION") {
        Ok(allocation) => {
            let task = std::env::var("SLURM_PROCID").unwrap_or_else(|_| "0".to_owned());
            format!("{allocation}-{task}-{now}-{pid}")
        }
        Err(_) => format!("worker-{now}-{pid}"),
    };
    Ok(name.parse()?)
}

fn check_device() -> anyhow::Result<()> {
    let device = runner::device_of_slot()?;
    println!("{device:?}");
    Ok(())
}

fn check_collectives() -> anyhow::Result<()> {
    let device = runner::device_of_slot()?;
    let through = collective::check(device)?;
    println!("{device:?}: gradients go through {through}; a sum over one rank is right");
    Ok(())
}

fn classify(arguments: PredictArguments) -> anyhow::Result<()> {
    let is_stdin = |name: &Path| name == Path::new("-");
    let source = match (arguments.file, arguments.texts) {
        (Some(file), _) if !is_stdin(&file) => TextSource::File(file),
        (None, texts) if !texts.is_empty() && texts != ["-"] => TextSource::Given(texts),
        _ => TextSource::Stdin,
    };
    let request = predict::Request {
        model: arguments.model,
        source,
        format: arguments.format,
        text_column: arguments.text_column,
        pair_column: arguments.pair_column,
        output: arguments.output,
        json: arguments.json,
    };
    let (num_threads, device) = (num_threads()?, runner::device_of_slot()?);
    let mut output = BufWriter::new(std::io::stdout().lock());
    predict::run(&request, num_threads, device, &mut output)
}

/// A file that predictions can be written to.
fn table_file(name: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(name);
    TableKind::of(&path).map(|_| path)
}

/// Those of the slot, else all of the machine.
fn num_threads() -> anyhow::Result<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(runner::threads_of_slot()?.map_or(Ok(cores), usize::try_from)?)
}

fn explain(arguments: ExplainArguments) -> anyhow::Result<()> {
    let ExplainArguments { texts, pairs, limit, mistakes, .. } = arguments;
    if !pairs.is_empty() && pairs.len() != texts.len() {
        let (texts, pairs) = (texts.len(), pairs.len());
        anyhow::bail!(
            "{texts} times --text and {pairs} times --pair: give one for each text, or none"
        );
    }
    let pairs = pairs.into_iter().map(Some).chain(std::iter::repeat(None));
    let texts = texts.into_iter().zip(pairs).map(|(text, text_pair)| Text { text, text_pair });
    let columns = TableColumns {
        text: arguments.text_column,
        pair: arguments.pair_column,
        label: arguments.label_column,
    };
    let options = SplitOptions { columns, attributed_max: limit, mistakes_max: mistakes };
    let request = Request {
        model: arguments.model,
        texts: texts.collect(),
        file: arguments.file.map(|file| (file, options)),
        class: arguments.class,
        settings: SettingsRecord { steps: arguments.steps, baseline: arguments.baseline },
        outputs: Outputs { json: arguments.json, html: arguments.html },
    };
    let (num_threads, device) = (num_threads()?, runner::device_of_slot()?);
    let mut output = BufWriter::new(std::io::stdout().lock());
    muster_worker::explain::run(&request, num_threads, device, Style::of_stdout(), &mut output)
}

fn attribute(directory: &Path) -> anyhow::Result<()> {
    let (num_threads, device) = (num_threads()?, runner::device_of_slot()?);
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    muster_worker::explain::attribute(directory, num_threads, device, input, &mut output)
}

fn export_onnx(model: &str, file: &Path) -> anyhow::Result<()> {
    let directory = predict::directory_of(model)?;
    let classifier = Classifier::from_directory(&directory, tch::Device::Cpu)
        .with_context(|| format!("no model in {}", directory.display()))?;
    onnx::write(&classifier, file)?;
    let said = writeln!(std::io::stdout(), "{}", file.display());
    predict::unless_unread(said).map(|_| ())
}
