//! The sweep part of a manifest: sampler, pruner and how many trials.

use serde::{Deserialize, Serialize};

use super::pruner::PrunerSettings;
use super::space::Assignment;
use crate::objective::Objective;

/// What to try and what to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearcherSettings {
    /// What is optimised, on the validation split.
    pub objective: Objective,
    /// Trials created at most. For a grid, the size of the grid.
    pub max_trials: u32,
    /// Trials at work at the same time at most; absent: as many as there are slots.
    pub max_concurrent: Option<u32>,
    /// How assignments are proposed.
    pub sampler: SamplerSettings,
    /// How trials are stopped early.
    pub pruner: PrunerSettings,
    /// Once a trial's objective is as good at a rung, the search ends.
    #[serde(default)]
    pub target: Option<f64>,
}

/// How assignments are proposed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerSettings {
    /// Independent draws; trial `n` draws the same whatever happened before it.
    Random,
    /// Cartesian product, the last hyperparameter name varying fastest.
    Grid,
    /// Scrambled Sobol points.
    Sobol,
    /// Tree-structured Parzen estimator.
    Tpe(TpeSettings),
    /// These points, in this order.
    List(Vec<Assignment>),
}

impl SamplerSettings {
    /// The name in manifests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Grid => "grid",
            Self::Sobol => "sobol",
            Self::Tpe(_) => "tpe",
            Self::List(_) => "list",
        }
    }
}

/// Tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter
/// Optimization").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpeSettings {
    /// Trials with a result before anything is learned from; those before are random.
    pub startup_trials: u32,
    /// Draws of which the most promising is tried.
    pub candidates: u32,
    /// One density over all hyperparameters; false: each by itself.
    pub multivariate: bool,
}

impl Default for TpeSettings {
    fn default() -> Self {
        Self { startup_trials: 10, candidates: 24, multivariate: true }
    }
}
