//! Whoever of coordinator, supervisor and runner is killed, and whatever state the others are in: what they started
//! ends by itself. And every local worker runs on processors of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use muster_tests::cluster::{Launcher, live_through};
use muster_tests::gang::{FOUR_TRIALS, Laboratory};
use muster_tests::process::{
    Muster, descendants, is_alive, processes_with, program, send_signal, without_children,
};
use muster_tests::sample::repository;
use muster_tests::service::{await_checkpoints, served_address};

const SERVE: [&str; 7] =
    ["serve", "--listen", "127.0.0.1:0", "--slots", "2", "--threads-per-slot", "1"];
/// Longest life of a process after whoever it belongs to, on a busy machine too.
const AFTERLIFE: Duration = Duration::from_secs(60);

/// A coordinator with two local workers that have a runner each.
struct Family {
    coordinator: Muster,
    supervisors: Vec<u32>,
    runners: Vec<u32>,
    /// Where they write; removed last.
    _directory: tempfile::TempDir,
}

impl Family {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut coordinator = Muster::start(directory.path(), "serve", &SERVE).unwrap();
        let root = coordinator.pid();
        let grown = |_: &Muster| {
            let supervisors = descendants(root, "muster-worker supervise");
            let runners = descendants(root, "muster-worker runner");
            (supervisors.len() == 2 && runners.len() == 2).then_some((supervisors, runners))
        };
        let (supervisors, runners) = coordinator.wait_for("two workers", grown).unwrap();
        Self { _directory: directory, coordinator, supervisors, runners }
    }

    fn all(&self) -> Vec<u32> {
        [self.supervisors.as_slice(), &self.runners].concat()
    }

    /// Fails if any of them is there after a while.
    fn gone(pids: &[u32]) {
        let begun = Instant::now();
        while let Some(alive) = pids.iter().find(|pid| is_alive(**pid)) {
            assert!(begun.elapsed() < AFTERLIFE, "{alive} lives on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        // A test that has failed leaves nothing either.
        for pid in self.all().into_iter().filter(|pid| is_alive(*pid)) {
            let _gone = send_signal("KILL", pid);
        }
    }
}

/// A coordinator that starts its workers itself.
struct Life {
    laboratory: Laboratory,
    listen: String,
    server: Muster,
}

impl Life {
    fn start(laboratory: Laboratory) -> Self {
        let directory = laboratory.directory.path();
        let mut server = Muster::start(directory, "serve", &SERVE).unwrap();
        let url = served_address(&mut server).unwrap();
        let listen = url.strip_prefix("http://").unwrap().to_owned();
        Self { laboratory, listen, server }
    }
}

impl Launcher for Life {
    const OUTLIVES: bool = false;
    const GROWS: bool = false;

    fn laboratory(&self) -> &Laboratory {
        &self.laboratory
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let url = format!("http://{}", self.listen);
        let arguments = [arguments, &["--coordinator", &url]].concat();
        let client = Muster::start(self.laboratory.directory.path(), "client", &arguments)?;
        Ok(client.succeed()?.0)
    }

    fn workers(&self) -> Vec<u32> {
        // Also those of a coordinator that was killed: they are where it was.
        let directory = self.laboratory.directory.path();
        let is_own = |pid: &u32| {
            let place = fs::read_link(format!("/proc/{pid}/cwd"));
            place.is_ok_and(|place| place == directory) && is_alive(*pid)
        };
        let mut pids = processes_with("muster-worker supervise", |_| true);
        pids.retain(is_own);
        pids.sort_unstable();
        without_children(&pids)
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.server.kill()?;
        let arguments =
            SERVE.map(|word| if word.contains(':') { self.listen.as_str() } else { word });
        self.server = Muster::start(self.laboratory.directory.path(), "again", &arguments)?;
        served_address(&mut self.server).map(drop)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.server.terminate()?;
        self.server.wait().map(drop)
    }
}

#[test]
fn local_slots_keep_what_everything_has_to_that_starts_workers() {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let laboratory = Laboratory::new(&model, 60, FOUR_TRIALS).unwrap();
    live_through(&mut Life::start(laboratory)).unwrap();
}

#[test]
fn a_killed_coordinator_leaves_nothing() {
    let mut family = Family::start();
    family.coordinator.kill().unwrap();
    Family::gone(&family.all());
}

#[test]
fn a_killed_supervisor_leaves_no_runner_and_has_a_successor() {
    let mut family = Family::start();
    let (killed, root) = (family.supervisors[0], family.coordinator.pid());
    let own = descendants(killed, "muster-worker runner");
    assert_eq!(own.len(), 1);
    send_signal("KILL", killed).unwrap();
    Family::gone(&[killed, own[0]]);
    let successor = |_: &Muster| {
        let now = descendants(root, "muster-worker supervise");
        (now.len() == 2 && !now.contains(&killed)).then_some(())
    };
    family.coordinator.wait_for("a successor", successor).unwrap();
    let successors = descendants(root, "muster-worker");
    family.coordinator.kill().unwrap();
    Family::gone(&successors);
    Family::gone(&family.all());
}

#[test]
fn both_killed_at_once_leave_nothing() {
    let mut family = Family::start();
    // In one moment, as a kernel without memory would do it.
    let pids = [family.coordinator.pid(), family.supervisors[0], family.supervisors[1]];
    for pid in pids {
        send_signal("STOP", pid).unwrap();
    }
    for pid in pids {
        send_signal("KILL", pid).unwrap();
    }
    family.coordinator.wait().unwrap();
    Family::gone(&family.all());
}

/// A process that is stopped does not see that its input has ended.
#[test]
fn the_stopped_are_left_behind_neither() {
    let mut family = Family::start();
    for pid in [family.supervisors[0], family.runners[1]] {
        send_signal("STOP", pid).unwrap();
    }
    family.coordinator.kill().unwrap();
    Family::gone(&family.all());
}

/// A worker as a cluster starts it, which stays alone for so many seconds.
fn worker(directory: &Path, label: &str, url: &str, alone: &str) -> Muster {
    let mut command = Command::new(program("muster-worker").unwrap());
    command.env("MUSTER_ALONE_SECONDS", alone);
    let arguments = ["supervise", "--coordinator", url];
    Muster::start_command(command, directory, label, &arguments).unwrap()
}

/// Who has asked a cluster for workers cannot give them back when it is killed, and nobody else does.
#[test]
fn a_worker_that_is_left_alone_ends_after_its_run() {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let settings = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9}\ncheckpoint: {every_steps: 50}\n";
    let laboratory = Laboratory::new(&model, 60, settings).unwrap();
    let directory = laboratory.directory.path();
    let text = laboratory.text.replace("{steps: 1000000}", "{steps: 4000}");
    fs::write(directory.join("gang.yaml"), text).unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--no-workers"];
    let mut coordinator = Muster::start(directory, "serve", &arguments).unwrap();
    let url = served_address(&mut coordinator).unwrap();
    let mut alone = worker(directory, "alone", &url, "3");
    let submit = ["submit", "gang.yaml", "--coordinator", &url];
    Muster::start(directory, "submit", &submit).unwrap().succeed().unwrap();
    await_checkpoints(directory, "gang-1", 1).unwrap();
    // It stands still, so that the run lasts longer than the patience of its worker.
    let runners = descendants(alone.pid(), "muster-worker runner");
    assert_eq!(runners.len(), 1);
    send_signal("STOP", runners[0]).unwrap();
    let mut patient = worker(directory, "patient", &url, "3000");
    let has_begun =
        |worker: &Muster| descendants(worker.pid(), "muster-worker runner").first().copied();
    patient.wait_for("runner", has_begun).unwrap();
    coordinator.kill().unwrap();
    std::thread::sleep(Duration::from_secs(6));
    assert!(is_alive(alone.pid()), "it leaves its run behind: {}", alone.stderr());
    send_signal("CONT", runners[0]).unwrap();
    assert_eq!(alone.wait().unwrap().code(), Some(5), "{}", alone.stderr());
    assert!(alone.stderr().contains("no coordinator for too long"), "{}", alone.stderr());
    // Told to leave, one leaves in good order; else this one would have waited on.
    assert!(is_alive(patient.pid()), "{}", patient.stderr());
    send_signal("TERM", patient.pid()).unwrap();
    assert_eq!(patient.wait().unwrap().code(), Some(0), "{}", patient.stderr());
}

