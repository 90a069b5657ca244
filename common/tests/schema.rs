//! The JSON Schema of manifests agrees with the reader: on what is right, and on what is wrong in form.

mod refusal;

use std::path::{Path, PathBuf};

use jsonschema::Validator;
use muster_common::manifest::{HYPERPARAMETERS, parse_yaml, schema};
use refusal::{FULL, MINIMAL, refusals};
use serde_json::Value;

/// What no schema can know: words of the reader's answers that say what one value means for another, how a
/// number was spelled, or what stands outside of the document's values.
const BEYOND: &[&str] = &[
    "stands on line",
    "is not below max",
    "leave some of",
    "use the unit of `budget`",
    "no trial could ever be compared",
    "and each is a checkpoint",
    "one round of all brackets",
    "does not say how to read it",
    "overlap; move",
    "two ranges are called",
    "no number lies in range",
    "is the column of the label too",
    "micro-batches of",
    "less than one step",
    "a grid cannot enumerate",
    "has several values, but",
    "no hyperparameter has several values",
    "the grid has more than",
    "hold out all of the data",
    "the list has only",
    "the grid has only",
    "stands in the list and in",
    "only csv and tsv files",
    "pairs of texts are always",
    "pairs of sentences are always",
    "makes no use of it",
    "is not measured by",
    "some of the files are",
    "this format is one folder",
    "must lie on this machine",
    "is read as something else",
    "is no name on a hub",
    "can be found only where",
    "it ends at",
    "there is no such class",
    "goes with the brackets",
    "learns nothing from results",
    "a log scale starts above 0",
    "equal steps are not even",
    "has no values in this manifest",
    "is never",
    "no trial has it",
    "is a range of real numbers",
    "depends on itself",
    "to the width of the range",
    "searcher.max_trials: missing",
    "found `4.0`",
    "found `16.0`",
    "found `2.7e4`",
    "is fewer than `slots`",
    "no hyperparameter that is searched can change",
    "learns from trials that keep",
    "a list has no ranges",
    "a population of one",
    "goes on from a better one",
    "with float16 a trial cannot go on",
    "changes while a trial of a population trains",
    "is none of them",
    "is above max",
    "write both bounds in one",
    "only results that keep it",
    "one value says nothing of several",
    "stands twice; remove one",
];

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn validator() -> Validator {
    jsonschema::draft202012::new(&schema::schema()).unwrap()
}

fn value(text: &str) -> Option<Value> {
    parse_yaml(text).ok().flatten().map(|node| node.value())
}

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn complaints(validator: &Validator, text: &str) -> Vec<String> {
    let value = value(text).unwrap();
    let errors = validator.iter_errors(&value);
    errors.map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn it_is_a_schema_of_the_draft_it_names() {
    let schema = schema::schema();
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn the_published_copy_is_current() {
    let path = configs().join("manifest.schema.json");
    let current = serde_json::to_string_pretty(&schema::schema()).unwrap() + "\n";
    if std::env::var_os("MUSTER_BLESS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == current, "run `make bless`");
}

#[test]
fn legal_manifests_fit_it() {
    let validator = validator();
    let mut manifests = vec![("FULL".to_owned(), FULL.to_owned())];
    manifests.push(("MINIMAL".to_owned(), MINIMAL.to_owned()));
    manifests.push(("nulls".to_owned(), format!("{MINIMAL}seed:\nsearcher: ~\nmax_restarts:\n")));
    for entry in std::fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap_or_default();
            let line = "# yaml-language-server: $schema=manifest.schema.json";
            assert_eq!(first, line, "{}", path.display());
            manifests.push((path.display().to_string(), text));
        }
    }
    let readme = std::fs::read_to_string(configs().join("../README.md")).unwrap();
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    manifests.extend(blocks.map(|block| ("README.md".to_owned(), block.to_owned())));
    assert!(manifests.len() > 10, "only {} manifests", manifests.len());
    for (name, text) in manifests {
        let complaints = complaints(&validator, &text);
        assert!(complaints.is_empty(), "{name}:\n{}", complaints.join("\n"));
    }
}

#[test]
fn what_is_wrong_in_form_is_refused_by_it_too() {
    let validator = validator();
    let mut missed = Vec::new();
    let mut used = vec![false; BEYOND.len()];
    let mut num_refused = 0;
    for refusal in refusals() {
        let Some(value) = value(&refusal.manifest) else { continue };
        if refusal.expected == "accepted" {
            assert!(validator.is_valid(&value), "refusals.txt:{}", refusal.line);
            continue;
        }
        if !validator.is_valid(&value) {
            num_refused += 1;
            continue;
        }
        match BEYOND.iter().position(|words| refusal.expected.contains(words)) {
            Some(index) => used[index] = true,
            None => missed.push(format!("refusals.txt:{}: {}", refusal.line, refusal.expected)),
        }
    }
    println!("{num_refused} refusals are refused by the schema");
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let unused: Vec<&&str> =
        BEYOND.iter().zip(&used).filter(|(_, used)| !**used).map(|(words, _)| words).collect();
    assert!(unused.is_empty(), "needed by no refusal: {unused:?}");
}

/// Every property below a schema, with its path.
fn properties(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    match schema {
        Value::Object(object) => {
            for (key, inner) in
                object.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                found.push((path.clone(), inner.clone()));
                properties(inner, &path, found);
            }
            for word in ["anyOf", "items"] {
                properties(object.get(word).unwrap_or(&Value::Null), path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, path, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_the_reference_is_in_it_with_its_meaning() {
    let schema = schema::schema();
    let mut found = Vec::new();
    properties(&schema, "", &mut found);
    for definition in ["budget", "files", "hub"] {
        properties(&schema["$defs"][definition], definition, &mut found);
    }
    let space = &schema["$defs"]["hyperparameters"]["properties"];
    for spec in HYPERPARAMETERS {
        assert!(space[spec.name]["description"].is_string(), "{}", spec.name);
        assert_eq!(space[spec.name]["default"].as_f64(), spec.default, "{}", spec.name);
    }
    let reference = std::fs::read_to_string(configs().join("README.md")).unwrap();
    let (keys, _) = reference.split_once("## Settings of a coordinator").unwrap();
    let sections =
        ["model.", "data.", "searcher.", "checkpoint.", "resources.", "training.", "evaluation."];
    let rows = keys.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let rows = rows.filter(|(key, _)| sections.iter().any(|section| key.starts_with(section)));
    let mut num_rows = 0;
    for (key, _) in rows {
        let known = found.iter().filter(|(path, _)| path == key).collect::<Vec<_>>();
        assert!(!known.is_empty(), "{key} is not in the schema");
        assert!(known.iter().any(|(_, schema)| schema["description"].is_string()), "{key}");
        num_rows += 1;
    }
    assert!(num_rows > 60, "only {num_rows} rows were found");
}
