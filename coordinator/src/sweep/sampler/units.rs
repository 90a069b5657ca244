//! A search space as a unit cube, for samplers that measure distances. Lists of numbers have an order: their values,
//! and the whole numbers and steps of ranges, own equal parts of their side. Words have none: each of them is a side
//! of its own, where it is far from the others and as far from each, unless there are two.

use muster_common::elementary::Elementary;
use muster_common::manifest::{Assignment, Domain, ParameterValue, SearchSpace, keep_active};

use super::axis::Axis;
use super::searched;

/// Where a hyperparameter stands that a point does not have.
const ABSENT: f64 = 0.5;
/// Where a word stands on its own side: when it is the one, and when another is.
const CHOSEN: f64 = 0.75;
const UNCHOSEN: f64 = 0.25;

/// Sides of more points are as good as continuous.
const POINTS_MAX: usize = 64;

/// What one hyperparameter takes of the cube: a side, or several.
#[derive(Debug)]
struct Span {
    name: String,
    axis: Axis,
    /// Number of points of a side, where these are few enough to be told apart.
    num_points: Option<usize>,
    /// Sides.
    width: usize,
}

/// The cube.
#[derive(Debug)]
pub(in crate::sweep) struct Units<'a> {
    space: &'a SearchSpace,
    spans: Vec<Span>,
}

impl<'a> Units<'a> {
    pub(in crate::sweep) fn new(space: &'a SearchSpace, functions: Elementary) -> Self {
        let width = |domain: &Domain| match domain {
            Domain::Values(values) if is_of_words(values) && values.len() > 2 => values.len(),
            _ => 1,
        };
        Self::with(space, functions, width)
    }

    /// With one side for each hyperparameter, words too: for those who only cut sides into parts, as any set of words
    /// can be cut out of a list.
    pub(in crate::sweep) fn flat(space: &'a SearchSpace, functions: Elementary) -> Self {
        Self::with(space, functions, |_| 1)
    }

    fn with(
        space: &'a SearchSpace,
        functions: Elementary,
        width: impl Fn(&Domain) -> usize,
    ) -> Self {
        let span = |(name, domain): (&String, &Domain)| {
            let domain = domain.plain();
            let sorted = match domain {
                Domain::Values(values) => {
                    let mut values = values.clone();
                    values.sort_by(|a, b| a.as_f64().total_cmp(&b.as_f64()));
                    Domain::Values(values)
                }
                other => other.clone(),
            };
            let width = width(&sorted);
            let num_points = sorted.num_values().and_then(|count| usize::try_from(count).ok());
            let num_points = num_points.filter(|count| *count <= POINTS_MAX);
            let num_points = if width > 1 { Some(2) } else { num_points };
            Span { name: name.clone(), axis: Axis::of(&sorted, functions), num_points, width }
        };
        Self { space, spans: searched(space).map(span).collect() }
    }

    /// Number of sides.
    pub(super) fn len(&self) -> usize {
        self.spans.iter().map(|span| span.width).sum()
    }

    /// The hyperparameter that a side belongs to, wholly or in part.
    fn span(&self, side: usize) -> Option<&Span> {
        let mut before = 0;
        self.spans.iter().find(|span| {
            before += span.width;
            side < before
        })
    }

    /// Points of a side, if they can be told apart.
    pub(super) fn num_points(&self, side: usize) -> Option<usize> {
        self.span(side).and_then(|span| span.num_points)
    }

    /// Whether a side is that of one word: at its end that word is the one, whatever the others' sides say.
    pub(super) fn is_word(&self, side: usize) -> bool {
        self.span(side).is_some_and(|span| span.width > 1)
    }

    /// Where an assignment lies; `None`: it is none of this space.
    pub(in crate::sweep) fn position(&self, assignment: &Assignment) -> Option<Vec<f64>> {
        let mut point = Vec::with_capacity(self.len());
        for span in &self.spans {
            if let Some(value) = assignment.get(&span.name) {
                point.extend(span.places(*value)?);
            } else {
                self.space.get(&span.name)?.condition()?;
                point.extend(std::iter::repeat_n(ABSENT, span.width));
            }
        }
        Some(point)
    }

