//! What is kept of data in the store's cache: rows until they are tokenized, then tokens. An entry is
//! one safetensors object, then an index with its digest.

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

use super::rows::Rows;
use super::spill::{Assembly, failed};
use super::{DataError, Split};
use crate::ffi::MappedFile;

/// Version of everything between the files and the tokens: raised when a row could come out
/// otherwise than before.
pub(super) const DATA_FORMAT: u32 = 4;

/// Name of the tokens and of their index within a cache entry.
const TOKENS: &str = "data";

/// Name of the rows and of their index within a cache entry.
const ROWS: &str = "rows";

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
pub(super) enum Found<T> {
    Nothing,
    /// The entry cannot be used, and why.
    Damaged(String),
    Entry(T),
}

/// The object whose presence commits tokens.
pub(super) fn tokens_index(hash: &str) -> Path {
    Layout::cache_index(hash, TOKENS)
}

/// The object whose presence commits rows.
pub(super) fn rows_index(hash: &str) -> Path {
    Layout::cache_index(hash, ROWS)
}

fn object(hash: &str, part: &str) -> Path {
    Layout::cache(hash).join(format!("{part}.safetensors"))
}

/// Checks and maps tokens. An object that is not on this host is fetched into a file without a name
/// below `folder` first.
pub(super) async fn find(
    store: &Store,
    hash: &str,
    folder: &FilePath,
) -> Result<Found<Box<Entry>>, DataError> {
    let decode = |object| decode_tokens(object).map(Box::new);
    find_part(store, (hash, TOKENS), folder, decode).await
}

/// The same for rows, with what is known of them before they are tokenized.
pub(super) async fn find_rows(
    store: &Store,
    hash: &str,
    folder: &FilePath,
) -> Result<Found<(Rows, DataSummary)>, DataError> {
    let folder_of_rows = folder.to_owned();
    let decode = move |Object { summary, file, mapped }| {
        let num_classes = summary.labels.len().max(1);
        let rows = Rows::open(file, &mapped, &folder_of_rows, num_classes)?;
        Ok((rows, summary))
    };
    find_part(store, (hash, ROWS), folder, decode).await
}

/// An object that is what its index says.
struct Object {
    summary: DataSummary,
    file: File,
    mapped: Arc<MappedFile>,
}

async fn find_part<T: Send + 'static>(
    store: &Store,
    (hash, part): (&str, &str),
    folder: &FilePath,
    decode: impl FnOnce(Object) -> Result<T, String> + Send + 'static,
) -> Result<Found<T>, DataError> {
    let Some(index) = store.find(&Layout::cache_index(hash, part)).await? else {
        return Ok(Found::Nothing);
    };
    let index: Index = match serde_json::from_slice(&index) {
        Ok(index) => index,
        Err(error) => return Ok(Found::Damaged(format!("index: {error}"))),
    };
    let key = object(hash, part);
    let opened = match store.local_path(&key) {
        Some(path) => open_local(&path)?,
        None => fetch(store, &key, folder).await?,
    };
    let Some(file) = opened else {
        return Ok(Found::Damaged(format!("{part} is missing")));
    };
    let decoded = spawn_blocking(move || check(index, file).and_then(decode)).await;
    Ok(match decoded.map_err(|error| DataError::cut_off(&error))? {
        Ok(entry) => Found::Entry(entry),
        Err(reason) => Found::Damaged(reason),
    })
}

/// An object of a store on this host, if it is there.
fn open_local(path: &FilePath) -> Result<Option<File>, DataError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataError::Read { path: path.display().to_string(), source }),
    }
}

/// An object of a store that is elsewhere, if it is there, in a file of this host.
async fn fetch(store: &Store, key: &Path, folder: &FilePath) -> Result<Option<File>, DataError> {
    let file = spill_file(folder)?;
    let copy = file.try_clone().map_err(|source| failed(folder, source))?;
    match store.download(key, copy).await {
        Ok(_) => Ok(Some(file)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A file without a name below `folder`.
fn spill_file(folder: &FilePath) -> Result<File, DataError> {
    tempfile::tempfile_in(folder).map_err(|source| failed(folder, source))
}

/// Writes tokens, the index last. Workers that write the same entry at once write the same bytes;
/// `replace` overwrites the index of a damaged entry.
pub(super) async fn put(
    store: &Store,
    hash: &str,
    assembly: &Assembly<'_>,
    summary: &DataSummary,
    replace: bool,
    folder: &FilePath,
) -> Result<(), DataError> {
    put_part(store, (hash, TOKENS), assembly, summary, replace, folder).await
}

/// The same for rows. What was found in them is written before and stays when they go.
pub(super) async fn put_rows(
    store: &Store,
    hash: &str,
    assembly: &Assembly<'_>,
    summary: &DataSummary,
    replace: bool,
    folder: &FilePath,
) -> Result<(), DataError> {
    put_part(store, (hash, ROWS), assembly, summary, replace, folder).await
}

/// Writes the list of what was found in rows.
pub(super) async fn put_findings(
    store: &Store,
    hash: &str,
    findings: File,
) -> Result<(), DataError> {
    Ok(store.upload(&Layout::cache(hash).join(FINDINGS), findings).await?)
}

/// Removes rows, the index first.
pub(super) async fn remove_rows(store: &Store, hash: &str) -> Result<(), DataError> {
    store.delete(&rows_index(hash)).await?;
    Ok(store.delete(&object(hash, ROWS)).await?)
}

async fn put_part(
    store: &Store,
    (hash, part): (&str, &str),
    assembly: &Assembly<'_>,
    summary: &DataSummary,
    replace: bool,
    folder: &FilePath,
) -> Result<(), DataError> {
    let reader = || assembly.reader().map_err(|source| failed(folder, source));
    let hashed = reader()?;
    let sha256 = spawn_blocking(move || ContentHash::of_reader(hashed)).await;
    let sha256 = sha256.map_err(|error| DataError::cut_off(&error))?;
    let sha256 = sha256.map_err(|source| failed(folder, source))?;
    store.upload(&object(hash, part), reader()?).await?;
    let bytes = assembly.num_bytes();
    let index = Index { format: DATA_FORMAT, bytes, sha256, summary: summary.clone() };
    // Structs of strings and numbers always become JSON.
    let index = serde_json::to_vec_pretty(&index).unwrap_or_default();
    let key = Layout::cache_index(hash, part);
    if replace {
        return Ok(store.put(&key, index).await?);
    }
    match store.create(&key, index).await {
        Err(StoreError::Exists { .. }) => Ok(()),
        result => Ok(result?),
    }
}

/// Whether an object is what its index says.
fn check(index: Index, mut file: File) -> Result<Object, String> {
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
    Ok(Object { summary: index.summary, file, mapped })
}

fn decode_tokens(Object { summary, mapped, .. }: Object) -> Result<Entry, String> {
    let (_, metadata) =
        SafeTensors::read_metadata(mapped.bytes()).map_err(|error| error.to_string())?;
    let has_test = metadata.tensors().contains_key("test.labels");
    let num_classes = summary.labels.len().max(1);
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
    Ok(Entry { train, validation, test, summary })
}
