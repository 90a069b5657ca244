//! The experiment report: what an experiment, or one trial of it, did and how good its model is, in one file to send
//! to somebody.
//!
//! Everything is a pure function of what is gathered before: the view of the coordinator, the manifest, what trials
//! measured and what the chosen model said about the test split. [`Report::of`] computes it; as JSON it is for
//! programs, and [`page`] makes a page of it that needs nothing else, not even a network.
//!
//! Reading order: `card` (what was run, where, at what cost), `ranking`, `learning`, `cause` (which hyperparameters
//! mattered), `score`, `behavior` (curves, calibration, lengths, mistakes), `weighed` (what words have to do with
//! mistakes), `comparison`, then [`page`].

mod behavior;
mod card;
mod cause;
mod comparison;
mod learning;
pub mod page;
mod ranking;
mod score;
#[cfg(test)]
mod tests;
mod weighed;

pub use behavior::Behavior;
pub use card::Card;
pub use cause::Importance;
pub use comparison::Comparison;
pub use learning::{LearningChart, Measured, Span};
pub use ranking::Ranking;
pub use score::Score;
pub use weighed::{Weighed, questions};

use std::collections::BTreeMap;

use muster_common::evaluation::PairingError;
use muster_common::evaluation::prediction::Prediction;
use muster_common::manifest::Manifest;
use muster_common::time::Timestamp;
use serde::Serialize;

use crate::view::{ExperimentView, TrialView};

/// Version of the JSON form; higher when a field changes its meaning or goes.
pub const REPORT_FORMAT: u32 = 1;

/// What a model said about a split: predictions sorted by row, and the names of the classes.
pub type Predictions = (Vec<Prediction>, Vec<String>);

/// Everything a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The experiment as people see it.
    pub view: &'a ExperimentView,
    /// What was submitted.
    pub manifest: &'a Manifest,
    /// The same as the user wrote it.
    pub manifest_text: &'a str,
    /// The number of the trial that the report is about; `None`: all of them.
    pub subject: Option<u32>,
    /// What trials measured, each trial once at most.
    pub measured: &'a [Measured],
    /// About the test split; `None` until the chosen model is scored, and where there are no classes.
    pub predictions: Option<&'a Predictions>,
    /// What the words of its mistakes have to do with them.
    pub weighed: &'a Weighed,
    /// Whether nobody was asked but the object store, so that of the view only ids, steps, results and the chosen trial
    /// are true.
    pub is_stored: bool,
    /// To be compared with.
    pub against: Option<Rival<'a>>,
    /// When the report is made.
    pub made_at: Timestamp,
}

/// Another experiment whose model was scored on the same test split.
#[derive(Debug, Clone, Copy)]
pub struct Rival<'a> {
    /// The experiment.
    pub view: &'a ExperimentView,
    /// What was submitted.
    pub manifest: &'a Manifest,
    /// What its model said.
    pub predictions: &'a Predictions,
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// There is no such trial.
    #[error("{experiment} has no trial t{number}; there are {count} so far")]
    NoTrial {
        /// The experiment.
        experiment: String,
        /// What was asked for.
        number: u32,
        /// Trials that there are.
        count: usize,
    },
    /// The models cannot be compared.
    #[error(
        "{first} and {second} cannot be compared: {source}; a paired test needs the same test examples, so compare \
         experiments with the same `data` section and `seed`"
    )]
    Incomparable {
        /// The experiment of the report.
        first: String,
        /// The other one.
        second: String,
        /// What differs.
        source: PairingError,
    },
    /// There is nothing to compare.
    #[error(
        "{experiment} has no predictions on a test split to compare: its manifest has no `data.test`, it tells no \
         classes apart, or it has not ended"
    )]
    NotScored {
        /// The experiment.
        experiment: String,
    },
    /// It is no JSON.
    #[error("the report cannot be written as JSON: {reason}")]
    Json {
        /// What the writer says.
        reason: String,
    },
}

/// The whole report. Numbers that are not finite are `null` in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`REPORT_FORMAT`].
    pub format: u32,
    /// What was run, where, at what cost.
    pub card: Card,
    /// How trials did, and why they ended.
    pub ranking: Ranking,
    /// What trials measured.
    pub learning: Vec<LearningChart>,
    /// Which hyperparameters made trials differ; absent where nothing can be said.
    pub importance: Option<Importance>,
    /// Scores on the validation split, which chose the model.
    pub validation: Option<Score>,
    /// Scores on the test split.
    pub test: Option<Score>,
    /// How the model behaves on the test split.
    pub behavior: Option<Behavior>,
    /// Against another experiment.
    pub comparison: Option<Comparison>,
}

impl Source<'_> {
    /// The trial that the report is about.
    fn trial(&self) -> Result<Option<&TrialView>, ReportError> {
        let Some(number) = self.subject else { return Ok(None) };
        let found = self.view.trials.iter().find(|trial| trial.id.number == number);
        found.map(Some).ok_or_else(|| ReportError::NoTrial {
            experiment: self.view.id.to_string(),
            number,
            count: self.view.trials.len(),
        })
    }

    /// Whether the model that was scored is what the report is about.
    fn is_about_best(&self) -> bool {
        let best = self.view.best.as_ref().map(|best| best.trial.number);
        best.is_some() && self.subject.is_none_or(|number| Some(number) == best)
    }

    /// What trials of the report measured, the best first.
    fn measured(&self) -> Vec<(&TrialView, &Measured)> {
        let about = |number: u32| self.subject.is_none_or(|subject| number == subject);
        let known: BTreeMap<u32, &Measured> =
            self.measured.iter().map(|measured| (measured.trial.number, measured)).collect();
        let ranked = self.view.ranked().into_iter().filter(|trial| about(trial.id.number));
        ranked.filter_map(|trial| Some((trial, *known.get(&trial.id.number)?))).collect()
    }
}

impl Report {
    /// Computes a report.
    pub fn of(source: &Source<'_>) -> Result<Self, ReportError> {
        let trial = source.trial()?;
        let about_best = source.is_about_best();
        let best = source.view.best.as_ref().filter(|_| about_best);
        let labels: &[String] = source.view.data.as_ref().map_or(&[], |data| &data.labels);
        let ordered = source.view.ordered;
        Ok(Self {
            format: REPORT_FORMAT,
            card: Card::of(source, trial),
            ranking: Ranking::of(source),
            learning: learning::charts(source),
            importance: Importance::of(source),
            validation: best
                .filter(|_| !source.is_stored)
                .map(|best| Score::of(&best.validation, labels, ordered)),
            test: best
                .and_then(|best| best.test.as_ref())
                .map(|test| Score::of(test, labels, ordered)),
            behavior: source
                .predictions
                .filter(|_| about_best)
                .and_then(|(rows, labels)| Behavior::of(rows, labels, source.weighed)),
            comparison: source.against.map(|rival| Comparison::of(source, rival)).transpose()?,
        })
    }

    /// As JSON, one object.
    pub fn to_json(&self) -> Result<String, ReportError> {
        let text = serde_json::to_string(self);
        text.map_err(|error| ReportError::Json { reason: error.to_string() })
    }
}
