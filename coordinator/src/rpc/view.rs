//! Views to the wire and back, for `watch` and `ls` of another process.

use muster_common::goal::{Constraint, Goal, Merit};
use muster_common::manifest::TrainingObjective;
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::time::Timestamp;
use muster_proto::convert::{ConvertError, assignment_from_wire, assignment_to_wire};
use muster_proto::v1;

use crate::view::{
    BestView, DecisionView, ExperimentState, ExperimentView, FrontView, TrialStateName, TrialView,
    metric_named,
};

pub(super) fn missing(field: &'static str) -> ConvertError {
    ConvertError::Missing { field }
}

pub(super) fn illegal(field: &'static str, reason: &impl ToString) -> ConvertError {
    ConvertError::Illegal { field, reason: reason.to_string() }
}

/// To the wire.
pub fn experiment_to_wire(view: &ExperimentView) -> v1::ExperimentView {
    v1::ExperimentView {
        experiment_id: view.id.to_string(),
        description: view.description.clone(),
        state: state_to_wire(view.state).into(),
        reason: view.reason.clone(),
        paused: view.paused,
        created_at_ms: view.created_at.0,
        ended_at_ms: view.ended_at.map(|at| at.0),
        now_ms: view.now.0,
        metric: view.goal.objective.metric.name().to_owned(),
        maximize: view.goal.objective.mode == Mode::Max,
        max_trials: view.max_trials,
        rungs: view.rungs.clone(),
        trials: view.trials.iter().map(trial_to_wire).collect(),
        data: view.data.as_ref().map(Into::into),
        parts_done: view.parts_done,
        num_parts: view.num_parts,
        num_workers: view.num_workers,
        examples_per_second: view.examples_per_second,
        seconds_left: view.seconds_left,
        best: view.best.as_ref().map(|best| v1::Best {
            trial_id: best.trial.to_string(),
            step: best.step,
            objective: best.objective,
            validation: Some((&best.validation).into()),
            test: best.test.as_ref().map(Into::into),
            model: best.model.clone(),
        }),
        decisions: view
            .decisions
            .iter()
            .map(|decision| v1::Decision {
                at_ms: decision.at.0,
                trial_id: decision.trial.as_ref().map(ToString::to_string).unwrap_or_default(),
                text: decision.text.clone(),
            })
            .collect(),
        location: view.location.clone(),
        ordered: view.ordered,
        warnings: view.warnings.clone(),
        training_objective: view.training_objective.name().to_owned(),
        other_objectives: view.goal.others.iter().copied().map(objective_to_wire).collect(),
        constraints: view.goal.constraints.iter().map(constraint_to_wire).collect(),
        front: view.front.iter().map(front_to_wire).collect(),
    }
}

/// From the wire.
pub fn experiment_from_wire(wire: v1::ExperimentView) -> Result<ExperimentView, ConvertError> {
    let state = state_from_wire(wire.state())?;
    let goal = goal_from_wire(&wire)?;
    let decision = |wire: v1::Decision| {
        let trial = (!wire.trial_id.is_empty()).then(|| wire.trial_id.parse()).transpose();
        let trial = trial.map_err(|error| illegal("decision.trial_id", &error))?;
        Ok(DecisionView { at: Timestamp(wire.at_ms), trial, text: wire.text })
    };
    Ok(ExperimentView {
        id: wire.experiment_id.parse().map_err(|error| illegal("experiment_id", &error))?,
        description: wire.description,
        state,
        reason: wire.reason,
        paused: wire.paused,
        created_at: Timestamp(wire.created_at_ms),
        ended_at: wire.ended_at_ms.map(Timestamp),
        now: Timestamp(wire.now_ms),
        goal,
        max_trials: wire.max_trials,
        rungs: wire.rungs,
        trials: wire.trials.into_iter().map(trial_from_wire).collect::<Result<_, _>>()?,
        data: wire.data.map(Into::into),
        parts_done: wire.parts_done,
        num_parts: wire.num_parts,
        num_workers: wire.num_workers,
        examples_per_second: wire.examples_per_second,
        seconds_left: wire.seconds_left,
        best: wire.best.map(best_from_wire).transpose()?,
        front: wire.front.into_iter().map(front_from_wire).collect::<Result<_, _>>()?,
        decisions: wire.decisions.into_iter().map(decision).collect::<Result<_, ConvertError>>()?,
        location: wire.location,
        ordered: wire.ordered,
        warnings: wire.warnings,
        training_objective: training_objective(&wire.training_objective)?,
    })
}

fn objective_to_wire(objective: Objective) -> v1::Objective {
    let metric = objective.metric.name().to_owned();
    v1::Objective { metric, maximize: objective.mode == Mode::Max }
}

fn constraint_to_wire(constraint: &Constraint) -> v1::Constraint {
    let Constraint { metric, min, max } = *constraint;
    v1::Constraint { metric: metric.name().to_owned(), min, max }
}

fn front_to_wire(view: &FrontView) -> v1::FrontResult {
    let FrontView { trial, step, values } = view.clone();
    v1::FrontResult { trial_id: trial.to_string(), step, values }
}

fn front_from_wire(wire: v1::FrontResult) -> Result<FrontView, ConvertError> {
    let trial = wire.trial_id.parse().map_err(|error| illegal("front.trial_id", &error))?;
    Ok(FrontView { trial, step: wire.step, values: wire.values })
}

fn metric(name: &str) -> Result<ObjectiveMetric, ConvertError> {
    metric_named(name).ok_or_else(|| illegal("metric", &name))
}

