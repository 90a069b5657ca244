//! The pretrained model as its Hugging Face directory describes it, without its weights: what `config.json` says,
//! which files have to be there, and what of it is trained and saved. The coordinator holds manifests against it, the
//! worker computes by it.

mod config;
mod depth;
mod directory;
mod dropout;
mod family;
mod head;
mod name;
mod saved;
mod trained;

pub use config::{CONFIG_FILE, ModelConfig};
pub use depth::Depth;
pub use directory::{
    TokenizerKind, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, tokenizer_file, weights_files,
};
pub use dropout::Dropout;
pub use family::{Family, TokenTypes};
pub use head::{BERT_HEADS, DISTILBERT_HEADS, HeadNames, NEXT_SENTENCE, ROBERTA_HEADS};
pub use name::{fits, is_buffer, is_layer_norm, modern_name};
pub use saved::{FIRST_MOMENT, SECOND_MOMENT, SavedParts};
pub use trained::{Shapes, read_shapes, trained};

/// Why a directory cannot be read as a model. None of them is mended by trying again, but for what the system says.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file of the model directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// `config.json` is no model this build can compute.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The list of the weights files cannot be used.
    #[error("{path} is no list of weights files: {reason}")]
    Index {
        /// The file.
        path: String,
        /// What the reader says.
        reason: String,
    },
    /// Weights in a format that can run programs.
    #[error(
        "{path} is in Python's pickle format, which is not read here; convert it once with \
         transformers: AutoModelForSequenceClassification.from_pretrained(DIRECTORY) and \
         save_pretrained(DIRECTORY), which writes model.safetensors"
    )]
    Pickle {
        /// The file.
        path: String,
    },
}
