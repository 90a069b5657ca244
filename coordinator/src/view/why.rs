//! Why a trial is where it is: its rung, its standing there, the numbers compared, and what was decided
//! about it before.

use muster_common::count::{counted, counted_are};
use muster_common::goal::{Breach, Goal, Merit};
use muster_common::id::Generation;
use muster_common::run::Directive;
use muster_common::time::Timestamp;

use super::project::stop_reason;
use super::waiting::what_is_missing;
use crate::engine::decision::Decision;
use crate::engine::experiment::{Experiment, ExperimentEnd, Phase};
use crate::engine::trial::{Trial, TrialState};
use crate::engine::{Engine, Run};
use crate::sweep::asha::{Promotion, Standing, order};

/// Most trials that are named in one line.
const NAMED_MAX: usize = 8;

/// How the engine says that a run is told to leave its slots: for a gang or a priority, with its worker, to grow.
const LEAVING: [&str; 3] = ["gives back the slots", "leaves its slots", "ends to grow"];

/// The answer for one trial, a line for each thing to say; `None`: there is no such trial.
pub fn why(
    engine: &Engine,
    experiment: &Experiment,
    number: u32,
    now: Timestamp,
) -> Option<Vec<String>> {
    let trial = experiment.trials.get(&number)?;
    let mut lines = vec![headline(engine, experiment, trial, now)];
    let is_best = experiment.best.as_ref().is_some_and(|best| best.trial == number);
    if is_best && experiment.lacks_model() {
        let id = &experiment.id;
        lines.push(format!("the best, but its model is not written; `muster resume {id}` does it"));
    }
    lines.extend(standing(experiment, trial));
    lines.extend(wanted(experiment, trial));
    lines.extend(descendants(experiment, trial));
    lines.extend(settings(trial));
    if trial.restarts + trial.losses > 0 {
        lines.push(format!(
            "{}, {} of {}, {} lost with a worker",
            counted(trial.attempts, "run"),
            counted(trial.restarts, "restart"),
            experiment.manifest.max_restarts,
            counted(trial.losses, "run")
        ));
    }
    lines.extend(decided(experiment, number).map(|decision| {
        let seconds = decision.at.since(experiment.created_at).as_secs_f64();
        format!("after {seconds:.1} s: {}", decision.text)
    }));
    Some(lines)
}

/// Where it is and what it waits for.
fn headline(engine: &Engine, experiment: &Experiment, trial: &Trial, now: Timestamp) -> String {
    let next = || match experiment.target_step(trial) {
        Some(step) => format!("step {step}, {}", experiment.rung_text(trial.rung())),
        None => "the end".to_owned(),
    };
    match &trial.state {
        TrialState::Running { generation } => {
            let run = engine.runs().get(generation);
            let hosts: Vec<&str> = run
                .map(|run| run.members.iter().map(|member| member.host.as_str()).collect())
                .unwrap_or_default();
            let leaves = run.and_then(|run| leaving(experiment, trial, (*generation, run)));
            let leaves = leaves.map_or_else(String::new, |cause| format!("; {cause}"));
            let hosts = hosts.join(", ");
            format!("running: run {generation} on {hosts} trains to {}{leaves}", next())
        }
        TrialState::Pending => {
            let reason = what_it_waits_for(engine, experiment, trial, now);
            format!("pending, to train to {}: {reason}", next())
        }
        TrialState::Paused => {
            let mut reasons = held_back(experiment, trial);
            if !trial.held {
                let takes = what_it_takes(engine, experiment, trial, now);
                reasons.insert(0, format!("paused: {takes}"));
            }
            reasons.join("; ")
        }
        TrialState::Completed => "completed: it has used its whole budget".to_owned(),
        TrialState::Stopped { reason } => format!("stopped: {}", stop_reason(reason)),
        TrialState::Canceled => who_ended_it(experiment, trial),
        TrialState::Failed { message } => format!("failed: {message}"),
    }
}

/// The hyperparameters that it tries now.
fn settings(trial: &Trial) -> Option<String> {
    let values = trial.assignment.iter().map(|(name, value)| format!("{name} {value}"));
    let values: Vec<String> = values.collect();
    (!values.is_empty()).then(|| format!("it has {}", values.join(", ")))
}

