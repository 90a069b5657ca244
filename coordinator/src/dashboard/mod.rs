//! The dashboard: pages for people in a browser, and the API that they and scripts ask. Served on the coordinator's
//! one port, behind its gate; nothing is fetched from anywhere else.
//!
//! Reading order: `answer` (what the API says), `experiments`, `trials`, `plots`, `importances`, `cluster`, `timeline`,
//! `measurements`, `log_lines` and `live` (how it knows), `action` (what people may do), `parameters` (what may stand
//! behind a `?`), `login` and `origin` (who may ask), `files` and `packing` (how pages are handed out), `client` (the
//! pages themselves: plain modules, as they are in the repository).

mod action;
mod answer;
mod cluster;
mod experiments;
mod files;
mod importances;
mod live;
mod log_lines;
mod login;
mod measurements;
mod origin;
mod packing;
mod parameters;
mod plots;
mod problem;
mod query;
#[cfg(test)]
mod scale;
mod standing;
mod timeline;
mod trials;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use muster_common::id::{ExperimentId, TrialId};
use muster_common::time::Timestamp;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::access::Guard;
use crate::access::checker::{Caller, Checker};
use crate::access::sessions::Sessions;
use crate::access::token_book::Scope;
use crate::engine::Engine;
use crate::engine::experiment::Experiment;
use crate::live::Live;
use crate::rpc::Service;
use answer::SessionAnswer;
use importances::ImportanceCache;
use measurements::CurveCache;
use problem::Problem;
use query::Query;
use timeline::Timeline;

pub(crate) use files::{ECHARTS, ECHARTS_LICENSES};
pub(crate) use login::{LOGIN, OPEN_PATHS, login_of};

/// Longest wait for the engine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Streams that may be open at a time.
const STREAMS_MAX: usize = 256;

/// What the routes share.
#[derive(Debug, Clone)]
struct Room {
    service: Service,
    checker: Option<Checker>,
    sessions: Sessions,
    timeline: Timeline,
    curves: CurveCache,
    importances: ImportanceCache,
    streams: Arc<Semaphore>,
}

type Reply = Result<Response, Problem>;

/// Whether a path is one of the dashboard's.
pub(crate) fn is_own_path(path: &str) -> bool {
    let below = ["/api/v1/", "/assets/", "/experiments/"];
    matches!(path, "/" | "/cluster" | "/logout" | LOGIN)
        || below.iter().any(|folder| path.starts_with(folder))
}

/// Its routes.
pub(crate) fn router(service: Service, guard: &Guard) -> Router {
    let timeline = Timeline::open(service.logs.directory(), Timestamp::now());
    tokio::spawn(timeline.clone().keep(service.driver.clone(), service.shutdown.clone()));
    let room = Room {
        service,
        checker: guard.checker().cloned(),
        sessions: guard.sessions().clone(),
        timeline,
        curves: CurveCache::default(),
        importances: ImportanceCache::default(),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
    };
    let pages = ["/", "/cluster", "/experiments/{id}", "/experiments/{id}/trials/{number}"];
    let mut router = Router::new();
    for page in pages {
        router = router.route(page, get(files::page));
    }
    router
        .fallback(files::nowhere)
        .route("/assets/{name}", get(files::asset))
        .route(LOGIN, get(login::page).post(login::enter))
        .route("/logout", post(login::leave))
        .nest("/api/v1", api().layer(middleware::from_fn(parameters::check)))
        .layer(middleware::from_fn(packing::pack))
        .layer(middleware::from_fn_with_state(room.clone(), origin::check))
        .with_state(room)
}

fn api() -> Router<Room> {
    Router::new()
        .route("/session", get(session))
        .route("/events", get(live::events))
        .route("/cluster", get(cluster_now))
        .route("/timeline", get(whole_timeline))
        .route("/experiments", get(experiment_list))
        .route("/experiments/{id}", get(experiment))
        .route("/experiments/{id}/manifest", get(manifest))
        .route("/experiments/{id}/decisions", get(decisions))
        .route("/experiments/{id}/trials", get(trial_page))
        .route("/experiments/{id}/results", get(results))
        .route("/experiments/{id}/points", get(points))
        .route("/experiments/{id}/rungs", get(rungs))
        .route("/experiments/{id}/importance", get(importances::of_experiment))
        .route("/experiments/{id}/timeline", get(own_timeline))
        .route("/experiments/{id}/logs", get(log_lines::of_experiment))
        .route("/experiments/{id}/{action}", post(action::on_experiment))
        .route("/experiments/{id}/trials/{number}", get(trial))
        .route("/experiments/{id}/trials/{number}/curves", get(measurements::curves))
        .route("/experiments/{id}/trials/{number}/checkpoints", get(measurements::checkpoints))
        .route("/experiments/{id}/trials/{number}/equipment", get(measurements::equipment))
        .route("/experiments/{id}/trials/{number}/logs", get(log_lines::of_trial))
        .route("/experiments/{id}/trials/{number}/logs/live", get(live::log))
        .route("/experiments/{id}/trials/{number}/{action}", post(action::on_trial))
}

