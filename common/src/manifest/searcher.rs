//! The sweep part of a manifest: sampler, pruner and how many trials.

use serde::{Deserialize, Serialize};

use super::assignment::Assignment;
use super::pruner::PrunerSettings;
use crate::goal::{Constraint, Goal};
use crate::id::ExperimentId;
use crate::objective::Objective;

/// What to try and what to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearcherSettings {
    /// What is optimised, on the validation split; of several the first.
    pub objective: Objective,
    /// The others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Objective>,
    /// What results are to keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
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
    /// Earlier experiments whose results are learned from.
    #[serde(default)]
    pub warm_start: Vec<ExperimentId>,
}

impl SearcherSettings {
    /// What results are compared by.
    pub fn goal(&self) -> Goal {
        let (others, constraints) = (self.others.clone(), self.constraints.clone());
        Goal { others, constraints, ..self.objective.into() }
    }
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
    /// BOHB's model: a multivariate Parzen estimator with a share of random trials.
    Bohb(TpeSettings),
    /// Expected improvement over a Gaussian process.
    Gp(GpSettings),
    /// Covariance matrix adaptation.
    CmaEs(CmaEsSettings),
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
            Self::Bohb(_) => "bohb",
            Self::Gp(_) => "gp",
            Self::CmaEs(_) => "cmaes",
        }
    }

    /// Whether results change what is proposed.
    pub fn learns(&self) -> bool {
        match self {
            Self::Random | Self::Grid | Self::Sobol | Self::List(_) => false,
            Self::Tpe(_) | Self::Bohb(_) | Self::Gp(_) | Self::CmaEs(_) => true,
        }
    }

    /// Whether it knows how many trials there are.
    pub fn knows_size(&self) -> bool {
        matches!(self, Self::Grid | Self::List(_))
    }
}

/// Tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter
/// Optimization").
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TpeSettings {
    /// Trials with a result before anything is learned from; those before are random.
    pub startup_trials: u32,
    /// Draws of which the most promising is tried.
    pub candidates: u32,
    /// One density over all hyperparameters; false: each by itself.
    pub multivariate: bool,
    /// Share of the trials that are random even so.
    #[serde(default)]
    pub random_share: f64,
}

impl Default for TpeSettings {
    fn default() -> Self {
        Self { startup_trials: 10, candidates: 24, multivariate: true, random_share: 0.0 }
    }
}

impl TpeSettings {
    /// Of Falkner, Klein, Hutter 2018, "BOHB", section 4 and appendix: a third of the trials random, 64
    /// candidates. The model of `d` hyperparameters begins with `d + 2` results, which the sampler
    /// counts when `startup_trials` is 0.
    pub fn bohb() -> Self {
        Self { startup_trials: 0, candidates: 64, multivariate: true, random_share: 1.0 / 3.0 }
    }
}

/// A Gaussian process and expected improvement (Jones, Schonlau, Welch 1998).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpSettings {
    /// Trials with a result before anything is learned from; those before are Sobol points.
    pub startup_trials: u32,
}

impl Default for GpSettings {
    fn default() -> Self {
        Self { startup_trials: 10 }
    }
}

/// The CMA evolution strategy (Hansen 2016, "The CMA Evolution Strategy: A Tutorial").
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CmaEsSettings {
    /// Trials of a generation; absent: `4 + 3 ln d` of `d` hyperparameters.
    pub population: Option<u32>,
    /// First step size, as a share of every range.
    pub sigma: f64,
}

impl Default for CmaEsSettings {
    fn default() -> Self {
        Self { population: None, sigma: 1.0 / 6.0 }
    }
}
