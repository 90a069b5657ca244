//! Reads values out of the document and collects every mistake, so that a user mends a manifest in
//! one go. Each issue has the line, the path and, where there is one, the mend.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use super::document::{Entry, Node, NodeKind, shown};
use super::synonym::{home, synonym};

/// Names closer than this (Jaro-Winkler, 0 to 1) are offered as "did you mean".
const SIMILARITY_MIN: f64 = 0.8;

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issue {
    /// Line, from 1.
    pub line: usize,
    /// Path of the value, for example `data.label.column`; empty for the whole document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub mend: Option<String>,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.mend {
            Some(mend) => write!(f, "; {mend}"),
            None => Ok(()),
        }
    }
}

/// A manifest was refused. Every mistake found, in the order of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// At least one.
    pub issues: Vec<Issue>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{issue}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

/// Where mistakes are collected.
#[derive(Debug, Default)]
pub(super) struct Issues(RefCell<Vec<Issue>>);

impl Issues {
    pub(super) fn add(&self, line: usize, path: &str, message: impl Into<String>) {
        self.push(Issue { line, path: path.to_owned(), message: message.into(), mend: None });
    }

    pub(super) fn add_mend(
        &self,
        at: (usize, &str),
        message: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let (line, path) = (at.0, at.1.to_owned());
        let (message, mend) = (message.into(), Some(mend.into()));
        self.push(Issue { line, path, message, mend });
    }

    /// An issue is one line for a terminal, whatever a quoted name or text holds.
    fn push(&self, mut issue: Issue) {
        for text in [Some(&mut issue.path), Some(&mut issue.message), issue.mend.as_mut()] {
            if let Some(text) = text.filter(|text| text.contains(char::is_control)) {
                *text = text.replace(char::is_control, "\u{fffd}");
            }
        }
        self.0.borrow_mut().push(issue);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn into_error(self) -> ManifestError {
        let mut issues = self.0.into_inner();
        issues.sort_by_key(|issue| issue.line);
        // A section that is read as two things reports its repeated keys twice.
        let mut seen = BTreeSet::new();
        issues.retain(|issue| seen.insert(issue.clone()));
        ManifestError { issues }
    }
}

/// A mapping being read. Keys that nobody asked for are refused by [`Section::finish`].
pub(super) struct Section<'a> {
    path: String,
    line: usize,
    entries: &'a [Entry],
    asked: RefCell<Vec<&'static str>>,
    issues: &'a Issues,
}

/// One value, its path and where to complain.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    /// The line a message names: a block of keys begins below its own key, which is what a reader
    /// looks for.
    line: usize,
    node: &'a Node,
    pub(super) issues: &'a Issues,
}

impl<'a> Section<'a> {
    pub(super) fn open(field: &Field<'a>) -> Option<Self> {
        let NodeKind::Mapping(entries) = &field.node.kind else {
            field.refuse(format!("expected a mapping, found {}", field.node.describe()));
            return None;
        };
        let (path, line, issues) = (field.path.clone(), field.line, field.issues);
        for (index, entry) in entries.iter().enumerate() {
            if let Some(first) = entries[..index].iter().find(|other| other.key == entry.key) {
                let message = format!("`{}` stands on line {} already", entry.key, first.line);
                issues.add_mend((entry.line, &path), message, "keep one of the two");
            }
        }
        Some(Self { path, line, entries, asked: RefCell::default(), issues })
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Line of the key, or of the section when the key is absent.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.line, |entry| entry.line)
    }

    /// The value of `key`; absent and null are the same.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        self.asked.borrow_mut().push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!entry.value.is_null()).then(|| self.field(entry))
    }

    /// The value of `key`, whose absence is a mistake.
    pub(super) fn require(&self, key: &'static str, example: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() {
            let mend = format!("add `{key}: {example}`");
            let at = self.path_of(key);
            self.issues.add_mend((self.line_of(key), &at), "missing", mend);
        }
        field
    }

    /// Every entry, for mappings whose keys are names.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + '_ {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.field(entry)))
    }

    fn field(&self, entry: &'a Entry) -> Field<'a> {
        let node = &entry.value;
        let written = matches!(&node.kind, NodeKind::Scalar { text, .. } if !text.is_empty());
        let line = if written { node.line } else { entry.line };
        Field { path: self.path_of(&entry.key), line, node, issues: self.issues }
    }

    /// Refuses keys that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for entry in self.entries.iter().filter(|entry| !asked.contains(&entry.key.as_str())) {
            let known = || asked.iter().copied();
            let mend = match (synonym(&entry.key, known()), home(&entry.key)) {
                (None, Some((section, name))) => format!("write it as `{section}.{name}`"),
                _ => match closest(&entry.key, known()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known here: {}", asked.join(", ")),
                },
            };
            let at = self.path_of(&entry.key);
            self.issues.add_mend((entry.line, &at), "unknown key", mend);
        }
    }
}

