//! The checkpoints of a store as they lie there: what exists, what is whole, what nobody follows. Nothing
//! here knows a coordinator; the indexes say what was continued from what.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path as FilePath;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use super::checkpoint::{CheckpointError, CheckpointIndex};
use super::layout::{CheckpointKey, INDEX, Layout};
use super::store::{Store, StoreError};
use crate::id::{ExperimentId, Generation, TrialId};
use crate::time::Timestamp;

/// Indexes read at the same time.
const READS_AT_ONCE: usize = 16;
/// Checkpoints deleted at the same time from a remote store.
const DELETIONS_AT_ONCE: usize = 4;

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Its key.
    pub key: Path,
    /// Its size.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified_at: Timestamp,
}

/// A directory of a checkpoint.
#[derive(Debug, Clone)]
pub struct FoundCheckpoint {
    /// Which one.
    pub key: CheckpointKey,
    /// Its index; why there is none that can be read.
    pub index: Result<CheckpointIndex, CheckpointError>,
    /// Everything in it, sorted by key.
    pub objects: Vec<ObjectEntry>,
}

/// Whose checkpoints are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All in the store.
    Store,
    /// Those of an experiment.
    Experiment(ExperimentId),
    /// Those of a trial.
    Trial(TrialId),
}

/// Why nobody follows a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// It has parts and no index: whoever wrote it was stopped.
    Unfinished,
    /// Its trial went on from an earlier step of the same run.
    Superseded,
}

impl FoundCheckpoint {
    /// Size of everything in it.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }

    /// When the last of it was written.
    pub fn modified_at(&self) -> Timestamp {
        self.objects.iter().map(|object| object.modified_at).max().unwrap_or(Timestamp(0))
    }
}

