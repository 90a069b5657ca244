//! What a user says about a Kubernetes cluster: what one Job is, and how many there may be. Every value is
//! checked against what the API server or the kubelet would refuse later, when nobody looks any more.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_common::count::counted;
use serde::Deserialize;

use super::words;
use crate::launcher::planner::Limits;
use crate::launcher::profile::{
    ALONE_RANGE, ALONE_SECONDS, ClusterKind, ProfileError, SlotDevice, check_coordinator,
    check_shared,
};

/// A toleration, with the names that pods have for its parts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TolerationOf {
    /// Key of the taint; absent: every taint, with the operator `Exists`.
    pub key: Option<String>,
    /// `Equal`, the default, or `Exists`.
    pub operator: Option<String>,
    /// Value of the taint, with `Equal`.
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; absent: all of them.
    pub effect: Option<String>,
    /// How long a pod stays on a node that got the taint, seconds; with `NoExecute` only.
    pub seconds: Option<u32>,
}

/// A cluster, as a user describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesProfile {
    /// Always [`ClusterKind::Kubernetes`].
    pub kind: ClusterKind,
    /// Context of the kubeconfig; absent: the current one, or the cluster that this process runs in.
    pub context: Option<String>,
    /// Namespace of the Jobs; absent: that of the context, or the coordinator's own.
    pub namespace: Option<String>,
    /// Image with the worker program; there is no default.
    pub image: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`; absent: as the image's tag suggests.
    pub image_pull_policy: Option<String>,
    /// Secrets that open the image's registry.
    pub image_pull_secrets: Vec<String>,
    /// The worker program in the image.
    pub worker_binary: String,
    /// Pods of one Job, each with one worker.
    pub workers_per_job: u32,
    /// GPUs of each worker: 0 or 1.
    pub gpus_per_worker: u32,
    /// Workers that share a GPU, at least 1: so many of the resource are one GPU (time slicing, MPS).
    pub slots_per_gpu: u32,
    /// What a GPU is called as a resource.
    pub gpu_resource: String,
    /// Processors that a worker asks for, which are its compute threads.
    pub cpus_per_worker: u32,
    /// Processors that a worker may use at most; absent: all that are idle.
    pub cpu_limit: Option<u32>,
    /// Memory that a worker asks for, MiB.
    pub memory_mib: Option<u64>,
    /// Memory that a worker may use at most, MiB; absent: what it asks for.
    pub memory_limit_mib: Option<u64>,
    /// Shared memory, which NCCL uses, MiB; 0: what the container runtime gives. It counts as memory.
    pub shared_memory_mib: u64,
    /// Space for caches, on the node's disk, GiB.
    pub scratch_gib: u64,
    /// Claims of volumes, by where they are mounted.
    pub claims: BTreeMap<String, String>,
    /// Labels that nodes must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that nodes may have.
    pub tolerations: Vec<TolerationOf>,
    /// Priority class of the pods.
    pub priority_class: Option<String>,
    /// Runtime class of the pods.
    pub runtime_class: Option<String>,
    /// Service account of the pods, whose token they do not get.
    pub service_account: Option<String>,
    /// User and group id of the workers; not 0.
    pub user: u32,
    /// Secrets whose keys become environment variables.
    pub secrets: Vec<String>,
    /// Environment variables that are no secrets.
    pub environment: BTreeMap<String, String>,
    /// More labels for Jobs and pods.
    pub labels: BTreeMap<String, String>,
    /// Queue of Kueue.
    pub queue: Option<String>,
    /// Time of one Job, minutes; absent: until it is given back.
    pub time_minutes: Option<u32>,
    /// How long a Job that has ended can still be looked at, seconds.
    pub keep_seconds: u32,
    /// What workers compute on; absent: on their GPUs, where they have some.
    pub device: Option<SlotDevice>,
    /// URL of the coordinator as the pods reach it; absent: as it advertises itself.
    pub coordinator: Option<String>,
    /// Jobs at the same time, waiting ones included.
    pub max_allocations: u32,
    /// Workers at the same time.
    pub max_workers: u32,
    /// A Job with nothing to do is given back after so many seconds.
    pub idle_seconds: u32,
    /// The first worker of a Job whose pods run must dial in within so many seconds.
    pub start_seconds: u32,
    /// Another Job is asked for so many seconds before the time of one is over.
    pub renew_seconds: u32,
    /// Time for a run to save itself and leave, seconds: of a pod that is evicted, and before a Job's end.
    pub drain_seconds: u32,
    /// A worker without a coordinator and without a run leaves after so many seconds, and its Job ends.
    pub alone_seconds: u32,
    /// Failures of its pods, for each of them, after which a Job is given up.
    pub max_failures: u32,
}

impl Default for KubernetesProfile {
    fn default() -> Self {
        Self {
            kind: ClusterKind::Kubernetes,
            context: None,
            namespace: None,
            image: None,
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            worker_binary: "muster-worker".to_owned(),
            workers_per_job: 1,
            gpus_per_worker: 1,
            slots_per_gpu: 1,
            gpu_resource: "nvidia.com/gpu".to_owned(),
            cpus_per_worker: 4,
            cpu_limit: None,
            memory_mib: None,
            memory_limit_mib: None,
            shared_memory_mib: 1024,
            scratch_gib: 20,
            claims: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class: None,
            runtime_class: None,
            service_account: None,
            user: 10_001,
            secrets: Vec::new(),
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
            queue: None,
            time_minutes: None,
            keep_seconds: 3600,
            device: None,
            coordinator: None,
            max_allocations: 4,
            max_workers: 16,
            idle_seconds: 300,
            start_seconds: 300,
            renew_seconds: 900,
            drain_seconds: 180,
            alone_seconds: ALONE_SECONDS,
            max_failures: 6,
        }
    }
}

/// What in the name of a variable says that its value is a secret.
const SECRETIVE: [&str; 5] = ["SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY", "CREDENTIAL"];

impl KubernetesProfile {
    /// Refuses what cannot be used.
    pub fn checked(self) -> Result<Self, ProfileError> {
        self.check_names()?;
        self.check_tables()?;
        self.check_numbers()?;
        self.check_tolerations()?;
        check_coordinator(self.coordinator.as_deref())?;
        if self.device == Some(SlotDevice::Cuda) && self.gpus_per_worker == 0 {
            let mend = "workers have no GPU: write gpus_per_worker = 1, or leave device out";
            return Err(ProfileError::new("device", &"cuda", mend));
        }
        Ok(self)
    }

    fn check_names(&self) -> Result<(), ProfileError> {
        let Some(image) = &self.image else {
            let mend = "write the image with the worker program, for example \
                        registry.example.com/muster/worker:1.0";
            return Err(ProfileError::new("image", &"missing", mend));
        };
        if !words::is_image(image) {
            let mend = "write REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST";
            return Err(ProfileError::new("image", image, mend));
        }
        let policy = self.image_pull_policy.as_deref();
        if policy.is_some_and(|name| !["Always", "IfNotPresent", "Never"].contains(&name)) {
            let mend = "write Always, IfNotPresent or Never";
            return Err(ProfileError::new("image_pull_policy", &policy.unwrap_or_default(), mend));
        }
        let single = [
            ("namespace", &self.namespace),
            ("priority_class", &self.priority_class),
            ("runtime_class", &self.runtime_class),
            ("service_account", &self.service_account),
            ("queue", &self.queue),
        ];
        let single =
            single.iter().filter_map(|(field, name)| Some((*field, Option::as_ref(name)?)));
        let several =
            [("image_pull_secrets", &self.image_pull_secrets), ("secrets", &self.secrets)];
        let several =
            several.iter().flat_map(|(field, all)| all.iter().map(move |name| (*field, name)));
        let claims = self.claims.values().map(|name| ("claims", name));
        for (field, name) in single.chain(several).chain(claims) {
            if !words::is_name(name) {
                let mend = "write a name of Kubernetes: a-z, 0-9, `-` and `.`, a letter or digit at both ends";
                return Err(ProfileError::new(field, name, mend));
            }
        }
        if !words::is_resource(&self.gpu_resource) {
            let mend = "write a name like nvidia.com/gpu";
            return Err(ProfileError::new("gpu_resource", &self.gpu_resource, mend));
        }
        let is_plain = |text: &str| !text.is_empty() && !text.contains(char::is_control);
        // `$(NAME)` would be replaced by a variable.
        if !is_plain(&self.worker_binary) || self.worker_binary.contains('$') {
            let mend = "write a path in the image, or a name on its PATH";
            return Err(ProfileError::new("worker_binary", &self.worker_binary, mend));
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<(), ProfileError> {
        for (field, table) in [("node_selector", &self.node_selector), ("labels", &self.labels)] {
            for (key, value) in table {
                if !words::is_label_key(key) || !words::is_label_value(value) {
                    let mend = "write labels as Kubernetes has them: PREFIX/NAME = \"value\"";
                    return Err(ProfileError::new(field, &format!("{key} = {value}"), mend));
                }
            }
        }
        let own = |key: &&String| super::manifest::is_own_label(key);
        if let Some(key) = self.labels.keys().find(own) {
            let mend = "this label is written by the coordinator: choose another";
            return Err(ProfileError::new("labels", key, mend));
        }
        for name in self.environment.keys() {
            if !words::is_variable(name) || name.starts_with("MUSTER_") {
                let mend = "write names of environment variables; those of Muster are set already";
                return Err(ProfileError::new("environment", name, mend));
            }
            let upper = name.to_uppercase();
            if SECRETIVE.iter().any(|word| upper.contains(word)) {
                let mend = "whoever may read Jobs would see it: put it into a Secret and name that in `secrets`";
                return Err(ProfileError::new("environment", name, mend));
            }
        }
        for path in self.claims.keys() {
            let is_own = super::manifest::OWN_PATHS.iter().any(|own| path.starts_with(own));
            if !words::is_path(path) || is_own {
                let mend = "write an absolute path that is not used otherwise";
                return Err(ProfileError::new("claims", path, mend));
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ProfileError> {
        let year = 60 * 24 * 365;
        let ranges: [(&str, u64, u64, u64); 19] = [
            ("workers_per_job", self.workers_per_job.into(), 1, 1024),
            ("gpus_per_worker", self.gpus_per_worker.into(), 0, 1),
            ("slots_per_gpu", self.slots_per_gpu.into(), 1, 64),
            ("cpus_per_worker", self.cpus_per_worker.into(), 1, 1024),
            (
                "cpu_limit",
                self.cpu_limit.unwrap_or(self.cpus_per_worker).into(),
                self.cpus_per_worker.into(),
                1024,
            ),
            ("memory_mib", self.memory_mib.unwrap_or(64), 64, 1 << 26),
            ("shared_memory_mib", self.shared_memory_mib, 0, 1 << 26),
            ("scratch_gib", self.scratch_gib, 1, 1 << 20),
            ("user", self.user.into(), 1, 1 << 31),
            ("time_minutes", self.time_minutes.unwrap_or(year).into(), 1, year.into()),
            ("keep_seconds", self.keep_seconds.into(), 0, 30 * 86_400),
            ("max_allocations", self.max_allocations.into(), 1, 1000),
            ("max_workers", self.max_workers.into(), 1, 65_536),
            ("idle_seconds", self.idle_seconds.into(), 1, 86_400),
            ("start_seconds", self.start_seconds.into(), 10, 86_400),
            ("renew_seconds", self.renew_seconds.into(), 1, 86_400),
            ("drain_seconds", self.drain_seconds.into(), 5, 3600),
            ("max_failures", self.max_failures.into(), 0, 1000),
            (
                "alone_seconds",
                self.alone_seconds.into(),
                ALONE_RANGE.0.into(),
                ALONE_RANGE.1.into(),
            ),
        ];
        for (field, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(ProfileError::new(field, &value, &format!("write {least} to {most}")));
            }
        }
        check_shared(self.slots_per_gpu, self.gpus_per_worker)?;
        if self.workers_per_job > self.max_workers {
            let mend = format!("one Job has {} already", counted(self.workers_per_job, "worker"));
            return Err(ProfileError::new("max_workers", &self.max_workers, &mend));
        }
        let least = self.memory_mib.unwrap_or(64).max(self.shared_memory_mib);
        if let Some(limit) =
            self.memory_limit_mib.or(self.memory_mib).filter(|limit| *limit < least)
        {
            let mend =
                format!("write at least {least}: memory_mib, and shared_memory_mib, lie within it");
            return Err(ProfileError::new("memory_limit_mib", &limit, &mend));
        }
        let Some(minutes) = self.time_minutes else { return Ok(()) };
        if minutes.saturating_mul(60) <= self.drain_seconds.saturating_mul(2) {
            let mend = format!("a Job must last more than twice {} s", self.drain_seconds);
            return Err(ProfileError::new("time_minutes", &minutes, &mend));
        }
        if self.renew_seconds < self.drain_seconds {
            let mend = format!("write drain_seconds ({}) or more", self.drain_seconds);
            return Err(ProfileError::new("renew_seconds", &self.renew_seconds, &mend));
        }
        Ok(())
    }

    fn check_tolerations(&self) -> Result<(), ProfileError> {
        for toleration in &self.tolerations {
            let TolerationOf { key, operator, value, effect, seconds } = toleration;
            let refuse = |mend: &str| {
                let shown = key.as_deref().unwrap_or("every key");
                Err(ProfileError::new("tolerations", &shown, mend))
            };
            let operator = operator.as_deref().unwrap_or("Equal");
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            if key.as_ref().is_some_and(|key| !words::is_label_key(key)) {
                return refuse("the key is no key of a taint");
            }
            match operator {
                "Equal" if key.is_some() && value.as_deref().is_none_or(words::is_label_value) => {}
                "Exists" if value.is_none() => {}
                "Equal" => return refuse("Equal needs a key, and a value as labels have them"),
                _ => return refuse("the operator is Equal, or Exists without a value"),
            }
            if effect.as_ref().is_some_and(|effect| !effects.contains(&effect.as_str())) {
                return refuse("the effect is NoSchedule, PreferNoSchedule or NoExecute");
            }
            if seconds.is_some() && effect.as_deref() != Some("NoExecute") {
                return refuse("seconds are for the effect NoExecute");
            }
        }
        Ok(())
    }

    /// What may be asked of the cluster.
    pub fn limits(&self) -> Limits {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Limits {
            max_allocations: self.max_allocations,
            max_workers: self.max_workers,
            workers_each: self.workers_per_job,
            idle: seconds(self.idle_seconds),
            start: seconds(self.start_seconds),
            renew: seconds(self.renew_seconds),
            drain: seconds(self.drain_seconds),
        }
    }

    /// What workers compute on.
    pub fn device(&self) -> SlotDevice {
        let usual = if self.gpus_per_worker > 0 { SlotDevice::Cuda } else { SlotDevice::Cpu };
        self.device.unwrap_or(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<KubernetesProfile, String> {
        let parsed = config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .build()
            .and_then(config::Config::try_deserialize::<KubernetesProfile>);
        parsed.map_err(|error| error.to_string())?.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_profile_is_read_and_the_rest_has_defaults() {
        let text = "kind = \"kubernetes\"\nimage = \"r.example.com:5000/a/worker@sha256:0a\"\n\
            workers_per_job = 8\nqueue = \"team-a\"\nsecrets = [\"s3\"]\n\
            tolerations = [{key = \"nvidia.com/gpu\", operator = \"Exists\"}, {operator = \"Exists\"}]\n\
            [node_selector]\n\"node.kubernetes.io/instance-type\" = \"p5.48xlarge\"\n\
            [environment]\nNCCL_DEBUG = \"WARN\"\n[claims]\n\"/data\" = \"shared\"\n";
        let profile = read(text).unwrap();
        assert_eq!((profile.limits().workers_each, profile.limits().max_slots()), (8, 16));
        assert_eq!(profile.device(), SlotDevice::Cuda);
        let plain = KubernetesProfile { image: Some("worker".to_owned()), ..Default::default() };
        assert_eq!(read("image = \"worker\"").unwrap(), plain);
    }

    #[test]
    fn every_mistake_has_one_message_with_its_field() {
        for (text, field) in [
            ("image = \"a b\"", "image"),
            ("image = \"Upper/Case\"", "image"),
            ("image_pull_policy = \"Sometimes\"", "image_pull_policy"),
            ("namespace = \"a/b\"", "namespace"),
            ("namespace = \"\"", "namespace"),
            ("secrets = [\"Upper\"]", "secrets"),
            ("gpu_resource = \"gpu\"", "gpu_resource"),
            ("gpus_per_worker = 2", "gpus_per_worker"),
            ("slots_per_gpu = 65", "slots_per_gpu"),
            ("slots_per_gpu = 2\ngpus_per_worker = 0", "slots_per_gpu"),
            ("worker_binary = \"$(MUSTER_POD)\"", "worker_binary"),
            ("labels = {\"a b\" = \"c\"}", "labels"),
            ("labels = {\"app.kubernetes.io/name\" = \"mine\"}", "app.kubernetes.io/name"),
            ("node_selector = {a = \"-\"}", "node_selector"),
            ("environment = {MUSTER_ACCESS = \"x\"}", "MUSTER_ACCESS"),
            ("environment = {AWS_SECRET_ACCESS_KEY = \"x\"}", "AWS_SECRET_ACCESS_KEY"),
            ("environment = {\"A B\" = \"x\"}", "environment"),
            ("claims = {\"data\" = \"a\"}", "claims"),
            ("claims = {\"/etc/muster/x\" = \"a\"}", "claims"),
            ("user = 0", "user"),
            ("alone_seconds = 5", "alone_seconds"),
            ("cpu_limit = 1", "cpu_limit"),
            ("workers_per_job = 32", "max_workers"),
            ("memory_mib = 512", "memory_limit_mib"),
            ("memory_mib = 4096\nmemory_limit_mib = 2048", "memory_limit_mib"),
            ("time_minutes = 5", "time_minutes"),
            ("time_minutes = 60\nrenew_seconds = 60", "renew_seconds"),
            ("coordinator = \"muster:7700\"", "coordinator"),
            ("device = \"cuda\"\ngpus_per_worker = 0", "device"),
            ("tolerations = [{operator = \"Equal\"}]", "tolerations"),
            ("tolerations = [{key = \"a\", operator = \"In\"}]", "tolerations"),
            ("tolerations = [{key = \"a\", effect = \"No\"}]", "tolerations"),
            ("tolerations = [{key = \"a\", seconds = 5}]", "tolerations"),
            ("tolerations = [{kee = \"a\"}]", "kee"),
            ("partition = \"gpu\"", "partition"),
        ] {
            let image = if text.starts_with("image =") { "" } else { "image = \"worker\"\n" };
            let error = read(&format!("{image}{text}")).unwrap_err();
            assert!(error.contains(field) && !error.contains('\n'), "{text}: {error}");
        }
        let error = read("").unwrap_err();
        assert!(error.contains("image") && error.contains("example"), "{error}");
    }
}
