//! Settings of a coordinator. Precedence, strongest first: flags, `MUSTER_` environment variables, the
//! settings file (`--config`, else `muster.toml` in the working directory if it is there), defaults.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, ConfigError, Environment, File, FileFormat};
use muster_common::id::ProjectName;
use muster_common::storage::{StoreError, StoreOptions};
use muster_common::telemetry::LogFormat;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::engine::line::ProjectPolicy;
use crate::launcher::profile::{ClusterKind, ClusterProfile, ProfileError};
use crate::machine::device::LocalDevice;

/// The settings file that is read when it is there.
const FILE: &str = "muster.toml";
/// Most slots of one GPU.
const SLOTS_PER_GPU_MAX: u32 = 64;

/// The clusters that are known without a section, as they are where nothing else is said.
const KINDS: [(&str, ClusterKind); 2] =
    [("slurm", ClusterKind::Slurm), ("kubernetes", ClusterKind::Kubernetes)];

/// Largest weight of a project.
const WEIGHT_MAX: u32 = 1000;

/// Everything that can be set. Names are the keys of the file and, with `MUSTER_` before them, the
/// environment variables.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Directory of journal and logs.
    pub state: PathBuf,
    /// Object store: a directory or a URL.
    pub store: String,
    /// URL of the server of a remote store, where it is not the provider's own.
    #[serde(default)]
    pub store_endpoint: Option<String>,
    /// Region of an S3 store.
    #[serde(default)]
    pub store_region: Option<String>,
    /// Whether the container of an S3 store is a part of the path rather than of the host.
    #[serde(default)]
    pub store_path_style: Option<bool>,
    /// Deadline of one request to a remote store, seconds.
    #[serde(default)]
    pub store_request_seconds: Option<u32>,
    /// Address of `muster serve`.
    pub listen: SocketAddr,
    /// Local workers; 0: as many as GPUs have room for, without GPUs one per core, at most 4.
    pub slots: u32,
    /// What local workers compute on.
    pub device: LocalDevice,
    /// Local workers that one GPU has room for.
    pub slots_per_gpu: u32,
    /// Each local worker runs on processors of its own only.
    pub pin_cores: bool,
    /// Compute threads of each local worker; 0: the cores divided by the slots.
    pub threads_per_slot: u32,
    /// The worker program; absent: beside this program, else on the PATH.
    pub worker_binary: Option<PathBuf>,
    /// Slots there may be one day, remote workers included; 0: as many as are connected when a
    /// manifest is submitted.
    pub max_slots: u32,
    /// A worker silent for so long has lost its run, seconds.
    pub lease_seconds: f64,
    /// Log filter, for example `info` or `muster_coordinator=debug`.
    pub log: String,
    /// How log lines of coordinator and workers look.
    #[serde(deserialize_with = "read_log_format")]
    pub log_format: LogFormat,
    /// Write an event file of TensorBoard for every trial that has ended.
    pub tensorboard: bool,
    /// What encrypts connections to `muster serve`.
    #[serde(deserialize_with = "read_tls")]
    pub tls: Tls,
    /// A certificate of the user's (PEM), and those that vouch for it.
    #[serde(default)]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM), a private file.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// Ask everybody for a token; absent: where connections are encrypted.
    #[serde(default)]
    pub tokens: Option<bool>,
    /// URL under which other machines reach `muster serve`; absent: its address, or this machine's name.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Listen on other addresses than this machine's own without token and TLS.
    pub insecure: bool,
    /// The cluster that workers come from, by the name of its section, or a file with the same keys; absent:
    /// workers are local, or dial in by themselves.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Clusters by name; only in the file.
    #[serde(default)]
    pub clusters: BTreeMap<String, ClusterProfile>,
    /// What projects may use, by name; only in the file.
    #[serde(default)]
    pub projects: BTreeMap<ProjectName, ProjectPolicy>,
}

/// What encrypts connections to `muster serve`, besides a certificate of the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tls {
    /// Nothing
    Off,
    /// A certificate that it makes, signed by an authority in its state directory
    Auto,
}

