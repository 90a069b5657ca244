//! The engine as a service: submit, ls, watch, logs, pause, resume, cancel, against real processes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use muster_tests::process::{Muster, PATIENCE, descendants, is_alive, send_signal};
use muster_tests::sample::{Sample, slow_down, write_manifest};
use muster_tests::service::{exported_weights, served_address};
use muster_tests::skip;
use serde_json::Value;

struct Served {
    directory: tempfile::TempDir,
    server: Muster,
    url: String,
}

fn serve(directory: &Path, label: &str, listen: &str) -> (Muster, String) {
    serve_with(directory, label, listen, &["--slots", "1"])
}

/// A service with local workers, or without any when nothing is said of them.
fn serve_with(directory: &Path, label: &str, listen: &str, local: &[&str]) -> (Muster, String) {
    let local = if local.is_empty() { &["--no-workers"] } else { local };
    let arguments = [&["serve", "--listen", listen], local].concat();
    let mut server = Muster::start(directory, label, &arguments).unwrap();
    let url = served_address(&mut server).unwrap();
    (server, url)
}

impl Served {
    fn start(name: &str, sample: &Sample) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        if let Err(reason) = write_manifest(directory.path(), sample) {
            skip(name, &reason);
            return None;
        }
        let (server, url) = serve(directory.path(), "serve", "127.0.0.1:0");
        Some(Self { directory, server, url })
    }

    fn client(&self, label: &str, arguments: &[&str]) -> Muster {
        let mut all = arguments.to_vec();
        all.extend(["--coordinator", &self.url]);
        Muster::start(self.directory.path(), label, &all).unwrap()
    }

    fn ask(&self, arguments: &[&str]) -> String {
        self.client(arguments[0], arguments).succeed().unwrap().0
    }
}

#[test]
fn an_experiment_is_submitted_watched_and_listed() {
    let name = "an_experiment_is_submitted_watched_and_listed";
    let Some(served) = Served::start(name, &Sample { max_trials: 2, min_steps: 4 }) else { return };
    assert_eq!(served.ask(&["submit", "sample.yaml"]), "sample-1\n");
    let result = served.ask(&["watch", "sample-1"]);
    assert!(result.contains("sample-1 completed") && result.contains("precision"), "{result}");
    let list = served.ask(&["ls"]);
    assert!(list.starts_with("sample-1") && list.contains("completed"), "{list}");
    let trials = served.ask(&["ls", "sample-1"]);
    assert!(trials.contains("learning_rate") && trials.contains("t2"), "{trials}");
    let why = served.ask(&["why", "sample-1/t1"]);
    assert!(why.starts_with("sample-1/t1 ") && why.contains(" is place "), "{why}");
    let logs = served.ask(&["logs", "sample-1/t1"]);
    assert!(logs.lines().count() > 0 && logs.lines().all(|line| line.starts_with("t1")), "{logs}");
    let objects = served.ask(&["logs", "sample-1/t1", "--json"]);
    let as_text = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let column = |name: &str| line[name].as_str().unwrap().to_owned();
        format!("{}  {}  {}\n", column("trial"), column("worker"), column("text"))
    };
    // The last words of a run may come after its end.
    let objects: String = objects.lines().map(as_text).collect();
    assert!(objects.starts_with(&logs), "{objects}\n{logs}");

    let mut missing = served.client("missing", &["watch", "sample-9"]);
    assert!(!missing.wait().unwrap().success());
    assert!(missing.stderr().contains("known: sample-1"), "{}", missing.stderr());
}

