//! What Jobs, pods and events mean for an allocation. Pure.

use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use muster_common::time::Timestamp;

use super::manifest::IDENTITY_LABEL;
use crate::launcher::cluster::{Identity, Job};
use crate::launcher::planner::Stage;

/// Longest reason that is passed on, characters.
const REASON_MAX: usize = 300;

/// The allocation of a Job. `None`: it is somebody else's, or over.
pub(super) fn job_of(
    job: &JobObject,
    pods: &[&Pod],
    events: &[&Event],
    identity: &Identity,
) -> Option<Job> {
    let number = number_of(job, identity)?;
    if ended(job).is_some() {
        return None;
    }
    let stage = stage(job, pods);
    let reason = (stage == Stage::Pending).then(|| reason(job, pods, events));
    Some(Job { number, id: job.name_any(), stage, reason: reason.map(|text| shortened(&text)) })
}

/// The number of a Job of ours: name and label have to agree.
pub(super) fn number_of(job: &JobObject, identity: &Identity) -> Option<u64> {
    let number = identity.number_in(job.metadata.name.as_deref()?)?;
    (job.labels().get(IDENTITY_LABEL)? == identity.to_string().as_str()).then_some(number)
}

/// Why a Job is over, if it is.
pub(super) fn ended(job: &JobObject) -> Option<String> {
    let condition = conditions(job).find(|(name, _)| ["Complete", "Failed"].contains(name))?.1;
    let said = [condition.reason.as_deref(), condition.message.as_deref()];
    Some(shortened(&said.into_iter().flatten().collect::<Vec<_>>().join(": ")))
}

/// How a Job has ended that is listed no more, or one of its pods where another one took its place: in words, and
/// whether nobody here wanted it. `since` is when it had begun.
pub(super) fn end_of(
    job: Option<&JobObject>,
    pods: &[&Pod],
    since: Option<Timestamp>,
) -> (String, bool) {
    let Some(job) = job else { return ("it was deleted, and not from here".to_owned(), true) };
    // Those before it have ended before it began.
    let later =
        |pod: &&&Pod| finished_at(pod).is_some_and(|at| since.is_none_or(|since| at >= since));
    let last = pods.iter().filter(later).max_by_key(|pod| finished_at(pod));
    let failed = last.and_then(|pod| failure(pod));
    match (ended(job), failed) {
        (Some(text), failed) => {
            let has_failed = conditions(job).any(|(name, _)| name == "Failed");
            let said = failed.map_or_else(|| text.clone(), |failed| format!("{text}; {failed}"));
            (shortened(&said), has_failed)
        }
        (None, Some(failed)) => (shortened(&format!("{failed}; its Job makes another")), true),
        (None, None) if last.is_some() => ("a worker of it has left".to_owned(), false),
        (None, None) => ("a pod of it was taken away; its Job makes another".to_owned(), true),
    }
}

/// When a pod's container has ended, if it has.
fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let mut ended =
        containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref());
    let finished = ended.find_map(|ended| ended.finished_at.as_ref()).map(timestamp);
    // A pod that the kubelet has evicted may tell of no container.
    let conditions = status.conditions.iter().flatten();
    let changed = conditions.filter_map(|condition| condition.last_transition_time.as_ref());
    finished.or_else(|| changed.map(timestamp).max().filter(|_| phase(pod) == "Failed"))
}

type Condition = k8s_openapi::api::batch::v1::JobCondition;

/// Those that hold, by their names.
fn conditions(job: &JobObject) -> impl Iterator<Item = (&str, &Condition)> {
    let all = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.filter(|condition| condition.status == "True").map(|found| (found.type_.as_str(), found))
}

