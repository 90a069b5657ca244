//! Values that are words: what hyperparameters such as `schedule` can be, and how a trial trains that has them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Manifest;
use super::assignment::Assignment;
use super::reader::{Field, Section};
use super::searcher::SamplerSettings;
use super::section::optional_or;
use super::settings::{HYPERPARAMETERS, HyperparameterSpec};
use super::space::{Domain, SearchSpace};
use super::training::{
    ClassWeights, EMA_DECAY, Precision, SHAPES, ScheduleShape, TrainingSettings, WeightAverage,
};
use super::validate::Rules;

/// What people would search over, but one experiment has one of: names, where it is written, and why it is one.
const FIXED: &[(&[&str], &str, &str)] = &[
    (
        &["truncation"],
        "model.truncation",
        "texts are cut and made tokens once, before trials begin",
    ),
    (
        &["freeze", "freeze_layers", "freeze_embeddings", "frozen_layers", "num_frozen_layers"],
        "model.freeze",
        "what frozen layers say of the data is computed once, before trials begin",
    ),
    (
        &[
            "model",
            "pretrained",
            "model_name",
            "model_name_or_path",
            "pretrained_model_name_or_path",
        ],
        "model.pretrained",
        "texts are made tokens by its tokenizer once, before trials begin",
    ),
    (&["objective"], "objective", "it says how data is read, and which metrics there are"),
];

/// A value that is a word. Each belongs to one hyperparameter; journals and the wire hold the word itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// `schedule`: falls linearly.
    Linear,
    /// `schedule`: falls along a cosine.
    Cosine,
    /// `schedule`: stays at the peak.
    Constant,
    /// `schedule`: falls along a power.
    Polynomial,
    /// `schedule`: rises and falls linearly.
    SlantedTriangular,
    /// `precision`: single.
    Float32,
    /// `precision`: 8 bits of significand.
    Bfloat16,
    /// `precision`: half.
    Float16,
    /// `average`: none, the weights of the last step count.
    #[serde(rename = "none")]
    LastStep,
    /// `average`: the exponential moving average counts.
    Ema,
    /// `class_weights`: every example counts the same.
    Equal,
    /// `class_weights`: every class counts the same.
    Balanced,
}

impl Category {
    /// Every one, in the order of their hyperparameters.
    pub const ALL: [Self; 12] = [
        Self::Linear,
        Self::Cosine,
        Self::Constant,
        Self::Polynomial,
        Self::SlantedTriangular,
        Self::Float32,
        Self::Bfloat16,
        Self::Float16,
        Self::LastStep,
        Self::Ema,
        Self::Equal,
        Self::Balanced,
    ];

    /// The word in manifests, and wherever a person reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::Constant => "constant",
            Self::Polynomial => "polynomial",
            Self::SlantedTriangular => "slanted_triangular",
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::LastStep => "none",
            Self::Ema => "ema",
            Self::Equal => "equal",
            Self::Balanced => "balanced",
        }
    }

    /// The one with this word.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.name() == name)
    }

    /// Its place among all of them, from 0: for columns of numbers and for sorting. It says nothing of how alike two
    /// are, and no record holds it.
    pub fn place(self) -> f64 {
        f64::from(self as u8)
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl TrainingSettings {
    /// What these settings say of a hyperparameter that is a word; `None`: something that has no word.
    pub fn category(&self, name: &str) -> Option<Category> {
        match name {
            "schedule" => Some(match self.schedule {
                ScheduleShape::Linear => Category::Linear,
                ScheduleShape::Cosine { .. } => Category::Cosine,
                ScheduleShape::Constant => Category::Constant,
                ScheduleShape::Polynomial { .. } => Category::Polynomial,
                ScheduleShape::SlantedTriangular { .. } => Category::SlantedTriangular,
            }),
            "precision" => Some(match self.precision {
                Precision::Float32 => Category::Float32,
                Precision::Bfloat16 => Category::Bfloat16,
                Precision::Float16 => Category::Float16,
            }),
            "average" => match self.average {
                WeightAverage::Off => Some(Category::LastStep),
                WeightAverage::Ema { .. } => Some(Category::Ema),
                WeightAverage::Checkpoints { .. } => None,
            },
            "class_weights" => match self.class_weights {
                ClassWeights::Equal => Some(Category::Equal),
                ClassWeights::Balanced => Some(Category::Balanced),
                ClassWeights::Given(_) => None,
            },
            _ => None,
        }
    }

    /// The settings of a trial that has this word. What they say of it already stays, with its numbers; else the
    /// numbers are the defaults.
    #[must_use]
    pub fn with(mut self, category: Category) -> Self {
        if HYPERPARAMETERS.iter().any(|spec| self.category(spec.name) == Some(category)) {
            return self;
        }
        match category {
            Category::Linear
            | Category::Cosine
            | Category::Constant
            | Category::Polynomial
            | Category::SlantedTriangular => {
                let shape = SHAPES.iter().find(|(name, _)| *name == category.name());
                self.schedule = shape.map_or(self.schedule, |(_, shape)| *shape);
            }
            Category::Float32 => self.precision = Precision::Float32,
            Category::Bfloat16 => self.precision = Precision::Bfloat16,
            Category::Float16 => self.precision = Precision::Float16,
            Category::LastStep => self.average = WeightAverage::Off,
            Category::Ema => self.average = WeightAverage::Ema { decay: EMA_DECAY },
            Category::Equal => self.class_weights = ClassWeights::Equal,
            Category::Balanced => self.class_weights = ClassWeights::Balanced,
        }
        self
    }
}

impl Manifest {
    /// How a trial trains: as the section `training` says, but for the words of its assignment and those that are
    /// constants of the space.
    pub fn training_of(&self, assignment: &Assignment) -> TrainingSettings {
        let chosen = categorical().filter_map(|spec| {
            let value = assignment.get(spec.name).or(match self.hyperparameters.get(spec.name) {
                Some(Domain::Constant(value)) => Some(value),
                _ => None,
            });
            value.and_then(|value| value.category())
        });
        chosen.fold(self.training.clone(), TrainingSettings::with)
    }

    /// What the section `training` comes to: as it is, and with every word that a trial can have. Two words of one
    /// trial are not put together.
    pub fn trainings(&self) -> Vec<TrainingSettings> {
        let with = |category: Category| self.training.clone().with(category);
        let words = categorical().flat_map(|spec| self.categories(spec.name));
        std::iter::once(self.training.clone()).chain(words.map(with)).collect()
    }

    /// The words that trials can have for a hyperparameter; none: the section `training` decides for all.
    pub fn categories(&self, name: &str) -> Vec<Category> {
        let own = match self.hyperparameters.get(name).map(Domain::plain) {
            Some(Domain::Constant(value)) => std::slice::from_ref(value),
            Some(Domain::Values(values)) => values.as_slice(),
            _ => &[],
        };
        let listed = match self.searcher.as_ref().map(|searcher| &searcher.sampler) {
            Some(SamplerSettings::List(points)) => points.as_slice(),
            _ => &[],
        };
        let listed = listed.iter().filter_map(|point| point.get(name));
        let all = own.iter().chain(listed);
        let mut words: Vec<Category> = all.filter_map(|value| value.category()).collect();
        words.sort_unstable();
        words.dedup();
        words
    }
}

fn categorical() -> impl Iterator<Item = &'static HyperparameterSpec> {
    HYPERPARAMETERS.iter().filter(|spec| !spec.categories.is_empty())
}

