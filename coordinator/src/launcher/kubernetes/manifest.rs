//! The objects that are made: the Job of an allocation, and the Secret with which its workers get in. Typed from
//! end to end; no text is put together but values of fields.
//!
//! Pods of a Job are alike, and the coordinator deals out the ranks. A pod that ends, however it ends, is
//! replaced, so that a Job keeps its number of workers until it is deleted. The exception is a worker that has been
//! without a coordinator for too long: then nobody will delete the Job, and it fails.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvFromSource, EnvVar, EnvVarSource,
    LocalObjectReference, ObjectFieldSelector, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, Secret,
    SecretEnvSource, SecretVolumeSource, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use muster_common::access::ACCESS_VARIABLE;

use super::profile::{KubernetesProfile, TolerationOf};
use crate::access::WorkerAccess;
use crate::launcher::cluster::Identity;
use crate::launcher::profile::SlotDevice;
use crate::machine::slots::SLOTS_ON_GPU;

/// Whose object it is: the coordinator's identity.
pub const IDENTITY_LABEL: &str = "muster-train.github.io/identity";
/// Which allocation it is, or belongs to.
pub const NUMBER_LABEL: &str = "muster-train.github.io/allocation";
/// The queue that Kueue admits a Job through.
const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// Name of the only container of a pod.
pub const CONTAINER: &str = "worker";
/// Key of the access file in its Secret, and its name in the pod.
pub const ACCESS_KEY: &str = "access.json";
/// Where pods find it. A directory: what is mounted as a single file never changes.
const ACCESS_PATH: &str = "/etc/muster";
/// Where pods may write.
const SCRATCH_PATH: &str = "/scratch";
/// Shared memory.
const MEMORY_PATH: &str = "/dev/shm";
/// Mounts that nothing else may take.
pub(super) const OWN_PATHS: [&str; 3] = [ACCESS_PATH, SCRATCH_PATH, MEMORY_PATH];
/// More than a Job ever sees: one that has as many ends is complete, and until then ended pods are replaced.
const COMPLETIONS: i32 = 1_000_000;
/// Exit code of a worker that has been without a coordinator for too long.
const ALONE_CODE: i32 = 5;
/// Besides the time for a run to save itself: for the worker to hear of it, and to say goodbye.
const GOODBYE_SECONDS: u32 = 15;
/// Others may not read the access file: its owner is root and its group the worker's.
const ACCESS_MODE: i32 = 0o440;

/// What workers are started with, besides the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// URL of the coordinator, as pods reach it, and the access file that becomes a Secret.
    pub access: WorkerAccess,
    /// Log filter of the workers.
    pub log: String,
    /// Format of their log lines.
    pub log_format: String,
}

/// Whether a label is written here, and not by the profile.
pub(super) fn is_own_label(key: &str) -> bool {
    key == IDENTITY_LABEL || key == NUMBER_LABEL || key == QUEUE_LABEL || common().contains_key(key)
}

fn common() -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "muster-worker"),
        ("app.kubernetes.io/component", "worker"),
        ("app.kubernetes.io/managed-by", "muster"),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The labels of everything that belongs to an allocation.
fn labels(identity: &Identity, number: u64) -> BTreeMap<String, String> {
    let mut labels = common();
    labels.insert(IDENTITY_LABEL.to_owned(), identity.to_string());
    labels.insert(NUMBER_LABEL.to_owned(), number.to_string());
    labels
}

