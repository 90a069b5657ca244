//! Hyperband: rounds of brackets, each successive halving from a lowest rung of its own.
//!
//! Li, Jamieson, `DeSalvo`, Rostamizadeh, Talwalkar 2018, "Hyperband: A Novel Bandit-Based Approach
//! to Hyperparameter Optimization", algorithm 1. Trial numbers say to which bracket a trial belongs:
//! the most aggressive bracket comes first, and after the last another round begins. A rung of a
//! bracket is decided when all who entered it have a result or are over: the best
//! `n_(i+1) = floor(n eta^-(i+1))` go on, the others stop. Slots that would wait for a rung begin the
//! next bracket, as in `HpBandSter`.

use std::ops::Range;

use muster_common::goal::{Goal, Merit};
use muster_common::manifest::Bracket;

use super::asha::{Promotion, Standing, order};

/// One bracket of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name for people, from 1: round and bracket.
    pub round: u32,
    /// Bracket within the round, from 1.
    pub bracket: u32,
    /// Index of its lowest rung.
    pub first_rung: usize,
    /// Numbers of its trials.
    pub trials: Range<u32>,
    /// So many enter each of its rungs, lowest first.
    pub quotas: Vec<u64>,
}

/// A trial as its bracket sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Number of the trial.
    pub trial: u32,
    /// Its results, lowest rung of the bracket first.
    pub merits: Vec<Merit>,
    /// It waits at its last rung.
    pub waits: bool,
    /// Nothing can happen to it any more.
    pub is_over: bool,
}

/// A decided rung.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Index of the rung.
    pub rung: usize,
    /// Those that wait and go on, best first.
    pub promoted: Vec<Promotion>,
    /// Those that wait and stop.
    pub stopped: Vec<Promotion>,
}

/// The bracket of a trial among at most `max_trials`.
pub fn group_of(brackets: &[Bracket], eta: u32, number: u32, max_trials: u32) -> Option<Group> {
    let size = |bracket: &Bracket| {
        let num = bracket.num_trials.first().copied().unwrap_or(0);
        u32::try_from(num).unwrap_or(u32::MAX)
    };
    let per_round = brackets.iter().map(size).fold(0u32, u32::saturating_add).max(1);
    let index = number.checked_sub(1)?;
    let round = index / per_round;
    let mut begin = round.saturating_mul(per_round).saturating_add(1);
    for (place, bracket) in (1..).zip(brackets) {
        let end = begin.saturating_add(size(bracket));
        if number < end {
            let end = end.min(max_trials.saturating_add(1));
            let num = u64::from(end.saturating_sub(begin));
            let quota = |i: u32| num / u64::from(eta.max(2)).saturating_pow(i);
            let depth = u32::try_from(bracket.num_trials.len()).unwrap_or(u32::MAX);
            return Some(Group {
                round: round + 1,
                bracket: place,
                first_rung: bracket.first_rung,
                trials: begin..end,
                quotas: (0..depth).map(quota).collect(),
            });
        }
        begin = end;
    }
    None
}

/// The groups of all trials, in their order.
pub fn groups(brackets: &[Bracket], eta: u32, max_trials: u32) -> impl Iterator<Item = Group> + '_ {
    let from = move |number: u32| {
        let next = (number <= max_trials).then_some(number)?;
        group_of(brackets, eta, next, max_trials)
    };
    std::iter::successors(from(1), move |group| from(group.trials.end))
}

