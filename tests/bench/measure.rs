//! The parts of `make bench` that are no whole program: tokenization, losses on given rows,
//! samplers on test functions, simulated workers, and checkpoints. Prints one JSON object.

mod control;
mod fidelity;
mod front;
mod one_slot;
mod rows;
mod search;
mod storage;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use muster_common::columnar::read_parquet;
use muster_common::manifest::{Assignment, SearchSpace, TrainingSettings, TrialSettings};
use muster_common::seed::Seed;
use muster_worker::data::{Split, TextTokenizer};
use muster_worker::model::{Classifier, Frozen, Pretrained, read_tensors};
use muster_worker::train::{Examples, Trainer, TrialPlan};
use serde_json::{Value, json};
use tch::{Device, Tensor};

/// `--name VALUE` pairs.
struct Flags(BTreeMap<String, String>);

impl Flags {
    fn read(words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut flags = BTreeMap::new();
        let mut words = words;
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").with_context(|| format!("not a flag: {word}"))?;
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            flags.insert(name.to_owned(), value);
        }
        Ok(Self(flags))
    }

    fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("--{name} is missing"))
    }

    fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(PathBuf::from(self.text(name)?))
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> anyhow::Result<T> {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => text.parse().ok().with_context(|| format!("--{name} {text}: no number")),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let flags = Flags::read(words)?;
    let result = match command.as_str() {
        "tokenize" => tokenize(&flags)?,
        "replay" => replay(&flags)?,
        "search" => search::search(&flags)?,
        "front" => front::front(&flags)?,
        "fidelity" => fidelity::fidelity(&flags)?,
        "control" => control::control(&flags)?,
        "table" => table::table(&flags)?,
        "storage" => storage::storage(&flags)?,
        "rows" => rows::rows(&flags)?,
        _ => bail!(
            "usage: measure tokenize|replay|search|front|fidelity|control|table|storage|rows --FLAG VALUE ..."
        ),
    };
    println!("{result}");
    Ok(())
}

/// Texts and labels (0 where there is none) of a Parquet file.
fn read_rows(path: &Path, text: &str) -> anyhow::Result<(Vec<String>, Vec<i64>)> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let table = read_parquet(bytes.into(), |name| name == text || name == "label")?;
    let column = |batch: &RecordBatch, name: &str, kind: &DataType| {
        let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
        anyhow::Ok(cast(column, kind)?)
    };
    let (mut texts, mut labels) = (Vec::new(), Vec::new());
    for batch in &table.batches {
        let column_of_text = column(batch, text, &DataType::Utf8)?;
        let column_of_label = column(batch, "label", &DataType::Int64)?;
        let column_of_text = column_of_text.as_string::<i32>();
        texts.extend((0..batch.num_rows()).map(|row| column_of_text.value(row).to_owned()));
        labels.extend_from_slice(column_of_label.as_primitive::<Int64Type>().values());
    }
    Ok((texts, labels))
}

fn tokenize(flags: &Flags) -> anyhow::Result<Value> {
    let (texts, _) = read_rows(&flags.path("file")?, flags.text("text")?)?;
    let tokenizer = TextTokenizer::open(&flags.path("model")?, flags.number("max-length", 128)?)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let tokens = tokenizer.encode(&texts, flags.number("threads", 1)?)?;
    let seconds = begun.elapsed().as_secs_f64();
    let num_tokens: usize = tokens.iter().map(Vec::len).sum();
    Ok(json!({
        "rows": texts.len(), "tokens": num_tokens, "rows_per_second": texts.len() as f64 / seconds,
    }))
}

/// Trains on the rows of each step that a file lists beside a peer's losses, without dropout, from
/// the peer's head, by the peer's recipe; gives the losses.
fn replay(flags: &Flags) -> anyhow::Result<Value> {
    tch::set_num_threads(flags.number("threads", 1)?);
    let listed = std::fs::read_to_string(flags.path("losses")?)?;
    let listed: Value = serde_json::from_str(&listed)?;
    let rows: Vec<Vec<usize>> = serde_json::from_value(listed["rows"].clone())?;
    let theirs: Vec<f64> = serde_json::from_value(listed["loss"].clone())?;
    let learning_rate = listed["lr"].as_f64().context("the file of losses has no `lr`")?;
    let (texts, labels) = read_rows(&flags.path("file")?, flags.text("text")?)?;
    let model = flags.path("model")?;
    let tokenizer = TextTokenizer::open(&model, flags.number("max-length", 128)?)?;
    let model = with_head(&model, &flags.path("head")?)?;
    // The rows of all steps, one after the other: step `n` trains on the `n`-th stretch of them.
    let mut steps = Vec::new();
    let (mut tokens, mut classes) = (Vec::new(), Vec::new());
    for rows in &rows {
        let first = u32::try_from(classes.len())?;
        let texts: Vec<&str> = rows.iter().map(|row| texts[*row].as_str()).collect();
        tokens.extend(tokenizer.encode(&texts, 1)?);
        for row in rows {
            classes.push(u32::try_from(labels[*row])?);
        }
        steps.push((first..u32::try_from(classes.len())?).collect::<Vec<u32>>());
    }
    let split = Split::new(tokens, classes);
    let settings = TrialSettings {
        learning_rate,
        dropout: Some(0.0),
        ..TrialSettings::resolve(&SearchSpace::new(), &Assignment::new())
    };
    let plan = TrialPlan {
        settings,
        training: TrainingSettings::default(),
        stopping_objective: None,
        seed: Seed(0),
        total_steps: rows.len() as u64,
        data: String::new(),
        rank: 0,
    };
    let mut trainer = Trainer::new(plan, model, Examples::of_tokens(&split))?;
    let mut losses = Vec::new();
    for batch in &steps {
        losses.push(trainer.train_on(batch)?.loss.f_double_value(&[])?);
    }
    Ok(json!({ "losses": losses, "theirs": theirs }))
}

/// The pretrained model with the classifier head that the peer drew.
fn with_head(model: &Path, head: &Path) -> anyhow::Result<Classifier> {
    let pretrained = Pretrained::read(model)?;
    let labels = ["0", "1"].map(str::to_owned).to_vec();
    let mut model =
        Classifier::to_train(&pretrained, labels, Frozen::default(), Seed(0), Device::Cpu)?;
    let mut values: BTreeMap<String, Tensor> =
        model.trained().map(|(name, tensor)| (name.to_owned(), tensor.detach())).collect();
    for (name, tensor) in read_tensors(head)? {
        values.insert(format!("classifier.{name}"), tensor);
    }
    model.restore(&values)?;
    Ok(model)
}
