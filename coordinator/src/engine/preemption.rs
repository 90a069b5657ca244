//! Taking slots from those that have less right to them: runs that were lent slots which are kept for a
//! gang, and runs of experiments with less priority. Both save themselves first and go on later, and it
//! costs them no restart.

use muster_common::id::{ExperimentId, Generation};
use muster_common::run::{Directive, Task};
use muster_common::time::Timestamp;

use super::run::{Member, MemberState, RunKind};
use super::{Action, Engine, Run};

/// A run that could leave.
struct Victim {
    generation: Generation,
    slots: u32,
    is_lent: bool,
    priority: i32,
}

impl Engine {
    /// Slots that come free without further doing and are promised to nobody.
    fn num_leaving(&self) -> u32 {
        let leaving = self.runs.of(RunKind::Leaving).map(|(_, run)| run);
        let stays_away = |run: &&Run| {
            let returns = run.grows || run.is_broken();
            !returns || (self.is_exact() && !self.comes_back(run))
        };
        let num_working = |run: &Run| u32::try_from(run.num_working()).unwrap_or(u32::MAX);
        let yielded = |run: &Run| self.num_yielded(run).unwrap_or_else(|| num_working(run));
        leaving.filter(stays_away).map(yielded).sum()
    }

    /// Whether a gang that is on its way out goes on when it has left.
    pub(super) fn comes_back(&self, run: &Run) -> bool {
        let experiment = self.experiments.get(&run.experiment);
        let Some(experiment) = experiment.filter(|e| !e.is_ended() && !e.paused) else {
            return false;
        };
        let trial = run.task.trial().and_then(|id| experiment.trials.get(&id.number));
        !self.is_exact() || trial.is_some_and(|trial| !trial.held && !trial.is_terminal())
    }

    /// Slots of a run that others can have when it leaves: not those of workers that leave with it, nor of machines
    /// that are set aside. `None` under older rules, which took all for that.
    fn num_yielded(&self, run: &Run) -> Option<u32> {
        if !self.is_exact() {
            return None;
        }
        let stays = |member: &&Member| {
            let has_slot = !matches!(member.state, MemberState::Ended { .. });
            let worker = self.workers.get(&member.worker).filter(|worker| !worker.draining);
            has_slot && worker.is_some_and(|worker| !self.is_aside(&worker.host))
        };
        Some(u32::try_from(run.members.iter().filter(stays).count()).unwrap_or(u32::MAX))
    }

    /// Slots that others can have when a run that was told nothing yet leaves.
    fn num_takeable(&self, run: &Run) -> u32 {
        self.num_yielded(run).unwrap_or_else(|| run.world_size())
    }

    /// Slots of runs that were lent theirs and have not been told to leave.
    pub(super) fn num_lent(&self) -> u32 {
        self.runs.of(RunKind::Lent).map(|(_, run)| self.num_takeable(run)).sum()
    }

    /// Slots that a run which needs many could have if all that were lent came back.
    pub(super) fn num_recallable(&self, num_free: usize) -> u32 {
        let num_free = u32::try_from(num_free).unwrap_or(u32::MAX);
        num_free.saturating_add(self.num_lent()).saturating_add(self.num_leaving())
    }

    /// Tells runs to leave if that lets the first who waits begin.
    pub(super) fn make_room(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.has_shares() || self.runs.is_empty() || !self.may_take() {
            return;
        }
        let Some((id, wanted)) = self.plan_room(now) else { return };
        for victim in wanted {
            let Some(run) = self.runs.get(&victim.generation) else { continue };
            let (loser, number) = (run.experiment.clone(), run.task.trial().map(|t| t.number));
            let generation = victim.generation;
            let priority = self.experiments.get(&id).map_or(0, |experiment| experiment.priority);
            let text = if victim.is_lent {
                format!("run {generation} gives back the slots that {id} waits for")
            } else {
                format!(
                    "run {generation} leaves its slots to {id}: priority {priority} is above {}",
                    victim.priority
                )
            };
            if let Some(experiment) = self.experiments.get_mut(&loser) {
                experiment.decide(now, number, text);
            }
            self.direct(now, generation, Directive::Preempt, actions);
        }
    }

    /// Whether there is anything to take at all: asked at every event.
    fn may_take(&self) -> bool {
        if self.runs.count(RunKind::Lent) > 0 {
            return true;
        }
        let mut priorities = self.experiments.of(()).map(|(_, experiment)| experiment.priority);
        let first = priorities.next();
        priorities.any(|priority| Some(priority) != first)
    }

    /// Who is to leave for whom.
    fn plan_room(&self, now: Timestamp) -> Option<(ExperimentId, Vec<Victim>)> {
        let num_usable = self.num_usable();
        let (first, slots, most) = self.line().into_iter().find_map(|experiment| {
            let slots = experiment.slots_wanted(now)?;
            let room = self.room(experiment).slots;
            let fits = slots.min() <= num_usable.min(room);
            let most = experiment.num_startable(now).saturating_mul(slots.min()).min(room);
            fits.then_some((experiment, slots, most))
        })?;
        let num_free = self.num_free().saturating_sub(self.num_promised());
        let present =
            u32::try_from(num_free).unwrap_or(u32::MAX).saturating_add(self.num_leaving());
        let least = slots.min();
        let mut victims: Vec<Victim> = Vec::new();
        for (generation, run) in self.runs.iter().filter(|(_, run)| run.directive.is_none()) {
            let Some(owner) = self.experiments.get(&run.experiment) else { continue };
            let is_lower = owner.priority < first.priority && matches!(run.task, Task::Train(_));
            let is_lent = run.lent && owner.priority <= first.priority;
            let slots = self.num_takeable(run);
            if owner.id != first.id && (is_lower || is_lent) && slots > 0 {
                victims.push(Victim {
                    generation: *generation,
                    slots,
                    is_lent: run.lent,
                    priority: owner.priority,
                });
            }
        }
        // What was lent first, then the least priority, then what has just begun.
        victims.sort_by_key(|v| (!v.is_lent, v.priority, std::cmp::Reverse(v.generation)));
        let takeable: u32 = victims.iter().map(|victim| victim.slots).sum();
        let most = most.min(present.saturating_add(takeable));
        let wanted = most - most % least;
        if wanted <= present {
            return None;
        }
        let mut missing = wanted - present;
        let mut chosen = Vec::new();
        for victim in victims {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(victim.slots);
            chosen.push(victim);
        }
        Some((first.id.clone(), chosen))
    }
}
