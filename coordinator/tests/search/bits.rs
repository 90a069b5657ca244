//! What samplers propose, to the last bit. Trials are proposed again when a journal is replayed, maybe on another
//! machine: whatever changes a bit here, in the code or in a crate, needs new rules of the engine, and old journals go
//! on with what they were written by.

use std::fmt::Write as _;

use muster_common::elementary::Elementary;
use muster_common::goal::{Goal, Merit};
use muster_common::manifest::{
    Assignment, Budget, CmaEsSettings, Domain, GpSettings, ParameterValue, PopulationSettings,
    SamplerSettings, Scale, SearchSpace, TpeSettings,
};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::seed::Seed;
use muster_coordinator::sweep::population::explore;
use muster_coordinator::sweep::sampler::{Observation, Proposal, propose};

const NUM_TRIALS: u32 = 18;

fn goal(num_objectives: usize, functions: Elementary) -> Goal {
    let objective = |metric| Objective { metric, mode: Mode::Min };
    let second = objective(ObjectiveMetric::MeanAbsoluteError);
    let others = if num_objectives > 1 { vec![second] } else { Vec::new() };
    Goal { others, functions, ..objective(ObjectiveMetric::Loss).into() }
}

fn plane() -> SearchSpace {
    let linear = Domain::Float { min: -5.0, max: 10.0, scale: Scale::Linear };
    let log = Domain::Float { min: 1e-5, max: 1e-1, scale: Scale::Log };
    SearchSpace::from([("x".to_owned(), linear), ("y".to_owned(), log)])
}

/// Every kind of domain that stands for itself.
fn flat() -> SearchSpace {
    let choices = [8, 16, 32].map(ParameterValue::Int).to_vec();
    let mut space = plane();
    space.extend([
        ("a".to_owned(), Domain::Int { min: 3, max: 90, scale: Scale::Log }),
        ("b".to_owned(), Domain::Values(choices)),
        ("c".to_owned(), Domain::Steps { min: 0.0, max: 0.5, step: 0.1 }),
    ]);
    space
}

/// And one that depends on another.
fn tree() -> SearchSpace {
    let domain = Box::new(Domain::Float { min: 1e-6, max: 1.0, scale: Scale::Log });
    let (name, values) = ("b".to_owned(), vec![ParameterValue::Int(16)]);
    let mut space = flat();
    space.insert("d".to_owned(), Domain::When { name, values, domain });
    space
}

/// Two values of products and quotients only, which are exact everywhere.
fn values(point: &Assignment) -> [f64; 2] {
    let at = |name: &str| point.get(name).map_or(0.5, |value| value.as_f64());
    let (x, y) = (at("x") - 3.0, at("y") / 1e-3);
    let first = x * x + (y + 1.0 / y) + at("a") / 90.0;
    [first, (x + 2.0) * (x + 2.0) + at("c") + at("d")]
}

/// A searcher at work: what it tried, in order.
fn search(sampler: &SamplerSettings, space: &SearchSpace, goal: &Goal) -> Vec<Assignment> {
    let mut tried: Vec<Assignment> = Vec::new();
    for number in 1..=NUM_TRIALS {
        let observed = |point| {
            let merit = Merit::new(values(point).into_iter().take(1 + goal.others.len()), 0.0);
            Observation::over(point, vec![merit])
        };
        let history: Vec<Observation<'_>> = tried.iter().map(observed).collect();
        let (seed, history) = (Seed(7), history.as_slice());
        let point = propose(sampler, &Proposal { space, goal, seed, number, history });
        tried.push(point);
    }
    tried
}

/// Samplers by name, with the number of objectives.
fn samplers() -> Vec<(&'static str, SamplerSettings, usize)> {
    let tpe = TpeSettings { startup_trials: 6, ..TpeSettings::default() };
    let gp = SamplerSettings::Gp(GpSettings { startup_trials: 6 });
    vec![
        ("random", SamplerSettings::Random, 1),
        ("sobol", SamplerSettings::Sobol, 1),
        ("tpe", SamplerSettings::Tpe(tpe), 1),
        ("tpe univariate", SamplerSettings::Tpe(TpeSettings { multivariate: false, ..tpe }), 1),
        ("tpe of two objectives", SamplerSettings::Tpe(tpe), 2),
        ("bohb", SamplerSettings::Bohb(TpeSettings::bohb()), 1),
        ("gp", gp.clone(), 1),
        ("gp of two objectives", gp, 2),
        ("cmaes", SamplerSettings::CmaEs(CmaEsSettings::default()), 1),
    ]
}

