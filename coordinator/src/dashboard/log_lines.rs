//! What runs have said: the end of it at first, then what has come since.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use muster_common::id::{ExperimentId, TrialId};
use muster_common::log_store::LogReader;
use muster_common::storage::{Layout, Store};
use tokio::time::timeout;

use super::answer::LogsAnswer;
use super::problem::Problem;
use super::query::Query;
use super::{Reply, Room, experiment_id, json, trial_id};
use crate::logs::{Logs, Position};

/// Lines of one answer.
const LINES_MAX: usize = 500;
/// Of a file so much is looked at, from its end: a few ten thousand lines.
const TAIL_BYTES: u64 = 4 << 20;
/// Longest wait for the store.
const STORED: Duration = Duration::from_secs(15);

/// Lines of all runs of an experiment.
pub(super) async fn of_experiment(
    State(room): State<Room>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
) -> Reply {
    answer(&room, experiment_id(&id)?, None, &Query::of(raw.as_deref())).await
}

/// Lines of the runs of one trial.
pub(super) async fn of_trial(
    State(room): State<Room>,
    Path((id, number)): Path<(String, u32)>,
    RawQuery(raw): RawQuery,
) -> Reply {
    let trial = trial_id(&id, number)?;
    answer(&room, experiment_id(&id)?, Some(trial), &Query::of(raw.as_deref())).await
}

async fn answer(
    room: &Room,
    experiment: ExperimentId,
    trial: Option<TrialId>,
    query: &Query,
) -> Reply {
    let store = room.look_at(experiment.as_str(), |_, found, _| Ok(found.store.clone())).await?;
    let from = query.value("from")?.map(Position::at);
    let is_first = from.is_none();
    let mut tail = read(&room.service.logs, experiment.clone(), trial.clone(), from).await?;
    if is_first && tail.lines.is_empty() {
        // Another coordinator may have written them.
        tail.lines = stored(&store, &experiment, trial.as_ref()).await.unwrap_or_default();
    }
    let next = tail.next.bytes();
    json(&LogsAnswer { lines: tail.lines, next, is_cut: tail.is_cut })
}

/// Lines and where they end.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) lines: Vec<String>,
    pub(super) next: Position,
    /// There are older ones.
    pub(super) is_cut: bool,
}

/// The last lines, or those from a position on.
pub(super) async fn read(
    logs: &Logs,
    experiment: ExperimentId,
    trial: Option<TrialId>,
    from: Option<Position>,
) -> Result<Tail, Problem> {
    let logs = logs.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let start = match &from {
            Some(from) => from.clone(),
            None => logs.near_end(&experiment, TAIL_BYTES)?,
        };
        let mut is_cut = from.is_none() && start.bytes() > 0;
        let mut next = start;
        let mut lines = VecDeque::new();
        loop {
            let before = next.bytes();
            lines.extend(logs.read(&experiment, trial.as_ref(), &mut next)?);
            // Of what follows a known place nothing is left out: it is for the next answer.
            if from.is_some() || next.bytes() == before {
                break;
            }
            while lines.len() > LINES_MAX {
                lines.pop_front();
                is_cut = true;
            }
        }
        Ok::<_, std::io::Error>(Tail { lines: lines.into(), next, is_cut })
    });
    let read = reading.await.map_err(|error| Problem::Unavailable(error.to_string()))?;
    read.map_err(|error| Problem::Unavailable(format!("cannot read the log: {error}")))
}

/// The last lines that the store has.
async fn stored(
    store: &str,
    experiment: &ExperimentId,
    trial: Option<&TrialId>,
) -> Option<Vec<String>> {
    let store = Store::open(store).ok()?;
    let mut reader = LogReader::new(store, Layout::run_logs(experiment, trial));
    let mut lines = timeout(STORED, reader.read()).await.ok()?.ok()?;
    let num_old = lines.len().saturating_sub(LINES_MAX);
    lines.drain(..num_old);
    Some(lines)
}
