use std::ops::ControlFlow;
use std::path::Path as FilePath;

use muster_common::manifest::Manifest;
use muster_common::run::{DataFlaws, DataSummary};
use muster_common::seed::Seed;
use tokio::runtime::Runtime;

use super::*;
use crate::data::Split;
use crate::model::Frozen;

const FROZEN: Frozen = Frozen { embeddings: true, layers: 2 };

struct Bench {
    runtime: Runtime,
    store: Store,
    _directory: tempfile::TempDir,
    pretrained: Pretrained,
    model: Classifier,
    data: Dataset,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let root = FilePath::new(env!("CARGO_MANIFEST_DIR"));
        let pretrained = Pretrained::read(&root.join("../tests/golden/hf/tiny")).unwrap();
        let labels = vec!["a".to_owned(), "b".to_owned()];
        let model = Classifier::to_train(&pretrained, labels.clone(), FROZEN, Seed(1), Device::Cpu)
            .unwrap();
        let (train, validation) = (split(150, 1), split(40, 2));
        let summary = DataSummary {
            cache: "of-this-test".to_owned(),
            num_train: train.len() as u64,
            num_validation: validation.len() as u64,
            num_test: 0,
            labels,
            num_rows: 190,
            num_left_out: 0,
            num_duplicates: 0,
            mean_tokens: Some(10.0),
            remarks: Vec::new(),
            flaws: DataFlaws::default(),
        };
        let data = Dataset { train, validation, test: None, summary, origins: None };
        let runtime = Runtime::new().unwrap();
        Self { runtime, store, _directory: directory, pretrained, model, data }
    }

    fn prefix(&self) -> Prefix {
        self.covering(Coverage::Everything)
    }

    fn covering(&self, coverage: Coverage) -> Prefix {
        let (pretrained, model) = (&self.pretrained, &self.model);
        Prefix::find(&self.store, pretrained, model, &self.data, coverage).unwrap().unwrap()
    }

    fn compute(&self, part: u32, num_parts: u32) -> u64 {
        let mut examples = 0;
        let go_on = |progress: PrefixProgress| {
            examples = progress.examples_done;
            ControlFlow::Continue(())
        };
        let (runtime, parts) = (self.runtime.handle(), (part, num_parts));
        assert!(self.prefix().compute(runtime, &self.model, &self.data, parts, go_on).unwrap());
        examples
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let keys = self.runtime.block_on(self.store.list(&Layout::cache(&self.prefix().key)));
        let read = |key| std::fs::read(self.store.local_path(key).unwrap()).unwrap();
        keys.unwrap().iter().map(|key| (key.to_string(), read(key))).collect()
    }
}

