//! Commands that talk to a serving coordinator.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use muster_common::access::{self, Access, AccessFlags};
use muster_common::id::{ExperimentId, TrialId};
use muster_common::manifest::{Change, Manifest, edited};
use muster_proto::dial::{DialError, Line, dial};
use muster_proto::v1;
use muster_proto::v1::control_service_client::ControlServiceClient;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::args::{
    ClientArguments, ForkArguments, LogsArguments, PriorityArguments, SubjectArguments,
    SubmitArguments, WhyArguments,
};
use super::exit::{Exit, Hinted, Misuse, Refused};
use super::outage::Outage;
use super::progress::Progress;
use super::run::exit_of;
use super::validate::read;
use super::{stored_logs, table, watch};
use crate::access::owner_file;
use crate::journal;
use crate::rpc::experiment_from_wire;
use crate::settings::{Settings, SettingsFlags};
use crate::view::ExperimentView;

/// Time to reach the coordinator.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for an answer that is no stream.
const ANSWER: Duration = Duration::from_secs(30);
/// Largest message: a view of ten thousand trials takes a few megabytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

pub(super) type Client = ControlServiceClient<Line>;

/// A coordinator that answers.
pub(super) struct Connected {
    pub(super) client: Client,
    /// Its URL.
    pub(super) url: String,
}

pub(super) async fn connect(arguments: &ClientArguments) -> anyhow::Result<Client> {
    Ok(connect_to(arguments).await?.client)
}

/// The same, and where that is.
pub(super) async fn connect_to(arguments: &ClientArguments) -> anyhow::Result<Connected> {
    // Settings that cannot be used are no hint where a coordinator is, and nothing more is asked of them.
    let settings = Settings::read(&SettingsFlags::default(), std::env::vars()).ok();
    let state = settings.map(|settings| settings.state);
    let access = access_of(arguments, state.as_deref())?;
    let is_named = arguments.coordinator.is_some() || arguments.access.is_some();
    let url = access.coordinator.clone();
    let line = dial(&access, |endpoint| endpoint.connect_timeout(CONNECT));
    let line = line.await.map_err(|error| match error {
        DialError::Silent { url, source } => anyhow!(Hinted {
            message: format!("no coordinator answers at {url}"),
            hint: hint(state.as_deref().filter(|_| !is_named)),
            source,
        }),
        other => anyhow!(other),
    })?;
    let client = Client::new(line).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(Connected { client, url })
}

/// What to do where nobody answers. A coordinator that was here has left its experiments.
fn hint(state: Option<&Path>) -> String {
    let Some(state) = state.filter(|state| journal::is_in(state)) else {
        return "start one with `muster serve`, or name one with --coordinator".to_owned();
    };
    format!(
        "`muster serve`, started here, shows what has run with the journal in {}; --coordinator names another one",
        state.display()
    )
}

/// As named; else that of a coordinator which was started with state directory `state`, else the user's.
fn access_of(arguments: &ClientArguments, state: Option<&Path>) -> anyhow::Result<Access> {
    let environment = |name: &str| std::env::var(name).ok();
    let owner = state.map(owner_file);
    let files: Vec<_> = owner.into_iter().chain(access::home_file(environment)).collect();
    let mut flags = AccessFlags {
        coordinator: arguments.coordinator.clone(),
        fingerprint: arguments.fingerprint.clone(),
        file: arguments.access.clone(),
    };
    let is_named = flags.coordinator.is_some() || flags.file.is_some();
    if !is_named && !files.iter().any(|file| file.is_file()) {
        flags.coordinator = Some(access::DEFAULT_URL.to_owned());
    }
    Ok(Access::find(&flags, &files, environment)?)
}

/// The coordinator's words, without the transport's.
pub(super) fn said(status: &Status) -> anyhow::Error {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            anyhow!(Refused(status.message().to_owned()))
        }
        Code::Unavailable | Code::Unknown | Code::Cancelled => {
            anyhow!("the coordinator went away: {}", status.message())
        }
        Code::InvalidArgument => anyhow!(Misuse(status.message().to_owned())),
        _ => anyhow!("{}", status.message()),
    }
}

