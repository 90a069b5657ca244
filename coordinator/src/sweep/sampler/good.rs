//! Which observations are the good ones.
//!
//! Of one objective the best share. Of several, whole fronts as long as they fit, and of the next one
//! those that cover the most volume together; each good one weighs what it adds to the volume of all
//! (Ozaki, Tanigaki, Watanabe, Onishi 2020, "Multiobjective Tree-Structured Parzen Estimator for
//! Computationally Expensive Optimization Problems", and 2022 under the shorter title, sections 3.2 and
//! 3.3). Where there are constraints, those that keep all come first and the others by how far they
//! break them, as in Optuna's `TPESampler`.

use muster_common::goal::{Goal, Merit};

use super::Observation;
use crate::sweep::front::{chosen, contributions, fronts, unit_costs};

/// Share of the observations that are the good ones, and most of them.
const GOOD_SHARE: f64 = 0.1;
const GOOD_MAX: usize = 25;
/// Where volumes end, in extents of what is compared, from the best on.
const REFERENCE: f64 = 1.1;
/// Weight of a good one that adds no volume.
const LEAST_WEIGHT: f64 = 1e-12;

/// One side of a split.
pub(super) struct Seen<'a> {
    /// Oldest first.
    pub(super) observations: Vec<&'a Observation<'a>>,
    /// How much each weighs, at most 1; absent: their age says it.
    pub(super) weights: Option<Vec<f64>>,
}

/// The good observations of a rung and all others. Trials that have not reached the rung are with
/// the others: running ones are taken to come out badly, so that workers at the same time try
/// different things.
pub(super) fn split<'a>(
    history: &'a [Observation<'a>],
    rung: usize,
    goal: &Goal,
) -> (Seen<'a>, Seen<'a>) {
    let results: Vec<(usize, Merit)> = history
        .iter()
        .enumerate()
        .filter_map(|(index, observation)| Some((index, observation.merit_at(rung)?)))
        .collect();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of trials"
    )]
    let num_good = ((GOOD_SHARE * results.len() as f64).ceil() as usize).min(GOOD_MAX);
    let mut good = if goal.is_single() {
        best(goal, results, num_good)
    } else {
        outer(goal, &results, num_good)
    };
    // Oldest first, as the weights of the kernels want it.
    good.sort_unstable_by_key(|(index, _)| *index);
    let weights = (!goal.is_single()).then(|| weights(goal, &good));
    let is_good = |index: usize| good.binary_search_by_key(&index, |(index, _)| *index).is_ok();
    let other = history.iter().enumerate().filter(|(index, _)| !is_good(*index));
    let other = other.map(|(_, observation)| observation).collect();
    let good = good.iter().filter_map(|(index, _)| history.get(*index)).collect();
    (Seen { observations: good, weights }, Seen { observations: other, weights: None })
}

/// In any order.
fn best(goal: &Goal, mut results: Vec<(usize, Merit)>, num: usize) -> Vec<(usize, Merit)> {
    if num < results.len() {
        results.select_nth_unstable_by(num, |(a_index, a), (b_index, b)| {
            goal.standing(a, b).then_with(|| a_index.cmp(b_index))
        });
        results.truncate(num);
    }
    results.retain(|(_, merit)| merit.is_finite());
    results
}

/// Of several objectives.
fn outer(goal: &Goal, results: &[(usize, Merit)], num: usize) -> Vec<(usize, Merit)> {
    let merits: Vec<Merit> = results.iter().map(|(_, merit)| *merit).collect();
    let mut good: Vec<(usize, Merit)> = Vec::new();
    for front in fronts(goal, &merits) {
        let num_left = num.saturating_sub(good.len());
        let members: Vec<(usize, Merit)> =
            front.iter().filter_map(|place| results.get(*place)).copied().collect();
        let is_feasible = members.iter().all(|(_, merit)| merit.is_finite() && merit.is_feasible());
        if members.len() > num_left && is_feasible {
            let costs: Vec<Vec<f64>> = members.iter().map(|(_, merit)| goal.costs(merit)).collect();
            let picked = chosen(&unit_costs(&costs), &reference(goal), num_left);
            good.extend(picked.iter().filter_map(|place| members.get(*place)));
        } else {
            let finite = members.into_iter().filter(|(_, merit)| merit.is_finite());
            good.extend(finite.take(num_left));
        }
        if good.len() >= num {
            break;
        }
    }
    good
}

/// What each adds to the volume, in shares of what the one that adds most does.
fn weights(goal: &Goal, good: &[(usize, Merit)]) -> Vec<f64> {
    let merits: Vec<Merit> = good.iter().map(|(_, merit)| *merit).collect();
    let is_feasible = |merit: &&Merit| merit.is_feasible();
    let costs: Vec<Vec<f64>> =
        merits.iter().filter(is_feasible).map(|merit| goal.costs(merit)).collect();
    let added = contributions(&unit_costs(&costs), &reference(goal));
    let most = added.iter().copied().fold(LEAST_WEIGHT, f64::max);
    let mut added = added.into_iter();
    let weight = |merit: &Merit| {
        if !merit.is_feasible() {
            // Where nothing keeps all constraints, what is nearest to it is all there is.
            return if costs.is_empty() { 1.0 } else { LEAST_WEIGHT };
        }
        (added.next().unwrap_or(0.0) / most).max(LEAST_WEIGHT)
    };
    merits.iter().map(weight).collect()
}

fn reference(goal: &Goal) -> Vec<f64> {
    goal.objectives().map(|_| REFERENCE).collect()
}
