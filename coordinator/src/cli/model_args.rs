//! Arguments of the commands that have one model do something, without a coordinator.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct PredictArguments {
    /// Directory of a fine-tuned model, or its name on the Hugging Face hub
    #[arg(value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// Texts to classify; without any and without a file, or as `-`, lines of standard input, answered as they come
    #[arg(value_name = "TEXT")]
    pub(super) texts: Vec<String>,
    /// A file of texts: .csv, .tsv, .jsonl or .parquet; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub(super) file: Option<PathBuf>,
    /// What the file or standard input is; without it, the file's name tells, and standard input is lines of text
    #[arg(long, value_name = "FORMAT", conflicts_with = "texts")]
    #[arg(value_parser = ["text", "csv", "tsv", "jsonl", "parquet"])]
    pub(super) format: Option<String>,
    /// Column with the text; without it, the one that the model was trained with, or `text`
    #[arg(long, visible_alias = "text", value_name = "COLUMN", conflicts_with = "texts")]
    pub(super) text_column: Option<String>,
    /// Column with the second text of a pair; without it, the one that the model was trained with, or `text_pair`
    #[arg(long, visible_alias = "pair", value_name = "COLUMN", conflicts_with = "texts")]
    pub(super) pair_column: Option<String>,
    /// Write all columns of the input and, behind them, the predictions to this file: .csv, .jsonl or .parquet
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    pub(super) output: Option<PathBuf>,
    /// Print one JSON object per text, with class, probabilities, scores and token ids
    #[arg(long)]
    pub(super) json: bool,
    /// The worker program
    #[arg(long, value_name = "FILE", env = "MUSTER_WORKER_BINARY")]
    pub(super) worker_binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// Directory of a fine-tuned model, or its name on the Hugging Face hub
    #[arg(value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// A text to explain; can be given several times
    #[arg(long = "text", value_name = "TEXT", required_unless_present = "file")]
    pub(super) texts: Vec<String>,
    /// The second text of a pair: one for each --text, or none
    #[arg(long = "pair", value_name = "TEXT", requires = "texts")]
    pub(super) pairs: Vec<String>,
    /// A file of texts to explain on the whole: .csv, .tsv, .jsonl or .parquet
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Column of the file with the text
    #[arg(long, value_name = "COLUMN", default_value = "text")]
    pub(super) text_column: String,
    /// Column of the file with the second text of a pair
    #[arg(long, value_name = "COLUMN", requires = "file")]
    pub(super) pair_column: Option<String>,
    /// Column of the file with the label, for accuracy, probes of layers and mistakes
    #[arg(long, value_name = "COLUMN", requires = "file")]
    pub(super) label_column: Option<String>,
    /// Texts of the file whose words' importance is measured, evenly spread; it takes about a second for each
    #[arg(long, value_name = "N", default_value_t = 50, requires = "file")]
    pub(super) limit: usize,
    /// Mistakes of the file that are shown, the most confident first
    #[arg(long, value_name = "N", default_value_t = 10, requires = "file")]
    pub(super) mistakes: usize,
    /// Class to explain, by name or number; without it, the predicted one
    #[arg(long, value_name = "CLASS")]
    pub(super) class: Option<String>,
    /// Points of integrals; more make the completeness error smaller
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) steps: u32,
    /// What stands for a word that is not there: pad, mask (their embeddings) or zero
    #[arg(long, value_name = "BASELINE", default_value = "pad", value_parser = ["pad", "mask", "zero"])]
    pub(super) baseline: String,
    /// Write everything as JSON to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write one page with everything in it to this file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// The worker program
    #[arg(long, value_name = "FILE", env = "MUSTER_WORKER_BINARY")]
    pub(super) worker_binary: Option<PathBuf>,
}
