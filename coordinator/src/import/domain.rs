//! A foreign domain of a hyperparameter, in Muster's terms.

use muster_common::manifest::{HyperparameterKind, HyperparameterSpec};

use super::names;
use super::reader::Place;

/// What a hyperparameter may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Domain {
    Constant(f64),
    Values(Vec<f64>),
    /// Words, as the file has them; one: it is always this.
    Words(Vec<String>),
    Range {
        min: f64,
        max: f64,
        is_log: bool,
        step: Option<f64>,
    },
}

impl Domain {
    /// A number or a word; the reason when it is neither.
    pub(super) fn of_scalar(place: &Place<'_>) -> Result<Self, String> {
        if let Some(number) = place.number() {
            return Ok(Self::Constant(number));
        }
        let word = place.text().ok_or("its value is not a number")?;
        Ok(Self::Words(vec![word.to_owned()]))
    }

    /// A list of numbers or words; the reason when one is neither.
    pub(super) fn of_list(place: &Place<'_>) -> Result<Self, String> {
        let items = place.items();
        let numbers: Option<Vec<f64>> = items.iter().map(Place::number).collect();
        let Some(mut numbers) = numbers else {
            let words: Option<Vec<&str>> = items.iter().map(Place::text).collect();
            let mut found: Vec<String> = Vec::new();
            for word in words.ok_or("its values are not numbers")? {
                if !found.iter().any(|other| other == word) {
                    found.push(word.to_owned());
                }
            }
            return Ok(Self::Words(found));
        };
        let mut seen: Vec<u64> = Vec::new();
        numbers.retain(|number| {
            let is_new = !seen.contains(&number.to_bits());
            seen.push(number.to_bits());
            is_new
        });
        match numbers.as_slice() {
            [] => Err("it has no values".to_owned()),
            [one] => Ok(Self::Constant(*one)),
            _ => Ok(Self::Values(numbers)),
        }
    }

    pub(super) fn range(min: f64, max: f64, is_log: bool, step: Option<f64>) -> Self {
        if min.to_bits() == max.to_bits() {
            return Self::Constant(min);
        }
        Self::Range { min, max, is_log, step }
    }

    /// The multiples of `step` that numbers from `min` to `max` are rounded to. A half at an end is rounded
    /// inwards: as good as nothing is drawn there.
    pub(super) fn multiples(min: f64, max: f64, is_log: bool, step: f64) -> Result<Self, String> {
        if step <= 0.0 {
            return Err(format!("steps of {} do not fit its range", shown(step)));
        }
        // What is added to 0 has no sign.
        let multiple = |count: f64| count * step + 0.0;
        let (low, high) =
            (multiple((min / step + 0.5).floor()), multiple((max / step - 0.5).ceil()));
        if min <= max && high < low {
            return Ok(Self::Constant(high));
        }
        Ok(Self::range(low, high, is_log, Some(step)))
    }

    /// So many values with equal distances, of exponents where the scale is logarithmic.
    pub(super) fn spread(self, count: u64) -> Self {
        let Self::Range { min, max, is_log, .. } = self else { return self };
        // More than anybody tries; a grid has its own limit.
        if !(2..=1000).contains(&count) {
            return self;
        }
        let (low, high) = if is_log { (min.ln(), max.ln()) } else { (min, max) };
        let at = |index: u64| {
            let value = low + (high - low) * index as f64 / (count - 1) as f64;
            if is_log { value.exp() } else { value }
        };
        Self::Values((0..count).map(at).collect())
    }

