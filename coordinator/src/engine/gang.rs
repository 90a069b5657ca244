//! What happens to the ranks of a run: they are started together, told the same, and when one leaves,
//! all do. The run is over, and another can be made, when the last of them has ended: until then its
//! slot is not free.

use muster_common::id::{ExperimentId, Generation, WorkerId};
use muster_common::run::{Directive, RunExit};
use muster_common::time::Timestamp;

use super::run::MemberState;
use super::{Action, Engine, LossCause};

impl Engine {
    /// Tells every run of an experiment to leave its slots.
    pub(super) fn direct_runs(
        &mut self,
        now: Timestamp,
        id: &ExperimentId,
        directive: Directive,
        actions: &mut Vec<Action>,
    ) {
        let of_experiment = self.runs.iter().filter(|(_, run)| run.experiment == *id);
        let generations: Vec<Generation> =
            of_experiment.map(|(generation, _)| *generation).collect();
        for generation in generations {
            self.direct(now, generation, directive, actions);
        }
    }

    /// Tells one run to leave its slots. Ranks that were told nothing yet have left. Of a run that was told to give
    /// up nothing is worth saving, and its ranks may be stuck: they are not given more time.
    pub(super) fn direct(
        &mut self,
        now: Timestamp,
        generation: Generation,
        directive: Directive,
        actions: &mut Vec<Action>,
    ) {
        let is_strict = self.is_strict();
        let Some(run) = self.runs.get_mut(&generation) else { return };
        if is_strict && run.directive == Some(Directive::Cancel) {
            return;
        }
        run.directive = Some(directive);
        let exit = match directive {
            Directive::Preempt => RunExit::Preempted,
            Directive::Cancel => RunExit::Canceled,
        };
        self.tell_ranks(generation, &MemberState::ended(exit, false), actions);
        self.settle(now, generation, actions);
    }

    /// Ends a gang that cannot go on: ranks that were told nothing end as `ended`.
    pub(super) fn break_gang(
        &mut self,
        generation: Generation,
        ended: &MemberState,
        actions: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get_mut(&generation) else { return };
        if run.directive != Some(Directive::Cancel) {
            run.directive = Some(Directive::Cancel);
            self.tell_ranks(generation, ended, actions);
        }
    }

    /// Passes a run's directive on to its ranks.
    fn tell_ranks(
        &mut self,
        generation: Generation,
        ended: &MemberState,
        actions: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get_mut(&generation) else { return };
        let Some(directive) = run.directive_for_ranks() else { return };
        let mut vacated = Vec::new();
        for member in &mut run.members {
            let worker = member.worker.clone();
            match member.state {
                MemberState::Waiting => {
                    member.state = ended.clone();
                    vacated.push(worker);
                }
                MemberState::Working => {
                    actions.push(Action::DirectRun { worker, generation, directive });
                }
                MemberState::Ended { .. } => {}
            }
        }
        // The clock stands at the event that is being applied.
        let now = self.clock.unwrap_or(Timestamp(0));
        for worker in vacated {
            self.vacate(now, &worker, generation);
        }
    }

    /// Rank 0 waits for the others: they are told what to do.
    pub(super) fn open_rendezvous(
        &mut self,
        generation: Generation,
        address: String,
        actions: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get_mut(&generation) else { return };
        // A run that is on its way out gathers nobody.
        if run.directive.is_some() || !run.gathers() {
            return;
        }
        run.rendezvous = Some(address);
        let mut called = Vec::new();
        for member in run.members.iter_mut().filter(|m| m.state == MemberState::Waiting) {
            member.state = MemberState::Working;
            called.push(member.worker.clone());
        }
        for worker in called {
            if let Some(spec) = self.spec(generation, &worker) {
                actions.push(Action::StartRun { worker, spec: Box::new(spec) });
            }
        }
    }

    /// A rank has ended; its slot is free.
    pub(super) fn end_member(
        &mut self,
        now: Timestamp,
        (generation, rank): (Generation, u32),
        exit: RunExit,
        actions: &mut Vec<Action>,
    ) {
        let is_exact = self.is_exact();
        let Some(run) = self.runs.get_mut(&generation) else { return };
        let is_told = run.directive_for_ranks() == Some(Directive::Cancel);
        let is_killed = is_told && matches!(exit, RunExit::Lost { .. });
        let is_cut_short = run.has_vanished() || (is_exact && run.has_preempted_rank());
        let is_late = is_killed && is_cut_short;
        // Before the rendezvous nothing was there to save, and it was told to give up instead: however it left, it
        // was preempted, and by the engine.
        let is_preempted = run.gathers() && run.directive == Some(Directive::Preempt);
        let has_left = is_killed || exit == RunExit::Canceled;
        let exit = if is_preempted && has_left { RunExit::Preempted } else { exit };
        let Some(member) = run.member_mut(rank) else { return };
        member.state = MemberState::Ended { exit, counts: true, is_late };
        let worker = member.worker.clone();
        self.vacate(now, &worker, generation);
        self.settle(now, generation, actions);
    }

    /// A worker is gone, and with it its slot.
    pub(super) fn lose(
        &mut self,
        now: Timestamp,
        id: &WorkerId,
        cause: &LossCause,
        actions: &mut Vec<Action>,
    ) {
        let Some(worker) = self.workers.remove(id) else { return };
        self.last_loss = Some(now);
        let Some(generation) = worker.run else { return };
        self.settle_slot(now, generation);
        let (reason, counts) = match cause {
            LossCause::LeaseExpired => ("nothing was heard of its worker".to_owned(), true),
            LossCause::Died { reason } => (reason.clone(), true),
            // Somebody else needs the machine. It counted before there were rules by class.
            LossCause::Left { reason } => (reason.clone(), !self.has_classes()),
            LossCause::CoordinatorRestarted => ("the coordinator restarted".to_owned(), false),
        };
        // It was known that it would go; that it had no time to say so is nobody's fault.
        let counts = counts && !worker.draining;
        let Some(run) = self.runs.get_mut(&generation) else { return };
        let Some(rank) = run.rank_of(id) else { return };
        if let Some(member) = run.member_mut(rank) {
            member.state = MemberState::ended(RunExit::Lost { reason }, counts);
        }
        self.settle(now, generation, actions);
    }

    /// Draws the conclusions from a rank's end: the others leave too, and with the last one the run
    /// is over.
    pub(super) fn settle(
        &mut self,
        now: Timestamp,
        generation: Generation,
        actions: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get(&generation) else { return };
        if run.is_broken() {
            let ended = MemberState::ended(RunExit::Canceled, false);
            self.break_gang(generation, &ended, actions);
        }
        if !self.runs.get(&generation).is_some_and(super::Run::is_over) {
            return;
        }
        let Some(run) = self.runs.remove(&generation) else { return };
        if self.has_classes() {
            self.blame_hosts(now, &run);
        }
        self.count_trial_time(now, &run);
        self.end_run(now, generation, &run);
    }
}
