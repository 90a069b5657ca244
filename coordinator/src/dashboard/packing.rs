//! Answers that are long enough to be worth it are compressed, for browsers and networks between.

use std::io::Write as _;

use axum::body::{self, Body};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Shorter ones fit into a packet or two anyway.
const LEAST: usize = 2048;
/// No answer is longer.
const MOST: usize = 64 << 20;

/// Whether a browser unpacks.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let said = headers.get(header::ACCEPT_ENCODING).and_then(|kinds| kinds.to_str().ok());
    said.is_some_and(|kinds| {
        kinds.split(',').any(|kind| {
            let (name, quality) = kind.split_once(';').unwrap_or((kind, ""));
            name.trim().eq_ignore_ascii_case("gzip") && !quality.replace(' ', "").eq("q=0")
        })
    })
}

/// Compressed bytes.
pub(super) fn gzip(bytes: &[u8], level: Compression) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), level);
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Compresses long JSON.
pub(super) async fn pack(request: Request, next: Next) -> Response {
    let accepts = accepts_gzip(request.headers());
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !accepts || kind != Some("application/json") {
        return response;
    }
    let (mut parts, content) = response.into_parts();
    let Ok(bytes) = body::to_bytes(content, MOST).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if bytes.len() < LEAST {
        return Response::from_parts(parts, Body::from(bytes));
    }
    match gzip(&bytes, Compression::fast()) {
        Ok(packed) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(packed))
        }
        Err(_) => Response::from_parts(parts, Body::from(bytes)),
    }
}
