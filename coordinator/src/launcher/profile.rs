//! What a user says about a cluster: what one allocation is, and how many there may be. Every value is
//! checked against what the cluster's syntax allows before anything is made of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::kubernetes::profile::KubernetesProfile;
use super::planner::Limits;

/// Longest text of one field, bytes.
const TEXT_MAX: usize = 256;

/// Options of `sbatch` that may be given besides those with a field of their own: none of them runs
/// anything, changes what is exported, or gives the job another name.
pub const EXTRA_OPTIONS: [&str; 22] = [
    "begin",
    "core-spec",
    "deadline",
    "delay-boot",
    "distribution",
    "exclude",
    "gpu-bind",
    "gpu-freq",
    "gres-flags",
    "hint",
    "licenses",
    "mail-type",
    "mail-user",
    "mem-bind",
    "nice",
    "nodelist",
    "prefer",
    "priority",
    "sockets-per-node",
    "switches",
    "tmp",
    "wckey",
];

/// The kinds of clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterKind {
    /// Slurm, by its commands.
    Slurm,
    /// Kubernetes, by its API.
    Kubernetes,
}

/// A cluster of one of the kinds, as a user describes it. Each kind has keys of its own; without the key `kind`
/// it is Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterProfile {
    /// Slurm.
    Slurm(Box<Profile>),
    /// Kubernetes.
    Kubernetes(Box<KubernetesProfile>),
}

impl<'de> Deserialize<'de> for ClusterProfile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = serde_json::Value::deserialize(deserializer)?;
        let kind = table.get("kind").cloned().map(serde_json::from_value);
        let read = match kind.transpose().map_err(D::Error::custom)? {
            None | Some(ClusterKind::Slurm) => serde_json::from_value(table).map(Self::Slurm),
            Some(ClusterKind::Kubernetes) => serde_json::from_value(table).map(Self::Kubernetes),
        };
        read.map_err(D::Error::custom)
    }
}

impl ClusterProfile {
    /// One of this kind with nothing but defaults.
    pub fn of_kind(kind: ClusterKind) -> Self {
        match kind {
            ClusterKind::Slurm => Self::Slurm(Box::default()),
            ClusterKind::Kubernetes => Self::Kubernetes(Box::default()),
        }
    }

    /// Refuses what cannot be used.
    pub fn checked(self) -> Result<Self, ProfileError> {
        Ok(match self {
            Self::Slurm(profile) => Self::Slurm(Box::new(profile.checked()?)),
            Self::Kubernetes(profile) => Self::Kubernetes(Box::new(profile.checked()?)),
        })
    }

    /// How its keeper goes about.
    pub fn pace(&self) -> Pace {
        match self {
            Self::Slurm(profile) => Pace {
                limits: profile.limits(),
                poll: Duration::from_secs(u64::from(profile.poll_seconds)),
                array: profile.array,
            },
            Self::Kubernetes(profile) => {
                Pace { limits: profile.limits(), poll: PLAN_AGAIN, array: false }
            }
        }
    }

    /// URL of the coordinator as workers there reach it, where the user says so.
    pub fn coordinator(&self) -> Option<&str> {
        match self {
            Self::Slurm(profile) => profile.coordinator.as_deref(),
            Self::Kubernetes(profile) => profile.coordinator.as_deref(),
        }
    }
}

/// Looking costs nothing where the cluster tells by itself: so often for what only time changes.
const PLAN_AGAIN: Duration = Duration::from_secs(2);

/// How often the cluster is looked at, and what may be asked of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How much.
    pub limits: Limits,
    /// At most every so often.
    pub poll: Duration,
    /// Allocations that are wanted at once are one submission.
    pub array: bool,
}

/// By default workers wait so long for a coordinator that is gone: a machine is started again within it.
pub(super) const ALONE_SECONDS: u32 = 1800;
/// Least and most of it.
pub(super) const ALONE_RANGE: (u32, u32) = (10, 7 * 86_400);

/// What workers compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotDevice {
    /// The processor.
    Cpu,
    /// The GPU that the cluster gives to each worker.
    Cuda,
}

