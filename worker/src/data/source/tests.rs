//! Readers: what they take, what they refuse and how they say it.

use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use muster_common::manifest::{Delimiter, Source, SourceFormat};
use muster_common::storage::Store;
use object_store::path::Path as Key;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;

use super::delimited::Fields;
use super::files::objects_for_tests;
use super::*;

/// What the tests look at.
#[derive(Debug)]
struct Found {
    list: Vec<(u64, String, String)>,
    /// How many rows were not UTF-8, and the first of them.
    repaired: Option<(usize, u64)>,
}

fn wanted() -> Wanted {
    let (text, label) = ("text".to_owned(), Some("label".to_owned()));
    Wanted { text, pair: None, label, documents: false }
}

fn collect(rows: impl Iterator<Item = Result<Row, DataError>>) -> Result<Found, String> {
    let mut found = Found { list: Vec::new(), repaired: None };
    for row in rows {
        let row = row.map_err(|error| {
            assert!(error.is_permanent());
            error.to_string()
        })?;
        if row.repaired {
            let (count, first) = found.repaired.unwrap_or((0, row.at));
            found.repaired = Some((count + 1, first));
        }
        found.list.push((row.at, row.text, row.label.unwrap_or_default()));
    }
    Ok(found)
}

fn read_file(file: &SourceFile, wanted: &Wanted) -> Result<Found, String> {
    let rows = file.rows(wanted).map_err(|error| {
        assert!(error.is_permanent());
        error.to_string()
    })?;
    collect(rows.map(|row| row.map_err(|why| why.of_file(&file.shown, file.has_lines()))))
}

fn read_as(format: SourceFormat, bytes: &[u8]) -> Result<Found, String> {
    read_file(&SourceFile::of_bytes("a", format, bytes), &wanted())
}

fn delimited(delimiter: Delimiter, columns: Option<&[&str]>) -> SourceFormat {
    let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    SourceFormat::Delimited { delimiter, columns }
}

fn csv(bytes: &str) -> Result<Vec<(u64, String, String)>, String> {
    Ok(read_as(delimited(Delimiter::Comma, None), bytes.as_bytes())?.list)
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
    // As spreadsheets write it.
    assert_eq!(csv("label,text,,\r\n1,a,,\r\n").unwrap(), [row(2, "a", "1")]);
}

#[test]
fn csv_rows_that_would_be_swallowed_are_refused_with_their_line() {
    let refused = |text: &str| csv(text).unwrap_err();
    assert!(refused("text,label\na,1\n\"b,0\nc,1\n").starts_with("a:3: a quote is opened"));
    assert!(refused("text,label\n\"a\"b,1\n").starts_with("a:2: text stands behind"));
    assert!(refused("text,label\na,1\nb\n").starts_with("a:3: 1 field,"));
    assert!(refused("text,label\na,1,x\n").starts_with("a:2: 3 fields"));
    assert!(refused("text,text\n").contains("two columns"));
    assert!(refused("text,class\na,1\n").contains("`text`, `class`"));
    assert_eq!(refused(""), "a: the file is empty");
}

#[test]
fn tabs_separate_and_quotes_are_ordinary() {
    let format = delimited(Delimiter::Tab, Some(&["id", "label", "text"]));
    let rows = read_as(format.clone(), b"1\t2.5\t\"so\" he said\r\n2\t-1\tb").unwrap();
    assert_eq!(rows.list, [row(1, "\"so\" he said", "2.5"), row(2, "b", "-1")]);
    assert!(read_as(format, b"1\t2\n").unwrap_err().starts_with("a:1: 2 fields"));
}

#[test]
fn bytes_that_are_not_utf8_are_replaced_and_counted() {
    let rows = read_as(delimited(Delimiter::Comma, None), b"text,label\na,1\ncaf\xe9,0\n").unwrap();
    assert_eq!(rows.list[1].1, "caf\u{fffd}");
    assert_eq!(rows.repaired, Some((1, 3)));
    let utf16 = b"\xff\xfet\0e\0x\0t\0";
    assert!(read_as(SourceFormat::JsonLines, utf16).unwrap_err().contains("iconv"));
}

