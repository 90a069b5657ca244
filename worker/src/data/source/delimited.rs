//! Comma separated (RFC 4180) and tab separated files.
//!
//! Stricter than most readers where leniency swallows rows: a quote that is never closed, text
//! behind a closing quote and a row with more or fewer fields than columns are refused, with the
//! line.

use std::borrow::Cow;
use std::io::Read;

use muster_common::count::counted;
use muster_common::manifest::Delimiter;

use super::lines::{BLOCK, ROW_MAX, behind_mark, read_on, read_some};
use super::{Mistake, Row, Wanted, find_column, repair};

/// One record and the line, from 1, where it starts.
struct Record<'a> {
    line: u64,
    fields: Vec<Cow<'a, [u8]>>,
}

/// Cuts bytes into records.
struct Records<'a> {
    rest: &'a [u8],
    line: u64,
    delimiter: Delimiter,
}

/// Rows of a file; one block of it is in memory.
pub(super) struct Fields {
    reader: Box<dyn Read + Send>,
    block: usize,
    /// Bytes that were read and belong to no record yet begin at `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Nothing is left to read.
    ended: bool,
    /// Line of `start`.
    line: u64,
    delimiter: Delimiter,
    layout: Layout,
    /// A record counts when its line has ended, and is not waited behind.
    live: bool,
    /// Why nothing more can be read; told behind the last whole record.
    broken: Option<Mistake>,
    failed: bool,
}

/// Where the columns that are read stand.
#[derive(Debug, Clone, Copy)]
struct Layout {
    width: usize,
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
}

impl Fields {
    pub(super) fn new(
        reader: Box<dyn Read + Send>,
        delimiter: Delimiter,
        columns: Option<&[String]>,
        wanted: &Wanted,
    ) -> Result<Self, Mistake> {
        Self::in_blocks(BLOCK, reader, delimiter, columns, wanted)
    }

    /// As [`Fields::new`], reading at least so many bytes at once.
    pub(super) fn in_blocks(
        block: usize,
        reader: Box<dyn Read + Send>,
        delimiter: Delimiter,
        columns: Option<&[String]>,
        wanted: &Wanted,
    ) -> Result<Self, Mistake> {
        let mut fields = Self::begin(block, reader, delimiter)?;
        let columns = match columns {
            Some(columns) => columns.to_vec(),
            None => fields.names()?,
        };
        let find = |name: &Option<String>| {
            name.as_deref().map(|name| find_column(&columns, name)).transpose()
        };
        fields.layout = Layout {
            width: columns.len(),
            text: find_column(&columns, &wanted.text)?,
            pair: find(&wanted.pair)?,
            label: find(&wanted.label)?,
        };
        Ok(fields)
    }

    /// A file whose records are taken whole, by [`Fields::whole`], and the names of its columns. Of one that is `live`
    /// a record is there as soon as its line is.
    pub(super) fn of_all(
        reader: Box<dyn Read + Send>,
        delimiter: Delimiter,
        live: bool,
    ) -> Result<(Self, Vec<String>), Mistake> {
        let mut fields = Self::begin(BLOCK, reader, delimiter)?;
        fields.live = live;
        let names = fields.names()?;
        fields.layout.width = names.len();
        Ok((fields, names))
    }

    /// All fields of the next record, with its line.
    pub(super) fn whole(&mut self) -> Result<Option<(u64, Vec<String>)>, Mistake> {
        let layout = self.layout;
        self.record(|record| layout.whole(record))?.transpose()
    }

    fn begin(
        block: usize,
        reader: Box<dyn Read + Send>,
        delimiter: Delimiter,
    ) -> Result<Self, Mistake> {
        Ok(Self {
            reader: Box::new(behind_mark(reader)?),
            block,
            buffer: Vec::new(),
            start: 0,
            ended: false,
            line: 1,
            delimiter,
            layout: Layout { width: 0, text: 0, pair: None, label: None },
            live: false,
            broken: None,
            failed: false,
        })
    }

    fn names(&mut self) -> Result<Vec<String>, Mistake> {
        let names = self.record(header)?;
        names.ok_or_else(|| Mistake::file("the file is empty")).and_then(|names| names)
    }

