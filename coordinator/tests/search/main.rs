//! Whole searches through the engine: slots that take a random time for every run, results from a
//! function of trial and step. What the pruners decide is compared with the papers' arithmetic.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bits;
mod goals;
mod quality;
#[path = "../../src/sample.rs"]
mod sample;
mod slots;

use muster_common::manifest::Limits;
use muster_common::seed::Seed;
use muster_common::time::Timestamp;
use muster_coordinator::engine::experiment::{ExperimentEnd, Phase};
use muster_coordinator::engine::trial::{StopReason, Trial, TrialState};
use muster_coordinator::engine::{Action, Event, RULES};
use muster_coordinator::plan::{Premises, plan};
use muster_coordinator::view::why;

use slots::{Landscape, Slots, data, manifest};

/// Every trial has a loss of its own that does not change: the smaller the number, the better.
fn by_number(number: u32, _step: u64) -> f64 {
    f64::from(number) / 1000.0
}

fn shuffled(number: u32, _step: u64) -> f64 {
    Seed(9).child("loss", u64::from(number)).draws().unit()
}

#[test]
fn hyperband_trains_as_many_as_the_papers_table_says_whatever_comes_first() {
    // Li et al. 2018, table 1: R = 81, eta = 3.
    let searcher = "metric: loss, pruner: {type: hyperband, min_budget: {steps: 1}}";
    for (seed, num_slots) in [(1, 1), (2, 4), (3, 16)] {
        let slots = Slots::run(manifest("{steps: 81}", searcher), num_slots, seed, shuffled);
        let counts = [1, 3, 9, 27, 81].map(|step| slots.num_at(step));
        assert_eq!(counts, [81, 27 + 34, 9 + 11 + 15, 3 + 3 + 5 + 8, 1 + 1 + 1 + 2 + 5]);
        let trials = &slots.experiment().trials;
        assert_eq!(trials.len(), 143);
        // The best of each bracket trained for the whole budget.
        for bracket in [1..82, 82..116, 116..131, 131..139, 139..144] {
            let best = bracket.clone().min_by(|a, b| shuffled(*a, 0).total_cmp(&shuffled(*b, 0)));
            assert_eq!(trials[&best.unwrap()].state, TrialState::Completed, "{bracket:?}");
        }
        let over = Phase::Ended { end: ExperimentEnd::Completed };
        assert_eq!(slots.experiment().phase, over);
    }
}

#[test]
fn what_hyperband_decides_is_said_with_the_numbers_compared() {
    let searcher = "metric: loss, max_trials: 9, pruner: {type: hyperband, min_budget: {steps: 1}}";
    let slots = Slots::run(manifest("{steps: 9}", searcher), 2, 1, by_number);
    let expected = [
        "loss 0.0020 after 1 step, rung 1 of 3",
        "promoted to 3 steps: loss 0.0020 is place 2 of 9 at rung 1 (1 step)",
        "loss 0.0020 after 3 steps, rung 2 of 3",
        "stopped: loss 0.0020 is place 2 of 3 at rung 2 (3 steps); 1 of bracket 1 of round 1 go on",
    ];
    assert_eq!(slots.said(2), expected);
}

#[test]
fn asha_that_stops_goes_on_at_once_and_never_revises() {
    let searcher = "metric: loss, max_trials: 9, pruner: {type: asha_stopping, \
     reduction_factor: 3, min_budget: {steps: 1}}";
    // On one slot the best comes first, so everybody else is stopped at the first rung.
    let slots = Slots::run(manifest("{steps: 9}", searcher), 1, 1, by_number);
    assert_eq!(slots.trained[..4], [(1, 0, 1), (1, 1, 3), (1, 3, 9), (2, 0, 1)]);
    assert_eq!(slots.num_at(9), 1);
    let rule = "loss 0.0020 is place 2 of 2 so far, the best 1 go on (down to 0.0010)";
    assert_eq!(slots.said(2)[1], format!("stopped at rung 1 (1 step): {rule}"));
    let falling: Landscape = |number, _| 1.0 - f64::from(number) / 1000.0;
    let slots = Slots::run(manifest("{steps: 9}", searcher), 1, 1, falling);
    assert_eq!(slots.num_at(9), 9, "each is the best so far");
}

