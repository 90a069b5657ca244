//! What a rank of a run trains with: processor or GPU, its slot's threads, memory, and the versions of what computes.
//! The rank writes it into the store beside the trial's metrics, one small JSON file for each rank of each run:
//! results are compared years later, when nobody remembers which machine it was.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::id::{Attempt, TrialId};
use crate::storage::{Layout, Store, StoreError};

/// Files that are read at a time.
const READS: usize = 8;

/// Bytes of the largest file that is taken for one: names of processors are short.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// One rank of one run. Fields are added, never changed; files of older builds lack the later ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Equipment {
    /// Name of the machine, as in its metrics.
    pub host: String,
    /// Name of the worker, one process for each slot.
    pub worker: String,
    /// The rest, which other workers may have too.
    #[serde(flatten)]
    pub kind: EquipmentKind,
}

/// What machines of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EquipmentKind {
    /// The processor's model, as the kernel calls it.
    pub processor: String,
    /// Logical processors of the machine.
    pub num_processors: u32,
    /// Memory of the machine, bytes.
    pub memory_bytes: u64,
    /// Threads that the slot computes with.
    pub threads: u32,
    /// The slot's GPU; absent: it has none.
    #[serde(default)]
    pub gpu: Option<Gpu>,
    /// Version of libtorch.
    pub libtorch: String,
    /// Version of Muster that the worker is of.
    pub muster: String,
}

/// A GPU, as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gpu {
    /// Its model.
    pub name: String,
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// Version of the driver.
    pub driver: String,
}

/// Workers with equipment of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workers {
    /// How many trained.
    pub num_workers: usize,
    /// Names of their machines, sorted.
    pub hosts: Vec<String>,
    /// What they have in common.
    #[serde(flatten)]
    pub kind: EquipmentKind,
}

/// Why the equipment of a trial cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EquipmentError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file is not what was written.
    #[error("{key} does not describe what a rank trained with: {reason}")]
    Damaged {
        /// Where it lies.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Memory for people, in powers of 1024 as memory is sold: `24 GiB`, `512 MiB`.
pub fn gib(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    let mib = bytes.saturating_add(MIB / 2) / MIB;
    if mib < 1024 {
        return format!("{mib} MiB");
    }
    let tenths = mib.saturating_mul(10).saturating_add(512) / 1024;
    match (tenths / 10, tenths % 10) {
        // Of many gigabytes nobody asks for the tenths.
        (whole, tenth) if whole >= 100 || tenth == 0 => format!("{whole} GiB"),
        (whole, tenth) => format!("{whole}.{tenth} GiB"),
    }
}

/// Workers by the kind of their equipment, most workers first. One that did several runs counts once for each kind
/// that it was of.
pub fn by_kind<'a>(all: impl IntoIterator<Item = &'a Equipment>) -> Vec<Workers> {
    let mut kinds: BTreeMap<&EquipmentKind, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for one in all {
        let (workers, hosts) = kinds.entry(&one.kind).or_default();
        workers.insert(&one.worker);
        hosts.insert(&one.host);
    }
    let found = kinds.into_iter().map(|(kind, (workers, hosts))| Workers {
        num_workers: workers.len(),
        hosts: hosts.into_iter().map(ToOwned::to_owned).collect(),
        kind: kind.clone(),
    });
    let mut found: Vec<Workers> = found.collect();
    found.sort_by_key(|workers| std::cmp::Reverse(workers.num_workers));
    found
}

/// Puts what a rank of a run trains with into the store. Written twice it is the same.
pub async fn write(
    store: &Store,
    trial: &TrialId,
    (attempt, rank): (Attempt, u32),
    equipment: &Equipment,
) -> Result<(), EquipmentError> {
    let key = Layout::equipment(trial, attempt, rank);
    let bytes = serde_json::to_vec(equipment).map_err(|error| EquipmentError::Damaged {
        key: store.display(&key),
        reason: error.to_string(),
    })?;
    Ok(store.put(&key, bytes).await?)
}

/// What ranks of all runs of a trial trained with, in the order of their keys. Runs of builds that kept nothing are not
/// in it.
pub async fn read_trial(store: &Store, trial: &TrialId) -> Result<Vec<Equipment>, EquipmentError> {
    let keys = store.list(&Layout::all_equipment(trial)).await?;
    let reads = keys.into_iter().map(|key| read(store, key));
    stream::iter(reads).buffered(READS).try_collect().await
}

