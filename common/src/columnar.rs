//! Reading Parquet that nobody has vouched for. The reader underneath trusts a file's own words:
//! where a damaged file contradicts itself, it may panic. Here every such file is an error.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::ChunkReader;

use crate::count::counted;

/// Why the bytes are not a Parquet file that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ColumnarError {
    /// The format's own reader refuses them.
    #[error("not readable as Parquet: {0}")]
    Parquet(ParquetError),
    /// The file contradicts itself.
    #[error("damaged Parquet: {reason}")]
    Damaged {
        /// What does not fit.
        reason: String,
    },
}

impl From<ParquetError> for ColumnarError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<arrow::error::ArrowError> for ColumnarError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Parquet(error.into())
    }
}

/// A Parquet file in memory.
#[derive(Debug)]
pub struct Table {
    /// Names of all top-level columns of the file, in its order, those not read included.
    pub columns: Vec<String>,
    /// The file's key-value metadata.
    pub metadata: BTreeMap<String, String>,
    /// The rows, in order, of the columns that were asked for.
    pub batches: Vec<RecordBatch>,
}

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside the reader of Parquet files, where a panic only means a damaged file. A panic
/// hook that ends the process must leave such a panic alone.
pub fn is_contained() -> bool {
    CONTAINED.get()
}

/// Reads the top-level columns for which `wanted` holds, all rows.
pub fn read_parquet(bytes: Bytes, wanted: impl Fn(&str) -> bool) -> Result<Table, ColumnarError> {
    let num_bytes = bytes.len() as u64;
    let mut rows = ParquetRows::open(bytes, num_bytes, wanted)?;
    let batches = rows.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok(Table { columns: rows.columns, metadata: rows.metadata, batches })
}

/// The rows of a Parquet file, one batch after the other, so that a file may be larger than memory.
pub struct ParquetRows {
    columns: Vec<String>,
    schema: SchemaRef,
    metadata: BTreeMap<String, String>,
    reader: ParquetRecordBatchReader,
    num_rows: u64,
    num_read: u64,
    ended: bool,
}

impl fmt::Debug for ParquetRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParquetRows").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl ParquetRows {
    /// Opens a file of `num_bytes` bytes and chooses its top-level columns for which `wanted` holds.
    pub fn open(
        file: impl ChunkReader + 'static,
        num_bytes: u64,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self, ColumnarError> {
        contained(|| open(file, num_bytes, &wanted))
    }

    /// Names of all top-level columns of the file, in its order, those not read included.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Names and types of the columns that are read.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for ParquetRows {
    type Item = Result<RecordBatch, ColumnarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = contained(|| self.reader.next().transpose().map_err(ColumnarError::from));
        let read = match next {
            Ok(Some(batch)) => {
                self.num_read += batch.num_rows() as u64;
                return Some(Ok(batch));
            }
            Ok(None) => self.num_read,
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        };
        self.ended = true;
        let reason = format!("{} instead of {}", counted(read, "row"), self.num_rows);
        (read != self.num_rows).then_some(Err(ColumnarError::Damaged { reason }))
    }
}

/// Turns a panic of the reader underneath into an error.
fn contained<T>(work: impl FnOnce() -> Result<T, ColumnarError>) -> Result<T, ColumnarError> {
    let before = CONTAINED.replace(true);
    // What the closure shares is not used again after an error.
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    result.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = said.unwrap_or("the file contradicts itself").to_owned();
        Err(ColumnarError::Damaged { reason })
    })
}

fn open(
    file: impl ChunkReader + 'static,
    num_bytes: u64,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<ParquetRows, ColumnarError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let num_rows = check_footer(builder.metadata(), num_bytes)?;
    let entries = builder.metadata().file_metadata().key_value_metadata();
    let metadata = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some((entry.key.clone(), entry.value.clone()?)))
        .collect();
    let columns: Vec<String> =
        builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let chosen = columns.iter().enumerate().filter(|(_, name)| wanted(name)).map(|(i, _)| i);
    let mask = ProjectionMask::roots(builder.parquet_schema(), chosen);
    let reader = builder.with_projection(mask).build()?;
    let schema = reader.schema();
    Ok(ParquetRows { columns, schema, metadata, reader, num_rows, num_read: 0, ended: false })
}

/// Rows of the file, after a check that all it names lies within it.
fn check_footer(metadata: &ParquetMetaData, num_bytes: u64) -> Result<u64, ColumnarError> {
    let damaged = |reason: &str| ColumnarError::Damaged { reason: reason.to_owned() };
    let mut num_rows: i64 = 0;
    for group in metadata.row_groups() {
        if group.num_rows() < 0 {
            return Err(damaged("a row group has less than no rows"));
        }
        num_rows = num_rows.saturating_add(group.num_rows());
        if !group.columns().iter().all(|column| lies_within(column, num_bytes)) {
            return Err(damaged("a column lies outside the file"));
        }
    }
    if num_rows != metadata.file_metadata().num_rows() {
        return Err(damaged("the row groups do not add up to the rows of the file"));
    }
    u64::try_from(num_rows).map_err(|_| damaged("the file has less than no rows"))
}

fn lies_within(column: &ColumnChunkMetaData, num_bytes: u64) -> bool {
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let length = column.compressed_size();
    let end = start.checked_add(length).and_then(|end| u64::try_from(end).ok());
    start >= 0 && length >= 0 && column.num_values() >= 0 && end.is_some_and(|end| end <= num_bytes)
}
