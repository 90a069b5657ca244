//! Tokenized splits in the store's cache: one safetensors object, then an index with its digest.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_common::digest::ContentHash;
use muster_common::run::DataSummary;
use muster_common::storage::{Layout, Store, StoreError};
use object_store::path::Path;
use safetensors::{Dtype, SafeTensors, View, serialize};
use serde::{Deserialize, Serialize};

use super::Split;

/// Version of everything between the files and the tokens: raised when a row could come out
/// otherwise than before.
pub(super) const DATA_FORMAT: u32 = 1;

/// Name of the object and of its index within the cache entry.
const PART: &str = "data";

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

fn object(hash: &str) -> Path {
    Layout::cache(hash).join(format!("{PART}.safetensors"))
}

/// Reads and checks an entry.
pub(super) async fn find(store: &Store, hash: &str) -> Result<Found, StoreError> {
    let Some(index) = store.find(&Layout::cache_index(hash, PART)).await? else {
        return Ok(Found::Nothing);
    };
    let index: Index = match serde_json::from_slice(&index) {
        Ok(index) => index,
        Err(error) => return Ok(Found::Damaged(format!("index: {error}"))),
    };
    let Some(bytes) = store.find(&object(hash)).await? else {
        return Ok(Found::Damaged("the tokens are missing".to_owned()));
    };
    Ok(match decode(index, &bytes) {
        Ok(entry) => Found::Entry(Box::new(entry)),
        Err(reason) => Found::Damaged(reason),
    })
}

/// Writes an entry, the index last. Workers that write the same entry at once write the same bytes;
/// `replace` overwrites the index of a damaged entry.
pub(super) async fn put(
    store: &Store,
    hash: &str,
    entry: &Entry,
    replace: bool,
) -> Result<(), StoreError> {
    let Some((index, bytes)) = encode(entry) else {
        tracing::warn!(hash, "the tokenized data cannot be written and is not cached");
        return Ok(());
    };
    store.put(&object(hash), bytes).await?;
    let key = Layout::cache_index(hash, PART);
    if replace {
        return store.put(&key, index).await;
    }
    match store.create(&key, index).await {
        Err(StoreError::Exists { .. }) => Ok(()),
        result => result,
    }
}

/// One tensor of the object.
struct Column {
    dtype: Dtype,
    shape: [usize; 1],
    bytes: Vec<u8>,
}

impl View for &Column {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        std::borrow::Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Column {
    fn of_u32(values: &[u32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::U32, shape: [values.len()], bytes }
    }

    fn of_u64(values: &[u64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::U64, shape: [values.len()], bytes }
    }
}

fn encode(entry: &Entry) -> Option<(Bytes, Bytes)> {
    let splits = [("train", Some(&entry.train)), ("validation", Some(&entry.validation))];
    let mut columns: BTreeMap<String, Column> = BTreeMap::new();
    for (name, split) in splits.into_iter().chain([("test", entry.test.as_ref())]) {
        let Some(split) = split else { continue };
        let (tokens, offsets, labels) = split.columns();
        columns.insert(format!("{name}.tokens"), Column::of_u32(tokens));
        columns.insert(format!("{name}.offsets"), Column::of_u64(offsets));
        columns.insert(format!("{name}.labels"), Column::of_u32(labels));
    }
    let bytes = serialize(&columns, None).ok()?;
    let index = Index {
        format: DATA_FORMAT,
        bytes: bytes.len() as u64,
        sha256: ContentHash::of(&bytes),
        summary: entry.summary.clone(),
    };
    let index = serde_json::to_vec_pretty(&index).ok()?;
    Some((index.into(), bytes.into()))
}

fn decode(index: Index, bytes: &[u8]) -> Result<Entry, String> {
    if index.format != DATA_FORMAT {
        return Err(format!("format {} instead of {DATA_FORMAT}", index.format));
    }
    if bytes.len() as u64 != index.bytes {
        return Err(format!("{} bytes instead of {}", bytes.len(), index.bytes));
    }
    let found = ContentHash::of(bytes);
    if found != index.sha256 {
        return Err(format!("sha256 {} instead of {}", found.short(), index.sha256.short()));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let summary = index.summary;
    let split = |name: &str| read_split(&tensors, name, summary.labels.len());
    let has_test = tensors.names().contains(&"test.labels");
    let test = if has_test { Some(split("test")?) } else { None };
    Ok(Entry { train: split("train")?, validation: split("validation")?, test, summary })
}

fn read_split(tensors: &SafeTensors<'_>, name: &str, num_classes: usize) -> Result<Split, String> {
    let column = |part: &str, dtype: Dtype| {
        let key = format!("{name}.{part}");
        let tensor = tensors.tensor(&key).map_err(|error| error.to_string())?;
        if tensor.dtype() == dtype { Ok(tensor.data()) } else { Err(format!("type of {key}")) }
    };
    let u32s = |bytes: &[u8]| -> Vec<u32> {
        let (words, _) = bytes.as_chunks();
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    };
    let tokens = u32s(column("tokens", Dtype::U32)?);
    let labels = u32s(column("labels", Dtype::U32)?);
    let (words, _) = column("offsets", Dtype::U64)?.as_chunks();
    let offsets: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    if labels.iter().any(|label| usize::try_from(*label).is_ok_and(|label| label >= num_classes)) {
        return Err(format!("{name} has labels beyond the classes"));
    }
    Split::from_columns(tokens, offsets, labels).ok_or_else(|| format!("{name} contradicts itself"))
}
