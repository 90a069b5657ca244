//! What operators see of a service: `/metrics` is what its document says, `/healthz` and `/readyz`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use muster_tests::process::{Muster, PATIENCE};
use muster_tests::sample::{Sample, write_slow_manifest};
use muster_tests::skip;

/// One answer over HTTP/1.1: status, headers in lower case, body.
fn ask(address: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_lowercase();
    assert!(!head.contains("transfer-encoding"), "bodies are whole: {head}");
    (status, head, body.to_owned())
}

/// A metric as it was exposed.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    /// Sample name and labels to value.
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

/// Reads the text format of `OpenMetrics`, strictly: names, order, suffixes, units, quoting and the end mark.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end mark: {text}"));
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let (word, rest) = meta.split_once(' ').unwrap();
            let (name, rest) = rest.split_once(' ').unwrap();
            assert!(is_name(name), "{line}");
            if name != current {
                assert!(!families.contains_key(name), "interleaved: {line}");
                name.clone_into(&mut current);
            }
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "metadata comes before samples: {line}");
            match word {
                "HELP" => assert!(!rest.is_empty(), "{line}"),
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{rest}")), "{line}");
                    family.unit = Some(rest.to_owned());
                }
                _ => panic!("{line}"),
            }
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = parse_series(series);
            let family = families.get_mut(&current).unwrap();
            let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{line}"));
            let legal: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{other}: {line}"),
            };
            assert!(legal.contains(&suffix), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(family.samples.insert((name, labels), value).is_none(), "twice: {line}");
        }
    }
    families
}

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(legal)
}

fn parse_series(series: &str) -> (String, BTreeMap<String, String>) {
    let Some((name, rest)) = series.split_once('{') else {
        assert!(is_name(series), "{series}");
        return (series.to_owned(), BTreeMap::new());
    };
    assert!(is_name(name), "{series}");
    let inside = rest.strip_suffix('}').unwrap();
    let mut labels = BTreeMap::new();
    for pair in inside.split(',').filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(is_name(label) && !value.contains(['"', '\\', '\n']), "{series}");
        assert!(labels.insert(label.to_owned(), value.to_owned()).is_none(), "{series}");
    }
    (name.to_owned(), labels)
}

/// Buckets grow, the last holds everything, and the sum is not negative.
fn check_histograms(families: &BTreeMap<String, Family>) {
    for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
        let sample = |suffix: &str| family.samples[&(format!("{name}{suffix}"), BTreeMap::new())];
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for ((_, labels), count) in
            family.samples.iter().filter(|((_, labels), _)| !labels.is_empty())
        {
            let bound = &labels["le"];
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            buckets.push((bound, *count));
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{name}: {buckets:?}");
        let last = buckets.last().unwrap();
        assert!(last.0.is_infinite(), "{name}");
        assert_eq!(last.1.to_bits(), sample("_count").to_bits(), "{name}");
        assert!(sample("_sum") >= 0.0, "{name}");
    }
}

/// Name, kind and label names of each row of the document's table.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../coordinator/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, metrics) = text.split_once("## Metrics").unwrap();
    let (metrics, _) = metrics.split_once("\n## ").unwrap();
    let rows = metrics.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`').to_owned();
        let labels = cells[2].split(';').filter_map(|part| part.trim().strip_prefix('`'));
        let labels = labels.map(|part| part.split('`').next().unwrap().to_owned()).collect();
        (name, (cells[1].to_owned(), labels))
    };
    rows.map(row).collect()
}

/// The same of what was exposed.
fn exposed(families: &BTreeMap<String, Family>) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let one = |(name, family): (&String, &Family)| {
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels = family.samples.keys().flat_map(|(_, labels)| labels.keys());
        let labels = labels.filter(|label| *label != "le").cloned().collect();
        (format!("{name}{suffix}"), (family.kind.clone(), labels))
    };
    families.iter().map(one).collect()
}

fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: BTreeMap<String, String> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let samples = families.values().flat_map(|family| &family.samples);
    let mut found = samples.filter(|((sample, labels), _)| sample == name && *labels == wanted);
    found.next().map_or(0.0, |(_, value)| *value)
}

