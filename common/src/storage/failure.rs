//! What a store's refusal means, by its kind and by the code that the server wrote into its answer.

use std::error::Error as _;

/// Codes of Amazon, Google and Azure for credentials that no retry makes right.
const REFUSALS: [&str; 10] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AccessDenied",
    "AllAccessDisabled",
    "AccountProblem",
    "InvalidSecurity",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "AuthorizationPermissionMismatch",
    "InvalidToken",
];

/// Codes for credentials or clocks that may be right again in a minute.
const PASSING: [&str; 4] =
    ["ExpiredToken", "RequestExpired", "RequestTimeTooSkewed", "TokenRefreshRequired"];

/// Codes for a container that is not there.
const NO_CONTAINER: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"];

/// What a failed operation means for whoever asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The object is not there.
    Missing,
    /// The object is there already.
    Exists,
    /// The container is not there.
    NoContainer,
    /// There are no credentials at all.
    NoCredentials,
    /// The credentials are not accepted.
    Denied {
        /// The server's words.
        reason: String,
        /// They may be in a minute.
        is_passing: bool,
    },
    /// Anything else.
    Other,
}

pub(super) fn failure_of(error: &object_store::Error) -> Failure {
    use object_store::Error;
    let text = words(error);
    let code = between(&text, "<Code>", "</Code>");
    if code.is_some_and(|code| NO_CONTAINER.contains(&code)) {
        return Failure::NoContainer;
    }
    let is_passing = code.is_some_and(|code| PASSING.contains(&code));
    let is_refusal = is_passing || code.is_some_and(|code| REFUSALS.contains(&code));
    let denied = || Failure::Denied { reason: said(&text, code), is_passing };
    match error {
        // What the metadata service of a machine says about roles is not about objects.
        _ if is_of_metadata(&text) => Failure::NoCredentials,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => denied(),
        _ if is_refusal => denied(),
        Error::NotFound { .. } => Failure::Missing,
        Error::AlreadyExists { .. } => Failure::Exists,
        _ => Failure::Other,
    }
}

/// Whether the error is about asking the machine for a role, which comes last when credentials are
/// looked for.
fn is_of_metadata(text: &str) -> bool {
    text.contains("169.254.169.254")
        || text.contains("metadata.google.internal")
        || text.contains("169.254.170.2")
}

/// The error and its causes.
fn words(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push('\n');
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Code and message of the answer alone: the rest of it may repeat the id of a key.
fn said(text: &str, code: Option<&str>) -> String {
    match (code, between(text, "<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => "it gives no reason".to_owned(),
    }
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_once(end).map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::Error;

    fn error(
        make: fn(String, Box<dyn std::error::Error + Send + Sync>) -> Error,
        body: &str,
    ) -> Error {
        make("a/b".to_owned(), format!("Server returned non-2xx status code: {body}").into())
    }

    #[test]
    fn answers_of_servers_are_told_apart() {
        let missing = |path, source| Error::NotFound { path, source };
        let denied = |path, source| Error::PermissionDenied { path, source };
        let generic = |_, source| Error::Generic { store: "S3", source };
        let no_bucket = "<Error><Code>NoSuchBucket</Code><Message>no</Message></Error>";
        assert_eq!(failure_of(&error(missing, no_bucket)), Failure::NoContainer);
        let no_key = "<Error><Code>NoSuchKey</Code></Error>";
        assert_eq!(failure_of(&error(missing, no_key)), Failure::Missing);
        let wrong = "<Code>SignatureDoesNotMatch</Code><Message>wrong</Message>\
            <AWSAccessKeyId>AKIA</AWSAccessKeyId>";
        let refused =
            |reason: &str, is_passing| Failure::Denied { reason: reason.to_owned(), is_passing };
        let expected = refused("SignatureDoesNotMatch: wrong", false);
        assert_eq!(failure_of(&error(denied, wrong)), expected);
        let old = "<Code>ExpiredToken</Code><Message>old</Message><Token-0>hunter2</Token-0>";
        assert_eq!(failure_of(&error(denied, old)), refused("ExpiredToken: old", true));
        let role = "error sending request for url (http://169.254.169.254/latest/api/token)";
        assert_eq!(failure_of(&error(generic, role)), Failure::NoCredentials);
        assert_eq!(failure_of(&error(generic, "503 <Code>SlowDown</Code>")), Failure::Other);
        // The head of an object has no body.
        assert_eq!(failure_of(&error(denied, "")), refused("it gives no reason", false));
    }
}
