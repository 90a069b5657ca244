//! Data sets of a Hugging Face hub, as Parquet files, downloaded once per machine into the cache of
//! `huggingface_hub`. Variables are those of the original: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`,
//! `HF_TOKEN`, `HF_HUB_OFFLINE`.
//!
//! What the cache knows as a revision's commit stays that commit, so that all splits of a sweep are
//! of one.

mod layout;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hf_hub::repository::{HFRepository, RepoTypeDataset};
use hf_hub::{HFClient, HFError};
use muster_common::digest::ContentHash;
use muster_common::manifest::HubSet;
use muster_common::whole_file::write_whole;
use serde_json::json;

use super::Role;
use crate::data::DataError;
use crate::data::moves::moved;
use crate::model::{HubSettings, Watch, attend, discard, lock, lock_path, verify};
use layout::{choose, listed, tells_all};

/// A download that breaks is begun so many times in all.
const ATTEMPTS: u32 = 4;
/// Between the first two of them; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest time for the list of files.
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// Revision without a name.
const MAIN: &str = "main";
/// Folder of the cache beside the snapshots, for what `huggingface_hub` does not write down.
const LISTS: &str = "muster";

/// The files of a split, in the order of their rows, downloaded where they are not in the cache. `None`:
/// `go_on`, asked a few times a second with a line about how far the download is, said to stop.
pub(super) async fn files(
    set: &HubSet,
    role: Role,
    settings: &HubSettings,
    go_on: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Option<Vec<PathBuf>>, DataError> {
    let hub = Hub::new(set, role, settings)?;
    // What is not whole, or may not be, is looked for at the hub.
    if let Some(found) = hub.in_cache(settings.offline) {
        return Ok(Some(found));
    }
    if settings.offline {
        let cache = hub.client.cache_dir().display();
        let message = format!(
            "split `{}` of `{}` is not whole in {cache}, and HF_HUB_OFFLINE forbids to download it",
            hub.split, set.name
        );
        return Err(hub.refused(message));
    }
    attend(hub.download(), &hub.watch, go_on, |reason| hub.failed(reason)).await
}

struct Hub<'a> {
    set: &'a HubSet,
    role: Role,
    split: &'a str,
    client: HFClient,
    repository: HFRepository<RepoTypeDataset>,
    watch: Arc<Watch>,
}

impl<'a> Hub<'a> {
    fn new(set: &'a HubSet, role: Role, settings: &HubSettings) -> Result<Self, DataError> {
        let client = settings.client().map_err(|error| DataError::Hub {
            name: set.name.to_string(),
            endpoint: settings.endpoint.clone().unwrap_or_else(|| "the hub".to_owned()),
            reason: error.to_string(),
        })?;
        let owner = set.name.owner.clone().unwrap_or_default();
        let repository = client.dataset(owner, set.name.name.clone());
        let split = set.split.as_deref().unwrap_or(match role {
            Role::Train => "train",
            Role::Validation => "validation",
            Role::Test => "test",
        });
        let watch = Arc::new(Watch::new(set.name.to_string()));
        Ok(Self { set, role, split, client, repository, watch })
    }

    fn refused(&self, message: String) -> DataError {
        let place = match self.role {
            Role::Train => "data.train.hub",
            Role::Validation => "data.validation.hub",
            Role::Test => "data.test.hub",
        };
        DataError::refused(place, message)
    }

    fn failed(&self, reason: String) -> DataError {
        let (name, endpoint) = (self.set.name.to_string(), self.client.endpoint().to_owned());
        DataError::Hub { name, endpoint, reason }
    }

    fn revision(&self) -> &str {
        self.set.name.revision.as_deref().unwrap_or(MAIN)
    }

    /// The folder of the data set in the cache, as `huggingface_hub` names it.
    fn folder(&self) -> PathBuf {
        self.client.cache_dir().join(self.folder_name())
    }

    fn folder_name(&self) -> String {
        format!("datasets--{}", self.set.name.repository().replace('/', "--"))
    }

    /// The commit of the revision, where it is one or the cache knows it.
    fn known_commit(&self) -> Option<String> {
        let revision = self.revision();
        if revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Some(revision.to_owned());
        }
        let written = std::fs::read_to_string(self.folder().join("refs").join(revision)).ok()?;
        Some(written.trim().to_owned())
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// Where it is written down which files the split has at `commit`, when all are downloaded.
    fn list(&self, commit: &str) -> PathBuf {
        let what = format!("{commit} {:?} {}", self.set.config, self.split);
        let name = ContentHash::of(what.as_bytes()).short().to_owned();
        self.folder().join(LISTS).join(format!("{name}.json"))
    }

    /// The files of the split at the revision, if the cache knows that and has them; see [`Hub::cached`].
    fn in_cache(&self, trusting: bool) -> Option<Vec<PathBuf>> {
        self.known_commit().and_then(|commit| self.cached(&commit, trusting))
    }

