//! The supervisor of one slot: a light process that talks to the coordinator and owns one runner. It
//! touches no tensor, so it stays responsive whatever the runner does, and kills what hangs.

mod book;
mod drain;
mod gpu;
mod group;
mod host;
mod lines;
mod memory;
mod missed;
mod runner;
mod session;
mod solitude;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use muster_common::access::AccessFlags;
use muster_common::id::{Generation, WorkerId};
use muster_common::run::{Directive, FailureClass, RunExit, RunReport, RunSpec};
use muster_common::telemetry::{LogFormat, RunIds, foreign_line, named_run};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument as _, Span};

use crate::pipe::{FromRunner, ToRunner};
use book::Book;
pub use drain::Allocation;
use drain::Leaving;
use gpu::GpuMemory;
use lines::KeptLines;
use runner::{Death, Runner, RunnerEvent};
use session::{FromCoordinator, Link};
pub use solitude::Solitude;

/// Time a fresh runner has to say that it is ready: loading libtorch from a cold disk takes a while.
const READY_DEADLINE: Duration = Duration::from_secs(180);
/// Time a run has to leave its slot when told to cancel.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);
/// As [`CANCEL_DEADLINE`], for a rank of a gang: it is told so when another rank is gone, the others
/// wait for its slot, and it may be stuck.
const GANG_CANCEL_DEADLINE: Duration = Duration::from_secs(1);
/// Time a run has to save itself and leave.
const PREEMPT_DEADLINE: Duration = Duration::from_secs(120);
/// Pause before a runner that died is started again, times the deaths in a row.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Longest such pause.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Time to say goodbye to the coordinator.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a supervisor is told on its command line.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// How to get at the coordinator.
    pub access: AccessFlags,
    /// Its name, new for every process.
    pub worker: WorkerId,
    /// End when standard input ends: the parent is gone.
    pub end_with_stdin: bool,
    /// How long it may stay.
    pub allocation: Allocation,
    /// How long it stays alone.
    pub solitude: Solitude,
}

/// Why a supervisor has ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// Somebody wanted it, or the time of its allocation is over.
    Told,
    /// No coordinator was there for longer than it stays alone.
    Deserted,
}

/// The coordinator lets this worker not in, or is not the right one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Called in a runner: it dies with its supervisor, whatever it is doing.
pub fn die_with_supervisor() -> std::io::Result<()> {
    runner::die_with_supervisor()
}

/// Supervises until told to end, or left alone for too long. Returns an error only when going on is pointless.
pub async fn supervise(options: SupervisorOptions) -> anyhow::Result<Departure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    if options.end_with_stdin {
        runner::wake_without_parent().context("the kernel does not tell when the parent ends")?;
    }
    let mut supervisor = Supervisor::begin(&options).await?;
    let parent = parent_gone(options.end_with_stdin);
    tokio::pin!(parent);
    let mut departure = Departure::Told;
    let end = loop {
        let overdue_at = supervisor.deadline();
        let span = supervisor.span.clone();
        let step = tokio::select! {
            event = supervisor.runner.next() => supervisor.take_event(event).instrument(span).await,
            message = supervisor.link.next() => {
                supervisor.take_message(message).instrument(span).await
            }
            () = sleep_until(overdue_at) => supervisor.overdue().instrument(span).await,
            _ = interrupt.recv() => break Ok("the worker was interrupted"),
            _ = terminate.recv() => match supervisor.leaving {
                None => {
                    supervisor.leave("the worker was terminated").await;
                    Ok(())
                }
                // Said again: whoever says it is in a hurry.
                Some(_) => break Ok("the worker was terminated"),
            },
            () = &mut parent => break Ok("the process that had started the worker ended"),
        };
        if let Err(error) = step {
            break Err(error);
        }
        if supervisor.may_leave() {
            break Ok("the worker was told to leave");
        }
        if supervisor.is_deserted() {
            tracing::warn!("no coordinator for too long, and nothing to do: leaving");
            departure = Departure::Deserted;
            break Ok("the worker was left alone");
        }
    };
    supervisor.runner.kill().await;
    supervisor.kept.finish().await;
    // Whoever is not let in has nobody to say goodbye to.
    let reason = end?;
    // Whoever started us may be gone already; the lease tells the rest.
    let goodbye = supervisor.link.goodbye(reason.to_owned());
    let _late = tokio::time::timeout(GOODBYE, goodbye).await;
    Ok(departure)
}

