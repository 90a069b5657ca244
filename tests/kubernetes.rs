//! The launcher and the real programs under a real Kubernetes API server, with the real controller of Jobs; the test
//! plays the node and runs pods as local processes. A sweep to its end although pods are evicted and lost, a
//! coordinator and an API server that are killed and come back, Jobs that cannot begin, and whose they are.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use muster_common::access::Access;
use muster_coordinator::access::WorkerAccess;
use muster_coordinator::launcher::cluster::{Cluster, Identity, Job, Order};
use muster_coordinator::launcher::kubernetes::manifest::{ACCESS_KEY, Start};
use muster_coordinator::launcher::kubernetes::profile::KubernetesProfile;
use muster_coordinator::launcher::kubernetes::{Kubernetes as Launcher, RIGHTS};
use muster_coordinator::launcher::planner::Outcome;
use muster_tests::cluster::{Launcher as WholeLife, Parties, conform, live_through};
use muster_tests::gang::{FOUR_TRIALS, Laboratory};
use muster_tests::kubelet::Kubelet;
use muster_tests::kubernetes::{ADMIN, Kubernetes, LAUNCHER, verbs_of};
use muster_tests::process::{Muster, PATIENCE, is_alive, processes_with, program, send_signal};
use muster_tests::sample::repository;
use muster_tests::service::{
    await_checkpoints, await_words, exported_weights, served_address, summary, undisturbed_weights,
};
use muster_tests::skip;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// One trial of many small steps.
const ONE: &str = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9, dropout: 0.2}
checkpoint: {every_steps: 50}
";
const SWEEP: &str = "hyperparameters:
  learning_rate: {min: 1e-4, max: 1e-2, scale: log}
  global_batch_size: 9
searcher:
  metric: loss
  max_trials: 4
  pruner: {type: asha, reduction_factor: 2, min_budget: {steps: 300}}
checkpoint: {every_steps: 50}
";
/// Of every cluster here: small and impatient.
const PROFILE: &str = "kind = \"kubernetes\"
image = \"worker\"
gpus_per_worker = 0
cpus_per_worker = 1
shared_memory_mib = 0
scratch_gib = 1
drain_seconds = 20
";
/// Variables of whoever runs the tests.
const OURS: [&str; 4] =
    ["MUSTER_COORDINATOR", "MUSTER_ACCESS", "MUSTER_FINGERPRINT", "MUSTER_TOKEN"];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Waits until something can be said.
async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "no {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A namespace with a node, and a directory with a manifest and a cluster.
struct Site {
    kubernetes: &'static Kubernetes,
    namespace: String,
    kubelet: Kubelet,
    laboratory: Laboratory,
    port: u16,
    runtime: Runtime,
    client: Client,
}

impl Site {
    /// `None`: it cannot be had here, which has been said.
    fn new(test: &str, settings: &str, steps: u32, profile: &str) -> Option<Self> {
        let kubernetes = match Kubernetes::shared() {
            Ok(kubernetes) => kubernetes,
            Err(reason) => {
                skip(test, &reason);
                return None;
            }
        };
        let runtime = runtime();
        let namespace = runtime.block_on(kubernetes.namespace()).unwrap();
        let client = runtime.block_on(kubernetes.client(ADMIN)).unwrap();
        let model = repository().join("tests/golden/hf/families/bert-classification");
        let laboratory = Laboratory::new(&model, 60, settings).unwrap();
        let directory = laboratory.directory.path();
        let text = laboratory.text.replace("{steps: 1000000}", &format!("{{steps: {steps}}}"));
        fs::write(directory.join("gang.yaml"), text).unwrap();
        let whole = format!("{PROFILE}namespace = \"{namespace}\"\n{profile}");
        fs::write(directory.join("cluster.toml"), whole).unwrap();
        fs::create_dir(directory.join("node")).unwrap();
        let kubelet = Kubelet::start(kubernetes, &namespace, &directory.join("node")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(Self { kubernetes, namespace, kubelet, laboratory, port, runtime, client })
    }

    fn directory(&self) -> &Path {
        self.laboratory.directory.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program("muster").unwrap());
        for name in OURS {
            command.env_remove(name);
        }
        command.env("MUSTER_LISTEN", format!("127.0.0.1:{}", self.port));
        // With the rights of the role, and no others.
        command.env("KUBECONFIG", self.kubernetes.kubeconfig(LAUNCHER));
        command.env("AWS_SECRET_ACCESS_KEY", "hunter2").env("HOME", self.directory());
        command
    }

