//! Curves: what runs measure while they go on, kept at a resolution that a view can show. Soft state; every
//! value is in the object store too.

use std::collections::BTreeMap;

use muster_common::id::Generation;
use muster_common::metric::{MetricName, MetricPoint};

/// Most points of a curve: about as many as a wide screen has columns.
const POINTS_MAX: usize = 512;
/// Fewest, when there are very many curves.
const POINTS_MIN: usize = 32;
/// Points of all curves together, 40 bytes each.
const TOTAL_MAX: usize = 2 << 20;
/// Metrics of one run; more are not shown.
const NAMES_MAX: usize = 64;

/// What some steps that follow each other had.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// The first of the steps.
    pub first_step: u64,
    /// The last of the steps.
    pub last_step: u64,
    /// Values that it stands for.
    pub count: u32,
    /// Their mean; not a number as soon as one of them is.
    pub mean: f64,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

impl CurvePoint {
    fn of(step: u64, value: f64) -> Self {
        let rounded = single(value);
        let (first_step, last_step) = (step, step);
        Self { first_step, last_step, count: 1, mean: value, min: rounded, max: rounded }
    }

    fn join(&mut self, next: &Self) {
        let count = self.count.saturating_add(next.count);
        let share = f64::from(next.count) / f64::from(count);
        self.mean += (next.mean - self.mean) * share;
        self.last_step = next.last_step;
        self.count = count;
        self.min = self.min.min(next.min);
        self.max = self.max.max(next.max);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "for the eye; seven digits are plenty")]
fn single(value: f64) -> f32 {
    value as f32
}

/// One metric of one run or trial, at a resolution that halves whenever it has too many points.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Values that a full point stands for.
    width: u32,
    points: Vec<CurvePoint>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { width: 1, points: Vec::new() }
    }
}

impl Curve {
    /// Adds the value of a later step; one that is not later is left out.
    pub fn push(&mut self, step: u64, value: f64) {
        self.push_within(step, value, POINTS_MAX);
    }

    fn push_within(&mut self, step: u64, value: f64, points_max: usize) {
        let point = CurvePoint::of(step, value);
        if let Some(last) = self.points.last_mut() {
            if last.last_step >= step {
                return;
            }
            if last.count < self.width {
                last.join(&point);
                return;
            }
        }
        while self.points.len() >= points_max {
            self.halve();
        }
        self.points.push(point);
    }

    /// The same with at most so many points, at least one.
    #[must_use]
    pub fn at_most(&self, points_max: usize) -> Self {
        let mut curve = self.clone();
        while curve.points.len() > points_max.max(1) {
            curve.halve();
        }
        curve
    }

    fn halve(&mut self) {
        let joined = self.points.chunks(2).filter_map(|pair| {
            let (first, rest) = pair.split_first()?;
            let mut point = *first;
            for next in rest {
                point.join(next);
            }
            Some(point)
        });
        self.points = joined.collect();
        self.width = self.width.saturating_mul(2);
    }

    /// The points, in the order of their steps.
    pub fn points(&self) -> &[CurvePoint] {
        &self.points
    }

    /// The step it begins at.
    pub fn first_step(&self) -> Option<u64> {
        self.points.first().map(|point| point.first_step)
    }

    /// What both have; where `later` begins, this one ends.
    #[must_use]
    pub fn followed_by(&self, later: &Self) -> Self {
        let begin = later.first_step().unwrap_or(u64::MAX);
        let mut points: Vec<CurvePoint> =
            self.points.iter().filter(|point| point.last_step < begin).copied().collect();
        points.extend(&later.points);
        let mut both = Self { width: self.width.max(later.width), points };
        while both.points.len() > POINTS_MAX {
            both.halve();
        }
        both
    }
}

/// Curves by the name of their metric.
pub type CurveSet = BTreeMap<MetricName, Curve>;

/// Curves of a trial from what is in the store, of its first rank.
pub fn stored(points: &[MetricPoint]) -> CurveSet {
    let mut curves = CurveSet::new();
    for point in points.iter().filter(|point| point.rank == 0) {
        curves.entry(point.name.clone()).or_default().push(point.step, point.value);
    }
    curves
}

/// Curves of the runs that go on.
#[derive(Debug, Default)]
pub struct LiveCurves {
    runs: BTreeMap<Generation, CurveSet>,
    num_curves: usize,
}