#[test]
fn a_run_is_found_in_its_directory_like_a_service() {
    let name = "a_run_is_found_in_its_directory_like_a_service";
    let directory = tempfile::tempdir().unwrap();
    // It is canceled, however long it would last.
    let sample = Sample { max_trials: 32, min_steps: 4000 };
    if let Err(reason) = write_manifest(directory.path(), &sample) {
        return skip(name, &reason);
    }
    let start = |label: &str, arguments: &[&str]| {
        Muster::start(directory.path(), label, arguments).unwrap()
    };
    let mut run = start("run", &["run", "sample.yaml", "--slots", "1"]);
    let file = directory.path().join("muster-data/coordinator/access.json");
    let begun = std::time::Instant::now();
    // From when the port is open until its experiment is in, the list is empty.
    loop {
        assert!(begun.elapsed() < PATIENCE, "{}", run.stderr());
        if file.is_file() && start("ls", &["ls"]).succeed().unwrap().0.starts_with("sample-1") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(run.stderr().contains("in a browser at http://127.0.0.1:"), "{}", run.stderr());
    assert_eq!(start("submit", &["submit", "sample.yaml"]).succeed().unwrap().0, "sample-2\n");
    start("cancel", &["cancel", "sample-1"]).succeed().unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(3), "{}", run.stderr());
    let said = run.stderr();
    assert!(said.contains("note: sample-2 came in meanwhile and has not ended; `"), "{said}");
    assert!(!file.exists(), "nobody is at that address any more");
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_is_listed_can_be_read_by_programs() {
    let name = "what_is_listed_can_be_read_by_programs";
    let Some(mut served) = Served::start(name, &Sample { max_trials: 8, min_steps: 2 }) else {
        return;
    };
    assert_eq!(json(&served.ask(&["ls", "--json"])), serde_json::json!([]));
    let runner = |server: &Muster| descendants(server.pid(), "muster-worker runner").pop();
    let runner = served.server.wait_for("a runner", runner).unwrap();
    let slots = || json(&served.ask(&["slots", "--json"]));
    let begun = std::time::Instant::now();
    while slots()[0]["state"] != "free" {
        assert!(begun.elapsed() < PATIENCE, "no slot is there");
    }
    // It stands still, so that the slot is at work for as long as it is looked at.
    send_signal("STOP", runner).unwrap();
    served.ask(&["submit", "sample.yaml"]);
    let begun = std::time::Instant::now();
    while slots()[0]["work"]["experiment"] != "sample-1" {
        assert!(begun.elapsed() < PATIENCE, "{}", slots());
    }
    assert!(served.ask(&["slots"]).contains("sample-1"));
    send_signal("CONT", runner).unwrap();
    served.ask(&["watch", "sample-1"]);

    let list = json(&served.ask(&["ls", "--json"]));
    assert_eq!(list[0]["state"], "completed", "{list}");
    assert!(list[0]["best"]["objectives"]["loss"].is_f64(), "{list}");
    let counts = list[0]["trials"].as_object().unwrap().values();
    assert_eq!(counts.map(|count| count.as_u64().unwrap()).sum::<u64>(), 8, "{list}");
    let experiment = json(&served.ask(&["ls", "sample-1", "--json"]));
    assert_eq!(experiment["trials"].as_array().unwrap().len(), 8, "{experiment}");
    let why = json(&served.ask(&["why", "sample-1/t1", "--json"]));
    assert!(why["lines"].as_array().unwrap().len() > 1, "{why}");

    let importance = json(&served.ask(&["importance", "sample-1", "--json"]));
    assert_eq!(importance["num_results"], 8, "{importance}");
    let shares = importance["shares"].as_array().unwrap();
    let sum: f64 = shares.iter().map(|share| share["share"].as_f64().unwrap()).sum();
    assert!(shares.len() == 3 && (sum - 1.0).abs() < 1e-9, "{importance}");
    let bars = served.ask(&["importance", "sample-1"]);
    assert!(bars.lines().count() == 3 && bars.contains("learning_rate"), "{bars}");
}

/// Steps of a metric that `muster curves --json` prints.
fn steps_of(text: &str, metric: &str) -> Vec<u64> {
    let curves = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut found = curves.filter(|curve| curve["metric"] == metric);
    let curve = found.next().unwrap_or_default();
    let steps = curve["steps"].as_array().cloned().unwrap_or_default();
    steps.iter().map(|step| step.as_u64().unwrap()).collect()
}

#[test]
fn curves_are_seen_while_a_trial_goes_on_and_afterwards() {
    let name = "curves_are_seen_while_a_trial_goes_on_and_afterwards";
    let Some(served) = Served::start(name, &Sample { max_trials: 1, min_steps: 60 }) else {
        return;
    };
    slow_down(&served.directory.path().join("sample.yaml")).unwrap();
    served.ask(&["submit", "sample.yaml"]);
    wait_for(&served, "a running trial", |text| text.contains("1 running"));
    let mut follower = served.client("follow", &["curves", "sample-1/t1", "--follow"]);
    let mut during = Vec::new();
    let begun = std::time::Instant::now();
    while during.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no value was ever seen");
        let text = served.ask(&["curves", "sample-1/t1", "--json", "--name", "train_loss"]);
        during = steps_of(&text, "train_loss");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(during[0], 1);
    assert!(served.ask(&["ls"]).contains("1 running"), "the first values came after the end");
    served.ask(&["watch", "sample-1"]);

    let after = served.ask(&["curves", "sample-1/t1", "--json"]);
    let steps = steps_of(&after, "train_loss");
    assert_eq!(steps, (1..=steps.len() as u64).collect::<Vec<_>>(), "every step, each once");
    assert!(steps.len() > during.len(), "{steps:?} {during:?}");
    assert!(!steps_of(&after, "validation_accuracy").is_empty(), "{after}");
    let picture = served.ask(&["curves", "sample-1/t1"]);
    assert!(picture.contains("train_loss ") && picture.contains("▁"), "{picture}");

    assert!(follower.wait().unwrap().success(), "{}", follower.stderr());
    let followed = follower.stdout();
    let lines = followed.lines().filter(|line| line.contains(" train_loss "));
    let step = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    assert_eq!(lines.map(step).collect::<Vec<_>>(), steps, "{followed}");

    let mut wrong = served.client("wrong", &["curves", "sample-1/t1", "--name", "Loss!"]);
    assert!(!wrong.wait().unwrap().success());
    assert!(wrong.stderr().contains("`Loss!` is not a metric name"), "{}", wrong.stderr());
}

#[test]
fn an_experiment_is_paused_resumed_and_canceled() {
    let name = "an_experiment_is_paused_resumed_and_canceled";
    // It is canceled, however long it would last.
    let Some(served) = Served::start(name, &Sample { max_trials: 8, min_steps: 4000 }) else {
        return;
    };
    served.ask(&["submit", "sample.yaml"]);
    let running = |text: &str| text.contains("1 running");
    wait_for(&served, "a running trial", running);
    served.ask(&["pause", "sample-1"]);
    wait_for(&served, "a pause", |text| text.contains("paused") && text.contains("0 running"));
    served.ask(&["resume", "sample-1"]);
    wait_for(&served, "a running trial again", running);
    served.ask(&["cancel", "sample-1"]);
    let mut watch = served.client("watch", &["watch", "sample-1"]);
    assert_eq!(watch.wait().unwrap().code(), Some(3), "{}", watch.stdout());
    assert!(watch.stdout().contains("sample-1 canceled"));
    let mut again = served.client("again", &["cancel", "sample-1"]);
    assert!(!again.wait().unwrap().success());
    assert!(again.stderr().contains("has ended"), "{}", again.stderr());
}

#[test]
fn who_is_preempted_by_a_priority_ends_with_the_bits_of_who_was_left_alone() {
    let name = "who_is_preempted_by_a_priority_ends_with_the_bits_of_who_was_left_alone";
    let Some(served) = Served::start(name, &Sample { max_trials: 1, min_steps: 60 }) else {
        return;
    };
    // So that it is not over before the other one comes.
    slow_down(&served.directory.path().join("sample.yaml")).unwrap();
    served.ask(&["submit", "sample.yaml"]);
    wait_for(&served, "a running trial", |text| text.contains("1 running"));
    let shown = served.ask(&["fork", "sample-1", "--set", "resources.priority=5", "--print"]);
    assert!(shown.contains("priority: 5") && shown.contains("name: sample"), "{shown}");
    assert_eq!(served.ask(&["fork", "sample-1", "--set", "resources.priority=5"]), "sample-2\n");
    let second = served.ask(&["watch", "sample-2"]);
    assert!(second.contains("sample-2 completed"), "{second}");
    let first = served.ask(&["watch", "sample-1"]);
    assert!(first.contains("sample-1 completed"), "{first}");
    let why = served.ask(&["why", "sample-1/t1"]);
    assert!(why.contains("leaves its slots to sample-2: priority 5 is above 0"), "{why}");
    let weights = |id: &str| exported_weights(served.directory.path(), id).unwrap();
    assert!(weights("sample-1") == weights("sample-2"), "the same manifest gives the same bits");
    let forked = served.ask(&["fork", "sample-1/t1", "--print"]);
    let rate = |text: &str| text.split("learning_rate").nth(1).unwrap().to_owned();
    assert!(rate(&forked).split_whitespace().nth(1).unwrap().len() > 8, "rounded: {forked}");
}

#[test]
fn one_trial_is_paused_resumed_and_canceled_and_mistakes_are_said() {
    let name = "one_trial_is_paused_resumed_and_canceled_and_mistakes_are_said";
    // It is canceled, however far its first rung is.
    let Some(served) = Served::start(name, &Sample { max_trials: 2, min_steps: 4000 }) else {
        return;
    };
    served.ask(&["submit", "sample.yaml"]);
    wait_for(&served, "a running trial", |text| text.contains("1 running"));
    served.ask(&["pause", "sample-1/t1"]);
    let says = |words: &str| {
        let begun = std::time::Instant::now();
        while !served.ask(&["why", "sample-1/t1"]).contains(words) {
            assert!(begun.elapsed() < PATIENCE, "{}", served.ask(&["why", "sample-1/t1"]));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    says("pending, to train to step 4000, rung 1 (4000 steps): paused by a user");
    served.ask(&["resume", "sample-1/t1"]);
    served.ask(&["cancel", "sample-1/t1"]);
    says("canceled");
    let refused = |label: &str, arguments: &[&str]| {
        let mut client = served.client(label, arguments);
        assert!(!client.wait().unwrap().success());
        client.stderr()
    };
    let text = refused("again", &["resume", "sample-1/t1"]);
    assert!(text.contains("trial sample-1/t1 has ended"), "{text}");
    let text = refused("absent", &["pause", "sample-1/t9"]);
    assert!(text.contains("no trial `sample-1/t9`"), "{text}");
    let text = refused("high", &["prioritize", "sample-1", "101"]);
    assert!(text.contains("priority: 101 lies outside -100 to 100"), "{text}");
    let text = refused("leaf", &["fork", "sample-1", "--set", "name.first=x"]);
    assert!(text.contains("`name` has no keys to change"), "{text}");
    let text = refused("wrong", &["fork", "sample-1", "--set", "budget.steps=none"]);
    assert!(text.contains("budget.steps: expected a whole number"), "{text}");
    served.ask(&["prioritize", "sample-1", "-7"]);
    let alone = served.ask(&["fork", "sample-1/t1", "--print"]);
    assert!(!alone.contains("searcher:") && !alone.contains("min: "), "{alone}");
    served.ask(&["cancel", "sample-1"]);
}

#[test]
fn a_killed_service_goes_on_when_it_is_started_again() {
    let name = "a_killed_service_goes_on_when_it_is_started_again";
    let Some(mut served) = Served::start(name, &Sample { max_trials: 2, min_steps: 40 }) else {
        return;
    };
    slow_down(&served.directory.path().join("sample.yaml")).unwrap();
    served.ask(&["submit", "sample.yaml"]);
    wait_for(&served, "a running trial", |text| text.contains("1 running"));
    served.server.kill().unwrap();
    let mut lost = served.client("lost", &["ls"]);
    assert!(!lost.wait().unwrap().success());
    assert!(lost.stderr().contains("muster serve"), "{}", lost.stderr());
    let (server, url) = serve(served.directory.path(), "serve-again", "127.0.0.1:0");
    served.server = server;
    served.url = url;
    let result = served.ask(&["watch", "sample-1"]);
    assert!(result.contains("sample-1 completed"), "{result}");
    served.server.terminate().unwrap();
    assert!(served.server.wait().unwrap().success(), "{}", served.server.stderr());
}

/// The newest step that trial 1 has saved.
fn last_step(directory: &Path) -> u64 {
    let checkpoints = directory.join("muster-data/experiments/sample-1/trials/1/checkpoints");
    let entries = std::fs::read_dir(checkpoints).into_iter().flatten().flatten();
    let committed = entries.filter(|entry| entry.path().join("index.json").is_file());
    let step = |entry: std::fs::DirEntry| -> Option<u64> {
        entry.file_name().to_str()?.split('-').next()?.parse().ok()
    };
    committed.filter_map(step).max().unwrap_or(0)
}

#[test]
fn a_worker_goes_on_while_its_coordinator_is_away() {
    let name = "a_worker_goes_on_while_its_coordinator_is_away";
    let directory = tempfile::tempdir().unwrap();
    if let Err(reason) = write_manifest(directory.path(), &Sample { max_trials: 1, min_steps: 400 })
    {
        return skip(name, &reason);
    }
    // Longer than a worker is kept from its signs of life on a busy machine.
    let lease = std::time::Duration::from_secs(5);
    let settings = format!("lease_seconds = {}\n", lease.as_secs());
    std::fs::write(directory.path().join("muster.toml"), settings).unwrap();
    let serve = |label: &str, listen: &str| serve_with(directory.path(), label, listen, &[]);
    let (server, url) = serve("serve", "127.0.0.1:0");
    let mut worker = Muster::start_program(
        "muster-worker",
        directory.path(),
        "worker",
        &["supervise", "--coordinator", &url],
    )
    .unwrap();
    let mut served = Served { directory, server, url: url.clone() };
    served.ask(&["submit", "sample.yaml"]);
    wait_for(&served, "a running trial", |text| text.contains("1 running"));
    // It is gone, and another comes in its place.
    served.server.kill().unwrap();
    let before = last_step(served.directory.path());
    let trains_on = |_: &Muster| {
        let step = last_step(served.directory.path());
        (step > before).then_some(step)
    };
    let after = worker.wait_for("a step without a coordinator", trains_on).unwrap();
    let runner = descendants(worker.pid(), "muster-worker runner");
    assert_eq!(runner.len(), 1, "the runner is there: {}", worker.stderr());
    // It stands still, so that its run is not over when somebody is there again, however fast this machine is.
    send_signal("STOP", runner[0]).unwrap();
    std::thread::sleep(lease * 2);
    let address = url.strip_prefix("http://").unwrap().to_owned();
    served.server = serve_with(served.directory.path(), "serve-again", &address, &[]).0;
    wait_for(&served, "the run", |text| text.contains("1 running"));
    send_signal("CONT", runner[0]).unwrap();
    // It stands still: when it goes on, what workers said lies unread.
    send_signal("STOP", served.server.pid()).unwrap();
    std::thread::sleep(lease * 2);
    send_signal("CONT", served.server.pid()).unwrap();
    let (result, said) = served.client("watch", &["watch", "sample-1"]).succeed().unwrap();
    assert!(result.contains("sample-1 completed"), "{result}");
    assert!(!said.contains("failed") && !said.contains("restart"), "{said}");
    println!("trained on from step {before} to {after}; {result}");
    let header = result.lines().find(|line| line.contains("attempts")).unwrap();
    let row = result.lines().find(|line| line.contains(" t1 ")).unwrap();
    let column = header.find("attempts").unwrap() + "attempts".len();
    assert!(row[..column].ends_with(" 1"), "one run did it all: {result}");
    // A supervisor takes its runner with it, however it ends.
    worker.kill().unwrap();
    let started_at = std::time::Instant::now();
    while is_alive(runner[0]) {
        assert!(started_at.elapsed() < PATIENCE, "the runner lives on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_gang_larger_than_the_cluster_is_refused_and_one_that_may_fit_waits() {
    let name = "a_gang_larger_than_the_cluster_is_refused_and_one_that_may_fit_waits";
    let directory = tempfile::tempdir().unwrap();
    let path = match write_manifest(directory.path(), &Sample { max_trials: 1, min_steps: 4 }) {
        Ok(path) => path,
        Err(reason) => return skip(name, &reason),
    };
    let text = std::fs::read_to_string(&path).unwrap();
    let write = |name: &str, slots: &str| {
        let text = format!("{text}resources: {{slots: {slots}}}\n");
        std::fs::write(directory.path().join(name), text).unwrap();
    };
    write("large.yaml", "4");
    write("fits.yaml", "{min: 3, max: 8}");
    std::fs::write(directory.path().join("muster.toml"), "max_slots = 3\n").unwrap();
    let mut run =
        Muster::start(directory.path(), "run", &["run", "large.yaml", "--slots", "2"]).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(2), "{}", run.stderr());
    let said = run.stderr();
    for words in ["resources.slots", "4 slots", "there are 2", "`slots: 2`", "--slots 4"] {
        assert!(said.contains(words), "{words} in: {said}");
    }
    assert!(!directory.path().join("muster-data").exists(), "a refused manifest leaves nothing");
    let (server, url) = serve_with(directory.path(), "serve", "127.0.0.1:0", &[]);
    let served = Served { directory, server, url };
    let mut large = served.client("large", &["submit", "large.yaml"]);
    assert!(!large.wait().unwrap().success());
    assert!(large.stderr().contains("there are 3"), "{}", large.stderr());
    assert_eq!(served.ask(&["submit", "fits.yaml"]), "sample-1\n");
    let list = served.ask(&["ls"]);
    assert!(list.contains("waiting for workers: none is connected"), "{list}");
}

fn wait_for(served: &Served, what: &str, ready: impl Fn(&str) -> bool) {
    let started_at = std::time::Instant::now();
    loop {
        let list = served.ask(&["ls"]);
        if ready(&list) {
            return;
        }
        assert!(started_at.elapsed() < muster_tests::process::PATIENCE, "no {what}: {list}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
