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
    assert_eq!(keys.len(), 2);
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
    let remark = data.summary.remarks.iter().find(|remark| remark.contains("are listed in"));
    let named = remark.unwrap().split(' ').find(|word| word.ends_with("problems.jsonl"));
    let key = object_store::path::Path::from(named.unwrap());
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
    let remark =
        data.summary.remarks.iter().find(|remark| remark.contains("a text of the training files"));
    assert!(remark.unwrap().contains("train.csv:52, as "), "{:?}", data.summary.remarks);
}

/// Every example of a streamed split, in an order that reads nothing one after the other.
fn streamed(split: &StreamedSplit) -> Vec<(u32, Sequence, u32)> {
    let mut order: Vec<u32> = (0..u32::try_from(split.len()).unwrap()).collect();
    order.reverse();
    let third = order.len() / 3;
    order.rotate_left(third);
    let mut examples = Vec::new();
    for some in order.chunks(7) {
        let lengths = split.lengths(some).unwrap();
        for ((index, sequence), length) in
            some.iter().zip(split.sequences(some).unwrap()).zip(lengths)
        {
            assert_eq!(sequence.ids.len(), length as usize);
            examples.push((*index, sequence, split.label(*index as usize)));
        }
    }
    examples.sort_by_key(|(index, ..)| *index);
    examples
}

fn whole(split: &Split) -> Vec<(u32, Sequence, u32)> {
    let example = |index: u32| {
        let at = index as usize;
        let ids = split.tokens(at).to_vec();
        let first_segment = split.first_segment(at).unwrap_or(ids.len());
        (index, Sequence { ids, first_segment }, split.label(at))
    };
    (0..u32::try_from(split.len()).unwrap()).map(example).collect()
}

