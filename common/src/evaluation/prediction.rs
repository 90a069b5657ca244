//! What a model said about every example of a split, as one Parquet file.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `row` | uint64 | place of the example in its split, from 0; the file is sorted by it |
//! | `label` | string | its class |
//! | `prediction` | string | the class with the highest probability |
//! | `probabilities` | list of double | of every class, in the order of the class numbers |
//!
//! No value is null. The file's key-value metadata holds [`PREDICTION_FORMAT_KEY`] and, under
//! [`LABELS_KEY`], the class names in the order of their numbers as a JSON list.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, ListArray, RecordBatch, StringArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::columnar::read_parquet;

/// Version of the columns this build writes, and the highest it reads.
pub const PREDICTION_FORMAT: u32 = 1;

/// Key of the version in the file's key-value metadata.
pub const PREDICTION_FORMAT_KEY: &str = "muster.predictions.format";

/// Key of the class names in the file's key-value metadata.
pub const LABELS_KEY: &str = "muster.predictions.labels";

/// Why predictions cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PredictionError {
    /// The rows cannot be written.
    #[error("cannot encode predictions: {reason}")]
    Encode {
        /// What the writer says.
        reason: String,
    },
    /// The bytes are not a file of predictions, or not a whole one.
    #[error("damaged file of predictions: {reason}")]
    Damaged {
        /// What the reader says.
        reason: String,
    },
    /// Written by a newer build.
    #[error(
        "the file of predictions has format {format}, this build reads up to {PREDICTION_FORMAT}: use a newer muster"
    )]
    NewerFormat {
        /// Format of the file.
        format: u32,
    },
}

/// One example.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Its place in its split.
    pub row: u64,
    /// Number of its class.
    pub label: u32,
    /// Of every class; they add up to 1.
    pub probabilities: Vec<f64>,
}

impl Prediction {
    /// The class with the highest probability, the first of several.
    pub fn class(&self) -> usize {
        let best = |best: usize, (class, probability): (usize, &f64)| {
            let leader = self.probabilities.get(best).copied().unwrap_or(f64::NEG_INFINITY);
            if *probability > leader { class } else { best }
        };
        self.probabilities.iter().enumerate().fold(0, best)
    }
}

fn schema() -> Arc<Schema> {
    let column = |name: &str, kind: DataType| Field::new(name, kind, false);
    let item = Arc::new(Field::new("item", DataType::Float64, false));
    Arc::new(Schema::new(vec![
        column("row", DataType::UInt64),
        column("label", DataType::Utf8),
        column("prediction", DataType::Utf8),
        column("probabilities", DataType::List(item)),
    ]))
}

/// One file with these predictions, in their order; `labels` are the class names.
pub fn encode(predictions: &[Prediction], labels: &[String]) -> Result<Bytes, PredictionError> {
    let failed = |reason: String| PredictionError::Encode { reason };
    let name = |class: usize| labels.get(class).map_or("", String::as_str);
    let truth = |prediction: &Prediction| name(prediction.label as usize);
    let values = predictions.iter().flat_map(|prediction| prediction.probabilities.iter().copied());
    let lengths = predictions.iter().map(|prediction| prediction.probabilities.len());
    let item = Arc::new(Field::new("item", DataType::Float64, false));
    let values = Arc::new(Float64Array::from_iter_values(values));
    let lists = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, None)
        .map_err(|error| failed(error.to_string()))?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(predictions.iter().map(|p| p.row))),
        Arc::new(StringArray::from_iter_values(predictions.iter().map(truth))),
        Arc::new(StringArray::from_iter_values(predictions.iter().map(|p| name(p.class())))),
        Arc::new(lists),
    ];
    let names = serde_json::to_string(labels).map_err(|error| failed(error.to_string()))?;
    let metadata = vec![
        KeyValue::new(PREDICTION_FORMAT_KEY.to_owned(), PREDICTION_FORMAT.to_string()),
        KeyValue::new(LABELS_KEY.to_owned(), names),
    ];
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("muster".to_owned())
        .set_key_value_metadata(Some(metadata))
        .build();
    let write = || {
        let batch = RecordBatch::try_new(schema(), columns)?;
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok::<_, parquet::errors::ParquetError>(bytes)
    };
    write().map(Bytes::from).map_err(|error| failed(error.to_string()))
}

