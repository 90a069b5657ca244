//! The pass over the files: what is remembered of every row. Texts go to the disk.
//!
//! 60 bytes per row: 16 of the digest, 4 of the class, 4 of the place, 32 of the signature, and 4 of
//! the group of near duplicates.

use std::collections::BTreeMap;

use muster_common::manifest::{Hygiene, LabelRule, Policy};
use sha2::{Digest, Sha256};

use super::DataError;
use super::label::{CLASSES_MAX, Classes, distinct, whole};
use super::moves::moved;
use super::near::{Signature, signature};
use super::parallel::each;
use super::problem::{Finding, Problem};
use super::rows::TextSpill;
use super::source::{Role, Row, SourceFile, Wanted, place};

/// Class of a row that is left out.
pub(super) const NO_CLASS: u32 = u32::MAX;

/// Rows that are looked at together.
const CHUNK: usize = 4096;

/// A file and where its rows begin.
#[derive(Debug)]
pub(super) struct FileNote {
    pub(super) shown: String,
    pub(super) role: Role,
    has_lines: bool,
    first_row: usize,
}

/// All rows of all files: training files first, then validation, then test.
#[derive(Debug, Default)]
pub(super) struct Census {
    files: Vec<FileNote>,
    /// First 16 bytes of the SHA-256 of the text without white space around it.
    pub(super) digests: Vec<u128>,
    /// Class of the row; [`NO_CLASS`] for what is left out.
    pub(super) classes: Vec<u32>,
    /// Line or row number in its file.
    at: Vec<u32>,
    /// Of the text; empty where near duplicates are not looked for.
    pub(super) signatures: Vec<Signature>,
    /// What is wrong with rows.
    pub(super) findings: Vec<Finding>,
    /// Class names in the order of their numbers; none where there are no labels.
    pub(super) names: Vec<String>,
    /// Rows whose label lies in no range.
    pub(super) num_left_out: u64,
}

/// How rows are looked at.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) rule: Option<&'a LabelRule>,
    pub(super) hygiene: Hygiene,
    /// Whether signatures are made.
    pub(super) near: bool,
    pub(super) num_threads: usize,
}

/// Labels of the training files that name no classes, as they are found.
#[derive(Debug, Default)]
struct Found {
    /// Number of each label, in the order of first rows.
    numbers: BTreeMap<String, u32>,
}

impl Survey<'_> {
    /// Reads all files. The texts of rows that have a class go to `texts`, which has a place for every
    /// row.
    pub(super) fn take(
        &self,
        files: &[(Role, Vec<SourceFile>)],
        texts: &mut TextSpill,
    ) -> Result<Census, DataError> {
        let mut census = Census::default();
        let mut classes = self.rule.and_then(Classes::written);
        for (role, files) in files {
            let mut found = Found::default();
            for file in files {
                let row = census.len();
                let (shown, has_lines) = (file.shown.clone(), file.has_lines());
                census.files.push(FileNote { shown, role: *role, has_lines, first_row: row });
                self.file(file, classes.as_ref(), &mut found, &mut census, texts)?;
                file.check_unchanged()?;
            }
            if *role == Role::Train
                && classes.is_none()
                && let Some(rule) = self.rule
            {
                let names = files.first().map_or("", |file| &file.shown);
                classes = Some(census.settle(rule.column(), &found, names)?);
            }
        }
        census.names = classes.map(|classes| classes.names).unwrap_or_default();
        Ok(census)
    }

    fn file(
        &self,
        file: &SourceFile,
        classes: Option<&Classes>,
        found: &mut Found,
        census: &mut Census,
        texts: &mut TextSpill,
    ) -> Result<(), DataError> {
        let mut chunk: Vec<Row> = Vec::with_capacity(CHUNK);
        let mut rows = file.rows(self.wanted)?;
        loop {
            chunk.clear();
            for row in rows.by_ref().take(CHUNK) {
                chunk.push(row.map_err(|why| why.of_file(&file.shown, file.has_lines()))?);
            }
            moved();
            if chunk.is_empty() {
                return Ok(());
            }
            let marks = each(&chunk, self.num_threads, |row| self.mark(row));
            let panicked = || DataError::CutOff { reason: "a thread panicked".to_owned() };
            for (row, (digest, signature)) in chunk.iter().zip(marks.ok_or_else(panicked)?) {
                let class = self.class(row, file, classes, found, census)?;
                census.push(row, class, digest)?;
                texts.push((class != NO_CLASS).then_some(row))?;
                census.signatures.extend(signature);
            }
        }
    }

    /// Digest and signature of a row.
    fn mark(&self, row: &Row) -> (u128, Option<Signature>) {
        let text = row.text.trim();
        let mut hash = Sha256::new();
        hash.update(text.as_bytes());
        if let Some(pair) = &row.pair {
            // No text holds this byte, so that no two pairs are one.
            hash.update([0xff]);
            hash.update(pair.trim().as_bytes());
        }
        let digest = hash.finalize();
        let digest =
            digest.iter().take(16).rev().fold(0, |sum, byte| (sum << 8) | u128::from(*byte));
        let near = self.near.then(|| match &row.pair {
            Some(pair) => signature(&format!("{text}\n{pair}")),
            None => signature(text),
        });
        (digest, near)
    }

    /// The class of a row, which is the next of the census.
    fn class(
        &self,
        row: &Row,
        file: &SourceFile,
        classes: Option<&Classes>,
        found: &mut Found,
        census: &mut Census,
    ) -> Result<u32, DataError> {
        let refused =
            |why: String| DataError::refused(place(&file.shown, file.has_lines(), row.at), why);
        let mut judge = |problem: Problem, policy: Policy, why: &dyn Fn() -> String| {
            if policy == Policy::Refuse {
                return Err(refused(why()));
            }
            let kept = policy == Policy::Keep;
            census.findings.push(Finding::of(census.digests.len(), problem, kept));
            Ok(kept)
        };
        let hygiene = self.hygiene;
        if row.repaired {
            let why = || "bytes are not UTF-8: convert the file, for example with iconv".to_owned();
            if !judge(Problem::BadUtf8, hygiene.bad_utf8, &why)? {
                return Ok(NO_CLASS);
            }
        }
        let is_empty = |text: &String| text.trim().is_empty();
        let empty = is_empty(&row.text) && row.pair.as_ref().is_none_or(is_empty);
        let class = match (&row.label, classes) {
            // Folders of data sets have labels that an objective without labels does not want.
            _ if self.rule.is_none() => Ok(Some(0)),
            (None, _) => Err("the row has no label".to_owned()),
            (Some(label), Some(classes)) => classes.of(label),
            (Some(label), None) => found.number(label).map(Some),
        };
        match class {
            Err(why) => {
                judge(Problem::UnknownLabel, hygiene.unknown_labels, &|| why.clone())?;
                Ok(NO_CLASS)
            }
            _ if empty => {
                let why = || "the row has no text: remove it".to_owned();
                judge(Problem::Empty, hygiene.empty, &why)?;
                Ok(NO_CLASS)
            }
            Ok(None) => {
                census.num_left_out += 1;
                Ok(NO_CLASS)
            }
            Ok(Some(class)) => Ok(class),
        }
    }
}

