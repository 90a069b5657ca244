//! What must survive this process: who we are to the cluster, which numbers are used up, and which
//! submissions may be on their way. Written before a submission is made, so that whatever dies when, a
//! number is used once and no job is ours without being known to be.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::cluster::{Identity, NotAnIdentity};
use super::planner::{Limits, Planner};

/// Name of the file in the state directory.
const FILE: &str = "allocations.json";
/// Format of the file; newer ones are refused.
const VERSION: u32 = 1;

/// The record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system says no.
    #[error("{}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{} is not understood; it is needed to know this coordinator's jobs", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A newer build has written it.
    #[error("{} has format {version}, this build knows {VERSION}: use the newer build", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The identity in it is none.
    #[error("{}", path.display())]
    Identity {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: NotAnIdentity,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    version: u32,
    identity: String,
    next_number: u64,
    /// Submissions that nobody has seen yet, by number.
    unseen: BTreeMap<u64, Timestamp>,
}

/// The file, open for as long as the coordinator runs.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    page: Page,
    identity: Identity,
}

impl Record {
    /// Reads the record of a state directory, or begins one.
    pub fn open(state: &Path) -> Result<Self, RecordError> {
        let path = state.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::begin(path),
            Err(source) => return Err(RecordError::Io { path, source }),
        };
        let page: Page = match serde_json::from_str(&text) {
            Ok(page) => page,
            Err(source) => return Err(RecordError::Syntax { path, source }),
        };
        if page.version > VERSION {
            return Err(RecordError::Version { path, version: page.version });
        }
        match page.identity.parse() {
            Ok(identity) => Ok(Self { path, page, identity }),
            Err(source) => Err(RecordError::Identity { path, source }),
        }
    }

    fn begin(path: PathBuf) -> Result<Self, RecordError> {
        let mut bytes = [0; 6];
        let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        if let Err(source) = random {
            return Err(RecordError::Io { path: "/dev/urandom".into(), source });
        }
        let identity = Identity::of_bytes(bytes);
        let page = Page {
            version: VERSION,
            identity: identity.to_string(),
            next_number: 1,
            unseen: BTreeMap::new(),
        };
        let record = Self { path, page, identity };
        record.write()?;
        Ok(record)
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A planner that goes on where the one before it was.
    pub fn planner(&self, limits: Limits) -> Planner {
        Planner::new(limits, self.page.next_number, &self.page.unseen)
    }

    /// Writes down what a planner has to know after a restart, if it has changed.
    pub fn keep(&mut self, planner: &Planner) -> Result<(), RecordError> {
        let (next_number, unseen) = (planner.next_number(), planner.unseen());
        if (self.page.next_number, &self.page.unseen) == (next_number, &unseen) {
            return Ok(());
        }
        self.page.next_number = next_number;
        self.page.unseen = unseen;
        self.write()
    }

    /// The old page or the new one, never half of one.
    fn write(&self) -> Result<(), RecordError> {
        let path = self.path.clone();
        let text = match serde_json::to_string(&self.page) {
            Ok(text) => text,
            Err(source) => return Err(RecordError::Syntax { path, source }),
        };
        let draft = path.with_extension("draft");
        let written = File::create(&draft).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        });
        written.map_err(|source| RecordError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::launcher::planner::{Observation, Step};
    use crate::launcher::profile::Profile;

    #[test]
    fn identity_and_numbers_outlive_the_process() {
        let state = tempfile::tempdir().unwrap();
        let limits = Limits { idle: Duration::from_secs(1), ..Profile::default().limits() };
        let mut record = Record::open(state.path()).unwrap();
        let mut planner = record.planner(limits);
        let seen = Observation { asked_at: Timestamp(5), allocations: BTreeMap::new() };
        let steps = planner.plan(Timestamp(5), 2, &seen);
        assert_eq!(steps, [Step::Submit { first: 1, count: 2 }]);
        record.keep(&planner).unwrap();

        let again = Record::open(state.path()).unwrap();
        assert_eq!(again.identity(), record.identity());
        let mut planner = again.planner(limits);
        assert_eq!(planner.next_number(), 3);
        assert_eq!(planner.plan(Timestamp(6), 2, &seen), [], "they may be on their way");

        let other = tempfile::tempdir().unwrap();
        assert_ne!(Record::open(other.path()).unwrap().identity(), record.identity());
    }

    #[test]
    fn a_record_that_is_not_understood_is_not_written_over() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(FILE);
        for bad in [
            "",
            "{}",
            r#"{"version":2,"identity":"010101010101","next_number":1,"unseen":{}}"#,
            r#"{"version":1,"identity":"; id","next_number":1,"unseen":{}}"#,
        ] {
            fs::write(&path, bad).unwrap();
            assert!(Record::open(state.path()).is_err(), "{bad}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
