//! Files of the forms that the three projects publish, with what is made of them.

use std::path::{Path, PathBuf};

use muster_common::manifest::Manifest;
use proptest::prelude::*;

use super::*;

fn samples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/import");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_sample = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".yaml") && !name.ends_with(".muster.yaml")
    };
    let mut samples: Vec<PathBuf> = entries.filter(is_sample).collect();
    samples.sort();
    samples
}

fn known() -> Known {
    Known {
        model: Some("models/minilm".to_owned()),
        data: Some("reviews.csv".to_owned()),
        text: Some("review".to_owned()),
        label: Some("stars \"1\"".to_owned()),
    }
}

#[test]
fn own_manifests_and_foreign_files_are_told_apart() {
    for path in samples() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(foreign(&text).is_some(), "{}", path.display());
        let made = std::fs::read_to_string(path.with_extension("muster.yaml")).unwrap();
        assert_eq!(foreign(&made), None, "{}", path.display());
        assert_eq!(import(&made, None, &Known::default()), Err(ImportError::Own));
    }
    // A manifest with a section missing is still meant as one.
    assert_eq!(foreign("version: 1\nsearcher: {metric: loss}\nhyperparameters: {}\n"), None);
    assert_eq!(foreign("searcher: {metric: loss}\n"), None);
    assert_eq!(foreign("not: [yaml"), None);
}

#[test]
fn samples_become_what_is_kept_beside_them() {
    let samples = samples();
    assert!(samples.len() >= 6, "{samples:?}");
    for path in samples {
        let text = std::fs::read_to_string(&path).unwrap();
        let imported = import(&text, None, &Known::default()).unwrap();
        let golden = path.with_extension("muster.yaml");
        if std::env::var_os("MUSTER_BLESS").is_some() {
            std::fs::write(&golden, &imported.text).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(imported.text, expected, "{}; `make bless` renews it", golden.display());
        assert!(!imported.left_out.is_empty(), "{}", path.display());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let dialect = match imported.dialect {
            Dialect::Determined => "determined_",
            Dialect::Wandb => "wandb_",
            Dialect::Katib => "katib_",
        };
        assert!(name.starts_with(dialect), "{name} was taken for {}", imported.dialect);
        assert!(Manifest::parse(&imported.text).is_err(), "model and data are to be filled in");
    }
}

#[test]
fn with_model_and_data_they_are_legal() {
    for path in samples() {
        let text = std::fs::read_to_string(&path).unwrap();
        let imported = import(&text, None, &known()).unwrap();
        let manifest = Manifest::parse(&imported.text);
        assert!(
            manifest.is_ok(),
            "{}: {}\n{}",
            path.display(),
            manifest.unwrap_err(),
            imported.text
        );
    }
}

/// Paths of all values of a document.
fn leaves(node: &Node, path: &str, found: &mut Vec<String>) {
    match &node.kind {
        NodeKind::Scalar { .. } => found.push(path.to_owned()),
        NodeKind::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}[{index}]"), found);
            }
        }
        NodeKind::Mapping(entries) => {
            for entry in entries {
                let key = &entry.key;
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(&entry.value, &path, found);
            }
        }
    }
}

#[test]
fn keys_that_nobody_knows_are_named_at_every_level() {
    for path in samples() {
        let text = std::fs::read_to_string(&path).unwrap();
        let root = parse_yaml(&text).unwrap().unwrap();
        let mut paths = Vec::new();
        leaves(&root, "", &mut paths);
        // A key that no system has, beside every top-level key and in every section of the search.
        for section in
            ["", "searcher", "resources", "metric", "early_terminate", "spec", "metadata"]
        {
            let NodeKind::Mapping(mut entries) = root.kind.clone() else { panic!("no mapping") };
            let strange = muster_common::manifest::Entry {
                key: "strange".to_owned(),
                line: 1,
                value: Node {
                    line: 1,
                    kind: NodeKind::Scalar { text: "x".to_owned(), quoted: false },
                },
            };
            let expected = match entries.iter_mut().find(|entry| entry.key == section) {
                Some(entry) => match &mut entry.value.kind {
                    NodeKind::Mapping(inner) => {
                        inner.push(strange);
                        format!("{section}.strange")
                    }
                    _ => continue,
                },
                None if section.is_empty() => {
                    entries.push(strange);
                    "strange".to_owned()
                }
                None => continue,
            };
            let changed = Node { line: 1, kind: NodeKind::Mapping(entries) };
            let text = changed.value().to_string();
            let imported = import(&text, None, &Known::default()).unwrap();
            let named = imported.left_out.iter().any(|remark| remark.path == expected);
            assert!(named, "{}: {expected}: {:?}", path.display(), imported.left_out);
        }
    }
}

