//! Files to rows, one after the other: files may be larger than memory. A row that cannot be read
//! refuses the file; none is dropped silently.

mod columns;
mod delimited;
mod files;
mod hub;
mod json_lines;
mod lines;
mod wide;

use std::borrow::Cow;
use std::io;

use muster_common::manifest::no_column;

use super::DataError;

pub(super) use files::{Role, SourceFile, fetch, find};
pub(crate) use wide::schema_of_names;
pub use wide::{Rest, TextColumns, WideRow, WideRows};

/// One row of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Line or row number, from 1, header lines counted.
    pub(super) at: u64,
    /// The text as it stands in the file.
    pub(super) text: String,
    /// The second text of a pair.
    pub(super) pair: Option<String>,
    /// The label as text: numbers as the file writes them.
    pub(super) label: Option<String>,
    /// Whether U+FFFD stands for bytes that were not UTF-8.
    pub(super) repaired: bool,
}

/// Rows in the order of the file, up to the first mistake.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Row, Mistake>> + Send>;

/// Which columns are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Column with the text.
    pub(super) text: String,
    /// Column with the second text of a pair.
    pub(super) pair: Option<String>,
    /// Column with the label; absent where none is needed.
    pub(super) label: Option<String>,
    /// Lines of text files between two blank lines are one text.
    pub(super) documents: bool,
}

impl Wanted {
    /// Names of all columns that are read.
    fn names(&self) -> impl Iterator<Item = &str> {
        let optional = [self.pair.as_deref(), self.label.as_deref()];
        [Some(self.text.as_str())].into_iter().chain(optional).flatten()
    }
}

/// Why a row or a whole file is refused.
#[derive(Debug)]
pub(super) enum Mistake {
    /// Something is wrong with a row, or with the file where there is no number.
    Refused { at: Option<u64>, message: String },
    /// The file cannot be read any further.
    Io(io::Error),
}

impl Mistake {
    fn file(message: impl Into<String>) -> Self {
        Self::Refused { at: None, message: message.into() }
    }

    fn row(at: u64, message: impl Into<String>) -> Self {
        Self::Refused { at: Some(at), message: message.into() }
    }

    fn encoding(at: u64) -> Self {
        Self::row(
            at,
            "bytes that are not UTF-8: convert the file, for example with `iconv -t UTF-8`",
        )
    }

    /// The same about the row at `at`, if it is about no other.
    fn at(self, at: u64) -> Self {
        match self {
            Self::Refused { at: None, message } => Self::row(at, message),
            other => other,
        }
    }

    /// The error that a user sees: with the file, and the row where there is one.
    pub(super) fn of_file(self, path: &str, has_lines: bool) -> DataError {
        match self {
            Self::Refused { at: Some(at), message } => {
                DataError::refused(place(path, has_lines, at), message)
            }
            Self::Refused { at: None, message } => DataError::refused(path, message),
            Self::Io(source) => DataError::Read { path: path.to_owned(), source },
        }
    }
}

impl From<io::Error> for Mistake {
    /// A decoder's complaint is about the file, not about the disk.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::file("the file is cut off: fetch it again"),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                Self::file(format!("the file is damaged: {error}"))
            }
            _ => Self::Io(error),
        }
    }
}

/// `FILE:LINE` or `FILE, row N`.
pub(crate) fn place(path: &str, has_lines: bool, at: u64) -> String {
    if has_lines { format!("{path}:{at}") } else { format!("{path}, row {at}") }
}

/// The text of bytes, with U+FFFD for what is not UTF-8, and whether there was such a thing.
fn repair(bytes: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(bytes);
    let repaired = matches!(text, Cow::Owned(_));
    (text.into_owned(), repaired)
}

/// Position of column `name`, or a message that lists what there is.
fn find_column(columns: &[String], name: &str) -> Result<usize, Mistake> {
    let position = columns.iter().position(|column| column == name);
    position.ok_or_else(|| Mistake::file(no_column(columns, name)))
}

#[cfg(test)]
mod tests;
