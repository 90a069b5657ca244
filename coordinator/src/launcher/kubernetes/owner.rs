//! What Jobs end with: the object that keeps the coordinator's pod alive, so that they outlive the pod and nothing
//! outlives the installation. Outside of a cluster there is none.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, Client};

use super::failure::{ATTEMPTS, answered, failure, silence};
use crate::launcher::cluster::ClusterError;
use crate::launcher::planner::Outcome;

/// Names the coordinator's pod; the manifests of `deploy/kubernetes` set it.
const NAME_VARIABLE: &str = "MUSTER_POD_NAME";
/// Its namespace.
const NAMESPACE_VARIABLE: &str = "MUSTER_POD_NAMESPACE";

/// The coordinator's own pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnPod {
    name: String,
    namespace: String,
}

impl OwnPod {
    /// As the environment says. `None`: this process runs in no pod that it knows of.
    pub(super) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let named = |name| variable(name).filter(|text| !text.is_empty());
        Some(Self { name: named(NAME_VARIABLE)?, namespace: named(NAMESPACE_VARIABLE)? })
    }

    /// Whether objects of a namespace may be owned from here: owners live beside what they own.
    pub(super) fn is_in(&self, namespace: &str) -> bool {
        self.namespace == namespace
    }

    /// Who is to own what this coordinator makes. While that is not known, nothing is made.
    pub(super) async fn owner(&self, client: &Client) -> Result<OwnerReference, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let command = "get its own pod";
        let mut last = silence(command);
        for pause in DefaultBackoff::default().take(ATTEMPTS) {
            match answered(pods.get(&self.name)).await {
                Some(Ok(pod)) => return Ok(owner_of(&pod)),
                Some(Err(error)) => last = failure(command, &error),
                None => last = silence(command),
            }
            tokio::time::sleep(pause).await;
        }
        Err(ClusterError { outcome: Outcome::Refused, ..last })
    }
}

/// What controls the pod, which makes another one of it; or else the pod.
fn owner_of(pod: &Pod) -> OwnerReference {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true)).cloned();
    let own = || OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    OwnerReference {
        // Jobs belong to it, but it does not manage them, nor waits for them when it is deleted: the first
        // would make it count them as its own, the second needs a right of its own.
        controller: None,
        block_owner_deletion: None,
        ..controller.unwrap_or_else(own)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_outlive_the_pod_where_something_makes_another() {
        let mut object = json!({"metadata": {"name": "muster-0", "uid": "u", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "n"},
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "muster", "uid": "s",
             "controller": true, "blockOwnerDeletion": true}]}});
        let owner = owner_of(&serde_json::from_value(object.clone()).unwrap());
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("StatefulSet", "s"));
        assert_eq!((owner.controller, owner.block_owner_deletion), (None, None));
        object["metadata"]["ownerReferences"] = json!([]);
        let owner = owner_of(&serde_json::from_value(object).unwrap());
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()),
            ("Pod", "muster-0", "u")
        );
    }

    #[test]
    fn a_pod_is_known_by_name_and_namespace() {
        let of = |given: &[(&str, &str)]| {
            let find = |name: &str| {
                given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            OwnPod::of_environment(find)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(NAME_VARIABLE, "a"), (NAMESPACE_VARIABLE, "")]), None);
        let own = of(&[(NAME_VARIABLE, "a"), (NAMESPACE_VARIABLE, "b")]).unwrap();
        assert!(own.is_in("b") && !own.is_in("c"));
    }
}
