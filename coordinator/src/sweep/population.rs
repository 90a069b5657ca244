//! Population-based training: who goes on from whose checkpoint, and with which hyperparameters.
//!
//! Jaderberg et al. 2017, "Population Based Training of Neural Networks": exploit by truncation
//! selection, explore by perturbing or resampling. As in Ray's `PopulationBasedTraining` nobody waits:
//! a member is compared with the results that a rung has when its own comes in. Unlike there, only
//! results at the same rung are compared, and what is copied is of that rung, so that all members have
//! trained equally long.

use std::cmp::Ordering;

use muster_common::elementary::Elementary;
use muster_common::goal::{Goal, Merit};
use muster_common::manifest::{
    Assignment, Domain, HyperparameterSpec, ParameterValue, PopulationSettings, SearchSpace,
    is_active, keep_active,
};
use muster_common::seed::Seed;

use super::asha::{Standing, order};
use super::front;

/// What becomes of a member at a rung, with the numbers that were compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It trains on as it is.
    GoesOn(String),
    /// It goes on from the checkpoint of another one at this rung.
    Exploits {
        /// Number of the other trial.
        source: u32,
        /// For people.
        text: String,
    },
}

/// So many of `num_results` are at the top, and as many at the bottom: a share, rounded up, and never
/// more than a half.
pub fn quantile_size(quantile: f64, num_results: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of trials"
    )]
    // A share that is whole stays so: 0.1 of 30 is 3.
    let share = (quantile * num_results as f64 - 1e-9).ceil().max(0.0) as usize;
    share.min(num_results / 2)
}

/// What becomes of a trial whose result at a rung is among `standings`. One that `must_exploit`, because
/// it cannot go on, does so if there is anybody whose result is finite. Nobody goes on from a trial whose
/// checkpoint of the rung is not kept.
pub fn fate(
    settings: &PopulationSettings,
    goal: &Goal,
    standings: &[Standing],
    trial: u32,
    must_exploit: bool,
    is_kept: impl Fn(u32) -> bool,
    seed: Seed,
) -> Fate {
    let mut ordered = standings.to_vec();
    order(goal, &mut ordered);
    let num_results = ordered.len();
    let Some(index) = ordered.iter().position(|standing| standing.trial == trial) else {
        return Fate::GoesOn("it has no result here".to_owned());
    };
    let Standing { merit, .. } = ordered[index];
    let size = quantile_size(settings.quantile, num_results);
    let is_stuck = must_exploit || !merit.is_finite();
    let own = format!("{} is place {} of {num_results} so far", goal.words(&merit), index + 1);
    let goes_on = |why: &str| Fate::GoesOn(format!("{own}, {why}"));
    if !is_stuck && index + size < num_results {
        return goes_on(&format!("the last {size} exploit the best {size}"));
    }
    let top = if is_stuck { size.max(1) } else { size };
    let merits: Vec<Merit> = ordered.iter().map(|standing| standing.merit).collect();
    let better = front::better(goal, &merits, index);
    let may_be_source = |(standing, is_better): &(&Standing, bool)| {
        let is_wanted = is_stuck || *is_better;
        standing.trial != trial
            && standing.merit.is_finite()
            && is_wanted
            && is_kept(standing.trial)
    };
    let sources: Vec<&Standing> = ordered
        .iter()
        .zip(better)
        .filter(may_be_source)
        .map(|(standing, _)| standing)
        .take(top)
        .collect();
    if sources.is_empty() {
        return goes_on("and nobody is better");
    }
    let pick = seed.child("source", 0).draws().below(sources.len() as u64);
    let source = sources[usize::try_from(pick).unwrap_or(0)];
    let place = ordered.iter().position(|s| s.trial == source.trial).map_or(0, |index| index + 1);
    let text = format!(
        "{own}, the last {size} exploit the best {size}; t{} is place {place} with {}",
        source.trial,
        Goal::numbers(&source.merit)
    );
    Fate::Exploits { source: source.trial, text }
}

