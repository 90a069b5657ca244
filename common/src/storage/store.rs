//! A thin door to one prefix of an object store.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, parse_url_opts};
use url::Url;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL cannot be used.
    #[error(
        "`{url}` is no object store: {reason}; write a directory, file:///DIRECTORY or s3://CONTAINER/PREFIX"
    )]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        reason: String,
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

/// One prefix of an object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    url: Arc<str>,
    local_root: Option<Arc<FilePath>>,
}

impl Store {
    /// Opens `location`: a directory, `file://` URL (relative ones too) or any URL that
    /// `object_store` knows. Directories are created.
    pub fn open(location: &str) -> Result<Self, StoreError> {
        let wrong = |reason: String| StoreError::Url { url: location.to_owned(), reason };
        let directory = match location.strip_prefix("file://") {
            Some(path) => Some(path),
            None if location.contains("://") => None,
            None => Some(location),
        };
        if let Some(directory) = directory {
            return Self::open_directory(FilePath::new(directory))
                .map_err(|error| wrong(error.to_string()));
        }
        let url = Url::parse(location).map_err(|error| wrong(error.to_string()))?;
        let environment = std::env::vars().filter_map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            name.starts_with("aws_").then_some((name, value))
        });
        let (store, prefix) =
            parse_url_opts(&url, environment).map_err(|error| wrong(error.to_string()))?;
        let inner: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(store, prefix));
        Ok(Self { inner, url: location.into(), local_root: None })
    }

    /// An empty store in the memory of this process. It is not on this host's disk, so in tests it
    /// stands for a remote one.
    pub fn in_memory() -> Self {
        Self { inner: Arc::new(InMemory::new()), url: "memory:///".into(), local_root: None }
    }

    fn open_directory(directory: &FilePath) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let root = directory.canonicalize()?;
        // A checkpoint that is said to exist must survive a power cut too.
        let inner = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        let url = format!("file://{}", root.display());
        Ok(Self { inner: Arc::new(inner), url: url.into(), local_root: Some(root.into()) })
    }

    /// The absolute URL; [`Store::open`] of it in any process on this host gives the same store.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where an object lies on this host's disk, for `file://` stores: to map it into memory or to
    /// show it to a person.
    pub fn local_path(&self, key: &Path) -> Option<PathBuf> {
        let root = self.local_root.as_ref()?;
        Some(key.parts().fold(root.to_path_buf(), |path, part| path.join(part.as_ref())))
    }

    /// What a person types to find `key`: a file path or a URL.
    pub fn display(&self, key: &Path) -> String {
        match self.local_path(key) {
            Some(path) => path.display().to_string(),
            None => format!("{}/{key}", self.url.trim_end_matches('/')),
        }
    }

    /// Writes an object whole, replacing one that is there.
    pub async fn put(&self, key: &Path, bytes: impl Into<PutPayload>) -> Result<(), StoreError> {
        let result = self.inner.put(key, bytes.into()).await;
        result.map(drop).map_err(|error| self.explain("write", key, error))
    }

    /// Writes an object only if none is there; [`StoreError::Exists`] otherwise.
    pub async fn create(&self, key: &Path, bytes: impl Into<PutPayload>) -> Result<(), StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let result = self.inner.put_opts(key, bytes.into(), options).await;
        result.map(drop).map_err(|error| self.explain("write", key, error))
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
        match self.inner.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.explain("delete", key, error)),
        }
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
        match source {
            object_store::Error::NotFound { .. } => StoreError::Missing { key, url },
            object_store::Error::AlreadyExists { .. } => StoreError::Exists { key, url },
            source => StoreError::Io { verb, key, url, source: Box::new(source) },
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
