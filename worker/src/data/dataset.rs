//! The dataset of an experiment: tokenized splits, made once and cached for every worker.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_common::digest::ContentHash;
use muster_common::manifest::{
    DataSettings, Holdout, LabelRule, Manifest, NearDuplicates, SourceFormat, TrainingObjective,
    Truncation,
};
use muster_common::run::{DataFlaws, DataSummary};
use muster_common::storage::{Layout, Store};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::cache::{self, DATA_FORMAT, Entry, Found};
use super::census::{Census, Survey};
use super::claim::{self, Turn};
use super::columns::Numbers;
use super::parallel::threads_per_slot;
use super::prepare::Recipe;
use super::source::{self, Role, SourceFile, Wanted};
use super::spill::{Assembly, SplitFiles};
use super::split::{Division, HeldOut, divide};
use super::{DataError, TextTokenizer, problem, sentence};
use crate::ffi::MappedFile;

/// Remarks kept in a summary.
const REMARKS_MAX: usize = 20;

/// One split, tokenized. Token ids include the special tokens (`[CLS] ... [SEP]`) and are cut to
/// the trial's longest sequence. Splits of the cache are mapped files: tokens are read when they are
/// used and take no memory that the system could not have back.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// All examples one after the other.
    tokens: Numbers<u32>,
    /// Where each example starts in `tokens`, and the end of the last.
    offsets: Numbers<u64>,
    /// Class of each example; 0 where there are no classes.
    labels: Numbers<u32>,
    /// Tokens of each example that are in segment 0; absent where all are.
    first_segments: Option<Numbers<u32>>,
}

impl Split {
    /// From the token ids and the class of each example; the shorter of the two lists counts.
    pub fn new(tokens: Vec<Vec<u32>>, labels: Vec<u32>) -> Self {
        let (mut ids, mut offsets, mut classes) = (Vec::new(), vec![0], Vec::new());
        for (tokens, label) in tokens.into_iter().zip(labels) {
            ids.extend(tokens);
            offsets.push(ids.len() as u64);
            classes.push(label);
        }
        Self {
            tokens: Numbers::Owned(ids),
            offsets: Numbers::Owned(offsets),
            labels: Numbers::Owned(classes),
            first_segments: None,
        }
    }

    /// The same with the number of tokens in segment 0 of each example; `None` if there are not as
    /// many numbers as examples, or one is beyond its example.
    pub fn with_first_segments(mut self, first_segments: Vec<u32>) -> Option<Self> {
        self.first_segments = Some(Numbers::Owned(first_segments));
        self.check().ok()?;
        Some(self)
    }

    /// The split whose columns are called `NAME.*` in a safetensors file.
    pub(super) fn mapped(file: &Arc<MappedFile>, name: &str) -> Result<Self, String> {
        let column = |column: &str| format!("{name}.{column}");
        let split = Self {
            tokens: Numbers::mapped(file, &column("tokens"))?,
            offsets: Numbers::mapped(file, &column("offsets"))?,
            labels: Numbers::mapped(file, &column("labels"))?,
            first_segments: Numbers::mapped(file, &column("first_segments")).ok(),
        };
        split.check().map_err(|()| format!("{name} contradicts itself"))?;
        Ok(split)
    }

