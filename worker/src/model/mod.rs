//! BERT for text classification: configuration, weights, computation.

mod batch;
mod bert;
mod config;
mod depth;
mod layer;
mod load;
mod parameters;

pub use batch::TokenBatch;
pub use bert::{Classifier, Frozen, Hidden};
pub use config::BertConfig;
pub use depth::Depth;
pub use load::{Pretrained, read_tensors};
pub use parameters::NamedTensors;

pub(crate) use batch::{extent, padding_mask};
pub(crate) use config::CONFIG_FILE;
pub(crate) use load::{WEIGHTS_FILE, named_tensors, serialize_tensors, texts_of};
pub(crate) use parameters::duplicate;

use crate::ffi::ShimError;

/// Why a model cannot be read or computed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the model directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// `config.json` is no BERT this build can compute.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The weights file is not readable as safetensors.
    #[error("{path} is not safetensors: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What the reader says.
        reason: String,
    },
    /// The names in the weights file are not those of the model in `config.json`.
    #[error(
        "{path} does not hold the model of its config.json: missing {missing}; unexpected {unexpected}"
    )]
    Names {
        /// The file.
        path: String,
        /// Names that should be there.
        missing: NameList,
        /// Names that should not.
        unexpected: NameList,
    },
    /// A parameter is not there.
    #[error("the weights have no parameter {name}")]
    MissingParameter {
        /// Its name.
        name: String,
    },
    /// A parameter has another shape.
    #[error("parameter {name} has shape {found:?} instead of {wanted:?}")]
    Shape {
        /// Its name.
        name: String,
        /// By `config.json`.
        wanted: Vec<i64>,
        /// In the weights.
        found: Vec<i64>,
    },
    /// More layers are to be frozen than the model has.
    #[error("model.freeze_layers is {wanted}, but the model has {layers} layers")]
    FreezeLayers {
        /// In the manifest.
        wanted: usize,
        /// In `config.json`.
        layers: usize,
    },
    /// A sequence that the model cannot take.
    #[error("a sequence of {tokens} tokens; the model takes 1 to {max}")]
    Length {
        /// Its length.
        tokens: usize,
        /// `max_position_embeddings` of `config.json`.
        max: i64,
    },
    /// Libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl From<tch::TchError> for ModelError {
    fn from(error: tch::TchError) -> Self {
        // Libtorch appends its own stack trace to the first line.
        let text = error.to_string();
        Self::Torch(text.lines().next().unwrap_or_default().to_owned())
    }
}

impl From<ShimError> for ModelError {
    fn from(error: ShimError) -> Self {
        Self::Torch(error.to_string())
    }
}

impl ModelError {
    /// The input is wrong: trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Torch(_) => false,
            Self::Read { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => true,
        }
    }
}

/// Names in a message: the first few and how many more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameList(pub Vec<String>);

impl std::fmt::Display for NameList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 6;
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let shown: Vec<&str> = self.0.iter().take(SHOWN).map(String::as_str).collect();
        f.write_str(&shown.join(", "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
