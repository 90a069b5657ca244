//! The whole way from a manifest to a dataset, on small files.

use std::path::Path;

use muster_common::manifest::Manifest;
use muster_common::storage::{Layout, Store};

use super::*;

/// A store, a tokenizer made from a vocabulary, and data files.
struct Bench {
    directory: tempfile::TempDir,
    store: Store,
}

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\nfilm\na\n##s\nnumber\n\
    0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n##0\n##1\n##2\n##3\n##4\n##5\n##6\n##7\n##8\n##9\n";

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("vocab.txt"), VOCABULARY).unwrap();
    let mut text = "text,label\n".to_owned();
    for number in 0..50 {
        let (word, label) = if number % 2 == 0 { ("good", 1) } else { ("bad", 0) };
        text.extend([format!("A {word} films number {number},{label}\n")]);
    }
    std::fs::write(directory.path().join("train.csv"), text).unwrap();
    let store = Store::open(directory.path().join("store").to_str().unwrap()).unwrap();
    Bench { directory, store }
}

fn manifest(directory: &Path, data: &str) -> Manifest {
    let text = format!(
        "version: 1\nname: data\nseed: 3\nmodel:\n  pretrained: model\n  max_length: 8\n\
         data:\n  train: {{path: train.csv}}\n{data}  text: text\n  label: {{column: label}}\n\
         budget: {{epochs: 1}}\n"
    );
    let mut manifest = Manifest::parse(&text).unwrap();
    manifest.rebase(directory);
    manifest
}

const CUT: &str = "  validation: {examples: 10}\n  test: {fraction: 0.2}\n";

#[tokio::test]
async fn a_second_worker_reads_what_the_first_has_made() {
    let Bench { directory, store } = bench();
    let manifest = manifest(directory.path(), CUT);
    let first = load(&store, &manifest).await.unwrap();
    let summary = &first.summary;
    assert_eq!((summary.num_train, summary.num_validation, summary.num_test), (30, 10, 10));
    assert_eq!((summary.num_rows, summary.labels.as_slice()), (50, &["0".into(), "1".into()][..]));
    // [CLS] a good film ##s number .. [SEP], cut to 8 tokens.
    assert_eq!(&first.train.tokens(0)[..2], &[2, 8]);
    assert!((0..first.train.len()).all(|index| first.train.tokens(index).last() == Some(&3)));
    assert!((0..first.train.len()).all(|index| first.train.length(index) == 8));
    let second = load(&store, &manifest).await.unwrap();
    assert_eq!(second.train, first.train);
    assert_eq!(second.test, first.test);
    assert_eq!(second.summary, first.summary);
    let keys = store.list(&Layout::cache(&first.summary.cache)).await.unwrap();
    assert_eq!(keys.len(), 3);
}

#[tokio::test]
async fn workers_that_start_together_end_with_the_same_data() {
    let Bench { directory, store } = bench();
    let manifest = manifest(directory.path(), CUT);
    let (a, b, c) =
        tokio::join!(load(&store, &manifest), load(&store, &manifest), load(&store, &manifest));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert_eq!((&a.train, &a.validation), (&b.train, &b.validation));
    assert_eq!((&a.test, &a.summary), (&c.test, &c.summary));
    assert_eq!(load(&store, &manifest).await.unwrap().train, a.train);
}

#[tokio::test]
async fn a_damaged_cache_is_made_anew() {
    let Bench { directory, store } = bench();
    let manifest = manifest(directory.path(), CUT);
    let first = load(&store, &manifest).await.unwrap();
    for key in store.list(&Layout::cache(&first.summary.cache)).await.unwrap() {
        if key.filename() == Some("problems.jsonl") {
            continue; // The list of findings is for people; nothing reads it back.
        }
        let whole = store.get(&key).await.unwrap();
        let mut flipped = whole.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for damage in [whole.slice(..whole.len() / 2).to_vec(), flipped, Vec::new()] {
            store.put(&key, damage).await.unwrap();
            let again = load(&store, &manifest).await.unwrap();
            assert_eq!(again.train, first.train);
            assert_eq!(store.get(&key).await.unwrap(), whole, "{key}");
        }
    }
}

#[tokio::test]
async fn whatever_changes_the_data_changes_the_hash() {
    let Bench { directory, store } = bench();
    let base = manifest(directory.path(), CUT);
    let hash = |manifest: Manifest| {
        let store = store.clone();
        async move { load(&store, &manifest).await.unwrap().summary.cache }
    };
    let first = hash(base.clone()).await;
    let mut other = base.clone();
    other.seed.0 += 1;
    assert_ne!(hash(other).await, first);
    let mut other = base.clone();
    other.model.max_length = 9;
    assert_ne!(hash(other).await, first);
    let copy = directory.path().join("copy.csv");
    std::fs::copy(directory.path().join("train.csv"), &copy).unwrap();
    let mut other = base.clone();
    other.data.train.paths = vec![copy.display().to_string()];
    assert_eq!(hash(other.clone()).await, first);
    let text = std::fs::read_to_string(&copy).unwrap();
    std::fs::write(&copy, text.replace("good", "fine")).unwrap();
    assert_ne!(hash(other).await, first);
}

#[tokio::test]
async fn mistakes_name_their_place_and_are_permanent() {
    let Bench { directory, store } = bench();
    let refused = |manifest: Manifest| {
        let store = store.clone();
        async move {
            let error = load(&store, &manifest).await.unwrap_err();
            assert!(error.is_permanent());
            error.to_string()
        }
    };
    let base = manifest(directory.path(), CUT);
    let mut missing = base.clone();
    missing.data.train.paths = vec!["/nowhere/a.csv".to_owned()];
    assert!(refused(missing).await.contains("cannot read /nowhere/a.csv"));
    let mut column = base.clone();
    column.data.text = "sentence".to_owned();
    assert!(refused(column).await.contains("the columns are `text`, `label`"));
    let greedy = manifest(directory.path(), "  validation: {examples: 50}\n");
    assert!(refused(greedy).await.contains("50 usable examples"));
    let mut model = base;
    model.model.pretrained = directory.path().display().to_string();
    assert!(refused(model).await.contains("tokenizer.json"));
}

/// Pad fraction of the real demo data, when it is there.
#[tokio::test]
async fn the_demo_data_is_read_whole_and_batches_hold_little_padding() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = root.join("configs/demo.yaml");
    let inputs = root.join(".cache/demo");
    if !manifest.exists() || !inputs.join("minilm").exists() {
        let name = "the_demo_data_is_read_whole_and_batches_hold_little_padding";
        println!("MUSTER-SKIP {name}: demo inputs are missing, run deploy/setup/demo_inputs.sh");
        return;
    }
    let mut manifest = Manifest::parse(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    manifest.rebase(&root);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().to_str().unwrap()).unwrap();
    let data = load(&store, &manifest).await.unwrap();
    let lengths: Vec<u32> =
        (0..data.train.len()).map(|i| u32::try_from(data.train.length(i)).unwrap()).collect();
    let mut order = BatchOrder::new(manifest.seed, lengths.clone(), 32);
    let (mut real, mut padded) = (0, 0);
    for step in 0..order.steps_per_epoch() {
        let batch: Vec<u64> =
            order.batch(step).iter().map(|i| u64::from(lengths[*i as usize])).collect();
        real += batch.iter().sum::<u64>();
        padded += batch.iter().max().unwrap() * batch.len() as u64;
    }
    let fraction = (padded - real) as f64 / padded as f64;
    println!("pad fraction {fraction:.4}; {:?}", data.summary);
    assert!(fraction < 0.03, "{fraction}");
}
