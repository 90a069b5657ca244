//! Where examples come from, how labels are read, and what is held out.

use serde::{Deserialize, Serialize};

/// The data section of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSettings {
    /// Training examples, and the pool that held-out splits are cut from.
    pub train: Source,
    /// Examples the searcher decides on.
    pub validation: Holdout,
    /// Examples scored once, for the chosen trial.
    pub test: Holdout,
    /// Column with the text.
    pub text: String,
    /// How the label is read.
    pub label: LabelRule,
}

/// One file of examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Path of the file; relative paths start at the working directory of `muster`.
    pub path: String,
    /// How it is read.
    pub format: SourceFormat,
}

/// File formats of examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// Lines of fields.
    Delimited {
        /// What separates fields.
        delimiter: Delimiter,
        /// Column names when the file has no header line.
        columns: Option<Vec<String>>,
    },
    /// One JSON object per line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
}

/// Field separators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delimiter {
    /// RFC 4180: comma, double quotes quote.
    Comma,
    /// Tab separated; quotes are ordinary characters.
    Tab,
}

/// Where a held-out split comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holdout {
    /// A file of its own.
    Source(Source),
    /// So many examples cut from the training file.
    Count(u64),
    /// This share of the training file, between 0 and 1.
    Fraction(f64),
    /// None; only legal for the test split.
    Absent,
}

/// How a column becomes a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelRule {
    /// The column holds the class: a whole number from 0, or a name.
    Class {
        /// Column name.
        column: String,
        /// Class names in the order of their numbers; absent: the sorted distinct values.
        names: Option<Vec<String>>,
    },
    /// The column holds a number; each class is a range of it and what lies in none is left out.
    Ranges {
        /// Column name.
        column: String,
        /// The classes, disjoint, in the order of their numbers.
        ranges: Vec<LabelRange>,
    },
}

impl LabelRule {
    /// The column read.
    pub fn column(&self) -> &str {
        match self {
            Self::Class { column, .. } | Self::Ranges { column, .. } => column,
        }
    }
}

/// The numbers of one class: above `above` and below `below`, both exclusive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelRange {
    /// Name of the class.
    pub name: String,
    /// Exclusive lower bound; absent: none.
    pub above: Option<f64>,
    /// Exclusive upper bound; absent: none.
    pub below: Option<f64>,
}

impl LabelRange {
    /// Whether `value` belongs to the class.
    pub fn contains(&self, value: f64) -> bool {
        self.above.is_none_or(|bound| value > bound) && self.below.is_none_or(|bound| value < bound)
    }

    /// Whether some number lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let low = match (self.above, other.above) {
            (Some(a), Some(b)) => a.max(b),
            (a, b) => a.or(b).unwrap_or(f64::NEG_INFINITY),
        };
        let high = match (self.below, other.below) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).unwrap_or(f64::INFINITY),
        };
        low < high
    }
}
