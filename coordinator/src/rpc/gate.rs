//! In front of every route: whether the connection may carry secrets, and whether the token that a call shows opens
//! what it asks for.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use muster_common::time::Timestamp;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use super::port::Peer;
use crate::access::Guard;
use crate::access::checker::{Caller, Checker, Refusal};
use crate::access::sessions::Sessions;
use crate::access::token_book::Scope;
use crate::dashboard::{LOGIN, OPEN_PATHS, is_own_path, login_of};
use crate::metrics::Metrics;

/// Methods of the control service that change nothing.
const READING: [&str; 6] = [
    "ListExperiments",
    "WatchExperiment",
    "GetSubmission",
    "ExplainTrial",
    "ReadLogs",
    "ReadCurves",
];

/// What is asked of calls.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    checker: Option<Checker>,
    sessions: Sessions,
    is_encrypted: bool,
    metrics: Metrics,
}

impl Gate {
    pub(super) fn new(guard: &Guard, metrics: Metrics) -> Self {
        let is_encrypted = guard.certificates().is_some();
        let (checker, sessions) = (guard.checker().cloned(), guard.sessions().clone());
        Self { checker, sessions, is_encrypted, metrics }
    }

    fn admit(&self, request: &Request) -> Result<Option<Caller>, Refusal> {
        let peer = request.extensions().get::<Peer>();
        if self.is_encrypted && !peer.is_some_and(|peer| peer.is_encrypted) {
            return Err(Refusal::ClearText);
        }
        let needed = needed(request.method(), request.uri().path());
        let (Some(checker), Some(needed)) = (&self.checker, needed) else { return Ok(None) };
        let now = Timestamp::now();
        let shown = shown(request.headers());
        match self.session(request, now).filter(|_| shown.is_none()) {
            // One whose session is over, or whose token is forgotten, is asked for it as if for the first time.
            Some(tag) => match checker.check_again(&tag, needed, now) {
                Err(Refusal::Unknown) => Err(Refusal::Missing),
                checked => checked.map(Some),
            },
            None => checker.check(shown, needed, now).map(Some),
        }
    }

    /// Tag of the token that a browser has shown; it opens the dashboard, and no service of programs.
    fn session(&self, request: &Request, now: Timestamp) -> Option<String> {
        let cookies = request.headers().get(header::COOKIE)?.to_str().ok()?;
        is_own_path(request.uri().path()).then(|| self.sessions.find(cookies, now)).flatten()
    }
}

/// The scope that a path asks for; `None`: probes need none, and learn nothing but that somebody is there; nor do
/// people who are about to show a token.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    match path {
        "/healthz" | "/readyz" => return None,
        "/metrics" => return Some(Scope::Read),
        path if OPEN_PATHS.contains(&path) => return None,
        _ => {}
    }
    if is_own_path(path) && matches!(*method, Method::GET | Method::HEAD) {
        return Some(Scope::Read);
    }
    if path.starts_with("/muster.v1.WorkerService/") {
        return Some(Scope::Worker);
    }
    let method = path.strip_prefix("/muster.v1.ControlService/");
    let is_reading = method.is_some_and(|method| READING.contains(&method));
    Some(if is_reading { Scope::Read } else { Scope::User })
}

/// The token in the usual header.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Lets a call through, or says why not.
pub(super) async fn check(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    match gate.admit(&request) {
        Ok(None) => next.run(request).await,
        Ok(Some(caller)) => {
            let cut = caller.cut.clone();
            request.extensions_mut().insert(caller);
            next.run(request).await.map(|body| {
                let until = Box::pin(cut.cancelled_owned());
                Body::new(Cut { body, until, is_over: false })
            })
        }
        Err(refusal) => {
            let peer = request.extensions().get::<Peer>().and_then(|peer| peer.address);
            let (path, reason) = (request.uri().path(), refusal.to_string());
            tracing::warn!(peer = ?peer, path, reason, "a call is refused");
            gate.metrics.refused(refusal.label());
            refused(&refusal, &request)
        }
    }
}

