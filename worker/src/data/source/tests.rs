//! Readers: what they take, what they refuse and how they say it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use muster_common::manifest::Delimiter;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;

use super::*;

const WANTED: Wanted<'static> = Wanted { text: "text", label: "label" };

fn read_as(format: SourceFormat, bytes: &[u8]) -> Result<Rows, String> {
    let source = Source { path: "a".to_owned(), format };
    read(&source, Bytes::copy_from_slice(bytes), WANTED).map_err(|error| {
        assert!(error.is_permanent());
        error.to_string()
    })
}

fn delimited(delimiter: Delimiter, columns: Option<&[&str]>) -> SourceFormat {
    let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    SourceFormat::Delimited { delimiter, columns }
}

fn csv(bytes: &str) -> Result<Vec<(u64, String, String)>, String> {
    let rows = read_as(delimited(Delimiter::Comma, None), bytes.as_bytes())?;
    Ok(rows.list.into_iter().map(|row| (row.at, row.text, row.label)).collect())
}

fn row(at: u64, text: &str, label: &str) -> (u64, String, String) {
    (at, text.to_owned(), label.to_owned())
}

#[test]
fn csv_follows_rfc_4180() {
    let text = "\u{feff}label,text\r\n1,\"a, \"\"b\"\"\nc\"\r\n\n0,5\" disk\n2,\n\"3\",\"\"";
    let rows = csv(text).unwrap();
    let expected =
        [row(2, "a, \"b\"\nc", "1"), row(5, "5\" disk", "0"), row(6, "", "2"), row(7, "", "3")];
    assert_eq!(rows, expected);
}

#[test]
fn csv_rows_that_would_be_swallowed_are_refused_with_their_line() {
    let refused = |text: &str| csv(text).unwrap_err();
    assert!(refused("text,label\na,1\n\"b,0\nc,1\n").starts_with("a:3: a quote is opened"));
    assert!(refused("text,label\n\"a\"b,1\n").starts_with("a:2: text stands behind"));
    assert!(refused("text,label\na,1\nb\n").starts_with("a:3: 1 fields"));
    assert!(refused("text,label\na,1,x\n").starts_with("a:2: 3 fields"));
    assert!(refused("text,text\n").contains("two columns"));
    assert!(refused("text,class\na,1\n").contains("`text`, `class`"));
    assert_eq!(refused(""), "a: the file is empty");
}

#[test]
fn tabs_separate_and_quotes_are_ordinary() {
    let format = delimited(Delimiter::Tab, Some(&["id", "label", "text"]));
    let rows = read_as(format.clone(), b"1\t2.5\t\"so\" he said\r\n2\t-1\tb").unwrap();
    let found: Vec<_> = rows.list.into_iter().map(|row| (row.at, row.text, row.label)).collect();
    assert_eq!(found, [row(1, "\"so\" he said", "2.5"), row(2, "b", "-1")]);
    assert!(read_as(format, b"1\t2\n").unwrap_err().starts_with("a:1: 2 fields"));
}

#[test]
fn bytes_that_are_not_utf8_are_replaced_and_counted() {
    let rows = read_as(delimited(Delimiter::Comma, None), b"text,label\na,1\ncaf\xe9,0\n").unwrap();
    assert_eq!(rows.list[1].text, "caf\u{fffd}");
    assert_eq!(rows.repaired, Some((1, 3)));
    let utf16 = b"\xff\xfet\0e\0x\0t\0";
    assert!(read_as(SourceFormat::JsonLines, utf16).unwrap_err().contains("iconv"));
}

#[test]
fn json_lines_are_objects_with_both_keys() {
    let read = |text: &str| read_as(SourceFormat::JsonLines, text.as_bytes());
    let rows =
        read("{\"text\": \"a\\nb\", \"label\": 1}\n\n{\"label\": \"x\", \"text\": \"\"}\r\n");
    let rows: Vec<_> = rows.unwrap().list.into_iter().map(|r| (r.at, r.text, r.label)).collect();
    assert_eq!(rows, [row(1, "a\nb", "1"), row(3, "", "x")]);
    for bad in ["[]", "{\"text\": 1, \"label\": 1}", "{\"text\": \"a\"}", "{", "{} {}"] {
        assert!(read(bad).unwrap_err().starts_with("a:1: "), "{bad}");
    }
    assert!(read("{\"text\": \"a\", \"label\": null}").unwrap_err().contains("`label` is null"));
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn parquet_columns_are_found_by_name_and_type() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b ")]));
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, 0]));
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![1.5, 0.0]));
    let nulls: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let read = |bytes: &[u8]| read_as(SourceFormat::Parquet, bytes);
    let whole =
        table(vec![("label", labels.clone()), ("x", floats.clone()), ("text", texts.clone())]);
    let rows: Vec<_> =
        read(&whole).unwrap().list.into_iter().map(|r| (r.at, r.text, r.label)).collect();
    assert_eq!(rows, [row(1, "a", "1"), row(2, "b ", "0")]);
    let scores = read(&table(vec![("label", floats), ("text", texts.clone())])).unwrap();
    assert_eq!(scores.list[0].label, "1.5");
    let error = read(&table(vec![("label", labels.clone()), ("text", nulls)])).unwrap_err();
    assert_eq!(error, "a, row 2: `text` is null: remove the row");
    let error = read(&table(vec![("label", labels.clone()), ("text", labels)])).unwrap_err();
    assert!(error.contains("Int64"), "{error}");
    assert!(read(&table(vec![("text", texts)])).unwrap_err().contains("no column `label`"));
}

/// As a careful writer would write it.
fn quote(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

proptest! {
    #[test]
    fn quoted_csv_round_trips(fields in proptest::collection::vec((".{0,12}", "[a\"\n\r, ]{0,8}"), 1..8)) {
        let mut text = "text,label\n".to_owned();
        for (a, b) in &fields {
            text.extend([quote(a), ",".to_owned(), quote(b), "\n".to_owned()]);
        }
        let found: Vec<_> = csv(&text).unwrap().into_iter().map(|(_, a, b)| (a, b)).collect();
        prop_assert_eq!(found, fields);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>, structured in "[,\"\n\r\tab{}:0]{0,60}") {
        for body in [bytes, [b"text,label\n", structured.as_bytes()].concat(), structured.into_bytes()] {
            for delimiter in [Delimiter::Comma, Delimiter::Tab] {
                let columns: Option<&[&str]> = Some(&["text", "label"]);
                for columns in [None, columns] {
                    let _parsed = read_as(delimited(delimiter, columns), &body);
                }
            }
            let _parsed = read_as(SourceFormat::JsonLines, &body);
            prop_assert!(read_as(SourceFormat::Parquet, &body).is_err());
        }
    }

    #[test]
    fn damaged_parquet_is_read_or_refused(at: usize, bit in 0u8..8) {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
        let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, 0, 1]));
        let mut bytes = table(vec![("label", labels), ("text", texts)]);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _parsed = read_as(SourceFormat::Parquet, &bytes);
    }

    #[test]
    fn tab_rows_are_all_there(lines in proptest::collection::vec("[a-z\" ,]{1,9}", 1..20)) {
        let body = lines.join("\t1\r\n") + "\t1";
        let format = delimited(Delimiter::Tab, Some(&["text", "label"]));
        let rows = read_as(format, body.as_bytes()).unwrap().list;
        prop_assert_eq!(rows.into_iter().map(|row| row.text).collect::<Vec<_>>(), lines);
    }
}
