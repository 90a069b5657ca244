//! What lies in the store may come to harm. A run refuses it by name and goes on from the checkpoint before;
//! `muster checkpoints` shows, checks, fetches and deletes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use muster_common::storage::CheckpointKey;
use muster_tests::gang::Laboratory;
use muster_tests::process::{Muster, descendants, is_alive};
use muster_tests::sample::repository;
use muster_tests::service::exported_weights;
use serde_json::Value;

const RUN: [&str; 4] = ["run", "gang.yaml", "--slots", "1"];
const RESUME: [&str; 4] = ["run", "--resume", "--slots", "1"];

/// A small training with a checkpoint every ten steps, of which the newest four are kept.
fn prepare(steps: u64) -> Laboratory {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let settings = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9, dropout: 0.2}
checkpoint: {every_steps: 10, keep_last: 4}
";
    let laboratory = Laboratory::new(&model, 60, settings).unwrap();
    let text = laboratory.text.replace("{steps: 1000000}", &format!("{{steps: {steps}}}"));
    fs::write(laboratory.directory.path().join("gang.yaml"), text).unwrap();
    laboratory
}

/// A run that is killed after some checkpoints.
fn interrupted(steps: u64) -> Laboratory {
    let laboratory = prepare(steps);
    let directory = laboratory.directory.path();
    let mut run = Muster::start(directory, "first", &RUN).unwrap();
    // The oldest goes when the coordinator has heard of the fifth, so it knows four that are left.
    let is_oldest = |path: &PathBuf| path.ends_with("00000010-2");
    let has_retired = |_: &Muster| {
        let found = newest_first(directory);
        (found.len() >= 4 && !found.iter().any(is_oldest)).then_some(())
    };
    run.wait_for("five checkpoints", has_retired).unwrap();
    let workers = descendants(run.pid(), "muster-worker");
    run.kill().unwrap();
    while workers.iter().any(|pid| is_alive(*pid)) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    laboratory
}

fn trial_directory(directory: &Path) -> PathBuf {
    directory.join("muster-data/experiments/gang-1/trials/1/checkpoints")
}

/// Directories of whole checkpoints, newest first.
fn newest_first(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(trial_directory(directory)).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join("index.json").is_file())
        .collect();
    found.sort();
    found.reverse();
    found
}

/// `muster checkpoints ARGUMENTS`: exit code, standard output, standard error.
fn checkpoints(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let arguments = [&["checkpoints"], arguments].concat();
    let mut run = Muster::start(directory, "checkpoints", &arguments).unwrap();
    let status = run.wait().unwrap();
    (status.code().unwrap(), run.stdout(), run.stderr())
}

/// Harms a checkpoint, given the one before it.
type Harm = fn(&Path, &Path);

