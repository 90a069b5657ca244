//! Experiment files of other systems as manifests: Determined's experiments, W&B's sweeps, Katib's Experiments.
//! What cannot be carried over is named, key by key, with the reason; nothing is dropped in silence.

mod determined;
mod domain;
mod draft;
mod katib;
mod names;
mod reader;
mod wandb;

#[cfg(test)]
mod tests;

use std::fmt;

use muster_common::manifest::{Malformed, Node, NodeKind, parse_yaml};

use draft::Draft;
use reader::Reader;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    /// A Determined experiment configuration.
    Determined,
    /// A W&B sweep configuration.
    Wandb,
    /// A Katib Experiment of Kubernetes.
    Katib,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Determined => "a Determined experiment",
            Self::Wandb => "a W&B sweep",
            Self::Katib => "a Katib Experiment",
        })
    }
}

/// What the file cannot say.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// For `model.pretrained`.
    pub model: Option<String>,
    /// For `data.train.path`.
    pub data: Option<String>,
    /// For `data.text`.
    pub text: Option<String>,
    /// For `data.label.column`.
    pub label: Option<String>,
}

/// Something a reader of the result should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// Line of the file, from 1; 0: none.
    pub line: usize,
    /// Path of the key, as in `searcher.max_trials`.
    pub path: String,
    /// What becomes of it and why.
    pub reason: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.reason),
            line => write!(f, "line {line}: {}: {}", self.path, self.reason),
        }
    }
}

/// A manifest made from another system's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Whose file it was.
    pub dialect: Dialect,
    /// The manifest, with comments.
    pub text: String,
    /// Keys that are not carried over, in the order of the file.
    pub left_out: Vec<Remark>,
    /// Values of the manifest that the file does not give.
    pub assumed: Vec<Remark>,
}

/// Why a file is not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It is not YAML, or uses what no experiment needs.
    #[error("line {line}: {message}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Its keys are of none of the systems.
    #[error(
        "this is no Determined experiment (`searcher`, `hyperparameters`), no W&B sweep (`method`, \
         `parameters`) and no Katib Experiment (`kind: Experiment`, `spec`); --from names what it is"
    )]
    Unknown,
    /// It is what an import would make.
    #[error("this is a manifest of Muster already; `muster validate` checks it")]
    Own,
}

impl From<Malformed> for ImportError {
    fn from(Malformed { line, message }: Malformed) -> Self {
        Self::Malformed { line, message }
    }
}

/// Makes a manifest of `text`; `dialect` where it is known.
pub fn import(
    text: &str,
    dialect: Option<Dialect>,
    known: &Known,
) -> Result<Imported, ImportError> {
    let root = parse_yaml(text)?.ok_or(ImportError::Unknown)?;
    if dialect.is_none() && is_own(&root) {
        return Err(ImportError::Own);
    }
    let dialect = dialect.or_else(|| recognize(&root)).ok_or(ImportError::Unknown)?;
    let reader = Reader::new(&root);
    let mut draft = Draft::default();
    match dialect {
        Dialect::Determined => determined::read(&reader, &mut draft),
        Dialect::Wandb => wandb::read(&reader, &mut draft),
        Dialect::Katib => katib::read(&reader, &mut draft),
    }
    draft.settle(&reader);
    let left_out = reader.left_out();
    let text = draft.text(dialect, known, &left_out);
    Ok(Imported { dialect, text, left_out, assumed: draft.assumed })
}

/// Whose file a text is that was taken for a manifest of Muster; `None` where it may well be meant as one.
pub fn foreign(text: &str) -> Option<Dialect> {
    let root = parse_yaml(text).ok()??;
    // Without a program to start, a Determined experiment looks like a manifest with mistakes.
    let is_told = |dialect: &Dialect| *dialect != Dialect::Determined || has(&root, "entrypoint");
    recognize(&root).filter(|dialect| !is_own(&root) && is_told(dialect))
}

fn has(root: &Node, key: &str) -> bool {
    matches!(&root.kind, NodeKind::Mapping(entries) if entries.iter().any(|entry| entry.key == key))
}

/// Whether a file has what only Muster's manifests have.
fn is_own(root: &Node) -> bool {
    let has_sections = has(root, "model") && has(root, "data");
    (has(root, "version") || has(root, "budget") || has_sections) && !has(root, "entrypoint")
}

/// Tells the systems apart by the keys that each must have.
fn recognize(root: &Node) -> Option<Dialect> {
    let has = |key: &str| has(root, key);
    if has("apiVersion") && has("kind") && has("spec") {
        Some(Dialect::Katib)
    } else if has("parameters") && has("method") {
        Some(Dialect::Wandb)
    } else if has("searcher") || (has("hyperparameters") && has("entrypoint")) {
        Some(Dialect::Determined)
    } else {
        None
    }
}
