//! Training budgets: steps, examples or epochs, always convertible to steps of one trial.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::count::counted;

/// How much training; compared only between values of the same unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Optimizer updates.
    Steps(u64),
    /// Training examples seen, counted with repetition.
    Examples(u64),
    /// Passes over the training split; fractions are allowed.
    Epochs(f64),
}

impl Budget {
    /// The unit's name in manifests.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Steps(_) => "steps",
            Self::Examples(_) => "examples",
            Self::Epochs(_) => "epochs",
        }
    }

    /// The amount in its unit.
    pub fn amount(self) -> f64 {
        match self {
            Self::Steps(n) | Self::Examples(n) => n as f64,
            Self::Epochs(epochs) => epochs,
        }
    }

    /// The same unit with another amount; whole units round up.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "budgets are positive and far below 2^53"
    )]
    pub fn with_amount(self, amount: f64) -> Self {
        match self {
            Self::Steps(_) => Self::Steps(amount.ceil() as u64),
            Self::Examples(_) => Self::Examples(amount.ceil() as u64),
            Self::Epochs(_) => Self::Epochs(amount),
        }
    }

    /// Optimizer updates for a trial with `global_batch` examples per step on a training split of
    /// `num_train` examples; at least one. The last, partial batch of an epoch is a step too.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "budgets are positive and far below 2^53"
    )]
    pub fn steps(self, global_batch: u64, num_train: u64) -> u64 {
        let global_batch = global_batch.max(1);
        let steps_per_epoch = num_train.div_ceil(global_batch).max(1);
        let steps = match self {
            Self::Steps(steps) => steps,
            Self::Examples(examples) if num_train == 0 => examples.div_ceil(global_batch),
            Self::Examples(examples) => {
                let rest = examples % num_train;
                (examples / num_train) * steps_per_epoch + rest.div_ceil(global_batch)
            }
            Self::Epochs(epochs) => (epochs * steps_per_epoch as f64).ceil() as u64,
        };
        steps.max(1)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::Steps(amount) => counted(amount, "step"),
            Self::Examples(amount) => counted(amount, "example"),
            // 0.1 times 3 is 0.3 for people; a millionth is the smallest budget there is.
            Self::Epochs(amount) => counted((amount * 1e6).round() / 1e6, "epoch"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_epochs_are_shown_as_they_were_written() {
        assert_eq!(Budget::Epochs(1.0).to_string(), "1 epoch");
        assert_eq!(Budget::Steps(1).to_string(), "1 step");
        assert_eq!(Budget::Epochs(0.1 * 3.0).to_string(), "0.3 epochs");
        assert_eq!(Budget::Epochs(1e-6).to_string(), "0.000001 epochs");
        assert_eq!(Budget::Examples(999_999_999_999).to_string(), "999999999999 examples");
    }

    #[test]
    fn an_epoch_is_every_example_once_with_its_partial_batch() {
        assert_eq!(Budget::Epochs(1.0).steps(32, 100), 4);
        assert_eq!(Budget::Examples(100).steps(32, 100), 4);
        assert_eq!(Budget::Examples(200).steps(32, 100), 8);
        assert_eq!(Budget::Examples(132).steps(32, 100), 5);
        assert_eq!(Budget::Steps(7).steps(32, 100), 7);
        assert_eq!(Budget::Epochs(0.001).steps(32, 100), 1);
    }
}
