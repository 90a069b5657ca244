//! The `data` section of a manifest from outside: what every way of naming data comes to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use muster_common::manifest::{
    Assignment, DataSettings, Delimiter, Holdout, HubSet, Hygiene, LabelRule, Manifest,
    NearDuplicates, ParameterValue, Policy, Source, SourceFormat, TrainingObjective, Truncation,
};

fn manifest(top: &str, data: &str) -> Manifest {
    let text = format!(
        "version: 1\nname: one\nmodel: {{pretrained: ./m}}\n{top}data:\n{data}budget: {{epochs: 1}}\n"
    );
    Manifest::parse(&text).unwrap()
}

fn data(data: &str) -> DataSettings {
    manifest("", data).data
}

fn source(text: &str) -> Source {
    data(&format!(
        "  train: {text}\n  validation: {{fraction: 0.1}}\n  text: text\n  label: {{column: label}}\n"
    ))
    .train
}

const CSV: SourceFormat = SourceFormat::Delimited { delimiter: Delimiter::Comma, columns: None };

#[test]
fn files_are_named_alone_in_lists_by_patterns_and_by_urls() {
    for (text, paths, format) in [
        ("{path: a.CSV.gz}", vec!["a.CSV.gz"], CSV),
        ("{path: [b.jsonl, a.jsonl.zst]}", vec!["b.jsonl", "a.jsonl.zst"], SourceFormat::JsonLines),
        (
            "{path: 's3://c/f/part-*.parquet'}",
            vec!["s3://c/f/part-*.parquet"],
            SourceFormat::Parquet,
        ),
        ("{path: notes, format: csv}", vec!["notes"], CSV),
        ("{path: SST-2, format: glue}", vec!["SST-2"], SourceFormat::Glue),
        ("{path: aclImdb, format: aclimdb}", vec!["aclImdb"], SourceFormat::AclImdb),
    ] {
        let paths = paths.into_iter().map(str::to_owned).collect();
        assert_eq!(source(text), Source { paths, hub: None, format }, "{text}");
    }
}

#[test]
fn data_sets_of_a_hub_have_a_name_a_configuration_and_a_split() {
    let text = "{hub: nyu-mll/glue@v1, config: sst2, split: dev}";
    let found = source(text);
    let HubSet { name, config, split } = found.hub.unwrap();
    assert_eq!(name.to_string(), "nyu-mll/glue@v1");
    assert_eq!((config.as_deref(), split.as_deref()), (Some("sst2"), Some("dev")));
    assert_eq!((found.paths.len(), found.format), (0, SourceFormat::Parquet));
    assert_eq!(source("{hub: imdb}").hub.unwrap().config, None);
}

#[test]
fn pairs_hygiene_and_truncation_arrive() {
    let found = manifest(
        "",
        "  train: {path: a.csv}\n  validation: {hub: org/set}\n  test: {path: [b.csv, c.csv]}\n\
         \x20 text: premise\n  text_pair: hypothesis\n  label: {column: label}\n\
         \x20 hygiene: {duplicates: keep, leaks: refuse, near_leaks: drop, empty: refuse,\n\
         \x20   unknown_labels: drop, bad_utf8: refuse}\n",
    );
    assert_eq!(found.data.text_pair.as_deref(), Some("hypothesis"));
    assert!(matches!(&found.data.validation, Holdout::Source(source) if source.hub.is_some()));
    assert!(matches!(&found.data.test, Holdout::Source(source) if source.paths.len() == 2));
    let expected = Hygiene {
        duplicates: Policy::Keep,
        leaks: Policy::Refuse,
        near_leaks: Policy::Drop,
        near_duplicates: NearDuplicates::Together,
        empty: Policy::Refuse,
        unknown_labels: Policy::Drop,
        bad_utf8: Policy::Refuse,
    };
    assert_eq!(found.data.hygiene, expected);
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), found);
    for (text, expected) in [
        ("tail", Truncation::Tail),
        ("head_tail", Truncation::HeadTail { head: None }),
        ("{head: 100}", Truncation::HeadTail { head: Some(100) }),
    ] {
        let text = format!(
            "version: 1\nname: one\nmodel: {{pretrained: ./m, truncation: {text}}}\n\
             data: {{train: {{path: a.csv}}, validation: {{fraction: 0.1}}, text: t, label: {{column: l}}}}\n\
             budget: {{epochs: 1}}\n"
        );
        assert_eq!(Manifest::parse(&text).unwrap().model.truncation, expected);
    }
}