/// A request that is answered soon, or not at all.
pub(super) fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ANSWER);
    request
}

pub(super) async fn submit(arguments: SubmitArguments) -> anyhow::Result<Exit> {
    let submission = read(&arguments.manifest)?;
    let Connected { mut client, url } = connect_to(&arguments.client).await?;
    let request = v1::SubmitExperimentRequest {
        manifest: submission.text,
        base_directory: submission.base.display().to_string(),
        user: user(),
    };
    let response =
        client.submit_experiment(timed(request)).await.map_err(|status| said(&status))?;
    let id = response.into_inner().experiment_id;
    println!("{id}");
    if arguments.watch {
        return watch::watch_one(client, url, id).await;
    }
    eprintln!("submitted; `muster watch {id}` shows how it goes");
    Ok(Exit::Done)
}

/// An experiment as it is now.
pub(super) async fn once(
    client: &mut Client,
    experiment_id: String,
) -> anyhow::Result<ExperimentView> {
    let request = v1::WatchExperimentRequest { experiment_id, once: true };
    let mut stream =
        client.watch_experiment(timed(request)).await.map_err(|status| said(&status))?.into_inner();
    let response = stream.message().await.map_err(|status| said(&status))?;
    let wire = response.and_then(|response| response.experiment);
    Ok(experiment_from_wire(wire.context("the coordinator sent nothing")?)?)
}

/// An experiment as it is now, and the text of its manifest.
pub(super) async fn fetch(
    arguments: &ClientArguments,
    experiment: &ExperimentId,
) -> anyhow::Result<(ExperimentView, String)> {
    let mut client = connect(arguments).await?;
    let request = v1::GetSubmissionRequest { experiment_id: experiment.to_string() };
    let found = client.get_submission(timed(request)).await.map_err(|status| said(&status))?;
    let view = once(&mut client, experiment.to_string()).await?;
    Ok((view, found.into_inner().manifest))
}

/// Says how an experiment goes until it ends, then its result, and finds a coordinator again that was started anew.
pub(super) async fn follow(
    client: &mut Client,
    experiment_id: String,
    mut progress: Progress,
) -> anyhow::Result<Exit> {
    let request = v1::WatchExperimentRequest { experiment_id, once: false };
    let mut outage = Outage::default();
    let view = loop {
        match draw_until_end(client, &request, &mut progress, &mut outage).await {
            Ok(view) => break view,
            Err(status) => {
                // What is said of it must not be drawn over.
                progress.finish();
                outage.wait(&status).await?;
            }
        }
    };
    progress.finish();
    print!("{}", table::render(&view));
    Ok(exit_of(view.state))
}

/// Draws what one stream says; the experiment as it ended.
async fn draw_until_end(
    client: &mut Client,
    request: &v1::WatchExperimentRequest,
    progress: &mut Progress,
    outage: &mut Outage,
) -> Result<ExperimentView, Status> {
    let mut stream = client.watch_experiment(request.clone()).await?.into_inner();
    while let Some(response) = stream.message().await? {
        let wire = response.experiment;
        let wire = wire.ok_or_else(|| Status::internal("the coordinator sent nothing"))?;
        let view = experiment_from_wire(wire);
        let view = view.map_err(|error| Status::internal(error.to_string()))?;
        outage.end();
        progress.draw(&view);
        if view.state.is_ended() {
            return Ok(view);
        }
    }
    Err(Status::unavailable("it stopped"))
}

pub(super) async fn why(arguments: WhyArguments) -> anyhow::Result<Exit> {
    let trial_id = arguments.trial.parse::<TrialId>()?.to_string();
    let mut client = connect(&arguments.client).await?;
    let request = v1::ExplainTrialRequest { trial_id: trial_id.clone() };
    let response = client.explain_trial(timed(request)).await.map_err(|status| said(&status))?;
    let lines = response.into_inner().lines;
    if arguments.json {
        println!("{:#}", json!({"trial": trial_id, "lines": lines}));
        return Ok(Exit::Done);
    }
    let mut lines = lines.into_iter();
    println!("{trial_id} {}", lines.next().unwrap_or_default());
    for line in lines {
        println!("  {line}");
    }
    Ok(Exit::Done)
}

