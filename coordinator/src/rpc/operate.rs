//! What operators and their systems ask: metrics, whether the process is alive, whether it serves.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Service;
use crate::metrics::{Census, MEDIA_TYPE};

/// Longest wait for the driver: a probe wants to hear that it does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pages. None changes anything.
pub(super) fn router(service: Service) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(service)
}

async fn metrics(State(service): State<Service>) -> Response {
    let census = tokio::time::timeout(PATIENCE, service.driver.read(Census::of)).await;
    let Ok(Ok(census)) = census else { return unavailable("the engine does not answer") };
    match service.driver.metrics().text(&census, service.live.num_connected()) {
        Ok(text) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response(),
        Err(error) => unavailable(&error.to_string()),
    }
}

/// The journal is open and the loop around it answers.
async fn ready(State(service): State<Service>) -> Response {
    if service.shutdown.is_cancelled() {
        return unavailable("stopping");
    }
    match tokio::time::timeout(PATIENCE, service.driver.read(|_| ())).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(stopped)) => unavailable(&stopped.to_string()),
        Err(_) => unavailable("the engine does not answer"),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}
