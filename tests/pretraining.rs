//! Continued pretraining with the real programs: a sweep over every objective of every family, the
//! model it writes, and a classifier that starts from it.
//! `golden/hf/generate_families.py` made the models.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use muster_common::seed::Seed;
use muster_tests::process::program;
use muster_tests::sample::repository;
use serde_json::Value;

fn muster(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(program("muster").unwrap())
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(directory: &Path, manifest: &str) -> String {
    let arguments = ["run", manifest, "--slots", "1", "--summary", "summary.json"];
    let output = muster(directory, &arguments);
    let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{manifest}: {shown}");
    shown
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Documents of three to five sentences, blank lines between them.
fn write_documents(directory: &Path) {
    let words = ["good", "bad", "film", "a", "the", "is"];
    let (mut draws, mut documents) = (Seed(5).draws(), String::new());
    for number in 0..60 {
        for _ in 0..3 + number % 3 {
            for _ in 0..2 + draws.below(4) {
                let word = usize::try_from(draws.below(words.len() as u64)).unwrap();
                write!(documents, "{} ", words[word]).unwrap();
            }
            documents.push('\n');
        }
        documents.push('\n');
    }
    std::fs::write(directory.join("documents.txt"), documents).unwrap();
}

fn write_sweep(directory: &Path, model: &Path, objective: &str, metric: &str, extra: &str) {
    let model = model.display();
    let manifest = format!(
        "version: 1\nname: adapt\nobjective: {objective}\n\
         model: {{pretrained: {model}, max_length: 16}}\n\
         data:\n  train: {{path: documents.txt}}\n  validation: {{fraction: 0.2}}\n  \
         test: {{fraction: 0.2}}\n  text: text\n\
         hyperparameters:\n  learning_rate: {{values: [1e-3, 1e-2]}}\n  global_batch_size: 8\n  \
         micro_batch_size: 3\n  dropout: 0.1\n\
         searcher: {{metric: {metric}, sampler: grid}}\n\
         budget: {{steps: 12}}\ncheckpoint: {{every_steps: 5}}\n\
         training:\n  evaluate_every: {{steps: 4}}\n  early_stopping: {{patience: 9}}\n{extra}"
    );
    std::fs::write(directory.join("adapt.yaml"), manifest).unwrap();
}

fn write_classification(directory: &Path) {
    let mut rows = "text,label\n".to_owned();
    for index in 0..60 {
        let (word, label) = if index % 2 == 0 { ("good", "yes") } else { ("bad", "no") };
        writeln!(rows, "{word} film {} {label},{label}", "a ".repeat(index / 6)).unwrap();
    }
    std::fs::write(directory.join("reviews.csv"), rows).unwrap();
    let manifest = "version: 1\nname: classify\n\
         model: {pretrained: muster-data/experiments/adapt-1/best, max_length: 16}\n\
         data: {train: {path: reviews.csv}, validation: {fraction: 0.3}, text: text, label: {column: label}}\n\
         hyperparameters: {learning_rate: 1e-2, global_batch_size: 8}\nbudget: {epochs: 2}\n";
    std::fs::write(directory.join("classify.yaml"), manifest).unwrap();
}

fn adapt_then_classify(family: &str, objective: &str, metric: &str, class: &str, extra: &str) {
    let what = format!("{family}, {objective}");
    let directory = tempfile::tempdir().unwrap();
    let model: PathBuf =
        repository().join(format!("tests/golden/hf/families/{family}-classification"));
    write_documents(directory.path());
    write_sweep(directory.path(), &model, objective, metric, extra);
    let shown = run(directory.path(), "adapt.yaml");
    let summary = json_of(&directory.path().join("summary.json"));
    assert_eq!(summary["objective"]["metric"], metric, "{what}");
    let test = &summary["best"]["test"];
    let masks = objective != "next_sentence";
    assert_eq!(test["masked_loss"].is_number(), masks, "{what}: {test}");
    assert_eq!(test["num_masked"].is_number(), masks, "{what}: {test}");
    assert_eq!(test["accuracy"].is_number(), objective != "masked_lm", "{what}: {test}");
    if masks {
        let number = |key: &str| test[key].as_f64().unwrap();
        assert!((number("perplexity").ln() - number("masked_loss")).abs() < 1e-9, "{what}");
        assert!((0.0..=1.0).contains(&number("masked_accuracy")), "{what}");
    }
    assert!(!shown.contains(" predict "), "{what}: a language model classifies nothing: {shown}");
    let best = directory.path().join("muster-data/experiments/adapt-1/best");
    assert_eq!(json_of(&best.join("config.json"))["architectures"][0], class, "{what}");
    assert!(json_of(&best.join("muster.json"))["test"]["scores"]["loss"].is_number(), "{what}");

    write_classification(directory.path());
    run(directory.path(), "classify.yaml");
    let classifier = directory.path().join("muster-data/experiments/classify-1/best");
    let classifier = classifier.display().to_string();
    let output = muster(directory.path(), &["predict", &classifier, "good film", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(["yes", "no"].contains(&found["label"].as_str().unwrap()), "{what}: {found}");
}

#[test]
fn hidden_tokens_are_learned_by_every_family() {
    let whole = "  masking: {rate: 0.3, whole_words: true}\n";
    adapt_then_classify("bert", "masked_lm", "masked_loss", "BertForMaskedLM", "");
    let class = "DistilBertForMaskedLM";
    adapt_then_classify("distilbert", "masked_lm", "perplexity", class, whole);
    adapt_then_classify("roberta", "masked_lm", "masked_accuracy", "RobertaForMaskedLM", "");
}

#[test]
fn sentences_are_paired_alone_and_beside_hidden_tokens() {
    let class = "BertForNextSentencePrediction";
    adapt_then_classify("bert", "next_sentence", "accuracy", class, "");
    let average = "  average: {type: ema, decay: 0.9}\n  precision: bfloat16\n";
    adapt_then_classify("bert", "pretraining", "loss", "BertForPreTraining", average);
}

#[test]
fn families_without_next_sentences_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let model = repository().join("tests/golden/hf/families/roberta-classification");
    write_documents(directory.path());
    write_sweep(directory.path(), &model, "next_sentence", "accuracy", "");
    let output = muster(directory.path(), &["run", "adapt.yaml", "--slots", "1"]);
    let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success(), "{shown}");
    assert!(shown.contains("never learns the next sentence"), "{shown}");
    assert!(shown.contains("objective: masked_lm"), "{shown}");
}