/// Flags that override everything else. Absent ones override nothing.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingsFlags {
    /// Settings file (TOML); without it `muster.toml` is read if it is there
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of journal and logs; by default muster-data/coordinator
    #[arg(long, value_name = "DIRECTORY")]
    pub state: Option<PathBuf>,
    /// Object store for checkpoints, metrics and models: a directory, by default muster-data, or a
    /// file://, s3://, gs:// or az:// URL
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Local workers; by default one for each GPU, without GPUs one for each core, at most 4
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Compute threads of each local worker; by default the cores divided by the workers
    #[arg(long, value_name = "N")]
    pub threads_per_slot: Option<u32>,
    /// What local workers compute on; by default auto
    #[arg(long, value_name = "DEVICE", conflicts_with = "cluster")]
    pub device: Option<LocalDevice>,
    /// The worker program; by default muster-worker beside this one, else on the PATH
    #[arg(long, value_name = "FILE")]
    pub worker_binary: Option<PathBuf>,
    /// Get workers from a cluster: `slurm`, `kubernetes`, the name of a section of the settings file, or a file
    #[arg(long, value_name = "NAME", conflicts_with = "slots")]
    pub cluster: Option<String>,
    /// Log filter of coordinator and workers, by default info; else for example `info,muster_coordinator=debug`
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look: text, the default, or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Unknown key, wrong type, unreadable file.
    #[error("settings: {0}")]
    Config(ConfigError),
    /// A value out of range.
    #[error("settings: {name} is {value}; {mend}")]
    Range {
        /// Key.
        name: &'static str,
        /// As given.
        value: String,
        /// What is legal.
        mend: &'static str,
    },
    /// What is said about a cluster.
    #[error("cluster {name}: {problem}")]
    Cluster {
        /// Which.
        name: String,
        /// What is wrong with it.
        problem: ProfileError,
    },
    /// There is no such cluster.
    #[error(
        "settings: there is no cluster `{name}`; known: {known}. Write a section [clusters.{name}] into the \
         settings file, or name a file that ends in .toml (configs/clusters has examples)"
    )]
    UnknownCluster {
        /// As given.
        name: String,
        /// All there are.
        known: String,
    },
}

/// Every key, for the environment.
const KEYS: [&str; 25] = [
    "state",
    "store",
    "store_endpoint",
    "store_region",
    "store_path_style",
    "store_request_seconds",
    "listen",
    "slots",
    "threads_per_slot",
    "device",
    "slots_per_gpu",
    "pin_cores",
    "worker_binary",
    "cluster",
    "max_slots",
    "lease_seconds",
    "log",
    "log_format",
    "tensorboard",
    "tls",
    "tls_cert",
    "tls_key",
    "tokens",
    "advertise",
    "insecure",
];

impl Settings {
    /// Reads all levels. `environment` is the process environment, handed in so that tests need not
    /// change it.
    pub fn load(
        flags: &SettingsFlags,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        Self::read(flags, environment)?.checked()
    }

    /// Reads all levels; what is read may be out of range or unsafe until it is [`Settings::checked`].
    pub fn read(
        flags: &SettingsFlags,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let own = |name: &str| {
            let key = name.strip_prefix("MUSTER_").map(str::to_ascii_lowercase);
            key.is_some_and(|key| KEYS.contains(&key.as_str()))
        };
        let environment = environment.filter(|(name, _)| own(name)).collect();
        let path = |path: &PathBuf| path.display().to_string();
        let mut builder = Config::builder();
        let defaults = [
            ("state", "muster-data/coordinator"),
            ("store", "muster-data"),
            ("listen", "127.0.0.1:7700"),
            ("slots", "0"),
            ("threads_per_slot", "0"),
            ("device", "auto"),
            ("slots_per_gpu", "1"),
            ("pin_cores", "true"),
            ("max_slots", "0"),
            ("lease_seconds", "10"),
            ("log", "info"),
            ("log_format", "text"),
            ("tensorboard", "false"),
            ("tls", "off"),
            ("insecure", "false"),
        ];
        for (key, value) in defaults {
            builder = builder.set_default(key, value).map_err(SettingsError::Config)?;
        }
        let file = match &flags.config {
            Some(file) => File::new(&path(file), FileFormat::Toml).required(true),
            None => File::new(FILE, FileFormat::Toml).required(false),
        };
        let variables =
            Environment::with_prefix("MUSTER").source(Some(environment)).try_parsing(true);
        let settings: Self = builder
            .add_source(file)
            .add_source(variables)
            .set_override_option("state", flags.state.as_ref().map(path))
            .and_then(|b| b.set_override_option("store", flags.store.clone()))
            .and_then(|b| b.set_override_option("slots", flags.slots))
            .and_then(|b| b.set_override_option("threads_per_slot", flags.threads_per_slot))
            .and_then(|b| b.set_override_option("device", flags.device.map(LocalDevice::name)))
            .and_then(|b| {
                b.set_override_option("worker_binary", flags.worker_binary.as_ref().map(path))
            })
            .and_then(|b| b.set_override_option("cluster", flags.cluster.clone()))
            .and_then(|b| b.set_override_option("log", flags.log.clone()))
            .and_then(|b| b.set_override_option("log_format", flags.log_format.clone()))
            .and_then(config::ConfigBuilder::<config::builder::DefaultState>::build)
            .and_then(Config::try_deserialize)
            .map_err(SettingsError::Config)?;
        settings.with_cluster_file()
    }

