//! A hyperparameter's domain as numbers that densities can be laid over.

use muster_common::elementary::Elementary;
use muster_common::manifest::{Domain, ParameterValue, Scale};

/// One searched hyperparameter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Axis {
    /// An interval, in the logarithm where the scale is one; whole numbers own half a unit on both
    /// sides, and steps half of one.
    Interval { low: f64, high: f64, bending: Bending, bounds: (f64, f64), lattice: Lattice },
    /// So many unordered choices.
    Choice { values: Vec<ParameterValue> },
}

/// From values to coordinates and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bending {
    scale: Scale,
    functions: Elementary,
}

/// Which values of an interval can be tried.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Lattice {
    /// All.
    None,
    /// Whole numbers.
    Whole,
    /// These, at equal distances.
    Steps { step: f64, values: Vec<ParameterValue> },
}

impl Axis {
    pub(super) fn of(domain: &Domain, functions: Elementary) -> Self {
        let interval = |min: f64, max: f64, half: f64, scale: Scale, lattice: Lattice| {
            let bending = Bending { scale, functions };
            let (low, high) = (bending.forward(min - half), bending.forward(max + half));
            Self::Interval { low, high, bending, bounds: (min, max), lattice }
        };
        match domain {
            Domain::Constant(value) => Self::Choice { values: vec![*value] },
            Domain::Values(values) => Self::Choice { values: values.clone() },
            Domain::Float { min, max, scale } => interval(*min, *max, 0.0, *scale, Lattice::None),
            Domain::Int { min, max, scale } => {
                interval(*min as f64, *max as f64, 0.5, *scale, Lattice::Whole)
            }
            Domain::Steps { min, step, .. } => {
                let values = domain.enumerate().unwrap_or_default();
                let max = values.last().map_or(*min, |value| value.as_f64());
                let lattice = Lattice::Steps { step: *step, values };
                interval(*min, max, 0.5 * step, Scale::Linear, lattice)
            }
            Domain::IntSteps { min, step, scale, .. } => {
                let values = domain.enumerate().unwrap_or_default();
                let (min, step) = (*min as f64, *step as f64);
                let max = values.last().map_or(min, |value| value.as_f64());
                let half = 0.5 * step;
                // Half a step below may not be above zero: then as far below as above in the logarithm.
                let lowest = match scale {
                    Scale::Linear => min - half,
                    Scale::Log => min * min / (min + half),
                };
                let bending = Bending { scale: *scale, functions };
                let (low, high) = (bending.forward(lowest), bending.forward(max + half));
                let lattice = Lattice::Steps { step, values };
                Self::Interval { low, high, bending, bounds: (min, max), lattice }
            }
            Domain::When { domain, .. } => Self::of(domain, functions),
        }
    }

    /// Position of a value: its coordinate, or the index of its choice. `None`: it is none of the
    /// axis, as in a trial from an earlier space.
    pub(super) fn position(&self, value: ParameterValue) -> Option<f64> {
        match self {
            Self::Interval { low, high, bending, .. } => {
                let position = bending.forward(value.as_f64());
                (*low..=*high).contains(&position).then_some(position)
            }
            Self::Choice { values } => {
                values.iter().position(|other| *other == value).map(|index| index as f64)
            }
        }
    }

    /// The value at a position, whole where the hyperparameter is.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positions of choices are small, those of whole numbers are clamped"
    )]
    pub(super) fn value(&self, position: f64) -> ParameterValue {
        match self {
            Self::Interval { bending, bounds: (min, max), lattice, .. } => {
                let value = bending.back(position).clamp(*min, *max);
                match lattice {
                    Lattice::None => ParameterValue::Float(value),
                    Lattice::Whole => ParameterValue::Int(value.round().clamp(*min, *max) as i64),
                    Lattice::Steps { step, values } => {
                        let index = ((value - min) / step).round().max(0.0) as usize;
                        let index = index.min(values.len().saturating_sub(1));
                        values.get(index).copied().unwrap_or(ParameterValue::Float(value))
                    }
                }
            }
            Self::Choice { values } => {
                let index = (position.max(0.0) as usize).min(values.len().saturating_sub(1));
                values.get(index).copied().unwrap_or(ParameterValue::Int(0))
            }
        }
    }
}

impl Bending {
    fn forward(self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => self.functions.ln(value),
        }
    }

    fn back(self, position: f64) -> f64 {
        match self.scale {
            Scale::Linear => position,
            Scale::Log => self.functions.exp(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_steps_come_back() {
        for (min, scale) in [(1, Scale::Linear), (1, Scale::Log), (64, Scale::Log)] {
            let domain = Domain::IntSteps { min, max: min + 100, step: 16, scale };
            let axis = Axis::of(&domain, Elementary::Portable);
            let Axis::Interval { low, high, .. } = &axis else { panic!("a range is an interval") };
            assert!(low.is_finite() && low < high, "{low} to {high}");
            let values = domain.enumerate().unwrap();
            assert_eq!(values.len(), 7);
            for value in &values {
                assert_eq!(axis.value(axis.position(*value).unwrap()), *value);
            }
            for place in 0..=100 {
                let found = axis.value(low + (high - low) * f64::from(place) / 100.0);
                assert!(values.contains(&found), "{found}");
            }
            assert_eq!((axis.value(*low), axis.value(*high)), (values[0], values[6]));
        }
    }

    #[test]
    fn values_come_back() {
        let (ints, floats) = (
            Domain::Int { min: 1, max: 64, scale: Scale::Log },
            Domain::Float { min: 1e-5, max: 1e-3, scale: Scale::Log },
        );
        let axis = Axis::of(&ints, Elementary::Portable);
        for value in [1, 2, 31, 64].map(ParameterValue::Int) {
            assert_eq!(axis.value(axis.position(value).unwrap()), value);
        }
        let axis = Axis::of(&floats, Elementary::Portable);
        for value in [1e-5, 3e-4, 1e-3] {
            let back = axis.value(axis.position(ParameterValue::Float(value)).unwrap()).as_f64();
            assert!((back / value - 1.0).abs() < 1e-12);
        }
        assert_eq!(axis.position(ParameterValue::Float(2e-3)), None);
        let choices = Domain::Values([8, 16].map(ParameterValue::Int).to_vec());
        let axis = Axis::of(&choices, Elementary::Portable);
        assert_eq!(axis.position(ParameterValue::Int(16)), Some(1.0));
        assert_eq!(axis.value(1.0), ParameterValue::Int(16));
        assert_eq!(axis.position(ParameterValue::Int(9)), None);
    }
}
