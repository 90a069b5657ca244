//! What pictures of a whole experiment are drawn from, thinned to what a picture can show.

use muster_common::goal::Goal;
use muster_common::manifest::Assignment;
use muster_common::objective::ObjectiveMetric;

use super::answer::{PointsAnswer, ResultCurve, ResultsAnswer, RungAnswer, RungEntry, RungsAnswer};
use super::problem::Problem;
use super::query::Query;
use super::standing::{Standing, sample, standings};
use crate::engine::experiment::Experiment;
use crate::engine::trial::{StopReason, Trial, TrialState};
use crate::sweep::asha;
use crate::view::{Setting, TrialStateName, assignment_of, stop_reason};

/// Curves or points of a picture, if nothing is said.
const MARKS: usize = 300;
/// Most curves or points of a picture.
const MARKS_MAX: usize = 2000;
/// Entries of a rung, if nothing is said.
const ENTRIES: usize = 50;

fn ranked<'a>(experiment: &'a Experiment, goal: &Goal) -> Vec<Standing<'a>> {
    let mut all = standings(experiment, goal);
    all.retain(|standing| standing.merit.is_some_and(|merit| merit.is_finite()));
    all
}

/// Results at rungs as curves, best trial first.
pub(super) fn results(experiment: &Experiment, query: &Query) -> Result<ResultsAnswer, Problem> {
    let goal = experiment.goal();
    let metric = goal.objective.metric;
    let all = ranked(experiment, &goal);
    let curve = |standing: Standing<'_>| {
        let results = &standing.trial.results;
        ResultCurve {
            number: standing.trial.number,
            state: TrialStateName::of(&standing.trial.state).name(),
            rank: standing.rank.unwrap_or_default(),
            steps: results.iter().map(|result| result.step).collect(),
            values: results.iter().map(|result| result.evaluation.value(metric)).collect(),
        }
    };
    let shown = sample(&all, query.count("limit", MARKS, MARKS_MAX)?);
    let trials = shown.into_iter().map(curve).collect();
    Ok(ResultsAnswer { metric: metric.name(), total: all.len(), trials })
}

/// Hyperparameters and results as columns, best trial first.
pub(super) fn points(experiment: &Experiment, query: &Query) -> Result<PointsAnswer, Problem> {
    let goal = experiment.goal();
    let all = ranked(experiment, &goal);
    let shown = sample(&all, query.count("limit", MARKS, MARKS_MAX)?);
    let space = &experiment.manifest.hyperparameters;
    let searched = space.iter().filter(|(_, domain)| domain.is_searched());
    let parameters: Vec<String> = searched.map(|(name, _)| name.clone()).collect();
    let assignments: Vec<&Assignment> =
        shown.iter().map(|standing| assignment_of(&goal, standing.trial)).collect();
    let column = |name: &String| {
        let value =
            |assignment: &&Assignment| assignment.get(name).map(|value| Setting::from(*value));
        assignments.iter().map(value).collect()
    };
    let num_objectives = 1 + goal.others.len();
    let objective = |index: usize| {
        let value = |standing: &Standing<'_>| {
            standing.merit.and_then(|merit| merit.values().get(index).copied()).unwrap_or(f64::NAN)
        };
        shown.iter().map(value).collect()
    };
    Ok(PointsAnswer {
        total: all.len(),
        numbers: shown.iter().map(|standing| standing.trial.number).collect(),
        states: shown
            .iter()
            .map(|standing| TrialStateName::of(&standing.trial.state).name())
            .collect(),
        objectives: (0..num_objectives).map(objective).collect(),
        values: parameters.iter().map(column).collect(),
        parameters,
    })
}

/// The ladder: who reached which rung, and what became of them.
pub(super) fn rungs(experiment: &Experiment, query: &Query) -> Result<RungsAnswer, Problem> {
    let goal = experiment.goal();
    let metric = goal.objective.metric;
    let limit = query.count("limit", ENTRIES, MARKS_MAX)?;
    let mut rungs = Vec::new();
    for (rung, mut standings) in experiment.standings().into_iter().enumerate() {
        asha::order(&goal, &mut standings);
        let mut answer = RungAnswer {
            number: rung + 1,
            budget: experiment.ladder.get(rung).map(ToString::to_string).unwrap_or_default(),
            num_results: standings.len(),
            num_promoted: 0,
            num_stopped: 0,
            num_waiting: 0,
            entries: Vec::new(),
        };
        for (index, standing) in standings.iter().enumerate() {
            let Some(trial) = experiment.trials.get(&standing.trial) else { continue };
            let (step, objective) = reached(trial, rung, metric);
            let (fate, reason) = fate(experiment, trial, rung);
            answer.num_promoted += usize::from(fate == "went on");
            answer.num_stopped += usize::from(fate == "stopped");
            answer.num_waiting += usize::from(fate == "waits");
            if index < limit {
                answer.entries.push(RungEntry {
                    trial: trial.number,
                    place: index + 1,
                    step,
                    objective,
                    fate,
                    reason,
                });
            }
        }
        rungs.push(answer);
    }
    Ok(RungsAnswer { metric: metric.name(), rungs })
}

/// Steps and value of a trial that counts at a rung; no number for one that diverged before there was a result.
fn reached(trial: &Trial, rung: usize, metric: ObjectiveMetric) -> (u64, f64) {
    match (trial.result_at(rung), &trial.state) {
        (Some(result), _) => (result.step, result.evaluation.value(metric)),
        (None, TrialState::Stopped { reason: StopReason::Diverged { step } }) => (*step, f64::NAN),
        (None, _) => (trial.committed_step(), f64::NAN),
    }
}

/// What became of a trial that counts at a rung, and why.
fn fate(experiment: &Experiment, trial: &Trial, rung: usize) -> (&'static str, String) {
    if trial.rung() > rung + 1 {
        return ("went on", String::new());
    }
    match &trial.state {
        // It trains for the next rung, or will.
        TrialState::Running { .. } | TrialState::Pending => ("went on", String::new()),
        TrialState::Paused => ("waits", String::new()),
        TrialState::Completed if rung + 1 >= experiment.ladder.len() => ("finished", String::new()),
        TrialState::Completed => ("finished", "it needed no more".to_owned()),
        TrialState::Stopped { reason } => ("stopped", stop_reason(reason)),
        TrialState::Canceled => ("canceled", String::new()),
        TrialState::Failed { message } => ("failed", message.clone()),
    }
}
