//! Tokenized examples on their way to the cache: columns in files without names, so that no split
//! has to fit into memory and nothing is left behind when the process ends.

use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::DataError;
use super::tokenize::Sequence;

/// A split that is being written.
#[derive(Debug)]
pub(super) struct SplitSpill {
    folder: PathBuf,
    tokens: BufWriter<File>,
    offsets: BufWriter<File>,
    labels: BufWriter<File>,
    /// Lengths of the first segments, of pairs only.
    first_segments: Option<BufWriter<File>>,
    num_examples: u64,
    num_tokens: u64,
}

/// A split that is written.
#[derive(Debug)]
pub(super) struct SplitFiles {
    pub(super) num_examples: u64,
    pub(super) num_tokens: u64,
    columns: Vec<Column>,
}

/// Numbers or bytes in a file without a name, from its beginning.
#[derive(Debug)]
pub(super) struct Column {
    name: &'static str,
    kind: &'static str,
    width: u64,
    len: u64,
    file: File,
}

impl Column {
    /// So many bytes of a file.
    pub(super) fn of_bytes(name: &'static str, len: u64, file: File) -> Self {
        Self { name, kind: "U8", width: 1, len, file }
    }

    /// 32-bit numbers, in a file below `folder`.
    pub(super) fn of_u32s(
        name: &'static str,
        numbers: impl Iterator<Item = u32>,
        folder: &Path,
    ) -> Result<Self, DataError> {
        let (file, len) = written(numbers.map(u32::to_le_bytes), folder)?;
        Ok(Self { name, kind: "U32", width: 4, len, file })
    }

    /// The 64-bit numbers that a file holds.
    pub(super) fn of_u64_file(name: &'static str, len: u64, file: File) -> Self {
        Self { name, kind: "U64", width: 8, len, file }
    }

    /// The 32-bit numbers that a file holds.
    pub(super) fn of_u32_file(name: &'static str, len: u64, file: File) -> Self {
        Self { name, kind: "U32", width: 4, len, file }
    }

    /// Where it is.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

fn written<const N: usize>(
    numbers: impl Iterator<Item = [u8; N]>,
    folder: &Path,
) -> Result<(File, u64), DataError> {
    let write = || {
        let mut file = BufWriter::new(tempfile::tempfile_in(folder)?);
        let mut len = 0;
        for number in numbers {
            file.write_all(&number)?;
            len += 1;
        }
        Ok((file.into_inner().map_err(io::IntoInnerError::into_error)?, len))
    };
    write().map_err(|error| failed(folder, error))
}

impl SplitSpill {
    /// An empty split in files below `folder`; `pairs` have segments.
    pub(super) fn new(folder: &Path, pairs: bool) -> Result<Self, DataError> {
        let open = || tempfile::tempfile_in(folder).map(BufWriter::new);
        let new = || {
            let mut offsets = open()?;
            offsets.write_all(&0u64.to_le_bytes())?;
            Ok(Self {
                folder: folder.to_owned(),
                tokens: open()?,
                offsets,
                labels: open()?,
                first_segments: pairs.then(open).transpose()?,
                num_examples: 0,
                num_tokens: 0,
            })
        };
        new().map_err(|error| failed(folder, error))
    }

    /// Adds an example.
    pub(super) fn push(&mut self, sequence: &Sequence, label: u32) -> Result<(), DataError> {
        let written = self.write(sequence, label);
        written.map_err(|error| failed(&self.folder, error))
    }

    fn write(&mut self, sequence: &Sequence, label: u32) -> io::Result<()> {
        for id in &sequence.ids {
            self.tokens.write_all(&id.to_le_bytes())?;
        }
        self.num_tokens += sequence.ids.len() as u64;
        self.num_examples += 1;
        self.offsets.write_all(&self.num_tokens.to_le_bytes())?;
        self.labels.write_all(&label.to_le_bytes())?;
        if let Some(first_segments) = &mut self.first_segments {
            let first = u32::try_from(sequence.first_segment).unwrap_or(u32::MAX);
            first_segments.write_all(&first.to_le_bytes())?;
        }
        Ok(())
    }

    /// Closes the files.
    pub(super) fn finish(self) -> Result<SplitFiles, DataError> {
        let Self { folder, num_examples, num_tokens, .. } = self;
        let examples = Some(("labels", self.labels, num_examples));
        let firsts = self.first_segments.map(|file| ("first_segments", file, num_examples));
        let mut columns = Vec::new();
        let close = |name, kind, width, len, file: BufWriter<File>| {
            let file = file.into_inner().map_err(|error| failed(&folder, error.into_error()))?;
            Ok::<_, DataError>(Column { name, kind, width, len, file })
        };
        columns.push(close("offsets", "U64", 8, num_examples + 1, self.offsets)?);
        columns.push(close("tokens", "U32", 4, num_tokens, self.tokens)?);
        for (name, file, len) in [examples, firsts].into_iter().flatten() {
            columns.push(close(name, "U32", 4, len, file)?);
        }
        Ok(SplitFiles { num_examples, num_tokens, columns })
    }
}

/// An error of a file below `folder`.
pub(super) fn failed(folder: &Path, source: io::Error) -> DataError {
    DataError::Spill { folder: folder.display().to_string(), source }
}

/// Columns as one object in the format safetensors: they are called `GROUP.COLUMN`, those of 64-bit
/// numbers stand first, so that every number lies at a multiple of its size.
pub(super) struct Assembly<'a> {
    header: Vec<u8>,
    columns: Vec<&'a Column>,
}

impl<'a> Assembly<'a> {
    /// All columns of splits, each with the name of its split.
    pub(super) fn new(splits: &'a [(&'static str, SplitFiles)]) -> Self {
        let columns = |(split, files): &'a (&'static str, SplitFiles)| {
            files.columns.iter().map(move |column| (*split, column))
        };
        Self::of_columns(splits.iter().flat_map(columns))
    }

    /// These columns, each with the name of its group.
    pub(super) fn of_columns(columns: impl Iterator<Item = (&'static str, &'a Column)>) -> Self {
        let named =
            |(group, column): (&str, &'a Column)| (format!("{group}.{}", column.name), column);
        let mut columns: Vec<(String, &Column)> = columns.map(named).collect();
        columns.sort_by_key(|(_, column)| std::cmp::Reverse(column.width));
        let mut header = Map::new();
        let mut end = 0;
        for (name, column) in &columns {
            let start = end;
            end += column.width * column.len;
            let place = json!({
                "dtype": column.kind, "shape": [column.len], "data_offsets": [start, end],
            });
            header.insert(name.clone(), place);
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let header = [(text.len() as u64).to_le_bytes().as_slice(), &text].concat();
        Self { header, columns: columns.into_iter().map(|(_, column)| column).collect() }
    }

    /// Bytes of the object.
    pub(super) fn num_bytes(&self) -> u64 {
        let columns = self.columns.iter().map(|column| column.width * column.len);
        self.header.len() as u64 + columns.sum::<u64>()
    }

    /// The object from its beginning. One reader at a time: they share the files' positions.
    pub(super) fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        let mut reader: Box<dyn Read + Send> = Box::new(Cursor::new(self.header.clone()));
        for column in &self.columns {
            let mut file = column.file.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            reader = Box::new(reader.chain(file));
        }
        Ok(reader)
    }
}
