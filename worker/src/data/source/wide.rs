//! Rows with all that stands in them, for whoever hands them on: of a file, or of a stream whose writer may be slow.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use muster_common::columnar::ParquetRows;
use muster_common::manifest::SourceFormat;
use serde_json::{Map, Value};

use super::columns::{as_text, damaged, is_text};
use super::delimited::Fields;
use super::files::{Compression, decompressed};
use super::json_lines::{next_object, string};
use super::lines::Lines;
use super::{Mistake, find_column};
use crate::data::DataError;

/// Column with the text, where nothing else is said.
const TEXT: &str = "text";
/// Column with the second text of a pair, where nothing else is said.
const PAIR: &str = "text_pair";

/// Which columns hold the texts. What is not asked for is looked for: the usual names, then `text` and `text_pair`, and
/// for the text the only column that there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextColumns {
    /// Column with the text that somebody has asked for.
    pub text: Option<String>,
    /// Column with the second text of a pair that somebody has asked for.
    pub pair: Option<String>,
    /// Where the text usually is.
    pub usual_text: Option<String>,
    /// Where the second text of a pair usually is.
    pub usual_pair: Option<String>,
}

/// One row.
#[derive(Debug, Clone)]
pub struct WideRow {
    /// Line or row number, from 1, header lines counted.
    pub at: u64,
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// All of the row, the texts included.
    pub rest: Rest,
}

/// What stands in a row.
#[derive(Debug, Clone)]
pub enum Rest {
    /// A text and nothing else.
    Nothing,
    /// Fields of a delimited file.
    Fields {
        /// Names of the columns.
        names: Arc<[String]>,
        /// One value for each.
        values: Vec<String>,
    },
    /// A JSON object.
    Object(Map<String, Value>),
    /// A row of a table.
    Cells {
        /// The table, or a part of it.
        batch: Arc<RecordBatch>,
        /// Which row.
        index: usize,
    },
}

/// Rows in the order of the file, up to the first mistake.
pub struct WideRows {
    reader: Reader,
    shown: String,
    failed: bool,
}

impl std::fmt::Debug for WideRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WideRows").field("shown", &self.shown).finish_non_exhaustive()
    }
}

enum Reader {
    Texts(Lines),
    Delimited { fields: Fields, names: Arc<[String]>, text: usize, pair: Option<usize> },
    Objects { lines: Lines, columns: TextColumns, text: Option<String> },
    Parquet(Box<Cells>),
}

struct Cells {
    batches: ParquetRows,
    text: String,
    pair: Option<String>,
    /// Whether somebody has asked for pairs: then none may be missing.
    pair_required: bool,
    batch: Option<Batch>,
    at: u64,
}

struct Batch {
    rows: Arc<RecordBatch>,
    text: StringArray,
    pair: Option<StringArray>,
    next: usize,
}

impl WideRows {
    /// Opens a file.
    pub fn of_file(
        path: &Path,
        format: &SourceFormat,
        columns: &TextColumns,
    ) -> Result<Self, DataError> {
        let shown = path.display().to_string();
        let file =
            File::open(path).map_err(|source| DataError::Read { path: shown.clone(), source })?;
        let compression = Compression::of(&shown);
        let reader = match format {
            SourceFormat::Parquet if compression.is_some() => {
                Err(Mistake::file("Parquet is compressed inside: decompress the file"))
            }
            SourceFormat::Parquet => {
                Cells::new(file, columns).map(|cells| Reader::Parquet(Box::new(cells)))
            }
            _ => decompressed(file, compression)
                .map_err(Mistake::from)
                .and_then(|reader| Reader::of(reader, format, columns, false)),
        };
        Self::of(reader, shown, !matches!(format, SourceFormat::Parquet))
    }

    /// Reads a stream that messages call `shown`. A row is there as soon as its line is.
    pub fn of_stream(
        stream: Box<dyn Read + Send>,
        shown: &str,
        format: &SourceFormat,
        columns: &TextColumns,
    ) -> Result<Self, DataError> {
        Self::of(Reader::of(stream, format, columns, true), shown.to_owned(), true)
    }

    fn of(reader: Result<Reader, Mistake>, shown: String, lines: bool) -> Result<Self, DataError> {
        let reader = reader.map_err(|mistake| mistake.of_file(&shown, lines))?;
        Ok(Self { reader, shown, failed: false })
    }

