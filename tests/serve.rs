//! The engine as a service: submit, ls, watch, logs, pause, resume, cancel, against real processes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::skip;

struct Served {
    directory: tempfile::TempDir,
    server: Muster,
    url: String,
}

fn serve(directory: &Path, label: &str, listen: &str) -> (Muster, String) {
    let arguments = ["serve", "--listen", listen, "--slots", "1"];
    let mut server = Muster::start(directory, label, &arguments).unwrap();
    let url = server
        .wait_for("address", |server| {
            let line = server.stdout().lines().next()?.to_owned();
            line.strip_prefix("serving on ").map(ToOwned::to_owned)
        })
        .unwrap();
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
    let logs = served.ask(&["logs", "sample-1/t1"]);
    assert!(logs.lines().count() > 0 && logs.lines().all(|line| line.starts_with("t1")), "{logs}");

    let mut missing = served.client("missing", &["watch", "sample-9"]);
    assert!(!missing.wait().unwrap().success());
    assert!(missing.stderr().contains("known: sample-1"), "{}", missing.stderr());
}

#[test]
fn an_experiment_is_paused_resumed_and_canceled() {
    let name = "an_experiment_is_paused_resumed_and_canceled";
    let Some(served) = Served::start(name, &Sample { max_trials: 8, min_steps: 60 }) else {
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
fn a_killed_service_goes_on_when_it_is_started_again() {
    let name = "a_killed_service_goes_on_when_it_is_started_again";
    let Some(mut served) = Served::start(name, &Sample { max_trials: 2, min_steps: 12 }) else {
        return;
    };
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
