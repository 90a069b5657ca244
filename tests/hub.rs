//! A model and a data set of a hub with the real programs: `HF_ENDPOINT` says where they are, `HF_HOME` where they
//! are kept.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use muster_common::seed::Seed;
use muster_tests::hub::{COMMIT, Hub};
use muster_tests::process::program;
use muster_tests::sample::repository;
use muster_tests::terminal::{Size, Terminal};

/// Runs `muster` in `directory`, with no settings of a hub but these.
fn muster(directory: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(program("muster").unwrap());
    for variable in ["HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"] {
        command.env_remove(variable);
    }
    let command = command.args(arguments).envs(environment.iter().copied());
    command.current_dir(directory).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    texts.concat()
}

/// Files of the model `tiny` and of the data set `org/set`, whose Parquet `muster predict` has written.
fn published(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let words = ["film", "a", "the", "is", "good", "bad"];
    let (mut draws, mut rows) = (Seed(7).draws(), "text,stars\n".to_owned());
    for index in 0..120 {
        let (first, stars) = if index % 2 == 0 { ("good", 5) } else { ("bad", 1) };
        rows += first;
        for _ in 0..4 + draws.below(6) {
            let word = usize::try_from(draws.below(words.len() as u64)).unwrap();
            write!(rows, " {}", words[word]).unwrap();
        }
        writeln!(rows, ",{stars}").unwrap();
    }
    fs::write(directory.join("rows.csv"), rows).unwrap();
    let shown = model.display().to_string();
    let arguments = ["predict", &shown, "--file", "rows.csv", "--output", "rows.parquet"];
    let output = muster(directory, &[], &arguments);
    assert!(output.status.success(), "{}", said(&output));
    let mut files = BTreeMap::new();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        files.insert(format!("tiny/{name}"), fs::read(model.join(name)).unwrap());
    }
    let parquet = fs::read(directory.join("rows.parquet")).unwrap();
    files.insert("datasets/org/set/data/train-00000-of-00001.parquet".to_owned(), parquet);
    files
}

/// Layers are frozen, so that both slots prepare.
const SWEEP: &str = "version: 1
name: hub
model: {pretrained: tiny, max_length: 16, freeze: {embeddings: true, layers: 1}}
data:
  train: {hub: org/set}
  validation: {fraction: 0.3}
  text: text
  label: {column: stars}
hyperparameters: {learning_rate: {values: [1e-3, 1e-2]}, global_batch_size: 8}
searcher: {metric: loss, sampler: grid}
budget: {epochs: 1}
max_restarts: 0
";

#[test]
fn slots_share_what_is_downloaded_once_and_say_how_far_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let hub = Hub::start(published(directory.path())).unwrap();
    fs::write(directory.path().join("sweep.yaml"), SWEEP).unwrap();
    let home = directory.path().join("home");
    let home_text = home.display().to_string();
    let environment = [("HF_ENDPOINT", hub.endpoint.as_str()), ("HF_HOME", home_text.as_str())];
    let size = Size { rows: 36, columns: 130 };
    let arguments = ["run", "sweep.yaml", "--slots", "2"];
    let mut terminal = Terminal::start(directory.path(), &arguments, size, &environment).unwrap();
    let screen = terminal.wait_for("downloading tiny: model.safetensors").unwrap();
    hub.release();
    assert!(screen.contains("preparing") && screen.contains(" MiB"), "{screen}");
    assert!(terminal.wait().unwrap().success(), "{}", terminal.written());
    let sent = hub.sent();
    assert_eq!(sent.len(), 5, "{sent:?}");
    assert!(sent.values().all(|count| *count == 1), "{sent:?}");
    for folder in ["models--tiny", "datasets--org--set"] {
        assert!(home.join("hub").join(folder).join("snapshots").join(COMMIT).is_dir(), "{folder}");
    }

    // From here on nobody is asked.
    let offline = [("HF_HUB_OFFLINE", "1"), ("HF_HOME", home_text.as_str())];
    let output = muster(directory.path(), &offline, &["run", "sweep.yaml", "--slots", "1"]);
    assert!(output.status.success(), "{}", said(&output));
    let elsewhere = [("HF_HUB_OFFLINE", "1"), ("HF_HOME", "elsewhere")];
    let output = muster(directory.path(), &elsewhere, &["run", "sweep.yaml", "--slots", "1"]);
    let text = said(&output);
    assert!(!output.status.success() && text.contains("HF_HUB_OFFLINE forbids"), "{text}");
    assert_eq!(hub.sent(), sent);
}
