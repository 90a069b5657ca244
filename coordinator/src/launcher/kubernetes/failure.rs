//! What it means that the API server did not do what it was asked for.

use std::error::Error as _;
use std::time::Duration;

use kube::Error;

use super::state::shortened;
use crate::launcher::cluster::ClusterError;
use crate::launcher::planner::Outcome;

/// Time for one request: the API server itself gives up after a minute, and answers of this size take milliseconds.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// Requests for the same thing; those of one submission, with their deadlines, take less than the time after which it
/// counts as not made.
pub(super) const ATTEMPTS: usize = 3;

/// Waits for a request, no longer than [`DEADLINE`]. `None`: there was no answer.
pub(super) async fn answered<T>(request: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(DEADLINE, request).await.ok()
}

/// Nothing was heard.
pub(super) fn silence(command: &'static str) -> ClusterError {
    let message = format!("the API server does not answer in {} s", DEADLINE.as_secs());
    ClusterError { command, message, outcome: Outcome::Unclear }
}

/// An answer, or a failure before one, in words.
pub(super) fn failure(command: &'static str, error: &Error) -> ClusterError {
    let outcome = match error {
        // The server has understood, and says no.
        Error::Api(status) if (400..500).contains(&status.code) && !is_passing(error) => {
            Outcome::Refused
        }
        // Nothing was sent.
        Error::Auth(_) | Error::BuildRequest(_) | Error::InferConfig(_) => Outcome::Refused,
        _ => Outcome::Unclear,
    };
    ClusterError { command, message: words(error), outcome }
}

/// Whether the same request may well succeed in a moment.
pub(super) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Api(status) => match status.code {
            // Two who write quotas at once get it too; a name that is taken is something else.
            409 => status.reason == "Conflict",
            408 | 429 | 500..=599 => true,
            _ => false,
        },
        Error::Auth(_) | Error::BuildRequest(_) | Error::InferConfig(_) => false,
        _ => true,
    }
}

/// Whether there is something by that name already.
pub(super) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// Whether there is nothing by that name, or nothing with that unique id any more.
pub(super) fn is_gone(error: &Error) -> bool {
    match error {
        Error::Api(status) => {
            status.code == 404 || (status.code == 409 && status.message.contains("UID"))
        }
        _ => false,
    }
}

/// The server's own words; else the whole chain of causes, without what is said twice.
pub(super) fn words(error: &Error) -> String {
    if let Error::Api(status) = error {
        return shortened(&format!("{} (status {})", status.message, status.code));
    }
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    shortened(&said)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, reason: &str, message: &str) -> Error {
        let status = Status {
            code,
            reason: reason.to_owned(),
            message: message.to_owned(),
            ..Status::default()
        };
        Error::Api(Box::new(status))
    }

    #[test]
    fn a_refusal_is_told_from_a_doubt() {
        for (code, reason, outcome) in [
            (403, "Forbidden", Outcome::Refused),
            (404, "NotFound", Outcome::Refused),
            (422, "Invalid", Outcome::Refused),
            (409, "AlreadyExists", Outcome::Refused),
            (409, "Conflict", Outcome::Unclear),
            (429, "TooManyRequests", Outcome::Unclear),
            (500, "InternalError", Outcome::Unclear),
            (504, "Timeout", Outcome::Unclear),
        ] {
            let error = api(code, reason, "exceeded quota");
            let found = failure("create", &error);
            assert_eq!(found.outcome, outcome, "{code} {reason}");
            assert_eq!(found.message, format!("exceeded quota (status {code})"));
            assert_eq!(is_passing(&error), outcome == Outcome::Unclear, "{code} {reason}");
        }
        assert!(is_taken(&api(409, "AlreadyExists", "")) && !is_taken(&api(409, "Conflict", "")));
        let other = "the UID in the precondition (a) does not match the UID in record (b)";
        assert!(is_gone(&api(409, "Conflict", other)) && is_gone(&api(404, "NotFound", "")));
        assert!(!is_gone(&api(409, "Conflict", "the object has been modified")));
        let broken = Error::Service("connection refused".into());
        assert_eq!(failure("create", &broken).outcome, Outcome::Unclear);
        assert!(is_passing(&broken) && words(&broken).contains("connection refused"));
    }
}
