//! Manifests by chance: every sampler, every pruner, goals of all kinds, gangs, priorities, limits.

use muster_common::manifest::Manifest;
use muster_common::seed::Draws;

/// What is wanted, and the sampler, or another one that can look for it.
fn goal<'a>(draws: &mut Draws, pruner: &str, sampler: &'a str) -> (&'static str, &'a str) {
    let several = |goal| if sampler == "cmaes" { (goal, "tpe") } else { (goal, sampler) };
    match draws.below(6) {
        0 => ("metric: accuracy, constraints: [{metric: loss, max: 0.5}]", sampler),
        1 if !pruner.contains("patience") => {
            several("objectives: [{metric: accuracy}, {metric: loss}]")
        }
        2 if !pruner.contains("patience") => several(
            "objectives: [{metric: loss}, {metric: accuracy}, {metric: macro_recall, mode: min}], \
             constraints: [{metric: loss, min: 0.1, max: 0.9}]",
        ),
        _ => ("metric: accuracy", sampler),
    }
}

fn pruner(draws: &mut Draws, max_trials: u64) -> String {
    let eta = 2 + draws.below(3);
    let halving =
        |kind: &str| format!("{{type: {kind}, reduction_factor: {eta}, min_budget: {{steps: 5}}}}");
    match draws.below(10) {
        0 => "{type: none}".to_owned(),
        1 => halving("asha_stopping"),
        2 => halving("hyperband"),
        3 => "{type: median, every: {steps: 20}, startup_trials: 2}".to_owned(),
        4 => "{type: patience, every: {steps: 20}, patience: 2}".to_owned(),
        5 if max_trials > 1 => "{type: population, every: {steps: 20}}".to_owned(),
        6 => {
            let percentile = 10 + draws.below(80);
            format!(
                "{{type: percentile, percentile: {percentile}, every: {{steps: 20}}, startup_trials: 1}}"
            )
        }
        _ => halving("asha"),
    }
}

/// A sampler that goes with a pruner, and the space it looks at. A list names the points itself.
fn sampler(draws: &mut Draws, pruner: &str, max_trials: u64) -> (String, &'static str) {
    let range = "learning_rate: {min: 1e-5, max: 1e-3, scale: log}";
    if pruner.contains("hyperband") {
        return ("bohb".to_owned(), range);
    }
    if pruner.contains("population") {
        return ("random".to_owned(), range);
    }
    match draws.below(7) {
        0 => ("random".to_owned(), range),
        1 => ("sobol".to_owned(), range),
        2 => ("tpe".to_owned(), range),
        3 => ("{type: gp, startup_trials: 3}".to_owned(), range),
        4 => ("cmaes".to_owned(), range),
        5 => (
            "grid".to_owned(),
            "learning_rate: {values: [1e-5, 2e-5, 5e-5, 1e-4]}, weight_decay: {values: [0.0, 0.01, 0.1]}",
        ),
        _ => {
            let points: Vec<String> =
                (1..=max_trials).map(|point| format!("{{learning_rate: {point}e-5}}")).collect();
            (format!("{{type: list, points: [{}]}}", points.join(", ")), "weight_decay: 0.01")
        }
    }
}

/// A manifest of one to twelve trials.
pub(super) fn manifest(draws: &mut Draws) -> Manifest {
    let max_trials = 1 + draws.below(12);
    let freeze = if draws.below(2) == 0 { "{layers: 1}" } else { "{layers: 0}" };
    let limit = if draws.below(3) == 0 { "max_concurrent: 2" } else { "max_concurrent: 9" };
    let pruner = pruner(draws, max_trials);
    let (sampler, space) = sampler(draws, &pruner, max_trials);
    let (goal, sampler) = goal(draws, &pruner, &sampler);
    let target =
        if draws.below(6) == 0 && !goal.contains("objectives") { ", target: 0.85" } else { "" };
    let slots = match draws.below(5) {
        0 | 1 => "1".to_owned(),
        2 => "2".to_owned(),
        3 => "3".to_owned(),
        _ => "{min: 2, max: 4, grace_seconds: 3}".to_owned(),
    };
    let wide = ["", ", max_slots: 4", ", max_slots: 6"][usize::try_from(draws.below(3)).unwrap()];
    let priority = [0, 0, 0, 5, -5][usize::try_from(draws.below(5)).unwrap()];
    let limits = match draws.below(12) {
        0 => "{hours: 0.001}",
        1 => "{slot_hours: 0.001}",
        2 => "{trial_hours: 0.0005}",
        _ => "{}",
    };
    let text = format!(
        "version: 1
name: sim
seed: {seed}
model: {{pretrained: m, freeze: {freeze}}}
data:
  train: {{path: d.csv}}
  validation: {{fraction: 0.1}}
  text: text
  label: {{column: label}}
hyperparameters: {{{space}}}
searcher: {{{goal}, sampler: {sampler}, max_trials: {max_trials}, {limit}, pruner: {pruner}{target}}}
budget: {{steps: 100}}
checkpoint: {{every_steps: 3, keep_last: {keep}}}
resources: {{slots: {slots}{wide}, priority: {priority}}}
limits: {limits}
max_restarts: {restarts}
",
        seed = draws.below(1000),
        keep = 1 + draws.below(3),
        restarts = draws.below(4),
    );
    Manifest::parse(&text).unwrap()
}
