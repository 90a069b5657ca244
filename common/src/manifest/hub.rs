//! Names of models on a Hugging Face hub, and how they are told from directories.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Longest name of a repository, in characters, each of its two parts counted by itself.
const PART_MAX: usize = 96;

/// A model on a hub: `distilbert-base-uncased`, `org/name`, `org/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubName {
    /// The organization or user; absent for the oldest models.
    pub owner: Option<String>,
    /// The name of the repository.
    pub name: String,
    /// A branch, a tag or a commit; absent: the main branch.
    pub revision: Option<String>,
}

impl HubName {
    /// Reads a name; `None`: it cannot be one, so it is meant as a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = match repository.split_once('/') {
            Some((owner, name)) => (Some(owner), name),
            None => (None, repository),
        };
        let legal = is_part(name) && owner.is_none_or(is_part) && revision.is_none_or(is_revision);
        legal.then(|| Self {
            owner: owner.map(ToOwned::to_owned),
            name: name.to_owned(),
            revision: revision.map(ToOwned::to_owned),
        })
    }

    /// What `text` names, which is a path as soon as it is there or cannot be a name on a hub.
    pub fn unless_there(text: &str, base: &Path) -> Option<Self> {
        if Path::new(text).is_absolute() || base.join(text).exists() {
            return None;
        }
        Self::parse(text)
    }

    /// `name` or `owner/name`.
    pub fn repository(&self) -> String {
        match &self.owner {
            Some(owner) => format!("{owner}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

impl std::fmt::Display for HubName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repository())?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// By the rules of the hub: letters, digits, `-`, `_` and `.`; neither `-` nor `.` at an end or twice.
fn is_part(part: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let at_end = |c: char| matches!(c, '-' | '.');
    (1..=PART_MAX).contains(&part.len())
        && part.chars().all(inside)
        && !part.starts_with(at_end)
        && !part.ends_with(at_end)
        && !part.contains("--")
        && !part.contains("..")
}

/// By the rules of git, as far as they matter in a path and in a URL.
fn is_revision(revision: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains("..");
    (1..=255).contains(&revision.len())
        && revision.chars().all(inside)
        && revision.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        for name in [
            "distilbert-base-uncased",
            "org/name",
            "org/name@main",
            "a/b@refs/pr/3",
            "FacebookAI/roberta-large@e8e1a1b2c3d4e5f60718293a4b5c6d7e8f901234",
        ] {
            assert_eq!(HubName::parse(name).unwrap().to_string(), name);
        }
        let name = HubName::parse("org/name@v1.0").unwrap();
        assert_eq!(name.repository(), "org/name");
        assert_eq!(name.revision.as_deref(), Some("v1.0"));
        for path in [
            "",
            ".",
            "..",
            "./model",
            "../model",
            "/models/a",
            "a/b/c",
            "a/",
            "~/model",
            "a//b",
            "-a",
            "a--b",
            "a b",
            "a@",
            "@main",
            "a@..",
            "a@b/../c",
            "a@/b",
            "models/a.",
            "ä",
        ] {
            assert_eq!(HubName::parse(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_there_is_a_path() {
        let base = tempfile::tempdir().unwrap();
        assert!(HubName::unless_there("models/tiny", base.path()).is_some());
        std::fs::create_dir_all(base.path().join("models/tiny")).unwrap();
        assert_eq!(HubName::unless_there("models/tiny", base.path()), None);
        assert_eq!(HubName::unless_there("/nowhere", base.path()), None);
    }

    proptest! {
        #[test]
        fn a_name_stays_inside_its_directory(text in r"[a-z@/.\-]{0,12}") {
            if let Some(name) = HubName::parse(&text) {
                prop_assert_eq!(name.to_string(), text.clone());
                prop_assert!(!text.contains("..") && !text.starts_with('/'));
            }
        }
    }
}
