//! Predictions as a file: all columns of the input, then `prediction`, `probability` and, for each class,
//! `probability_CLASS`; CSV, JSON Lines and Parquet say the same.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::LineDelimitedWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use muster_common::whole_file::WholeFile;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

use super::Prediction;
use crate::data::{Rest, WideRow, schema_of_names};

/// Name of the column with the most probable class, and of that with its probability. The columns of all classes are
/// named by the latter and the class.
const PREDICTION: &str = "prediction";
const PROBABILITY: &str = "probability";

/// Parquet's writer keeps a row group in memory: it is written when it has so many bytes.
const GROUP_BYTES: usize = 32 << 20;

/// What a file is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Comma separated (RFC 4180), UTF-8, with a header.
    Csv,
    /// One JSON object per line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
}

impl TableKind {
    /// What the name of a file asks for; the error says what there is.
    pub fn of(path: &Path) -> Result<Self, String> {
        let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
        match suffix.to_ascii_lowercase().as_str() {
            "csv" => Ok(Self::Csv),
            "jsonl" | "ndjson" => Ok(Self::JsonLines),
            "parquet" => Ok(Self::Parquet),
            _ => Err("its name ends in none of .csv, .jsonl, .ndjson, .parquet".to_owned()),
        }
    }
}

/// A file of predictions that is being written.
pub(super) struct TableFile {
    kind: TableKind,
    /// The classes in the order of their numbers.
    classes: Vec<String>,
    /// Columns of the input; known when the first rows are, unless the input says them before.
    carried: Option<SchemaRef>,
    file: Option<WholeFile>,
    parquet: Option<ArrowWriter<WholeFile>>,
    num_rows: u64,
}

impl TableFile {
    /// Begins a file. `carried` are the columns of the input, where they are known.
    pub(super) fn create(
        path: &Path,
        kind: TableKind,
        classes: &[String],
        carried: Option<SchemaRef>,
    ) -> anyhow::Result<Self> {
        if let Some(carried) = &carried {
            let names = carried.fields().iter().map(|field| field.name().as_str());
            check_names(names, classes)?;
        }
        let file = WholeFile::create(path)?;
        let classes = classes.to_vec();
        Ok(Self { kind, classes, carried, file: Some(file), parquet: None, num_rows: 0 })
    }

    /// Rows so far.
    pub(super) fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Adds rows, each with its prediction. `place` says where a row stands.
    pub(super) fn write(
        &mut self,
        rows: &[WideRow],
        predictions: &[Prediction],
        place: &dyn Fn(u64) -> String,
    ) -> anyhow::Result<()> {
        if let (TableKind::JsonLines, Some(WideRow { rest: Rest::Object(_), .. })) =
            (self.kind, rows.first())
        {
            self.write_objects(rows, predictions, place)?;
        } else {
            let batch = self.batch(rows, predictions, place)?;
            self.write_batch(&batch)?;
        }
        self.num_rows += rows.len() as u64;
        Ok(())
    }

