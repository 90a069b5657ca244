//! Search spaces: which values a hyperparameter can take.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::assignment::Assignment;
use super::category::Category;
use super::settings::written;
use crate::elementary::Elementary;
use crate::seed::Draws;

/// One value of one hyperparameter. Whole numbers stay whole, so batch sizes never become 31.99.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterValue {
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A word.
    Category(Category),
}

impl ParameterValue {
    /// As a real number; of a word its place among all words.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(x) => x,
            Self::Category(category) => category.place(),
        }
    }

    /// The word, if it is one.
    pub fn category(self) -> Option<Category> {
        match self {
            Self::Category(category) => Some(category),
            Self::Int(_) | Self::Float(_) => None,
        }
    }
}

impl ParameterValue {
    /// The text that is read as the same value to the last bit; [`fmt::Display`] rounds for people.
    pub fn exact(self) -> String {
        match self {
            Self::Int(n) => n.to_string(),
            Self::Float(x) => written(x),
            Self::Category(category) => category.name().to_owned(),
        }
    }

    /// As JSON: whole numbers without a point, words as text.
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Self::Int(n) => n.into(),
            Self::Float(x) => x.into(),
            Self::Category(category) => category.name().into(),
        }
    }
}

impl fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => n.fmt(f),
            Self::Category(category) => category.fmt(f),
            Self::Float(x) if *x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e6) => {
                write!(f, "{x:.2e}")
            }
            Self::Float(x) => write!(f, "{}", (x * 1e6).round() / 1e6),
        }
    }
}

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
    /// One of `min`, `min + step`, `min + 2 step` and so on up to `max`, each as likely.
    Steps {
        /// Lower bound.
        min: f64,
        /// No value is larger.
        max: f64,
        /// From one value to the next.
        step: f64,
    },
    /// One of the whole numbers `min`, `min + step`, `min + 2 step` and so on up to `max`.
    IntSteps {
        /// Lower bound.
        min: i64,
        /// No value is larger.
        max: i64,
        /// From one value to the next, at least 1.
        step: i64,
        /// Spread of the draws: each value owns what lies between it and the next one.
        scale: Scale,
    },
    /// It exists only in trials where another hyperparameter has one of some values.
    When {
        /// The other one.
        name: String,
        /// Its values.
        values: Vec<ParameterValue>,
        /// What it can be then.
        domain: Box<Domain>,
    },
}

