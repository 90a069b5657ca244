//! The line to the coordinator: one stream, opened again after every cut. Reports wait here until they are acknowledged
//! and are repeated after a cut; log lines wait for the next line; progress is dropped when there is none.

use std::collections::VecDeque;
use std::time::Duration;

use muster_common::access::{Access, AccessError, AccessFlags};
use muster_common::id::{Generation, WorkerId};
use muster_common::metric::MetricSeries;
use muster_common::run::{Directive, RunProgress, RunReport, RunSpec};
use muster_proto::PROTOCOL_VERSION;
use muster_proto::dial::dial;
use muster_proto::v1::session_request::Message as Request;
use muster_proto::v1::session_response::Message as Response;
use muster_proto::v1::worker_service_client::WorkerServiceClient;
use muster_proto::v1::{self, SessionRequest};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::missed::Missed;
use crate::machine::host_name;

/// Messages that may wait for the connection, in both directions.
const QUEUE_MAX: usize = 256;
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// Pauses between attempts to connect: the first and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Heartbeats until a welcome says how long the lease is.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Coordinator to supervisor, in domain types.
#[derive(Debug)]
pub(super) enum FromCoordinator {
    /// It has let the worker in.
    Welcomed,
    /// It cannot be reached any more.
    Gone,
    Assign(Box<RunSpec>),
    Direct {
        generation: Generation,
        directive: Directive,
    },
    Abandon {
        generation: Generation,
    },
    /// There is no getting in, now or later.
    Refused {
        reason: String,
    },
}

#[derive(Debug)]
enum Outgoing {
    Report { generation: Generation, sequence: u64, report: RunReport },
    Hold { generation: Generation },
    Progress { generation: Generation, progress: RunProgress },
    Measured { generation: Generation, series: Vec<MetricSeries> },
    Log { generation: Option<Generation>, line: String },
    Draining { reason: String },
    Goodbye { reason: String },
}