#[test]
fn the_worse_half_stops_by_the_median_rule() {
    let searcher = "metric: loss, max_trials: 12, pruner: {type: median, every: {steps: 30}, startup_trials: 4}";
    let slots = Slots::run(manifest("{steps: 90}", searcher), 1, 1, by_number);
    // Four train to the end; the fifth has four to be compared with and is worse than their median.
    for number in 1..=4 {
        assert_eq!(slots.experiment().trials[&number].state, TrialState::Completed);
    }
    for number in 5..=12 {
        let state = &slots.experiment().trials[&number].state;
        assert!(matches!(state, TrialState::Stopped { reason: StopReason::Rule { .. } }));
    }
    assert_eq!(
        slots.said(5)[1],
        "stopped at rung 1 (30 steps): best loss 0.0050 is worse than 0.0025, the median of 4 \
         other results at this rung"
    );
    assert_eq!(slots.num_at(30), 12);
    assert_eq!(slots.num_at(60), 4);
}

#[test]
fn patience_ends_a_trial_that_does_not_get_better() {
    let searcher =
        "metric: loss, max_trials: 2, pruner: {type: patience, patience: 2, every: {steps: 10}}";
    let landscape: Landscape = |number, step| match number {
        1 => 1.0 / (step as f64),
        _ => (step as f64 - 25.0).abs(),
    };
    let slots = Slots::run(manifest("{steps: 100}", searcher), 2, 1, landscape);
    assert_eq!(slots.experiment().trials[&1].state, TrialState::Completed);
    // Best at 20 steps (5.0) and no better at 30 (5.0) and 40 (15.0).
    assert_eq!(slots.experiment().trials[&2].results.len(), 4);
    assert_eq!(
        slots.said(2).last().unwrap(),
        "stopped at rung 4 (40 steps): best loss 5.0000 at rung 2, 2 rungs ago; 2 without an improvement end a trial"
    );
}

#[test]
fn a_target_that_is_reached_ends_the_search() {
    let searcher = "metric: loss, max_trials: 20, target: 0.1, pruner: {type: asha, \
     reduction_factor: 2, min_budget: {steps: 10}}";
    let landscape: Landscape = |number, _| if number == 3 { 0.1 } else { 0.5 };
    let slots = Slots::run(manifest("{steps: 80}", searcher), 4, 1, landscape);
    let experiment = slots.experiment();
    assert_eq!(experiment.phase, Phase::Ended { end: ExperimentEnd::Completed });
    assert_eq!(experiment.best.as_ref().unwrap().trial, 3);
    assert!(experiment.trials.len() < 20, "{}", experiment.trials.len());
    for trial in experiment.trials.values() {
        let expected = TrialState::Stopped { reason: StopReason::TargetReached { by: 3 } };
        assert_eq!(trial.state, expected, "t{}", trial.number);
    }
    assert_eq!(slots.said(3)[1], "loss 0.1000 reaches the target of 0.1: the search ends");
}

/// Those with an even number diverge.
fn odd_only(number: u32, step: u64) -> f64 {
    if number.is_multiple_of(2) { f64::NAN } else { by_number(number, step) }
}

#[test]
fn diverged_trials_stand_last_with_every_pruner() {
    for pruner in [
        "{type: asha, reduction_factor: 3, min_budget: {steps: 1}}",
        "{type: asha_stopping, reduction_factor: 3, min_budget: {steps: 1}}",
        "{type: hyperband, min_budget: {steps: 1}}",
        "{type: median, every: {steps: 3}, startup_trials: 2}",
        "{type: patience, every: {steps: 3}, patience: 1}",
    ] {
        let searcher = format!("metric: loss, max_trials: 12, pruner: {pruner}");
        // They say so in a result, or leave none.
        let mut first_rungs = Vec::new();
        for gives_up in [false, true] {
            let mut slots = Slots::new(2, 5, odd_only);
            slots.gives_up = gives_up;
            slots.finish(manifest("{steps: 9}", &searcher));
            let is_even = |trial: &&(u32, u64, u64)| trial.0.is_multiple_of(2) && trial.1 > 0;
            assert_eq!(slots.trained.iter().find(is_even), None, "{pruner}");
            let experiment = slots.experiment();
            assert_eq!(experiment.best.as_ref().unwrap().trial % 2, 1, "{pruner}");
            assert!(experiment.trials.values().all(Trial::is_terminal));
            first_rungs.push(experiment.standings()[0].len());
        }
        assert_eq!(first_rungs[0], first_rungs[1], "{pruner}");
    }
}

