//! The hyperparameters Muster knows, and what they come to for one trial.

use serde::{Deserialize, Serialize};

use super::assignment::Assignment;
use super::category::Category;
use super::space::{Domain, SearchSpace};

/// Whether a hyperparameter is a whole number, a real number or a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HyperparameterKind {
    /// Whole numbers.
    Int,
    /// Real numbers.
    Float,
    /// Words.
    Category,
}

/// Name, kind, legal range and default of one hyperparameter.
#[derive(Debug)]
pub struct HyperparameterSpec {
    /// Name in manifests.
    pub name: &'static str,
    /// Whole, real or a word.
    pub kind: HyperparameterKind,
    /// Smallest legal value; of words 0.
    pub min: f64,
    /// Largest legal value; of words 0.
    pub max: f64,
    /// The words that it can be; none: it is a number.
    pub categories: &'static [Category],
    /// Value when the manifest is silent; absent: the pretrained model decides, of words
    /// the section `training`.
    pub default: Option<f64>,
    /// One line for people.
    pub meaning: &'static str,
}

const fn spec(
    name: &'static str,
    kind: HyperparameterKind,
    (min, max): (f64, f64),
    default: f64,
    meaning: &'static str,
) -> HyperparameterSpec {
    HyperparameterSpec { name, kind, min, max, categories: &[], default: Some(default), meaning }
}

/// As [`spec`], for what the pretrained model decides when the manifest is silent.
const fn of_model(
    name: &'static str,
    kind: HyperparameterKind,
    (min, max): (f64, f64),
    meaning: &'static str,
) -> HyperparameterSpec {
    HyperparameterSpec { name, kind, min, max, categories: &[], default: None, meaning }
}

/// As [`spec`], for words; the section `training` decides when the manifest is silent.
const fn of_training(
    name: &'static str,
    categories: &'static [Category],
    meaning: &'static str,
) -> HyperparameterSpec {
    let kind = HyperparameterKind::Category;
    HyperparameterSpec { name, kind, min: 0.0, max: 0.0, categories, default: None, meaning }
}

use HyperparameterKind::{Float, Int};

/// Every hyperparameter, in the order of the documentation. Defaults are those of BERT's authors
/// for fine-tuning, with AdamW's bias correction on.
pub const HYPERPARAMETERS: &[HyperparameterSpec] = &[
    spec("learning_rate", Float, (1e-9, 1.0), 2e-5, "peak learning rate"),
    spec("global_batch_size", Int, (1.0, 65536.0), 32.0, "examples per step over all ranks"),
    spec("micro_batch_size", Int, (0.0, 65536.0), 0.0, "examples per forward; 0: the whole share"),
    of_model("max_length", Int, (8.0, 8192.0), "longest sequence in tokens"),
    of_model("dropout", Float, (0.0, 0.9), "dropout of encoder, attention and head"),
    spec("weight_decay", Float, (0.0, 1.0), 0.01, "decoupled; never on biases and LayerNorm"),
    spec(
        "warmup_ratio",
        Float,
        (0.0, 1.0),
        0.06,
        "share of the budget with a rising learning rate",
    ),
    spec(
        "warmup_steps",
        Int,
        (0.0, 1e9),
        0.0,
        "steps with a rising learning rate; 0: by warmup_ratio",
    ),
    spec("layer_decay", Float, (0.01, 1.0), 1.0, "learning rate of a layer over that of the next"),
    spec("label_smoothing", Float, (0.0, 0.9), 0.0, "share of the target spread over all classes"),
    spec("max_grad_norm", Float, (0.0, 1e6), 1.0, "gradient norm is clipped to this; 0: never"),
    spec("adam_beta1", Float, (0.0, 0.999_999), 0.9, "decay of the first moment"),
    spec("adam_beta2", Float, (0.0, 0.999_999_9), 0.999, "decay of the second moment"),
    spec("adam_epsilon", Float, (1e-12, 1.0), 1e-8, "added to the denominator"),
    of_training(
        "schedule",
        &[
            Category::Linear,
            Category::Cosine,
            Category::Constant,
            Category::Polynomial,
            Category::SlantedTriangular,
        ],
        "shape of the learning rate",
    ),
    of_training(
        "precision",
        &[Category::Float32, Category::Bfloat16, Category::Float16],
        "number format of matrix products",
    ),
    of_training("average", &[Category::LastStep, Category::Ema], "which weights count"),
    of_training(
        "class_weights",
        &[Category::Equal, Category::Balanced],
        "what an example of each class counts in the loss",
    ),
];

