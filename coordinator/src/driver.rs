//! The only loop around the engine: receive, apply, journal, then answer and act. Nothing leaves the
//! process before the events that caused it are durable. One transaction serves a whole batch.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

use muster_common::id::{Generation, WorkerId};
use muster_common::run::RunReport;
use muster_common::telemetry::RunIds;
use muster_common::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;

use crate::engine::{Action, Admission, Engine, Event};
use crate::journal::{Entry, Journal, JournalError};
use crate::metrics::{Metrics, Watch};

/// Commands that may wait: beyond this senders wait, which slows workers down instead of memory up.
const COMMANDS_MAX: usize = 1024;
/// Commands answered by one transaction.
const BATCH_MAX: usize = 256;

type Reader = Box<dyn FnOnce(&Engine) + Send>;

enum Command {
    Apply {
        event: Event,
        reply: oneshot::Sender<Vec<Action>>,
    },
    Report {
        worker: WorkerId,
        generation: Generation,
        sequence: u64,
        report: RunReport,
        reply: oneshot::Sender<Admission>,
    },
    Read(Reader),
    Stop,
}

enum Answer {
    Actions(oneshot::Sender<Vec<Action>>, Vec<Action>),
    /// Actions that nobody asked for.
    Unasked(Vec<Action>),
    Admission(oneshot::Sender<Admission>, Admission),
}

/// The driver is gone: its journal failed, or the process is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct Stopped;

/// The answer to a report that is on its way to the journal. [`Admission::New`]: it is durable.
#[derive(Debug)]
pub struct PendingAdmission(oneshot::Receiver<Admission>);

impl Future for PendingAdmission {
    type Output = Result<Admission, Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| Stopped)
    }
}

/// What others hold to talk to the engine.
#[derive(Debug, Clone)]
pub struct Driver {
    commands: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
    metrics: Metrics,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Apply { .. } => "Apply",
            Self::Report { .. } => "Report",
            Self::Read(_) => "Read",
            Self::Stop => "Stop",
        })
    }
}

/// The running loop; join it to learn whether the journal failed.
pub type DriverThread = JoinHandle<Result<(), JournalError>>;

impl Driver {
    /// Starts the loop on a thread of its own, because the journal blocks. Actions go to `effects` in
    /// order; it is unbounded because the loop must never wait for those who send it commands.
    pub fn start(
        journal: Journal,
        engine: Engine,
        effects: mpsc::UnboundedSender<Action>,
    ) -> std::io::Result<(Self, DriverThread)> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (changed, changes) = watch::channel(journal.position());
        let metrics = Metrics::default();
        metrics.position.set(i64::try_from(journal.position()).unwrap_or(i64::MAX));
        let seen = Watch::new(&engine);
        let state = Loop { journal, engine, effects, changed, seen, metrics: metrics.clone() };
        let thread = std::thread::Builder::new()
            .name("driver".to_owned())
            .spawn(move || state.run(inbox))?;
        Ok((Self { commands, changes, metrics }, thread))
    }

    /// Applies an event; the actions are returned for whoever wants to know and are performed anyway.
    pub async fn apply(&self, event: Event) -> Result<Vec<Action>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Apply { event, reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Applies a worker's report if it is new. The answer comes when it is durable, and in the order of the
    /// calls: whoever has several need not wait in between, so that one write serves them all.
    pub async fn report(
        &self,
        worker: WorkerId,
        generation: Generation,
        sequence: u64,
        report: RunReport,
    ) -> Result<PendingAdmission, Stopped> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Report { worker, generation, sequence, report, reply };
        self.commands.send(command).await.map_err(|_| Stopped)?;
        Ok(PendingAdmission(answer))
    }

    /// Looks at the engine between two events.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let reader: Reader = Box::new(move |engine| {
            // Whoever asked may have gone.
            let _gone = reply.send(look(engine));
        });
        self.commands.send(Command::Read(reader)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Changes whenever events were applied; closed when the driver is gone.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// What is counted about the loop and around it.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Ends the loop after what was sent before.
    pub async fn stop(&self) {
        // A loop that is gone has stopped.
        let _gone = self.commands.send(Command::Stop).await;
    }
}

struct Loop {
    journal: Journal,
    engine: Engine,
    effects: mpsc::UnboundedSender<Action>,
    changed: watch::Sender<u64>,
    seen: Watch,
    metrics: Metrics,
}

