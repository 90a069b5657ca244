//! Training on a real S3 server, through a network that fails: every fault costs time only, and the weights
//! are those of a run that nothing happened to. What cannot work is said once, at once and without secrets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use muster_common::seed::Seed;
use muster_tests::gang::Laboratory;
use muster_tests::process::{Muster, descendants, program, send_signal};
use muster_tests::proxy::{Fault, Proxy, Rule};
use muster_tests::s3::{CREDENTIALS, S3Server};
use muster_tests::sample::{Sample, repository, write_manifest};
use muster_tests::service::exported_weights;
use muster_tests::skip;
use serde_json::Value;

const STEPS: u64 = 120;

/// A small training with a checkpoint every twenty steps.
fn prepare() -> Laboratory {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let settings = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9, dropout: 0.2}
checkpoint: {every_steps: 20}
";
    let laboratory = Laboratory::new(&model, 60, settings).unwrap();
    let text = laboratory.text.replace("{steps: 1000000}", &format!("{{steps: {STEPS}}}"));
    fs::write(laboratory.directory.path().join("gang.yaml"), text).unwrap();
    laboratory
}

/// `muster` with the credentials of the server in its environment, and nothing else about stores.
fn muster(directory: &Path, label: &str, arguments: &[&str]) -> Muster {
    let mut command = Command::new(program("muster").unwrap());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("HOME", directory).envs(CREDENTIALS);
    Muster::start_command(command, directory, label, arguments).unwrap()
}

fn run_arguments<'a>(manifest: &'a str, store: &'a str) -> [&'a str; 8] {
    ["run", manifest, "--slots", "1", "--summary", "summary.json", "--store", store]
}

/// The weights of a run into a directory of this machine.
fn undisturbed() -> Vec<u8> {
    let quiet = prepare();
    let directory = quiet.directory.path();
    muster(directory, "quiet", &run_arguments("gang.yaml", "muster-data")).succeed().unwrap();
    exported_weights(directory, "gang-1").unwrap()
}

