//! Lists of experiments, and one of them.

use std::collections::BTreeMap;

use muster_common::goal::Constraint;
use muster_common::manifest::{Domain, ParameterValue, Scale, SearchSpace};
use muster_common::objective::Objective;
use muster_common::time::Timestamp;

use super::answer::{
    BestAnswer, DataAnswer, DecisionAnswer, ExperimentAnswer, ExperimentRow, ExperimentsAnswer,
    ObjectiveAnswer, ParameterAnswer, SavingsAnswer,
};
use super::problem::Problem;
use super::query::Query;
use crate::engine::Engine;
use crate::engine::decision::Decision;
use crate::engine::experiment::Experiment;
use crate::engine::trial::{Trial, TrialState};
use crate::live::Live;
use crate::view::{Setting, TrialStateName, committed_step, head, mode_name};

/// Decisions of the first look; more are asked for.
const DECISIONS: usize = 30;
/// Most decisions of one answer.
const DECISIONS_MAX: usize = 500;
/// Values of a domain that are listed one by one.
const VALUES_MAX: u64 = 24;

/// One page of the experiments, the newest first.
pub(super) fn list(
    engine: &Engine,
    live: &Live,
    query: &Query,
    now: Timestamp,
) -> Result<ExperimentsAnswer, Problem> {
    let text = query.search("q")?.map(str::to_lowercase);
    let state = query.text("state");
    let mut found: Vec<&Experiment> = engine
        .experiments()
        .filter(|experiment| text.as_ref().is_none_or(|text| mentions(experiment, text)))
        .filter(|experiment| match state {
            Some("open") => !experiment.is_ended(),
            Some("ended") => experiment.is_ended(),
            _ => true,
        })
        .collect();
    found.reverse();
    let total = found.len();
    let page = query.page()?.of(found.into_iter());
    let experiments = page.into_iter().map(|experiment| row(engine, experiment, live, now));
    Ok(ExperimentsAnswer { now_ms: now.0, total, experiments: experiments.collect() })
}

fn mentions(experiment: &Experiment, text: &str) -> bool {
    let description = experiment.manifest.description.as_deref().unwrap_or_default();
    let project = experiment.project.as_ref().map_or("", |project| project.as_str());
    [experiment.id.as_str(), description, project]
        .iter()
        .any(|words| words.to_lowercase().contains(text))
}

/// One experiment.
pub(super) fn row(
    engine: &Engine,
    experiment: &Experiment,
    live: &Live,
    now: Timestamp,
) -> ExperimentRow {
    let view = head(engine, experiment, live, now);
    let mut trials = BTreeMap::new();
    for trial in experiment.trials.values() {
        *trials.entry(TrialStateName::of(&trial.state).name()).or_default() += 1;
    }
    let metric = view.goal.objective.metric;
    ExperimentRow {
        id: view.id.to_string(),
        description: view.description,
        state: view.state.name(),
        paused: view.paused,
        reason: view.reason,
        lacks_model: experiment.lacks_model(),
        project: experiment.project.as_ref().map(ToString::to_string),
        priority: experiment.priority,
        created_at_ms: view.created_at.0,
        ended_at_ms: view.ended_at.map(|at| at.0),
        objectives: view.goal.objectives().map(objective).collect(),
        trials,
        num_trials: experiment.trials.len(),
        max_trials: view.max_trials,
        best: view.best.map(|best| BestAnswer {
            trial: best.trial.number,
            step: best.step,
            objective: best.objective,
            test: best.test.map(|test| test.value(metric)),
            model: best.model,
        }),
        preparation: (view.parts_done, view.num_parts),
        seconds_left: view.seconds_left,
        slots: engine.held(&experiment.id),
        slot_seconds: seconds(experiment.used_slot_ms),
    }
}

pub(super) fn objective(objective: Objective) -> ObjectiveAnswer {
    ObjectiveAnswer { metric: objective.metric.name(), mode: mode_name(objective.mode) }
}

/// Of milliseconds.
pub(super) fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Everything about one experiment but its trials.
pub(super) fn one(
    engine: &Engine,
    experiment: &Experiment,
    live: &Live,
    now: Timestamp,
) -> ExperimentAnswer {
    let manifest = &experiment.manifest;
    let goal = experiment.goal();
    let searcher = manifest.searcher.as_ref();
    let data = experiment.data.as_ref().map(|data| DataAnswer {
        num_train: data.num_train,
        num_validation: data.num_validation,
        num_test: data.num_test,
        labels: data.labels.clone(),
        cache: data.cache.clone(),
        remarks: data.remarks.clone(),
    });
    let view = head(engine, experiment, live, now);
    ExperimentAnswer {
        now_ms: now.0,
        row: row(engine, experiment, live, now),
        rungs: view.rungs,
        constraints: goal.constraints.iter().map(Constraint::words).collect(),
        parameters: parameters(&manifest.hyperparameters),
        constants: constants(&manifest.hyperparameters),
        sampler: searcher.map_or("none", |searcher| searcher.sampler.name()),
        pruner: searcher.map_or("none", |searcher| searcher.pruner.name()),
        seed: manifest.seed.0.to_string(),
        model: manifest.model.pretrained.clone(),
        learns: manifest.objective.name(),
        slots_per_trial: manifest.resources.slots.to_string(),
        data,
        warnings: view.warnings,
        location: view.location,
        examples_per_second: own_speed(experiment, live),
        savings: savings(experiment),
        decisions: newest(&experiment.decisions, DECISIONS),
        num_decisions: experiment.decisions.len(),
    }
}

