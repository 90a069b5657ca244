use std::f64::consts::PI;

use muster_common::manifest::{Category, Domain, ParameterValue, Scale};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Made by `tests/golden/optuna/importance.py`.
const GOLDEN: &str = include_str!("../../../../tests/golden/optuna/importance.json");

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    bounds: Vec<(f64, f64)>,
    points: Vec<Vec<f64>>,
    values: Vec<f64>,
    shares: Vec<f64>,
    deviations: Vec<f64>,
}

fn real(min: f64, max: f64) -> Domain {
    Domain::Float { min, max, scale: Scale::Linear }
}

fn space(domains: Vec<Domain>) -> SearchSpace {
    let name = |(index, domain)| (format!("x{index}"), domain);
    domains.into_iter().enumerate().map(name).collect()
}

/// Values of `function` at points drawn from the space.
fn observed(
    space: &SearchSpace,
    num: u64,
    function: impl Fn(&[f64]) -> f64,
) -> Vec<(Assignment, f64)> {
    let observe = |number: u64| {
        let mut draws = Seed(11).child("point", number).draws();
        let point: Assignment = space
            .iter()
            .map(|(name, domain)| (name.clone(), domain.draw(&mut draws, Elementary::Portable)))
            .collect();
        let numbers: Vec<f64> = point.values().map(|value| value.as_f64()).collect();
        (point, function(&numbers))
    };
    (0..num).map(observe).collect()
}

/// Effects in the order of the names.
fn effects(space: &SearchSpace, observations: &[(Assignment, f64)]) -> Vec<f64> {
    main_effects(space, observations, Seed(5)).into_iter().map(|(_, effect)| effect).collect()
}

fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{found:?}, not {expected:?}");
    }
}

#[test]
fn variances_of_boxes_are_exact() {
    // 2 on the lower left quarter, 6 on the upper left one, 1 on the right half.
    let leaf = |value, x: (f64, f64), y: (f64, f64)| Leaf { value, sides: vec![x, y] };
    let leaves = [
        leaf(2.0, (0.0, 0.5), (0.0, 0.5)),
        leaf(6.0, (0.0, 0.5), (0.5, 1.0)),
        leaf(1.0, (0.5, 1.0), (0.0, 1.0)),
    ];
    // Mean 2.5; along x 4 and 1, along y 1.5 and 3.5.
    assert_near(&[variance::total(&leaves)], &[4.25], 1e-12);
    let along = [variance::main_effect(&leaves, 0), variance::main_effect(&leaves, 1)];
    assert_near(&along, &[2.25, 1.0], 1e-12);
}

#[test]
fn a_tree_repeats_what_it_has_learned() {
    let columns = vec![vec![0.1, 0.9, 0.2, 0.8], vec![0.2, 0.3, 0.8, 0.9]];
    let values = vec![0.0, 1.0, 1.0, 0.0];
    let rows = Rows { columns, values, weights: vec![1.0, 2.0, 1.0, 0.0] };
    let leaves = grow(&rows, &mut Seed(1).draws());
    let value_at = |x: f64, y: f64| {
        let holds = |side: &(f64, f64), place: f64| side.0 < place && place <= side.1;
        let found = leaves.iter().find(|leaf| holds(&leaf.sides[0], x) && holds(&leaf.sides[1], y));
        found.map(|leaf| leaf.value)
    };
    assert_eq!(
        [(0.1, 0.2), (0.9, 0.3), (0.2, 0.8)].map(|(x, y)| value_at(x, y)),
        [Some(0.0), Some(1.0), Some(1.0)]
    );
}