/// Whether a hyperparameter is there in every trial that a space describes.
fn is_always(space: &SearchSpace, name: &str) -> bool {
    space.get(name).is_none_or(|domain| domain.condition().is_none())
}

/// Message and mend for a name that is no hyperparameter because all trials of an experiment have the same.
pub(super) fn fixed(name: &str) -> Option<(String, String)> {
    let (_, place, reason) = FIXED.iter().find(|(names, _, _)| names.contains(&name))?;
    let message = format!("cannot be searched: {reason}");
    Some((message, format!("write it as `{place}`, in an experiment of its own for each value")))
}

/// Reads a key of the section `training` that is a hyperparameter where trials differ in it.
pub(super) fn one_for_all<'a, T>(
    section: &Section<'a>,
    key: &'static str,
    default: T,
    read: impl FnOnce(&Field<'a>) -> Option<T>,
) -> Option<T> {
    optional_or(section.get(key), default, |field| {
        let values = field.is_mapping().then(|| field.section()?.get("values")).flatten();
        if values.is_some_and(|values| values.is_list()) {
            let mend = format!("write it as `hyperparameters.{key}`");
            field.refuse_mend("what trials can choose from is a hyperparameter", mend);
            return None;
        }
        read(&field)
    })
}

impl Rules<'_> {
    /// What the section `training` says of a hyperparameter is said of a word that some trial can have.
    pub(super) fn check_categories(&self, manifest: &Manifest) {
        for spec in categorical() {
            let (name, words) = (spec.name, manifest.categories(spec.name));
            let path = ["training", name];
            let own = manifest.training.category(name);
            let counts = own.is_some_and(|own| words.contains(&own))
                || !is_always(&manifest.hyperparameters, name);
            if words.is_empty() || counts || !self.is_written(&path) {
                continue;
            }
            let words: Vec<&str> = words.into_iter().map(Category::name).collect();
            let message = format!(
                "no trial has it, because the hyperparameter `{name}` is {}",
                words.join(" or ")
            );
            self.refuse(&path, message, "remove it, or let the hyperparameter be what it says");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ParameterValue;

    #[test]
    fn words_are_the_same_in_records_and_for_people() {
        for (place, category) in Category::ALL.into_iter().enumerate() {
            let written = serde_json::to_value(category).unwrap();
            assert_eq!(written, category.name());
            assert_eq!(Category::find(category.name()), Some(category));
            assert!((category.place() - place as f64).abs() < 0.5, "{category}");
            let specs = HYPERPARAMETERS.iter().filter(|spec| spec.categories.contains(&category));
            assert_eq!(specs.count(), 1, "{category} is of one hyperparameter");
        }
        let value = ParameterValue::Category(Category::Cosine);
        assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"category":"cosine"}"#);
        assert_eq!((value.to_string(), value.exact()), ("cosine".to_owned(), "cosine".to_owned()));
        assert_eq!(value.to_json(), "cosine");
    }

    #[test]
    fn a_word_is_what_the_settings_say_then() {
        for spec in categorical() {
            for category in spec.categories {
                let settings = TrainingSettings::default().with(*category);
                assert_eq!(settings.category(spec.name), Some(*category));
                let others = categorical().filter(|other| other.name != spec.name);
                for other in others {
                    let plain = TrainingSettings::default().category(other.name);
                    assert_eq!(settings.category(other.name), plain);
                }
            }
        }
        let waves = TrainingSettings {
            schedule: ScheduleShape::Cosine { cycles: 2.0 },
            ..TrainingSettings::default()
        };
        assert_eq!(waves.clone().with(Category::Cosine), waves, "its numbers stay");
        let linear = waves.with(Category::Linear);
        assert_eq!(linear.schedule, ScheduleShape::Linear);
        let cosine = linear.with(Category::Cosine);
        assert_eq!(cosine.schedule, ScheduleShape::Cosine { cycles: 0.5 });
    }
}
