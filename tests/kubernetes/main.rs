//! The launcher and the real programs under a real Kubernetes API server, with the real controller of Jobs; the test
//! plays the node and runs pods as local processes. Whose Jobs are, what they end with, and which rights are used; then
//! whole programs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod life;
mod site;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use muster_coordinator::access::WorkerAccess;
use muster_coordinator::launcher::cluster::{Cluster, Identity, Job, Order};
use muster_coordinator::launcher::kubernetes::manifest::{ACCESS_KEY, Start};
use muster_coordinator::launcher::kubernetes::profile::KubernetesProfile;
use muster_coordinator::launcher::kubernetes::{Kubernetes as Launcher, RIGHTS};
use muster_coordinator::launcher::planner::Outcome;
use muster_tests::cluster::{Parties, conform};
use muster_tests::kubernetes::{ADMIN, Kubernetes, LAUNCHER, verbs_of};
use muster_tests::process::PATIENCE;
use muster_tests::sample::repository;
use muster_tests::skip;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

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