/// The name that other systems have `text` for, else the one most like it, if one is like it at all.
pub(super) fn closest<'n>(
    text: &str,
    names: impl Iterator<Item = &'n str> + Clone,
) -> Option<&'n str> {
    if let Some(name) = synonym(text, names.clone()) {
        return Some(name);
    }
    let scored = names.map(|name| (strsim::jaro_winkler(text, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= SIMILARITY_MIN).then_some(best.1)
}

impl<'a> Field<'a> {
    /// The whole document.
    pub(super) fn root(node: &'a Node, issues: &'a Issues) -> Self {
        Self { path: String::new(), line: node.line, node, issues }
    }

    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.issues.add(self.line, &self.path, message);
    }

    pub(super) fn refuse_mend(&self, message: impl Into<String>, mend: impl Into<String>) {
        self.issues.add_mend((self.line, &self.path), message, mend);
    }

    /// A rule over several sections complains about the value at `path`, or, where a key of it is
    /// absent, in the section that lacks it. `[1]` is the second item of a list.
    pub(super) fn refuse_below(&self, path: &[&str], message: impl Into<String>, mend: &str) {
        let (mut line, mut node) = (self.line, self.node);
        for key in path {
            let found = match &node.kind {
                NodeKind::Mapping(entries) => entries
                    .iter()
                    .find(|entry| entry.key == *key)
                    .map(|entry| (entry.line, &entry.value)),
                NodeKind::Sequence(items) => {
                    let index = key.trim_matches(['[', ']']).parse::<usize>().ok();
                    index.and_then(|index| items.get(index)).map(|item| (item.line, item))
                }
                NodeKind::Scalar { .. } => None,
            };
            let Some(found) = found else { break };
            (line, node) = found;
        }
        self.issues.add_mend((line, &path.join(".").replace(".[", "[")), message, mend);
    }

    /// Whether there is something at `path` below this mapping; empty is the same as absent.
    pub(super) fn has_below(&self, path: &[&str]) -> bool {
        let mut node = self.node;
        for key in path {
            let NodeKind::Mapping(entries) = &node.kind else { return false };
            let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { return false };
            node = &entry.value;
        }
        !node.is_null()
    }

    pub(super) fn expected<T>(&self, what: &str) -> Option<T> {
        self.refuse(format!("expected {what}, found {}", self.node.describe()));
        None
    }

    fn plain(&self) -> Option<&'a str> {
        match &self.node.kind {
            NodeKind::Scalar { text, quoted: false } => Some(text),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.kind {
            NodeKind::Scalar { text, .. } if !text.is_empty() => Some(text),
            _ => self.expected("text"),
        }
    }

    pub(super) fn truth(&self) -> Option<bool> {
        match self.plain() {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => self.expected("true or false"),
        }
    }

    /// A finite number: `1_000`, `.5` and `1e-4` are, `1e500` and `nan` are not.
    pub(super) fn number(&self) -> Option<f64> {
        match self.digits().and_then(|text| text.parse::<f64>().ok()) {
            Some(number) if number.is_finite() => Some(number),
            _ => self.expected("a number"),
        }
    }

    /// A whole number in `min..=max`.
    pub(super) fn whole(&self, min: u64, max: u64) -> Option<u64> {
        match self.digits().and_then(|text| text.parse::<u64>().ok()) {
            Some(number) if (min..=max).contains(&number) => Some(number),
            Some(number) => {
                self.refuse(format!("{number} lies outside {min} to {max}"));
                None
            }
            None => self.expected(&format!("a whole number, {min} to {max}")),
        }
    }

    pub(super) fn whole_u32(&self, min: u32, max: u32) -> Option<u32> {
        self.whole(u64::from(min), u64::from(max)).and_then(|number| u32::try_from(number).ok())
    }

    /// A whole number if it is written as one.
    pub(super) fn as_whole(&self) -> Option<i64> {
        self.digits().and_then(|text| text.parse::<i64>().ok())
    }

    /// The characters of a number, without the `_` that may stand between digits.
    fn digits(&self) -> Option<String> {
        let text = self.plain()?;
        let digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_digit);
        let bytes = text.as_bytes();
        let between = |at: usize| {
            digit(at.checked_sub(1).and_then(|left| bytes.get(left))) && digit(bytes.get(at + 1))
        };
        text.match_indices('_').all(|(at, _)| between(at)).then(|| text.replace('_', ""))
    }

    /// The value as a message shows it.
    pub(super) fn describe(&self) -> String {
        self.node.describe()
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.kind, NodeKind::Mapping(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.kind, NodeKind::Sequence(_))
    }

    pub(super) fn items(&self) -> Option<Vec<Field<'a>>> {
        let NodeKind::Sequence(items) = &self.node.kind else {
            return self.expected("a list");
        };
        let field = |(index, node): (usize, &'a Node)| Field {
            path: format!("{}[{index}]", self.path),
            line: node.line,
            node,
            issues: self.issues,
        };
        Some(items.iter().enumerate().map(field).collect())
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        Section::open(self)
    }

    /// One of `choices`.
    pub(super) fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let text = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(value.clone());
        }
        let list = names().collect::<Vec<_>>().join(", ");
        let message = format!("{} is none of {list}", shown(text));
        match closest(text, names()) {
            Some(name) => self.refuse_mend(message, format!("did you mean `{name}`?")),
            None => self.refuse(message),
        }
        None
    }
}
