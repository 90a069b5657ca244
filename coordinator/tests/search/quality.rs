//! Whether what learns from results comes closer than chance where there are constraints or several
//! objectives, on functions of the literature.

use std::f64::consts::PI;

use muster_common::goal::{Constraint, Goal, Merit};
use muster_common::manifest::{
    Assignment, CmaEsSettings, Domain, GpSettings, SamplerSettings, Scale, SearchSpace, TpeSettings,
};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::seed::Seed;
use muster_coordinator::sweep::front::hypervolume;
use muster_coordinator::sweep::sampler::{Observation, Proposal, propose};

const NUM_SEEDS: u64 = 20;

/// What is to be small, and by how much constraints are broken.
type Function = fn(&[f64]) -> (Vec<f64>, f64);

fn objective(metric: ObjectiveMetric) -> Objective {
    Objective { metric, mode: Mode::Min }
}

/// Names of metrics stand for the values of the functions.
fn goal(num_objectives: usize, is_bounded: bool) -> Goal {
    let metrics =
        [ObjectiveMetric::Loss, ObjectiveMetric::MeanAbsoluteError, ObjectiveMetric::Perplexity];
    let bound = Constraint { metric: ObjectiveMetric::Mcc, min: Some(0.0), max: None };
    let mut objectives = metrics.into_iter().take(num_objectives).map(objective);
    let first = objectives.next().unwrap();
    Goal {
        others: objectives.collect(),
        constraints: if is_bounded { vec![bound] } else { Vec::new() },
        ..first.into()
    }
}

fn cube(num: usize, min: f64, max: f64) -> SearchSpace {
    let side = || Domain::Float { min, max, scale: Scale::Linear };
    (0..num).map(|dimension| (format!("x{dimension}"), side())).collect()
}

fn search(
    sampler: &SamplerSettings,
    (space, goal): (&SearchSpace, &Goal),
    seed: u64,
    num_trials: u32,
    function: Function,
) -> Vec<Merit> {
    let mut tried: Vec<(Assignment, Merit)> = Vec::new();
    for number in 1..=num_trials {
        let history: Vec<Observation<'_>> =
            tried.iter().map(|(point, merit)| Observation::over(point, vec![*merit])).collect();
        let proposal = Proposal { space, goal, seed: Seed(seed), number, history: &history };
        let point = propose(sampler, &proposal);
        let x: Vec<f64> = point.values().map(|value| value.as_f64()).collect();
        let (values, violation) = function(&x);
        tried.push((point, Merit::new(values, violation)));
    }
    tried.into_iter().map(|(_, merit)| merit).collect()
}

/// The best value that keeps all constraints.
fn best(merits: &[Merit]) -> f64 {
    let feasible = merits.iter().filter(|merit| merit.is_feasible());
    feasible.map(Merit::first).fold(f64::INFINITY, f64::min)
}