/// Ishigami and Homma 1990; the parts of its variance are known in closed form, and the third variable acts only
/// together with the first.
#[test]
fn effects_of_ishigamis_function_are_found() {
    let (a, b) = (7.0, 0.1);
    let space = space(vec![real(-PI, PI); 3]);
    let function = |x: &[f64]| x[0].sin() + a * x[1].sin().powi(2) + b * x[2].powi(4) * x[0].sin();
    let first = 0.5 * (1.0 + b * PI.powi(4) / 5.0).powi(2);
    let second = a * a / 8.0;
    let together = b * b * PI.powi(8) * (1.0 / 18.0 - 1.0 / 50.0);
    let total = first + second + together;
    let observations = observed(&space, 3000, function);
    let found = effects(&space, &observations);
    // Each tree sees other samples and follows them to the end: some of its variance is noise of all dimensions.
    assert_near(&found, &[first / total, second / total, 0.0], 0.08);
    let sum = first + second;
    let shares: Vec<f64> = found.iter().map(|effect| effect / found.iter().sum::<f64>()).collect();
    assert_near(&shares, &[first / sum, second / sum, 0.0], 0.03);
}

#[test]
fn effects_of_a_sum_are_those_of_its_terms() {
    let space = space(vec![real(0.0, 1.0); 4]);
    let function = |x: &[f64]| 3.0 * x[0] + 2.0 * x[1] + x[2];
    let shares = importance(&space, &observed(&space, 1500, function), Seed(5));
    let names: Vec<&str> = shares.iter().map(|share| share.name.as_str()).collect();
    assert_eq!(names, ["x0", "x1", "x2", "x3"]);
    let found: Vec<f64> = shares.iter().map(|share| share.share).collect();
    assert_near(&found, &[9.0 / 14.0, 4.0 / 14.0, 1.0 / 14.0, 0.0], 0.04);
}

#[test]
fn spaces_are_measured_as_trials_are_drawn() {
    let log = Domain::Float { min: 1e-5, max: 1e-1, scale: Scale::Log };
    let list = Domain::Values([64, 8, 512].map(ParameterValue::Int).to_vec());
    let whole = Domain::Int { min: 1, max: 4, scale: Scale::Linear };
    let space = space(vec![log, list, whole, Domain::Constant(ParameterValue::Int(3))]);
    // Variances of four decades, of two thirds of the list, and of half of the range.
    let function = |x: &[f64]| {
        let (listed, counted) = (f64::from(x[1] > 60.0), f64::from(x[2] > 2.5));
        x[0].log10() + listed + counted
    };
    let (decades, listed, counted) = (16.0 / 12.0, 2.0 / 9.0, 0.25);
    let total = decades + listed + counted;
    let found = effects(&space, &observed(&space, 600, function));
    assert_near(&found, &[decades / total, listed / total, counted / total], 0.03);
}

/// The middle one of three words is another kind than the others: two ninths of variance, however they are listed.
#[test]
fn words_explain_as_sets() {
    let words = [Category::Linear, Category::Cosine, Category::Constant];
    let words = Domain::Values(words.map(ParameterValue::Category).to_vec());
    let space = space(vec![words, real(0.0, 1.0)]);
    let is_cosine = |x: f64| f64::from((x - Category::Cosine.place()).abs() < 0.5);
    let found = effects(&space, &observed(&space, 400, |x| is_cosine(x[0]) + x[1]));
    let (chosen, along) = (2.0 / 9.0, 1.0 / 12.0);
    assert_near(&found, &[chosen / (chosen + along), along / (chosen + along)], 0.03);
}

/// `x0` is 0 or 1; `x1` exists beside 1 and acts there.
#[test]
fn what_only_some_trials_have_is_kept() {
    let both = Domain::Values([0, 1].map(ParameterValue::Int).to_vec());
    let beside = Domain::When {
        name: "x0".to_owned(),
        values: vec![ParameterValue::Int(1)],
        domain: Box::new(real(0.0, 1.0)),
    };
    let space = space(vec![both, beside]);
    let mut observations = observed(&space, 400, |x| x[0] + x[0] * x[1]);
    for (assignment, _) in &mut observations {
        muster_common::manifest::keep_active(&space, assignment);
    }
    // Of a + a c: 9/16 for a, 1/48 for c on the average of both, 1/48 for what it does only beside 1.
    let (chosen, alone, together) = (9.0 / 16.0, 1.0 / 48.0, 1.0 / 48.0);
    let total = chosen + alone + together;
    let found = effects(&space, &observations);
    assert_near(&found, &[chosen / total, alone / total], 0.02);
}

