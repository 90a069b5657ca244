//! What the words of a text have to do with its prediction, as a worker tells whoever makes a report.

use serde::{Deserialize, Serialize};

/// A text to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributedText {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(default)]
    pub text_pair: Option<String>,
}

/// One word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WordWeight {
    /// Whether it is of the second text of a pair.
    pub in_pair: bool,
    /// First byte in its text.
    pub start: usize,
    /// First byte behind it.
    pub end: usize,
    /// How much it speaks for the predicted class (above zero) or against it, in logits.
    pub weight: f64,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// Name of the predicted class.
    pub predicted: String,
    /// Its probability, 0 to 1.
    pub probability: f64,
    /// The words that the model has read, in their order.
    pub words: Vec<WordWeight>,
    /// By how much the weights miss what they should add up to, as a share of it; absent where that is nothing.
    pub completeness_error: Option<f64>,
}
