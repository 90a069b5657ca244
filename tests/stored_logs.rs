//! What processes said is in the object store, and is read there when they are all dead.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use muster_tests::process::{Muster, PATIENCE, descendants, is_alive};
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::service::{await_checkpoints, served_address};
use muster_tests::skip;

fn serve(directory: &Path, label: &str) -> (Muster, String) {
    let log = "info,muster_coordinator=debug,muster_worker=debug";
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--slots", "1", "--log", log];
    let mut server = Muster::start(directory, label, &arguments).unwrap();
    let url = served_address(&mut server).unwrap();
    (server, url)
}

/// What `muster logs SUBJECT` finds in the store; empty when it finds nothing.
fn stored(directory: &Path, subject: &str) -> String {
    let arguments = ["logs", subject, "--store", "muster-data"];
    let mut client = Muster::start(directory, "stored", &arguments).unwrap();
    client.wait().unwrap();
    client.stdout()
}

fn process_of(line: &str) -> &str {
    line.split("  ").nth(1).unwrap_or_default()
}

/// Whether a line of this process has these words.
fn said(text: &str, process: &str, words: &str) -> bool {
    text.lines().any(|line| process_of(line) == process && line.contains(words))
}

/// The objects of `--json` have what the lines `text` of the trial have.
fn assert_same_as_json(directory: &Path, text: &str) {
    let objects = ["logs", "sample-1/t1", "--store", "muster-data", "--json"];
    let (objects, _) = Muster::start(directory, "objects", &objects).unwrap().succeed().unwrap();
    let as_text = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let column = |name: &str| line[name].as_str().unwrap().to_owned();
        format!("{}  {}  {}\n", column("time"), column("process"), column("text"))
    };
    assert_eq!(objects.lines().map(as_text).collect::<String>(), text);
}

#[test]
fn a_trial_is_told_of_when_every_process_was_killed() {
    let name = "a_trial_is_told_of_when_every_process_was_killed";
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // The first trial goes on for as long as anybody looks.
    if let Err(reason) = write_manifest(directory, &Sample { max_trials: 2, min_steps: 40_000 }) {
        return skip(name, &reason);
    }
    let (mut server, url) = serve(directory, "serve");
    let submit = ["submit", "sample.yaml", "--coordinator", &url];
    Muster::start(directory, "submit", &submit).unwrap().succeed().unwrap();
    // Written while the run goes on: two seconds later at the latest, if nothing stands still.
    let words = [
        ("runner", "the first step of this run is done"),
        ("supervisor", "the runner is given the run"),
        ("coordinator", "the run is assigned"),
    ];
    let begun = Instant::now();
    loop {
        let text = stored(directory, "sample-1/t1");
        if words.iter().all(|(process, words)| said(&text, process, words)) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The first is reported before the second is begun: the coordinator knows of it.
    await_checkpoints(directory, "sample-1", 2).unwrap();
    let family = descendants(server.pid(), "muster");
    server.kill().unwrap();
    for pid in &family {
        // A supervisor ends by itself when its coordinator is gone; nothing is left to ask.
        let _gone = muster_tests::process::send_signal("KILL", *pid);
    }
    let begun = Instant::now();
    while family.iter().any(|pid| is_alive(*pid)) {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }

    let text = stored(directory, "sample-1/t1");
    assert!(words.iter().all(|(process, words)| said(&text, process, words)), "{text}");
    assert!(text.lines().is_sorted_by_key(|line| line.split("  ").next().unwrap_or_default()));
    assert!(!text.contains("trial=2 "), "{text}");
    let all = stored(directory, "sample-1");
    assert!(all.lines().count() > text.lines().count());
    let mut absent =
        Muster::start(directory, "absent", &["logs", "sample-9", "--store", "muster-data"])
            .unwrap();
    assert!(!absent.wait().unwrap().success());
    assert!(absent.stderr().contains("no logs of sample-9 in file://"), "{}", absent.stderr());
    assert_same_as_json(directory, &text);
    // Without a coordinator the other way is named.
    let nobody = ["logs", "sample-1", "--coordinator", "http://127.0.0.1:9"];
    let mut client = Muster::start(directory, "nobody", &nobody).unwrap();
    assert!(!client.wait().unwrap().success());
    assert!(client.stderr().contains("muster logs --store URL"), "{}", client.stderr());

    // Who follows sees what is said from now on.
    let follow = ["logs", "-f", "sample-1/t1", "--store", "muster-data"];
    let mut following = Muster::start(directory, "follow", &follow).unwrap();
    let (server, _) = serve(directory, "again");
    let seen = following.wait_for("the resumed run", |client| {
        let text = client.stdout();
        text.contains("resumed from").then_some(text)
    });
    let seen = seen.unwrap();
    assert_eq!(seen.lines().filter(|line| line.contains("resumed from")).count(), 1);
    server.terminate().unwrap();
}
