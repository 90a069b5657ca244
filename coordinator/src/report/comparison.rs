//! Against another experiment, on the same test examples.

use muster_common::evaluation::Paired;
use serde::Serialize;

use super::{ReportError, Rival, Source};

/// Level below which a difference is called significant.
const LEVEL: f64 = 0.05;

/// A paired test of two models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The other experiment.
    pub against: String,
    /// Its trial.
    pub trial: String,
    /// Examples that both have scored.
    pub num_rows: u64,
    /// Accuracy of this report's model.
    pub accuracy: f64,
    /// Accuracy of the other.
    pub other_accuracy: f64,
    /// The first minus the second.
    pub difference: f64,
    /// Its 95 % interval, by a paired bootstrap.
    pub interval_95: [f64; 2],
    /// Of the exact test of McNemar, two-sided.
    pub p_value: f64,
    /// Whether that is below 0.05.
    pub is_significant: bool,
    /// Examples that both are right about.
    pub both_right: u64,
    /// Only this report's model.
    pub only_this: u64,
    /// Only the other.
    pub only_other: u64,
    /// Neither.
    pub neither: u64,
    /// What makes one doubt that the examples are the same; empty: nothing does.
    pub doubts: Vec<String>,
}

impl Comparison {
    pub(super) fn of(source: &Source<'_>, rival: Rival<'_>) -> Result<Self, ReportError> {
        let own = source.predictions.filter(|_| source.is_about_best());
        let not_scored = || ReportError::NotScored { experiment: source.view.id.to_string() };
        let (rows, labels) = own.ok_or_else(not_scored)?;
        let (other_rows, other_labels) = rival.predictions;
        let paired = Paired::of((rows, labels), (other_rows, other_labels)).map_err(|error| {
            ReportError::Incomparable {
                first: source.view.id.to_string(),
                second: rival.view.id.to_string(),
                source: error,
            }
        })?;
        let mut doubts = Vec::new();
        let (mine, theirs) = (&source.manifest.data, &rival.manifest.data);
        if (&mine.train, &mine.test) != (&theirs.train, &theirs.test) {
            doubts.push("the two manifests name other data".to_owned());
        }
        if source.manifest.seed != rival.manifest.seed {
            doubts.push("the two manifests have other seeds, which decide on the split".to_owned());
        }
        let num_rows = paired.num_rows();
        let share = |count: u64| count as f64 / num_rows as f64;
        let best = rival.view.best.as_ref();
        Ok(Self {
            against: rival.view.id.to_string(),
            trial: best.map(|best| best.trial.to_string()).unwrap_or_default(),
            num_rows,
            accuracy: share(paired.both_right + paired.only_first),
            other_accuracy: share(paired.both_right + paired.only_second),
            difference: paired.difference,
            interval_95: [paired.interval.low, paired.interval.high],
            p_value: paired.p_value,
            is_significant: paired.p_value < LEVEL,
            both_right: paired.both_right,
            only_this: paired.only_first,
            only_other: paired.only_second,
            neither: paired.neither,
            doubts,
        })
    }
}
