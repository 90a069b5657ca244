//! SST-2, IMDB and Amazon reviews, whole: what is found in them is what a few lines of Python find,
//! and how long it takes. Where `../shared/data` is, as for `tokens.rs`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Instant;

use muster_common::manifest::Manifest;
use muster_common::run::DataSummary;
use muster_common::storage::Store;
use muster_tests::sample::shared_data;
use muster_tests::skip;
use muster_worker::data::load;

/// Rows, leaks, duplicates besides them, as counted with sets of stripped texts.
type Counts = (u64, u64, u64);

const SST2: Counts = (70_042, 1, 371);
const IMDB: Counts = (50_000, 123, 96);
const AMAZON: Counts = (31_462, 0, 0);

fn summary(data: &Path, set: &str, text: &str, splits: &str, max_length: u32) -> DataSummary {
    let root = data.display();
    let splits = splits.replace("SET", &format!("{root}/{set}"));
    let manifest = format!(
        "version: 1\nname: real\nmodel: {{pretrained: {root}/vocab/bert-base-uncased, max_length: {max_length}}}\n\
         data:\n  train: {{path: {root}/{set}/train.parquet}}\n{splits}  text: {text}\n  label: {{column: label}}\n\
         budget: {{epochs: 1}}\n"
    );
    let manifest = Manifest::parse(&manifest).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let time = || {
        let begun = Instant::now();
        let summary = runtime.block_on(load(&store, &manifest)).unwrap().summary;
        (begun.elapsed().as_secs_f64(), summary)
    };
    let (made, summary) = time();
    let (found, _) = time();
    println!(
        "{set}: {made:.2} s, {:.0} rows/s, and {found:.2} s from the cache; {summary:#?}",
        summary.num_rows as f64 / made
    );
    summary
}

fn counts(summary: &DataSummary) -> Counts {
    let leaks = summary.flaws.num_leaks;
    (summary.num_rows, leaks, summary.num_duplicates - leaks)
}

#[test]
fn what_is_found_in_real_data_is_what_sets_of_texts_say() {
    let data = match shared_data() {
        Ok(data) => data,
        Err(reason) => {
            return skip("what_is_found_in_real_data_is_what_sets_of_texts_say", &reason);
        }
    };
    let file = |split: &str| format!("  {split}: {{path: SET/{split}.parquet}}\n");
    let both = file("validation") + &file("test");
    let held_out = "  validation: {fraction: 0.1}\n".to_owned() + &file("test");
    let sst2 = summary(&data, "sst2", "sentence", &both, 128);
    let imdb = summary(&data, "imdb", "text", &held_out, 256);
    let amazon = summary(&data, "amazon", "text", &both, 256);
    assert_eq!(counts(&sst2), SST2);
    assert_eq!(counts(&imdb), IMDB);
    assert_eq!(counts(&amazon), AMAZON);
    // A tenth is held out, class by class; the test half is whole.
    let pool = imdb.num_train + imdb.num_validation;
    assert_eq!(imdb.num_test, 25_000);
    assert_eq!(imdb.num_validation, (pool + 5) / 10);
}
