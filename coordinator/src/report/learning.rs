//! Learning curves, thin enough for one file, and what else the metrics of a trial tell.

use std::collections::BTreeMap;

use muster_common::equipment::Equipment;
use muster_common::id::TrialId;
use muster_common::metric::{MetricName, MetricPoint};
use serde::Serialize;

use super::Source;
use crate::curve::{Curve, CurveSet, stored};

/// Trials with a fine curve, those in front.
const NUM_FINE: usize = 8;
/// Points of a fine curve.
const POINTS_FINE: usize = 160;
/// Trials with a curve at all.
const NUM_SHOWN: usize = 120;
/// Points of the others.
const POINTS_COARSE: usize = 24;
/// Metrics of a report on one trial.
const METRICS_MAX: usize = 24;

/// What one trial measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Whose it is.
    pub trial: TrialId,
    /// Every metric of its first rank.
    pub curves: CurveSet,
    /// Values of the first objective on the validation split, by step.
    pub objective: BTreeMap<u64, f64>,
    /// When which rank was where.
    pub spans: Vec<Span>,
    /// What ranks trained with, as far as they have kept it.
    pub equipment: Vec<Equipment>,
}

/// From the first to the last value that one rank of one run has recorded, of those that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Number of the run within its trial.
    pub attempt: u32,
    /// Which of its processes.
    pub rank: u32,
    /// Its machine; empty where files are too old to say.
    pub host: String,
    /// First value, Unix milliseconds.
    pub from_ms: u64,
    /// Last value, Unix milliseconds.
    pub to_ms: u64,
    /// A GPU was measured.
    pub has_gpu: bool,
}

impl Span {
    /// How long it is.
    pub fn seconds(&self) -> f64 {
        self.to_ms.saturating_sub(self.from_ms) as f64 / 1000.0
    }
}

impl Measured {
    /// What the points of `trial` tell, in the order of their steps; `objective` is the first objective's metric, and
    /// `equipment` what its ranks trained with.
    pub fn of(
        trial: &TrialId,
        points: &[MetricPoint],
        objective: &MetricName,
        equipment: Vec<Equipment>,
    ) -> Self {
        let mut spans: BTreeMap<(u32, u32), Span> = BTreeMap::new();
        for point in points {
            let at = point.recorded_at.0;
            let key = (point.attempt.0, point.rank);
            let span = spans.entry(key).or_insert_with(|| Span {
                attempt: point.attempt.0,
                rank: point.rank,
                host: point.host.to_string(),
                from_ms: at,
                to_ms: at,
                has_gpu: false,
            });
            span.from_ms = span.from_ms.min(at);
            span.to_ms = span.to_ms.max(at);
            span.has_gpu |= point.name == MetricName::GPU_MEMORY_BYTES;
        }
        let first_rank = points.iter().filter(|point| point.rank == 0 && point.name == *objective);
        Self {
            trial: trial.clone(),
            curves: stored(points),
            objective: first_rank.map(|point| (point.step, point.value)).collect(),
            spans: spans.into_values().collect(),
            equipment,
        }
    }
}

/// One metric of several trials.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LearningChart {
    /// The metric.
    pub metric: String,
    /// What its values count; `1`: nothing.
    pub unit: String,
    /// The best trial first.
    pub lines: Vec<Line>,
    /// Trials with this metric whose lines are left out.
    pub num_left_out: usize,
}

/// One metric of one trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Number of the trial.
    pub trial: u32,
    /// The last step that each point stands for.
    pub steps: Vec<u64>,
    /// As many means.
    pub values: Vec<f64>,
}

/// Of all trials the objective and the training loss; of one trial everything it measured.
pub(super) fn charts(source: &Source<'_>) -> Vec<LearningChart> {
    let measured = source.measured();
    let mut names: Vec<MetricName> = Vec::new();
    let objective = MetricName::validation(source.view.goal.objective.metric);
    let first = [objective, MetricName::TRAIN_LOSS];
    let others = source.subject.and(measured.first()).into_iter();
    let others = others.flat_map(|(_, measured)| measured.curves.keys().cloned());
    for name in first.into_iter().chain(others) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.truncate(METRICS_MAX);
    let chart = |name: MetricName| {
        let with = measured.iter().filter_map(|(trial, measured)| {
            let curve = measured.curves.get(&name)?;
            Some((trial.id.number, curve))
        });
        let all: Vec<(u32, &Curve)> = with.collect();
        let shown = all.iter().take(NUM_SHOWN).enumerate();
        let lines: Vec<Line> =
            shown.map(|(place, (trial, curve))| line(place, *trial, curve)).collect();
        let num_left_out = all.len() - lines.len();
        let (metric, unit) = (name.to_string(), name.unit().to_owned());
        (!lines.is_empty()).then_some(LearningChart { metric, unit, lines, num_left_out })
    };
    names.into_iter().filter_map(chart).collect()
}

fn line(place: usize, trial: u32, curve: &Curve) -> Line {
    let thin = curve.at_most(if place < NUM_FINE { POINTS_FINE } else { POINTS_COARSE });
    let points = thin.points();
    Line {
        trial,
        steps: points.iter().map(|point| point.last_step).collect(),
        values: points.iter().map(|point| rounded(point.mean)).collect(),
    }
}

/// Six digits that matter: for the eye, and a smaller file.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    format!("{value:.5e}").parse().unwrap_or(value)
}
