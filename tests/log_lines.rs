//! With `log_format = "json"` every line of every process is an object, and those of a run name it, down to the
//! step where they are about one.

use std::collections::BTreeSet;

use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::service::served_address;
use muster_tests::skip;
use serde_json::{Map, Value};

type Line = Map<String, Value>;

fn parse(text: &str) -> Line {
    let line: Line = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    for field in ["timestamp", "level", "process", "target", "message"] {
        assert!(line.get(field).is_some_and(Value::is_string), "{field}: {text}");
    }
    line
}

fn names_its_run(line: &Line) -> bool {
    let number = |field: &str| line.get(field).is_some_and(Value::is_u64);
    line.get("experiment") == Some(&"sample-1".into()) && number("run") && number("rank")
}

fn names_its_step(line: &Line) -> bool {
    let number = |field: &str| line.get(field).is_some_and(Value::is_u64);
    names_its_run(line) && number("trial") && number("step")
}

#[test]
fn every_line_of_every_process_is_an_object_that_names_its_run() {
    let name = "every_line_of_every_process_is_an_object_that_names_its_run";
    let directory = tempfile::tempdir().unwrap();
    let sample = Sample { max_trials: 2, min_steps: 8 };
    if let Err(reason) = write_manifest(directory.path(), &sample) {
        return skip(name, &reason);
    }
    let log = "info,muster_coordinator=debug,muster_worker=debug";
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--slots", "1", "--log", log, "--log-format", "json"];
    let mut server = Muster::start(directory.path(), "serve", &arguments).unwrap();
    let url = served_address(&mut server).unwrap();
    // What a runner says as it comes up is kept apart only while no run waits for it.
    let idle = directory.path().join("muster-data/coordinator/logs/_idle-workers.log");
    let is_up =
        |_: &Muster| std::fs::read_to_string(&idle).ok()?.contains("runner is ready").then_some(());
    server.wait_for("a runner", is_up).unwrap();
    let submit = ["submit", "sample.yaml", "--watch", "--coordinator", &url];
    Muster::start(directory.path(), "submit", &submit).unwrap().succeed().unwrap();
    server.terminate().unwrap();
    assert!(server.wait().unwrap().success(), "{}", server.stderr());

    let coordinator: Vec<Line> = server.stderr().lines().map(parse).collect();
    assert!(coordinator.iter().all(|line| line["process"] == "coordinator"));
    let of_runs: Vec<&Line> = coordinator.iter().filter(|line| line.contains_key("run")).collect();
    assert!(of_runs.iter().all(|line| names_its_run(line)), "{of_runs:?}");
    let trials: BTreeSet<u64> =
        of_runs.iter().filter_map(|line| line.get("trial")?.as_u64()).collect();
    assert_eq!(trials, BTreeSet::from([1, 2]));
    assert!(of_runs.iter().any(|line| names_its_step(line)), "{of_runs:?}");

    // What the coordinator keeps of its workers: TRIAL, WORKER and the line.
    let logs = directory.path().join("muster-data/coordinator/logs");
    let read = |file: &str| -> Vec<(String, Line)> {
        let text = std::fs::read_to_string(logs.join(file)).unwrap();
        let split = |line: &str| {
            let mut columns = line.splitn(3, '\t');
            let trial = columns.next().unwrap().to_owned();
            (trial, parse(columns.nth(1).unwrap()))
        };
        text.lines().map(split).collect()
    };
    let runner = read("sample-1.log");
    assert!(!runner.is_empty());
    // A runner that comes up while its run waits for it knows of none yet.
    let is_of_run = |(_, line): &&(String, Line)| line["message"] != "runner is ready";
    for (trial, line) in runner.iter().filter(is_of_run) {
        assert!(line["process"] == "runner" && names_its_run(line), "{line:?}");
        let number = line.get("trial").map_or("-".to_owned(), |number| format!("t{number}"));
        assert_eq!(&number, trial, "{line:?}");
    }
    assert!(runner.iter().any(|(_, line)| names_its_step(line)), "{runner:?}");
    // What a thread of its own says of a checkpoint names the step that it is of, too.
    let saved = runner.iter().filter(|(_, line)| line["message"] == "the checkpoint is written");
    let saved: Vec<bool> = saved.map(|(_, line)| names_its_step(line)).collect();
    assert!(!saved.is_empty() && saved.iter().all(|named| *named), "{runner:?}");
    let idle = read("_idle-workers.log");
    let processes: BTreeSet<&str> =
        idle.iter().filter_map(|(_, line)| line["process"].as_str()).collect();
    assert_eq!(processes, BTreeSet::from(["runner", "supervisor"]));
    let supervisor: Vec<&Line> = idle
        .iter()
        .map(|(_, line)| line)
        .filter(|line| line["process"] == "supervisor" && line.contains_key("run"))
        .collect();
    assert!(!supervisor.is_empty() && supervisor.iter().all(|line| names_its_run(line)));
    assert!(supervisor.iter().any(|line| names_its_step(line)), "{supervisor:?}");
}