#[test]
fn a_worker_that_finds_nobody_ends_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let mut nobody = worker(directory.path(), "nobody", "http://127.0.0.1:9", "1");
    assert_eq!(nobody.wait().unwrap().code(), Some(5), "{}", nobody.stderr());
}

/// In a group of processes of its own a worker survives what the terminal sends to the coordinator's.
#[test]
fn workers_and_runners_lead_groups_of_their_own() {
    let family = Family::start();
    let group_of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(2).unwrap().parse::<u32>().unwrap()
    };
    for pid in family.all() {
        assert_eq!(group_of(pid), pid);
    }
}

#[test]
fn local_workers_have_processors_of_their_own() {
    let allowed = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let span = |span: &str| {
            let (first, last) = span.split_once('-').unwrap_or((span, span));
            first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap()
        };
        list.trim().split(',').flat_map(span).collect::<BTreeSet<u32>>()
    };
    let all = allowed(std::process::id());
    let family = Family::start();
    assert_eq!(allowed(family.coordinator.pid()), all, "the coordinator runs anywhere");
    let [first, second] = [0, 1].map(|index| {
        let own = allowed(family.supervisors[index]);
        let runner = descendants(family.supervisors[index], "muster-worker runner")[0];
        assert_eq!(allowed(runner), own, "a runner computes where its supervisor is");
        own
    });
    if all.len() < 2 {
        return;
    }
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
    assert!(first.union(&second).all(|cpu| all.contains(cpu)));
    assert_eq!(first.len() + second.len(), all.len());
}