/// What was decided about a trial, oldest first.
fn decided(experiment: &Experiment, number: u32) -> impl DoubleEndedIterator<Item = &Decision> {
    let is_own = move |decision: &&Decision| {
        decision.trial.as_ref().is_some_and(|trial| trial.number == number)
    };
    experiment.decisions.iter().filter(is_own)
}

/// The last decision about a trial with such a text.
fn last_said(
    experiment: &Experiment,
    number: u32,
    is_meant: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut found = decided(experiment, number).rev().map(|decision| &decision.text);
    found.find(|text| is_meant(text)).cloned()
}

/// Why a run that was told to leave was; `None`: it was not.
fn leaving(
    experiment: &Experiment,
    trial: &Trial,
    (generation, run): (Generation, &Run),
) -> Option<String> {
    match run.directive? {
        Directive::Preempt => {
            let mut causes = held_back(experiment, trial);
            if causes.is_empty() {
                let own = format!("run {generation} ");
                let is_cause = |text: &str| {
                    text.starts_with(&own) && LEAVING.iter().any(|words| text.contains(words))
                };
                causes.extend(last_said(experiment, trial.number, is_cause));
            }
            if causes.is_empty() {
                // What it was told for has been taken back.
                causes.push("it goes on at once".to_owned());
            }
            Some(format!("it saves itself and leaves: {}", causes.join("; ")))
        }
        Directive::Cancel => Some("it ends, because one of its ranks has".to_owned()),
    }
}

/// What users hold back, and how it goes on.
fn held_back(experiment: &Experiment, trial: &Trial) -> Vec<String> {
    let mut reasons = Vec::new();
    if trial.held {
        let id = experiment.trial_id(trial.number);
        reasons.push(format!("paused by a user; `muster resume {id}` lets it go on"));
    }
    if experiment.paused {
        let id = &experiment.id;
        reasons.push(format!("the experiment is paused; `muster resume {id}` lets it go on"));
    }
    reasons
}

/// Why a trial that wants a slot has none.
fn what_it_waits_for(
    engine: &Engine,
    experiment: &Experiment,
    trial: &Trial,
    now: Timestamp,
) -> String {
    let mut reasons = Vec::new();
    if let Some(at) = trial.not_before.filter(|at| *at > now) {
        let seconds = at.since(now).as_secs_f64().ceil();
        let what = if trial.preempted_in_vain > 1 { "was preempted" } else { "failed" };
        reasons.push(format!("its last run {what}, it is tried again in {seconds} s"));
    }
    reasons.extend(held_back(experiment, trial));
    if reasons.is_empty() {
        reasons.push(match what_is_missing(engine, experiment, now) {
            text if text.is_empty() => "all slots are taken by other trials".to_owned(),
            text => text,
        });
    }
    reasons.join("; ")
}

/// Who ended a trial that neither trained to its end nor was stopped by the search.
fn who_ended_it(experiment: &Experiment, trial: &Trial) -> String {
    let is_end = |text: &str| text.starts_with("canceled");
    if let Some(said) = last_said(experiment, trial.number, is_end) {
        return said;
    }
    // Decided by a build that did not write it down.
    match &experiment.phase {
        Phase::Ended { end: ExperimentEnd::Failed { message } } => {
            format!("canceled: the experiment failed: {message}")
        }
        Phase::Ended { end: ExperimentEnd::Canceled } => {
            "canceled: a user ended the experiment".to_owned()
        }
        _ => "canceled".to_owned(),
    }
}