impl Domain {
    /// A value for one draw; constants consume none.
    pub fn draw(&self, draws: &mut Draws, functions: Elementary) -> ParameterValue {
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
            Self::IntSteps { min, step, scale: Scale::Linear, .. } => {
                let index = draws.below(self.num_values().unwrap_or(1));
                ParameterValue::Int(whole_stepped(*min, *step, index))
            }
            Self::Float { .. } | Self::Int { .. } | Self::Steps { .. } | Self::IntSteps { .. } => {
                self.at(draws.unit(), functions)
            }
            Self::When { domain, .. } => domain.draw(draws, functions),
        }
    }

    /// The value at a fraction of the domain, 0 to below 1: equal fractions are equally likely in a
    /// random draw.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the bounds"
    )]
    pub fn at(&self, fraction: f64, functions: Elementary) -> ParameterValue {
        match self {
            Self::Constant(value) => *value,
            Self::Values(values) => {
                let index = (fraction.max(0.0) * values.len() as f64) as usize;
                values[index.min(values.len().saturating_sub(1))]
            }
            Self::Float { min, max, scale } => {
                let value = between((*min, *max), *scale, fraction, functions);
                ParameterValue::Float(value.clamp(*min, *max))
            }
            Self::Int { min, max, scale } => {
                let bounds = (*min as f64, *max as f64 + 1.0);
                let position = between(bounds, *scale, fraction, functions);
                ParameterValue::Int((position.floor() as i64).clamp(*min, *max))
            }
            Self::Steps { min, step, .. } => {
                let count = self.num_values().unwrap_or(1).max(1);
                let index = ((fraction.max(0.0) * count as f64) as u64).min(count - 1);
                ParameterValue::Float(stepped(*min, *step, index))
            }
            Self::IntSteps { min, step, scale, .. } => {
                let last = self.num_values().unwrap_or(1).max(1) - 1;
                let end = whole_stepped(*min, *step, last) as f64 + *step as f64;
                let position = between((*min as f64, end), *scale, fraction, functions);
                let index = ((position - *min as f64) / *step as f64).max(0.0) as u64;
                ParameterValue::Int(whole_stepped(*min, *step, index.min(last)))
            }
            Self::When { domain, .. } => domain.at(fraction, functions),
        }
    }

    /// How many values there are; `None`: infinitely many.
    pub fn num_values(&self) -> Option<u64> {
        match self {
            Self::Constant(_) => Some(1),
            Self::Values(values) => Some(values.len() as u64),
            Self::Int { min, max, .. } => Some(max.abs_diff(*min).saturating_add(1)),
            Self::Float { .. } => None,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "validation keeps it positive and below a million"
            )]
            // A step that divides the range all but exactly reaches its end.
            Self::Steps { min, max, step } => Some(((max - min) / step + 1e-9) as u64 + 1),
            Self::IntSteps { min, max, step, .. } => {
                Some((max.abs_diff(*min) / step.unsigned_abs().max(1)).saturating_add(1))
            }
            Self::When { domain, .. } => domain.num_values(),
        }
    }

    /// Without its condition.
    pub fn plain(&self) -> &Self {
        match self {
            Self::When { domain, .. } => domain.plain(),
            other => other,
        }
    }

    /// The hyperparameter that it depends on, and for which of its values it exists.
    pub fn condition(&self) -> Option<(&str, &[ParameterValue])> {
        match self {
            Self::When { name, values, .. } => Some((name, values)),
            _ => None,
        }
    }

    /// The values of a grid over this domain; `None` when there are infinitely many.
    pub fn enumerate(&self) -> Option<Vec<ParameterValue>> {
        match self {
            Self::Constant(value) => Some(vec![*value]),
            Self::Values(values) => Some(values.clone()),
            Self::Int { min, max, .. } => Some((*min..=*max).map(ParameterValue::Int).collect()),
            Self::Steps { min, step, .. } => {
                let value = |index| ParameterValue::Float(stepped(*min, *step, index));
                Some((0..self.num_values()?).map(value).collect())
            }
            Self::IntSteps { min, step, .. } => {
                let value = |index| ParameterValue::Int(whole_stepped(*min, *step, index));
                Some((0..self.num_values()?).map(value).collect())
            }
            Self::Float { .. } => None,
            Self::When { domain, .. } => domain.enumerate(),
        }
    }

    /// Whether trials can differ in this hyperparameter.
    pub fn is_searched(&self) -> bool {
        !matches!(self, Self::Constant(_))
    }
}

/// A step's value, without the digits that adding up tenths leaves behind.
fn stepped(min: f64, step: f64, index: u64) -> f64 {
    let value = min + step * index as f64;
    format!("{value:.12e}").parse().unwrap_or(value)
}

/// The whole number after so many steps.
fn whole_stepped(min: i64, step: i64, index: u64) -> i64 {
    min.saturating_add(step.saturating_mul(i64::try_from(index).unwrap_or(i64::MAX)))
}

/// Whether a hyperparameter exists beside these others; conditions may follow from each other.
pub fn is_active(space: &SearchSpace, assignment: &Assignment, name: &str) -> bool {
    let mut name = name;
    // A chain is never longer than the space; validation refuses circles.
    for _ in 0..=space.len() {
        let Some((other, values)) = space.get(name).and_then(Domain::condition) else {
            return true;
        };
        let value = match (assignment.get(other), space.get(other)) {
            (Some(value), _) | (None, Some(Domain::Constant(value))) => *value,
            _ => return false,
        };
        if !values.iter().any(|wanted| wanted.as_f64().total_cmp(&value.as_f64()).is_eq()) {
            return false;
        }
        name = other;
    }
    false
}