async fn read(store: &Store, key: Path) -> Result<Equipment, EquipmentError> {
    let bytes = store.get(&key).await?;
    let damaged = |reason: String| EquipmentError::Damaged { key: store.display(&key), reason };
    if bytes.len() > FILE_BYTES_MAX {
        return Err(damaged(format!("{} bytes are too many", bytes.len())));
    }
    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equipment(host: &str, worker: &str) -> Equipment {
        let kind = EquipmentKind {
            processor: "AMD EPYC 9B14".to_owned(),
            num_processors: 4,
            memory_bytes: 24 << 30,
            threads: 2,
            gpu: None,
            libtorch: "2.11.0".to_owned(),
            muster: "0.3.0".to_owned(),
        };
        Equipment { host: host.to_owned(), worker: worker.to_owned(), kind }
    }

    fn with_gpu(host: &str, worker: &str) -> Equipment {
        let mut one = equipment(host, worker);
        let (name, driver) = ("NVIDIA H200".to_owned(), "570.86.15".to_owned());
        one.kind.gpu = Some(Gpu { name, memory_bytes: 150_754_820_096, driver });
        one
    }

    #[test]
    fn workers_of_one_kind_are_one_row() {
        let all = [
            with_gpu("node-3", "worker-9"),
            equipment("node-2", "worker-2"),
            equipment("node-1", "worker-1"),
            // The same worker once more.
            equipment("node-1", "worker-1"),
        ];
        let kinds = by_kind(&all);
        let counts: Vec<usize> = kinds.iter().map(|workers| workers.num_workers).collect();
        assert_eq!(counts, [2, 1], "{kinds:?}");
        assert_eq!((&kinds[0].kind, &kinds[1].kind), (&all[1].kind, &all[0].kind));
        assert_eq!(kinds[0].hosts, ["node-1", "node-2"]);
        // Another version is another kind.
        let mut newer = equipment("node-1", "worker-1");
        "0.4.0".clone_into(&mut newer.kind.muster);
        assert_eq!(by_kind(all.iter().chain([&newer])).len(), 3);
        assert!(by_kind([]).is_empty());
    }

    #[test]
    fn memory_is_said_as_it_is_sold() {
        for (bytes, words) in [
            (0, "0 MiB"),
            (512 << 20, "512 MiB"),
            (1 << 30, "1 GiB"),
            (24 << 30, "24 GiB"),
            (25_333_137_408, "23.6 GiB"),
            (150_754_820_096, "140 GiB"),
        ] {
            assert_eq!(gib(bytes), words);
        }
        assert!(gib(u64::MAX).ends_with(" GiB"));
    }

    #[tokio::test]
    async fn what_is_written_is_read_again() {
        let store = Store::in_memory();
        let trial: TrialId = "demo-1/t3".parse().unwrap();
        assert!(read_trial(&store, &trial).await.unwrap().is_empty());
        let (first, second) = (equipment("node-1", "worker-1"), with_gpu("node-3", "worker-9"));
        write(&store, &trial, (Attempt(2), 0), &second).await.unwrap();
        write(&store, &trial, (Attempt(1), 0), &first).await.unwrap();
        write(&store, &trial, (Attempt(1), 0), &first).await.unwrap();
        assert_eq!(read_trial(&store, &trial).await.unwrap(), [first, second]);
        // A trial whose number begins alike is another one.
        let other: TrialId = "demo-1/t33".parse().unwrap();
        assert!(read_trial(&store, &other).await.unwrap().is_empty());
        let key = Layout::equipment(&trial, Attempt(3), 0);
        for damage in [b"{\"host\": 7}".to_vec(), vec![b' '; FILE_BYTES_MAX + 1]] {
            store.put(&key, damage).await.unwrap();
            let error = read_trial(&store, &trial).await.unwrap_err().to_string();
            assert!(error.contains("trials/3/equipment/3-0.json"), "{error}");
        }
    }

    #[test]
    fn later_fields_may_be_there_and_a_gpu_need_not() {
        let text = r#"{"host": "node-1", "worker": "worker-1", "processor": "AMD EPYC 9B14", "num_processors": 4,
            "memory_bytes": 25769803776, "threads": 2, "libtorch": "2.11.0", "muster": "0.3.0", "later": [1]}"#;
        let read: Equipment = serde_json::from_str(text).unwrap();
        assert_eq!(read, equipment("node-1", "worker-1"));
        let written = serde_json::to_value(with_gpu("a", "b")).unwrap();
        assert_eq!(written["gpu"]["name"], "NVIDIA H200");
    }
}