/// The rungs of a group that are decided, with those that still wait at them. `members` are those of
/// its trials that exist.
pub fn decided(goal: &Goal, group: &Group, members: &[Member]) -> Vec<Decided> {
    let mut decided = Vec::new();
    if members.len() < group.trials.len() {
        return decided;
    }
    let mut entrants: Vec<&Member> = members.iter().collect();
    for (index, quota) in group.quotas.iter().enumerate().skip(1) {
        let below = index - 1;
        if entrants.iter().any(|member| member.merits.len() <= below && !member.is_over) {
            break;
        }
        let mut standings: Vec<Standing> = entrants
            .iter()
            .filter_map(|member| {
                let merit = *member.merits.get(below)?;
                let waits = member.waits && member.merits.len() == index;
                Some(Standing { trial: member.trial, merit, waits })
            })
            .collect();
        order(goal, &mut standings);
        let num_results = standings.len();
        let rung = group.first_rung + below;
        let placed = |(place, standing): (usize, &Standing)| Promotion {
            trial: standing.trial,
            rung,
            merit: standing.merit,
            place,
            num_results,
        };
        let num_promoted = usize::try_from(*quota).unwrap_or(usize::MAX);
        let goes_on = |(place, standing): &(usize, &Standing)| {
            *place <= num_promoted && standing.merit.is_finite()
        };
        let all: Vec<(usize, &Standing)> = (1..).zip(&standings).collect();
        let (up, out): (Vec<_>, Vec<_>) = all.into_iter().partition(goes_on);
        let promoted_trials: Vec<u32> = up.iter().map(|(_, standing)| standing.trial).collect();
        let waiting = |entries: Vec<(usize, &Standing)>| -> Vec<Promotion> {
            entries.into_iter().filter(|(_, standing)| standing.waits).map(placed).collect()
        };
        decided.push(Decided { rung, promoted: waiting(up), stopped: waiting(out) });
        entrants.retain(|member| promoted_trials.contains(&member.trial));
    }
    decided
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::{Budget, HalvingSettings};
    use muster_common::objective::{Mode, Objective, ObjectiveMetric};
    use proptest::prelude::*;

    fn accuracy() -> Goal {
        Objective { metric: ObjectiveMetric::Accuracy, mode: Mode::Max }.into()
    }

    fn brackets() -> Vec<Bracket> {
        let halving = HalvingSettings { reduction_factor: 3, min_budget: Budget::Steps(1) };
        halving.brackets(Budget::Steps(81))
    }

    fn member(trial: u32, values: &[f64]) -> Member {
        let merits = values.iter().copied().map(Merit::from).collect();
        Member { trial, merits, waits: true, is_over: false }
    }

    #[test]
    fn numbers_say_the_bracket() {
        let brackets = brackets();
        let all: Vec<Group> = groups(&brackets, 3, 300).collect();
        // 81 + 34 + 15 + 8 + 5 = 143 trials in a round.
        let found: Vec<(u32, u32, usize, Range<u32>)> =
            all.iter().map(|g| (g.round, g.bracket, g.first_rung, g.trials.clone())).collect();
        assert_eq!(found[..3], [(1, 1, 0, 1..82), (1, 2, 1, 82..116), (1, 3, 2, 116..131)]);
        assert_eq!(found[4..6], [(1, 5, 4, 139..144), (2, 1, 0, 144..225)]);
        // The last bracket is cut off by the number of trials, and so are its quotas.
        let last = all.last().unwrap();
        assert_eq!((last.trials.clone(), last.quotas.clone()), (287..301, vec![14, 4, 1, 0, 0]));
        assert_eq!(all[0].quotas, [81, 27, 9, 3, 1]);
        assert_eq!(all[1].quotas, [34, 11, 3, 1]);
    }

    #[test]
    fn a_rung_is_decided_when_all_have_a_result_or_are_over() {
        let group =
            Group { round: 1, bracket: 1, first_rung: 2, trials: 1..7, quotas: vec![6, 2, 0] };
        let mut members: Vec<Member> = (1..=6).map(|n| member(n, &[f64::from(n) / 10.0])).collect();
        members[0].merits.clear();
        assert_eq!(decided(&accuracy(), &group, &members), [], "one is still on its way");
        assert_eq!(decided(&accuracy(), &group, &members[1..]), [], "one does not exist yet");
        members[0].is_over = true;
        let found = decided(&accuracy(), &group, &members);
        let trials =
            |promotions: &[Promotion]| promotions.iter().map(|p| p.trial).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "the next rung waits for those that go on");
        assert_eq!((found[0].rung, trials(&found[0].promoted)), (2, vec![6, 5]));
        assert_eq!(trials(&found[0].stopped), [4, 3, 2]);
        assert_eq!((found[0].promoted[1].place, found[0].promoted[1].num_results), (2, 5));
    }

    proptest! {
        /// Whatever the results, as many trials train at each rung as the paper's table says, unless
        /// they diverge.
        #[test]
        fn each_rung_is_entered_by_its_quota(seed: u64, diverges: bool) {
            let group = group_of(&brackets(), 3, 90, 300).unwrap();
            let mut draws = muster_common::seed::Seed(seed).draws();
            let mut value = || if diverges && draws.below(40) == 0 { f64::NAN } else { draws.unit() };
            let mut members: Vec<Member> =
                group.trials.clone().map(|n| member(n, &[value()])).collect();
            for (index, quota) in group.quotas.iter().enumerate().skip(1) {
                let found = decided(&accuracy(), &group, &members);
                prop_assert_eq!(found.len(), index);
                let last = &found[index - 1];
                prop_assert!(last.promoted.len() as u64 <= *quota);
                prop_assert!(diverges || last.promoted.len() as u64 == *quota);
                for stopped in &last.stopped {
                    let member = members.iter_mut().find(|m| m.trial == stopped.trial).unwrap();
                    (member.waits, member.is_over) = (false, true);
                }
                for promoted in last.promoted.clone() {
                    let better = |s: &Promotion| s.merit.first() > promoted.merit.first();
                    prop_assert!(!last.stopped.iter().any(better));
                    let trial = promoted.trial;
                    members.iter_mut().find(|m| m.trial == trial).unwrap().merits.push(value().into());
                }
            }
        }
    }
}