#[test]
fn objectives_without_labels_need_none() {
    let rest = "  train: {path: a.txt}\n  validation: {fraction: 0.1}\n  text: text\n";
    for (name, objective) in TrainingObjective::NAMES.into_iter().skip(1) {
        let found = manifest(&format!("objective: {name}\n"), rest);
        assert_eq!((found.objective, found.data.label), (objective, None));
        assert_eq!(objective.name(), name);
    }
}

#[test]
fn paths_of_this_machine_become_absolute_and_are_looked_for() {
    let mut found = manifest(
        "",
        "  train: {path: [a.csv, 'b-*.csv', 's3://c/d.csv', /e.csv]}\n  validation: {fraction: 0.1}\n\
         \x20 test: {hub: org/set}\n  text: text\n  label: {column: label}\n",
    );
    found.rebase(Path::new("/base"));
    assert_eq!(found.data.train.paths, ["/base/a.csv", "/base/b-*.csv", "s3://c/d.csv", "/e.csv"]);
    let inputs = found.inputs();
    let data: Vec<&str> =
        inputs.iter().filter(|(name, _)| name.starts_with("data")).map(|(_, path)| *path).collect();
    assert_eq!(data, ["/base/a.csv", "/e.csv"]);
}

#[test]
fn a_url_may_have_the_options_of_its_store() {
    let found = manifest(
        "",
        "  train: {path: 's3://c/a/b-?.csv?endpoint=http://host:9/a.b&region=eu'}\n\
         \x20 validation: {fraction: 0.1}\n  text: text\n  label: {column: label}\n",
    );
    assert_eq!(found.data.train.format, CSV);
    for (plain, options) in [
        ("s3://c/a?.csv", ""),
        ("s3://c/a?.csv", "?path_style=true"),
        ("gs://c/year=7/a.csv", "?request_seconds=5&region=x"),
        ("s3://c/region=x.csv", ""),
        ("here/a.csv?region=x", ""),
    ] {
        let path = format!("{plain}{options}");
        assert_eq!(Source::split_options(&path), (plain, options));
    }
}

#[test]
fn a_length_that_is_searched_is_known_before_trials_begin() {
    let rest = "  train: {path: a.csv}\n  validation: {fraction: 0.1}\n  text: text\n  label: {column: label}\n";
    let space = |lengths: &str| {
        manifest(
            &format!(
                "hyperparameters: {{max_length: {lengths}}}\nsearcher: {{metric: loss, max_trials: 2}}\n"
            ),
            rest,
        )
    };
    let searched = space("{values: [64, 32]}");
    assert_eq!(searched.max_lengths(), [64, 32]);
    let mut assignment = Assignment::new();
    assignment.insert("max_length".to_owned(), ParameterValue::Int(32));
    assert_eq!(searched.max_length(&assignment), 32);
    assert_eq!(space("{min: 8, max: 64}").max_lengths(), [128]);
    let plain = manifest("", rest);
    assert_eq!((plain.max_lengths(), plain.max_length(&Assignment::new())), (vec![128], 128));
}

/// Journals of builds that knew one file per split and classes only.
#[test]
fn old_journals_are_read() {
    let old = r#"{
        "train": {"path": "a.csv", "format": {"delimited": {"delimiter": "comma", "columns": null}}},
        "validation": {"source": {"path": "b.parquet", "format": "parquet"}},
        "test": "absent", "text": "text",
        "label": {"class": {"column": "label", "names": null}}
    }"#;
    let found: DataSettings = serde_json::from_str(old).unwrap();
    assert_eq!(found.train, Source { paths: vec!["a.csv".to_owned()], hub: None, format: CSV });
    assert_eq!(found.label, Some(LabelRule::Class { column: "label".to_owned(), names: None }));
    assert_eq!((found.hygiene, found.text_pair), (Hygiene::default(), None));
}
