//! The tree-structured Parzen estimator: tries what looks like the good trials and unlike the
//! others.
//!
//! Bergstra et al. 2011 (see [`super::parzen`]). Symbols: `l` is the density of the best share of
//! the observations, `g` that of the rest; of some draws from `l` the one with the largest `l / g`
//! is tried. With a pruner this is BOHB's model (Falkner, Klein, Hutter 2018): the highest rung
//! that has enough results decides.

use muster_common::elementary::Elementary;
use muster_common::manifest::{Assignment, TpeSettings, keep_active};
use muster_common::seed::Seed;

use super::axis::Axis;
use super::good::{Seen, split};
use super::parzen::Parzen;
use super::{Observation, Proposal, is_taken, model_rung, random, searched};

pub(super) fn point(settings: &TpeSettings, proposal: &Proposal<'_>) -> Assignment {
    let Proposal { space, goal, seed, number, history } = *proposal;
    let functions = proposal.functions();
    let axes: Vec<(&String, Axis)> =
        searched(space).map(|(name, domain)| (name, Axis::of(domain, functions))).collect();
    let startup = match settings.startup_trials {
        0 => axes.len() + 2,
        given => usize::try_from(given).unwrap_or(usize::MAX),
    };
    let at_random = || super::fresh(proposal, |draw| random::point(proposal, draw));
    let coin = seed.child("tpe random", u64::from(number)).draws().unit();
    if settings.random_share > 0.0 && coin < settings.random_share {
        return at_random();
    }
    let Some(rung) = model_rung(history, startup) else { return at_random() };
    let (good, other) = split(history, rung, goal);
    // Both sides are sorted by name: no look-ups.
    let place = |observation: &Observation<'_>, columns: &mut [Vec<f64>]| {
        let values = observation.assignment.iter();
        let pairs = axes.iter().zip(values).zip(columns.iter_mut());
        let mut num_found = 0;
        for (((name, axis), (other, value)), column) in pairs {
            let Some(position) = (*name == other).then(|| axis.position(*value)).flatten() else {
                break;
            };
            column.push(position);
            num_found += 1;
        }
        if num_found < axes.len() {
            for column in columns.iter_mut().take(num_found) {
                column.pop();
            }
        }
        num_found == axes.len()
    };
    let seed = seed.child("tpe", u64::from(number));
    // Good points of several objectives differ by what they trade: all hyperparameters together stay near one of
    // them, each by itself joins what was good about several. Neither is better everywhere (see the figures of
    // `front` in tests/bench/README.md), so they take turns.
    let is_tree = space.values().any(|domain| domain.condition().is_some());
    let candidates = if is_tree {
        tree(&axes, (&good, &other), settings, (seed, functions))
    } else if settings.multivariate && (goal.is_single() || number % 2 == 0) {
        let [good, other] = [&good, &other].map(|seen| Columns::of(seen, axes.len(), place));
        let all: Vec<&Axis> = axes.iter().map(|(_, axis)| axis).collect();
        ranked(&all, (&good, &other), settings, (seed.child("all", 0), functions))
    } else {
        let [good, other] = [&good, &other].map(|seen| Columns::of(seen, axes.len(), place));
        univariate(&axes, (&good, &other), settings, (seed, functions))
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

/// Where observations lie on each axis, and how much each weighs if their age does not say it.
struct Columns {
    columns: Vec<Vec<f64>>,
    weights: Option<Vec<f64>>,
}

impl Columns {
    /// Of those observations that have a place: `place` enters it into the columns, or says that there is none.
    fn of(
        seen: &Seen<'_>,
        num_axes: usize,
        place: impl Fn(&Observation<'_>, &mut [Vec<f64>]) -> bool,
    ) -> Self {
        let num_seen = seen.observations.len();
        let mut columns: Vec<Vec<f64>> =
            (0..num_axes).map(|_| Vec::with_capacity(num_seen)).collect();
        let has_place: Vec<bool> =
            seen.observations.iter().map(|observation| place(observation, &mut columns)).collect();
        let weights = seen.weights.as_ref().map(|weights| {
            let kept = weights.iter().zip(&has_place).filter(|(_, has_place)| **has_place);
            kept.map(|(weight, _)| *weight).collect()
        });
        Self { columns, weights }
    }

    /// On one axis.
    fn column(&self, dimension: usize) -> Self {
        let columns = self.columns.get(dimension).cloned().into_iter().collect();
        Self { columns, weights: self.weights.clone() }
    }
}

/// Each hyperparameter by itself, from the observations that have it: the tree of Bergstra et al.
fn tree(
    axes: &[(&String, Axis)],
    (good, other): (&Seen<'_>, &Seen<'_>),
    settings: &TpeSettings,
    (seed, functions): (Seed, Elementary),
) -> Vec<Vec<f64>> {
    let mut combined = vec![Vec::with_capacity(axes.len()); settings.candidates.max(1) as usize];
    for (name, axis) in axes {
        let place = |observation: &Observation<'_>, columns: &mut [Vec<f64>]| {
            let value = observation.assignment.get(name);
            let position = value.and_then(|value| axis.position(*value));
            if let (Some(position), Some(column)) = (position, columns.first_mut()) {
                column.push(position);
            }
            position.is_some()
        };
        let (good, other) = (Columns::of(good, 1, place), Columns::of(other, 1, place));
        let seed = (seed.child(name, 0), functions);
        let ranked = ranked(&[axis], (&good, &other), settings, seed);
        for (row, position) in combined.iter_mut().zip(ranked.iter().flatten()) {
            row.push(*position);
        }
    }
    combined
}

/// Each hyperparameter by itself: its best candidates, combined place by place.
fn univariate(
    axes: &[(&String, Axis)],
    (good, other): (&Columns, &Columns),
    settings: &TpeSettings,
    (seed, functions): (Seed, Elementary),
) -> Vec<Vec<f64>> {
    let mut combined = vec![Vec::with_capacity(axes.len()); settings.candidates.max(1) as usize];
    for (dimension, (name, axis)) in axes.iter().enumerate() {
        let (good, other) = (good.column(dimension), other.column(dimension));
        let seed = (seed.child(name, 0), functions);
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
    (good, other): (&Columns, &Columns),
    settings: &TpeSettings,
    (seed, functions): (Seed, Elementary),
) -> Vec<Vec<f64>> {
    let l = Parzen::new(axes, &good.columns, good.weights.as_deref(), functions);
    let g = Parzen::new(axes, &other.columns, other.weights.as_deref(), functions);
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
