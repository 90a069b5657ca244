//! What is legal but rarely meant.

use super::validate::domain_bounds;
use super::{Manifest, TrialSettings};
use crate::manifest::Assignment;

/// A warmup over a larger share of the budget is rarely meant.
const WARMUP_SHARE_MAX: f64 = 0.2;

impl TrialSettings {
    /// Steps of a budget of `total_steps` with a rising learning rate, all of them at most.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the ratio lies between 0 and 1 and steps are far below 2^53"
    )]
    pub fn warmup(&self, total_steps: u64) -> u64 {
        let steps = match self.warmup_steps {
            0 => (self.warmup_ratio * total_steps as f64).ceil() as u64,
            steps => steps,
        };
        steps.min(total_steps)
    }
}

impl Manifest {
    /// One line for each thing that is legal but rarely meant. `num_train` is the number of training
    /// examples where it is known; without it, budgets in epochs cannot be looked at.
    pub fn warnings(&self, num_train: Option<u64>) -> Vec<String> {
        self.long_warmup(num_train).into_iter().collect()
    }

    fn long_warmup(&self, num_train: Option<u64>) -> Option<String> {
        let limit = WARMUP_SHARE_MAX * 100.0;
        let (_, batch) = domain_bounds(self, "global_batch_size");
        let (least, most) = domain_bounds(self, "warmup_steps");
        let (_, ratio) = domain_bounds(self, "warmup_ratio");
        if least < 1.0 && ratio > WARMUP_SHARE_MAX {
            let percent = ratio * 100.0;
            return Some(format!(
                "warmup_ratio goes up to {percent:.0} % of the budget; over {limit:.0} % is rarely meant"
            ));
        }
        if most < 1.0 || (num_train.is_none() && matches!(self.budget, super::Budget::Epochs(_))) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "validation keeps batches within 1 to 65536"
        )]
        let total = self.budget.steps(batch as u64, num_train.unwrap_or(0));
        (most > WARMUP_SHARE_MAX * total as f64).then(|| {
            format!(
                "warmup_steps goes up to {most} of {total} steps; over {limit:.0} % of the budget is rarely meant"
            )
        })
    }

    /// As [`Manifest::warnings`], for the trial with this assignment and `total_steps`.
    pub fn trial_warnings(&self, assignment: &Assignment, total_steps: u64) -> Vec<String> {
        let settings = TrialSettings::resolve(&self.hyperparameters, assignment);
        let warmup = settings.warmup(total_steps);
        let long = warmup as f64 > WARMUP_SHARE_MAX * total_steps as f64 && warmup > 1;
        let limit = WARMUP_SHARE_MAX * 100.0;
        let text = || {
            format!(
                "{warmup} of {total_steps} steps are warmup; over {limit:.0} % of the budget is rarely meant"
            )
        };
        long.then(text).into_iter().collect()
    }
}
