//! What may stand behind the `?` of a request to the API. A name that a route does not know is refused: whoever has
//! mistyped one would take the answer for that to another question.

use axum::extract::{RawQuery, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::query::Query;

/// Routes and the names they know; `{}` is any word, and a name that ends in a dot is the beginning of one. Routes that
/// are not listed know none.
const KNOWN: [(&str, &[&str]); 9] = [
    ("experiments", &["q", "state", "page", "size"]),
    ("experiments/{}/decisions", &["limit"]),
    (
        "experiments/{}/trials",
        &["q", "state", "sort", "descending", "page", "size", "min.", "max.", "is."],
    ),
    ("experiments/{}/results", &["limit"]),
    ("experiments/{}/points", &["limit"]),
    ("experiments/{}/rungs", &["limit"]),
    ("experiments/{}/logs", &["from"]),
    ("experiments/{}/trials/{}/curves", &["name", "points"]),
    ("experiments/{}/trials/{}/logs", &["from"]),
];
/// A stream is the log's route with a word more.
const LIVE: &str = "/live";

/// Refuses requests with a name that their route does not know.
pub(super) async fn check(RawQuery(raw): RawQuery, request: Request, next: Next) -> Response {
    match unknown(request.uri().path(), &Query::of(raw.as_deref())) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn unknown(path: &str, query: &Query) -> Option<Problem> {
    let path = path.trim_start_matches("/api/v1").trim_matches('/');
    let path = path.strip_suffix(LIVE).unwrap_or(path);
    let known = KNOWN.iter().find(|(route, _)| is_of(path, route));
    let known = known.map_or(&[][..], |(_, names)| *names);
    let is_known = |name: &str| {
        known.iter().any(|known| name == *known || known.ends_with('.') && name.starts_with(known))
    };
    let name = query.names().find(|name| !is_known(name))?;
    let shown: Vec<String> = known
        .iter()
        .map(|name| if name.ends_with('.') { format!("`{name}NAME`") } else { format!("`{name}`") })
        .collect();
    let listed = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    Some(Problem::Wrong(format!("unknown parameter `{name}`; known here: {listed}")))
}

fn is_of(path: &str, route: &str) -> bool {
    let (mut path, mut route) = (path.split('/'), route.split('/'));
    loop {
        match (path.next(), route.next()) {
            (None, None) => return true,
            (Some(word), Some(wanted)) if wanted == "{}" || word == wanted => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str, query: &str) -> Option<String> {
        unknown(path, &Query::of(Some(query))).map(|problem| problem.to_string())
    }

    #[test]
    fn names_are_those_of_the_route() {
        for (path, query) in [
            ("/experiments", "q=a&state=open&page=1&size=2"),
            (
                "/experiments/results-1/trials",
                "sort=rank&min.dropout=0.1&max.dropout=&is.schedule=cosine",
            ),
            ("/experiments/a-1/trials/3/curves", "name=a&name=b&points=3"),
            ("/experiments/a-1/trials/3/logs/live", "from=3"),
            ("/api/v1/experiments/a-1/logs", "from=3"),
            ("/cluster", ""),
        ] {
            assert_eq!(refusal(path, query), None, "{path}?{query}");
        }
        assert_eq!(
            refusal("/experiments", "limit=3").unwrap(),
            "unknown parameter `limit`; known here: `q`, `state`, `page`, `size`"
        );
        let refused = refusal("/experiments/a-1/trials", "mindropout=1").unwrap();
        assert!(refused.ends_with("`min.NAME`, `max.NAME`, `is.NAME`"), "{refused}");
        for path in ["/cluster", "/experiments/a-1", "/experiments/a-1/trials/3", "/events"] {
            let refused = refusal(path, "size=1").unwrap();
            assert_eq!(refused, "unknown parameter `size`; known here: none", "{path}");
        }
    }
}