    /// Starts `muster` with the cluster.
    fn start(&self, label: &str, arguments: &[&str]) -> Muster {
        let arguments = [arguments, &["--cluster", "cluster.toml"]].concat();
        Muster::start_command(self.command(), self.directory(), label, &arguments).unwrap()
    }

    /// `muster serve` with certificate and tokens, once it answers.
    fn serve(&self, label: &str) -> Muster {
        let mut server = self.start(label, &["serve", "--tls", "auto"]);
        served_address(&mut server).unwrap();
        server
    }

    /// What a client prints that ends well.
    fn ask(&self, arguments: &[&str]) -> String {
        let url = format!("http://127.0.0.1:{}", self.port);
        let owner = self.directory().join("muster-data/coordinator/access.json");
        let mut command = self.command();
        let named = ["--coordinator", url.as_str()];
        let named: &[&str] = if owner.is_file() { &[] } else { &named };
        if owner.is_file() {
            command.env("MUSTER_ACCESS", owner);
        }
        let arguments = [arguments, named].concat();
        let client = Muster::start_command(command, self.directory(), "client", &arguments);
        client.unwrap().succeed().unwrap().0
    }

    /// Asks until the answer says these words.
    fn await_words(&self, arguments: &[&str], words: &str) -> String {
        await_words(words, || Ok(self.ask(arguments))).unwrap()
    }

    fn record(&self) -> Value {
        let path = self.directory().join("muster-data/coordinator/allocations.json");
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    fn all<K>(&self) -> Vec<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        self.runtime.block_on(api.list(&ListParams::default())).unwrap().items
    }

