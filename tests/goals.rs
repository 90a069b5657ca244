//! Real training with several objectives and with constraints: what the table and the summary say.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use muster_common::count::counted;
use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::skip;
use serde_json::Value;

const SAMPLE: Sample = Sample { max_trials: 4, min_steps: 6 };
const RUN: [&str; 6] = ["run", "sample.yaml", "--slots", "1", "--summary", "summary.json"];

/// Runs the sample with other objectives; what it prints and its summary.
fn run(name: &str, goal: &str) -> Option<(String, Value)> {
    let directory = tempfile::tempdir().unwrap();
    let path = match write_manifest(directory.path(), &SAMPLE) {
        Ok(path) => path,
        Err(reason) => {
            skip(name, &reason);
            return None;
        }
    };
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("  metric: loss\n", &format!("  {goal}\n"))).unwrap();
    let (stdout, _) = Muster::start(directory.path(), name, &RUN).unwrap().succeed().unwrap();
    let summary = fs::read_to_string(directory.path().join("summary.json")).unwrap();
    Some((stdout, serde_json::from_str(&summary).unwrap()))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

#[test]
fn the_front_is_printed_and_stands_in_the_summary() {
    let name = "the_front_is_printed_and_stands_in_the_summary";
    let goal =
        "objectives: [{metric: accuracy}, {metric: loss}]\n  constraints: [{metric: loss, max: 5}]";
    let Some((stdout, summary)) = run(name, goal) else { return };
    let front = summary["front"].as_array().unwrap();
    assert!(!front.is_empty(), "{summary}");
    assert!(
        stdout.contains(&format!("front    {} that no", counted(front.len(), "result"))),
        "{stdout}"
    );
    assert!(stdout.contains("the best accuracy of the front"), "{stdout}");
    // Better in accuracy, worse in loss, from one to the next.
    for pair in front.windows(2) {
        let at = |index: usize, metric: &str| number(&pair[index]["objectives"][metric]);
        assert!(
            at(0, "accuracy") > at(1, "accuracy") && at(0, "loss") > at(1, "loss"),
            "{front:?}"
        );
    }
    // No trial's best is better in both than anything on the front.
    for trial in summary["trials"].as_array().unwrap() {
        for member in front {
            let of = |value: &Value, metric: &str| number(&value["objectives"][metric]);
            let is_beaten = of(trial, "accuracy") > of(member, "accuracy")
                && of(trial, "loss") < of(member, "loss");
            assert!(!is_beaten, "{trial} {member}");
        }
    }
    let best = &summary["best"];
    assert_eq!((&best["trial"], &best["step"]), (&front[0]["trial"], &front[0]["step"]));
    assert_eq!(best["validation"]["loss"], front[0]["objectives"]["loss"]);
    assert_eq!(best["breaks"], serde_json::json!([]));
}

#[test]
fn a_best_that_breaks_a_constraint_is_said() {
    let name = "a_best_that_breaks_a_constraint_is_said";
    let goal = "metric: loss\n  constraints: [{metric: accuracy, min: 0.999}]";
    let Some((stdout, summary)) = run(name, goal) else { return };
    let breaks = summary["best"]["breaks"][0].as_str().unwrap();
    assert!(breaks.starts_with("accuracy 0.") && breaks.ends_with("wanted at least 0.999"));
    let warning = format!("warning  no result keeps all constraints: {breaks}");
    assert!(stdout.contains(&warning), "{stdout}");
    assert!(stdout.contains("constraints broken by"), "{stdout}");
    // The nearest to the bound is the best, whatever its loss is.
    let violations = summary["trials"].as_array().unwrap().iter();
    let least = violations.map(|trial| number(&trial["violation"])).fold(f64::INFINITY, f64::min);
    let best = summary["best"]["trial"].as_str().unwrap();
    let mut trials = summary["trials"].as_array().unwrap().iter();
    let best = trials.find(|trial| trial["id"] == best).unwrap();
    assert!(least > 0.0 && (number(&best["violation"]) - least).abs() < 1e-12, "{summary}");
}