fn stage(job: &JobObject, pods: &[&Pod]) -> Stage {
    // With its reason before it ends: pods may still be on their way out.
    let is_failing =
        conditions(job).any(|(name, _)| ["FailureTarget", "SuccessCriteriaMet"].contains(&name));
    if job.metadata.deletion_timestamp.is_some() || is_failing {
        return Stage::Ending;
    }
    let begun = pods.iter().filter(|pod| is_running(pod)).map(|pod| begun_at(pod));
    let Some(since) = begun.min() else { return Stage::Pending };
    let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(timestamp);
    let seconds = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
    let lasts = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let ends_at = lasts.map(|seconds| {
        let began = started.unwrap_or(since);
        Timestamp(began.0.saturating_add(seconds.saturating_mul(1000)))
    });
    Stage::Running { since, ends_at }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none()
}

/// When its container began, or else the pod.
fn begun_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.into_iter().flat_map(|s| s.container_statuses.iter().flatten());
    let running = containers.flat_map(|container| container.state.iter());
    let mut running = running.flat_map(|state| state.running.iter());
    let begun = running.find_map(|running| running.started_at.as_ref());
    let begun = begun.or_else(|| status.and_then(|status| status.start_time.as_ref()));
    begun.map_or(Timestamp(0), timestamp)
}

fn timestamp(time: &Time) -> Timestamp {
    Timestamp(u64::try_from(time.0.as_millisecond()).unwrap_or_default())
}

/// Why nothing of it runs.
fn reason(job: &JobObject, pods: &[&Pod], events: &[&Event]) -> String {
    let is_suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or_default();
    if is_suspended {
        return match job.labels().get("kueue.x-k8s.io/queue-name") {
            Some(queue) => format!("suspended until Kueue admits it through queue {queue}"),
            None => "suspended".to_owned(),
        };
    }
    let waiting = pods.iter().filter(|pod| phase(pod) == "Pending");
    let mut said: Vec<String> = waiting.filter_map(|pod| waits_for(pod)).collect();
    // The same of many pods is said once.
    said.dedup();
    if let Some(first) = said.first() {
        return first.clone();
    }
    if let Some(failed) = pods.iter().rev().find_map(|pod| failure(pod)) {
        return failed;
    }
    let is_there = pods.iter().any(|pod| phase(pod) == "Pending");
    let refused = events.iter().max_by_key(|event| event_time(event));
    match refused.and_then(|event| event.message.clone()) {
        Some(message) if !is_there => message,
        _ if is_there => "its pods wait for a node".to_owned(),
        _ => "no pod of it has been made yet".to_owned(),
    }
}

fn event_time(event: &Event) -> Option<i64> {
    let last = event.last_timestamp.as_ref().map(|time| time.0.as_millisecond());
    last.or_else(|| event.event_time.as_ref().map(|time| time.0.as_millisecond()))
}

/// What a pod waits for, as the scheduler or the kubelet says it.
fn waits_for(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let mut waiting = waiting.filter(|waiting| waiting.reason.is_some());
    if let Some(waiting) = waiting.next() {
        return Some(joined(waiting.reason.as_deref(), waiting.message.as_deref()));
    }
    let mut conditions = status.conditions.iter().flatten();
    let unscheduled = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(joined(unscheduled.reason.as_deref(), unscheduled.message.as_deref()))
}

/// How a pod has failed.
fn failure(pod: &Pod) -> Option<String> {
    if phase(pod) != "Failed" {
        return None;
    }
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let mut containers = status.container_statuses.iter().flatten();
    let ended = containers.find_map(|container| container.state.as_ref()?.terminated.as_ref());
    let said = match ended {
        Some(ContainerStateTerminated { exit_code, reason, message, .. }) => {
            format!("exit code {exit_code}, {}", joined(reason.as_deref(), message.as_deref()))
        }
        None => joined(status.reason.as_deref(), status.message.as_deref()),
    };
    Some(format!("pod {name} has failed: {said}"))
}

fn joined(reason: Option<&str>, message: Option<&str>) -> String {
    let words: Vec<&str> = [reason, message].into_iter().flatten().collect();
    words.join(": ")
}