    /// Names and types of all columns, where the file says them before its rows.
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.reader {
            Reader::Delimited { names, .. } => Some(schema_of_names(names)),
            Reader::Parquet(cells) => Some(cells.batches.schema().clone()),
            Reader::Texts(_) | Reader::Objects { .. } => None,
        }
    }

    fn has_lines(&self) -> bool {
        !matches!(self.reader, Reader::Parquet(_))
    }
}

/// Columns of text without nulls.
pub(crate) fn schema_of_names(names: &[String]) -> SchemaRef {
    let field = |name: &String| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
}

impl Iterator for WideRows {
    type Item = Result<WideRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.reader.row().transpose();
        self.failed = !matches!(row, Some(Ok(_)));
        row.map(|row| row.map_err(|mistake| mistake.of_file(&self.shown, self.has_lines())))
    }
}

impl Reader {
    fn of(
        reader: Box<dyn Read + Send>,
        format: &SourceFormat,
        columns: &TextColumns,
        live: bool,
    ) -> Result<Self, Mistake> {
        match format {
            SourceFormat::Text if columns.text.is_some() || columns.pair.is_some() => {
                Err(Mistake::file("lines of text have no columns: is it another format?"))
            }
            SourceFormat::Text => Ok(Self::Texts(Lines::new(reader)?)),
            SourceFormat::JsonLines => {
                let lines = Lines::new(reader)?;
                Ok(Self::Objects { lines, columns: columns.clone(), text: None })
            }
            SourceFormat::Delimited { delimiter, .. } => {
                let (fields, names) = Fields::of_all(reader, *delimiter, live)?;
                let place = |name: &String| names.iter().position(|other| other == name);
                let text = columns.text_of(&names)?;
                let text = place(&text).unwrap_or_default();
                let pair = columns.pair_of(&names)?.as_ref().and_then(place);
                Ok(Self::Delimited { fields, names: names.into(), text, pair })
            }
            SourceFormat::Parquet => Err(Mistake::file(
                "Parquet ends with what it begins with: give a file, not a stream",
            )),
            _ => Err(Mistake::file("a folder cannot be read as a file")),
        }
    }

    fn row(&mut self) -> Result<Option<WideRow>, Mistake> {
        match self {
            Self::Texts(lines) => {
                let Some((at, line)) = lines.next()? else { return Ok(None) };
                let text = std::str::from_utf8(line).map_err(|_| Mistake::encoding(at))?;
                let text = text.to_owned();
                Ok(Some(WideRow { at, text, pair: None, rest: Rest::Nothing }))
            }
            Self::Delimited { fields, names, text, pair } => {
                let Some((at, values)) = fields.whole()? else { return Ok(None) };
                let value = |index: usize| values.get(index).cloned();
                let (text, pair) = (value(*text).unwrap_or_default(), pair.and_then(value));
                let rest = Rest::Fields { names: names.clone(), values };
                Ok(Some(WideRow { at, text, pair, rest }))
            }
            Self::Objects { lines, columns, text } => {
                let Some((at, object)) = next_object(lines)? else { return Ok(None) };
                if text.is_none() {
                    let keys: Vec<String> = object.keys().cloned().collect();
                    *text = Some(columns.text_of(&keys).map_err(|mistake| mistake.at(at))?);
                }
                let text = string(&object, text.as_deref().unwrap_or(TEXT), at)?;
                let pair = columns.pair_in(&object, at)?;
                Ok(Some(WideRow { at, text, pair, rest: Rest::Object(object) }))
            }
            Self::Parquet(cells) => cells.row(),
        }
    }
}

impl TextColumns {
    fn text_of(&self, names: &[String]) -> Result<String, Mistake> {
        if let Some(asked) = &self.text {
            return find_column(names, asked).map(|_| asked.clone());
        }
        let known = [self.usual_text.as_deref(), Some(TEXT)].into_iter().flatten();
        let known = known.chain(names.first().filter(|_| names.len() == 1).map(String::as_str));
        let found = known.into_iter().find(|known| names.iter().any(|name| name == known));
        found.map(str::to_owned).ok_or_else(|| match find_column(names, TEXT) {
            Err(Mistake::Refused { at, message }) => {
                Mistake::Refused { at, message: format!("{message}: say which with --text-column") }
            }
            _ => Mistake::file("the file has no columns"),
        })
    }

