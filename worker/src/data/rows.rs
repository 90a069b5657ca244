//! The rows that stay, in the splits they belong to, with their texts: written while the files are
//! read, and read again in any order. With these, tokenization can begin anywhere; when all is
//! tokenized they are of no more use.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use super::DataError;
use super::columns::{Number, Numbers};
use super::source::{Role, Row};
use super::spill::{Column, failed};
use super::split::Fate;
use super::tokenize::Input;
use crate::ffi::MappedFile;

/// Names of the splits in the cache, in the order of roles.
pub(super) const SPLITS: [(Role, &str); 3] =
    [(Role::Train, "train"), (Role::Validation, "validation"), (Role::Test, "test")];

/// Group of the columns that all splits share.
const ALL: &str = "rows";

/// Texts on their way to files without names.
#[derive(Debug)]
pub(super) struct TextSpill {
    folder: PathBuf,
    texts: BufWriter<File>,
    /// Where the text of each row ends; a row without text takes no room.
    ends: BufWriter<File>,
    /// Bytes of the first text of each row, of pairs only.
    firsts: Option<BufWriter<File>>,
    num_rows: u64,
    num_bytes: u64,
}

impl TextSpill {
    /// No texts, in files below `folder`; `pairs` have two each.
    pub(super) fn new(folder: &Path, pairs: bool) -> Result<Self, DataError> {
        let open = || tempfile::tempfile_in(folder).map(BufWriter::new);
        let open = || open().map_err(|error| failed(folder, error));
        Ok(Self {
            folder: folder.to_owned(),
            texts: open()?,
            ends: open()?,
            firsts: pairs.then(open).transpose()?,
            num_rows: 0,
            num_bytes: 0,
        })
    }

    /// The next row; `None` for one whose text is of no use.
    pub(super) fn push(&mut self, row: Option<&Row>) -> Result<(), DataError> {
        let text = row.map_or("", |row| &row.text);
        let pair = row.and_then(|row| row.pair.as_deref()).unwrap_or_default();
        let too_long = |_| DataError::refused("data", "a text of more than 4 GiB");
        let first = u32::try_from(text.len()).map_err(too_long)?;
        self.num_rows += 1;
        self.num_bytes += text.len() as u64 + pair.len() as u64;
        let mut write = || {
            self.texts.write_all(text.as_bytes())?;
            self.ends.write_all(&self.num_bytes.to_le_bytes())?;
            if let Some(firsts) = &mut self.firsts {
                self.texts.write_all(pair.as_bytes())?;
                firsts.write_all(&first.to_le_bytes())?;
            }
            Ok(())
        };
        write().map_err(|error| failed(&self.folder, error))
    }

    /// The rows, divided.
    pub(super) fn finish(self, classes: &[u32], fates: &[Fate]) -> Result<Rows, DataError> {
        let Self { folder, texts, ends, firsts, num_rows, num_bytes } = self;
        let close = |file: BufWriter<File>| {
            file.into_inner().map_err(|error| failed(&folder, error.into_error()))
        };
        let texts = close(texts)?;
        let copy = texts.try_clone().map_err(|error| failed(&folder, error))?;
        let mut columns = vec![
            (ALL, Column::of_u64_file("ends", num_rows, close(ends)?)),
            (ALL, Column::of_bytes("texts", num_bytes, copy)),
        ];
        let ends = mapped(&columns, &folder)?;
        let firsts = firsts.map(|firsts| {
            columns.push((ALL, Column::of_u32_file("firsts", num_rows, close(firsts)?)));
            mapped_last(&columns, &folder)
        });
        let firsts = firsts.transpose()?;
        let mut part = |(role, name)| {
            let of_role = || (0u32..).zip(fates).filter(move |(_, fate)| **fate == Fate::In(role));
            let numbers = of_role().map(|(row, _)| row);
            columns.push((name, Column::of_u32s("rows", numbers, &folder)?));
            let numbers = mapped_last(&columns, &folder)?;
            let class = |row: u32| classes.get(row as usize).copied().unwrap_or(0);
            let labels = of_role().map(|(row, _)| class(row));
            columns.push((name, Column::of_u32s("labels", labels, &folder)?));
            Ok::<_, DataError>(Part { numbers, labels: mapped_last(&columns, &folder)? })
        };
        let [train, validation, test] = SPLITS;
        let parts = [part(train)?, part(validation)?, part(test)?];
        Ok(Rows { folder, texts, start: 0, ends, firsts, parts, columns })
    }
}

