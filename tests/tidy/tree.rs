//! The files of the repository as the rules see them: path and text, read once.

use std::fs;
use std::path::{Path, PathBuf};

/// One text file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Relative to the repository root, with `/` between the parts.
    pub(crate) path: String,
    /// Its content; files that are no UTF-8 text are left out of the tree.
    pub(crate) text: String,
}

impl File {
    /// A file for the rules' own tests.
    #[cfg(test)]
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Rust that people write: everything but what a generator wrote.
    pub(crate) fn is_hand_written_rust(&self) -> bool {
        self.has_extension("rs") && !self.is_generated()
    }

    /// Whether a generator wrote the file.
    pub(crate) fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// Whether others wrote the file and it is kept here unchanged.
    pub(crate) fn is_vendored(&self) -> bool {
        self.path.contains("/vendor/") || self.path == "Cargo.lock" || self.path == "LICENSE"
    }

    /// Whether the name ends in `.extension`.
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

/// The repository on disk.
pub(crate) struct Tree {
    root: PathBuf,
    /// Every text file that git does not ignore, by path.
    pub(crate) files: Vec<File>,
    /// Names at the top level, folders with a `/` at their end.
    pub(crate) top_level: Vec<String>,
}

impl Tree {
    /// Reads the repository this crate lies in.
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf();
        let ignored = ignored_names(&fs::read_to_string(root.join(".gitignore")).unwrap());
        let mut tree = Self { root: root.clone(), files: Vec::new(), top_level: Vec::new() };
        tree.walk(&root, &ignored);
        tree.files.sort_by(|left, right| left.path.cmp(&right.path));
        tree.top_level.sort();
        tree
    }

    /// Whether a path relative to the root names something that is there.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The files that `keep` chooses.
    pub(crate) fn select(&self, keep: impl Fn(&File) -> bool) -> Vec<File> {
        self.files.iter().filter(|file| keep(file)).cloned().collect()
    }

    fn walk(&mut self, folder: &Path, ignored: &[String]) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if ignored.contains(&name) {
                continue;
            }
            if folder == self.root {
                let end = if path.is_dir() { "/" } else { "" };
                self.top_level.push(format!("{name}{end}"));
            }
            if path.is_dir() {
                self.walk(&path, ignored);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(&self.root).unwrap().to_string_lossy().into_owned();
                self.files.push(File { path, text });
            }
        }
    }
}

/// The folder names of a `.gitignore`. Only whole names are understood, and only those are used here.
fn ignored_names(gitignore: &str) -> Vec<String> {
    let mut names = vec![".git".to_owned()];
    for line in gitignore.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !line.starts_with('#') {
            assert!(
                !line.contains('*'),
                ".gitignore: {line}: the house rules read whole names only"
            );
            names.push(line.trim_matches('/').to_owned());
        }
    }
    names
}

#[test]
fn ignored_folders_are_read_from_gitignore() {
    assert_eq!(ignored_names("/target/\n# comment\n\n.cache\n"), [".git", "target", ".cache"]);
}