    /// Names of pods that run.
    fn running(&self) -> Vec<String> {
        let pods = self.all::<Pod>();
        let running = pods.iter().filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        });
        running.map(ResourceExt::name_any).collect()
    }

    fn await_running(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let running = self.running();
            if wanted(&running) {
                return running;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {running:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Neither Jobs nor pods nor Secrets.
    fn await_nothing_left(&self) {
        let begun = Instant::now();
        loop {
            let jobs = self.all::<JobObject>();
            let mut names: Vec<String> = jobs.iter().map(ResourceExt::name_any).collect();
            names.extend(self.all::<Pod>().iter().map(ResourceExt::name_any));
            names.extend(self.all::<Secret>().iter().map(ResourceExt::name_any));
            if names.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "left behind: {names:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As `kubectl drain` does it.
    fn evict(&self, pod: &str) {
        let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = PostParams::default();
        let evict = api.create_subresource("eviction", pod, &parameters, &eviction);
        let _accepted: Value = self.runtime.block_on(evict).unwrap();
    }

    /// Processes with these words in their command line that were started for a pod, or all pods.
    fn processes(&self, words: &str, pod: &str) -> Vec<u32> {
        let folder = self.directory().join("node").display().to_string();
        processes_with(words, |environment| {
            environment.contains(&format!("MUSTER_POD={pod}")) && environment.contains(&folder)
        })
    }
}

/// A coordinator's launcher, without the coordinator.
fn launcher(
    client: &Client,
    namespace: &str,
    number: u8,
    access: Option<PathBuf>,
    pod: Option<&str>,
) -> Launcher {
    let profile = KubernetesProfile {
        image: Some("worker".to_owned()),
        namespace: Some(namespace.to_owned()),
        gpus_per_worker: 0,
        ..KubernetesProfile::default()
    };
    let start = Start {
        access: WorkerAccess { url: "http://127.0.0.1:9".to_owned(), file: access },
        log: "info".to_owned(),
        log_format: "text".to_owned(),
    };
    let variable = |name: &str| match name {
        "MUSTER_POD_NAME" => pod.map(ToOwned::to_owned),
        "MUSTER_POD_NAMESPACE" => Some(namespace.to_owned()),
        _ => None,
    };
    let [a, b, c, d] = std::process::id().to_be_bytes();
    let identity = Identity::of_bytes([a, b, c, d, 0, number]);
    Launcher::new(client.clone(), profile.checked().unwrap(), start, identity, variable)
}

async fn create<K>(client: &Client, namespace: &str, object: Value) -> K
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// Nothing of this kind can be made in the namespace any more.
async fn forbid(client: &Client, namespace: &str, what: &str) {
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {what: "0"}}});
    create::<ResourceQuota>(client, namespace, quota).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    until("quota", async || {
        quotas.get("none").await.ok()?.status?.hard.filter(|hard| !hard.is_empty())
    })
    .await;
}

#[test]
fn kubernetes_keeps_what_every_cluster_has_to() {
    let kubernetes = match Kubernetes::shared() {
        Ok(kubernetes) => kubernetes,
        Err(reason) => return skip("kubernetes_keeps_what_every_cluster_has_to", &reason),
    };
    runtime().block_on(async {
        let admin = kubernetes.client(ADMIN).await.unwrap();
        let client = kubernetes.client(LAUNCHER).await.unwrap();
        // Without a node nothing begins.
        let namespace = kubernetes.namespace().await.unwrap();
        let closed = kubernetes.namespace().await.unwrap();
        forbid(&admin, &closed, "count/jobs.batch").await;
        let parties = Parties {
            own: launcher(&client, &namespace, 1, None, None),
            other: launcher(&client, &namespace, 2, None, None),
            refused: launcher(&client, &closed, 3, None, None),
        };
        conform(&parties).await.unwrap();
    });
}

#[test]
fn a_name_that_is_taken_is_ours_or_it_is_left_alone() {
    let name = "a_name_that_is_taken_is_ours_or_it_is_left_alone";
    let kubernetes = match Kubernetes::shared() {
        Ok(kubernetes) => kubernetes,
        Err(reason) => return skip(name, &reason),
    };
    runtime().block_on(async {
        let admin = kubernetes.client(ADMIN).await.unwrap();
        let client = kubernetes.client(LAUNCHER).await.unwrap();
        let namespace = kubernetes.namespace().await.unwrap();
        let own = launcher(&client, &namespace, 4, None, None);
        own.submit(Order { first: 1, count: 1 }).await.unwrap();
        // Another process with the same state directory, whose predecessor got no answer.
        let again = launcher(&client, &namespace, 4, None, None);
        again.submit(Order { first: 1, count: 1 }).await.unwrap();
        assert_eq!(again.list().await.unwrap().len(), 1);

        let jobs: Api<JobObject> = Api::namespaced(admin.clone(), &namespace);
        let mine = jobs.list(&ListParams::default()).await.unwrap().items.remove(0);
        let taken = mine.name_any().replace("-1", "-2");
        let template = json!({"spec": {"restartPolicy": "Never",
            "containers": [{"name": "x", "image": "x"}]}});
        let foreign = json!({"metadata": {"name": taken}, "spec": {"template": template}});
        create::<JobObject>(&admin, &namespace, foreign).await;
        let error = own.submit(Order { first: 2, count: 1 }).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Refused);
        assert!(error.to_string().contains(&taken), "{error}");
        // Whoever asks for its end by name gets nothing.
        let job = own.list().await.unwrap().remove(0);
        own.cancel(&[Job { id: taken.clone(), number: 2, ..job }]).await.unwrap();
        let left = jobs.get(&taken).await.unwrap();
        assert_eq!(left.metadata.deletion_timestamp, None);
    });
}

