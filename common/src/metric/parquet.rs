//! Points to Parquet bytes and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray,
    TimestampMillisecondArray, UInt32Array, UInt64Array,
};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::schema::{METRIC_FORMAT, METRIC_FORMAT_KEY, metric_schema};
use super::{MetricError, MetricName, MetricPoint};
use crate::columnar::read_parquet;
use crate::id::{Attempt, TrialId};
use crate::time::Timestamp;

/// One metrics file with these points, in their order; Snappy, which is quick.
pub fn encode(points: &[MetricPoint]) -> Result<Bytes, MetricError> {
    write_file(points, WriterProperties::builder().set_compression(Compression::SNAPPY))
}

/// The same for points that are sorted by name, rank and step and are kept for years: about a fifth
/// of the size. Steps and times are stored as differences, the rest is Zstandard.
pub(super) fn encode_small(points: &[MetricPoint]) -> Result<Bytes, MetricError> {
    let mut properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    for name in ["step", "recorded_at"] {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    write_file(points, properties)
}

fn write_file(
    points: &[MetricPoint],
    properties: WriterPropertiesBuilder,
) -> Result<Bytes, MetricError> {
    let failed = |reason: String| MetricError::Encode { reason };
    let batch = to_batch(points).map_err(|error| failed(error.to_string()))?;
    let format = KeyValue::new(METRIC_FORMAT_KEY.to_owned(), METRIC_FORMAT.to_string());
    let properties = properties
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
    let superseded = points.iter().map(|point| Some(point.superseded));
    let columns: Vec<ArrayRef> = vec![
        text(|point| point.trial.to_string()),
        u32s(|point| point.attempt.0),
        u64s(|point| point.resumed_from),
        u32s(|point| point.rank),
        u64s(|point| point.step),
        text(|point| point.name.to_string()),
        Arc::new(Float64Array::from_iter_values(points.iter().map(|point| point.value))),
        Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC")),
        text(|point| point.trial.experiment.to_string()),
        text(|point| point.unit.to_string()),
        text(|point| point.host.to_string()),
        Arc::new(superseded.collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(metric_schema(), columns)
}

/// The points of a metrics file, in their order. Columns that this build does not know are ignored,
/// those that files of format 1 lack are filled in.
pub fn decode(bytes: Bytes) -> Result<Vec<MetricPoint>, MetricError> {
    let schema = metric_schema();
    let table = read_parquet(bytes, |name| schema.field_with_name(name).is_ok())
        .map_err(|error| damaged(error.to_string()))?;
    let format = check_format(table.metadata.get(METRIC_FORMAT_KEY))?;
    let mut points = Vec::new();
    for batch in &table.batches {
        from_batch(batch, format, &mut points)?;
    }
    Ok(points)
}

fn damaged(reason: impl Into<String>) -> MetricError {
    MetricError::Damaged { reason: reason.into() }
}

fn check_format(text: Option<&String>) -> Result<u32, MetricError> {
    let text = text.ok_or_else(|| damaged("the file's metadata name no metrics format"))?;
    let format: u32 = text.parse().map_err(|_| damaged("the metrics format is no number"))?;
    if format > METRIC_FORMAT {
        return Err(MetricError::NewerFormat { format });
    }
    Ok(format)
}

fn column<'a, T: Array + 'static>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a T, MetricError> {
    let array = batch.column_by_name(name).and_then(|array| array.as_any().downcast_ref::<T>());
    match array {
        Some(array) if array.null_count() == 0 => Ok(array),
        _ => Err(damaged(format!("column `{name}` is missing, has another type or has nulls"))),
    }
}

/// What format 2 added.
struct Added<'a> {
    experiments: &'a StringArray,
    units: &'a StringArray,
    hosts: &'a StringArray,
    superseded: &'a BooleanArray,
}

impl<'a> Added<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, MetricError> {
        Ok(Self {
            experiments: column(batch, "experiment")?,
            units: column(batch, "unit")?,
            hosts: column(batch, "host")?,
            superseded: column(batch, "superseded")?,
        })
    }
}

fn from_batch(
    batch: &RecordBatch,
    format: u32,
    points: &mut Vec<MetricPoint>,
) -> Result<(), MetricError> {
    let trials: &StringArray = column(batch, "trial")?;
    let attempts: &UInt32Array = column(batch, "attempt")?;
    let resumed: &UInt64Array = column(batch, "resumed_from")?;
    let ranks: &UInt32Array = column(batch, "rank")?;
    let steps: &UInt64Array = column(batch, "step")?;
    let names: &StringArray = column(batch, "name")?;
    let values: &Float64Array = column(batch, "value")?;
    let times: &TimestampMillisecondArray = column(batch, "recorded_at")?;
    let added = if format >= 2 { Some(Added::of(batch)?) } else { None };
    let (mut hosts, mut units) = (Words::default(), Words::default());
    for row in 0..batch.num_rows() {
        let trial: TrialId =
            trials.value(row).parse().map_err(|error| damaged(format!("{error}")))?;
        let name: MetricName = names.value(row).parse()?;
        let unit = match &added {
            Some(added) => units.share(added.units.value(row)),
            None => units.share(name.unit()),
        };
        if added.as_ref().is_some_and(|a| a.experiments.value(row) != trial.experiment.as_str()) {
            return Err(damaged(format!("a row of {trial} names another experiment")));
        }
        points.push(MetricPoint {
            trial,
            attempt: Attempt(attempts.value(row)),
            resumed_from: resumed.value(row),
            rank: ranks.value(row),
            step: steps.value(row),
            name,
            value: values.value(row),
            recorded_at: Timestamp(u64::try_from(times.value(row)).unwrap_or(0)),
            unit,
            host: hosts.share(added.as_ref().map_or("", |added| added.hosts.value(row))),
            superseded: added.as_ref().is_some_and(|added| added.superseded.value(row)),
        });
    }
    Ok(())
}

/// Words that nearly every row repeats, each held once.
#[derive(Default)]
struct Words(Option<Arc<str>>);

impl Words {
    fn share(&mut self, word: &str) -> Arc<str> {
        match &self.0 {
            Some(last) if **last == *word => Arc::clone(last),
            _ => Arc::clone(self.0.insert(word.into())),
        }
    }
}
