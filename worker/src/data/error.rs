//! What can be wrong with data.

use std::io;

use muster_common::storage::StoreError;

/// Why there is no dataset.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A file was written to while it was read.
    #[error("{path} changed while it was read: try again when it is complete")]
    Changed {
        /// The file.
        path: String,
    },
    /// The tokens have no room on the disk, or cannot be read back.
    #[error("cannot keep the tokens in a file of {folder}")]
    Spill {
        /// Where the file is.
        folder: String,
        /// The cause.
        source: io::Error,
    },
    /// The connection to a hub failed.
    #[error("`{name}` cannot be downloaded from {endpoint}: {reason}")]
    Hub {
        /// The data set.
        name: String,
        /// URL of the hub.
        endpoint: String,
        /// What the client says.
        reason: String,
    },
    /// The cache of a hub cannot be written.
    #[error("cannot write {path}")]
    HubCache {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The input is wrong: trying again cannot help.
    #[error("{place}: {message}")]
    Refused {
        /// `FILE`, `FILE:LINE`, `FILE, row N` or a path in the manifest.
        place: String,
        /// What is wrong, and how to mend it.
        message: String,
    },
    /// The store does not do what it should.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// The work was cut off inside this process.
    #[error("reading the data was cut off: {reason}")]
    CutOff {
        /// What the runtime says.
        reason: String,
    },
}

impl From<StoreError> for DataError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl DataError {
    pub(super) fn refused(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { place: place.into(), message: message.into() }
    }

    pub(super) fn cut_off(error: &tokio::task::JoinError) -> Self {
        Self::CutOff { reason: error.to_string() }
    }

    /// Whether the user has to mend something before another attempt can do better.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Read { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
            ),
            Self::Store(error) => {
                error.is_permanent() || matches!(**error, StoreError::Missing { .. })
            }
            Self::Changed { .. }
            | Self::Hub { .. }
            | Self::HubCache { .. }
            | Self::Spill { .. }
            | Self::CutOff { .. } => false,
        }
    }
}
