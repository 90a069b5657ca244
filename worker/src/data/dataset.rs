//! The dataset of an experiment: tokenized splits, made once and cached for every worker.

use std::path::Path;

use bytes::Bytes;
use muster_common::digest::ContentHash;
use muster_common::manifest::{Holdout, Manifest, Source};
use muster_common::run::DataSummary;
use muster_common::storage::Store;
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::cache::{self, DATA_FORMAT, Entry, Found};
use super::label::Classes;
use super::source::{self, Wanted};
use super::split::{Example, HeldOut, Splits, Tally, assemble};
use super::{DataError, TextTokenizer};

/// Remarks kept in a summary.
const REMARKS_MAX: usize = 20;

/// Cores of this slot, from the environment; 1 if it says nothing.
const THREADS_VARIABLE: &str = "MUSTER_THREADS_PER_SLOT";

/// One split, tokenized. Token ids include the special tokens (`[CLS] ... [SEP]`) and are cut to
/// the manifest's `max_length`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// All examples one after the other.
    tokens: Vec<u32>,
    /// Where each example starts in `tokens`, and the end of the last.
    offsets: Vec<u64>,
    /// Class of each example.
    labels: Vec<u32>,
}

impl Split {
    /// From the token ids and the class of each example; the shorter of the two lists counts.
    pub fn new(tokens: Vec<Vec<u32>>, labels: Vec<u32>) -> Self {
        let mut split = Self { tokens: Vec::new(), offsets: vec![0], labels: Vec::new() };
        for (tokens, label) in tokens.into_iter().zip(labels) {
            split.tokens.extend(tokens);
            split.offsets.push(split.tokens.len() as u64);
            split.labels.push(label);
        }
        split
    }

    /// From what [`Split::columns`] gave; `None` if the columns contradict each other.
    pub(super) fn from_columns(
        tokens: Vec<u32>,
        offsets: Vec<u64>,
        labels: Vec<u32>,
    ) -> Option<Self> {
        let rises = offsets.is_sorted() && offsets.first() == Some(&0);
        let fits = offsets.last() == Some(&(tokens.len() as u64));
        let counts = offsets.len() == labels.len() + 1;
        (rises && fits && counts).then_some(Self { tokens, offsets, labels })
    }

    pub(super) fn columns(&self) -> (&[u32], &[u64], &[u32]) {
        (&self.tokens, &self.offsets, &self.labels)
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Token ids of the example at `index`, which must be below [`Split::len`].
    pub fn tokens(&self, index: usize) -> &[u32] {
        // Offsets count tokens in memory, so they fit.
        let at = |index: usize| usize::try_from(self.offsets[index]).unwrap_or(usize::MAX);
        &self.tokens[at(index)..at(index + 1)]
    }

    /// Class of the example at `index`, which must be below [`Split::len`].
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// Tokens of the example at `index`, special tokens counted.
    pub fn length(&self, index: usize) -> usize {
        self.tokens(index).len()
    }
}

/// The tokenized splits of an experiment.
#[derive(Debug)]
pub struct Dataset {
    /// Examples to train on, in the order of the file.
    pub train: Split,
    /// Examples the searcher decides on.
    pub validation: Split,
    /// Examples scored once; absent if the manifest has none.
    pub test: Option<Split>,
    /// What the data turned out to be.
    pub summary: DataSummary,
}

/// Files of a manifest in memory, and the tokenizer.
struct Inputs {
    train: Bytes,
    validation: Option<Bytes>,
    test: Option<Bytes>,
    tokenizer: TextTokenizer,
}

/// Reads, checks, labels, splits and tokenizes the data of a manifest, or takes the result from the
/// store's cache, where the first worker leaves it for all others. A damaged cache entry is made
/// anew.
pub async fn load(store: &Store, manifest: &Manifest) -> Result<Dataset, DataError> {
    let owned = manifest.clone();
    let (inputs, hash) = blocking(move || {
        let inputs = read_inputs(&owned)?;
        let hash = content_hash(&owned, &inputs);
        Ok((inputs, hash))
    })
    .await?;
    let hash = hash.short().to_owned();
    let replace = match cache::find(store, &hash).await? {
        Found::Entry(entry) => {
            tracing::debug!(hash, "tokenized data taken from the cache");
            return Ok(dataset(*entry));
        }
        Found::Nothing => false,
        Found::Damaged(reason) => {
            tracing::warn!(hash, reason, "cached data is damaged and is made anew");
            true
        }
    };
    let (owned, name) = (manifest.clone(), hash.clone());
    let entry = blocking(move || build(&owned, inputs, name)).await?;
    cache::put(store, &hash, &entry, replace).await?;
    for remark in &entry.summary.remarks {
        tracing::info!("data: {remark}");
    }
    Ok(dataset(entry))
}

fn dataset(entry: Entry) -> Dataset {
    let Entry { train, validation, test, summary } = entry;
    Dataset { train, validation, test, summary }
}

/// Runs what reads files or computes for long beside the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataError> + Send + 'static,
) -> Result<T, DataError> {
    let joined = spawn_blocking(work).await;
    joined.map_err(|error| DataError::CutOff { reason: error.to_string() })?
}

