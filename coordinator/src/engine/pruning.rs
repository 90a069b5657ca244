//! What the pruner makes of results: who is promoted, who goes on, who stops, and when the whole
//! search is over because a trial is good enough. Every decision is written down with the numbers that
//! were compared.

use muster_common::goal::Merit;
use muster_common::id::{ExperimentId, Generation};
use muster_common::manifest::{HalvingSettings, PrunerSettings};
use muster_common::objective::Mode;
use muster_common::run::Directive;
use muster_common::time::Timestamp;

use super::experiment::{Experiment, Phase};
use super::trial::{StopReason, Trial, TrialState};
use super::{Action, Engine, Rules};
use crate::sweep::asha::{self, Promotion, Standing, order};
use crate::sweep::hyperband::{self, Decided, Group, Member};
use crate::sweep::{Verdict, patience, percentile};

impl Engine {
    /// Tells the other runs of an experiment to leave when one has reached what was asked for.
    pub(super) fn leave_at_target(
        &mut self,
        now: Timestamp,
        id: &ExperimentId,
        but: Generation,
        actions: &mut Vec<Action>,
    ) {
        let others: Vec<Generation> = self
            .runs
            .iter()
            .filter(|(generation, run)| run.experiment == *id && **generation != but)
            .map(|(generation, _)| *generation)
            .collect();
        for generation in others {
            self.direct(now, generation, Directive::Cancel, actions);
        }
    }
}

impl Experiment {
    fn pruner(&self) -> &PrunerSettings {
        self.manifest.searcher.as_ref().map_or(&PrunerSettings::None, |s| &s.pruner)
    }

    /// The rung that a trial's first result is at.
    pub(super) fn first_rung(&self, number: u32) -> usize {
        match self.pruner() {
            PrunerSettings::Hyperband(halving) => {
                self.group(halving, number).map_or(0, |group| group.first_rung)
            }
            _ => 0,
        }
    }

    fn group(&self, halving: &HalvingSettings, number: u32) -> Option<Group> {
        let brackets = halving.brackets(self.manifest.budget);
        hyperband::group_of(&brackets, halving.reduction_factor, number, self.max_trials())
    }

    /// The bracket of a trial.
    pub fn bracket(&self, number: u32) -> Option<Group> {
        match self.pruner() {
            PrunerSettings::Hyperband(halving) => self.group(halving, number),
            _ => None,
        }
    }

    /// The next trial that leaves its rung for a higher one.
    pub(super) fn next_promotion(&self) -> Option<Promotion> {
        match self.pruner() {
            PrunerSettings::Asha(asha) => {
                let mut rungs = self.standings();
                rungs.pop(); // nobody leaves the top rung
                asha::promotion(&self.goal(), asha.reduction_factor, &rungs)
            }
            PrunerSettings::Hyperband(halving) => {
                // Highest rung first, then the older bracket.
                let mut best: Option<Promotion> = None;
                for (_, decided) in self.decided(halving) {
                    let next = decided.promoted.first().copied();
                    if next.is_some_and(|next| best.is_none_or(|best| next.rung > best.rung)) {
                        best = next;
                    }
                }
                best
            }
            _ => None,
        }
    }

    /// Decided rungs of all brackets that somebody is still in.
    fn decided(&self, halving: &HalvingSettings) -> Vec<(Group, Decided)> {
        let brackets = halving.brackets(self.manifest.budget);
        let groups = hyperband::groups(&brackets, halving.reduction_factor, self.max_trials());
        let goal = self.goal();
        let member = |trial: &Trial| Member {
            trial: trial.number,
            merits: trial.counted_merits(&goal).collect(),
            waits: trial.state == TrialState::Paused && !trial.held,
            is_over: trial.is_terminal(),
        };
        let mut decided = Vec::new();
        for group in groups {
            let trials = || self.trials.range(group.trials.clone()).map(|(_, trial)| trial);
            if trials().next().is_none() {
                break;
            }
            if trials().all(Trial::is_terminal) {
                continue;
            }
            let members: Vec<Member> = trials().map(member).collect();
            let found = hyperband::decided(&goal, &group, &members);
            decided.extend(found.into_iter().map(|decided| (group.clone(), decided)));
        }
        decided
    }

    /// Stops those that a decided rung of a bracket leaves behind.
    pub(super) fn cut_brackets(&mut self, now: Timestamp) {
        let PrunerSettings::Hyperband(halving) = self.pruner() else { return };
        if self.phase != Phase::Searching {
            return;
        }
        for (group, decided) in self.decided(&halving.clone()) {
            let index = decided.rung - group.first_rung + 1;
            let quota = group.quotas.get(index).copied().unwrap_or(0);
            let place = format!("bracket {} of round {}", group.bracket, group.round);
            for stopped in decided.stopped {
                let text =
                    format!("stopped: {}; {quota} of {place} go on", self.standing_text(&stopped));
                self.prune(now, &stopped, text);
            }
        }
    }

