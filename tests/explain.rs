//! `muster explain` with the real programs: terminal, JSON and page, of texts and of a file.
//! The numbers are checked in `worker/src/explain/tests.rs`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use muster_tests::browser::{browse, browser};
use muster_tests::process::program;
use muster_tests::sample::repository;
use muster_tests::skip;
use serde_json::Value;

const FAMILIES: [&str; 3] = ["bert", "distilbert", "roberta"];

fn model(family: &str) -> String {
    let models = repository().join("tests/golden/hf/families");
    models.join(format!("{family}-classification")).display().to_string()
}

fn explain(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(program("muster").unwrap())
        .arg("explain")
        .args(arguments)
        .env_remove("COLUMNS")
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn texts_are_explained_in_every_way() {
    let directory = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let model = model(family);
        let arguments = [
            model.as_str(),
            "--text",
            "A bad film, and <b>",
            "--text=-goods",
            "--pair",
            "good",
            "--pair",
            "film",
            "--steps",
            "100",
            "--html",
            "page.html",
            "--json",
            "report.json",
        ];
        let output = explain(directory.path(), &arguments);
        let stdout = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        // Not a terminal: numbers in place of colours.
        assert!(!stdout.contains('\x1b') && stdout.contains("completeness error"), "{stdout}");
        for title in
            ["integrated gradients", "gradient x input", "occlusion", "deletion", "entropy"]
        {
            assert!(stdout.contains(title), "{title}: {stdout}");
        }
        let report = std::fs::read(directory.path().join("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["format"], &report["model"]["family"]), (&1.into(), &family.into()));
        let texts = report["texts"].as_array().unwrap();
        assert_eq!((texts.len(), &texts[1]["text_pair"]), (2, &"film".into()));
        for explained in texts {
            let whole = &explained["importance"][0]["completeness"];
            let number = |key: &str| whole[key].as_f64().unwrap();
            let difference = number("score") - number("baseline_score");
            assert!((number("sum") - difference).abs() < 0.01 * difference.abs(), "{whole}");
            let layers = &explained["layers"];
            let length = explained["tokens"].as_array().unwrap().len();
            let row = layers["attentions"][1][1][length - 1].as_array().unwrap();
            let sum: f64 = row.iter().map(|share| share.as_f64().unwrap()).sum();
            assert!(row.len() == length && (sum - 1.0).abs() < 1e-5);
        }
        let page = std::fs::read_to_string(directory.path().join("page.html")).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.contains("&lt;b"));
        assert!(!page.contains("<b>\"") && !page.contains("http"));
    }
}

#[test]
fn a_split_shows_curves_probes_and_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let mut rows = "text,label\n".to_owned();
    for index in 0..30 {
        let (word, label) = [("good", "good"), ("bad", "bad"), ("film", "so-so")][index % 3];
        rows.push_str(&format!("a {word} film {},{label}\n", "it ".repeat(index / 3)));
    }
    std::fs::write(directory.path().join("reviews.csv"), rows).unwrap();
    let model = model("bert");
    let arguments = [
        model.as_str(),
        "--file",
        "reviews.csv",
        "--label-column",
        "label",
        "--limit",
        "6",
        "--mistakes",
        "2",
        "--json",
        "-",
        "--html",
        "page.html",
    ];
    let output = explain(directory.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let split = &report["split"];
    let count = |key: &str| split[key].as_array().unwrap().len();
    assert_eq!((&split["num_texts"], &split["num_attributed"]), (&30.into(), &6.into()));
    assert_eq!((count("curves"), count("probes"), count("heads"), count("mistakes")), (4, 3, 2, 2));
    assert!(split["accuracy"].as_f64().unwrap() < 1.0);
    let surest: Vec<f64> = split["mistakes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| {
            assert_ne!(text["label"], text["predicted"]);
            let classes = text["classes"].as_array().unwrap().iter();
            classes.map(|class| class["probability"].as_f64().unwrap()).fold(0.0, f64::max)
        })
        .collect();
    assert!(surest[0] >= surest[1]);
    let page = std::fs::read_to_string(directory.path().join("page.html")).unwrap();
    assert!(page.contains("Most confident mistakes") && page.contains("linear probe"));
}

/// The page in a real browser: of a text with everything that is said of it, and of a file.
#[test]
fn a_browser_shows_explanations_to_everybody() {
    let name = "a_browser_shows_explanations_to_everybody";
    if let Err(reason) = browser() {
        return skip(name, &reason);
    }
    let directory = tempfile::tempdir().unwrap();
    let rows = "a good film,good\na bad film,bad\na film,so-so\n".repeat(4);
    std::fs::write(directory.path().join("reviews.csv"), format!("text,label\n{rows}")).unwrap();
    let model = model("bert");
    let of_text = ["--text", "a bad film, and so very long that it is not all read"];
    let of_file = ["--file", "reviews.csv", "--label-column", "label", "--limit", "6"];
    for subject in [&of_text[..], &of_file[..]] {
        let arguments = [&[model.as_str()], subject, &["--html", "page.html"]].concat();
        let output = explain(directory.path(), &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let page = directory.path().join("page.html").display().to_string();
        let said = browse("explanation.mjs", directory.path(), &[("MUSTER_PAGE", &page)]).unwrap();
        assert!(said.contains("explained to everybody"), "{said}");
    }
}

#[test]
fn mistakes_are_named_with_their_mend() {
    let directory = tempfile::tempdir().unwrap();
    let model = model("bert");
    std::fs::write(directory.path().join("rows.csv"), "text,label\na,good\nb,great\n").unwrap();
    let cases: [(&[&str], i32, &str); 6] = [
        (&[&model], 2, "--text"),
        (&[&model, "--text", "a", "--text", "b", "--pair", "c"], 2, "--pair"),
        (&[&model, "--text", "a", "--class", "great"], 1, "so-so"),
        (&[&model, "--file", "rows.csv", "--label-column", "label"], 1, "rows.csv:3"),
        (&[&model, "--file", "rows.csv", "--label-column", "stars"], 1, "`stars`"),
        (&[&model, "--text", "a", "--html", "nowhere/page.html"], 1, "nowhere/page.html"),
    ];
    for (arguments, code, word) in cases {
        let output = explain(directory.path(), arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
}

#[test]
fn of_two_files_both_are_written_or_neither() {
    let directory = tempfile::tempdir().unwrap();
    let model = model("bert");
    let arguments = [&model, "--text", "good", "--html", "page.html", "--json", "nowhere/a.json"];
    let output = explain(directory.path(), &arguments);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("nowhere/a.json"), "{stderr}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