    /// The assignment nearest to a point.
    pub(super) fn assignment(&self, point: &[f64]) -> Assignment {
        let mut rest = point;
        let mut assignment = Assignment::new();
        for span in &self.spans {
            let (places, others) = rest.split_at(span.width.min(rest.len()));
            rest = others;
            assignment.insert(span.name.clone(), span.value(places));
        }
        keep_active(self.space, &mut assignment);
        assignment
    }

    /// The point that the nearest assignment lies at.
    pub(super) fn snap(&self, point: &mut [f64]) {
        let assignment = self.assignment(point);
        let mut places = point.iter_mut();
        for span in &self.spans {
            let found = assignment.get(&span.name).and_then(|value| span.places(*value));
            let found = found.unwrap_or_else(|| vec![ABSENT; span.width]);
            for (found, place) in found.into_iter().zip(places.by_ref()) {
                *place = found;
            }
        }
    }
}

fn is_of_words(values: &[ParameterValue]) -> bool {
    values.iter().all(|value| value.category().is_some())
}

impl Span {
    fn places(&self, value: ParameterValue) -> Option<Vec<f64>> {
        let position = self.axis.position(value)?;
        Some(match &self.axis {
            Axis::Interval { low, high, .. } => vec![(position - low) / (high - low)],
            Axis::Choice { values } if self.width > 1 => {
                let is_chosen = |other: &ParameterValue| *other == value;
                let place = |other| if is_chosen(other) { CHOSEN } else { UNCHOSEN };
                values.iter().map(place).collect()
            }
            Axis::Choice { values } => vec![(position + 0.5) / values.len().max(1) as f64],
        })
    }

    fn value(&self, places: &[f64]) -> ParameterValue {
        let place = places.first().copied().unwrap_or(ABSENT);
        match &self.axis {
            Axis::Interval { low, high, .. } => self.axis.value(low + (high - low) * place),
            Axis::Choice { .. } if self.width > 1 => {
                let first_of_largest = |best: usize, at: usize| {
                    if places[at] > places[best] { at } else { best }
                };
                self.axis.value((0..places.len()).fold(0, first_of_largest) as f64)
            }
            Axis::Choice { values } => self.axis.value(place * values.len() as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::{Category, Scale};

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

    #[test]
    fn words_are_as_far_from_each_other() {
        let words = |words: &[Category]| {
            Domain::Values(words.iter().copied().map(ParameterValue::Category).collect())
        };
        let all = [Category::Linear, Category::Cosine, Category::Constant, Category::Polynomial];
        let space = SearchSpace::from([
            ("a".to_owned(), Domain::Float { min: 0.0, max: 1.0, scale: Scale::Linear }),
            ("b".to_owned(), words(&all)),
            ("c".to_owned(), words(&[Category::Float32, Category::Bfloat16])),
        ]);
        let units = Units::new(&space, Elementary::Portable);
        assert_eq!(units.len(), 1 + 4 + 1);
        let is_word: Vec<bool> = (0..units.len()).map(|side| units.is_word(side)).collect();
        assert_eq!(is_word, [false, true, true, true, true, false]);
        let num_points: Vec<Option<usize>> =
            (0..units.len()).map(|side| units.num_points(side)).collect();
        assert_eq!(num_points, [None, Some(2), Some(2), Some(2), Some(2), Some(2)]);
        let at = |word: Category| {
            Assignment::from([
                ("a".to_owned(), ParameterValue::Float(0.5)),
                ("b".to_owned(), ParameterValue::Category(word)),
                ("c".to_owned(), ParameterValue::Category(Category::Bfloat16)),
            ])
        };
        let points = all.map(|word| units.position(&at(word)).unwrap());
        for (index, point) in points.iter().enumerate() {
            assert_eq!(units.assignment(point), at(all[index]));
            for other in points.iter().skip(index + 1) {
                let squares = point.iter().zip(other).map(|(a, b)| (a - b) * (a - b));
                assert!((squares.sum::<f64>() - 0.5).abs() < 1e-12);
            }
            // At the end of its side a word is the one.
            for (side, word) in all.iter().enumerate() {
                let mut moved = point.clone();
                moved[1 + side] = 1.0;
                units.snap(&mut moved);
                assert_eq!(units.assignment(&moved), at(*word));
                assert_eq!(moved, points[side]);
            }
        }
        let flat = Units::flat(&space, Elementary::Portable);
        assert_eq!(flat.position(&at(Category::Cosine)).unwrap(), [0.5, 0.375, 0.75]);
    }
}
