//! How the trials did, the best first, and why each ended.

use std::collections::BTreeMap;

use muster_common::goal::Merit;
use serde::Serialize;

use super::Source;
use super::card::NOT_KNOWN;
use crate::view::{Setting, TrialView, mode_name};

/// Trials listed.
const TRIALS_MAX: usize = 200;
/// Decisions listed about one trial, the latest.
const DECISIONS_MAX: usize = 6;

/// Trials in their order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranking {
    /// Metrics of the objectives, the first one first.
    pub objectives: Vec<String>,
    /// Which way is better, for each.
    pub modes: Vec<&'static str>,
    /// Names of the searched hyperparameters.
    pub parameters: Vec<String>,
    /// The best first.
    pub trials: Vec<Row>,
    /// Trials of the experiment.
    pub num_trials: usize,
    /// What was decided about the experiment, oldest first.
    pub decisions: Vec<String>,
}

/// One trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// From 1, among those with a result; absent for the others.
    pub place: Option<usize>,
    /// Its number.
    pub trial: u32,
    /// Where it is.
    pub state: &'static str,
    /// Values of the objectives of its best result on the validation split.
    pub objectives: Vec<f64>,
    /// How far it breaks constraints; 0: it keeps all.
    pub violation: f64,
    /// Optimizer steps.
    pub steps: u64,
    /// Runs started.
    pub attempts: u32,
    /// Searched hyperparameters.
    pub parameters: BTreeMap<String, Setting>,
    /// Why it stopped or failed.
    pub reason: String,
    /// What was decided about it, oldest first.
    pub decisions: Vec<String>,
}

impl Ranking {
    pub(super) fn of(source: &Source<'_>) -> Self {
        let view = source.view;
        let space = &source.manifest.hyperparameters;
        let searched = space.iter().filter(|(_, domain)| domain.is_searched());
        let mut place = 0;
        let placed = view.ranked().into_iter().map(|trial| {
            place += usize::from(trial.merit.is_some());
            (trial.merit.map(|_| place), trial)
        });
        let about = |trial: &TrialView| source.subject.is_none_or(|own| trial.id.number == own);
        let placed: Vec<_> = placed.filter(|(_, trial)| about(trial)).collect();
        let rows = placed.into_iter().take(TRIALS_MAX);
        let general = view.decisions.iter().filter(|decision| decision.trial.is_none());
        Self {
            objectives: view.goal.objectives().map(|one| one.metric.name().to_owned()).collect(),
            modes: view.goal.objectives().map(|one| mode_name(one.mode)).collect(),
            parameters: searched.map(|(name, _)| name.clone()).collect(),
            trials: rows.map(|(place, trial)| row(source, place, trial)).collect(),
            num_trials: view.trials.len(),
            decisions: general.map(|decision| decision.text.clone()).collect(),
        }
    }
}

fn row(source: &Source<'_>, place: Option<usize>, trial: &TrialView) -> Row {
    let own = source.view.decisions.iter().filter(|d| d.trial.as_ref() == Some(&trial.id));
    let mut decisions: Vec<String> = own.map(|decision| decision.text.clone()).collect();
    let surplus = decisions.len().saturating_sub(DECISIONS_MAX);
    decisions.drain(..surplus);
    let values = trial.assignment.iter();
    Row {
        place,
        trial: trial.id.number,
        state: if source.is_stored { NOT_KNOWN } else { trial.state.name() },
        objectives: trial.merit.as_ref().map(Merit::values).unwrap_or_default().to_vec(),
        violation: trial.merit.as_ref().map_or(0.0, Merit::violation),
        steps: trial.step,
        attempts: trial.attempts,
        parameters: values.map(|(name, value)| (name.clone(), (*value).into())).collect(),
        reason: trial.reason.clone(),
        decisions,
    }
}
