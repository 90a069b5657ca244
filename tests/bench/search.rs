//! Samplers on standard test functions: how close they come after so many trials, and how fast
//! they propose.

use std::time::Instant;

use anyhow::{Context, bail};
use muster_common::manifest::{
    Assignment, CmaEsSettings, Domain, GpSettings, ParameterValue, SamplerSettings, Scale,
    SearchSpace, TpeSettings,
};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::seed::Seed;
use muster_coordinator::sweep::sampler::{Observation, Proposal, propose};
use serde_json::{Value, json};

use super::Flags;

const LOSS: Objective = Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min };

/// A function to make small, over hyperparameters with made-up names.
struct Problem {
    space: SearchSpace,
    value: fn(&Assignment) -> f64,
}

fn float(min: f64, max: f64, scale: Scale) -> Domain {
    Domain::Float { min, max, scale }
}

fn problem(name: &str) -> anyhow::Result<Problem> {
    let named = |domains: Vec<(&str, Domain)>| -> SearchSpace {
        domains.into_iter().map(|(name, domain)| (name.to_owned(), domain)).collect()
    };
    let cube = |dimensions: usize, min, max| -> SearchSpace {
        (0..dimensions).map(|d| (format!("x{d}"), float(min, max, Scale::Linear))).collect()
    };
    Ok(match name {
        "branin" => Problem {
            space: named(vec![
                ("x0", float(-5.0, 10.0, Scale::Linear)),
                ("x1", float(0.0, 15.0, Scale::Linear)),
            ]),
            value: branin,
        },
        "hartmann6" => Problem { space: cube(6, 0.0, 1.0), value: hartmann6 },
        "rosenbrock4" => Problem { space: cube(4, -2.0, 2.0), value: rosenbrock },
        "fine_tuning" => Problem {
            space: named(vec![
                ("batch", Domain::Values([8, 16, 32, 64].map(ParameterValue::Int).to_vec())),
                ("dropout", float(0.0, 0.5, Scale::Linear)),
                ("layers", Domain::Int { min: 0, max: 11, scale: Scale::Linear }),
                ("rate", float(1e-6, 1e-2, Scale::Log)),
            ]),
            value: fine_tuning,
        },
        _ => bail!("no function is called {name}"),
    })
}

fn coordinates(point: &Assignment) -> Vec<f64> {
    point.values().map(|value| value.as_f64()).collect()
}

/// Branin 1972; smallest 0.397887.
fn branin(point: &Assignment) -> f64 {
    use std::f64::consts::PI;
    let (x, y) = (point["x0"].as_f64(), point["x1"].as_f64());
    let bend = y - 5.1 / (4.0 * PI * PI) * x * x + 5.0 / PI * x - 6.0;
    bend * bend + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0 - 0.397_887
}

/// Hartmann 1973, six dimensions; smallest -3.32237.
fn hartmann6(point: &Assignment) -> f64 {
    3.322_37 - peaks(&coordinates(point), [1.0, 1.2, 3.0, 3.2])
}

/// The sum of Hartmann's four peaks in six dimensions.
pub(super) fn peaks(x: &[f64], heights: [f64; 4]) -> f64 {
    const A: [[f64; 6]; 4] = [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ];
    const P: [[f64; 6]; 4] = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ];
    let peak = |(height, (a, p)): (f64, (&[f64; 6], &[f64; 6]))| {
        let far: f64 = x.iter().zip(a.iter().zip(p)).map(|(x, (a, p))| a * (x - p) * (x - p)).sum();
        height * (-far).exp()
    };
    heights.into_iter().zip(A.iter().zip(&P)).map(peak).sum()
}

/// Rosenbrock 1960, chained; smallest 0.
fn rosenbrock(point: &Assignment) -> f64 {
    let x = coordinates(point);
    x.windows(2).map(|w| 100.0 * (w[1] - w[0] * w[0]).powi(2) + (1.0 - w[0]).powi(2)).sum()
}