/// As the caller's protocol says it.
fn refused(refusal: &Refusal, request: &Request) -> Response {
    let headers = request.headers();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        let status = match refusal {
            Refusal::Scope { .. } => Status::permission_denied(refusal.to_string()),
            _ => Status::unauthenticated(refusal.to_string()),
        };
        return status.into_http();
    }
    if is_visit(request) && *refusal != Refusal::ClearText {
        let next = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let place = login_of(next, refusal);
        return (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response();
    }
    let code = match refusal {
        Refusal::Scope { .. } => StatusCode::FORBIDDEN,
        Refusal::ClearText => StatusCode::BAD_REQUEST,
        _ => StatusCode::UNAUTHORIZED,
    };
    (code, [(header::WWW_AUTHENTICATE, "Bearer")], format!("{refusal}\n")).into_response()
}

/// Whether a person's browser asks for a page of the dashboard.
fn is_visit(request: &Request) -> bool {
    let accepts = request.headers().get(header::ACCEPT).and_then(|kinds| kinds.to_str().ok());
    let path = request.uri().path();
    *request.method() == Method::GET
        && is_own_path(path)
        && path != LOGIN
        && accepts.is_some_and(|kinds| kinds.contains("text/html"))
}

/// A response that ends when the token that opened it is taken away.
struct Cut {
    body: Body,
    until: Pin<Box<WaitForCancellationFutureOwned>>,
    is_over: bool,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.until.as_mut().poll(context).is_ready() {
            self.is_over = true;
            // What it was made of ends with it.
            self.body = Body::empty();
            let status =
                Status::unauthenticated("the token of this call was revoked or has expired");
            let mut trailers = HeaderMap::new();
            return match status.add_header(&mut trailers) {
                Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Err(_) => Poll::Ready(None),
            };
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_wire_asks_for_a_scope_on_purpose() {
        let text = include_str!("../../../proto/muster/v1/control.proto");
        let methods = text.lines().filter_map(|line| {
            line.trim().strip_prefix("rpc ")?.split('(').next().map(str::to_owned)
        });
        let methods: Vec<String> = methods.collect();
        for reading in READING {
            assert!(methods.iter().any(|method| method == reading), "no method {reading}");
        }
        let changing: Vec<&str> = methods
            .iter()
            .filter(|method| {
                let path = format!("/muster.v1.ControlService/{method}");
                needed(&Method::POST, &path) == Some(Scope::User)
            })
            .map(String::as_str)
            .collect();
        // A new method is here, or among those that read.
        let expected = [
            "SubmitExperiment",
            "PauseExperiment",
            "ResumeExperiment",
            "CancelExperiment",
            "PauseTrial",
            "ResumeTrial",
            "CancelTrial",
            "PrioritizeExperiment",
        ];
        for method in &changing {
            assert!(expected.contains(method), "{method}: reads, or changes something?");
        }
        assert_eq!(changing.len(), expected.len(), "{changing:?}");
        assert_eq!(methods.len(), expected.len() + READING.len(), "{methods:?}");
    }

    #[test]
    fn what_nobody_knows_asks_for_most() {
        let get = |path: &str| needed(&Method::GET, path);
        assert_eq!(get("/healthz"), None);
        assert_eq!(get("/metrics"), Some(Scope::Read));
        assert_eq!(get("/muster.v1.WorkerService/Session"), Some(Scope::Worker));
        let unknown =
            ["/x", "/metrics/", "/healthz/x", "/muster.v1.ControlService/New", "//metrics"];
        for path in unknown {
            assert_eq!(get(path), Some(Scope::User), "{path}");
        }
    }

    #[test]
    fn people_look_with_a_reading_token_and_act_with_another() {
        let looking = ["/", "/cluster", "/experiments/demo-1/trials/3", "/api/v1/experiments"];
        for path in looking {
            assert_eq!(needed(&Method::GET, path), Some(Scope::Read), "{path}");
            assert_eq!(needed(&Method::POST, path), Some(Scope::User), "{path}");
        }
        assert_eq!(needed(&Method::GET, "/assets/main.js"), Some(Scope::Read));
        assert_eq!(needed(&Method::GET, LOGIN), None);
        assert_eq!(needed(&Method::POST, LOGIN), None);
    }

    #[test]
    fn the_token_stands_in_the_usual_header() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            shown(&headers).map(ToOwned::to_owned)
        };
        assert_eq!(of("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(of("bearer  abc "), Some("abc".to_owned()));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("abc"), None);
        assert_eq!(shown(&HeaderMap::new()), None);
    }
}