/// Completes when standard input ends, if that means anything.
async fn parent_gone(matters: bool) {
    if !matters {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut block = [0; 64];
    while stdin.read(&mut block).await.is_ok_and(|count| count > 0) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunnerState {
    /// Libtorch is being loaded.
    Starting { deadline: Instant },
    /// Waits for work.
    Ready,
    /// Works.
    Busy,
    /// Dead; started again at this time.
    Dead { again_at: Instant },
}

/// The run in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Current {
    generation: Generation,
    /// Other ranks take part.
    is_gang: bool,
    directive: Option<Directive>,
}

impl Current {
    fn of(spec: &RunSpec) -> Self {
        Self { generation: spec.generation, directive: None, is_gang: spec.gang.is_some() }
    }
}

/// How a runner went.
enum Going {
    /// By itself.
    Died(Death),
    /// It was killed; why, for people.
    Killed(String),
}

struct Supervisor {
    link: Link,
    worker: WorkerId,
    /// Address of this host for other ranks.
    host: Option<IpAddr>,
    gpu: Option<GpuMemory>,
    runner: Runner,
    state: RunnerState,
    /// A run that waits for the runner to be ready.
    waiting: Option<Box<RunSpec>>,
    current: Option<Current>,
    /// When patience with a directive ends.
    kill_at: Option<Instant>,
    deaths: u32,
    /// What lines of the run in progress name.
    ids: Option<RunIds>,
    /// Of the run in progress.
    span: Span,
    format: LogFormat,
    book: Book,
    kept: KeptLines,
    /// When its time is nearly over.
    leave_at: Option<Instant>,
    leaving: Option<Leaving>,
    solitude: Solitude,
}

impl Supervisor {
    /// Opens the line and starts a runner.
    async fn begin(options: &SupervisorOptions) -> anyhow::Result<Self> {
        let access = session::find(&options.access)?;
        let host = host::address_towards(&access.coordinator);
        let gpu = GpuMemory::of_slot().await;
        let link = Link::open(options.access.clone(), options.worker.clone());
        let kept = KeptLines::begin(options.worker.clone());
        let runner = Runner::spawn(&options.worker, host, gpu.clone());
        Ok(Self {
            link,
            worker: options.worker.clone(),
            runner: runner.context("the runner does not start")?,
            host,
            gpu,
            state: RunnerState::Starting { deadline: Instant::now() + READY_DEADLINE },
            waiting: None,
            current: None,
            kill_at: None,
            deaths: 0,
            ids: None,
            span: Span::none(),
            format: LogFormat::of_environment(),
            book: Book::default(),
            kept,
            leave_at: options.allocation.leave_at(),
            leaving: None,
            solitude: options.solitude,
        })
    }

    /// The next time at which something is overdue.
    fn deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let state = match self.state {
            RunnerState::Starting { deadline } => deadline,
            RunnerState::Dead { again_at } => again_at,
            RunnerState::Ready | RunnerState::Busy => far,
        };
        let leaving = self.leaving.as_ref().map(Leaving::due_at).or(self.leave_at);
        let deserted = self.deserted_at().unwrap_or(far);
        state.min(self.kill_at.unwrap_or(far)).min(leaving.unwrap_or(far)).min(deserted)
    }

    async fn overdue(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.leave_if_due(now).await;
        if self.kill_at.is_some_and(|at| at <= now) {
            tracing::warn!("the runner did not leave in time, killing it");
            self.kill_at = None;
            self.runner.kill().await;
            let how = "it did not leave its slot in time".to_owned();
            return self.died(Going::Killed(how)).await;
        }
        match self.state {
            RunnerState::Starting { deadline } if deadline <= now => {
                self.runner.kill().await;
                let how = format!("it was not ready within {} s", READY_DEADLINE.as_secs());
                self.died(Going::Killed(how)).await
            }
            RunnerState::Dead { again_at } if again_at <= now => {
                self.runner = Runner::spawn(&self.worker, self.host, self.gpu.clone())
                    .context("the runner does not start")?;
                self.state = RunnerState::Starting { deadline: now + READY_DEADLINE };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn take_event(&mut self, event: RunnerEvent) -> anyhow::Result<()> {
        match event {
            RunnerEvent::Said(FromRunner::Ready) => {
                self.state = RunnerState::Ready;
                self.start_waiting().await
            }
            RunnerEvent::Said(FromRunner::Report { generation, report }) => {
                self.take_report(generation, report).await
            }
            RunnerEvent::Said(FromRunner::Progress { generation, progress }) => {
                self.link.progress(generation, progress);
                Ok(())
            }
            RunnerEvent::Said(FromRunner::Measured { generation, series }) => {
                self.link.measured(generation, series);
                Ok(())
            }
            RunnerEvent::Logged(line) => {
                self.book.note_line(&line);
                // Its last lines may be read after its last report, and after the next run has begun: those that
                // name their run are of that one.
                let current = self.current.map(|run| run.generation);
                self.log(named_run(&line).or(current), line);
                Ok(())
            }
            RunnerEvent::Ended(death) => self.died(Going::Died(death)).await,
        }
    }

    async fn take_report(
        &mut self,
        generation: Generation,
        report: RunReport,
    ) -> anyhow::Result<()> {
        let Some(run) = self.current.filter(|run| run.generation == generation) else {
            return Ok(());
        };
        let RunReport::Ended { exit } = &report else {
            let (what, step) = report.subject();
            tracing::debug!(step, "report: {what}");
            self.report(generation, report).await;
            return Ok(());
        };
        // Threads and memory of a collective that broke are best left to the kernel. The slot is
        // offered again by the report, so the process goes first.
        let is_spoiled =
            run.is_gang && matches!(exit, RunExit::Failed { .. } | RunExit::Lost { .. });
        if is_spoiled {
            self.runner.kill().await;
            for line in self.runner.last_lines().await {
                self.book.note_line(&line);
                self.log(Some(generation), line);
            }
        }
        self.report(generation, report).await;
        tracing::debug!("the run is over");
        self.deaths = 0;
        self.current = None;
        self.leave_span();
        self.kill_at = None;
        if is_spoiled {
            self.book.forget_lines();
            self.state = RunnerState::Dead { again_at: Instant::now() };
            return Ok(());
        }
        self.state = RunnerState::Ready;
        self.start_waiting().await
    }

    /// The runner is dead: its run failed, and another runner is started after a pause.
    async fn died(&mut self, going: Going) -> anyhow::Result<()> {
        let (how, for_memory, was_killed) = match going {
            Going::Died(Death { how, for_memory }) => (how, for_memory, false),
            Going::Killed(how) => (how, false, true),
        };
        self.deaths += 1;
        self.kill_at = None;
        let pause = (RESTART_PAUSE * self.deaths).min(RESTART_PAUSE_MAX);
        self.state = RunnerState::Dead { again_at: Instant::now() + pause };
        tracing::warn!(how, "the runner is gone");
        let interrupted = self.current.take();
        // A run that waits for a runner that cannot start fails like one that was running.
        let waiting = self.waiting.take().map(|spec| Current::of(&spec));
        if let Some(run) = interrupted.or(waiting) {
            let exit = match run.directive {
                // Of a rank that stands still this is the only sign.
                Some(Directive::Cancel) if was_killed && run.is_gang => {
                    RunExit::Lost { reason: self.book.obituary(&how) }
                }
                Some(Directive::Cancel) => RunExit::Canceled,
                Some(Directive::Preempt) => RunExit::Preempted,
                // Whoever wants the worker gone has reached its runner first.
                None if self.leaving.is_some() => RunExit::Preempted,
                None if for_memory => RunExit::Failed {
                    message: self.book.obituary(&how),
                    permanent: false,
                    class: FailureClass::OutOfMemory,
                },
                None => RunExit::Lost { reason: self.book.obituary(&how) },
            };
            self.report(run.generation, RunReport::Ended { exit }).await;
        }
        self.leave_span();
        self.book.forget_lines();
        Ok(())
    }

    /// Keeps a line of the runner and sends it to the coordinator.
    fn log(&self, generation: Option<Generation>, line: String) {
        let line = foreign_line("runner", self.ids.as_ref(), line, self.format);
        self.kept.runner_said(&line);
        self.link.log(generation, line);
    }

    fn leave_span(&mut self) {
        self.ids = None;
        self.kept.end_run();
        self.span = Span::none();
    }

    async fn report(&mut self, generation: Generation, report: RunReport) {
        if matches!(report, RunReport::Ended { .. }) {
            self.solitude.begin_anew(Instant::now());
        }
        let sequence = self.book.number(generation);
        self.link.report(generation, sequence, report).await;
    }

    async fn start_waiting(&mut self) -> anyhow::Result<()> {
        if self.state != RunnerState::Ready {
            return Ok(());
        }
        let Some(spec) = self.waiting.take() else { return Ok(()) };
        self.current = Some(Current::of(&spec));
        let ids = RunIds::of(&spec);
        self.span = ids.span();
        self.kept.begin_run(&spec.store, &ids);
        self.ids = Some(ids);
        self.span.in_scope(|| tracing::debug!("the runner is given the run"));
        self.state = RunnerState::Busy;
        // A runner that cannot be written to is dead, which its own event tells.
        if let Err(error) = self.runner.tell(&ToRunner::Start(spec)).await {
            tracing::warn!(%error, "the runner does not listen");
        }
        Ok(())
    }

    async fn take_message(&mut self, message: FromCoordinator) -> anyhow::Result<()> {
        match message {
            FromCoordinator::Assign(spec) => {
                let generation = spec.generation;
                let known = self
                    .current
                    .map(|run| run.generation)
                    .or(self.waiting.as_ref().map(|spec| spec.generation));
                if known == Some(generation) || self.book.has_ended(generation) {
                    return Ok(()); // said twice
                }
                if known.is_some() {
                    tracing::warn!(%generation, "a new run while one is in progress: the old one goes");
                    self.abandon().await?;
                }
                self.link.hold(generation).await;
                self.waiting = Some(spec);
                self.start_waiting().await
            }
            FromCoordinator::Direct { generation, directive } => {
                self.direct(generation, directive).await;
                Ok(())
            }
            FromCoordinator::Welcomed => {
                self.solitude.end();
                Ok(())
            }
            FromCoordinator::Gone => {
                self.solitude.begin(Instant::now());
                Ok(())
            }
            FromCoordinator::Refused { reason } => Err(Refused(reason).into()),
            FromCoordinator::Abandon { generation } => {
                if self.current.is_some_and(|run| run.generation == generation) {
                    self.abandon().await?;
                }
                self.waiting.take_if(|spec| spec.generation == generation);
                Ok(())
            }
        }
    }

    /// Tells a run to leave, and gives it its time to do so.
    async fn direct(&mut self, generation: Generation, directive: Directive) {
        if let Some(spec) = self.waiting.take_if(|spec| spec.generation == generation) {
            let exit = match directive {
                Directive::Cancel => RunExit::Canceled,
                Directive::Preempt => RunExit::Preempted,
            };
            self.report(spec.generation, RunReport::Ended { exit }).await;
            return;
        }
        let Some(run) = self.current.as_mut().filter(|run| run.generation == generation) else {
            return;
        };
        // Said again after a cut: patience is not renewed.
        if run.directive == Some(directive) {
            return;
        }
        run.directive = Some(directive);
        let patience = match directive {
            Directive::Cancel if run.is_gang => GANG_CANCEL_DEADLINE,
            Directive::Cancel => CANCEL_DEADLINE,
            Directive::Preempt => PREEMPT_DEADLINE,
        };
        self.kill_at = Some(Instant::now() + patience);
        if let Err(error) = self.runner.tell(&ToRunner::Direct { generation, directive }).await {
            tracing::warn!(%error, "the runner does not listen");
        }
    }

    /// Ends the run in progress without a word to anybody.
    async fn abandon(&mut self) -> anyhow::Result<()> {
        self.waiting = None;
        if self.current.take().is_some() {
            self.runner.kill().await;
            self.kill_at = None;
            self.leave_span();
            self.state = RunnerState::Dead { again_at: Instant::now() };
        }
        Ok(())
    }
}
