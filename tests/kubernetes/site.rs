//! A namespace with a node, and the real programs in it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use muster_tests::gang::Laboratory;
use muster_tests::kubelet::Kubelet;
use muster_tests::kubernetes::{ADMIN, Kubernetes, LAUNCHER};
use muster_tests::process::{Muster, PATIENCE, processes_with, program};
use muster_tests::sample::repository;
use muster_tests::service::{await_words, served_address};
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
/// Variables of whoever runs the tests.
const OURS: [&str; 4] =
    ["MUSTER_COORDINATOR", "MUSTER_ACCESS", "MUSTER_FINGERPRINT", "MUSTER_TOKEN"];

/// A namespace with a node, and a directory with a manifest and a cluster.
pub(crate) struct Site {
    pub(crate) kubernetes: &'static Kubernetes,
    pub(crate) namespace: String,
    pub(crate) kubelet: Kubelet,
    pub(crate) laboratory: Laboratory,
    port: u16,
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

    pub(crate) fn directory(&self) -> &Path {
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
    pub(crate) fn start(&self, label: &str, arguments: &[&str]) -> Muster {
        let arguments = [arguments, &["--cluster", "cluster.toml"]].concat();
        Muster::start_command(self.command(), self.directory(), label, &arguments).unwrap()
    }

    /// `muster serve` with certificate and tokens, once it answers.
    pub(crate) fn serve(&self, label: &str) -> Muster {
        let mut server = self.start(label, &["serve", "--tls", "auto"]);
        served_address(&mut server).unwrap();
        server
    }

    /// What a client prints that ends well.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
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
    pub(crate) fn await_words(&self, arguments: &[&str], words: &str) -> String {
        await_words(words, || Ok(self.ask(arguments))).unwrap()
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
}
