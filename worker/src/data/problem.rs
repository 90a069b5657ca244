//! What is wrong with rows: every case is counted and listed with its file and row.

use std::io::{self, Write};

use muster_common::count::counted;
use muster_common::run::DataSummary;
use serde_json::json;

use super::census::Census;

/// What can be wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Problem {
    /// Bytes are not UTF-8; U+FFFD stands for them.
    BadUtf8,
    /// The label is none of the classes.
    UnknownLabel,
    /// There is no text.
    Empty,
    /// The text stands in an earlier row of the training files.
    Duplicate,
    /// The same, with another label.
    Contrary,
    /// The text stands in an earlier row of a held-out file.
    HeldOutDuplicate,
    /// The text stands in a file that is held out.
    Leak,
    /// The text is nearly one of a file that is held out.
    NearLeak,
    /// The text is nearly one on the other side of the cut.
    Apart,
}

impl Problem {
    const ALL: [Self; 9] = [
        Self::BadUtf8,
        Self::UnknownLabel,
        Self::Empty,
        Self::Duplicate,
        Self::Contrary,
        Self::HeldOutDuplicate,
        Self::Leak,
        Self::NearLeak,
        Self::Apart,
    ];

    /// Name in the list of findings.
    fn name(self) -> &'static str {
        match self {
            Self::BadUtf8 => "bad_utf8",
            Self::UnknownLabel => "unknown_label",
            Self::Empty => "empty",
            Self::Duplicate => "duplicate",
            Self::Contrary => "contrary_label",
            Self::HeldOutDuplicate => "held_out_duplicate",
            Self::Leak => "leak",
            Self::NearLeak => "near_leak",
            Self::Apart => "near_duplicate_apart",
        }
    }

    /// A remark about so many rows.
    fn remark(self, count: u64) -> String {
        let (noun, is, are, what) = match self {
            Self::BadUtf8 => ("row", "was", "were", "not UTF-8; U+FFFD stands for the bytes"),
            Self::UnknownLabel => ("row", "has", "have", "a label that is none of the classes"),
            Self::Empty => ("row", "has", "have", "no text"),
            Self::Duplicate => ("row", "repeats", "repeat", "a text of the training files"),
            Self::Contrary => {
                ("repeated text", "has", "have", "another label than the first, which counts")
            }
            Self::HeldOutDuplicate => ("row", "repeats", "repeat", "a text within a held-out file"),
            Self::Leak => ("row", "has", "have", "a text that stands in a held-out file"),
            Self::NearLeak => ("row", "is", "are", "nearly the same as one of a held-out file"),
            Self::Apart => ("held-out row", "has", "have", "a near duplicate that is not held out"),
        };
        format!("{} {} {what}", counted(count, noun), if count == 1 { is } else { are })
    }
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) row: u32,
    pub(super) problem: Problem,
    /// Whether the row stays.
    pub(super) kept: bool,
    /// The other row, where there is one.
    pub(super) other: Option<u32>,
}

impl Finding {
    /// A finding about the row at `row` alone.
    pub(super) fn of(row: usize, problem: Problem, kept: bool) -> Self {
        Self { row: u32::try_from(row).unwrap_or(u32::MAX), problem, kept, other: None }
    }
}

/// Writes one JSON object per finding: `problem`, `file`, `row` (line or row number), `kept`, and
/// `of_file` and `of_row` where another row has to do with it.
pub(super) fn list(census: &Census, findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        let (file, row) = census.origin(finding.row);
        let mut line = json!({
            "problem": finding.problem.name(), "file": file, "row": row, "kept": finding.kept,
        });
        if let (Some(other), Some(fields)) = (finding.other, line.as_object_mut()) {
            let (file, row) = census.origin(other);
            fields.insert("of_file".to_owned(), json!(file));
            fields.insert("of_row".to_owned(), json!(row));
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Counts findings into the summary and says each kind in a remark with its first row.
pub(super) fn count(census: &Census, findings: &[Finding], summary: &mut DataSummary) {
    for problem in Problem::ALL {
        let cases = || findings.iter().filter(|finding| finding.problem == problem);
        let Some(first) = cases().min_by_key(|finding| finding.row) else { continue };
        let count = cases().count() as u64;
        let num_kept = cases().filter(|finding| finding.kept).count() as u64;
        let fate = match num_kept {
            0 => "left out".to_owned(),
            kept if kept == count => "kept".to_owned(),
            kept => format!("{kept} kept, {} left out", count - kept),
        };
        let place = census.place(first.row);
        let like = first.other.map(|row| format!(", as {}", census.place(row)));
        let like = like.unwrap_or_default();
        let what = problem.remark(count);
        // That a contrary label does not count is part of the remark.
        let fate = if problem == Problem::Contrary { String::new() } else { format!(", {fate}") };
        summary.remarks.push(format!("{what}{fate} (first: {place}{like})"));
        match problem {
            Problem::BadUtf8 => summary.flaws.num_bad_utf8 += count,
            Problem::UnknownLabel => summary.flaws.num_unknown_labels += count,
            Problem::Empty => summary.flaws.num_empty += count,
            Problem::Duplicate => summary.num_duplicates += count - num_kept,
            Problem::Leak => {
                summary.flaws.num_leaks += count;
                summary.num_duplicates += count - num_kept;
            }
            Problem::NearLeak => summary.flaws.num_near_leaks += count,
            _ => {}
        }
    }
}