    /// A trial's place among the results of a rung, in words.
    pub fn standing_text(&self, standing: &Promotion) -> String {
        let Promotion { rung, merit, place, num_results, .. } = *standing;
        let words = self.goal().words(&merit);
        format!("{words} is place {place} of {num_results} at {}", self.rung_text(rung))
    }

    /// A rung by number, from 1, and budget.
    pub fn rung_text(&self, rung: usize) -> String {
        let number = rung + 1;
        match self.ladder.get(rung) {
            Some(budget) => format!("rung {number} ({budget})"),
            None => format!("rung {number}"),
        }
    }

    fn prune(&mut self, now: Timestamp, standing: &Promotion, text: String) {
        let Promotion { trial: number, place, num_results, .. } = *standing;
        if let Some(trial) = self.trials.get_mut(&number) {
            trial.state = TrialState::Stopped { reason: StopReason::Pruned { place, num_results } };
        }
        self.decide(now, Some(number), text);
    }

    /// Stops the trials that wait for a promotion that cannot come any more.
    pub(super) fn stop_waiting(&mut self, now: Timestamp) {
        let goal = self.goal();
        let factor = self.pruner().halving().map_or(1, |halving| halving.reduction_factor);
        for (rung, standings) in self.standings().into_iter().enumerate() {
            let mut ordered = standings;
            order(&goal, &mut ordered);
            let num_results = ordered.len();
            for (index, standing) in ordered.iter().enumerate().filter(|(_, s)| s.waits) {
                let (trial, merit, place) = (standing.trial, standing.merit, index + 1);
                let standing = Promotion { trial, rung, merit, place, num_results };
                let num_kept = num_results / factor.max(1) as usize;
                let text = format!(
                    "stopped: {}; the best {num_kept} go on, and no more results come",
                    self.standing_text(&standing)
                );
                self.prune(now, &standing, text);
            }
        }
    }

    /// A trial waits at a rung: pruners that decide at once say what becomes of it.
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        (number, generation): (u32, Generation),
        rules: Rules,
    ) {
        if self.population().is_some() {
            return self.judge_member(now, (number, generation), None, rules);
        }
        let Some(trial) = self.trials.get(&number) else { return };
        let Some(rung) = trial.rung().checked_sub(1) else { return };
        let goal = self.goal();
        let of_rung = |standings: Vec<Vec<Standing>>| standings.into_iter().nth(rung);
        let own: Vec<Merit> = trial.merits(&goal).collect();
        let verdict = match self.pruner() {
            PrunerSettings::AshaStopping(asha) => {
                let standings = of_rung(self.standings()).unwrap_or_default();
                asha::verdict(&goal, asha.reduction_factor, &standings, number, rules.ties())
            }
            PrunerSettings::Percentile(settings) => {
                let standings = of_rung(self.standings()).unwrap_or_default();
                let others = standings.iter().filter(|standing| standing.trial != number);
                let others: Vec<Merit> = others.map(|standing| standing.merit).collect();
                percentile::verdict(settings, &goal, &own, &others)
            }
            PrunerSettings::Patience(settings) => patience::verdict(settings, &goal, &own),
            PrunerSettings::None
            | PrunerSettings::Asha(_)
            | PrunerSettings::Hyperband(_)
            | PrunerSettings::Population(_) => return,
        };
        let (state, word) = match &verdict {
            Verdict::GoOn(_) => (TrialState::Pending, "goes on"),
            Verdict::Stop(text) => {
                let reason = StopReason::Rule { text: text.clone() };
                (TrialState::Stopped { reason }, "stopped")
            }
        };
        let place = self.rung_text(rung);
        if let Some(trial) = self.trials.get_mut(&number) {
            trial.state = state;
        }
        self.decide(now, Some(number), format!("{word} at {place}: {}", verdict.text()));
    }

    /// Whether a trial's last result is as good as was asked for; then the search is over.
    pub(super) fn check_target(&mut self, now: Timestamp, number: u32) {
        let Some(target) = self.manifest.searcher.as_ref().and_then(|s| s.target) else { return };
        let goal = self.goal();
        let objective = goal.objective;
        let Some(trial) = self.trials.get(&number) else { return };
        let Some(last) = trial.results.last() else { return };
        let merit = goal.merit(&last.evaluation);
        let value = merit.first();
        let is_good = match objective.mode {
            Mode::Max => value >= target,
            Mode::Min => value <= target,
        };
        if !is_good || !merit.is_feasible() || self.target_reached.is_some() {
            return;
        }
        self.target_reached = Some(number);
        let name = objective.metric.name();
        let text = format!("{name} {value:.4} reaches the target of {target}: the search ends");
        self.decide(now, Some(number), text);
        let open: Vec<u32> = self
            .trials
            .values()
            .filter(|trial| trial.number != number && !trial.is_terminal())
            .map(|trial| trial.number)
            .collect();
        for other in open {
            if let Some(trial) = self.trials.get_mut(&other) {
                let reason = StopReason::TargetReached { by: number };
                trial.state = TrialState::Stopped { reason };
            }
            let text = format!("stopped: t{number} reached the target, {name} {value:.4}");
            self.decide(now, Some(other), text);
        }
    }
}
