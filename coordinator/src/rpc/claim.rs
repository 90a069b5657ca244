//! To whom the id of a worker belongs: to the token that it came in with, for as long as the worker is there and the
//! token can be used. So nobody who holds another token is given a worker's run, or reports for it.

use std::time::Instant;

use muster_common::id::WorkerId;
use muster_common::time::Timestamp;
use tokio::sync::mpsc;
use tonic::Status;

use super::Service;
use crate::access::checker::{Checker, Refusal};
use crate::engine::Engine;
use crate::live::{ToWorker, is_of_another};

/// Judges who calls itself by an id. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    service: Service,
    checker: Option<Checker>,
}

impl Claims {
    pub(super) fn new(service: Service, checker: Option<Checker>) -> Self {
        Self { service, checker }
    }

    /// Opens session `number` for who shows the token of this name, if the id is its own or nobody's. A worker that is
    /// away for a moment has its id still, also after a restart.
    pub(super) async fn open(
        &self,
        worker: &WorkerId,
        number: u64,
        token_name: Option<&str>,
    ) -> Result<mpsc::Receiver<ToWorker>, Status> {
        let (live, id) = (&self.service.live, worker.clone());
        let look = move |engine: &Engine| engine.workers().get(&id)?.token_name.clone();
        let joined_with = self.service.driver.read(look).await.map_err(super::worker::stopping)?;
        self.check(worker, joined_with.as_deref(), token_name)?;
        let open = live.token_of(worker);
        self.check(worker, open.as_deref(), token_name)?;
        let opened = live.connect(worker, number, token_name, open.as_deref(), Instant::now());
        opened.ok_or_else(|| self.refuse(worker, token_name))
    }

    /// Refuses who shows another token than the one that is `known`.
    pub(super) fn check(
        &self,
        worker: &WorkerId,
        known: Option<&str>,
        token_name: Option<&str>,
    ) -> Result<(), Status> {
        // One that was taken away or has expired holds nothing: a successor may have another name.
        let is_usable = |name: &str| match &self.checker {
            Some(checker) => checker.is_usable(name, Timestamp::now()),
            None => true,
        };
        if is_of_another(known, token_name) && known.is_some_and(is_usable) {
            return Err(self.refuse(worker, token_name));
        }
        Ok(())
    }

    fn refuse(&self, worker: &WorkerId, token_name: Option<&str>) -> Status {
        let refusal = Refusal::Taken { worker: worker.to_string() };
        tracing::warn!(%worker, token = token_name, reason = %refusal, "a worker is refused");
        self.service.driver.metrics().refused(refusal.label());
        Status::permission_denied(refusal.to_string())
    }
}
