//! The one place where the importance of hyperparameters is asked for.

use muster_common::manifest::{Assignment, SearchSpace};
use muster_common::seed::Seed;

/// A hyperparameter's share of the variance of the objective, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
#[expect(dead_code, reason = "nothing of this build makes one")]
pub(super) struct Share {
    pub(super) name: String,
    pub(super) share: f64,
}

/// Shares of all searched hyperparameters; `None`: this build has nothing that computes them.
pub(super) fn importance(
    _space: &SearchSpace,
    _observations: &[(Assignment, f64)],
    _seed: Seed,
) -> Option<Vec<Share>> {
    None
}
