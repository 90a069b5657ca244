//! Rules about text: the paths that documents name exist, and the project speaks only of itself.

use crate::lexer::{has_word, is_word};
use crate::tree::File;

/// Documents a user reads; every path in them must be there.
const DOCUMENTS: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "common/README.md",
    "configs/README.md",
    "coordinator/README.md",
    "deploy/README.md",
    "tests/bench/README.md",
];

/// What a command or the reader makes: named in documents, absent in a fresh clone.
const MADE: [&str; 4] = ["target/", ".cache/", "muster-data/", "mine.yaml"];

/// Folders in which a path may be meant: from the root, or inside a crate.
const BASES: [&str; 6] =
    ["", "common/src/", "proto/src/", "coordinator/src/", "worker/src/", "tests/"];

const PATH_ENDINGS: [&str; 9] =
    [".rs", ".md", ".toml", ".yaml", ".sh", ".py", ".proto", ".yml", ".sql"];

/// Words that belong to the place where the project was written, not to the project. Cut in two, so that
/// this file is clean itself.
const FOREIGN_WORDS: [(&str, &str); 8] = [
    ("cla", "ude"),
    ("anthro", "pic"),
    ("arti", "factory"),
    ("work", "place"),
    ("found", "ers"),
    ("C", "EO"),
    ("age", "nt"),
    ("age", "nts"),
];

/// The same for pieces that need not be whole words: paths of one machine, hosts of package registries.
const FOREIGN_PIECES: [(&str, &str); 9] = [
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("farm-", "bench"),
    ("farm-", "studio"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("index.crates", ".io"),
    ("static.crates", ".io"),
    ("registry.npmjs", ".org"),
];

/// Documents that were found, to be handed to [`missing_paths`]; the first three are never absent.
pub(crate) fn documents(files: &[File]) -> Vec<File> {
    let known = |file: &&File| DOCUMENTS.contains(&file.path.as_str());
    files.iter().filter(known).cloned().collect()
}

/// Every path a document names in backticks, in a link or in a command, and that is not there.
pub(crate) fn missing_paths(documents: &[File], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for document in documents {
        let own =
            document.path.rsplit_once('/').map_or(String::new(), |(own, _)| format!("{own}/"));
        // A bare file name continues the folder that was named last.
        let mut folder = String::new();
        for (line, path) in named_paths(&document.text) {
            if path.contains('/') && exists(&path) {
                let is_file = PATH_ENDINGS.iter().any(|ending| path.ends_with(ending));
                let parent = path.rsplit_once('/').filter(|_| is_file);
                let named = parent.map_or(path.trim_end_matches('/'), |(parent, _)| parent);
                named.clone_into(&mut folder);
            } else if !path.contains('/') && exists(&format!("{folder}/{path}")) {
                continue;
            }
            let made = MADE.iter().any(|folder| path.starts_with(folder));
            let there = || BASES.iter().any(|base| exists(&format!("{base}{path}")));
            if !made && !exists(&format!("{own}{path}")) && !there() {
                found.push(format!("{}:{line}: `{path}` does not exist", document.path));
            }
        }
    }
    found
}

/// Line numbers and paths.
fn named_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let candidates: Vec<&str> = if fenced {
            // In commands and listings: only what surely is a file of this repository.
            let words = line.split(|at: char| at.is_whitespace() || "`'\"()=,".contains(at));
            words
                .filter(|word| {
                    ["configs/", "deploy/", "tests/"].iter().any(|f| word.starts_with(f))
                })
                .collect()
        } else {
            spans(line, "`", "`").into_iter().chain(spans(line, "](", ")")).collect()
        };
        let paths = candidates.into_iter().filter_map(as_path);
        found.extend(paths.map(|path| (index + 1, path)));
    }
    found
}

/// The texts between `open` and the next `close`.
fn spans<'a>(line: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((_, after)) = rest.split_once(open) {
        let Some((inside, behind)) = after.split_once(close) else { break };
        found.push(inside);
        rest = behind;
    }
    found
}

/// A candidate that reads as a path of this repository, without the `#section` of a link.
fn as_path(candidate: &str) -> Option<String> {
    let path = candidate.split('#').next().unwrap_or(candidate).trim_end_matches([':', '.']);
    let legal = |character: char| is_word(character) || "./-".contains(character);
    let relative = !path.is_empty() && !path.starts_with('/') && path.chars().all(legal);
    let ending = PATH_ENDINGS.iter().any(|ending| path.ends_with(ending));
    let top =
        ["common/", "proto/", "coordinator/", "worker/", "tests/", "configs/", "deploy/", ".ci/"];
    let inside = top.iter().any(|folder| path.starts_with(folder));
    (relative && (inside || ending)).then(|| path.to_owned())
}