fn restarts(directory: &Path) -> Value {
    let summary = fs::read_to_string(directory.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    summary["trials"][0]["restarts"].clone()
}

fn rule(fault: Fault, method: &'static str, part: &'static str, times: usize) -> Rule {
    Rule { fault, method, part, times }
}

#[test]
fn training_through_every_fault_ends_with_the_same_weights() {
    let server = match S3Server::shared() {
        Ok(server) => server,
        Err(reason) => {
            return skip("training_through_every_fault_ends_with_the_same_weights", &reason);
        }
    };
    server.create_container("faults").unwrap();
    let expected = undisturbed();
    let cases: [(&str, Vec<Rule>); 7] = [
        ("nothing", Vec::new()),
        (
            "busy",
            vec![
                rule(Fault::Busy, "PUT", "", 5),
                rule(Fault::Busy, "GET", "", 2),
                rule(Fault::Busy, "GET", "/checkpoints/", 2),
            ],
        ),
        (
            "silent",
            vec![
                rule(Fault::Silence, "PUT", "/checkpoints/", 2),
                rule(Fault::Silence, "PUT", "index.json", 1),
                rule(Fault::Silence, "GET", "", 2),
                rule(Fault::Silence, "GET", "/checkpoints/", 1),
            ],
        ),
        (
            "cut",
            vec![
                rule(Fault::CutRequest, "PUT", "/checkpoints/", 3),
                rule(Fault::CutRequest, "PUT", "index.json", 1),
                rule(Fault::CutAnswer, "GET", "/checkpoints/", 2),
            ],
        ),
        (
            "lost",
            vec![
                rule(Fault::LoseAnswer, "PUT", "index.json", 2),
                rule(Fault::LoseAnswer, "PUT", "model.safetensors", 2),
            ],
        ),
        ("slow", vec![rule(Fault::Slow(400_000), "", "/checkpoints/", usize::MAX)]),
        ("forgetful", vec![rule(Fault::LoseAnswer, "PUT", "", 8)]),
    ];
    for (name, rules) in cases {
        let proxy = Proxy::start(&server.address(), &rules).unwrap();
        let laboratory = prepare();
        let directory = laboratory.directory.path();
        let seconds = if name == "silent" { 1 } else { 10 };
        let store = format!(
            "s3://faults/{name}?endpoint=http://{}&request_seconds={seconds}",
            proxy.address()
        );
        let begun = Instant::now();
        let (_, said) =
            muster(directory, name, &run_arguments("gang.yaml", &store)).succeed().unwrap();
        let key = format!("{name}/experiments/gang-1/best/model.safetensors");
        let weights = server.object("faults", &key).unwrap();
        assert!(weights == expected, "{name}: other weights\n{said}");
        assert_eq!(restarts(directory), 0, "{name}: a fault of the store costs no restart\n{said}");
        if name != "slow" {
            assert_eq!(proxy.num_left(), 0, "{name}: not every fault has happened");
        }
        println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    }
}

#[test]
fn training_data_comes_from_a_store_too() {
    let name = "training_data_comes_from_a_store_too";
    let server = match S3Server::shared() {
        Ok(server) => server,
        Err(reason) => return skip(name, &reason),
    };
    server.create_container("reviews").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let (mut draws, words) = (Seed(4).draws(), ["film", "a", "the", "is", "good", "bad"]);
    fs::create_dir(at("set")).unwrap();
    for part in ["part-1.csv", "part-2.csv"] {
        let mut rows = "text,label\n".to_owned();
        for index in 0..60 {
            rows += if index % 2 == 0 { "good" } else { "bad" };
            for _ in 0..4 + draws.below(6) {
                let word = usize::try_from(draws.below(words.len() as u64)).unwrap();
                rows += &format!(" {}", words[word]);
            }
            rows += &format!(",{}\n", index % 2);
        }
        fs::write(at("set").join(part), &rows).unwrap();
        server.put_object("reviews", &format!("set/{part}"), rows.as_bytes()).unwrap();
    }
    let weights = |name: &str, path: &str| {
        let model = model.display();
        let manifest = format!(
            "version: 1\nname: {name}\nseed: 3\nmodel: {{pretrained: {model}, max_length: 16}}\n\
             data: {{train: {{path: '{path}'}}, validation: {{fraction: 0.2}}, text: text, label: {{column: label}}}}\n\
             hyperparameters: {{learning_rate: 1e-3, global_batch_size: 8}}\nbudget: {{steps: 20}}\nmax_restarts: 0\n"
        );
        fs::write(at("data.yaml"), manifest).unwrap();
        let arguments = run_arguments("data.yaml", "muster-data");
        muster(directory.path(), name, &arguments).succeed().unwrap();
        exported_weights(directory.path(), &format!("{name}-1")).unwrap()
    };
    let here = weights("here", "set/part-*.csv");
    let endpoint = format!("endpoint=http://{}", server.address());
    let there = weights("there", &format!("s3://reviews/set/part-*.csv?{endpoint}"));
    assert!(here == there, "other weights");
    // One that is not there is named.
    let manifest = fs::read_to_string(at("data.yaml")).unwrap().replace("part-*", "other-*");
    fs::write(at("data.yaml"), manifest).unwrap();
    let arguments = run_arguments("data.yaml", "muster-data");
    let mut failed = muster(directory.path(), "missing", &arguments);
    assert!(!failed.wait().unwrap().success());
    let said = failed.stdout() + &failed.stderr();
    assert!(
        said.contains("no object in s3://reviews/set") && said.contains("other-*.csv"),
        "{said}"
    );
}

#[test]
fn what_cannot_work_is_said_at_once_and_without_secrets() {
    let name = "what_cannot_work_is_said_at_once_and_without_secrets";
    let server = match S3Server::shared() {
        Ok(server) => server,
        Err(reason) => return skip(name, &reason),
    };
    server.create_container("refusals").unwrap();
    let laboratory = prepare();
    let directory = laboratory.directory.path();
    let here = format!("endpoint=http://{}", server.address());
    let skewed = [rule(Fault::Skewed, "", "", usize::MAX)];
    let skewed = Proxy::start(&server.address(), &skewed).unwrap();
    let (id, secret) = (CREDENTIALS[0].0, CREDENTIALS[1].0);
    let cases = [
        (
            "secret",
            format!("s3://refusals?{here}"),
            vec![(secret, "hunter2")],
            "SignatureDoesNotMatch",
        ),
        ("key", format!("s3://refusals?{here}"), vec![(id, "hunter3")], "InvalidAccessKeyId"),
        ("container", format!("s3://not-there?{here}"), vec![], "no such container"),
        (
            "endpoint",
            "s3://refusals?endpoint=http://127.0.0.1:9".to_owned(),
            vec![],
            "does not answer",
        ),
        (
            "clock",
            format!("s3://refusals?endpoint=http://{}", skewed.address()),
            vec![],
            "RequestTimeTooSkewed",
        ),
        ("inline", format!("s3://id:hunter2@refusals?{here}"), vec![], "holds a credential"),
        ("option", "s3://refusals?regoin=x".to_owned(), vec![], "regoin"),
    ];
    for (label, store, variables, words) in cases {
        let mut command = Command::new(program("muster").unwrap());
        command.env("HOME", directory).envs(CREDENTIALS).envs(variables);
        command.env("MUSTER_LOG", "debug");
        let begun = Instant::now();
        let mut run =
            Muster::start_command(command, directory, label, &run_arguments("gang.yaml", &store))
                .unwrap();
        let status = run.wait().unwrap();
        let said = run.stderr();
        // Far less than the minutes that a store may be away in the middle of a run.
        assert!(begun.elapsed() < Duration::from_secs(60), "{label}: {:?}", begun.elapsed());
        assert_eq!(status.code(), Some(2), "{label}: {said}");
        assert!(said.contains(words), "{label}: {said}");
        assert_eq!(said.lines().count(), 1, "{label}: one message\n{said}");
        for hidden in ["hunter2", "hunter3", CREDENTIALS[1].1] {
            assert!(!said.contains(hidden), "{label}: {said}");
        }
        println!("{label}: {said}");
    }
    let state = fs::read_dir(directory.join("muster-data/coordinator")).unwrap().flatten();
    for entry in state.filter(|entry| entry.path().is_file()) {
        let bytes = fs::read(entry.path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("hunter2"), "{:?} holds a secret", entry.path());
    }
}

#[test]
fn a_manifest_with_a_credential_is_refused_and_not_repeated() {
    let laboratory = prepare();
    let directory = laboratory.directory.path();
    let text = fs::read_to_string(directory.join("gang.yaml")).unwrap();
    let data = directory.join("data.csv").display().to_string();
    let text = text.replace(&data, "s3://id:hunter2@data/rows.csv");
    fs::write(directory.join("gang.yaml"), text).unwrap();
    let mut run = muster(directory, "validate", &["validate", "gang.yaml"]);
    assert_eq!(run.wait().unwrap().code(), Some(2));
    let said = format!("{}{}", run.stdout(), run.stderr());
    assert!(said.contains("holds a credential") && said.contains("data.train.path"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn parts_of_many_megabytes_arrive_though_the_answer_to_the_last_request_is_lost() {
    let name = "parts_of_many_megabytes_arrive_though_the_answer_to_the_last_request_is_lost";
    let server = match S3Server::shared() {
        Ok(server) => server,
        Err(reason) => return skip(name, &reason),
    };
    let sample = Sample { max_trials: 1, min_steps: 2 };
    let run = |store: &str| {
        let directory = tempfile::tempdir().unwrap();
        write_manifest(directory.path(), &sample).map(|_| {
            muster(directory.path(), "run", &run_arguments("sample.yaml", store))
                .succeed()
                .unwrap();
            directory
        })
    };
    let quiet = match run("muster-data") {
        Ok(directory) => directory,
        Err(reason) => return skip(name, &reason),
    };
    server.create_container("large").unwrap();
    // The optimizer's moments of one layer take 14 MB, so two parts.
    let rules = [
        rule(Fault::CutRequest, "PUT", "partNumber=1", 1),
        rule(Fault::Busy, "PUT", "partNumber=2", 1),
        rule(Fault::LoseAnswer, "POST", "uploadId=", 1),
    ];
    let proxy = Proxy::start(&server.address(), &rules).unwrap();
    let directory =
        run(&format!("s3://large?endpoint=http://{}&request_seconds=20", proxy.address())).unwrap();
    assert_eq!(proxy.num_left(), 0, "not every fault has happened");
    assert_eq!(restarts(directory.path()), 0);
    let weights = server.object("large", "experiments/sample-1/best/model.safetensors").unwrap();
    assert!(weights == exported_weights(quiet.path(), "sample-1").unwrap());
}

#[test]
fn an_upload_that_was_never_ended_is_swept() {
    let name = "an_upload_that_was_never_ended_is_swept";
    let server = match S3Server::shared() {
        Ok(server) => server,
        Err(reason) => return skip(name, &reason),
    };
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    if let Err(reason) = write_manifest(directory, &Sample { max_trials: 1, min_steps: 2 }) {
        return skip(name, &reason);
    }
    server.create_container("stray").unwrap();
    let rules = [rule(Fault::Silence, "PUT", "partNumber=2", 1)];
    let proxy = Proxy::start(&server.address(), &rules).unwrap();
    let slow = format!("s3://stray/a?endpoint=http://{}", proxy.address());
    let mut run = muster(directory, "run", &run_arguments("sample.yaml", &slow));
    run.wait_for("the second part", |_| (proxy.num_left() == 0).then_some(())).unwrap();
    let family = descendants(run.pid(), "muster");
    run.kill().unwrap();
    for pid in family {
        // A supervisor may be gone already.
        let _gone = send_signal("KILL", pid);
    }

    let store = format!("s3://stray/a?endpoint=http://{}", server.address());
    let gc = |arguments: &[&str]| {
        let all = [&["checkpoints", "gc", "--json", "--store", &store][..], arguments].concat();
        let mut run = muster(directory, "gc", &all);
        assert!(run.wait().unwrap().success(), "{}", run.stderr());
        let said: Value = serde_json::from_str(&run.stdout()).unwrap();
        let keys = said["uploads"].as_array().unwrap().iter();
        keys.map(|upload| upload["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(gc(&[]), Vec::<String>::new(), "a run may be at it");
    let found = gc(&["--older-than-hours", "0", "--dry-run"]);
    assert!(found.iter().any(|key| key.ends_with(".safetensors")), "{found:?}");
    assert!(found.iter().all(|key| key.starts_with("experiments/sample-1/")), "{found:?}");
    assert_eq!(gc(&["--older-than-hours", "0"]), found);
    assert_eq!(gc(&["--older-than-hours", "0"]), Vec::<String>::new());
}

#[test]
fn a_clock_that_is_set_right_costs_a_restart_and_nothing_else() {
    let name = "a_clock_that_is_set_right_costs_a_restart_and_nothing_else";
    let server = match S3Server::shared() {
        Ok(server) => server,
        Err(reason) => return skip(name, &reason),
    };
    server.create_container("clock").unwrap();
    let laboratory = prepare();
    let directory = laboratory.directory.path();
    let rules = [rule(Fault::Skewed, "PUT", "/checkpoints/", 1)];
    let proxy = Proxy::start(&server.address(), &rules).unwrap();
    let store = format!("s3://clock/a?endpoint=http://{}", proxy.address());
    muster(directory, "run", &run_arguments("gang.yaml", &store)).succeed().unwrap();
    assert_eq!((restarts(directory), proxy.num_left()), (Value::from(1), 0));
    let weights = server.object("clock", "a/experiments/gang-1/best/model.safetensors").unwrap();
    assert!(weights == undisturbed());
}

/// `muster doctor --json` with this store: exit code, and each finding by its name.
fn doctor(directory: &Path, store: &str) -> (i32, std::collections::BTreeMap<String, Value>) {
    let mut run = muster(directory, "doctor", &["doctor", "--json", "--store", store]);
    let code = run.wait().unwrap().code().unwrap();
    let findings: Vec<Value> = serde_json::from_str(&run.stdout()).unwrap();
    let named = |finding: Value| (finding["check"].as_str().unwrap().to_owned(), finding);
    (code, findings.into_iter().map(named).collect())
}

#[test]
fn the_doctor_finds_what_is_wrong_with_a_store() {
    let server = match S3Server::shared() {
        Ok(server) => server,
        Err(reason) => return skip("the_doctor_finds_what_is_wrong_with_a_store", &reason),
    };
    server.create_container("doctor").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (code, good) =
        doctor(directory, &format!("s3://doctor?endpoint=http://{}", server.address()));
    assert!(good.values().all(|finding| finding["ok"] == true), "{good:#?}");
    assert_eq!(code, 0);
    let (names, expected): (Vec<&str>, _) = (
        good.keys().map(String::as_str).collect(),
        [
            "GPUs",
            "access",
            "clocks",
            "conditional writes",
            "local slots",
            "state disk",
            "store",
            "store rights",
            "worker, libtorch",
        ],
    );
    assert_eq!(names, expected);
    let (code, local) = doctor(directory, "muster-data");
    assert!(code == 0 && local["store disk"]["ok"] == true, "{local:#?}");

    let rules = [rule(Fault::Agree, "PUT", "contested", usize::MAX)];
    let proxy = Proxy::start(&server.address(), &rules).unwrap();
    let (code, bad) =
        doctor(directory, &format!("s3://doctor?endpoint=http://{}", proxy.address()));
    assert_eq!(code, 1);
    assert_eq!(bad["conditional writes"]["ok"], false, "{bad:#?}");
    assert!(bad["conditional writes"]["mend"].as_str().unwrap().contains("If-None-Match"));
    let (code, gone) =
        doctor(directory, &format!("s3://nowhere?endpoint=http://{}", server.address()));
    assert_eq!(code, 1);
    assert!(gone["store"]["detail"].as_str().unwrap().contains("no such container"), "{gone:#?}");
    assert!(gone["store"]["mend"].as_str().unwrap().contains("muster.toml"));
}

#[test]
fn a_store_behind_tls_is_reached_where_its_authority_is_known() {
    let server = match S3Server::shared() {
        Ok(server) => server,
        Err(reason) => {
            return skip("a_store_behind_tls_is_reached_where_its_authority_is_known", &reason);
        }
    };
    server.create_container("secure").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = format!("s3://secure?endpoint=https://{}", server.secure_address());
    let (_, unknown) = doctor(directory, &store);
    assert_eq!(unknown["store"]["ok"], false);
    assert!(unknown["store"]["detail"].as_str().unwrap().contains("certificate"), "{unknown:#?}");
    let mut command = Command::new(program("muster").unwrap());
    command.env("HOME", directory).envs(CREDENTIALS);
    command.env("AWS_CA_BUNDLE", server.certificate());
    let arguments = ["doctor", "--json", "--store", &store];
    let run = Muster::start_command(command, directory, "known", &arguments).unwrap();
    let (said, _) = run.succeed().unwrap();
    assert!(said.contains("of 8 writers at once, one creates"), "{said}");
}
