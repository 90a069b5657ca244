//! The files of a model directory: which hold the weights, which the tokenizer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::DirectoryError;

/// Name of the weights in a model directory.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Name of the file that says which of several weights files holds which tensor.
pub const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";

/// Weights in Python's own format, which may run any program when it is read.
const PICKLE_FILES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Names of the files of a tokenizer in Hugging Face layout.
pub mod tokenizer_file {
    /// The whole tokenizer in one file; the others are read without it.
    pub const WHOLE: &str = "tokenizer.json";
    /// Words of WordPiece, one per line.
    pub const WORDS: &str = "vocab.txt";
    /// Pieces of byte-level BPE and their numbers.
    pub const PIECES: &str = "vocab.json";
    /// Merges of byte-level BPE, the first come first.
    pub const MERGES: &str = "merges.txt";
}

/// How the tokenizer of a directory is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerKind {
    /// In one file.
    Whole,
    /// `WordPiece`: BERT and `DistilBERT`.
    Words,
    /// Byte-level BPE: `RoBERTa`.
    BytePairs,
}

impl TokenizerKind {
    /// The first kind whose files are there.
    pub fn find(directory: &Path) -> Option<Self> {
        use tokenizer_file::{MERGES, PIECES, WHOLE, WORDS};
        let is_there = |name: &str| directory.join(name).exists();
        if is_there(WHOLE) {
            return Some(Self::Whole);
        }
        if is_there(WORDS) {
            return Some(Self::Words);
        }
        (is_there(PIECES) && is_there(MERGES)).then_some(Self::BytePairs)
    }

    /// What to say of a directory without one.
    pub fn missing() -> String {
        use tokenizer_file::{MERGES, PIECES, WHOLE, WORDS};
        format!("there is no tokenizer here: expected {WHOLE}, {WORDS}, or {PIECES} with {MERGES}")
    }
}

/// The part of an index that is read.
#[derive(Debug, Deserialize)]
struct WeightsIndex {
    weight_map: BTreeMap<String, String>,
}

/// The files that hold the weights of the model in `directory`, by name, sorted. Where there are none, the one that
/// should be there: reading it says what is missing.
pub fn weights_files(directory: &Path) -> Result<Vec<String>, DirectoryError> {
    let is_there = |name: &str| directory.join(name).exists();
    let full = |name: &str| directory.join(name).display().to_string();
    if is_there(WEIGHTS_FILE) {
        return Ok(vec![WEIGHTS_FILE.to_owned()]);
    }
    if is_there(WEIGHTS_INDEX_FILE) {
        let path = full(WEIGHTS_INDEX_FILE);
        let bytes = std::fs::read(&path)
            .map_err(|source| DirectoryError::Read { path: path.clone(), source })?;
        let refused = |reason: String| DirectoryError::Index { path: path.clone(), reason };
        let index: WeightsIndex =
            serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
        let files: BTreeSet<String> = index.weight_map.into_values().collect();
        // A name is a place in this directory and nothing else.
        let strange = |file: &&String| Path::new(file).file_name() != Some(file.as_ref());
        if let Some(file) = files.iter().find(strange) {
            return Err(refused(format!("`{file}` is no name of a file beside it")));
        }
        return Ok(files.into_iter().collect());
    }
    if let Some(file) = PICKLE_FILES.into_iter().find(|file| is_there(file)) {
        return Err(DirectoryError::Pickle { path: full(file) });
    }
    Ok(vec![WEIGHTS_FILE.to_owned()])
}
