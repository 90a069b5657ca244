//! Changes to the text of a manifest: what `muster fork --set` does. Comments are lost, because they may
//! not be true any more.

use super::Manifest;
use super::assignment::Assignment;
use super::document::{Entry, Node, NodeKind, parse};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    path: Vec<String>,
    /// YAML; absent: the key is taken out.
    value: Option<String>,
}

/// A change that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It is not `KEY=VALUE`.
    #[error("`{text}` is no change; write KEY=VALUE, for example budget.epochs=3")]
    Form {
        /// As given.
        text: String,
    },
    /// A text is no YAML.
    #[error("`{text}` is no YAML: {message}")]
    Yaml {
        /// The beginning of what was given.
        text: String,
        /// Why not.
        message: String,
    },
    /// Something on the way is no mapping.
    #[error("`{path}` has no keys to change")]
    Leaf {
        /// The dotted path.
        path: String,
    },
}

impl Change {
    /// Sets the value at a dotted path, making the sections on the way.
    pub fn set(path: &str, value: &str) -> Self {
        Self { path: keys(path), value: Some(value.to_owned()) }
    }

    /// Takes a key out, if it is there.
    pub fn remove(path: &str) -> Self {
        Self { path: keys(path), value: None }
    }

    /// Reads `KEY=VALUE`; the value `null` takes the key out.
    pub fn parse(text: &str) -> Result<Self, ChangeError> {
        let form = || ChangeError::Form { text: text.to_owned() };
        let (path, value) = text.split_once('=').ok_or_else(form)?;
        let is_path = keys(path).iter().all(|key| !key.is_empty());
        if !is_path || value.trim().is_empty() {
            return Err(form());
        }
        Ok(if value.trim() == "null" { Self::remove(path) } else { Self::set(path, value) })
    }
}

impl Manifest {
    /// The changes to its text that leave one trial, with this assignment as constants.
    pub fn fixed_at(&self, assignment: &Assignment) -> Vec<Change> {
        let mut changes = vec![Change::remove("searcher")];
        for (name, value) in assignment {
            changes.push(Change::set(&format!("hyperparameters.{name}"), &value.exact()));
            // What the section says of another word would be said of no trial.
            if value.category().is_some_and(|word| self.training.category(name) != Some(word)) {
                changes.push(Change::remove(&format!("training.{name}")));
            }
        }
        let searched = self.hyperparameters.iter().filter(|(_, domain)| domain.is_searched());
        // What did not exist beside the others.
        let absent = searched.filter(|(name, _)| !assignment.contains_key(name));
        changes.extend(absent.map(|(name, _)| Change::remove(&format!("hyperparameters.{name}"))));
        changes
    }
}

fn keys(path: &str) -> Vec<String> {
    path.trim().split('.').map(str::to_owned).collect()
}

/// The text with the changes made, in block style. Whether it is still a manifest is for
/// [`Manifest::parse`](super::Manifest::parse) to say.
pub fn edited(text: &str, changes: &[Change]) -> Result<String, ChangeError> {
    let mut root = tree(text)?;
    for change in changes {
        let value = change.value.as_deref().map(tree).transpose()?;
        apply(&mut root, &change.path, value, 0)?;
    }
    let mut written = String::new();
    write(&root, 0, &mut written);
    Ok(written.trim_start_matches('\n').to_owned())
}

fn tree(text: &str) -> Result<Node, ChangeError> {
    let wrong = |message: String| {
        let text = text.lines().next().unwrap_or_default().to_owned();
        ChangeError::Yaml { text, message }
    };
    let parsed = parse(text).map_err(|error| wrong(error.message))?;
    parsed.ok_or_else(|| wrong("it is empty".to_owned()))
}

fn apply(
    node: &mut Node,
    path: &[String],
    value: Option<Node>,
    depth: usize,
) -> Result<(), ChangeError> {
    // A section that is left empty has no keys yet.
    if node.is_null() {
        node.kind = NodeKind::Mapping(Vec::new());
    }
    let NodeKind::Mapping(entries) = &mut node.kind else {
        let path = path.get(..depth).unwrap_or_default().join(".");
        return Err(ChangeError::Leaf { path });
    };
    let Some(key) = path.get(depth) else { return Ok(()) };
    let place = entries.iter().position(|entry| entry.key == *key);
    let is_last = depth + 1 == path.len();
    match (place, value) {
        (Some(place), None) if is_last => {
            entries.remove(place);
            Ok(())
        }
        (None, None) => Ok(()),
        (Some(place), Some(value)) if is_last => {
            if let Some(entry) = entries.get_mut(place) {
                entry.value = value;
            }
            Ok(())
        }
        (Some(place), value) => match entries.get_mut(place) {
            Some(entry) => apply(&mut entry.value, path, value, depth + 1),
            None => Ok(()),
        },
        (None, Some(value)) => {
            let mut child = value;
            for key in path.iter().skip(depth + 1).rev() {
                let entry = Entry { key: key.clone(), line: 1, value: child };
                child = Node { line: 1, kind: NodeKind::Mapping(vec![entry]) };
            }
            entries.push(Entry { key: key.clone(), line: 1, value: child });
            Ok(())
        }
    }
}

