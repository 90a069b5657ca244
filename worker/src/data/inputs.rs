//! What a dataset is made of, and the hashes that name it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_common::digest::ContentHash;
use muster_common::manifest::{
    DataSettings, Holdout, Manifest, Source, TrainingObjective, Truncation,
};
use muster_common::seed::Seed;
use muster_common::storage::{Layout, Store};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::cache::DATA_FORMAT;
use super::source::{self, Role, SourceFile};
use super::{DataError, TextTokenizer};
use crate::model::HubSettings;

/// What a dataset is made of.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) files: Vec<(Role, Vec<SourceFile>)>,
    pub(super) tokenizer: Arc<TextTokenizer>,
    /// Where files without names are put.
    pub(super) folder: PathBuf,
}

impl Inputs {
    /// Finds the files and opens the tokenizer.
    pub(super) async fn find(
        store: &Store,
        manifest: &Manifest,
        max_length: u32,
    ) -> Result<Self, DataError> {
        let data = &manifest.data;
        let unlabeled = data.label.is_none();
        let mut files = Vec::new();
        for (role, source) in sources(data) {
            files.push((role, source::find(source, role, unlabeled).await?));
        }
        let model = manifest.model.clone();
        let tokenizer = blocking(move || {
            let tokenizer = TextTokenizer::open(Path::new(&model.pretrained), max_length)?;
            tokenizer.with_truncation(model.truncation)
        });
        let tokenizer = Arc::new(tokenizer.await?);
        if data.text_pair.is_some() || manifest.objective.pairs_sentences() {
            tokenizer.check_pairs()?;
        }
        let folder = spill_folder(store)?;
        Ok(Self { files, tokenizer, folder })
    }

    /// Names the tokenized data: a digest over everything that decides on it; where the files lie
    /// does not.
    pub(super) fn tokens_hash(&self, manifest: &Manifest, max_length: u32) -> String {
        #[derive(Serialize)]
        struct Key<'a> {
            format: u32,
            objective: TrainingObjective,
            settings: DataSettings,
            files: Vec<Vec<ContentHash>>,
            seed: Seed,
            tokenizer: &'a ContentHash,
            max_length: u32,
            truncation: Truncation,
        }
        short(&Key {
            format: DATA_FORMAT,
            objective: manifest.objective,
            settings: without_places(manifest),
            files: self.identities(),
            seed: manifest.seed,
            tokenizer: self.tokenizer.sha256(),
            max_length,
            truncation: manifest.model.truncation,
        })
    }

    /// Names the rows and their splits, which are the same for every tokenizer and length.
    pub(super) fn rows_hash(&self, manifest: &Manifest) -> String {
        #[derive(Serialize)]
        struct Key {
            rows: u32,
            objective: TrainingObjective,
            settings: DataSettings,
            files: Vec<Vec<ContentHash>>,
            seed: Seed,
        }
        short(&Key {
            rows: DATA_FORMAT,
            objective: manifest.objective,
            settings: without_places(manifest),
            files: self.identities(),
            seed: manifest.seed,
        })
    }

    fn identities(&self) -> Vec<Vec<ContentHash>> {
        let identities = |(_, files): &'_ (Role, Vec<SourceFile>)| -> Vec<_> {
            files.iter().map(|file| file.identity.clone()).collect()
        };
        self.files.iter().map(identities).collect()
    }
}

/// Where the rows of each split come from that has files of its own.
fn sources(data: &DataSettings) -> Vec<(Role, &Source)> {
    let mut sources = vec![(Role::Train, &data.train)];
    for (role, holdout) in [(Role::Validation, &data.validation), (Role::Test, &data.test)] {
        if let Holdout::Source(source) = holdout {
            sources.push((role, source));
        }
    }
    sources
}

/// Downloads what the data of a manifest has on a hub, where that is not in the cache. `false`: `go_on`,
/// asked a few times a second with a line about how far the download is, said to stop.
pub fn fetch(
    runtime: &Handle,
    manifest: &Manifest,
    settings: &HubSettings,
    mut go_on: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<bool, DataError> {
    for (role, source) in sources(&manifest.data) {
        if !runtime.block_on(source::fetch(source, role, settings, &mut go_on))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn short(key: &impl Serialize) -> String {
    // Structs of strings and numbers always become JSON.
    ContentHash::of(&serde_json::to_vec(key).unwrap_or_default()).short().to_owned()
}

fn without_places(manifest: &Manifest) -> DataSettings {
    let mut settings = manifest.data.clone();
    settings.train.paths.clear();
    settings.train.hub = None;
    for holdout in [&mut settings.validation, &mut settings.test] {
        if let Holdout::Source(source) = holdout {
            source.paths.clear();
            source.hub = None;
        }
    }
    settings
}

/// Runs what reads files or computes for long beside the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataError> + Send + 'static,
) -> Result<T, DataError> {
    let span = tracing::Span::current();
    let joined = spawn_blocking(move || {
        let _run = span.entered();
        work()
    });
    joined.await.map_err(|error| DataError::cut_off(&error))?
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
