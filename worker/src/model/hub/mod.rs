//! Models of a Hugging Face hub, downloaded once per machine into the cache of `huggingface_hub`.
//!
//! What the cache holds of a revision is not asked for again: all trials of a sweep start from the
//! same weights, whatever is published meanwhile.

mod progress;
#[cfg(test)]
mod tests;
mod waiting;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hf_hub::repository::{HFRepository, RepoTypeModel};
use hf_hub::{HFClient, HFClientBuilder, HFError};
use muster_common::digest::ContentHash;
use muster_common::manifest::HubName;
use muster_common::model::{CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, weights_files};
use muster_common::telemetry::one_line;
use tokio::runtime::Handle;

pub(crate) use progress::Watch;
pub(crate) use waiting::{attend, lock, lock_path};

/// A download that breaks is begun so many times in all.
const ATTEMPTS: u32 = 4;
/// Between the first two of them; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(250);
/// Revision without a name.
const MAIN: &str = "main";

/// What of a tokenizer is downloaded, where it is there.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];

/// Those of which one set makes a tokenizer.
const TOKENIZERS: [&[&str]; 3] =
    [&["tokenizer.json"], &["vocab.txt"], &["vocab.json", "merges.txt"]];

/// Why a model of the hub is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The hub does not know it.
    #[error(
        "there is no directory `{name}` here and no such model at {endpoint}: check the name and the revision"
    )]
    Missing {
        /// The model.
        name: String,
        /// URL of the hub.
        endpoint: String,
    },
    /// The hub does not show it.
    #[error("{endpoint} does not show `{name}`: {mend}")]
    Denied {
        /// The model.
        name: String,
        /// URL of the hub.
        endpoint: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// Nothing may be downloaded, and it is not there.
    #[error(
        "`{name}` is no directory here and not whole in {cache}, and HF_HUB_OFFLINE forbids to download it"
    )]
    Offline {
        /// The model.
        name: String,
        /// Directory of the cache.
        cache: String,
    },
    /// It is there, but nothing that this build reads.
    #[error("`{name}` at {endpoint} cannot be used: {reason}")]
    Unusable {
        /// The model.
        name: String,
        /// URL of the hub.
        endpoint: String,
        /// What is missing.
        reason: String,
    },
    /// The connection failed.
    #[error("`{name}` is no directory here and cannot be downloaded from {endpoint}: {reason}")]
    Download {
        /// The model.
        name: String,
        /// URL of the hub.
        endpoint: String,
        /// What the client says.
        reason: String,
    },
    /// The cache cannot be written.
    #[error("cannot write {path}")]
    Cache {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl HubError {
    /// Trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Download { .. } | Self::Cache { .. })
    }
}

/// Where models come from. Absent values are those that `huggingface_hub` takes from the
/// environment: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN` and the token file.
#[derive(Debug, Clone, Default)]
pub struct HubSettings {
    /// URL of the hub.
    pub endpoint: Option<String>,
    /// Directory of the cache.
    pub cache: Option<PathBuf>,
    /// Access token.
    pub token: Option<String>,
    /// Take what the cache has and download nothing.
    pub offline: bool,
}

impl HubSettings {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let offline = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_uppercase();
        let offline = matches!(offline.as_str(), "1" | "ON" | "YES" | "TRUE");
        Self { offline, ..Self::default() }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Result<HFClient, HFError> {
        // Whole files are tried again here, so the client need not be patient.
        let mut builder = HFClientBuilder::new().retry_max_attempts(1);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(cache) = &self.cache {
            builder = builder.cache_dir(cache);
        }
        if let Some(token) = &self.token {
            builder = builder.token(token);
        }
        builder.build()
    }
}

/// The directory of a model of the hub, downloaded where it is not in the cache. `None`: `go_on`,
/// asked a few times a second with a line about how far the download is, said to stop.
pub fn fetch(
    runtime: &Handle,
    name: &HubName,
    settings: &HubSettings,
    go_on: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Option<PathBuf>, HubError> {
    let hub = Hub::new(name, settings)?;
    if let Some(directory) = hub.cached() {
        return Ok(Some(directory));
    }
    if settings.offline {
        let cache = hub.client.cache_dir().display().to_string();
        return Err(HubError::Offline { name: name.to_string(), cache });
    }
    let failed = |reason| hub.failed(reason);
    runtime.block_on(attend(hub.download(), &hub.watch, go_on, failed))
}

/// One revision of one model.
struct Hub<'a> {
    name: &'a HubName,
    client: HFClient,
    repository: HFRepository<RepoTypeModel>,
    watch: Arc<Watch>,
    has_token: bool,
}

