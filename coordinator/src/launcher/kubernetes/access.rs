//! The access file of the workers, carried into the cluster: a Secret for each Job, which ends with it. It is written
//! when its Job is there, and again when the file has changed because its token was renewed; the kubelet then
//! changes what is mounted, and workers that are refused read it again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::failure::{answered, failure, silence};
use super::manifest;
use super::state::number_of;
use super::watch::Shared;
use crate::launcher::cluster::{ClusterError, Identity};

/// Who has written a field, for the API server.
pub(super) const MANAGER: &str = "muster";
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// Until what did not work is tried again.
const PAUSE: Duration = Duration::from_secs(3);

/// Carries a file into the Secrets of our Jobs.
pub(super) struct Carrier {
    pub(super) file: PathBuf,
    pub(super) secrets: Api<Secret>,
    pub(super) identity: Identity,
    pub(super) shared: Shared,
}

impl Carrier {
    /// Works until it is dropped.
    pub(super) async fn keep(self) {
        let mut changes = self.shared.changes();
        // What every Job has, by its unique id.
        let mut carried: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let pause = match self.carry(&mut carried).await {
                Ok(()) => LOOK,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "workers cannot be let in");
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // What went wrong does so again at once.
                changed = changes.changed(), if pause == LOOK => if changed.is_err() { return },
            }
        }
    }

    async fn carry(&self, carried: &mut BTreeMap<String, String>) -> Result<(), ClusterError> {
        let command = "read the workers' access file";
        let text = std::fs::read_to_string(&self.file).map_err(|error| ClusterError {
            command,
            message: format!("{}: {error}", self.file.display()),
            outcome: crate::launcher::planner::Outcome::Refused,
        })?;
        let jobs = self.jobs();
        carried.retain(|uid, _| jobs.iter().any(|(_, job)| job == uid));
        for (number, uid) in jobs {
            if carried.get(&uid) == Some(&text) {
                continue;
            }
            let secret = manifest::secret(&self.identity, number, &uid, &text);
            let name = self.identity.name_of(number);
            // Nobody else has a say in it.
            let parameters = PatchParams::apply(MANAGER).force();
            let request = Patch::Apply(&secret);
            let request = self.secrets.patch(&name, &parameters, &request);
            let command = "write the Secret of a Job";
            let answer = answered(request).await.ok_or_else(|| silence(command))?;
            answer.map_err(|error| failure(command, &error))?;
            carried.insert(uid, text.clone());
        }
        Ok(())
    }

    /// Numbers and unique ids of our Jobs that are not on their way out.
    fn jobs(&self) -> Vec<(u64, String)> {
        let mirror = self.shared.look();
        let living = mirror.jobs.all().filter(|job| job.metadata.deletion_timestamp.is_none());
        let known = living
            .filter_map(|job| Some((number_of(job, &self.identity)?, job.metadata.uid.clone()?)));
        known.collect()
    }
}
