//! Sessions of workers with a running coordinator, over TLS and with tokens; the test speaks as the workers do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use muster_common::access::Access;
use muster_common::id::{Generation, WorkerId};
use muster_common::manifest::Manifest;
use muster_common::run::{DataSummary, RunReport};
use muster_common::time::Timestamp;
use muster_coordinator::access::WorkerAccess;
use muster_coordinator::engine::{Engine, Event};
use muster_coordinator::settings::{Settings, SettingsFlags};
use muster_coordinator::system::System;
use muster_proto::PROTOCOL_VERSION;
use muster_proto::dial::dial;
use muster_proto::v1::session_request::Message as Request;
use muster_proto::v1::session_response::Message as Response;
use muster_proto::v1::worker_service_client::WorkerServiceClient;
use muster_proto::v1::{Goodbye, Hello, LogLines, Report, SessionRequest, SessionResponse};
use rustix::fs::{CWD, Mode, mkfifoat};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// Nothing here takes longer, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time in which nothing is to happen.
const MOMENT: Duration = Duration::from_millis(500);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

async fn start(directory: &Path) -> System {
    // Nobody is lost while such a test runs.
    start_with(directory, Duration::from_secs(600)).await
}

async fn start_with(directory: &Path, lease: Duration) -> System {
    let path = |name: &str| directory.join(name).display().to_string();
    let pairs = [
        ("MUSTER_STATE", path("state")),
        ("MUSTER_STORE", path("store")),
        ("MUSTER_TLS", "auto".to_owned()),
        ("MUSTER_LEASE_SECONDS", lease.as_secs().to_string()),
    ];
    let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value));
    let settings = Settings::load(&SettingsFlags::default(), pairs).unwrap();
    System::start(&settings, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

/// One side of a session that was let in.
#[derive(Debug)]
struct Session {
    to_coordinator: mpsc::Sender<SessionRequest>,
    responses: Streaming<SessionResponse>,
}

impl Session {
    /// Says Hello as `worker`; until the answer.
    async fn open(access: &WorkerAccess, worker: &str) -> Result<Self, Status> {
        Self::open_with(access, worker, None).await
    }

    /// The same, with a run that it has.
    async fn open_with(
        access: &WorkerAccess,
        worker: &str,
        held_generation: Option<u64>,
    ) -> Result<Self, Status> {
        let access = Access::read(access.file.as_ref().unwrap()).unwrap();
        let line = soon(dial(&access, |endpoint| endpoint)).await.unwrap();
        let (to_coordinator, requests) = mpsc::channel(4);
        let hello = Request::Hello(Hello {
            worker_id: worker.to_owned(),
            protocol_version: PROTOCOL_VERSION,
            host: "here".to_owned(),
            held_generation,
        });
        to_coordinator.send(SessionRequest { message: Some(hello) }).await.unwrap();
        let mut client = WorkerServiceClient::new(line);
        let mut responses = soon(client.session(ReceiverStream::new(requests))).await?.into_inner();
        let welcome = soon(responses.message()).await?.unwrap();
        assert!(matches!(welcome.message, Some(Response::Welcome(_))), "{welcome:?}");
        Ok(Self { to_coordinator, responses })
    }

    /// Whether nothing was said and nothing has ended.
    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(MOMENT, self.responses.message()).await.is_err()
    }

    /// The number of the run that it is given.
    async fn assigned(&mut self) -> u64 {
        let response = soon(self.responses.message()).await.unwrap().unwrap();
        match response.message {
            Some(Response::Assign(spec)) => spec.generation,
            other => panic!("{other:?}"),
        }
    }

    async fn say(&self, message: Request) {
        let message = Some(message);
        self.to_coordinator.send(SessionRequest { message }).await.unwrap();
    }

    /// Makes the first report of a run; until it is acknowledged.
    async fn report(&mut self, generation: u64) {
        self.say_report(generation).await;
        self.acknowledged(generation).await;
    }

    async fn say_report(&self, generation: u64) {
        let prepared = RunReport::Prepared(DataSummary { num_train: 9, ..DataSummary::default() });
        let report = Report { generation, sequence: 1, report: Some((&prepared).into()) };
        self.say(Request::Report(report)).await;
    }

    async fn acknowledged(&mut self, generation: u64) {
        let answer = soon(self.responses.message()).await.unwrap().unwrap();
        match answer.message {
            Some(Response::Acknowledge(wire)) => {
                assert_eq!((wire.generation, wire.sequence), (generation, 1));
            }
            other => panic!("{other:?}"),
        }
    }

    /// How it ended, from the other side.
    async fn ended(&mut self) -> Option<Status> {
        loop {
            match soon(self.responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    /// Leaves for good; until the coordinator has ended the session.
    async fn leave(mut self) {
        self.say(Request::Goodbye(Goodbye { reason: "done".to_owned() })).await;
        drop(self.to_coordinator);
        while let Ok(Some(_)) = soon(self.responses.message()).await {}
    }
}

/// An experiment whose first run is given to whoever comes.
async fn submit(system: &System) {
    let text = "version: 1\nname: e\nmodel: {pretrained: m}\ndata:\n  train: {path: d.csv}\n  \
                validation: {fraction: 0.1}\n  text: text\n  label: {column: label}\nbudget: {steps: 1}\n";
    let event = Event::ExperimentSubmitted {
        manifest: Box::new(Manifest::parse(text).unwrap()),
        text: text.to_owned(),
        store: system.store.clone(),
        owner: None,
        base: None,
    };
    system.driver.apply(event).await.unwrap();
}

/// All that the engine knows of runs.
async fn runs(system: &System) -> String {
    system.driver.read(|engine| format!("{:?}", engine.runs())).await.unwrap()
}

/// Waits until the engine knows of so many workers.
async fn await_workers(system: &System, count: usize) {
    soon(async {
        while system.driver.read(|engine| engine.workers().len()).await.unwrap() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Waits until the engine knows that a worker has this token.
async fn await_token(system: &System, worker: &str, wanted: &'static str) {
    let worker: WorkerId = worker.parse().unwrap();
    soon(async {
        loop {
            let id = worker.clone();
            let look = move |engine: &Engine| engine.workers().get(&id)?.token_name.clone();
            if system.driver.read(look).await.unwrap().as_deref() == Some(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn refused(access: &WorkerAccess, worker: &str) {
    let status = Session::open(access, worker).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let words = format!("`{worker}` is in use by a worker with another token");
    assert!(status.message().contains(&words), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workers_id_belongs_to_the_token_that_it_came_in_with() {
    let directory = tempfile::tempdir().unwrap();
    let system = start(directory.path()).await;
    let own = system.guard.remote_worker_access("slurm", Some(system.guard.near_url())).unwrap();
    let other = system.guard.local_worker_access().unwrap();
    let mut first = Session::open(&own, "w-1").await.unwrap();
    await_workers(&system, 1).await;
    refused(&other, "w-1").await;
    assert!(first.is_quiet().await, "it does not notice");
    let beside = Session::open(&other, "w-2").await.unwrap();
    await_workers(&system, 2).await;
    // One that is away for a moment has its id still.
    drop(first);
    soon(async {
        while system.live.num_connected() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    refused(&other, "w-1").await;
    // A token that is renewed is still the same one.
    let checker = system.guard.checker().unwrap();
    assert_eq!(checker.book().revoke("_workers-slurm", Timestamp::now()).unwrap(), 1);
    let renewed =
        system.guard.remote_worker_access("slurm", Some(system.guard.near_url())).unwrap();
    let again = Session::open(&renewed, "w-1").await.unwrap();
    // One that was taken away holds nothing, whatever its successor is called.
    let third = system.guard.remote_worker_access("third", Some(system.guard.near_url())).unwrap();
    refused(&third, "w-2").await;
    assert_eq!(checker.book().revoke("_workers-local", Timestamp::now()).unwrap(), 1);
    let successor = Session::open(&third, "w-2").await.unwrap();
    await_token(&system, "w-2", "_workers-third").await;
    drop((again, beside, successor));
    soon(system.stop()).await.unwrap();

    // Also where the first to come after a restart is not the one.
    let system = start(directory.path()).await;
    let own = system.guard.remote_worker_access("slurm", Some(system.guard.near_url())).unwrap();
    let other = system.guard.local_worker_access().unwrap();
    await_workers(&system, 2).await;
    refused(&other, "w-1").await;
    Session::open(&own, "w-1").await.unwrap().leave().await;
    // What is gone for good leaves its name behind.
    await_workers(&system, 1).await;
    Session::open(&other, "w-1").await.unwrap();
    soon(system.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_under_the_name_of_a_worker_that_has_reported_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let system = start(directory.path()).await;
    let access = system.guard.local_worker_access().unwrap();
    submit(&system).await;
    let mut first = Session::open(&access, "fixed").await.unwrap();
    let generation = first.assigned().await;
    first.report(generation).await;
    drop(first);
    // Its reports would have numbers that were counted: the end of the old run would never be heard of.
    let mut second = Session::open(&access, "fixed").await.unwrap();
    assert_eq!(second.assigned().await, generation + 1);
    drop(second);
    soon(system.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_the_token_of_a_connected_worker_takes_its_session_over() {
    let directory = tempfile::tempdir().unwrap();
    let system = start(directory.path()).await;
    let access = system.guard.local_worker_access().unwrap();
    submit(&system).await;
    let mut first = Session::open(&access, "w-1").await.unwrap();
    let generation = first.assigned().await;
    // The same worker over another connection, while the coordinator takes the first for alive.
    let mut second = Session::open_with(&access, "w-1", Some(generation)).await.unwrap();
    let status = first.ended().await.unwrap();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(status.message().contains("another session took over"), "{status}");
    drop(first);
    assert!(second.is_quiet().await, "the end of the older session is not the end of this one");
    assert_eq!(system.live.num_connected(), 1);
    await_workers(&system, 1).await;
    // It has the run, which nobody was given a second time.
    second.report(generation).await;
    drop(second);
    soon(system.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replayed_counts_once_and_opens_nothing_that_was_closed() {
    let directory = tempfile::tempdir().unwrap();
    let system = start(directory.path()).await;
    let access = system.guard.remote_worker_access("slurm", Some(system.guard.near_url())).unwrap();
    submit(&system).await;
    let mut first = Session::open(&access, "w-1").await.unwrap();
    let generation = first.assigned().await;
    let before = runs(&system).await;
    first.report(generation).await;
    drop(first);
    let reported = runs(&system).await;
    assert_ne!(reported, before, "a report leaves its mark");
    // The whole session once more, word by word: what was acknowledged is, and that is all.
    for _ in 0..2 {
        let mut replayed = Session::open_with(&access, "w-1", Some(generation)).await.unwrap();
        replayed.report(generation).await;
        replayed.report(generation).await;
        assert_eq!(runs(&system).await, reported);
        await_workers(&system, 1).await;
    }
    // A token that was taken away ends what it has opened, and opens nothing when it is shown again.
    let mut last = Session::open_with(&access, "w-1", Some(generation)).await.unwrap();
    let checker = system.guard.checker().unwrap();
    assert_eq!(checker.book().revoke("_workers-slurm", Timestamp::now()).unwrap(), 1);
    last.ended().await;
    for worker in ["w-1", "w-2"] {
        let status = Session::open(&access, worker).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
    assert_eq!(runs(&system).await, reported);
    soon(system.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_worker_is_not_lost_while_the_disk_of_its_lines_stands_still() {
    let (directory, lease) = (tempfile::tempdir().unwrap(), Duration::from_secs(6));
    let system = start_with(directory.path(), lease).await;
    let access = system.guard.local_worker_access().unwrap();
    // A pipe in the place of the file: whoever writes a line waits until somebody reads.
    let lines = system.idle_log();
    std::fs::create_dir_all(lines.parent().unwrap()).unwrap();
    mkfifoat(CWD, &lines, Mode::RUSR | Mode::WUSR).unwrap();
    submit(&system).await;
    let mut session = Session::open(&access, "w-1").await.unwrap();
    let generation = session.assigned().await;
    session
        .say(Request::LogLines(LogLines { generation: None, lines: vec!["up".to_owned()] }))
        .await;
    session.say_report(generation).await;
    tokio::time::sleep(lease * 2).await;
    let is_quiet = session.is_quiet().await;
    let num_workers = system.driver.read(|engine| engine.workers().len()).await.unwrap();
    // Before anything can fail: a thread that waits there would hold up the end of the test too.
    let _read = File::options().read(true).write(true).open(&lines).unwrap();
    assert!(is_quiet, "its report lies unread behind the line");
    assert_eq!(num_workers, 1, "it was lost, though it is the coordinator that does not listen");
    session.acknowledged(generation).await;
    let goes_on = move |engine: &Engine| engine.runs().contains_key(&Generation(generation));
    assert!(system.driver.read(goes_on).await.unwrap());
    // From here on it really says nothing.
    await_workers(&system, 0).await;
    drop(session);
    soon(system.stop()).await.unwrap();
}