/// JSON that nobody keeps.
fn json(value: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(value)
        .map_err(|error| Problem::Unavailable(format!("the answer cannot be written: {error}")))?;
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::OK, headers, body).into_response())
}

fn experiment_id(text: &str) -> Result<ExperimentId, Problem> {
    text.parse().map_err(|error| Problem::Wrong(format!("`{text}`: {error}")))
}

fn trial_id(experiment: &str, number: u32) -> Result<TrialId, Problem> {
    Ok(TrialId { experiment: experiment_id(experiment)?, number })
}

impl Room {
    /// Looks at the engine between two events.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine, &Live) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let live = self.service.live.clone();
        let read = self.service.driver.read(move |engine| look(engine, &live));
        let silent = || Problem::Unavailable("the engine does not answer".to_owned());
        Ok(timeout(PATIENCE, read).await.map_err(|_| silent())??)
    }

    /// Looks at one experiment.
    async fn look_at<T: Send + 'static>(
        &self,
        id: &str,
        look: impl FnOnce(&Engine, &Experiment, &Live) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let id = experiment_id(id)?;
        let found = self.look(move |engine, live| match engine.experiment(&id) {
            Some(experiment) => look(engine, experiment, live),
            None => Err(Problem::Missing(format!("no experiment `{id}`"))),
        });
        found.await?
    }
}

async fn session(State(room): State<Room>, caller: Option<Extension<Caller>>) -> Reply {
    let caller = caller.map(|Extension(caller)| caller);
    let asks_for_tokens = room.checker.is_some();
    json(&SessionAnswer {
        version: env!("CARGO_PKG_VERSION"),
        asks_for_tokens,
        may_act: !asks_for_tokens
            || caller.as_ref().is_some_and(|caller| caller.scope.opens(Scope::User)),
        name: caller.map(|caller| caller.name),
    })
}

async fn experiment_list(State(room): State<Room>, RawQuery(raw): RawQuery) -> Reply {
    let query = Query::of(raw.as_deref());
    let list =
        room.look(move |engine, live| experiments::list(engine, live, &query, Timestamp::now()));
    json(&list.await??)
}

async fn experiment(State(room): State<Room>, Path(id): Path<String>) -> Reply {
    let look = |engine: &Engine, experiment: &Experiment, live: &Live| {
        Ok(experiments::one(engine, experiment, live, Timestamp::now()))
    };
    json(&room.look_at(&id, look).await?)
}

async fn manifest(State(room): State<Room>, Path(id): Path<String>) -> Reply {
    let text = room.look_at(&id, |_, experiment, _| Ok(experiment.text.clone())).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// A route that looks at one experiment and at what stands behind the `?`.
macro_rules! looks {
    ($($name:ident: $look:expr;)*) => {$(
        async fn $name(
            State(room): State<Room>,
            Path(id): Path<String>,
            RawQuery(raw): RawQuery,
        ) -> Reply {
            let query = Query::of(raw.as_deref());
            json(&room.look_at(&id, move |engine, experiment, live| {
                $look(engine, experiment, live, &query)
            }).await?)
        }
    )*};
}

looks! {
    decisions: |_: &Engine, experiment: &Experiment, _: &Live, query: &Query| {
        experiments::decisions(experiment, query)
    };
    trial_page: trials::page;
    results: |_: &Engine, experiment: &Experiment, _: &Live, query: &Query| {
        plots::results(experiment, query)
    };
    points: |_: &Engine, experiment: &Experiment, _: &Live, query: &Query| {
        plots::points(experiment, query)
    };
    rungs: |_: &Engine, experiment: &Experiment, _: &Live, query: &Query| {
        plots::rungs(experiment, query)
    };
}

async fn cluster_now(State(room): State<Room>) -> Reply {
    json(&room.look(|engine, live| cluster::cluster(engine, live, Timestamp::now())).await?)
}

async fn whole_timeline(State(room): State<Room>) -> Reply {
    json(&room.timeline.answer(None, Timestamp::now()))
}

async fn own_timeline(State(room): State<Room>, Path(id): Path<String>) -> Reply {
    room.look_at(&id, |_, _, _| Ok(())).await?;
    json(&room.timeline.answer(Some(&experiment_id(&id)?), Timestamp::now()))
}

async fn trial(State(room): State<Room>, Path((id, number)): Path<(String, u32)>) -> Reply {
    let look = move |engine: &Engine, experiment: &Experiment, live: &Live| {
        trials::one(engine, experiment, number, live, Timestamp::now())
    };
    json(&room.look_at(&id, look).await?)
}
