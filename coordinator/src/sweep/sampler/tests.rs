use std::collections::BTreeSet;

use muster_common::goal::Goal;
use muster_common::manifest::{
    Assignment, Category, CmaEsSettings, Domain, GpSettings, ParameterValue, SamplerSettings,
    Scale, SearchSpace, TpeSettings,
};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::seed::Seed;
use proptest::prelude::*;

use super::{Observation, Proposal, propose};

fn loss() -> Goal {
    Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min }.into()
}

fn space() -> SearchSpace {
    let ints = |n: &[i64]| Domain::Values(n.iter().map(|n| ParameterValue::Int(*n)).collect());
    let mut space = SearchSpace::new();
    space.insert("a".to_owned(), ints(&[1, 2]));
    space.insert("b".to_owned(), ints(&[10, 20, 30]));
    space.insert("c".to_owned(), Domain::Constant(ParameterValue::Int(5)));
    space
}

fn plane() -> SearchSpace {
    let mut space = SearchSpace::new();
    let linear = Domain::Float { min: -5.0, max: 10.0, scale: Scale::Linear };
    space.insert("x".to_owned(), linear);
    space.insert("y".to_owned(), Domain::Float { min: 1e-5, max: 1e-1, scale: Scale::Log });
    space
}

/// A searcher at work on a function: assignments and what they gave, in order.
fn search(
    sampler: &SamplerSettings,
    space: &SearchSpace,
    seed: Seed,
    num_trials: u32,
    value: impl Fn(&Assignment) -> f64,
) -> Vec<(Assignment, f64)> {
    let mut tried: Vec<(Assignment, f64)> = Vec::new();
    for number in 1..=num_trials {
        let observation = |(assignment, value): &'_ _| -> (Assignment, f64) {
            (Clone::clone(assignment), *value)
        };
        let known: Vec<(Assignment, f64)> = tried.iter().map(observation).collect();
        let history: Vec<Observation<'_>> = known
            .iter()
            .map(|(assignment, value)| Observation::over(assignment, vec![*value]))
            .collect();
        let proposal = Proposal { space, goal: &loss(), seed, number, history: &history };
        let assignment = propose(sampler, &proposal);
        let found = value(&assignment);
        tried.push((assignment, found));
    }
    tried
}

/// Smallest at x = 3, y = 1e-3.
fn bowl(assignment: &Assignment) -> f64 {
    let (x, y) = (assignment["x"].as_f64(), assignment["y"].as_f64());
    (x - 3.0).powi(2) + (y.log10() + 3.0).powi(2)
}

fn gp(startup_trials: u32) -> SamplerSettings {
    SamplerSettings::Gp(GpSettings { startup_trials })
}

fn cmaes() -> SamplerSettings {
    SamplerSettings::CmaEs(CmaEsSettings::default())
}

/// Every sampler that needs no list and no grid.
fn all() -> [SamplerSettings; 7] {
    let tpe = TpeSettings { startup_trials: 4, ..TpeSettings::default() };
    [
        SamplerSettings::Random,
        SamplerSettings::Sobol,
        SamplerSettings::Tpe(tpe),
        SamplerSettings::Tpe(TpeSettings { multivariate: false, ..tpe }),
        SamplerSettings::Bohb(TpeSettings::bohb()),
        gp(4),
        cmaes(),
    ]
}

fn best(tried: &[(Assignment, f64)]) -> f64 {
    tried.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min)
}

#[test]
fn a_grid_visits_every_point_once_in_order() {
    let points: Vec<(f64, f64)> = search(&SamplerSettings::Grid, &space(), Seed(7), 6, |_| 0.0)
        .iter()
        .map(|(point, _)| (point["a"].as_f64(), point["b"].as_f64()))
        .collect();
    let expected = [(1.0, 10.0), (1.0, 20.0), (1.0, 30.0), (2.0, 10.0), (2.0, 20.0), (2.0, 30.0)];
    assert_eq!(points, expected);
}

