//! The worker service: one stream per worker.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::FutureExt as _;
use muster_common::id::{ExperimentId, Generation, TrialId, WorkerId};
use muster_common::metric::MetricName;
use muster_common::run::RunReport;
use muster_proto::PROTOCOL_VERSION;
use muster_proto::convert::RunWriter;
use muster_proto::v1::session_request::Message as Request;
use muster_proto::v1::session_response::Message as Response;
use muster_proto::v1::worker_service_server::WorkerService;
use muster_proto::v1::{self, SessionRequest, SessionResponse};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::Service;
use super::claim::Claims;
use crate::access::checker::{Caller, Checker};
use crate::driver::{PendingAdmission, Stopped};
use crate::engine::{Admission, Engine, Event, LossCause};
use crate::greeting::{Greeting, greet};
use crate::live::ToWorker;

/// Wire messages that may wait for a slow connection.
const OUTGOING_MAX: usize = 16;
/// Reports of one worker that may wait for the journal; then no more are read from it.
const PENDING_MAX: usize = 64;

/// Implementation of the worker service.
pub(super) struct Workers {
    service: Service,
    claims: Claims,
    sessions: Arc<AtomicU64>,
    runs: Arc<RunWriter>,
}

impl Workers {
    pub(super) fn new(service: Service, checker: Option<Checker>) -> Self {
        let claims = Claims::new(service.clone(), checker);
        Self { service, claims, sessions: Arc::default(), runs: Arc::default() }
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: tonic::Request<Streaming<SessionRequest>>,
    ) -> Result<tonic::Response<Self::SessionStream>, Status> {
        let caller = request.extensions().get::<Caller>();
        let token_name = caller.map(|caller| caller.name.clone());
        let mut incoming = request.into_inner();
        let hello = match incoming.next().await {
            Some(Ok(SessionRequest { message: Some(Request::Hello(hello)) })) => hello,
            Some(Err(status)) => return Err(status),
            _ => return Err(Status::invalid_argument("a session starts with Hello")),
        };
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition(format!(
                "this coordinator speaks protocol {PROTOCOL_VERSION}, the worker {}: use the same build on both sides",
                hello.protocol_version
            )));
        }
        let worker: WorkerId = hello
            .worker_id
            .parse()
            .map_err(|error| Status::invalid_argument(format!("worker_id: {error}")))?;
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let messages = self.claims.open(&worker, number, token_name.as_deref()).await?;
        let (outgoing, stream) = mpsc::channel(OUTGOING_MAX);
        let session = Session {
            service: self.service.clone(),
            claims: self.claims.clone(),
            worker: worker.clone(),
            token_name,
            number,
            outgoing,
            owner: Mutex::default(),
            runs: Arc::clone(&self.runs),
        };
        let span = tracing::info_span!("session", worker = %worker);
        tokio::spawn(
            async move {
                tokio::select! {
                    result = session.run(hello, incoming, messages) => {
                        if let Err(status) = result {
                            tracing::info!(%status, "session ended");
                            let _gone = session.outgoing.send(Err(status)).await;
                        }
                    }
                    // Its answers go nowhere: it was cut off, and is not to be heard either.
                    () = session.outgoing.closed() => {}
                    () = session.service.shutdown.cancelled() => {}
                }
                session.service.live.disconnect(&session.worker, session.number);
            }
            .instrument(span),
        );
        Ok(tonic::Response::new(ReceiverStream::new(stream)))
    }
}

struct Session {
    service: Service,
    claims: Claims,
    worker: WorkerId,
    /// Name of the token that it was opened with.
    token_name: Option<String>,
    number: u64,
    outgoing: mpsc::Sender<Result<SessionResponse, Status>>,
    /// Whose run was assigned last: its last lines come when the engine has forgotten the run.
    owner: Mutex<Option<Owner>>,
    /// Of all sessions.
    runs: Arc<RunWriter>,
}

/// A report that waits for the journal.
struct PendingReport {
    generation: Generation,
    sequence: u64,
    is_end: bool,
    admission: PendingAdmission,
}

/// For whom a worker works.
#[derive(Debug, Clone)]
struct Owner {
    generation: Generation,
    rank: u32,
    subject: (ExperimentId, Option<TrialId>),
}

pub(super) fn stopping(error: Stopped) -> Status {
    Status::unavailable(error.to_string())
}