/// One in eta of all that tried goes on, not of those that are left.
#[test]
fn runs_that_diverge_count_at_the_rung_that_they_missed() {
    let searcher = "metric: loss, max_trials: 12, pruner: {type: asha, reduction_factor: 3, min_budget: {steps: 1}}";
    let promoted = |rules: u32| {
        let mut slots = Slots::under(rules, 1, 5, odd_only);
        slots.gives_up = true;
        slots.finish(manifest("{steps: 9}", searcher));
        let rung = slots.experiment().standings().swap_remove(0);
        (rung.len(), slots.num_at(3), slots.num_at(9))
    };
    // A third of twelve, and of these four; as it was decided before, a third of the six that had a result.
    assert_eq!(promoted(RULES), (12, 4, 1));
    assert_eq!(promoted(4), (6, 2, 0));
}

/// A trial that diverges behind its first rung stands last at the second one, and where it was before it stays.
#[test]
fn a_trial_that_diverges_later_keeps_its_earlier_place() {
    let searcher = "metric: loss, max_trials: 4, pruner: {type: asha, reduction_factor: 2, min_budget: {steps: 1}}";
    let landscape: Landscape =
        |number, step| if (number, step) == (1, 2) { f64::NAN } else { by_number(number, step) };
    let mut slots = Slots::new(1, 1, landscape);
    slots.gives_up = true;
    slots.finish(manifest("{steps: 4}", searcher));
    let experiment = slots.experiment();
    let places = |rung: usize| -> Vec<(u32, bool)> {
        let standings = experiment.standings().swap_remove(rung);
        standings.iter().map(|standing| (standing.trial, standing.merit.is_finite())).collect()
    };
    assert_eq!(places(0), [(1, true), (2, true), (3, true), (4, true)]);
    assert_eq!(places(1), [(1, false), (2, true)]);
    // Of two at the second rung one goes on.
    assert_eq!(slots.num_at(4), 1);
    let lines = why(&slots.engine, experiment, 1, Timestamp(slots.now)).unwrap();
    assert_eq!(lines[0], "stopped: diverged at step 2");
    assert!(
        lines.iter().any(|line| line.starts_with("loss NaN is place 2 of 2 at rung 2")),
        "{lines:?}"
    );
}

/// What is planned is what then happens, whatever the times and the results are.
#[test]
fn plans_of_deterministic_methods_come_true() {
    for (budget, searcher) in [
        ("{steps: 81}", "pruner: {type: hyperband, min_budget: {steps: 1}}"),
        (
            "{epochs: 3}",
            "max_trials: 50, pruner: {type: hyperband, reduction_factor: 2, min_budget: {epochs: 0.3}}",
        ),
        ("{epochs: 2}", "max_trials: 10, sampler: sobol"),
    ] {
        let mut manifest = manifest(budget, &format!("metric: loss, {searcher}"));
        for seed in 1..=5 {
            manifest.seed = Seed(seed);
            let num_slots = u32::try_from(seed).unwrap();
            let premises = Premises {
                num_slots,
                num_train: data().num_train,
                examples_per_second: Some(100.0),
            };
            let planned = plan(&manifest, &premises).unwrap();
            assert_eq!(planned.doubts, Vec::<String>::new());
            let slots = Slots::run(manifest.clone(), num_slots, seed, shuffled);
            let experiment = slots.experiment();
            assert_eq!(planned.num_trials, experiment.trials.len() as u64);
            let steps: u64 = slots.trained.iter().map(|(_, from, to)| to - from).sum();
            assert_eq!(planned.steps, steps);
            assert_eq!(planned.num_checkpoints, slots.trained.len() as u64);
            for (rung, expected) in planned.rungs.iter().enumerate() {
                let reached = |trial: &&Trial| trial.result_at(rung).is_some();
                let found = experiment.trials.values().filter(reached).count();
                assert_eq!(expected.num_trials, found as u64, "rung {rung}");
            }
        }
    }
}