/// The shape of a fine-tuning landscape: a valley in the learning rate that moves with the batch
/// size, a wall of divergence, gentle slopes in dropout and frozen layers; smallest 0.
fn fine_tuning(point: &Assignment) -> f64 {
    let value = |name: &str| point[name].as_f64();
    let best_rate = -4.5 + 0.15 * (value("batch") / 16.0).log2();
    let off = value("rate").log10() - best_rate;
    let wall = if off > 1.0 { 2.0 * (off - 1.0) } else { 0.0 };
    let batch = 0.02 * (value("batch") / 32.0).log2().abs();
    0.2 * off * off
        + wall
        + batch
        + 0.8 * (value("dropout") - 0.12).powi(2)
        + 0.004 * (value("layers") - 3.0).powi(2)
}

pub(super) fn sampler(name: &str) -> anyhow::Result<SamplerSettings> {
    Ok(match name {
        "random" => SamplerSettings::Random,
        "sobol" => SamplerSettings::Sobol,
        "tpe" => SamplerSettings::Tpe(TpeSettings::default()),
        "gp" => SamplerSettings::Gp(GpSettings::default()),
        "cmaes" => SamplerSettings::CmaEs(CmaEsSettings::default()),
        "tpe_univariate" => {
            SamplerSettings::Tpe(TpeSettings { multivariate: false, ..TpeSettings::default() })
        }
        _ => bail!("no sampler is called {name}"),
    })
}

/// Assignments and values in the order in which they were tried.
struct Search<'a> {
    sampler: &'a SamplerSettings,
    problem: &'a Problem,
    seed: Seed,
    tried: Vec<(Assignment, f64)>,
}

impl Search<'_> {
    fn propose(&self, number: u32) -> Assignment {
        let history: Vec<Observation<'_>> = self
            .tried
            .iter()
            .map(|(assignment, value)| Observation::over(assignment, vec![*value]))
            .collect();
        let (space, seed) = (&self.problem.space, self.seed);
        let proposal = Proposal { space, goal: &LOSS.into(), seed, number, history: &history };
        propose(self.sampler, &proposal)
    }

    /// Regret after each trial: the smallest value so far, as all functions here are smallest at 0.
    fn run(&mut self, num_trials: u32) -> Vec<f64> {
        for number in 1..=num_trials {
            let assignment = self.propose(number);
            let value = (self.problem.value)(&assignment);
            self.tried.push((assignment, value));
        }
        let smaller = |best: &mut f64, (_, value): &(Assignment, f64)| {
            *best = best.min(*value);
            Some(*best)
        };
        self.tried.iter().scan(f64::INFINITY, smaller).collect()
    }
}

/// Regret after each of `--trials`, for each of `--seeds`, and proposals per second with `--finished` trials.
pub(super) fn search(flags: &Flags) -> anyhow::Result<Value> {
    let sampler = sampler(flags.text("sampler")?)?;
    let problem = problem(flags.text("function")?)?;
    let num_trials = flags.number("trials", 100)?;
    let seeds: u64 = flags.number("seeds", 20)?;
    let search = |seed| Search { sampler: &sampler, problem: &problem, seed, tried: Vec::new() };
    let traces: Vec<Vec<f64>> = (0..seeds).map(|seed| search(Seed(seed)).run(num_trials)).collect();
    let finished: u32 = flags.number("finished", 0)?;
    if finished == 0 {
        return Ok(json!({ "traces": traces }));
    }
    let mut filled = Search { sampler: &SamplerSettings::Random, ..search(Seed(0)) };
    filled.run(finished);
    filled.sampler = &sampler;
    let (mut num_proposals, begun) = (0u32, Instant::now());
    while begun.elapsed().as_secs_f64() < 2.0 {
        let number = finished.checked_add(num_proposals + 1).context("too many proposals")?;
        std::hint::black_box(filled.propose(number));
        num_proposals += 1;
    }
    let per_second = f64::from(num_proposals) / begun.elapsed().as_secs_f64();
    Ok(json!({ "traces": traces, "proposals_per_second": per_second }))
}
