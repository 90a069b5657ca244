//! A real Kubernetes, one for each test program: an API server and the controllers of Jobs and garbage, without nodes.
//! It ends with the program, however that ends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use muster_coordinator::launcher::kubernetes::RIGHTS;
use serde_json::{Value, json};

use crate::sample::repository;

/// Names a folder with the programs of Kubernetes, and `kubernetes-validate`.
const FOLDER_VARIABLE: &str = "MUSTER_KUBERNETES_BIN";

/// Who may everything.
pub const ADMIN: &str = "admin";
/// Who may what the manifests' role grants, in the namespaces of tests.
pub const LAUNCHER: &str = "launcher";

/// The running programs.
#[derive(Debug)]
pub struct Kubernetes {
    directory: PathBuf,
    keeper: Mutex<Keeper>,
    next_namespace: AtomicU32,
}

/// The script that keeps them.
#[derive(Debug)]
struct Keeper {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Keeper {
    fn await_ready(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("the API server does not come up");
        }
        Ok(())
    }
}

/// Where the programs of Kubernetes are.
pub fn programs() -> PathBuf {
    let named = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
    named.unwrap_or_else(|| repository().join(".cache/kubernetes/bin"))
}

/// A program of that folder, or why it is not there.
pub fn tool(name: &str) -> Result<PathBuf, String> {
    let path = programs().join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("kubernetes: {name} is not installed; run deploy/setup/kubernetes.sh"))
}

/// The same for one of the PATH.
pub fn installed(name: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
        return Ok(());
    }
    Err(format!("kubernetes: {name} is not installed; run deploy/setup/kubernetes.sh"))
}

/// kubectl: that of this machine, or else the one that was set up for the tests.
pub fn kubectl() -> Result<PathBuf, String> {
    installed("kubectl").map(|()| PathBuf::from("kubectl")).or_else(|_| tool("kubectl"))
}

impl Kubernetes {
    /// The Kubernetes of this test program, or why there is none.
    pub fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceLock<Result<Kubernetes, String>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self, String> {
        for name in ["kube-apiserver", "kube-controller-manager"] {
            tool(name)?;
        }
        for name in ["etcd", "openssl", "curl"] {
            installed(name)?;
        }
        Self::spawn().map_err(|error| format!("kubernetes: it does not start here: {error:#}"))
    }

    fn spawn() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("muster-kubernetes-").tempdir()?.keep();
        let mut child = Command::new(repository().join("tests/support/kubernetes.sh"))
            .arg(&directory)
            .arg(free_ports()?.to_string())
            .arg(programs())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("its input")?;
        let stdout = BufReader::new(child.stdout.take().context("its output")?);
        let mut keeper = Keeper { _child: child, stdin, stdout };
        keeper.await_ready()?;
        let (keeper, next_namespace) = (Mutex::new(keeper), AtomicU32::new(0));
        Ok(Self { directory, keeper, next_namespace })
    }

    /// Kills the API server and starts it again; returns when it answers.
    pub fn restart_api_server(&self) -> anyhow::Result<()> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(keeper.stdin, "restart")?;
        keeper.await_ready()
    }

    /// The kubeconfig of a user.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.yaml"))
    }

    /// What a user did so far, as the API server has noted it: verb and resource.
    pub fn audit(&self) -> anyhow::Result<Vec<(String, String)>> {
        let text = std::fs::read_to_string(self.directory.join("audit.log"))?;
        let of_line = |line: &str| {
            let event: Value = serde_json::from_str(line).ok()?;
            let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
            Some((text(&event["verb"])?, text(&event["objectRef"]["resource"])?))
        };
        Ok(text.lines().filter_map(of_line).collect())
    }

    /// A client of a user.
    pub async fn client(&self, user: &str) -> anyhow::Result<Client> {
        let file = Kubeconfig::read_from(self.kubeconfig(user))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// A new namespace, in which the launcher may what it needs.
    pub async fn namespace(&self) -> anyhow::Result<String> {
        let number = self.next_namespace.fetch_add(1, Ordering::Relaxed);
        let name = format!("muster-test-{number}");
        let client = self.client(ADMIN).await?;
        let parameters = PostParams::default();
        let object: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::all(client.clone()).create(&parameters, &object).await?;
        let roles: Api<Role> = Api::namespaced(client.clone(), &name);
        roles.create(&parameters, &role()?).await?;
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "muster"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "muster"},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": LAUNCHER}]}))?;
        Api::namespaced(client, &name).create(&parameters, &binding).await?;
        Ok(name)
    }
}

/// The role of the launcher's table.
fn role() -> anyhow::Result<Role> {
    let rules = RIGHTS.map(|(group, resource, verbs)| {
        json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
    });
    Ok(serde_json::from_value(json!({"metadata": {"name": "muster"}, "rules": rules}))?)
}

/// Verbs by group and resource, as a role's YAML has them. It is read line by line, so it has to be written plainly.
pub fn verbs_of(path: &Path) -> anyhow::Result<BTreeMap<(String, String), Vec<String>>> {
    let text = std::fs::read_to_string(path)?;
    let list = |line: &str, key: &str| -> Option<Vec<String>> {
        let rest = line.trim_start().trim_start_matches("- ").strip_prefix(key)?;
        let inner = rest.trim().strip_prefix('[')?.strip_suffix(']')?;
        Some(inner.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect())
    };
    let mut found = BTreeMap::new();
    let (mut groups, mut resources) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(named) = list(line, "apiGroups:") {
            groups = named;
        } else if let Some(named) = list(line, "resources:") {
            resources = named;
        } else if let Some(verbs) = list(line, "verbs:") {
            for (group, resource) in
                groups.iter().flat_map(|g| resources.iter().map(move |r| (g, r)))
            {
                found.insert((group.clone(), resource.clone()), verbs.clone());
            }
        }
    }
    Ok(found)
}

/// The first of four ports in a row that are free.
fn free_ports() -> anyhow::Result<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let seed = u16::try_from(std::process::id() % 500).unwrap_or_default();
    (0..500)
        .map(|n| 21_000 + (seed + n) % 500 * 4)
        .find(|port| (0..4).all(|n| free(port + n)))
        .context("no free ports")
}
