//! Models that ONNX Runtime runs give the logits that `muster predict` gives: every family, a thousand real
//! sentences, and pairs, padded to batches.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use muster_tests::process::program;
use muster_tests::sample::repository;
use muster_tests::skip;
use serde_json::{Value, json};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/python/bin/python");
/// Each family, and its padding token in the tiny models.
const FAMILIES: [(&str, &str); 3] = [("bert", "0"), ("distilbert", "0"), ("roberta", "1")];
const SENTENCES: usize = 1000;

fn run(program: impl AsRef<std::ffi::OsStr>, directory: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Real sentences, and pairs of them, as `muster predict` reads them.
fn texts(sentences: &str) -> String {
    let sentences: Vec<&str> =
        sentences.lines().filter_map(|line| line.split('\t').nth(2)).take(SENTENCES).collect();
    assert_eq!(sentences.len(), SENTENCES);
    let mut texts = String::new();
    for sentence in &sentences {
        writeln!(texts, "{}", json!({"text": sentence})).unwrap();
    }
    for pair in sentences.chunks(2).take(100) {
        writeln!(texts, "{}", json!({"text": pair[0], "text_pair": pair[1]})).unwrap();
    }
    texts
}

#[test]
fn onnx_runtime_gives_the_same_logits() {
    let name = "onnx_runtime_gives_the_same_logits";
    if !Path::new(PYTHON).exists() {
        return skip(name, "parity: run deploy/setup/python_readers.sh");
    }
    let sentences = repository().join(".cache/demo/movie-reviews/sentences.tsv");
    let Ok(sentences) = std::fs::read_to_string(sentences) else {
        return skip(name, "data: run deploy/setup/demo_inputs.sh");
    };
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("texts.jsonl"), texts(&sentences)).unwrap();
    let muster = program("muster").unwrap();
    for (family, pad) in FAMILIES {
        let model = repository().join(format!("tests/golden/hf/families/{family}-classification"));
        let model = model.display().to_string();
        let written = run(&muster, at, &["export", &model, "--onnx", "model.onnx"]);
        assert!(written.status.success(), "{}", text(&written.stderr));
        let predicted = run(&muster, at, &["predict", &model, "--file", "texts.jsonl", "--json"]);
        assert!(predicted.status.success(), "{}", text(&predicted.stderr));
        std::fs::write(at.join("predictions.jsonl"), predicted.stdout).unwrap();
        let script = repository().join("tests/onnx_scores.py").display().to_string();
        let scores = run(PYTHON, at, &[&script, "model.onnx", "predictions.jsonl", pad]);
        assert!(scores.status.success(), "{}", text(&scores.stderr));
        let scores: Value = serde_json::from_slice(&scores.stdout).unwrap();
        assert_eq!((&scores["count"], &scores["right"]), (&1100.into(), &1100.into()), "{family}");
        assert!(scores["largest"].as_f64().unwrap() < 1e-4, "{family}: {scores}");
        assert_eq!(scores["labels"], json!(["bad", "so-so", "good"]));
    }
}

#[test]
fn mistakes_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let models = repository().join("tests/golden/hf/families");
    let language = models.join("bert-masked").display().to_string();
    let classifier = models.join("bert-classification").display().to_string();
    let muster = program("muster").unwrap();
    for (arguments, word) in [
        (["export", &language, "--onnx", "model.onnx"], "no classification head"),
        (["export", &classifier, "--onnx", "nowhere/model.onnx"], "nowhere/model.onnx"),
    ] {
        let output = run(&muster, directory.path(), &arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
}
