//! Training starts before the data is tokenized: shown by the order of events in a real run, with the
//! same numbers to the last bit as from the cache, and when the process is killed in the middle.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use muster_common::id::TrialId;
use muster_common::metric::{self, MetricName};
use muster_common::seed::Seed;
use muster_common::storage::Store;
use muster_tests::process::{Muster, descendants, send_signal};
use muster_tests::sample::repository;
use serde_json::Value;

/// Rows that take seconds to tokenize, which a few steps of a tiny model do not.
const NUM_ROWS: u64 = 100_000;
const NUM_WORDS: u64 = 60;
const NUM_STEPS: usize = 60;
const WORDS: [&str; 8] = ["good", "film", "book", "warm", "funny", "acted", "best", "again"];
const RUN: [&str; 7] =
    ["run", "manifest.yaml", "--slots", "1", "--summary", "summary.json", "--threads-per-slot=1"];
const TOKENIZED: &str = "everything is tokenized";
const FIRST_STEP: &str = "the first step of this run is done";

/// Data, a model with a tokenizer, and a manifest.
fn prepare() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let model = root.join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(repository().join("tests/golden/hf/tiny").join(name), model.join(name)).unwrap();
    }
    let mut vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n".to_owned();
    vocabulary += &WORDS.join("\n");
    for digit in 0..10 {
        vocabulary += &format!("\n{digit}\n##{digit}");
    }
    fs::write(model.join("vocab.txt"), vocabulary).unwrap();
    let mut rows = BufWriter::new(File::create(root.join("rows.csv")).unwrap());
    writeln!(rows, "text,label").unwrap();
    for row in 0..NUM_ROWS {
        let mut draws = Seed(row).draws();
        for _ in 0..=draws.below(NUM_WORDS) {
            let word = usize::try_from(draws.below(WORDS.len() as u64)).unwrap();
            write!(rows, "{} ", WORDS[word]).unwrap();
        }
        writeln!(rows, "{row},{}", row % 3).unwrap();
    }
    rows.into_inner().unwrap();
    let manifest = format!(
        "version: 1
name: untokenized
model: {{pretrained: model, max_length: 20, truncation: head_tail}}
data:
  train: {{path: rows.csv}}
  validation: {{examples: 300}}
  test: {{examples: 300}}
  text: text
  label: {{column: label}}
hyperparameters: {{learning_rate: 1e-3, global_batch_size: 16, dropout: 0.1}}
training: {{evaluate_every: {{steps: 25}}}}
checkpoint: {{every_steps: 5}}
budget: {{steps: {NUM_STEPS}}}
"
    );
    fs::write(root.join("manifest.yaml"), manifest).unwrap();
    directory
}

/// What a run came to: training losses, scores, weights.
#[derive(Debug, PartialEq)]
struct Outcome {
    losses: Vec<(u64, u64)>,
    best: [Value; 2],
    weights: Vec<u8>,
}

fn outcome(root: &Path, experiment: &str) -> Outcome {
    let store = Store::open(root.join("muster-data").to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let trial = TrialId { experiment: experiment.parse().unwrap(), number: 1 };
    let points = runtime.block_on(metric::read_trial(&store, &trial)).unwrap();
    let mut losses: Vec<(u64, u64)> = points
        .iter()
        .filter(|point| point.name == MetricName::TRAIN_LOSS)
        .map(|point| (point.step, point.value.to_bits()))
        .collect();
    losses.sort_unstable();
    assert_eq!(losses.len(), NUM_STEPS, "{experiment}");
    let summary = fs::read_to_string(root.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let best = ["validation", "test"].map(|split| summary["best"][split].clone());
    assert!(best.iter().all(Value::is_object), "{summary}");
    let weights = root.join(format!("muster-data/experiments/{experiment}/best/model.safetensors"));
    Outcome { losses, best, weights: fs::read(weights).unwrap() }
}

fn log(root: &Path, experiment: &str) -> String {
    let path = root.join(format!("muster-data/coordinator/logs/{experiment}.log"));
    fs::read_to_string(path).unwrap_or_default()
}

/// Indexes of tokenized data in the cache.
fn tokens(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("muster-data/cache")).into_iter().flatten().flatten();
    let indexes = entries.map(|entry| entry.path().join("data.index.json"));
    indexes.filter(|index| index.is_file()).collect()
}

#[test]
fn training_starts_before_the_data_is_tokenized_and_comes_to_the_same() {
    let directory = prepare();
    let root = directory.path();
    Muster::start(root, "first", &RUN).unwrap().succeed().unwrap();
    let streamed = outcome(root, "untokenized-1");
    let lines = log(root, "untokenized-1");
    let position = |words: &str| lines.lines().position(|line| line.contains(words)).unwrap();
    assert!(position(FIRST_STEP) < position(TOKENIZED), "{lines}");
    assert_eq!(tokens(root).len(), 1);
    let rows = fs::read_dir(root.join("muster-data/cache")).unwrap().flatten();
    assert!(rows.into_iter().all(|entry| !entry.path().join("rows.index.json").exists()));

    Muster::start(root, "second", &RUN).unwrap().succeed().unwrap();
    assert!(!log(root, "untokenized-2").contains(TOKENIZED), "the cache has it");
    assert!(outcome(root, "untokenized-2") == streamed);

    // Killed in the middle of tokenization: training goes on from its checkpoint, now with rows that
    // the killed process has left, or files that are read again.
    let other = prepare();
    let root = other.path();
    let mut run = Muster::start(root, "killed", &RUN).unwrap();
    let checkpoints = root.join("muster-data/experiments/untokenized-1/trials/1/checkpoints");
    run.wait_for("two checkpoints", |_| {
        let entries = fs::read_dir(&checkpoints).ok()?.flatten();
        let committed = entries.filter(|entry| entry.path().join("index.json").is_file());
        (committed.count() >= 2).then_some(())
    })
    .unwrap();
    let runners = descendants(run.pid(), "muster-worker runner");
    assert_eq!(runners.len(), 1, "one slot, one runner");
    send_signal("KILL", runners[0]).unwrap();
    assert_eq!(tokens(root), [] as [PathBuf; 0], "it was killed before the end of tokenization");
    run.succeed().unwrap();
    let lines = log(root, "untokenized-1");
    assert!(lines.contains("resumed from"), "{lines}");
    assert!(outcome(root, "untokenized-1") == streamed);
    assert_eq!(tokens(root).len(), 1);
}