    /// What `take` makes of the next record; `None` at the end of the file.
    fn record<T>(&mut self, take: impl Fn(&Record<'_>) -> T) -> Result<Option<T>, Mistake> {
        let mut looked_twice = false;
        loop {
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            let mut records = Records { rest, line: self.line, delimiter: self.delimiter };
            let parsed = records.next();
            // What ends where the block ends may go on in the next one.
            let open = match &parsed {
                Some(Err(Unreadable::Open(_))) => true,
                Some(Err(Unreadable::Wrong(_))) => !looked_twice,
                Some(Ok(_)) if self.live && rest.ends_with(b"\n") => false,
                _ => records.rest.is_empty(),
            };
            if open && let Some(broken) = self.broken.take() {
                return Err(broken.at(self.line));
            }
            if self.ended || !open {
                let (left, line) = (records.rest.len(), records.line);
                let result = parsed.map(|record| record.map(|record| take(&record)));
                self.start = self.buffer.len() - left;
                self.line = line;
                return result.transpose().map_err(Unreadable::into_mistake);
            }
            looked_twice = matches!(parsed, Some(Err(Unreadable::Wrong(_))));
            self.read_on()?;
        }
    }

    /// Reads as much again as is there, so that a long record does not take ever more tries.
    fn read_on(&mut self) -> Result<(), Mistake> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() > ROW_MAX {
            let message = format!(
                "a row of more than {ROW_MAX} bytes begins here: is a quote opened and never closed?"
            );
            return Err(Mistake::row(self.line, message));
        }
        let count = self.buffer.len().max(self.block);
        let read = if self.live { read_some } else { read_on };
        match read(&mut self.reader, &mut self.buffer, count) {
            Ok(more) => self.ended = !more,
            // Rows that came before it are read before it is told, with the row that is not whole.
            Err(error) => self.broken = Some(error.into()),
        }
        Ok(())
    }

    fn row(&mut self) -> Result<Option<Row>, Mistake> {
        let layout = self.layout;
        self.record(|record| layout.row(record))?.transpose()
    }
}

impl Iterator for Fields {
    type Item = Result<Row, Mistake>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.row().transpose();
        self.failed = !matches!(row, Some(Ok(_)));
        row
    }
}

impl Layout {
    fn row(self, record: &Record<'_>) -> Result<Row, Mistake> {
        self.check(record)?;
        let (at, wrong) = (record.line, || self.wrong(record));
        let field = |index: usize| record.fields.get(index).map(|field| repair(field));
        let (text, mut repaired) = field(self.text).ok_or_else(wrong)?;
        let pair = self.pair.and_then(field);
        repaired |= pair.as_ref().is_some_and(|(_, repaired)| *repaired);
        let label = self.label.and_then(field).map(|(label, _)| label);
        Ok(Row { at, text, pair: pair.map(|(pair, _)| pair), label, repaired })
    }

    /// All fields.
    fn whole(self, record: &Record<'_>) -> Result<(u64, Vec<String>), Mistake> {
        self.check(record)?;
        let field = |field: &Cow<'_, [u8]>| {
            let text = std::str::from_utf8(field).map_err(|_| Mistake::encoding(record.line))?;
            Ok(text.to_owned())
        };
        let fields: Result<Vec<String>, Mistake> = record.fields.iter().map(field).collect();
        Ok((record.line, fields?))
    }

    fn check(self, record: &Record<'_>) -> Result<(), Mistake> {
        if record.fields.len() == self.width { Ok(()) } else { Err(self.wrong(record)) }
    }

    fn wrong(self, record: &Record<'_>) -> Mistake {
        let message = format!(
            "{}, but there are {} columns: quote the field or remove the row",
            counted(record.fields.len(), "field"),
            self.width
        );
        Mistake::row(record.line, message)
    }
}

/// Why a record cannot be read.
enum Unreadable {
    /// Its end is not there.
    Open(Mistake),
    /// Whatever follows, it is wrong.
    Wrong(Mistake),
}