#[test]
fn a_new_hyperparameter_leaves_the_others_alone() {
    let mut wider = plane();
    wider.insert("xx".to_owned(), Domain::Float { min: 1e-5, max: 1e-3, scale: Scale::Log });
    let narrow = search(&SamplerSettings::Random, &plane(), Seed(7), 20, |_| 0.0);
    let wide = search(&SamplerSettings::Random, &wider, Seed(7), 20, |_| 0.0);
    for ((narrow, _), (wide, _)) in narrow.iter().zip(&wide) {
        assert_eq!((narrow["x"], narrow["y"]), (wide["x"], wide["y"]));
    }
}

#[test]
fn small_spaces_are_tried_without_repeats() {
    let tpe = SamplerSettings::Tpe(TpeSettings { startup_trials: 2, ..TpeSettings::default() });
    for sampler in [SamplerSettings::Random, SamplerSettings::Sobol, tpe, gp(2), cmaes()] {
        for seed in 0..20 {
            let tried = search(&sampler, &space(), Seed(seed), 7, |point| point["b"].as_f64());
            let text = |point: &Assignment| format!("{point:?}");
            let different: BTreeSet<String> = tried.iter().map(|(point, _)| text(point)).collect();
            // The seventh of six points has to be one of them again.
            assert_eq!(different.len(), 6, "{} with seed {seed}", sampler.name());
        }
    }
}

#[test]
fn a_list_is_tried_in_its_order() {
    let point = |n: i64| Assignment::from([("a".to_owned(), ParameterValue::Int(n))]);
    let list = SamplerSettings::List(vec![point(7), point(3)]);
    let tried = search(&list, &SearchSpace::new(), Seed(1), 2, |_| 0.0);
    assert_eq!(
        tried.iter().map(|(found, _)| found.clone()).collect::<Vec<_>>(),
        [point(7), point(3)]
    );
}

#[test]
fn tpe_starts_at_random_and_then_learns() {
    let tpe =
        |multivariate| SamplerSettings::Tpe(TpeSettings { multivariate, ..TpeSettings::default() });
    let random = search(&SamplerSettings::Random, &plane(), Seed(3), 10, bowl);
    for multivariate in [false, true] {
        let tried = search(&tpe(multivariate), &plane(), Seed(3), 10, bowl);
        assert_eq!(tried, random, "the first trials are random");
        let wins = (0..20)
            .filter(|seed| {
                let learned = search(&tpe(multivariate), &plane(), Seed(*seed), 60, bowl);
                let drawn = search(&SamplerSettings::Random, &plane(), Seed(*seed), 60, bowl);
                best(&learned) < best(&drawn)
            })
            .count();
        // By chance alone, 16 or more of 20 happen once in 170 times.
        assert!(wins >= 16, "{wins} of 20, multivariate: {multivariate}");
    }
}

#[test]
fn tpe_learns_from_the_highest_rung_that_has_enough_results() {
    let space = plane();
    let at = |x: f64| {
        Assignment::from([
            ("x".to_owned(), ParameterValue::Float(x)),
            ("y".to_owned(), ParameterValue::Float(1e-3)),
        ])
    };
    // The low rung says that small x are good, the high one that large are.
    let points: Vec<Assignment> = (0..30).map(|n| at(-5.0 + 0.5 * f64::from(n))).collect();
    let proposals = |num_high: usize| -> f64 {
        let history: Vec<Observation<'_>> = points
            .iter()
            .enumerate()
            .map(|(index, assignment)| {
                let x = assignment["x"].as_f64();
                let values = if index >= 30 - num_high { vec![x, -x] } else { vec![x] };
                Observation::over(assignment, values)
            })
            .collect();
        let propose = |number| {
            let (goal, seed) = (&loss(), Seed(1));
            let history = history.as_slice();
            let proposal = Proposal { space: &space, goal, seed, number, history };
            propose(&SamplerSettings::Tpe(TpeSettings::default()), &proposal)["x"].as_f64()
        };
        (100..140).map(propose).sum::<f64>() / 40.0
    };
    assert!(proposals(3) < 0.0, "{}", proposals(3));
    assert!(proposals(15) > 6.0, "{}", proposals(15));
}

