//! Patterns that stand for several files of this machine, such as `reviews-*.csv.gz`.

use std::io;
use std::path::{Path, PathBuf};

use glob::MatchOptions;

use super::{Manifest, Source};
use crate::storage::StoreOptions;

impl Source {
    /// Whether a path is a pattern that stands for several files.
    pub fn is_pattern(path: &str) -> bool {
        path.contains(['*', '?', '['])
    }

    /// A path, and the options of the store behind it where it is a URL that has some, with their `?`; else nothing.
    /// In front of anything else a `?` is part of a pattern.
    pub fn split_options(path: &str) -> (&str, &str) {
        let begins = |rest: &str| {
            StoreOptions::NAMES
                .iter()
                .any(|name| rest.strip_prefix(name).is_some_and(|behind| behind.starts_with('=')))
        };
        let mut marks = path.match_indices('?').filter(|_| Source::is_url(path));
        let found = marks.find(|(at, mark)| path.get(at + mark.len()..).is_some_and(begins));
        path.split_at(found.map_or(path.len(), |(at, _)| at))
    }

    /// The files of this machine that a pattern stands for, in the order of their names. One that is called like
    /// the pattern is meant itself. The error is [`io::ErrorKind::InvalidInput`] where it is no pattern.
    pub fn files_of_pattern(pattern: &str) -> io::Result<Vec<PathBuf>> {
        if Path::new(pattern).exists() {
            return Ok(vec![pattern.into()]);
        }
        let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
        let found = glob::glob_with(pattern, options)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut files = Vec::new();
        for path in found {
            let path = path.map_err(|error| io::Error::new(error.error().kind(), error))?;
            if path.is_file() {
                files.push(path);
            }
        }
        Ok(files)
    }
}

impl Manifest {
    /// The first pattern of the data that stands for no file of this machine: its path in the manifest, the pattern,
    /// and what is wrong with it. Patterns of object stores are looked up where they are read.
    pub fn unmatched(&self) -> Option<(&'static str, &str, String)> {
        self.sources().into_iter().find_map(|(name, source)| {
            let on_this_machine =
                |path: &&String| Source::is_pattern(path) && !Source::is_url(path);
            source.paths.iter().filter(on_this_machine).find_map(|pattern| {
                let wrong = match Source::files_of_pattern(pattern) {
                    Ok(files) if files.is_empty() => "no file matches it".to_owned(),
                    Ok(_) => return None,
                    Err(error) => error.to_string(),
                };
                Some((name, pattern.as_str(), wrong))
            })
        })
    }
}