#[test]
fn what_it_is_can_be_said_and_is_asked_for_otherwise() {
    let text = "method: random\nparameters: {lr: {min: 1.0e-5, max: 1.0e-4}}\n";
    assert_eq!(import(text, None, &Known::default()).unwrap().dialect, Dialect::Wandb);
    assert_eq!(import("a: 1\n", None, &Known::default()), Err(ImportError::Unknown));
    let forced = import("a: 1\n", Some(Dialect::Determined), &known()).unwrap();
    assert_eq!(forced.left_out.len(), 1);
    assert!(Manifest::parse(&forced.text).is_ok(), "{}", forced.text);
}

/// What may stand there.
const VALUES: [&str; 24] = [
    "0",
    "1",
    "-1",
    "1e-5",
    "1e400",
    "nan",
    "inf",
    "16",
    "\"0.1\"",
    "log",
    "double",
    "int",
    "grid",
    "hyperband",
    "medianstop",
    "categorical",
    "log_uniform",
    "q_uniform",
    "maximize",
    "loss",
    "accuracy",
    "\"a\\nb: c\"",
    "adaptive_asha",
    "99999999999999999999",
];

/// Keys of the three systems.
const KEYS: [&str; 40] = [
    "name",
    "searcher",
    "hyperparameters",
    "max_length",
    "batches",
    "epochs",
    "type",
    "minval",
    "maxval",
    "vals",
    "base",
    "count",
    "divisor",
    "max_rungs",
    "metric",
    "method",
    "parameters",
    "values",
    "value",
    "min",
    "max",
    "distribution",
    "q",
    "early_terminate",
    "min_iter",
    "eta",
    "spec",
    "objective",
    "algorithm",
    "algorithmName",
    "algorithmSettings",
    "feasibleSpace",
    "list",
    "step",
    "lr",
    "batch_size",
    "max_trials",
    "run_cap",
    "goal",
    "mode",
];

/// YAML that looks like what is imported: known keys, any values.
fn document() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(VALUES.to_vec()).prop_map(str::to_owned);
    scalar.prop_recursive(5, 60, 6, |inner| {
        let key = prop::sample::select(KEYS.to_vec());
        let pairs = prop::collection::btree_map(key, inner.clone(), 0..6);
        let mapping = pairs.prop_map(|pairs| {
            let pairs: Vec<String> =
                pairs.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("{{{}}}", pairs.join(", "))
        });
        let list =
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
        prop_oneof![3 => mapping, 1 => list]
    })
}

proptest! {
    #[test]
    fn any_text_is_imported_or_refused(text in ".{0,300}") {
        for dialect in [Dialect::Determined, Dialect::Wandb, Dialect::Katib] {
            let _refused = import(&text, Some(dialect), &Known::default());
        }
    }

    #[test]
    fn whatever_stands_in_a_file_gives_a_legal_manifest(text in document()) {
        for dialect in [Dialect::Determined, Dialect::Wandb, Dialect::Katib] {
            let Ok(imported) = import(&text, Some(dialect), &known()) else { continue };
            let manifest = Manifest::parse(&imported.text);
            prop_assert!(manifest.is_ok(), "{}\n{}", manifest.unwrap_err(), imported.text);
        }
    }
}
