//! Exit codes: scripts tell a mistake in the manifest from a failed experiment.

use std::process::ExitCode;

use muster_common::access::AccessError;
use muster_common::id::IdError;
use muster_common::manifest::{ChangeError, ManifestError};
use muster_common::storage::{KeyError, StoreError};
use muster_proto::dial::DialError;

use crate::access::GuardError;
use crate::access::token_book::BookError;
use crate::capacity::TooLarge;
use crate::settings::SettingsError;

/// A coordinator's words to somebody whom it does not let in.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// Arguments that clap takes and that do not go together here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

/// A failure with what can be done about it, which is printed on a line of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Hinted {
    /// What is wrong.
    pub(super) message: String,
    /// What to do.
    pub(super) hint: String,
    /// Why it is.
    #[source]
    pub(super) source: Box<dyn std::error::Error + Send + Sync>,
}

/// What can be done about a failure.
pub(super) fn hints(error: &anyhow::Error) -> Vec<&str> {
    let hinted = error.chain().filter_map(|cause| cause.downcast_ref::<Hinted>());
    hinted.map(|hinted| hinted.hint.as_str()).collect()
}

/// What codes mean, for the end of `muster --help` and of the manual's page.
pub(super) const CODES: &str = "\
Exit codes:
  0    all went well
  1    the experiment or the command failed
  2    the manifest, the settings or the arguments are wrong
  3    the experiment was canceled
  4    the coordinator let nobody in, or is not the right one
  130  interrupted; the experiment goes on, or can be resumed";

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
    /// Ctrl-C or a signal; the experiment goes on or can be resumed.
    Interrupted,
}

impl Exit {
    /// The code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Canceled => 3,
            Self::Refused => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A user's mistake has its own code.
pub(super) fn of_error(error: &anyhow::Error) -> Exit {
    let is_usage = error.chain().any(|cause| {
        cause.downcast_ref::<ManifestError>().is_some()
            || cause.downcast_ref::<SettingsError>().is_some()
            || cause.downcast_ref::<Misuse>().is_some()
            || cause.downcast_ref::<IdError>().is_some()
            || cause.downcast_ref::<ChangeError>().is_some()
            || matches!(cause.downcast_ref(), Some(KeyError::NotCheckpointName { .. }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_names_are_wrong_arguments() {
        use muster_common::id::{ExperimentId, TrialId};
        use muster_common::manifest::Change;
        use muster_common::storage::CheckpointKey;

        let wrong: [anyhow::Error; 4] = [
            "demo".parse::<TrialId>().unwrap_err().into(),
            "No Name".parse::<ExperimentId>().unwrap_err().into(),
            "demo-1/t3".parse::<CheckpointKey>().unwrap_err().into(),
            Change::parse("budget").unwrap_err().into(),
        ];
        for error in wrong {
            assert_eq!(of_error(&error), Exit::Usage, "{error}");
        }
        assert_eq!(of_error(&anyhow::anyhow!("the disk is gone")), Exit::Failed);
    }

    #[test]
    fn every_code_is_explained() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Canceled,
            Exit::Refused,
            Exit::Interrupted,
        ];
        let codes = CODES.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        let explained: Vec<u8> = codes.map(|code| code.parse().unwrap()).collect();
        assert_eq!(explained, all.map(Exit::code));
    }
}
