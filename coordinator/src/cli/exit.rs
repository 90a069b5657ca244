//! Exit codes: scripts tell a mistake in the manifest from a failed experiment.

use std::process::ExitCode;

use muster_common::access::AccessError;
use muster_common::manifest::ManifestError;
use muster_common::storage::StoreError;
use muster_proto::dial::DialError;

use crate::access::GuardError;
use crate::access::token_book::BookError;
use crate::capacity::TooLarge;
use crate::settings::SettingsError;

/// A coordinator's words to somebody whom it does not let in.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// All went well.
    Done,
    /// The experiment or the command failed.
    Failed,
    /// The manifest, the settings or the arguments are wrong (clap uses 2 too).
    Usage,
    /// The experiment was canceled.
    Canceled,
    /// The coordinator let nobody in, or is not the right one.
    Refused,
    /// Ctrl-C; the experiment can be resumed.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Canceled => 3,
            Exit::Refused => 4,
            Exit::Interrupted => 130,
        })
    }
}

/// A user's mistake has its own code.
pub(super) fn of_error(error: &anyhow::Error) -> Exit {
    let is_usage = error.chain().any(|cause| {
        cause.downcast_ref::<ManifestError>().is_some()
            || cause.downcast_ref::<SettingsError>().is_some()
            || cause.downcast_ref::<super::validate::InputError>().is_some()
            || cause.downcast_ref::<crate::import::ImportError>().is_some()
            || cause.downcast_ref::<AccessError>().is_some()
            || cause.downcast_ref::<BookError>().is_some()
            || cause.downcast_ref::<GuardError>().is_some()
            || cause.downcast_ref::<super::token::ExpiryError>().is_some()
            || cause.downcast_ref::<TooLarge>().is_some()
            || cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_of_settings)
    });
    let is_refusal = error.chain().any(|cause| {
        cause.downcast_ref::<Refused>().is_some()
            || cause.downcast_ref::<DialError>().is_some_and(DialError::is_refusal)
    });
    match (is_usage, is_refusal) {
        (true, _) => Exit::Usage,
        (false, true) => Exit::Refused,
        (false, false) => Exit::Failed,
    }
}