/// What is exposed once it is as it is waited for.
fn scrape_until(
    address: &str,
    what: &str,
    is_so: impl Fn(&BTreeMap<String, Family>) -> bool,
) -> BTreeMap<String, Family> {
    let started_at = Instant::now();
    loop {
        let (status, head, text) = ask(address, "/metrics");
        // Whoever asks is told so when the disk of the journal stands still for seconds.
        if status != 503 {
            assert_eq!(status, 200, "{text}");
            assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
            let families = parse(&text);
            check_histograms(&families);
            if is_so(&families) {
                return families;
            }
        }
        assert!(started_at.elapsed() < PATIENCE, "no {what}: {status} {text}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_running_sweep_is_scraped_and_every_name_is_documented() {
    let name = "a_running_sweep_is_scraped_and_every_name_is_documented";
    let directory = tempfile::tempdir().unwrap();
    let sample = Sample { max_trials: 3, min_steps: 20 };
    // Slow, so that it is not over before somebody has seen it at work.
    if let Err(reason) = write_slow_manifest(directory.path(), &sample) {
        return skip(name, &reason);
    }
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--slots", "1"];
    let mut server = Muster::start(directory.path(), "serve", &arguments).unwrap();
    let address = server
        .wait_for("address", |server| {
            let line = server.stdout().lines().next()?.to_owned();
            line.strip_prefix("serving on http://").map(ToOwned::to_owned)
        })
        .unwrap();
    assert_eq!(ask(&address, "/healthz").0, 200);
    assert_eq!(ask(&address, "/readyz").2, "ready\n");
    let url = format!("http://{address}");
    let submit = ["submit", "sample.yaml", "--coordinator", &url];
    Muster::start(directory.path(), "submit", &submit).unwrap().succeed().unwrap();
    let running = [("experiment", "sample-1"), ("state", "running")];
    let is_running = |now: &BTreeMap<String, Family>| value(now, "muster_trials", &running) > 0.5;
    let busy = scrape_until(&address, "running trial", is_running);
    assert_eq!(exposed(&busy), documented());
    let at = |name: &str, labels: &[(&str, &str)]| value(&busy, name, labels);
    assert!(at("muster_worker_connections", &[]) >= 1.0);
    assert!(at("muster_journal_position", &[]) > 2.0);
    assert!(at("process_resident_memory_bytes", &[]) > 1e6);
    let watch = ["watch", "sample-1", "--coordinator", &url];
    Muster::start(directory.path(), "watch", &watch).unwrap().succeed().unwrap();
    // What is deleted and put together at the end takes a moment.
    let chores = [("kind", "chore")];
    let are_done =
        |now: &BTreeMap<String, Family>| value(now, "muster_effects_pending", &chores).abs() < 0.5;
    let done = scrape_until(&address, "end of chores", are_done);
    let at = |name: &str, labels: &[(&str, &str)]| value(&done, name, labels);
    let ended = ["completed", "stopped"]
        .map(|state| at("muster_trials", &[("experiment", "_ended"), ("state", state)]));
    assert!((ended.iter().sum::<f64>() - 3.0).abs() < 0.5, "{ended:?}");
    assert!(at("muster_experiments", &[("phase", "completed")]) > 0.5);
    assert!(at("muster_runs_started_total", &[("task", "train")]) > 2.5);
    assert!(at("muster_runs_started_total", &[("task", "finish")]) > 0.5);
    assert!(at("muster_reports_total", &[("admission", "new")]) > 5.0);
    assert!(at("muster_slot_idle_seconds_count", &[]) > 3.5);
    assert!(at("muster_queue_wait_seconds_count", &[]) > 0.5);
    assert!(at("muster_journal_commit_seconds_count", &[]) > 5.0);
    println!("{} series", done.values().map(|family| family.samples.len()).sum::<usize>());
    server.terminate().unwrap();
    assert!(server.wait().unwrap().success(), "{}", server.stderr());
}
