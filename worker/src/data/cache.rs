//! Tokenized splits in the store's cache: one safetensors object, then an index with its digest.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path as FilePath;
use std::sync::Arc;

use muster_common::digest::ContentHash;
use muster_common::run::DataSummary;
use muster_common::storage::{Layout, Store, StoreError};
use object_store::path::Path;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::spill::Assembly;
use super::{DataError, Split};
use crate::ffi::MappedFile;

/// Version of everything between the files and the tokens: raised when a row could come out
/// otherwise than before.
pub(super) const DATA_FORMAT: u32 = 2;

/// Name of the object and of its index within the cache entry.
const PART: &str = "data";

/// Name of the list of findings within the cache entry.
pub(super) const FINDINGS: &str = "problems.jsonl";

/// Contents of the index.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    format: u32,
    bytes: u64,
    sha256: ContentHash,
    summary: DataSummary,
}

/// What a cache entry holds.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) train: Split,
    pub(super) validation: Split,
    pub(super) test: Option<Split>,
    pub(super) summary: DataSummary,
}

/// What was found under a hash.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// The entry cannot be used, and why.
    Damaged(String),
    Entry(Box<Entry>),
}

/// The object whose presence commits an entry.
pub(super) fn index_key(hash: &str) -> Path {
    Layout::cache_index(hash, PART)
}

fn object(hash: &str) -> Path {
    Layout::cache(hash).join(format!("{PART}.safetensors"))
}

/// Checks and maps an entry. An object that is not on this host is fetched into a file without a
/// name below `folder` first.
pub(super) async fn find(store: &Store, hash: &str, folder: &FilePath) -> Result<Found, DataError> {
    let Some(index) = store.find(&index_key(hash)).await? else {
        return Ok(Found::Nothing);
    };
    let index: Index = match serde_json::from_slice(&index) {
        Ok(index) => index,
        Err(error) => return Ok(Found::Damaged(format!("index: {error}"))),
    };
    let opened = match store.local_path(&object(hash)) {
        Some(path) => open_local(&path)?,
        None => fetch(store, hash, folder).await?,
    };
    let Some(file) = opened else {
        return Ok(Found::Damaged("the tokens are missing".to_owned()));
    };
    let decoded = spawn_blocking(move || decode(index, file)).await;
    Ok(match decoded.map_err(|error| DataError::cut_off(&error))? {
        Ok(entry) => Found::Entry(Box::new(entry)),
        Err(reason) => Found::Damaged(reason),
    })
}

/// The tokens of a store on this host, if they are there.
fn open_local(path: &FilePath) -> Result<Option<File>, DataError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataError::Read { path: path.display().to_string(), source }),
    }
}

/// The tokens of a store that is elsewhere, if they are there, in a file of this host.
async fn fetch(store: &Store, hash: &str, folder: &FilePath) -> Result<Option<File>, DataError> {
    let file = spill_file(folder)?;
    let copy = file.try_clone().map_err(|source| failed(folder, source))?;
    match store.download(&object(hash), copy).await {
        Ok(_) => Ok(Some(file)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A file without a name below `folder`.
fn spill_file(folder: &FilePath) -> Result<File, DataError> {
    tempfile::tempfile_in(folder).map_err(|source| failed(folder, source))
}

fn failed(folder: &FilePath, source: io::Error) -> DataError {
    DataError::Spill { folder: folder.display().to_string(), source }
}

/// Writes an entry: tokens, then the list of findings, the index last. Workers that write the same
/// entry at once write the same bytes; `replace` overwrites the index of a damaged entry.
pub(super) async fn put(
    store: &Store,
    hash: &str,
    assembly: &Assembly<'_>,
    findings: File,
    summary: &DataSummary,
    replace: bool,
    folder: &FilePath,
) -> Result<(), DataError> {
    let reader = || assembly.reader().map_err(|source| failed(folder, source));
    let hashed = reader()?;
    let sha256 = spawn_blocking(move || ContentHash::of_reader(hashed)).await;
    let sha256 = sha256.map_err(|error| DataError::cut_off(&error))?;
    let sha256 = sha256.map_err(|source| failed(folder, source))?;
    store.upload(&object(hash), reader()?).await?;
    store.upload(&Layout::cache(hash).join(FINDINGS), findings).await?;
    let bytes = assembly.num_bytes();
    let index = Index { format: DATA_FORMAT, bytes, sha256, summary: summary.clone() };
    // Structs of strings and numbers always become JSON.
    let index = serde_json::to_vec_pretty(&index).unwrap_or_default();
    let key = index_key(hash);
    if replace {
        return Ok(store.put(&key, index).await?);
    }
    match store.create(&key, index).await {
        Err(StoreError::Exists { .. }) => Ok(()),
        result => Ok(result?),
    }
}

fn decode(index: Index, mut file: File) -> Result<Entry, String> {
    if index.format != DATA_FORMAT {
        return Err(format!("format {} instead of {DATA_FORMAT}", index.format));
    }
    let said = |error: io::Error| error.to_string();
    let num_bytes = file.metadata().map_err(said)?.len();
    if num_bytes != index.bytes {
        return Err(format!("{num_bytes} bytes instead of {}", index.bytes));
    }
    // Read, not through the mapping: what is only looked at once should not count as memory in use.
    file.seek(SeekFrom::Start(0)).map_err(said)?;
    let found = file.try_clone().and_then(ContentHash::of_reader).map_err(said)?;
    if found != index.sha256 {
        return Err(format!("sha256 {} instead of {}", found.short(), index.sha256.short()));
    }
    let mapped = Arc::new(MappedFile::open(&file).map_err(said)?);
    let (_, metadata) =
        SafeTensors::read_metadata(mapped.bytes()).map_err(|error| error.to_string())?;
    let has_test = metadata.tensors().contains_key("test.labels");
    let num_classes = index.summary.labels.len().max(1);
    let split = |name: &str| {
        let split = Split::mapped(&mapped, name)?;
        let fits = |index| usize::try_from(split.label(index)).is_ok_and(|n| n < num_classes);
        if (0..split.len()).all(fits) {
            return Ok(split);
        }
        Err(format!("{name} has labels beyond the classes"))
    };
    let test = if has_test { Some(split("test")?) } else { None };
    let (train, validation) = (split("train")?, split("validation")?);
    Ok(Entry { train, validation, test, summary: index.summary })
}