#[test]
fn models_come_closer_than_chance() {
    for (sampler, num_trials) in [(gp(10), 30), (cmaes(), 100)] {
        let mut wins = 0;
        for seed in 0..10 {
            let learned = search(&sampler, &plane(), Seed(seed), num_trials, bowl);
            let drawn = search(&SamplerSettings::Random, &plane(), Seed(seed), num_trials, bowl);
            wins += u32::from(best(&learned) < 0.2 * best(&drawn));
        }
        // By chance alone, even 7 of 10 happen once in 6.
        assert!(wins >= 8, "{} wins {wins} of 10", sampler.name());
    }
}

#[test]
fn a_third_of_bohbs_trials_are_random() {
    let bohb = SamplerSettings::Bohb(TpeSettings::bohb());
    let random = search(&SamplerSettings::Random, &plane(), Seed(1), 200, bowl);
    let tried = search(&bohb, &plane(), Seed(1), 200, bowl);
    let late = tried.iter().zip(&random).skip(10);
    let num_random = late.filter(|((a, _), (b, _))| a == b).count();
    assert!((40..90).contains(&num_random), "{num_random} of 190");
}

#[test]
fn what_does_not_exist_is_not_proposed() {
    let mut space = plane();
    let choice =
        |values: &[i64]| Domain::Values(values.iter().copied().map(ParameterValue::Int).collect());
    space.insert("a".to_owned(), choice(&[1, 2, 3]));
    let when = |name: &str, value, domain| Domain::When {
        name: name.to_owned(),
        values: vec![ParameterValue::Int(value)],
        domain: Box::new(domain),
    };
    space.insert("b".to_owned(), when("a", 2, choice(&[5, 6])));
    let steps = Domain::Steps { min: 0.0, max: 1.0, step: 0.25 };
    space.insert("c".to_owned(), when("b", 5, steps));
    let value =
        |point: &Assignment| bowl(point) + point.get("c").map_or(2.0, |c| (c.as_f64() - 0.5).abs());
    for sampler in all() {
        let tried = search(&sampler, &space, Seed(4), 60, value);
        let mut with_c = 0;
        for (point, _) in &tried {
            let has = |name: &str| point.contains_key(name);
            assert_eq!(has("b"), point["a"] == ParameterValue::Int(2), "{}", sampler.name());
            assert_eq!(has("c"), point.get("b") == Some(&ParameterValue::Int(5)));
            with_c += usize::from(has("c"));
        }
        assert!(with_c > 3, "{}: {with_c}", sampler.name());
        let again = search(&sampler, &space, Seed(4), 60, value);
        assert_eq!(tried, again, "{}", sampler.name());
    }
}