/// The Job of allocation `number`. `owner` is what it ends with.
pub fn job(
    profile: &KubernetesProfile,
    start: &Start,
    identity: &Identity,
    number: u64,
    owner: Option<&OwnerReference>,
) -> Job {
    let name = identity.name_of(number);
    let mut own = profile.labels.clone();
    own.extend(labels(identity, number));
    let pod = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(own.clone()), ..ObjectMeta::default() }),
        spec: Some(pod(profile, start, &name)),
    };
    own.extend(profile.queue.clone().map(|queue| (QUEUE_LABEL.to_owned(), queue)));
    let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(own),
            owner_references: owner.map(|owner| vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            parallelism: Some(count(profile.workers_per_job)),
            completions: Some(COMPLETIONS),
            backoff_limit: Some(count(
                profile.workers_per_job.saturating_mul(profile.max_failures),
            )),
            active_deadline_seconds: profile.time_minutes.map(|minutes| i64::from(minutes) * 60),
            ttl_seconds_after_finished: Some(count(profile.keep_seconds)),
            // Kueue starts it when its turn has come.
            suspend: profile.queue.as_ref().map(|_| true),
            pod_failure_policy: Some(failure_policy()),
            template: pod,
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// A pod that the cluster takes away says nothing about the others. One that finds no coordinator speaks for all: what
/// came in its place would hold a GPU and wait in vain.
fn failure_policy() -> PodFailurePolicy {
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        status: "True".to_owned(),
        type_: "DisruptionTarget".to_owned(),
    };
    let taken = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![disrupted]),
        ..PodFailurePolicyRule::default()
    };
    let alone = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(CONTAINER.to_owned()),
            operator: "In".to_owned(),
            values: vec![ALONE_CODE],
        }),
        // The schema of 1.25 wants the list, which may be empty; newer ones do without.
        on_pod_conditions: Some(Vec::new()),
    };
    PodFailurePolicy { rules: vec![taken, alone] }
}

fn pod(profile: &KubernetesProfile, start: &Start, allocation: &str) -> PodSpec {
    let (volumes, mounts) = volumes(profile, start, allocation);
    let some = |table: &BTreeMap<String, String>| Some(table.clone()).filter(|t| !t.is_empty());
    let references = |names: &[String]| {
        let references = names.iter().map(|name| LocalObjectReference { name: name.clone() });
        Some(references.collect::<Vec<_>>()).filter(|all| !all.is_empty())
    };
    let tolerations: Vec<Toleration> = profile.tolerations.iter().map(toleration).collect();
    let grace = profile.drain_seconds.saturating_add(GOODBYE_SECONDS);
    let user = Some(i64::from(profile.user));
    PodSpec {
        containers: vec![container(profile, start, allocation, mounts)],
        volumes: Some(volumes),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(i64::from(grace)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        service_account_name: profile.service_account.clone(),
        image_pull_secrets: references(&profile.image_pull_secrets),
        node_selector: some(&profile.node_selector),
        tolerations: Some(tolerations).filter(|all| !all.is_empty()),
        priority_class_name: profile.priority_class.clone(),
        runtime_class_name: profile.runtime_class.clone(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: user,
            run_as_group: user,
            // The kubelet gives volumes, the access file among them, to this group.
            fs_group: user,
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

fn toleration(given: &TolerationOf) -> Toleration {
    Toleration {
        key: given.key.clone(),
        operator: given.operator.clone(),
        value: given.value.clone(),
        effect: given.effect.clone(),
        toleration_seconds: given.seconds.map(i64::from),
    }
}

fn container(
    profile: &KubernetesProfile,
    start: &Start,
    allocation: &str,
    mounts: Vec<VolumeMount>,
) -> Container {
    // A pod's name is never used twice, nor is that of a worker; the kubelet puts it in.
    let arguments = ["supervise", "--worker-id", "$(MUSTER_POD)"];
    let secrets = profile.secrets.iter().map(|name| EnvFromSource {
        secret_ref: Some(SecretEnvSource { name: name.clone(), optional: None }),
        ..EnvFromSource::default()
    });
    let secrets: Vec<EnvFromSource> = secrets.collect();
    Container {
        name: CONTAINER.to_owned(),
        image: profile.image.clone(),
        image_pull_policy: profile.image_pull_policy.clone(),
        command: Some(vec![profile.worker_binary.clone()]),
        args: Some(arguments.map(ToOwned::to_owned).to_vec()),
        env: Some(environment(profile, start, allocation)),
        env_from: Some(secrets).filter(|all| !all.is_empty()),
        resources: Some(resources(profile)),
        volume_mounts: Some(mounts),
        // What a worker said last is then the reason that people see.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            seccomp_profile: Some(runtime_default()),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn environment(profile: &KubernetesProfile, start: &Start, allocation: &str) -> Vec<EnvVar> {
    let device = match profile.device() {
        SlotDevice::Cpu => "cpu",
        // Each sees its own GPU only.
        SlotDevice::Cuda => "cuda:0",
    };
    let plain = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        // `$(NAME)` in a value would be replaced by the kubelet.
        value: Some(value.replace('$', "$$")),
        value_from: None,
    };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path.to_owned() }),
            ..EnvVarSource::default()
        }),
    };
    let mut found = vec![
        field("MUSTER_POD", "metadata.name"),
        field("MUSTER_NODE", "spec.nodeName"),
        plain("MUSTER_ALLOCATION", allocation),
        plain("MUSTER_COORDINATOR", &start.access.url),
        plain("MUSTER_SLOT_DEVICE", device),
        plain("MUSTER_THREADS_PER_SLOT", &profile.cpus_per_worker.to_string()),
        plain("MUSTER_DRAIN_SECONDS", &profile.drain_seconds.to_string()),
        plain("MUSTER_ALONE_SECONDS", &profile.alone_seconds.to_string()),
        plain("MUSTER_LOG", &start.log),
        plain("MUSTER_LOG_FORMAT", &start.log_format),
        plain("HOME", SCRATCH_PATH),
        plain("TMPDIR", SCRATCH_PATH),
    ];
    if start.access.file.is_some() {
        found.push(plain(ACCESS_VARIABLE, &format!("{ACCESS_PATH}/{ACCESS_KEY}")));
    }
    if profile.slots_per_gpu > 1 {
        found.push(plain(SLOTS_ON_GPU, &profile.slots_per_gpu.to_string()));
    }
    found.extend(profile.environment.iter().map(|(name, value)| plain(name, value)));
    found
}

