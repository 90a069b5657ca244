//! Which hyperparameters make trials differ: functional analysis of variance of a forest that has learned the
//! results (Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter importance").
//!
//! A regression tree cuts the unit cube of the search space into boxes with one value each. So the variance `V` of
//! its prediction over the whole space is a finite sum, and so is the variance `V_j` that is left when every
//! hyperparameter but `j` is averaged out. `V_j / V`, the main effect of `j`, is averaged over trees.
//!
//! Where it differs from Optuna's evaluator: the space is measured as trials are drawn from it (in the logarithm where
//! the scale is one, equal parts for whole numbers and listed values, numbers in their order), and a hyperparameter
//! that only some trials have is kept. Where it is absent each tree draws a value for it: there it changes nothing,
//! and the forest sees that.

mod tree;
mod variance;

use muster_common::elementary::Elementary;
use muster_common::manifest::{Assignment, SearchSpace};
use muster_common::seed::{Draws, Seed};

use super::sampler::{Units, searched};
use tree::{Leaf, Rows, grow};

/// Trees of the forest, as in Optuna.
const NUM_TREES: u64 = 64;
/// With fewer results a forest tells noise.
const NUM_RESULTS_MIN: usize = 8;

/// How much one hyperparameter matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Name of the hyperparameter.
    pub name: String,
    /// Its main effect as a part of all main effects, 0 to 1.
    pub share: f64,
}

/// Shares of the searched hyperparameters, the largest first; they add up to 1. Empty when nothing can be said: fewer
/// than eight finite results of this space, or results that do not differ. The order of the observations is of no
/// matter.
pub fn importance(
    space: &SearchSpace,
    observations: &[(Assignment, f64)],
    seed: Seed,
) -> Vec<Share> {
    let effects = main_effects(space, observations, seed);
    let sum: f64 = effects.iter().map(|(_, effect)| effect).sum();
    if sum <= 0.0 {
        return Vec::new();
    }
    let share = |(name, effect): (&String, f64)| Share { name: name.clone(), share: effect / sum };
    let mut shares: Vec<Share> = effects.into_iter().map(share).collect();
    shares.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.name.cmp(&b.name)));
    shares
}

/// Parts of the whole variance that single hyperparameters explain; what is missing to 1 they explain together.
fn main_effects<'a>(
    space: &'a SearchSpace,
    observations: &[(Assignment, f64)],
    seed: Seed,
) -> Vec<(&'a String, f64)> {
    let names: Vec<&String> = searched(space).map(|(name, _)| name).collect();
    let results = results(space, &names, observations);
    if names.is_empty() || results.len() < NUM_RESULTS_MIN || !differ(&results) {
        return Vec::new();
    }
    let mut sums = vec![0.0; names.len()];
    let mut num_trees = 0u32;
    for number in 0..NUM_TREES {
        let leaves = grown(&results, names.len(), seed.child("importance", number));
        let total = variance::total(&leaves);
        // All draws of a tree can be the same result.
        if total > 0.0 {
            num_trees += 1;
            for (side, sum) in sums.iter_mut().enumerate() {
                *sum += (variance::main_effect(&leaves, side) / total).clamp(0.0, 1.0);
            }
        }
    }
    let mean = |sum: f64| sum / f64::from(num_trees.max(1));
    names.into_iter().zip(sums.into_iter().map(mean)).collect()
}

/// A trial as the forest sees it.
#[derive(Debug, PartialEq, PartialOrd)]
struct Outcome {
    /// Its place on every side of the unit cube; `None`: it has no such hyperparameter.
    places: Vec<Option<f64>>,
    value: f64,
}

/// What can be learned from, in an order that depends on nothing but the results.
fn results(
    space: &SearchSpace,
    names: &[&String],
    observations: &[(Assignment, f64)],
) -> Vec<Outcome> {
    let units = Units::flat(space, Elementary::Portable);
    let outcome = |(assignment, value): &(Assignment, f64)| {
        let position = units.position(assignment).filter(|_| value.is_finite())?;
        let has = |(name, place): (&&String, f64)| assignment.contains_key(name).then_some(place);
        Some(Outcome { places: names.iter().zip(position).map(has).collect(), value: *value })
    };
    let mut results: Vec<Outcome> = observations.iter().filter_map(outcome).collect();
    // All numbers are finite, so there is an order.
    results.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let num = results.len().max(1) as f64;
    let mean = results.iter().map(|outcome| outcome.value / num).sum::<f64>();
    let spread = results.iter().map(|outcome| (outcome.value - mean).abs()).fold(0.0, f64::max);
    if spread > 0.0 {
        for outcome in &mut results {
            outcome.value = (outcome.value - mean) / spread;
        }
    }
    results
}

fn differ(results: &[Outcome]) -> bool {
    results.windows(2).any(|pair| matches!(pair, [a, b] if (a.value - b.value).abs() > 0.0))
}

/// A tree on as many results as there are, drawn with replacement.
fn grown(results: &[Outcome], num_sides: usize, seed: Seed) -> Vec<Leaf> {
    let mut draws = seed.draws();
    let column = |side: usize, draws: &mut Draws| -> Vec<f64> {
        let place = |outcome: &Outcome| outcome.places.get(side).copied().flatten();
        results.iter().map(|outcome| place(outcome).unwrap_or_else(|| draws.unit())).collect()
    };
    let columns = (0..num_sides).map(|side| column(side, &mut draws)).collect();
    let mut weights = vec![0.0; results.len()];
    for _ in results {
        let index = usize::try_from(draws.below(results.len() as u64)).unwrap_or(0);
        weights[index] += 1.0;
    }
    let values = results.iter().map(|outcome| outcome.value).collect();
    grow(&Rows { columns, values, weights }, &mut draws)
}

#[cfg(test)]
mod tests;
