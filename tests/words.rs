//! Hyperparameters that are words, with the real programs: a trial that has one trains as a manifest that says it for
//! all, and whoever asks about a trial reads the word.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use muster_tests::http::request;
use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::service::served_address;
use muster_tests::skip;
use serde_json::{Value, json};

/// Two trials, of one schedule each; and an experiment of the first one's, said for all.
fn write_manifests(directory: &Path) -> Result<(), String> {
    let path = write_manifest(directory, &Sample { max_trials: 2, min_steps: 4 })?;
    let text = fs::read_to_string(&path).unwrap();
    let searched = ["learning_rate:", "global_batch_size:", "dropout:"];
    let left_out = |line: &&str| {
        let line = line.trim_start();
        searched.iter().chain(&["max_trials:", "pruner:"]).any(|key| line.starts_with(key))
    };
    let kept: Vec<&str> = text.lines().filter(|line| !left_out(line)).collect();
    let text = kept.join("\n") + "\n";
    let constants =
        "hyperparameters:\n  learning_rate: 5e-4\n  global_batch_size: 8\n  dropout: 0.1\n";
    let words = format!("{constants}  schedule: {{values: [cosine, linear]}}\n");
    let sweep = text
        .replace("hyperparameters:\n", &words)
        .replace("  metric: loss\n", "  metric: loss\n  sampler: grid\n");
    fs::write(&path, sweep).unwrap();
    let alone = text
        .replace("name: sample\n", "name: alone\n")
        .replace("hyperparameters:\n", constants)
        .replace("searcher:\n  metric: loss\n", "training: {schedule: cosine}\n");
    fs::write(directory.join("alone.yaml"), alone).unwrap();
    Ok(())
}

struct Served {
    directory: tempfile::TempDir,
    _server: Muster,
    url: String,
}

impl Served {
    /// A coordinator that has run the sweep, or why there is none.
    fn start(name: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        if let Err(reason) = write_manifests(directory.path()) {
            skip(name, &reason);
            return None;
        }
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--slots", "1"];
        let mut server = Muster::start(directory.path(), "serve", &arguments).unwrap();
        let url = served_address(&mut server).unwrap();
        let served = Self { directory, _server: server, url };
        assert_eq!(served.ask(&["submit", "sample.yaml"]), "sample-1\n");
        served.ask(&["watch", "sample-1"]);
        Some(served)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let all = [arguments, &["--coordinator", &self.url]].concat();
        Muster::start(self.path(), arguments[0], &all).unwrap().succeed().unwrap().0
    }

    fn json(&self, path: &str) -> Value {
        let url = format!("{}/api/v1{path}", self.url);
        request("GET", &url, &[], "").unwrap().json().unwrap()
    }

    /// Values of a metric of a trial, one for each step.
    fn curve(&self, trial: &str, metric: &str) -> Vec<f64> {
        let text = self.ask(&["curves", trial, "--json", "--name", metric]);
        let curve: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let values: Vec<f64> =
            curve["mean"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(values.len() >= 16, "{trial}: {text}");
        values
    }
}

/// The schedules of some trials.
fn schedules<'a>(trials: &'a Value, key: &str) -> BTreeSet<&'a str> {
    let trials = trials.as_array().unwrap().iter();
    trials.map(|trial| trial[key]["schedule"].as_str().unwrap()).collect()
}

#[test]
fn a_trial_trains_as_its_word_says() {
    let Some(served) = Served::start("a_trial_trains_as_its_word_says") else { return };
    assert_eq!(served.ask(&["submit", "alone.yaml"]), "alone-1\n");
    served.ask(&["watch", "alone-1"]);
    let rates = |trial: &str| served.curve(trial, "learning_rate");
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(rates("sample-1/t1")), bits(rates("alone-1/t1")));
    assert_ne!(bits(rates("sample-1/t1")), bits(rates("sample-1/t2")));
    let losses = |trial: &str| bits(served.curve(trial, "train_loss"));
    assert_eq!(losses("sample-1/t1"), losses("alone-1/t1"), "the same random choices too");
    // A fork of one trial has its word as a constant.
    let printed = served.ask(&["fork", "sample-1/t2", "--print"]);
    assert!(printed.contains("schedule: linear"), "{printed}");
    assert_eq!(served.ask(&["fork", "sample-1/t2"]), "sample-2\n");
    served.ask(&["watch", "sample-2"]);
    assert_eq!(bits(rates("sample-2/t1")), bits(rates("sample-1/t2")));
}

#[test]
fn whoever_asks_reads_the_word() {
    let Some(served) = Served::start("whoever_asks_reads_the_word") else { return };
    let both = BTreeSet::from(["cosine", "linear"]);
    let listed: Value = serde_json::from_str(&served.ask(&["ls", "sample-1", "--json"])).unwrap();
    assert_eq!(schedules(&listed["trials"], "hyperparameters"), both);
    let table = served.ask(&["ls", "sample-1"]);
    assert!(both.iter().all(|word| table.contains(word)), "{table}");
    let why = served.ask(&["why", "sample-1/t1"]);
    assert!(why.contains("schedule cosine"), "{why}");

    let one = served.json("/experiments/sample-1");
    let (parameter, constants) = (&one["parameters"][0], &one["constants"]);
    assert_eq!(
        (&parameter["kind"], &parameter["values"]),
        (&json!("words"), &json!(["cosine", "linear"]))
    );
    assert_eq!(constants["global_batch_size"], json!(8.0), "{constants}");
    let points = served.json("/experiments/sample-1/points");
    let column = points["values"][0].as_array().unwrap();
    assert_eq!(column.iter().map(|word| word.as_str().unwrap()).collect::<BTreeSet<_>>(), both);
    let found = served.json("/experiments/sample-1/trials?is.schedule=cosine");
    assert_eq!((&found["total"], &found["trials"][0]["number"]), (&json!(1), &json!(1)), "{found}");
    assert_eq!(found["trials"][0]["parameters"], json!({"schedule": "cosine"}));

    let files = ["--json", "report.json", "--output", "report.html", "--no-explanations"];
    served.ask(&[&["report", "sample-1"][..], &files[..]].concat());
    let read = |name: &str| fs::read_to_string(served.path().join(name)).unwrap();
    let report: Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(schedules(&report["ranking"]["trials"], "parameters"), both);
    let best = report["ranking"]["trials"][0]["parameters"]["schedule"].clone();
    assert_eq!(report["card"]["chosen"]["settings"]["schedule"], best);
    let page = read("report.html");
    assert!(both.iter().all(|word| page.contains(&format!(">{word}</td>"))));
    // What the store alone tells of the chosen trial.
    let files = ["--json", "stored.json", "--output", "stored.html", "--no-explanations"];
    let stored = ["report", "sample-1", "--store", "muster-data"];
    let arguments = [&stored[..], &files[..]].concat();
    Muster::start(served.path(), "stored", &arguments).unwrap().succeed().unwrap();
    let stored: Value = serde_json::from_str(&read("stored.json")).unwrap();
    assert_eq!(stored["card"]["chosen"]["settings"]["schedule"], best);

    served.ask(&["export", "sample-1", "--mlflow", "mlruns"]);
    let mut exported = BTreeSet::new();
    for experiment in fs::read_dir(served.path().join("mlruns")).unwrap().flatten() {
        for run in fs::read_dir(experiment.path()).into_iter().flatten().flatten() {
            exported.extend(fs::read_to_string(run.path().join("params/schedule")));
        }
    }
    assert_eq!(exported.iter().map(String::as_str).collect::<BTreeSet<_>>(), both);
}