/// One line for a point; real numbers as their bits.
fn line(point: &Assignment) -> String {
    let mut text = String::new();
    for (name, value) in point {
        match value {
            ParameterValue::Int(whole) => write!(text, " {name}={whole}").unwrap(),
            ParameterValue::Float(real) => write!(text, " {name}={:016x}", real.to_bits()).unwrap(),
            ParameterValue::Category(word) => write!(text, " {name}={word}").unwrap(),
        }
    }
    text
}

/// What members of a population go on with.
fn explored() -> String {
    let every = Budget::Steps(10);
    let settings = PopulationSettings {
        every,
        min_budget: every,
        quantile: 0.25,
        resample_probability: 0.5,
        factors: vec![0.8, 1.2],
    };
    let choices = [1, 2, 4].map(ParameterValue::Int).to_vec();
    let space = SearchSpace::from([
        ("dropout".to_owned(), Domain::Steps { min: 0.0, max: 0.5, step: 0.1 }),
        ("learning_rate".to_owned(), Domain::Float { min: 1e-5, max: 1e-1, scale: Scale::Log }),
        ("micro_batch_size".to_owned(), Domain::Values(choices)),
    ]);
    let mut point = Assignment::from([
        ("dropout".to_owned(), ParameterValue::Float(0.2)),
        ("learning_rate".to_owned(), ParameterValue::Float(3e-4)),
        ("micro_batch_size".to_owned(), ParameterValue::Int(2)),
    ]);
    let mut text = String::new();
    for step in 1..=8 {
        let seed = Seed(7).child("step", step);
        point = explore(&settings, &space, &point, Elementary::Portable, seed);
        writeln!(text, "population, {step}:{}", line(&point)).unwrap();
    }
    text
}

#[test]
fn proposals_have_the_same_bits_on_every_machine() {
    let mut found = String::new();
    for (name, sampler, num_objectives) in samplers() {
        // Those of rules 5, and of the rules since.
        for (functions, since) in [(Elementary::Portable, ""), (Elementary::Lanes, " of lanes")] {
            let goal = goal(num_objectives, functions);
            for (kind, space) in [("flat", flat()), ("tree", tree())] {
                for (number, point) in (1..).zip(&search(&sampler, &space, &goal)) {
                    writeln!(found, "{name}{since}, {kind}, {number}:{}", line(point)).unwrap();
                }
            }
        }
    }
    found += &explored();
    let path = format!("{}/tests/search/approved/proposals.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MUSTER_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let approved = std::fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<&str> = found.lines().filter(|line| !approved.contains(*line)).collect();
    assert!(
        found == approved,
        "{} lines are not in {path}, the first: {:?}. Journals would be replayed otherwise than they were written: \
         new bits need new rules of the engine; then `make bless`",
        changed.len(),
        changed.first()
    );
}

/// The functions of the C library and those of `libm` differ in the last bit now and then, so as long as no decision
/// is that close, proposals do hardly more.
#[test]
fn older_rules_propose_all_but_the_same() {
    for (name, sampler, num_objectives) in samplers() {
        // These climb by the sign of a slope and from a cloud of points: small differences do not stay small.
        if name.starts_with("gp") || name.starts_with("cmaes") {
            continue;
        }
        let tried = |functions| search(&sampler, &plane(), &goal(num_objectives, functions));
        let newer = tried(Elementary::Lanes);
        for older in [Elementary::Platform, Elementary::Portable].map(tried) {
            for (number, (a, b)) in (1..).zip(older.iter().zip(&newer)) {
                for (key, value) in a {
                    let (a, b) = (value.as_f64(), b[key].as_f64());
                    assert!((a - b).abs() <= 1e-9 * a.abs().max(1e-6), "{name} {number}: {a} {b}");
                }
            }
        }
    }
}

/// The draws of older rules, written out with the standard library's functions.
#[test]
fn older_rules_draw_with_the_functions_of_the_c_library() {
    let tried = search(&SamplerSettings::Random, &plane(), &goal(1, Elementary::Platform));
    for (number, point) in (1..).zip(&tried) {
        let unit = Seed(7).child("sampler", number).child("y", 0).draws().unit();
        let (low, high) = (1e-5f64.ln(), 1e-1f64.ln());
        let wanted = (low + (high - low) * unit).exp().clamp(1e-5, 1e-1);
        assert_eq!(point["y"].as_f64().to_bits(), wanted.to_bits(), "trial {number}");
    }
}
