//! `muster run`: coordinator, local workers and one experiment in one process tree.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use muster_common::id::{ExperimentId, ProjectName};
use muster_common::telemetry::{hold_lines, install};
use muster_common::time::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::args::RunArguments;
use super::exit::Exit;
use super::progress::Progress;
use super::validate::{Submission, read};
use super::{report, summary, table};
use crate::capacity::Capacity;
use crate::engine::{Action, Engine, Event};
use crate::machine::local_slots;
use crate::machine::slots::LocalSlots;
use crate::settings::Settings;
use crate::system::System;
use crate::view::{ExperimentState, ExperimentView, project};

/// Time for the first local worker to join: loading libtorch takes a second, a cold disk more.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
/// How often the view is refreshed.
const REFRESH: Duration = Duration::from_millis(250);

pub(super) async fn run(arguments: RunArguments) -> anyhow::Result<Exit> {
    let submission = arguments.manifest.as_deref().map(read).transpose()?;
    let settings = Settings::load(&arguments.settings, std::env::vars())?.of_one_process();
    // The terminal belongs to the progress view; warnings still come through.
    hold_lines();
    install("coordinator", "warn", settings.log_format);
    let local = local_slots(&settings).await?;
    if let Some(submission) = &submission {
        let capacity = Capacity::local(&settings, local.as_ref());
        capacity.check(submission.manifest.resources.slots, 0)?;
    }
    // Workers of a cluster come back to a coordinator that was started again, at the same address.
    let listen = match settings.cluster {
        Some(_) => settings.listen,
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    let system = System::start(&settings, listen).await?;
    let outcome = attend(&system, &settings, local, submission, &arguments).await;
    let stopped = system.stop().await;
    // Why the driver is gone says more than that it is.
    stopped?;
    outcome
}

async fn attend(
    system: &System,
    settings: &Settings,
    local: Option<LocalSlots>,
    submission: Option<Submission>,
    arguments: &RunArguments,
) -> anyhow::Result<Exit> {
    // Before anything starts: an interrupt is never lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let wanted = match &arguments.resume {
        Some(wanted) => Some(choose(system, wanted.as_deref()).await?),
        None => None,
    };
    for other in system.unfinished.iter().filter(|id| Some(*id) != wanted.as_ref()) {
        system.driver.apply(Event::ExperimentPaused { experiment: other.clone() }).await?;
        let again = resume_command(arguments, other);
        eprintln!("note: {other} has not ended and is paused; `{again}` goes on with it");
    }
    if let Some(id) = &wanted {
        system.check_slots(id, local.as_ref()).await?;
    }
    let num_slots = system.launch(true, local).await?;
    wait_for_workers(system, num_slots).await?;
    let id = match (wanted, submission) {
        (Some(id), _) => {
            system.driver.apply(Event::ExperimentResumed { experiment: id.clone() }).await?;
            eprintln!("{id} goes on");
            id
        }
        (None, Some(submission)) => submit(system, submission).await?,
        (None, None) => bail!("nothing to run"),
    };
    // Whoever finds it now and submits comes behind.
    system.guard.announce()?;
    eprintln!("{}", where_to_look(system, arguments, &id));
    let mut progress = Progress::new();
    let mut tick = tokio::time::interval(REFRESH);
    let view = loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = interrupt.recv() => return Ok(interrupted(&mut progress, arguments, &id)),
            _ = terminate.recv() => return Ok(interrupted(&mut progress, arguments, &id)),
            () = system.shutdown.cancelled() => bail!("the coordinator's service failed"),
        }
        let view = look(system, &id).await?;
        progress.draw(&view);
        if view.state.is_ended() {
            break view;
        }
    };
    progress.finish();
    name_late_comers(system, arguments).await?;
    if let Some(path) = &arguments.summary {
        summary::write(&view, path)?;
    }
    print!("{}", table::render(&view));
    let exit = exit_of(view.state);
    if let Some(path) = &arguments.report {
        let text = manifest_text(system, &id).await?;
        report::write_of(view, text, settings.worker_binary.as_deref(), path).await?;
        eprintln!("the report is in {}", path.display());
    }
    Ok(exit)
}

/// Whoever submits to this coordinator finds it as one finds a service, but it ends with its own experiment.
async fn name_late_comers(system: &System, arguments: &RunArguments) -> anyhow::Result<()> {
    let unfinished = system.unfinished_now().await?;
    for other in unfinished.iter().filter(|id| !system.unfinished.contains(id)) {
        let again = resume_command(arguments, other);
        eprintln!("note: {other} came in meanwhile and has not ended; `{again}` goes on with it");
    }
    Ok(())
}

