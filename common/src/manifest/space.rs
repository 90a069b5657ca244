//! Search spaces: which values a hyperparameter can take.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::seed::Draws;

/// One value of one hyperparameter. Whole numbers stay whole, so batch sizes never become 31.99.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterValue {
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
}

impl ParameterValue {
    /// As a real number.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(x) => x,
        }
    }
}

impl fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => n.fmt(f),
            Self::Float(x) if *x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e6) => {
                write!(f, "{x:.2e}")
            }
            Self::Float(x) => write!(f, "{}", (x * 1e6).round() / 1e6),
        }
    }
}

/// One value for every searched hyperparameter of a trial, by name.
pub type Assignment = BTreeMap<String, ParameterValue>;

/// How draws between two bounds are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Uniform in the value.
    Linear,
    /// Uniform in the logarithm of the value.
    Log,
}

/// What one hyperparameter can be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Always this.
    Constant(ParameterValue),
    /// One of these, each as likely.
    Values(Vec<ParameterValue>),
    /// A real number in `min..=max`.
    Float {
        /// Lower bound, as the user wrote it (never its logarithm).
        min: f64,
        /// Upper bound, inclusive.
        max: f64,
        /// Spread of the draws.
        scale: Scale,
    },
    /// A whole number in `min..=max`.
    Int {
        /// Lower bound.
        min: i64,
        /// Upper bound, inclusive.
        max: i64,
        /// Spread of the draws.
        scale: Scale,
    },
}

impl Domain {
    /// A value for one draw; constants consume none.
    pub fn draw(&self, draws: &mut Draws) -> ParameterValue {
        match self {
            Self::Constant(value) => *value,
            // Exact even where a fraction of 53 bits could not tell all values apart.
            Self::Values(values) => {
                let index = usize::try_from(draws.below(values.len() as u64)).unwrap_or(0);
                values[index]
            }
            Self::Int { min, max, scale: Scale::Linear } => {
                let span = max.abs_diff(*min).saturating_add(1);
                let offset = i64::try_from(draws.below(span)).unwrap_or(0);
                ParameterValue::Int(min.saturating_add(offset))
            }
            Self::Float { .. } | Self::Int { .. } => self.at(draws.unit()),
        }
    }

    /// The value at a fraction of the domain, 0 to below 1: equal fractions are equally likely in a
    /// random draw.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the bounds"
    )]
    pub fn at(&self, fraction: f64) -> ParameterValue {
        match self {
            Self::Constant(value) => *value,
            Self::Values(values) => {
                let index = (fraction.max(0.0) * values.len() as f64) as usize;
                values[index.min(values.len().saturating_sub(1))]
            }
            Self::Float { min, max, scale } => {
                ParameterValue::Float(between(*min, *max, *scale, fraction).clamp(*min, *max))
            }
            Self::Int { min, max, scale } => {
                let position = between(*min as f64, *max as f64 + 1.0, *scale, fraction);
                ParameterValue::Int((position.floor() as i64).clamp(*min, *max))
            }
        }
    }

    /// The values of a grid over this domain; `None` when there are infinitely many.
    pub fn enumerate(&self) -> Option<Vec<ParameterValue>> {
        match self {
            Self::Constant(value) => Some(vec![*value]),
            Self::Values(values) => Some(values.clone()),
            Self::Int { min, max, .. } => Some((*min..=*max).map(ParameterValue::Int).collect()),
            Self::Float { .. } => None,
        }
    }

    /// Whether trials can differ in this hyperparameter.
    pub fn is_searched(&self) -> bool {
        !matches!(self, Self::Constant(_))
    }
}

fn between(min: f64, max: f64, scale: Scale, unit: f64) -> f64 {
    match scale {
        Scale::Linear => min + (max - min) * unit,
        Scale::Log => (min.ln() + (max.ln() - min.ln()) * unit).exp(),
    }
}

/// Domains by hyperparameter name, in the order of their names.
pub type SearchSpace = BTreeMap<String, Domain>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn draws_stay_within_bounds(seed: u64, min in 1e-6f64..1.0, width in 0.0f64..10.0, log: bool) {
            let scale = if log { Scale::Log } else { Scale::Linear };
            let domain = Domain::Float { min, max: min + width, scale };
            let value = domain.draw(&mut Seed(seed).draws()).as_f64();
            prop_assert!((min..=min + width).contains(&value));
        }

        #[test]
        fn whole_draws_stay_within_bounds(seed: u64, min in 1i64..100, width in 0i64..100, log: bool) {
            let scale = if log { Scale::Log } else { Scale::Linear };
            let domain = Domain::Int { min, max: min + width, scale };
            let ParameterValue::Int(value) = domain.draw(&mut Seed(seed).draws()) else {
                panic!("a whole domain draws whole numbers");
            };
            prop_assert!((min..=min + width).contains(&value));
        }
    }

    #[test]
    fn log_draws_spread_evenly_over_decades() {
        let domain = Domain::Float { min: 1e-5, max: 1e-1, scale: Scale::Log };
        let mut draws = Seed(1).draws();
        let low = (0..4000).filter(|_| domain.draw(&mut draws).as_f64() < 1e-3).count();
        assert!((1800..2200).contains(&low), "{low} of 4000 in the lower two of four decades");
    }
}