/// A cluster, as a user describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// What kind of cluster it is.
    pub kind: ClusterKind,
    /// Partition, or several with commas between.
    pub partition: Option<String>,
    /// Account that is charged.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Features that the nodes must have, in Slurm's syntax.
    pub constraint: Option<String>,
    /// Reservation to run in.
    pub reservation: Option<String>,
    /// Generic resources of each node, in Slurm's syntax, besides the GPUs of the workers.
    pub gres: Option<String>,
    /// Nodes of one allocation.
    pub nodes: u32,
    /// Workers on each of them.
    pub workers_per_node: u32,
    /// GPUs of each worker: 0 or 1.
    pub gpus_per_worker: u32,
    /// Workers that share a GPU, its memory too; at least 1.
    pub slots_per_gpu: u32,
    /// Type of these GPUs.
    pub gpu_type: Option<String>,
    /// Processors of each worker, which are its compute threads.
    pub cpus_per_worker: u32,
    /// Memory of each node, MiB; absent: what the cluster gives.
    pub memory_mib: Option<u64>,
    /// Time of one allocation, minutes.
    pub time_minutes: u32,
    /// Nodes are shared with nobody.
    pub exclusive: bool,
    /// Several allocations that are wanted at once become one job array.
    pub array: bool,
    /// Further options of `sbatch`, of those that are allowed.
    pub options: BTreeMap<String, String>,
    /// What workers compute on; absent: on their GPUs, where they have some.
    pub device: Option<SlotDevice>,
    /// URL of the coordinator as the nodes reach it; absent: from the address that it listens on.
    pub coordinator: Option<String>,
    /// The worker program as the nodes see it; absent: where the coordinator sees it.
    pub worker_binary: Option<PathBuf>,
    /// Variables of the coordinator's environment that workers get too, besides the usual ones.
    pub environment: Vec<String>,
    /// Directory for what the jobs print, as the nodes see it; absent: the logs of the state directory.
    pub output: Option<PathBuf>,
    /// Allocations at the same time, waiting ones included.
    pub max_allocations: u32,
    /// Workers at the same time.
    pub max_workers: u32,
    /// An allocation with nothing to do is given back after so many seconds.
    pub idle_seconds: u32,
    /// The first worker of an allocation must dial in within so many seconds.
    pub start_seconds: u32,
    /// Another allocation is asked for so many seconds before one ends.
    pub renew_seconds: u32,
    /// Runs save themselves and leave so many seconds before their allocation ends.
    pub drain_seconds: u32,
    /// A worker without a coordinator and without a run leaves after so many seconds.
    pub alone_seconds: u32,
    /// The cluster is asked at most every so many seconds.
    pub poll_seconds: u32,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            kind: ClusterKind::Slurm,
            partition: None,
            account: None,
            qos: None,
            constraint: None,
            reservation: None,
            gres: None,
            nodes: 1,
            workers_per_node: 1,
            gpus_per_worker: 1,
            slots_per_gpu: 1,
            gpu_type: None,
            cpus_per_worker: 4,
            memory_mib: None,
            time_minutes: 240,
            exclusive: false,
            array: false,
            options: BTreeMap::new(),
            device: None,
            coordinator: None,
            worker_binary: None,
            environment: Vec::new(),
            output: None,
            max_allocations: 4,
            max_workers: 16,
            idle_seconds: 300,
            start_seconds: 300,
            renew_seconds: 900,
            drain_seconds: 180,
            alone_seconds: ALONE_SECONDS,
            poll_seconds: 30,
        }
    }
}

/// A field that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}; {mend}")]
pub struct ProfileError {
    /// Its name.
    pub field: String,
    /// As given, quoted.
    pub value: String,
    /// What is legal.
    pub mend: String,
}

impl ProfileError {
    pub(super) fn new(field: &str, value: &impl std::fmt::Debug, mend: &str) -> Self {
        Self { field: field.to_owned(), value: format!("{value:?}"), mend: mend.to_owned() }
    }
}

/// Characters of names: partitions, accounts, and the like.
const NAME: &str = "_.-";
/// As [`NAME`], for lists of them.
const LIST: &str = "_.-,";
/// Of resources: `gpu:a100:2,shard:1`.
const RESOURCE: &str = "_.-,:=";
/// Of constraints: `[rack1*2&rack2*4]`, `(fast|slow)&!old`.
const EXPRESSION: &str = "_.-,:&|*()[]!@";
/// Of options without a field: addresses, times and lists too.
const OPTION: &str = "_.-,:=@+/%*()[]";