impl Session {
    fn owner(&self) -> MutexGuard<'_, Option<Owner>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, message: Response) -> Result<(), Status> {
        let response = SessionResponse { message: Some(message) };
        self.outgoing
            .send(Ok(response))
            .await
            .map_err(|_| Status::cancelled("the worker closed the connection"))
    }

    async fn run(
        &self,
        hello: v1::Hello,
        mut incoming: Streaming<SessionRequest>,
        mut messages: mpsc::Receiver<ToWorker>,
    ) -> Result<(), Status> {
        let lease_ms = u64::try_from(self.service.lease.as_millis()).unwrap_or(u64::MAX);
        self.send(Response::Welcome(v1::Welcome { lease_ms })).await?;
        self.reconcile(hello.host, hello.held_generation.map(Generation)).await?;
        let mut pending = VecDeque::new();
        loop {
            tokio::select! {
                // What is durable is acknowledged before the worker hears of what follows from it.
                biased;
                admission = first(&mut pending), if !pending.is_empty() => {
                    self.acknowledge(&mut pending, admission.map_err(stopping)?).await?;
                }
                message = messages.recv() => match message {
                    Some(message) => self.forward(message).await?,
                    None => return Err(Status::aborted("the worker is gone, or another session took over")),
                },
                request = incoming.next(), if pending.len() < PENDING_MAX => match request {
                    Some(Ok(request)) => pending.extend(self.take(request).await?),
                    Some(Err(status)) => return Err(status),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Brings both sides to the same opinion about which run the worker does.
    async fn reconcile(&self, host: String, held: Option<Generation>) -> Result<(), Status> {
        let worker = self.worker.clone();
        let look = move |engine: &Engine| greet(engine, &worker, held);
        let known = self.service.driver.read(look).await.map_err(stopping)?;
        let joined_with = known.as_ref().and_then(|known| known.token_name.clone());
        let joined_with = joined_with.as_deref();
        let shown = self.token_name.as_deref();
        // It may have come, and gone again, since this session was let in.
        self.claims.check(&self.worker, joined_with, shown)?;
        let known = match known {
            Some(Greeting { has_forgotten: true, .. }) => {
                let reason = "another process came under its name".to_owned();
                let (worker, cause) = (self.worker.clone(), LossCause::Died { reason });
                let event = Event::WorkerLost { worker, cause };
                self.service.driver.apply(event).await.map_err(stopping)?;
                None
            }
            known => known,
        };
        // Where its token had a successor, that holds its id from now on.
        if known.is_none() || (shown.is_some() && joined_with != shown) {
            let (worker, token_name) = (self.worker.clone(), self.token_name.clone());
            tracing::info!(host, token_name, "the worker has joined");
            let event = Event::WorkerJoined { worker, host, token_name };
            self.service.driver.apply(event).await.map_err(stopping)?;
        }
        let due = known.as_ref().and_then(|known| known.run);
        if let Some(generation) = held.filter(|held| Some(*held) != due) {
            self.forward(ToWorker::Abandon { generation }).await?;
        }
        for message in known.map(|known| known.messages).unwrap_or_default() {
            self.forward(message).await?;
        }
        Ok(())
    }

    async fn forward(&self, message: ToWorker) -> Result<(), Status> {
        let message = match message {
            ToWorker::Assign(spec) => {
                let rank = spec.gang.as_ref().map_or(0, |gang| gang.rank);
                let subject = (spec.experiment.clone(), spec.task.trial().cloned());
                *self.owner() = Some(Owner { generation: spec.generation, rank, subject });
                let spec = self.runs.write(&spec);
                let spec = spec.map_err(|error| Status::internal(error.to_string()))?;
                Response::Assign(Box::new(spec))
            }
            ToWorker::Direct { generation, directive } => Response::Direct(v1::Direct {
                generation: generation.0,
                directive: v1::Directive::from(directive).into(),
            }),
            ToWorker::Acknowledge { generation, sequence } => {
                Response::Acknowledge(v1::Acknowledge { generation: generation.0, sequence })
            }
            ToWorker::Abandon { generation } => {
                Response::Abandon(v1::Abandon { generation: generation.0 })
            }
        };
        self.send(message).await
    }

    /// Acts on a message. A report is to be acknowledged when it is durable. Meanwhile nothing else is read: a disk
    /// that stands still is no silence of the worker.
    async fn take(&self, request: SessionRequest) -> Result<Option<PendingReport>, Status> {
        let (live, worker) = (&self.service.live, &self.worker);
        live.begin_taking(worker, self.number, Instant::now());
        let taken = match request.message {
            Some(Request::Report(report)) => self.take_report(report).await.map(Some),
            Some(message) => self.take_other(message).await.map(|()| None),
            None => Ok(None),
        };
        live.end_taking(worker, self.number, Instant::now());
        taken
    }

    async fn take_other(&self, message: Request) -> Result<(), Status> {
        match message {
            Request::Progress(wire) => {
                let generation = Generation(wire.generation);
                let owner = self.owner_of(generation).await?;
                // What rank 0 says is said for all.
                if let Some(progress) = wire.progress.filter(|_| is_first(owner.as_ref())) {
                    self.service.live.set_progress(generation, progress.into(), Instant::now());
                }
                Ok(())
            }
            Request::MetricPoints(points) => self.take_points(points).await,
            Request::LogLines(lines) => {
                let generation = lines.generation.map(Generation);
                self.take_lines(generation, lines.lines).await
            }
            Request::Draining(draining) => {
                let event =
                    Event::WorkerDraining { worker: self.worker.clone(), reason: draining.reason };
                self.service.driver.apply(event).await.map_err(stopping)?;
                Ok(())
            }
            Request::Goodbye(goodbye) => {
                tracing::info!(reason = goodbye.reason, "the worker leaves");
                let cause = LossCause::Left { reason: goodbye.reason };
                let event = Event::WorkerLost { worker: self.worker.clone(), cause };
                self.service.driver.apply(event).await.map_err(stopping)?;
                self.service.live.forget(&self.worker);
                Ok(())
            }
            Request::Heartbeat(_) | Request::Report(_) => Ok(()),
            Request::Hello(_) => Err(Status::invalid_argument("Hello is said once")),
        }
    }

    /// Values for live views.
    async fn take_points(&self, points: v1::MetricPoints) -> Result<(), Status> {
        let generation = Generation(points.generation);
        // One that nobody does any more would be remembered for nothing.
        if self.owner_of(generation).await?.is_none() {
            return Ok(());
        }
        for series in points.series {
            let name = MetricName::try_from(series.name)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let values = series.steps.into_iter().zip(series.values);
            self.service.live.measured(generation, name, values);
        }
        Ok(())
    }

    async fn take_report(&self, wire: v1::Report) -> Result<PendingReport, Status> {
        let (generation, sequence) = (Generation(wire.generation), wire.sequence);
        let illegal = |error: muster_proto::convert::ConvertError| {
            Status::invalid_argument(format!("report {sequence}: {error}"))
        };
        let report = wire.report.ok_or_else(|| Status::invalid_argument("a report is empty"))?;
        let report = RunReport::try_from(report).map_err(illegal)?;
        let is_end = matches!(report, RunReport::Ended { .. });
        let driver = &self.service.driver;
        let worker = self.worker.clone();
        let admission =
            driver.report(worker, generation, sequence, report).await.map_err(stopping)?;
        Ok(PendingReport { generation, sequence, is_end, admission })
    }

    /// Tells the worker that its oldest report, whose answer is there, is durable, and with it those after it that are
    /// so by now: an acknowledgement counts for all reports of the run before.
    async fn acknowledge(
        &self,
        pending: &mut VecDeque<PendingReport>,
        mut admission: Admission,
    ) -> Result<(), Status> {
        while let Some(PendingReport { generation, sequence, is_end, .. }) = pending.pop_front() {
            if admission == Admission::Gap {
                return Err(Status::out_of_range(format!(
                    "report {sequence} of run {generation} came before earlier ones"
                )));
            }
            if is_end && is_first(self.owner_of(generation).await?.as_ref()) {
                self.service.live.end_run(generation);
            }
            let next = pending.front_mut().filter(|next| next.generation == generation);
            let next = next.and_then(|next| (&mut next.admission).now_or_never());
            match next {
                Some(Ok(next)) if next != Admission::Gap => admission = next,
                // What came before one that is refused is acknowledged all the same.
                Some(answer) => {
                    self.forward(ToWorker::Acknowledge { generation, sequence }).await?;
                    admission = answer.map_err(stopping)?;
                }
                None => return self.forward(ToWorker::Acknowledge { generation, sequence }).await,
            }
        }
        Ok(())
    }

    /// Files log lines with the run they belong to.
    async fn take_lines(
        &self,
        generation: Option<Generation>,
        lines: Vec<String>,
    ) -> Result<(), Status> {
        let owner = match generation {
            Some(generation) => self.owner_of(generation).await?,
            None => None,
        };
        let lines = match owner.as_ref().map_or(0, |owner| owner.rank) {
            0 => lines,
            // A line in JSON says so itself.
            rank => {
                let named = |line: String| {
                    let names_itself = line.starts_with('{');
                    if names_itself { line } else { format!("rank {rank}: {line}") }
                };
                lines.into_iter().map(named).collect()
            }
        };
        let subject = owner.as_ref().map(|owner| &owner.subject);
        self.service.logs.append(&self.worker, subject, &lines);
        Ok(())
    }

    /// For whom the worker does run `generation`.
    async fn owner_of(&self, generation: Generation) -> Result<Option<Owner>, Status> {
        let assigned = self.owner().clone().filter(|owner| owner.generation == generation);
        if assigned.is_some() {
            return Ok(assigned);
        }
        // The run was assigned in an earlier session.
        let worker = self.worker.clone();
        let find = move |engine: &Engine| {
            let run = engine.runs().get(&generation)?;
            let rank = run.rank_of(&worker)?;
            let subject = (run.experiment.clone(), run.task.trial().cloned());
            Some(Owner { generation, rank, subject })
        };
        let found = self.service.driver.read(find).await.map_err(stopping)?;
        if found.is_some() {
            self.owner().clone_from(&found);
        }
        Ok(found)
    }
}

/// The answer to the oldest report; there is one.
async fn first(pending: &mut VecDeque<PendingReport>) -> Result<Admission, Stopped> {
    match pending.front_mut() {
        Some(report) => (&mut report.admission).await,
        None => std::future::pending().await,
    }
}

/// Whether it is rank 0, or nobody knows any more.
fn is_first(owner: Option<&Owner>) -> bool {
    owner.is_none_or(|owner| owner.rank == 0)
}