impl Found {
    fn number(&mut self, label: &str) -> Result<u32, String> {
        let label = whole(label);
        if label.is_empty() {
            return Err("the label is empty: remove the row or give it a class".to_owned());
        }
        if let Some(number) = self.numbers.get(label) {
            return Ok(*number);
        }
        if self.numbers.len() == CLASSES_MAX {
            return Err(format!(
                "the label column has more than {CLASSES_MAX} different values: name the classes \
                 with `label.names`, or cut numbers into classes with `label.ranges`"
            ));
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(NO_CLASS);
        self.numbers.insert(label.to_owned(), number);
        Ok(number)
    }
}

impl Census {
    /// Rows of all files.
    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    fn push(&mut self, row: &Row, class: u32, digest: u128) -> Result<(), DataError> {
        if self.digests.len() >= NO_CLASS as usize {
            let message = format!("more than {NO_CLASS} rows: this build numbers no more");
            return Err(DataError::refused("data", message));
        }
        self.digests.push(digest);
        self.classes.push(class);
        self.at.push(u32::try_from(row.at).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Numbers the classes that were found in the training files by the order of their names.
    fn settle(&mut self, column: &str, found: &Found, file: &str) -> Result<Classes, DataError> {
        let names = distinct(column, found.numbers.keys().map(String::as_str))
            .map_err(|why| DataError::refused(file, why))?;
        let position = |label: &String| names.iter().position(|name| name == label);
        let mut settled = vec![NO_CLASS; found.numbers.len()];
        for (label, number) in &found.numbers {
            let class = position(label).and_then(|class| u32::try_from(class).ok());
            if let Some(slot) = settled.get_mut(*number as usize) {
                *slot = class.unwrap_or(NO_CLASS);
            }
        }
        for class in &mut self.classes {
            *class = settled.get(*class as usize).copied().unwrap_or(NO_CLASS);
        }
        Ok(Classes::named(names))
    }

    /// What the files of a row's split are for.
    pub(super) fn role(&self, row: u32) -> Role {
        self.file(row).map_or(Role::Train, |file| file.role)
    }

    fn file(&self, row: u32) -> Option<&FileNote> {
        let after = self.files.partition_point(|file| file.first_row <= row as usize);
        // Files without rows begin where the next one does; the last of them has the row.
        self.files.get(after.checked_sub(1)?)
    }

    /// Number of the file, and of the row in it, both from 0.
    pub(super) fn position(&self, row: u32) -> (u32, u32) {
        let after = self.files.partition_point(|file| file.first_row <= row as usize);
        let file = after.saturating_sub(1);
        let first = self.files.get(file).map_or(0, |file| file.first_row);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        (number(file), row.saturating_sub(number(first)))
    }

    /// File and line or row number.
    pub(super) fn origin(&self, row: u32) -> (&str, u32) {
        let at = self.at.get(row as usize).copied().unwrap_or(0);
        (self.file(row).map_or("", |file| &file.shown), at)
    }

    /// `FILE:LINE` or `FILE, row N`.
    pub(super) fn place(&self, row: u32) -> String {
        let (shown, at) = self.origin(row);
        place(shown, self.file(row).is_none_or(|file| file.has_lines), u64::from(at))
    }

    /// The first training file, for messages about all of them.
    pub(super) fn pool(&self) -> &str {
        self.files.first().map_or("data.train", |file| &file.shown)
    }

    /// Rows of a role.
    pub(super) fn rows(&self, role: Role) -> std::ops::Range<u32> {
        let begins = |wanted: &dyn Fn(Role) -> bool| {
            let first = self.files.iter().find(|file| wanted(file.role));
            let row = first.map_or(self.len(), |file| file.first_row);
            u32::try_from(row).unwrap_or(u32::MAX)
        };
        begins(&|found| found >= role)..begins(&|found| found > role)
    }
}