pub(super) async fn logs(arguments: LogsArguments) -> anyhow::Result<Exit> {
    if let Some(store) = &arguments.store {
        let LogsArguments { subject, follow, json, .. } = &arguments;
        return stored_logs::print(store, subject, *follow, *json).await;
    }
    let (experiment_id, trial_id) = match arguments.subject.parse::<TrialId>() {
        Ok(trial) => (trial.experiment.to_string(), Some(trial.to_string())),
        Err(_) => (arguments.subject.parse::<ExperimentId>()?.to_string(), None),
    };
    let connected = connect(&arguments.client).await;
    let mut client = connected
        .context("logs are in the object store too: `muster logs --store URL` reads them there")?;
    let follow = arguments.follow;
    let request = v1::ReadLogsRequest { experiment_id, trial_id, follow, tail: false };
    let (mut printed, mut outage) = (Printed::new(arguments.json), Outage::default());
    while let Err(status) = print_lines(&mut client, &request, &mut printed, &mut outage).await {
        if !follow {
            return Err(said(&status));
        }
        outage.wait(&status).await?;
    }
    Ok(Exit::Done)
}

/// What was printed of a log.
struct Printed {
    num_lines: usize,
    as_json: bool,
}

impl Printed {
    fn new(as_json: bool) -> Self {
        Self { num_lines: 0, as_json }
    }

    fn print(&mut self, line: &str) {
        self.num_lines += 1;
        if self.as_json {
            println!("{}", described_line(line));
        } else {
            println!("{line}");
        }
    }
}

/// A log line as an object: of which trial (of none before there is one), from which worker, what it says.
fn described_line(line: &str) -> Value {
    let mut columns = line.splitn(3, "  ");
    let mut next = || columns.next().unwrap_or_default();
    let (trial, worker, text) = (next(), next(), next());
    json!({ "trial": (trial != "-").then_some(trial), "worker": worker, "text": text })
}

/// Prints the lines of one stream behind those that were printed before: a log only grows, so they are its first ones.
async fn print_lines(
    client: &mut Client,
    request: &v1::ReadLogsRequest,
    printed: &mut Printed,
    outage: &mut Outage,
) -> Result<(), Status> {
    let mut stream = client.read_logs(request.clone()).await?.into_inner();
    let mut num_known = printed.num_lines;
    while let Some(response) = stream.message().await? {
        outage.end();
        for line in response.lines {
            if num_known > 0 {
                num_known -= 1;
                continue;
            }
            printed.print(&line);
        }
    }
    Ok(())
}

/// What a command is about: an experiment, or one trial of it.
enum Subject {
    Experiment(String),
    Trial(String),
}

impl Subject {
    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(match text.parse::<TrialId>() {
            Ok(trial) => Self::Trial(trial.to_string()),
            Err(_) => Self::Experiment(text.parse::<ExperimentId>()?.to_string()),
        })
    }
}

pub(super) async fn pause(arguments: SubjectArguments) -> anyhow::Result<Exit> {
    let subject = Subject::parse(&arguments.subject)?;
    let mut client = connect(&arguments.client).await?;
    let done = match subject {
        Subject::Experiment(experiment_id) => {
            let request = v1::PauseExperimentRequest { experiment_id };
            client.pause_experiment(timed(request)).await.map(drop)
        }
        Subject::Trial(trial_id) => {
            let request = v1::PauseTrialRequest { trial_id };
            client.pause_trial(timed(request)).await.map(drop)
        }
    };
    done.map_err(|status| said(&status))?;
    eprintln!("{} is paused; what runs saves itself first", arguments.subject);
    Ok(Exit::Done)
}

pub(super) async fn resume(arguments: SubjectArguments) -> anyhow::Result<Exit> {
    let subject = Subject::parse(&arguments.subject)?;
    let mut client = connect(&arguments.client).await?;
    let done = match subject {
        Subject::Experiment(experiment_id) => {
            let request = v1::ResumeExperimentRequest { experiment_id };
            client.resume_experiment(timed(request)).await.map(drop)
        }
        Subject::Trial(trial_id) => {
            let request = v1::ResumeTrialRequest { trial_id };
            client.resume_trial(timed(request)).await.map(drop)
        }
    };
    done.map_err(|status| said(&status))?;
    eprintln!("{} goes on", arguments.subject);
    Ok(Exit::Done)
}

