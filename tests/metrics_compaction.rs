//! Metrics of an ended trial become one file. The process that does it is killed in the middle, again
//! and again; whoever reads at any time finds the same points, each once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop, helper or not")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_common::id::{Attempt, TrialId};
use muster_common::metric::{self, Compaction, MetricName, MetricPoint, encode};
use muster_common::storage::{Layout, Store};
use muster_common::time::Timestamp;
use tokio::runtime::Runtime;

/// Names the store of the process that is killed.
const STORE: &str = "MUSTER_TEST_STORE";
/// Files of the trial: enough that deleting them takes a while.
const PARTS: u32 = 400;
const DEADLINE: Duration = Duration::from_secs(60);

fn trial() -> TrialId {
    TrialId { experiment: "compacted-1".parse().unwrap(), number: 1 }
}

/// Every second part is of an attempt that later ones supersede.
fn write_parts(store: &Store, runtime: &Runtime) {
    for sequence in 0..PARTS {
        let attempt = Attempt(1 + sequence % 2);
        let point = |step: u64| MetricPoint {
            trial: trial(),
            attempt,
            resumed_from: if attempt.0 == 1 { 0 } else { 40 },
            rank: 0,
            step: u64::from(sequence) * 4 + step,
            name: MetricName::TRAIN_LOSS,
            value: f64::from(attempt.0) + step as f64 / 4.0,
            recorded_at: Timestamp(1000),
            unit: "nats".into(),
            host: "here".into(),
            superseded: false,
        };
        let points: Vec<MetricPoint> = (0..8).map(point).collect();
        let key = Layout::metrics(&trial(), attempt, 0, sequence);
        runtime.block_on(store.put(&key, encode(&points).unwrap())).unwrap();
    }
}

/// Not a test of its own: the process that [`killed_in_the_middle`] kills.
#[test]
fn compacts_what_the_environment_names() {
    let Ok(store) = std::env::var(STORE) else { return };
    let store = Store::open(&store).unwrap();
    Runtime::new().unwrap().block_on(metric::compact(&store, &trial())).unwrap();
}

fn start(store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "compacts_what_the_environment_names"])
        .env(STORE, store)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_in_the_middle() {
    let runtime = Runtime::new().unwrap();
    let mut num_both = 0;
    // Killed a little later each time: before the file is there, while parts are deleted, after.
    for round in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        write_parts(&store, &runtime);
        let read = || runtime.block_on(metric::read_trial(&store, &trial())).unwrap();
        let before = read();
        let whole = store.local_path(&Layout::trial_metrics(&trial())).unwrap();
        let folder = whole.parent().unwrap().to_path_buf();
        let num_parts = || {
            let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().contains("-0-")).count()
        };
        let mut child = start(directory.path());
        let begun = Instant::now();
        if round > 0 {
            while !whole.exists() {
                assert!(begun.elapsed() < DEADLINE, "nothing was compacted");
                std::hint::spin_loop();
            }
            std::thread::sleep(Duration::from_micros(300 * (round - 1)));
        } else {
            std::thread::sleep(Duration::from_millis(3));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = num_parts();
        assert!(
            whole.exists() || left == PARTS as usize,
            "parts are gone before their rows are kept"
        );
        num_both += u32::from(whole.exists() && left > 0);
        assert_eq!(read(), before, "round {round}, {left} parts left");
        let done = runtime.block_on(metric::compact(&store, &trial())).unwrap();
        assert!(left == 0 || matches!(done, Compaction::Done { .. }), "{done:?}");
        assert_eq!((num_parts(), read() == before), (0, true));
    }
    assert!(num_both > 0, "no kill came between the new file and the end of the old ones");
}