impl LiveCurves {
    /// Adds values of one metric, steps rising. With very many curves each has fewer points.
    pub fn extend(
        &mut self,
        generation: Generation,
        name: MetricName,
        values: impl Iterator<Item = (u64, f64)>,
    ) {
        let run = self.runs.entry(generation).or_default();
        if !run.contains_key(&name) {
            if run.len() >= NAMES_MAX {
                return;
            }
            self.num_curves += 1;
        }
        let points_max = (TOTAL_MAX / self.num_curves.max(1)).clamp(POINTS_MIN, POINTS_MAX);
        let curve = run.entry(name).or_default();
        for (step, value) in values {
            curve.push_within(step, value, points_max);
        }
    }

    /// The curves of a run.
    pub fn of(&self, generation: Generation) -> CurveSet {
        self.runs.get(&generation).cloned().unwrap_or_default()
    }

    /// Forgets the runs that are over.
    pub fn retain(&mut self, goes_on: impl Fn(Generation) -> bool) {
        self.runs.retain(|generation, _| goes_on(*generation));
        self.num_curves = self.runs.values().map(BTreeMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loss() -> MetricName {
        MetricName::TRAIN_LOSS
    }

    proptest! {
        #[test]
        fn a_curve_keeps_mean_extremes_and_both_ends(
            values in prop::collection::vec(-1e3f64..1e3, 1..3000),
        ) {
            let mut curve = Curve::default();
            for (step, value) in values.iter().enumerate() {
                curve.push(step as u64 + 1, *value);
            }
            let points = curve.points();
            prop_assert!(points.len() <= POINTS_MAX);
            prop_assert!(values.len() < POINTS_MAX || points.len() >= POINTS_MAX / 2);
            prop_assert_eq!(points[0].first_step, 1);
            prop_assert_eq!(points[points.len() - 1].last_step, values.len() as u64);
            let count: u64 = points.iter().map(|point| u64::from(point.count)).sum();
            prop_assert_eq!(count, values.len() as u64);
            let sum: f64 = points.iter().map(|point| point.mean * f64::from(point.count)).sum();
            let wanted: f64 = values.iter().sum();
            prop_assert!((sum - wanted).abs() < 1e-6 * values.len() as f64);
            let smallest = points.iter().map(|point| point.min).fold(f32::INFINITY, f32::min);
            let wanted = values.iter().copied().fold(f64::INFINITY, f64::min);
            prop_assert_eq!(smallest.to_bits(), single(wanted).to_bits());
            for pair in points.windows(2) {
                prop_assert_eq!(pair[0].last_step + 1, pair[1].first_step);
            }
        }

        #[test]
        fn any_order_and_any_value_is_taken(
            points in prop::collection::vec((0u64..50, any::<f64>()), 0..200),
        ) {
            let mut curve = Curve::default();
            for (step, value) in points {
                curve.push(step, value);
            }
            let steps: Vec<u64> = curve.points().iter().map(|point| point.last_step).collect();
            prop_assert!(steps.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_loss_that_diverged_is_seen() {
        let mut curve = Curve::default();
        (1..=2000u64).for_each(|step| curve.push(step, if step > 1500 { f64::NAN } else { 1.0 }));
        assert!(curve.points()[0].mean.is_finite());
        assert!(curve.points().last().unwrap().mean.is_nan());
    }

    #[test]
    fn a_run_that_rewound_takes_over_where_it_begins() {
        let (mut earlier, mut later) = (Curve::default(), Curve::default());
        (1..=30).for_each(|step| earlier.push(step, 1.0));
        (21..=40).for_each(|step| later.push(step, 2.0));
        let both = earlier.followed_by(&later);
        assert_eq!(both.points().len(), 40);
        assert!(both.points().iter().all(|p| (p.mean < 1.5) == (p.last_step <= 20)));
        assert_eq!(earlier.followed_by(&Curve::default()), earlier);
    }

    #[test]
    fn memory_has_an_end() {
        let mut live = LiveCurves::default();
        for run in 0..3000 {
            for number in 0..NAMES_MAX + 10 {
                let name: MetricName = format!("m{number}").parse().unwrap();
                live.extend(Generation(run), name, (0..40).map(|step| (step, 0.0)));
            }
        }
        let total: usize =
            live.runs.values().flat_map(BTreeMap::values).map(|curve| curve.points.len()).sum();
        assert!(total <= TOTAL_MAX + 3000 * NAMES_MAX * POINTS_MIN, "{total}");
        assert_eq!(live.of(Generation(0)).len(), NAMES_MAX);
        live.retain(|generation| generation.0 < 2);
        assert_eq!((live.runs.len(), live.num_curves), (2, 2 * NAMES_MAX));
        live.extend(Generation(1), loss(), std::iter::empty());
        assert_eq!(live.of(Generation(1)).len(), NAMES_MAX);
    }
}