fn resources(profile: &KubernetesProfile) -> ResourceRequirements {
    let quantity = |name: &str, value: String| (name.to_owned(), Quantity(value));
    let mut requests = BTreeMap::from([quantity("cpu", profile.cpus_per_worker.to_string())]);
    let mut limits = BTreeMap::new();
    limits.extend(profile.cpu_limit.map(|cpus| quantity("cpu", cpus.to_string())));
    requests.extend(profile.memory_mib.map(|mib| quantity("memory", format!("{mib}Mi"))));
    let memory_limit = profile.memory_limit_mib.or(profile.memory_mib);
    limits.extend(memory_limit.map(|mib| quantity("memory", format!("{mib}Mi"))));
    if profile.gpus_per_worker > 0 {
        limits.extend([quantity(&profile.gpu_resource, profile.gpus_per_worker.to_string())]);
    }
    let limits = Some(limits).filter(|limits| !limits.is_empty());
    ResourceRequirements { requests: Some(requests), limits, claims: None }
}

fn volumes(
    profile: &KubernetesProfile,
    start: &Start,
    allocation: &str,
) -> (Vec<Volume>, Vec<VolumeMount>) {
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    let mut add = |volume: Volume, path: &str, read_only: bool| {
        mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        });
        volumes.push(volume);
    };
    let empty = |name: &str, medium: Option<&str>, size: String| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(ToOwned::to_owned),
            size_limit: Some(Quantity(size)),
        }),
        ..Volume::default()
    };
    add(empty("scratch", None, format!("{}Gi", profile.scratch_gib)), SCRATCH_PATH, false);
    if profile.shared_memory_mib > 0 {
        let size = format!("{}Mi", profile.shared_memory_mib);
        add(empty("shared-memory", Some("Memory"), size), MEMORY_PATH, false);
    }
    if start.access.file.is_some() {
        let secret = SecretVolumeSource {
            secret_name: Some(allocation.to_owned()),
            default_mode: Some(ACCESS_MODE),
            ..SecretVolumeSource::default()
        };
        let name = "access".to_owned();
        add(Volume { name, secret: Some(secret), ..Volume::default() }, ACCESS_PATH, true);
    }
    for (index, (path, claim)) in profile.claims.iter().enumerate() {
        let source =
            PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: None };
        let name = format!("claim-{index}");
        let volume = Volume { name, persistent_volume_claim: Some(source), ..Volume::default() };
        add(volume, path, false);
    }
    (volumes, mounts)
}