    /// Puts the file in its place.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        if self.num_rows == 0 && self.kind != TableKind::JsonLines {
            let batch = self.batch(&[], &[], &|_| String::new())?;
            self.write_batch(&batch)?;
        }
        let file = match self.parquet {
            Some(parquet) => Some(parquet.into_inner()?),
            None => self.file,
        };
        file.context("the file is not there")?.commit()?;
        Ok(())
    }

    /// Objects are written as they are, whatever keys each has.
    fn write_objects(
        &mut self,
        rows: &[WideRow],
        predictions: &[Prediction],
        place: &dyn Fn(u64) -> String,
    ) -> anyhow::Result<()> {
        let file = self.file.as_mut().context("the file is not there")?;
        for (row, prediction) in rows.iter().zip(predictions) {
            let Rest::Object(object) = &row.rest else { continue };
            let names = object.keys().map(String::as_str);
            check_names(names, &self.classes).with_context(|| place(row.at))?;
            write_object(&mut *file, object, prediction, &self.classes)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    }

    fn batch(
        &mut self,
        rows: &[WideRow],
        predictions: &[Prediction],
        place: &dyn Fn(u64) -> String,
    ) -> anyhow::Result<RecordBatch> {
        let carried = if let Some(carried) = &self.carried {
            carried.clone()
        } else {
            let schema = schema_of(rows);
            let names = schema.fields().iter().map(|field| field.name().as_str());
            check_names(names, &self.classes)?;
            self.carried.insert(schema).clone()
        };
        let mut columns = carried_columns(&carried, rows, place)?;
        let mut fields = carried.fields().to_vec();
        let mut add = |name: &str, kind: DataType, column: ArrayRef| {
            fields.push(Arc::new(Field::new(name, kind, false)));
            columns.push(column);
        };
        let labels = predictions.iter().map(|prediction| prediction.label.as_str());
        let labels = StringArray::from_iter_values(labels);
        add(PREDICTION, DataType::Utf8, Arc::new(labels));
        let best = predictions.iter().map(|prediction| prediction.probability);
        let best = Float64Array::from_iter_values(best);
        add(PROBABILITY, DataType::Float64, Arc::new(best));
        for (number, class) in self.classes.iter().enumerate() {
            let of_class = |prediction: &Prediction| prediction.probabilities.get(number).copied();
            let column: Float64Array = predictions.iter().map(of_class).collect();
            add(&column_of(class), DataType::Float64, Arc::new(column));
        }
        let schema = Schema::new_with_metadata(fields, carried.metadata().clone());
        Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
    }

    fn write_batch(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        if self.kind == TableKind::Parquet {
            if let Some(file) = self.file.take() {
                let zstd = Compression::ZSTD(parquet::basic::ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(zstd).build();
                let parquet = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
                self.parquet = Some(parquet);
            }
            let parquet = self.parquet.as_mut().context("the file is not there")?;
            parquet.write(batch)?;
            if parquet.in_progress_size() > GROUP_BYTES {
                parquet.flush()?;
            }
            return Ok(());
        }
        let file = self.file.as_mut().context("the file is not there")?;
        if self.kind == TableKind::Csv {
            return write_csv(file, batch, self.num_rows == 0);
        }
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        let mut writer: LineDelimitedWriter<_> = builder.build::<_, LineDelimited>(file);
        writer.write(batch)?;
        Ok(writer.finish()?)
    }
}

fn column_of(class: &str) -> String {
    format!("{PROBABILITY}_{class}")
}

/// Refuses columns of the input that are called like those that are added.
fn check_names<'a>(names: impl Iterator<Item = &'a str>, classes: &[String]) -> anyhow::Result<()> {
    for name in names {
        let of_class = name.strip_prefix(PROBABILITY).and_then(|name| name.strip_prefix('_'));
        let is_class = of_class.is_some_and(|name| classes.iter().any(|class| class == name));
        if name == PREDICTION || name == PROBABILITY || is_class {
            bail!("the input has a column `{name}` already, where the answer has to go: rename it");
        }
    }
    Ok(())
}

/// Columns of an input that did not say them before its rows. Of objects they are the keys of these.
fn schema_of(rows: &[WideRow]) -> SchemaRef {
    if let Some(WideRow { rest: Rest::Fields { names, .. }, .. }) = rows.first() {
        return schema_of_names(names);
    }
    if let Some(WideRow { rest: Rest::Cells { batch, .. }, .. }) = rows.first() {
        return batch.schema();
    }
    let mut keys: Vec<&String> = Vec::new();
    for row in rows {
        let Rest::Object(object) = &row.rest else { continue };
        keys.extend(object.keys());
    }
    keys.sort();
    keys.dedup();
    let mut fields: Vec<Field> =
        keys.iter().map(|key| Field::new(key.as_str(), DataType::Utf8, true)).collect();
    if fields.is_empty() {
        fields.push(Field::new("text", DataType::Utf8, false));
    }
    Arc::new(Schema::new(fields))
}

/// What the input says of `rows`, as columns of `schema`.
fn carried_columns(
    schema: &SchemaRef,
    rows: &[WideRow],
    place: &dyn Fn(u64) -> String,
) -> anyhow::Result<Vec<ArrayRef>> {
    if let Some(cells) = cells(schema, rows)? {
        return Ok(cells.columns().to_vec());
    }
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    for row in rows {
        let Rest::Object(object) = &row.rest else { continue };
        if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
            bail!(
                "{}: the key `{key}` is in none of the rows before, from which the columns are: write .jsonl",
                place(row.at)
            );
        }
    }
    let column = |(index, name): (usize, &&str)| {
        let value = |row: &WideRow| match &row.rest {
            Rest::Fields { values, .. } => values.get(index).cloned(),
            Rest::Object(object) => object.get(*name).and_then(text_of),
            Rest::Nothing | Rest::Cells { .. } => Some(row.text.clone()),
        };
        let column: StringArray = rows.iter().map(value).collect();
        Arc::new(column) as ArrayRef
    };
    Ok(known.iter().enumerate().map(column).collect())
}