    /// Reads the cluster from its file, where a file is named.
    fn with_cluster_file(mut self) -> Result<Self, SettingsError> {
        let Some(name) = self.cluster.clone().filter(|name| is_file(name)) else {
            return Ok(self);
        };
        let file = File::new(&name, FileFormat::Toml).required(true);
        let profile = Config::builder()
            .add_source(file)
            .build()
            .and_then(Config::try_deserialize)
            .map_err(SettingsError::Config)?;
        self.clusters.insert(name, profile);
        Ok(self)
    }

    /// The cluster that workers come from.
    pub fn profile(&self) -> Result<Option<ClusterProfile>, SettingsError> {
        let Some(name) = &self.cluster else { return Ok(None) };
        if let Some(profile) = self.clusters.get(name) {
            return Ok(Some(profile.clone()));
        }
        let is_named = |(kind, _): &&(&str, ClusterKind)| kind == name;
        if let Some((_, kind)) = KINDS.iter().find(is_named) {
            let checked = ClusterProfile::of_kind(*kind).checked();
            let failed = |problem| SettingsError::Cluster { name: name.clone(), problem };
            return checked.map(Some).map_err(failed);
        }
        let mut known: Vec<&str> = self.clusters.keys().map(String::as_str).collect();
        known.extend(KINDS.map(|(name, _)| name));
        Err(SettingsError::UnknownCluster { name: name.clone(), known: known.join(", ") })
    }

    /// Refuses values that are out of range or unsafe.
    pub fn checked(self) -> Result<Self, SettingsError> {
        if !(0.5..=3600.0).contains(&self.lease_seconds) {
            let value = self.lease_seconds.to_string();
            let mend = "write 0.5 to 3600";
            return Err(SettingsError::Range { name: "lease_seconds", value, mend });
        }
        if self.slots > 1024 {
            let value = self.slots.to_string();
            return Err(SettingsError::Range { name: "slots", value, mend: "write 0 to 1024" });
        }
        if !(1..=SLOTS_PER_GPU_MAX).contains(&self.slots_per_gpu) {
            let value = self.slots_per_gpu.to_string();
            return Err(SettingsError::Range {
                name: "slots_per_gpu",
                value,
                mend: "write 1 to 64",
            });
        }
        for (name, profile) in &self.clusters {
            if let Err(problem) = profile.clone().checked() {
                return Err(SettingsError::Cluster { name: name.clone(), problem });
            }
        }
        self.profile()?;
        for (name, policy) in &self.projects {
            if !(1..=WEIGHT_MAX).contains(&policy.weight) || policy.max_slots == Some(0) {
                let value = format!("{policy:?} for {name}");
                let mend = "a weight lies in 1 to 1000, max_slots is at least 1";
                return Err(SettingsError::Range { name: "projects", value, mend });
            }
        }
        self.check_access()?;
        Ok(self)
    }

    fn check_access(&self) -> Result<(), SettingsError> {
        let range = |name, value, mend| Err(SettingsError::Range { name, value, mend });
        let named = [&self.tls_cert, &self.tls_key].map(Option::is_some);
        if named[0] != named[1] {
            let name = if named[0] { "tls_key" } else { "tls_cert" };
            return range(name, "missing".to_owned(), "name the certificate and its key");
        }
        if named[0] && self.tls == Tls::Auto {
            let mend = "it makes a certificate, and tls_cert names one: leave one of them out";
            return range("tls", "auto".to_owned(), mend);
        }
        let is_url = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        if let Some(url) = self.advertise.as_deref().filter(|url| !is_url(url)) {
            return range("advertise", url.to_owned(), "write https://HOST:PORT");
        }
        if self.listen.ip().is_loopback() {
            return Ok(());
        }
        if self.is_open_to_others(self.listen.ip()) && !self.insecure {
            let mend = "anybody who reaches this address could run trainings; `--tls auto` (tls = \"auto\") \
                        encrypts connections and asks for tokens, --tls-cert and --tls-key do so with a \
                        certificate of your own; or listen on 127.0.0.1; or, if the network is your own, \
                        set insecure = true";
            return range("listen", self.listen.to_string(), mend);
        }
        if self.tokens == Some(true) && !self.is_encrypted() {
            let mend = "they would travel in clear text; set tls = \"auto\"";
            return range("tokens", "true".to_owned(), mend);
        }
        Ok(())
    }

