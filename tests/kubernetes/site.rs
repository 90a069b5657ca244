//! A namespace with a node, and the real programs in it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use muster_tests::ground::Ground;
use muster_tests::kubelet::Kubelet;
use muster_tests::kubernetes::{ADMIN, Kubernetes, LAUNCHER};
use muster_tests::process::{Muster, PATIENCE, is_alive, processes_with, without_children};
use muster_tests::skip;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::runtime;

/// Of every cluster here: small and impatient.
const PROFILE: &str = "kind = \"kubernetes\"
image = \"worker\"
gpus_per_worker = 0
cpus_per_worker = 1
shared_memory_mib = 0
scratch_gib = 1
drain_seconds = 20
";

/// A namespace with a node, and a directory with a manifest and a cluster.
pub(crate) struct Site {
    pub(crate) kubernetes: &'static Kubernetes,
    pub(crate) namespace: String,
    pub(crate) kubelet: Kubelet,
    pub(crate) ground: Ground,
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
}

impl Site {
    /// `None`: it cannot be had here, which has been said.
    pub(crate) fn new(test: &str, settings: &str, steps: u32, profile: &str) -> Option<Self> {
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
        let whole = format!("{PROFILE}namespace = \"{namespace}\"\n{profile}");
        let ground = Ground::new(settings, steps, &whole).unwrap();
        let home = ground.directory().display().to_string();
        // With the rights of the role, and no others.
        let rights = kubernetes.kubeconfig(LAUNCHER).display().to_string();
        let ground = ground.with("HOME", home).with("KUBECONFIG", rights);
        let ground = ground.serving(&["--tls", "auto"]);
        let node = ground.directory().join("node");
        fs::create_dir(&node).unwrap();
        let kubelet = Kubelet::start(kubernetes, &namespace, &node).unwrap();
        Some(Self { kubernetes, namespace, kubelet, ground, runtime, client })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.ground.directory()
    }

    /// Starts `muster` with the cluster.
    pub(crate) fn start(&self, label: &str, arguments: &[&str]) -> Muster {
        self.ground.start(label, arguments).unwrap()
    }

    /// `muster serve` with certificate and tokens, once it answers.
    pub(crate) fn serve(&self, label: &str) -> Muster {
        self.ground.serve(label).unwrap()
    }

    /// What a client prints that ends well.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        self.ground.ask(arguments).unwrap()
    }

    /// Asks until the answer says these words.
    pub(crate) fn await_words(&self, arguments: &[&str], words: &str) -> String {
        self.ground.await_words(arguments, words).unwrap()
    }

    pub(crate) fn record(&self) -> Value {
        let path = self.directory().join("muster-data/coordinator/allocations.json");
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    pub(crate) fn all<K>(&self) -> Vec<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let begun = Instant::now();
        loop {
            match self.runtime.block_on(api.list(&ListParams::default())) {
                Ok(found) => return found.items,
                // The server closes connections that nobody uses, and this one may just be closing.
                Err(kube::Error::Service(_)) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Names of pods that run.
    pub(crate) fn running(&self) -> Vec<String> {
        let pods = self.all::<Pod>();
        let running = pods.iter().filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        });
        running.map(ResourceExt::name_any).collect()
    }

    pub(crate) fn await_running(
        &self,
        what: &str,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
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
    pub(crate) fn await_nothing_left(&self) {
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
    pub(crate) fn evict(&self, pod: &str) {
        let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = PostParams::default();
        let evict = api.create_subresource("eviction", pod, &parameters, &eviction);
        let _accepted: Value = self.runtime.block_on(evict).unwrap();
    }

    /// As if its node had gone: nobody waits for it.
    pub(crate) fn lose(&self, pod: &str) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = DeleteParams::default().grace_period(0);
        self.runtime.block_on(api.delete(pod, &parameters)).unwrap();
    }

    /// Processes with these words in their command line that were started for a pod, or all pods.
    pub(crate) fn processes(&self, words: &str, pod: &str) -> Vec<u32> {
        let folder = self.directory().join("node").display().to_string();
        processes_with(words, |environment| {
            environment.contains(&format!("MUSTER_POD={pod}")) && environment.contains(&folder)
        })
    }

    /// The processes of the workers.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let mut pids = self.processes("muster-worker supervise", "");
        pids.retain(|pid| is_alive(*pid));
        pids.sort_unstable();
        without_children(&pids)
    }
}
