//! Kubernetes, by its API: an allocation is a Job with a pod for each worker. What is there is never asked for: watches
//! keep a [`mirror`] of our Jobs and their pods, and wake the keeper when it changes.
//!
//! ```text
//! keeper --submit--> Job --Job controller--> pods --kubelet--> workers, which dial out
//!   ^                 |  \--------- Secret with the access file, which ends with the Job
//!   +---- mirror <----+------------- watches
//! ```

mod access;
mod failure;
pub mod manifest;
mod mirror;
mod owner;
pub mod profile;
mod state;
mod watch;
mod words;

use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::config::{InferConfigError, KubeConfigOptions, KubeconfigError};
use kube::runtime::watcher;
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, Client, Config};
use tokio::sync::{Mutex, OnceCell};
use tokio_util::task::AbortOnDropHandle;

use super::cluster::{Cluster, ClusterError, End, Gone, Identity, Job, Order};
use super::planner::Outcome;
use access::{Carrier, MANAGER};
use failure::{ATTEMPTS, answered, failure, is_gone, is_passing, is_taken, silence};
use manifest::{IDENTITY_LABEL, Start};
use owner::OwnPod;
use profile::KubernetesProfile;
use watch::{Shared, follow};

/// Time for the first lists, and for new ones after a watch has broken off.
const WHOLE: Duration = Duration::from_secs(20);
/// Which events tell why there are no pods.
const REFUSED_PODS: &str = "involvedObject.kind=Job,reason=FailedCreate";

/// What the launcher does with the API, and nothing else: group, resource, verbs. The role in
/// `deploy/kubernetes` grants this.
pub const RIGHTS: [(&str, &str, &[&str]); 4] = [
    ("batch", "jobs", &["create", "delete", "get", "list", "watch"]),
    ("", "pods", &["get", "list", "watch"]),
    ("", "events", &["list", "watch"]),
    ("", "secrets", &["create", "patch"]),
];

