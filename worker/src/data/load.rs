//! From a manifest to a dataset: what the cache has, or rows of which tokens are made.
//!
//! Whoever comes first reads the files, which takes as long as that takes, and can train at once: a
//! [`Stream`] tokenizes what is asked for. Meanwhile the rows go to the cache, where other workers find
//! them and do the same, and one of them, which has the claim, tokenizes everything and writes the
//! entry of the tokens. When that is there the rows are removed. Whatever is cut off is made anew by
//! whoever needs it: neither entry exists before its index does.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use muster_common::manifest::{Manifest, TrainingObjective};
use muster_common::run::DataSummary;
use muster_common::storage::Store;
use tokio::sync::{Mutex, oneshot};

use super::cache::{self, Entry, Found};
use super::claim::{self, Claim, Turn};
use super::inputs::{Inputs, blocking};
use super::origin::{self, Origins, Places};
use super::parallel::threads_per_slot;
use super::prepare::Recipe;
use super::reading::{self, Read};
use super::rows::Rows;
use super::spill::{Assembly, SplitFiles};
use super::stream::Source;
use super::{DataError, Dataset, Stream};

/// What is added to the nice value of threads that tokenize behind a training: they get what it leaves,
/// and a tenth of a core that it would take.
const NICENESS: i32 = 10;

/// The data of an experiment, as far as it is tokenized.
#[derive(Debug)]
pub enum Data {
    /// Everything is.
    Whole(Box<Dataset>),
    /// What is asked for is, and everything will be.
    Stream(Box<Stream>),
}

impl Data {
    /// What the data turned out to be.
    pub fn summary(&self) -> &DataSummary {
        match self {
            Self::Whole(data) => &data.summary,
            Self::Stream(stream) => &stream.summary,
        }
    }

    /// Who knows where the examples of the test split stand in the files.
    pub fn origins(&self) -> Option<&Origins> {
        match self {
            Self::Whole(data) => data.origins.as_ref(),
            Self::Stream(stream) => Some(&stream.origins),
        }
    }
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
    match Box::pin(begin(store, manifest, max_length)).await? {
        Begun::Made(entry, origins) => Ok(whole(*entry, origins)),
        Begun::Rows(making) => Box::pin(making.finish()).await,
    }
}

/// As [`load_at`], but where the cache has no tokens and examples are rows (for classification), it
/// comes back as soon as the rows are read: the rest is tokenized beside what follows, on the
/// runtime that this is called in. Examples are the same.
pub async fn open(store: &Store, manifest: &Manifest, max_length: u32) -> Result<Data, DataError> {
    match Box::pin(begin(store, manifest, max_length)).await? {
        Begun::Made(entry, origins) => Ok(Data::Whole(Box::new(whole(*entry, origins)))),
        // How many examples there are shows only when texts are cut to pieces or paired up.
        Begun::Rows(making) if manifest.objective != TrainingObjective::Classification => {
            Ok(Data::Whole(Box::new(Box::pin(making.finish()).await?)))
        }
        Begun::Rows(making) => {
            let stream = making.stream();
            let source = Arc::clone(stream.source());
            tokio::spawn(async move {
                match Box::pin(making.finish_behind(&source)).await {
                    Ok(Some(entry)) => source.fill(entry),
                    Ok(None) => tracing::info!("tokenization was not needed any more"),
                    // Training goes on without: what it needs it tokenizes by itself.
                    Err(error) => {
                        let error = anyhow::Error::new(error);
                        tracing::warn!("the tokens do not come into the cache: {error:#}");
                    }
                }
                source.settle();
            });
            Ok(Data::Stream(Box::new(stream)))
        }
    }
}

/// The same without the tokenization of the rest, which then stays undone.
#[cfg(test)]
pub(super) async fn open_only(
    store: &Store,
    manifest: &Manifest,
) -> Result<Option<Stream>, DataError> {
    match Box::pin(begin(store, manifest, manifest.model.max_length)).await? {
        Begun::Made(..) => Ok(None),
        Begun::Rows(mut making) => {
            making.publish().await?;
            Ok(Some(making.stream()))
        }
    }
}

