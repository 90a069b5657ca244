//! Samplers on test functions with several objectives: how much volume their fronts cover.

use std::f64::consts::PI;

use anyhow::{Context, bail};
use muster_common::goal::{Constraint, Goal, Merit};
use muster_common::manifest::{Assignment, Domain, Scale, SearchSpace};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::seed::Seed;
use muster_coordinator::sweep::front::hypervolume;
use muster_coordinator::sweep::sampler::{Observation, Proposal, propose};
use serde_json::{Value, json};

use super::Flags;
use super::search::sampler;

/// Functions to make small, of a cube from 0 to 1, and where their volume ends.
struct Problem {
    dimensions: usize,
    reference: Vec<f64>,
    /// Values, and by how much constraints are broken.
    value: fn(&[f64]) -> (Vec<f64>, f64),
}

fn problem(name: &str) -> anyhow::Result<Problem> {
    Ok(match name {
        "zdt1" => Problem { dimensions: 5, reference: vec![1.1, 7.0], value: zdt1 },
        "dtlz2" => Problem { dimensions: 5, reference: vec![1.1; 3], value: dtlz2 },
        "binh_korn" => Problem { dimensions: 2, reference: vec![140.0, 50.0], value: binh_korn },
        _ => bail!("no function of several objectives is called {name}"),
    })
}

/// Zitzler, Deb, Thiele 2000.
fn zdt1(x: &[f64]) -> (Vec<f64>, f64) {
    let g = 1.0 + 9.0 * x[1..].iter().sum::<f64>() / (x.len() - 1) as f64;
    (vec![x[0], g * (1.0 - (x[0] / g).sqrt())], 0.0)
}

/// Deb, Thiele, Laumanns, Zitzler 2002, three objectives.
fn dtlz2(x: &[f64]) -> (Vec<f64>, f64) {
    let g: f64 = x[2..].iter().map(|x| (x - 0.5).powi(2)).sum();
    let (a, b) = (x[0] * PI / 2.0, x[1] * PI / 2.0);
    let values = [a.cos() * b.cos(), a.cos() * b.sin(), a.sin()];
    (values.iter().map(|value| value * (1.0 + g)).collect(), 0.0)
}

/// Binh, Korn 1997, two constraints.
fn binh_korn(x: &[f64]) -> (Vec<f64>, f64) {
    let (x, y) = (5.0 * x[0], 3.0 * x[1]);
    let values = vec![4.0 * (x * x + y * y), (x - 5.0).powi(2) + (y - 5.0).powi(2)];
    let inside = ((x - 5.0).powi(2) + y * y - 25.0).max(0.0);
    let outside = (7.7 - (x - 8.0).powi(2) - (y + 3.0).powi(2)).max(0.0);
    (values, inside + outside)
}

/// The names of metrics stand for the values.
fn goal(num_objectives: usize) -> anyhow::Result<Goal> {
    let metrics =
        [ObjectiveMetric::Loss, ObjectiveMetric::MeanAbsoluteError, ObjectiveMetric::Perplexity];
    let objective = |metric| Objective { metric, mode: Mode::Min };
    let mut objectives = metrics.into_iter().take(num_objectives).map(objective);
    let first = objectives.next().context("no objective")?;
    let bound = Constraint { metric: ObjectiveMetric::Mcc, min: Some(0.0), max: None };
    Ok(Goal { others: objectives.collect(), constraints: vec![bound], ..first.into() })
}

/// Volumes after `--trials` for each of `--seeds`.
pub(super) fn front(flags: &Flags) -> anyhow::Result<Value> {
    let sampler = sampler(flags.text("sampler")?)?;
    let problem = problem(flags.text("function")?)?;
    let num_trials: u32 = flags.number("trials", 100)?;
    let seeds: u64 = flags.number("seeds", 20)?;
    let goal = goal(problem.reference.len())?;
    let side = || Domain::Float { min: 0.0, max: 1.0, scale: Scale::Linear };
    let space: SearchSpace =
        (0..problem.dimensions).map(|dimension| (format!("x{dimension}"), side())).collect();
    let volume = |seed| {
        let mut tried: Vec<(Assignment, Merit)> = Vec::new();
        for number in 1..=num_trials {
            let history: Vec<Observation<'_>> =
                tried.iter().map(|(point, merit)| Observation::over(point, vec![*merit])).collect();
            let (goal, space) = (&goal, &space);
            let proposal = Proposal { space, goal, seed: Seed(seed), number, history: &history };
            let point = propose(&sampler, &proposal);
            let x: Vec<f64> = point.values().map(|value| value.as_f64()).collect();
            let (values, violation) = (problem.value)(&x);
            tried.push((point, Merit::new(values, violation)));
        }
        let feasible = tried.iter().filter(|(_, merit)| merit.is_feasible());
        let costs: Vec<Vec<f64>> = feasible.map(|(_, merit)| merit.values().to_vec()).collect();
        hypervolume(&costs, &problem.reference)
    };
    Ok(json!({ "volumes": (0..seeds).map(volume).collect::<Vec<f64>>() }))
}