/// Rows of tables as one table; `None` where they come from elsewhere.
fn cells(schema: &SchemaRef, rows: &[WideRow]) -> anyhow::Result<Option<RecordBatch>> {
    let mut runs: Vec<(&Arc<RecordBatch>, usize, usize)> = Vec::new();
    for row in rows {
        let Rest::Cells { batch, index } = &row.rest else { return Ok(None) };
        match runs.last_mut() {
            Some((last, start, count)) if Arc::ptr_eq(last, batch) && *start + *count == *index => {
                *count += 1;
            }
            _ => runs.push((batch, *index, 1)),
        }
    }
    if runs.is_empty() {
        // Nothing says where no rows come from; the types do not matter.
        return Ok(Some(RecordBatch::new_empty(schema.clone())));
    }
    let pieces: Vec<RecordBatch> =
        runs.into_iter().map(|(batch, start, count)| batch.slice(start, count)).collect();
    let schema = pieces.first().map_or_else(|| schema.clone(), RecordBatch::schema);
    Ok(Some(concat_batches(&schema, &pieces)?))
}

/// A JSON value in a column of text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn write_object(
    file: &mut impl Write,
    object: &Map<String, Value>,
    prediction: &Prediction,
    classes: &[String],
) -> anyhow::Result<()> {
    let mut serializer = serde_json::Serializer::new(file);
    let mut entries = serializer.serialize_map(None)?;
    for (key, value) in object {
        entries.serialize_entry(key, value)?;
    }
    entries.serialize_entry(PREDICTION, &prediction.label)?;
    entries.serialize_entry(PROBABILITY, &prediction.probability)?;
    for (class, probability) in classes.iter().zip(&prediction.probabilities) {
        entries.serialize_entry(&column_of(class), probability)?;
    }
    Ok(entries.end()?)
}