/// Hyperparameters near those of the trial that is exploited. Those that cannot change while a trial
/// trains are taken over as they are.
pub fn explore(
    settings: &PopulationSettings,
    space: &SearchSpace,
    source: &Assignment,
    functions: Elementary,
    seed: Seed,
) -> Assignment {
    let mut next = source.clone();
    for (name, value) in source.iter().filter(|(name, _)| HyperparameterSpec::can_change(name)) {
        let Some(domain) = space.get(name) else { continue };
        let mut draws = seed.child(name, 0).draws();
        let changed = if draws.unit() < settings.resample_probability {
            domain.draw(&mut draws, functions)
        } else {
            let pick = draws.below(settings.factors.len().max(1) as u64);
            let pick = usize::try_from(pick).unwrap_or(0);
            nudged(domain.plain(), *value, settings.factors.get(pick).copied().unwrap_or(1.0))
        };
        next.insert(name.clone(), changed);
    }
    // What exists because of another value, and did not before, is drawn. Conditions can follow from
    // each other, never in a circle.
    for _ in 0..space.len() {
        let absent = space.iter().filter(|(name, domain)| {
            domain.condition().is_some()
                && !next.contains_key(name)
                && is_active(space, &next, name)
        });
        let drawn: Vec<(String, ParameterValue)> = absent
            .map(|(name, domain)| {
                let mut draws = seed.child(name, 1).draws();
                (name.clone(), domain.draw(&mut draws, functions))
            })
            .collect();
        if drawn.is_empty() {
            break;
        }
        next.extend(drawn);
    }
    keep_active(space, &mut next);
    next
}

/// A value times a factor, as near to it as the domain has one; of values that are far apart, the next
/// one in the direction of the factor.
fn nudged(domain: &Domain, value: ParameterValue, factor: f64) -> ParameterValue {
    let wanted = value.as_f64() * factor;
    match domain {
        Domain::Constant(_) | Domain::When { .. } => value,
        Domain::Float { min, max, .. } => ParameterValue::Float(wanted.clamp(*min, *max)),
        Domain::Int { min, max, .. } => {
            let ParameterValue::Int(old) = value else { return value };
            #[expect(clippy::cast_possible_truncation, reason = "clamped to the bounds")]
            let near = wanted.round().clamp(*min as f64, *max as f64) as i64;
            let next = if near == old { old.saturating_add(direction(factor)) } else { near };
            ParameterValue::Int(next.clamp(*min, *max))
        }
        Domain::Values(values) => {
            let mut values = values.clone();
            values.sort_by(|a, b| a.as_f64().total_cmp(&b.as_f64()));
            neighbor(&values, value, factor, None)
        }
        Domain::Steps { .. } | Domain::IntSteps { .. } => {
            neighbor(&domain.enumerate().unwrap_or_default(), value, factor, Some(wanted))
        }
    }
}

/// 1 up, -1 down, 0 for a factor of 1.
fn direction(factor: f64) -> i64 {
    match factor.partial_cmp(&1.0) {
        Some(Ordering::Greater) => 1,
        Some(Ordering::Less) => -1,
        _ => 0,
    }
}