/// The Secret of a Job, which it ends with.
pub fn secret(identity: &Identity, number: u64, job_uid: &str, access: &str) -> Secret {
    let name = identity.name_of(number);
    let owner = OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: name.clone(),
        uid: job_uid.to_owned(),
        controller: None,
        block_owner_deletion: None,
    };
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels(identity, number)),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(ACCESS_KEY.to_owned(), ByteString(access.into()))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn identity() -> Identity {
        Identity::of_bytes([1; 6])
    }

    fn rendered(profile: &KubernetesProfile, file: Option<&str>) -> Value {
        let start = Start {
            access: WorkerAccess {
                url: "https://muster:7700".to_owned(),
                file: file.map(std::path::PathBuf::from),
            },
            log: "info,a=$(HOME)".to_owned(),
            log_format: "json".to_owned(),
        };
        let owner = OwnerReference { name: "muster".to_owned(), ..OwnerReference::default() };
        let checked = profile.clone().checked().unwrap();
        serde_json::to_value(job(&checked, &start, &identity(), 7, Some(&owner))).unwrap()
    }

    fn plain() -> KubernetesProfile {
        KubernetesProfile { image: Some("worker:1".to_owned()), ..KubernetesProfile::default() }
    }

    #[test]
    fn pods_may_nothing_and_outlive_no_failure_of_their_own() {
        let job = rendered(&plain(), Some("/state/access/kubernetes.json"));
        let spec = &job["spec"]["template"]["spec"];
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["restartPolicy"], "Never");
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["runAsUser"], 10_001);
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &spec["containers"][0];
        let expected = json!({"allowPrivilegeEscalation": false, "privileged": false,
            "readOnlyRootFilesystem": true, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(container["securityContext"], expected);
        assert_eq!(container["args"], json!(["supervise", "--worker-id", "$(MUSTER_POD)"]));
        assert_eq!(spec["terminationGracePeriodSeconds"], 195);
        assert_eq!(job["metadata"]["name"], "muster-010101010101-7");
        assert_eq!(job["metadata"]["ownerReferences"][0]["name"], "muster");
        for labels in [&job["metadata"]["labels"], &job["spec"]["template"]["metadata"]["labels"]] {
            assert_eq!(labels[IDENTITY_LABEL], "010101010101");
            assert_eq!(labels[NUMBER_LABEL], "7");
        }
        let rule = &job["spec"]["podFailurePolicy"]["rules"][0];
        assert_eq!(rule["onPodConditions"][0]["type"], "DisruptionTarget");
    }

    #[test]
    fn a_job_without_a_coordinator_fails_and_does_not_try_again_for_ever() {
        let profile =
            KubernetesProfile { alone_seconds: 77, workers_per_job: 4, max_failures: 3, ..plain() };
        let job = rendered(&profile, None);
        let variables = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let mut named = variables.iter().filter(|v| v["name"] == "MUSTER_ALONE_SECONDS");
        assert_eq!(named.next().unwrap()["value"], "77");
        let rule = &job["spec"]["podFailurePolicy"]["rules"][1];
        let codes = json!({"containerName": "worker", "operator": "In", "values": [5]});
        assert_eq!((&rule["action"], &rule["onExitCodes"]), (&json!("FailJob"), &codes));
        // Older clusters do not know such rules.
        assert_eq!(job["spec"]["backoffLimit"], 12);
    }

    #[test]
    fn workers_find_their_access_file_in_a_secret_of_their_job() {
        let job = rendered(&plain(), Some("/state/access/kubernetes.json"));
        let spec = &job["spec"]["template"]["spec"];
        let find = |list: &Value, name: &str| {
            let mut all = list.as_array().unwrap().iter();
            all.find(|entry| entry["name"] == name).cloned().unwrap_or_default()
        };
        let container = &spec["containers"][0];
        let secret = &find(&spec["volumes"], "access")["secret"];
        assert_eq!(secret, &json!({"secretName": "muster-010101010101-7", "defaultMode": 0o440}));
        let mount = find(&container["volumeMounts"], "access");
        assert_eq!(
            (&mount["mountPath"], &mount["readOnly"]),
            (&json!("/etc/muster"), &json!(true))
        );
        let of_variable = |name: &str| find(&container["env"], name)["value"].clone();
        assert_eq!(of_variable("MUSTER_ACCESS"), "/etc/muster/access.json");
        assert_eq!(of_variable("MUSTER_COORDINATOR"), "https://muster:7700");
        assert_eq!(
            of_variable("MUSTER_LOG"),
            "info,a=$$(HOME)",
            "nothing is put in by the kubelet"
        );
        let pod = &find(&container["env"], "MUSTER_POD")["valueFrom"]["fieldRef"]["fieldPath"];
        assert_eq!(pod, "metadata.name");

        let made = secret_of(&job);
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "job-uid");
        assert_eq!(made["data"]["access.json"], "c2VjcmV0");

        let open = rendered(&plain(), None).to_string();
        assert!(!open.contains("access") && !open.contains("MUSTER_ACCESS"), "{open}");
    }

    fn secret_of(job: &Value) -> Value {
        let made = serde_json::to_value(secret(&identity(), 7, "job-uid", "secret")).unwrap();
        assert_eq!(made["metadata"]["name"], job["metadata"]["name"]);
        made
    }

    #[test]
    fn workers_that_share_a_gpu_know_it_and_ask_for_a_share() {
        let alone = rendered(&plain(), None);
        assert!(!alone.to_string().contains("MUSTER_SLOTS_ON_GPU"), "{alone}");
        let resource = "nvidia.com/gpu.shared";
        let profile =
            KubernetesProfile { slots_per_gpu: 4, gpu_resource: resource.to_owned(), ..plain() };
        let job = rendered(&profile, None);
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["resources"]["limits"], json!({resource: "1"}));
        let variables = container["env"].as_array().unwrap();
        let wanted = json!({"name": "MUSTER_SLOTS_ON_GPU", "value": "4"});
        assert!(variables.contains(&wanted), "{variables:?}");
    }

    #[test]
    fn what_the_profile_says_is_in_the_pods() {
        let toleration = TolerationOf {
            key: Some("gpu".to_owned()),
            operator: Some("Exists".to_owned()),
            value: None,
            effect: Some("NoExecute".to_owned()),
            seconds: Some(60),
        };
        let table = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let profile = KubernetesProfile {
            workers_per_job: 8,
            gpu_resource: "amd.com/gpu".to_owned(),
            memory_mib: Some(4096),
            memory_limit_mib: Some(8192),
            cpu_limit: Some(6),
            claims: table("/data", "datasets"),
            node_selector: table("zone", "a"),
            tolerations: vec![toleration],
            queue: Some("research".to_owned()),
            secrets: vec!["store".to_owned()],
            labels: table("team", "nlp"),
            time_minutes: Some(60),
            ..plain()
        };
        let job = rendered(&profile, None);
        assert_eq!(job["spec"]["parallelism"], 8);
        assert_eq!(job["spec"]["suspend"], true);
        assert_eq!(job["spec"]["activeDeadlineSeconds"], 3600);
        assert_eq!(job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "research");
        assert_eq!(job["metadata"]["labels"]["team"], "nlp");
        let spec = &job["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        let resources = json!({"requests": {"cpu": "4", "memory": "4096Mi"},
            "limits": {"cpu": "6", "memory": "8192Mi", "amd.com/gpu": "1"}});
        assert_eq!(container["resources"], resources);
        assert_eq!(container["envFrom"], json!([{"secretRef": {"name": "store"}}]));
        assert_eq!(spec["nodeSelector"], json!({"zone": "a"}));
        let toleration = json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60});
        assert_eq!(spec["tolerations"], json!([toleration]));
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let paths: Vec<&str> = mounts.filter_map(|mount| mount["mountPath"].as_str()).collect();
        assert_eq!(paths, ["/scratch", "/dev/shm", "/data"]);
        let memory = &spec["volumes"][1]["emptyDir"];
        assert_eq!(memory, &json!({"medium": "Memory", "sizeLimit": "1024Mi"}));
    }
}
