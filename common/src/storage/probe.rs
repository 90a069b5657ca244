//! Finds out whether a store does what Muster needs of one, by doing it with objects of a few bytes.

use std::time::Duration;

use futures::future::join_all;
use object_store::path::Path;

use super::store::{Store, StoreError};
use crate::time::Timestamp;

/// Writers that want to create the same object at the same time.
const NUM_RIVALS: usize = 8;

/// What a store was seen to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFindings {
    /// Whether what was read is what was written.
    pub reads_back: bool,
    /// How many of several writers at the same time were told that they created an object, which must be
    /// one, and whether one more was refused later.
    pub creators: usize,
    /// See `creators`.
    pub refuses_later: bool,
    /// How far the store's clock is from ours.
    pub clock_apart: Duration,
    /// Time to write and read a small object.
    pub round_trip: Duration,
}

impl Store {
    /// Writes, reads, creates and deletes a few objects below `doctor/NAME`, where nothing else lies.
    pub async fn probe(&self, name: &str) -> Result<StoreFindings, StoreError> {
        let folder = Path::from("doctor").join(name);
        let found = self.probe_in(&folder).await;
        for key in self.list(&folder).await? {
            self.delete(&key).await?;
        }
        found
    }

    async fn probe_in(&self, folder: &Path) -> Result<StoreFindings, StoreError> {
        let key = folder.clone().join("object");
        let began_at = Timestamp::now();
        self.put(&key, name_bytes(folder, usize::MAX)).await?;
        let read = self.get(&key).await?;
        let ended_at = Timestamp::now();
        let written_at =
            self.entries(folder).await?.into_iter().map(|entry| entry.modified_at).max();
        let written_at = written_at.unwrap_or(began_at);
        // Stores tell whole seconds.
        let apart = began_at.since(written_at).saturating_sub(Duration::from_secs(1));
        let clock_apart = apart.max(written_at.since(ended_at));
        let contested = folder.clone().join("contested");
        let rivals = (0..NUM_RIVALS).map(|n| self.create(&contested, name_bytes(folder, n)));
        let mut creators = 0;
        for outcome in join_all(rivals).await {
            match outcome {
                Ok(()) => creators += 1,
                Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let later = self.create(&contested, name_bytes(folder, NUM_RIVALS)).await;
        Ok(StoreFindings {
            reads_back: read == name_bytes(folder, usize::MAX),
            creators,
            refuses_later: matches!(later, Err(StoreError::Exists { .. })),
            clock_apart,
            round_trip: ended_at.since(began_at),
        })
    }
}

fn name_bytes(folder: &Path, n: usize) -> Vec<u8> {
    format!("{folder} {n}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_good_store_is_good_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        for store in [Store::open(directory.path().to_str().unwrap()).unwrap(), Store::in_memory()]
        {
            let found = store.probe("test").await.unwrap();
            assert!(found.reads_back && found.refuses_later && found.creators == 1, "{found:?}");
            assert!(found.clock_apart < Duration::from_secs(2), "{found:?}");
            assert!(store.list(&Path::default()).await.unwrap().is_empty());
        }
    }
}
