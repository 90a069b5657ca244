//! Where the examples of the test split stand in the files, so that what a model says of them can be joined to them.
//! The numbers lie beside the list of findings and stay when the rows go; the names of the files are those of whoever
//! asks, as other names of the same contents share a cache entry.

use std::path::Path;
use std::sync::Arc;

use muster_common::evaluation::prediction::Origin;
use muster_common::storage::{Layout, Store};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::DataError;
use super::census::Census;
use super::inputs::Inputs;
use super::rows::Rows;
use super::source::Role;
use super::spill::{Assembly, Column, failed};

/// Name of the numbers within the cache entry of the rows.
const ORIGINS: &str = "origins.safetensors";

/// Group of the columns.
const GROUP: &str = "test";
/// Which file each example stands in, counted over all splits from 0.
const FILES: &str = "files";
/// Which of the file's rows it is, from 0.
const ROWS: &str = "rows";

/// File and row of each example, in their order.
pub(super) type Places = Arc<[(u32, u32)]>;

/// Of the test split of rows that were just read.
pub(super) fn places(rows: &Rows, census: &Census) -> Places {
    rows.numbers(Role::Test).iter().map(|row| census.position(*row)).collect()
}

/// Writes them for the rows that will be known as cache entry `hash`.
pub(super) async fn put(
    store: &Store,
    hash: &str,
    places: &Places,
    folder: &Path,
) -> Result<(), DataError> {
    if places.is_empty() {
        return Ok(());
    }
    let files = Column::of_u32s(FILES, places.iter().map(|(file, _)| *file), folder)?;
    let rows = Column::of_u32s(ROWS, places.iter().map(|(_, row)| *row), folder)?;
    let named = [&files, &rows].into_iter().map(|column| (GROUP, column));
    let reader = Assembly::of_columns(named).reader();
    let reader = reader.map_err(|source| failed(folder, source))?;
    Ok(store.upload(&Layout::cache(hash).join(ORIGINS), reader).await?)
}

/// Who knows where the examples of a test split stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// Cache entry of the rows.
    entry: String,
    /// Names of all files, training files first, then validation, then test.
    files: Vec<String>,
    /// Where this process has read the rows.
    known: Option<Places>,
}

impl Origins {
    /// Of the rows that are known as cache entry `rows`.
    pub(super) fn of(inputs: &Inputs, rows: &str) -> Self {
        let files = inputs.files.iter().flat_map(|(_, files)| files);
        let files = files.map(|file| file.shown.clone()).collect();
        Self { entry: rows.to_owned(), files, known: None }
    }

    /// The same with what was just read, which others find in the cache.
    pub(super) fn knowing(self, places: Places) -> Self {
        Self { known: Some(places), ..self }
    }

    /// The place of each of `num_examples` examples, in their order. `None`: rows of an older build, or examples that
    /// are no rows.
    pub async fn read(
        &self,
        store: &Store,
        num_examples: usize,
    ) -> Result<Option<Vec<Origin>>, DataError> {
        if let Some(places) = &self.known {
            return Ok(self.named(places).filter(|found| found.len() == num_examples));
        }
        let Some(bytes) = store.find(&Layout::cache(&self.entry).join(ORIGINS)).await? else {
            return Ok(None);
        };
        let found = decode(&bytes).and_then(|places| self.named(&places));
        let found = found.filter(|found| found.len() == num_examples);
        if found.is_none() {
            tracing::warn!(hash = self.entry, "{ORIGINS} in the cache does not fit its rows");
        }
        Ok(found)
    }

    fn named(&self, places: &[(u32, u32)]) -> Option<Vec<Origin>> {
        let names: Vec<Arc<str>> = self.files.iter().map(|name| name.as_str().into()).collect();
        let origin = |(file, row): &(u32, u32)| {
            let file = Arc::clone(names.get(*file as usize)?);
            Some(Origin { file, row: u64::from(*row) })
        };
        places.iter().map(origin).collect()
    }
}

fn decode(bytes: &[u8]) -> Option<Vec<(u32, u32)>> {
    let tensors = SafeTensors::deserialize(bytes).ok()?;
    let column = |name: &str| {
        let column = tensors.tensor(&format!("{GROUP}.{name}")).ok()?;
        let whole = column.dtype() == Dtype::U32;
        whole.then(|| column.data().chunks_exact(4).map(number).collect::<Vec<u32>>())
    };
    let (files, rows) = (column(FILES)?, column(ROWS)?);
    (files.len() == rows.len()).then(|| files.into_iter().zip(rows).collect())
}

/// Four bytes, the lowest first.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
}