fn goal_from_wire(wire: &v1::ExperimentView) -> Result<Goal, ConvertError> {
    let objective = |name: &str, maximize: bool| {
        let mode = if maximize { Mode::Max } else { Mode::Min };
        Ok(Objective { metric: metric(name)?, mode })
    };
    let constraint = |wire: &v1::Constraint| {
        Ok(Constraint { metric: metric(&wire.metric)?, min: wire.min, max: wire.max })
    };
    let others = wire.other_objectives.iter().map(|other| objective(&other.metric, other.maximize));
    Ok(Goal {
        others: others.collect::<Result<_, ConvertError>>()?,
        constraints: wire
            .constraints
            .iter()
            .map(constraint)
            .collect::<Result<_, ConvertError>>()?,
        ..objective(&wire.metric, wire.maximize)?.into()
    })
}

/// Empty is what older builds say; they knew one.
fn training_objective(name: &str) -> Result<TrainingObjective, ConvertError> {
    let mut known = TrainingObjective::NAMES.into_iter();
    let found = known.find(|(known, _)| *known == name).map(|(_, objective)| objective);
    let older = name.is_empty().then(TrainingObjective::default);
    found.or(older).ok_or_else(|| illegal("training_objective", &name))
}

fn best_from_wire(wire: v1::Best) -> Result<BestView, ConvertError> {
    Ok(BestView {
        trial: wire.trial_id.parse().map_err(|error| illegal("best.trial_id", &error))?,
        step: wire.step,
        objective: wire.objective,
        validation: wire.validation.ok_or_else(|| missing("best.validation"))?.try_into()?,
        test: wire.test.map(TryInto::try_into).transpose()?,
        model: wire.model,
    })
}

fn trial_to_wire(view: &TrialView) -> v1::TrialView {
    let values = view.merit.as_ref().map(Merit::values).unwrap_or_default();
    let others = values.iter().skip(1).copied().collect();
    v1::TrialView {
        trial_id: view.id.to_string(),
        state: trial_state_to_wire(view.state).into(),
        reason: view.reason.clone(),
        assignment: assignment_to_wire(&view.assignment),
        step: view.step,
        target_step: view.target_step,
        objective: view.merit.as_ref().map(Merit::first),
        other_objectives: others,
        violation: view.merit.as_ref().map_or(0.0, Merit::violation),
        last_loss: view.last_loss,
        attempts: view.attempts,
        restarts: view.restarts,
        rungs_passed: view.rungs_passed,
        examples_per_second: view.examples_per_second,
        ranks: view.ranks.clone(),
    }
}

fn trial_from_wire(wire: v1::TrialView) -> Result<TrialView, ConvertError> {
    let state = trial_state_from_wire(wire.state())?;
    let others = wire.other_objectives.clone();
    let merit = wire
        .objective
        .map(|first| Merit::new(std::iter::once(first).chain(others), wire.violation));
    Ok(TrialView {
        id: wire.trial_id.parse().map_err(|error| illegal("trial_id", &error))?,
        state,
        reason: wire.reason,
        assignment: assignment_from_wire(wire.assignment)?,
        step: wire.step,
        target_step: wire.target_step,
        merit,
        last_loss: wire.last_loss,
        attempts: wire.attempts,
        restarts: wire.restarts,
        rungs_passed: wire.rungs_passed,
        examples_per_second: wire.examples_per_second,
        ranks: wire.ranks,
    })
}

fn state_to_wire(state: ExperimentState) -> v1::ExperimentState {
    match state {
        ExperimentState::Preparing => v1::ExperimentState::Preparing,
        ExperimentState::Searching => v1::ExperimentState::Searching,
        ExperimentState::Finishing => v1::ExperimentState::Finishing,
        ExperimentState::Completed => v1::ExperimentState::Completed,
        ExperimentState::Canceled => v1::ExperimentState::Canceled,
        ExperimentState::Failed => v1::ExperimentState::Failed,
    }
}

fn state_from_wire(state: v1::ExperimentState) -> Result<ExperimentState, ConvertError> {
    match state {
        v1::ExperimentState::Preparing => Ok(ExperimentState::Preparing),
        v1::ExperimentState::Searching => Ok(ExperimentState::Searching),
        v1::ExperimentState::Finishing => Ok(ExperimentState::Finishing),
        v1::ExperimentState::Completed => Ok(ExperimentState::Completed),
        v1::ExperimentState::Canceled => Ok(ExperimentState::Canceled),
        v1::ExperimentState::Failed => Ok(ExperimentState::Failed),
        v1::ExperimentState::Unspecified => Err(missing("state")),
    }
}

fn trial_state_to_wire(state: TrialStateName) -> v1::TrialState {
    match state {
        TrialStateName::Running => v1::TrialState::Running,
        TrialStateName::Pending => v1::TrialState::Pending,
        TrialStateName::Paused => v1::TrialState::Paused,
        TrialStateName::Completed => v1::TrialState::Completed,
        TrialStateName::Stopped => v1::TrialState::Stopped,
        TrialStateName::Canceled => v1::TrialState::Canceled,
        TrialStateName::Failed => v1::TrialState::Failed,
    }
}

fn trial_state_from_wire(state: v1::TrialState) -> Result<TrialStateName, ConvertError> {
    match state {
        v1::TrialState::Running => Ok(TrialStateName::Running),
        v1::TrialState::Pending => Ok(TrialStateName::Pending),
        v1::TrialState::Paused => Ok(TrialStateName::Paused),
        v1::TrialState::Completed => Ok(TrialStateName::Completed),
        v1::TrialState::Stopped => Ok(TrialStateName::Stopped),
        v1::TrialState::Canceled => Ok(TrialStateName::Canceled),
        v1::TrialState::Failed => Ok(TrialStateName::Failed),
        v1::TrialState::Unspecified => Err(missing("trial.state")),
    }
}