impl Unreadable {
    fn into_mistake(self) -> Mistake {
        match self {
            Self::Open(mistake) | Self::Wrong(mistake) => mistake,
        }
    }
}

fn header(record: &Record<'_>) -> Result<Vec<String>, Mistake> {
    let mut names: Vec<String> = Vec::with_capacity(record.fields.len());
    for field in &record.fields {
        let Ok(name) = std::str::from_utf8(field) else {
            let message = "the header line is not UTF-8: is this the right file and format?";
            return Err(Mistake::row(record.line, message));
        };
        // Spreadsheets leave columns without a name and without a cell at the end.
        if !name.is_empty() && names.iter().any(|other| other == name) {
            let message = format!("two columns are called `{name}`: rename one");
            return Err(Mistake::row(record.line, message));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

impl<'a> Records<'a> {
    /// The next record; lines without any character are no records.
    fn next(&mut self) -> Option<Result<Record<'a>, Unreadable>> {
        loop {
            if let Some(rest) = strip_line_end(self.rest) {
                self.rest = rest;
                self.line += 1;
            } else if self.rest.is_empty() {
                return None;
            } else {
                return Some(match self.delimiter {
                    Delimiter::Tab => Ok(self.tabbed()),
                    Delimiter::Comma => self.quoted(),
                });
            }
        }
    }

    fn tabbed(&mut self) -> Record<'a> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let (line, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let fields = line.split(|byte| *byte == b'\t').map(Cow::Borrowed).collect();
        let record = Record { line: self.line, fields };
        self.rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        self.line += 1;
        record
    }

    fn quoted(&mut self) -> Result<Record<'a>, Unreadable> {
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            let field = match self.rest.strip_prefix(b"\"") {
                Some(rest) => {
                    self.rest = rest;
                    self.quoted_field()?
                }
                None => Cow::Borrowed(self.plain_field()),
            };
            fields.push(field);
            if let Some(rest) = self.rest.strip_prefix(b",") {
                self.rest = rest;
            } else {
                self.rest = strip_line_end(self.rest).unwrap_or(self.rest);
                self.line += 1;
                return Ok(Record { line, fields });
            }
        }
    }

    /// Up to a comma or the end of the line; a quote inside is an ordinary character.
    fn plain_field(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| matches!(byte, b',' | b'\n'));
        let end = end.unwrap_or(self.rest.len());
        let (mut field, mut rest) = self.rest.split_at(end);
        if rest.first() == Some(&b'\n') && field.ends_with(b"\r") {
            (field, rest) = self.rest.split_at(end - 1);
        } else if rest.is_empty() {
            field = field.strip_suffix(b"\r").unwrap_or(field);
        }
        self.rest = rest;
        field
    }

    /// Behind the opening quote, up to the closing one; two quotes stand for one.
    fn quoted_field(&mut self) -> Result<Cow<'a, [u8]>, Unreadable> {
        let opened = self.line;
        let mut field: Cow<'a, [u8]> = Cow::Borrowed(&[]);
        loop {
            let Some(end) = self.rest.iter().position(|byte| *byte == b'"') else {
                let message = "a quote is opened here and never closed: close it or double it";
                return Err(Unreadable::Open(Mistake::row(opened, message)));
            };
            let (piece, rest) = self.rest.split_at(end);
            self.line += piece.split(|byte| *byte == b'\n').skip(1).count() as u64;
            if field.is_empty() {
                field = Cow::Borrowed(piece);
            } else {
                field.to_mut().extend_from_slice(piece);
            }
            self.rest = rest.get(1..).unwrap_or_default();
            match self.rest.strip_prefix(b"\"") {
                Some(rest) => {
                    field.to_mut().push(b'"');
                    self.rest = rest;
                }
                None => break,
            }
        }
        let ends = self.rest.is_empty() || self.rest.starts_with(b",");
        if ends || strip_line_end(self.rest).is_some() {
            return Ok(field);
        }
        let message = "text stands behind a closing quote: double the quotes inside the field";
        Err(Unreadable::Wrong(Mistake::row(self.line, message)))
    }
}

fn strip_line_end(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n"))
}
