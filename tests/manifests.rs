//! The manifests of `deploy/kubernetes` and the objects that the launcher makes: against the published schemas,
//! strictly, and against a real API server.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::batch::v1::Job;
use muster_common::telemetry::LogFormat;
use muster_coordinator::access::WorkerAccess;
use muster_coordinator::launcher::cluster::Identity;
use muster_coordinator::launcher::kubernetes::manifest::{Start, job, secret};
use muster_coordinator::launcher::kubernetes::profile::KubernetesProfile;
use muster_coordinator::launcher::profile::ClusterProfile;
use muster_coordinator::settings::{Settings, SettingsFlags};
use muster_tests::kubernetes::{ADMIN, Kubernetes, installed, tool};
use muster_tests::sample::repository;
use muster_tests::skip;

/// The oldest version whose schema is checked, and the newest that there is.
const VERSIONS: [&str; 2] = ["1.25", "1.37"];
const OVERLAYS: [&str; 2] = ["small", "production"];

fn folder() -> PathBuf {
    repository().join("deploy/kubernetes")
}

/// Files with this ending below a folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What a program prints that ends well.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn validate(validator: &Path, version: &str, file: &Path) {
    // What it does not know it only warns of: that is for kinds of others.
    output(Command::new(validator).args(["--strict", "--no-warn", "-k", version]).arg(file));
}

fn rendered(overlay: &str, directory: &Path) -> PathBuf {
    let text = output(
        Command::new("kubectl").arg("kustomize").arg(folder().join("overlays").join(overlay)),
    );
    let file = directory.join(format!("{overlay}.yaml"));
    fs::write(&file, text).unwrap();
    file
}

/// The Job of every key that there is.
fn whole_job() -> Job {
    let text = r#"{"image": "worker:1", "namespace": "n", "workers_per_job": 2, "memory_mib": 4096, "cpu_limit": 8,
        "claims": {"/data": "data"}, "node_selector": {"a": "b"}, "labels": {"team": "nlp"}, "queue": "q",
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "seconds": 5}],
        "priority_class": "p", "runtime_class": "nvidia", "service_account": "s", "secrets": ["store"],
        "environment": {"NCCL_DEBUG": "$(HOME) is $5"}, "time_minutes": 60, "image_pull_policy": "Always",
        "image_pull_secrets": ["pull"]}"#;
    let profile: KubernetesProfile = serde_json::from_str(text).unwrap();
    let profile = profile.checked().unwrap();
    job(&profile, &start(), &Identity::of_bytes([1; 6]), 7, None)
}

fn start() -> Start {
    Start {
        access: WorkerAccess { url: "https://muster:7700".to_owned(), file: Some("/a".into()) },
        log: "info".to_owned(),
        log_format: LogFormat::default().name().to_owned(),
    }
}

#[test]
fn what_is_made_and_what_is_applied_keeps_to_the_schemas() {
    let name = "what_is_made_and_what_is_applied_keeps_to_the_schemas";
    let validator = match tool("kubernetes-validate") {
        Ok(validator) => validator,
        Err(reason) => return skip(name, &reason),
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("job.yaml");
    fs::write(&path, serde_json::to_string_pretty(&whole_job()).unwrap()).unwrap();
    let secret = secret(&Identity::of_bytes([1; 6]), 7, "uid", "{}");
    let second = directory.path().join("secret.yaml");
    fs::write(&second, serde_json::to_string_pretty(&secret).unwrap()).unwrap();
    let is_object = |path: &PathBuf| !path.ends_with("kustomization.yaml");
    let files: Vec<PathBuf> = files(&folder(), "yaml").into_iter().filter(is_object).collect();
    assert!(files.len() >= 10, "{files:?}");
    for version in VERSIONS {
        for file in files.iter().chain([&path, &second]) {
            validate(&validator, version, file);
        }
    }
    // One that is wrong is found.
    let text = fs::read_to_string(&path).unwrap().replace("\"parallelism\"", "\"paralelism\"");
    fs::write(&path, text).unwrap();
    let found = Command::new(&validator).arg("--strict").arg(&path).output().unwrap();
    assert!(!found.status.success(), "a misspelled field passes");
}

#[test]
fn overlays_are_whole_and_their_settings_are_good() {
    let name = "overlays_are_whole_and_their_settings_are_good";
    let tools = installed("kubectl").and_then(|()| tool("kubernetes-validate"));
    for file in files(&folder(), "toml") {
        let flags = SettingsFlags { config: Some(file.clone()), ..SettingsFlags::default() };
        let settings = Settings::load(&flags, std::iter::empty()).unwrap();
        let profile = settings.profile().unwrap().unwrap();
        assert!(matches!(profile, ClusterProfile::Kubernetes(_)), "{}", file.display());
        assert!(settings.is_encrypted() && settings.asks_for_tokens(), "{}", file.display());
    }
    let validator = match tools {
        Ok(validator) => validator,
        Err(reason) => return skip(name, &reason),
    };
    let directory = tempfile::tempdir().unwrap();
    for overlay in OVERLAYS {
        let file = rendered(overlay, directory.path());
        let text = fs::read_to_string(&file).unwrap();
        for kind in ["Role", "RoleBinding", "StatefulSet", "Service", "NetworkPolicy", "ConfigMap"]
        {
            assert!(text.contains(&format!("kind: {kind}\n")), "{overlay} lacks {kind}");
        }
        assert!(!text.contains(":latest"), "{overlay} follows a tag that moves");
        for version in VERSIONS {
            validate(&validator, version, &file);
        }
    }
}

#[test]
fn an_api_server_takes_them_all() {
    let name = "an_api_server_takes_them_all";
    let kubernetes = match installed("kubectl").and_then(|()| Kubernetes::shared()) {
        Ok(kubernetes) => kubernetes,
        Err(reason) => return skip(name, &reason),
    };
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(kubernetes.kubeconfig(ADMIN)).args(arguments);
        output(&mut command)
    };
    let directory = tempfile::tempdir().unwrap();
    // The kind of the Prometheus operator, as far as an API server has to know it.
    let definition = directory.path().join("definition.yaml");
    fs::write(
        &definition,
        r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"}, "spec": {
        "group": "monitoring.coreos.com", "scope": "Namespaced",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}"#,
    )
    .unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    kubectl(&["apply", "-f", &path(&definition)]);
    kubectl(&["wait", "--for=condition=established", "--timeout=60s", "-f", &path(&definition)]);
    for overlay in OVERLAYS {
        let file = rendered(overlay, directory.path());
        let applied = kubectl(&["apply", "--server-side", "-f", &path(&file)]);
        assert!(applied.contains("statefulset.apps/muster serverside-applied"), "{applied}");
        // Applied again, by a newer version of themselves, they are taken too.
        kubectl(&["apply", "--server-side", "-f", &path(&file)]);
        // What the next one says otherwise cannot be changed in place.
        kubectl(&["delete", "statefulset", "muster", "--namespace=muster", "--timeout=60s"]);
    }
}
