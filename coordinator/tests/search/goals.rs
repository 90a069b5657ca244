//! Searches with constraints and with several objectives.

use muster_common::evaluation::Evaluation;
use muster_common::time::Timestamp;
use muster_coordinator::engine::experiment::{ExperimentEnd, Phase};
use muster_coordinator::engine::trial::TrialState;
use muster_coordinator::view::why;

use super::slots::{Slots, manifest};

/// So much loss, and so many of a hundred examples right.
fn scores(loss: f64, right: u64) -> Evaluation {
    let confusion = vec![vec![right, 100 - right], vec![0, 0]];
    Evaluation { loss, confusion, ..Evaluation::default() }
}

/// Trials with an odd number keep an accuracy of 0.8, the others have the smaller losses.
fn odd_are_accurate(number: u32, _step: u64) -> Evaluation {
    let (loss, right) = if number % 2 == 1 { (1.0, 90) } else { (0.5, 40) };
    scores(loss + f64::from(number) / 1000.0, right)
}

const BOUND: &str = "constraints: [{metric: accuracy, min: 0.8}]";

fn run(searcher: &str, steps: u64, scores: fn(u32, u64) -> Evaluation) -> Slots {
    let manifest = manifest(&format!("{{steps: {steps}}}"), searcher);
    Slots::run_scored(manifest, 1, 1, Box::new(scores))
}

#[test]
fn what_breaks_a_constraint_goes_on_with_no_pruner() {
    for pruner in [
        "{type: asha, reduction_factor: 3, min_budget: {steps: 1}}",
        "{type: asha_stopping, reduction_factor: 3, min_budget: {steps: 1}}",
        "{type: hyperband, min_budget: {steps: 1}}",
        "{type: median, every: {steps: 3}, startup_trials: 1}",
    ] {
        let searcher = format!("metric: loss, {BOUND}, max_trials: 12, pruner: {pruner}");
        let slots = run(&searcher, 9, odd_are_accurate);
        let went_on = slots.trained.iter().find(|(number, from, _)| number % 2 == 0 && *from > 0);
        assert_eq!(went_on, None, "{pruner}");
        let best = slots.experiment().best.as_ref().unwrap();
        assert_eq!(best.trial, 1, "{pruner}");
    }
}

#[test]
fn a_population_goes_on_from_what_keeps_constraints() {
    let pruner = "{type: population, every: {steps: 3}}";
    let searcher = format!("metric: loss, {BOUND}, max_trials: 8, pruner: {pruner}");
    let slots = run(&searcher, 30, odd_are_accurate);
    let mut num_exploits = 0;
    for trial in slots.experiment().trials.values() {
        for descent in &trial.lineage {
            num_exploits += 1;
            assert_eq!(descent.parent.trial.number % 2, 1);
        }
        assert!(trial.number % 2 == 0 || trial.lineage.iter().all(|d| d.rung > 0));
    }
    assert!(num_exploits > 4, "{num_exploits}");
}

#[test]
fn patience_counts_a_smaller_violation_as_an_improvement_and_a_larger_never() {
    let pruner = "{type: patience, patience: 2, every: {steps: 10}}";
    let searcher = format!("metric: loss, {BOUND}, max_trials: 2, pruner: {pruner}");
    let slots = run(&searcher, 80, |number, step| match number {
        // Its loss gets worse, but it comes nearer to the bound.
        1 => scores(step as f64, 10 + step),
        // Its loss gets better, but it leaves the bound.
        _ => scores(1.0 / step as f64, if step == 10 { 90 } else { 70 }),
    });
    let experiment = slots.experiment();
    assert_eq!(experiment.trials[&1].state, TrialState::Completed);
    assert_eq!(experiment.trials[&2].results.len(), 3);
}

#[test]
fn where_nothing_keeps_all_the_nearest_is_chosen_and_it_is_said() {
    let searcher = format!("metric: loss, {BOUND}, max_trials: 3");
    let slots =
        run(&searcher, 10, |number, _| scores(0.1 * f64::from(number), 50 + u64::from(number)));
    assert_eq!(slots.experiment().best.as_ref().unwrap().trial, 3);
    assert_eq!(
        slots.said(3),
        [
            "loss 0.3000, constraints broken by 0.3375 (accuracy 0.5300, wanted at least 0.8) after 10 \
             steps, rung 1 of 1",
            "chosen: best loss on the validation split, 0.3000 after 10 steps, but no result keeps all \
             constraints; this one breaks accuracy 0.5300, wanted at least 0.8",
        ]
    );
    let lines = why(&slots.engine, slots.experiment(), 3, Timestamp(slots.now)).unwrap();
    let breaks = "its best result breaks constraints: accuracy 0.5300, wanted at least 0.8";
    assert!(lines.iter().any(|line| line == breaks), "{lines:?}");
    let standing = "loss 0.3000, constraints broken by 0.3375 is place 1 of 3 at rung 1 (10 steps); \
                    behind it t2 with 0.2000, constraints broken by 0.3500";
    assert!(lines.iter().any(|line| line == standing), "{lines:?}");
}

#[test]
fn only_what_keeps_constraints_reaches_a_target() {
    let searcher = format!("metric: loss, {BOUND}, target: 0.5, max_trials: 9");
    let slots = run(&searcher, 10, |number, _| scores(0.4, if number < 5 { 10 } else { 90 }));
    let experiment = slots.experiment();
    assert_eq!(experiment.phase, Phase::Ended { end: ExperimentEnd::Completed });
    assert_eq!((experiment.target_reached, experiment.trials.len()), (Some(5), 5));
}

#[test]
fn what_is_learned_from_an_earlier_experiment_is_judged_by_ones_own_constraints() {
    let searcher = "metric: loss, max_trials: 12, sampler: tpe";
    let mut slots = run(searcher, 10, odd_are_accurate);
    let named = format!("{searcher}, {BOUND}, warm_start: [e-1]");
    let later = manifest("{steps: 10}", &named);
    slots.submit(later);
    let prior = &slots.engine.experiments().nth(1).unwrap().prior;
    let violations: Vec<f64> = prior.iter().map(|prior| prior.values[0].violation()).collect();
    assert_eq!((violations[0], violations[1] > 0.0), (0.0, true));
}