/// The best word stands between the worst two: whoever took the list for an order would look elsewhere.
#[test]
fn words_are_proposed_without_an_order() {
    let costs = [
        (Category::Linear, 1.0),
        (Category::Cosine, 4.0),
        (Category::Constant, 0.0),
        (Category::Polynomial, 4.0),
        (Category::SlantedTriangular, 1.0),
    ];
    let mut space = plane();
    let words = costs.iter().map(|(word, _)| ParameterValue::Category(*word)).collect();
    space.insert("schedule".to_owned(), Domain::Values(words));
    let word = |point: &Assignment| point["schedule"].category().unwrap();
    let value = |point: &Assignment| {
        let cost = costs.iter().find(|(known, _)| *known == word(point)).map(|(_, cost)| *cost);
        0.02 * bowl(point) + cost.unwrap()
    };
    for sampler in all() {
        let num_trials = if matches!(sampler, SamplerSettings::CmaEs(_)) { 300 } else { 60 };
        let tried = search(&sampler, &space, Seed(5), num_trials, value);
        let found: Vec<Category> = tried.iter().map(|(point, _)| word(point)).collect();
        let late = found.iter().rev().take(20).filter(|word| **word == Category::Constant).count();
        if sampler.learns() {
            assert!(late >= 8, "{}: {late} of the last 20", sampler.name());
        } else {
            let all: BTreeSet<Category> = found.iter().copied().collect();
            assert_eq!(all.len(), costs.len(), "{}", sampler.name());
        }
        assert_eq!(search(&sampler, &space, Seed(5), num_trials, value), tried);
    }
    let only = SearchSpace::from([("schedule".to_owned(), space["schedule"].clone())]);
    let grid = search(&SamplerSettings::Grid, &only, Seed(5), 5, |_| 0.0);
    let grid: Vec<Category> = grid.iter().map(|(point, _)| word(point)).collect();
    assert_eq!(grid, costs.map(|(word, _)| word), "in the order of the manifest");
}

#[test]
fn a_grid_has_no_points_that_differ_in_what_does_not_exist() {
    let mut space = space();
    let domain = Box::new(Domain::Steps { min: 0.0, max: 0.2, step: 0.1 });
    let values = vec![ParameterValue::Int(20)];
    space.insert("d".to_owned(), Domain::When { name: "b".to_owned(), values, domain });
    let tried = search(&SamplerSettings::Grid, &space, Seed(1), 10, |_| 0.0);
    // Of a's two values with b's three, those with b = 20 have three values of d each.
    let different: BTreeSet<String> = tried.iter().map(|(p, _)| format!("{p:?}")).collect();
    assert_eq!(different.len(), 10);
    assert_eq!(muster_common::manifest::grid_points(&space).count(), 10);
    assert_eq!(tried[1].0["d"], ParameterValue::Float(0.0));
    assert_eq!(tried[3].0["d"], ParameterValue::Float(0.2));
}

#[test]
fn results_that_are_not_finite_are_no_trouble() {
    for sampler in all() {
        let nowhere = search(&sampler, &plane(), Seed(2), 25, |_| f64::NAN);
        assert_eq!(nowhere.len(), 25);
        // The best place is well inside of what is finite, which is a third of the points.
        let value = |point: &Assignment| {
            let x = point["x"].as_f64();
            if x < 5.0 { f64::INFINITY } else { (x - 8.0).abs() }
        };
        let tried = search(&sampler, &plane(), Seed(2), 90, value);
        let late = tried[60..].iter().filter(|(_, value)| value.is_finite()).count();
        assert!(!sampler.learns() || late > 16, "{}: {late} of 30", sampler.name());
    }
}

#[test]
fn earlier_experiments_are_learned_from() {
    let space = plane();
    let earlier = search(&gp(10), &space, Seed(1), 40, bowl);
    let history: Vec<Observation<'_>> = earlier
        .iter()
        .map(|(assignment, value)| Observation {
            is_prior: true,
            ..Observation::over(assignment, vec![*value])
        })
        .collect();
    for sampler in [gp(10), cmaes(), SamplerSettings::Tpe(TpeSettings::default())] {
        let mut near = 0;
        for number in 1..=40 {
            let (seed, history) = (Seed(5), history.as_slice());
            let proposal = Proposal { space: &space, goal: &loss(), seed, number, history };
            near += u32::from(bowl(&propose(&sampler, &proposal)) < 10.0);
        }
        // A random point is so good once in five times.
        assert!(near > 20, "{}: {near} of 40", sampler.name());
    }
}

