//! Commands that talk to a serving coordinator.

use std::time::Duration;

use anyhow::{Context, anyhow};
use muster_common::id::{ExperimentId, TrialId};
use muster_proto::v1;
use muster_proto::v1::control_service_client::ControlServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::args::{
    ClientArguments, ExperimentArguments, LogsArguments, LsArguments, SubmitArguments, WhyArguments,
};
use super::exit::Exit;
use super::progress::Progress;
use super::run::exit_of;
use super::validate::read;
use super::{number, table};
use crate::rpc::experiment_from_wire;
use crate::view::{ExperimentView, TrialStateName};

/// Time to reach the coordinator.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for an answer that is no stream.
const ANSWER: Duration = Duration::from_secs(30);
/// Largest message: a view of ten thousand trials takes a few megabytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

type Client = ControlServiceClient<Channel>;

async fn connect(arguments: &ClientArguments) -> anyhow::Result<Client> {
    let url = &arguments.coordinator;
    let endpoint = Endpoint::from_shared(url.clone())
        .with_context(|| format!("`{url}` is no URL; write http://HOST:PORT"))?
        .connect_timeout(CONNECT);
    let channel = endpoint.connect().await.map_err(|error| {
        anyhow!(error).context(format!(
            "no coordinator answers at {url}; start one with `muster serve` or name it with --coordinator"
        ))
    })?;
    Ok(Client::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// The coordinator's words, without the transport's.
fn said(status: &Status) -> anyhow::Error {
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled => {
            anyhow!("the coordinator went away: {}", status.message())
        }
        _ => anyhow!("{}", status.message()),
    }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ANSWER);
    request
}

pub(super) async fn submit(arguments: SubmitArguments) -> anyhow::Result<Exit> {
    let submission = read(&arguments.manifest)?;
    let mut client = connect(&arguments.client).await?;
    let request = v1::SubmitExperimentRequest {
        manifest: submission.text,
        base_directory: submission.base.display().to_string(),
    };
    let response =
        client.submit_experiment(timed(request)).await.map_err(|status| said(&status))?;
    let id = response.into_inner().experiment_id;
    println!("{id}");
    if arguments.watch {
        return follow(&mut client, id).await;
    }
    eprintln!("submitted; `muster watch {id}` shows how it goes");
    Ok(Exit::Done)
}

pub(super) async fn ls(arguments: LsArguments) -> anyhow::Result<Exit> {
    let mut client = connect(&arguments.client).await?;
    if let Some(experiment) = arguments.experiment {
        let view = once(&mut client, experiment).await?;
        if !view.reason.is_empty() {
            println!("{}", view.reason);
        }
        print!("{}{}", table::trials(&view), table::ranks(&view));
        return Ok(Exit::Done);
    }
    let response = client
        .list_experiments(timed(v1::ListExperimentsRequest {}))
        .await
        .map_err(|status| said(&status))?;
    let response = response.into_inner();
    let views: Result<Vec<ExperimentView>, _> =
        response.experiments.into_iter().map(experiment_from_wire).collect();
    let views = views?;
    if views.is_empty() {
        eprintln!("no experiments yet; `muster submit MANIFEST` makes one");
    }
    for view in views {
        let state =
            if view.paused && !view.state.is_ended() { "paused" } else { view.state.name() };
        let best = view.best.as_ref().map_or_else(String::new, |best| {
            format!("{} {:.4}", view.objective.metric.name(), best.objective)
        });
        println!(
            "{:<24} {:<10} {:>3} of {:<3} trials  {:>3} running  {:>8}  {best}",
            view.id.as_str(),
            state,
            view.trials.len(),
            view.max_trials,
            view.count(TrialStateName::Running),
            number::clock(view.elapsed_seconds()),
        );
        if !view.reason.is_empty() && !view.state.is_ended() {
            println!("    {}", view.reason);
        }
    }
    for host in response.hosts_aside {
        println!("{host}");
    }
    Ok(Exit::Done)
}

