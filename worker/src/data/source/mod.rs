//! Files to rows: the text and the label's text of every row, with its place for messages. A row
//! that cannot be read refuses the file; none is dropped silently.

mod columns;
mod delimited;
mod json_lines;

use std::borrow::Cow;

use bytes::Bytes;
use muster_common::manifest::{Source, SourceFormat};

use super::DataError;

/// One row of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Line or row number, from 1, header lines counted.
    pub(super) at: u64,
    /// The text as it stands in the file.
    pub(super) text: String,
    /// The label as text: numbers as the file writes them.
    pub(super) label: String,
}

/// The rows of one file.
#[derive(Debug)]
pub(super) struct Rows {
    /// Path of the file as the manifest has it.
    pub(super) path: String,
    /// Rows have line numbers (text formats) or row numbers (Parquet).
    pub(super) has_lines: bool,
    /// In the order of the file.
    pub(super) list: Vec<Row>,
    /// Rows with bytes that were not UTF-8, replaced by U+FFFD, and the first of them.
    pub(super) repaired: Option<(u64, u64)>,
}

/// Which columns are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Column with the text.
    pub(super) text: &'a str,
    /// Column with the label.
    pub(super) label: &'a str,
}

/// Why a row or a whole file is refused, and the row's number where there is one.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    at: Option<u64>,
    message: String,
}

impl Mistake {
    fn file(message: impl Into<String>) -> Self {
        Self { at: None, message: message.into() }
    }

    fn row(at: u64, message: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into() }
    }
}

impl Rows {
    /// `FILE:LINE` or `FILE, row N`.
    pub(super) fn place(&self, at: u64) -> String {
        place(&self.path, self.has_lines, at)
    }
}

fn place(path: &str, has_lines: bool, at: u64) -> String {
    if has_lines { format!("{path}:{at}") } else { format!("{path}, row {at}") }
}

/// Reads the rows of a file whose contents are `bytes`.
pub(super) fn read(source: &Source, bytes: Bytes, wanted: Wanted<'_>) -> Result<Rows, DataError> {
    let has_lines = source.format != SourceFormat::Parquet;
    let mut rows = Rows { path: source.path.clone(), has_lines, list: Vec::new(), repaired: None };
    let result = match &source.format {
        SourceFormat::Parquet => columns::read(bytes, wanted, &mut rows),
        SourceFormat::JsonLines => {
            text_body(&bytes).and_then(|body| json_lines::read(body, wanted, &mut rows))
        }
        SourceFormat::Delimited { delimiter, columns } => text_body(&bytes).and_then(|body| {
            delimited::read(body, *delimiter, columns.as_deref(), wanted, &mut rows)
        }),
    };
    match result {
        Ok(()) => Ok(rows),
        Err(Mistake { at: Some(at), message }) => Err(DataError::refused(rows.place(at), message)),
        Err(Mistake { at: None, message }) => Err(DataError::refused(rows.path, message)),
    }
}

/// The bytes behind a byte-order mark. Text in UTF-16 is refused: every second byte would be wrong.
fn text_body(bytes: &[u8]) -> Result<&[u8], Mistake> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let message = "the file is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`";
        return Err(Mistake::file(message));
    }
    Ok(bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes))
}

/// Text of row `at`, with U+FFFD for what is not UTF-8.
fn repair(rows: &mut Rows, at: u64, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if matches!(text, Cow::Owned(_)) {
        let (count, first) = rows.repaired.unwrap_or((0, at));
        rows.repaired = Some((count + 1, first));
    }
    text.into_owned()
}

/// Position of column `name`, or a message that lists what there is.
fn find_column(columns: &[String], name: &str) -> Result<usize, Mistake> {
    columns.iter().position(|column| column == name).ok_or_else(|| {
        let some: Vec<&str> = columns.iter().take(20).map(String::as_str).collect();
        let listed = some.join("`, `");
        Mistake::file(format!("there is no column `{name}`; the columns are `{listed}`"))
    })
}

#[cfg(test)]
mod tests;