fn volume(merits: &[Merit], reference: &[f64]) -> f64 {
    let feasible = merits.iter().filter(|merit| merit.is_feasible());
    let costs: Vec<Vec<f64>> = feasible.map(|merit| merit.values().to_vec()).collect();
    hypervolume(&costs, reference)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Gardner et al. 2014, "Bayesian Optimization with Inequality Constraints", simulation 1; -1.888 is the
/// least that keeps the constraint, where it binds.
fn gardner(x: &[f64]) -> (Vec<f64>, f64) {
    let (x, y) = (x[0], x[1]);
    (vec![(2.0 * x).cos() * y.cos() + x.sin()], ((x + y).cos() + 0.5).max(0.0))
}

/// Branin 1972 on the disc of Gelbart, Snoek, Adams 2014 made small: of the three least places only that
/// near (pi, 2.275) lies in it, a tenth of the square.
fn branin_on_a_disc(x: &[f64]) -> (Vec<f64>, f64) {
    let (x, y) = (15.0 * x[0] - 5.0, 15.0 * x[1]);
    let bend = y - 5.1 / (4.0 * PI * PI) * x * x + 5.0 / PI * x - 6.0;
    let value = bend * bend + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0;
    let outside = (x - 2.5).powi(2) + (y - 4.0).powi(2) - 7.0;
    (vec![value], outside.max(0.0) / 7.0)
}

/// Zitzler, Deb, Thiele 2000, test function T1.
fn zdt1(x: &[f64]) -> (Vec<f64>, f64) {
    let g = 1.0 + 9.0 * x[1..].iter().sum::<f64>() / (x.len() - 1) as f64;
    (vec![x[0], g * (1.0 - (x[0] / g).sqrt())], 0.0)
}

/// Fonseca, Fleming 1995.
fn fonseca_fleming(x: &[f64]) -> (Vec<f64>, f64) {
    let shift = 1.0 / (x.len() as f64).sqrt();
    let value =
        |sign: f64| 1.0 - (-x.iter().map(|x| (x - sign * shift).powi(2)).sum::<f64>()).exp();
    (vec![value(1.0), value(-1.0)], 0.0)
}

/// Deb, Thiele, Laumanns, Zitzler 2002, DTLZ2 with three objectives: a part of a sphere.
fn dtlz2(x: &[f64]) -> (Vec<f64>, f64) {
    let g: f64 = x[2..].iter().map(|x| (x - 0.5).powi(2)).sum();
    let (a, b) = (x[0] * PI / 2.0, x[1] * PI / 2.0);
    let values = [a.cos() * b.cos(), a.cos() * b.sin(), a.sin()];
    (values.iter().map(|value| value * (1.0 + g)).collect(), 0.0)
}

/// Binh, Korn 1997: two objectives and two constraints.
fn binh_korn(x: &[f64]) -> (Vec<f64>, f64) {
    let (x, y) = (5.0 * x[0], 3.0 * x[1]);
    let values = vec![4.0 * (x * x + y * y), (x - 5.0).powi(2) + (y - 5.0).powi(2)];
    let inside = ((x - 5.0).powi(2) + y * y - 25.0).max(0.0) / 25.0;
    let outside = (7.7 - (x - 8.0).powi(2) - (y + 3.0).powi(2)).max(0.0) / 7.7;
    (values, inside + outside)
}

fn tpe() -> SamplerSettings {
    SamplerSettings::Tpe(TpeSettings::default())
}

fn gp() -> SamplerSettings {
    SamplerSettings::Gp(GpSettings::default())
}

#[test]
fn constrained_minima_are_found_more_closely_than_by_chance() {
    let functions: [(&str, Function, SearchSpace, f64); 2] = [
        ("gardner", gardner, cube(2, 0.0, 6.0), -1.888),
        ("branin on a disc", branin_on_a_disc, cube(2, 0.0, 1.0), 0.397_887),
    ];
    for (name, function, space, least) in functions {
        let goal = goal(1, true);
        let regrets = |sampler: &SamplerSettings, num_trials| -> Vec<f64> {
            let run = |seed| search(sampler, (&space, &goal), seed, num_trials, function);
            (0..NUM_SEEDS).map(|seed| best(&run(seed)) - least).collect()
        };
        // The cloud of `cmaes` goes to the next minimum, of which Gardner's function has several.
        let is_smooth = name != "gardner";
        let cmaes = is_smooth.then(|| (SamplerSettings::CmaEs(CmaEsSettings::default()), 120));
        for (sampler, num_trials) in [(tpe(), 60), (gp(), 40)].into_iter().chain(cmaes) {
            let (learned, drawn) =
                (regrets(&sampler, num_trials), regrets(&SamplerSettings::Random, num_trials));
            let num_wins = learned.iter().zip(&drawn).filter(|(a, b)| a < b).count();
            let (learned, drawn) = (median(learned), median(drawn));
            println!(
                "{name}: {} {learned:.4}, random {drawn:.4}, {num_wins} of 20",
                sampler.name()
            );
            // By chance alone, 15 or more of 20 happen once in 48 times.
            assert!(num_wins >= 15, "{name}: {} wins {num_wins} of 20", sampler.name());
            assert!(learned < 0.6 * drawn, "{name}: {} {learned} {drawn}", sampler.name());
        }
    }
}

#[test]
fn fronts_cover_more_than_by_chance() {
    let functions: [(&str, Function, SearchSpace, Goal, &[f64]); 4] = [
        ("zdt1", zdt1, cube(3, 0.0, 1.0), goal(2, false), &[1.1, 6.0]),
        ("fonseca-fleming", fonseca_fleming, cube(3, -4.0, 4.0), goal(2, false), &[1.0, 1.0]),
        ("dtlz2", dtlz2, cube(4, 0.0, 1.0), goal(3, false), &[1.1, 1.1, 1.1]),
        ("binh-korn", binh_korn, cube(2, 0.0, 1.0), goal(2, true), &[140.0, 50.0]),
    ];
    for (name, function, space, goal, reference) in functions {
        let volumes = |sampler: &SamplerSettings, num_trials| -> Vec<f64> {
            let run = |seed| search(sampler, (&space, &goal), seed, num_trials, function);
            (0..NUM_SEEDS).map(|seed| volume(&run(seed), reference)).collect()
        };
        // The sides of this one have nothing to do with each other.
        let multivariate = name != "dtlz2";
        let tpe = SamplerSettings::Tpe(TpeSettings { multivariate, ..TpeSettings::default() });
        for (sampler, num_trials) in [(tpe, 80), (gp(), 40)] {
            let (learned, drawn) =
                (volumes(&sampler, num_trials), volumes(&SamplerSettings::Random, num_trials));
            let num_wins = learned.iter().zip(&drawn).filter(|(a, b)| a > b).count();
            let (learned, drawn) = (median(learned), median(drawn));
            println!(
                "{name}: {} {learned:.4}, random {drawn:.4}, {num_wins} of 20",
                sampler.name()
            );
            assert!(num_wins >= 15, "{name}: {} wins {num_wins} of 20", sampler.name());
        }
    }
}
