//! What must hold after every event. Tests and the simulation check it each time.

use std::collections::BTreeSet;

use muster_common::manifest::Slots;
use muster_common::run::Task;

use super::Engine;
use super::experiment::{Part, Phase};
use super::run::MemberState;
use super::trial::TrialState;

impl Engine {
    /// The first broken rule, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_slots()?;
        self.check_gangs()?;
        self.check_line()?;
        self.check_shares()?;
        self.check_chosen()?;
        self.experiments().try_for_each(|experiment| {
            let mut claimed = BTreeSet::new();
            let goal = experiment.goal();
            for trial in experiment.trials.values() {
                let id = experiment.trial_id(trial.number);
                if let TrialState::Running { generation } = trial.state
                    && (!self.runs.contains_key(&generation) || !claimed.insert(generation))
                {
                    return Err(format!("{id} runs as {generation}, which does not exist"));
                }
                if trial.results.len() != trial.rungs_passed
                    || trial.rung() > experiment.ladder.len()
                {
                    return Err(format!("{id} has passed {} rungs", trial.rungs_passed));
                }
                if let Some(origin) = trial.origin.as_ref().filter(|_| !trial.is_terminal()) {
                    // It may be another experiment's.
                    let owner = self.experiments.get(&origin.trial.experiment);
                    let parent = owner.and_then(|owner| owner.trials.get(&origin.trial.number));
                    if parent.is_none_or(|parent| !parent.checkpoints.contains(origin)) {
                        return Err(format!("{id} goes on from {origin}, which is not kept"));
                    }
                }
                // Whoever takes over another batch size has other steps at its rungs.
                if trial.lineage.is_empty()
                    && trial.results.windows(2).any(|pair| pair[0].step > pair[1].step)
                {
                    return Err(format!("{id} has results out of order"));
                }
                let mut kept = trial.kept_results(&goal).into_iter();
                if kept.any(|result| !trial.checkpoints.contains(&result.checkpoint)) {
                    return Err(format!("{id} has lost the checkpoint of its best result"));
                }
            }
            if experiment.trials.len() > experiment.max_trials() as usize {
                return Err(format!("{} has too many trials", experiment.id));
            }
            if experiment.is_ended() && experiment.trials.values().any(|trial| !trial.is_terminal())
            {
                return Err(format!("{} has ended before its trials", experiment.id));
            }
            if let Phase::Preparing { parts } = &experiment.phase {
                let lost =
                    |part: &Part| matches!(part, Part::Running(by) if !self.runs.contains_key(by));
                if parts.iter().any(lost) {
                    return Err(format!("{} waits for a part nobody does", experiment.id));
                }
            }
            Ok(())
        })
    }

    /// What is exported, or was, is there.
    fn check_chosen(&self) -> Result<(), String> {
        for experiment in self.experiments() {
            let Some(best) = &experiment.best else { continue };
            let trial = experiment.trials.get(&best.trial);
            if trial.is_none_or(|trial| !trial.checkpoints.contains(&best.checkpoint)) {
                return Err(format!(
                    "{} has lost the checkpoint that it has chosen",
                    experiment.id
                ));
            }
        }
        Ok(())
    }

    /// A slot is used by one rank of one run, and both sides say so.
    fn check_slots(&self) -> Result<(), String> {
        for (id, worker) in self.workers.iter() {
            if let Some(generation) = worker.run {
                let run = self.runs.get(&generation);
                let member = run.and_then(|run| run.member(run.rank_of(id)?));
                if member.is_none_or(|m| matches!(m.state, MemberState::Ended { .. })) {
                    return Err(format!(
                        "worker {id} claims run {generation}, which is not its own"
                    ));
                }
            }
        }
        for (generation, run) in self.runs.iter() {
            for (rank, member) in run.members.iter().enumerate() {
                let claims = self.workers.get(&member.worker).map(|worker| worker.run);
                let is_over = matches!(member.state, MemberState::Ended { .. });
                if is_over == (claims == Some(Some(*generation))) {
                    let state = if is_over { "has ended and keeps" } else { "lacks" };
                    return Err(format!("rank {rank} of run {generation} {state} its slot"));
                }
            }
            if generation.0 > self.last_generation {
                return Err(format!("run {generation} is newer than the counter"));
            }
        }
        Ok(())
    }

    /// A gang is whole, and a trial has one generation alive.
    fn check_gangs(&self) -> Result<(), String> {
        let mut alive = BTreeSet::new();
        for (generation, run) in self.runs.iter() {
            let experiment = self.experiments.get(&run.experiment);
            let slots = experiment.map(|experiment| experiment.manifest.resources.slots);
            let is_training = matches!(run.task, Task::Train(_));
            let (least, most) = match slots.filter(|_| is_training) {
                Some(slots) => (slots.min(), slots.max()),
                None => (1, 1),
            };
            if !(least..=most).contains(&run.world_size()) {
                return Err(format!("run {generation} has {} ranks", run.world_size()));
            }
            let workers: BTreeSet<_> = run.members.iter().map(|m| &m.worker).collect();
            if workers.len() != run.members.len() {
                return Err(format!("run {generation} has a slot twice"));
            }
            if run.is_over() {
                return Err(format!("run {generation} is over and in the books"));
            }
            let called = run.members.iter().skip(1).any(|m| m.state == MemberState::Working);
            if called && run.rendezvous.is_none() {
                return Err(format!("run {generation} was called to no rendezvous"));
            }
            if run.is_broken() && run.directive.is_none() {
                return Err(format!("run {generation} has lost a rank and goes on"));
            }
            if let Some(trial) = run.task.trial().filter(|_| is_training)
                && !alive.insert(trial)
            {
                return Err(format!("{trial} has two generations alive"));
            }
        }
        Ok(())
    }

    /// Nobody has more than they may, and the books are right.
    fn check_shares(&self) -> Result<(), String> {
        if self.held != self.count_held() {
            return Err(format!("the books say {:?}", self.held));
        }
        for experiment in self.experiments() {
            let most = experiment.manifest.resources.max_slots;
            if most.is_some_and(|most| self.held(&experiment.id) > most) {
                return Err(format!("{} has more slots than its max_slots", experiment.id));
            }
        }
        for (project, held) in self.held_by_project() {
            let most = self.policy(&project).max_slots;
            if most.is_some_and(|most| held > most) {
                return Err(format!("project {project} has more slots than its quota"));
            }
        }
        Ok(())
    }

    /// An idle cluster has nothing that could be started on it, unless a lost worker is waited for.
    fn check_line(&self) -> Result<(), String> {
        let Some(now) = self.clock.filter(|_| self.runs.is_empty()) else { return Ok(()) };
        let num_usable = self.num_usable();
        let wanted = self.experiments().filter_map(|e| {
            let slots = e.slots_wanted(now)?;
            (!self.has_shares() || slots.min() <= self.room(e).slots).then_some((e, slots))
        });
        let startable: Vec<_> = wanted.filter(|(_, slots)| slots.min() <= num_usable).collect();
        let is_graceful =
            |slots: Slots| self.last_loss.is_some_and(|at| at.after(slots.grace()) > now);
        match startable.first() {
            Some((experiment, slots))
                if !startable.iter().any(|(_, slots)| is_graceful(*slots)) =>
            {
                Err(format!("{} waits for {slots} of an idle cluster", experiment.id))
            }
            _ => Ok(()),
        }
    }
}
