//! A guess of the work left: the ideal halving of the trials that are still to come, rung by rung, in
//! training examples.

use muster_common::manifest::TrialSettings;

use crate::engine::experiment::Experiment;
use crate::engine::trial::{Trial, TrialState};
use crate::live::Live;

/// Training examples that are left, about.
pub fn examples_left(experiment: &Experiment, live: &Live) -> f64 {
    let eta = match experiment.manifest.searcher.as_ref().map(|searcher| &searcher.pruner) {
        Some(pruner) => pruner.halving().map_or(1, |halving| halving.reduction_factor),
        None => 1,
    };
    let costs = rung_costs(experiment);
    let mut entrants_expected = experiment.max_trials();
    let mut left = 0.0;
    for (rung, cost) in costs.iter().enumerate() {
        let entered = |trial: &&Trial| {
            trial.rung() > rung
                || (trial.rung() == rung
                    && !trial.is_terminal()
                    && trial.state != TrialState::Paused)
        };
        let num_entered = experiment.trials.values().filter(entered).count();
        let to_come = (entrants_expected as usize).saturating_sub(num_entered);
        left += to_come as f64 * cost;
        entrants_expected /= eta.max(1);
    }
    left + experiment
        .trials
        .values()
        .map(|trial| running_left(experiment, trial, live))
        .sum::<f64>()
}

/// Examples between each rung and the one below, for the mean trial.
fn rung_costs(experiment: &Experiment) -> Vec<f64> {
    let num_trials = experiment.trials.len().max(1) as f64;
    let examples_at = |rung: usize| {
        experiment.trials.values().map(|trial| rung_examples(experiment, trial, rung)).sum::<f64>()
            / num_trials
    };
    let totals: Vec<f64> = (0..experiment.ladder.len()).map(examples_at).collect();
    let below = std::iter::once(0.0).chain(totals.iter().copied());
    totals.iter().zip(below).map(|(total, below)| total - below).collect()
}

fn batch(experiment: &Experiment, trial: &Trial) -> f64 {
    let space = &experiment.manifest.hyperparameters;
    TrialSettings::resolve(space, &trial.assignment).global_batch_size as f64
}

fn rung_examples(experiment: &Experiment, trial: &Trial, rung: usize) -> f64 {
    let budget = experiment.ladder.get(rung).copied().unwrap_or(experiment.manifest.budget);
    experiment.steps(trial, budget) as f64 * batch(experiment, trial)
}

fn running_left(experiment: &Experiment, trial: &Trial, live: &Live) -> f64 {
    let step = match trial.state {
        TrialState::Running { generation } => live
            .progress(generation)
            .map_or(0, |progress| progress.step)
            .max(trial.committed_step()),
        TrialState::Pending => trial.committed_step(),
        _ => return 0.0,
    };
    let target = experiment.target_step(trial).unwrap_or(step);
    target.saturating_sub(step) as f64 * batch(experiment, trial)
}
