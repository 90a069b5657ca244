//! Rows of one file without a manifest, for whoever looks at a model rather than trains one.

use std::path::Path;

use muster_common::manifest::{Delimiter, Source, SourceFormat};

use super::DataError;
use super::label::Classes;
use super::source::{Role, Wanted, find};

/// Which columns of a file are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableColumns {
    /// Column with the text.
    pub text: String,
    /// Column with the second text of a pair; absent where there are no pairs.
    pub pair: Option<String>,
    /// Column with the label; absent where none is wanted.
    pub label: Option<String>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledText {
    /// `FILE:LINE`, or `FILE, row N`.
    pub place: String,
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
    /// The label as the file writes it.
    pub label: Option<String>,
}

/// All rows of a file, whose name tells its format: `.csv`, `.tsv`, `.jsonl`, `.parquet`, and these compressed with
/// gzip or zstd, apart from Parquet. A row that cannot be read refuses the file.
pub fn read_table(path: &Path, columns: &TableColumns) -> Result<Vec<LabeledText>, DataError> {
    let shown = path.display().to_string();
    let format = format_of(path).ok_or_else(|| {
        let message = "its name ends in none of .csv, .tsv, .jsonl, .ndjson, .parquet: rename it, or convert it";
        DataError::refused(&*shown, message)
    })?;
    // A file of this machine, whatever its name looks like.
    let absolute = std::path::absolute(path)
        .map_err(|source| DataError::Read { path: shown.clone(), source })?;
    let source = Source { paths: vec![absolute.display().to_string()], hub: None, format };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|source| DataError::Read { path: shown.clone(), source })?;
    let files = runtime.block_on(find(&source, Role::Test, columns.label.is_none()))?;
    let wanted = Wanted {
        text: columns.text.clone(),
        pair: columns.pair.clone(),
        label: columns.label.clone(),
        documents: false,
    };
    let mut found = Vec::new();
    for file in &files {
        for row in file.rows(&wanted)? {
            let row = row.map_err(|mistake| mistake.of_file(&shown, file.has_lines()))?;
            let place = super::source::place(&shown, file.has_lines(), row.at);
            found.push(LabeledText {
                place,
                text: row.text,
                text_pair: row.pair,
                label: row.label,
            });
        }
    }
    Ok(found)
}

/// The number of the class that a label names, by its name or its number; the error says what there is.
pub fn class_of(classes: &[String], label: &str) -> Result<usize, String> {
    let class = Classes::named(classes.to_vec()).of(label)?;
    let class = class.and_then(|class| usize::try_from(class).ok());
    class.ok_or_else(|| format!("label `{label}` is none of the classes"))
}

/// The format that a file's name tells.
pub fn format_of(path: &Path) -> Option<SourceFormat> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
    format_named(name.rsplit_once('.')?.1)
}

/// The format that is called so: `csv`, `tsv`, `jsonl` or `ndjson`, `parquet`.
pub fn format_named(name: &str) -> Option<SourceFormat> {
    let delimited = |delimiter| SourceFormat::Delimited { delimiter, columns: None };
    match name {
        "csv" => Some(delimited(Delimiter::Comma)),
        "tsv" => Some(delimited(Delimiter::Tab)),
        "jsonl" | "ndjson" => Some(SourceFormat::JsonLines),
        "parquet" => Some(SourceFormat::Parquet),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(pair: Option<&str>, label: Option<&str>) -> TableColumns {
        let owned = |name: &str| name.to_owned();
        TableColumns { text: owned("text"), pair: pair.map(owned), label: label.map(owned) }
    }

    #[test]
    fn names_tell_formats() {
        let directory = tempfile::tempdir().unwrap();
        for (name, contents) in [
            ("a.csv", "text,label,other\n\"good, film\",yes,1\n"),
            ("a.TSV", "label\ttext\nyes\tgood, film\n"),
            ("a.jsonl", "{\"text\": \"good, film\", \"label\": \"yes\"}\n"),
        ] {
            let path = directory.path().join(name);
            std::fs::write(&path, contents).unwrap();
            let rows = read_table(&path, &columns(None, Some("label"))).unwrap();
            assert_eq!(rows.len(), 1, "{name}");
            assert_eq!(
                (rows[0].text.as_str(), rows[0].label.as_deref()),
                ("good, film", Some("yes"))
            );
            let error = read_table(&path, &columns(Some("second"), None)).unwrap_err();
            assert!(error.to_string().contains("`second`"), "{error}");
        }
        let error = read_table(Path::new("a.xlsx"), &columns(None, None)).unwrap_err();
        assert!(error.to_string().contains(".parquet"), "{error}");
    }
}