/// How others, and the same user in another terminal, see the experiment.
fn where_to_look(system: &System, arguments: &RunArguments, id: &ExperimentId) -> String {
    let url = system.guard.near_url();
    // Commands find the coordinator of a directory by its settings, but know nothing of this one's flags.
    let is_found = arguments.settings.state.is_none() && arguments.settings.config.is_none();
    let named = if is_found { String::new() } else { format!(" --coordinator {url}") };
    format!("{id} is to be seen in a browser at {url}, and by `muster watch{named}` and the like")
}

/// What an experiment was submitted with.
async fn manifest_text(system: &System, id: &ExperimentId) -> anyhow::Result<String> {
    let wanted = id.clone();
    let text = move |engine: &Engine| engine.experiment(&wanted).map(|found| found.text.clone());
    system.driver.read(text).await?.with_context(|| format!("experiment {id} has vanished"))
}

pub(super) fn exit_of(state: ExperimentState) -> Exit {
    match state {
        ExperimentState::Completed => Exit::Done,
        ExperimentState::Canceled => Exit::Canceled,
        _ => Exit::Failed,
    }
}

fn interrupted(progress: &mut Progress, arguments: &RunArguments, id: &ExperimentId) -> Exit {
    progress.finish();
    eprintln!("interrupted; nothing is lost. `{}` goes on with it", resume_command(arguments, id));
    Exit::Interrupted
}

/// The line that goes on with an experiment when copied: same program, same journal.
fn resume_command(arguments: &RunArguments, id: &ExperimentId) -> String {
    let mut command = format!("{} run --resume {id}", program());
    if let Some(cluster) = &arguments.settings.cluster {
        command += &format!(" --cluster {cluster}");
    }
    for (flag, path) in
        [("--config", &arguments.settings.config), ("--state", &arguments.settings.state)]
    {
        if let Some(path) = path {
            command += &format!(" {flag} {}", path.display());
        }
    }
    command
}

/// How the user started us.
pub(super) fn program() -> String {
    std::env::args().next().map_or_else(|| "muster".to_owned(), |program| short_path(&program))
}

/// The experiment to go on with: unfinished, or ended without the model of its best trial.
async fn choose(system: &System, wanted: Option<&str>) -> anyhow::Result<ExperimentId> {
    let lacking = |engine: &Engine| -> Vec<ExperimentId> {
        let lacking = engine.experiments().filter(|experiment| experiment.lacks_model());
        lacking.map(|experiment| experiment.id.clone()).collect()
    };
    let lacking = system.driver.read(lacking).await?;
    let open = || system.unfinished.iter().chain(&lacking);
    let known = || {
        let names: Vec<String> = open().map(ToString::to_string).collect();
        if names.is_empty() { "none is unfinished".to_owned() } else { names.join(", ") }
    };
    match wanted {
        None => {
            let last = system.unfinished.last().or(lacking.last());
            last.cloned().context("no experiment is unfinished here")
        }
        Some(text) => {
            let id: ExperimentId = text.parse()?;
            if !open().any(|known| *known == id) {
                bail!("{id} is no unfinished experiment; to resume: {}", known());
            }
            Ok(id)
        }
    }
}

/// Waits for all local workers, so that the first decisions see every slot. One that does not come up
/// does not hold back the others for ever.
async fn wait_for_workers(system: &System, num_slots: u32) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + JOIN_DEADLINE;
    loop {
        let joined = system.driver.read(|engine: &Engine| engine.workers().len()).await?;
        if joined >= num_slots as usize {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            if joined > 0 {
                eprintln!("note: only {joined} of {num_slots} workers came up");
                return Ok(());
            }
            bail!(
                "no local worker came up within {} s; the reason is in {}",
                JOIN_DEADLINE.as_secs(),
                system.idle_log().display()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn submit(system: &System, submission: Submission) -> anyhow::Result<ExperimentId> {
    let event = Event::ExperimentSubmitted {
        manifest: Box::new(submission.manifest),
        text: submission.text,
        store: system.store.clone(),
        owner: ProjectName::of_user(&super::client::user()),
        base: Some(submission.base.display().to_string()),
    };
    let actions = system.driver.apply(event).await?;
    actions
        .into_iter()
        .find_map(|action| match action {
            Action::Created { experiment } => Some(experiment),
            _ => None,
        })
        .context("the engine made no experiment")
}

async fn look(system: &System, id: &ExperimentId) -> anyhow::Result<ExperimentView> {
    let (wanted, live) = (id.clone(), system.live.clone());
    let view = move |engine: &Engine| {
        engine.experiment(&wanted).map(|found| project(engine, found, &live, Timestamp::now()))
    };
    system.driver.read(view).await?.with_context(|| format!("experiment {id} has vanished"))
}

/// A path as the user would type it: relative when it lies below the working directory.
pub(super) fn short_path(path: &str) -> String {
    let base = std::env::current_dir().unwrap_or_default();
    Path::new(path).strip_prefix(base).map_or_else(|_| path.to_owned(), |p| p.display().to_string())
}