/// In one line, and not too long.
pub(super) fn shortened(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(REASON_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn identity() -> Identity {
        Identity::of_bytes([1; 6])
    }

    fn job(more: &Value) -> JobObject {
        let mut object = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": "muster-010101010101-4",
                "labels": {"muster-train.github.io/identity": "010101010101"},
            },
            "spec": {"template": {"spec": {"containers": []}}},
        });
        for part in ["metadata", "spec", "status"] {
            for (key, value) in more[part].as_object().into_iter().flatten() {
                object[part][key] = value.clone();
            }
        }
        serde_json::from_value(object).unwrap()
    }

    fn pod(status: &Value) -> Pod {
        let object =
            json!({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": status});
        serde_json::from_value(object).unwrap()
    }

    fn of(job: &JobObject, pods: &[Pod]) -> Option<Job> {
        job_of(job, &pods.iter().collect::<Vec<_>>(), &[], &identity())
    }

    fn running() -> Pod {
        pod(&json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [
            {"name": "worker", "ready": true, "restartCount": 0, "image": "", "imageID": "",
             "state": {"running": {"startedAt": "2026-01-01T00:00:05Z"}}}]}))
    }

    fn waiting(reason: &str, message: &str) -> Pod {
        pod(&json!({"phase": "Pending", "containerStatuses": [
            {"name": "worker", "ready": false, "restartCount": 0, "image": "", "imageID": "",
             "state": {"waiting": {"reason": reason, "message": message}}}]}))
    }

    #[test]
    fn only_our_own_jobs_that_are_not_over_are_allocations() {
        assert_eq!(of(&job(&json!({})), &[]).unwrap().number, 4);
        for (part, key, value) in [
            ("metadata", "name", json!("muster-020202020202-4")),
            ("metadata", "name", json!("muster-010101010101-04")),
            ("metadata", "labels", json!({})),
            ("metadata", "labels", json!({"muster-train.github.io/identity": "020202020202"})),
            ("status", "conditions", json!([{"type": "Failed", "status": "True"}])),
            ("status", "conditions", json!([{"type": "Complete", "status": "True"}])),
        ] {
            let other = job(&json!({part: {key: value}}));
            assert_eq!(of(&other, &[]), None, "{other:?}");
        }
        let failed = json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
            "message": "Job has reached the\nspecified backoff limit"}]);
        let failed = job(&json!({"status": {"conditions": failed}}));
        let said = "BackoffLimitExceeded: Job has reached the specified backoff limit";
        assert_eq!(ended(&failed).as_deref(), Some(said));
    }

    #[test]
    fn it_runs_while_a_pod_of_it_runs_and_has_the_end_that_was_asked_for() {
        // 2026-01-01T00:00:00Z.
        let begin = 1_767_225_600_000;
        let since = Timestamp(begin + 5000);
        let pods = [waiting("ContainerCreating", ""), running()];
        let found = of(&job(&json!({})), &pods).unwrap();
        assert_eq!((found.stage, found.reason), (Stage::Running { since, ends_at: None }, None));
        let timed = job(&json!({"spec": {"activeDeadlineSeconds": 60},
            "status": {"startTime": "2026-01-01T00:00:02Z"}}));
        let ends_at = Some(Timestamp(begin + 62_000));
        assert_eq!(of(&timed, &pods).unwrap().stage, Stage::Running { since, ends_at });
        let mut leaving = running();
        leaving.metadata.deletion_timestamp = leaving.status.clone().unwrap().start_time;
        assert_eq!(of(&job(&json!({})), &[leaving]).unwrap().stage, Stage::Pending);
        let deleted = job(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert_eq!(of(&deleted, &[running()]).unwrap().stage, Stage::Ending);
        let failing = json!([{"type": "FailureTarget", "status": "True"}]);
        let failing = job(&json!({"status": {"conditions": failing}}));
        assert_eq!(of(&failing, &[running()]).unwrap().stage, Stage::Ending);
    }

    #[test]
    fn what_it_waits_for_is_said() {
        let say = |job: &JobObject, pods: &[Pod]| of(job, pods).unwrap().reason.unwrap();
        assert_eq!(say(&job(&json!({})), &[]), "no pod of it has been made yet");
        let unscheduled = pod(&json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
             "message": "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."}]}));
        let text = say(&job(&json!({})), &[unscheduled]);
        assert_eq!(text, "Unschedulable: 0/4 nodes are available: 4 Insufficient nvidia.com/gpu.");
        let image = waiting("ImagePullBackOff", "Back-off pulling\n image \"worker\"");
        let text = say(&job(&json!({})), &[image]);
        assert_eq!(text, "ImagePullBackOff: Back-off pulling image \"worker\"");
        let failed = pod(&json!({"phase": "Failed", "containerStatuses": [
            {"name": "worker", "ready": false, "restartCount": 0, "image": "", "imageID": "",
             "state": {"terminated": {"exitCode": 2, "reason": "Error", "message": "no such option"}}}]}));
        let text = say(&job(&json!({})), &[failed]);
        assert_eq!(text, "pod p has failed: exit code 2, Error: no such option");
        let queued = job(&json!({"spec": {"suspend": true},
            "metadata": {"labels": {"muster-train.github.io/identity": "010101010101",
                "kueue.x-k8s.io/queue-name": "team-a"}}}));
        assert_eq!(say(&queued, &[]), "suspended until Kueue admits it through queue team-a");
        let event = |at: &str, message: &str| -> Event {
            serde_json::from_value(json!({"metadata": {"name": "e"}, "involvedObject": {},
                "lastTimestamp": at, "message": message}))
            .unwrap()
        };
        let events = [
            event("2026-01-01T00:00:02Z", "Error creating: exceeded quota: gpus"),
            event("2026-01-01T00:00:01Z", "Error creating: older"),
        ];
        let found = job_of(&job(&json!({})), &[], &[&events[0], &events[1]], &identity()).unwrap();
        assert_eq!(found.reason.unwrap(), "Error creating: exceeded quota: gpus");
    }

    #[test]
    fn ends_are_told_of_jobs_and_of_pods_that_are_replaced() {
        let terminated = |name: &str, code: i32, reason: &str, at: &str| -> Pod {
            let phase = if code == 0 { "Succeeded" } else { "Failed" };
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": []},
                "status": {"phase": phase, "containerStatuses": [
                    {"name": "worker", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state":
                        {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at}}}]}}))
            .unwrap()
        };
        let first = terminated("a", 137, "OOMKilled", "2026-01-01T00:00:10Z");
        let second = terminated("b", 1, "Error", "2026-01-01T00:00:20Z");
        let left = terminated("c", 0, "Completed", "2026-01-01T00:00:30Z");
        let condition = |kind: &str, reason: &str| {
            let condition = json!([{"type": kind, "status": "True", "reason": reason}]);
            job(&json!({"status": {"conditions": condition}}))
        };
        let failed = condition("Failed", "BackoffLimitExceeded");
        let told = end_of(Some(&failed), &[&first, &second], None);
        let said = "BackoffLimitExceeded; pod b has failed: exit code 1, Error".to_owned();
        assert_eq!(told, (said, true));
        let open = job(&json!({}));
        let said = "pod a has failed: exit code 137, OOMKilled; its Job makes another".to_owned();
        assert_eq!(end_of(Some(&open), &[&first, &running()], None), (said, true));
        // 2026-01-01T00:00:15Z: what ended before is another story.
        let since = Some(Timestamp(1_767_225_615_000));
        let (said, is_failure) = end_of(Some(&open), &[&first], since);
        assert!(said.contains("taken away") && is_failure, "{said}");
        let told = end_of(Some(&open), &[&first, &left], since);
        assert_eq!(told, ("a worker of it has left".to_owned(), false));
        assert!(!end_of(Some(&condition("Complete", "")), &[&left], since).1);
        let evicted =
            pod(&json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory",
            "conditions": [{"type": "Ready", "status": "False",
                "lastTransitionTime": "2026-01-01T00:00:40Z"}]}));
        let (said, _) = end_of(Some(&open), &[&first, &evicted], since);
        assert_eq!(said, "pod p has failed: Evicted: low on memory; its Job makes another");
        let (said, is_failure) = end_of(None, &[], None);
        assert!(said.contains("deleted") && is_failure, "{said}");
    }
}