/// The supervisor's end.
#[derive(Debug)]
pub(super) struct Link {
    outgoing: mpsc::Sender<Outgoing>,
    incoming: mpsc::Receiver<FromCoordinator>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Link {
    /// Starts connecting.
    pub(super) fn open(access: AccessFlags, worker: WorkerId) -> Self {
        let (outgoing, from_supervisor) = mpsc::channel(QUEUE_MAX);
        let (to_supervisor, incoming) = mpsc::channel(QUEUE_MAX);
        let line = Line {
            access,
            was_in: false,
            is_in: false,
            worker,
            from_supervisor,
            to_supervisor,
            unacknowledged: VecDeque::new(),
            missed: Missed::default(),
            held: None,
            draining: None,
            is_leaving: false,
            longest_pause: RETRY.1,
        };
        let task = Some(tokio::spawn(line.keep()));
        Self { outgoing, incoming, task }
    }

    /// The next message; for ever pending when the line is closed.
    pub(super) async fn next(&mut self) -> FromCoordinator {
        match self.incoming.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// Sends what must arrive.
    pub(super) async fn report(&self, generation: Generation, sequence: u64, report: RunReport) {
        self.push(Outgoing::Report { generation, sequence, report }).await;
    }

    /// Remembers that a run was taken on, to say so after a cut.
    pub(super) async fn hold(&self, generation: Generation) {
        self.push(Outgoing::Hold { generation }).await;
    }

    async fn push(&self, message: Outgoing) {
        if self.outgoing.send(message).await.is_err() {
            tracing::error!("the line to the coordinator is closed");
        }
    }

    /// Sends what may be lost.
    pub(super) fn progress(&self, generation: Generation, progress: RunProgress) {
        let _full = self.outgoing.try_send(Outgoing::Progress { generation, progress });
    }

    /// Sends what may be lost.
    pub(super) fn measured(&self, generation: Generation, series: Vec<MetricSeries>) {
        let _full = self.outgoing.try_send(Outgoing::Measured { generation, series });
    }

    /// Sends what may be lost.
    pub(super) fn log(&self, generation: Option<Generation>, line: String) {
        let _full = self.outgoing.try_send(Outgoing::Log { generation, line });
    }

    /// Says that the worker is about to leave, so that its run is told to save itself.
    pub(super) async fn drain(&self, reason: String) {
        self.push(Outgoing::Draining { reason }).await;
    }

    /// Says goodbye and waits until it is out.
    pub(super) async fn goodbye(&mut self, reason: String) {
        self.push(Outgoing::Goodbye { reason }).await;
        if let Some(task) = self.task.take() {
            let _panicked = task.await;
        }
    }
}

struct Line {
    access: AccessFlags,
    /// Whether a coordinator has ever let this worker in: then what stands in its place is waited out.
    was_in: bool,
    /// Whether one lets it in now.
    is_in: bool,
    worker: WorkerId,
    from_supervisor: mpsc::Receiver<Outgoing>,
    to_supervisor: mpsc::Sender<FromCoordinator>,
    unacknowledged: VecDeque<v1::Report>,
    /// What was logged since the last line broke.
    missed: Missed,
    /// The run that was taken on last, until its end is acknowledged.
    held: Option<Held>,
    /// Why the worker is about to leave, once it is.
    draining: Option<String>,
    is_leaving: bool,
    /// Between two attempts to connect.
    longest_pause: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    generation: Generation,
    /// Number of the report that ended it.
    ended_by: Option<u64>,
}

/// Why a session ended.
enum Cut {
    Lost(String),
    /// It is no use to try again with this access.
    Refused(Option<Access>, String),
    Left,
}

/// How talking ended.
enum Ended {
    Cut(Cut),
    /// By a word of the coordinator's.
    Said(tonic::Status),
}

/// What follows from a status. Whoever is not let in stays out.
fn cut(status: &tonic::Status, access: Access) -> Cut {
    let reason = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Cut::Refused(Some(access), reason),
        _ => Cut::Lost(reason),
    }
}

/// How to get at the coordinator, as flags, environment and files say it now.
pub(super) fn find(flags: &AccessFlags) -> Result<Access, AccessError> {
    Access::find(flags, &[], |name| std::env::var(name).ok())
}

impl Line {
    async fn keep(mut self) {
        let mut pause = RETRY.0;
        loop {
            let opened_at = Instant::now();
            let cut = self.session().await;
            if std::mem::take(&mut self.is_in) {
                let _ended = self.to_supervisor.send(FromCoordinator::Gone).await;
            }
            match cut {
                Cut::Left => return,
                Cut::Lost(reason) => {
                    if opened_at.elapsed() > self.longest_pause {
                        pause = RETRY.0;
                    }
                    tracing::info!(reason, "no line to the coordinator");
                }
                Cut::Refused(access, reason) => {
                    // The file may have a newer token by now.
                    if access.is_none() || find(&self.access).ok() == access {
                        let _gone =
                            self.to_supervisor.send(FromCoordinator::Refused { reason }).await;
                        self.drain().await;
                        return;
                    }
                    tracing::info!(reason, "not let in; the access file is another one now");
                }
            }
            if self.is_leaving || !self.wait(pause.min(self.longest_pause)).await {
                return;
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Waits, still taking reports so that the supervisor never stands still. `false`: leave.
    async fn wait(&mut self, pause: Duration) -> bool {
        let until = sleep(pause);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return true,
                message = self.from_supervisor.recv() => match message {
                    None | Some(Outgoing::Goodbye { .. }) => return false,
                    Some(message) => {
                        if let Some(Request::LogLines(lines)) = self.convert(message) {
                            self.missed.push(lines);
                        }
                    }
                },
            }
        }
    }

    /// Takes what is still said until nobody says anything, so that the supervisor never stands still.
    async fn drain(&mut self) {
        while self.from_supervisor.recv().await.is_some() {}
    }

    async fn session(&mut self) -> Cut {
        // Read again each time: tokens are renewed in the file.
        let access = match find(&self.access) {
            Ok(access) => access,
            Err(error) if self.was_in => return Cut::Lost(error.to_string()),
            Err(error) => return Cut::Refused(None, error.to_string()),
        };
        let dialling = dial(&access, |endpoint| {
            endpoint
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(10))
        });
        let line = match timeout(CONNECT, dialling).await {
            Ok(Ok(line)) => line,
            // What answers at the start is what was named. Later it may be anybody, for a while.
            Ok(Err(error)) if error.is_refusal() && !self.was_in => {
                return Cut::Refused(Some(access), error.to_string());
            }
            Ok(Err(error)) => return Cut::Lost(error.to_string()),
            Err(_) => return Cut::Lost("connecting took too long".to_owned()),
        };
        let (sender, requests) = mpsc::channel(QUEUE_MAX);
        let hello = Request::Hello(v1::Hello {
            worker_id: self.worker.to_string(),
            protocol_version: PROTOCOL_VERSION,
            host: host_name(),
            held_generation: self.held.map(|held| held.generation.0),
        });
        if sender.send(SessionRequest { message: Some(hello) }).await.is_err() {
            return Cut::Lost("the connection closed".to_owned());
        }
        let mut client = WorkerServiceClient::new(line);
        let opening = client.session(ReceiverStream::new(requests));
        let mut responses = match timeout(CONNECT, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return cut(&status, access),
            Err(_) => return Cut::Lost("the coordinator does not answer".to_owned()),
        };
        self.was_in = true;
        // Not before: nothing is read until the stream is open, and these may be many. That it leaves comes first, as
        // it did: else the end of its run breaks a gang, whose other ranks get no time to save themselves.
        let draining = self.draining.clone().map(|reason| v1::Draining { reason });
        let mut first: Vec<Request> = draining.into_iter().map(Request::Draining).collect();
        first.extend(self.unacknowledged.iter().cloned().map(Request::Report));
        first.extend(self.missed.take().into_iter().map(Request::LogLines));
        for message in first {
            if sender.send(SessionRequest { message: Some(message) }).await.is_err() {
                return Cut::Lost("the connection closed".to_owned());
            }
        }
        match self.talk(&sender, &mut responses).await {
            Ended::Cut(cut) => cut,
            Ended::Said(status) => cut(&status, access),
        }
    }

