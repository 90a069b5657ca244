//! Plays the node of a cluster: what pods ask for is done by local processes. It binds pods, gives them their
//! variables and Secrets, starts what they say, tells the API server how they fare, and ends them as they wish.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use muster_common::access::write_private;
use serde_json::{Value, json};

use crate::kubernetes::{ADMIN, Kubernetes};
use crate::process::{program, send_signal};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// A connection that the server has closed may leave a question without an answer.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// The node.
const NODE: &str = "node-1";

/// A node that works until it is dropped; its processes end with it.
#[derive(Debug)]
pub struct Kubelet {
    switches: Arc<Switches>,
    thread: Option<JoinHandle<()>>,
}

/// What a test changes while it works.
#[derive(Debug, Default)]
struct Switches {
    is_full: AtomicBool,
    is_over: AtomicBool,
}

/// The state of the thread.
struct Node {
    pods: Api<Pod>,
    secrets: Api<Secret>,
    directory: PathBuf,
    switches: Arc<Switches>,
    processes: BTreeMap<String, Process>,
}

struct Process {
    child: Child,
    kill_at: Option<Instant>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Kubelet {
    /// A node for the pods of a namespace. Their files and output are in `directory`.
    pub fn start(
        kubernetes: &'static Kubernetes,
        namespace: &str,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Of this thread's own runtime: a client works only while the one runs that it was made in.
        let client = runtime.block_on(kubernetes.client(ADMIN))?;
        let switches = Arc::<Switches>::default();
        let mut node = Node {
            pods: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client, namespace),
            directory: directory.to_owned(),
            switches: Arc::clone(&switches),
            processes: BTreeMap::new(),
        };
        let work = move || {
            runtime.block_on(async {
                while !node.switches.is_over.load(Ordering::Relaxed) {
                    // An API server that is away comes back.
                    match tokio::time::timeout(LOOK_DEADLINE, node.look()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => eprintln!("kubelet: {error:#}"),
                        Err(late) => eprintln!("kubelet: {late}"),
                    }
                    tokio::time::sleep(LOOK).await;
                }
            });
        };
        Ok(Self { switches, thread: Some(std::thread::spawn(work)) })
    }