#[test]
fn json_lines_are_objects_with_both_keys() {
    let read = |text: &str| read_as(SourceFormat::JsonLines, text.as_bytes());
    let rows =
        read("{\"text\": \"a\\nb\", \"label\": 1}\n\n{\"label\": \"x\", \"text\": \"\"}\r\n");
    assert_eq!(rows.unwrap().list, [row(1, "a\nb", "1"), row(3, "", "x")]);
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
    assert_eq!(read(&whole).unwrap().list, [row(1, "a", "1"), row(2, "b ", "0")]);
    let scores = read(&table(vec![("label", floats), ("text", texts.clone())])).unwrap();
    assert_eq!(scores.list[0].2, "1.5");
    let error = read(&table(vec![("label", labels.clone()), ("text", nulls)])).unwrap_err();
    assert_eq!(error, "a, row 2: `text` is null or NaN: remove the row");
    for missing in [f32::NAN, -f32::NAN] {
        let labels: ArrayRef = Arc::new(Float32Array::from(vec![0.0, missing]));
        let error = read(&table(vec![("label", labels), ("text", texts.clone())])).unwrap_err();
        assert_eq!(error, "a, row 2: `label` is null or NaN: remove the row");
    }
    let error = read(&table(vec![("label", labels.clone()), ("text", labels)])).unwrap_err();
    assert!(error.contains("Int64"), "{error}");
    assert!(read(&table(vec![("text", texts)])).unwrap_err().contains("no column `label`"));
}