    /// Whether connections to `muster serve` are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls == Tls::Auto || self.tls_cert.is_some()
    }

    /// Whether `muster serve` asks for tokens.
    pub fn asks_for_tokens(&self) -> bool {
        self.tokens.unwrap_or_else(|| self.is_encrypted())
    }

    /// Whether anybody who reaches an address may call, or listen in.
    pub fn is_open_to_others(&self, listen: IpAddr) -> bool {
        !(listen.is_loopback() || self.is_encrypted() && self.asks_for_tokens())
    }

    /// For a coordinator that is the whole system in one process: nobody else is to call.
    pub fn of_one_process(self) -> Self {
        Self { tls: Tls::Off, tls_cert: None, tls_key: None, tokens: Some(false), ..self }
    }

    /// The store with everything about it but credentials; refuses what cannot be one.
    pub fn store_url(&self) -> Result<String, StoreError> {
        let options = StoreOptions {
            endpoint: self.store_endpoint.clone(),
            region: self.store_region.clone(),
            path_style: self.store_path_style,
            request_seconds: self.store_request_seconds,
        };
        options.applied_to(&self.store)
    }

    /// Directory of the store, if it is one of this machine.
    pub fn local_store(&self) -> Option<&Path> {
        let is_local = self.store.starts_with("file://") || !self.store.contains("://");
        let path = self.store.strip_prefix("file://").unwrap_or(&self.store);
        is_local.then(|| Path::new(path))
    }

    /// The lease.
    pub fn lease(&self) -> Duration {
        Duration::from_secs_f64(self.lease_seconds)
    }
}

/// As [`read_log_format`].
fn read_tls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tls, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "off" => Ok(Tls::Off),
        "auto" => Ok(Tls::Auto),
        other => Err(D::Error::custom(format!("tls is `{other}`; write auto or off"))),
    }
}

/// Names the formats there are, which `config` does not.
fn read_log_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogFormat, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = [LogFormat::Text, LogFormat::Json].into_iter().find(|format| format.name() == name);
    known.ok_or_else(|| D::Error::custom(format!("log_format is `{name}`; write text or json")))
}