#[test]
fn nothing_is_said_where_nothing_can_be() {
    let plane = space(vec![real(0.0, 1.0); 2]);
    let sum = |x: &[f64]| x[0] + x[1];
    assert!(importance(&plane, &observed(&plane, 7, sum), Seed(1)).is_empty());
    assert!(importance(&plane, &observed(&plane, 50, |_| 0.3), Seed(1)).is_empty());
    assert!(importance(&SearchSpace::new(), &observed(&plane, 50, sum), Seed(1)).is_empty());
    let constant = space(vec![Domain::Constant(ParameterValue::Int(1))]);
    assert!(importance(&constant, &observed(&constant, 50, sum_of), Seed(1)).is_empty());
    // Neither results that are no numbers nor points of another space count.
    let mut observations = observed(&plane, 7, sum);
    let (wrong, _) = observed(&space(vec![real(3.0, 4.0); 2]), 1, sum).remove(0);
    observations.push((wrong, 0.5));
    for value in [f64::NAN, f64::INFINITY] {
        observations.push((observations[0].0.clone(), value));
    }
    assert!(importance(&plane, &observations, Seed(1)).is_empty());
}

fn sum_of(x: &[f64]) -> f64 {
    x.iter().sum()
}

/// Optuna's forest draws other samples, so shares agree as far as those of its own seeds do.
#[test]
fn shares_are_optunas() {
    for case in serde_json::from_str::<Golden>(GOLDEN).unwrap().cases {
        let domains = case.bounds.iter().map(|(min, max)| real(*min, *max)).collect();
        let space = space(domains);
        let point = |point: &Vec<f64>| -> Assignment {
            let value =
                |(name, place): (&String, &f64)| (name.clone(), ParameterValue::Float(*place));
            space.keys().zip(point).map(value).collect()
        };
        let observations: Vec<(Assignment, f64)> =
            case.points.iter().map(point).zip(case.values.iter().copied()).collect();
        let shares = importance(&space, &observations, Seed(3));
        for (index, (expected, deviation)) in case.shares.iter().zip(&case.deviations).enumerate() {
            let name = format!("x{index}");
            let found = shares.iter().find(|share| share.name == name).unwrap().share;
            let tolerance = 4.0 * deviation + 0.005;
            assert!(
                (found - expected).abs() < tolerance,
                "{} {name}: {found}, not {expected} within {tolerance}",
                case.name
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn shares_are_parts_of_one_and_depend_on_no_order(
        rows in prop::collection::vec((0.0f64..1.0, 1i64..5, -1e3f64..1e3), 8..40),
        seed: u64,
        turn in 0usize..40,
    ) {
        let whole = Domain::Int { min: 1, max: 4, scale: Scale::Linear };
        let space = space(vec![real(0.0, 1.0), whole]);
        let observe = |(x, count, value): &(f64, i64, f64)| {
            let point = [ParameterValue::Float(*x), ParameterValue::Int(*count)];
            (space.keys().cloned().zip(point).collect::<Assignment>(), *value)
        };
        let mut observations: Vec<_> = rows.iter().map(observe).collect();
        let shares = importance(&space, &observations, Seed(seed));
        let sum: f64 = shares.iter().map(|share| share.share).sum();
        prop_assert!(shares.is_empty() || (sum - 1.0).abs() < 1e-9, "{shares:?}");
        prop_assert!(shares.iter().all(|share| (0.0..=1.0).contains(&share.share)), "{shares:?}");
        prop_assert!(shares.windows(2).all(|pair| pair[0].share >= pair[1].share));
        let turn = turn % observations.len();
        observations.rotate_left(turn);
        observations.swap(0, 1);
        prop_assert_eq!(shares, importance(&space, &observations, Seed(seed)));
    }
}
