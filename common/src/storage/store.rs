//! A thin door to one prefix of an object store.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::failure::{Failure, failure_of};
use super::location::{CREDENTIALS_MEND, Location, is_local, object_url};
use super::remote::{self, Patience};
use super::uploads::S3Uploads;

/// How often an object is created when nobody knows whether it was.
const CREATE_TRIES: u32 = 3;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL cannot be used.
    #[error(
        "`{url}` is no object store: {reason}; write a directory, file:///DIRECTORY, s3://CONTAINER/PREFIX, \
         gs://CONTAINER/PREFIX or az://CONTAINER/PREFIX"
    )]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A URL with a credential in it, which would be written into logs and journals.
    #[error("the URL of {url} holds a credential: take it out, and {CREDENTIALS_MEND}")]
    InlineSecret {
        /// What is left of the URL without it.
        url: String,
    },
    /// The store does not accept who asks.
    #[error("the object store {url} refuses the credentials ({reason}); {CREDENTIALS_MEND}")]
    Denied {
        /// The store.
        url: String,
        /// Code and message of its answer.
        reason: String,
        /// They may be accepted in a minute: a token that is renewed, a clock that is set.
        is_passing: bool,
    },
    /// Nothing says who asks.
    #[error("there are no credentials for the object store {url}; {CREDENTIALS_MEND}")]
    NoCredentials {
        /// The store.
        url: String,
    },
    /// The container does not exist.
    #[error("the object store {url} has no such container; create it, or correct the URL")]
    NoContainer {
        /// The store.
        url: String,
    },
    /// The store cannot be reached at all, seen before anything else was asked of it.
    #[error("the object store {url} does not answer; is its endpoint right, and does it run?")]
    Silent {
        /// The store.
        url: String,
        /// The cause.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The object is not there.
    #[error("no object at {key} in {url}")]
    Missing {
        /// Its key.
        key: String,
        /// The store.
        url: String,
    },
    /// Somebody else has written the object already.
    #[error("an object exists already at {key} in {url}")]
    Exists {
        /// Its key.
        key: String,
        /// The store.
        url: String,
    },
    /// Anything else: network, rights, disk.
    #[error("cannot {verb} {key} in {url}")]
    Io {
        /// `read`, `write`, `list` or `delete`.
        verb: &'static str,
        /// The key or prefix.
        key: String,
        /// The store.
        url: String,
        /// The cause.
        #[source]
        source: Box<object_store::Error>,
    },
}

impl StoreError {
    /// Trying again cannot help: the settings are wrong, not the network.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::InlineSecret { .. }
            | Self::NoCredentials { .. }
            | Self::NoContainer { .. } => true,
            Self::Denied { is_passing, .. } => !is_passing,
            _ => false,
        }
    }

    /// Whether the settings or the environment must be changed, now or in a minute.
    pub fn is_of_settings(&self) -> bool {
        self.is_permanent() || matches!(self, Self::Denied { .. } | Self::Silent { .. })
    }
}

/// One prefix of an object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    url: Arc<str>,
    local_root: Option<Arc<FilePath>>,
    uploads: Option<Arc<S3Uploads>>,
}

impl Store {
    /// Opens `location`: a directory, a `file://` URL (relative ones too), or an `s3://`, `gs://` or
    /// `az://` URL with its options. Directories are created; of a remote store nothing is asked yet.
    /// Credentials come from the environment of this process.
    pub fn open(location: &str) -> Result<Self, StoreError> {
        Self::open_with(location, Patience::Long)
    }

