//! Comma separated (RFC 4180) and tab separated files.
//!
//! Stricter than most readers where leniency swallows rows: a quote that is never closed, text
//! behind a closing quote and a row with more or fewer fields than columns are refused, with the
//! line.

use std::borrow::Cow;

use muster_common::manifest::Delimiter;

use super::{Mistake, Row, Rows, Wanted, find_column, repair};

/// One record and the line, from 1, where it starts.
struct Record<'a> {
    line: u64,
    fields: Vec<Cow<'a, [u8]>>,
}

/// Cuts a file into records.
struct Records<'a> {
    rest: &'a [u8],
    line: u64,
    delimiter: Delimiter,
}

pub(super) fn read(
    body: &[u8],
    delimiter: Delimiter,
    columns: Option<&[String]>,
    wanted: Wanted<'_>,
    rows: &mut Rows,
) -> Result<(), Mistake> {
    let mut records = Records { rest: body, line: 1, delimiter };
    let columns = match columns {
        Some(columns) => columns.to_vec(),
        None => header(&mut records)?,
    };
    let text = find_column(&columns, wanted.text)?;
    let label = find_column(&columns, wanted.label)?;
    while let Some(record) = records.next().transpose()? {
        let (line, found) = (record.line, record.fields.len());
        let (Some(text), Some(label)) = (record.fields.get(text), record.fields.get(label)) else {
            return Err(wrong_width(line, found, columns.len()));
        };
        if found != columns.len() {
            return Err(wrong_width(line, found, columns.len()));
        }
        let text = repair(rows, line, text);
        let label = String::from_utf8_lossy(label).into_owned();
        rows.list.push(Row { at: line, text, label });
    }
    Ok(())
}

fn wrong_width(line: u64, found: usize, wanted: usize) -> Mistake {
    Mistake::row(
        line,
        format!(
            "{found} fields, but there are {wanted} columns: quote the field or remove the row"
        ),
    )
}

fn header(records: &mut Records<'_>) -> Result<Vec<String>, Mistake> {
    let Some(record) = records.next().transpose()? else {
        return Err(Mistake::file("the file is empty"));
    };
    let mut names: Vec<String> = Vec::with_capacity(record.fields.len());
    for field in &record.fields {
        let Ok(name) = std::str::from_utf8(field) else {
            let message = "the header line is not UTF-8: is this the right file and format?";
            return Err(Mistake::row(record.line, message));
        };
        if names.iter().any(|other| other == name) {
            let message = format!("two columns are called `{name}`: rename one");
            return Err(Mistake::row(record.line, message));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

impl<'a> Records<'a> {
    /// The next record; lines without any character are no records.
    fn next(&mut self) -> Option<Result<Record<'a>, Mistake>> {
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

    fn quoted(&mut self) -> Result<Record<'a>, Mistake> {
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
    fn quoted_field(&mut self) -> Result<Cow<'a, [u8]>, Mistake> {
        let opened = self.line;
        let mut field: Cow<'a, [u8]> = Cow::Borrowed(&[]);
        loop {
            let Some(end) = self.rest.iter().position(|byte| *byte == b'"') else {
                let message = "a quote is opened here and never closed: close it or double it";
                return Err(Mistake::row(opened, message));
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
        Err(Mistake::row(self.line, message))
    }
}

fn strip_line_end(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n"))
}
