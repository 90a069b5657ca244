//! What the watches have shown, kept as a picture of the cluster. Pure: events come in, and it answers whether it is
//! whole. What this process has written itself is in the picture at once, though the watch tells of it later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::runtime::watcher;

use super::state;
use crate::launcher::cluster::{End, Gone, Identity, Job};

/// Objects whose end is remembered in case the answer to their making comes after it.
const GONE_MAX: usize = 64;

/// Objects of one kind, by name.
#[derive(Debug)]
pub(super) struct Table<K> {
    current: BTreeMap<String, K>,
    /// A list that is not complete yet.
    coming: Option<BTreeMap<String, K>>,
    /// Written by this process, and not told of by the watch; which of them a list began after.
    own: BTreeMap<String, K>,
    own_before_list: BTreeSet<String>,
    /// Unique ids of the last that went.
    gone: VecDeque<String>,
    is_whole: bool,
    /// Why it is not whole.
    trouble: Option<String>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            current: BTreeMap::new(),
            coming: None,
            own: BTreeMap::new(),
            own_before_list: BTreeSet::new(),
            gone: VecDeque::new(),
            is_whole: false,
            trouble: None,
        }
    }
}

impl<K: ResourceExt> Table<K> {
    /// Takes in what a watch tells.
    pub(super) fn apply(&mut self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => {
                self.coming = Some(BTreeMap::new());
                self.own_before_list = self.own.keys().cloned().collect();
            }
            watcher::Event::InitApply(object) => {
                let coming = self.coming.get_or_insert_default();
                coming.insert(object.name_any(), object);
            }
            watcher::Event::InitDone => {
                self.current = self.coming.take().unwrap_or_default();
                let (before, current) = (&self.own_before_list, &self.current);
                self.own.retain(|name, _| !before.contains(name) && !current.contains_key(name));
                self.is_whole = true;
                self.trouble = None;
            }
            watcher::Event::Apply(object) => {
                self.own.remove(&object.name_any());
                self.current.insert(object.name_any(), object);
            }
            watcher::Event::Delete(object) => {
                self.own.remove(&object.name_any());
                self.current.remove(&object.name_any());
                self.gone.extend(object.uid());
                while self.gone.len() > GONE_MAX {
                    self.gone.pop_front();
                }
            }
        }
    }

    /// Takes in what this process has written.
    pub(super) fn wrote(&mut self, object: K) {
        let name = object.name_any();
        let is_gone = object.uid().is_some_and(|uid| self.gone.contains(&uid));
        if !is_gone && !self.current.contains_key(&name) {
            self.own.insert(name, object);
        }
    }

    /// The watch has broken off: what it would have told is missing from now on.
    pub(super) fn lost(&mut self, trouble: String) {
        self.is_whole = false;
        self.trouble = Some(trouble);
    }

    /// Everything, in the order of names.
    pub(super) fn all(&self) -> impl Iterator<Item = &K> {
        self.current.values().chain(self.own.values())
    }

    /// One of them.
    pub(super) fn get(&self, name: &str) -> Option<&K> {
        self.current.get(name).or_else(|| self.own.get(name))
    }
}

/// The picture.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) jobs: Table<JobObject>,
    pub(super) pods: Table<Pod>,
    /// Only for reasons: nothing is missing without them.
    pub(super) events: Table<Event>,
}

impl Mirror {
    /// Whether nothing is missing; else why, where that is known.
    pub(super) fn whole(&self) -> Result<(), Option<String>> {
        for (is_whole, trouble) in
            [(self.jobs.is_whole, &self.jobs.trouble), (self.pods.is_whole, &self.pods.trouble)]
        {
            if !is_whole {
                return Err(trouble.clone());
            }
        }
        Ok(())
    }

    /// Pods by the unique id of their Job.
    fn pods_by_job(&self) -> BTreeMap<&str, Vec<&Pod>> {
        let mut pods: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in self.pods.all() {
            // Several versions of the Job controller write the name of the Job into different labels.
            let owners = pod.metadata.owner_references.iter().flatten();
            for owner in owners.filter(|owner| owner.kind == "Job") {
                pods.entry(&owner.uid).or_default().push(pod);
            }
        }
        pods
    }

    /// How what is missed has ended; nothing while the picture is not whole.
    pub(super) fn ends(&self, gone: &[Gone], identity: &Identity) -> Vec<End> {
        if self.whole().is_err() {
            return Vec::new();
        }
        let pods = self.pods_by_job();
        let end = |Gone { id, since }: &Gone| {
            let job = self.jobs.get(id);
            let job = job.filter(|job| state::number_of(job, identity).is_some());
            let uid = job.and_then(|job| job.metadata.uid.as_deref()).unwrap_or_default();
            let pods = pods.get(uid).map_or(&[][..], Vec::as_slice);
            let (reason, is_failure) = state::end_of(job, pods, *since);
            End { id: id.clone(), reason, is_failure }
        };
        gone.iter().map(end).collect()
    }