#[test]
fn plans_count_the_checkpoints_that_are_kept_on_the_way() {
    let premises = Premises { num_slots: 2, num_train: 1000, examples_per_second: None };
    let mut plain = manifest("{steps: 100}", "metric: loss, max_trials: 4");
    plain.checkpoint.every_steps = Some(10);
    // Of each trial the last three, 80, 90 and 100, of which the last is the best.
    plain.checkpoint.keep_last = 3;
    assert_eq!(plan(&plain, &premises).unwrap().most_checkpoints, 12);
    // And 20, 40 and 60.
    plain.checkpoint.keep_every_steps = Some(20);
    assert_eq!(plan(&plain, &premises).unwrap().most_checkpoints, 24);
    // 30, 60 and 90.
    plain.checkpoint.keep_every_steps = Some(15);
    assert_eq!(plan(&plain, &premises).unwrap().most_checkpoints, 20);
    plain.checkpoint.keep_every_steps = None;
    plain.checkpoint.keep_last = 1;
    assert_eq!(plan(&plain, &premises).unwrap().most_checkpoints, 4);
}

#[test]
fn plans_know_times_and_say_what_they_do_not_know() {
    let plain = manifest("{steps: 100}", "metric: loss, max_trials: 8");
    let premises = Premises { num_slots: 2, num_train: 1000, examples_per_second: Some(32.0) };
    let planned = plan(&plain, &premises).unwrap();
    // 8 trials of 100 steps of 32 examples, 32 examples per second, on two slots.
    assert!((planned.slot_seconds - 800.0).abs() < 1e-9);
    assert!((planned.seconds - 400.0).abs() < 1e-9);
    assert_eq!((planned.num_checkpoints, planned.steps), (8, 800));
    let asha =
        "metric: loss, max_trials: 8, target: 0.1, pruner: {type: asha, min_budget: {steps: 10}}";
    let planned = plan(&manifest("{steps: 100}", asha), &premises).unwrap();
    assert_eq!(planned.doubts.len(), 2, "{:?}", planned.doubts);
    assert_eq!(planned.rungs[0].num_trials, 8);
    assert_eq!(planned.rungs[1].num_trials, 2);
    let mut limited = plain.clone();
    // 400 s in all, 800 s of slots, 100 s a trial.
    for (limits, wanted) in [
        (Limits { hours: Some(0.1), ..Limits::default() }, "limits.hours: 0.1 h are over"),
        (
            Limits { slot_hours: Some(0.2), ..Limits::default() },
            "limits.slot_hours: 0.2 h are over",
        ),
        (Limits { trial_hours: Some(0.02), ..Limits::default() }, "limits.trial_hours: 0.02 h"),
    ] {
        limited.limits = limits;
        let planned = plan(&limited, &premises).unwrap();
        assert_eq!(planned.doubts.len(), 1, "{:?}", planned.doubts);
        assert!(planned.doubts[0].starts_with(wanted), "{:?}", planned.doubts);
        let unknown = plan(&limited, &Premises { examples_per_second: None, ..premises.clone() });
        assert!(unknown.unwrap().doubts[0].contains("depends on the speed"));
    }
    limited.limits = Limits { hours: Some(0.12), slot_hours: Some(0.23), trial_hours: Some(0.03) };
    assert_eq!(plan(&limited, &premises).unwrap().doubts, Vec::<String>::new());
    let mut gang = plain;
    gang.resources.slots = muster_common::manifest::Slots::Fixed(4);
    assert!(plan(&gang, &premises).is_err(), "two slots are too few");
    let planned = plan(&gang, &Premises { num_slots: 9, ..premises }).unwrap();
    // Two gangs at a time, four times as fast each.
    assert!((planned.seconds - 100.0).abs() < 1e-9, "{}", planned.seconds);
}

#[test]
fn every_trial_can_be_asked_why() {
    let searcher = "metric: loss, max_trials: 9, pruner: {type: asha, reduction_factor: 3, min_budget: {steps: 1}}";
    let slots = Slots::run(manifest("{steps: 9}", searcher), 2, 1, by_number);
    let ask = |number| {
        why(&slots.engine, slots.experiment(), number, Timestamp(slots.now)).map(|lines| {
            let is_standing =
                |line: &String| !line.starts_with("after") && !line.starts_with("it has ");
            lines.into_iter().filter(is_standing).collect::<Vec<_>>()
        })
    };
    assert_eq!(
        ask(2).unwrap(),
        [
            "stopped: place 2 of 3 at its rung",
            "loss 0.0020 is place 2 of 9 at rung 1 (1 step); before it t1 with 0.0010; behind it t3 with 0.0030",
            "loss 0.0020 is place 2 of 3 at rung 2 (3 steps); before it t1 with 0.0010; behind it t3 with 0.0030",
        ]
    );
    assert_eq!(ask(1).unwrap()[0], "completed: it has used its whole budget");
    assert_eq!(ask(10), None);
}