fn split(num_examples: usize, seed: u64) -> Split {
    let mut draws = Seed(seed).draws();
    let mut tokens = Vec::new();
    for _ in 0..num_examples {
        let length = 2 + draws.below(20);
        let token = |_| u32::try_from(1 + draws.below(80)).unwrap();
        tokens.push((0..length).map(token).collect());
    }
    Split::new(tokens, vec![0; num_examples])
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_parts() {
    let (whole, parts) = (Bench::new(), Bench::new());
    assert_eq!(whole.compute(0, 1), 190);
    let done: u64 = (0..3).rev().map(|part| parts.compute(part, 3)).sum();
    assert_eq!(done, 190);
    assert!(whole.files().len() > 6 && whole.files() == parts.files());
}

#[test]
fn cached_activations_give_the_logits_of_the_whole_model() {
    let bench = Bench::new();
    bench.compute(0, 1);
    let cache = bench.prefix().open(bench.runtime.handle()).unwrap();
    for (which, split) in
        [(PrefixSplit::Train, &bench.data.train), (PrefixSplit::Validation, &bench.data.validation)]
    {
        let indices = [3u32, 17, 0, 29];
        let tokens: Vec<&[u32]> = indices.iter().map(|i| split.tokens(*i as usize)).collect();
        let batch = bench.model.batch(&tokens).unwrap();
        let wanted = tch::no_grad(|| bench.model.forward(&batch, 0.0)).unwrap();
        let hidden = cache.gather(which, &indices, Device::Cpu).unwrap();
        let found = tch::no_grad(|| bench.model.forward_from_prefix(&hidden, 0.0)).unwrap();
        assert!((found - wanted).abs().max().double_value(&[]) < 1e-5);
    }
    assert!(cache.gather(PrefixSplit::Validation, &[40], Device::Cpu).is_err());
}

#[test]
fn where_little_is_read_the_validation_split_is_covered_alone() {
    let bench = Bench::new();
    let handle = bench.runtime.handle();
    let mut examples = 0;
    let go_on = |progress: PrefixProgress| {
        examples = progress.examples_done;
        ControlFlow::Continue(())
    };
    let prefix = bench.covering(Coverage::Validation);
    assert!(prefix.compute(handle, &bench.model, &bench.data, (0, 1), go_on).unwrap());
    assert_eq!(examples, 40);
    let cache = prefix.open(handle).unwrap();
    assert_eq!(cache.coverage(), Coverage::Validation);
    assert!(!cache.is_of(&bench.prefix()), "an entry of its own");
    let indices = [39u32, 0, 7];
    let split = &bench.data.validation;
    let tokens: Vec<&[u32]> = indices.iter().map(|i| split.tokens(*i as usize)).collect();
    let wanted = bench.model.prefix(&bench.model.batch(&tokens).unwrap()).unwrap();
    let found = cache.gather(PrefixSplit::Validation, &indices, Device::Cpu).unwrap();
    assert!((found.states - wanted.states).abs().max().double_value(&[]) < 1e-5);
    assert!(cache.gather(PrefixSplit::Train, &[0], Device::Cpu).is_err());
}

#[test]
fn the_training_split_is_covered_where_trials_read_more_than_there_is() {
    let coverage = |rest: &str| {
        let manifest = format!(
            "version: 1\nname: x\nmodel: {{pretrained: here, freeze: {{embeddings: true, layers: 1}}}}\n\
             data: {{train: {{path: a.csv}}, validation: {{fraction: 0.1}}, text: a, label: {{column: b}}}}\n{rest}"
        );
        Coverage::of(&Manifest::parse(&manifest).unwrap(), 1000)
    };
    assert_eq!(coverage("budget: {epochs: 1}\n"), Coverage::Validation);
    assert_eq!(coverage("budget: {epochs: 1.1}\n"), Coverage::Everything);
    let lengths = "hyperparameters: {max_length: {values: [16, 32, 64]}}\n\
         searcher: {metric: accuracy, sampler: {type: grid}}\n";
    // Three trials, one of each length.
    assert_eq!(coverage(&format!("budget: {{epochs: 1}}\n{lengths}")), Coverage::Validation);
    assert_eq!(coverage(&format!("budget: {{epochs: 2}}\n{lengths}")), Coverage::Everything);
}

#[test]
fn a_missing_or_damaged_block_is_computed_again() {
    let bench = Bench::new();
    bench.compute(0, 1);
    let before = bench.files();
    assert_eq!(bench.compute(0, 1), 0, "nothing is computed twice");
    let path = |name: &str| {
        let key = Layout::cache(&bench.prefix().key).join(name);
        bench.store.local_path(&key).unwrap()
    };
    std::fs::remove_file(path("prefix-01.f32")).unwrap();
    let mut bytes = std::fs::read(path("prefix-02.f32")).unwrap();
    bytes[5] ^= 1;
    std::fs::write(path("prefix-02.f32"), bytes).unwrap();
    assert!(bench.compute(0, 1) > 0);
    let error = bench.prefix().open(bench.runtime.handle()).unwrap_err();
    assert!(error.to_string().contains("prefix-02"), "{error}");
    assert!(bench.compute(0, 1) > 0);
    assert!(bench.prefix().open(bench.runtime.handle()).is_ok());
    assert!(bench.files() == before);
}

#[test]
fn whoever_is_told_to_stop_leaves_no_half_block() {
    let bench = Bench::new();
    let mut calls = 0;
    let go_on = |_| {
        calls += 1;
        if calls > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let prefix = bench.prefix();
    let handle = bench.runtime.handle();
    assert!(!prefix.compute(handle, &bench.model, &bench.data, (0, 1), go_on).unwrap());
    assert_eq!(bench.files().len(), 2, "one block and its index");
    let nothing_frozen = Frozen { embeddings: true, layers: 0 };
    let labels = vec!["a".to_owned(), "b".to_owned()];
    let model =
        Classifier::to_train(&bench.pretrained, labels, nothing_frozen, Seed(1), Device::Cpu)
            .unwrap();
    let (store, data) = (&bench.store, &bench.data);
    let none = Prefix::find(store, &bench.pretrained, &model, data, Coverage::Everything).unwrap();
    assert!(none.is_none());
}