    fn pair_of(&self, names: &[String]) -> Result<Option<String>, Mistake> {
        if let Some(asked) = &self.pair {
            return find_column(names, asked).map(|_| Some(asked.clone()));
        }
        let known = [self.usual_pair.as_deref(), Some(PAIR)].into_iter().flatten();
        let mut known = known.filter(|known| self.text.as_deref() != Some(*known));
        let found = known.find(|known| names.iter().any(|name| name == known));
        Ok(found.map(str::to_owned))
    }

    /// Unless pairs are asked for, not every object has to be one.
    fn pair_in(&self, object: &Map<String, Value>, at: u64) -> Result<Option<String>, Mistake> {
        if let Some(asked) = &self.pair {
            return string(object, asked, at).map(Some);
        }
        let known = [self.usual_pair.as_deref(), Some(PAIR)].into_iter().flatten();
        let mut known = known.filter(|known| self.text.as_deref() != Some(*known));
        let found = known.find(|known| object.get(*known).is_some_and(|value| !value.is_null()));
        found.map(|found| string(object, found, at)).transpose()
    }
}

impl Cells {
    fn new(file: File, columns: &TextColumns) -> Result<Self, Mistake> {
        let num_bytes = file.metadata().map_err(Mistake::Io)?.len();
        let batches =
            ParquetRows::open(file, num_bytes, |_| true).map_err(|error| damaged(&error))?;
        let text = columns.text_of(batches.columns())?;
        let pair = columns.pair_of(batches.columns())?;
        let pair_required = columns.pair.is_some();
        Ok(Self { batches, text, pair, pair_required, batch: None, at: 0 })
    }