impl Loop {
    fn run(mut self, mut inbox: mpsc::Receiver<Command>) -> Result<(), JournalError> {
        loop {
            let mut batch = Vec::new();
            if inbox.blocking_recv().map(|command| batch.push(command)).is_none() {
                return self.snapshot();
            }
            while batch.len() < BATCH_MAX
                && let Ok(command) = inbox.try_recv()
            {
                batch.push(command);
            }
            let is_last = self.serve(batch)?;
            if is_last {
                return self.snapshot();
            }
        }
    }

    fn serve(&mut self, batch: Vec<Command>) -> Result<bool, JournalError> {
        let mut entries = Vec::new();
        let mut answers = Vec::new();
        let mut readers = Vec::new();
        let mut is_last = false;
        for command in batch {
            let now = Timestamp::now();
            match command {
                Command::Apply { event, reply } => {
                    answers.push(Answer::Actions(reply, self.apply(now, event, &mut entries)?));
                }
                Command::Report { worker, generation, sequence, report, reply } => {
                    let run = self.engine.runs().get(&generation);
                    let rank = run.and_then(|run| run.rank_of(&worker));
                    let admission = rank.map_or(Admission::Old, |rank| {
                        self.engine.admit(generation, rank, sequence)
                    });
                    if let Some(rank) = rank.filter(|_| admission == Admission::New) {
                        let event = Event::RunReported { generation, rank, sequence, report };
                        answers.push(Answer::Unasked(self.apply(now, event, &mut entries)?));
                    }
                    Watch::admitted(&self.metrics, admission);
                    answers.push(Answer::Admission(reply, admission));
                }
                Command::Read(reader) => readers.push(reader),
                Command::Stop => is_last = true,
            }
        }
        if !entries.is_empty() {
            let started_at = Instant::now();
            self.journal.write(&entries)?;
            self.metrics.committed(started_at.elapsed(), self.journal.position());
        }
        for answer in answers {
            self.answer(answer);
        }
        // Readers see the state after the batch, which is durable now.
        for reader in readers {
            reader(&self.engine);
        }
        if !entries.is_empty() {
            if self.journal.is_snapshot_due() {
                self.snapshot()?;
            }
            self.changed.send_replace(self.journal.position());
        }
        Ok(is_last)
    }

    /// Applies an event and keeps it for the journal: as a text, so that it is copied once.
    fn apply(
        &mut self,
        now: Timestamp,
        event: Event,
        entries: &mut Vec<Entry>,
    ) -> Result<Vec<Action>, JournalError> {
        let _run = self.run_span(&event).map(Span::entered);
        let before = self.seen.before(&self.engine, &event);
        entries.push(self.journal.entry(now, &event)?);
        let actions = self.engine.apply(now, event);
        self.seen.after(&self.metrics, now, &self.engine, before, &actions);
        Ok(actions)
    }

    /// The span of a run that reports, where its events are logged at all.
    fn run_span(&self, event: &Event) -> Option<Span> {
        let Event::RunReported { generation, rank, report, .. } = event else { return None };
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return None;
        }
        let run = self.engine.runs().get(generation)?;
        let (experiment, trial) = (run.experiment.clone(), run.task.trial().cloned());
        let span = RunIds { experiment, trial, run: *generation, rank: *rank }.span();
        let (what, step) = report.subject();
        span.in_scope(|| tracing::debug!(step, "report: {what}"));
        Some(span)
    }

    fn snapshot(&mut self) -> Result<(), JournalError> {
        let started_at = Instant::now();
        self.journal.snapshot(&mut self.engine)?;
        self.metrics.snapshots.observe(started_at.elapsed().as_secs_f64());
        Ok(())
    }

    fn answer(&self, answer: Answer) {
        match answer {
            Answer::Actions(reply, actions) => {
                self.perform(actions.clone());
                // Whoever asked may have gone; the event counts all the same.
                let _gone = reply.send(actions);
            }
            Answer::Unasked(actions) => self.perform(actions),
            Answer::Admission(reply, admission) => {
                let _gone = reply.send(admission);
            }
        }
    }

    fn perform(&self, actions: Vec<Action>) {
        self.metrics.pending("message", i64::try_from(actions.len()).unwrap_or(i64::MAX));
        for action in actions {
            if self.effects.send(action).is_err() {
                tracing::debug!("nobody performs actions any more");
            }
        }
    }
}
