//! Identities. Each is a type of its own, because most of them are small integers or short strings
//! that the compiler could not tell apart otherwise:
//!
//! ```compile_fail
//! use muster_common::id::{Attempt, Generation};
//! fn fence(_: Generation) {}
//! fence(Attempt(1)); // an attempt is not a generation
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest experiment or worker name accepted, in bytes: names become directory and key segments.
pub const NAME_BYTES_MAX: usize = 63;

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The name has characters that are unsafe in object keys and file names.
    #[error(
        "`{text}` is not a name: use 1 to {NAME_BYTES_MAX} of a-z, 0-9 and `-`, with a letter or digit at both ends"
    )]
    Name {
        /// What was given.
        text: String,
    },
    /// The text is not `EXPERIMENT/tN`.
    #[error("`{text}` is not a trial: write EXPERIMENT/tN, for example demo-1/t3")]
    Trial {
        /// What was given.
        text: String,
    },
}

fn check_name(text: &str) -> Result<(), IdError> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = !text.is_empty() && text.len() <= NAME_BYTES_MAX;
    if fits && text.chars().all(legal) && edge(text.chars().next()) && edge(text.chars().last()) {
        Ok(())
    } else {
        Err(IdError::Name { text: text.to_owned() })
    }
}

// Shared: there are many checkpoints and runs of one experiment, and all of them name it.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text, safe as a path segment.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                check_name(&text)?;
                Ok(Self(text.into()))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// The `name:` of a manifest; experiments of it are numbered `NAME-1`, `NAME-2`, ...
    ExperimentName
}
name_type! {
    /// Those who share slots: a user, a team, a purpose.
    ProjectName
}
name_type! {
    /// One submitted manifest and everything it caused, for example `demo-1`.
    ExperimentId
}
name_type! {
    /// One worker process bound to one slot. A restarted worker process has a new id.
    WorkerId
}

impl ProjectName {
    /// The project of a user by login name, with what a name may not have replaced by `-`; `None`: nothing
    /// is left.
    pub fn of_user(login: &str) -> Option<Self> {
        let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name: String = login.chars().map(legal).take(NAME_BYTES_MAX).collect();
        name.trim_matches('-').parse().ok()
    }
}

/// One assignment of hyperparameters within an experiment; survives restarts. Shown as `demo-1/t3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrialId {
    /// The experiment it belongs to.
    pub experiment: ExperimentId,
    /// Number within the experiment, from 1, in order of creation.
    pub number: u32,
}

impl fmt::Display for TrialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/t{}", self.experiment, self.number)
    }
}

impl FromStr for TrialId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Trial { text: text.to_owned() };
        let (experiment, number) = text.rsplit_once("/t").ok_or_else(wrong)?;
        Ok(Self {
            experiment: experiment.parse().map_err(|_| wrong())?,
            number: number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?,
        })
    }
}

impl TryFrom<String> for TrialId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<TrialId> for String {
    fn from(trial: TrialId) -> String {
        trial.to_string()
    }
}

/// Fencing number of a run: drawn from one counter of the coordinator, so a later run of anything
/// has a higher one. Messages and checkpoints carry it; older ones are refused. It names the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a run within its trial, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_hurt_as_keys_are_refused() {
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<ExperimentId>().is_err(), "{bad}");
        }
        assert!("demo-1".parse::<ExperimentId>().is_ok());
    }

    #[test]
    fn trial_numbers_start_at_one() {
        assert!("demo-1/t0".parse::<TrialId>().is_err());
        assert!("demo-1/3".parse::<TrialId>().is_err());
    }

    proptest! {
        #[test]
        fn trials_round_trip(name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", number in 1u32..) {
            let trial = TrialId { experiment: name.parse().unwrap(), number };
            prop_assert_eq!(trial.to_string().parse::<TrialId>().unwrap(), trial);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,80}") {
            let _parsed = text.parse::<TrialId>();
        }
    }
}
