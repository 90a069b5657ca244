//! Pages of experiments that are not everyday ones, in a real browser: members of a population that went on from each
//! other, and an experiment whose model could not be written.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use muster_tests::browser::{browse, browser};
use muster_tests::http::request;
use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::service::{Place, Service};
use muster_tests::skip;
use serde_json::Value;

/// A directory with a small manifest as `change` makes it; `None`: the test cannot run, which it has said.
fn prepare(
    name: &str,
    sample: &Sample,
    change: impl Fn(&str) -> String,
) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    match browser().and_then(|()| write_manifest(directory.path(), sample)) {
        Ok(path) => {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, change(&text)).unwrap();
            Some(directory)
        }
        Err(reason) => {
            skip(name, &reason);
            None
        }
    }
}

/// A coordinator and a worker that has been given the manifest of `directory`.
fn submit(directory: &tempfile::TempDir) -> (Muster, Service) {
    let service = Service::start(directory.path(), Place::Here).unwrap();
    let worker = service.worker(Place::Here, "worker").unwrap();
    service.ask(Place::Here, &["submit", "sample.yaml"]).unwrap();
    (worker, service)
}

fn experiment(service: &Service) -> Value {
    let url = format!("{}/api/v1/experiments/sample-1", service.url);
    request("GET", &url, &[], "").unwrap().json().unwrap()
}

/// Four members, compared after 6, 12 and 18 of 24 steps.
#[test]
fn a_browser_sees_who_went_on_from_whom() {
    let pruner = "  metric: loss\n  pruner: {type: population, every: {steps: 6}}";
    let change = |text: &str| {
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains("pruner:")).collect();
        kept.join("\n").replace("  metric: loss", pruner) + "\n"
    };
    let sample = Sample { max_trials: 4, min_steps: 6 };
    let name = "a_browser_sees_who_went_on_from_whom";
    let Some(directory) = prepare(name, &sample, change) else { return };
    let (_worker, service) = submit(&directory);
    service.ask(Place::Here, &["watch", "sample-1"]).unwrap();
    let variables = [("MUSTER_URL", service.url.as_str()), ("MUSTER_FINISHED", "sample-1")];
    let said = browse("lineage.mjs", directory.path(), &variables).unwrap();
    assert!(said.contains("members is told"), "{said}");
}

#[test]
fn a_browser_has_a_model_written_after_all() {
    let name = "a_browser_has_a_model_written_after_all";
    let sample = Sample { max_trials: 1, min_steps: 3 };
    // The first failure is the last.
    let change = |text: &str| format!("{text}max_restarts: 0\n");
    let Some(directory) = prepare(name, &sample, change) else { return };
    // A file where the directory of the model belongs: nothing else is in its way.
    let place = directory.path().join("muster-data/experiments/sample-1/best");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "in the way").unwrap();
    let (_worker, service) = submit(&directory);
    let mut watch = service.client(Place::Here, &["watch", "sample-1"]).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(1), "{}", watch.stderr());
    let found = experiment(&service);
    assert_eq!(
        (&found["state"], &found["lacks_model"]),
        (&"failed".into(), &true.into()),
        "{found}"
    );
    fs::remove_file(&place).unwrap();
    let variables = [("MUSTER_URL", service.url.as_str()), ("MUSTER_FAILED", "sample-1")];
    let said = browse("unwritten.mjs", directory.path(), &variables).unwrap();
    assert!(said.contains("written after all"), "{said}");
    let found = experiment(&service);
    assert_eq!((&found["state"], &found["lacks_model"]), (&"completed".into(), &false.into()));
    assert!(place.join("config.json").is_file() && place.join("model.safetensors").is_file());
}
