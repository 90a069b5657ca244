//! BERT, DistilBERT and RoBERTa: configuration, weights, computation.

mod batch;
mod classifier;
mod dropout;
mod encoder;
mod family;
mod freeze;
mod hub;
mod language;
mod layer;
mod lazy_table;
mod load;
mod masking;
mod packing;
mod parameters;
mod task;
mod tensors;

pub use batch::TokenBatch;
pub use classifier::Classifier;
pub use encoder::Hidden;
pub use freeze::{Adaptation, Frozen};
pub use hub::{HubError, HubSettings, fetch};
pub(crate) use hub::{Watch, attend, discard, lock, lock_path, verify};
pub use language::{
    LanguageBatch, LanguageExample, LanguageLogits, LanguageLoss, LanguageModel, LanguageObjective,
    LossSum,
};
pub use load::Pretrained;
pub use masking::{MaskedTokens, MaskingVocabulary, mask_tokens};
pub use muster_common::model::{Depth, Dropout, Family, ModelConfig};
pub use parameters::NamedTensors;
pub use task::TaskModel;
pub use tensors::{named_tensors, read_tensors};

pub(crate) use batch::extent;
pub(crate) use family::{Activation, Described};
pub(crate) use layer::{LayerNorm, Linear};
pub(crate) use lazy_table::LazyTable;
pub(crate) use load::PretrainedStamp;
pub(crate) use muster_common::model::{CONFIG_FILE, TokenTypes, WEIGHTS_FILE, is_layer_norm};
pub use packing::{Frame, forward_batches, rounded};
pub(crate) use parameters::{Scope, duplicate};
pub(crate) use tensors::{serialize_tensors, texts_of};

use muster_common::count::counted;
use muster_common::manifest::Misfit;
use muster_common::model::DirectoryError;

use crate::data::DataError;
use crate::ffi::ShimError;

/// Why a model cannot be read or computed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The model directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The manifest asks for what the model cannot do.
    #[error("{0}")]
    Misfit(Misfit),
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
    /// More layers are named than the model has.
    #[error("{key} is {wanted}, but the model has {}", counted(.layers, "layer"))]
    Layers {
        /// The key of the manifest.
        key: &'static str,
        /// In the manifest.
        wanted: usize,
        /// In `config.json`.
        layers: usize,
    },
    /// A pattern of the manifest fits nothing.
    #[error(
        "model.freeze.patterns: no parameter of the pretrained model has a name like `{pattern}`"
    )]
    FreezePattern {
        /// The pattern.
        pattern: String,
    },
    /// What is drawn anew would never be trained.
    #[error("{name} is drawn anew and frozen: freeze less or reinitialize less")]
    FrozenNoise {
        /// The parameter.
        name: String,
    },
    /// Segments do not lie in their sequences.
    #[error("a first segment is longer than its sequence, or there are not as many of both")]
    Segments,
    /// Masked positions do not fit their tokens.
    #[error("masked positions lie outside their tokens, or are not as many as original tokens")]
    Masked,
    /// The tokenizer gives nothing to mask with.
    #[error("nothing can be masked with this tokenizer: {reason}")]
    Masking {
        /// What it lacks.
        reason: String,
    },
    /// A sequence that the model cannot take.
    #[error("a sequence of {}; the model takes 1 to {max}", counted(.tokens, "token"))]
    Length {
        /// Its length.
        tokens: usize,
        /// By `config.json`.
        max: i64,
    },
    /// A token that the model does not have.
    #[error(
        "the tokenizer gives the token {token}, but the model knows {vocab_size} tokens, from 0: the tokenizer belongs \
         to another model"
    )]
    Vocabulary {
        /// Its number.
        token: u32,
        /// By `config.json`.
        vocab_size: i64,
    },
    /// Pairs of texts for a model that tells no segments apart, though its family does.
    #[error(
        "a second segment, but the model has only {type_vocab_size} (type_vocab_size): take one made for pairs"
    )]
    TokenTypes {
        /// By `config.json`.
        type_vocab_size: i64,
    },
    /// Examples cannot be read.
    #[error(transparent)]
    Data(Box<DataError>),
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

impl From<DataError> for ModelError {
    fn from(error: DataError) -> Self {
        Self::Data(Box::new(error))
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
            Self::Data(error) => error.is_permanent(),
            Self::Directory(DirectoryError::Read { source, .. }) => {
                source.kind() == std::io::ErrorKind::NotFound
            }
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