/// There is no way to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no Kubernetes cluster is known here: name a kubeconfig in KUBECONFIG, or run in a pod with a service account"
    )]
    Nowhere(#[source] InferConfigError),
    /// The kubeconfig does not have that context, or is broken.
    #[error("the context `{context}` of the kubeconfig cannot be used")]
    Context {
        /// Its name.
        context: String,
        /// The cause.
        #[source]
        source: KubeconfigError,
    },
    /// Certificates or credentials.
    #[error("the Kubernetes cluster that is named cannot be used")]
    Client(#[source] kube::Error),
}

/// A Kubernetes cluster.
pub struct Kubernetes {
    client: Client,
    jobs: Api<JobObject>,
    namespace: String,
    profile: KubernetesProfile,
    start: Start,
    identity: Identity,
    own_pod: Option<OwnPod>,
    owner: OnceCell<Option<OwnerReference>>,
    shared: Shared,
    changes: Mutex<tokio::sync::watch::Receiver<u64>>,
    /// Watches, and what writes Secrets. They end with this.
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Kubernetes");
        shown.field("namespace", &self.namespace).field("identity", &self.identity);
        shown.finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Finds the cluster, and begins to watch it. `variable` reads the environment.
    pub async fn connect(
        profile: KubernetesProfile,
        start: Start,
        identity: Identity,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnectError> {
        let config = configuration(profile.context.as_deref()).await?;
        let client = Client::try_from(config).map_err(ConnectError::Client)?;
        Ok(Self::new(client, profile, start, identity, variable))
    }

    /// The same for a client that is there.
    pub fn new(
        client: Client,
        profile: KubernetesProfile,
        start: Start,
        identity: Identity,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let usual = || client.default_namespace().to_owned();
        let namespace = profile.namespace.clone().unwrap_or_else(usual);
        let own_pod = OwnPod::of_environment(variable);
        if own_pod.as_ref().is_some_and(|pod| !pod.is_in(&namespace)) {
            tracing::warn!(
                namespace,
                "Jobs in another namespace than the coordinator's do not end with it"
            );
        }
        let shared = Shared::default();
        let mut tasks = watches(&client, &namespace, &identity, &shared);
        if let Some(file) = start.access.file.clone() {
            let secrets = Api::namespaced(client.clone(), &namespace);
            let (identity, shared) = (identity.clone(), shared.clone());
            tasks.push(spawn(Carrier { file, secrets, identity, shared }.keep()));
        }
        Self {
            jobs: Api::namespaced(client.clone(), &namespace),
            own_pod: own_pod.filter(|pod| pod.is_in(&namespace)),
            changes: Mutex::new(shared.changes()),
            owner: OnceCell::new(),
            client,
            namespace,
            profile,
            start,
            identity,
            shared,
            _tasks: tasks,
        }
    }

    /// Where the Jobs are.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    async fn owner(&self) -> Result<Option<&OwnerReference>, ClusterError> {
        let find = || async {
            match &self.own_pod {
                Some(pod) => pod.owner(&self.client).await.map(Some),
                None => Ok(None),
            }
        };
        Ok(self.owner.get_or_try_init(find).await?.as_ref())
    }

    /// Makes one Job. A request that is repeated finds the name taken.
    async fn create(&self, number: u64) -> Result<(), ClusterError> {
        let command = "create a Job";
        let owner = self.owner().await?;
        let job = manifest::job(&self.profile, &self.start, &self.identity, number, owner);
        let parameters =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let mut last = silence(command);
        for pause in DefaultBackoff::default().take(ATTEMPTS) {
            let error = match answered(self.jobs.create(&parameters, &job)).await {
                Some(Ok(made)) => {
                    self.shared.change(|mirror| mirror.jobs.wrote(made));
                    return Ok(());
                }
                Some(Err(error)) if is_taken(&error) => return self.adopt(number).await,
                Some(Err(error)) if !is_passing(&error) => return Err(failure(command, &error)),
                Some(Err(error)) => failure(command, &error),
                None => silence(command),
            };
            last = error;
            tokio::time::sleep(pause).await;
        }
        Err(ClusterError { outcome: Outcome::Unclear, ..last })
    }

    /// Takes a Job that is there already for the one that was asked for, if it is ours.
    async fn adopt(&self, number: u64) -> Result<(), ClusterError> {
        let command = "get a Job";
        let name = self.identity.name_of(number);
        let answer = answered(self.jobs.get(&name)).await.ok_or_else(|| silence(command))?;
        let job = answer.map_err(|error| failure(command, &error))?;
        if state::number_of(&job, &self.identity) != Some(number) {
            let message = format!("there is a Job {name} that is not of this coordinator");
            return Err(ClusterError { command, message, outcome: Outcome::Refused });
        }
        self.shared.change(|mirror| mirror.jobs.wrote(job));
        Ok(())
    }

    /// Deletes a Job and its pods. It is there until they are gone.
    async fn delete(&self, job: &Job) -> Result<(), ClusterError> {
        let command = "delete a Job";
        let uid = {
            let mirror = self.shared.look();
            let found = mirror.jobs.get(&job.id);
            // Only ours, and only that which was seen: a name says little.
            let own = found.filter(|job| state::number_of(job, &self.identity).is_some());
            own.and_then(|job| job.metadata.uid.clone())
        };
        let Some(uid) = uid else { return Ok(()) };
        let uid = Preconditions { uid: Some(uid), resource_version: None };
        let parameters = DeleteParams::foreground().preconditions(uid);
        let answer = answered(self.jobs.delete(&job.id, &parameters)).await;
        match answer.ok_or_else(|| silence(command))? {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(failure(command, &error)),
        }
    }
}

impl Cluster for Kubernetes {
    async fn submit(&self, order: Order) -> Result<(), ClusterError> {
        for index in 0..u64::from(order.count) {
            self.create(order.first.saturating_add(index)).await?;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Job>, ClusterError> {
        let mut changes = self.shared.changes();
        let whole = async {
            while self.shared.look().whole().is_err() {
                // The sender lives as long as this does.
                let _changed = changes.changed().await;
            }
        };
        let _late = tokio::time::timeout(WHOLE, whole).await;
        let mirror = self.shared.look();
        match mirror.whole() {
            Ok(()) => Ok(mirror.allocations(&self.identity)),
            Err(trouble) => {
                let message = trouble.unwrap_or_else(|| "the API server is silent".to_owned());
                let (command, outcome) = ("watch Jobs and pods", Outcome::Unclear);
                Err(ClusterError { command, message, outcome })
            }
        }
    }

    async fn cancel(&self, jobs: &[Job]) -> Result<(), ClusterError> {
        join_all(jobs.iter().map(|job| self.delete(job))).await.into_iter().collect()
    }

    async fn ends(&self, gone: &[Gone]) -> Result<Option<Vec<End>>, ClusterError> {
        Ok(Some(self.shared.look().ends(gone, &self.identity)))
    }

    async fn changed(&self) {
        let _ends_with_this = self.changes.lock().await.changed().await;
    }
}

async fn configuration(context: Option<&str>) -> Result<Config, ConnectError> {
    let Some(context) = context else {
        return Config::infer().await.map_err(ConnectError::Nowhere);
    };
    let options =
        KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let found = Config::from_kubeconfig(&options).await;
    found.map_err(|source| ConnectError::Context { context: context.to_owned(), source })
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

fn watches(
    client: &Client,
    namespace: &str,
    identity: &Identity,
    shared: &Shared,
) -> Vec<AbortOnDropHandle<()>> {
    let own = watcher::Config::default().labels(&format!("{IDENTITY_LABEL}={identity}"));
    let refused = watcher::Config::default().fields(REFUSED_PODS);
    let jobs: Api<JobObject> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    vec![
        spawn(follow(jobs, own.clone(), shared.clone(), |mirror| &mut mirror.jobs)),
        spawn(follow(pods, own, shared.clone(), |mirror| &mut mirror.pods)),
        spawn(follow(events, refused, shared.clone(), |mirror| &mut mirror.events)),
    ]
}