/// Of sorted values the one nearest to what is wanted, but at least the next one.
fn neighbor(
    values: &[ParameterValue],
    value: ParameterValue,
    factor: f64,
    wanted: Option<f64>,
) -> ParameterValue {
    let far = |to: f64, other: &ParameterValue| (other.as_f64() - to).abs();
    let nearest = |to: f64| {
        let by_distance = |(_, a): &(usize, &ParameterValue), (_, b): &(usize, &ParameterValue)| {
            far(to, a).total_cmp(&far(to, b))
        };
        values.iter().enumerate().min_by(by_distance).map_or(0, |(index, _)| index)
    };
    let old = nearest(value.as_f64());
    let mut index = wanted.map_or(old, nearest);
    if index == old {
        index = match direction(factor) {
            1 => old + 1,
            -1 => old.saturating_sub(1),
            _ => old,
        };
    }
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::{Budget, Scale};
    use muster_common::objective::{Mode, Objective, ObjectiveMetric};
    use proptest::prelude::*;

    fn accuracy() -> Goal {
        Objective { metric: ObjectiveMetric::Accuracy, mode: Mode::Max }.into()
    }

    fn settings(resample_probability: f64) -> PopulationSettings {
        let every = Budget::Steps(10);
        let factors = vec![0.8, 1.2];
        PopulationSettings {
            every,
            min_budget: every,
            quantile: 0.25,
            resample_probability,
            factors,
        }
    }

    fn standings(values: &[f64]) -> Vec<Standing> {
        let standing = |(trial, value): (u32, &f64)| {
            let merit = (*value).into();
            Standing { trial, merit, waits: true }
        };
        (1..).zip(values).map(standing).collect()
    }

    fn source(values: &[f64], trial: u32, must: bool, seed: u64) -> Option<u32> {
        let standings = standings(values);
        let found =
            fate(&settings(0.0), &accuracy(), &standings, trial, must, |_| true, Seed(seed));
        match found {
            Fate::GoesOn(_) => None,
            Fate::Exploits { source, .. } => Some(source),
        }
    }

    #[test]
    fn quantiles_are_those_of_ray() {
        // ceil(n q), at most half.
        let sizes: Vec<usize> = (0..=9).map(|n| quantile_size(0.25, n)).collect();
        assert_eq!(sizes, [0, 0, 1, 1, 1, 2, 2, 2, 2, 3]);
        assert_eq!((quantile_size(0.1, 30), quantile_size(0.5, 7)), (3, 3));
    }

    #[test]
    fn the_last_go_on_from_the_best() {
        let values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
        let found: Vec<u32> = (0..40).filter_map(|seed| source(&values, 2, false, seed)).collect();
        assert_eq!(found.len(), 40);
        assert!(found.contains(&7) && found.contains(&8));
        assert!(found.iter().all(|source| *source >= 7));
        assert_eq!((3..=8).filter_map(|trial| source(&values, trial, false, 1)).count(), 0);
        assert_eq!(source(&[0.5], 1, false, 1), None, "alone");
        assert_eq!(source(&[0.5, 0.5], 2, false, 1), None, "nobody is better");
    }

    #[test]
    fn those_that_cannot_go_on_take_the_best_that_can() {
        assert_eq!(source(&[f64::NAN, 0.1, f64::NAN, f64::NAN], 1, false, 1), Some(2));
        assert_eq!(source(&[f64::NAN, f64::NAN], 1, false, 1), None);
        assert_eq!(source(&[0.9, 0.1, 0.2], 1, true, 1), Some(3), "the best one diverged later");
        assert_eq!(source(&[0.9], 1, true, 1), None);
    }

    #[test]
    fn every_number_compared_is_said() {
        let standings = standings(&[0.1, 0.2, 0.8]);
        let found = fate(&settings(0.0), &accuracy(), &standings, 1, false, |_| true, Seed(1));
        let text = "accuracy 0.1000 is place 3 of 3 so far, the last 1 exploit the best 1; t3 is place \
                    1 with 0.8000";
        assert_eq!(found, Fate::Exploits { source: 3, text: text.to_owned() });
        let found = fate(&settings(0.0), &accuracy(), &standings, 2, false, |_| true, Seed(1));
        let text = "accuracy 0.2000 is place 2 of 3 so far, the last 1 exploit the best 1";
        assert_eq!(found, Fate::GoesOn(text.to_owned()));
    }

    fn int(value: i64) -> ParameterValue {
        ParameterValue::Int(value)
    }

    fn space() -> SearchSpace {
        let choice = |values: &[i64]| Domain::Values(values.iter().copied().map(int).collect());
        let rate = Domain::Float { min: 1e-5, max: 1e-3, scale: Scale::Log };
        SearchSpace::from([
            ("dropout".to_owned(), Domain::Steps { min: 0.0, max: 0.5, step: 0.1 }),
            ("global_batch_size".to_owned(), choice(&[8, 16])),
            ("learning_rate".to_owned(), rate),
            ("micro_batch_size".to_owned(), choice(&[4, 1, 2])),
            (
                "weight_decay".to_owned(),
                Domain::When {
                    name: "micro_batch_size".to_owned(),
                    values: vec![int(2), int(4)],
                    domain: Box::new(Domain::Float { min: 0.0, max: 0.1, scale: Scale::Linear }),
                },
            ),
        ])
    }

    #[test]
    fn values_move_to_a_neighbor() {
        let space = space();
        let next = |name: &str, value, factor| nudged(space[name].plain(), value, factor).as_f64();
        let float = ParameterValue::Float;
        let steps = [(0.1, 1.2, 0.2), (0.5, 1.2, 0.5), (0.5, 0.8, 0.4), (0.2, 2.0, 0.4)];
        for (value, factor, wanted) in steps {
            let found = next("dropout", float(value), factor);
            assert!((found - wanted).abs() < 1e-12, "{value} times {factor} gives {found}");
        }
        // A list has an order, whatever way it was written.
        for (value, factor, wanted) in [(1, 1.2, 2.0), (2, 0.8, 1.0), (4, 1.2, 4.0), (2, 1.0, 2.0)]
        {
            let found = next("micro_batch_size", int(value), factor);
            assert!((found - wanted).abs() < 1e-12, "{value} times {factor} gives {found}");
        }
        let whole = Domain::Int { min: 1, max: 40, scale: Scale::Linear };
        assert_eq!(nudged(&whole, int(2), 1.2), int(3), "rounded it would stay");
        assert_eq!(nudged(&whole, int(30), 1.2), int(36));
        assert_eq!(nudged(&whole, int(1), 0.8), int(1));
        let stepped = Domain::IntSteps { min: 8, max: 64, step: 8, scale: Scale::Log };
        for (value, factor, wanted) in [(16, 1.2, 24), (32, 2.0, 64), (8, 0.8, 8), (40, 1.0, 40)] {
            assert_eq!(nudged(&stepped, int(value), factor), int(wanted), "{value} times {factor}");
        }
    }

    proptest! {
        /// Whatever is exploited: values are legal, conditions hold, and what cannot change does not.
        #[test]
        fn explored_points_are_points_of_the_space(seed: u64, resample in 0.0f64..1.0, steps in 1usize..20) {
            let space = space();
            let mut point: Assignment = space
                .iter()
                .map(|(name, domain)| {
                    let mut draws = Seed(seed).child(name, 0).draws();
                    (name.clone(), domain.draw(&mut draws, Elementary::Portable))
                })
                .collect();
            keep_active(&space, &mut point);
            for step in 0..steps {
                let seed = Seed(seed).child("step", step as u64);
                let explored =
                    || explore(&settings(resample), &space, &point, Elementary::Portable, seed);
                let next = explored();
                prop_assert_eq!(&next, &explored());
                prop_assert_eq!(next["global_batch_size"], point["global_batch_size"]);
                for (name, domain) in &space {
                    prop_assert_eq!(next.contains_key(name), is_active(&space, &next, name), "{}", name);
                    let Some(value) = next.get(name) else { continue };
                    match domain.plain() {
                        Domain::Float { min, max, .. } => {
                            prop_assert!((*min..=*max).contains(&value.as_f64()));
                        }
                        other => prop_assert!(other.enumerate().unwrap().contains(value)),
                    }
                }
                point = next;
            }
        }
    }
}
