//! Data larger than memory: peak memory while generated rows are read, checked, split, put into batches
//! before they are tokenized, tokenized, cached, and put into batches from the cache.
//! `MUSTER_STREAM_ROWS=100000,1000000` measures other sizes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use muster_common::manifest::Manifest;
use muster_common::seed::Seed;
use muster_common::storage::Store;
use muster_worker::data::{BatchOrder, Data, load, open};

/// Rows of the smaller and the larger file.
const ROWS: [u64; 2] = [60_000, 260_000];
/// Most that memory may grow by for a row more: about 100 bytes are remembered while the cache is made,
/// and lists of few rows have room for twice as many.
const ROW_BYTES_MAX: u64 = 300;
/// Nothing takes longer, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(600);
/// The test that starts itself again, how it says the number of rows, and what the peaks come after.
const TEST: &str = "memory_grows_by_a_small_constant_per_row";
const MEASURE: &str = "MUSTER_STREAM_MEASURE";
const PEAKS: &str = "peaks in KiB: ";
const WORDS: [&str; 16] = [
    "good", "film", "book", "warm", "funny", "acted", "best", "again", "see", "cheap", "names",
    "tokens", "tabs", "lines", "mixed", "English",
];

/// Kilobytes of a line of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Largest private memory of this process, in kilobytes, while `work` goes on. Pages of mapped files
/// do not count: the system takes them back when it needs them.
fn peak_during<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let (peak, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (peak, ended) = (Arc::clone(&peak), Arc::clone(&ended));
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                peak.fetch_max(status("RssAnon:"), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let result = work();
    ended.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    (peak.load(Ordering::Relaxed).max(status("RssAnon:")), result)
}

fn generate(path: &Path, rows: u64) -> u64 {
    let mut file = BufWriter::new(File::create(path).unwrap());
    writeln!(file, "text,label").unwrap();
    for row in 0..rows {
        let mut draws = Seed(row).draws();
        let num_words = 20 + draws.below(20);
        for _ in 0..num_words {
            let word = WORDS[usize::try_from(draws.below(WORDS.len() as u64)).unwrap()];
            write!(file, "{word} ").unwrap();
        }
        writeln!(file, "{row},{}", row % 2).unwrap();
    }
    file.into_inner().unwrap().metadata().unwrap().len()
}

fn manifest(directory: &Path) -> Manifest {
    let words = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tokens/words");
    let text = format!(
        "version: 1\nname: stream\nmodel: {{pretrained: {}, max_length: 128}}\n\
         data:\n  train: {{path: {}}}\n  validation: {{fraction: 0.05}}\n  test: {{fraction: 0.05}}\n\
         \x20 text: text\n  label: {{column: label}}\nbudget: {{epochs: 1}}\n",
        words.display(),
        directory.join("rows.csv").display(),
    );
    Manifest::parse(&text).unwrap()
}

/// Kilobytes at the peak of making the cache, and of an epoch from it.
fn measure(rows: u64) -> (u64, u64) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("rows.csv");
    let bytes = generate(&path, rows);
    let manifest = manifest(directory.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Store::open(directory.path().join("store").to_str().unwrap()).unwrap();
    let begun = Instant::now();
    let (made, (first, seconds)) = peak_during(|| {
        let data = runtime.block_on(open(&store, &manifest, 128)).unwrap();
        let Data::Stream(stream) = data else { panic!("the cache is empty") };
        let summary = &stream.summary;
        assert_eq!(summary.num_train + summary.num_validation + summary.num_test, rows);
        let mut order = BatchOrder::new(Seed(1), stream.train.len(), 32);
        let batch = order.batch(0, |window| stream.train.lengths(window)).unwrap();
        assert_eq!(stream.train.sequences(batch).unwrap().len(), 32);
        let first = begun.elapsed().as_secs_f64();
        while !stream.is_settled() {
            assert!(begun.elapsed() < PATIENCE, "it is still not tokenized");
            thread::sleep(Duration::from_millis(5));
        }
        (first, begun.elapsed().as_secs_f64())
    });
    let begun = Instant::now();
    let (used, num_tokens) = peak_during(|| {
        let data = runtime.block_on(load(&store, &manifest)).unwrap();
        let lengths = |window: &[u32]| {
            let length = |index: &u32| u32::try_from(data.train.length(*index as usize));
            window.iter().map(length).collect()
        };
        let mut order = BatchOrder::new(Seed(1), data.train.len(), 32);
        let mut sum = 0u64;
        for step in 0..order.steps_per_epoch() {
            let batch = order.batch(step, lengths).unwrap().to_vec();
            sum += batch.iter().map(|i| data.train.tokens(*i as usize).len() as u64).sum::<u64>();
        }
        sum
    });
    println!(
        "{rows} rows, {:.1} MiB of text, {num_tokens} tokens: {:.1} MiB at most while the cache is \
         made ({first:.2} s to the first batch, {:.0} rows/s in all), {:.1} MiB in an epoch from \
         the cache ({:.1} s); highest resident set so far, file cache counted, {:.1} MiB",
        bytes as f64 / f64::from(1 << 20),
        made as f64 / 1024.0,
        rows as f64 / seconds,
        used as f64 / 1024.0,
        begun.elapsed().as_secs_f64(),
        status("VmHWM:") as f64 / 1024.0,
    );
    (made, used)
}

/// The same in a process of its own, where nothing of an earlier measurement lies about, and where
/// memory that a thread has given back is taken again by the others: with an arena for each thread, the
/// peak depends on how the machine shares out its cores.
fn measure_apart(rows: u64) -> (u64, u64) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(MEASURE, rows.to_string())
        .env("MALLOC_ARENA_MAX", "1")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    print!("{text}");
    assert!(output.status.success(), "{rows} rows: {}", output.status);
    let peaks = text.lines().find_map(|line| line.split_once(PEAKS)).unwrap().1;
    let (made, used) = peaks.split_once(' ').unwrap();
    (made.parse().unwrap(), used.parse().unwrap())
}

#[test]
fn memory_grows_by_a_small_constant_per_row() {
    if let Ok(rows) = std::env::var(MEASURE) {
        let (made, used) = measure(rows.parse().unwrap());
        println!("{PEAKS}{made} {used}");
        return;
    }
    let sizes = std::env::var("MUSTER_STREAM_ROWS").ok();
    let sizes: Vec<u64> = match sizes {
        Some(text) => text.split(',').map(|rows| rows.parse().unwrap()).collect(),
        None => ROWS.to_vec(),
    };
    let peaks: Vec<(u64, u64)> = sizes.iter().map(|rows| measure_apart(*rows)).collect();
    for (sizes, peaks) in sizes.windows(2).zip(peaks.windows(2)) {
        let more = sizes[1] - sizes[0];
        for (small, large) in [(peaks[0].0, peaks[1].0), (peaks[0].1, peaks[1].1)] {
            let per_row = large.saturating_sub(small) * 1024 / more;
            println!("{per_row} bytes for every row more");
            assert!(per_row <= ROW_BYTES_MAX, "{per_row} bytes for every row more");
        }
    }
}
