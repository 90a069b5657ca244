//! Whether the files that a manifest names have the columns that it names: their first lines tell, before a worker
//! is started. What cannot be told from a first line is left to whoever reads the file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use muster_common::manifest::{
    DataSettings, Delimiter, Holdout, LabelRule, Source, SourceFormat, no_column,
};

/// A header that is longer is not looked at.
const HEADER_BYTES_MAX: u64 = 1 << 16;
/// Endings of files that are not read as they are.
const COMPRESSED: [&str; 2] = [".gz", ".zst"];

/// The first file without a column that is wanted of it, and what to say of it.
pub(super) fn missing_column(data: &DataSettings) -> Option<(String, String)> {
    let label = data.label.as_ref().map(LabelRule::column);
    let wanted: Vec<&str> = [Some(data.text.as_str()), data.text_pair.as_deref(), label]
        .into_iter()
        .flatten()
        .collect();
    let held_out = [&data.validation, &data.test].into_iter().filter_map(|holdout| match holdout {
        Holdout::Source(source) => Some(source),
        _ => None,
    });
    for source in std::iter::once(&data.train).chain(held_out) {
        let SourceFormat::Delimited { delimiter, columns: None } = &source.format else { continue };
        for path in source.paths.iter().filter(|path| is_plain(path)) {
            let Some(columns) = header(Path::new(path), *delimiter) else { continue };
            let missing = wanted.iter().find(|name| !columns.iter().any(|column| column == *name));
            if let Some(name) = missing {
                return Some((path.clone(), no_column(&columns, name)));
            }
        }
    }
    None
}

/// A file of this machine, named in full and not compressed.
fn is_plain(path: &str) -> bool {
    !Source::is_url(path)
        && !Source::is_pattern(path)
        && !COMPRESSED.iter().any(|ending| path.ends_with(ending))
}

/// The names in a file's first line; `None` where they cannot be told.
fn header(path: &Path, delimiter: Delimiter) -> Option<Vec<String>> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(HEADER_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().ok()?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let is_whole = bytes.len() < usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX);
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = match end {
        Some(end) => bytes.get(..end)?,
        None if is_whole && !bytes.is_empty() => bytes,
        None => return None,
    };
    let line = std::str::from_utf8(line).ok()?;
    fields(line.strip_suffix('\r').unwrap_or(line), delimiter)
}

/// Fields of one line; `None` where a quote is still open at its end, or stands where none may.
fn fields(line: &str, delimiter: Delimiter) -> Option<Vec<String>> {
    if delimiter == Delimiter::Tab {
        return Some(line.split('\t').map(ToOwned::to_owned).collect());
    }
    let mut names = Vec::new();
    let mut rest = line;
    loop {
        let (name, behind) = if let Some(quoted) = rest.strip_prefix('"') {
            unquoted(quoted)?
        } else {
            let (name, behind) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            (name.to_owned(), behind)
        };
        names.push(name);
        match behind.strip_prefix(',') {
            Some(more) => rest = more,
            None if behind.is_empty() => return Some(names),
            None => return None,
        }
    }
}

/// A quoted field from behind its opening quote on, and what stands behind its closing one.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('"')?;
        name += before;
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_common::manifest::Manifest;

    use super::*;

    /// What is said of a first training file with these bytes.
    fn said(name: &str, bytes: &[u8], columns: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let text = format!(
            "version: 1\nname: a\nmodel: {{pretrained: m}}\nbudget: {{epochs: 1}}\ndata:\n  \
             train: {{path: {}{columns}}}\n  \
             validation: {{fraction: 0.1}}\n  text: review\n  label: {{column: sentiment}}\n",
            path.display()
        );
        let manifest = Manifest::parse(&text).unwrap();
        missing_column(&manifest.data).map(|(file, message)| {
            assert_eq!(file, path.display().to_string());
            message
        })
    }

    #[test]
    fn columns_that_are_there_are_found() {
        for header in [
            "review,sentiment\n",
            "\u{feff}id,sentiment,review\r\nx,y,z\r\n",
            "\"a \"\"b\"\", c\",\"review\",sentiment",
        ] {
            assert_eq!(said("a.csv", header.as_bytes(), ""), None, "{header}");
        }
        assert_eq!(said("a.tsv", b"review\tsentiment\n", ""), None);
        assert_eq!(said("a.csv", b"great film,pos\n", ", columns: [review, sentiment]"), None);
    }

    #[test]
    fn a_column_that_is_not_there_is_named() {
        let message = said("a.csv", b"text,sentiment\ngood,pos\n", "").unwrap();
        assert_eq!(message, "there is no column `review`; the columns are `text`, `sentiment`");
        let message = said("a.csv", b"review;sentiment\n", "").unwrap();
        assert!(message.contains("semicolons separate there"), "{message}");
        let message = said("a.tsv", b"review\tlabel\n", "").unwrap();
        assert!(message.contains("no column `sentiment`"), "{message}");
    }

    #[test]
    fn what_a_first_line_cannot_tell_is_left_alone() {
        for bytes in [&b""[..], b"\"review\nand more\",sentiment\n", b"\xff\xfer\0", b"\"a\"b,c\n"]
        {
            assert_eq!(said("a.csv", bytes, ""), None, "{bytes:?}");
        }
        assert_eq!(said("a.csv.gz", b"text,label\n", ""), None);
    }
}
