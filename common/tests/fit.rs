//! Manifests held against directories of models: each mistake has its line and its mend before anything is spent.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use muster_common::manifest::Manifest;
use muster_common::model::{ModelConfig, tokenizer_file};
use serde_json::{Value, json};
use tempfile::TempDir;

fn config(family: &str) -> Value {
    let mut config = json!({
        "model_type": family, "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 6,
        "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 130,
    });
    if family == "distilbert" {
        for (key, value) in [("dim", 32), ("n_layers", 6), ("n_heads", 4), ("hidden_dim", 64)] {
            config[key] = value.into();
        }
    }
    config
}

/// A directory with all that is looked at; the weights are not read.
fn model(config: &Value) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    fs::write(directory.path().join("model.safetensors"), b"").unwrap();
    fs::write(directory.path().join(tokenizer_file::WHOLE), b"{}").unwrap();
    directory
}

/// A manifest of this model; `model` follows its first key, `rest` the other sections.
fn text(directory: &Path, model: &str, rest: &str) -> String {
    let rest = if rest.contains("budget:") {
        rest.to_owned()
    } else {
        format!("{rest}budget: {{epochs: 3}}\n")
    };
    let (file, label) = if rest.contains("objective:") {
        ("d.txt", "")
    } else {
        ("d.csv", "  label: {column: label, names: [a, b]}\n")
    };
    let held_out = "  validation: {fraction: 0.1}\n  text: text\n";
    let data = format!("data:\n  train: {{path: {file}}}\n{held_out}{label}");
    let directory = directory.display();
    format!("version: 1\nname: e\nmodel:\n  pretrained: {directory}\n{model}{data}{rest}")
}

/// What is said of a manifest, line by line.
fn said(directory: &Path, model: &str, rest: &str) -> Result<Vec<String>, String> {
    let text = text(directory, model, rest);
    let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    manifest.check_model(&text).map_err(|error| error.to_string())
}

#[test]
fn what_the_model_can_do_is_accepted() {
    for (family, length) in [("bert", 130), ("distilbert", 130), ("roberta", 128)] {
        let directory = model(&config(family));
        let settings =
            format!("  max_length: {length}\n  freeze: {{embeddings: true, layers: 6}}\n");
        assert_eq!(said(directory.path(), &settings, ""), Ok(Vec::new()), "{family}");
        let settings = format!("  max_length: {}\n", length + 1);
        let wanted = format!(
            "line 5: model.max_length: {}, but the model takes at most {length} tokens; write {length} or less",
            length + 1
        );
        assert_eq!(said(directory.path(), &settings, ""), Err(wanted), "{family}");
    }
}

#[test]
fn lengths_that_are_searched_must_all_fit() {
    let directory = model(&config("bert"));
    for (domain, fits) in [
        ("{values: [32, 130]}", true),
        ("{values: [32, 131]}", false),
        ("{min: 32, max: 130}", true),
        ("{min: 32, max: 512}", false),
    ] {
        let rest = format!(
            "hyperparameters:\n  max_length: {domain}\nsearcher: {{metric: loss, max_trials: 2}}\n"
        );
        let found = said(directory.path(), "", &rest);
        assert_eq!(found.is_ok(), fits, "{domain}: {found:?}");
        if let Err(message) = found {
            assert!(message.contains("hyperparameters.max_length: "), "{message}");
            assert!(message.contains("at most 130 tokens; write 130 or less"), "{message}");
        }
    }
}

#[test]
fn layers_that_are_not_there_are_neither_frozen_nor_drawn_anew() {
    let directory = model(&config("distilbert"));
    for (settings, wanted) in [
        (
            "  freeze: {layers: 7}\n",
            "line 5: model.freeze.layers: 7, but the model has 6 layers; write 6 or less",
        ),
        (
            "  reinitialize_layers: 12\n",
            "line 5: model.reinitialize_layers: 12, but the model has 6 layers; write 6 or less",
        ),
        (
            "  freeze: {embeddings: true, layers: 5}\n  reinitialize_layers: 2\n",
            "line 6: model.reinitialize_layers: the highest 2 of 6 layers are drawn anew, but the lowest 5 are \
             frozen: what is both would stay random; freeze less or reinitialize less",
        ),
    ] {
        assert_eq!(said(directory.path(), settings, ""), Err(wanted.to_owned()));
    }
    let both = "  freeze: {embeddings: true, layers: 4}\n  reinitialize_layers: 2\n";
    assert_eq!(said(directory.path(), both, ""), Ok(Vec::new()));
}

#[test]
fn mistakes_are_said_together() {
    let directory = model(&config("bert"));
    fs::remove_file(directory.path().join(tokenizer_file::WHOLE)).unwrap();
    let settings = "  max_length: 512\n  freeze: {layers: 7}\n  reinitialize_layers: 8\n";
    let message = said(directory.path(), settings, "").unwrap_err();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 4, "{message}");
    for (line, place) in lines.iter().zip(["pretrained", "max_length", "freeze", "reinitialize"]) {
        assert!(line.contains(&format!(": model.{place}")), "{message}");
    }
}

