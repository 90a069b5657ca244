//! What lies in `deploy/docker` and `deploy/systemd`: it agrees with the rest of the repository, and what checks such
//! files finds nothing wrong. Images are not built here; `deploy/docker/check.sh` does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use muster_tests::sample::repository;
use muster_tests::skip;
use serde_json::Value;

const DOCKERFILES: [&str; 2] =
    ["deploy/docker/coordinator.Dockerfile", "deploy/docker/worker.Dockerfile"];
const COMPOSE: &str = "deploy/docker/compose.yaml";
/// Units and how exposed each may be by the measure of systemd, where 100 is the most.
const UNITS: [(&str, &str); 2] = [("muster.service", "15"), ("muster-worker@.service", "25")];

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The first thing between `before` and one of the characters after it.
fn between<'a>(text: &'a str, before: &str, after: &[char]) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no `{before}`"));
    rest.split(after).next().unwrap()
}

/// Instructions of a Dockerfile, each as one line.
fn instructions(path: &str) -> Vec<String> {
    let text = text(path);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    joined.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

#[test]
fn versions_stand_in_one_place_or_agree() {
    let blank = [' ', '\n', '"', '\''];
    let rust = text("Cargo.toml");
    let rust = between(&rust, "rust-version = \"", &blank);
    let torch = text("deploy/setup/libtorch.sh");
    let torch = between(&torch, "\ntorch=", &blank);
    let s3 = text("deploy/setup/s3_server.sh");
    let s3 = between(&s3, "\nversion=", &blank);
    let mut debian = Vec::new();
    for path in DOCKERFILES {
        for line in instructions(path).iter().filter(|line| line.starts_with("FROM ")) {
            let image = line.split(' ').nth(1).unwrap();
            if let Some(tag) = image.strip_prefix("rust:") {
                let (version, release) = tag.split_once('-').unwrap();
                assert_eq!(version, rust, "{path}: rust-version of Cargo.toml");
                debian.push(release.to_owned());
            } else if let Some(tag) = image.strip_prefix("debian:") {
                debian.push(tag.trim_end_matches("-slim").to_owned());
            } else {
                let is_stage =
                    instructions(path).iter().any(|l| l.ends_with(&format!(" AS {image}")));
                assert!(is_stage, "{path}: {image} is no image that is known here");
            }
        }
    }
    // A program runs where it finds the C library that it was linked to.
    assert!(debian.len() >= 4 && debian.iter().all(|release| *release == debian[0]), "{debian:?}");
    let worker = text(DOCKERFILES[1]);
    assert_eq!(between(&worker, "torch==", &blank), torch, "deploy/setup/libtorch.sh");
    let compose = text(COMPOSE);
    let images: Vec<&str> = compose.split("chrislusf/seaweedfs:").skip(1).collect();
    assert_eq!(images.len(), 2);
    for image in images {
        assert_eq!(image.split(blank).next(), Some(s3), "deploy/setup/s3_server.sh");
    }
}

#[test]
fn what_is_copied_exists_and_is_sent_and_nothing_else_is() {
    for path in DOCKERFILES {
        let ignored = text(&format!("{path}.dockerignore"));
        let rules: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(rules[0], "*", "{path}: nothing is sent unless it is named");
        let sent: Vec<&str> =
            rules[1..].iter().map(|rule| rule.strip_prefix('!').unwrap()).collect();
        let mut copied = Vec::new();
        for line in instructions(path) {
            let Some(words) = line.strip_prefix("COPY ") else { continue };
            let words: Vec<&str> = words.split_whitespace().collect();
            if let Some(stage) = words[0].strip_prefix("--from=") {
                let named = format!(" AS {stage}");
                assert!(instructions(path).iter().any(|line| line.ends_with(&named)), "{line}");
                continue;
            }
            for source in &words[..words.len() - 1] {
                assert!(repository().join(source).exists(), "{path}: {line}: not there");
                copied.push((*source).to_owned());
            }
        }
        copied.sort_unstable();
        assert_eq!(
            copied, sent,
            "{path}: what is copied, and what {path}.dockerignore lets through"
        );
    }
}

/// Members of the workspace, without which Cargo refuses to do anything.
#[test]
fn every_crate_is_sent_to_the_build() {
    let manifest = text("Cargo.toml");
    let members = between(&manifest, "members = [", &[']']);
    for path in DOCKERFILES {
        for member in members.split(", ").map(|member| member.trim_matches('"')) {
            let line = format!("COPY {member} {member}");
            assert!(instructions(path).contains(&line), "{path}: {line}");
        }
    }
}

#[test]
fn images_run_as_a_user_without_rights() {
    for path in DOCKERFILES {
        let instructions = instructions(path);
        let last = |word: &str| instructions.iter().rposition(|line| line.starts_with(word));
        let user = &instructions[last("USER ").unwrap()];
        assert_eq!(user, "USER 10001:10001", "{path}");
        // What comes after it only adds files and variables.
        for line in &instructions[last("USER ").unwrap()..] {
            assert!(!line.starts_with("RUN "), "{path}: {line}");
        }
    }
}

/// Words in names of variables whose values are secrets.
fn is_secret(name: &str) -> bool {
    let named =
        ["SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY"].iter().any(|word| name.contains(word));
    named && !name.ends_with("_FILE")
}

#[test]
fn no_secret_stands_in_a_file_that_is_kept() {
    let folders = ["deploy/docker", "deploy/systemd"];
    let mut num_files = 0;
    for folder in folders {
        for entry in fs::read_dir(repository().join(folder)).unwrap() {
            let file = entry.unwrap().path();
            let is_script = file.extension().is_some_and(|ending| ending == "sh");
            if file.is_dir() || is_script {
                continue;
            }
            num_files += 1;
            let text = fs::read_to_string(&file).unwrap();
            for line in text.lines() {
                let name =
                    line.trim_start_matches([' ', '#', '-']).split([':', '=']).next().unwrap();
                let is_name =
                    name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                assert!(!(is_name && is_secret(name)), "{}: {line}", file.display());
            }
        }
    }
    assert!(num_files >= 9, "{num_files} files");
    assert!(is_secret("AWS_SECRET_ACCESS_KEY") && !is_secret("MUSTER_TOKEN_FILE"));
    // What secrets.sh makes is never committed.
    assert!(text("deploy/docker/.gitignore").lines().any(|line| line == "/secrets/"));
    let compose = text(COMPOSE);
    let (_, secrets) = compose.split_once("\nsecrets:\n").unwrap();
    for line in secrets.lines() {
        assert!(line.contains("{file: ./secrets/"), "{line}");
    }
}

/// Variables of Muster in the examples are keys of the settings, or what a worker reads.
#[test]
fn variables_of_the_examples_are_known() {
    let settings = text("configs/muster.toml");
    let worker = ["ACCESS", "SLOT_DEVICE", "THREADS_PER_SLOT"];
    let files = [
        COMPOSE,
        "deploy/systemd/coordinator.env",
        "deploy/systemd/worker.env",
        "deploy/systemd/worker-0.env",
    ];
    let mut num_variables = 0;
    for file in files.into_iter().chain(DOCKERFILES) {
        let text = text(file);
        for line in text.lines().map(|line| line.trim_start_matches([' ', '#'])) {
            let line = line.strip_prefix("ENV ").unwrap_or(line);
            let Some(rest) = line.strip_prefix("MUSTER_") else { continue };
            let Some((name, _)) = rest.split_once([':', '=']) else { continue };
            let key = format!("{} = ", name.to_lowercase());
            let is_setting = settings.lines().any(|l| l.trim_start_matches("# ").starts_with(&key));
            assert!(is_setting || worker.contains(&name), "{file}: MUSTER_{name}");
            num_variables += 1;
        }
    }
    assert!(num_variables >= 15, "{num_variables} variables");
}

#[test]
fn credentials_of_the_store_are_random_and_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("secrets.sh");
    fs::copy(repository().join("deploy/docker/secrets.sh"), &script).unwrap();
    let make = || {
        assert!(Command::new("bash").arg(&script).status().unwrap().success());
        let read =
            |name: &str| fs::read_to_string(folder.path().join("secrets").join(name)).unwrap();
        (read("aws_credentials"), read("s3_identities.json"))
    };
    let first = make();
    assert_eq!(make(), first, "what is there is kept");
    let identities: Value = serde_json::from_str(&first.1).unwrap();
    let key = identities["identities"][0]["credentials"][0]["secretKey"].as_str().unwrap();
    assert_eq!(key.len(), 64);
    assert!(first.0.contains(&format!("aws_secret_access_key = {key}\n")), "both say the same");
    let mode = fs::metadata(folder.path().join("secrets")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    fs::remove_dir_all(folder.path().join("secrets")).unwrap();
    assert_ne!(make(), first, "another installation has other keys");
}

/// A program that `deploy/setup/linters.sh` installs.
fn linter(test: &str, name: &str) -> Option<PathBuf> {
    let program = repository().join(".cache/linters/bin").join(name);
    if program.is_file() {
        return Some(program);
    }
    skip(test, &format!("linters: {name} is not installed; run deploy/setup/linters.sh"));
    None
}

fn said(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn dockerfiles_are_linted() {
    let Some(hadolint) = linter("dockerfiles_are_linted", "hadolint") else { return };
    let lint = |files: &[PathBuf]| Command::new(&hadolint).args(files).output().unwrap();
    let files = DOCKERFILES.map(|path| repository().join(path));
    let output = lint(&files);
    assert!(output.status.success(), "{}", said(&output));
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("Dockerfile");
    fs::write(&bad, "FROM debian\nRUN sudo apt-get install curl\n").unwrap();
    assert!(!lint(&[bad]).status.success(), "the check itself works");
}

#[test]
fn the_compose_file_is_valid_and_careful() {
    let Some(compose) = linter("the_compose_file_is_valid_and_careful", "docker-compose") else {
        return;
    };
    let config = |file: &Path| {
        let mut command = Command::new(&compose);
        command.arg("--file").arg(file).args(["config", "--format", "json"]).output().unwrap()
    };
    let output = config(&repository().join(COMPOSE));
    assert!(output.status.success(), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let services = found["services"].as_object().unwrap();
    for name in ["coordinator", "worker", "access"] {
        let service = &services[name];
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["user"], "10001:10001", "{name}");
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
    }
    assert_eq!(services["worker"]["deploy"]["replicas"], 2);
    for (name, service) in services {
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}: other machines reach it");
        }
        for variable in service["environment"].as_object().into_iter().flatten() {
            assert!(!is_secret(variable.0), "{name}: {variable:?}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("compose.yaml");
    fs::write(&bad, text(COMPOSE).replace("read_only: true", "readonly: true")).unwrap();
    assert!(!config(&bad).status.success(), "the check itself works");
}

fn analyze(arguments: &[&str], file: &Path) -> Option<Output> {
    let output = Command::new("systemd-analyze").args(arguments).arg(file).output().ok()?;
    Some(output)
}

/// A system with nothing but the units and the programs that they start.
fn system(change: impl Fn(String) -> String) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("etc/systemd/system");
    let programs = root.path().join("usr/local/bin");
    for folder in [&units, &programs] {
        fs::create_dir_all(folder).unwrap();
    }
    for (name, _) in UNITS {
        fs::write(units.join(name), change(text(&format!("deploy/systemd/{name}")))).unwrap();
    }
    // Only that it can be executed matters.
    for name in ["muster", "muster-worker"] {
        fs::copy("/bin/sh", programs.join(name)).unwrap();
    }
    // What all units of a system hang on, and these name.
    let basic = ["sysinit.target", "basic.target", "shutdown.target", "multi-user.target"];
    for name in basic.into_iter().chain(["network-online.target", "system.slice", "tmp.mount"]) {
        fs::write(units.join(name), format!("[Unit]\nDescription={name}\n")).unwrap();
    }
    fs::write(units.join("tmp.mount"), "[Mount]\nWhat=tmpfs\nWhere=/tmp\nType=tmpfs\n").unwrap();
    root
}

#[test]
fn units_are_verified_and_hardened() {
    let name = "units_are_verified_and_hardened";
    if analyze(&["--version"], Path::new("")).is_none() {
        skip(name, "root: systemd-analyze is missing; apt-get install systemd installs it");
        return;
    }
    let verify = |root: &Path| {
        let root = format!("--root={}", root.display());
        UNITS.map(|(unit, _)| {
            let unit = unit.replace('@', "@0");
            let output = analyze(&["verify", "--man=no", &root], Path::new(&unit)).unwrap();
            (output.status.success(), said(&output))
        })
    };
    for (good, said) in verify(system(|text| text).path()) {
        // Of keys that it does not know it only warns.
        assert!(good && said.trim().is_empty(), "{said}");
    }
    let misspelt = system(|text| text.replace("ProtectSystem=", "ProtectSytem="));
    for (_, said) in verify(misspelt.path()) {
        assert!(said.contains("ProtectSytem"), "the check itself works: {said}");
    }
    for (unit, threshold) in UNITS {
        let file = repository().join("deploy/systemd").join(unit);
        let rate = |threshold: &str| {
            let threshold = format!("--threshold={threshold}");
            analyze(&["security", "--no-pager", "--offline=yes", &threshold], &file).unwrap()
        };
        let output = rate(threshold);
        assert!(output.status.success(), "{}", said(&output));
        assert!(!rate("5").status.success(), "the check itself works");
    }
}
