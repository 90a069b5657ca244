//! Why the API does not answer as asked, in one sentence for people.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::driver::Stopped;

/// A refusal or a failure.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// The request itself is wrong.
    #[error("{0}")]
    Wrong(String),
    /// Nothing has this name.
    #[error("{0}")]
    Missing(String),
    /// It is there, but cannot be done now.
    #[error("{0}")]
    Refused(String),
    /// Not from a page of this dashboard.
    #[error("{0}")]
    Foreign(&'static str),
    /// Somebody else does not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        Self::Unavailable(stopped.to_string())
    }
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::Foreign(_) => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.to_string() }).to_string();
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (self.status(), kind, body).into_response()
    }
}
