//! The manifests of `deploy/kubernetes` and the objects that the launcher makes: against the published schemas,
//! strictly, and against a real API server. Helm's chart makes the same objects as kustomize.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
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
use muster_tests::kubernetes::{ADMIN, Kubernetes, kubectl, tool};
use muster_tests::sample::repository;
use muster_tests::skip;
use serde_json::{Value, json};

/// The oldest version whose schema is checked, and the newest that there is.
const VERSIONS: [&str; 2] = ["1.25", "1.37"];
/// What Helm is told to make the same as each.
const OVERLAYS: [(&str, &str); 2] = [
    ("small", "storage.size=2Gi,shared.claim=muster-shared,shared.create=true"),
    ("production", "ingress.enabled=true,monitoring.enabled=true,queue.enabled=true"),
];
/// Kinds that others define: group, kind, plural.
const FOREIGN: [(&str, &str, &str); 2] = [
    ("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors"),
    ("kueue.x-k8s.io/v1beta1", "LocalQueue", "localqueues"),
];

fn folder() -> PathBuf {
    repository().join("deploy/kubernetes")
}

/// Files with this ending below a folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("helm") {
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

fn rendered(kubectl: &Path, overlay: &str, directory: &Path) -> PathBuf {
    let text =
        output(Command::new(kubectl).arg("kustomize").arg(folder().join("overlays").join(overlay)));
    let file = directory.join(format!("{overlay}.yaml"));
    fs::write(&file, text).unwrap();
    file
}

/// What Helm would install in the namespace of the overlays.
fn released(helm: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(helm);
    command.args(["template", "muster", "--namespace", "muster"]).args(arguments);
    command.arg(folder().join("helm"));
    command
}

/// The objects of a text by kind and name. What is made of the settings has a name that changes with them.
fn objects(text: &str) -> BTreeMap<(String, String), Value> {
    const SETTINGS: &str = "muster-settings-";
    let mut parts = text.split(SETTINGS);
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        plain.push_str(SETTINGS);
        plain.push_str(rest);
    }
    let all: Vec<Value> = serde_saphyr::from_multiple(&plain).unwrap();
    let all = all.into_iter().filter(|object| !object.is_null());
    let mut found = BTreeMap::new();
    for object in all {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{object}")).to_owned();
        let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
        assert!(!found.contains_key(&key), "{key:?} is there twice");
        found.insert(key, object);
    }
    found
}

