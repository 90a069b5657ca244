//! Reports of a real sweep, by the real programs: their numbers are those of the summary, they are one file that
//! fetches nothing, and a real browser draws them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop, helper or not"
)]

use std::path::Path;

use muster_common::evaluation::prediction;
use muster_common::id::TrialId;
use muster_common::storage::{Layout, Store};
use muster_tests::browser::{browse, browser};
use muster_tests::process::Muster;
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::service::served_address;
use muster_tests::skip;
use serde_json::Value;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/python/bin/python");
/// Bytes of a page at most.
const PAGE_MAX: u64 = 2_000_000;

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_same(summary: &Value, report: &Value) {
    for (name, value) in summary["test"].as_object().unwrap() {
        match name.as_str() {
            "num_examples" => assert_eq!(report["test"]["num_examples"], *value),
            "confusion" => assert_eq!(report["test"]["confusion"], *value),
            "intervals_95" => assert_eq!(report["test"]["intervals_95"], *value),
            name => assert_eq!(report["test"]["scores"][name], *value, "{name}"),
        }
    }
    let behavior = &report["behavior"];
    assert_eq!(behavior["roc_auc"], summary["test"]["auc"], "of counts and of curves");
    let wrong = behavior["num_wrong"].as_f64().unwrap() / behavior["num_rows"].as_f64().unwrap();
    assert!((1.0 - wrong - summary["test"]["accuracy"].as_f64().unwrap()).abs() < 1e-12);
}

/// The report of the experiment has everything that there is.
fn assert_whole(best: &Value, report: &Value) {
    assert_same(best, report);
    assert_eq!(
        report["card"]["trials"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum::<u64>(),
        9
    );
    assert_eq!(report["ranking"]["trials"].as_array().unwrap().len(), 9);
    assert!(report["importance"]["shares"].as_array().is_some(), "nine results of the first rung");
    assert!(!report["behavior"]["lengths"].as_array().unwrap().is_empty());
    assert!(report["card"]["slot_hours"].as_f64().unwrap() > 0.0);
}

/// The value of a field in a table of the kernel's.
fn kernel(file: &str, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == field).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value)
}