/// The first of these columns.
fn mapped<T: Number>(
    columns: &[(&'static str, Column)],
    folder: &Path,
) -> Result<Numbers<T>, DataError> {
    let numbers = columns.first().map(|(_, column)| Numbers::of_file(column.file()));
    numbers.unwrap_or_else(|| Ok(Numbers::Owned(Vec::new()))).map_err(|error| failed(folder, error))
}

/// The last of these columns.
fn mapped_last(
    columns: &[(&'static str, Column)],
    folder: &Path,
) -> Result<Numbers<u32>, DataError> {
    mapped(columns.last().map_or(&[], std::slice::from_ref), folder)
}

/// The rows of one split.
#[derive(Debug)]
struct Part {
    /// Number of each among all rows, rising.
    numbers: Numbers<u32>,
    /// Class of each.
    labels: Numbers<u32>,
}

/// All rows that stay.
#[derive(Debug)]
pub(super) struct Rows {
    /// Where the file is, for messages.
    folder: PathBuf,
    texts: File,
    /// Where the texts begin in the file.
    start: u64,
    ends: Numbers<u64>,
    firsts: Option<Numbers<u32>>,
    parts: [Part; 3],
    /// What is to be written of rows that were just read, each with the name of its group.
    columns: Vec<(&'static str, Column)>,
}

/// The text or the two texts of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowText {
    pub(super) text: String,
    pub(super) pair: Option<String>,
}

impl RowText {
    /// As the tokenizer takes it.
    pub(super) fn input(&self) -> Input<'_> {
        Input { text: &self.text, pair: self.pair.as_deref() }
    }
}

impl Rows {
    /// From an object that [`Rows::columns`] made, in `file`, which is mapped as `mapped`. The error
    /// says what is wrong with it.
    pub(super) fn open(
        file: File,
        mapped: &Arc<MappedFile>,
        folder: &Path,
        num_classes: usize,
    ) -> Result<Self, String> {
        let read = SafeTensors::read_metadata(mapped.bytes());
        let (header_bytes, metadata) = read.map_err(|error| error.to_string())?;
        let texts_name = format!("{ALL}.texts");
        let texts = metadata.info(&texts_name).ok_or("there are no texts")?;
        if texts.dtype != Dtype::U8 {
            return Err("type of the texts".to_owned());
        }
        let (start, end) = texts.data_offsets;
        let ends = Numbers::mapped(mapped, &format!("{ALL}.ends"))?;
        let firsts_name = format!("{ALL}.firsts");
        let pairs = metadata.tensors().contains_key(&firsts_name);
        let firsts = pairs.then(|| Numbers::mapped(mapped, &firsts_name)).transpose()?;
        let part = |name: &str| {
            let numbers = Numbers::mapped(mapped, &format!("{name}.rows"))?;
            let labels = Numbers::mapped(mapped, &format!("{name}.labels"))?;
            Ok::<_, String>(Part { numbers, labels })
        };
        let [(_, train), (_, validation), (_, test)] = SPLITS;
        let parts = [part(train)?, part(validation)?, part(test)?];
        // The header's own length stands before it, in 8 bytes.
        let start_in_file = (start + header_bytes + 8) as u64;
        let folder = folder.to_owned();
        let rows = Self {
            folder,
            texts: file,
            start: start_in_file,
            ends,
            firsts,
            parts,
            columns: Vec::new(),
        };
        if rows.check((end - start) as u64, num_classes) {
            return Ok(rows);
        }
        Err("the rows contradict themselves".to_owned())
    }

    fn check(&self, num_bytes: u64, num_classes: usize) -> bool {
        let ends = self.ends.all();
        let fits = |part: &Part| {
            let (numbers, labels) = (part.numbers.all(), part.labels.all());
            let rises = numbers.windows(2).all(|pair| pair[0] < pair[1]);
            let known = numbers.last().is_none_or(|last| (*last as usize) < ends.len());
            let is_class = |label: &u32| (*label as usize) < num_classes;
            rises && known && numbers.len() == labels.len() && labels.iter().all(is_class)
        };
        let firsts = self.firsts.as_ref().is_none_or(|firsts| firsts.all().len() == ends.len());
        let whole = ends.last().copied().unwrap_or(0) == num_bytes;
        ends.is_sorted() && whole && firsts && self.parts.iter().all(fits)
    }

    fn part(&self, role: Role) -> &Part {
        let [train, validation, test] = &self.parts;
        match role {
            Role::Train => train,
            Role::Validation => validation,
            Role::Test => test,
        }
    }

    /// Rows of a split.
    pub(super) fn len(&self, role: Role) -> usize {
        self.part(role).numbers.all().len()
    }

    /// Number of each row of a split among all rows, rising.
    pub(super) fn numbers(&self, role: Role) -> &[u32] {
        self.part(role).numbers.all()
    }

    /// Classes of the rows of a split.
    pub(super) fn labels(&self, role: Role) -> &[u32] {
        self.part(role).labels.all()
    }

    /// Whether rows have two texts.
    pub(super) fn has_pairs(&self) -> bool {
        self.firsts.is_some()
    }

    /// Where the texts of row `number`, counted over all splits, lie.
    fn place(&self, number: u32) -> (u64, u64) {
        let (ends, number) = (self.ends.all(), number as usize);
        let start = number.checked_sub(1).and_then(|before| ends.get(before));
        let start = start.copied().unwrap_or(0);
        (start, ends.get(number).copied().unwrap_or(start))
    }

    /// Bytes of text of the row at `index` of a split.
    pub(super) fn num_bytes(&self, role: Role, index: usize) -> usize {
        let number = self.part(role).numbers.all().get(index).copied();
        let (start, end) = number.map_or((0, 0), |number| self.place(number));
        usize::try_from(end - start).unwrap_or(usize::MAX)
    }

    /// Texts of the rows at `indices` of a split, which must be below [`Rows::len`]. Not through the
    /// mapping: what is looked at once should not count as memory in use.
    pub(super) fn texts(&self, role: Role, indices: &[u32]) -> Result<Vec<RowText>, DataError> {
        let numbers = self.part(role).numbers.all();
        let number = |index: &u32| numbers.get(*index as usize).copied().unwrap_or(u32::MAX);
        let numbers: Vec<u32> = indices.iter().map(number).collect();
        let mut texts = Vec::with_capacity(numbers.len());
        let mut bytes = Vec::new();
        // Rows that lie one behind the other are read together.
        for run in numbers.chunk_by(|row, next| row.checked_add(1) == Some(*next)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let (start, end) = (self.place(*first).0, self.place(*last).1);
            bytes.resize(usize::try_from(end - start).unwrap_or(usize::MAX), 0);
            let read = self.texts.read_exact_at(&mut bytes, self.start + start);
            read.map_err(|error| failed(&self.folder, error))?;
            for row in run {
                let (from, to) = self.place(*row);
                let range = |place: u64| usize::try_from(place - start).unwrap_or(usize::MAX);
                let row_bytes = bytes.get(range(from)..range(to)).unwrap_or_default();
                texts.push(self.text(*row, row_bytes)?);
            }
        }
        Ok(texts)
    }

    fn text(&self, row: u32, bytes: &[u8]) -> Result<RowText, DataError> {
        let firsts = self.firsts.as_ref().map(|firsts| firsts.all().get(row as usize).copied());
        let (text, pair) = match firsts {
            None => (bytes, None),
            Some(first) => {
                let split = bytes.split_at_checked(first.unwrap_or(u32::MAX) as usize);
                let (text, pair) = split.ok_or_else(|| self.damaged(row))?;
                (text, Some(pair))
            }
        };
        let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| self.damaged(row));
        Ok(RowText { text: utf8(text)?, pair: pair.map(utf8).transpose()? })
    }

    fn damaged(&self, row: u32) -> DataError {
        failed(&self.folder, std::io::Error::other(format!("row {row} came back damaged")))
    }

    /// Columns to write, each with the name of its group; none of rows that come from an object.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&'static str, &Column)> {
        self.columns.iter().map(|(group, column)| (*group, column))
    }
}

#[cfg(test)]
mod tests {
    use super::super::spill::Assembly;
    use super::*;

    fn row(text: &str, pair: Option<&str>) -> Row {
        let pair = pair.map(str::to_owned);
        Row { at: 1, text: text.to_owned(), pair, label: None, repaired: false }
    }

    /// Rows of six, of which the third has no class and the fifth is left out.
    fn rows(folder: &Path, pairs: bool) -> Rows {
        let mut spill = TextSpill::new(folder, pairs).unwrap();
        for (number, text) in ["zéro", "one", "", "three", "four", "five"].into_iter().enumerate()
        {
            let written = row(text, pairs.then_some("p\u{20ac}"));
            spill.push((number != 2).then_some(&written)).unwrap();
        }
        let train = Fate::In(Role::Train);
        let fates = [train, train, Fate::Out, Fate::In(Role::Test), Fate::Out, train];
        spill.finish(&[0, 1, u32::MAX, 1, 0, 1], &fates).unwrap()
    }

    fn texts(rows: &Rows, role: Role, indices: &[u32]) -> Vec<String> {
        let texts = rows.texts(role, indices).unwrap();
        texts.into_iter().map(|row| row.text + row.pair.as_deref().unwrap_or_default()).collect()
    }

    #[test]
    fn rows_come_back_in_any_order_from_the_spill_and_from_an_object() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path();
        for (pairs, suffix) in [(false, ""), (true, "p\u{20ac}")] {
            let spilled = rows(folder, pairs);
            let assembly = Assembly::of_columns(spilled.columns());
            let mut file = tempfile::tempfile_in(folder).unwrap();
            std::io::copy(&mut assembly.reader().unwrap(), &mut file).unwrap();
            let mapped = Arc::new(MappedFile::open(&file).unwrap());
            let copy = file.try_clone().unwrap();
            assert!(Rows::open(copy, &mapped, folder, 1).is_err(), "class 1 of one class");
            let opened = Rows::open(file, &mapped, folder, 2).unwrap();
            for rows in [&spilled, &opened] {
                assert_eq!(rows.has_pairs(), pairs);
                assert_eq!(
                    texts(rows, Role::Train, &[2, 0, 1, 0]),
                    ["five", "zéro", "one", "zéro"].map(|text| format!("{text}{suffix}"))
                );
                assert_eq!(texts(rows, Role::Test, &[0]), [format!("three{suffix}")]);
                assert_eq!(rows.labels(Role::Train), [0, 1, 1]);
                assert_eq!((rows.len(Role::Validation), rows.len(Role::Test)), (0, 1));
                assert_eq!(rows.num_bytes(Role::Train, 0), "zéro".len() + suffix.len());
            }
        }
    }
}