/// What the settings of an overlay name is made with it.
fn check_names(overlay: &str, made: &BTreeMap<(String, String), Value>) {
    let file = folder().join("overlays").join(overlay).join("muster.toml");
    let flags = SettingsFlags { config: Some(file), ..SettingsFlags::default() };
    let settings = Settings::load(&flags, std::iter::empty()).unwrap();
    let Some(ClusterProfile::Kubernetes(profile)) = settings.profile().unwrap() else {
        panic!("{overlay} names no cluster")
    };
    let one = [
        ("ServiceAccount", &profile.service_account),
        ("PriorityClass", &profile.priority_class),
        ("LocalQueue", &profile.queue),
    ];
    let one = one.into_iter().filter_map(|(kind, name)| Some((kind, name.as_ref()?)));
    let claims = profile.claims.values().map(|name| ("PersistentVolumeClaim", name));
    for (kind, name) in one.chain(claims) {
        let key = (kind.to_owned(), name.clone());
        assert!(made.contains_key(&key), "{overlay}: no {kind} {name}");
    }
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

/// Whether all labels that are asked for are there, and some are.
fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(wanted) = selector.as_object() else { return false };
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Objects name each other by labels, ports and names, which no schema and no API server compares.
struct Installation {
    overlay: &'static str,
    objects: BTreeMap<(String, String), Value>,
    /// The pod of the coordinator, and that of a worker.
    pods: [Value; 2],
}

impl Installation {
    fn of(overlay: &'static str, text: &str) -> Self {
        let objects = objects(text);
        let coordinator = &objects[&("StatefulSet".to_owned(), "muster".to_owned())];
        let coordinator = coordinator["spec"]["template"].clone();
        let worker = serde_json::to_value(whole_job()).unwrap()["spec"]["template"].clone();
        Self { overlay, pods: [coordinator, worker], objects }
    }

    fn all(&self, kind: &str) -> Vec<&Value> {
        let found = self.objects.iter().filter(|((of, _), _)| of == kind);
        found.map(|(_, object)| object).collect()
    }

    /// The pods that a selector means; there has to be one.
    fn selected(&self, selector: &Value) -> Vec<&Value> {
        let is_meant = |pod: &&Value| selects(selector, &pod["metadata"]["labels"]);
        let found: Vec<&Value> = self.pods.iter().filter(is_meant).collect();
        assert_eq!(found.len(), 1, "{}: {selector} means one kind of pods", self.overlay);
        found
    }

    /// A pod has a port, by name or number.
    fn check_port(&self, pod: &Value, port: &Value) {
        let containers = pod["spec"]["containers"].as_array().unwrap().iter();
        let mut ports = containers.flat_map(|one| one["ports"].as_array().into_iter().flatten());
        let is_there = ports.any(|had| had["name"] == *port || had["containerPort"] == *port);
        assert!(is_there, "{}: no port {port} of {}", self.overlay, pod["metadata"]);
    }

    fn service(&self, name: &Value) -> &Value {
        let key = ("Service".to_owned(), name.as_str().unwrap().to_owned());
        self.objects.get(&key).unwrap_or_else(|| panic!("{}: no Service {name}", self.overlay))
    }

    fn check_services(&self) {
        let set = &self.objects[&("StatefulSet".to_owned(), "muster".to_owned())]["spec"];
        assert!(selects(&set["selector"]["matchLabels"], &set["template"]["metadata"]["labels"]));
        self.service(&set["serviceName"]);
        for service in self.all("Service") {
            for pod in self.selected(&service["spec"]["selector"]) {
                assert_eq!(pod, &self.pods[0], "{}: {service}", self.overlay);
                for port in service["spec"]["ports"].as_array().unwrap() {
                    self.check_port(pod, &port["targetPort"]);
                }
            }
        }
        for ingress in self.all("Ingress") {
            for rule in ingress["spec"]["rules"].as_array().unwrap() {
                for path in rule["http"]["paths"].as_array().unwrap() {
                    let backend = &path["backend"]["service"];
                    let ports = self.service(&backend["name"])["spec"]["ports"].as_array().unwrap();
                    let is_it = |port: &&Value| port["name"] == backend["port"]["name"];
                    assert_eq!(ports.iter().filter(is_it).count(), 1, "{backend}");
                }
            }
        }
        for monitor in self.all("ServiceMonitor") {
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            let is_meant = |service: &&&Value| selects(selector, &service["metadata"]["labels"]);
            let services = self.all("Service");
            let meant: Vec<&&Value> = services.iter().filter(is_meant).collect();
            assert_eq!(meant.len(), 1, "{}: {selector}", self.overlay);
            for endpoint in monitor["spec"]["endpoints"].as_array().unwrap() {
                let mut ports = meant[0]["spec"]["ports"].as_array().unwrap().iter();
                // By the name of the Service's port, not by a number.
                assert!(ports.any(|port| port["name"] == endpoint["port"]), "{endpoint}");
            }
        }
    }

    /// Both kinds of pods have a policy, and what each may reach of the other, the other lets in.
    fn check_policies(&self) {
        let mut governed = Vec::new();
        let mut rules = Vec::new();
        for policy in self.all("NetworkPolicy") {
            let pod = self.selected(&policy["spec"]["podSelector"]["matchLabels"])[0];
            governed.push(pod);
            for (way, ends) in [("ingress", "from"), ("egress", "to")] {
                for rule in policy["spec"][way].as_array().into_iter().flatten() {
                    let peers = rule[ends].as_array().into_iter().flatten();
                    let peers = peers.map(|peer| &peer["podSelector"]["matchLabels"]);
                    // Clients are somebody else's pods.
                    let is_ours = |labels: &&Value| labels.get("app.kubernetes.io/name").is_some();
                    for labels in peers.filter(is_ours) {
                        let peer = self.selected(labels)[0];
                        let (from, to) = if way == "egress" { (pod, peer) } else { (peer, pod) };
                        for port in rule["ports"].as_array().into_iter().flatten() {
                            self.check_port(to, &port["port"]);
                        }
                        let index = |pod: &Value| usize::from(*pod != self.pods[0]);
                        rules.push((way, index(from), index(to)));
                    }
                    if way == "ingress" && rule["from"][0]["podSelector"].is_null() {
                        for port in rule["ports"].as_array().unwrap() {
                            self.check_port(pod, &port["port"]);
                        }
                    }
                }
            }
        }
        for pod in &self.pods {
            assert!(governed.contains(&pod), "{}: no policy for {}", self.overlay, pod["metadata"]);
        }
        // A worker dials the coordinator, and other workers.
        for wanted in [("egress", 1, 0), ("ingress", 1, 0), ("egress", 1, 1), ("ingress", 1, 1)] {
            assert!(rules.contains(&wanted), "{}: {wanted:?} is not among {rules:?}", self.overlay);
        }
    }

    fn check_rights(&self) {
        let account = &self.pods[0]["spec"]["serviceAccountName"];
        let key = ("ServiceAccount".to_owned(), account.as_str().unwrap().to_owned());
        assert!(self.objects.contains_key(&key), "{}: no {key:?}", self.overlay);
        let bindings = self.all("RoleBinding");
        assert!(!bindings.is_empty(), "{}", self.overlay);
        for binding in bindings {
            for subject in binding["subjects"].as_array().unwrap() {
                assert_eq!(subject["kind"], "ServiceAccount");
                assert_eq!(&subject["name"], account, "{}: who has the rights", self.overlay);
            }
            let role = binding["roleRef"]["name"].as_str().unwrap().to_owned();
            assert!(self.objects.contains_key(&("Role".to_owned(), role)), "{binding}");
        }
    }
}

#[test]
fn objects_that_name_each_other_agree() {
    let name = "objects_that_name_each_other_agree";
    let kubectl = match kubectl() {
        Ok(kubectl) => kubectl,
        Err(reason) => return skip(name, &reason),
    };
    let directory = tempfile::tempdir().unwrap();
    for (overlay, _) in OVERLAYS {
        let file = rendered(&kubectl, overlay, directory.path());
        let installation = Installation::of(overlay, &fs::read_to_string(file).unwrap());
        let from_outside =
            installation.all("Ingress").len() + installation.all("ServiceMonitor").len();
        assert_eq!(from_outside, if overlay == "production" { 2 } else { 0 });
        installation.check_services();
        installation.check_policies();
        installation.check_rights();
    }
    let labels = json!({"a": "1", "b": "2"});
    assert!(selects(&json!({"a": "1"}), &labels) && !selects(&json!({"a": "2"}), &labels));
    assert!(!selects(&json!({}), &labels) && !selects(&Value::Null, &labels));
}

#[test]
fn overlays_are_whole_and_their_settings_are_good() {
    let name = "overlays_are_whole_and_their_settings_are_good";
    let tools = kubectl().and_then(|kubectl| Ok((kubectl, tool("kubernetes-validate")?)));
    for file in files(&folder(), "toml") {
        let flags = SettingsFlags { config: Some(file.clone()), ..SettingsFlags::default() };
        let settings = Settings::load(&flags, std::iter::empty()).unwrap();
        let profile = settings.profile().unwrap().unwrap();
        assert!(matches!(profile, ClusterProfile::Kubernetes(_)), "{}", file.display());
        assert!(settings.is_encrypted() && settings.asks_for_tokens(), "{}", file.display());
    }
    let (kubectl, validator) = match tools {
        Ok(tools) => tools,
        Err(reason) => return skip(name, &reason),
    };
    let directory = tempfile::tempdir().unwrap();
    for (overlay, _) in OVERLAYS {
        let file = rendered(&kubectl, overlay, directory.path());
        let text = fs::read_to_string(&file).unwrap();
        for kind in ["Role", "RoleBinding", "StatefulSet", "Service", "NetworkPolicy", "ConfigMap"]
        {
            assert!(text.contains(&format!("kind: {kind}\n")), "{overlay} lacks {kind}");
        }
        assert!(!text.contains(":latest"), "{overlay} follows a tag that moves");
        check_names(overlay, &objects(&text));
        for version in VERSIONS {
            validate(&validator, version, &file);
        }
    }
}

#[test]
fn helm_makes_the_same_objects_as_kustomize() {
    let name = "helm_makes_the_same_objects_as_kustomize";
    let tools =
        || -> Result<_, String> { Ok((kubectl()?, tool("helm")?, tool("kubernetes-validate")?)) };
    let (kubectl, helm, validator) = match tools() {
        Ok(tools) => tools,
        Err(reason) => return skip(name, &reason),
    };
    let directory = tempfile::tempdir().unwrap();
    for (overlay, values) in OVERLAYS {
        let file = rendered(&kubectl, overlay, directory.path());
        let mut wanted = objects(&fs::read_to_string(file).unwrap());
        // A release lies in a namespace that is there.
        wanted.remove(&("Namespace".to_owned(), "muster".to_owned())).unwrap();
        let settings = folder().join("overlays").join(overlay).join("muster.toml");
        let settings = format!("settings={}", settings.display());
        let text = output(&mut released(&helm, &["--set-file", &settings, "--set", values]));
        let made = objects(&text);
        let names =
            |all: &BTreeMap<(String, String), Value>| all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&made), names(&wanted), "{overlay}");
        for (key, object) in made {
            assert_eq!(object, wanted[&key], "{overlay}: {key:?}");
        }
        let file = directory.path().join("release.yaml");
        fs::write(&file, text).unwrap();
        for version in VERSIONS {
            validate(&validator, version, &file);
        }
    }
    // What is said besides is in it, and what is misspelled is refused.
    let values =
        "image.tag=v9,storage.className=fast,ingress.enabled=true,ingress.host=m.example.org";
    let more = ["--set", values, "--set-json", r#"pod={"nodeSelector": {"zone": "a"}}"#];
    let made = objects(&output(&mut released(&helm, &more)));
    let find = |kind: &str| &made[&(kind.to_owned(), "muster".to_owned())]["spec"];
    let pod = &find("StatefulSet")["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "registry.example.com/muster/coordinator:v9");
    assert_eq!(pod["nodeSelector"], json!({"zone": "a"}));
    let claim = &find("StatefulSet")["volumeClaimTemplates"][0]["spec"];
    assert_eq!(claim["storageClassName"], "fast");
    assert_eq!(find("Ingress")["rules"][0]["host"], "m.example.org");
    assert_eq!(find("Ingress")["tls"][0]["hosts"][0], "m.example.org");
    let refused = released(&helm, &["--set", "imge.tag=v9"]).output().unwrap();
    assert!(!refused.status.success(), "a misspelled value passes");
}

#[test]
fn an_api_server_takes_them_all() {
    let name = "an_api_server_takes_them_all";
    let both = || -> Result<_, String> { Ok((kubectl()?, Kubernetes::shared()?)) };
    let (program, kubernetes) = match both() {
        Ok(both) => both,
        Err(reason) => return skip(name, &reason),
    };
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--kubeconfig").arg(kubernetes.kubeconfig(ADMIN)).args(arguments);
        output(&mut command)
    };
    let directory = tempfile::tempdir().unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    // Kinds of others, as far as an API server has to know them.
    for (version, kind, plural) in FOREIGN {
        let (group, version) = version.split_once('/').unwrap();
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
        let file = directory.path().join("definition.json");
        fs::write(&file, definition.to_string()).unwrap();
        kubectl(&["apply", "-f", &path(&file)]);
        kubectl(&["wait", "--for=condition=established", "--timeout=60s", "-f", &path(&file)]);
    }
    for (overlay, _) in OVERLAYS {
        let file = rendered(&program, overlay, directory.path());
        let applied = kubectl(&["apply", "--server-side", "-f", &path(&file)]);
        assert!(applied.contains("statefulset.apps/muster serverside-applied"), "{applied}");
        // Applied again, by a newer version of themselves, they are taken too.
        kubectl(&["apply", "--server-side", "-f", &path(&file)]);
        // What the next one says otherwise cannot be changed in place.
        kubectl(&["delete", "statefulset", "muster", "--namespace=muster", "--timeout=60s"]);
    }
}