    /// Whether the node has no room for more pods.
    pub fn set_full(&self, is_full: bool) {
        self.switches.is_full.store(is_full, Ordering::Relaxed);
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.switches.is_over.store(true, Ordering::Relaxed);
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

impl Node {
    async fn look(&mut self) -> anyhow::Result<()> {
        let pods = self.pods.list(&ListParams::default()).await?.items;
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        // Deleted by force: as if the node were gone.
        self.processes.retain(|known, _| pods.iter().any(|pod| uid(pod) == *known));
        for pod in &pods {
            self.tend(pod, &uid(pod)).await.with_context(|| pod.name_any())?;
        }
        Ok(())
    }

    async fn tend(&mut self, pod: &Pod, uid: &str) -> anyhow::Result<()> {
        let is_leaving = pod.metadata.deletion_timestamp.is_some();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let Some(process) = self.processes.get_mut(uid) else {
            return match phase {
                _ if is_leaving => self.remove(pod, uid).await,
                Some("Pending") | None => self.begin(pod, uid).await,
                _ => Ok(()),
            };
        };
        if let Some(status) = process.child.try_wait()? {
            // Forgotten once it is told: the connection may just have been closed.
            self.ended(pod, status).await?;
            self.processes.remove(uid);
            return if is_leaving { self.remove(pod, uid).await } else { Ok(()) };
        }
        if is_leaving {
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            let now = Instant::now();
            match process.kill_at {
                None => {
                    process.kill_at = Some(now + Duration::from_secs(u64::try_from(grace)?));
                    send_signal("TERM", process.child.id())?;
                }
                Some(at) if at <= now => process.child.kill()?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn begin(&mut self, pod: &Pod, uid: &str) -> anyhow::Result<()> {
        let spec = pod.spec.as_ref().context("no spec")?;
        if spec.node_name.is_none() {
            if self.switches.is_full.load(Ordering::Relaxed) {
                let message = "0/1 nodes are available: 1 Insufficient cpu.";
                let condition = json!({"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": message});
                return self.tell(pod, json!({"conditions": [condition]})).await;
            }
            let target = json!({"apiVersion": "v1", "kind": "Binding",
                "metadata": {"name": pod.name_any()},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}});
            let (name, parameters) = (pod.name_any(), PostParams::default());
            let bind: Result<Value, _> =
                self.pods.create_subresource("binding", &name, &parameters, &target).await;
            return bind.map(drop).map_err(Into::into);
        }
        let container = spec.containers.first().context("no container")?;
        let Some(mounts) = self.mounts(pod, container).await? else { return Ok(()) };
        let child = self.spawn(pod, container, &mounts)?;
        let process = Process { child, kill_at: None };
        let state = json!({"running": {"startedAt": now()}});
        let status = json!({"phase": "Running", "startTime": now(), "podIP": "127.0.0.1",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [container_status(container, &state)]});
        // If that fails it is ended and begins again at the next look: nobody would say later that it runs.
        self.tell(pod, status).await?;
        self.processes.insert(uid.to_owned(), process);
        Ok(())
    }

    /// Where its volumes are here, by where it sees them. `None`: a Secret is not there yet.
    async fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> anyhow::Result<Option<Vec<(String, PathBuf)>>> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut found = Vec::new();
        for volume in volumes {
            let folder = self.directory.join(pod.name_any()).join(&volume.name);
            fs::create_dir_all(&folder)?;
            if let Some(name) =
                volume.secret.as_ref().and_then(|secret| secret.secret_name.as_ref())
            {
                let Some(secret) = self.secrets.get_opt(name).await? else { return Ok(None) };
                for (key, value) in secret.data.into_iter().flatten() {
                    write_private(&folder.join(key), &value.0)?;
                }
            }
            let mounts = container.volume_mounts.iter().flatten();
            let mounts = mounts.filter(|mount| mount.name == volume.name);
            found.extend(mounts.map(|mount| (mount.mount_path.clone(), folder.clone())));
        }
        Ok(Some(found))
    }

    fn spawn(
        &self,
        pod: &Pod,
        container: &Container,
        mounts: &[(String, PathBuf)],
    ) -> anyhow::Result<Child> {
        let variables = variables(pod, container, mounts);
        let words = container.command.iter().chain(&container.args).flatten();
        let words: Vec<String> = words.map(|word| expanded(word, &variables)).collect();
        let (name, arguments) = words.split_first().context("no command")?;
        let log = File::create(self.directory.join(format!("{}.log", pod.name_any())))?;
        let mut command = Command::new(program(name)?);
        // Nothing of this process's own environment, as in a container.
        command.env_clear().envs(variables).args(arguments).current_dir(&self.directory);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    async fn ended(&self, pod: &Pod, status: ExitStatus) -> anyhow::Result<()> {
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        let phase = if status.success() { "Succeeded" } else { "Failed" };
        let reason = if status.success() { "Completed" } else { "Error" };
        let state =
            json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}});
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let container = container.context("no container")?;
        let statuses = json!([container_status(container, &state)]);
        self.tell(pod, json!({"phase": phase, "containerStatuses": statuses})).await
    }

    async fn tell(&self, pod: &Pod, status: Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        let done = self.pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
        match done {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    async fn remove(&self, pod: &Pod, uid: &str) -> anyhow::Result<()> {
        let uid = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams::default().grace_period(0).preconditions(uid);
        match self.pods.delete(&pod.name_any(), &parameters).await {
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }
}

fn container_status(container: &Container, state: &Value) -> Value {
    json!({"name": container.name, "image": container.image, "imageID": "", "ready": true,
        "restartCount": 0, "state": state})
}

fn now() -> String {
    let now = k8s_openapi::jiff::Timestamp::now();
    now.round(k8s_openapi::jiff::Unit::Second).unwrap_or(now).to_string()
}

/// Its environment, with paths of volumes as they are here.
fn variables(
    pod: &Pod,
    container: &Container,
    mounts: &[(String, PathBuf)],
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let value = match field.map(|field| field.field_path.as_str()) {
            Some("metadata.name") => pod.name_any(),
            Some("spec.nodeName") => NODE.to_owned(),
            _ => expanded(variable.value.as_deref().unwrap_or_default(), &found),
        };
        let mount = mounts.iter().find(|(path, _)| value.starts_with(path.as_str()));
        let value = match mount {
            Some((path, folder)) => value.replacen(path, &folder.display().to_string(), 1),
            None => value,
        };
        found.insert(variable.name.clone(), value);
    }
    found
}

/// `$(NAME)` is the variable, `$$` a dollar.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut parts = text.split("$$").map(|part| {
        let mut part = part.to_owned();
        for (name, value) in variables {
            part = part.replace(&format!("$({name})"), value);
        }
        part
    });
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |text, part| text + "$" + &part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_as_the_kubelet_does() {
        let variables = [("A".to_owned(), "1".to_owned())].into();
        assert_eq!(expanded("$(A) $$(A) $(B) $$$$", &variables), "1 $(A) $(B) $$");
    }
}