fn write_csv(file: &mut impl Write, batch: &RecordBatch, header: bool) -> anyhow::Result<()> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter();
    let columns = columns.map(|column| ArrayFormatter::try_new(column, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    if header {
        let schema = batch.schema();
        write_record(file, schema.fields().iter().map(|field| field.name().clone()))?;
    }
    for row in 0..batch.num_rows() {
        write_record(file, columns.iter().map(|column| column.value(row).to_string()))?;
    }
    Ok(())
}

fn write_record(file: &mut impl Write, fields: impl Iterator<Item = String>) -> io::Result<()> {
    for (index, field) in fields.enumerate() {
        if index > 0 {
            file.write_all(b",")?;
        }
        // An empty line would be no record.
        if field.contains([',', '"', '\n', '\r']) || (index == 0 && field.is_empty()) {
            write!(file, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            file.write_all(field.as_bytes())?;
        }
    }
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int32Array};
    use arrow::datatypes::Float64Type;
    use muster_common::columnar::read_parquet;
    use serde_json::json;

    use super::*;

    fn classes() -> Vec<String> {
        ["no", "yes"].map(str::to_owned).to_vec()
    }

    fn prediction(label: &str) -> Prediction {
        Prediction {
            text: String::new(),
            text_pair: None,
            label: label.to_owned(),
            probability: 0.75,
            probabilities: if label == "no" { vec![0.75, 0.25] } else { vec![0.25, 0.75] },
            logits: Vec::new(),
            token_ids: Vec::new(),
        }
    }

    fn row(at: u64, rest: Rest) -> WideRow {
        WideRow { at, text: "a".to_owned(), pair: None, rest }
    }

    fn fields(values: &[&str]) -> Rest {
        let names: Vec<String> = ["id", "text"].map(str::to_owned).to_vec();
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Rest::Fields { names: names.into(), values }
    }

    fn cells(index: usize) -> Rest {
        let columns: [(&str, ArrayRef); 2] = [
            ("text", Arc::new(StringArray::from(vec!["a", "b\nc"]))),
            ("n", Arc::new(Int32Array::from(vec![Some(7), None]))),
        ];
        Rest::Cells { batch: Arc::new(RecordBatch::try_from_iter(columns).unwrap()), index }
    }

    fn object(value: Value) -> Rest {
        serde_json::from_value(value).map(Rest::Object).unwrap()
    }

    /// Writes each row as a part of its own, and gives back the file.
    fn written(name: &str, rows: Vec<WideRow>) -> anyhow::Result<Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        let kind = TableKind::of(&path).unwrap();
        let mut file = TableFile::create(&path, kind, &classes(), None)?;
        for (index, row) in rows.into_iter().enumerate() {
            let label = if index == 0 { "yes" } else { "no" };
            file.write(&[row], &[prediction(label)], &|at| format!("row {at}"))?;
        }
        let found = file.finish().map(|()| std::fs::read(&path).unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        found
    }

    fn text(name: &str, rows: Vec<WideRow>) -> String {
        String::from_utf8(written(name, rows).unwrap()).unwrap()
    }

    const NAMES: &str = "prediction,probability,probability_no,probability_yes";

    #[test]
    fn names_tell_kinds() {
        let kind = |name: &str| TableKind::of(Path::new(name));
        assert_eq!(kind("a.b.CSV"), Ok(TableKind::Csv));
        assert_eq!(kind("a.ndjson"), Ok(TableKind::JsonLines));
        assert!(kind("a.xlsx").unwrap_err().contains(".parquet"));
        assert!(kind("csv").is_err());
    }

    #[test]
    fn comma_separated_files_come_back() {
        let rows = || vec![row(2, fields(&["", "a, \"b\""])), row(3, fields(&["2", "x\ny"]))];
        let mut first = rows();
        let schema = schema_of_names(&["id".to_owned(), "text".to_owned()]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        let mut file = TableFile::create(&path, TableKind::Csv, &classes(), Some(schema)).unwrap();
        let predictions = [prediction("yes"), prediction("no")];
        file.write(&first, &predictions, &|_| String::new()).unwrap();
        assert_eq!(file.num_rows(), 2);
        file.finish().unwrap();
        let wanted = format!(
            "id,text,{NAMES}\n\"\",\"a, \"\"b\"\"\",yes,0.75,0.25,0.75\n2,\"x\ny\",no,0.75,0.75,0.25\n"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), wanted);
        // Lines of text have one column.
        first.truncate(1);
        first[0].rest = Rest::Nothing;
        assert_eq!(text("b.csv", first), format!("text,{NAMES}\na,yes,0.75,0.25,0.75\n"));
    }

    #[test]
    fn tables_keep_their_types() {
        let rows = || vec![row(1, cells(0)), row(2, cells(1))];
        let wanted =
            format!("text,n,{NAMES}\na,7,yes,0.75,0.25,0.75\n\"b\nc\",,no,0.75,0.75,0.25\n");
        assert_eq!(text("a.csv", rows()), wanted);
        let lines = text("a.jsonl", rows());
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let wanted = json!({
            "text": "b\nc", "n": null, "prediction": "no", "probability": 0.75,
            "probability_no": 0.75, "probability_yes": 0.25,
        });
        assert_eq!((&lines[1], &lines[0]["n"]), (&wanted, &json!(7)));
        let table = read_parquet(written("a.parquet", rows()).unwrap().into(), |_| true).unwrap();
        assert_eq!(table.columns.join(","), format!("text,n,{NAMES}"));
        let numbers: Vec<Option<i64>> = table
            .batches
            .iter()
            .flat_map(|batch| {
                assert_eq!(*batch.column(1).data_type(), DataType::Int32);
                let numbers = batch.column(1).as_primitive::<arrow::datatypes::Int32Type>();
                numbers.iter().map(|number| number.map(i64::from)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(numbers, [Some(7), None]);
        let best = table.batches[0].column(3).as_primitive::<Float64Type>();
        assert_eq!(best.value(0).to_bits(), 0.75f64.to_bits());
    }

    #[test]
    fn objects_keep_their_values_and_have_texts_of_them_in_columns() {
        let rows = || {
            vec![
                row(1, object(json!({"text": "a", "n": 7, "more": ["x"], "label": null}))),
                row(2, object(json!({"text": "b", "n": 1.5}))),
            ]
        };
        let lines = text("a.jsonl", rows());
        let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        let wanted = json!({
            "text": "a", "n": 7, "more": ["x"], "label": null, "prediction": "yes",
            "probability": 0.75, "probability_no": 0.25, "probability_yes": 0.75,
        });
        assert_eq!(line, wanted);
        assert_eq!(
            text("a.csv", rows()),
            format!(
                "label,more,n,text,{NAMES}\n\"\",\"[\"\"x\"\"]\",7,a,yes,0.75,0.25,0.75\n\
                 \"\",,1.5,b,no,0.75,0.75,0.25\n"
            )
        );
        let later = vec![row(1, object(json!({"text": "a"}))), row(2, object(json!({"n": 1})))];
        let error = format!("{:#}", written("a.parquet", later).unwrap_err());
        assert!(error.starts_with("row 2: the key `n`"), "{error}");
    }

    #[test]
    fn columns_of_the_answer_are_not_in_the_input() {
        for name in ["prediction", "probability", "probability_yes"] {
            let rows = || vec![row(4, object(json!({"text": "a", name: 1})))];
            for file in ["a.csv", "a.jsonl"] {
                let error = format!("{:#}", written(file, rows()).unwrap_err());
                assert!(error.contains(&format!("`{name}`")), "{error}");
            }
        }
        let rows = vec![row(4, object(json!({"text": "a", "probability_maybe": 1})))];
        assert!(written("a.csv", rows).is_ok());
    }

    #[test]
    fn no_rows_are_a_table_too() {
        assert_eq!(text("a.csv", Vec::new()), format!("text,{NAMES}\n"));
        assert_eq!(text("a.jsonl", Vec::new()), "");
        let table = read_parquet(written("a.parquet", Vec::new()).unwrap().into(), |_| true);
        assert_eq!(table.unwrap().columns.join(","), format!("text,{NAMES}"));
    }
}