pub(crate) fn foreign_words(files: &[File]) -> Vec<String> {
    let words = FOREIGN_WORDS.map(|(left, right)| format!("{left}{right}"));
    let pieces = FOREIGN_PIECES.map(|(left, right)| format!("{left}{right}"));
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.is_vendored() && !file.is_generated()) {
        for (index, line) in file.text.lines().enumerate() {
            let lower = line.to_lowercase();
            let word = words.iter().find(|word| has_word(&lower, &word.to_lowercase()));
            let piece = pieces.iter().find(|piece| lower.contains(piece.as_str()));
            let reference = issue_reference(&lower).then(|| "a number of an issue".to_owned());
            if let Some(what) = word.or(piece).cloned().or(reference) {
                let message = format!(
                    "{}:{}: {what}: the project speaks only of itself",
                    file.path,
                    index + 1
                );
                found.push(message);
            }
        }
    }
    found
}

/// A reference to a tracker, in its usual spellings.
fn issue_reference(lower: &str) -> bool {
    lower.match_indices("issue").any(|(at, word)| {
        let after = &lower[at + word.len()..];
        let number = [" #", " ", "s/", "#"].iter().find_map(|between| after.strip_prefix(between));
        number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
    })
}

/// Blanks at line ends, tabs where they are not grammar, no line end at the end of the file.
pub(crate) fn untidy_text(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    // Goldens are compared byte by byte: they are as they are.
    let checked = |file: &&File| !file.is_vendored() && !file.path.starts_with("tests/golden/");
    for file in files.iter().filter(checked) {
        // Not `lines`, which takes a carriage return away with the line end.
        for (index, line) in file.text.split('\n').enumerate() {
            let tab = line.contains('\t') && file.has_extension("rs");
            if line.ends_with([' ', '\t', '\r']) || tab {
                found.push(format!("{}:{}: a stray blank or tab", file.path, index + 1));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            found.push(format!("{}: no line end at the end", file.path));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Vec<File> {
        vec![File::new("README.md", text)]
    }

    #[test]
    fn a_missing_path_is_found() {
        let known = ["configs/demo.yaml", "worker/src/train", "worker/src/train/mod.rs"];
        let there = |path: &str| known.contains(&path);
        for good in [
            "`configs/demo.yaml`",
            "see [it](configs/demo.yaml#data)",
            "`train/mod.rs`",
            "`worker/src/train` begins in `mod.rs`",
            "`a/b` and `x.y`",
            "```\nmuster run configs/demo.yaml\n```",
            "`target/demo/summary.json`",
            "`--config FILE.yaml`",
        ] {
            assert!(missing_paths(&one(good), there).is_empty(), "{good}");
        }
        for bad in [
            "`configs/lost.yaml`",
            "see [it](configs/lost.yaml)",
            "`worker/src/lost`",
            "two `a` `lost.rs`",
            "```\nmuster run configs/lost.yaml\n```",
        ] {
            assert_eq!(missing_paths(&one(bad), there).len(), 1, "{bad}");
        }
        let below = [File::new("configs/README.md", "`demo.yaml`")];
        assert!(missing_paths(&below, there).is_empty());
    }

    #[test]
    fn a_foreign_word_is_found() {
        for (left, right) in FOREIGN_WORDS.iter().chain(&FOREIGN_PIECES) {
            assert_eq!(
                foreign_words(&one(&format!("so {left}{right} x"))).len(),
                1,
                "{left}{right}"
            );
        }
        for number in [" 12", " #3", "s/7"] {
            let bad = format!("see issue{number}");
            assert_eq!(foreign_words(&one(&bad)).len(), 1, "{bad}");
        }
        for good in ["it issues 2 reads", "an issue: none", "work/life", "magenta agency"] {
            assert!(foreign_words(&one(good)).is_empty(), "{good}");
        }
    }

    #[test]
    fn untidy_text_is_found() {
        for bad in ["blank \n", "no end", "windows\r\n"] {
            assert_eq!(untidy_text(&one(bad)).len(), 1, "{bad:?}");
        }
        assert_eq!(untidy_text(&[File::new("a.rs", "\tx\n")]).len(), 1);
        assert!(untidy_text(&[File::new("Makefile", "\tx\n")]).is_empty());
    }
}
