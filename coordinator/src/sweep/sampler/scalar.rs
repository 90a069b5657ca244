//! One cost for results of several objectives and constraints, for a model of one function.

use muster_common::goal::{Goal, Merit};
use muster_common::seed::Seed;

use crate::sweep::front::unit_costs;

/// How much the sum of all objectives counts beside the worst of them: `rho` of Knowles 2006.
const AUGMENTATION: f64 = 0.05;

/// A cost for each result, smaller ones better; not finite: diverged.
///
/// Of several objectives the augmented Tchebycheff function with weights drawn from the seed, which
/// differ from proposal to proposal, so that all of the front is looked for (Knowles 2006, "`ParEGO`",
/// equation 2). What breaks constraints lies behind the worst that keeps them, by the sum of its violations
/// (Deb 2000, equation 4), here in units of the spread of the others.
pub(super) fn costs(goal: &Goal, merits: &[Merit], seed: Seed) -> Vec<f64> {
    let mut costs = if goal.is_single() {
        merits.iter().map(|merit| goal.costs(merit).first().copied().unwrap_or(f64::NAN)).collect()
    } else {
        tchebycheff(goal, merits, seed)
    };
    if !goal.constraints.is_empty() {
        penalise(&mut costs, merits);
    }
    costs
}

fn tchebycheff(goal: &Goal, merits: &[Merit], seed: Seed) -> Vec<f64> {
    let weights = weights(goal.others.len() + 1, seed);
    let finite = merits.iter().filter(|merit| merit.is_finite());
    let mut units =
        unit_costs(&finite.map(|merit| goal.costs(merit)).collect::<Vec<_>>()).into_iter();
    let cost = |merit: &Merit| {
        let Some(costs) = merit.is_finite().then(|| units.next()).flatten() else {
            return f64::NAN;
        };
        let weighted = || costs.iter().zip(&weights).map(|(cost, weight)| cost * weight);
        weighted().fold(0.0, f64::max) + AUGMENTATION * weighted().sum::<f64>()
    };
    merits.iter().map(cost).collect()
}

/// Evenly from all shares that add up to 1: spacings of exponential draws.
fn weights(num: usize, seed: Seed) -> Vec<f64> {
    let mut draws = seed.child("objective weights", 0).draws();
    let raw: Vec<f64> = (0..num).map(|_| -libm::log(1.0 - draws.unit())).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|weight| if sum > 0.0 { weight / sum } else { 1.0 / num as f64 }).collect()
}

fn penalise(costs: &mut [f64], merits: &[Merit]) {
    let feasible = costs.iter().zip(merits).filter(|(cost, m)| cost.is_finite() && m.is_feasible());
    let (best, worst) = feasible
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (cost, _)| {
            (low.min(*cost), high.max(*cost))
        });
    // Where none keeps all, only the violations are compared.
    let (worst, spread) = match worst - best {
        _ if worst < best => (0.0, 1.0),
        spread if spread > 0.0 => (worst, spread),
        _ => (worst, 1.0),
    };
    for (cost, merit) in costs.iter_mut().zip(merits) {
        if cost.is_finite() && !merit.is_feasible() {
            *cost = worst + spread * merit.violation();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::goal::Constraint;
    use muster_common::objective::{Mode, Objective, ObjectiveMetric};
    use proptest::prelude::*;

    fn goal(num: usize) -> Goal {
        let loss = Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min };
        let accuracy = Objective { metric: ObjectiveMetric::Accuracy, mode: Mode::Max };
        let bound = Constraint { metric: ObjectiveMetric::Mcc, min: Some(0.5), max: None };
        let others = vec![accuracy; num - 1];
        Goal { others, constraints: vec![bound], ..loss.into() }
    }

    #[test]
    fn what_breaks_constraints_lies_behind_all_that_keeps_them() {
        let merit = |value: f64, violation| Merit::new([value], violation);
        let merits =
            [merit(3.0, 0.0), merit(1.0, 0.5), merit(5.0, 0.0), merit(0.0, 2.0), f64::NAN.into()];
        let found = costs(&goal(1), &merits, Seed(1));
        assert_eq!(found[..4], [3.0, 6.0, 5.0, 9.0]);
        assert!(found[4].is_nan());
        let found = costs(&goal(1), &merits[1..2], Seed(1));
        assert_eq!(found, [0.5]);
    }

    #[test]
    fn weights_are_spread_over_all_shares() {
        let drawn: Vec<Vec<f64>> = (0..2000).map(|n| weights(3, Seed(n))).collect();
        for objective in 0..3 {
            let mean = drawn.iter().map(|w| w[objective]).sum::<f64>() / 2000.0;
            assert!((mean - 1.0 / 3.0).abs() < 0.02, "{mean}");
        }
        assert!(drawn.iter().all(|w| (w.iter().sum::<f64>() - 1.0).abs() < 1e-12));
    }

    proptest! {
        #[test]
        fn what_is_better_in_everything_costs_less(
            a in proptest::collection::vec(0.0f64..1.0, 2), seed: u64,
        ) {
            let goal = Goal { constraints: Vec::new(), ..goal(2) };
            // The last two give the extent.
            let better = [a[0] - 0.1, a[1] + 0.1];
            let merits = [a, better.to_vec(), vec![-1.0, -1.0], vec![2.0, 2.0]]
                .map(|values| Merit::new(values, 0.0));
            let found = costs(&goal, &merits, Seed(seed));
            prop_assert!(found[1] < found[0], "{:?}", found);
        }
    }
}
