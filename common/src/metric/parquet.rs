//! Points to Parquet bytes and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    UInt32Array, UInt64Array,
};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::schema::{METRIC_FORMAT, METRIC_FORMAT_KEY, metric_schema};
use super::{MetricError, MetricName, MetricPoint};
use crate::columnar::read_parquet;
use crate::id::{Attempt, TrialId};
use crate::time::Timestamp;

/// One metrics file with these points, in their order; Snappy, which every reader knows.
pub fn encode(points: &[MetricPoint]) -> Result<Bytes, MetricError> {
    let failed = |reason: String| MetricError::Encode { reason };
    let batch = to_batch(points).map_err(|error| failed(error.to_string()))?;
    let format = KeyValue::new(METRIC_FORMAT_KEY.to_owned(), METRIC_FORMAT.to_string());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("muster".to_owned())
        .set_key_value_metadata(Some(vec![format]))
        .build();
    let write = || {
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, metric_schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok::<_, parquet::errors::ParquetError>(bytes)
    };
    write().map(Bytes::from).map_err(|error| failed(error.to_string()))
}

fn to_batch(points: &[MetricPoint]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let text = |of: fn(&MetricPoint) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(points.iter().map(of)))
    };
    let u32s = |of: fn(&MetricPoint) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(points.iter().map(of)))
    };
    let u64s = |of: fn(&MetricPoint) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(points.iter().map(of)))
    };
    let times = points.iter().map(|point| i64::try_from(point.recorded_at.0).unwrap_or(i64::MAX));
    let columns: Vec<ArrayRef> = vec![
        text(|point| point.trial.to_string()),
        u32s(|point| point.attempt.0),
        u64s(|point| point.resumed_from),
        u32s(|point| point.rank),
        u64s(|point| point.step),
        text(|point| point.name.to_string()),
        Arc::new(Float64Array::from_iter_values(points.iter().map(|point| point.value))),
        Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC")),
    ];
    RecordBatch::try_new(metric_schema(), columns)
}

/// The points of a metrics file, in their order. Columns that this build does not know are ignored.
pub fn decode(bytes: Bytes) -> Result<Vec<MetricPoint>, MetricError> {
    let schema = metric_schema();
    let table = read_parquet(bytes, |name| schema.field_with_name(name).is_ok())
        .map_err(|error| MetricError::Damaged { reason: error.to_string() })?;
    check_format(table.metadata.get(METRIC_FORMAT_KEY))?;
    let mut points = Vec::new();
    for batch in &table.batches {
        from_batch(batch, &mut points)?;
    }
    Ok(points)
}

fn check_format(text: Option<&String>) -> Result<(), MetricError> {
    let damaged = |reason: &str| MetricError::Damaged { reason: reason.to_owned() };
    let text = text.ok_or_else(|| damaged("the file's metadata name no metrics format"))?;
    let format: u32 = text.parse().map_err(|_| damaged("the metrics format is no number"))?;
    if format > METRIC_FORMAT {
        return Err(MetricError::NewerFormat { format });
    }
    Ok(())
}

fn column<'a, T: Array + 'static>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a T, MetricError> {
    let array = batch.column_by_name(name).and_then(|array| array.as_any().downcast_ref::<T>());
    match array {
        Some(array) if array.null_count() == 0 => Ok(array),
        _ => Err(MetricError::Damaged {
            reason: format!("column `{name}` is missing, has another type or has nulls"),
        }),
    }
}

fn from_batch(batch: &RecordBatch, points: &mut Vec<MetricPoint>) -> Result<(), MetricError> {
    let trials: &StringArray = column(batch, "trial")?;
    let attempts: &UInt32Array = column(batch, "attempt")?;
    let resumed: &UInt64Array = column(batch, "resumed_from")?;
    let ranks: &UInt32Array = column(batch, "rank")?;
    let steps: &UInt64Array = column(batch, "step")?;
    let names: &StringArray = column(batch, "name")?;
    let values: &Float64Array = column(batch, "value")?;
    let times: &TimestampMillisecondArray = column(batch, "recorded_at")?;
    for row in 0..batch.num_rows() {
        let trial: TrialId = trials
            .value(row)
            .parse()
            .map_err(|error| MetricError::Damaged { reason: format!("{error}") })?;
        let name: MetricName = names.value(row).parse()?;
        points.push(MetricPoint {
            trial,
            attempt: Attempt(attempts.value(row)),
            resumed_from: resumed.value(row),
            rank: ranks.value(row),
            step: steps.value(row),
            name,
            value: values.value(row),
            recorded_at: Timestamp(u64::try_from(times.value(row)).unwrap_or(0)),
        });
    }
    Ok(())
}