#[test]
fn jobs_end_with_what_owns_the_coordinator_and_no_right_is_unused() {
    let name = "jobs_end_with_what_owns_the_coordinator_and_no_right_is_unused";
    let kubernetes = match Kubernetes::shared() {
        Ok(kubernetes) => kubernetes,
        Err(reason) => return skip(name, &reason),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.json");
    fs::write(&file, "first").unwrap();
    runtime().block_on(async {
        let admin = kubernetes.client(ADMIN).await.unwrap();
        let client = kubernetes.client(LAUNCHER).await.unwrap();
        let namespace = kubernetes.namespace().await.unwrap();
        let containers = json!([{"name": "coordinator", "image": "x"}]);
        let set = json!({"metadata": {"name": "muster"}, "spec": {"serviceName": "muster",
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}}});
        let set: StatefulSet = create(&admin, &namespace, set).await;
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "muster",
            "uid": set.uid().unwrap(), "controller": true}]);
        let pod = json!({"metadata": {"name": "muster-0", "ownerReferences": owner},
            "spec": {"containers": containers}});
        create::<Pod>(&admin, &namespace, pod).await;

        let own = launcher(&client, &namespace, 5, Some(file.clone()), Some("muster-0"));
        own.submit(Order { first: 1, count: 2 }).await.unwrap();
        let secrets: Api<Secret> = Api::namespaced(admin.clone(), &namespace);
        let with = async |text: &str| {
            let all = secrets.list(&ListParams::default()).await.unwrap().items;
            let is_it = |secret: &&Secret| {
                secret
                    .data
                    .iter()
                    .flatten()
                    .any(|(key, value)| key == ACCESS_KEY && value.0 == text.as_bytes())
            };
            (all.iter().filter(is_it).count() == all.len()).then_some(all.len())
        };
        until("Secrets", async || with("first").await.filter(|count| *count == 2)).await;
        // A token was renewed; that it is looked for at once is because something else happens.
        fs::write(&file, "second").unwrap();
        own.submit(Order { first: 3, count: 1 }).await.unwrap();
        until("renewed Secrets", async || with("second").await.filter(|count| *count == 3)).await;
        // The same again, and one of them given back.
        own.submit(Order { first: 3, count: 1 }).await.unwrap();
        let jobs = own.list().await.unwrap();
        own.cancel(&jobs[..1]).await.unwrap();
        until("two Secrets", async || with("second").await.filter(|count| *count == 2)).await;

        let sets: Api<StatefulSet> = Api::namespaced(admin.clone(), &namespace);
        sets.delete("muster", &DeleteParams::background()).await.unwrap();
        let jobs: Api<JobObject> = Api::namespaced(admin.clone(), &namespace);
        let gone = async || {
            jobs.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
        };
        until("end of the Jobs", gone).await;
        until("end of the Secrets", async || with("").await.filter(|count| *count == 0)).await;
        until("an empty list", async || own.list().await.unwrap().is_empty().then_some(())).await;
    });
    check_rights(kubernetes);
}

/// The role, the launcher's table, and what the API server has seen are the same.
fn check_rights(kubernetes: &Kubernetes) {
    let granted = verbs_of(&repository().join("deploy/kubernetes/coordinator/role.yaml")).unwrap();
    let table = RIGHTS.map(|(group, resource, verbs)| {
        let verbs: Vec<String> = verbs.iter().map(|verb| (*verb).to_owned()).collect();
        ((group.to_owned(), resource.to_owned()), verbs)
    });
    assert_eq!(granted, table.into());
    let granted = RIGHTS.iter().flat_map(|(_, resource, verbs)| {
        verbs.iter().map(|verb| ((*verb).to_owned(), (*resource).to_owned()))
    });
    let mut granted: BTreeSet<(String, String)> = granted.collect();
    // A patch that makes an object needs the right to create one too, and is noted as a patch.
    granted.remove(&("create".to_owned(), "secrets".to_owned()));
    let used: BTreeSet<(String, String)> = kubernetes.audit().unwrap().into_iter().collect();
    assert_eq!(used, granted);
}

/// A coordinator that gets its workers from Kubernetes.
struct Life {
    site: Site,
    server: Muster,
}

impl WholeLife for Life {
    const OUTLIVES: bool = true;
    const GROWS: bool = true;

    fn laboratory(&self) -> &Laboratory {
        &self.site.laboratory
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(self.site.ask(arguments))
    }

    fn workers(&self) -> Vec<u32> {
        let mut pids = self.site.processes("muster-worker supervise", "");
        pids.retain(|pid| is_alive(*pid));
        pids.sort_unstable();
        pids
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.server.kill()?;
        self.server = self.site.serve("again");
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        // What has nothing to do is given back.
        Ok(())
    }
}

#[test]
fn kubernetes_keeps_what_everything_has_to_that_starts_workers() {
    let name = "kubernetes_keeps_what_everything_has_to_that_starts_workers";
    let profile = "max_allocations = 2\nidle_seconds = 6\n";
    let Some(site) = Site::new(name, FOUR_TRIALS, 600, profile) else { return };
    let server = site.serve("serve");
    let mut life = Life { site, server };
    live_through(&mut life).unwrap();
    life.site.await_nothing_left();
}

