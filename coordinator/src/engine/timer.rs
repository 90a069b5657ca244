//! What the engine waits for besides events: it reads no clock, so whoever drives it asks when to wake
//! it, and any event that comes later than that finds what is due.

use std::time::Duration;

use muster_common::run::{FailureClass, RunExit};
use muster_common::time::Timestamp;

use super::experiment::Phase;
use super::run::{MemberState, RunKind};
use super::trial::TrialKind;
use super::{Action, Engine};

/// Time for rank 0 to open the rendezvous: longer than a runner may take to load libtorch from a cold
/// disk and to fetch its data.
const RENDEZVOUS_DEADLINE: Duration = Duration::from_secs(600);

impl Engine {
    /// When something is due next, if no event comes before: wake it with
    /// [`Event::TimerFired`](super::Event::TimerFired) then. Always later than the last event.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let gathering = self.runs.of(RunKind::Gathering);
        let rendezvous = gathering.map(|(_, run)| run.started_at.after(RENDEZVOUS_DEADLINE));
        let hosts = self.hosts.values().filter_map(|record| record.aside_until);
        let open = self.experiments.of(()).map(|(_, experiment)| experiment);
        let awake = open.filter(|e| e.phase == Phase::Searching && !e.paused);
        let trials = awake.flat_map(|experiment| {
            let slots = experiment.manifest.resources.slots;
            let pending = experiment.trials.of(TrialKind::Pending).map(|(_, trial)| trial);
            let since = self.last_loss.into_iter().chain(experiment.waiting_since);
            let grace = since.map(|at| at.after(slots.grace()));
            let waits = slots.is_elastic() && experiment.waiting_since.is_some();
            let backoffs = pending.filter_map(|trial| trial.not_before);
            grace.filter(|_| waits).chain(backoffs).collect::<Vec<_>>()
        });
        let set_back = self.experiments.of(()).filter(|(_, e)| !e.paused);
        let set_back = set_back.filter_map(|(_, experiment)| experiment.not_before);
        let times = rendezvous.chain(hosts).chain(trials).chain(set_back).chain(self.next_limit());
        times.filter(|at| self.clock.is_none_or(|clock| *at > clock)).min()
    }

    /// Ends gangs whose rank 0 never opened the rendezvous.
    pub(super) fn end_overdue_gangs(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let mut overdue: Vec<_> = self
            .runs
            .of(RunKind::Gathering)
            .filter(|(_, run)| run.started_at.after(RENDEZVOUS_DEADLINE) <= now)
            .map(|(generation, _)| *generation)
            .collect();
        overdue.sort_unstable();
        for generation in overdue {
            let message =
                format!("rank 0 opened no rendezvous in {} s", RENDEZVOUS_DEADLINE.as_secs());
            let exit = RunExit::Failed { message, permanent: false, class: FailureClass::Hang };
            let ended = MemberState::ended(exit, true);
            self.break_gang(generation, &ended, actions);
            self.settle(now, generation, actions);
        }
    }
}