/// Removes what does not exist beside the others.
pub fn keep_active(space: &SearchSpace, assignment: &mut Assignment) {
    if space.values().all(|domain| domain.condition().is_none()) {
        return;
    }
    let absent: Vec<String> =
        assignment.keys().filter(|name| !is_active(space, assignment, name)).cloned().collect();
    for name in absent {
        assignment.remove(&name);
    }
}

/// The points of a grid: the last name varies fastest, and what does not exist beside the others
/// makes no points of its own. Real ranges have one value.
pub fn grid_points(space: &SearchSpace) -> impl Iterator<Item = Assignment> + '_ {
    let axes: Vec<(&String, Vec<ParameterValue>)> = space
        .iter()
        .filter(|(_, domain)| domain.is_searched())
        .map(|(name, domain)| (name, domain.enumerate().unwrap_or_else(|| vec![lowest(domain)])))
        .collect();
    let size = axes.iter().map(|(_, values)| values.len()).fold(1, usize::saturating_mul);
    (0..size).filter_map(move |index| {
        let mut rest = index;
        let (mut all, mut firsts) = (Assignment::new(), Vec::new());
        for (name, values) in axes.iter().rev() {
            let place = rest % values.len().max(1);
            rest /= values.len().max(1);
            all.insert((*name).clone(), *values.get(place)?);
            firsts.push((name, place == 0));
        }
        let mut point = all;
        keep_active(space, &mut point);
        // Of the points that differ in what does not exist, the first stands for all.
        let is_first = firsts.iter().all(|(name, first)| *first || point.contains_key(name));
        is_first.then_some(point)
    })
}

/// The value that stands for a real range in a grid; a manifest with such a grid is refused.
fn lowest(domain: &Domain) -> ParameterValue {
    domain.at(0.0, Elementary::Portable)
}

fn between((min, max): (f64, f64), scale: Scale, unit: f64, functions: Elementary) -> f64 {
    match scale {
        Scale::Linear => min + (max - min) * unit,
        Scale::Log => {
            let (low, high) = (functions.ln(min), functions.ln(max));
            functions.exp(low + (high - low) * unit)
        }
    }
}