    fn row(&mut self) -> Result<Option<WideRow>, Mistake> {
        loop {
            if let Some(batch) = &mut self.batch
                && batch.next < batch.text.len()
            {
                self.at += 1;
                let index = batch.next;
                batch.next += 1;
                let missing =
                    |name: &str| Mistake::row(self.at, format!("`{name}` is null: remove the row"));
                if batch.text.is_null(index) {
                    return Err(missing(&self.text));
                }
                let pair = batch.pair.as_ref().filter(|pair| !pair.is_null(index));
                if let (None, true, Some(name)) = (pair, self.pair_required, &self.pair) {
                    return Err(missing(name));
                }
                return Ok(Some(WideRow {
                    at: self.at,
                    text: batch.text.value(index).to_owned(),
                    pair: pair.map(|pair| pair.value(index).to_owned()),
                    rest: Rest::Cells { batch: batch.rows.clone(), index },
                }));
            }
            let Some(batch) = self.batches.next() else { return Ok(None) };
            let batch = batch.map_err(|error| damaged(&error))?;
            let column = |name: &str| as_text(&batch, name, is_text);
            let text = column(&self.text)?;
            let pair = self.pair.as_deref().map(column).transpose()?;
            self.batch = Some(Batch { rows: Arc::new(batch), text, pair, next: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_common::manifest::Delimiter;

    use super::*;

    const COMMA: SourceFormat =
        SourceFormat::Delimited { delimiter: Delimiter::Comma, columns: None };

    fn read(
        contents: &[u8],
        format: &SourceFormat,
        columns: &TextColumns,
    ) -> Result<Vec<WideRow>, DataError> {
        let stream = Box::new(std::io::Cursor::new(contents.to_vec()));
        WideRows::of_stream(stream, "texts", format, columns)?.collect()
    }

    fn texts(rows: &[WideRow]) -> Vec<(&str, Option<&str>)> {
        rows.iter().map(|row| (row.text.as_str(), row.pair.as_deref())).collect()
    }

    fn asked(text: Option<&str>, pair: Option<&str>) -> TextColumns {
        let owned = |name: Option<&str>| name.map(str::to_owned);
        TextColumns { text: owned(text), pair: owned(pair), ..TextColumns::default() }
    }

    #[test]
    fn columns_are_those_asked_for_or_the_usual_ones() {
        let table = b"id,text,review,text_pair\n1,a,b,c\n";
        let usual = TextColumns { usual_text: Some("review".to_owned()), ..TextColumns::default() };
        for (columns, wanted) in [
            (TextColumns::default(), ("a", Some("c"))),
            (usual.clone(), ("b", Some("c"))),
            (asked(Some("id"), Some("text")), ("1", Some("a"))),
        ] {
            assert_eq!(texts(&read(table, &COMMA, &columns).unwrap()), [wanted]);
        }
        // What is usual need not be there, and one column leaves no choice.
        assert_eq!(texts(&read(b"s\n\"a,\nb\"\n", &COMMA, &usual).unwrap()), [("a,\nb", None)]);
        let error = read(b"id,body\n1,a\n", &COMMA, &usual).unwrap_err().to_string();
        let wanted = "texts: there is no column `text`; the columns are `id`, `body`";
        assert!(error.starts_with(wanted) && error.ends_with("--text-column"), "{error}");
        let error = read(table, &COMMA, &asked(Some("body"), None)).unwrap_err().to_string();
        assert!(error.contains("no column `body`; the columns are `id`, `text`"), "{error}");
    }

    #[test]
    fn objects_hold_texts_and_pairs() {
        let rows = read(
            b"\xef\xbb\xbf{\"text\": \"a\", \"label\": 1}\r\n\n  \n\
              {\"text\": \"b\", \"text_pair\": \"c\"}\n{\"text\": \"\", \"text_pair\": null}",
            &SourceFormat::JsonLines,
            &TextColumns::default(),
        );
        let rows = rows.unwrap();
        assert_eq!(texts(&rows), [("a", None), ("b", Some("c")), ("", None)]);
        assert_eq!(rows.iter().map(|row| row.at).collect::<Vec<_>>(), [1, 4, 5]);
        assert!(matches!(&rows[0].rest, Rest::Object(object) if object["label"] == 1));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let wrong: [&[u8]; 5] =
            [b"{\"txt\": 1}", b"{\"text\": 1}", b"text", b"{\"text\": \"\xff\"}", b"[1]"];
        for wrong in wrong {
            let contents = [b"{\"text\": \"a\"}\n\n", wrong, b"\n"].concat();
            let stream = Box::new(std::io::Cursor::new(contents));
            let columns = TextColumns::default();
            let rows = WideRows::of_stream(stream, "t", &SourceFormat::JsonLines, &columns);
            let rows: Vec<_> = rows.unwrap().collect();
            assert!(rows.len() == 2 && rows[0].is_ok());
            let error = rows[1].as_ref().unwrap_err().to_string();
            assert!(error.starts_with("t:3: "), "{error}");
        }
        let error = read(b"text,n\na,1\nb\n", &COMMA, &TextColumns::default()).unwrap_err();
        assert!(error.to_string().starts_with("texts:3: 1 field"), "{error}");
        let error = read(b"", &SourceFormat::Parquet, &TextColumns::default()).unwrap_err();
        assert!(error.to_string().contains("not a stream"), "{error}");
        let columns = asked(Some("a"), None);
        assert!(read(b"a\n", &SourceFormat::Text, &columns).is_err());
    }

    /// Gives one piece at a time, and fails the test if more is asked for than has to be.
    struct Slow(Vec<&'static [u8]>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert!(!self.0.is_empty(), "this would wait for ever");
            let piece = &mut self.0[0];
            let count = piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            *piece = &piece[count..];
            if piece.is_empty() {
                self.0.remove(0);
            }
            Ok(count)
        }
    }

    #[test]
    fn a_row_of_a_stream_is_there_when_its_line_is() {
        let lines: [(SourceFormat, Vec<&[u8]>); 3] = [
            (SourceFormat::Text, vec![b"a\n", b"b c\n"]),
            (COMMA, vec![b"te", b"xt,n\n", b"a,1\n", b"\"b c\"", b",2\n"]),
            (SourceFormat::JsonLines, vec![b"{\"text\": \"a\"}\n", b"{\"text\": \"b c\"}\n"]),
        ];
        for (format, pieces) in lines {
            let columns = TextColumns::default();
            let stream = Box::new(Slow(pieces));
            let mut rows = WideRows::of_stream(stream, "-", &format, &columns).unwrap();
            let found: Vec<WideRow> = rows.by_ref().take(2).map(Result::unwrap).collect();
            assert_eq!(texts(&found), [("a", None), ("b c", None)]);
        }
    }
}