/// What a trial that waits at a rung waits for.
fn what_it_takes(
    engine: &Engine,
    experiment: &Experiment,
    trial: &Trial,
    now: Timestamp,
) -> String {
    if let Some(group) = experiment.bracket(trial.number) {
        let index = trial.rungs_passed;
        let quota = group.quotas.get(index).copied().unwrap_or(0);
        let others = group.trials.clone().filter(|number| {
            experiment.trials.get(number).is_none_or(|other| {
                !other.is_terminal() && other.rungs_passed < index && other.number != trial.number
            })
        });
        let missing: Vec<u32> = others.collect();
        let (round, bracket) = (group.round, group.bracket);
        let place = format!("bracket {bracket} of round {round}");
        return if missing.is_empty() {
            format!("{place} has decided its rung: {quota} go on, when slots are free")
        } else {
            format!(
                "{quota} of {place} go on when all have a result at this rung; {} have none yet: {}",
                missing.len(),
                names(&missing)
            )
        };
    }
    let Some(halving) = experiment.manifest.searcher.as_ref().and_then(|s| s.pruner.halving())
    else {
        return "it waits for a decision".to_owned();
    };
    let factor = halving.reduction_factor;
    let rung = trial.rung().checked_sub(1);
    let mut standings =
        rung.and_then(|rung| experiment.standings().into_iter().nth(rung)).unwrap_or_default();
    order(&experiment.goal(), &mut standings);
    let num_results = standings.len();
    let num_kept = num_results / factor.max(1) as usize;
    let left = (experiment.max_trials() as usize).saturating_sub(experiment.trials.len());
    let text = format!(
        "one in {factor} goes on, so the best {num_kept} of {num_results} so far; {} still to begin",
        counted_are(left, "trial")
    );
    let is_own = |standing: &Standing| standing.trial == trial.number && standing.merit.is_finite();
    if !standings.iter().take(num_kept).any(is_own) {
        return text;
    }
    match what_is_missing(engine, experiment, now) {
        missing if missing.is_empty() || experiment.paused => format!("{text}; it is one of them"),
        missing => format!("{text}; it is one of them, {missing}"),
    }
}

/// Its place at each rung that it has passed.
fn standing(experiment: &Experiment, trial: &Trial) -> Vec<String> {
    let goal = experiment.goal();
    let rungs = experiment.standings();
    let at = |(rung, mut standings): (usize, Vec<Standing>)| {
        order(&goal, &mut standings);
        let index = standings.iter().position(|standing| standing.trial == trial.number)?;
        let (place, num_results) = (index + 1, standings.len());
        let merit = standings.get(index)?.merit;
        let own = Promotion { trial: trial.number, rung, merit, place, num_results };
        let neighbor = |index: usize| {
            let other = standings.get(index)?;
            Some((other.trial, Goal::numbers(&other.merit)))
        };
        let mut text = experiment.standing_text(&own);
        if let Some((other, value)) = index.checked_sub(1).and_then(neighbor) {
            text += &format!("; before it t{other} with {value}");
        }
        if let Some((other, value)) = neighbor(index + 1) {
            text += &format!("; behind it t{other} with {value}");
        }
        Some(text)
    };
    rungs.into_iter().enumerate().filter_map(at).collect()
}

/// Constraints that its best result breaks, and what of it is on the front.
fn wanted(experiment: &Experiment, trial: &Trial) -> Vec<String> {
    let goal = experiment.goal();
    let best = trial.best_result(&goal);
    let breaches = best.map_or_else(Vec::new, |best| goal.breaches(&best.evaluation));
    let mut lines = Vec::new();
    if !breaches.is_empty() {
        let words: Vec<String> = breaches.iter().map(Breach::words).collect();
        lines.push(format!("its best result breaks constraints: {}", words.join("; ")));
    }
    let front = experiment.front();
    let own = front.iter().filter(|(number, _, _)| *number == trial.number);
    lines.extend(own.map(|(_, rung, values)| {
        let place = experiment.rung_text(*rung);
        let words = goal.words(&Merit::new(values.iter().copied(), 0.0));
        format!("one of {} on the front: {words} at {place}", counted(front.len(), "result"))
    }));
    lines
}

/// Who went on from its checkpoints.
fn descendants(experiment: &Experiment, trial: &Trial) -> Vec<String> {
    let mut lines = Vec::new();
    for other in experiment.trials.values() {
        let own = other.lineage.iter().filter(|d| d.parent.trial.number == trial.number);
        lines.extend(own.map(|descent| {
            let (step, rung) = (descent.parent.step, experiment.rung_text(descent.rung));
            format!("t{} went on from its checkpoint of step {step}, {rung}", other.number)
        }));
    }
    lines
}

fn names(numbers: &[u32]) -> String {
    let mut text: Vec<String> =
        numbers.iter().take(NAMED_MAX).map(|number| format!("t{number}")).collect();
    if numbers.len() > NAMED_MAX {
        text.push("...".to_owned());
    }
    text.join(", ")
}