/// As a careful writer would write it.
fn quote(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files_are_read_and_truncated_ones_refused() {
    let body = "text,label\nsome words,1\nother words,0\n".to_owned().into_bytes();
    let format = delimited(Delimiter::Comma, None);
    let read = |name: &str, bytes: &[u8]| {
        read_file(&SourceFile::of_bytes(name, format.clone(), bytes), &wanted())
    };
    let plain = read("a.csv", &body).unwrap().list;
    let members = [gzip(&body[..20]), gzip(&body[20..])].concat();
    let zstd = zstd::stream::encode_all(&*body, 3).unwrap();
    for (name, bytes) in [("a.csv.gz", gzip(&body)), ("a.csv.GZ", members), ("a.csv.zst", zstd)] {
        assert_eq!(read(name, &bytes).unwrap().list, plain, "{name}");
        for end in 1..bytes.len() {
            // Cut between two members or at a frame's end, a file is whole for its format.
            if let Err(error) = read(name, &bytes[..end]) {
                assert!(error.starts_with(name) && !error.contains("cannot read"), "{error}");
            }
        }
        let error = read(name, &bytes[..bytes.len() - 5]).unwrap_err();
        let place = error.strip_prefix(name).unwrap_or_default();
        let is_placed = [":1: ", ":3: "].iter().any(|row| place.starts_with(row));
        assert!(is_placed && place.contains("cut off"), "{error}");
    }
    assert!(read("a.csv.gz", &body).unwrap_err().contains("damaged"));
    let parquet = SourceFile::of_bytes("a.parquet.gz", SourceFormat::Parquet, b"PAR1");
    assert!(read_file(&parquet, &wanted()).unwrap_err().contains("decompress"));
}

#[test]
fn a_file_that_is_cut_off_names_the_first_row_that_is_not_there() {
    let texts = (0..20_000u64).map(|n| format!("{n} {}", n * n * 2_654_435_761 % 1_000_003));
    let (mut table, mut objects) = ("text,label\n".to_owned(), String::new());
    for text in texts {
        table += &format!("{text},1\n");
        objects += &format!("{{\"text\": \"{text}\", \"label\": 1}}\n");
    }
    let files = [
        ("a.csv", delimited(Delimiter::Comma, None), table, 1),
        ("a.jsonl", SourceFormat::JsonLines, objects, 0),
    ];
    for (name, format, body, header_lines) in files {
        let body = body.as_bytes();
        for (ending, bytes) in
            [("gz", gzip(body)), ("zst", zstd::stream::encode_all(body, 3).unwrap())]
        {
            let name = format!("{name}.{ending}");
            let file = SourceFile::of_bytes(&name, format.clone(), &bytes[..bytes.len() / 2]);
            let mut rows = file.rows(&wanted()).unwrap();
            let num_whole = rows.by_ref().take_while(Result::is_ok).count() as u64;
            drop(rows);
            assert!((1000..19_000).contains(&num_whole), "{name}: {num_whole}");
            let place = format!("{name}:{}: ", header_lines + num_whole + 1);
            let error = read_file(&file, &wanted()).unwrap_err();
            assert!(error.starts_with(&place) && error.contains("cut off"), "{place}: {error}");
        }
    }
}

#[test]
fn plain_text_is_lines_or_documents() {
    let body = b"\xef\xbb\xbfone.\r\ntwo.\n\n \nthree.\n\n\nfour.";
    let read = |documents| {
        let wanted = Wanted { label: None, documents, ..wanted() };
        let found = read_file(&SourceFile::of_bytes("a", SourceFormat::Text, body), &wanted);
        found.unwrap().list.into_iter().map(|(at, text, _)| (at, text)).collect::<Vec<_>>()
    };
    let lines = [(1, "one."), (2, "two."), (5, "three."), (8, "four.")];
    assert_eq!(read(false), lines.map(|(at, text)| (at, text.to_owned())));
    let documents = [(1, "one.\ntwo."), (5, "three."), (8, "four.")];
    assert_eq!(read(true), documents.map(|(at, text)| (at, text.to_owned())));
}

#[test]
fn a_second_column_makes_pairs() {
    let wanted = Wanted { pair: Some("other".to_owned()), ..wanted() };
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let others: ArrayRef = Arc::new(StringArray::from(vec!["b"]));
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let parquet = table(vec![("text", texts), ("other", others), ("label", labels)]);
    let files = [
        (delimited(Delimiter::Tab, None), b"other\tlabel\ttext\nb\t1\ta\n".to_vec()),
        (SourceFormat::JsonLines, br#"{"text": "a", "other": "b", "label": 1}"#.to_vec()),
        (SourceFormat::Parquet, parquet),
    ];
    for (format, bytes) in files {
        let file = SourceFile::of_bytes("a", format, &bytes);
        let row = file.rows(&wanted).unwrap().next().unwrap().unwrap();
        let found = (row.text.as_str(), row.pair.as_deref(), row.label.as_deref());
        assert_eq!(found, ("a", Some("b"), Some("1")));
        let absent = Wanted { pair: Some("third".to_owned()), ..wanted.clone() };
        assert!(read_file(&file, &absent).unwrap_err().contains("`third`"));
    }
}

fn write(path: &Path, contents: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
}

async fn names(
    paths: &[&Path],
    format: SourceFormat,
    role: Role,
    unlabeled: bool,
) -> Result<Vec<String>, String> {
    let paths = paths.iter().map(|path| path.display().to_string()).collect();
    let found = find(&Source { paths, hub: None, format }, role, unlabeled).await;
    let name = |file: SourceFile| {
        let path = Path::new(&file.shown);
        path.file_name().unwrap().to_str().unwrap().to_owned()
    };
    found.map(|files| files.into_iter().map(name).collect()).map_err(|error| {
        assert!(error.is_permanent());
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}; {}", source.unwrap_or_default())
    })
}

#[tokio::test]
async fn files_are_found_by_list_and_pattern() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["part-2.csv", "part-10.csv", "part-1.csv", ".part-0.csv", "notes.txt"] {
        write(&path(name), "text,label\na,1\n");
    }
    std::fs::create_dir(path("part-folder.csv")).unwrap();
    let csv = || delimited(Delimiter::Comma, None);
    let found = names(&[&path("part-*.csv")], csv(), Role::Train, false).await.unwrap();
    assert_eq!(found, ["part-1.csv", "part-10.csv", "part-2.csv"]);
    let listed = [&*path("part-2.csv"), &*path("part-1.csv")];
    assert_eq!(
        names(&listed, csv(), Role::Train, false).await.unwrap(),
        ["part-2.csv", "part-1.csv"]
    );
    let none = names(&[&path("x-*.csv")], csv(), Role::Train, false).await.unwrap_err();
    assert!(none.contains("x-*.csv: no file matches"), "{none}");
    let missing = names(&[&path("lost.csv")], csv(), Role::Train, false).await.unwrap_err();
    assert!(missing.contains("cannot read") && missing.contains("lost.csv"), "{missing}");
    let directory = names(&[folder.path()], csv(), Role::Train, false).await.unwrap_err();
    assert!(directory.contains("directory"), "{directory}");
}