    fn check(&self) -> Result<(), ()> {
        let (offsets, labels) = (self.offsets.all(), self.labels.all());
        let rises = offsets.is_sorted() && offsets.first() == Some(&0);
        let fits = offsets.last() == Some(&(self.tokens.all().len() as u64));
        let counts = offsets.len() == labels.len() + 1;
        let segments = self.first_segments.as_ref().is_none_or(|firsts| {
            let lengths = offsets.windows(2).map(|pair| pair[1] - pair[0]);
            let firsts = firsts.all();
            let within = firsts.iter().zip(lengths).all(|(first, all)| u64::from(*first) <= all);
            firsts.len() == labels.len() && within
        });
        if rises && fits && counts && segments { Ok(()) } else { Err(()) }
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.labels.all().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Token ids of the example at `index`, which must be below [`Split::len`].
    pub fn tokens(&self, index: usize) -> &[u32] {
        let offsets = self.offsets.all();
        // Offsets count tokens in memory, so they fit.
        let at = |index: usize| usize::try_from(offsets[index]).unwrap_or(usize::MAX);
        &self.tokens.all()[at(index)..at(index + 1)]
    }

    /// Class of the example at `index`, which must be below [`Split::len`]; 0 where there are no
    /// classes.
    pub fn label(&self, index: usize) -> u32 {
        self.labels.all()[index]
    }

    /// Tokens of the example at `index`, special tokens counted.
    pub fn length(&self, index: usize) -> usize {
        self.tokens(index).len()
    }

    /// How many of the first tokens of the example at `index`, which must be below [`Split::len`],
    /// are in segment 0; the rest is in segment 1. `None`: this split has no pairs.
    pub fn first_segment(&self, index: usize) -> Option<usize> {
        Some(self.first_segments.as_ref()?.all()[index] as usize)
    }

    /// Segment (token type) of every token of the example at `index`, which must be below
    /// [`Split::len`]: 0 for the first text, 1 for the second. `None`: this split has no pairs.
    pub fn segments(&self, index: usize) -> Option<Vec<u32>> {
        let mut segments = vec![0; self.first_segment(index)?];
        segments.resize(self.length(index), 1);
        Some(segments)
    }
}

/// The tokenized splits of an experiment.
#[derive(Debug)]
pub struct Dataset {
    /// Examples to train on, in the order of the files.
    pub train: Split,
    /// Examples the searcher decides on.
    pub validation: Split,
    /// Examples scored once; absent if the manifest has none.
    pub test: Option<Split>,
    /// What the data turned out to be.
    pub summary: DataSummary,
}

/// What a dataset is made of.
struct Inputs {
    files: Vec<(Role, Vec<SourceFile>)>,
    tokenizer: TextTokenizer,
    max_length: u32,
    /// Where files without names are put.
    folder: PathBuf,
}

/// The dataset of a manifest with sequences of at most `model.max_length` tokens; see [`load_at`].
pub async fn load(store: &Store, manifest: &Manifest) -> Result<Dataset, DataError> {
    load_at(store, manifest, manifest.model.max_length).await
}

/// Reads, checks, labels, splits and tokenizes the data of a manifest, or takes the result from the
/// store's cache, where the first worker leaves it for all others. A damaged cache entry is made
/// anew. Sequences have at most `max_length` tokens.
///
/// Files are read row by row and tokens written as they come: memory grows by about 100 bytes per
/// row while the cache is made, whatever the length of the texts.
pub async fn load_at(
    store: &Store,
    manifest: &Manifest,
    max_length: u32,
) -> Result<Dataset, DataError> {
    let inputs = Box::new(Box::pin(find_inputs(store, manifest, max_length)).await?);
    let hash = content_hash(manifest, &inputs).short().to_owned();
    match cache::find(store, &hash, &inputs.folder).await? {
        Found::Entry(entry) => Ok(dataset(*entry)),
        Found::Damaged(reason) => {
            tracing::warn!(hash, reason, "cached data is damaged and is made anew");
            Box::pin(make(store, manifest, inputs, &hash, true)).await
        }
        Found::Nothing => {
            let index = cache::index_key(&hash);
            let claim = match claim::turn(store, &hash, &index).await? {
                Turn::Mine(claim) => claim,
                Turn::Made => return opened(store, &hash, &inputs.folder).await,
            };
            // Between the look and the claim somebody may have made it.
            let made = match cache::find(store, &hash, &inputs.folder).await {
                Ok(Found::Entry(entry)) => Ok(dataset(*entry)),
                _ => Box::pin(make(store, manifest, inputs, &hash, false)).await,
            };
            claim.release().await;
            made
        }
    }
}

/// Makes a cache entry and opens it.
async fn make(
    store: &Store,
    manifest: &Manifest,
    mut inputs: Box<Inputs>,
    hash: &str,
    replace: bool,
) -> Result<Dataset, DataError> {
    for file in inputs.files.iter_mut().flat_map(|(_, files)| files) {
        file.fetch(&inputs.folder).await?;
    }
    let (owned, name, folder) = (manifest.clone(), hash.to_owned(), inputs.folder.clone());
    let built = blocking(move || build(&owned, &inputs, name)).await?;
    let Built { splits, findings, summary } = built;
    for remark in &summary.remarks {
        tracing::info!("data: {remark}");
    }
    let assembly = Assembly::new(&splits);
    cache::put(store, hash, &assembly, findings, &summary, replace, &folder).await?;
    opened(store, hash, &folder).await
}

/// Opens a cache entry that must be there.
async fn opened(store: &Store, hash: &str, folder: &Path) -> Result<Dataset, DataError> {
    let reason = match cache::find(store, hash, folder).await? {
        Found::Entry(entry) => return Ok(dataset(*entry)),
        Found::Nothing => "it is gone again".to_owned(),
        Found::Damaged(reason) => reason,
    };
    Err(DataError::CutOff { reason: format!("cache entry {hash} was not kept: {reason}") })
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
    joined.map_err(|error| DataError::cut_off(&error))?
}

async fn find_inputs(
    store: &Store,
    manifest: &Manifest,
    max_length: u32,
) -> Result<Inputs, DataError> {
    let data = &manifest.data;
    let unlabeled = data.label.is_none();
    let mut files = vec![(Role::Train, source::find(&data.train, Role::Train, unlabeled).await?)];
    for (role, holdout) in [(Role::Validation, &data.validation), (Role::Test, &data.test)] {
        if let Holdout::Source(held) = holdout {
            files.push((role, source::find(held, role, unlabeled).await?));
        }
    }
    let model = manifest.model.clone();
    let tokenizer = blocking(move || {
        let tokenizer = TextTokenizer::open(Path::new(&model.pretrained), max_length)?;
        tokenizer.with_truncation(model.truncation)
    });
    let tokenizer = tokenizer.await?;
    if data.text_pair.is_some() || manifest.objective.pairs_sentences() {
        tokenizer.check_pairs()?;
    }
    let folder = spill_folder(store)?;
    Ok(Inputs { files, tokenizer, max_length, folder })
}

/// Where files without names are put: beside the cache of a store on this host, where there must be
/// room for it anyway, else in a cache directory of this user. Not in a directory for temporary
/// files, which may be memory.
fn spill_folder(store: &Store) -> Result<PathBuf, DataError> {
    let cache = Layout::cache("spill");
    let beside = store.local_path(&cache).and_then(|path| path.parent().map(Path::to_path_buf));
    let folder = beside.unwrap_or_else(crate::prefix::host_cache);
    let made = std::fs::create_dir_all(&folder);
    made.map_err(|source| DataError::Spill { folder: folder.display().to_string(), source })?;
    Ok(folder)
}

/// Digest over everything that decides on the result; where the files lie does not.
fn content_hash(manifest: &Manifest, inputs: &Inputs) -> ContentHash {
    #[derive(Serialize)]
    struct Key<'a> {
        format: u32,
        objective: TrainingObjective,
        settings: DataSettings,
        files: Vec<Vec<ContentHash>>,
        seed: muster_common::seed::Seed,
        tokenizer: &'a ContentHash,
        max_length: u32,
        truncation: Truncation,
    }
    let mut settings = manifest.data.clone();
    settings.train.paths.clear();
    settings.train.hub = None;
    for holdout in [&mut settings.validation, &mut settings.test] {
        if let Holdout::Source(source) = holdout {
            source.paths.clear();
            source.hub = None;
        }
    }
    let identities = |(_, files): &'_ (Role, Vec<SourceFile>)| -> Vec<_> {
        files.iter().map(|file| file.identity.clone()).collect()
    };
    let key = Key {
        format: DATA_FORMAT,
        objective: manifest.objective,
        settings,
        files: inputs.files.iter().map(identities).collect(),
        seed: manifest.seed,
        tokenizer: inputs.tokenizer.sha256(),
        max_length: inputs.max_length,
        truncation: manifest.model.truncation,
    };
    // Structs of strings and numbers always become JSON.
    ContentHash::of(&serde_json::to_vec(&key).unwrap_or_default())
}