    async fn talk(
        &mut self,
        sender: &mpsc::Sender<SessionRequest>,
        responses: &mut tonic::Streaming<v1::SessionResponse>,
    ) -> Ended {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                _ = heartbeat.tick() => Some(Request::Heartbeat(v1::Heartbeat {})),
                message = self.from_supervisor.recv() => match message {
                    Some(message) => self.convert(message),
                    None => return Ended::Cut(Cut::Left),
                },
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        if let Some(Response::Welcome(welcome)) = &response.message {
                            let every = Duration::from_millis(welcome.lease_ms / 5);
                            // A coordinator that is there again must not miss us for a whole lease.
                            self.longest_pause = every.clamp(RETRY.0, RETRY.1);
                            heartbeat = interval(every.clamp(Duration::from_millis(50), HEARTBEAT));
                            heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                        }
                        match self.take(response).await {
                            Ok(()) => None,
                            Err(reason) => return Ended::Cut(Cut::Lost(reason)),
                        }
                    }
                    Ok(None) => return Ended::Cut(Cut::Lost("the coordinator closed the line".to_owned())),
                    Err(status) => return Ended::Said(status),
                },
            };
            let Some(message) = message else { continue };
            if sender.send(SessionRequest { message: Some(message) }).await.is_err() {
                return Ended::Cut(Cut::Lost("the connection closed".to_owned()));
            }
            if self.is_leaving {
                // The coordinator closes its side when it has read the goodbye.
                let drained = async { while let Ok(Some(_)) = responses.message().await {} };
                let _late = timeout(Duration::from_millis(500), drained).await;
                return Ended::Cut(Cut::Left);
            }
        }
    }

    /// Books a message and puts it on the wire's form.
    fn convert(&mut self, message: Outgoing) -> Option<Request> {
        match message {
            Outgoing::Report { generation, sequence, report } => {
                if matches!(report, RunReport::Ended { .. })
                    && let Some(held) = &mut self.held
                    && held.generation == generation
                {
                    held.ended_by = Some(sequence);
                }
                let report = Some((&report).into());
                let wire = v1::Report { generation: generation.0, sequence, report };
                self.unacknowledged.push_back(wire.clone());
                Some(Request::Report(wire))
            }
            Outgoing::Hold { generation } => {
                self.held = Some(Held { generation, ended_by: None });
                None
            }
            Outgoing::Progress { generation, progress } => Some(Request::Progress(v1::Progress {
                generation: generation.0,
                progress: Some((&progress).into()),
            })),
            Outgoing::Measured { generation, series } => {
                let series = series.into_iter().map(Into::into).collect();
                Some(Request::MetricPoints(v1::MetricPoints { generation: generation.0, series }))
            }
            Outgoing::Log { generation, line } => {
                let generation = generation.map(|generation| generation.0);
                Some(Request::LogLines(v1::LogLines { generation, lines: vec![line] }))
            }
            Outgoing::Draining { reason } => {
                self.draining = Some(reason.clone());
                Some(Request::Draining(v1::Draining { reason }))
            }
            Outgoing::Goodbye { reason } => {
                self.is_leaving = true;
                Some(Request::Goodbye(v1::Goodbye { reason }))
            }
        }
    }

    async fn take(&mut self, response: v1::SessionResponse) -> Result<(), String> {
        let message = match response.message {
            Some(Response::Assign(spec)) => {
                let spec = RunSpec::try_from(*spec).map_err(|error| format!("assign: {error}"))?;
                FromCoordinator::Assign(Box::new(spec))
            }
            Some(Response::Direct(wire)) => {
                let directive = Directive::try_from(wire.directive())
                    .map_err(|error| format!("direct: {error}"))?;
                FromCoordinator::Direct { generation: Generation(wire.generation), directive }
            }
            Some(Response::Acknowledge(wire)) => {
                self.acknowledge(Generation(wire.generation), wire.sequence);
                return Ok(());
            }
            Some(Response::Abandon(wire)) => {
                let generation = Generation(wire.generation);
                self.unacknowledged.retain(|report| report.generation != generation.0);
                if self.held.is_some_and(|held| held.generation == generation) {
                    self.held = None;
                }
                FromCoordinator::Abandon { generation }
            }
            Some(Response::Welcome(_)) => {
                self.is_in = true;
                FromCoordinator::Welcomed
            }
            None => return Ok(()),
        };
        self.to_supervisor.send(message).await.map_err(|_| "the supervisor is gone".to_owned())
    }

    fn acknowledge(&mut self, generation: Generation, sequence: u64) {
        self.unacknowledged
            .retain(|report| report.generation != generation.0 || report.sequence > sequence);
        let is_over = self.held.is_some_and(|held| {
            held.generation == generation && held.ended_by.is_some_and(|end| end <= sequence)
        });
        if is_over {
            self.held = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_common::run::RunExit;
    use muster_proto::v1::SessionResponse;
    use muster_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request as Call, Response as Answer, Status, Streaming};

    use super::*;

    /// Passes on what a worker says.
    struct Ear(mpsc::UnboundedSender<Request>);

    #[tonic::async_trait]
    impl WorkerService for Ear {
        type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

        async fn session(
            &self,
            call: Call<Streaming<SessionRequest>>,
        ) -> Result<Answer<Self::SessionStream>, Status> {
            let mut incoming = call.into_inner();
            let heard = self.0.clone();
            let (answers, stream) = mpsc::channel(1);
            // As the coordinator: it answers when it has heard who it is.
            let Some(SessionRequest { message: Some(hello) }) = incoming.message().await? else {
                return Err(Status::invalid_argument("nothing was said"));
            };
            tokio::spawn(async move {
                let _line_is_open = answers;
                let _nobody_listens = heard.send(hello);
                while let Ok(Some(SessionRequest { message: Some(message) })) =
                    incoming.message().await
                {
                    let _nobody_listens = heard.send(message);
                }
            });
            Ok(Answer::new(ReceiverStream::new(stream)))
        }
    }

    #[tokio::test]
    async fn all_that_waited_for_a_line_is_said_however_much_it_is_and_first_that_it_leaves() {
        // Nobody answers there yet.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let coordinator = Some(format!("http://{port}"));
        let access = AccessFlags { coordinator, ..AccessFlags::default() };
        let link = Link::open(access, "w1".parse().unwrap());
        let num_reports = 3 * QUEUE_MAX;
        for sequence in 1..=num_reports as u64 {
            let report = RunReport::Ended { exit: RunExit::Completed };
            link.report(Generation(1), sequence, report).await;
        }
        link.drain("told".to_owned()).await;
        sleep(Duration::from_millis(500)).await;

        let (sender, mut heard) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind(port).await.unwrap();
        let service = WorkerServiceServer::new(Ear(sender));
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let mut said = Vec::new();
        while said.len() < num_reports + 2 {
            let message = timeout(Duration::from_secs(30), heard.recv()).await.unwrap().unwrap();
            if !matches!(message, Request::Heartbeat(_)) {
                said.push(message);
            }
        }
        assert!(matches!(said[0], Request::Hello(_)) && matches!(said[1], Request::Draining(_)));
        for (message, wanted) in said[2..].iter().zip(1..) {
            let Request::Report(report) = message else { panic!("{message:?}") };
            assert_eq!(report.sequence, wanted);
        }
    }
}
