//! Models of every family from a manifest to predictions, with the real programs: predictions
//! against transformers, and a run that starts from a model of the hub's cache.
//! `golden/hf/generate_families.py` made the models and the predictions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use muster_tests::process::program;
use muster_tests::sample::repository;
use serde_json::{Value, json};

const FAMILIES: [&str; 3] = ["bert", "distilbert", "roberta"];
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn golden() -> PathBuf {
    repository().join("tests/golden/hf/families")
}

fn model(family: &str) -> PathBuf {
    golden().join(format!("{family}-classification"))
}

/// Runs `muster` in `directory`; nothing of the caller's hub settings reaches it.
fn muster(directory: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(program("muster").unwrap());
    for variable in ["HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"] {
        command.env_remove(variable);
    }
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_close(what: &str, found: &Value, wanted: &Value) {
    let (found, wanted) = (numbers(found), numbers(wanted));
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-5, "{what}: {found} instead of {wanted}");
    }
}

#[test]
fn predictions_are_those_of_transformers_in_the_order_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let cases = std::fs::read_to_string(golden().join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    for family in FAMILIES {
        let wanted = cases[family]["predictions"].as_array().unwrap();
        // More than one part of what is read at a time.
        let repetitions = 600;
        let mut file = String::new();
        for _ in 0..repetitions {
            for example in wanted {
                let mut object = json!({"text": example["text"], "id": 7});
                if let Some(pair) = example.get("text_pair") {
                    object["text_pair"] = pair.clone();
                }
                writeln!(file, "{object}").unwrap();
            }
        }
        std::fs::write(directory.path().join("texts.jsonl"), file).unwrap();
        let model = model(family).display().to_string();
        let arguments = ["predict", &model, "--file", "texts.jsonl", "--json"];
        let output = muster(directory.path(), &[], &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let found: Vec<Value> =
            text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(found.len(), wanted.len() * repetitions);
        for (found, wanted) in found.iter().zip(wanted.iter().cycle()) {
            let what = format!("{family}: {wanted}");
            for key in ["text", "text_pair", "label", "token_ids"] {
                assert_eq!(found[key], wanted[key], "{what}");
            }
            assert_close(&what, &found["logits"], &wanted["logits"]);
            assert_close(&what, &found["probabilities"], &wanted["probabilities"]);
        }
    }
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let model = model("bert").display().to_string();
    std::fs::write(directory.path().join("texts.jsonl"), "{\"text\": \"a\"}\n{\"txt\": 1}\n")
        .unwrap();
    let arguments = ["predict", &model, "--file", "texts.jsonl", "--json"];
    let output = muster(directory.path(), &[], &arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("texts.jsonl:2: ") && stderr.contains("`text`"), "{stderr}");

    let output = muster(directory.path(), &[], &["predict", &model, "--file", "nowhere.jsonl"]);
    assert!(text(&output.stderr).contains("nowhere.jsonl"));
    // A language model is no classifier.
    let other = golden().join("roberta-masked").display().to_string();
    let output = muster(directory.path(), &[], &["predict", &other, "good"]);
    assert!(text(&output.stderr).contains("no classification head"), "{}", text(&output.stderr));
    // Neither a directory nor, as nobody answers, a model of a hub.
    let unreachable = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", "cache")];
    let output = muster(directory.path(), &unreachable, &["predict", "org/tiny", "good"]);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("`org/tiny`") && stderr.contains("http://127.0.0.1:9"), "{stderr}");
}