/// Tokenized splits before they are in the cache.
struct Built {
    splits: Vec<(&'static str, SplitFiles)>,
    /// The list of findings, at its beginning.
    findings: std::fs::File,
    summary: DataSummary,
}

fn build(manifest: &Manifest, inputs: &Inputs, cache: String) -> Result<Built, DataError> {
    let data = &manifest.data;
    let num_threads = threads_per_slot();
    let wanted = Wanted {
        text: data.text.clone(),
        pair: data.text_pair.clone(),
        label: data.label.as_ref().map(|label| label.column().to_owned()),
        documents: manifest.objective.pairs_sentences(),
    };
    let survey = Survey {
        wanted: &wanted,
        rule: data.label.as_ref(),
        hygiene: data.hygiene,
        near: data.hygiene.near_duplicates == NearDuplicates::Together,
        num_threads,
    };
    let census = survey.take(&inputs.files)?;
    let held_out = HeldOut { validation: &data.validation, test: &data.test };
    let division = divide(&census, held_out, data.hygiene, manifest.seed)?;
    let recipe = Recipe {
        objective: manifest.objective,
        tokenizer: &inputs.tokenizer,
        wanted: &wanted,
        seed: manifest.seed.child("next sentence", 0),
        num_threads,
        folder: &inputs.folder,
    };
    let splits = recipe.tokenize(&inputs.files, &census, &division.fates)?;
    let failed = |source| DataError::Spill { folder: inputs.folder.display().to_string(), source };
    let findings = || {
        let mut file = BufWriter::new(tempfile::tempfile_in(&inputs.folder)?);
        problem::list(&census, &census.findings, &mut file)?;
        problem::list(&census, &division.findings, &mut file)?;
        file.flush()?;
        let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    let findings = findings().map_err(failed)?;
    let summary = summarize(cache, manifest, &splits, &census, &division);
    Ok(Built { splits, findings, summary })
}

fn summarize(
    cache: String,
    manifest: &Manifest,
    splits: &[(&'static str, SplitFiles)],
    census: &Census,
    division: &Division,
) -> DataSummary {
    let split = |name| splits.iter().find(|(known, _)| *known == name).map(|(_, files)| files);
    let count = |name| split(name).map_or(0, |files| files.num_examples);
    let num_tokens = split("train").map_or(0, |files| files.num_tokens);
    let num_train = count("train");
    let labels = if manifest.objective.pairs_sentences() {
        sentence::CLASS_NAMES.map(str::to_owned).to_vec()
    } else {
        census.names.clone()
    };
    let mut summary = DataSummary {
        cache,
        num_train,
        num_validation: count("validation"),
        num_test: count("test"),
        labels,
        num_rows: census.len() as u64,
        num_left_out: census.num_left_out,
        num_duplicates: 0,
        mean_tokens: num_tokens as f64 / num_train.max(1) as f64,
        remarks: Vec::new(),
        flaws: DataFlaws {
            num_near_duplicates: division.num_near_duplicates,
            ..DataFlaws::default()
        },
    };
    let findings = [census.findings.as_slice(), &division.findings].concat();
    problem::count(census, &findings, &mut summary);
    if division.num_near_duplicates > 0 {
        let count = division.num_near_duplicates;
        summary.remarks.push(format!(
            "{count} training rows are nearly the same as another one and stay on its side"
        ));
    }
    if is_unsplit_imdb(manifest, census) {
        summary.remarks.push(
            "this looks like the 50,000 film reviews of IMDB without their split: reviews of one \
             film stand on both sides of a random cut, and scores do not compare with published \
             ones; the folder aclImdb or the set stanfordnlp/imdb has the official split"
                .to_owned(),
        );
    }
    if !findings.is_empty() {
        let key = Layout::cache(&summary.cache).join(cache::FINDINGS);
        summary
            .remarks
            .push(format!("{} findings are listed in {key} of the store", findings.len()));
    }
    summary.remarks.truncate(REMARKS_MAX);
    summary
}

/// `IMDB Dataset.csv`, as it is passed around.
fn is_unsplit_imdb(manifest: &Manifest, census: &Census) -> bool {
    let data = &manifest.data;
    let is_cut = !matches!(data.test, Holdout::Source(_));
    let is_csv = matches!(data.train.format, SourceFormat::Delimited { .. });
    let label = data.label.as_ref().map(LabelRule::column);
    let columns = data.text == "review" && label == Some("sentiment");
    is_cut && is_csv && columns && census.rows(Role::Train).len() == 50_000
}