/// In the middle of a search: those that wait say for what.
#[test]
fn those_that_wait_say_for_what() {
    for (pruner, expected) in [
        (
            "{type: asha, reduction_factor: 3, min_budget: {steps: 1}}",
            "paused: one in 3 goes on, so the best 0 of 1 so far; 6 trials are still to begin",
        ),
        (
            "{type: hyperband, min_budget: {steps: 1}}",
            "paused: 3 of bracket 1 of round 1 go on when all have a result at this rung; 8 \
             have none yet: t2, t3, t4, t5, t6, t7, t8, t9",
        ),
    ] {
        let searcher = format!("metric: loss, max_trials: 9, pruner: {pruner}");
        let mut slots = Slots::new(2, 1, by_number);
        slots.submit(manifest("{steps: 9}", &searcher));
        for _ in 0..2 {
            let ((at, generation), spec) = slots.busy.pop_first().unwrap();
            slots.now = at;
            slots.end(generation, &spec);
        }
        let experiment = slots.experiment();
        let waiting = experiment.trials.values().find(|t| t.state == TrialState::Paused).unwrap();
        let lines = why(&slots.engine, experiment, waiting.number, Timestamp(slots.now)).unwrap();
        assert_eq!(
            lines[0],
            expected.replace("t2, t3", if waiting.number == 1 { "t2, t3" } else { "t1, t3" })
        );
        let running = experiment
            .trials
            .values()
            .find(|t| !t.is_terminal() && t.attempts == 1 && t.results.is_empty())
            .unwrap();
        let lines = why(&slots.engine, experiment, running.number, Timestamp(slots.now)).unwrap();
        assert!(lines[0].starts_with("running: run "), "{}", lines[0]);
        assert!(lines[0].ends_with(" on h trains to step 1, rung 1 (1 step)"), "{}", lines[0]);
    }
}

#[test]
fn an_experiment_learns_from_an_earlier_one() {
    let searcher = "metric: loss, max_trials: 12, sampler: tpe";
    let mut slots = Slots::run(manifest("{steps: 9}", searcher), 2, 1, by_number);
    let again = |budget: &str, searcher: &str| manifest(budget, searcher);
    let named = format!("{searcher}, warm_start: [e-1]");
    slots.submit(again("{steps: 9}", &named));
    let second = slots.engine.experiments().nth(1).unwrap();
    assert_eq!(second.prior.len(), 12);
    assert_eq!(second.decisions[0].text, "learns from 12 of 12 trials of e-1");
    // Ten results are enough for the model, so that not even the first trial is a random one.
    let cold = "metric: loss, max_trials: 12, sampler: random";
    let random = Slots::run(again("{steps: 9}", cold), 2, 1, by_number);
    let first = |slots: &Slots, index: usize| {
        slots.engine.experiments().nth(index).unwrap().trials.get(&1).map(|t| t.assignment.clone())
    };
    while let Some(((at, generation), spec)) = slots.busy.pop_first() {
        slots.now = at;
        slots.end(generation, &spec);
    }
    assert_eq!(first(&slots, 0), first(&random, 0));
    assert_ne!(first(&slots, 1), first(&random, 0));
    for (searcher, expected) in [
        (
            "metric: loss, max_trials: 2, sampler: tpe, warm_start: [e-9]",
            "searcher.warm_start: no experiment `e-9`; known: e-1, e-2",
        ),
        (
            "metric: accuracy, max_trials: 2, sampler: tpe, warm_start: [e-1]",
            "searcher.warm_start: e-1 was compared by loss, this one is by accuracy",
        ),
    ] {
        let manifest = Box::new(again("{steps: 9}", searcher));
        let (text, store) = (String::new(), String::new());
        let event = Event::ExperimentSubmitted { manifest, text, store, owner: None, base: None };
        let actions = slots.engine.apply(Timestamp(slots.now), event);
        assert_eq!(actions, [Action::Rejected { reason: expected.to_owned() }]);
    }
}