/// Workers at the same time try different things, and what is at work is not waited for.
#[test]
fn trials_at_work_are_not_tried_again() {
    let space = plane();
    for sampler in [gp(10), cmaes()] {
        let done = search(&sampler, &space, Seed(3), 24, bowl);
        let mut tried: Vec<(Assignment, Option<f64>)> =
            done.into_iter().map(|(point, value)| (point, Some(value))).collect();
        for number in 25..=32 {
            let history: Vec<Observation<'_>> = tried
                .iter()
                .map(|(assignment, value)| Observation {
                    is_over: value.is_some(),
                    ..Observation::over(assignment, value.iter().copied().collect())
                })
                .collect();
            let (seed, history) = (Seed(3), history.as_slice());
            let proposal = Proposal { space: &space, goal: &loss(), seed, number, history };
            let point = propose(&sampler, &proposal);
            tried.push((point, None));
        }
        let running = &tried[24..];
        for (index, (a, _)) in running.iter().enumerate() {
            for (b, _) in &running[..index] {
                let far = (a["x"].as_f64() - b["x"].as_f64()).abs() / 15.0
                    + (a["y"].as_f64().log10() - b["y"].as_f64().log10()).abs() / 4.0;
                assert!(far > 1e-4, "{}: {a:?} {b:?}", sampler.name());
            }
        }
    }
}

#[test]
fn diverged_trials_are_never_the_good_ones() {
    let tpe = SamplerSettings::Tpe(TpeSettings::default());
    let value = |point: &Assignment| if point["x"].as_f64() < 5.0 { f64::NAN } else { 1.0 };
    let tried = search(&tpe, &plane(), Seed(2), 60, value);
    let late = tried[30..].iter().filter(|(_, value)| value.is_finite()).count();
    assert!(late > 20, "{late} of 30");
}

proptest! {
    /// A (0, m, 1)-net in every dimension: of the first 2^m points one lies in each of 2^m equal
    /// parts.
    #[test]
    fn sobol_points_spread_evenly(seed: u64, log_points in 1u32..8) {
        let num_points = 1 << log_points;
        let tried = search(&SamplerSettings::Sobol, &plane(), Seed(seed), num_points, |_| 0.0);
        let position = |name: &str, point: &Assignment| match name {
            "x" => (point["x"].as_f64() + 5.0) / 15.0,
            _ => (point["y"].as_f64().log10() + 5.0) / 4.0,
        };
        for name in ["x", "y"] {
            let mut cells: Vec<i64> = tried
                .iter()
                .map(|(point, _)| position(name, point) * f64::from(num_points))
                .map(|cell| {
                    #[expect(clippy::cast_possible_truncation, reason = "a small number")]
                    let cell = (cell + 1e-6).floor() as i64;
                    cell
                })
                .collect();
            cells.sort_unstable();
            prop_assert_eq!(cells, (0..i64::from(num_points)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn proposals_lie_in_the_space_and_repeat(seed: u64, sampler in 0..7usize) {
        let mut space = space();
        space.insert("d".to_owned(), Domain::Int { min: 3, max: 90, scale: Scale::Log });
        let stepped = Domain::IntSteps { min: 1, max: 90, step: 16, scale: Scale::Log };
        space.insert("e".to_owned(), stepped);
        space.extend(plane());
        let sampler = &all()[sampler];
        let tried = search(sampler, &space, Seed(seed), 25, |point| point["d"].as_f64());
        for (point, _) in &tried {
            prop_assert_eq!(point.len(), 6);
            prop_assert!((-5.0..=10.0).contains(&point["x"].as_f64()));
            prop_assert!((1e-5..=1e-1).contains(&point["y"].as_f64()));
            prop_assert!(matches!(point["d"], ParameterValue::Int(3..=90)));
            prop_assert!(matches!(point["e"], ParameterValue::Int(1 | 17 | 33 | 49 | 65 | 81)));
            prop_assert!(matches!(point["a"], ParameterValue::Int(1 | 2)));
        }
        let again = search(sampler, &space, Seed(seed), 25, |point| point["d"].as_f64());
        prop_assert_eq!(tried, again);
    }
}
