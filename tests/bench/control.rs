//! Simulated workers over real gRPC: they take runs and report as a runner would, and train nothing. What
//! is measured is the coordinator.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use muster_common::evaluation::Evaluation;
use muster_common::run::{DataSummary, RunExit, RunReport, RunSpec, Task, TrainTask};
use muster_common::storage::CheckpointKey;
use muster_proto::PROTOCOL_VERSION;
use muster_proto::v1::control_service_client::ControlServiceClient;
use muster_proto::v1::session_request::Message as Request;
use muster_proto::v1::session_response::Message as Response;
use muster_proto::v1::worker_service_client::WorkerServiceClient;
use muster_proto::v1::{self, SessionRequest};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::{interval, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::Flags;

/// Sessions on one connection; servers allow a limited number of streams on each.
const SESSIONS_PER_CONNECTION: usize = 100;
/// Between two signs of life of a worker, as real ones do it.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Before a worker tries again to get in.
const RETRY: Duration = Duration::from_millis(100);

/// What all workers count.
#[derive(Debug, Default)]
struct Tally {
    /// Ends of trials that the coordinator has.
    trials: AtomicU64,
    /// Runs of trials that workers were given.
    assigned: AtomicU64,
    /// Milliseconds from the cut of a session to the next welcome.
    away_ms: Mutex<Vec<f64>>,
    /// Milliseconds between the end of a trial and the start of the next on the same worker.
    gaps_ms: Mutex<Vec<f64>>,
    connected: AtomicU64,
    finished: Notify,
}

/// What a simulated trial does.
#[derive(Debug, Clone, Copy)]
struct Conduct {
    /// Time it takes.
    duration: Duration,
    /// Reports besides its start and its end: checkpoints, and the result as the last.
    num_reports: u64,
    /// Values that it measures, for live views.
    num_points: u64,
    /// How long its worker tries to get in again after a cut; zero: not at all.
    patience: Duration,
}

/// What a worker remembers from one session to the next, as a supervisor does.
#[derive(Debug, Default)]
struct Book {
    /// The trial that it trains, and when it will be through: cuts do not stop that.
    training: Option<(Box<RunSpec>, Instant)>,
    /// By generation the number of the last report of each run whose end is not acknowledged yet.
    runs: BTreeMap<u64, (u64, Task)>,
    unacknowledged: VecDeque<v1::Report>,
    ended_at: Option<Instant>,
    cut_at: Option<Instant>,
}

impl Book {
    /// The coordinator has let it in, the first time or after a cut.
    fn welcome(&mut self, tally: &Tally) {
        match self.cut_at.take() {
            Some(at) => add(&tally.away_ms, at),
            None => {
                tally.connected.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The run that it has, or whose end is not acknowledged yet.
    fn held(&self) -> Option<u64> {
        let training = self.training.as_ref().map(|(spec, _)| spec.generation.0);
        training.or_else(|| self.runs.last_key_value().map(|(generation, _)| *generation))
    }

    /// Enters all reports of a run before any is sent: whatever is cut, they are said again.
    fn enter(&mut self, spec: &RunSpec, reports: &[RunReport]) -> Vec<v1::Report> {
        let generation = spec.generation.0;
        let number = |(sequence, report): (u64, &RunReport)| {
            let report = Some(report.into());
            v1::Report { generation, sequence, report }
        };
        let wires: Vec<v1::Report> = (1..).zip(reports).map(number).collect();
        self.runs.insert(generation, (reports.len() as u64, spec.task.clone()));
        self.unacknowledged.extend(wires.iter().cloned());
        wires
    }

    /// Forgets reports up to and including `sequence`; the task of the run, if that was its end.
    fn acknowledge(&mut self, generation: u64, sequence: u64) -> Option<Task> {
        self.unacknowledged
            .retain(|report| report.generation != generation || report.sequence > sequence);
        let (last, _) = self.runs.get(&generation)?;
        if *last > sequence {
            return None;
        }
        self.runs.remove(&generation).map(|(_, task)| task)
    }

    /// Forgets a run that the coordinator does not know any more; its task, if its end has been reported: then that is
    /// durable, and the acknowledgement was lost.
    fn abandon(&mut self, generation: u64) -> Option<Task> {
        let _lost = self.training.take_if(|(spec, _)| spec.generation.0 == generation);
        self.acknowledge(generation, u64::MAX)
    }
}

/// `--url` of the coordinator, `--workers`, `--trials`, `--trial-ms`, `--reports`, `--points`, `--pruner`;
/// `--idle-seconds` keeps the workers connected afterwards, with `--patience-seconds` they come back after a
/// cut. One JSON object.
pub(super) fn control(flags: &Flags) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(flags))
}

async fn measure(flags: &Flags) -> anyhow::Result<Value> {
    let url = flags.text("url")?.to_owned();
    let num_workers: usize = flags.number("workers", 16)?;
    let num_trials: u64 = flags.number("trials", 1000)?;
    let conduct = Conduct {
        duration: Duration::from_millis(flags.number("trial-ms", 0)?),
        num_reports: flags.number("reports", 10)?,
        num_points: flags.number("points", 0)?,
        patience: Duration::from_secs(flags.number("patience-seconds", 0)?),
    };
    let tally = Arc::new(Tally::default());
    let mut channels: Vec<Channel> = Vec::new();
    for number in 0..num_workers {
        if number % SESSIONS_PER_CONNECTION == 0 {
            channels.push(Endpoint::from_shared(url.clone())?.connect().await?);
        }
        let channel = channels.last().context("no connection")?.clone();
        let (tally, name) = (Arc::clone(&tally), format!("sim-{number:05}"));
        tokio::spawn(async move {
            if let Err(error) = work(channel, name, conduct, tally).await {
                eprintln!("a worker ended: {error:#}");
            }
        });
    }
    let begun = Instant::now();
    while tally.connected.load(Ordering::Relaxed) < num_workers as u64 {
        if begun.elapsed() > Duration::from_secs(300) {
            bail!("{} of {num_workers} workers connected", tally.connected.load(Ordering::Relaxed));
        }
        sleep(Duration::from_millis(10)).await;
    }
    let connected_seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    if num_trials > 0 {
        let channel = Endpoint::from_shared(url)?.connect().await?;
        let request = v1::SubmitExperimentRequest {
            manifest: manifest(num_trials, flags.text("pruner").unwrap_or("{type: none}")),
            base_directory: "/".to_owned(),
            user: String::new(),
        };
        ControlServiceClient::new(channel).submit_experiment(request).await?;
        tally.finished.notified().await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    sleep(Duration::from_secs_f64(flags.number("idle-seconds", 0.0)?)).await;
    Ok(json!({
        "seconds": seconds,
        "trials": tally.trials.load(Ordering::Relaxed),
        "assigned": tally.assigned.load(Ordering::Relaxed),
        "connected_seconds": connected_seconds,
        "gap_ms": quantiles(&tally.gaps_ms),
        "away_ms": quantiles(&tally.away_ms),
    }))
}

fn quantiles(samples: &Mutex<Vec<f64>>) -> Value {
    let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner).clone();
    samples.sort_by(f64::total_cmp);
    let quantile = |percent: usize| {
        let at = samples.len().saturating_sub(1) * percent / 100;
        samples.get(at).copied().unwrap_or_default()
    };
    json!({
        "count": samples.len(), "median": quantile(50), "p95": quantile(95), "max": quantile(100),
    })
}

fn add(samples: &Mutex<Vec<f64>>, since: Instant) {
    let milliseconds = since.elapsed().as_secs_f64() * 1e3;
    samples.lock().unwrap_or_else(PoisonError::into_inner).push(milliseconds);
}

fn manifest(num_trials: u64, pruner: &str) -> String {
    format!(
        "version: 1
name: simulated
seed: 1
model: {{pretrained: /nowhere}}
data:
  train: {{path: /nowhere.csv}}
  validation: {{fraction: 0.1}}
  text: text
  label: {{column: label}}
hyperparameters:
  learning_rate: {{min: 1e-5, max: 1e-3, scale: log}}
  global_batch_size: {{values: [8, 16, 32]}}
searcher: {{metric: accuracy, max_trials: {num_trials}, sampler: {{type: random}}, pruner: {pruner}}}
budget: {{steps: 1000}}
"
    )
}

/// One worker: a session, and after a cut another one for as long as it has patience.
async fn work(
    channel: Channel,
    name: String,
    conduct: Conduct,
    tally: Arc<Tally>,
) -> anyhow::Result<()> {
    let mut book = Book::default();
    loop {
        let ended = session(&channel, &name, conduct, &tally, &mut book).await;
        let cut_at = *book.cut_at.get_or_insert_with(Instant::now);
        if cut_at.elapsed() >= conduct.patience {
            return ended;
        }
        sleep(RETRY).await;
    }
}

/// From hello to the end of the connection.
async fn session(
    channel: &Channel,
    name: &str,
    conduct: Conduct,
    tally: &Tally,
    book: &mut Book,
) -> anyhow::Result<()> {
    let (sender, requests) = mpsc::channel(64);
    let hello = v1::Hello {
        worker_id: name.to_owned(),
        protocol_version: PROTOCOL_VERSION,
        host: "simulated".to_owned(),
        held_generation: book.held(),
    };
    say(&sender, Request::Hello(hello)).await?;
    let mut client = WorkerServiceClient::new(channel.clone());
    let mut responses = client.session(ReceiverStream::new(requests)).await?.into_inner();
    for wire in book.unacknowledged.clone() {
        say(&sender, Request::Report(wire)).await?;
    }
    let mut heartbeat = interval(HEARTBEAT);
    loop {
        let through_at = book.training.as_ref().map(|(_, at)| *at);
        let response = tokio::select! {
            _ = heartbeat.tick() => {
                say(&sender, Request::Heartbeat(v1::Heartbeat {})).await?;
                continue;
            }
            () = wait(through_at) => {
                if let Some((spec, _)) = book.training.take() {
                    end(&sender, &spec, conduct, book).await?;
                }
                continue;
            }
            response = responses.message() => response?,
        };
        let ended = match response.and_then(|response| response.message) {
            None => return Ok(()),
            Some(Response::Welcome(_)) => {
                book.welcome(tally);
                None
            }
            Some(Response::Assign(spec)) => {
                let spec = RunSpec::try_from(*spec)?;
                let is_trial = matches!(spec.task, Task::Train(_));
                tally.assigned.fetch_add(u64::from(is_trial), Ordering::Relaxed);
                if let Some(at) = book.ended_at.take().filter(|_| is_trial) {
                    add(&tally.gaps_ms, at);
                }
                if is_trial && !conduct.duration.is_zero() {
                    let through_at = Instant::now() + conduct.duration;
                    book.training = Some((Box::new(spec), through_at));
                } else {
                    end(&sender, &spec, conduct, book).await?;
                }
                None
            }
            Some(Response::Acknowledge(wire)) => book.acknowledge(wire.generation, wire.sequence),
            Some(Response::Abandon(wire)) => book.abandon(wire.generation),
            Some(Response::Direct(_)) => bail!("an unexpected directive"),
        };
        match ended {
            Some(Task::Train(_)) => {
                tally.trials.fetch_add(1, Ordering::Relaxed);
            }
            Some(Task::Finish { .. }) => tally.finished.notify_one(),
            Some(Task::Prepare { .. }) | None => {}
        }
    }
}

async fn say(sender: &mpsc::Sender<SessionRequest>, message: Request) -> anyhow::Result<()> {
    Ok(sender.send(SessionRequest { message: Some(message) }).await?)
}

/// Until then; for ever where there is nothing to wait for.
async fn wait(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Says what a run has to say, up to its end.
async fn end(
    sender: &mpsc::Sender<SessionRequest>,
    spec: &RunSpec,
    conduct: Conduct,
    book: &mut Book,
) -> anyhow::Result<()> {
    let mut reports = match &spec.task {
        Task::Prepare { .. } => vec![RunReport::Prepared(summary())],
        Task::Train(task) => trained(spec, task, conduct.num_reports),
        Task::Finish { .. } => {
            vec![RunReport::Finished { test: None, model: "/nowhere".to_owned() }]
        }
    };
    reports.push(RunReport::Ended { exit: RunExit::Completed });
    let wires = book.enter(spec, &reports);
    let is_trial = matches!(spec.task, Task::Train(_));
    if is_trial {
        measure_points(sender, spec, conduct.num_points).await?;
    }
    for wire in wires {
        say(sender, Request::Report(wire)).await?;
    }
    book.ended_at = is_trial.then(Instant::now);
    Ok(())
}

/// Metrics of a training step, and steps of a message: what a runner says at a time.
const METRICS: [&str; 5] =
    ["train_loss", "learning_rate", "grad_norm", "examples_per_second", "tokens_per_second"];
const STEPS_PER_MESSAGE: u64 = 20;

/// Sends values as a runner does, as fast as they are taken.
async fn measure_points(
    sender: &mpsc::Sender<SessionRequest>,
    spec: &RunSpec,
    num_points: u64,
) -> anyhow::Result<()> {
    let num_steps = num_points / METRICS.len() as u64;
    for first in (0..num_steps).step_by(usize::try_from(STEPS_PER_MESSAGE)?) {
        let steps: Vec<u64> = (first + 1..=num_steps.min(first + STEPS_PER_MESSAGE)).collect();
        let series = METRICS.map(|name| v1::MetricSeries {
            name: name.to_owned(),
            values: steps.iter().map(|step| 1.0 / *step as f64).collect(),
            steps: steps.clone(),
        });
        let (generation, series) = (spec.generation.0, series.into());
        say(sender, Request::MetricPoints(v1::MetricPoints { generation, series })).await?;
    }
    Ok(())
}

fn summary() -> DataSummary {
    DataSummary {
        cache: "cache".to_owned(),
        num_train: 1000,
        num_validation: 100,
        labels: vec!["no".to_owned(), "yes".to_owned()],
        ..DataSummary::default()
    }
}

/// Checkpoints on the way, and the result.
fn trained(spec: &RunSpec, task: &TrainTask, num_reports: u64) -> Vec<RunReport> {
    let checkpoints = num_reports.saturating_sub(1).max(1);
    let mut reports: Vec<RunReport> = (1..=checkpoints)
        .map(|number| RunReport::CheckpointCommitted {
            checkpoint: CheckpointKey {
                trial: task.trial.clone(),
                step: task.target_step * number / checkpoints,
                generation: spec.generation,
            },
        })
        .collect();
    let right = 10 + u64::from(task.trial.number % 37);
    let evaluation = Evaluation {
        loss: 1.0 / (1.0 + f64::from(task.trial.number % 101)),
        confusion: vec![vec![right, 50 - right], vec![50 - right, right]],
        auc: None,
        masked: None,
    };
    reports.push(RunReport::Evaluated { step: task.target_step, evaluation });
    reports
}
