//! Token ids against those of the transformers library. `golden/tokens/generate.py` made the files
//! and says how.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use muster_common::columnar::read_parquet;
use muster_common::digest::ContentHash;
use muster_common::manifest::Truncation;
use muster_tests::sample::shared_data;
use muster_tests::skip;
use muster_worker::data::{Input, Sequence, TextTokenizer};
use serde_json::Value;

const THREADS: usize = 2;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tokens").join(name)
}

fn read(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden(name)).unwrap()).unwrap()
}

fn whole(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn lists(value: &Value) -> Vec<Vec<u32>> {
    let list = |ids: &Value| ids.as_array().unwrap().iter().map(whole).collect();
    value.as_array().unwrap().iter().map(list).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn small_vocabularies_give_the_tokens_and_segments_of_transformers() {
    let small = read("small.json");
    let texts = strings(&small["texts"]);
    let pairs: Vec<Input<'_>> = lists(&small["pairs"])
        .iter()
        .map(|pair| Input { text: texts[pair[0] as usize], pair: Some(texts[pair[1] as usize]) })
        .collect();
    let cases = small["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (name, max_length) = (case["vocabulary"].as_str().unwrap(), whole(&case["max_length"]));
        let open = || TextTokenizer::open(&golden(name), max_length).unwrap();
        assert_eq!(open().encode(&texts, THREADS).unwrap(), lists(&case["head"]), "{name}");
        let tail = open().with_truncation(Truncation::Tail).unwrap();
        assert_eq!(tail.encode(&texts, THREADS).unwrap(), lists(&case["tail"]), "{name}");
        let found = open().encode_inputs(&pairs, THREADS).unwrap();
        let segments = lists(&case["segments"]);
        let expected = lists(&case["pairs"]).into_iter().zip(&segments).map(|(ids, segments)| {
            let first_segment = segments.iter().filter(|segment| **segment == 0).count();
            Sequence { ids, first_segment }
        });
        assert_eq!(found, expected.collect::<Vec<_>>(), "{name} {max_length}");
    }
}

fn column(path: &Path, name: &str) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap().into();
    let table = read_parquet(bytes, |column| column == name).unwrap();
    let columns = table.batches.iter().map(|batch| batch.column(0));
    columns.flat_map(texts).collect()
}

fn texts(column: &arrow::array::ArrayRef) -> Vec<String> {
    use arrow::array::AsArray;
    let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
}

fn digest(tokens: &[Vec<u32>]) -> String {
    let mut bytes = Vec::new();
    for ids in tokens {
        bytes.extend(u32::try_from(ids.len()).unwrap().to_le_bytes());
        bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    ContentHash::of(&bytes).as_str().to_owned()
}

#[test]
fn every_token_of_sst2_and_imdb_is_that_of_transformers() {
    let data = match shared_data() {
        Ok(data) => data,
        Err(reason) => {
            skip("every_token_of_sst2_and_imdb_is_that_of_transformers", &reason);
            return;
        }
    };
    // The vocabulary of BERT in both forms: with `tokenizer.json` and without.
    let words = tempfile::tempdir().unwrap();
    let bert = data.join("vocab/bert-base-uncased");
    std::fs::copy(bert.join("vocab.txt"), words.path().join("vocab.txt")).unwrap();
    let digests = read("digests.json");
    let mut compared = 0;
    for case in digests.as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let texts = column(&data.join(file), case["column"].as_str().unwrap());
        assert_eq!(texts.len() as u64, case["rows"].as_u64().unwrap(), "{file}");
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vocabulary = case["vocabulary"].as_str().unwrap();
        let mut directories = vec![data.join("vocab").join(vocabulary)];
        if vocabulary.starts_with("bert") {
            directories.push(words.path().to_owned());
        }
        for directory in directories {
            let tokenizer = TextTokenizer::open(&directory, whole(&case["max_length"])).unwrap();
            let found = digest(&tokenizer.encode(&texts, THREADS).unwrap());
            assert_eq!(found, case["sha256"].as_str().unwrap(), "{file} with {vocabulary}");
            compared += texts.len();
        }
    }
    println!("{compared} texts compared");
}
