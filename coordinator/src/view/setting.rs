//! The value of a hyperparameter where numbers and words stand in one column.

use muster_common::manifest::ParameterValue;
use serde::Serialize;

/// A number, or a word.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Setting {
    /// A number.
    Number(f64),
    /// A word, as the manifest has it.
    Word(&'static str),
}

impl From<ParameterValue> for Setting {
    fn from(value: ParameterValue) -> Self {
        value.category().map_or(Self::Number(value.as_f64()), |word| Self::Word(word.name()))
    }
}