/// Writes a node behind what is there: scalars on the same line, the rest below.
fn write(node: &Node, indent: usize, out: &mut String) {
    let pad = "  ".repeat(indent);
    match &node.kind {
        NodeKind::Scalar { text, quoted } => {
            out.push_str(&if *quoted { quote(text) } else { text.clone() });
            out.push('\n');
        }
        NodeKind::Sequence(items) if items.is_empty() => out.push_str("[]\n"),
        NodeKind::Mapping(entries) if entries.is_empty() => out.push_str("{}\n"),
        NodeKind::Sequence(items) => {
            out.push('\n');
            for item in items {
                out.push_str(&format!("{pad}- "));
                write(item, indent + 1, out);
            }
        }
        NodeKind::Mapping(entries) => {
            out.push('\n');
            for entry in entries {
                out.push_str(&format!("{pad}{}: ", key(&entry.key)));
                write(&entry.value, indent + 1, out);
            }
        }
    }
}

/// Keys of manifests are plain words; others are quoted.
fn key(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let begins = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    if begins && text.chars().all(is_word) { text.to_owned() } else { quote(text) }
}

/// Double quotes with JSON's escapes, which YAML understands.
fn quote(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Category, ParameterValue};

    const TEXT: &str =
        "name: x # a remark\nbudget: {steps: 10}\ndata:\n  files: [a, \"b: c\"]\n  none: {}\n";

    #[test]
    fn values_are_set_replaced_and_taken_out() {
        let change = |text: &str| Change::parse(text).unwrap();
        let changes = [
            change("budget={epochs: 2}"),
            change("training.loss.smoothing=0.1"),
            change("data.none=null"),
            change("data.gone=null"),
        ];
        let wanted = "name: x\nbudget: \n  epochs: 2\ndata: \n  files: \n    - a\n    - \"b: c\"\n\
                      training: \n  loss: \n    smoothing: 0.1\n";
        assert_eq!(edited(TEXT, &changes).unwrap(), wanted);
    }

    #[test]
    fn what_cannot_be_changed_is_said() {
        for (text, words) in [("budget", "KEY=VALUE"), ("a..b=1", "KEY=VALUE"), ("a=", "KEY=VALUE")]
        {
            assert!(Change::parse(text).unwrap_err().to_string().contains(words), "{text}");
        }
        let fails = |text| edited(TEXT, &[Change::parse(text).unwrap()]).unwrap_err().to_string();
        assert_eq!(fails("name.first=1"), "`name` has no keys to change");
        assert!(fails("name=[1").contains("no YAML"));
    }

    #[test]
    fn one_trial_is_left_with_its_values() {
        let text = |hyperparameters: &str, training: &str| {
            format!(
                "version: 1\nname: e\nmodel: {{pretrained: m}}\ndata:\n  train: {{path: d.csv}}\n  \
                 validation: {{fraction: 0.1}}\n  text: text\n  label: {{column: label}}\n\
                 hyperparameters: {hyperparameters}\nsearcher: {{metric: loss, max_trials: 9}}\n\
                 budget: {{steps: 100}}\ntraining: {training}\n"
            )
        };
        let space = "{schedule: {values: [linear, polynomial]}, learning_rate: {min: 1e-5, max: 1e-3}, \
                     dropout: {values: [0.1, 0.2], when: {schedule: linear}}}";
        let with = |training: &str, word: Category, others: Vec<(String, ParameterValue)>| {
            let text = text(space, training);
            let manifest = Manifest::parse(&text).unwrap();
            let word = ("schedule".to_owned(), ParameterValue::Category(word));
            let assignment: Assignment = others.into_iter().chain([word]).collect();
            let text = edited(&text, &manifest.fixed_at(&assignment)).unwrap();
            let made = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(made.searcher.is_none());
            let training = made.training_of(&Assignment::new());
            assert_eq!(training, manifest.training_of(&assignment));
            made.hyperparameters.keys().cloned().collect::<Vec<_>>()
        };
        let rate = ("learning_rate".to_owned(), ParameterValue::Float(2e-5));
        let dropout = ("dropout".to_owned(), ParameterValue::Float(0.1));
        let squares = "{schedule: {type: polynomial, power: 2}}";
        let linear = with(squares, Category::Linear, vec![rate.clone(), dropout]);
        assert_eq!(linear, ["dropout", "learning_rate", "schedule"]);
        // Its powers stay, dropout does not; a section may be there and empty.
        for training in [squares, "", "{}"] {
            let polynomial = with(training, Category::Polynomial, vec![rate.clone()]);
            assert_eq!(polynomial, ["learning_rate", "schedule"]);
        }
    }

    #[test]
    fn an_empty_section_takes_keys() {
        for empty in ["", " ~", " {}"] {
            let text = format!("name: x\ntraining:{empty}\n");
            let change = Change::set("training.precision", "bfloat16");
            let written = edited(&text, &[change]).unwrap();
            assert_eq!(written, "name: x\ntraining: \n  precision: bfloat16\n");
            let removed = edited(&text, &[Change::remove("training.precision")]).unwrap();
            assert_eq!(removed, "name: x\ntraining: {}\n");
        }
    }

    #[test]
    fn a_text_without_changes_means_the_same() {
        let full = include_str!("../../tests/full.yaml");
        let before = super::super::Manifest::parse(full).unwrap();
        let after = super::super::Manifest::parse(&edited(full, &[]).unwrap()).unwrap();
        assert_eq!(before, after);
    }
}
