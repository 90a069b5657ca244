//! Machines that fail again and again are set aside for a while: runs that are on them go on, new ones
//! go elsewhere. The only machine never is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_common::id::TrialId;
use muster_common::run::{FailureClass, RunExit, Task};
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::failure::class_of;
use super::run::{Member, MemberState, Run};
use super::trial::Trial;
use super::{Engine, Rules};

/// So many failures within [`WINDOW`] set a machine aside.
const FAILURES_MAX: usize = 3;
/// Older failures are forgotten.
const WINDOW: Duration = Duration::from_secs(600);
/// So long a machine is set aside; then it starts with a clean record.
const ASIDE: Duration = Duration::from_secs(600);

/// What is held against a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostRecord {
    /// When runs failed on it, oldest first.
    pub failures: Vec<Timestamp>,
    /// What the last of them was, for people.
    pub last: String,
    /// It gets no new runs until then.
    pub aside_until: Option<Timestamp>,
}

impl Engine {
    /// Machines that have failed lately.
    pub fn hosts(&self) -> &BTreeMap<String, HostRecord> {
        &self.hosts
    }

    /// Whether a machine gets no new runs.
    pub(super) fn is_aside(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|record| record.aside_until.is_some())
    }

    /// Holds a run that is over against the machines that broke it.
    pub(super) fn blame_hosts(&mut self, now: Timestamp, run: &Run) {
        // A user who cancels does not wait for ranks that are slow to leave.
        let Some(experiment) = self.experiments.get(&run.experiment) else { return };
        let is_over =
            |trial: &TrialId| experiment.trials.get(&trial.number).is_none_or(Trial::is_terminal);
        let is_training = matches!(run.task, Task::Train(_));
        let is_unwanted = is_training && run.task.trial().is_some_and(is_over);
        if experiment.is_ended() || (is_unwanted && self.is_strict()) {
            return;
        }
        let is_hang = class_of(&run.ending(Rules(self.rules)).exit) == Some(FailureClass::Hang);
        for (rank, member) in run.members.iter().enumerate() {
            let Some(reason) = blame(run, member, is_hang) else { continue };
            let host = member.host.clone();
            let record = self.hosts.entry(host.clone()).or_default();
            record.failures.retain(|at| now.since(*at) < WINDOW);
            record.failures.push(now);
            reason.clone_into(&mut record.last);
            let is_enough = record.failures.len() >= FAILURES_MAX;
            if is_enough && !self.is_aside(&host) && self.has_other_host(&host) {
                let until = now.after(ASIDE);
                if let Some(record) = self.hosts.get_mut(&host) {
                    record.aside_until = Some(until);
                }
                let minutes = ASIDE.as_secs() / 60;
                let text = format!(
                    "host {host} is set aside for {minutes} minutes after {FAILURES_MAX} failures, \
                     the last of rank {rank}: {reason}"
                );
                if let Some(experiment) = self.experiments.get_mut(&run.experiment) {
                    experiment.decide(now, None, text);
                }
            }
        }
    }

    /// Whether runs can go to another machine than `host`.
    fn has_other_host(&self, host: &str) -> bool {
        let hosts: BTreeSet<&str> = self.workers.values().map(|w| w.host.as_str()).collect();
        hosts.into_iter().any(|other| other != host && !self.is_aside(other))
    }

    /// Takes back machines whose time is over, or that have become the only ones.
    pub(super) fn take_back_hosts(&mut self, now: Timestamp) {
        self.hosts.retain(|_, record| match record.aside_until {
            Some(until) => until > now,
            None => record.failures.last().is_some_and(|at| now.since(*at) < WINDOW),
        });
        if !self.workers.is_empty() && self.workers.values().all(|w| self.is_aside(&w.host)) {
            self.hosts.clear();
        }
    }
}

/// What a machine is blamed for: what a manifest or a user can do nothing about. Ranks that only miss
/// another one are not at fault, nor those that had to be killed because they were waiting for it.
fn blame<'a>(run: &Run, member: &'a Member, is_hang: bool) -> Option<&'a str> {
    let MemberState::Ended { exit, counts: true, is_late } = &member.state else { return None };
    match exit {
        RunExit::Lost { .. } if *is_late && !is_hang => None,
        RunExit::Lost { reason } => Some(reason),
        RunExit::Failed { message, permanent: false, class: FailureClass::DiskFull } => {
            Some(message)
        }
        RunExit::Failed {
            message,
            permanent: false,
            class: FailureClass::Lost | FailureClass::Hang,
        } if run.members.len() == 1 => Some(message),
        _ => None,
    }
}
