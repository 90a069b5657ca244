//! Whether a request comes from a page of this dashboard. Other sites' pages can have a browser send requests here,
//! along with what it knows; they cannot set headers, nor read what is answered.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::login::{LEAVE, LOGIN};
use super::problem::Problem;
use super::{Room, is_own_path};
use crate::access::certificates::host_name;

/// A header that only pages of this dashboard and programs set: a form of another site cannot.
const OWN_HEADER: &str = "x-muster-request";
/// Everything comes from here; nothing may be framed; no text becomes a program.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Refuses what does not come from here, and has browsers be strict with what does.
pub(super) async fn check(State(room): State<Room>, request: Request, next: Next) -> Response {
    let is_ours = is_own_path(request.uri().path());
    if let Err(problem) = admit(&room, &request) {
        return problem.into_response();
    }
    let mut response = next.run(request).await;
    if is_ours {
        let headers = response.headers_mut();
        let fixed = [
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            // Forms of this site still say where they come from.
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

fn admit(room: &Room, request: &Request) -> Result<(), Problem> {
    let host = host_of(request);
    // Without tokens nothing but the address keeps others out, and a name can be made to lead anywhere.
    if room.checker.is_none() && !host.as_deref().is_some_and(is_this_machine) {
        return Err(Problem::Foreign(
            "without tokens the dashboard answers to an IP address, localhost or this host's name only",
        ));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    if !is_same_origin(request.headers(), host.as_deref()) {
        return Err(Problem::Foreign("this request comes from another site"));
    }
    let is_form = matches!(request.uri().path(), LOGIN | LEAVE);
    if !is_form && !request.headers().contains_key(OWN_HEADER) {
        return Err(Problem::Foreign("actions need the header x-muster-request: 1"));
    }
    Ok(())
}

/// Host and port that were asked for.
fn host_of(request: &Request) -> Option<String> {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let header = || request.headers().get(header::HOST)?.to_str().ok().map(ToOwned::to_owned);
    authority.or_else(header)
}

/// Whether a name surely means this machine, whoever says what it means.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || host_name().is_some_and(|own| own.eq_ignore_ascii_case(name))
}

/// Browsers say where a request comes from; what says nothing is no browser.
fn is_same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = said("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    said("origin").is_none_or(|origin| {
        let origin = origin.split_once("://").map(|(_, authority)| authority);
        origin.is_some() && origin == host
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_not_this_machine() {
        for host in ["127.0.0.1:7700", "[::1]:7700", "localhost:1", "LOCALHOST", "10.0.0.3"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["evil.example:7700", "127.0.0.1.evil.example", "localhost.evil.example", ""] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn requests_of_other_sites_are_told_apart() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_same_origin(&headers, Some("127.0.0.1:7700"))
        };
        assert!(of(&[]));
        assert!(of(&[("sec-fetch-site", "same-origin")]));
        assert!(of(&[("origin", "http://127.0.0.1:7700")]));
        assert!(!of(&[("sec-fetch-site", "cross-site")]));
        assert!(!of(&[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:7700")]));
        assert!(!of(&[("origin", "http://127.0.0.1:80")]));
        assert!(!of(&[("origin", "null")]));
    }
}