fn whole(entry: Entry, origins: Origins) -> Dataset {
    let Entry { train, validation, test, summary } = entry;
    Dataset { train, validation, test, summary, origins: Some(origins) }
}

/// What the cache had.
enum Begun {
    /// Tokens, and who knows where their rows stand.
    Made(Box<Entry>, Origins),
    /// Rows, or nothing, and they were read from the files.
    Rows(Box<Making>),
}

/// Tokens that are to be made.
struct Making {
    store: Store,
    /// Cache entry of the tokens.
    tokens: String,
    /// Cache entry of the rows.
    rows: String,
    /// Cache entries of all lengths of the experiment, which need the same rows.
    siblings: Vec<String>,
    folder: PathBuf,
    source: Arc<Source>,
    summary: DataSummary,
    origins: Origins,
    /// Rows that are not in the cache.
    unpublished: Option<Unpublished>,
    /// There are tokens, which are damaged.
    replace: bool,
}

struct Unpublished {
    findings: File,
    /// Where examples stand.
    places: Places,
    /// Without the name of the tokens.
    summary: DataSummary,
    /// Absent where there are rows, which are damaged.
    claim: Option<Claim>,
}

/// Takes tokens from the cache, or rows, or reads the files.
async fn begin(store: &Store, manifest: &Manifest, max_length: u32) -> Result<Begun, DataError> {
    let inputs = Box::pin(Inputs::find(store, manifest, max_length)).await?;
    let tokens = inputs.tokens_hash(manifest, max_length);
    let rows = inputs.rows_hash(manifest);
    loop {
        let replace = match cache::find(store, &tokens, &inputs.folder).await? {
            Found::Entry(entry) => return Ok(Begun::Made(entry, Origins::of(&inputs, &rows))),
            Found::Nothing => false,
            Found::Damaged(reason) => {
                tracing::warn!(hash = tokens, reason, "cached data is damaged and is made anew");
                true
            }
        };
        let claim = match cache::find_rows(store, &rows, &inputs.folder).await? {
            Found::Entry((found, summary)) => {
                let making = Making::new(store, manifest, inputs, (tokens, rows), found, summary);
                return Ok(Begun::Rows(Box::new(Making { replace, ..making })));
            }
            Found::Nothing => match claim::turn(store, &cache::rows_index(&rows)).await? {
                Turn::Made => continue,
                Turn::Mine(claim) => Some(claim),
            },
            Found::Damaged(reason) => {
                tracing::warn!(hash = rows, reason, "cached rows are damaged and are read anew");
                None
            }
        };
        if let Some(claim) = claim {
            // Between the look and the claim somebody may have made one of them.
            let has_tokens = store.find(&cache::tokens_index(&tokens)).await?.is_some();
            if (has_tokens && !replace) || store.find(&cache::rows_index(&rows)).await?.is_some() {
                claim.release().await;
                continue;
            }
            return read(store, manifest, inputs, (tokens, rows), (Some(claim), replace)).await;
        }
        return read(store, manifest, inputs, (tokens, rows), (None, replace)).await;
    }
}

/// Reads the files.
async fn read(
    store: &Store,
    manifest: &Manifest,
    mut inputs: Inputs,
    (tokens, rows): (String, String),
    (claim, replace): (Option<Claim>, bool),
) -> Result<Begun, DataError> {
    let reading = async {
        for file in inputs.files.iter_mut().flat_map(|(_, files)| files) {
            file.fetch(&inputs.folder).await?;
        }
        let (manifest, hash) = (manifest.clone(), rows.clone());
        blocking(move || reading::read(&manifest, &inputs, &hash).map(|read| (read, inputs))).await
    };
    match Box::pin(reading).await {
        Ok((Read { rows: found, findings, places, summary }, inputs)) => {
            tracing::info!(rows = summary.num_rows, "rows are read and split");
            let known = Places::clone(&places);
            let unpublished = Unpublished { findings, places, summary: summary.clone(), claim };
            let mut making = Making::new(store, manifest, inputs, (tokens, rows), found, summary);
            making.origins = making.origins.knowing(known);
            (making.unpublished, making.replace) = (Some(unpublished), replace);
            Ok(Begun::Rows(Box::new(making)))
        }
        Err(error) => {
            if let Some(claim) = claim {
                claim.release().await;
            }
            Err(error)
        }
    }
}

