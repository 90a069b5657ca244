//! Searches with constraints and with several objectives.

use muster_common::evaluation::Evaluation;
use muster_common::goal::Merit;
use muster_common::seed::Seed;
use muster_common::time::Timestamp;
use muster_coordinator::engine::experiment::{ExperimentEnd, Phase};
use muster_coordinator::engine::trial::TrialState;
use muster_coordinator::live::Live;
use muster_coordinator::rpc::{experiment_from_wire, experiment_to_wire};
use muster_coordinator::view::{project, why};

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

/// Accuracy rises with the number, and so does the loss, so that everything is on the front; but those
/// that three divides are worse in both.
fn against_each_other(number: u32, step: u64) -> Evaluation {
    let behind = u64::from(number.is_multiple_of(3));
    let loss = f64::from(number) / 10.0 + behind as f64 + 1.0 / step as f64;
    scores(loss, (20 + 5 * u64::from(number)) / (1 + behind))
}

const SEVERAL: &str = "objectives: [{metric: accuracy}, {metric: loss}]";

#[test]
fn the_outcome_of_several_objectives_is_the_front() {
    let slots = run(&format!("{SEVERAL}, max_trials: 7"), 10, against_each_other);
    let experiment = slots.experiment();
    let front: Vec<u32> = experiment.front().iter().map(|(number, _, _)| *number).collect();
    assert_eq!(front, [7, 5, 4, 2, 1], "the best accuracy first");
    let best = experiment.best.as_ref().unwrap();
    assert_eq!((best.trial, best.model.is_some()), (7, true));
    let chosen = "chosen: best accuracy on the validation split, 0.5500 after 10 steps, of 5 results \
                  on the front";
    assert_eq!(slots.said(7).last().unwrap(), chosen);
    let lines = why(&slots.engine, experiment, 2, Timestamp(slots.now)).unwrap();
    let place = "one of 5 results on the front: accuracy 0.3000, loss 0.3000 at rung 1 (10 steps)";
    assert!(lines.iter().any(|line| line == place), "{lines:?}");
    // The ends of the front come first, then what is farthest from both.
    let lines = why(&slots.engine, experiment, 4, Timestamp(slots.now)).unwrap();
    let standing = "accuracy 0.4000, loss 0.5000 is place 3 of 7 at rung 1 (10 steps); before it t1 \
                    with 0.2500, 0.2000; behind it t";
    assert!(lines.iter().any(|line| line.starts_with(standing)), "{lines:?}");
}

#[test]
fn pruners_let_the_ends_of_the_front_through_and_nothing_from_behind_it() {
    for pruner in [
        "{type: asha, reduction_factor: 2, min_budget: {steps: 1}}",
        "{type: asha_stopping, reduction_factor: 2, min_budget: {steps: 1}}",
        "{type: hyperband, reduction_factor: 2, min_budget: {steps: 1}}",
        "{type: median, every: {steps: 2}, startup_trials: 2}",
        "{type: population, every: {steps: 2}}",
    ] {
        let slots =
            run(&format!("{SEVERAL}, max_trials: 8, pruner: {pruner}"), 8, against_each_other);
        let experiment = slots.experiment();
        assert_eq!(experiment.phase, Phase::Ended { end: ExperimentEnd::Completed }, "{pruner}");
        if !pruner.contains("population") {
            let went_on =
                slots.trained.iter().find(|(number, from, _)| number % 3 == 0 && *from > 0);
            assert_eq!(went_on, None, "{pruner}");
        }
        // Checkpoints of all results that their own trial's others do not dominate are there.
        let goal = experiment.goal();
        for (number, rung, _) in experiment.front() {
            let trial = &experiment.trials[&number];
            let result = trial.result_at(rung).unwrap();
            assert!(trial.checkpoints.contains(&result.checkpoint), "{pruner}: t{number}");
            assert!(trial.kept_results(&goal).contains(&result));
        }
    }
}

