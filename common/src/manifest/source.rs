//! Where examples come from, how labels are read, and what is held out.

use serde::{Deserialize, Deserializer, Serialize};

use super::hub::HubName;

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
    /// Column with the second text of a pair.
    #[serde(default)]
    pub text_pair: Option<String>,
    /// How the label is read; absent only for objectives that need none.
    #[serde(default)]
    pub label: Option<LabelRule>,
    /// What becomes of rows that something is wrong with.
    #[serde(default)]
    pub hygiene: Hygiene,
}

/// Where the examples of one split come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Files, patterns of files, folders and URLs, in the order of the rows; relative paths start
    /// at the working directory of `muster`.
    #[serde(rename = "path", deserialize_with = "one_or_many")]
    pub paths: Vec<String>,
    /// A data set of a hub, in place of paths.
    #[serde(default)]
    pub hub: Option<HubSet>,
    /// How they are read.
    pub format: SourceFormat,
}

/// A split of a data set on a Hugging Face hub, in Parquet files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubSet {
    /// `org/name`, `name` or `org/name@revision`.
    pub name: HubName,
    /// Which configuration of it, where it has several.
    pub config: Option<String>,
    /// Its own name of the split; absent: `train`, `validation` or `test`, as it is used.
    pub split: Option<String>,
}

/// Journals of older builds hold one path where there is a list now.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Paths {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Paths::deserialize(deserializer)? {
        Paths::One(path) => vec![path],
        Paths::Many(paths) => paths,
    })
}

impl Source {
    /// Whether a path is a URL rather than a path of this machine.
    pub fn is_url(path: &str) -> bool {
        path.contains("://")
    }
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
    /// One text per line, blank lines between documents; the column is called `text`.
    Text,
    /// Folder of a GLUE task: `train.tsv`, `dev.tsv`, `test.tsv`, each with a header line.
    Glue,
    /// Folder of the Large Movie Review Dataset: `train/pos/*.txt` and so on; the columns are
    /// called `text` and `label` (`neg`, `pos`).
    AclImdb,
}

/// Columns named in a message about one that is missing.
const COLUMNS_SHOWN: usize = 20;

/// Says that a file has no column `name`, which it has, and what else may be meant: another separator or spelling.
pub fn no_column(columns: &[String], name: &str) -> String {
    let some: Vec<&str> = columns.iter().take(COLUMNS_SHOWN).map(String::as_str).collect();
    let message = format!("there is no column `{name}`; the columns are `{}`", some.join("`, `"));
    let others = [(';', "semicolons"), ('\t', "tabs"), ('|', "bars"), (',', "commas")];
    let is_named =
        |separator: char| some.iter().any(|found| found.split(separator).any(|part| part == name));
    match others.into_iter().find(|(separator, _)| is_named(*separator)) {
        Some(('\t', _)) => format!("{message}; tabs separate there: add `format: tsv`"),
        Some((',', _)) => format!("{message}; commas separate there: add `format: csv`"),
        Some((_, names)) => {
            format!(
                "{message}; {names} separate there: write the file anew with commas, `format: csv`"
            )
        }
        None => match columns.iter().find(|column| column.trim().eq_ignore_ascii_case(name.trim()))
        {
            Some(near) => format!("{message}; is it `{near}`?"),
            None => message,
        },
    }
}

/// What becomes of rows that something is wrong with. Whatever is chosen, they are counted and
/// listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hygiene {
    /// Rows of the training files whose text stands in an earlier row.
    pub duplicates: Policy,
    /// Rows whose text stands in a file that is held out.
    pub leaks: Policy,
    /// Rows of the training files whose text is nearly one of a held-out file.
    pub near_leaks: Policy,
    /// Whether rows that are nearly the same stay on one side when a split is cut.
    pub near_duplicates: NearDuplicates,
    /// Rows without text.
    pub empty: Policy,
    /// Rows whose label is none of the classes.
    pub unknown_labels: Policy,
    /// Rows with bytes that are not UTF-8; to keep them is to put U+FFFD for the bytes.
    pub bad_utf8: Policy,
}

impl Default for Hygiene {
    fn default() -> Self {
        Self {
            duplicates: Policy::Drop,
            leaks: Policy::Drop,
            near_leaks: Policy::Keep,
            near_duplicates: NearDuplicates::Together,
            empty: Policy::Drop,
            unknown_labels: Policy::Refuse,
            bad_utf8: Policy::Keep,
        }
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// It stays.
    Keep,
    /// It is left out.
    Drop,
    /// The data is refused.
    Refuse,
}

/// What is done about rows that are nearly the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NearDuplicates {
    /// They are found and stay on one side of a cut.
    Together,
    /// They are not looked for.
    Ignore,
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
    /// Files of its own.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_column_is_looked_for_behind_other_separators() {
        let said = |columns: &[&str]| {
            let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
            no_column(&columns, "review")
        };
        assert_eq!(
            said(&["text", "label"]),
            "there is no column `review`; the columns are `text`, `label`"
        );
        assert!(said(&["review;sentiment"]).ends_with(
            "semicolons separate there: write the file anew with commas, `format: csv`"
        ));
        assert!(said(&["id\treview"]).ends_with("tabs separate there: add `format: tsv`"));
        assert!(said(&["id,review"]).ends_with("commas separate there: add `format: csv`"));
        assert!(said(&["Review ", "label"]).ends_with("is it `Review `?"));
    }
}