/// What `muster predict FAMILY --json` says of lines of text.
fn said_of(directory: &Path, family: &str, lines: &[&str]) -> Vec<Value> {
    let model = model(family).display().to_string();
    let arguments = [&["predict", &model, "--json"], lines].concat();
    let output = muster(directory, &[], &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn tables_are_answered_with_all_their_columns() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    let texts = ["good, \"really\"", "a bad film"];
    let said = said_of(directory.path(), "bert", &texts);
    let table = "id,review,label\n007,\"good, \"\"really\"\"\",x\n8,a bad film,\n";
    std::fs::write(at("in.csv"), table).unwrap();
    let model = model("bert").display().to_string();
    let run = |arguments: &[&str]| {
        let output = muster(directory.path(), &[], &[&["predict", &model], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    // Every kind says the same, and each can be read again.
    let column = ["--text-column", "review"];
    let shown = run(&[&["--file", "in.csv", "--output", "a.jsonl"], column.as_slice()].concat());
    assert_eq!(shown, "2 predictions are in a.jsonl\n");
    run(&[&["--file", "in.csv", "--output", "a.parquet"], column.as_slice()].concat());
    run(&[&["--file", "in.csv", "--output", "a.csv"], column.as_slice()].concat());
    let lines: Vec<Value> =
        read("a.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for ((line, said), id) in lines.iter().zip(&said).zip(["007", "8"]) {
        assert_eq!((&line["id"], &line["prediction"]), (&json!(id), &said["label"]));
        let (found, wanted) = (line["probability"].as_f64(), said["probability"].as_f64());
        assert!((found.unwrap() - wanted.unwrap()).abs() < 1e-6, "{line} and {said}");
    }
    let header = read("a.csv").lines().next().unwrap().to_owned();
    assert!(header.starts_with("id,review,label,prediction,probability,probability_"), "{header}");
    assert!(read("a.csv").contains("\n007,\"good, \"\"really\"\"\",x,"), "{}", read("a.csv"));
    let bytes = std::fs::read(at("a.parquet")).unwrap().into();
    let found = muster_common::columnar::read_parquet(bytes, |_| true).unwrap();
    assert_eq!(found.columns.join(","), header);
    // Parquet in: its own columns come back, unless the answer has to go there.
    let arguments = ["predict", &model, "--file", "a.parquet", "--text", "review", "-o", "b.csv"];
    let output = muster(directory.path(), &[], &arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("`prediction`") && stderr.contains("rename"), "{stderr}");
    assert!(!at("b.csv").exists());
    let shown = run(&["--file", "a.parquet", "--text", "review", "--json"]);
    let again: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&again[0]["text"], &again[1]["text"]), (&json!(texts[0]), &json!(texts[1])));
}

#[test]
fn a_table_is_written_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let model = model("bert").display().to_string();
    std::fs::write(at("out.csv"), "before").unwrap();
    let run = |arguments: &[&str]| {
        let output = muster(directory.path(), &[], &[&["predict", &model], arguments].concat());
        (output.status.code(), text(&output.stderr))
    };
    // More than a part of good rows, and then one that cannot be read.
    std::fs::write(at("in.csv"), "text,n\n".to_owned() + &"good,1\n".repeat(5000) + "bad\n")
        .unwrap();
    let (code, said) = run(&["--file", "in.csv", "--output", "out.csv"]);
    assert!(code == Some(1) && said.contains("in.csv:5002: 1 field,"), "{said}");
    assert_eq!(std::fs::read_to_string(at("out.csv")).unwrap(), "before");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    // Which column holds the text is asked, with what there is.
    std::fs::write(at("in.tsv"), "id\tbody\n1\tgood\n").unwrap();
    let (code, said) = run(&["--file", "in.tsv", "--output", "out.csv"]);
    assert!(code == Some(1) && said.contains("the columns are `id`, `body`"), "{said}");
    assert!(said.contains("--text-column"), "{said}");
    let (code, said) = run(&["--file", "in.tsv", "--output", "out.xlsx"]);
    assert!(code == Some(2) && said.contains(".parquet"), "{said}");
    let (code, said) = run(&["--file", "in.txt"]);
    assert!(code == Some(1) && said.contains("--format"), "{said}");
}

#[test]
fn a_stream_is_answered_while_it_is_written() {
    use std::io::{BufRead, BufReader, Write};
    let streams = [
        (&["-"][..], "", ["good film", "a bad film"]),
        (&["--file", "-", "--format", "csv"][..], "text,n\n", ["good film,1", "\"a bad film\",2"]),
        (
            &["--format", "jsonl"][..],
            "",
            ["{\"text\": \"good film\"}", "{\"text\": \"a bad film\"}"],
        ),
    ];
    for (arguments, header, lines) in streams {
        let mut child = Command::new(program("muster").unwrap())
            .arg("predict")
            .arg(model("bert"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let (sender, answers) = std::sync::mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().try_for_each(|line| sender.send(line)));
        input.write_all(header.as_bytes()).unwrap();
        for (line, wanted) in lines.into_iter().zip(["good film", "a bad film"]) {
            // The next line is written when this one is answered, so nothing may be waited for.
            writeln!(input, "{line}").unwrap();
            let answer = answers.recv_timeout(std::time::Duration::from_secs(300)).unwrap();
            let answer = answer.unwrap();
            assert!(answer.ends_with(&format!("\t{wanted}")), "{arguments:?}: {answer}");
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

/// Puts the golden model of `family` where a download would have put `org/FAMILY`.
fn cached(home: &Path, family: &str) {
    let repository = home.join(format!("hub/models--org--{family}"));
    let snapshot = repository.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(model(family).join(file), snapshot.join(file)).unwrap();
    }
}

fn write_manifest(directory: &Path, family: &str) {
    let mut rows = "text,label\n".to_owned();
    for index in 0..60 {
        let (word, label) = if index % 2 == 0 { ("good", "yes") } else { ("bad", "no") };
        writeln!(rows, "{word} film {} {label},{label}", "a ".repeat(index / 6)).unwrap();
    }
    std::fs::write(directory.join("reviews.csv"), rows).unwrap();
    let manifest = format!(
        "version: 1\nname: {family}\n\
         model:\n  pretrained: org/{family}\n  max_length: 16\n  reinitialize_layers: 1\n  \
         freeze: {{embeddings: true, patterns: [\"*.layer.0.*\"]}}\n\
         data:\n  train: {{path: reviews.csv}}\n  validation: {{fraction: 0.2}}\n  \
         test: {{fraction: 0.2}}\n  text: text\n  label: {{column: label}}\n\
         hyperparameters: {{learning_rate: 1e-2, global_batch_size: 8}}\n\
         budget: {{epochs: 2}}\n"
    );
    std::fs::write(directory.join(format!("{family}.yaml")), manifest).unwrap();
}

#[test]
fn a_run_starts_from_a_model_of_the_hub_and_ends_with_one_that_predicts() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("huggingface");
    let offline = [("HF_HOME", home.to_str().unwrap()), ("HF_HUB_OFFLINE", "1")];
    for family in FAMILIES {
        cached(&home, family);
        write_manifest(directory.path(), family);
        let manifest = format!("{family}.yaml");
        let output = muster(directory.path(), &offline, &["validate", &manifest]);
        assert!(text(&output.stdout).contains(&format!("pretrained model: org/{family}")));
        let output = muster(directory.path(), &offline, &["run", &manifest, "--slots", "1"]);
        let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{shown}");
        let best = directory.path().join(format!("muster-data/experiments/{family}-1/best"));
        let provenance = std::fs::read_to_string(best.join("muster.json")).unwrap();
        let provenance: Value = serde_json::from_str(&provenance).unwrap();
        assert_eq!(provenance["pretrained"], format!("org/{family}"));
        let best = best.display().to_string();
        let output = muster(directory.path(), &[], &["predict", &best, "good film", "--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(["yes", "no"].contains(&found["label"].as_str().unwrap()), "{found}");
    }
    // What is not in the cache is not to be had offline.
    write_manifest(directory.path(), "other");
    let output = muster(directory.path(), &offline, &["run", "other.yaml", "--slots", "1"]);
    let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success() && shown.contains("HF_HUB_OFFLINE"), "{shown}");
}
