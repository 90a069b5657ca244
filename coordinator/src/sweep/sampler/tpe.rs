//! The tree-structured Parzen estimator: tries what looks like the good trials and unlike the
//! others.
//!
//! Bergstra et al. 2011 (see [`super::parzen`]). Symbols: `l` is the density of the best share of
//! the observations, `g` that of the rest; of some draws from `l` the one with the largest `l / g`
//! is tried. With a pruner this is BOHB's model (Falkner, Klein, Hutter 2018): the highest rung
//! that has enough results decides.

use muster_common::manifest::{Assignment, ParameterValue, TpeSettings, keep_active};
use muster_common::objective::Objective;

use super::axis::Axis;
use super::parzen::Parzen;
use super::{Observation, Proposal, is_taken, model_rung, random, searched};

/// Share of the observations that are the good ones, and most of them.
const GOOD_SHARE: f64 = 0.1;
const GOOD_MAX: usize = 25;

pub(super) fn point(settings: &TpeSettings, proposal: &Proposal<'_>) -> Assignment {
    let Proposal { space, objective, seed, number, history } = *proposal;
    let axes: Vec<(&String, Axis)> =
        searched(space).map(|(name, domain)| (name, Axis::of(domain))).collect();
    let startup = match settings.startup_trials {
        0 => axes.len() + 2,
        given => usize::try_from(given).unwrap_or(usize::MAX),
    };
    let at_random = || super::fresh(proposal, |draw| random::point(space, seed, number, draw));
    let coin = seed.child("tpe random", u64::from(number)).draws().unit();
    if settings.random_share > 0.0 && coin < settings.random_share {
        return at_random();
    }
    let Some(rung) = model_rung(history, startup) else { return at_random() };
    let (good, other) = split(history, rung, objective);
    let positions = |observations: &[&Observation<'_>]| -> Vec<Vec<f64>> {
        // Both sides are sorted by name: no look-ups.
        let of = |observation: &&Observation<'_>| {
            let values = observation.assignment.iter();
            let same =
                |((name, axis), (other, value)): (&(&String, Axis), (&String, &ParameterValue))| {
                    (*name == other).then(|| axis.position(*value)).flatten()
                };
            let found: Option<Vec<f64>> = axes.iter().zip(values).map(same).collect();
            found.filter(|positions| positions.len() == axes.len())
        };
        observations.iter().filter_map(of).collect()
    };
    let seed = seed.child("tpe", u64::from(number));
    let is_tree = space.values().any(|domain| domain.condition().is_some());
    let candidates = if is_tree {
        tree(&axes, (&good, &other), settings, seed)
    } else if settings.multivariate {
        let (good, other) = (positions(&good), positions(&other));
        let all: Vec<&Axis> = axes.iter().map(|(_, axis)| axis).collect();
        ranked(&all, (&good, &other), settings, seed.child("all", 0))
    } else {
        let (good, other) = (positions(&good), positions(&other));
        univariate(&axes, (&good, &other), settings, seed)
    };
    let assignment = |position: &Vec<f64>| -> Assignment {
        let named = axes.iter().zip(position);
        let mut assignment = named
            .map(|((name, axis), position)| ((*name).clone(), axis.value(*position)))
            .collect();
        keep_active(space, &mut assignment);
        assignment
    };
    let fresh = candidates.iter().map(assignment).find(|found| !is_taken(history, found));
    fresh.or_else(|| candidates.first().map(assignment)).unwrap_or_default()
}

/// Each hyperparameter by itself, from the observations that have it: the tree of Bergstra et al.
fn tree(
    axes: &[(&String, Axis)],
    (good, other): (&[&Observation<'_>], &[&Observation<'_>]),
    settings: &TpeSettings,
    seed: muster_common::seed::Seed,
) -> Vec<Vec<f64>> {
    let mut combined = vec![Vec::with_capacity(axes.len()); settings.candidates.max(1) as usize];
    for (name, axis) in axes {
        let column = |observations: &[&Observation<'_>]| -> Vec<Vec<f64>> {
            let values = observations.iter().filter_map(|seen| seen.assignment.get(name));
            values.filter_map(|value| Some(vec![axis.position(*value)?])).collect()
        };
        let ranked =
            ranked(&[axis], (&column(good), &column(other)), settings, seed.child(name, 0));
        for (row, position) in combined.iter_mut().zip(ranked.iter().flatten()) {
            row.push(*position);
        }
    }
    combined
}

/// Each hyperparameter by itself: its best candidates, combined place by place.
fn univariate(
    axes: &[(&String, Axis)],
    (good, other): (&[Vec<f64>], &[Vec<f64>]),
    settings: &TpeSettings,
    seed: muster_common::seed::Seed,
) -> Vec<Vec<f64>> {
    let mut combined = vec![Vec::with_capacity(axes.len()); settings.candidates.max(1) as usize];
    for (dimension, (name, axis)) in axes.iter().enumerate() {
        let column = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
            rows.iter().filter_map(|row| row.get(dimension)).map(|x| vec![*x]).collect()
        };
        let (good, other) = (column(good), column(other));
        let seed = seed.child(name, 0);
        let ranked = ranked(&[axis], (&good, &other), settings, seed);
        for (row, position) in combined.iter_mut().zip(ranked.iter().flatten()) {
            row.push(*position);
        }
    }
    combined
}

/// Draws from the density of the good, the most promising first.
fn ranked(
    axes: &[&Axis],
    (good, other): (&[Vec<f64>], &[Vec<f64>]),
    settings: &TpeSettings,
    seed: muster_common::seed::Seed,
) -> Vec<Vec<f64>> {
    let l = Parzen::new(axes, good);
    let g = Parzen::new(axes, other);
    let mut draws = seed.draws();
    let mut scratch = Vec::new();
    let mut scored: Vec<(f64, Vec<f64>)> = (0..settings.candidates.max(1))
        .map(|_| {
            let point = l.draw(&mut draws);
            let gain = l.log_density(&point, &mut scratch) - g.log_density(&point, &mut scratch);
            (gain, point)
        })
        .collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.into_iter().map(|(_, point)| point).collect()
}

/// The good observations of a rung and all others. Trials that have not reached the rung are with
/// the others: running ones are taken to come out badly, so that workers at the same time try
/// different things.
fn split<'a>(
    history: &'a [Observation<'a>],
    rung: usize,
    objective: Objective,
) -> (Vec<&'a Observation<'a>>, Vec<&'a Observation<'a>>) {
    let mut results: Vec<(usize, f64)> = history
        .iter()
        .enumerate()
        .filter_map(|(index, observation)| Some((index, observation.value_at(rung)?)))
        .collect();
    results.sort_by(|(a_index, a), (b_index, b)| {
        objective.standing(*a, *b).then_with(|| a_index.cmp(b_index))
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of trials"
    )]
    let num_good = ((GOOD_SHARE * results.len() as f64).ceil() as usize).min(GOOD_MAX);
    let mut good: Vec<usize> = results
        .iter()
        .take(num_good)
        .filter(|(_, value)| value.is_finite())
        .map(|(index, _)| *index)
        .collect();
    // Oldest first, as the weights of the kernels want it.
    good.sort_unstable();
    let is_good = |index: &usize| good.binary_search(index).is_ok();
    let other = history.iter().enumerate().filter(|(index, _)| !is_good(index));
    let other = other.map(|(_, observation)| observation).collect();
    (good.iter().filter_map(|index| history.get(*index)).collect(), other)
}
