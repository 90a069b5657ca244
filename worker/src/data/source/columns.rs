//! Apache Parquet.

use std::fs::File;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use muster_common::columnar::{ColumnarError, ParquetRows};

use super::{Mistake, Row, Wanted, find_column};

/// Rows of a Parquet file; one batch of them is in memory.
pub(super) struct Table {
    batches: ParquetRows,
    wanted: Wanted,
    batch: Option<Batch>,
    at: u64,
    failed: bool,
}

/// Columns of one batch as text, and the next row.
struct Batch {
    text: StringArray,
    pair: Option<StringArray>,
    label: Option<StringArray>,
    next: usize,
}

pub(super) fn damaged(error: &ColumnarError) -> Mistake {
    Mistake::file(error.to_string())
}

impl Table {
    pub(super) fn new(file: File, wanted: &Wanted) -> Result<Self, Mistake> {
        let num_bytes = file.metadata().map_err(Mistake::Io)?.len();
        let is_wanted = |name: &str| wanted.names().any(|wanted| wanted == name);
        let batches =
            ParquetRows::open(file, num_bytes, is_wanted).map_err(|error| damaged(&error))?;
        for name in wanted.names() {
            find_column(batches.columns(), name)?;
        }
        Ok(Self { batches, wanted: wanted.clone(), batch: None, at: 0, failed: false })
    }

    fn row(&mut self) -> Result<Option<Row>, Mistake> {
        loop {
            if let Some(batch) = &mut self.batch
                && batch.next < batch.text.len()
            {
                self.at += 1;
                return batch.row(self.at, &self.wanted).map(Some);
            }
            let Some(batch) = self.batches.next() else { return Ok(None) };
            let batch = batch.map_err(|error| damaged(&error))?;
            self.batch = Some(Batch::new(&batch, &self.wanted)?);
        }
    }
}

impl Iterator for Table {
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

impl Batch {
    fn new(batch: &RecordBatch, wanted: &Wanted) -> Result<Self, Mistake> {
        let text = |name: &str| as_text(batch, name, is_text);
        let label = |name: &str| as_text(batch, name, |kind| is_text(kind) || is_scalar(kind));
        Ok(Self {
            text: text(&wanted.text)?,
            pair: wanted.pair.as_deref().map(text).transpose()?,
            label: wanted.label.as_deref().map(label).transpose()?,
            next: 0,
        })
    }

    fn row(&mut self, at: u64, wanted: &Wanted) -> Result<Row, Mistake> {
        let index = self.next;
        self.next += 1;
        let value = |column: &StringArray, name: &str| {
            if column.is_null(index) {
                return Err(Mistake::row(at, format!("`{name}` is null or NaN: remove the row")));
            }
            Ok(column.value(index).to_owned())
        };
        let optional = |column: &Option<StringArray>, name: &Option<String>| {
            let both = column.as_ref().zip(name.as_deref());
            both.map(|(column, name)| value(column, name)).transpose()
        };
        Ok(Row {
            at,
            text: value(&self.text, &wanted.text)?,
            pair: optional(&self.pair, &wanted.pair)?,
            label: optional(&self.label, &wanted.label)?,
            repaired: false,
        })
    }
}

pub(super) fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

fn is_scalar(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_floating() || *kind == DataType::Boolean
}

pub(super) fn as_text(
    batch: &RecordBatch,
    name: &str,
    legal: impl Fn(&DataType) -> bool,
) -> Result<StringArray, Mistake> {
    let missing = || Mistake::file(format!("column `{name}` cannot be read as text"));
    let column = batch.column_by_name(name).ok_or_else(missing)?;
    if !legal(column.data_type()) {
        let kind = column.data_type();
        return Err(Mistake::file(format!(
            "column `{name}` has type {kind}, which holds no such thing"
        )));
    }
    let text = cast(column, &DataType::Utf8).map_err(|error| Mistake::file(error.to_string()))?;
    let text = text.as_any().downcast_ref::<StringArray>().cloned().ok_or_else(missing)?;
    if column.data_type().is_floating() {
        // What data frames write for a number that is missing, and no class.
        return Ok(text.iter().map(|number| number.filter(|number| *number != "NaN")).collect());
    }
    Ok(text)
}