impl Making {
    fn new(
        store: &Store,
        manifest: &Manifest,
        inputs: Inputs,
        (tokens, rows): (String, String),
        found: Rows,
        summary: DataSummary,
    ) -> Self {
        let origins = Origins::of(&inputs, &rows);
        let lengths = manifest.max_lengths();
        let siblings = lengths.iter().map(|length| inputs.tokens_hash(manifest, *length)).collect();
        let recipe = Recipe {
            objective: manifest.objective,
            tokenizer: inputs.tokenizer,
            seed: manifest.seed.child("next sentence", 0),
            num_threads: threads_per_slot(),
            folder: inputs.folder.clone(),
        };
        Self {
            store: store.clone(),
            summary: DataSummary { cache: tokens.clone(), ..summary },
            tokens,
            rows,
            siblings,
            folder: inputs.folder,
            source: Arc::new(Source::new(found, recipe)),
            origins,
            unpublished: None,
            replace: false,
        }
    }

    fn stream(&self) -> Stream {
        Stream::new(Arc::clone(&self.source), self.summary.clone(), self.origins.clone())
    }

    /// Makes the tokens while the caller waits.
    async fn finish(mut self: Box<Self>) -> Result<Dataset, DataError> {
        let unpublished = self.unpublished.take();
        let mut claim = None;
        if let Some(Unpublished { findings, places, claim: claimed, .. }) = unpublished {
            cache::put_findings(&self.store, &self.rows, findings).await?;
            origin::put(&self.store, &self.rows, &places, &self.folder).await?;
            claim = claimed;
        }
        let source = Arc::clone(&self.source);
        let tokenize =
            blocking(move || source.recipe.tokenize(&source.rows, || ControlFlow::Continue(())));
        let made = Box::pin(self.make(tokenize)).await;
        // Held so long: those that wait for the rows need the tokens.
        if let Some(claim) = claim {
            claim.release().await;
        }
        let stopped = || DataError::CutOff { reason: "tokenization was stopped".to_owned() };
        Ok(whole(*made?.ok_or_else(stopped)?, self.origins))
    }