#[test]
fn checkpoints_of_the_front_outlive_newer_ones() {
    // The loss grows with the steps, and so does the accuracy: every rung is on the front.
    let pruner = "{type: median, every: {steps: 1}}";
    let searcher = format!("{SEVERAL}, max_trials: 2, pruner: {pruner}");
    let both = |_: u32, step: u64| scores(step as f64, 10 + step);
    let slots = run(&searcher, 8, both);
    for trial in slots.experiment().trials.values() {
        assert_eq!((trial.results.len(), trial.checkpoints.len()), (8, 8), "keep_last is 2");
    }
    let one = run(&searcher.replace(SEVERAL, "metric: accuracy"), 8, both);
    let kept = one.experiment().trials.values().map(|trial| trial.checkpoints.len()).max();
    assert!(kept.unwrap() <= 2);
}

/// The front is what a look at every pair finds, and the model is its best in the first objective.
#[test]
fn fronts_of_shuffled_results_are_those_of_a_look_at_every_pair() {
    for seed in 0..10 {
        let drawn = move |number: u32, step: u64| {
            let mut draws =
                Seed(seed).child("scores", u64::from(number)).child("step", step).draws();
            scores(draws.unit(), draws.below(101))
        };
        let pruner = "{type: asha, reduction_factor: 2, min_budget: {steps: 2}}";
        let bound = if seed % 2 == 0 { "constraints: [{metric: loss, min: 0.2}], " } else { "" };
        let searcher = format!("{SEVERAL}, {bound}max_trials: 12, sampler: tpe, pruner: {pruner}");
        let slots = Slots::run_scored(manifest("{steps: 16}", &searcher), 3, seed, Box::new(drawn));
        let experiment = slots.experiment();
        let goal = experiment.goal();
        let all: Vec<Merit> =
            experiment.trials.values().flat_map(|trial| trial.merits(&goal)).collect();
        let is_best = |merit: &&Merit| {
            merit.is_feasible() && !all.iter().any(|other| goal.dominates(other, merit))
        };
        let mut expected: Vec<Vec<f64>> =
            all.iter().filter(is_best).map(|merit| merit.values().to_vec()).collect();
        expected.sort_by(|a, b| b[0].total_cmp(&a[0]));
        let found: Vec<Vec<f64>> =
            experiment.front().into_iter().map(|(_, _, values)| values).collect();
        assert_eq!(found, expected, "seed {seed}");
        let best = experiment.best.as_ref().unwrap();
        assert_eq!(goal.merit(&best.validation).values(), &found[0][..], "seed {seed}");
    }
}

#[test]
fn a_warm_start_needs_the_same_objectives() {
    let mut slots = run(&format!("{SEVERAL}, max_trials: 3"), 10, against_each_other);
    for (objectives, is_taken) in [
        (SEVERAL, true),
        ("metric: accuracy", false),
        ("objectives: [{metric: loss}, {metric: accuracy}]", false),
    ] {
        let searcher = format!("{objectives}, max_trials: 3, sampler: tpe, warm_start: [e-1]");
        let before = slots.engine.experiments().count();
        slots.submit(manifest("{steps: 10}", &searcher));
        assert_eq!(slots.engine.experiments().count() > before, is_taken, "{objectives}");
    }
}

/// What `muster ls` and `watch` of another process show is what the coordinator sees.
#[test]
fn a_view_with_a_front_and_constraints_arrives_whole() {
    for goal in
        [SEVERAL.to_owned(), format!("metric: loss, {BOUND}"), format!("{SEVERAL}, {BOUND}")]
    {
        let slots = run(&format!("{goal}, max_trials: 7"), 10, against_each_other);
        let now = Timestamp(slots.now);
        let view = project(&slots.engine, slots.experiment(), &Live::default(), now);
        let arrived = experiment_from_wire(experiment_to_wire(&view)).unwrap();
        assert_eq!(arrived, view);
        assert_eq!(
            view.front.is_empty(),
            !goal.contains("objectives") || goal.contains("constraints")
        );
        assert_eq!(view.breaches().is_empty(), !goal.contains("constraints"));
        let ranked: Vec<u32> = view.ranked().iter().map(|trial| trial.id.number).collect();
        assert_eq!(ranked.len(), 7);
        assert_eq!(Some(ranked[0]), view.best.as_ref().map(|best| best.trial.number));
    }
}
