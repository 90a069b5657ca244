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

#[tokio::test]
async fn a_store_that_is_elsewhere_gives_the_same_data() {
    let Bench { directory, store } = bench();
    let manifest = manifest(directory.path(), CUT);
    let here = load(&store, &manifest).await.unwrap();
    let remote = Store::in_memory();
    let made = load(&remote, &manifest).await.unwrap();
    let fetched = load(&remote, &manifest).await.unwrap();
    for data in [&made, &fetched] {
        assert_eq!((&data.train, &data.validation), (&here.train, &here.validation));
        assert_eq!((&data.test, &data.summary), (&here.test, &here.summary));
    }
}

#[tokio::test]
async fn what_is_wrong_with_rows_is_listed_and_counted() {
    let Bench { directory, store } = bench();
    let path = directory.path().join("train.csv");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(b"A good films number 0,1\n,0\nA caf\xe9 number 7,1\n");
    bytes.extend(b"The hall was full and nobody left before the lights were on again,1\n");
    bytes.extend(b"the hall was full - and nobody left before the lights were on AGAIN!,1\n");
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(
        directory.path().join("test.csv"),
        "text,label\nA bad films number 1,0\ngood,1\n",
    )
    .unwrap();
    let cut = "  validation: {examples: 5}\n  test: {path: test.csv}\n";
    let data = load(&store, &manifest(directory.path(), cut)).await.unwrap();
    let flaws = data.summary.flaws;
    assert_eq!((flaws.num_empty, flaws.num_bad_utf8, flaws.num_leaks), (1, 1, 1));
    assert_eq!(data.summary.num_duplicates, 2);
    assert!(flaws.num_near_duplicates >= 2, "{flaws:?}");
    let key = Layout::cache(&data.summary.cache).join("problems.jsonl");
    let list = String::from_utf8(store.get(&key).await.unwrap().to_vec()).unwrap();
    let lines: Vec<serde_json::Value> =
        list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<(&str, u64, bool)> = lines
        .iter()
        .map(|line| {
            let file = line["file"].as_str().unwrap();
            assert!(file.ends_with("train.csv"), "{line}");
            (
                line["problem"].as_str().unwrap(),
                line["row"].as_u64().unwrap(),
                line["kept"].as_bool().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("empty", 53, false),
        ("bad_utf8", 54, true),
        ("leak", 3, false),
        ("duplicate", 52, false),
    ];
    assert_eq!(found, expected);
    assert_eq!(lines[3]["of_row"], 2);
    let remark = data.summary.remarks.iter().find(|remark| remark.contains("repeat a text"));
    assert!(remark.unwrap().contains("train.csv:52, as "), "{:?}", data.summary.remarks);
}

fn unlabeled(directory: &Path, objective: &str, max_length: u32) -> Manifest {
    let text = format!(
        "version: 1\nname: data\nseed: 3\nobjective: {objective}\n\
         model: {{pretrained: model, max_length: {max_length}}}\n\
         data:\n  train: {{path: train.txt}}\n  validation: {{fraction: 0.25}}\n  text: text\n\
         budget: {{epochs: 1}}\n"
    );
    let mut manifest = Manifest::parse(&text).unwrap();
    manifest.rebase(directory);
    manifest
}

#[tokio::test]
async fn long_texts_without_labels_become_several_examples() {
    let Bench { directory, store } = bench();
    let texts: Vec<String> = (0..8)
        .map(|n| format!("{n} good film bad film good bad good bad film{}", " a".repeat(n)))
        .collect();
    std::fs::write(directory.path().join("train.txt"), texts.join("\n")).unwrap();
    let data = load(&store, &unlabeled(directory.path(), "masked_lm", 8)).await.unwrap();
    assert_eq!(data.summary.labels, [] as [String; 0]);
    // 10 to 17 tokens a text, 6 of them in an example.
    let expected = (data.summary.num_train, data.summary.num_validation);
    assert!(expected.0 > 6 && expected.1 >= 2, "{expected:?}");
    let total: usize = [&data.train, &data.validation]
        .into_iter()
        .flat_map(|split| (0..split.len()).map(|index| split.length(index) - 2))
        .sum();
    assert_eq!(total, (0..8).map(|n| 10 + n).sum::<usize>(), "no token is left out");
    assert!((0..data.train.len()).all(|index| data.train.segments(index).is_none()));
}

#[tokio::test]
async fn documents_become_pairs_of_sentences() {
    let Bench { directory, store } = bench();
    let document = |n: u32| format!("number {n}\ngood film {n}\nbad film {n}\n");
    let documents: Vec<String> = (0..9).map(document).collect();
    std::fs::write(directory.path().join("train.txt"), documents.join("\n")).unwrap();
    let manifest = unlabeled(directory.path(), "next_sentence", 12);
    let data = load(&store, &manifest).await.unwrap();
    assert_eq!(data.summary.labels, ["next", "random"]);
    assert_eq!((data.train.len(), data.validation.len()), (14, 4), "two pairs of each document");
    let mut classes = [0, 0];
    for index in 0..data.train.len() {
        let (tokens, segments) = (data.train.tokens(index), data.train.segments(index).unwrap());
        let middle = tokens.iter().position(|token| *token == 3).unwrap() + 1;
        assert_eq!((tokens[0], tokens.last()), (2, Some(&3)));
        assert!(
            segments.iter().enumerate().all(|(at, segment)| *segment == u32::from(at >= middle))
        );
        // The last token of every sentence is the number of its document.
        let same = tokens[middle - 2] == tokens[tokens.len() - 2];
        let class = data.train.label(index);
        assert_eq!(same, class == 0);
        classes[class as usize] += 1;
    }
    assert!(classes[0] > 2 && classes[1] > 2, "{classes:?}");
    std::fs::write(directory.path().join("train.txt"), "one\ntwo\n\nthree\n").unwrap();
    let error = load(&store, &manifest).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("at least two"), "{error}");
}

#[tokio::test]
async fn pairs_have_segments_and_a_place_in_the_cache() {
    let Bench { directory, store } = bench();
    let rows: Vec<String> = (0..8).map(|n| format!("good film {n}\tbad {n}\t{}", n % 2)).collect();
    let rows = rows.join("\n");
    std::fs::write(directory.path().join("train.tsv"), format!("a\tb\tlabel\n{rows}")).unwrap();
    let mut manifest = manifest(directory.path(), "  validation: {examples: 2}\n");
    manifest.data.train.paths = vec![directory.path().join("train.tsv").display().to_string()];
    manifest.data.train.format = muster_common::manifest::SourceFormat::Delimited {
        delimiter: muster_common::manifest::Delimiter::Tab,
        columns: None,
    };
    (manifest.data.text, manifest.data.text_pair) = ("a".to_owned(), Some("b".to_owned()));
    let made = load(&store, &manifest).await.unwrap();
    let mapped = load(&store, &manifest).await.unwrap();
    assert_eq!(made.train, mapped.train);
    assert_eq!(&made.train.tokens(0)[..3], [2, 5, 7]);
    let segments = made.train.segments(0).unwrap();
    assert_eq!(segments, [0, 0, 0, 0, 0, 1, 1, 1]);
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