/// The predictions of a file and the class names.
pub fn decode(bytes: Bytes) -> Result<(Vec<Prediction>, Vec<String>), PredictionError> {
    let damaged = |reason: &str| PredictionError::Damaged { reason: reason.to_owned() };
    let table = read_parquet(bytes, |name| name != "prediction")
        .map_err(|error| damaged(&error.to_string()))?;
    let format = table.metadata.get(PREDICTION_FORMAT_KEY).and_then(|text| text.parse().ok());
    let format: u32 = format.ok_or_else(|| damaged("its metadata name no format"))?;
    if format > PREDICTION_FORMAT {
        return Err(PredictionError::NewerFormat { format });
    }
    let labels = table.metadata.get(LABELS_KEY).and_then(|text| serde_json::from_str(text).ok());
    let labels: Vec<String> = labels.ok_or_else(|| damaged("its metadata name no classes"))?;
    let mut predictions = Vec::new();
    for batch in &table.batches {
        let columns = || {
            let rows = batch.column_by_name("row")?.as_any().downcast_ref::<UInt64Array>()?;
            let truths = batch.column_by_name("label")?.as_any().downcast_ref::<StringArray>()?;
            let lists = batch.column_by_name("probabilities")?;
            let lists = lists.as_any().downcast_ref::<ListArray>()?;
            let whole = rows.null_count() + truths.null_count() + lists.null_count() == 0;
            whole.then_some((rows, truths, lists))
        };
        let (rows, truths, lists) =
            columns().ok_or_else(|| damaged("a column is missing or has another type"))?;
        for row in 0..batch.num_rows() {
            let label = labels.iter().position(|name| name == truths.value(row));
            let label = label.and_then(|label| u32::try_from(label).ok());
            let list = lists.value(row);
            let list = list.as_any().downcast_ref::<Float64Array>();
            predictions.push(Prediction {
                row: rows.value(row),
                label: label.ok_or_else(|| damaged("a label is no class"))?,
                probabilities: list
                    .ok_or_else(|| damaged("a list holds no numbers"))?
                    .values()
                    .to_vec(),
            });
        }
    }
    Ok((predictions, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions() -> (Vec<Prediction>, Vec<String>) {
        let prediction = |row, label, probabilities: &[f64]| Prediction {
            row,
            label,
            probabilities: probabilities.to_vec(),
        };
        let rows = vec![
            prediction(0, 2, &[0.1, 0.2, 0.7]),
            prediction(1, 0, &[0.4, 0.4, 0.2]),
            prediction(2, 1, &[0.0, 1.0, 0.0]),
        ];
        (rows, ["bad", "so-so", "gut, naja"].map(str::to_owned).to_vec())
    }

    #[test]
    fn files_round_trip() {
        let (rows, labels) = predictions();
        assert_eq!(rows.iter().map(Prediction::class).collect::<Vec<_>>(), [2, 0, 1]);
        let bytes = encode(&rows, &labels).unwrap();
        assert_eq!(decode(bytes).unwrap(), (rows, labels.clone()));
        assert_eq!(decode(encode(&[], &labels).unwrap()).unwrap(), (Vec::new(), labels));
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let (rows, labels) = predictions();
        let bytes = encode(&rows, &labels).unwrap();
        for cut in [0, 4, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode(bytes.slice(..cut)).is_err(), "{cut}");
        }
        let metrics = crate::metric::encode(&[]).unwrap();
        assert!(matches!(decode(metrics), Err(PredictionError::Damaged { .. })));
        let mut raw = bytes.to_vec();
        let key = PREDICTION_FORMAT_KEY.as_bytes();
        let at = raw.windows(key.len()).rposition(|window| window == key).unwrap() + key.len();
        let digit = raw[at..].iter().position(|byte| *byte == b'1').unwrap();
        raw[at + digit] = b'9';
        assert!(matches!(decode(raw.into()), Err(PredictionError::NewerFormat { format: 9 })));
    }
}
