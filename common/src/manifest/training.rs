//! The `training` and `evaluation` sections: choices that hold for every trial of an experiment.
//! What is a number and worth searching is a hyperparameter instead, and of some words here trials can have their own
//! as hyperparameters: see [`Manifest::training_of`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Manifest;
use super::budget::Budget;
use super::category::one_for_all;
use super::objective::{MaskingSettings, read_masking};
use super::reader::Field;
use super::section::{optional, optional_or, read_budget};
use super::settings::written;
use crate::objective::{Objective, ObjectiveMetric};

/// How every trial trains.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingSettings {
    /// Shape of the learning rate over the budget.
    pub schedule: ScheduleShape,
    /// Layers are trained from the top down, one group after the other; absent: all at once.
    pub unfreeze: Option<Unfreezing>,
    /// What an example of each class counts in the loss.
    pub class_weights: ClassWeights,
    /// Which weights are evaluated and exported.
    pub average: WeightAverage,
    /// The validation split is also scored so often; absent: only at rungs.
    pub evaluate_every: Option<Budget>,
    /// When a trial gives up; absent: never.
    pub early_stopping: Option<EarlyStopping>,
    /// Number format of matrix products.
    pub precision: Precision,
    /// What gradients are sent in between the ranks of a trial.
    pub gradient_compression: GradientCompression,
    /// Seconds that a rank may keep the others waiting in a step; absent: 120.
    pub step_deadline_s: Option<u32>,
    /// How tokens are hidden, for objectives that hide some; absent: as BERT's authors did it.
    pub masking: Option<MaskingSettings>,
}

/// What stays of an exponential moving average at each step where the manifest says nothing.
pub(super) const EMA_DECAY: f64 = 0.999;
/// Every shape by its name, with the numbers it has where the manifest says nothing.
pub(super) const SHAPES: [(&str, ScheduleShape); 5] = [
    ("linear", ScheduleShape::Linear),
    ("cosine", ScheduleShape::Cosine { cycles: 0.5 }),
    ("constant", ScheduleShape::Constant),
    ("polynomial", ScheduleShape::Polynomial { power: 1.0, end_learning_rate: 1e-7 }),
    ("slanted_triangular", ScheduleShape::SlantedTriangular { ratio: 32.0 }),
];

/// Seconds of a step's deadline where the manifest says nothing.
const STEP_DEADLINE_S: u32 = 120;

impl TrainingSettings {
    /// How long a rank may keep the others waiting in a step.
    pub fn step_deadline(&self) -> Duration {
        Duration::from_secs(u64::from(self.step_deadline_s.unwrap_or(STEP_DEADLINE_S)))
    }
}

/// Shape of the learning rate behind the warmup, which is always linear.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleShape {
    /// Falls linearly to 0.
    #[default]
    Linear,
    /// Falls along a cosine.
    Cosine {
        /// Waves over the budget; one half falls from the peak to 0.
        cycles: f64,
    },
    /// Stays at the peak.
    Constant,
    /// Falls along a power of the budget that is left.
    Polynomial {
        /// The exponent.
        power: f64,
        /// Learning rate at the end of the budget.
        end_learning_rate: f64,
    },
    /// Rises and falls linearly, from and to a fraction of the peak (Howard, Ruder 2018).
    SlantedTriangular {
        /// The peak divided by the lowest rate.
        ratio: f64,
    },
}

/// Gradual unfreezing (Howard, Ruder 2018): the head is trained from the start, then the top layers,
/// and so on down to the embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Unfreezing {
    /// Time from one group to the next.
    pub every: Budget,
    /// Encoder layers of a group.
    pub layers: u32,
}

/// Weights of the classes in the loss.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// Every example counts the same.
    #[default]
    Equal,
    /// Every class counts the same: examples / (classes * examples of the class), counted in the
    /// training split.
    Balanced,
    /// By the name of the class.
    Given(BTreeMap<String, f64>),
}

/// Which weights are evaluated and exported.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightAverage {
    /// Those of the last step.
    #[default]
    Off,
    /// Their exponential moving average over the steps.
    Ema {
        /// What stays of the average at each step.
        decay: f64,
    },
    /// Their mean over the last few moments of equal distance.
    Checkpoints {
        /// How many moments at most.
        last: u32,
        /// Time from one to the next.
        every: Budget,
    },
}

/// A trial ends when its validation metric has not become better for a while; then its best weights
/// are the ones that count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    /// What is watched; absent: the objective of the searcher, without one the loss.
    pub metric: Option<ObjectiveMetric>,
    /// Evaluations in a row without an improvement.
    pub patience: u32,
    /// A smaller change is no improvement.
    pub min_change: f64,
}

