//! Private files: written whole or not at all, for their owner alone, and refused when others may read them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Access, AccessError};

/// Only the owner may read and write.
const PRIVATE: u32 = 0o600;
/// Bits that must not be set.
const OF_OTHERS: u32 = 0o077;
/// The same for what root has handed over through the group of the process, as the kubelet does with Secrets.
const OF_OTHERS_THAN_GROUP: u32 = 0o037;

/// An access file, JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    coordinator: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Access {
    /// Reads an access file.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let text = read_private(path)?;
        let format = |reason: String| AccessError::Format { path: path.to_owned(), reason };
        // The parser's own words may quote the secret; where it stumbled is enough.
        let written: Written = serde_json::from_str(&text).map_err(|error| {
            format(format!("line {} column {} is not as expected", error.line(), error.column()))
        })?;
        let token = written.token.map(|token| token.parse()).transpose();
        let token = token.map_err(|error: super::TokenError| format(error.to_string()))?;
        let fingerprint = written.fingerprint.map(|text| text.parse()).transpose()?;
        let coordinator = written.coordinator.trim_end_matches('/').to_owned();
        Ok(Self { coordinator, fingerprint, token })
    }

    /// Writes an access file for its owner alone; one that is there is replaced.
    pub fn write(&self, path: &Path) -> Result<(), AccessError> {
        let written = Written {
            coordinator: self.coordinator.clone(),
            fingerprint: self.fingerprint.map(|fingerprint| fingerprint.to_string()),
            token: self.token.as_ref().map(super::Token::reveal),
        };
        let mut text = serde_json::to_string_pretty(&written)
            .map_err(|error| file_error(path, io::Error::from(error)))?;
        text.push('\n');
        write_private(path, text.as_bytes())
    }
}

fn file_error(path: &Path, source: io::Error) -> AccessError {
    AccessError::File { path: path.to_owned(), source }
}

/// Reads a text that only its owner may read.
pub fn read_private(path: &Path) -> Result<String, AccessError> {
    let read = || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        Ok((mode, owner, io::read_to_string(file)?))
    };
    let (mode, owner, text) = read().map_err(|source| file_error(path, source))?;
    if is_open(mode, owner, rustix::process::geteuid().as_raw()) {
        return Err(AccessError::Open { path: path.to_owned(), mode });
    }
    Ok(text)
}

/// Whether others may read a file, or change it, that user `owner` has and user `reader` reads.
fn is_open(mode: u32, owner: u32, reader: u32) -> bool {
    let is_handed_over = owner == 0 && reader != 0;
    mode & if is_handed_over { OF_OTHERS_THAN_GROUP } else { OF_OTHERS } != 0
}

/// Replaces a file by one that only its owner may read. Whoever reads meanwhile sees the old one or the new one.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), AccessError> {
    let write = || {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            fs::create_dir_all(directory)?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = path.with_file_name(name);
        // One of a process that died has the mode it was made with.
        let _absent = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&new)?;
        let placed = file.write_all(content).and_then(|()| file.sync_all());
        if let Err(error) = placed.and_then(|()| fs::rename(&new, path)) {
            // Half a secret is of no use to anybody; the first error says more than one of this.
            let _kept = fs::remove_file(&new);
            return Err(error);
        }
        File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    write().map_err(|source| file_error(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_put_in_its_place_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let taken = directory.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(write_private(&taken, b"secret").is_err());
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn only_root_hands_a_file_over_through_a_group() {
        for (mode, owner, reader, is_refused) in [
            (0o600, 7, 7, false),
            (0o640, 7, 7, true),
            (0o440, 0, 7, false),
            (0o440, 0, 0, true),
            (0o440, 8, 7, true),
            (0o460, 0, 7, true),
            (0o444, 0, 7, true),
        ] {
            assert_eq!(is_open(mode, owner, reader), is_refused, "{mode:o} {owner} {reader}");
        }
    }
}