    fn open_with(location: &str, patience: Patience) -> Result<Self, StoreError> {
        if is_local(location) {
            let directory = location.strip_prefix("file://").unwrap_or(location);
            return Self::open_directory(FilePath::new(directory)).map_err(|error| {
                StoreError::Url { url: location.to_owned(), reason: error.to_string() }
            });
        }
        let location = Location::parse(location)?;
        let url = location.text();
        let variable = |name: &str| std::env::var(name).ok();
        let store = remote::open(&location, patience, variable);
        let store = store
            .map_err(|error| StoreError::Url { url: url.clone(), reason: error.to_string() })?;
        let inner: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(store.objects, store.prefix));
        let uploads = store.uploads.map(Arc::new);
        Ok(Self { inner, url: url.into(), local_root: None, uploads })
    }

    /// Opens `location` and asks it for the names of a few objects, without much patience: a wrong
    /// credential, container or endpoint is known in seconds and before anything depends on it.
    pub async fn open_checked(location: &str) -> Result<Self, StoreError> {
        let store = Self::open(location)?;
        if !is_local(location) {
            Self::open_with(location, Patience::Short)?.greet().await?;
        }
        Ok(store)
    }

    async fn greet(&self) -> Result<(), StoreError> {
        let first = self.inner.list(None).try_next().await;
        match first.map_err(|error| self.explain("list", &Path::default(), error)) {
            Ok(_) => Ok(()),
            Err(StoreError::Io { url, source, .. }) => Err(StoreError::Silent { url, source }),
            Err(StoreError::Missing { url, .. }) => Err(StoreError::NoContainer { url }),
            Err(error) => Err(error),
        }
    }

    /// An empty store in the memory of this process. It is not on this host's disk, so in tests it
    /// stands for a remote one.
    pub fn in_memory() -> Self {
        Self::of_objects(InMemory::new())
    }

    /// A store of these objects, which counts as a remote one.
    pub(super) fn of_objects(objects: impl ObjectStore) -> Self {
        Self { inner: Arc::new(objects), url: "memory:///".into(), local_root: None, uploads: None }
    }

    fn open_directory(directory: &FilePath) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let root = directory.canonicalize()?;
        // A checkpoint that is said to exist must survive a power cut too.
        let inner = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        let url = format!("file://{}", root.display());
        let inner = Arc::new(inner);
        Ok(Self { inner, url: url.into(), local_root: Some(root.into()), uploads: None })
    }

    /// The absolute URL; [`Store::open`] of it in any process on this host gives the same store.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where an object lies on this host's disk, for `file://` stores: to map it into memory or to
    /// show it to a person.
    pub fn local_path(&self, key: &Path) -> Option<PathBuf> {
        let root = self.local_root.as_ref()?;
        // Keys never begin with a slash, which would lead out of the root.
        Some(match key.as_ref() {
            "" => root.to_path_buf(),
            key => root.join(key),
        })
    }

    /// What a person types to find `key`: a file path or a URL.
    pub fn display(&self, key: &Path) -> String {
        match self.local_path(key) {
            Some(path) => path.display().to_string(),
            None => object_url(&self.url, key),
        }
    }

    /// Writes an object whole, replacing one that is there.
    pub async fn put(&self, key: &Path, bytes: impl Into<PutPayload>) -> Result<(), StoreError> {
        let result = self.inner.put(key, bytes.into()).await;
        result.map(drop).map_err(|error| self.explain("write", key, error))
    }

    /// Writes an object only if none is there; [`StoreError::Exists`] otherwise. A write whose answer got
    /// lost finds its own object when it is repeated, which is known by its contents: two writers of the
    /// same bytes cannot be told apart.
    pub async fn create(&self, key: &Path, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        let bytes = bytes.into();
        let mut tries = 1;
        loop {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let written = self.inner.put_opts(key, bytes.clone().into(), options).await;
            let Err(source) = written else { return Ok(()) };
            let error = self.explain("write", key, source);
            // On this host no answer gets lost.
            if error.is_permanent() || self.is_on_this_host() {
                return Err(error);
            }
            match self.find(key).await {
                Ok(Some(found)) if found == bytes => return Ok(()),
                Ok(Some(_)) => {
                    return Err(StoreError::Exists {
                        key: key.to_string(),
                        url: self.url.to_string(),
                    });
                }
                Ok(None) if tries < CREATE_TRIES => tries += 1,
                Ok(None) | Err(_) => return Err(error),
            }
        }
    }

    /// Reads an object whole.
    pub async fn get(&self, key: &Path) -> Result<Bytes, StoreError> {
        let result = match self.inner.get(key).await {
            Ok(object) => object.bytes().await,
            Err(error) => Err(error),
        };
        result.map_err(|error| self.explain("read", key, error))
    }

    /// Reads an object whole if it is there.
    pub async fn find(&self, key: &Path) -> Result<Option<Bytes>, StoreError> {
        match self.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keys below `prefix`, sorted.
    pub async fn list(&self, prefix: &Path) -> Result<Vec<Path>, StoreError> {
        let listing = self.inner.list(Some(prefix)).map_ok(|object| object.location);
        let mut keys: Vec<Path> =
            listing.try_collect().await.map_err(|error| self.explain("list", prefix, error))?;
        keys.sort();
        Ok(keys)
    }

    /// Deletes an object; one that is gone already is no error.
    pub async fn delete(&self, key: &Path) -> Result<(), StoreError> {
        match self.inner.delete(key).await.map_err(|error| self.explain("delete", key, error)) {
            Ok(()) | Err(StoreError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn is_on_this_host(&self) -> bool {
        self.local_root.is_some()
    }

    pub(super) fn uploads(&self) -> Option<&S3Uploads> {
        self.uploads.as_deref()
    }

    pub(super) fn objects(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    pub(super) fn explain(
        &self,
        verb: &'static str,
        key: &Path,
        source: object_store::Error,
    ) -> StoreError {
        let (key, url) = (key.to_string(), self.url.to_string());
        match failure_of(&source) {
            Failure::Missing => StoreError::Missing { key, url },
            Failure::Exists => StoreError::Exists { key, url },
            Failure::NoContainer => StoreError::NoContainer { url },
            Failure::NoCredentials => StoreError::NoCredentials { url },
            Failure::Denied { reason, is_passing } => {
                StoreError::Denied { url, reason, is_passing }
            }
            Failure::Other => StoreError::Io { verb, key, url, source: Box::new(source) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn create_never_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let key = Path::from("a/b.json");
        store.create(&key, Bytes::from_static(b"first")).await.unwrap();
        let second = store.create(&key, Bytes::from_static(b"second")).await;
        assert!(matches!(second, Err(StoreError::Exists { .. })));
        assert_eq!(store.get(&key).await.unwrap().as_ref(), b"first");
        let remote = Store::in_memory();
        remote.create(&key, Bytes::from_static(b"first")).await.unwrap();
        remote.create(&key, Bytes::from_static(b"first")).await.unwrap();
        let second = remote.create(&key, Bytes::from_static(b"second")).await;
        assert!(matches!(second, Err(StoreError::Exists { .. })));
        assert!(store.local_path(&key).unwrap().is_file());
        assert_eq!(store.list(&Path::from("a")).await.unwrap(), vec![key.clone()]);
        store.delete(&key).await.unwrap();
        store.delete(&key).await.unwrap();
        assert_eq!(store.find(&key).await.unwrap(), None);
    }

    #[test]
    fn a_wrong_url_says_what_to_write() {
        let error = Store::open("ftp://host/x").unwrap_err().to_string();
        assert!(error.contains("s3://"), "{error}");
    }
}
