//! Names of metrics and their units.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::MetricError;
use crate::objective::ObjectiveMetric;

/// Longest metric name accepted, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// Name of a metric. Those the trainer writes are constants here; readers accept any legal name,
/// so that old builds read the files of new ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MetricName(Cow<'static, str>);

macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $text:literal, $unit:literal;)*) => {
        impl MetricName {
            $($(#[$doc])* pub const $constant: Self = Self(Cow::Borrowed($text));)*

            /// The names that the trainer writes of steps and processes, each with its unit.
            pub const KNOWN: &[(Self, &'static str)] = &[$((Self::$constant, $unit)),*];
        }
    };
}

names! {
    /// Mean cross-entropy of a step's examples, dropout on; nats.
    TRAIN_LOSS = "train_loss", "nats";
    /// Learning rate of a step, as the schedule has it.
    LEARNING_RATE = "learning_rate", "1";
    /// Norm of all gradients of a step before clipping.
    GRAD_NORM = "grad_norm", "1";
    /// Training examples per second over the last steps.
    EXAMPLES_PER_SECOND = "examples_per_second", "examples/s";
    /// Real tokens per second over the last steps; padding does not count.
    TOKENS_PER_SECOND = "tokens_per_second", "tokens/s";
    /// Of the rows that the last steps computed, how many were no tokens, 0 to 1.
    PADDING_SHARE = "padding_share", "1";
    /// Processor time of the rank's process over the time that passed; 2 is two cores at work.
    CPU_SHARE = "cpu_share", "1";
    /// Memory of the rank's process that is in RAM.
    MEMORY_BYTES = "memory_bytes", "bytes";
    /// Share of the last moments in which the rank's GPU computed, 0 to 1, as the driver samples it.
    GPU_SHARE = "gpu_share", "1";
    /// Memory in use on the rank's GPU, whoever uses it.
    GPU_MEMORY_BYTES = "gpu_memory_bytes", "bytes";
    /// Accuracy on the validation split, 0 to 1.
    VALIDATION_ACCURACY = "validation_accuracy", "1";
    /// Macro-averaged F1 on the validation split, 0 to 1.
    VALIDATION_MACRO_F1 = "validation_macro_f1", "1";
    /// Mean cross-entropy on the validation split, nats.
    VALIDATION_LOSS = "validation_loss", "nats";
}

/// What metrics of the validation split begin with.
const VALIDATION: &str = "validation_";

/// What the learning rate of a group of parameters is called: this and the number of the group.
const LEARNING_RATE_OF_GROUP: &str = "learning_rate_group_";

impl MetricName {
    /// What is recorded for a metric of the validation split: `validation_` and its name.
    pub fn validation(metric: ObjectiveMetric) -> Self {
        Self(Cow::Owned(format!("{VALIDATION}{}", metric.name())))
    }

    /// Learning rate of the parameters that lie `places` below the head, where they have one of
    /// their own; 0 is the head.
    pub fn learning_rate_of_group(places: usize) -> Self {
        Self(Cow::Owned(format!("{LEARNING_RATE_OF_GROUP}{places}")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the values count: `nats`, `examples/s`, `tokens/s`, `bytes`, or `1` for numbers without a
    /// unit, shares of 0 to 1 among them; empty for a name that this build does not know.
    pub fn unit(&self) -> &'static str {
        if let Some((_, unit)) = Self::KNOWN.iter().find(|(name, _)| name == self) {
            return unit;
        }
        match self.0.strip_prefix(VALIDATION) {
            Some("masked_loss") => "nats",
            Some("mean_absolute_error") => "classes",
            Some(_) => "1",
            None if self.0.starts_with(LEARNING_RATE_OF_GROUP) => "1",
            None => "",
        }
    }
}

impl TryFrom<String> for MetricName {
    type Error = MetricError;
    fn try_from(text: String) -> Result<Self, MetricError> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        if first && text.len() <= NAME_BYTES_MAX && text.chars().all(legal) {
            Ok(Self(Cow::Owned(text)))
        } else {
            Err(MetricError::Name { text })
        }
    }
}

impl FromStr for MetricName {
    type Err = MetricError;
    fn from_str(text: &str) -> Result<Self, MetricError> {
        match Self::KNOWN.iter().find(|(name, _)| name.as_str() == text) {
            Some((name, _)) => Ok(name.clone()),
            None => Self::try_from(text.to_owned()),
        }
    }
}

impl From<MetricName> for String {
    fn from(name: MetricName) -> String {
        name.0.into_owned()
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