#[tokio::test]
async fn a_stream_has_the_examples_of_the_dataset_it_becomes() {
    let Bench { directory, store } = bench();
    let manifest = manifest(directory.path(), CUT);
    let elsewhere = Store::in_memory();
    let data = load(&elsewhere, &manifest).await.unwrap();
    let stream = load::open_only(&store, &manifest).await.unwrap().unwrap();
    assert_eq!(
        stream.summary,
        muster_common::run::DataSummary { mean_tokens: None, ..data.summary.clone() }
    );
    assert_eq!(streamed(&stream.train), whole(&data.train));
    let test = stream.test.as_ref().unwrap();
    assert_eq!(streamed(test), whole(data.test.as_ref().unwrap()));
    // What is scored is tokenized whole by whoever scores it, and then read from there.
    assert_eq!(stream.validation.whole().unwrap(), &data.validation);
    assert_eq!(streamed(&stream.validation), whole(&data.validation));
    let tokens = Layout::cache_index(&stream.summary.cache, "data");
    assert_eq!(store.find(&tokens).await.unwrap(), None, "nobody has tokenized everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_streamed_comes_into_the_cache_and_the_rows_go() {
    let Bench { directory, store } = bench();
    let manifest = manifest(directory.path(), CUT);
    let elsewhere = Store::in_memory();
    let data = load(&elsewhere, &manifest).await.unwrap();
    let (a, b) = tokio::join!(open(&store, &manifest, 8), open(&store, &manifest, 8));
    for opened in [a.unwrap(), b.unwrap()] {
        // The second may find that the first is done.
        let Data::Stream(stream) = opened else { continue };
        while !stream.is_settled() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(streamed(&stream.train), whole(&data.train));
        assert_eq!(stream.train.whole().unwrap(), &data.train);
    }
    let hash = &data.summary.cache;
    for key in elsewhere.list(&Layout::cache(hash)).await.unwrap() {
        assert!(store.get(&key).await.unwrap() == elsewhere.get(&key).await.unwrap(), "{key}");
    }
    let names = |keys: Vec<object_store::path::Path>| -> Vec<String> {
        keys.iter().filter_map(|key| key.filename().map(str::to_owned)).collect()
    };
    let all = store.list(&object_store::path::Path::from("cache")).await.unwrap();
    let mut names = names(all);
    names.sort();
    let left = ["data.index.json", "data.safetensors", "origins.safetensors", "problems.jsonl"];
    assert_eq!(names, left);
}

#[tokio::test]
async fn one_that_is_cut_off_leaves_rows_and_no_tokens_and_the_next_goes_on() {
    let Bench { directory, store } = bench();
    let manifest = manifest(directory.path(), CUT);
    let first = load::open_only(&store, &manifest).await.unwrap().unwrap();
    let examples = streamed(&first.train);
    drop(first); // before anything was tokenized
    // The files are not read again: what is left of the first are the rows.
    let (now, gone) = (directory.path().join("train.csv"), directory.path().join("gone.csv"));
    let second = load::open_only(&store, &manifest).await.unwrap().unwrap();
    assert_eq!(streamed(&second.train), examples);
    let rows: Vec<_> = store.list(&object_store::path::Path::from("cache")).await.unwrap();
    let rows: Vec<_> =
        rows.into_iter().filter(|key| key.filename().unwrap().starts_with("rows.")).collect();
    assert_eq!(rows.len(), 2, "an object and its index, no claim");
    // Damaged rows are read anew.
    for key in rows {
        let right = store.get(&key).await.unwrap();
        let mut flipped = right.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for damage in [right.slice(..right.len() / 2).to_vec(), flipped, Vec::new()] {
            store.put(&key, damage).await.unwrap();
            let again = load::open_only(&store, &manifest).await.unwrap().unwrap();
            assert_eq!(streamed(&again.train), examples);
            assert!(store.get(&key).await.unwrap() == right, "{key}");
        }
    }
    let data = load(&store, &manifest).await.unwrap();
    assert_eq!(whole(&data.train), examples);
    assert!(load::open_only(&store, &manifest).await.unwrap().is_none(), "there are tokens");
    std::fs::rename(now, gone).unwrap();
    assert!(load(&store, &manifest).await.is_err(), "files are looked at even so");
}

#[tokio::test]
async fn rows_serve_every_length_of_an_experiment_and_go_with_the_last() {
    let Bench { directory, store } = bench();
    let mut manifest = manifest(directory.path(), CUT);
    let text = "version: 1\nname: d\nmodel: {pretrained: m}\ndata:\n  train: {path: t.csv}\n\
                \x20 validation: {examples: 1}\n  text: text\n  label: {column: label}\n\
                hyperparameters: {max_length: {values: [8, 9]}}\n\
                searcher: {metric: loss, sampler: grid}\nbudget: {epochs: 1}\n";
    let other = Manifest::parse(text).unwrap();
    (manifest.hyperparameters, manifest.searcher) = (other.hyperparameters, other.searcher);
    let stream = load::open_only(&store, &manifest).await.unwrap().unwrap();
    let has_rows = || async {
        let keys = store.list(&object_store::path::Path::from("cache")).await.unwrap();
        keys.iter().any(|key| key.filename() == Some("rows.index.json"))
    };
    assert!(has_rows().await);
    load_at(&store, &manifest, 8).await.unwrap();
    assert!(has_rows().await, "9 tokens need them");
    let longer = load_at(&store, &manifest, 9).await.unwrap();
    assert!(!has_rows().await);
    assert_ne!(longer.summary.cache, stream.summary.cache);
    assert_eq!(longer.train.len(), stream.train.len());
    // Who had them open still has.
    assert_eq!(streamed(&stream.train).len(), stream.train.len());
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

#[tokio::test]
async fn pairs_are_streamed_too() {
    let Bench { directory, store } = bench();
    let rows: Vec<String> = (0..40).map(|n| format!("good film {n}\tbad {n}\t{}", n % 2)).collect();
    std::fs::write(directory.path().join("train.tsv"), format!("a\tb\tlabel\n{}", rows.join("\n")))
        .unwrap();
    let mut manifest = manifest(directory.path(), "  validation: {examples: 2}\n");
    manifest.data.train.paths = vec![directory.path().join("train.tsv").display().to_string()];
    manifest.data.train.format = muster_common::manifest::SourceFormat::Delimited {
        delimiter: muster_common::manifest::Delimiter::Tab,
        columns: None,
    };
    (manifest.data.text, manifest.data.text_pair) = ("a".to_owned(), Some("b".to_owned()));
    let stream = load::open_only(&store, &manifest).await.unwrap().unwrap();
    let data = load(&Store::in_memory(), &manifest).await.unwrap();
    assert!(stream.train.has_pairs());
    assert_eq!(streamed(&stream.train), whole(&data.train));
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
    let lengths = |window: &[u32]| {
        window.iter().map(|index| u32::try_from(data.train.length(*index as usize))).collect()
    };
    let mut order = BatchOrder::new(manifest.seed, data.train.len(), 32);
    let (mut real, mut padded) = (0, 0);
    for step in 0..order.steps_per_epoch() {
        let batch: Vec<u64> = order
            .batch(step, lengths)
            .unwrap()
            .iter()
            .map(|i| data.train.length(*i as usize) as u64)
            .collect();
        real += batch.iter().sum::<u64>();
        padded += batch.iter().max().unwrap() * batch.len() as u64;
    }
    let fraction = (padded - real) as f64 / padded as f64;
    println!("pad fraction {fraction:.4}; {:?}", data.summary);
    assert!(fraction < 0.03, "{fraction}");
}

/// Who reads the files knows it, and so does who finds rows or tokens in the cache.
#[tokio::test]
async fn examples_of_the_test_split_are_found_again_in_the_files() {
    let Bench { directory, store } = bench();
    // A header, a blank line, a record of two lines and one without a class are before some of them.
    let odd = "text,label\n\n\"a good\nfilm\",1\na film,none\na bad film number 7,0\n";
    std::fs::write(directory.path().join("odd.csv"), odd).unwrap();
    let cut = "  validation: {examples: 10}\n  test: {path: [odd.csv, more.csv]}\n  hygiene: {unknown_labels: drop}\n";
    let more = "text,label\ngood films good,1\nbad films bad number 8,0\n";
    std::fs::write(directory.path().join("more.csv"), more).unwrap();
    let texts = [
        ["a good\nfilm", "a film", "a bad film number 7"],
        ["good films good", "bad films bad number 8", ""],
    ];
    let manifest = manifest(directory.path(), cut);
    let stream = load::open_only(&store, &manifest).await.unwrap().unwrap();
    let rows = load::open_only(&store, &manifest).await.unwrap().unwrap();
    let made = load(&store, &manifest).await.unwrap();
    let again = load(&store, &manifest).await.unwrap();
    let split = made.test.as_ref().unwrap();
    let tokenizer = TextTokenizer::open(&directory.path().join("model"), 8).unwrap();
    for origins in [&stream.origins, &rows.origins]
        .into_iter()
        .chain([made.origins.as_ref(), again.origins.as_ref()].into_iter().flatten())
    {
        let found = origins.read(&store, split.len()).await.unwrap().unwrap();
        let places: Vec<(bool, u64)> =
            found.iter().map(|one| (one.file.ends_with("/odd.csv"), one.row)).collect();
        assert_eq!(places, [(true, 0), (true, 2), (false, 0), (false, 1)]);
        for (index, (odd, row)) in places.into_iter().enumerate() {
            let text = texts[usize::from(!odd)][usize::try_from(row).unwrap()];
            let sequence =
                tokenizer.encode_inputs(&[Input { text, pair: None }], 1).unwrap().remove(0);
            assert_eq!(sequence.ids, split.tokens(index), "{text}");
        }
        assert!(origins.read(&store, split.len() + 1).await.unwrap().is_none(), "of other rows");
    }
    // A cache of an older build has no places.
    for key in store.list(&object_store::path::Path::from("cache")).await.unwrap() {
        if key.filename() == Some("origins.safetensors") {
            store.delete(&key).await.unwrap();
        }
    }
    assert_eq!(again.origins.unwrap().read(&store, split.len()).await.unwrap(), None);
}
