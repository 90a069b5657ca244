//! Which hyperparameters made the trials differ.

use std::collections::BTreeMap;

use muster_common::manifest::Assignment;
use serde::Serialize;

use super::Source;
use crate::sweep::importance::importance;

/// Main effects of the searched hyperparameters; see [`crate::sweep::importance`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Importance {
    /// The metric whose differences are explained: the first objective.
    pub metric: String,
    /// The step whose results are compared.
    pub step: u64,
    /// How many results these are.
    pub num_results: usize,
    /// The largest first; they add up to 1.
    pub shares: Vec<Share>,
}

/// How much one hyperparameter mattered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// Its name.
    pub parameter: String,
    /// Its part of all main effects, 0 to 1.
    pub share: f64,
}

impl Importance {
    /// Compares results of one step, that with the most results, of several the latest: results of different steps
    /// differ in their budgets too. `None` where nothing can be said, and in a report on one trial.
    pub(super) fn of(source: &Source<'_>) -> Option<Self> {
        if source.subject.is_some() || source.is_stored {
            return None;
        }
        let measured = source.measured();
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for (step, value) in measured.iter().flat_map(|(_, measured)| &measured.objective) {
            *counts.entry(*step).or_default() += usize::from(value.is_finite());
        }
        let (step, num_results) = counts.into_iter().max_by_key(|(step, count)| (*count, *step))?;
        let observations: Vec<(Assignment, f64)> = measured
            .iter()
            .filter_map(|(trial, measured)| {
                let value = measured.objective.get(&step).filter(|value| value.is_finite())?;
                Some((trial.assignment.clone(), *value))
            })
            .collect();
        let manifest = source.manifest;
        let seed = manifest.seed.child("importance of", 0);
        let shares: Vec<Share> = importance(&manifest.hyperparameters, &observations, seed)
            .into_iter()
            .map(|found| Share { parameter: found.name, share: found.share })
            .collect();
        let metric = source.view.goal.objective.metric.name().to_owned();
        (!shares.is_empty()).then_some(Self { metric, step, num_results, shares })
    }
}