async fn once(client: &mut Client, experiment_id: String) -> anyhow::Result<ExperimentView> {
    let request = v1::WatchExperimentRequest { experiment_id, once: true };
    let mut stream =
        client.watch_experiment(timed(request)).await.map_err(|status| said(&status))?.into_inner();
    let response = stream.message().await.map_err(|status| said(&status))?;
    let wire = response.and_then(|response| response.experiment);
    Ok(experiment_from_wire(wire.context("the coordinator sent nothing")?)?)
}

async fn follow(client: &mut Client, experiment_id: String) -> anyhow::Result<Exit> {
    let request = v1::WatchExperimentRequest { experiment_id, once: false };
    let mut stream =
        client.watch_experiment(request).await.map_err(|status| said(&status))?.into_inner();
    let mut progress = Progress::new();
    let mut last = None;
    while let Some(response) = stream.message().await.map_err(|status| said(&status))? {
        let wire = response.experiment.context("the coordinator sent nothing")?;
        let view = experiment_from_wire(wire)?;
        progress.draw(&view);
        last = Some(view);
    }
    progress.finish();
    let view = last.context("the coordinator sent nothing")?;
    if !view.state.is_ended() {
        return Err(anyhow!("the coordinator stopped; {} goes on when it is back", view.id));
    }
    print!("{}", table::render(&view));
    Ok(exit_of(view.state))
}

pub(super) async fn watch(arguments: ExperimentArguments) -> anyhow::Result<Exit> {
    let mut client = connect(&arguments.client).await?;
    follow(&mut client, arguments.experiment).await
}

pub(super) async fn why(arguments: WhyArguments) -> anyhow::Result<Exit> {
    let trial_id = arguments.trial.parse::<TrialId>()?.to_string();
    let mut client = connect(&arguments.client).await?;
    let request = v1::ExplainTrialRequest { trial_id: trial_id.clone() };
    let response = client.explain_trial(timed(request)).await.map_err(|status| said(&status))?;
    let mut lines = response.into_inner().lines.into_iter();
    println!("{trial_id} {}", lines.next().unwrap_or_default());
    for line in lines {
        println!("  {line}");
    }
    Ok(Exit::Done)
}

pub(super) async fn logs(arguments: LogsArguments) -> anyhow::Result<Exit> {
    let (experiment_id, trial_id) = match arguments.subject.parse::<TrialId>() {
        Ok(trial) => (trial.experiment.to_string(), Some(trial.to_string())),
        Err(_) => (arguments.subject.parse::<ExperimentId>()?.to_string(), None),
    };
    let mut client = connect(&arguments.client).await?;
    let request = v1::ReadLogsRequest { experiment_id, trial_id, follow: arguments.follow };
    let mut stream = client.read_logs(request).await.map_err(|status| said(&status))?.into_inner();
    while let Some(response) = stream.message().await.map_err(|status| said(&status))? {
        for line in response.lines {
            println!("{line}");
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn pause(arguments: ExperimentArguments) -> anyhow::Result<Exit> {
    let mut client = connect(&arguments.client).await?;
    let request = v1::PauseExperimentRequest { experiment_id: arguments.experiment.clone() };
    client.pause_experiment(timed(request)).await.map_err(|status| said(&status))?;
    eprintln!("{} is paused; running trials save themselves first", arguments.experiment);
    Ok(Exit::Done)
}

pub(super) async fn resume(arguments: ExperimentArguments) -> anyhow::Result<Exit> {
    let mut client = connect(&arguments.client).await?;
    let request = v1::ResumeExperimentRequest { experiment_id: arguments.experiment.clone() };
    client.resume_experiment(timed(request)).await.map_err(|status| said(&status))?;
    eprintln!("{} goes on", arguments.experiment);
    Ok(Exit::Done)
}

pub(super) async fn cancel(arguments: ExperimentArguments) -> anyhow::Result<Exit> {
    let mut client = connect(&arguments.client).await?;
    let request = v1::CancelExperimentRequest { experiment_id: arguments.experiment.clone() };
    client.cancel_experiment(timed(request)).await.map_err(|status| said(&status))?;
    eprintln!("{} is canceled; checkpoints and metrics written so far stay", arguments.experiment);
    Ok(Exit::Done)
}
