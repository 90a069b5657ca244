//! The page on which people show a token, once; after that a cookie stands for it.

use axum::body::{self, Body};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use muster_common::time::Timestamp;
use url::form_urlencoded;

use super::Room;
use super::query::Query;
use crate::access::checker::Refusal;
use crate::access::token_book::Scope;

/// Where it is.
pub(crate) const LOGIN: &str = "/login";
/// Where a session is ended.
pub(super) const LEAVE: &str = "/logout";
/// What is seen without a token: this page and what it looks like.
pub(crate) const OPEN_PATHS: [&str; 6] = [
    LOGIN,
    LEAVE,
    "/assets/colours.css",
    "/assets/controls.css",
    "/assets/style.css",
    "/assets/icon.svg",
];
/// Longest form.
const FORM_MAX: usize = 8 << 10;

/// Address of the page, for somebody who wanted to go to `next`.
pub(crate) fn login_of(next: &str, refusal: &Refusal) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if next != "/" {
        query.append_pair("next", next);
    }
    if *refusal != Refusal::Missing {
        query.append_pair("why", refusal.label());
    }
    let query = query.finish();
    if query.is_empty() { LOGIN.to_owned() } else { format!("{LOGIN}?{query}") }
}

/// The page; nobody needs it where no token is asked for.
pub(super) async fn page(State(room): State<Room>, RawQuery(raw): RawQuery) -> Response {
    if room.checker.is_none() {
        return to("/");
    }
    let query = Query::of(raw.as_deref());
    let why = match query.text("why") {
        Some("expired") => "The token of this session has expired. Show another one.",
        Some("revoked") => "The token of this session was revoked. Show another one.",
        Some("left") => "You have logged out.",
        Some(_) => "The token of this session is of no use any more. Show another one.",
        None => "",
    };
    form(StatusCode::OK, why, safe(query.text("next")))
}

/// Takes a token and begins a session.
pub(super) async fn enter(State(room): State<Room>, body: Body) -> Response {
    let Some(checker) = &room.checker else { return to("/") };
    let Ok(bytes) = body::to_bytes(body, FORM_MAX).await else {
        return form(StatusCode::PAYLOAD_TOO_LARGE, "That is too long for a token.", "/");
    };
    let query = Query::of(std::str::from_utf8(&bytes).ok());
    let next = safe(query.text("next"));
    let now = Timestamp::now();
    let caller = match checker.check(query.text("token").map(str::trim), Scope::Read, now) {
        Ok(caller) => caller,
        Err(refusal) => {
            room.service.driver.metrics().refused(refusal.label());
            tracing::warn!(reason = %refusal, "a login is refused");
            return form(StatusCode::UNAUTHORIZED, &words(&refusal), next);
        }
    };
    let cookie = room.sessions.begin(&caller.tag, now).ok();
    let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) else {
        let why = "The system gives no random numbers, so there can be no session.";
        return form(StatusCode::SERVICE_UNAVAILABLE, why, next);
    };
    tracing::info!(token = caller.name, "a session begins");
    let mut response = to(next);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

/// Ends a session.
pub(super) async fn leave(State(room): State<Room>, headers: HeaderMap) -> Response {
    let cookies = headers.get(header::COOKIE).and_then(|cookies| cookies.to_str().ok());
    let ended = room.sessions.end(cookies.unwrap_or_default());
    let place = if room.checker.is_some() { "/login?why=left" } else { "/" };
    let mut response = to(place);
    if let Ok(ended) = HeaderValue::from_str(&ended) {
        response.headers_mut().insert(header::SET_COOKIE, ended);
    }
    response
}

fn to(place: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

/// For people who have typed something in.
fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Missing => "Paste a token.".to_owned(),
        Refusal::Unknown => "This is no token of this coordinator.".to_owned(),
        Refusal::Scope { name, .. } => {
            format!("The token {name} is for workers; people need one of the scope user or read.")
        }
        other => format!("{other}."),
    }
}

/// Only pages of this dashboard: an address that leads elsewhere would send people there with our word for it.
fn safe(next: Option<&str>) -> &str {
    let is_ours = |next: &&str| {
        let path = next.split(['?', '#']).next().unwrap_or_default();
        super::is_own_path(path)
            && path != LOGIN
            && next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
    };
    next.filter(is_ours).unwrap_or("/")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn form(status: StatusCode, why: &str, next: &str) -> Response {
    let why = match why {
        "" => String::new(),
        why => format!("<p class=\"notice\" role=\"alert\">{}</p>", escaped(why)),
    };
    let page = include_str!("client/login.html")
        .replace("<!--why-->", &why)
        .replace("{{next}}", &escaped(next));
    (status, [(header::CACHE_CONTROL, "no-store")], Html(page)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for next in ["/experiments/demo-1?x=1", "/cluster", "/", "/experiments/a/trials/3"] {
            assert_eq!(safe(Some(next)), next);
        }
        for next in [
            "//evil.example",
            "https://evil.example",
            "/\\evil",
            "",
            "/login",
            "/nowhere",
            "/experiments/\n/x",
            "javascript:alert(1)",
            "/experiments/\\x",
        ] {
            assert_eq!(safe(Some(next)), "/", "{next:?}");
        }
        assert_eq!(safe(None), "/");
    }

    #[test]
    fn where_one_wanted_to_go_is_kept() {
        assert_eq!(login_of("/", &Refusal::Missing), "/login");
        assert_eq!(login_of("/cluster", &Refusal::Unknown), "/login?next=%2Fcluster&why=unknown");
    }

    #[test]
    fn what_is_typed_in_stays_text() {
        assert_eq!(escaped("<a b=\"c\">&'"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
    }
}