fn read_inputs(manifest: &Manifest) -> Result<Inputs, DataError> {
    let data = &manifest.data;
    let holdout = |holdout: &Holdout| match holdout {
        Holdout::Source(source) => read_file(source).map(Some),
        _ => Ok(None),
    };
    Ok(Inputs {
        train: read_file(&data.train)?,
        validation: holdout(&data.validation)?,
        test: holdout(&data.test)?,
        tokenizer: TextTokenizer::open(
            Path::new(&manifest.model.pretrained),
            manifest.model.max_length,
        )?,
    })
}

fn read_file(source: &Source) -> Result<Bytes, DataError> {
    let read = std::fs::read(&source.path);
    read.map(Bytes::from)
        .map_err(|error| DataError::Read { path: source.path.clone(), source: error })
}

/// Digest over everything that decides on the result; where the files lie does not.
fn content_hash(manifest: &Manifest, inputs: &Inputs) -> ContentHash {
    #[derive(Serialize)]
    struct Key<'a> {
        format: u32,
        settings: muster_common::manifest::DataSettings,
        train: ContentHash,
        validation: Option<ContentHash>,
        test: Option<ContentHash>,
        seed: muster_common::seed::Seed,
        tokenizer: &'a ContentHash,
        max_length: u32,
    }
    let mut settings = manifest.data.clone();
    settings.train.path.clear();
    for holdout in [&mut settings.validation, &mut settings.test] {
        if let Holdout::Source(source) = holdout {
            source.path.clear();
        }
    }
    let optional = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| ContentHash::of(bytes));
    let key = Key {
        format: DATA_FORMAT,
        settings,
        train: ContentHash::of(&inputs.train),
        validation: optional(&inputs.validation),
        test: optional(&inputs.test),
        seed: manifest.seed,
        tokenizer: inputs.tokenizer.sha256(),
        max_length: manifest.model.max_length,
    };
    // Structs of strings and numbers always become JSON.
    ContentHash::of(&serde_json::to_vec(&key).unwrap_or_default())
}

fn build(manifest: &Manifest, inputs: Inputs, cache: String) -> Result<Entry, DataError> {
    let data = &manifest.data;
    let wanted = Wanted { text: &data.text, label: data.label.column() };
    let held_out = |holdout: &Holdout, bytes: Option<Bytes>| match (holdout, bytes) {
        (Holdout::Source(source), Some(bytes)) => {
            source::read(source, bytes, wanted).map(HeldOut::Rows)
        }
        (holdout, _) => Ok(HeldOut::Cut(holdout.clone())),
    };
    let train = source::read(&data.train, inputs.train, wanted)?;
    let validation = held_out(&data.validation, inputs.validation)?;
    let test = held_out(&data.test, inputs.test)?;
    let classes = Classes::new(&data.label, &train)?;
    let splits = assemble(train, validation, test, &classes, manifest.seed)?;
    let Splits { train, validation, test, tally } = splits;
    let num_threads = threads_per_slot();
    let tokenize = |examples: Vec<Example>| {
        let texts: Vec<&str> = examples.iter().map(|example| example.text.as_str()).collect();
        let tokens = inputs.tokenizer.encode(&texts, num_threads)?;
        Ok::<_, DataError>(Split::new(tokens, examples.iter().map(|e| e.label).collect()))
    };
    let train = tokenize(train)?;
    let validation = tokenize(validation)?;
    let test = test.map(tokenize).transpose()?;
    let summary = summarize(cache, (&train, &validation, test.as_ref()), classes.names, tally);
    Ok(Entry { train, validation, test, summary })
}

fn summarize(
    cache: String,
    (train, validation, test): (&Split, &Split, Option<&Split>),
    labels: Vec<String>,
    tally: Tally,
) -> DataSummary {
    let mut remarks = tally.remarks;
    remarks.truncate(REMARKS_MAX);
    DataSummary {
        cache,
        num_train: train.len() as u64,
        num_validation: validation.len() as u64,
        num_test: test.map_or(0, Split::len) as u64,
        labels,
        num_rows: tally.num_rows,
        num_left_out: tally.num_left_out,
        num_duplicates: tally.num_duplicates,
        mean_tokens: train.tokens.len() as f64 / train.len().max(1) as f64,
        remarks,
    }
}

fn threads_per_slot() -> usize {
    let text = std::env::var(THREADS_VARIABLE).ok();
    text.and_then(|text| text.parse().ok()).filter(|threads| *threads > 0).unwrap_or(1)
}
