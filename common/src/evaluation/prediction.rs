//! What a model said about every example of a split, as one Parquet file.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `row` | uint64 | place of the example in its split, from 0; the file is sorted by it |
//! | `label` | string | its class |
//! | `prediction` | string | the class with the highest probability |
//! | `probabilities` | list of double | of every class, in the order of the class numbers |
//! | `num_tokens` | uint32 | tokens the model read, special tokens counted; null where nobody has counted |
//! | `text` | string | what the model read, decoded from its tokens; null but for mistakes it was sure of |
//! | `file` | string | the file it stands in, as messages call it; null where nobody knows |
//! | `file_row` | uint64 | which of the file's rows it is, from 0, see [`Origin`]; null where nobody knows |
//!
//! Of the mistakes that the model was surest of, at most [`TEXTS_MAX`] have a text, at most [`TEXT_CHARACTERS_MAX`]
//! characters of it: enough to see what is wrong, and a small file.
//!
//! The other columns are never null, and readers leave out columns that they do not know. Files of format 1 have no
//! `num_tokens` and no `text`, those of format 2 neither `file` nor `file_row`. The file's key-value metadata holds
//! [`PREDICTION_FORMAT_KEY`] and, under [`LABELS_KEY`], the class names in the order of their numbers as a JSON list.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array,
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
pub const PREDICTION_FORMAT: u32 = 3;

/// Texts in a file, at most.
pub const TEXTS_MAX: usize = 200;

/// Characters of a text, at most.
pub const TEXT_CHARACTERS_MAX: usize = 2000;

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

/// Where an example stands in the files that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, as messages call it: its path, its URL, or its place in a set of a hub.
    pub file: Arc<str>,
    /// Which of its rows, from 0: as readers of tables count them, without header and blank lines.
    pub row: u64,
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
    /// Tokens the model read, special tokens counted; `None`: nobody has counted.
    pub num_tokens: Option<u32>,
    /// What the model read; `None` but for some mistakes.
    pub text: Option<String>,
    /// Where it stands in the files; `None`: nobody knows.
    pub origin: Option<Origin>,
}

impl Prediction {
    /// Without what only the examples themselves tell.
    pub fn new(row: u64, label: u32, probabilities: Vec<f64>) -> Self {
        Self { row, label, probabilities, num_tokens: None, text: None, origin: None }
    }

    /// The same with the beginning of a text.
    pub fn with_text(self, text: &str) -> Self {
        Self { text: Some(text.chars().take(TEXT_CHARACTERS_MAX).collect()), ..self }
    }

    /// Whether the class with the highest probability is its class.
    pub fn is_right(&self) -> bool {
        self.class() == self.label as usize
    }

    /// Probability of the predicted class, 0 to 1; 0 where there are no classes.
    pub fn confidence(&self) -> f64 {
        self.probabilities.get(self.class()).copied().unwrap_or(0.0)
    }

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
        Field::new("num_tokens", DataType::UInt32, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("file", DataType::Utf8, true),
        Field::new("file_row", DataType::UInt64, true),
    ]))
}

/// One file with these predictions, in their order; `labels` are the class names.
pub fn encode(predictions: &[Prediction], labels: &[String]) -> Result<Bytes, PredictionError> {
    let failed = |reason: String| PredictionError::Encode { reason };
    let name = |class: usize| labels.get(class).map_or("", String::as_str);
    let truth = |prediction: &Prediction| name(prediction.label as usize);
    let values = predictions.iter().flat_map(|prediction| prediction.probabilities.iter().copied());
    let lengths = predictions.iter().map(|prediction| prediction.probabilities.len());
    let origins = || predictions.iter().map(|prediction| prediction.origin.as_ref());
    let item = Arc::new(Field::new("item", DataType::Float64, false));
    let values = Arc::new(Float64Array::from_iter_values(values));
    let lists = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, None)
        .map_err(|error| failed(error.to_string()))?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(predictions.iter().map(|p| p.row))),
        Arc::new(StringArray::from_iter_values(predictions.iter().map(truth))),
        Arc::new(StringArray::from_iter_values(predictions.iter().map(|p| name(p.class())))),
        Arc::new(lists),
        Arc::new(predictions.iter().map(|p| p.num_tokens).collect::<UInt32Array>()),
        Arc::new(predictions.iter().map(|p| p.text.as_deref()).collect::<StringArray>()),
        Arc::new(origins().map(|origin| Some(&*origin?.file)).collect::<StringArray>()),
        Arc::new(origins().map(|origin| Some(origin?.row)).collect::<UInt64Array>()),
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
        let columns =
            Columns::of(batch).ok_or_else(|| damaged("a column is missing or has another type"))?;
        for row in 0..batch.num_rows() {
            predictions.push(columns.prediction(row, &labels).map_err(damaged)?);
        }
    }
    Ok((predictions, labels))
}

/// The columns of a batch; those that may be absent are so in files of older formats.
struct Columns<'a> {
    rows: &'a UInt64Array,
    truths: &'a StringArray,
    lists: &'a ListArray,
    num_tokens: Option<&'a UInt32Array>,
    texts: Option<&'a StringArray>,
    files: Option<&'a StringArray>,
    file_rows: Option<&'a UInt64Array>,
}

/// A column that older formats do not have; the outer `None`: it has another type.
#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn newer<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Option<Option<&'a T>> {
    match batch.column_by_name(name) {
        None => Some(None),
        Some(column) => column.as_any().downcast_ref::<T>().map(Some),
    }
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let rows = batch.column_by_name("row")?.as_any().downcast_ref::<UInt64Array>()?;
        let truths = batch.column_by_name("label")?.as_any().downcast_ref::<StringArray>()?;
        let lists = batch.column_by_name("probabilities")?;
        let lists = lists.as_any().downcast_ref::<ListArray>()?;
        let num_tokens = newer::<UInt32Array>(batch, "num_tokens")?;
        let texts = newer::<StringArray>(batch, "text")?;
        let files = newer::<StringArray>(batch, "file")?;
        let file_rows = newer::<UInt64Array>(batch, "file_row")?;
        let whole = rows.null_count() + truths.null_count() + lists.null_count() == 0;
        whole.then_some(Self { rows, truths, lists, num_tokens, texts, files, file_rows })
    }

    fn prediction(&self, row: usize, labels: &[String]) -> Result<Prediction, &'static str> {
        let label = labels.iter().position(|name| name == self.truths.value(row));
        let label = label.and_then(|label| u32::try_from(label).ok());
        let list = self.lists.value(row);
        let list = list.as_any().downcast_ref::<Float64Array>();
        let num_tokens = self.num_tokens.filter(|column| column.is_valid(row));
        let text = self.texts.filter(|column| column.is_valid(row));
        Ok(Prediction {
            row: self.rows.value(row),
            label: label.ok_or("a label is no class")?,
            probabilities: list.ok_or("a list holds no numbers")?.values().to_vec(),
            num_tokens: num_tokens.map(|column| column.value(row)),
            text: text.map(|column| column.value(row).to_owned()),
            origin: self.origin(row),
        })
    }

    fn origin(&self, row: usize) -> Option<Origin> {
        let file = self.files.filter(|column| column.is_valid(row))?;
        let file_row = self.file_rows.filter(|column| column.is_valid(row))?;
        Some(Origin { file: file.value(row).into(), row: file_row.value(row) })
    }
}