impl Store {
    /// Objects below `prefix`, sorted by key.
    pub async fn entries(&self, prefix: &Path) -> Result<Vec<ObjectEntry>, StoreError> {
        let entry = |object: object_store::ObjectMeta| {
            let modified = u64::try_from(object.last_modified.timestamp_millis());
            let modified_at = Timestamp(modified.unwrap_or_default());
            ObjectEntry { key: object.location, bytes: object.size, modified_at }
        };
        let listing = self.objects().list(Some(prefix)).map_ok(entry);
        let entries = listing.try_collect::<Vec<_>>().await;
        let mut entries = entries.map_err(|error| self.explain("list", prefix, error))?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// All checkpoints of `scope`, by trial, step and generation.
    pub async fn checkpoints(&self, scope: &Scope) -> Result<Vec<FoundCheckpoint>, StoreError> {
        let prefix = match scope {
            Scope::Store => Layout::experiments(),
            Scope::Experiment(experiment) => Layout::experiment(experiment),
            Scope::Trial(trial) => Layout::checkpoints(trial),
        };
        let mut directories: BTreeMap<CheckpointKey, Vec<ObjectEntry>> = BTreeMap::new();
        for entry in self.entries(&prefix).await? {
            if let Ok(key) = CheckpointKey::of_object(&entry.key) {
                directories.entry(key).or_default().push(entry);
            }
        }
        let found = futures::stream::iter(directories).map(|(key, objects)| async move {
            let has_index = objects.iter().any(|object| object.key == key.index());
            let found = if has_index { self.find(&key.index()).await? } else { None };
            let index = match found {
                Some(bytes) => CheckpointIndex::parse(&key, &bytes),
                None => Err(CheckpointError::NoIndex { checkpoint: key.clone() }),
            };
            Ok(FoundCheckpoint { key, index, objects })
        });
        found.buffered(READS_AT_ONCE).try_collect().await
    }

    /// Reads every part of a checkpoint and compares it with the index: what is wrong, in words. Holds one
    /// part in memory.
    pub async fn verify_checkpoint(
        &self,
        found: &FoundCheckpoint,
    ) -> Result<Vec<String>, StoreError> {
        let index = match &found.index {
            Ok(index) => index,
            Err(error) => return Ok(vec![error.to_string()]),
        };
        let mut wrong = Vec::new();
        for part in &index.parts {
            let key = found.key.part(&part.name);
            match self.get_large(&key, part.bytes).await {
                Ok(bytes) => {
                    if let Err(error) = index.verify(&part.name, &bytes) {
                        wrong.push(error.to_string());
                    }
                }
                Err(StoreError::Missing { .. }) => {
                    let (checkpoint, part) = (found.key.clone(), part.name.clone());
                    wrong.push(CheckpointError::LostPart { checkpoint, part }.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let known: BTreeSet<Path> =
            index.parts.iter().map(|part| found.key.part(&part.name)).collect();
        for object in &found.objects {
            if object.key != found.key.index() && !known.contains(&object.key) {
                let name = object.key.filename().unwrap_or_default();
                wrong.push(format!("checkpoint {} does not know its object `{name}`", found.key));
            }
        }
        Ok(wrong)
    }

    /// Deletes a checkpoint, index first: from then on it does not exist, whatever happens to the rest.
    pub async fn delete_checkpoint(&self, checkpoint: &CheckpointKey) -> Result<(), StoreError> {
        let deleted = self.delete_checkpoints(vec![checkpoint.clone()]).await;
        let deleted = deleted.into_iter().next().map(|(_, deleted)| deleted);
        deleted.unwrap_or_else(|| {
            let source = "the process is ending".into();
            let source = object_store::Error::Generic { store: "file", source };
            Err(self.explain("delete", &checkpoint.directory(), source))
        })
    }

    /// Deletes checkpoints as [`Store::delete_checkpoint`] does, and says what became of each. On this host all of them
    /// take one turn of a thread that may block.
    pub async fn delete_checkpoints(
        &self,
        checkpoints: Vec<CheckpointKey>,
    ) -> Vec<(CheckpointKey, Result<(), StoreError>)> {
        if self.is_on_this_host() {
            let store = self.clone();
            let delete = move |key: CheckpointKey| {
                let deleted = store.delete_here(&key);
                (key, deleted)
            };
            let delete = move || checkpoints.into_iter().map(delete).collect();
            // A runtime that ends meanwhile leaves nobody to be told.
            return tokio::task::spawn_blocking(delete).await.unwrap_or_default();
        }
        let delete = |key: CheckpointKey| async move {
            let deleted = self.delete_objects(&key).await;
            (key, deleted)
        };
        let deletions = futures::stream::iter(checkpoints.into_iter().map(delete));
        deletions.buffer_unordered(DELETIONS_AT_ONCE).collect().await
    }

    async fn delete_objects(&self, checkpoint: &CheckpointKey) -> Result<(), StoreError> {
        self.delete(&checkpoint.index()).await?;
        for key in self.list(&checkpoint.directory()).await? {
            self.delete(&key).await?;
        }
        Ok(())
    }

    fn delete_here(&self, checkpoint: &CheckpointKey) -> Result<(), StoreError> {
        let directory = checkpoint.directory();
        let Some(path) = self.local_path(&directory) else { return Ok(()) };
        remove_directory(&path, INDEX).map_err(|source| {
            let source = object_store::Error::Generic { store: "file", source: source.into() };
            self.explain("delete", &directory, source)
        })
    }
}

/// Removes `directory` and the files in it, the one named `first` before all others.
fn remove_directory(directory: &FilePath, first: &str) -> std::io::Result<()> {
    // One that was never written, or is deleted again after a restart, costs one look.
    if !directory.try_exists()? {
        return Ok(());
    }
    let or_gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    };
    or_gone(std::fs::remove_file(directory.join(first)))?;
    or_gone(std::fs::remove_dir_all(directory))
}

/// Which of `found`, all checkpoints of whole trials, nobody follows. What was written to within `grace` before `now`
/// is left alone: a run may be writing it.
pub fn garbage(
    found: &[FoundCheckpoint],
    now: Timestamp,
    grace: Duration,
) -> Vec<(&FoundCheckpoint, Garbage)> {
    // Where later runs went on from, by the run that had written it.
    let mut continued: BTreeMap<(&TrialId, Generation), u64> = BTreeMap::new();
    let mut parents = BTreeSet::new();
    for (trial, parent) in found.iter().filter_map(|found| {
        let parent = found.index.as_ref().ok()?.parent.as_ref()?;
        Some((&found.key.trial, parent))
    }) {
        parents.insert(parent);
        if parent.trial == *trial {
            let step = continued.entry((trial, parent.generation)).or_default();
            *step = (*step).max(parent.step);
        }
    }
    let fate = |found: &FoundCheckpoint| {
        if now.since(found.modified_at()) <= grace {
            return None;
        }
        match &found.index {
            Err(CheckpointError::NoIndex { .. }) => Some(Garbage::Unfinished),
            // What cannot be read is for people to look at.
            Err(_) => None,
            Ok(_) => {
                let from = continued.get(&(&found.key.trial, found.key.generation))?;
                let is_behind = found.key.step <= *from || parents.contains(&found.key);
                (!is_behind).then_some(Garbage::Superseded)
            }
        }
    };
    found.iter().filter_map(|found| Some((found, fate(found)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentHash;
    use crate::id::Attempt;
    use crate::storage::{CHECKPOINT_FORMAT, CheckpointPart};
    use proptest::prelude::*;

    const HOUR_MS: u64 = 3_600_000;
    const NOW: Timestamp = Timestamp(1000 * HOUR_MS);

    fn key(number: u32, step: u64, generation: u64) -> CheckpointKey {
        let trial = TrialId { experiment: "demo-1".parse().unwrap(), number };
        CheckpointKey { trial, step, generation: Generation(generation) }
    }

    fn index_of(key: &CheckpointKey, parent: Option<CheckpointKey>) -> CheckpointIndex {
        CheckpointIndex {
            format: CHECKPOINT_FORMAT,
            checkpoint: key.clone(),
            attempt: Attempt(1),
            parent,
            pretrained: ContentHash::of(b"weights"),
            created_at: Timestamp(0),
            parts: vec![CheckpointPart {
                name: "model".to_owned(),
                bytes: 5,
                sha256: ContentHash::of(b"model"),
            }],
        }
    }

    fn entry(key: Path, modified_at: Timestamp) -> ObjectEntry {
        ObjectEntry { key, bytes: 5, modified_at }
    }

    fn whole(key: &CheckpointKey, parent: Option<CheckpointKey>) -> FoundCheckpoint {
        let objects = [key.index(), key.part("model")].map(|key| entry(key, Timestamp(0))).into();
        FoundCheckpoint { key: key.clone(), index: Ok(index_of(key, parent)), objects }
    }

    fn unfinished(key: &CheckpointKey, hours_ago: u64) -> FoundCheckpoint {
        let index = Err(CheckpointError::NoIndex { checkpoint: key.clone() });
        let modified_at = Timestamp(NOW.0 - hours_ago * HOUR_MS);
        let objects = vec![entry(key.part("model"), modified_at)];
        FoundCheckpoint { key: key.clone(), index, objects }
    }

    #[test]
    fn what_nobody_follows_is_found_and_the_rest_stays() {
        let found = [
            whole(&key(1, 10, 2), None),
            whole(&key(1, 20, 2), None),
            // The run of generation 5 went on from step 10: step 20 of generation 2 leads nowhere.
            whole(&key(1, 20, 5), Some(key(1, 10, 2))),
            unfinished(&key(1, 30, 2), 30),
            unfinished(&key(1, 30, 5), 1),
            // A run that is newest in its trial.
            whole(&key(2, 10, 3), None),
            whole(&key(2, 20, 3), None),
            // Another trial took over step 20, though its own went on from step 10.
            whole(&key(3, 10, 4), None),
            whole(&key(3, 20, 4), None),
            whole(&key(3, 20, 6), Some(key(3, 10, 4))),
            whole(&key(4, 30, 7), Some(key(3, 20, 4))),
        ];
        let grace = Duration::from_secs(24 * 3600);
        let names: Vec<_> = garbage(&found, NOW, grace)
            .into_iter()
            .map(|(found, why)| (found.key.clone(), why))
            .collect();
        let expected = [(key(1, 20, 2), Garbage::Superseded), (key(1, 30, 2), Garbage::Unfinished)];
        assert_eq!(names, expected);
    }

    proptest! {
        /// Whatever runs there were: the newest of a trial and everything it descends from stays.
        #[test]
        fn no_lineage_is_cut(steps in prop::collection::vec((1u64..8, 0u64..8), 1..8)) {
            let mut found: Vec<FoundCheckpoint> = Vec::new();
            let mut lineage: Vec<CheckpointKey> = Vec::new();
            for (generation, (num, back)) in (1..).zip(steps) {
                // The next run goes on from any checkpoint of the lineage so far.
                let keep = lineage.len().saturating_sub(usize::try_from(back).unwrap());
                lineage.truncate(keep);
                let parent = lineage.last().cloned();
                let from = parent.as_ref().map_or(0, |key| key.step);
                for step in from + 1..=from + num {
                    let key = key(1, step, generation);
                    found.push(whole(&key, parent.clone()));
                    lineage.push(key);
                }
            }
            let swept: BTreeSet<CheckpointKey> = garbage(&found, NOW, Duration::ZERO)
                .into_iter()
                .map(|(found, _)| found.key.clone())
                .collect();
            for key in &lineage {
                prop_assert!(!swept.contains(key), "{key} is followed");
            }
        }
    }

    #[tokio::test]
    async fn checkpoints_are_deleted_together_here_and_far_away() {
        let directory = tempfile::tempdir().unwrap();
        let here = Store::open(directory.path().to_str().unwrap()).unwrap();
        for store in [here.clone(), Store::in_memory()] {
            let (whole, half, kept) = (key(1, 10, 2), key(1, 20, 2), key(1, 30, 2));
            for key in [&whole, &half, &kept] {
                store.put(&key.part("model"), b"model".to_vec()).await.unwrap();
            }
            store.put(&whole.index(), b"{}".to_vec()).await.unwrap();
            let wanted = vec![whole.clone(), half.clone(), key(9, 10, 2)];
            let mut deleted = store.delete_checkpoints(wanted.clone()).await;
            deleted.sort_by_key(|(key, _)| key.clone());
            for ((key, deleted), wanted) in deleted.into_iter().zip(wanted) {
                assert_eq!(key, wanted);
                deleted.unwrap();
            }
            let left = store.list(&Layout::trial(&whole.trial)).await.unwrap();
            assert_eq!(left, [kept.part("model")]);
        }
        // One that cannot be deleted stops no other.
        let (bad, good) = (key(2, 10, 2), key(2, 20, 2));
        std::fs::create_dir_all(here.local_path(&bad.index()).unwrap().join("x")).unwrap();
        here.put(&good.part("model"), b"model".to_vec()).await.unwrap();
        let deleted = here.delete_checkpoints(vec![bad.clone(), good.clone()]).await;
        let [(_, Err(error)), (_, Ok(()))] = &deleted[..] else { panic!("{deleted:?}") };
        assert!(error.to_string().contains("cannot delete"), "{error}");
        assert!(here.list(&good.directory()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_store_is_listed_verified_and_emptied() {
        let store = Store::in_memory();
        let (good, bad, half) = (key(1, 10, 2), key(1, 20, 2), key(2, 10, 3));
        for key in [&good, &bad] {
            store.put(&key.part("model"), b"model".to_vec()).await.unwrap();
            let index = serde_json::to_vec(&index_of(key, None)).unwrap();
            store.create(&key.index(), index).await.unwrap();
        }
        store.put(&half.part("model"), b"mod".to_vec()).await.unwrap();
        store.put(&Layout::manifest(&good.trial.experiment), b"x".to_vec()).await.unwrap();
        let found = store.checkpoints(&Scope::Store).await.unwrap();
        let keys: Vec<_> = found.iter().map(|found| found.key.clone()).collect();
        assert_eq!(keys, [good.clone(), bad.clone(), half.clone()]);
        let trial = store.checkpoints(&Scope::Trial(half.trial.clone())).await.unwrap();
        assert!(matches!(&trial[..], [found] if found.index.is_err() && found.bytes() == 3));
        assert!(store.verify_checkpoint(&found[0]).await.unwrap().is_empty());
        store.put(&bad.part("model"), b"mode1".to_vec()).await.unwrap();
        store.put(&bad.part("other"), b"".to_vec()).await.unwrap();
        let found = store.checkpoints(&Scope::Trial(bad.trial.clone())).await.unwrap();
        let wrong = store.verify_checkpoint(&found[1]).await.unwrap();
        assert!(
            wrong[0].contains("`model`") && wrong[1].contains("other.safetensors"),
            "{wrong:?}"
        );
        store.delete(&bad.part("model")).await.unwrap();
        let wrong = store.verify_checkpoint(&found[1]).await.unwrap();
        assert!(wrong[0].contains("`model`") && wrong[0].contains("missing"), "{wrong:?}");
        store.delete_checkpoint(&bad).await.unwrap();
        store.delete_checkpoint(&bad).await.unwrap();
        let found = store.checkpoints(&Scope::Experiment(bad.trial.experiment)).await.unwrap();
        assert_eq!(found.len(), 2);
    }
}