#[test]
fn a_sweep_ends_well_although_pods_are_evicted_and_lost() {
    let name = "a_sweep_ends_well_although_pods_are_evicted_and_lost";
    let Some(site) = Site::new(name, SWEEP, 1200, "max_allocations = 2\n") else { return };
    let run = site.start("run", &["run", "gang.yaml", "--summary", "summary.json"]);
    // It grows to what is allowed.
    let first = site.await_running("two Jobs", |running| running.len() == 2);
    await_checkpoints(site.directory(), "gang-1", 1).unwrap();
    // No secret is where others could see it.
    let pods = serde_json::to_string(&site.all::<Pod>()).unwrap();
    assert!(pods.contains("supervise") && !pods.contains("hunter2"), "{pods}");
    site.evict(&first[0]);
    let second = site.await_running("another pod for the one that was evicted", |running| {
        running.len() == 2 && !running.contains(&first[0])
    });
    let lost = second.iter().find(|pod| first.contains(pod)).unwrap();
    let killed = site.processes("muster-worker supervise", lost);
    assert_eq!(killed.len(), 1, "{lost}");
    send_signal("KILL", killed[0]).unwrap();
    run.succeed().unwrap();

    let summary = summary(site.directory()).unwrap();
    assert_eq!(summary["state"], "completed", "{summary}");
    let trials = summary["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 4);
    let restarts: u64 = trials.iter().map(|trial| trial["restarts"].as_u64().unwrap()).sum();
    assert!(restarts <= 1, "an eviction is nobody's fault: {summary}");
    assert_eq!(site.record()["next_number"], 3, "the Jobs themselves have replaced their pods");
    site.await_nothing_left();
    let left = site.processes("muster-worker", "");
    let begun = Instant::now();
    while left.iter().any(|pid| is_alive(*pid)) {
        assert!(begun.elapsed() < PATIENCE, "workers are left behind");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn coordinator_and_api_server_are_killed_and_find_everything_again() {
    let name = "coordinator_and_api_server_are_killed_and_find_everything_again";
    let profile = "max_allocations = 1\nidle_seconds = 3\n";
    let Some(site) = Site::new(name, ONE, 1500, profile) else { return };
    let wanted = undisturbed_weights(site.directory(), "1").unwrap();
    let mut first = site.serve("first");
    site.ask(&["submit", "gang.yaml"]);
    await_checkpoints(site.directory(), "gang-1", 2).unwrap();
    // It stands still until everybody is back, however fast this machine is.
    let runners = site.processes("muster-worker runner", "");
    assert_eq!(runners.len(), 1);
    send_signal("STOP", runners[0]).unwrap();
    // The token is where the worker reads it, and nowhere else.
    let secret = site.all::<Secret>().remove(0);
    let file = site.directory().join("handed-over.json");
    muster_common::access::write_private(&file, &secret.data.unwrap()[ACCESS_KEY].0).unwrap();
    let token = Access::read(&file).unwrap().token.unwrap().reveal();
    let objects = serde_json::to_string(&(site.all::<Pod>(), site.all::<JobObject>())).unwrap();
    assert!(!objects.contains(&token));

    first.kill().unwrap();
    let pods = site.running();
    site.kubernetes.restart_api_server().unwrap();
    let again = site.serve("second");
    // The worker comes back to it, with the run it has.
    site.await_words(&["ls"], "workers 1, at work 1");
    // The API server goes while somebody watches.
    site.kubernetes.restart_api_server().unwrap();
    site.await_words(&["ls"], "workers 1, at work 1");
    send_signal("CONT", runners[0]).unwrap();
    site.await_words(&["ls"], "completed");
    assert_eq!(site.record()["next_number"], 2, "nothing was asked for twice");
    assert!(pods.len() == 1, "{pods:?}");
    assert!(exported_weights(site.directory(), "gang-1").unwrap() == wanted, "the same bits");
    let why = site.ask(&["why", "gang-1/t1"]);
    assert!(!why.contains("restarts of"), "it counts as no failure: {why}");
    // What has nothing to do is given back.
    site.await_nothing_left();
    drop(again);
}

#[test]
fn what_cannot_begin_says_why_and_leaves_nothing() {
    let name = "what_cannot_begin_says_why_and_leaves_nothing";
    let Some(site) = Site::new(name, ONE, 300, "max_allocations = 1\n") else { return };
    site.kubelet.set_full(true);
    let mut run = site.start("run", &["run", "gang.yaml"]);
    run.wait_for("submission", |_| (!site.all::<Pod>().is_empty()).then_some(())).unwrap();
    site.await_words(&["ls"], "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.");
    // Interrupted, it leaves nothing behind.
    send_signal("INT", run.pid()).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    site.await_nothing_left();

    let site = Site::new(name, ONE, 300, "max_allocations = 1\n").unwrap();
    site.runtime.block_on(forbid(&site.client, &site.namespace, "pods"));
    let server = site.serve("serve");
    site.ask(&["submit", "gang.yaml"]);
    site.await_words(&["ls"], "exceeded quota: none");
    drop(server);
}
