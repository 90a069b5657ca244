//! Reads a foreign document and remembers what was used: whatever was not is named in the end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use muster_common::manifest::{Node, NodeKind};

use super::Remark;

/// The document.
pub(super) struct Reader<'a> {
    root: &'a Node,
    used: RefCell<BTreeSet<String>>,
    reasons: RefCell<BTreeMap<String, String>>,
}

/// A value, its path, and the document it belongs to.
#[derive(Clone)]
pub(super) struct Place<'a> {
    reader: &'a Reader<'a>,
    node: &'a Node,
    pub(super) path: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(root: &'a Node) -> Self {
        Self { root, used: RefCell::default(), reasons: RefCell::default() }
    }

    pub(super) fn root(&'a self) -> Place<'a> {
        Place { reader: self, node: self.root, path: String::new() }
    }

    /// Says why what stands at `path`, all of it, is not carried over.
    pub(super) fn leave_out(&self, path: &str, reason: impl Into<String>) {
        self.reasons.borrow_mut().entry(path.to_owned()).or_insert(reason.into());
    }

    /// Every key that was not used, with its reason, in the order of the document.
    pub(super) fn left_out(&self) -> Vec<Remark> {
        let mut found = Vec::new();
        self.walk(&self.root(), self.root.line, &mut found);
        found
    }

    fn walk(&self, place: &Place<'_>, line: usize, found: &mut Vec<Remark>) {
        let path = place.path.clone();
        if let Some(reason) = self.reasons.borrow().get(&path) {
            found.push(Remark { line, path, reason: reason.clone() });
            return;
        }
        if self.used.borrow().contains(&path) {
            return;
        }
        let below = format!("{path}.");
        let listed = format!("{path}[");
        let concerns = |other: &String| {
            path.is_empty() || other.starts_with(&below) || other.starts_with(&listed)
        };
        let is_known =
            self.used.borrow().iter().any(concerns) || self.reasons.borrow().keys().any(concerns);
        match &place.node.kind {
            NodeKind::Mapping(entries) if is_known => {
                for (entry, inner) in entries.iter().zip(place.entries()) {
                    self.walk(&inner.1, entry.line, found);
                }
            }
            NodeKind::Sequence(_) if is_known => {
                for item in place.items() {
                    self.walk(&item, item.node.line, found);
                }
            }
            _ => {
                let reason = "Muster has nothing like it".to_owned();
                found.push(Remark { line, path, reason });
            }
        }
    }
}

impl<'a> Place<'a> {
    /// The value of `key`; a null is none.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        let NodeKind::Mapping(entries) = &self.node.kind else { return None };
        let entry = entries.iter().find(|entry| entry.key == key)?;
        Some(self.below(key, &entry.value)).filter(|place| place.text() != Some(""))
    }

    fn below(&self, key: &str, node: &'a Node) -> Self {
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { reader: self.reader, node, path }
    }

    /// Keys and values of a mapping.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        let NodeKind::Mapping(entries) = &self.node.kind else { return Vec::new() };
        entries
            .iter()
            .map(|entry| (entry.key.as_str(), self.below(&entry.key, &entry.value)))
            .collect()
    }

    /// Values of a list.
    pub(super) fn items(&self) -> Vec<Self> {
        let NodeKind::Sequence(items) = &self.node.kind else { return Vec::new() };
        let place = |(index, node)| Self {
            reader: self.reader,
            node,
            path: format!("{}[{index}]", self.path),
        };
        items.iter().enumerate().map(place).collect()
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.kind, NodeKind::Mapping(_))
    }

    /// The text of a scalar, quoted or not: Katib's numbers are quoted.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.kind {
            NodeKind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        self.text()?.trim().replace('_', "").parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Whether it is written as a whole number: `1`, not `1.0`.
    pub(super) fn is_whole(&self) -> bool {
        self.text().is_some_and(|text| text.trim().parse::<i64>().is_ok())
    }

    pub(super) fn whole(&self) -> Option<u64> {
        self.text()?.trim().replace('_', "").parse().ok()
    }

    /// It, and all below it, is carried over or without meaning here.
    pub(super) fn used(self) -> Self {
        self.reader.used.borrow_mut().insert(self.path.clone());
        self
    }

    /// A scalar counts as used; of a mapping, only the keys that somebody took.
    pub(super) fn used_if_scalar(&self) {
        if !self.is_mapping() {
            drop(self.clone().used());
        }
    }

    /// The text of a scalar, which counts as used.
    pub(super) fn take_text(&self, key: &str) -> Option<&'a str> {
        let place = self.get(key)?;
        place.text().inspect(|_| drop(place.clone().used()))
    }

    /// A number, which counts as used; anything else is left out.
    pub(super) fn take_number(&self, key: &str) -> Option<f64> {
        let place = self.get(key)?;
        let number = place.number();
        match number {
            Some(_) => drop(place.used()),
            None => place.leave_out("it is no number"),
        }
        number
    }

    /// As [`Place::take_number`], for whole ones.
    pub(super) fn take_whole(&self, key: &str) -> Option<u64> {
        let place = self.get(key)?;
        let number = place.whole();
        match number {
            Some(_) => drop(place.used()),
            None => place.leave_out("it is no whole number"),
        }
        number
    }

    /// Says why it, all of it, is not carried over.
    pub(super) fn leave_out(&self, reason: impl Into<String>) {
        self.reader.leave_out(&self.path, reason);
    }
}