/// Domains by hyperparameter name, in the order of their names.
pub type SearchSpace = BTreeMap<String, Domain>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use proptest::prelude::*;

    const PORTABLE: Elementary = Elementary::Portable;

    proptest! {
        #[test]
        fn draws_stay_within_bounds(seed: u64, min in 1e-6f64..1.0, width in 0.0f64..10.0, log: bool) {
            let scale = if log { Scale::Log } else { Scale::Linear };
            let domain = Domain::Float { min, max: min + width, scale };
            let value = domain.draw(&mut Seed(seed).draws(), PORTABLE).as_f64();
            prop_assert!((min..=min + width).contains(&value));
        }

        #[test]
        fn exact_text_is_read_as_the_same_value(value: f64, whole: i64) {
            prop_assume!(value.is_finite());
            let text = ParameterValue::Float(value).exact();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
            prop_assert_eq!(ParameterValue::Int(whole).exact().parse::<i64>().unwrap(), whole);
        }

        #[test]
        fn whole_draws_stay_within_bounds(seed: u64, min in 1i64..100, width in 0i64..100, log: bool) {
            let scale = if log { Scale::Log } else { Scale::Linear };
            let domain = Domain::Int { min, max: min + width, scale };
            let ParameterValue::Int(value) = domain.draw(&mut Seed(seed).draws(), PORTABLE) else {
                panic!("a whole domain draws whole numbers");
            };
            prop_assert!((min..=min + width).contains(&value));
        }

        #[test]
        fn whole_draws_keep_to_their_steps(
            seed: u64, fraction in 0.0f64..1.0, min in 1i64..100, width in 2i64..1000, step in 2i64..50, log: bool,
        ) {
            let scale = if log { Scale::Log } else { Scale::Linear };
            let domain = Domain::IntSteps { min, max: min + width, step, scale };
            let values = domain.enumerate().unwrap();
            prop_assert_eq!(Some(values.len() as u64), domain.num_values());
            prop_assert!(values.iter().all(|value| value.as_f64() <= (min + width) as f64));
            prop_assert!(values.contains(&domain.draw(&mut Seed(seed).draws(), PORTABLE)));
            prop_assert!(values.contains(&domain.at(fraction, PORTABLE)));
        }
    }

    #[test]
    fn whole_steps_begin_at_their_lower_bound() {
        let domain = |scale| Domain::IntSteps { min: 8, max: 30, step: 8, scale };
        let values = [8, 16, 24].map(ParameterValue::Int);
        assert_eq!(domain(Scale::Linear).enumerate().unwrap(), values);
        let thirds = [0.1, 0.5, 0.9].map(|unit| domain(Scale::Linear).at(unit, PORTABLE));
        assert_eq!(thirds, values, "each is as likely");
        // The doubling from 8 to 16 is half of the way from 8 to 32.
        let log = [0.0, 0.49, 0.51, 0.99].map(|unit| domain(Scale::Log).at(unit, PORTABLE));
        assert_eq!(log, [8, 8, 16, 24].map(ParameterValue::Int));
    }

    #[test]
    fn steps_are_what_a_person_would_write() {
        let domain = Domain::Steps { min: 0.0, max: 0.5, step: 0.1 };
        let values: Vec<f64> =
            domain.enumerate().unwrap().into_iter().map(ParameterValue::as_f64).collect();
        assert_eq!(values, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]);
        assert_eq!(domain.at(0.999, PORTABLE), ParameterValue::Float(0.5));
        assert_eq!(Domain::Steps { min: 0.1, max: 0.5, step: 0.3 }.num_values(), Some(2));
        let mut draws = Seed(2).draws();
        assert!((0..100).all(|_| values.contains(&domain.draw(&mut draws, PORTABLE).as_f64())));
    }

    #[test]
    fn what_depends_on_others_exists_only_beside_them() {
        let choice = |values: &[i64]| {
            Domain::Values(values.iter().copied().map(ParameterValue::Int).collect())
        };
        let when = |name: &str, value| Domain::When {
            name: name.to_owned(),
            values: vec![ParameterValue::Int(value)],
            domain: Box::new(choice(&[1, 2])),
        };
        let space = SearchSpace::from([
            ("a".to_owned(), choice(&[1, 2])),
            ("b".to_owned(), when("a", 1)),
            ("c".to_owned(), when("b", 2)),
        ]);
        let kept = |a: i64, b: i64| {
            let values = [("a", a), ("b", b), ("c", 1)];
            let named = values.map(|(name, n)| (name.to_owned(), ParameterValue::Int(n)));
            let mut assignment = Assignment::from(named);
            keep_active(&space, &mut assignment);
            assignment.keys().cloned().collect::<String>()
        };
        assert_eq!([kept(1, 2), kept(1, 1), kept(2, 2)], ["abc", "ab", "a"]);
    }

    #[test]
    fn log_draws_spread_evenly_over_decades() {
        let domain = Domain::Float { min: 1e-5, max: 1e-1, scale: Scale::Log };
        let mut draws = Seed(1).draws();
        let low = (0..4000).filter(|_| domain.draw(&mut draws, PORTABLE).as_f64() < 1e-3).count();
        assert!((1800..2200).contains(&low), "{low} of 4000 in the lower two of four decades");
    }
}
