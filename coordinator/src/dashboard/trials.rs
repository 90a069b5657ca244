//! Trials of an experiment: a page of their table, and one of them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use muster_common::evaluation::Evaluation;
use muster_common::goal::{Goal, Merit};
use muster_common::manifest::Assignment;
use muster_common::time::Timestamp;

use super::answer::{
    ClassAnswer, DescentAnswer, EvaluationAnswer, ResultAnswer, TrialAnswer, TrialRow, TrialsAnswer,
};
use super::experiments::{objective, seconds};
use super::problem::Problem;
use super::query::Query;
use super::standing::{Standing, standings};
use crate::engine::Engine;
use crate::engine::experiment::Experiment;
use crate::engine::trial::TrialState;
use crate::live::Live;
use crate::view::{Setting, TrialStateName, assignment_of, committed_step, trial_view, why};

/// Which trials are wanted.
struct Filter<'a> {
    states: Vec<&'a str>,
    number: Option<u32>,
    /// Name, least and greatest value of a hyperparameter.
    bounds: Vec<(&'a str, f64, f64)>,
    /// Name of a hyperparameter and its word.
    words: Vec<(&'a str, &'a str)>,
}

impl<'a> Filter<'a> {
    fn of(query: &'a Query) -> Result<Self, Problem> {
        let states = query.text("state").map(|text| text.split(',').collect()).unwrap_or_default();
        let number = match query.search("q")? {
            None => None,
            Some(text) => Some(text.trim().trim_start_matches('t').parse().map_err(|_| {
                Problem::Wrong(format!("q: `{text}` is no number of a trial, such as t12"))
            })?),
        };
        let read = |(name, text): (&'a str, &str)| match text.parse::<f64>() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Problem::Wrong(format!("{name}: `{text}` is no number"))),
        };
        let least = query.with_prefix("min.").map(read).collect::<Result<Vec<_>, _>>()?;
        let most = query.with_prefix("max.").map(read).collect::<Result<Vec<_>, _>>()?;
        let least = least.into_iter().map(|(name, least)| (name, least, f64::INFINITY));
        let most = most.into_iter().map(|(name, most)| (name, f64::NEG_INFINITY, most));
        let words = query.with_prefix("is.").collect();
        Ok(Self { states, number, bounds: least.chain(most).collect(), words })
    }

    fn keeps(&self, goal: &Goal, standing: &Standing<'_>) -> bool {
        let trial = standing.trial;
        let state = TrialStateName::of(&trial.state).name();
        let assignment = assignment_of(goal, trial);
        let is_inside = |(name, least, most): &(&str, f64, f64)| {
            let value = assignment.get(name).map(|value| value.as_f64());
            value.is_some_and(|value| (*least..=*most).contains(&value))
        };
        let is_so = |(name, word): &(&str, &str)| {
            let found = assignment.get(name).and_then(|value| value.category());
            found.is_some_and(|found| found.name() == *word)
        };
        (self.states.is_empty() || self.states.contains(&state))
            && self.number.is_none_or(|number| number == trial.number)
            && self.bounds.iter().all(is_inside)
            && self.words.iter().all(is_so)
    }
}

/// One page of the trials that are wanted.
pub(super) fn page(
    engine: &Engine,
    experiment: &Experiment,
    live: &Live,
    query: &Query,
) -> Result<TrialsAnswer, Problem> {
    let goal = experiment.goal();
    let filter = Filter::of(query)?;
    let mut found = standings(experiment, &goal);
    found.retain(|standing| filter.keeps(&goal, standing));
    sort(&mut found, query.text("sort").unwrap_or("rank"), &goal)?;
    if query.text("descending") == Some("1") {
        found.reverse();
    }
    let total = found.len();
    let page = query.page()?.of(found.into_iter());
    let rows = page.into_iter().map(|standing| row(engine, (experiment, &goal), &standing, live));
    Ok(TrialsAnswer { total, trials: rows.collect() })
}

/// Sorts by a column; the order of the ranks stays among equals.
fn sort(found: &mut [Standing<'_>], column: &str, goal: &Goal) -> Result<(), Problem> {
    match column {
        "rank" => {}
        "number" => found.sort_by_key(|standing| standing.trial.number),
        "state" => found.sort_by_key(|standing| TrialStateName::of(&standing.trial.state)),
        "step" => found.sort_by_key(|standing| committed_step(standing.trial)),
        "rungs" => found.sort_by_key(|standing| standing.trial.rung()),
        "attempts" => found.sort_by_key(|standing| standing.trial.attempts),
        "used" => found.sort_by_key(|standing| standing.trial.used_ms),
        "objective" => {
            let value = |standing: &Standing<'_>| standing.merit.as_ref().map(Merit::first);
            found.sort_by(|a, b| absent_last(value(a), value(b)));
        }
        other => {
            let Some(name) = other.strip_prefix("p.") else {
                return Err(Problem::Wrong(format!("sort: no column `{other}`")));
            };
            let value = |standing: &Standing<'_>| {
                assignment_of(goal, standing.trial).get(name).map(|value| value.as_f64())
            };
            found.sort_by(|a, b| absent_last(value(a), value(b)));
        }
    }
    Ok(())
}