/// Number format of matrix products; parameters and the optimizer's state stay float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    Float32,
    /// 8 bits of exponent, 8 of significand.
    Bfloat16,
    /// IEEE half precision; the loss is scaled, and steps that overflow are left out.
    Float16,
}

/// Number format of gradients on their way between ranks; they are added up in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientCompression {
    /// Their own: single precision.
    #[default]
    Off,
    /// Half the bytes, the range of single precision, 8 bits of significand.
    Bfloat16,
    /// Half the bytes, 11 bits of significand, values up to 65504.
    Float16,
}

/// How results are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationSettings {
    /// Neighbouring classes are nearly right; absent: when the classes are whole numbers in a row,
    /// three at least.
    pub ordered: Option<bool>,
}

impl EvaluationSettings {
    /// Whether classes with these names are in an order.
    pub fn is_ordered(self, labels: &[String]) -> bool {
        let in_a_row = || {
            let numbers: Option<Vec<i64>> = labels.iter().map(|name| name.parse().ok()).collect();
            numbers.is_some_and(|numbers| {
                numbers.len() >= 3
                    && numbers.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]))
            })
        };
        self.ordered.unwrap_or_else(in_a_row)
    }
}

impl Manifest {
    /// What early stopping watches; `None` where trials do not stop early.
    pub fn stopping_objective(&self) -> Option<Objective> {
        let stopping = self.training.early_stopping?;
        let searched = self.searcher.as_ref().map(|searcher| searcher.objective);
        let metric = stopping.metric.or(searched.map(|objective| objective.metric));
        let metric = metric.unwrap_or(ObjectiveMetric::Loss);
        let plain = Objective { metric, mode: metric.natural_mode() };
        Some(searched.filter(|objective| objective.metric == metric).unwrap_or(plain))
    }
}

pub(super) fn read_training(field: &Field<'_>) -> Option<TrainingSettings> {
    let section = field.section()?;
    let schedule = one_for_all(&section, "schedule", ScheduleShape::Linear, read_schedule);
    let unfreeze = optional(section.get("unfreeze"), |field| read_unfreeze(&field).map(Some));
    let class_weights =
        one_for_all(&section, "class_weights", ClassWeights::Equal, read_class_weights);
    let average = one_for_all(&section, "average", WeightAverage::Off, read_average);
    let evaluate_every =
        optional(section.get("evaluate_every"), |field| read_budget(&field).map(Some));
    let early_stopping =
        optional(section.get("early_stopping"), |field| read_early_stopping(&field).map(Some));
    let precision = one_for_all(&section, "precision", Precision::Float32, |field| {
        field.choice(&[
            ("float32", Precision::Float32),
            ("bfloat16", Precision::Bfloat16),
            ("float16", Precision::Float16),
        ])
    });
    let gradient_compression =
        optional_or(section.get("gradient_compression"), GradientCompression::Off, |field| {
            field.choice(&[
                ("none", GradientCompression::Off),
                ("bfloat16", GradientCompression::Bfloat16),
                ("float16", GradientCompression::Float16),
            ])
        });
    let step_deadline_s =
        optional(section.get("step_deadline_s"), |field| field.whole_u32(1, 86_400).map(Some));
    let masking = optional(section.get("masking"), |field| read_masking(&field).map(Some));
    section.finish();
    let (evaluate_every, early_stopping) = (evaluate_every?, early_stopping?);
    if early_stopping.is_some() && evaluate_every.is_none() {
        let mend = "add `evaluate_every: {epochs: 0.25}` beside it";
        field.refuse_mend("early stopping needs evaluations to look at", mend);
        return None;
    }
    Some(TrainingSettings {
        schedule: schedule?,
        unfreeze: unfreeze?,
        class_weights: class_weights?,
        average: average?,
        evaluate_every,
        early_stopping,
        precision: precision?,
        gradient_compression: gradient_compression?,
        step_deadline_s: step_deadline_s?,
        masking: masking?,
    })
}

pub(super) fn read_evaluation(field: &Field<'_>) -> Option<EvaluationSettings> {
    let section = field.section()?;
    let ordered = optional(section.get("ordered"), |field| field.truth().map(Some));
    section.finish();
    Some(EvaluationSettings { ordered: ordered? })
}