    /// The files of the split in the cache, if they are all there. `trusting`: also those that may not be all, as
    /// nobody can be asked.
    fn cached(&self, commit: &str, trusting: bool) -> Option<Vec<PathBuf>> {
        let snapshot = self.snapshot(commit);
        let written = std::fs::read(self.list(commit)).ok();
        let written = written.and_then(|list| serde_json::from_slice::<Vec<String>>(&list).ok());
        let is_there = |name: &String| snapshot.join(name).is_file();
        let known = written.filter(|names| !names.is_empty() && names.iter().all(is_there));
        let names = known.or_else(|| {
            let config = self.set.config.as_deref();
            let names = choose(&listed(&snapshot), config, self.split).ok()?;
            let is_whole = names.iter().all(|name| tells_all(name, config));
            if !is_whole && trusting {
                tracing::warn!(
                    "whether all files of split `{}` of `{}` are in the cache is not known there",
                    self.split,
                    self.set.name
                );
            }
            (is_whole || trusting).then_some(names)
        })?;
        Some(names.into_iter().map(|name| snapshot.join(name)).collect())
    }

    /// Downloads, unless another process has while this one waited for it.
    async fn download(&self) -> Result<Vec<PathBuf>, DataError> {
        let path = lock_path(self.client.cache_dir(), &self.folder_name());
        let _lock = lock(&path, &self.watch).await.map_err(|source| unwritten(&path, source))?;
        if let Some(found) = self.in_cache(false) {
            return Ok(found);
        }
        let (name, endpoint) = (&self.set.name, self.client.endpoint());
        tracing::info!("downloading split `{}` of `{name}` from {endpoint}", self.split);
        let mut attempt = 0;
        loop {
            match self.download_once().await {
                Err(error @ DataError::Hub { .. }) if attempt + 1 < ATTEMPTS => {
                    tracing::warn!("{error}; trying again");
                    tokio::time::sleep(PAUSE * 2u32.pow(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn download_once(&self) -> Result<Vec<PathBuf>, DataError> {
        self.watch.alive();
        let known = self.known_commit();
        let revision = known.as_deref().unwrap_or(self.revision());
        let info = self.repository.info().revision(revision).send();
        let info = tokio::time::timeout(LIST_DEADLINE, info).await;
        let info = info.map_err(|_| self.failed("the hub does not answer".to_owned()))?;
        let info = info.map_err(|error| self.explain(&error))?;
        let commit = info.sha.ok_or_else(|| self.failed("the hub names no commit".to_owned()))?;
        let listed: Vec<String> =
            info.siblings.into_iter().flatten().map(|sibling| sibling.rfilename).collect();
        let names = choose(&listed, self.set.config.as_deref(), self.split).map_err(|why| {
            self.refused(format!("`{}` at {}: {why}", self.set.name, self.client.endpoint()))
        })?;
        let mut paths = Vec::with_capacity(names.len());
        for name in &names {
            paths.push(self.file(&commit, name).await?);
            moved();
        }
        self.note_whole(&commit, &names)?;
        self.remember(&commit)?;
        Ok(paths)
    }

    async fn file(&self, commit: &str, name: &str) -> Result<PathBuf, DataError> {
        self.watch.begin(name);
        let download = self.repository.download_file().filename(name).revision(commit);
        let path = download.progress(Arc::clone(&self.watch)).send().await;
        let path = path.map_err(|error| self.explain(&error))?;
        let (checked, size) = (path.clone(), self.watch.size());
        let verified = tokio::task::spawn_blocking(move || verify(&checked, size)).await;
        self.watch.alive();
        if let Err(reason) = verified.map_err(|error| DataError::cut_off(&error))? {
            discard(&path).map_err(|(path, source)| DataError::HubCache { path, source })?;
            return Err(self.failed(format!("{name} came damaged ({reason})")));
        }
        Ok(path)
    }

    /// Writes down which files the split has.
    fn note_whole(&self, commit: &str, names: &[String]) -> Result<(), DataError> {
        let path = self.list(commit);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(&path))
            .and_then(|()| write_whole(&path, json!(names).to_string()));
        written.map_err(|source| unwritten(&path, source))
    }

    /// Writes down which commit the revision is, so that it is found in the cache.
    fn remember(&self, commit: &str) -> Result<(), DataError> {
        let revision = self.revision();
        if revision == commit {
            return Ok(());
        }
        let path = self.folder().join("refs").join(revision);
        let beside = path.with_extension(format!("muster-{}", std::process::id()));
        let parent = path.parent().unwrap_or(&path);
        let written = std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&beside, commit))
            // Readers see the old commit or the new one, never half of it.
            .and_then(|()| std::fs::rename(&beside, &path));
        written.map_err(|source| unwritten(&path, source))
    }

    fn explain(&self, error: &HFError) -> DataError {
        let (name, endpoint) = (&self.set.name, self.client.endpoint());
        match error {
            HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } => {
                let mend = "check the name and the revision";
                self.refused(format!("there is no data set `{name}` at {endpoint}: {mend}"))
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                let mend = "check the name; if it is private or gated, HF_TOKEN must be allowed to read it";
                self.refused(format!("{endpoint} does not show `{name}`: {mend}"))
            }
            error => self.failed(error.to_string()),
        }
    }
}

/// The cache cannot be written.
fn unwritten(path: &Path, source: std::io::Error) -> DataError {
    DataError::HubCache { path: path.display().to_string(), source }
}
