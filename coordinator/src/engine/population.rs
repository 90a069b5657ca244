//! Population-based training in the engine: a member's comparison at a rung, the checkpoints that
//! members may still go on from, and whose turn it is.

use std::collections::BTreeSet;

use muster_common::id::Generation;
use muster_common::manifest::{Assignment, ParameterValue, PopulationSettings, PrunerSettings};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rules;
use super::experiment::Experiment;
use super::trial::{StopReason, Trial, TrialKind, TrialState};
use crate::sweep::asha::{Standing, order};
use crate::sweep::population::{Fate, explore, fate, quantile_size};

/// A trial went on from another one's checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Descent {
    /// Index of the rung at which.
    pub rung: usize,
    /// The other one's checkpoint.
    pub parent: CheckpointKey,
    /// The trial's own hyperparameters before.
    pub before: Assignment,
    /// Number of the trial whose random choices go with the checkpoint.
    pub seed_of: u32,
    /// The trial's own run that had just ended: what later ones made comes from the other one's checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Generation>,
}

impl Descent {
    /// Whether a checkpoint of the trial was made before. Steps do not say it: whoever takes over another batch size
    /// goes on from another step, which may be one that the trial itself has passed already. Older rules wrote down
    /// nothing else.
    fn is_later_than(&self, checkpoint: &CheckpointKey) -> bool {
        match self.after {
            Some(after) => checkpoint.generation <= after,
            None => checkpoint.step <= self.parent.step,
        }
    }
}

impl Trial {
    /// The checkpoint that its next run goes on from.
    pub fn resume_point(&self) -> Option<&CheckpointKey> {
        self.origin.as_ref().or_else(|| self.checkpoints.last())
    }

    /// Checkpoints that stand in for the one it goes on from, newest first. None for one that has taken
    /// over another's: its own were made with other hyperparameters.
    pub(super) fn earlier_checkpoints(&self) -> Vec<CheckpointKey> {
        if !self.lineage.is_empty() || self.origin.is_some() {
            return Vec::new();
        }
        self.checkpoints.iter().rev().skip(1).cloned().collect()
    }

    /// The hyperparameters that its result at a rung was reached with.
    pub fn assignment_at(&self, rung: usize) -> &Assignment {
        let later = self.lineage.iter().find(|descent| descent.rung >= rung);
        later.map_or(&self.assignment, |descent| &descent.before)
    }

    /// The hyperparameters that a checkpoint of one of its results was reached with.
    pub fn assignment_of(&self, checkpoint: &CheckpointKey) -> &Assignment {
        let place = self.results.iter().position(|result| result.checkpoint == *checkpoint);
        place.map_or(&self.assignment, |place| self.assignment_at(self.first_rung + place))
    }

    /// Number of the trial whose random choices led to its result at a rung.
    fn seed_at(&self, rung: usize) -> u32 {
        let before = self.lineage.iter().rev().find(|descent| descent.rung < rung);
        before.map_or_else(|| self.first_seed(), |descent| descent.seed_of)
    }

    /// Number of the trial whose random choices it goes on with, if these are not its own.
    pub(super) fn seed_of(&self) -> Option<u32> {
        let last = self.lineage.last().map_or_else(|| self.first_seed(), |last| last.seed_of);
        (last != self.number).then_some(last)
    }

    /// Number of the trial whose random choices it began with.
    fn first_seed(&self) -> u32 {
        self.began_as.unwrap_or(self.number)
    }

    /// Number of the trial whose random choices led to one of its checkpoints.
    pub(super) fn seed_of_checkpoint(&self, checkpoint: &CheckpointKey) -> u32 {
        let before = self.lineage.iter().rev().find(|descent| !descent.is_later_than(checkpoint));
        before.map_or_else(|| self.first_seed(), |descent| descent.seed_of)
    }
}

impl Experiment {
    pub(super) fn population(&self) -> Option<&PopulationSettings> {
        match self.manifest.searcher.as_ref().map(|searcher| &searcher.pruner) {
            Some(PrunerSettings::Population(settings)) => Some(settings),
            _ => None,
        }
    }

    /// A member's run has ended at a rung, or has `diverged` at a step on its way to the next one: whether the member
    /// goes on as it is or from somebody else's checkpoint.
    pub(super) fn judge_member(
        &mut self,
        now: Timestamp,
        (number, generation): (u32, Generation),
        diverged: Option<u64>,
        rules: Rules,
    ) {
        let Some(settings) = self.population().cloned() else { return };
        let goal = self.goal();
        let Some(trial) = self.trials.get(&number) else { return };
        let Some(rung) = trial.rung().checked_sub(1) else { return };
        let standings = self.standings().into_iter().nth(rung).unwrap_or_default();
        let num_before = trial.lineage.iter().filter(|descent| descent.rung == rung).count();
        let seed = self.manifest.seed.child("population", u64::from(number));
        let seed = seed.child("rung", rung as u64).child("descent", num_before as u64);
        let is_kept = |source: u32| !rules.are_strict() || self.keeps_result(source, rung);
        let found = fate(&settings, &goal, &standings, number, diverged.is_some(), is_kept, seed);
        let place = self.rung_text(rung);
        let is_patient = num_before <= self.manifest.max_restarts as usize;
        let (source, text) = match (found, diverged) {
            (Fate::Exploits { source, text }, None) => (source, format!("at {place}: {text}")),
            (Fate::Exploits { source, text }, Some(step)) if is_patient => {
                (source, format!("after it diverged at step {step}; at {place} {text}"))
            }
            (Fate::GoesOn(text), None) => {
                self.set_state(number, TrialState::Pending);
                return self.decide(now, Some(number), format!("goes on at {place}: {text}"));
            }
            (_, Some(step)) => {
                let reason = StopReason::Diverged { step };
                self.set_state(number, TrialState::Stopped { reason });
                let text = format!("stopped: diverged at step {step}, and nobody to go on from");
                return self.decide(now, Some(number), text);
            }
        };
        let after = rules.are_exact().then_some(generation);
        self.exploit(now, (number, after), (source, rung), &text, seed);
    }