/// A number in `min..=max`.
pub(super) fn number_within(field: &Field<'_>, min: f64, max: f64) -> Option<f64> {
    let number = field.number()?;
    if (min..=max).contains(&number) {
        return Some(number);
    }
    let (number, min, max) = (written(number), written(min), written(max));
    field.refuse(format!("{number} lies outside {min} to {max}"));
    None
}

fn read_schedule(field: &Field<'_>) -> Option<ScheduleShape> {
    if !field.is_mapping() {
        return field.choice(&SHAPES);
    }
    let section = field.section()?;
    let shape = section.require("type", "cosine").and_then(|field| field.choice(&SHAPES))?;
    let number = |key: &'static str, default: f64, min: f64, max: f64| {
        optional_or(section.get(key), default, |field| number_within(&field, min, max))
    };
    let shape = match shape {
        ScheduleShape::Linear | ScheduleShape::Constant => Some(shape),
        ScheduleShape::Cosine { cycles } => {
            number("cycles", cycles, 0.5, 1e3).map(|cycles| ScheduleShape::Cosine { cycles })
        }
        ScheduleShape::Polynomial { power, end_learning_rate } => {
            let power = number("power", power, 0.01, 100.0);
            let end = number("end_learning_rate", end_learning_rate, 0.0, 1.0);
            power.zip(end).map(|(power, end_learning_rate)| ScheduleShape::Polynomial {
                power,
                end_learning_rate,
            })
        }
        ScheduleShape::SlantedTriangular { ratio } => {
            number("ratio", ratio, 1.0, 1e6).map(|ratio| ScheduleShape::SlantedTriangular { ratio })
        }
    };
    section.finish();
    shape
}

fn read_unfreeze(field: &Field<'_>) -> Option<Unfreezing> {
    let section = field.section()?;
    let every = section.require("every", "{epochs: 1}").and_then(|field| read_budget(&field));
    let layers = optional_or(section.get("layers"), 1, |field| field.whole_u32(1, 1000));
    section.finish();
    Some(Unfreezing { every: every?, layers: layers? })
}

fn read_class_weights(field: &Field<'_>) -> Option<ClassWeights> {
    if !field.is_mapping() {
        return field
            .choice(&[("equal", false), ("balanced", true)])
            .map(|balanced| if balanced { ClassWeights::Balanced } else { ClassWeights::Equal });
    }
    let section = field.section()?;
    let mut weights = BTreeMap::new();
    let mut legal = true;
    for (name, field) in section.fields() {
        match number_within(&field, 1e-6, 1e6) {
            Some(weight) => {
                weights.insert(name.to_owned(), weight);
            }
            None => legal = false,
        }
    }
    if weights.is_empty() && legal {
        field.refuse_mend("no class is named", "write {CLASS: WEIGHT, ...} or `balanced`");
        return None;
    }
    legal.then_some(ClassWeights::Given(weights))
}

fn read_average(field: &Field<'_>) -> Option<WeightAverage> {
    #[derive(Clone, Copy)]
    enum Kind {
        None,
        Ema,
        Checkpoints,
    }
    let kinds = [("ema", Kind::Ema), ("checkpoints", Kind::Checkpoints), ("none", Kind::None)];
    let section = field.section()?;
    let kind = section.require("type", "ema").and_then(|field| field.choice(&kinds))?;
    let average = match kind {
        Kind::None => Some(WeightAverage::Off),
        Kind::Ema => {
            let decay = optional_or(section.get("decay"), EMA_DECAY, |field| {
                number_within(&field, 0.0, 0.999_999_9)
            });
            decay.map(|decay| WeightAverage::Ema { decay })
        }
        Kind::Checkpoints => {
            let last = optional_or(section.get("last"), 3, |field| field.whole_u32(1, 100));
            let every =
                section.require("every", "{epochs: 0.25}").and_then(|field| read_budget(&field));
            last.zip(every).map(|(last, every)| WeightAverage::Checkpoints { last, every })
        }
    };
    section.finish();
    average
}

fn read_early_stopping(field: &Field<'_>) -> Option<EarlyStopping> {
    let section = field.section()?;
    let metrics = ObjectiveMetric::ALL.map(|metric| (metric.name(), metric));
    let metric = optional(section.get("metric"), |field| field.choice(&metrics).map(Some));
    let patience = section.require("patience", "3").and_then(|field| field.whole_u32(1, 1_000_000));
    let min_change =
        optional_or(section.get("min_change"), 0.0, |field| number_within(&field, 0.0, 1e6));
    section.finish();
    Some(EarlyStopping { metric: metric?, patience: patience?, min_change: min_change? })
}
