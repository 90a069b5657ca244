//! What is sent as it happens, as server-sent events: that something has changed, and log lines.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::log_lines::read;
use super::problem::Problem;
use super::query::Query;
use super::{Reply, Room, experiment_id, trial_id};
use crate::logs::Position;

/// Shortest time between two events of one browser.
const PACE: Duration = Duration::from_millis(500);
/// While something trains there is news at least so often, though the engine has decided nothing.
const PULSE: Duration = Duration::from_secs(2);
/// Longest silence: proxies cut connections that say nothing.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest stream. Browsers open another one, and are asked again who they are.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Events that may wait for a slow browser.
const WAITING_MAX: usize = 8;

/// One browser's stream.
struct Stream {
    sender: mpsc::Sender<Result<Bytes, Infallible>>,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// Whether it is still there.
    async fn say(&self, text: String) -> bool {
        self.sender.send(Ok(Bytes::from(text))).await.is_ok()
    }

    async fn event(&self, name: &str, data: &impl Serialize) -> bool {
        let Ok(data) = serde_json::to_string(data) else { return false };
        self.say(format!("event: {name}\ndata: {data}\n\n")).await
    }

    /// With a place that a browser names when it comes back.
    async fn event_at(&self, place: u64, name: &str, data: &impl Serialize) -> bool {
        self.say(format!("id: {place}\n")).await && self.event(name, data).await
    }

    async fn breath(&self) -> bool {
        self.say(": still here\n\n".to_owned()).await
    }
}

fn open(room: &Room) -> Result<(Stream, Response), Problem> {
    let place = Arc::clone(&room.streams).try_acquire_owned().map_err(|_| {
        Problem::Unavailable("too many dashboards are open; this one looks now and then".to_owned())
    })?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let response = (headers, Body::from_stream(ReceiverStream::new(receiver))).into_response();
    Ok((Stream { sender, _place: place }, response))
}

/// `change` whenever something may look different: `{"position": N, "runs": N}`.
pub(super) async fn events(State(room): State<Room>) -> Reply {
    let (stream, response) = open(&room)?;
    tokio::spawn(async move {
        let work = timeout(LIFETIME, tell_changes(&room, &stream));
        tokio::select! {
            _ended = work => {}
            () = stream.sender.closed() => {}
            () = room.service.shutdown.cancelled() => {}
        }
    });
    Ok(response)
}

async fn tell_changes(room: &Room, stream: &Stream) {
    let mut changes = room.service.driver.changes();
    let mut said_at = Instant::now();
    let mut position = None;
    loop {
        let now = *changes.borrow_and_update();
        let Ok(runs) = room.look(|engine, _| engine.runs().len()).await else { return };
        let is_news = position != Some(now) || runs > 0;
        if is_news {
            position = Some(now);
            said_at = Instant::now();
            if !stream.event("change", &json!({ "position": now, "runs": runs })).await {
                return;
            }
        } else if said_at.elapsed() >= SILENCE {
            said_at = Instant::now();
            if !stream.breath().await {
                return;
            }
        }
        tokio::time::sleep(PACE).await;
        if let Ok(Err(_gone)) = timeout(PULSE, changes.changed()).await {
            return;
        }
    }
}

/// `lines` of a trial's log as they come, a list of texts: from where the browser was when it was cut off, else
/// from the place `from`, else the end of the log.
pub(super) async fn log(
    State(room): State<Room>,
    Path((id, number)): Path<(String, u32)>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Reply {
    let known = headers.get("last-event-id").and_then(|place| place.to_str().ok()?.parse().ok());
    let start = known.or(Query::of(raw.as_deref()).value("from")?).map(Position::at);
    let trial = trial_id(&id, number)?;
    let experiment = experiment_id(&id)?;
    room.look_at(&id, |_, _, _| Ok(())).await?;
    let (stream, response) = open(&room)?;
    tokio::spawn(async move {
        let tell = async {
            let mut from = start;
            let mut said_at = Instant::now();
            loop {
                let trial = Some(trial.clone());
                let tail = read(&room.service.logs, experiment.clone(), trial, from).await;
                let Ok(tail) = tail else { return };
                let place = tail.next.bytes();
                from = Some(tail.next);
                let is_there = if !tail.lines.is_empty() {
                    said_at = Instant::now();
                    stream.event_at(place, "lines", &tail.lines).await
                } else if said_at.elapsed() >= SILENCE {
                    said_at = Instant::now();
                    stream.breath().await
                } else {
                    true
                };
                if !is_there {
                    return;
                }
                tokio::time::sleep(PACE).await;
            }
        };
        tokio::select! {
            _ended = timeout(LIFETIME, tell) => {}
            () = stream.sender.closed() => {}
            () = room.service.shutdown.cancelled() => {}
        }
    });
    Ok(response)
}