/// The run card has what the workers trained with: this machine, one thread each, this build.
fn assert_equipped(report: &Value) {
    let [found] = &report["card"]["workers"].as_array().unwrap()[..] else {
        panic!("not one kind of worker: {}", report["card"]["workers"])
    };
    assert_eq!((&found["num_workers"], &found["threads"]), (&2.into(), &1.into()), "{found}");
    let processor = found["processor"].as_str().unwrap();
    match kernel("/proc/cpuinfo", "model name") {
        Some(name) => assert_eq!(processor, name),
        None => assert!(processor.contains(std::env::consts::ARCH), "{found}"),
    }
    let memory = kernel("/proc/meminfo", "MemTotal").unwrap();
    let kibibytes: u64 = memory.trim_end_matches("kB").trim().parse().unwrap();
    assert_eq!(found["memory_bytes"], 1024 * kibibytes, "{found}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(found["hosts"], serde_json::json!([host.trim()]), "{found}");
    assert_eq!(found["hosts"][0], report["card"]["hosts"][0]["name"], "as its metrics say");
    assert_eq!(found["muster"], env!("CARGO_PKG_VERSION"));
    let libtorch: Vec<u32> =
        found["libtorch"].as_str().unwrap().split('.').flat_map(str::parse::<u32>).collect();
    assert!(libtorch.len() >= 2 && libtorch[0] == 2, "{found}");
}

/// The model says so too, without names of machines.
fn assert_model_is_equipped(root: &Path, report: &Value) {
    let own = json(&root.join("muster-data/experiments/sample-1/best/muster.json"));
    let (own, found) = (&own["trained_with"][0], &report["card"]["workers"][0]);
    for field in ["processor", "num_processors", "memory_bytes", "threads", "libtorch", "muster"] {
        assert_eq!((field, &own[field]), (field, &found[field]));
    }
    assert!(own["hosts"].is_null() && own["host"].is_null() && own["worker"].is_null(), "{own}");
    let page = std::fs::read_to_string(root.join("all.html")).unwrap();
    let threads = "<td class=\"n\">1</td>";
    assert!(page.contains("<caption>What they trained with</caption>") && page.contains(threads));
    assert!(page.contains("<th scope=\"row\">2 workers</th>"), "the row of the workers");
}

/// The file of predictions has lengths of all examples, and texts of mistakes alone.
async fn assert_described(root: &Path, trial: &str) {
    let store = Store::open(root.join("muster-data").to_str().unwrap()).unwrap();
    let trial: TrialId = trial.parse().unwrap();
    let bytes = store.get(&Layout::predictions(&trial)).await.unwrap();
    let (rows, labels) = prediction::decode(bytes).unwrap();
    assert_eq!((rows.len(), labels.len()), (80, 2));
    let all = std::fs::read_to_string(root.join("sentences.tsv")).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    for row in &rows {
        let origin = row.origin.as_ref().unwrap();
        assert!(origin.file.ends_with("sentences.tsv"), "{row:?}");
        let line = lines[usize::try_from(origin.row).unwrap()];
        let rating: f64 = line.split('\t').nth(1).unwrap().parse().unwrap();
        let label = if rating < -0.5 { "negative" } else { "positive" };
        assert_eq!(label, labels[row.label as usize], "{line}");
    }
    let all = all.to_lowercase();
    let all: String = all.chars().filter(|c| c.is_alphanumeric()).collect();
    let (mut num_texts, mut num_found) = (0, 0);
    for row in &rows {
        assert!((3..=32).contains(&row.num_tokens.unwrap()), "{row:?}");
        assert_eq!(row.text.is_some(), !row.is_right(), "{row:?}");
        let Some(text) = &row.text else { continue };
        assert!(!text.contains("##") && !text.contains("[CLS]"), "{text}");
        let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
        num_texts += 1;
        num_found += usize::from(all.contains(&letters));
    }
    // Case and blanks are not kept, and of a few sentences neither are accents.
    assert!(num_found * 4 >= num_texts * 3, "{num_found} of {num_texts} texts are sentences");
}

/// The words of mistakes are weighed by the model, and stand where the text has them.
fn assert_explained(root: &Path, report: &Value) {
    let mistakes = report["behavior"]["mistakes"].as_array().unwrap();
    let mut num_explained = 0;
    for mistake in mistakes {
        let text = mistake["text"].as_str().unwrap();
        let words = mistake["words"].as_array().unwrap();
        num_explained += usize::from(!words.is_empty());
        for word in words {
            let place = |name: &str| usize::try_from(word[name].as_u64().unwrap()).unwrap();
            assert!(text.get(place("start")..place("end")).is_some(), "{word} of {text}");
            assert!(word["weight"].is_number(), "{word}");
        }
    }
    // What is read again is decoded tokens: now and then the model says something else about them.
    assert!(num_explained * 2 > mistakes.len().min(20), "{num_explained} of {}", mistakes.len());
    for page in ["all.html", "out/run.html"] {
        let page = std::fs::read_to_string(root.join(page)).unwrap();
        assert!(page.contains("<mark class=\"for") && page.contains("class=\"sides\""));
    }
}

/// The store alone tells how good the model is, and no more than it knows.
fn assert_stored(root: &Path, best: &Value) {
    let store = ["--store", "muster-data", "--no-explanations"];
    let ask = |label: &str, arguments: &[&str]| {
        let all = [&["report"], arguments, &store].concat();
        Muster::start(root, label, &all).unwrap()
    };
    let files = ["sample-1", "--json", "stored.json", "--output", "stored.html"];
    ask("stored", &files).succeed().unwrap();
    let report = json(&root.join("stored.json"));
    assert_same(best, &report);
    assert_equipped(&report);
    assert_eq!(report["card"]["chosen"]["trial"], best["trial"]);
    assert_eq!(report["ranking"]["trials"].as_array().unwrap().len(), 9);
    assert!(report["ranking"]["trials"][0]["objectives"][0].is_number(), "{}", report["ranking"]);
    assert_eq!(
        (&report["validation"], &report["card"]["state"]),
        (&Value::Null, &"not known".into())
    );
    assert!(!report["learning"].as_array().unwrap().is_empty());
    let words = |mistake: &Value| mistake["words"].as_array().unwrap().len();
    assert!(report["behavior"]["mistakes"].as_array().unwrap().iter().all(|one| words(one) == 0));
    let why = report["behavior"]["not_weighed"].as_str().unwrap();
    assert!(why.contains("--no-explanations"), "{why}");
    let mut absent = ask("absent", &["sample-7"]);
    assert_eq!(absent.wait().unwrap().code(), Some(1));
    assert!(absent.stderr().contains("there is no experiment sample-7"), "{}", absent.stderr());
}

/// What `SciPy` says of the test of McNemar: `b` and `c` examples that only one of the two is right about.
fn by_scipy(b: u64, c: u64) -> f64 {
    let script = "import sys; from scipy.stats import binomtest; b, c = map(int, sys.argv[1:]); \
                  print(binomtest(b, b + c).pvalue if b + c else 1.0)";
    let output = std::process::Command::new(PYTHON)
        .args(["-c", script, &b.to_string(), &c.to_string()])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

/// Two experiments with other models are compared by the examples that both have scored.
#[tokio::test]
async fn two_runs_are_compared_as_scipy_does() {
    let name = "two_runs_are_compared_as_scipy_does";
    if !Path::new(PYTHON).exists() {
        return skip(name, "parity: run deploy/setup/python_readers.sh");
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    for min_steps in [1, 12] {
        if let Err(reason) = write_manifest(root, &Sample { max_trials: 1, min_steps }) {
            return skip(name, &reason);
        }
        let arguments = ["run", "sample.yaml", "--slots", "1", "--threads-per-slot", "1"];
        Muster::start(root, "run", &arguments).unwrap().succeed().unwrap();
    }
    let store = Store::open(root.join("muster-data").to_str().unwrap()).unwrap();
    let mut right = Vec::new();
    for trial in ["sample-1/t1", "sample-2/t1"] {
        let key = Layout::predictions(&trial.parse::<TrialId>().unwrap());
        let (rows, _) = prediction::decode(store.get(&key).await.unwrap()).unwrap();
        right.push(rows.iter().map(|row| (row.row, row.is_right())).collect::<Vec<_>>());
    }
    let serve = ["serve", "--listen", "127.0.0.1:0", "--no-workers"];
    let mut server = Muster::start(root, "serve", &serve).unwrap();
    let url = served_address(&mut server).unwrap();
    let report = ["report", "sample-2", "--against", "sample-1", "--json", "two.json"];
    let arguments = [&report[..], &["--output", "two.html", "--coordinator", &url]].concat();
    Muster::start(root, "report", &arguments).unwrap().succeed().unwrap();
    let found = &json(&root.join("two.json"))["comparison"];
    let pairs = || right[1].iter().zip(&right[0]);
    assert!(pairs().all(|(this, other)| this.0 == other.0) && right[0].len() == 80);
    let count = |both: (bool, bool)| {
        pairs().filter(|(this, other)| (this.1, other.1) == both).count() as u64
    };
    let (b, c) = (count((true, false)), count((false, true)));
    assert!(b + c > 0, "the two models say the same of all");
    assert_eq!((found["only_this"].as_u64(), found["only_other"].as_u64()), (Some(b), Some(c)));
    assert_eq!(found["both_right"].as_u64(), Some(count((true, true))));
    assert_eq!(found["neither"].as_u64(), Some(count((false, false))));
    let p_value = found["p_value"].as_f64().unwrap();
    assert!((p_value - by_scipy(b, c)).abs() < 1e-9, "{found}");
    let difference = (b as f64 - c as f64) / 80.0;
    assert!((found["difference"].as_f64().unwrap() - difference).abs() < 1e-12, "{found}");
}

#[tokio::test]
async fn a_report_is_one_file_with_the_numbers_of_the_summary() {
    let name = "a_report_is_one_file_with_the_numbers_of_the_summary";
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    if let Err(reason) = write_manifest(root, &Sample { max_trials: 9, min_steps: 4 }) {
        return skip(name, &reason);
    }
    let one_process = ["run", "sample.yaml", "--slots", "2", "--threads-per-slot", "1"];
    let more = ["--summary", "summary.json", "--report", "out/run.html"];
    let arguments = [&one_process[..], &more].concat();
    Muster::start(root, "run", &arguments).unwrap().succeed().unwrap();
    let summary = json(&root.join("summary.json"));
    let best = &summary["best"];
    assert_described(root, best["trial"].as_str().unwrap()).await;

    let serve = ["serve", "--listen", "127.0.0.1:0", "--no-workers"];
    let mut server = Muster::start(root, "serve", &serve).unwrap();
    let url = served_address(&mut server).unwrap();
    let ask = |label: &str, arguments: &[&str]| {
        let all = [&["report"], arguments, &["--coordinator", &url]].concat();
        Muster::start(root, label, &all).unwrap()
    };
    let all = ["sample-1", "--json", "all.json", "--output", "all.html"];
    let (stdout, _) = ask("all", &all).succeed().unwrap();
    assert_eq!(stdout, "all.html\n");
    assert_whole(best, &json(&root.join("all.json")));

    assert_equipped(&json(&root.join("all.json")));
    assert_model_is_equipped(root, &json(&root.join("all.json")));
    assert_explained(root, &json(&root.join("all.json")));
    assert_stored(root, best);

    let trial = best["trial"].as_str().unwrap();
    let file = format!("{}-report.html", trial.replace('/', "-"));
    let (stdout, _) = ask("trial", &[trial]).succeed().unwrap();
    assert_eq!(stdout.trim_end(), file);
    let against =
        ["sample-1", "--against", "sample-1", "--output", "same.html", "--json", "same.json"];
    ask("same", &against).succeed().unwrap();
    let same = &json(&root.join("same.json"))["comparison"];
    assert_eq!((same["difference"].as_f64(), same["p_value"].as_f64()), (Some(0.0), Some(1.0)));
    let mut wrong = ask("wrong", &["sample-1/t77"]);
    assert!(!wrong.wait().unwrap().success());
    assert!(
        wrong.stderr().contains("sample-1 has no trial t77; there are 9 so far"),
        "{}",
        wrong.stderr()
    );

    let pages = ["out/run.html", "all.html", file.as_str(), "same.html", "stored.html"];
    for page in pages {
        let path = root.join(page);
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < PAGE_MAX, "{page}: {size} bytes");
    }
    if let Err(reason) = browser() {
        return skip(name, &reason);
    }
    let pages: Vec<String> =
        pages.iter().map(|page| root.join(page).display().to_string()).collect();
    browse("report.mjs", root, &[("MUSTER_PAGES", &pages.join(":"))]).unwrap();
}
