//! A search space as a unit cube, for samplers that measure distances. Lists are numbers and so have an
//! order: their values, and the whole numbers and steps of ranges, own equal parts of their side.

use muster_common::elementary::Elementary;
use muster_common::manifest::{Assignment, Domain, ParameterValue, SearchSpace, keep_active};

use super::axis::Axis;
use super::searched;

/// Where a hyperparameter stands that a point does not have.
const ABSENT: f64 = 0.5;

/// Sides of more points are as good as continuous.
const POINTS_MAX: usize = 64;

/// One side of the cube.
#[derive(Debug)]
struct Side {
    name: String,
    axis: Axis,
    /// Number of points, where these are few enough to be told apart.
    num_points: Option<usize>,
}

/// The cube.
#[derive(Debug)]
pub(in crate::sweep) struct Units<'a> {
    space: &'a SearchSpace,
    sides: Vec<Side>,
}

impl<'a> Units<'a> {
    pub(in crate::sweep) fn new(space: &'a SearchSpace, functions: Elementary) -> Self {
        let side = |(name, domain): (&String, &Domain)| {
            let domain = domain.plain();
            let sorted = match domain {
                Domain::Values(values) => {
                    let mut values = values.clone();
                    values.sort_by(|a, b| a.as_f64().total_cmp(&b.as_f64()));
                    Domain::Values(values)
                }
                other => other.clone(),
            };
            let num_points = sorted.num_values().and_then(|count| usize::try_from(count).ok());
            let num_points = num_points.filter(|count| *count <= POINTS_MAX);
            Side { name: name.clone(), axis: Axis::of(&sorted, functions), num_points }
        };
        Self { space, sides: searched(space).map(side).collect() }
    }

    /// Number of sides.
    pub(super) fn len(&self) -> usize {
        self.sides.len()
    }

    /// Points of a side, if they can be told apart.
    pub(super) fn num_points(&self, side: usize) -> Option<usize> {
        self.sides.get(side).and_then(|side| side.num_points)
    }

    /// Where an assignment lies; `None`: it is none of this space.
    pub(in crate::sweep) fn position(&self, assignment: &Assignment) -> Option<Vec<f64>> {
        let place = |side: &Side| match assignment.get(&side.name) {
            None => self.space.get(&side.name)?.condition().map(|_| ABSENT),
            Some(value) => side.place(*value),
        };
        self.sides.iter().map(place).collect()
    }

    /// The assignment nearest to a point.
    pub(super) fn assignment(&self, point: &[f64]) -> Assignment {
        let value = |(side, place): (&Side, &f64)| (side.name.clone(), side.value(*place));
        let mut assignment = self.sides.iter().zip(point).map(value).collect();
        keep_active(self.space, &mut assignment);
        assignment
    }

    /// The point that the nearest assignment lies at.
    pub(super) fn snap(&self, point: &mut [f64]) {
        let assignment = self.assignment(point);
        for (side, place) in self.sides.iter().zip(point) {
            let found = assignment.get(&side.name).and_then(|value| side.place(*value));
            *place = found.unwrap_or(ABSENT);
        }
    }
}

impl Side {
    fn place(&self, value: ParameterValue) -> Option<f64> {
        let position = self.axis.position(value)?;
        Some(match &self.axis {
            Axis::Interval { low, high, .. } => (position - low) / (high - low),
            Axis::Choice { values } => (position + 0.5) / values.len().max(1) as f64,
        })
    }

    fn value(&self, place: f64) -> ParameterValue {
        match &self.axis {
            Axis::Interval { low, high, .. } => self.axis.value(low + (high - low) * place),
            Axis::Choice { values } => self.axis.value(place * values.len() as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::Scale;

    #[test]
    fn points_snap_to_what_can_be_tried() {
        let values = Domain::Values([32, 8, 16].map(ParameterValue::Int).to_vec());
        let steps = Domain::Steps { min: 0.0, max: 0.5, step: 0.1 };
        let space = SearchSpace::from([
            ("a".to_owned(), values),
            ("b".to_owned(), Domain::Float { min: 1e-4, max: 1e-2, scale: Scale::Log }),
            ("c".to_owned(), Domain::Int { min: 1, max: 4, scale: Scale::Linear }),
            ("d".to_owned(), steps),
        ]);
        let units = Units::new(&space, Elementary::Portable);
        let mut point = vec![0.1, 0.25, 0.99, 0.5];
        units.snap(&mut point);
        let expected = [1.0 / 6.0, 0.25, 0.875, 0.583];
        for (found, expected) in point.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-3, "{point:?}");
        }
        let assignment = units.assignment(&point);
        assert_eq!(assignment["a"], ParameterValue::Int(8), "the smallest comes first");
        assert_eq!(assignment["c"], ParameterValue::Int(4));
        assert_eq!(assignment["d"], ParameterValue::Float(0.3));
        assert_eq!(
            (units.num_points(0), units.num_points(1), units.num_points(3)),
            (Some(3), None, Some(6))
        );
        let back = units.position(&assignment).unwrap();
        assert!(back.iter().zip(&point).all(|(a, b)| (a - b).abs() < 1e-9));
        assert_eq!(units.position(&Assignment::new()), None);
    }
}