#[tokio::test]
async fn folders_of_data_sets_have_a_part_for_each_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write(&path("SST-2/train.tsv"), "sentence\tlabel\nfine \t1\n");
    write(&path("SST-2/dev.tsv"), "sentence\tlabel\nbad \t0\n");
    let glue = |role| names_of(path("SST-2"), SourceFormat::Glue, role, false);
    assert_eq!(glue(Role::Train).await.unwrap(), ["train.tsv"]);
    assert_eq!(glue(Role::Validation).await.unwrap(), ["dev.tsv"]);
    assert!(glue(Role::Test).await.unwrap_err().contains("no labels"));
    for name in ["train/neg/1_2.txt", "train/neg/0_1.txt", "train/pos/0_9.txt", "test/pos/0_10.txt"]
    {
        write(&path("aclImdb").join(name), name);
    }
    write(&path("aclImdb/train/unsup/0_0.txt"), "no label");
    write(&path("aclImdb/train/neg/urls"), "not a review");
    let imdb = |role, unlabeled| names_of(path("aclImdb"), SourceFormat::AclImdb, role, unlabeled);
    assert_eq!(imdb(Role::Train, false).await.unwrap(), ["0_1.txt", "1_2.txt", "0_9.txt"]);
    assert_eq!(imdb(Role::Train, true).await.unwrap().len(), 4);
    assert!(imdb(Role::Validation, false).await.unwrap_err().contains("fraction"));
    assert!(imdb(Role::Test, false).await.unwrap_err().contains("neg"), "test/neg is missing");
    let source = Source {
        paths: vec![path("aclImdb").display().to_string()],
        hub: None,
        format: SourceFormat::AclImdb,
    };
    let files = find(&source, Role::Train, false).await.unwrap();
    let row = read_file(&files[0], &wanted()).unwrap().list.remove(0);
    assert_eq!(row, (1, "train/neg/0_1.txt".to_owned(), "neg".to_owned()));
}

async fn names_of(
    path: std::path::PathBuf,
    format: SourceFormat,
    role: Role,
    unlabeled: bool,
) -> Result<Vec<String>, String> {
    names(&[&path], format, role, unlabeled).await
}

#[tokio::test]
async fn objects_of_a_store_are_found_and_fetched() {
    let refused = |url: &'static str| async move {
        let format = SourceFormat::JsonLines;
        let source = Source { paths: vec![url.to_owned()], hub: None, format };
        find(&source, Role::Train, false).await.unwrap_err().to_string()
    };
    assert!(refused("s3://container").await.contains("s3://CONTAINER/FOLDER/FILE"));
    assert!(refused("s3://container/").await.contains("s3://CONTAINER/FOLDER/FILE"));
    assert!(refused("nothing://host/a/b.jsonl").await.contains("no object store"));
    let store = Store::in_memory();
    for name in ["part-2.jsonl", "part-1.jsonl", "other.jsonl", "deep/part-3.jsonl"] {
        let row = format!("{{\"text\": \"{name}\", \"label\": 1}}\n");
        store.put(&Key::from(name), row.into_bytes()).await.unwrap();
    }
    let format = SourceFormat::JsonLines;
    let mut files = objects_for_tests(&store, "part-*.jsonl", &format).await.unwrap();
    let texts = |files: &[SourceFile]| -> Vec<String> {
        files.iter().map(|file| read_file(file, &wanted()).unwrap().list.remove(0).1).collect()
    };
    assert!(files[0].rows(&wanted()).is_err(), "it has not been fetched");
    for file in &mut files {
        file.fetch(&std::env::temp_dir()).await.unwrap();
    }
    // Twice: a file is read in two passes.
    assert_eq!(texts(&files), ["part-1.jsonl", "part-2.jsonl"]);
    assert_eq!(texts(&files), ["part-1.jsonl", "part-2.jsonl"]);
    let identity = files[0].identity.clone();
    let again = objects_for_tests(&store, "part-1.jsonl", &format).await.unwrap();
    assert_eq!(again[0].identity, identity);
    store.put(&Key::from("part-1.jsonl"), "{}").await.unwrap();
    let changed = objects_for_tests(&store, "part-1.jsonl", &format).await.unwrap();
    assert_ne!(changed[0].identity, identity);
    for name in ["donn\u{e9}es #1~.jsonl", "50%.jsonl"] {
        let key = Key::parse(name).unwrap();
        store.put(&key, "{\"text\": \"odd\", \"label\": 1}\n").await.unwrap();
        let mut odd = objects_for_tests(&store, name, &format).await.unwrap();
        odd[0].fetch(&std::env::temp_dir()).await.unwrap();
        assert_eq!(texts(&odd), ["odd"], "{name}");
    }
    let none = objects_for_tests(&store, "x-*", &format).await.unwrap_err().to_string();
    assert!(none.contains("no object in memory:///"), "{none}");
    let missing = objects_for_tests(&store, "lost.jsonl", &format).await.unwrap_err();
    assert!(missing.is_permanent() && missing.to_string().contains("lost.jsonl"), "{missing}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    write(&file, "{\"text\": \"a\", \"label\": 1}\n");
    let paths = vec![format!("file://{}", file.display())];
    let source = Source { paths, hub: None, format: SourceFormat::JsonLines };
    let files = find(&source, Role::Train, false).await.unwrap();
    assert_eq!(read_file(&files[0], &wanted()).unwrap().list.len(), 1);
    files[0].check_unchanged().unwrap();
    write(&file, "{\"text\": \"longer\", \"label\": 1}\n");
    assert!(matches!(files[0].check_unchanged(), Err(DataError::Changed { .. })));
}