    /// Gives the rows to other workers, then makes the tokens, unless somebody else does, in threads
    /// that leave the cores to others. `None`: nobody needs them any more.
    async fn finish_behind(
        mut self: Box<Self>,
        source: &Arc<Source>,
    ) -> Result<Option<Box<Entry>>, DataError> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        self.publish().await?;
        let _turn = ONE_AT_A_TIME.lock().await;
        let source = Arc::clone(source);
        let tokenize =
            in_the_background(move || source.recipe.tokenize(&source.rows, || source.go_on()));
        self.make(tokenize).await
    }

    /// Puts the rows into the cache, if they are not there.
    async fn publish(&mut self) -> Result<(), DataError> {
        let Some(Unpublished { findings, places, summary, claim }) = self.unpublished.take() else {
            return Ok(());
        };
        let (store, hash, folder) = (&self.store, &self.rows, &self.folder);
        let publish = async {
            cache::put_findings(store, hash, findings).await?;
            origin::put(store, hash, &places, folder).await?;
            let assembly = Assembly::of_columns(self.source.rows.columns());
            cache::put_rows(store, hash, &assembly, &summary, claim.is_none(), folder).await
        };
        let published = publish.await;
        if let Some(claim) = claim {
            claim.release().await;
        }
        published
    }

    /// Makes the tokens by `tokenize`, if nobody else does, and takes them from the cache.
    async fn make(
        &self,
        tokenize: impl Future<Output = Result<Option<Vec<(&'static str, SplitFiles)>>, DataError>>,
    ) -> Result<Option<Box<Entry>>, DataError> {
        // Who finds a damaged entry makes it at once: the entry does not tell who else does.
        let mut claim = None;
        if !self.replace {
            match claim::turn(&self.store, &cache::tokens_index(&self.tokens)).await? {
                Turn::Made => return self.opened().await.map(Some),
                Turn::Mine(mine) => claim = Some(mine),
            }
        }
        let make = async {
            // Between the look and the claim somebody may have made it.
            if let Found::Entry(entry) =
                cache::find(&self.store, &self.tokens, &self.folder).await?
            {
                return Ok(Some(entry));
            }
            let Some(splits) = tokenize.await? else { return Ok(None) };
            let summary = self.tokenized_summary(&splits);
            let assembly = Assembly::new(&splits);
            let (store, folder) = (&self.store, &self.folder);
            cache::put(store, &self.tokens, &assembly, &summary, self.replace, folder).await?;
            tracing::info!(hash = self.tokens, "everything is tokenized");
            self.opened().await.map(Some)
        };
        let made = Box::pin(make).await;
        if let Some(claim) = claim {
            claim.release().await;
        }
        if let Ok(Some(_)) = made
            && let Err(error) = self.clear().await
        {
            tracing::debug!("rows that nobody needs any more stay in the cache: {error}");
        }
        made
    }

    fn tokenized_summary(&self, splits: &[(&'static str, SplitFiles)]) -> DataSummary {
        let split = |name| splits.iter().find(|(known, _)| *known == name).map(|(_, files)| files);
        let count = |name| split(name).map_or(0, |files| files.num_examples);
        let num_tokens = split("train").map_or(0, |files| files.num_tokens);
        DataSummary {
            num_train: count("train"),
            num_validation: count("validation"),
            num_test: count("test"),
            mean_tokens: Some(num_tokens as f64 / count("train").max(1) as f64),
            ..self.summary.clone()
        }
    }

    /// Opens the entry, which must be there.
    async fn opened(&self) -> Result<Box<Entry>, DataError> {
        let reason = match cache::find(&self.store, &self.tokens, &self.folder).await? {
            Found::Entry(entry) => return Ok(entry),
            Found::Nothing => "it is gone again".to_owned(),
            Found::Damaged(reason) => reason,
        };
        let reason = format!("cache entry {} was not kept: {reason}", self.tokens);
        Err(DataError::CutOff { reason })
    }

    /// Removes the rows when no length of the experiment needs them.
    async fn clear(&self) -> Result<(), DataError> {
        for hash in &self.siblings {
            if self.store.find(&cache::tokens_index(hash)).await?.is_none() {
                return Ok(());
            }
        }
        cache::remove_rows(&self.store, &self.rows).await
    }
}

/// Runs `work` in a thread that leaves the cores to others, and so do the threads it starts.
async fn in_the_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataError> + Send + 'static,
) -> Result<T, DataError> {
    let (sender, result) = oneshot::channel();
    // Not a thread of the runtime, which would keep its niceness for what it does next.
    let span = tracing::Span::current();
    let begun = thread::Builder::new().name("tokens".to_owned()).spawn(move || {
        let _run = span.entered();
        // Of the calling thread alone, under Linux. Without it training is slower, and right.
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!("tokenization goes on at full priority: {error}");
        }
        // Nobody waits any more when the runtime has ended.
        drop(sender.send(work()));
    });
    let cut_off = |reason: String| DataError::CutOff { reason };
    begun.map_err(|error| cut_off(error.to_string()))?;
    result.await.map_err(|_| cut_off("the thread that tokenizes panicked".to_owned()))?
}