fn flip(checkpoint: &Path, _: &Path) {
    let path = checkpoint.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(checkpoint: &Path, _: &Path) {
    let path = checkpoint.join("optimizer.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn lose(checkpoint: &Path, _: &Path) {
    fs::remove_file(checkpoint.join("progress.safetensors")).unwrap();
}

fn swap(checkpoint: &Path, _: &Path) {
    let [model, optimizer] =
        ["model", "optimizer"].map(|name| checkpoint.join(format!("{name}.safetensors")));
    let kept = fs::read(&model).unwrap();
    fs::copy(&optimizer, &model).unwrap();
    fs::write(optimizer, kept).unwrap();
}

fn take_part(checkpoint: &Path, before: &Path) {
    let name = "model.safetensors";
    fs::copy(before.join(name), checkpoint.join(name)).unwrap();
}

fn take_index(checkpoint: &Path, before: &Path) {
    fs::copy(before.join("index.json"), checkpoint.join("index.json")).unwrap();
}

#[test]
fn a_run_goes_on_from_the_checkpoint_before_one_that_has_come_to_harm() {
    // So many that the run is not over when somebody who was held up kills it.
    const STEPS: u64 = 300;
    let quiet = prepare(STEPS);
    Muster::start(quiet.directory.path(), "quiet", &RUN).unwrap().succeed().unwrap();
    let expected = exported_weights(quiet.directory.path(), "gang-1").unwrap();
    let harms: [(Harm, &str); 6] = [
        (flip, "part `model`"),
        (cut, "part `optimizer`"),
        (lose, "part `progress`"),
        (swap, "part `model`"),
        (take_part, "part `model`"),
        (take_index, "belongs to"),
    ];
    for (harm, words) in harms {
        let laboratory = interrupted(STEPS);
        let directory = laboratory.directory.path();
        let found = newest_first(directory);
        // The coordinator knows four in a row. The oldest two may be such that it had let go and not yet
        // deleted, so with three left whole the newest that it knows is harmed, and one that it knows is not.
        for pair in found.windows(2).take(found.len() - 3) {
            harm(&pair[0], &pair[1]);
        }
        let (code, verdict, _) = checkpoints(directory, &["verify", "gang-1"]);
        assert_eq!(code, 1, "{verdict}");
        assert!(
            verdict.contains(words) && verdict.lines().any(|l| l.starts_with("ok")),
            "{verdict}"
        );
        Muster::start(directory, "resumed", &RESUME).unwrap().succeed().unwrap();
        let log = directory.join("muster-data/coordinator/logs/gang-1.log");
        let log = fs::read_to_string(log).unwrap();
        let refused = log.lines().filter(|line| line.contains("the checkpoint before it is used"));
        let refused: Vec<&str> = refused.collect();
        assert!(refused.iter().any(|line| line.contains(words)), "{words}: {log}");
        assert!(exported_weights(directory, "gang-1").unwrap() == expected, "{words}: {log}");
        println!("{}", refused[0]);
    }
}

/// The checkpoints that `verify` finds whole; its exit code says whether all are.
fn verdicts(directory: &Path) -> Vec<String> {
    let (code, said, _) = checkpoints(directory, &["verify", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    let (whole, harmed): (Vec<&Value>, Vec<&Value>) =
        said.as_array().unwrap().iter().partition(|verdict| verdict["ok"] == true);
    let wrong = |verdict: &&Value| verdict["wrong"].as_array().unwrap().len();
    assert!(whole.iter().all(|verdict| wrong(verdict) == 0), "{said}");
    assert!(harmed.iter().all(|verdict| wrong(verdict) > 0), "{said}");
    assert_eq!(code, i32::from(!harmed.is_empty()), "{said}");
    whole.iter().map(|verdict| verdict["checkpoint"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn checkpoints_are_listed_fetched_and_deleted() {
    let laboratory = prepare(60);
    let directory = laboratory.directory.path();
    Muster::start(directory, "run", &RUN).unwrap().succeed().unwrap();
    let (code, listed, _) = checkpoints(directory, &["ls", "gang-1/t1", "--json"]);
    assert_eq!(code, 0);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|c| c["checkpoint"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let newest: CheckpointKey = names[3].parse().unwrap();
    assert_eq!(newest.step, 60);
    assert_eq!(listed[3]["parts"][0]["name"], "model");
    let (_, text, _) = checkpoints(directory, &["ls"]);
    assert!(names.iter().all(|name| text.contains(name)), "{text}");

    assert_eq!(verdicts(directory), names);

    let (code, said, _) = checkpoints(directory, &["get", names[2], "fetched", "--json"]);
    let fetched: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &fetched), (0, &listed[2]));
    let original = &newest_first(directory)[1];
    for entry in fs::read_dir(original).unwrap().flatten() {
        let fetched = fs::read(directory.join("fetched").join(entry.file_name())).unwrap();
        assert!(fetched == fs::read(entry.path()).unwrap(), "{:?}", entry.file_name());
    }
    let (code, _, said) = checkpoints(directory, &["get", names[2], "fetched"]);
    assert!(code == 1 && said.contains("not empty"), "{said}");
    flip(original, original);
    let (code, _, said) = checkpoints(directory, &["get", names[2], "again"]);
    assert!(code == 1 && said.contains("part `model`"), "{said}");
    assert_eq!(verdicts(directory), [names[0], names[1], names[3]], "one has come to harm");

    let (code, _, said) = checkpoints(directory, &["rm", names[3]]);
    assert!(code == 1 && said.contains("--force"), "{said}");
    assert_eq!(checkpoints(directory, &["rm", names[2]]).0, 0);
    let (code, said, _) = checkpoints(directory, &["rm", names[3], "--force", "--json"]);
    let deleted: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &deleted[0]["checkpoint"]), (0, &listed[3]["checkpoint"]), "{said}");
    assert_eq!(newest_first(directory).len(), 2);
    let (code, _, said) = checkpoints(directory, &["get", names[3], "gone"]);
    assert!(code == 1 && said.contains("checkpoints ls"), "{said}");
    let (code, _, said) = checkpoints(directory, &["get", "gang-1", "gone"]);
    assert!(code == 2 && said.contains("EXPERIMENT/tN/STEP-GENERATION"), "{said}");
    let (code, _, said) = checkpoints(directory, &["ls", "--store", "nothing-here"]);
    assert!(code == 2 && said.contains("--store"), "{said}");
    assert!(!directory.join("nothing-here").exists(), "looking makes nothing");
}

#[test]
fn what_nobody_follows_is_swept_and_nothing_else() {
    let laboratory = prepare(60);
    let directory = laboratory.directory.path();
    Muster::start(directory, "run", &RUN).unwrap().succeed().unwrap();
    let before = newest_first(directory);
    let half = |name: &str| {
        let half = trial_directory(directory).join(name);
        fs::create_dir(&half).unwrap();
        fs::write(half.join("model.safetensors"), b"half").unwrap();
        half
    };
    let (old, new) = (half("00000070-8"), half("00000070-9"));
    let part = old.join("model.safetensors");
    assert!(Command::new("touch").args(["-d", "2 days ago"]).arg(part).status().unwrap().success());
    let (code, said, _) = checkpoints(directory, &["gc", "--dry-run"]);
    assert!(code == 0 && said.contains("gang-1/t1/70-8") && said.contains("would be"), "{said}");
    assert!(old.join("model.safetensors").is_file());
    let (code, said, _) = checkpoints(directory, &["gc", "--json"]);
    let swept: Value = serde_json::from_str(&said).unwrap();
    assert!(code == 0 && swept["checkpoints"].as_array().unwrap().len() == 1, "{said}");
    assert!(!old.join("model.safetensors").exists() && new.join("model.safetensors").is_file());
    assert_eq!(newest_first(directory), before);
}
