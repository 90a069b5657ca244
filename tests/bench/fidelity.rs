//! Searches with several fidelities on test functions: Hyperband, and TPE inside it (BOHB). A trial that is trained
//! for a part of its budget tells a value that is somewhat beside that of the whole.

use muster_common::run::TrainTask;
use serde_json::{Value, json};

use super::{Flags, one_slot};

/// Steps of the whole budget, to the first rung, and the factor from one to the next.
const STEPS: u64 = 243;
const FIRST_RUNG: u64 = 27;
const FACTOR: u64 = 3;
/// The engine knows hyperparameters of training only; all of these may lie between 0 and this.
const NAMES: [&str; 6] =
    ["dropout", "label_smoothing", "weight_decay", "warmup_ratio", "adam_beta1", "adam_beta2"];
const SIDE: f64 = 0.9;

/// A function of a point in the unit cube and of a fidelity, 0 to 1, to make small; smallest 0 at fidelity 1.
struct Problem {
    num_dimensions: usize,
    value: fn(&[f64], f64) -> f64,
}

/// Branin's function with a fidelity (Wu et al. 2019, "Practical multi-fidelity Bayesian optimization for
/// hyperparameter tuning").
fn branin(unit: &[f64], fidelity: f64) -> f64 {
    use std::f64::consts::PI;
    let (x, y) = (15.0 * unit[0] - 5.0, 15.0 * unit[1]);
    let curve = 5.1 / (4.0 * PI * PI) - 0.1 * (1.0 - fidelity);
    let bend = y - curve * x * x + 5.0 / PI * x - 6.0;
    bend * bend + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0 - 0.397_887
}

/// Hartmann's function of six dimensions with a fidelity, of the same authors.
fn hartmann(unit: &[f64], fidelity: f64) -> f64 {
    let heights = [1.0 - 0.1 * (1.0 - fidelity), 1.2, 3.0, 3.2];
    3.322_37 - super::search::peaks(unit, heights)
}

/// The assignment of a trial as a point in the unit cube.
fn unit(task: &TrainTask, num_dimensions: usize) -> Option<Vec<f64>> {
    let value = |name: &&str| Some(task.assignment.get(name)?.as_f64() / SIDE);
    NAMES[..num_dimensions].iter().map(value).collect()
}

/// Smallest value of a whole budget after each of `num_budgets` times its steps; `None` before there is one.
fn trace(
    problem: &Problem,
    sampler: &str,
    seed: u64,
    num_budgets: u64,
) -> anyhow::Result<Vec<Option<f64>>> {
    let ranges: Vec<String> = NAMES[..problem.num_dimensions]
        .iter()
        .map(|name| format!("{name}: {{min: 0, max: {SIDE}}}"))
        .collect();
    let manifest = format!(
        "version: 1\nname: fidelity\nseed: {seed}\nmodel: {{pretrained: m}}\ndata:\n  train: {{path: d.csv}}\n  \
         validation: {{fraction: 0.1}}\n  text: text\n  label: {{column: label}}\nhyperparameters: {{{}}}\n\
         searcher: {{metric: loss, max_trials: 100000, sampler: {sampler}, pruner: {{type: hyperband, \
         reduction_factor: {FACTOR}, min_budget: {{steps: {FIRST_RUNG}}}}}}}\nbudget: {{steps: {STEPS}}}\n",
        ranges.join(", "),
    );
    let (mut best, mut trace) = (None, Vec::new());
    one_slot::search(&manifest, |task, num_steps| {
        // What this result costs too much counts from the next one on.
        while (trace.len() as u64 + 1) * STEPS < num_steps {
            trace.push(best);
        }
        if trace.len() as u64 >= num_budgets {
            return None;
        }
        let point = unit(task, problem.num_dimensions)?;
        let fidelity = task.target_step as f64 / STEPS as f64;
        let value = (problem.value)(&point, fidelity);
        if task.target_step == STEPS {
            best = Some(best.map_or(value, |best: f64| best.min(value)));
        }
        Some(one_slot::evaluation(value, 0.5))
    })?;
    trace.truncate(usize::try_from(num_budgets)?);
    anyhow::ensure!(trace.len() as u64 == num_budgets, "the search ended before its budget");
    Ok(trace)
}

/// Regret of `--sampler` under Hyperband after 1, 2, ... `--trials` times the steps of a whole trial, for each of
/// `--seeds`.
pub(super) fn fidelity(flags: &Flags) -> anyhow::Result<Value> {
    let problem = match flags.text("function")? {
        "branin_fidelity" => Problem { num_dimensions: 2, value: branin },
        "hartmann6_fidelity" => Problem { num_dimensions: 6, value: hartmann },
        other => anyhow::bail!("no function is called {other}"),
    };
    let sampler = flags.text("sampler")?;
    let num_budgets = flags.number("trials", 50)?;
    let seeds: u64 = flags.number("seeds", 20)?;
    let traces: anyhow::Result<Vec<Vec<Option<f64>>>> =
        (0..seeds).map(|seed| trace(&problem, sampler, seed, num_budgets)).collect();
    Ok(json!({ "traces": traces? }))
}
