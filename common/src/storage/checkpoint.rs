//! When a checkpoint exists, and what its index says.
//!
//! Parts are written first, the index last and only if it is not there yet. A checkpoint without an
//! index does not exist. A reader checks every part against the sizes and digests of the index.

use serde::{Deserialize, Serialize};

use super::layout::CheckpointKey;
use crate::digest::ContentHash;
use crate::id::Attempt;
use crate::time::Timestamp;

/// Version of the index and of the parts it lists: a part may be several objects, `NAME-2-of-4`.
pub const CHECKPOINT_FORMAT: u32 = 3;
/// Version of those in which every part is one object.
pub const WHOLE_CHECKPOINT_FORMAT: u32 = 2;

/// Contents of `index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointIndex {
    /// [`CHECKPOINT_FORMAT`] of the writer, or the oldest one that describes it.
    pub format: u32,
    /// Trial, step and generation; repeated here so that a copied directory is recognised.
    pub checkpoint: CheckpointKey,
    /// Number of the run that wrote it within its trial.
    pub attempt: Attempt,
    /// The checkpoint the run continued from.
    pub parent: Option<CheckpointKey>,
    /// Digest of the pretrained weights: parts hold only what training changed.
    pub pretrained: ContentHash,
    /// When the index was written.
    pub created_at: Timestamp,
    /// Every other object of the checkpoint, sorted by name.
    pub parts: Vec<CheckpointPart>,
}

/// One object of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointPart {
    /// Name without ending, for example `model`, or `model-2-of-4` for what one of four ranks wrote of it.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Digest of the whole object.
    pub sha256: ContentHash,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The index is not JSON of the expected form.
    #[error("index of checkpoint {checkpoint} is damaged: {reason}")]
    DamagedIndex {
        /// Which checkpoint.
        checkpoint: CheckpointKey,
        /// What the parser says.
        reason: String,
    },
    /// Written by a newer build.
    #[error(
        "checkpoint {checkpoint} has format {format}, this build reads up to {CHECKPOINT_FORMAT}: use a newer muster"
    )]
    NewerFormat {
        /// Which checkpoint.
        checkpoint: CheckpointKey,
        /// Its format.
        format: u32,
    },
    /// The index belongs to another checkpoint.
    #[error("index at {checkpoint} belongs to {found}")]
    Foreign {
        /// Where it was read.
        checkpoint: CheckpointKey,
        /// What it says it is.
        found: CheckpointKey,
    },
    /// The checkpoint was made from other pretrained weights.
    #[error("checkpoint {checkpoint} was trained from other pretrained weights (sha256 {found})")]
    OtherPretrained {
        /// Which checkpoint.
        checkpoint: CheckpointKey,
        /// Digest in its index.
        found: String,
    },
    /// The index lists no part of this name.
    #[error("checkpoint {checkpoint} has no part `{part}`")]
    MissingPart {
        /// Which checkpoint.
        checkpoint: CheckpointKey,
        /// Which part.
        part: String,
    },
    /// The index is gone, or was never written.
    #[error("checkpoint {checkpoint} has no index")]
    NoIndex {
        /// Which checkpoint.
        checkpoint: CheckpointKey,
    },
    /// A part that the index lists is gone.
    #[error("part `{part}` of checkpoint {checkpoint} is missing")]
    LostPart {
        /// Which checkpoint.
        checkpoint: CheckpointKey,
        /// Which part.
        part: String,
    },
    /// A part is not the one that was written.
    #[error("part `{part}` of checkpoint {checkpoint} is damaged: {reason}")]
    DamagedPart {
        /// Which checkpoint.
        checkpoint: CheckpointKey,
        /// Which part.
        part: String,
        /// Size or digest, wanted and found.
        reason: String,
    },
}

impl CheckpointError {
    /// Whether the checkpoint has come to harm since it was written, so that an earlier one of the same
    /// lineage can stand in for it.
    pub fn is_harm(&self) -> bool {
        !matches!(self, Self::NewerFormat { .. } | Self::OtherPretrained { .. })
    }
}

impl CheckpointIndex {
    /// Parses the index read at `key` and checks that it belongs there.
    pub fn parse(key: &CheckpointKey, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let index: Self = serde_json::from_slice(bytes).map_err(|error| {
            CheckpointError::DamagedIndex { checkpoint: key.clone(), reason: error.to_string() }
        })?;
        if index.format > CHECKPOINT_FORMAT {
            let format = index.format;
            return Err(CheckpointError::NewerFormat { checkpoint: key.clone(), format });
        }
        if index.checkpoint != *key {
            let found = index.checkpoint;
            return Err(CheckpointError::Foreign { checkpoint: key.clone(), found });
        }
        Ok(index)
    }

    /// The entry of part `name`.
    pub fn part(&self, name: &str) -> Result<&CheckpointPart, CheckpointError> {
        self.parts.iter().find(|part| part.name == name).ok_or_else(|| {
            CheckpointError::MissingPart {
                checkpoint: self.checkpoint.clone(),
                part: name.to_owned(),
            }
        })
    }

    /// Checks the bytes of part `name` against size and digest.
    pub fn verify(&self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let part = self.part(name)?;
        let damaged = |reason| CheckpointError::DamagedPart {
            checkpoint: self.checkpoint.clone(),
            part: name.to_owned(),
            reason,
        };
        if bytes.len() as u64 != part.bytes {
            return Err(damaged(format!("{} bytes instead of {}", bytes.len(), part.bytes)));
        }
        let found = ContentHash::of(bytes);
        if found != part.sha256 {
            return Err(damaged(format!(
                "sha256 {} instead of {}",
                found.short(),
                part.sha256.short()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Generation, TrialId};
    use proptest::prelude::*;

    fn index() -> CheckpointIndex {
        let trial = TrialId { experiment: "demo-1".parse().unwrap(), number: 1 };
        CheckpointIndex {
            format: CHECKPOINT_FORMAT,
            checkpoint: CheckpointKey { trial, step: 40, generation: Generation(3) },
            attempt: Attempt(1),
            parent: None,
            pretrained: ContentHash::of(b"weights"),
            created_at: Timestamp(0),
            parts: vec![CheckpointPart {
                name: "model".to_owned(),
                bytes: 5,
                sha256: ContentHash::of(b"model"),
            }],
        }
    }

    #[test]
    fn damaged_truncated_missing_and_foreign_parts_are_named() {
        let index = index();
        assert!(index.verify("model", b"model").is_ok());
        assert!(index.verify("model", b"mode1").unwrap_err().to_string().contains("`model`"));
        assert!(index.verify("model", b"mode").unwrap_err().to_string().contains("4 bytes"));
        assert!(index.verify("optimizer", b"").unwrap_err().to_string().contains("`optimizer`"));
        let bytes = serde_json::to_vec(&index).unwrap();
        let other = CheckpointKey { step: 41, ..index.checkpoint.clone() };
        assert!(matches!(
            CheckpointIndex::parse(&other, &bytes),
            Err(CheckpointError::Foreign { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            prop_assert!(CheckpointIndex::parse(&index().checkpoint, &bytes).is_err());
        }

        #[test]
        fn every_cut_of_an_index_is_refused(cut in 0usize..400) {
            let bytes = serde_json::to_vec(&index()).unwrap();
            prop_assume!(cut < bytes.len());
            prop_assert!(CheckpointIndex::parse(&index().checkpoint, &bytes[..cut]).is_err());
        }
    }
}
