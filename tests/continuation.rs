//! Experiments that begin at a checkpoint of an earlier one's trial, with the real programs: nothing else changed,
//! they end with its bits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use muster_tests::sample::{Sample, write_manifest};
use muster_tests::service::{Place, Service};
use muster_tests::skip;
use serde_json::Value;

const HERE: Place<'_> = Place::Here;

/// Sizes and digests of the weights and the optimizer's moments of a trial at a step.
fn state(directory: &Path, experiment: &str, trial: u32, step: u64) -> Vec<Value> {
    let folder = format!("muster-data/experiments/{experiment}/trials/{trial}/checkpoints");
    for entry in fs::read_dir(directory.join(folder)).unwrap().flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("index.json")) else { continue };
        let index: Value = serde_json::from_str(&text).unwrap();
        if index["checkpoint"]["step"] == step {
            let parts = index["parts"].as_array().unwrap().iter();
            let is_state = |part: &&Value| part["name"] == "model" || part["name"] == "optimizer";
            return parts.filter(is_state).cloned().collect();
        }
    }
    panic!("{experiment}/t{trial} has no checkpoint of step {step}");
}

/// Two trials of 24 steps, and a service that has run them.
fn served(name: &str, keep: &str) -> Option<(tempfile::TempDir, Service, impl Drop)> {
    let directory = tempfile::tempdir().unwrap();
    let path = match write_manifest(directory.path(), &Sample { max_trials: 2, min_steps: 6 }) {
        Ok(path) => path,
        Err(reason) => {
            skip(name, &reason);
            return None;
        }
    };
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("pruner:")).collect();
    let text = kept.join("\n").replace("{every_steps: 3}", keep);
    fs::write(&path, text + "\n").unwrap();
    let service = Service::start(directory.path(), HERE).unwrap();
    let worker = service.worker(HERE, "worker").unwrap();
    service.ask(HERE, &["submit", "sample.yaml"]).unwrap();
    service.ask(HERE, &["watch", "sample-1"]).unwrap();
    Some((directory, service, worker))
}

#[test]
fn nothing_else_changed_it_ends_with_the_same_bits() {
    let name = "nothing_else_changed_it_ends_with_the_same_bits";
    let keep = "{every_steps: 3, keep_last: 100}";
    let Some((directory, service, _worker)) = served(name, keep) else { return };
    let (forked, _) = service.ask(HERE, &["fork", "sample-1/t2", "--from", "9"]).unwrap();
    assert_eq!(forked, "sample-2\n");
    service.ask(HERE, &["watch", "sample-2"]).unwrap();
    for step in [12, 24] {
        let (own, other) = (
            state(directory.path(), "sample-2", 1, step),
            state(directory.path(), "sample-1", 2, step),
        );
        assert_eq!(own, other, "step {step}");
    }
    let (why, _) = service.ask(HERE, &["why", "sample-2/t1"]).unwrap();
    assert!(why.contains("begins where sample-1/t2 was at step 9"), "{why}");

    // Longer, on other batches, from the end of one that was itself continued.
    let longer = ["fork", "sample-2/t1", "--from", "best", "--set", "budget.steps=30"];
    let changed =
        ["--set", "hyperparameters.global_batch_size=12", "--set", "training.average={type: ema}"];
    service.ask(HERE, &[&longer[..], &changed[..]].concat()).unwrap();
    let (result, _) = service.ask(HERE, &["watch", "sample-3"]).unwrap();
    assert!(result.contains("sample-3 completed"), "{result}");
    let (curves, _) =
        service.ask(HERE, &["curves", "sample-3/t1", "--name", "train_loss", "--json"]).unwrap();
    let curve: Value = serde_json::from_str(curves.lines().next().unwrap()).unwrap();
    let steps: Vec<u64> =
        curve["steps"].as_array().unwrap().iter().map(|step| step.as_u64().unwrap()).collect();
    assert_eq!(steps, (25..=30).collect::<Vec<_>>(), "{curves}");
}

#[test]
fn the_checkpoint_is_kept_and_mistakes_are_said() {
    let name = "the_checkpoint_is_kept_and_mistakes_are_said";
    let Some((directory, service, _worker)) = served(name, "{every_steps: 3}") else { return };
    let refused = |arguments: &[&str]| {
        let mut client = service.client(HERE, arguments).unwrap();
        assert!(!client.wait().unwrap().success(), "{}", client.stdout());
        client.stderr()
    };
    let text = refused(&["fork", "sample-1", "--from", "last"]);
    assert!(text.contains("--from needs a trial, for example sample-1/t1"), "{text}");
    let text = refused(&["fork", "sample-1/t1", "--from", "latest"]);
    assert!(text.contains("`latest` is none of last, best, or a step from 1"), "{text}");
    let text = refused(&["fork", "sample-1/t1", "--from", "9"]);
    assert!(
        text.contains("sample-1/t1 has no checkpoint `9`; it has those of steps 21, 24"),
        "{text}"
    );
    let text = refused(&["fork", "sample-1/t1", "--from", "last", "--set", "budget.steps=24"]);
    assert!(
        text.contains("sample-1/t1 is at step 24 there") && text.contains("write more than 24"),
        "{text}"
    );
    let text = refused(&["fork", "sample-1/t1", "--set", "continue_from.trial=sample-7/t1"]);
    assert!(text.contains("continue_from: no experiment `sample-7` is known"), "{text}");
    let text = refused(&["fork", "sample-1/t1", "--set", "continue_from.trial=sample-1"]);
    assert!(text.contains("continue_from.trial"), "{text}");

    // How many steps an epoch has is known when the data is.
    let short = ["fork", "sample-1/t1", "--from", "last", "--set", "budget={epochs: 0.1}"];
    service.ask(HERE, &short).unwrap();
    let mut watch = service.client(HERE, &["watch", "sample-2"]).unwrap();
    assert!(!watch.wait().unwrap().success());
    let text = watch.stdout() + &watch.stderr();
    assert!(text.contains("it begins at step 24, and its first rung is at step"), "{text}");

    // With other layers frozen the optimizer's moments are of other parameters.
    let frozen = [
        "fork",
        "sample-1/t1",
        "--from",
        "last",
        "--set",
        "budget.steps=27",
        "--set",
        "max_restarts=0",
    ];
    service.ask(HERE, &[&frozen[..], &["--set", "model.freeze.layers=4"]].concat()).unwrap();
    let mut watch = service.client(HERE, &["watch", "sample-3"]).unwrap();
    assert!(!watch.wait().unwrap().success());
    let text = watch.stdout() + &watch.stderr();
    assert!(text.contains("what is frozen"), "{text}");
    assert!(state(directory.path(), "sample-1", 1, 24).len() == 2);
}