pub(super) async fn cancel(arguments: SubjectArguments) -> anyhow::Result<Exit> {
    let subject = Subject::parse(&arguments.subject)?;
    let mut client = connect(&arguments.client).await?;
    let done = match subject {
        Subject::Experiment(experiment_id) => {
            let request = v1::CancelExperimentRequest { experiment_id };
            client.cancel_experiment(timed(request)).await.map(drop)
        }
        Subject::Trial(trial_id) => {
            let request = v1::CancelTrialRequest { trial_id };
            client.cancel_trial(timed(request)).await.map(drop)
        }
    };
    done.map_err(|status| said(&status))?;
    eprintln!("{} is canceled; checkpoints and metrics written so far stay", arguments.subject);
    Ok(Exit::Done)
}

pub(super) async fn prioritize(arguments: PriorityArguments) -> anyhow::Result<Exit> {
    let PriorityArguments { experiment, priority, client } = arguments;
    let mut client = connect(&client).await?;
    let request = v1::PrioritizeExperimentRequest { experiment_id: experiment.clone(), priority };
    client.prioritize_experiment(timed(request)).await.map_err(|status| said(&status))?;
    eprintln!("{experiment} has priority {priority}");
    Ok(Exit::Done)
}

/// Submits what was submitted before, with changes.
pub(super) async fn fork(arguments: ForkArguments) -> anyhow::Result<Exit> {
    let subject = Subject::parse(&arguments.subject)?;
    let mut client = connect(&arguments.client).await?;
    let (experiment_id, trial) = match subject {
        Subject::Experiment(id) => (id, None),
        Subject::Trial(id) => (id.parse::<TrialId>()?.experiment.to_string(), Some(id)),
    };
    let request = v1::GetSubmissionRequest { experiment_id: experiment_id.clone() };
    let found = client.get_submission(timed(request)).await.map_err(|status| said(&status))?;
    let v1::GetSubmissionResponse { manifest, base_directory } = found.into_inner();
    let mut changes = Vec::new();
    if let Some(trial) = &trial {
        let view = once(&mut client, experiment_id).await?;
        let found = view.trials.iter().find(|candidate| candidate.id.to_string() == *trial);
        let found = found.with_context(|| format!("no trial `{trial}`"))?;
        let parsed = Manifest::parse(&manifest).context("the manifest of the experiment")?;
        changes.extend(parsed.fixed_at(&found.assignment));
    }
    match (&arguments.from, &trial) {
        (None, _) => {}
        (Some(_), None) => {
            let message = format!(
                "--from needs a trial, for example {}/t1; an experiment has no checkpoints",
                arguments.subject
            );
            return Err(Misuse(message).into());
        }
        (Some(checkpoint), Some(trial)) => {
            changes.push(Change::set("continue_from.trial", trial));
            changes.push(Change::set("continue_from.checkpoint", &checkpoint.to_string()));
        }
    }
    for text in &arguments.set {
        changes.push(Change::parse(text)?);
    }
    let text = edited(&manifest, &changes)
        .with_context(|| format!("{} cannot be changed so", arguments.subject))?;
    if arguments.print {
        print!("{text}");
    }
    Manifest::parse(&text).context("the changed manifest (--print shows it)")?;
    if arguments.print {
        return Ok(Exit::Done);
    }
    let request = v1::SubmitExperimentRequest { manifest: text, base_directory, user: user() };
    let response =
        client.submit_experiment(timed(request)).await.map_err(|status| said(&status))?;
    let id = response.into_inner().experiment_id;
    println!("{id}");
    eprintln!("forked from {}; `muster watch {id}` shows how it goes", arguments.subject);
    Ok(Exit::Done)
}

/// Login name of whoever runs this; empty: not known.
pub(super) fn user() -> String {
    ["MUSTER_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_default()
}