impl<'a> Hub<'a> {
    fn new(name: &'a HubName, settings: &HubSettings) -> Result<Self, HubError> {
        let client = settings.client().map_err(|error| HubError::Download {
            name: name.to_string(),
            endpoint: settings.endpoint.clone().unwrap_or_else(|| "the hub".to_owned()),
            reason: one_line(&error),
        })?;
        let owner = name.owner.clone().unwrap_or_default();
        let repository = client.model(owner, name.name.clone());
        let watch = Arc::new(Watch::new(name.to_string()));
        let has_token = settings.token.is_some() || std::env::var_os("HF_TOKEN").is_some();
        Ok(Self { name, client, repository, watch, has_token })
    }

    fn revision(&self) -> &str {
        self.name.revision.as_deref().unwrap_or(MAIN)
    }

    /// The folder of the model in the cache, as `huggingface_hub` names it.
    fn folder(&self) -> PathBuf {
        self.client.cache_dir().join(folder_name(self.name))
    }

    /// The model in the cache, if all of it is there. Weights come last, so they show it; but other programs leave
    /// models without their tokenizer.
    fn cached(&self) -> Option<PathBuf> {
        let revision = self.revision();
        let is_commit = revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit());
        let commit = if is_commit {
            revision.to_owned()
        } else {
            let written =
                std::fs::read_to_string(self.folder().join("refs").join(revision)).ok()?;
            written.trim().to_owned()
        };
        let directory = self.folder().join("snapshots").join(commit);
        let weights = weights_files(&directory).ok()?;
        let is_there = |name: &str| directory.join(name).is_file();
        let has_weights = weights.iter().all(|name| is_there(name)) && is_there(CONFIG_FILE);
        let has_tokenizer = TOKENIZERS.iter().any(|set| set.iter().all(|name| is_there(name)));
        (has_weights && has_tokenizer).then_some(directory)
    }

    /// Downloads, unless another process has while this one waited for it.
    async fn download(&self) -> Result<PathBuf, HubError> {
        let path = lock_path(self.client.cache_dir(), &folder_name(self.name));
        let refused = |source| HubError::Cache { path: path.display().to_string(), source };
        let _lock = lock(&path, &self.watch).await.map_err(refused)?;
        if let Some(directory) = self.cached() {
            return Ok(directory);
        }
        tracing::info!(
            "`{}` is no directory here; downloading it from {} into {}",
            self.name,
            self.client.endpoint(),
            self.client.cache_dir().display()
        );
        let mut attempt = 0;
        loop {
            match self.download_once().await {
                Ok(directory) => {
                    tracing::info!("{} is complete in {}", self.name, directory.display());
                    return Ok(directory);
                }
                Err(error @ HubError::Download { .. }) if attempt + 1 < ATTEMPTS => {
                    tracing::warn!("{error}; trying again");
                    tokio::time::sleep(PAUSE * 2u32.pow(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn download_once(&self) -> Result<PathBuf, HubError> {
        self.watch.alive();
        let info = self.repository.info().revision(self.revision()).send().await;
        let info = info.map_err(|error| self.explain(&error))?;
        let commit = info.sha.ok_or_else(|| self.failed("the hub names no commit".to_owned()))?;
        let listed: Vec<String> =
            info.siblings.into_iter().flatten().map(|sibling| sibling.rfilename).collect();
        let is_listed = |name: &str| listed.iter().any(|listed| listed == name);
        if !is_listed(CONFIG_FILE) {
            return Err(self.unusable(format!("it has no {CONFIG_FILE}")));
        }
        let mut directory = PathBuf::new();
        for file in std::iter::once(CONFIG_FILE).chain(TOKENIZER_FILES) {
            if is_listed(file) {
                directory = self.file(&commit, file).await?;
            }
        }
        if is_listed(WEIGHTS_FILE) {
            self.file(&commit, WEIGHTS_FILE).await?;
        } else if is_listed(WEIGHTS_INDEX_FILE) {
            self.file(&commit, WEIGHTS_INDEX_FILE).await?;
            let files = weights_files(&directory);
            for file in files.map_err(|error| self.unusable(error.to_string()))? {
                self.file(&commit, &file).await?;
            }
        } else {
            let reason = "it has no weights in safetensors; look for a revision that has, such as \
                          `@refs/pr/1`, or convert it";
            return Err(self.unusable(reason.to_owned()));
        }
        self.remember(&commit)?;
        Ok(directory)
    }

    /// Downloads one file and returns the directory it lies in.
    async fn file(&self, commit: &str, name: &str) -> Result<PathBuf, HubError> {
        let watch = Arc::clone(&self.watch);
        watch.begin(name);
        let download = self.repository.download_file().filename(name).revision(commit);
        let path = download.progress(watch).send().await.map_err(|error| self.explain(&error))?;
        let verified = verify(&path, self.watch.size());
        // Reading a large file takes its time.
        self.watch.alive();
        if let Err(reason) = verified {
            discard(&path).map_err(|(path, source)| HubError::Cache { path, source })?;
            return Err(self.failed(format!("{name} came damaged ({reason})")));
        }
        Ok(path.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// Writes down which commit the revision is, so that it is found in the cache.
    fn remember(&self, commit: &str) -> Result<(), HubError> {
        let revision = self.revision();
        if revision == commit {
            return Ok(());
        }
        let path = self.folder().join("refs").join(revision);
        let refused = |source| HubError::Cache { path: path.display().to_string(), source };
        let parent = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(parent).map_err(refused)?;
        // Readers see the old commit or the new one, never half of it.
        let beside = path.with_extension("muster-new");
        std::fs::write(&beside, commit).map_err(refused)?;
        std::fs::rename(&beside, &path).map_err(refused)
    }

    fn unusable(&self, reason: String) -> HubError {
        let (name, endpoint) = (self.name.to_string(), self.client.endpoint().to_owned());
        HubError::Unusable { name, endpoint, reason }
    }

    fn failed(&self, reason: String) -> HubError {
        let (name, endpoint) = (self.name.to_string(), self.client.endpoint().to_owned());
        HubError::Download { name, endpoint, reason }
    }

    fn explain(&self, error: &HFError) -> HubError {
        let (name, endpoint) = (self.name.to_string(), self.client.endpoint().to_owned());
        match error {
            HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } => {
                HubError::Missing { name, endpoint }
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                // The hub answers so for names that it does not know, too.
                let mend = if self.has_token {
                    "check the name, and whether your HF_TOKEN may read it"
                } else {
                    "check the name; if it is private or gated, set HF_TOKEN"
                };
                HubError::Denied { name, endpoint, mend }
            }
            error => HubError::Download { name, endpoint, reason: one_line(error) },
        }
    }
}

fn folder_name(name: &HubName) -> String {
    format!("models--{}", name.repository().replace('/', "--"))
}

/// Whether the file at `path` has the size that was announced, and the content: large files are
/// stored under the SHA-256 of theirs.
pub(crate) fn verify(path: &Path, size: u64) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let found = std::fs::metadata(path).map_err(told)?.len();
    if size > 0 && found != size {
        return Err(format!("{found} bytes instead of {size}"));
    }
    let blob = path.canonicalize().map_err(told)?;
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let sha256 = ContentHash::of_reader(File::open(&blob).map_err(told)?).map_err(told)?;
        if sha256.as_str() != name {
            return Err(format!("SHA-256 {} instead of {name}", sha256.as_str()));
        }
    }
    Ok(())
}

/// Removes what came instead of a file, which must not be taken for it the next time; fails with the path that
/// cannot be removed.
pub(crate) fn discard(path: &Path) -> Result<(), (String, std::io::Error)> {
    let blob = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    for path in [blob.as_path(), path] {
        if let Err(source) = std::fs::remove_file(path)
            && source.kind() != std::io::ErrorKind::NotFound
        {
            return Err((path.display().to_string(), source));
        }
    }
    Ok(())
}