    /// Whether the checkpoint of a trial's result at a rung is kept. Of several objectives the order of a rung can
    /// change with every result, so one that was deleted may come up again.
    fn keeps_result(&self, number: u32, rung: usize) -> bool {
        let trial = self.trials.get(&number);
        let result = trial.and_then(|trial| Some((trial, trial.result_at(rung)?)));
        result.is_some_and(|(trial, result)| trial.checkpoints.contains(&result.checkpoint))
    }

    fn set_state(&mut self, number: u32, state: TrialState) {
        if let Some(trial) = self.trials.get_mut(&number) {
            trial.state = state;
        }
    }

    /// Lets a trial go on from what another one had at a rung; `after` is its run that has ended.
    fn exploit(
        &mut self,
        now: Timestamp,
        (number, after): (u32, Option<Generation>),
        (source, rung): (u32, usize),
        why: &str,
        seed: muster_common::seed::Seed,
    ) {
        let Some(settings) = self.population().cloned() else { return };
        let Some(other) = self.trials.get(&source) else { return };
        let Some(parent) = other.result_at(rung).map(|result| result.checkpoint.clone()) else {
            return;
        };
        let (taken, seed_of) = (other.assignment_at(rung).clone(), other.seed_at(rung));
        let space = &self.manifest.hyperparameters;
        let next = explore(&settings, space, &taken, self.functions, seed.child("explore", 0));
        let text = format!(
            "exploits t{source} {why}; it goes on from step {} of run {} with {}",
            parent.step,
            parent.generation,
            changes(&taken, &next)
        );
        let Some(trial) = self.trials.get_mut(&number) else { return };
        let before = std::mem::replace(&mut trial.assignment, next);
        trial.lineage.push(Descent { rung, parent: parent.clone(), before, seed_of, after });
        trial.origin = Some(parent);
        trial.state = TrialState::Pending;
        self.decide(now, Some(number), text);
    }

    /// Whether a member whose run diverged may go on from another one's checkpoint.
    pub(super) fn has_rung_behind(&self, number: u32, generation: Generation) -> bool {
        let is_its = |trial: &Trial| trial.state == TrialState::Running { generation };
        let trial = self.trials.get(&number).filter(|trial| is_its(trial));
        self.population().is_some() && trial.is_some_and(|trial| trial.rungs_passed > 0)
    }

    /// The member whose turn it is: of those that have trained least the one that was best, so that
    /// those that may exploit come last and are compared with all others. `None`: a new one, if there is
    /// any left.
    pub(super) fn next_member(&self, now: Timestamp) -> Option<u32> {
        let goal = self.goal();
        let due = || {
            let pending = self.trials.of(TrialKind::Pending).map(|(_, trial)| trial);
            pending.filter(|trial| trial.is_due(now))
        };
        let rung = due().map(Trial::rung).min()?;
        let mut standings: Vec<Standing> = due()
            .filter(|trial| trial.rung() == rung)
            .map(|trial| {
                let merit = trial.last_merit(&goal);
                Standing { trial: trial.number, merit, waits: true }
            })
            .collect();
        order(&goal, &mut standings);
        let is_complete = self.trials.len() >= self.max_trials() as usize;
        let next = standings.first()?;
        (is_complete || rung == 0).then_some(next.trial)
    }

    /// Checkpoints that members go on from, or still may.
    pub(super) fn wanted_checkpoints(&self) -> BTreeSet<CheckpointKey> {
        let mut wanted = BTreeSet::new();
        let Some(settings) = self.population() else { return wanted };
        let goal = self.goal();
        let open = || self.trials.values().filter(|trial| !trial.is_terminal());
        wanted.extend(open().filter_map(|trial| trial.origin.clone()));
        let is_complete = self.trials.len() >= self.max_trials() as usize;
        let least =
            if is_complete { open().map(|trial| trial.rungs_passed).min() } else { Some(0) };
        let Some(least) = least else { return wanted };
        // One that diverges goes on from its last rung, maybe from another place than the first.
        let num_sources = quantile_size(settings.quantile, self.max_trials() as usize).max(1) + 1;
        for (rung, mut standings) in self.standings().into_iter().enumerate() {
            if rung + 1 < least {
                continue;
            }
            order(&goal, &mut standings);
            for standing in standings.iter().take(num_sources) {
                let trial = self.trials.get(&standing.trial);
                let result = trial.and_then(|trial| trial.result_at(rung));
                wanted.extend(result.map(|result| result.checkpoint.clone()));
            }
        }
        wanted
    }
}

/// What differs, for people.
fn changes(from: &Assignment, to: &Assignment) -> String {
    let word = |value: Option<&ParameterValue>| {
        value.map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let changed = names.into_iter().filter(|name| from.get(name) != to.get(name));
    let texts: Vec<String> = changed
        .map(|name| format!("{name} {} -> {}", word(from.get(name)), word(to.get(name))))
        .collect();
    if texts.is_empty() { "the same hyperparameters".to_owned() } else { texts.join(", ") }
}