#[test]
fn pairs_need_segments_and_next_sentences_a_bert() {
    let mut narrow = config("bert");
    narrow["type_vocab_size"] = 1.into();
    let directory = model(&narrow);
    let text = text(directory.path(), "", "")
        .replace("  text: text\n", "  text: text\n  text_pair: other\n");
    let manifest = Manifest::parse(&text).unwrap();
    let message = manifest.check_model(&text).unwrap_err().to_string();
    assert!(
        message.contains("line 9: data.text_pair: ") && message.contains("type_vocab_size is 1"),
        "{message}"
    );
    let objective = "objective: next_sentence\n";
    let message = said(directory.path(), "", objective).unwrap_err();
    assert!(message.contains(": objective: the model does not tell"), "{message}");
    // RoBERTa has one row for both texts of a pair, and it is right.
    let mut roberta = config("roberta");
    roberta["type_vocab_size"] = 1.into();
    let directory = model(&roberta);
    let pairs = Manifest::parse(&text).unwrap();
    let parsed = ModelConfig::parse(roberta.to_string().as_bytes()).unwrap();
    assert_eq!(pairs.misfits(&parsed), Vec::new());
    let message = said(directory.path(), "", objective).unwrap_err();
    assert!(message.contains("a roberta never learns the next sentence; take a BERT"), "{message}");
    assert_eq!(said(directory.path(), "", "objective: masked_lm\n"), Ok(Vec::new()));
    roberta["tie_word_embeddings"] = false.into();
    let message = said(model(&roberta).path(), "", "objective: masked_lm\n").unwrap_err();
    assert!(message.contains("model.pretrained: tie_word_embeddings is false"), "{message}");
}

#[test]
fn a_directory_that_is_no_model_says_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let message = || said(directory.path(), "", "").unwrap_err();
    let holds = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    assert!(
        message().starts_with("line 4: model.pretrained: there is no config.json in "),
        "{}",
        message()
    );
    holds("config.json", br#"{"model_type": "gpt2"}"#);
    assert!(
        message().contains("model_type is `gpt2`; this build knows only `bert`"),
        "{}",
        message()
    );
    holds("config.json", config("bert").to_string().as_bytes());
    assert!(message().contains("there is no model.safetensors in "), "{}", message());
    assert!(
        message().contains("there is no tokenizer here: expected tokenizer.json"),
        "{}",
        message()
    );
    holds("pytorch_model.bin", b"");
    assert!(message().contains("pytorch_model.bin is in Python's pickle format"), "{}", message());
    assert!(message().contains("save_pretrained"), "{}", message());
    let index = |map: &str| holds("model.safetensors.index.json", map.as_bytes());
    index("{}");
    assert!(
        message().contains("is no list of weights files: missing field `weight_map`"),
        "{}",
        message()
    );
    index(r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#);
    holds("one.safetensors", b"");
    assert!(message().contains("there is no two.safetensors in "), "{}", message());
    holds("two.safetensors", b"");
    assert_eq!(message().lines().count(), 1, "only the tokenizer is missing: {}", message());
    holds("vocab.json", b"");
    assert!(message().contains("there is no tokenizer here"), "merges are missing: {}", message());
    holds("merges.txt", b"");
    assert_eq!(said(directory.path(), "", ""), Ok(Vec::new()));
}

#[test]
fn a_model_of_the_hub_is_not_looked_at() {
    let text = text(Path::new("org/model"), "  max_length: 8000\n", "");
    assert_eq!(Manifest::parse(&text).unwrap().check_model(&text), Ok(Vec::new()));
}

#[test]
fn what_is_rarely_meant_is_said_and_accepted() {
    let mut tuned = config("bert");
    tuned["architectures"] = json!(["BertForSequenceClassification"]);
    tuned["id2label"] = json!({"0": "bad", "1": "fair", "2": "good"});
    let directory = model(&tuned);
    let warned = |settings: &str, rest: &str, part: &str| {
        let lines = said(directory.path(), settings, rest).unwrap();
        let count = lines.iter().filter(|line| line.contains(part)).count();
        (count, lines.len())
    };
    assert_eq!(warned("", "", "tells 3 classes apart and data.label 2"), (1, 1));
    let decay = "hyperparameters: {layer_decay: 0.3}\n";
    assert_eq!(warned("", decay, "leaves the embeddings 7e-5 of the learning rate"), (1, 2));
    let upper = "  freeze: {embeddings: true, layers: 4}\n";
    assert_eq!(warned(upper, decay, "layer_decay"), (0, 1), "the lowest that is trained is near");
    let unfreeze = |every: &str, layers: u32| {
        format!("training: {{unfreeze: {{every: {every}, layers: {layers}}}}}\n")
    };
    assert_eq!(
        warned("", &unfreeze("{epochs: 1}", 1), "takes 7 epochs until the lowest of 7 groups"),
        (1, 2)
    );
    assert_eq!(warned("", &unfreeze("{epochs: 0.4}", 1), "unfreeze"), (0, 1));
    assert_eq!(warned("", &unfreeze("{steps: 1000}", 1), "unfreeze"), (0, 1), "another unit");
    assert_eq!(warned("", &unfreeze("{epochs: 0.1}", 7), "only 6 layers are trained"), (1, 2));
}
