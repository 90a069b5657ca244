//! What people may do: the same requests as those of the command line.

use axum::body::{self, Body};
use axum::extract::{Extension, Path, State};
use muster_common::id::{ExperimentId, TrialId};
use muster_common::manifest::{Change, PRIORITY_MAX, edited};
use serde::Deserialize;

use super::answer::DoneAnswer;
use super::problem::Problem;
use super::{Reply, Room, experiment_id, json, trial_id};
use crate::access::checker::Caller;
use crate::engine::Event;
use crate::engine::experiment::Experiment;
use crate::request::{RequestError, Submission, apply, submit};

/// Longest request.
const REQUEST_MAX: usize = 64 << 10;
/// Most changes of a fork.
const CHANGES_MAX: usize = 100;

/// What an action may say besides its name; empty for most.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Details {
    /// For `priority`.
    #[serde(default)]
    priority: Option<i32>,
    /// For `fork`: `KEY=VALUE` each.
    #[serde(default)]
    set: Vec<String>,
    /// For `fork`: only say what the manifest would be.
    #[serde(default)]
    preview: bool,
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let text = error.to_string();
        match error {
            RequestError::Manifest(_) => Self::Wrong(text),
            RequestError::TooLarge(_) | RequestError::Rejected(_) => Self::Refused(text),
            RequestError::Nothing | RequestError::Stopped(_) => Self::Unavailable(text),
        }
    }
}

async fn details(body: Body) -> Result<Details, Problem> {
    let bytes = body::to_bytes(body, REQUEST_MAX).await;
    let bytes = bytes.map_err(|_| Problem::Wrong(format!("longer than {REQUEST_MAX} bytes")))?;
    if bytes.is_empty() {
        return Ok(Details::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| Problem::Wrong(error.to_string()))
}

fn unknown(action: &str) -> Problem {
    Problem::Missing(format!("no action `{action}`"))
}

async fn done(room: &Room, caller: Option<&Caller>, event: Event, message: String) -> Reply {
    apply(&room.service.driver, event).await?;
    let token = caller.map(|caller| caller.name.as_str());
    tracing::info!(token, message, "asked for in the dashboard");
    json(&DoneAnswer { message, experiment: None, manifest: None })
}

/// `pause`, `resume`, `cancel`, `priority` and `fork` of an experiment.
pub(super) async fn on_experiment(
    State(room): State<Room>,
    Path((id, action)): Path<(String, String)>,
    caller: Option<Extension<Caller>>,
    body: Body,
) -> Reply {
    let details = details(body).await?;
    let caller = caller.map(|Extension(caller)| caller);
    let experiment = experiment_id(&id)?;
    room.look_at(&id, |_, _, _| Ok(())).await?;
    let (event, message) = match action.as_str() {
        "pause" => (Event::ExperimentPaused { experiment }, format!("{id} pauses")),
        "resume" => (Event::ExperimentResumed { experiment }, format!("{id} goes on")),
        "cancel" => (Event::ExperimentCanceled { experiment }, format!("{id} is canceled")),
        "priority" => prioritized(experiment, details.priority)?,
        "fork" => return fork(&room, &id, None, &details).await,
        other => return Err(unknown(other)),
    };
    done(&room, caller.as_ref(), event, message).await
}

fn prioritized(
    experiment: ExperimentId,
    priority: Option<i32>,
) -> Result<(Event, String), Problem> {
    let range = format!("a whole number of -{PRIORITY_MAX} to {PRIORITY_MAX}");
    let legal = priority.filter(|priority| (-PRIORITY_MAX..=PRIORITY_MAX).contains(priority));
    let priority = legal.ok_or_else(|| Problem::Wrong(format!("priority: write {range}")))?;
    let message = format!("{experiment} has priority {priority}");
    Ok((Event::ExperimentPrioritized { experiment, priority }, message))
}

/// `pause`, `resume`, `cancel` and `fork` of a trial.
pub(super) async fn on_trial(
    State(room): State<Room>,
    Path((id, number, action)): Path<(String, u32, String)>,
    caller: Option<Extension<Caller>>,
    body: Body,
) -> Reply {
    let details = details(body).await?;
    let caller = caller.map(|Extension(caller)| caller);
    let trial = trial_id(&id, number)?;
    room.look_at(&id, |_, _, _| Ok(())).await?;
    let (event, message) = match action.as_str() {
        "pause" => (Event::TrialPaused { trial: trial.clone() }, format!("{trial} pauses")),
        "resume" => (Event::TrialResumed { trial: trial.clone() }, format!("{trial} goes on")),
        "cancel" => (Event::TrialCanceled { trial: trial.clone() }, format!("{trial} is canceled")),
        "fork" => return fork(&room, &id, Some(trial), &details).await,
        other => return Err(unknown(other)),
    };
    done(&room, caller.as_ref(), event, message).await
}

/// A new experiment from the manifest of another, or with the hyperparameters of one trial. It uses the same share.
async fn fork(room: &Room, id: &str, trial: Option<TrialId>, details: &Details) -> Reply {
    if details.set.len() > CHANGES_MAX {
        return Err(Problem::Wrong(format!("set: more than {CHANGES_MAX} changes")));
    }
    let mut wanted = Vec::new();
    for text in &details.set {
        wanted.push(Change::parse(text).map_err(|error| Problem::Wrong(error.to_string()))?);
    }
    let number = trial.as_ref().map(|trial| trial.number);
    let found = room.look_at(id, move |_, experiment, _| {
        let mut changes = match number {
            Some(number) => fixed(experiment, number)?,
            None => Vec::new(),
        };
        changes.extend(wanted);
        let text = edited(&experiment.text, &changes);
        let text = text.map_err(|error| Problem::Wrong(error.to_string()))?;
        let base = experiment.base.clone().unwrap_or_default();
        Ok((Submission { text, base, owner: experiment.project.clone() }, experiment.id.clone()))
    });
    let (submission, from) = found.await?;
    if details.preview {
        let manifest = Some(submission.text);
        return json(&DoneAnswer { message: String::new(), experiment: None, manifest });
    }
    let service = &room.service;
    let made = submit(&service.driver, &service.capacity, &service.store, submission).await?;
    tracing::info!(experiment = %made, %from, "forked in the dashboard");
    let message = format!("{made} is forked from {from}");
    json(&DoneAnswer { message, experiment: Some(made.to_string()), manifest: None })
}

/// The changes that make constants of a trial's hyperparameters.
fn fixed(experiment: &Experiment, number: u32) -> Result<Vec<Change>, Problem> {
    let missing = || Problem::Missing(format!("no trial `{}/t{number}`", experiment.id));
    let trial = experiment.trials.get(&number).ok_or_else(missing)?;
    let assignment = crate::view::assignment_of(&experiment.goal(), trial);
    Ok(experiment.manifest.fixed_at(assignment))
}
