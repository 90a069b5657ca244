//! Those who follow an experiment by lines, while its coordinator is killed, stopped and started again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_slow_manifest};
use muster_tests::service::{Place, Service};
use muster_tests::skip;

const HERE: Place<'_> = Place::Here;

/// Numbers of the steps that `curves --follow` has printed, in its order.
fn steps(text: &str) -> Vec<u64> {
    let number = |line: &str| line.strip_prefix("step")?.split_whitespace().next()?.parse().ok();
    text.lines().filter_map(number).collect()
}

/// What `watch --plain` has said of decisions, without the lines that say where things are.
fn decisions(text: &str) -> Vec<&str> {
    let is_other = |line: &&str| line.contains("sample-1  ") || line.contains("went away");
    text.lines().filter(|line| !is_other(line)).collect()
}

/// Waits until a follower of curves has printed this many more steps.
fn await_steps(follower: &mut Muster, more: usize) -> usize {
    let before = steps(&follower.stdout()).len();
    let reached = |follower: &Muster| {
        let count = steps(&follower.stdout()).len();
        (count >= before + more).then_some(count)
    };
    follower.wait_for("steps", reached).unwrap()
}

/// How often a client has said that nobody is there.
fn num_outages(client: &Muster) -> usize {
    client.stderr().matches("the coordinator went away, trying again").count()
}

/// Waits until a client has noticed one more.
fn await_outage(client: &mut Muster, before: usize) {
    let noticed = |client: &Muster| (num_outages(client) > before).then_some(());
    client.wait_for("a word of the outage", noticed).unwrap();
}

#[test]
fn followers_go_on_when_the_coordinator_is_back() {
    let name = "followers_go_on_when_the_coordinator_is_back";
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // Fewer steps than a curve has points: each of them is told of.
    let sample = Sample { max_trials: 1, min_steps: 60 };
    if let Err(reason) = write_slow_manifest(directory, &sample) {
        return skip(name, &reason);
    }
    let mut service = Service::start(directory, HERE).unwrap();
    let _worker = service.worker(HERE, "worker").unwrap();
    service.ask(HERE, &["submit", "sample.yaml"]).unwrap();
    service.wait_for(HERE, &["ls"], "1 running").unwrap();
    let curves = ["curves", "sample-1/t1", "--follow", "--name", "train_loss"];
    let mut curves = service.client(HERE, &curves).unwrap();
    let mut logs = service.client(HERE, &["logs", "sample-1", "--follow"]).unwrap();
    let mut watch = service.client(HERE, &["watch", "sample-1", "--plain"]).unwrap();
    let said = |client: &Muster| (!client.stdout().is_empty()).then_some(());
    logs.wait_for("a line", said).unwrap();
    let seen = |client: &Muster| client.stderr().contains("sample-1  ").then_some(());
    watch.wait_for("where it is", seen).unwrap();

    // In good order, while nothing runs: the end of a stream is not the end of what it is about.
    let at_stop = await_steps(&mut curves, 5);
    service.ask(HERE, &["pause", "sample-1"]).unwrap();
    service.stop_and_start().unwrap();
    for client in [&mut curves, &mut logs, &mut watch] {
        await_outage(client, 0);
    }
    service.await_coordinator().unwrap();
    service.ask(HERE, &["resume", "sample-1"]).unwrap();

    // By force, in the middle of a run, which goes on.
    let at_kill = await_steps(&mut curves, 5);
    let lines_at_kill = logs.stdout().lines().count();
    let before = [&curves, &logs, &watch].map(num_outages);
    service.kill_and_start().unwrap();
    for (client, before) in [&mut curves, &mut logs, &mut watch].into_iter().zip(before) {
        await_outage(client, before);
    }
    service.await_coordinator().unwrap();

    assert!(watch.wait().unwrap().success(), "{}", watch.stderr());
    assert!(watch.stdout().contains("sample-1 completed"), "{}", watch.stdout());
    assert!(curves.wait().unwrap().success(), "{}", curves.stderr());
    assert!(logs.wait().unwrap().success(), "{}", logs.stderr());

    // Not all come in their order: what was measured without a coordinator comes out of the store.
    let mut printed = steps(&curves.stdout());
    printed.sort_unstable();
    assert_eq!(printed, (1..=printed.len() as u64).collect::<Vec<_>>(), "every step, each once");
    let total = printed.len();
    assert!(at_stop < at_kill && at_kill < total, "{at_stop}, {at_kill}, {total}");
    all_lines_are_there(&service, &logs, lines_at_kill);
    all_decisions_are_there(&service, &watch, directory);
}

/// What the coordinator has kept, from the first line on; the last words of a run may come after the end.
fn all_lines_are_there(service: &Service, logs: &Muster, at_kill: usize) {
    let (kept, _) = service.ask(HERE, &["logs", "sample-1"]).unwrap();
    let printed = logs.stdout();
    assert!(kept.starts_with(&printed), "printed:\n{printed}\nkept:\n{kept}");
    assert!(printed.lines().count() > at_kill, "nothing was said after the restart:\n{printed}");
}

/// The decisions that somebody hears of who comes when all is over.
fn all_decisions_are_there(service: &Service, watch: &Muster, directory: &Path) {
    let arguments = ["watch", "sample-1", "--plain", "--coordinator", &service.url];
    let late = Muster::start(directory, "late", &arguments).unwrap();
    let (_, late) = late.succeed().unwrap();
    let heard = watch.stderr();
    assert!(decisions(&late).len() > 2, "{late}");
    assert_eq!(decisions(&heard), decisions(&late), "{heard}");
}