fn absent_last(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn settings(assignment: &Assignment) -> BTreeMap<String, Setting> {
    assignment.iter().map(|(name, value)| (name.clone(), (*value).into())).collect()
}

fn row(
    engine: &Engine,
    (experiment, goal): (&Experiment, &Goal),
    standing: &Standing<'_>,
    live: &Live,
) -> TrialRow {
    let trial = standing.trial;
    let view = trial_view(engine, (experiment, goal), trial, live);
    TrialRow {
        number: trial.number,
        state: view.state.name(),
        reason: view.reason,
        rank: standing.rank,
        parameters: settings(&view.assignment),
        step: view.step,
        target_step: view.target_step,
        objectives: view.merit.as_ref().map_or_else(Vec::new, |merit| merit.values().to_vec()),
        violation: view.merit.as_ref().map_or(0.0, Merit::violation),
        rungs_passed: view.rungs_passed,
        last_loss: view.last_loss,
        examples_per_second: view.examples_per_second,
        attempts: view.attempts,
        restarts: view.restarts,
        held: trial.held,
        used_seconds: seconds(trial.used_ms),
        ranks: view.ranks,
    }
}

/// Everything about one trial but what it measured and said.
pub(super) fn one(
    engine: &Engine,
    experiment: &Experiment,
    number: u32,
    live: &Live,
    now: Timestamp,
) -> Result<TrialAnswer, Problem> {
    let goal = experiment.goal();
    let missing = || {
        let (id, count) = (&experiment.id, experiment.trials.len());
        Problem::Missing(format!("no trial `{id}/t{number}`; there are {count} so far"))
    };
    let all = standings(experiment, &goal);
    let standing = all.iter().find(|standing| standing.trial.number == number);
    let standing = standing.ok_or_else(missing)?;
    let trial = standing.trial;
    let labels = experiment.data.as_ref().map(|data| data.labels.clone()).unwrap_or_default();
    let ordered = experiment.manifest.evaluation.is_ordered(&labels);
    let best = experiment.best.as_ref().filter(|best| best.trial == number);
    let validation = match best {
        Some(best) => Some((best.checkpoint.step, &best.validation)),
        None => trial.best_result(&goal).map(|result| (result.step, &result.evaluation)),
    };
    let test = best.and_then(|best| Some((best.checkpoint.step, best.test.as_ref()?)));
    let scored = |(step, found): (u64, &Evaluation)| evaluation(step, found, &labels, ordered);
    let results = (trial.first_rung..).zip(&trial.results).map(|(rung, result)| ResultAnswer {
        rung: rung + 1,
        budget: experiment.ladder.get(rung).map(ToString::to_string).unwrap_or_default(),
        step: result.step,
        checkpoint: result.checkpoint.name(),
        scores: scores(&result.evaluation, ordered),
    });
    let mut lines = why(engine, experiment, number, now).unwrap_or_default();
    if trial.state == TrialState::Pending && !experiment.is_ended() {
        // What it waits for may be in the hands of a cluster.
        lines.extend(live.allocations());
    }
    Ok(TrialAnswer {
        now_ms: now.0,
        experiment: experiment.id.to_string(),
        experiment_ended: experiment.is_ended(),
        goals: goal.objectives().map(objective).collect(),
        num_trials: experiment.trials.len(),
        row: row(engine, (experiment, &goal), standing, live),
        why: lines,
        results: results.collect(),
        validation: validation.map(scored),
        test: test.map(scored),
        lineage: lineage(standing),
        descendants: descendants(experiment, number),
    })
}

fn lineage(standing: &Standing<'_>) -> Vec<DescentAnswer> {
    let answer = |descent: &crate::engine::population::Descent| DescentAnswer {
        rung: descent.rung + 1,
        parent: descent.parent.trial.number,
        parent_step: descent.parent.step,
        before: settings(&descent.before),
    };
    standing.trial.lineage.iter().map(answer).collect()
}

fn descendants(experiment: &Experiment, number: u32) -> Vec<u32> {
    let went_on = experiment
        .trials
        .values()
        .filter(|other| other.lineage.iter().any(|descent| descent.parent.trial.number == number));
    went_on.map(|other| other.number).collect()
}

fn scores(evaluation: &Evaluation, ordered: bool) -> BTreeMap<&'static str, f64> {
    let values = evaluation.values(ordered).into_iter();
    values.map(|(metric, value)| (metric.name(), value)).collect()
}

fn evaluation(
    step: u64,
    evaluation: &Evaluation,
    labels: &[String],
    ordered: bool,
) -> EvaluationAnswer {
    let label = |class: usize| labels.get(class).cloned().unwrap_or_else(|| class.to_string());
    let classes = evaluation.class_scores().into_iter().enumerate().map(|(class, score)| {
        let (precision, recall, f1, support) =
            (score.precision, score.recall, score.f1, score.support);
        ClassAnswer { label: label(class), precision, recall, f1, support }
    });
    EvaluationAnswer {
        step,
        scores: scores(evaluation, ordered),
        labels: (0..evaluation.confusion.len()).map(label).collect(),
        confusion: evaluation.confusion.clone(),
        classes: classes.collect(),
    }
}
