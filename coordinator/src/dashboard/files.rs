//! The files of the pages. They are part of the program, so that it works wherever it is copied, without a network.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use muster_common::colours::COLOURS;
use muster_common::digest::ContentHash;

use super::packing::{accepts_gzip, gzip};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// The charting library, a module; reports have it in them.
pub(crate) const ECHARTS: &str = include_str!("vendor/echarts.js");
/// What goes with it wherever it goes.
pub(crate) const ECHARTS_LICENSES: [&str; 4] = [
    include_str!("vendor/NOTICE-echarts"),
    include_str!("vendor/LICENSE-echarts"),
    include_str!("vendor/LICENSE-zrender"),
    include_str!("vendor/LICENSE-d3"),
];
/// Name, type and content.
macro_rules! files {
    ($($kind:ident $folder:literal $name:literal;)*) => {
        [$(($name, $kind, include_bytes!(concat!($folder, "/", $name)).as_slice())),*]
    };
}

/// Everything that is handed out.
static FILES: LazyLock<BTreeMap<&'static str, File>> = LazyLock::new(|| {
    let all = files! {
        HTML "client" "index.html";
        CSS "client" "controls.css";
        CSS "client" "style.css";
        SVG "client" "icon.svg";
        SCRIPT "client" "actions.js";
        SCRIPT "client" "api.js";
        SCRIPT "client" "charts.js";
        SCRIPT "client" "cluster.js";
        SCRIPT "client" "comparison.js";
        SCRIPT "client" "elements.js";
        SCRIPT "client" "experiment.js";
        SCRIPT "client" "experiments.js";
        SCRIPT "client" "format.js";
        SCRIPT "client" "ladder.js";
        SCRIPT "client" "learning.js";
        SCRIPT "client" "main.js";
        SCRIPT "client" "space.js";
        SCRIPT "client" "table.js";
        SCRIPT "client" "theme.js";
        SCRIPT "client" "timeline.js";
        SCRIPT "client" "trial.js";
        SCRIPT "client" "trials.js";
        SCRIPT "vendor" "echarts.js";
        TEXT "vendor" "LICENSE-echarts";
        TEXT "vendor" "NOTICE-echarts";
        TEXT "vendor" "LICENSE-zrender";
        TEXT "vendor" "LICENSE-d3";
    };
    let colours = ("colours.css", CSS, COLOURS.as_bytes());
    let all = all.into_iter().chain([colours]);
    all.map(|(name, kind, content)| (name, File::new(kind, content))).collect()
});

struct File {
    kind: &'static str,
    content: Bytes,
    packed: Option<Bytes>,
    /// In quotes, as the header has it.
    tag: String,
}

impl File {
    fn new(kind: &'static str, content: &'static [u8]) -> Self {
        let packed = gzip(content, Compression::best()).ok().map(Bytes::from);
        let packed = packed.filter(|packed| packed.len() < content.len());
        let tag = format!("\"{}\"", ContentHash::of(content).short());
        Self { kind, content: Bytes::from_static(content), packed, tag }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        // A browser keeps it and asks whether it is still the same: after an update it never is half old.
        let fixed = [
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept-encoding"),
            (header::ETAG, self.tag.as_str()),
        ];
        let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        if known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == self.tag)) {
            return (StatusCode::NOT_MODIFIED, fixed).into_response();
        }
        match &self.packed {
            Some(packed) if accepts_gzip(headers) => {
                (fixed, [(header::CONTENT_ENCODING, "gzip")], packed.clone()).into_response()
            }
            _ => (fixed, self.content.clone()).into_response(),
        }
    }
}

/// Every page is the same document, which looks at its own address.
pub(super) async fn page(headers: HeaderMap) -> Response {
    found("index.html", &headers)
}

/// What no page has as its address; people get the page that says so.
pub(super) async fn nowhere(uri: Uri, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("text/html")) {
        return (StatusCode::NOT_FOUND, found("index.html", &headers)).into_response();
    }
    (StatusCode::NOT_FOUND, format!("no page `{}`\n", uri.path())).into_response()
}

/// A file by name.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    found(&name, &headers)
}

fn found(name: &str, headers: &HeaderMap) -> Response {
    match FILES.get(name) {
        Some(file) => file.answer(headers),
        None => (StatusCode::NOT_FOUND, format!("no file `{name}`\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names behind `start` in a text.
    fn names<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
        let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        text.split(start).skip(1).filter_map(|rest| rest.split(is_end).next()).collect()
    }

    #[test]
    fn every_colour_has_one_place() {
        let defined = names(COLOURS, "\n  --");
        assert!(defined.len() > 30, "{defined:?}");
        let by_day = COLOURS.split(":root[").next().unwrap_or_default();
        // How much of a colour is under text is none itself.
        for name in defined.iter().filter(|name| **name != "strongest") {
            let place = format!("\n  --{name}: light-dark(");
            assert_eq!(
                by_day.matches(&place).count(),
                1,
                "{name} has a colour by day and one by night"
            );
        }
        let report = [
            ("report.css", include_str!("../report/client/report.css").to_owned()),
            ("report.js", include_str!("../report/client/report.js").to_owned()),
        ];
        let own = FILES.iter().filter(|(_, file)| matches!(file.kind, CSS | SCRIPT | HTML));
        let own = own.filter(|(name, _)| !matches!(**name, "echarts.js" | "colours.css"));
        let own =
            own.map(|(name, file)| (*name, String::from_utf8_lossy(&file.content).into_owned()));
        for (name, text) in own.chain(report) {
            for used in names(&text, "var(--") {
                let is_own = text.contains(&format!("  --{used}: "));
                assert!(
                    used.is_empty() || is_own || defined.contains(&used),
                    "{name} uses --{used}"
                );
            }
            for used in names(&text, "colour('") {
                assert!(defined.contains(&used), "{name} asks for {used}");
            }
            let digits = |part: &str| part.chars().take_while(char::is_ascii_hexdigit).count();
            let written = text.split('#').skip(1).find(|&part| matches!(digits(part), 3 | 6 | 8));
            assert_eq!(
                written.and_then(|part| part.get(..3)),
                None,
                "{name} has a colour of its own"
            );
        }
    }
}
