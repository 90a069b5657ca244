//! Apache Parquet.

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use muster_common::columnar::read_parquet;

use super::{Mistake, Row, Rows, Wanted, find_column};

pub(super) fn read(bytes: Bytes, wanted: Wanted<'_>, rows: &mut Rows) -> Result<(), Mistake> {
    let table = read_parquet(bytes, |name| name == wanted.text || name == wanted.label)
        .map_err(|error| Mistake::file(error.to_string()))?;
    find_column(&table.columns, wanted.text)?;
    find_column(&table.columns, wanted.label)?;
    let mut at = 0;
    for batch in &table.batches {
        let texts = as_text(batch, wanted.text, is_text)?;
        let labels = as_text(batch, wanted.label, |kind| is_text(kind) || is_scalar(kind))?;
        for row in 0..batch.num_rows() {
            at += 1;
            for (name, column) in [(wanted.text, &texts), (wanted.label, &labels)] {
                if column.is_null(row) {
                    return Err(Mistake::row(at, format!("`{name}` is null: remove the row")));
                }
            }
            let (text, label) = (texts.value(row).to_owned(), labels.value(row).to_owned());
            rows.list.push(Row { at, text, label });
        }
    }
    Ok(())
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

fn is_scalar(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_floating() || *kind == DataType::Boolean
}

fn as_text(
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
    text.as_any().downcast_ref::<StringArray>().cloned().ok_or_else(missing)
}
