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
/// Each family, and its padding token.
const FAMILIES: [(&str, &str); 3] = [("bert", "0"), ("distilbert", "0"), ("roberta", "1")];
const REVIEWS: &str = ".cache/demo/movie-reviews/sentences.tsv";
const SENTENCES: usize = 1000;

fn run(program: impl AsRef<std::ffi::OsStr>, directory: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Paragraphs, which are longer than what the models take.
const PARAGRAPHS: usize = 20;
/// Sentences of one of them.
const PARAGRAPH: usize = 10;
const PAIRS: usize = 100;
/// Farthest that a logit may be off.
const TOLERANCE: f64 = 1e-4;

/// Real sentences, paragraphs and pairs of them, as `muster predict` reads them.
fn texts(sentences: &str) -> String {
    let sentences: Vec<&str> =
        sentences.lines().filter_map(|line| line.split('\t').nth(2)).take(SENTENCES).collect();
    assert_eq!(sentences.len(), SENTENCES);
    let mut texts = String::new();
    for sentence in &sentences {
        writeln!(texts, "{}", json!({"text": sentence})).unwrap();
    }
    for paragraph in sentences.chunks(PARAGRAPH).take(PARAGRAPHS) {
        writeln!(texts, "{}", json!({"text": paragraph.join(" ")})).unwrap();
    }
    for pair in sentences.chunks(2).take(PAIRS) {
        writeln!(texts, "{}", json!({"text": pair[0], "text_pair": pair[1]})).unwrap();
    }
    texts
}

/// What ONNX Runtime makes of `texts.jsonl` in `at`, held against what `muster predict` does.
fn compared(at: &Path, model: &Path, pad: &str) -> Value {
    let model = model.display().to_string();
    let muster = program("muster").unwrap();
    let written = run(&muster, at, &["export", &model, "--onnx", "model.onnx"]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let predicted = run(&muster, at, &["predict", &model, "--file", "texts.jsonl", "--json"]);
    assert!(predicted.status.success(), "{}", text(&predicted.stderr));
    std::fs::write(at.join("predictions.jsonl"), predicted.stdout).unwrap();
    let script = repository().join("tests/onnx_scores.py").display().to_string();
    let scores = run(PYTHON, at, &[&script, "model.onnx", "predictions.jsonl", pad]);
    assert!(scores.status.success(), "{}", text(&scores.stderr));
    let scores: Value = serde_json::from_slice(&scores.stdout).unwrap();
    let all = SENTENCES + PARAGRAPHS + PAIRS;
    assert_eq!((&scores["count"], &scores["right"]), (&all.into(), &all.into()), "{model}");
    assert!(scores["largest"].as_f64().unwrap() < TOLERANCE, "{model}: {scores}");
    assert_eq!(scores["labels"], json!(["bad", "so-so", "good"]));
    scores
}

/// A directory with texts, or why there is none.
fn with_texts() -> Result<tempfile::TempDir, &'static str> {
    if !Path::new(PYTHON).exists() {
        return Err("parity: run deploy/setup/python_readers.sh");
    }
    let sentences = std::fs::read_to_string(repository().join(REVIEWS))
        .map_err(|_| "data: run deploy/setup/demo_inputs.sh")?;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("texts.jsonl"), texts(&sentences)).unwrap();
    Ok(directory)
}

#[test]
fn onnx_runtime_gives_the_same_logits() {
    let name = "onnx_runtime_gives_the_same_logits";
    let directory = match with_texts() {
        Ok(directory) => directory,
        Err(reason) => return skip(name, reason),
    };
    for (family, pad) in FAMILIES {
        let model = repository().join(format!("tests/golden/hf/families/{family}-classification"));
        compared(directory.path(), &model, pad);
    }
}

/// The tiny models know a few words and cut all texts short. These have a whole vocabulary each, take 128 tokens, and
/// say different things about different texts; one of them is a pretrained encoder.
#[test]
fn onnx_runtime_gives_the_same_logits_with_real_vocabularies() {
    let name = "onnx_runtime_gives_the_same_logits_with_real_vocabularies";
    let directory = match with_texts() {
        Ok(directory) => directory,
        Err(reason) => return skip(name, reason),
    };
    let at = directory.path();
    let inputs = ["tests/onnx_models.py", ".cache/demo/minilm", REVIEWS];
    let inputs = inputs.map(|path| repository().join(path).display().to_string());
    let [script, minilm, sentences] = inputs.each_ref().map(String::as_str);
    let made = run(PYTHON, at, &[script, minilm, sentences, "models"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    for (family, pad) in FAMILIES {
        let scores = compared(at, &at.join("models").join(family), pad);
        let figure = |name: &str| scores[name].as_f64().unwrap();
        assert!(figure("spread") > 1.0 && figure("rarest") > 0.02, "{family}: {scores}");
        assert!(figure("tokens") > 1500.0, "{family}: {scores}");
        assert_eq!(scores["longest"], 128, "{family}");
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