/// Training speed of its own trials, examples per second.
fn own_speed(experiment: &Experiment, live: &Live) -> f64 {
    let speed = |trial: &Trial| match trial.state {
        TrialState::Running { generation } => {
            live.progress(generation).map_or(0.0, |progress| progress.examples_per_second)
        }
        _ => 0.0,
    };
    experiment.trials.values().map(speed).sum()
}

/// The newest decisions, newest first.
fn newest(decisions: &[Decision], count: usize) -> Vec<DecisionAnswer> {
    let answer = |decision: &Decision| DecisionAnswer {
        at_ms: decision.at.0,
        trial: decision.trial.as_ref().map(|trial| trial.number),
        text: decision.text.clone(),
    };
    decisions.iter().rev().take(count).map(answer).collect()
}

/// More of the decisions.
pub(super) fn decisions(
    experiment: &Experiment,
    query: &Query,
) -> Result<Vec<DecisionAnswer>, Problem> {
    Ok(newest(&experiment.decisions, query.count("limit", DECISIONS, DECISIONS_MAX)?))
}

fn parameters(space: &SearchSpace) -> Vec<ParameterAnswer> {
    let searched = space.iter().filter(|(_, domain)| domain.is_searched());
    searched.map(|(name, domain)| parameter(name, domain.plain())).collect()
}

fn parameter(name: &str, domain: &Domain) -> ParameterAnswer {
    let few = domain.num_values().is_some_and(|count| count <= VALUES_MAX);
    let values = domain.enumerate().filter(|_| few).unwrap_or_default();
    let is_word = |value: &ParameterValue| value.category().is_some();
    if values.iter().any(is_word) {
        let (kind, log, name) = ("words", false, name.to_owned());
        let values = values.into_iter().map(Setting::from).collect();
        return ParameterAnswer { name, kind, log, min: f64::NAN, max: f64::NAN, values };
    }
    let mut values: Vec<f64> = values.into_iter().map(ParameterValue::as_f64).collect();
    values.sort_by(f64::total_cmp);
    let (kind, log, min, max) = match domain {
        Domain::Float { min, max, scale } => ("float", *scale == Scale::Log, *min, *max),
        Domain::Int { min, max, scale } => ("int", *scale == Scale::Log, *min as f64, *max as f64),
        Domain::Steps { min, max, .. } => ("steps", false, *min, *max),
        Domain::IntSteps { min, max, scale, .. } => {
            ("steps", *scale == Scale::Log, *min as f64, *max as f64)
        }
        Domain::Constant(_) | Domain::Values(_) | Domain::When { .. } => {
            let bound = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
            ("values", false, bound(values.first()), bound(values.last()))
        }
    };
    let values = values.into_iter().map(Setting::Number).collect();
    ParameterAnswer { name: name.to_owned(), kind, log, min, max, values }
}

fn constants(space: &SearchSpace) -> BTreeMap<String, Setting> {
    let constant = |(name, domain): (&String, &Domain)| match domain {
        Domain::Constant(value) => Some((name.clone(), (*value).into())),
        _ => None,
    };
    space.iter().filter_map(constant).collect()
}

/// What early stopping has saved so far.
fn savings(experiment: &Experiment) -> SavingsAnswer {
    let mut savings = SavingsAnswer {
        num_ended: 0,
        num_stopped: 0,
        trained_steps: 0,
        full_steps: 0,
        saved_share: None,
        saved_seconds: 0.0,
    };
    let Some(budget) = experiment.ladder.last().copied() else { return savings };
    for trial in experiment.trials.values() {
        // Who was canceled or failed has saved nothing that was wanted.
        let counts = matches!(trial.state, TrialState::Completed | TrialState::Stopped { .. });
        let full = experiment.steps(trial, budget);
        if !counts || full == 0 {
            continue;
        }
        let trained = committed_step(trial).min(full);
        let saved = full - trained;
        savings.num_ended += 1;
        savings.num_stopped += usize::from(saved > 0);
        savings.trained_steps += trained;
        savings.full_steps += full;
        if trained > 0 {
            savings.saved_seconds += seconds(trial.used_ms) / trained as f64 * saved as f64;
        }
    }
    let share = 1.0 - savings.trained_steps as f64 / savings.full_steps.max(1) as f64;
    savings.saved_share = (savings.full_steps > 0).then_some(share);
    savings
}