    /// Our allocations.
    pub(super) fn allocations(&self, identity: &Identity) -> Vec<Job> {
        let pods = self.pods_by_job();
        let mut events: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in self.events.all() {
            if let Some(uid) = &event.involved_object.uid {
                events.entry(uid).or_default().push(event);
            }
        }
        let allocation = |job: &JobObject| {
            let uid = job.metadata.uid.as_deref().unwrap_or_default();
            let pods = pods.get(uid).map_or(&[][..], Vec::as_slice);
            let events = events.get(uid).map_or(&[][..], Vec::as_slice);
            state::job_of(job, pods, events, identity)
        };
        let mut found: Vec<Job> = self.jobs.all().filter_map(allocation).collect();
        found.sort_by_key(|job| job.number);
        found
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::runtime::watcher::Event as Told;

    use super::*;
    use crate::launcher::kubernetes::manifest::IDENTITY_LABEL;
    use crate::launcher::planner::Stage;

    fn identity() -> Identity {
        Identity::of_bytes([1; 6])
    }

    fn job(number: u64) -> JobObject {
        let labels = [(IDENTITY_LABEL.to_owned(), identity().to_string())].into();
        let metadata = ObjectMeta {
            name: Some(identity().name_of(number)),
            uid: Some(format!("uid-{number}")),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        JobObject { metadata, ..JobObject::default() }
    }

    fn numbers(mirror: &Mirror) -> Vec<u64> {
        mirror.allocations(&identity()).iter().map(|job| job.number).collect()
    }

    #[test]
    fn what_was_written_is_there_until_the_watch_knows_better() {
        let mut mirror = Mirror::default();
        assert_eq!(mirror.whole(), Err(None));
        let table = &mut mirror.jobs;
        table.apply(Told::Init);
        table.apply(Told::InitApply(job(1)));
        assert!(!table.is_whole, "a list may be long");
        table.wrote(job(2));
        table.apply(Told::InitDone);
        mirror.pods.apply(Told::InitDone);
        assert_eq!(mirror.whole(), Ok(()));
        // It was written while the list was made, which may not have it.
        assert_eq!(numbers(&mirror), [1, 2]);
        mirror.jobs.apply(Told::Apply(job(2)));
        mirror.jobs.apply(Told::Delete(job(2)));
        assert_eq!(numbers(&mirror), [1]);
        // The answer to its making comes last.
        mirror.jobs.wrote(job(2));
        assert_eq!(numbers(&mirror), [1]);
        mirror.jobs.wrote(job(3));
        assert_eq!(numbers(&mirror), [1, 3]);
        // A list that began after it was written, and does not have it: it is gone.
        mirror.jobs.apply(Told::Init);
        assert_eq!(numbers(&mirror), [1, 3], "half a list is none");
        mirror.jobs.apply(Told::InitDone);
        assert!(numbers(&mirror).is_empty());
    }

    #[test]
    fn a_broken_watch_says_so_until_there_is_a_new_list() {
        let mut mirror = Mirror::default();
        mirror.jobs.apply(Told::InitDone);
        mirror.pods.apply(Told::InitDone);
        mirror.pods.lost("connection refused".to_owned());
        assert_eq!(mirror.whole(), Err(Some("connection refused".to_owned())));
        mirror.pods.apply(Told::Init);
        assert!(mirror.whole().is_err());
        mirror.pods.apply(Told::InitDone);
        assert_eq!(mirror.whole(), Ok(()));
    }

    #[test]
    fn pods_belong_to_the_job_that_owns_them() {
        let pod = |uid: &str| -> Pod {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": format!("pod-of-{uid}"), "ownerReferences": [
                    {"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": uid}]},
                "status": {"phase": "Running"},
            }))
            .unwrap()
        };
        let mut mirror = Mirror::default();
        mirror.jobs.wrote(job(1));
        mirror.jobs.wrote(job(2));
        mirror.pods.apply(Told::Apply(pod("uid-2")));
        mirror.pods.apply(Told::Apply(pod("uid-of-another")));
        let found = mirror.allocations(&identity());
        assert_eq!(found[0].stage, Stage::Pending);
        assert!(matches!(found[1].stage, Stage::Running { .. }));
    }
}