#[tokio::test]
async fn a_review_that_changed_its_class_is_other_data() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("train");
    for class in ["neg", "pos"] {
        std::fs::create_dir_all(part.join(class)).unwrap();
        write(&part.join(class).join("0_1.txt"), class);
    }
    write(&part.join("neg/1_1.txt"), "it depends");
    let paths = vec![folder.path().display().to_string()];
    let source = Source { paths, hub: None, format: SourceFormat::AclImdb };
    let identities = async || -> Vec<_> {
        let files = find(&source, Role::Train, false).await.unwrap();
        files.iter().map(|file| file.identity.clone()).collect()
    };
    let before = identities().await;
    assert_eq!(identities().await, before);
    // The last of one class becomes the first of the other: the texts are the same, in the same order.
    std::fs::rename(part.join("neg/1_1.txt"), part.join("pos/0_0.txt")).unwrap();
    assert_ne!(identities().await, before);
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
            let _parsed = read_as(SourceFormat::Text, &body);
            prop_assert!(read_as(SourceFormat::Parquet, &body).is_err());
        }
    }

    #[test]
    fn where_blocks_end_changes_nothing(
        body in "[a\"\n\r,\t]{0,80}|(text,label\n)([a ]{0,3},[01]\r?\n|\"[a,\"\n]{0,6}\",1\n){0,8}",
        block in 1usize..20, tabs: bool,
    ) {
        let delimiter = if tabs { Delimiter::Tab } else { Delimiter::Comma };
        let read = |block: usize| {
            let reader = Box::new(Cursor::new(body.clone().into_bytes()));
            let fields = Fields::in_blocks(block, reader, delimiter, None, &wanted());
            let fields = fields.map_err(|why| why.of_file("a", true).to_string())?;
            collect(fields.map(|row| row.map_err(|why| why.of_file("a", true)))).map(|found| found.list)
        };
        prop_assert_eq!(read(block), read(1 << 20));
    }

    #[test]
    fn any_compressed_bytes_are_parsed_or_refused(bytes: Vec<u8>, at: usize, bit in 0u8..8) {
        let body = b"text,label\na,1\n".repeat(20);
        for (name, whole) in [("a.gz", gzip(&body)), ("a.zst", zstd::stream::encode_all(&*body, 1).unwrap())] {
            let mut flipped = whole.clone();
            let at = at % whole.len();
            flipped[at] ^= 1 << bit;
            for bytes in [&bytes, &flipped] {
                let file = SourceFile::of_bytes(name, delimited(Delimiter::Comma, None), bytes);
                let _parsed = read_file(&file, &wanted());
            }
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
        prop_assert_eq!(rows.into_iter().map(|row| row.1).collect::<Vec<_>>(), lines);
    }
}
