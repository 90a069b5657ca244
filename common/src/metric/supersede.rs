//! Which points count.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::MetricPoint;
use crate::id::{Attempt, TrialId};

/// The points that count, sorted by trial, rank, step and name; see the module for the rule.
pub fn effective(points: Vec<MetricPoint>) -> Vec<MetricPoint> {
    let mut kept = marked(points);
    kept.retain(|point| !point.superseded);
    kept.sort_by(|a, b| place(a).cmp(&place(b)));
    kept
}

/// Every point once, by trial, attempt, rank, step and name, and marked as superseded unless it counts.
/// Sorted by trial, name, rank, step and attempt: what belongs to one curve lies together. What was
/// marked before is decided anew.
pub fn marked(points: Vec<MetricPoint>) -> Vec<MetricPoint> {
    let lowest_rewind = lowest_rewinds(&points);
    let mut points = points;
    points.sort_by(order);
    // Of equal keys the last is the latest.
    points.reverse();
    points.dedup_by(|a, b| place(a) == place(b) && a.attempt == b.attempt);
    points.reverse();
    for point in &mut points {
        let attempts = lowest_rewind.get(&point.trial);
        let rewind = attempts.and_then(|attempts| attempts.get(&point.attempt));
        point.superseded = rewind.is_some_and(|lowest| point.step > *lowest);
    }
    // Of what is left at one place the highest attempt counts.
    for at in (1..points.len()).rev() {
        let (before, after) = points.split_at_mut(at);
        // Attempts between the two may be superseded for another reason.
        let Some(counted) = after.first().filter(|point| !point.superseded) else { continue };
        let earlier = before.iter_mut().rev().take_while(|point| place(point) == place(counted));
        earlier.for_each(|point| point.superseded = true);
    }
    points
}

/// Where on which curve a point lies.
fn place(point: &MetricPoint) -> (&TrialId, u32, u64, &str) {
    (&point.trial, point.rank, point.step, point.name.as_str())
}

fn order(a: &MetricPoint, b: &MetricPoint) -> Ordering {
    let curve = |point: &MetricPoint| (point.rank, point.step, point.attempt, point.recorded_at);
    a.trial
        .cmp(&b.trial)
        .then_with(|| a.name.cmp(&b.name))
        .then_with(|| curve(a).cmp(&curve(b)))
        .then_with(|| a.value.total_cmp(&b.value))
        // Nothing else should differ; files in another order must not give another point.
        .then_with(|| (a.resumed_from, &a.host, &a.unit).cmp(&(b.resumed_from, &b.host, &b.unit)))
}

/// By trial and attempt: the lowest step that any later attempt continued from.
fn lowest_rewinds(points: &[MetricPoint]) -> BTreeMap<TrialId, BTreeMap<Attempt, u64>> {
    let mut trials: BTreeMap<TrialId, BTreeMap<Attempt, u64>> = BTreeMap::new();
    for point in points {
        let attempts = match trials.get_mut(&point.trial) {
            Some(attempts) => attempts,
            None => trials.entry(point.trial.clone()).or_default(),
        };
        // Ranks of one attempt continue from one checkpoint; the lowest wins if a file disagrees.
        let step = attempts.entry(point.attempt).or_insert(point.resumed_from);
        *step = (*step).min(point.resumed_from);
    }
    for attempts in trials.values_mut() {
        let mut lowest = u64::MAX;
        for step in attempts.values_mut().rev() {
            let own = *step;
            *step = lowest;
            lowest = lowest.min(own);
        }
    }
    trials
}