impl Profile {
    /// Refuses what the cluster would refuse, or worse, understand otherwise.
    pub fn checked(self) -> Result<Self, ProfileError> {
        let texts = [
            ("partition", &self.partition, LIST),
            ("account", &self.account, NAME),
            ("qos", &self.qos, NAME),
            ("constraint", &self.constraint, EXPRESSION),
            ("reservation", &self.reservation, LIST),
            ("gres", &self.gres, RESOURCE),
            ("gpu_type", &self.gpu_type, NAME),
        ];
        for (field, text, legal) in texts {
            if let Some(text) = text {
                check_text(field, text, legal)?;
            }
        }
        for (name, value) in &self.options {
            if !EXTRA_OPTIONS.contains(&name.as_str()) {
                let mend = format!("these are allowed: {}", EXTRA_OPTIONS.join(", "));
                return Err(ProfileError::new("options", name, &mend));
            }
            check_text(&format!("options.{name}"), value, OPTION)?;
        }
        for name in &self.environment {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let is_name =
                name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit());
            if name.is_empty() || !is_name || name.starts_with("SLURM_") || name == "BASH_ENV" {
                let mend =
                    "write names of environment variables; values come from the coordinator's";
                return Err(ProfileError::new("environment", name, mend));
            }
        }
        self.check_numbers()?;
        self.check_sharing()?;
        self.check_places()?;
        Ok(self)
    }

    /// Workers that share GPUs are told apart by their numbers on the node.
    fn check_sharing(&self) -> Result<(), ProfileError> {
        let shared = self.slots_per_gpu;
        if shared == 1 {
            return Ok(());
        }
        check_shared(shared, self.gpus_per_worker)?;
        if !self.workers_per_node.is_multiple_of(shared) {
            let mend = format!("write a multiple of slots_per_gpu, which is {shared}");
            return Err(ProfileError::new("workers_per_node", &self.workers_per_node, &mend));
        }
        if self.options.contains_key("gpu-bind") {
            let mend = "slots_per_gpu says already which worker has which GPU: leave it out";
            return Err(ProfileError::new("options", &"gpu-bind", mend));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ProfileError> {
        let ranges = [
            ("nodes", self.nodes, 1, 1024),
            ("workers_per_node", self.workers_per_node, 1, 128),
            ("gpus_per_worker", self.gpus_per_worker, 0, 1),
            ("slots_per_gpu", self.slots_per_gpu, 1, 64),
            ("cpus_per_worker", self.cpus_per_worker, 1, 1024),
            ("time_minutes", self.time_minutes, 1, 60 * 24 * 365),
            ("max_allocations", self.max_allocations, 1, 1000),
            ("max_workers", self.max_workers, 1, 65_536),
            ("idle_seconds", self.idle_seconds, 1, 86_400),
            ("start_seconds", self.start_seconds, 10, 86_400),
            ("renew_seconds", self.renew_seconds, 1, 86_400),
            ("drain_seconds", self.drain_seconds, 5, 3600),
            ("alone_seconds", self.alone_seconds, ALONE_RANGE.0, ALONE_RANGE.1),
            ("poll_seconds", self.poll_seconds, 1, 600),
        ];
        for (field, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(ProfileError::new(field, &value, &format!("write {least} to {most}")));
            }
        }
        if self.workers_each() > self.max_workers {
            let each = self.workers_each();
            let mend =
                format!("one allocation has nodes times workers_per_node, {each} workers already");
            return Err(ProfileError::new("max_workers", &self.max_workers, &mend));
        }
        // In the middle of the drain nothing new may begin, and what begins needs time to get somewhere.
        if self.time_minutes.saturating_mul(60) <= self.drain_seconds.saturating_mul(2) {
            let mend = format!("an allocation must last more than twice {} s", self.drain_seconds);
            return Err(ProfileError::new("time_minutes", &self.time_minutes, &mend));
        }
        if self.renew_seconds < self.drain_seconds {
            let mend = format!("write drain_seconds ({}) or more", self.drain_seconds);
            return Err(ProfileError::new("renew_seconds", &self.renew_seconds, &mend));
        }
        Ok(())
    }

    fn check_places(&self) -> Result<(), ProfileError> {
        check_coordinator(self.coordinator.as_deref())?;
        for (field, path) in [("worker_binary", &self.worker_binary), ("output", &self.output)] {
            let Some(path) = path else { continue };
            let is_plain = path.to_str().is_some_and(|text| !text.contains(char::is_control));
            if !path.is_absolute() || !is_plain {
                return Err(ProfileError::new(field, path, "write an absolute path"));
            }
        }
        if self.device == Some(SlotDevice::Cuda) && self.gpus_per_worker == 0 {
            let mend = "workers have no GPU: write gpus_per_worker = 1, or leave device out";
            return Err(ProfileError::new("device", &"cuda", mend));
        }
        Ok(())
    }

    /// GPUs that the workers of a node have together.
    pub fn gpus_per_node(&self) -> u32 {
        self.gpus_per_worker * self.workers_per_node / self.slots_per_gpu.max(1)
    }

    /// Workers of one allocation.
    pub fn workers_each(&self) -> u32 {
        self.nodes.saturating_mul(self.workers_per_node)
    }

    /// What may be asked of the cluster.
    pub fn limits(&self) -> Limits {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Limits {
            max_allocations: self.max_allocations,
            max_workers: self.max_workers,
            workers_each: self.workers_each(),
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

/// Refuses to share what workers do not have.
pub(super) fn check_shared(slots_per_gpu: u32, gpus_per_worker: u32) -> Result<(), ProfileError> {
    if slots_per_gpu == 1 || gpus_per_worker > 0 {
        return Ok(());
    }
    let mend = "workers have no GPU: write gpus_per_worker = 1, or leave slots_per_gpu out";
    Err(ProfileError::new("slots_per_gpu", &slots_per_gpu, mend))
}

/// Refuses a URL that is none, or that holds anything odd.
pub(super) fn check_coordinator(url: Option<&str>) -> Result<(), ProfileError> {
    let Some(url) = url else { return Ok(()) };
    let is_url = url.starts_with("http://") || url.starts_with("https://");
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-:/[]".contains(c);
    if is_url && url.chars().all(legal) {
        return Ok(());
    }
    let mend = "write a URL that the nodes reach, for example http://login1:7700";
    Err(ProfileError::new("coordinator", &url, mend))
}

fn check_text(field: &str, text: &str, legal: &str) -> Result<(), ProfileError> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || legal.contains(c);
    // A value that begins with a dash would be read as the next option.
    if !text.is_empty()
        && text.len() <= TEXT_MAX
        && !text.starts_with('-')
        && text.chars().all(is_legal)
    {
        return Ok(());
    }
    let mend = format!("write 1 to {TEXT_MAX} letters, digits and {legal}, not a dash first");
    Err(ProfileError::new(field, &text, &mend))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Profile, String> {
        let parsed = config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .build()
            .and_then(config::Config::try_deserialize::<Profile>);
        parsed.map_err(|error| error.to_string())?.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_profile_is_read_and_the_rest_has_defaults() {
        let text = "partition = \"gpu,long\"\naccount = \"nlp-1\"\nnodes = 2\nworkers_per_node = 4\n\
            constraint = \"[a100*1&v100*1]\"\ngres = \"tmpfs:1\"\nmax_workers = 32\n\
            [options]\nnice = \"100\"\nexclude = \"n[1-3],n7\"\n";
        let profile = read(text).unwrap();
        assert_eq!(profile.workers_each(), 8);
        assert_eq!(profile.limits().max_slots(), 32);
        assert_eq!(profile.device(), SlotDevice::Cuda);
        assert_eq!(read("").unwrap(), Profile::default());
        let shared = read("workers_per_node = 8\nslots_per_gpu = 4").unwrap();
        assert_eq!((shared.workers_each(), shared.gpus_per_node()), (8, 2));
    }

    #[test]
    fn every_mistake_has_one_message_with_its_field() {
        for (text, field) in [
            ("partition = \"gpu\\n#SBATCH --uid=0\"", "partition"),
            ("partition = \"\"", "partition"),
            ("account = \"a b\"", "account"),
            ("account = \"--uid=0\"", "account"),
            ("qos = \"$(id)\"", "qos"),
            ("constraint = \"a;b\"", "constraint"),
            ("constraint = \"a'b\"", "constraint"),
            ("gres = \"gpu:1 --wrap=id\"", "gres"),
            ("gpu_type = \"`id`\"", "gpu_type"),
            ("nodes = 0", "nodes"),
            ("gpus_per_worker = 8", "gpus_per_worker"),
            ("slots_per_gpu = 0", "slots_per_gpu"),
            ("slots_per_gpu = 2\ngpus_per_worker = 0", "slots_per_gpu"),
            ("slots_per_gpu = 2\nworkers_per_node = 3", "workers_per_node"),
            (
                "slots_per_gpu = 2\nworkers_per_node = 2\noptions = {gpu-bind = \"none\"}",
                "gpu-bind",
            ),
            ("nodes = 8\nworkers_per_node = 8", "max_workers"),
            ("time_minutes = 5", "time_minutes"),
            ("renew_seconds = 100", "renew_seconds"),
            ("drain_seconds = 1", "drain_seconds"),
            ("alone_seconds = 0", "alone_seconds"),
            ("poll_seconds = 0", "poll_seconds"),
            ("coordinator = \"login1:7700\"", "coordinator"),
            ("coordinator = \"http://a b\"", "coordinator"),
            ("worker_binary = \"muster-worker\"", "worker_binary"),
            ("output = \"/logs\\n/x\"", "output"),
            ("device = \"cuda\"\ngpus_per_worker = 0", "device"),
            ("environment = [\"A=B\"]", "environment"),
            ("environment = [\"BASH_ENV\"]", "environment"),
            ("options = {wrap = \"id\"}", "options"),
            ("options = {job-name = \"x\"}", "options"),
            ("options = {nice = \"1 --wrap=id\"}", "options.nice"),
            ("tim_minutes = 5", "tim_minutes"),
            ("kind = \"pbs\"", "pbs"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(field) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
