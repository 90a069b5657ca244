//! Engine and soft state to view.

use muster_common::elementary::Elementary;
use muster_common::goal::Goal;
use muster_common::manifest::Assignment;
use muster_common::run::RunProgress;
use muster_common::storage::{Layout, object_url};
use muster_common::time::Timestamp;

use super::remaining::examples_left;
use super::waiting::waiting;
use super::{
    BestView, DecisionView, ExperimentState, ExperimentView, FrontView, TrialStateName, TrialView,
};
use crate::engine::Engine;
use crate::engine::experiment::{Experiment, ExperimentEnd, Part, Phase};
use crate::engine::run::{Member, MemberState};
use crate::engine::trial::{StopReason, Trial, TrialState};
use crate::live::Live;

/// How the line of a worker begins that waits for another slot of its machine (`worker/src/model/hub/progress.rs`).
const WAITS: &str = "another process ";

/// What people see of `experiment` now.
pub fn project(
    engine: &Engine,
    experiment: &Experiment,
    live: &Live,
    now: Timestamp,
) -> ExperimentView {
    let goal = experiment.goal();
    let view = |trial| trial_view(engine, (experiment, &goal), trial, live);
    let decisions = experiment.decisions.iter().map(|decision| DecisionView {
        at: decision.at,
        trial: decision.trial.clone(),
        text: decision.text.clone(),
    });
    ExperimentView {
        trials: experiment.trials.values().map(view).collect(),
        decisions: decisions.collect(),
        ..head(engine, experiment, live, now)
    }
}

/// As [`project`], without trials and decisions: there may be ten thousand of them.
pub fn head(
    engine: &Engine,
    experiment: &Experiment,
    live: &Live,
    now: Timestamp,
) -> ExperimentView {
    let (state, reason) = state_of(experiment);
    let goal = experiment.goal();
    let (parts_done, num_parts) = match &experiment.phase {
        Phase::Preparing { parts } => {
            (parts.iter().filter(|part| **part == Part::Done).count(), parts.len())
        }
        _ => (0, 0),
    };
    let examples_per_second = live.examples_per_second();
    let is_searching = state == ExperimentState::Searching && !experiment.paused;
    let seconds_left = (is_searching && examples_per_second > 0.0)
        .then(|| examples_left(experiment, live) / examples_per_second);
    let reason = if reason.is_empty() && !state.is_ended() {
        let waiting = with_allocations(waiting(engine, experiment, now), live);
        if waiting.is_empty() { activity(engine, experiment, live) } else { waiting }
    } else {
        reason
    };
    ExperimentView {
        id: experiment.id.clone(),
        description: experiment.manifest.description.clone().unwrap_or_default(),
        state,
        reason,
        paused: experiment.paused,
        created_at: experiment.created_at,
        ended_at: experiment.ended_at,
        now,
        // People see it on other machines, and decide nothing that is replayed.
        goal: Goal { functions: Elementary::NEWEST, ..goal },
        max_trials: experiment.max_trials(),
        rungs: experiment.ladder.iter().map(ToString::to_string).collect(),
        trials: Vec::new(),
        data: experiment.data.clone(),
        parts_done: small(parts_done),
        num_parts: small(num_parts),
        num_workers: small(engine.workers().len()),
        examples_per_second,
        seconds_left,
        best: best_of(experiment),
        front: front_of(experiment),
        decisions: Vec::new(),
        location: location(experiment),
        ordered: experiment
            .data
            .as_ref()
            .is_some_and(|data| experiment.manifest.evaluation.is_ordered(&data.labels)),
        training_objective: experiment.manifest.objective,
        warnings: experiment.manifest.warnings(experiment.data.as_ref().map(|data| data.num_train)),
    }
}

/// What one of its runs does before it can begin; empty where none does.
fn activity(engine: &Engine, experiment: &Experiment, live: &Live) -> String {
    let runs = engine.runs().iter().filter(|(_, run)| run.experiment == experiment.id);
    foremost(runs.filter_map(|(generation, _)| live.progress(*generation)?.activity))
}