/// Resolves a path against the working directory, for children that may have another one.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether a cluster is named by a file.
fn is_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        flags: &SettingsFlags,
        environment: &[(&str, &str)],
    ) -> Result<Settings, SettingsError> {
        let pairs = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Settings::load(flags, pairs)
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file_which_beats_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("settings.toml");
        std::fs::write(&file, "slots = 3\nlog = \"warn\"\nstore = \"from-file\"\n").unwrap();
        let flags =
            SettingsFlags { config: Some(file), slots: Some(7), ..SettingsFlags::default() };
        let environment = [("MUSTER_SLOTS", "5"), ("MUSTER_LOG", "debug"), ("MUSTER_BLESS", "1")];
        let settings = load(&flags, &environment).unwrap();
        assert_eq!(settings.slots, 7);
        assert_eq!(settings.log, "debug");
        assert_eq!(settings.store, "from-file");
        assert!((settings.lease_seconds - 10.0).abs() < 1e-9);
    }

    #[test]
    fn unknown_keys_and_open_addresses_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("settings.toml");
        std::fs::write(&file, "slotz = 3\n").unwrap();
        let flags = SettingsFlags { config: Some(file), ..SettingsFlags::default() };
        assert!(load(&flags, &[]).unwrap_err().to_string().contains("slotz"));
        let format = [("MUSTER_LOG_FORMAT", "xml")];
        let error = load(&SettingsFlags::default(), &format).unwrap_err().to_string();
        assert!(error.contains("xml") && error.contains("json"), "{error}");
        for (name, value) in [("MUSTER_DEVICE", "tpu"), ("MUSTER_SLOTS_PER_GPU", "0")] {
            let error = load(&SettingsFlags::default(), &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains("write "), "{error}");
        }
        let open = [("MUSTER_LISTEN", "0.0.0.0:7700")];
        let error = load(&SettingsFlags::default(), &open).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1") && error.contains("--tls auto"), "{error}");
        let open = [("MUSTER_LISTEN", "0.0.0.0:7700"), ("MUSTER_TLS", "auto")];
        assert!(load(&SettingsFlags::default(), &open).unwrap().asks_for_tokens());
        let halves = [("MUSTER_TOKENS", "false"), ("MUSTER_TLS_CERT", "a.pem")];
        for half in halves {
            assert!(
                load(&SettingsFlags::default(), &[open[0], open[1], half]).is_err(),
                "{half:?}"
            );
        }
        let allowed = [("MUSTER_LISTEN", "0.0.0.0:7700"), ("MUSTER_INSECURE", "true")];
        assert!(load(&SettingsFlags::default(), &allowed).is_ok());
    }

    #[test]
    fn the_example_file_holds_every_key_with_its_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/muster.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        for key in KEYS {
            let line = format!("{key} = ");
            let named = |text: &str| text.trim_start_matches("# ").starts_with(&line);
            assert!(text.lines().any(named), "configs/muster.toml lacks {key}");
        }
        let flags = SettingsFlags { config: Some(file), ..SettingsFlags::default() };
        assert_eq!(load(&flags, &[]).unwrap(), load(&SettingsFlags::default(), &[]).unwrap());
    }

    #[test]
    fn a_cluster_is_a_section_or_a_file_and_a_mistake_in_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let settings = directory.path().join("settings.toml");
        std::fs::write(&settings, "[clusters.big]\nnodes = 2\n").unwrap();
        let with = |cluster: &str| SettingsFlags {
            config: Some(settings.clone()),
            cluster: Some(cluster.to_owned()),
            ..SettingsFlags::default()
        };
        let nodes = |cluster: &str| match load(&with(cluster), &[]).unwrap().profile().unwrap() {
            Some(ClusterProfile::Slurm(profile)) => profile.nodes,
            other => panic!("{other:?}"),
        };
        assert_eq!((nodes("big"), nodes("slurm")), (2, 1));
        let file = directory.path().join("own.toml");
        std::fs::write(&file, "nodes = 3\n").unwrap();
        assert_eq!(nodes(file.to_str().unwrap()), 3);
        let error = load(&with("huge"), &[]).unwrap_err().to_string();
        assert!(error.contains("big, slurm, kubernetes"), "{error}");
        let error = load(&with("kubernetes"), &[]).unwrap_err().to_string();
        assert!(error.contains("cluster kubernetes: image is"), "{error}");
        for (text, word) in
            [("kind = \"pbs\"", "pbs"), ("kind = \"kubernetes\"\nnodes = 2", "nodes")]
        {
            std::fs::write(&file, text).unwrap();
            let error = load(&with(file.to_str().unwrap()), &[]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        std::fs::write(&file, "nodes = 0\n").unwrap();
        let error = load(&with(file.to_str().unwrap()), &[]).unwrap_err().to_string();
        assert!(error.contains("own.toml: nodes is 0"), "{error}");
        assert_eq!(load(&SettingsFlags::default(), &[]).unwrap().profile().unwrap(), None);
    }

    #[test]
    fn the_examples_of_clusters_hold_every_key_with_its_default() {
        for (name, kind) in KINDS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/clusters");
            let file = folder.join(format!("{name}.toml"));
            let text = std::fs::read_to_string(&file).unwrap();
            // What is refused names all that would not be.
            let unknown = serde_json::json!({"kind": name, "no_key": 1});
            let error = serde_json::from_value::<ClusterProfile>(unknown).unwrap_err().to_string();
            let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
            assert!(keys.len() > 20, "{error}");
            for key in keys {
                let line = format!("{key} = ");
                let named = |text: &str| text.trim_start_matches("# ").starts_with(&line);
                assert!(text.lines().any(named), "{} lacks {key}", file.display());
            }
            let cluster = Some(file.display().to_string());
            let flags = SettingsFlags { cluster, ..SettingsFlags::default() };
            let mut wanted = ClusterProfile::of_kind(kind);
            if let ClusterProfile::Kubernetes(profile) = &mut wanted {
                profile.image = Some("registry.example.com/muster/worker:1.0".to_owned());
            }
            assert_eq!(load(&flags, &[]).unwrap().profile().unwrap(), Some(wanted));
        }
    }

    #[test]
    fn the_store_is_one_url() {
        let environment =
            [("MUSTER_STORE", "s3://runs/a"), ("MUSTER_STORE_ENDPOINT", "http://minio:9000")];
        let settings = load(&SettingsFlags::default(), &environment).unwrap();
        let url = settings.store_url().unwrap();
        assert_eq!(url, "s3://runs/a?endpoint=http%3A%2F%2Fminio%3A9000");
        let secret = [("MUSTER_STORE", "s3://id:hunter2@runs/a")];
        let error = load(&SettingsFlags::default(), &secret).unwrap().store_url().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
