use std::collections::BTreeSet;

use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Made by `tests/golden/optuna/generate.py`.
const GOLDEN: &str = include_str!("../../../../tests/golden/optuna/fronts.json");

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    costs: Vec<Vec<f64>>,
    violations: Vec<f64>,
    reference: Vec<f64>,
    ranks: Vec<usize>,
    volume: f64,
    front: Vec<usize>,
    front_volumes: Vec<f64>,
    chosen: Option<Vec<usize>>,
}

fn goal(num: usize) -> Goal {
    let metrics =
        [ObjectiveMetric::Loss, ObjectiveMetric::MaskedLoss, ObjectiveMetric::MeanAbsoluteError];
    let objective = |metric| Objective { metric, mode: Mode::Min };
    let others = metrics.into_iter().chain([ObjectiveMetric::Perplexity]).skip(1).take(num - 1);
    Goal { others: others.map(objective).collect(), ..Goal::from(objective(metrics[0])) }
}

fn ranks(goal: &Goal, merits: &[Merit]) -> Vec<usize> {
    let mut ranks = vec![usize::MAX; merits.len()];
    for (rank, front) in fronts(goal, merits).into_iter().enumerate() {
        for index in front {
            ranks[index] = rank;
        }
    }
    ranks
}

fn golden() -> Vec<Case> {
    serde_json::from_str::<Golden>(GOLDEN).unwrap().cases
}

#[test]
fn ranks_are_optunas() {
    for case in golden() {
        let goal = goal(case.reference.len());
        let rows = case.costs.iter().zip(&case.violations);
        let merits: Vec<Merit> =
            rows.map(|(row, sum)| Merit::new(row.iter().copied(), *sum)).collect();
        assert_eq!(ranks(&goal, &merits), case.ranks);
    }
}

#[test]
fn volumes_are_optunas() {
    for case in golden() {
        let volume = hypervolume(&case.costs, &case.reference);
        assert!((volume - case.volume).abs() < 1e-9, "{volume} {}", case.volume);
        let front: Vec<Vec<f64>> = case.front.iter().map(|i| case.costs[*i].clone()).collect();
        let found = contributions(&front, &case.reference);
        for (found, without) in found.iter().zip(&case.front_volumes) {
            assert!((found - (volume - without)).abs() < 1e-9, "{found} {volume} {without}");
        }
    }
}

#[test]
fn choices_are_optunas() {
    let mut num = 0;
    for case in golden() {
        let Some(expected) = case.chosen else { continue };
        let front: Vec<Vec<f64>> = case.front.iter().map(|i| case.costs[*i].clone()).collect();
        assert_eq!(chosen(&front, &case.reference, expected.len()), expected);
        num += usize::from(expected.len() > 2);
    }
    assert!(num > 3, "{num} choices say little");
}

#[test]
fn a_front_is_spread_before_it_is_filled() {
    // From (0, 1) to (1, 0); what is taken first is the best in the first objective, then the other end,
    // then the middle.
    let goal = goal(2);
    let points = [0.0, 0.1, 0.2, 0.5, 1.0].map(|x| Merit::new([x, 1.0 - x], 0.0));
    assert_eq!(arranged(&goal, &points), [0, 4, 3, 2, 1]);
    // Another unit of a metric changes nothing.
    let stretched = [0.0, 0.1, 0.2, 0.5, 1.0].map(|x| Merit::new([x, 1000.0 - 1000.0 * x], 0.0));
    assert_eq!(arranged(&goal, &stretched), [0, 4, 3, 2, 1]);
}

#[test]
fn the_front_has_only_what_keeps_all_constraints() {
    let goal = goal(2);
    let merit = |a: f64, b: f64, violation| Merit::new([a, b], violation);
    let merits = [merit(0.0, 0.0, 0.1), merit(1.0, 2.0, 0.0), merit(2.0, 1.0, 0.0)];
    assert_eq!(front(&goal, &merits), [1, 2]);
    assert_eq!(front(&goal, &merits[..1]), Vec::<usize>::new());
    assert_eq!(front(&goal, &[merit(f64::NAN, 0.0, 0.0)]), Vec::<usize>::new());
    assert_eq!(better(&goal, &merits, 0), [false, true, true]);
    assert_eq!(better(&goal, &merits, 1), [false, false, false]);
}

/// Few different values, so that ties are common; some have diverged, some break constraints.
fn merits(num: usize) -> impl Strategy<Value = Vec<Merit>> {
    let merit = (proptest::collection::vec(0u32..6, num), 0u32..14).prop_map(|(values, kind)| {
        let values = values.into_iter().map(|value| match (value, kind) {
            (0, 13) => f64::NAN,
            (value, _) => f64::from(value),
        });
        Merit::new(values, if kind < 3 { f64::from(kind) / 2.0 } else { 0.0 })
    });
    proptest::collection::vec(merit, 0..40)
}

fn some_merits() -> impl Strategy<Value = (usize, Vec<Merit>)> {
    (1usize..5).prop_flat_map(|num| merits(num).prop_map(move |merits| (num, merits)))
}

proptest! {
    #[test]
    fn nobody_in_a_front_is_dominated_by_it_and_everybody_by_the_one_before(
        (num, merits) in some_merits(),
    ) {
        let goal = goal(num);
        let found = fronts(&goal, &merits);
        for (place, front) in found.iter().enumerate() {
            for index in front {
                let dominates = |other: &usize| goal.dominates(&merits[*other], &merits[*index]);
                prop_assert!(!front.iter().any(dominates));
                prop_assert!(place == 0 || found[place - 1].iter().any(dominates));
            }
        }
        let first = super::front(&goal, &merits);
        for index in &first {
            prop_assert!(!merits.iter().any(|other| goal.dominates(other, &merits[*index])));
        }
    }

    #[test]
    fn an_order_has_everybody_once_and_nobody_before_what_dominates_it(
        (num, merits) in some_merits(),
    ) {
        let goal = goal(num);
        let order = arranged(&goal, &merits);
        prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), merits.len());
        prop_assert_eq!(order.len(), merits.len());
        prop_assert_eq!(&order, &arranged(&goal, &merits));
        for (place, index) in order.iter().enumerate() {
            let is_beaten = order[place + 1..]
                .iter()
                .any(|later| goal.dominates(&merits[*later], &merits[*index]));
            prop_assert!(!is_beaten);
        }
        let is_good = |index: &usize| merits[*index].is_finite() && merits[*index].is_feasible();
        let num_good = order.iter().filter(|index| is_good(index)).count();
        prop_assert!(order[..num_good].iter().all(is_good), "all that keep constraints come first");
    }

    #[test]
    fn volume_grows_with_each_point_that_nothing_dominates(
        num in 1usize..5,
        raw in proptest::collection::vec(proptest::collection::vec(0.0f64..1.0, 4), 1..9),
    ) {
        let costs: Vec<Vec<f64>> = raw.iter().map(|row| row[..num].to_vec()).collect();
        let reference = vec![1.0; num];
        let whole = hypervolume(&costs, &reference);
        let added = contributions(&costs, &reference);
        for (index, added) in added.iter().enumerate() {
            let covers = |other: &Vec<f64>| other.iter().zip(&costs[index]).all(|(a, b)| a <= b);
            let is_covered =
                costs.iter().enumerate().any(|(other, row)| other != index && covers(row));
            if is_covered {
                prop_assert!(added.abs() < 1e-12);
            } else {
                prop_assert!(*added > 0.0);
            }
        }
        prop_assert!(whole <= 1.0);
        let all = chosen(&costs, &reference, costs.len());
        prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), costs.len());
    }
}