/// The first that something is done by: who only waits for the others' download says less.
fn foremost(mut activities: impl Iterator<Item = String>) -> String {
    let Some(first) = activities.next() else { return String::new() };
    let waits = |activity: &str| activity.starts_with(WAITS);
    if !waits(&first) {
        return first;
    }
    activities.find(|activity| !waits(activity)).unwrap_or(first)
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn state_of(experiment: &Experiment) -> (ExperimentState, String) {
    match &experiment.phase {
        Phase::Preparing { .. } => (ExperimentState::Preparing, String::new()),
        Phase::Searching => (ExperimentState::Searching, String::new()),
        Phase::Finishing { .. } => (ExperimentState::Finishing, String::new()),
        Phase::Ended { end: ExperimentEnd::Completed } => {
            (ExperimentState::Completed, String::new())
        }
        Phase::Ended { end: ExperimentEnd::Canceled } => (ExperimentState::Canceled, String::new()),
        Phase::Ended { end: ExperimentEnd::Failed { message } } if experiment.lacks_model() => {
            let id = &experiment.id;
            let mend = format!(
                "all results are kept, and `muster resume {id}` (after a `muster run`: `muster run --resume {id}`) \
                 writes the model when that is mended"
            );
            (ExperimentState::Failed, format!("{message}; {mend}"))
        }
        Phase::Ended { end: ExperimentEnd::Failed { message } } => {
            (ExperimentState::Failed, message.clone())
        }
    }
}

/// Where the experiment's files are, as a person would type it.
fn location(experiment: &Experiment) -> String {
    let key = Layout::experiment(&experiment.id);
    match experiment.store.strip_prefix("file://") {
        Some(root) => format!("{root}/{key}"),
        None => object_url(&experiment.store, &key),
    }
}

fn best_of(experiment: &Experiment) -> Option<BestView> {
    let metric = experiment.goal().objective.metric;
    if let Some(best) = &experiment.best {
        return Some(BestView {
            trial: experiment.trial_id(best.trial),
            step: best.checkpoint.step,
            objective: best.validation.value(metric),
            validation: best.validation.clone(),
            test: best.test.clone(),
            model: best.model.clone().unwrap_or_default(),
        });
    }
    let (number, rung) = experiment.leader()?;
    let result = experiment.trials.get(&number)?.result_at(rung)?;
    Some(BestView {
        trial: experiment.trial_id(number),
        step: result.step,
        objective: result.evaluation.value(metric),
        validation: result.evaluation.clone(),
        test: None,
        model: String::new(),
    })
}

fn front_of(experiment: &Experiment) -> Vec<FrontView> {
    let view = |(number, rung, values): (u32, usize, Vec<f64>)| {
        let step = experiment.trials.get(&number)?.result_at(rung)?.step;
        Some(FrontView { trial: experiment.trial_id(number), step, values })
    };
    experiment.front().into_iter().filter_map(view).collect()
}

/// What an experiment waits for may be in the hands of a cluster.
fn with_allocations(reason: String, live: &Live) -> String {
    let allocations = live.allocations();
    if reason.is_empty() || allocations.is_empty() {
        return reason;
    }
    format!("{reason}; {}", allocations.join("; "))
}

/// One trial of an experiment with this goal.
pub fn trial_view(
    engine: &Engine,
    (experiment, goal): (&Experiment, &Goal),
    trial: &Trial,
    live: &Live,
) -> TrialView {
    let progress: Option<RunProgress> = match trial.state {
        TrialState::Running { generation } => live.progress(generation),
        _ => None,
    };
    let state = TrialStateName::of(&trial.state);
    let reason = match &trial.state {
        TrialState::Stopped { reason } => stop_reason(reason),
        TrialState::Failed { message } => message.clone(),
        _ => String::new(),
    };
    let committed = committed_step(trial);
    TrialView {
        id: experiment.trial_id(trial.number),
        state,
        reason,
        assignment: assignment_of(goal, trial).clone(),
        step: progress.as_ref().map_or(committed, |progress| progress.step.max(committed)),
        target_step: match state {
            TrialStateName::Running | TrialStateName::Pending => {
                experiment.target_step(trial).unwrap_or(committed)
            }
            _ => committed,
        },
        merit: trial.best_result(goal).map(|result| goal.merit(&result.evaluation)),
        last_loss: progress.as_ref().and_then(|progress| progress.loss),
        attempts: trial.attempts,
        restarts: trial.restarts,
        rungs_passed: small(trial.rung()),
        examples_per_second: progress.map_or(0.0, |progress| progress.examples_per_second),
        ranks: ranks(engine, trial),
    }
}

/// Steps that count: those of its last result or its last checkpoint.
pub fn committed_step(trial: &Trial) -> u64 {
    trial.committed_step().max(trial.results.last().map_or(0, |last| last.step))
}

/// Its hyperparameters; of one that has ended and has changed them, those of its best result.
pub fn assignment_of<'a>(goal: &Goal, trial: &'a Trial) -> &'a Assignment {
    let best = trial.best_result(goal).filter(|_| trial.is_terminal());
    best.map_or(&trial.assignment, |best| trial.assignment_of(&best.checkpoint))
}

/// Where the ranks of a running trial are.
fn ranks(engine: &Engine, trial: &Trial) -> Vec<String> {
    let TrialState::Running { generation } = trial.state else { return Vec::new() };
    let run = engine.runs().get(&generation);
    let members = run.into_iter().flat_map(|run| &run.members).enumerate();
    let text = |(rank, member): (usize, &Member)| {
        let state = match &member.state {
            MemberState::Waiting => " waits for rank 0".to_owned(),
            MemberState::Working => String::new(),
            MemberState::Ended { exit, .. } => format!(" {exit}"),
        };
        format!("rank {rank} on {} ({}){state}", member.host, member.worker)
    };
    members.map(text).collect()
}

/// Why the searcher ended a trial, for people.
pub fn stop_reason(reason: &StopReason) -> String {
    match reason {
        StopReason::Pruned { place, num_results } => {
            format!("place {place} of {num_results} at its rung")
        }
        StopReason::NoImprovement { best_step } => {
            format!("no improvement after step {best_step}")
        }
        StopReason::Rule { text } => text.clone(),
        StopReason::TargetReached { by } => format!("t{by} reached the target"),
        StopReason::Diverged { step } => format!("diverged at step {step}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_downloads_is_shown_before_who_waits_for_it() {
        let of = |lines: &[&str]| foremost(lines.iter().map(|line| (*line).to_owned()));
        let (waits, downloads) = (
            "another process downloads tiny; waiting for it",
            "downloading tiny: a.json 1 of 2 MiB",
        );
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[waits, waits]), waits);
        assert_eq!(of(&[waits, downloads]), downloads);
        assert_eq!(of(&[downloads, waits]), downloads);
    }
}
