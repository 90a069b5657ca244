//! One call from the command line: what is classified, and where the answers go.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use arrow::datatypes::SchemaRef;
use muster_common::count::counted_are;
use muster_common::manifest::SourceFormat;
use muster_common::storage::PROVENANCE_FILE;
use serde::Deserialize;
use tch::Device;

use super::part::Parts;
use super::table::{TableFile, TableKind};
use super::{Prediction, Predictor, Text, directory_of, unless_unread, write_line};
use crate::data::{DataError, Rest, TextColumns, WideRow, WideRows, format_named, format_of};

/// As messages call standard input.
const STDIN: &str = "standard input";

/// Where texts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextSource {
    /// The command line.
    Given(Vec<String>),
    /// A file.
    File(PathBuf),
    /// Standard input, whose writer may be slow.
    Stdin,
}

/// What is to be classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Directory of a model, or its name on a hub.
    pub model: String,
    /// The texts.
    pub source: TextSource,
    /// Name of the input's format; absent: what the file's name tells, of standard input lines of text.
    pub format: Option<String>,
    /// Column with the text; absent: the one that the model was trained with, or `text`.
    pub text_column: Option<String>,
    /// Column with the second text of a pair; absent: the one that the model was trained with, or `text_pair`.
    pub pair_column: Option<String>,
    /// The file to write; absent: standard output.
    pub output: Option<PathBuf>,
    /// Whether standard output gets JSON.
    pub json: bool,
}

/// What an exported model says of the data that it was trained with.
#[derive(Debug, Default, Deserialize)]
struct Trained {
    #[serde(default)]
    columns: TrainedColumns,
}

#[derive(Debug, Default, Deserialize)]
struct TrainedColumns {
    text: Option<String>,
    text_pair: Option<String>,
}

/// Classifies, and writes the answers in the order of the texts. `num_threads` compute, in all of this process.
pub fn run(
    request: &Request,
    num_threads: usize,
    device: Device,
    stdout: &mut impl Write,
) -> anyhow::Result<()> {
    let directory = directory_of(&request.model)?;
    let opened = open(request, &directory)?;
    let predictor = Predictor::open(&directory, num_threads, device)?;
    let Opened { mut parts, schema, shown, has_lines } = opened;
    let place = |at: u64| crate::data::place(&shown, has_lines, at);
    let Some(path) = &request.output else {
        while let Some(rows) = parts.next_part()? {
            if print(&predictor, &rows, request.json, stdout)?.is_break() {
                break;
            }
        }
        return Ok(());
    };
    let kind = TableKind::of(path).map_err(anyhow::Error::msg);
    let kind = kind.with_context(|| path.display().to_string())?;
    let failed = || format!("cannot write {}", path.display());
    let mut file =
        TableFile::create(path, kind, predictor.model().labels(), schema).with_context(failed)?;
    while let Some(rows) = parts.next_part()? {
        let predictions = predictor.predict_part(texts(&rows))?;
        file.write(&rows, &predictions, &place).with_context(failed)?;
    }
    let num_rows = file.num_rows();
    file.finish().with_context(failed)?;
    let predictions = counted_are(num_rows, "prediction");
    unless_unread(writeln!(stdout, "{predictions} in {}", path.display())).map(|_| ())
}

/// What was opened.
struct Opened {
    parts: Parts,
    /// The columns, where the input says them before its rows.
    schema: Option<SchemaRef>,
    shown: String,
    has_lines: bool,
}

fn open(request: &Request, directory: &Path) -> anyhow::Result<Opened> {
    let trained = trained(directory);
    let columns = TextColumns {
        text: request.text_column.clone(),
        pair: request.pair_column.clone(),
        usual_text: trained.text,
        usual_pair: trained.text_pair,
    };
    let format = request.format.as_deref().map(named).transpose()?;
    match &request.source {
        TextSource::Given(texts) => {
            let row = |(index, text): (usize, String)| {
                Ok(WideRow { at: index as u64 + 1, text, pair: None, rest: Rest::Nothing })
            };
            let rows = texts.clone().into_iter().enumerate().map(row);
            let shown = "the command line".to_owned();
            Ok(Opened { parts: Parts::of_rows(rows), schema: None, shown, has_lines: false })
        }
        TextSource::File(path) => {
            let Some(format) = format.or_else(|| format_of(path)) else {
                bail!(
                    "{}: its name ends in none of .csv, .tsv, .jsonl, .ndjson, .parquet: say what it is with --format",
                    path.display()
                );
            };
            let rows = WideRows::of_file(path, &format, &columns)?;
            let (schema, shown) = (rows.schema(), path.display().to_string());
            let has_lines = format != SourceFormat::Parquet;
            Ok(Opened { parts: Parts::of_rows(rows), schema, shown, has_lines })
        }
        TextSource::Stdin => {
            let format = format.unwrap_or(SourceFormat::Text);
            let open = move || -> Result<WideRows, DataError> {
                WideRows::of_stream(Box::new(std::io::stdin()), STDIN, &format, &columns)
            };
            let shown = STDIN.to_owned();
            if stdin_is_file() {
                let rows = open()?;
                let schema = rows.schema();
                return Ok(Opened { parts: Parts::of_rows(rows), schema, shown, has_lines: true });
            }
            Ok(Opened { parts: Parts::of_stream(open)?, schema: None, shown, has_lines: true })
        }
    }
}

/// A file is there as soon as it is asked for, and the same rows are answered together each time.
fn stdin_is_file() -> bool {
    let found = rustix::fs::fstat(std::io::stdin());
    found.is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode).is_file())
}

fn named(name: &str) -> anyhow::Result<SourceFormat> {
    match name {
        "text" => Ok(SourceFormat::Text),
        name => format_named(name).with_context(|| format!("`{name}` is no format")),
    }
}

/// The columns that the model was trained with, where its directory says them.
fn trained(directory: &Path) -> TrainedColumns {
    let said = std::fs::read(directory.join(PROVENANCE_FILE)).unwrap_or_default();
    serde_json::from_slice::<Trained>(&said).unwrap_or_default().columns
}

fn texts(rows: &[WideRow]) -> Vec<Text> {
    let text = |row: &WideRow| Text { text: row.text.clone(), text_pair: row.pair.clone() };
    rows.iter().map(text).collect()
}

/// Prints what the model says of `rows`, and leaves nothing of it in a buffer.
fn print(
    predictor: &Predictor,
    rows: &[WideRow],
    json: bool,
    stdout: &mut impl Write,
) -> anyhow::Result<ControlFlow<()>> {
    let predictions: Vec<Prediction> = predictor.predict_part(texts(rows))?;
    for prediction in predictions {
        if write_line(stdout, &prediction, json)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    unless_unread(stdout.flush())
}