impl HyperparameterSpec {
    /// The legal values, for messages and documents: `0 to 0.9`, or the words.
    pub fn range(&self) -> String {
        if !self.categories.is_empty() {
            return self.categories.iter().map(|word| word.name()).collect::<Vec<_>>().join(", ");
        }
        format!("{} to {}", written(self.min), written(self.max))
    }

    /// The one called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        HYPERPARAMETERS.iter().find(|spec| spec.name == name)
    }
}

fn one() -> f64 {
    1.0
}

/// Every hyperparameter of one trial, resolved: its assignment, the constants, the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialSettings {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Examples per step over all ranks.
    pub global_batch_size: u64,
    /// Examples per forward on one rank; never zero, never above the rank's share.
    pub micro_batch_size: u64,
    /// Dropout probability of encoder, attention and head; `None`: those of the pretrained model.
    pub dropout: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Share of all steps with a rising learning rate.
    pub warmup_ratio: f64,
    /// Steps with a rising learning rate; 0: `warmup_ratio` says it.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Learning rate of a layer divided by that of the layer above it.
    #[serde(default = "one")]
    pub layer_decay: f64,
    /// Share of the target that is spread evenly over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Gradient norm limit; `None`: gradients are not clipped.
    pub max_grad_norm: Option<f64>,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Added to the denominator.
    pub adam_epsilon: f64,
}

impl TrialSettings {
    /// Resolves one trial: its assignment first, then constants of the space, then defaults.
    pub fn resolve(space: &SearchSpace, assignment: &Assignment) -> Self {
        let value = |name: &str| lookup(space, assignment, name).unwrap_or(f64::NAN);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "validation keeps whole hyperparameters within 0 to 1e9"
        )]
        let whole = |name: &str| value(name) as u64;
        let global_batch_size = whole("global_batch_size").max(1);
        let micro = whole("micro_batch_size");
        let micro_batch_size =
            if micro == 0 { global_batch_size } else { micro.min(global_batch_size) };
        Self {
            learning_rate: value("learning_rate"),
            global_batch_size,
            micro_batch_size,
            dropout: lookup(space, assignment, "dropout"),
            weight_decay: value("weight_decay"),
            warmup_ratio: value("warmup_ratio"),
            warmup_steps: whole("warmup_steps"),
            layer_decay: value("layer_decay"),
            label_smoothing: value("label_smoothing"),
            max_grad_norm: Some(value("max_grad_norm")).filter(|norm| *norm > 0.0),
            adam_beta1: value("adam_beta1"),
            adam_beta2: value("adam_beta2"),
            adam_epsilon: value("adam_epsilon"),
        }
    }
}

pub(super) fn lookup(space: &SearchSpace, assignment: &Assignment, name: &str) -> Option<f64> {
    if let Some(value) = assignment.get(name) {
        return Some(value.as_f64());
    }
    if let Some(Domain::Constant(value)) = space.get(name) {
        return Some(value.as_f64());
    }
    HyperparameterSpec::find(name).and_then(|spec| spec.default)
}

/// A number as a person writes it: all its digits, `1e-9` instead of nine zeros.
pub(super) fn written(number: f64) -> String {
    let text = format!("{number:?}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ParameterValue;

    #[test]
    fn assignment_wins_over_constant_over_default() {
        let mut space = SearchSpace::new();
        space.insert("dropout".to_owned(), Domain::Constant(ParameterValue::Float(0.3)));
        space.insert("weight_decay".to_owned(), Domain::Constant(ParameterValue::Float(0.5)));
        let mut assignment = Assignment::new();
        assignment.insert("dropout".to_owned(), ParameterValue::Float(0.2));
        let settings = TrialSettings::resolve(&space, &assignment);
        assert_eq!(settings.dropout, Some(0.2));
        assert_eq!(settings.weight_decay.to_bits(), 0.5f64.to_bits());
        assert_eq!(settings.learning_rate.to_bits(), 2e-5f64.to_bits());
        assert_eq!(settings.micro_batch_size, settings.global_batch_size);
        let silent = TrialSettings::resolve(&SearchSpace::new(), &Assignment::new());
        assert_eq!(silent.dropout, None, "the model's own");
    }

    #[test]
    fn defaults_are_legal() {
        for spec in HYPERPARAMETERS {
            let legal = |default| (spec.min..=spec.max).contains(&default);
            assert!(spec.default.is_none_or(legal), "{}", spec.name);
        }
    }
}