    /// The largest value; of words none.
    pub(super) fn max(&self) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Values(values) => values.iter().copied().fold(f64::MIN, f64::max),
            Self::Words(_) => f64::NAN,
            Self::Range { max, .. } => *max,
        }
    }

    /// The smallest value; of words none.
    pub(super) fn min(&self) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Values(values) => values.iter().copied().fold(f64::MAX, f64::min),
            Self::Words(_) => f64::NAN,
            Self::Range { min, .. } => *min,
        }
    }

    /// How many values a grid would try; of a continuous range, those of a whole-number one.
    pub(super) fn num_points(&self) -> f64 {
        match self {
            Self::Constant(_) => 1.0,
            Self::Values(values) => values.len() as f64,
            Self::Words(words) => words.len() as f64,
            Self::Range { min, max, step, .. } => (max - min) / step.unwrap_or(1.0) + 1.0,
        }
    }

    pub(super) fn is_searched(&self) -> bool {
        match self {
            Self::Constant(_) => false,
            Self::Words(words) => words.len() > 1,
            Self::Values(_) | Self::Range { .. } => true,
        }
    }

    /// Whether a grid cannot list its points.
    pub(super) fn is_continuous(&self, spec: &HyperparameterSpec) -> bool {
        matches!(self, Self::Range { step: None, .. }) && spec.kind == HyperparameterKind::Float
    }

    /// What the file has, read as words; a range has none.
    fn words(&self) -> Vec<String> {
        match self {
            Self::Constant(number) => vec![shown(*number)],
            Self::Values(numbers) => numbers.iter().map(|number| shown(*number)).collect(),
            Self::Words(words) => words.clone(),
            Self::Range { .. } => Vec::new(),
        }
    }

    /// As a manifest writes it; the reason when it is illegal there.
    pub(super) fn text(&self, spec: &HyperparameterSpec) -> Result<String, String> {
        if spec.kind == HyperparameterKind::Category {
            return words_text(&self.words(), spec);
        }
        let value = |number: f64| -> Result<String, String> {
            if !(spec.min..=spec.max).contains(&number) {
                let (name, range) = (spec.name, spec.range());
                return Err(format!("{} is out of range: {name} is {range}", shown(number)));
            }
            if spec.kind == HyperparameterKind::Int && number.fract() != 0.0 {
                return Err(format!(
                    "{} is no whole number, which {} is",
                    shown(number),
                    spec.name
                ));
            }
            Ok(shown(number))
        };
        match self {
            Self::Constant(number) => value(*number),
            Self::Values(numbers) => {
                let written: Result<Vec<String>, String> =
                    numbers.iter().map(|number| value(*number)).collect();
                Ok(format!("{{values: [{}]}}", written?.join(", ")))
            }
            Self::Words(words) if words.len() == 1 => Err("its value is not a number".to_owned()),
            Self::Words(_) => Err("its values are not numbers".to_owned()),
            Self::Range { min, max, is_log, step } => {
                if min >= max {
                    return Err("its lower bound is not below its upper".to_owned());
                }
                if *is_log && *min <= 0.0 {
                    return Err("a log scale starts above 0".to_owned());
                }
                let (low, high) = (value(*min)?, value(*max)?);
                let step = match step {
                    Some(step) => step_text(*step, (*min, *max), *is_log, spec.kind)?,
                    None => Step::All,
                };
                let scale = if *is_log { ", scale: log" } else { "" };
                Ok(match step {
                    Step::All => format!("{{min: {low}, max: {high}{scale}}}"),
                    Step::Ends => format!("{{values: [{low}, {high}]}}"),
                    Step::Of(step) => format!("{{min: {low}, max: {high}{scale}, step: {step}}}"),
                })
            }
        }
    }
}

/// Words as a manifest has them; the reason when one means nothing there.
fn words_text(words: &[String], spec: &HyperparameterSpec) -> Result<String, String> {
    if words.is_empty() {
        return Err(format!("{} is a word, and words have no range", spec.name));
    }
    let mut found: Vec<&str> = Vec::new();
    for word in words {
        let unknown = || format!("`{word}` is not known: {} is one of {}", spec.name, spec.range());
        let category = names::category(spec, word).ok_or_else(unknown)?;
        if found.contains(&category.name()) {
            return Err(format!("two of its values are both `{category}`"));
        }
        found.push(category.name());
    }
    Ok(match found.as_slice() {
        [one] => (*one).to_owned(),
        several => format!("{{values: [{}]}}", several.join(", ")),
    })
}

/// Which values of a range are tried.
enum Step {
    /// All, or all whole ones.
    All,
    /// The two bounds.
    Ends,
    /// Those at this distance.
    Of(String),
}

fn step_text(
    step: f64,
    (min, max): (f64, f64),
    is_log: bool,
    kind: HyperparameterKind,
) -> Result<Step, String> {
    let count = (max - min) / step;
    let misfit = || Err(format!("steps of {} do not fit its range", shown(step)));
    if !(step > 0.0 && (1.0 - 1e-9..=1e6).contains(&count)) {
        return misfit();
    }
    match kind {
        HyperparameterKind::Int if step.fract() != 0.0 => misfit(),
        HyperparameterKind::Int if step.to_bits() == 1f64.to_bits() => Ok(Step::All),
        HyperparameterKind::Category => misfit(),
        HyperparameterKind::Float if is_log => {
            Err("Muster has steps on a log scale for whole numbers only".to_owned())
        }
        // What the last digits make of one step may be more than the range.
        _ if count < 1.0 + 1e-9 => Ok(Step::Ends),
        _ => Ok(Step::Of(shown(step))),
    }
}

/// The nearest whole number; 0 for what is below, and at most 2^53.
pub(super) fn whole(number: f64) -> u64 {
    format!("{:.0}", number.clamp(0.0, 9_007_199_254_740_992.0)).parse().unwrap_or(0)
}

/// A number as people write it; very small and large ones with an exponent.
pub(super) fn shown(number: f64) -> String {
    // What arithmetic with exponents adds to the last digits was never meant.
    let number: f64 = format!("{number:.12e}").parse().unwrap_or(number);
    if number == 0.0 || (1e-3..1e15).contains(&number.abs()) {
        format!("{number}")
    } else {
        format!("{number:e}")
    }
}
