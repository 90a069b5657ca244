//! What training minimizes: cross-entropy, of classes with class weights and label smoothing.

use std::collections::BTreeSet;

use muster_common::manifest::ClassWeights;
use tch::{Device, Kind, Reduction, Tensor};

use super::batch::Examples;
use super::{TrainError, TrialPlan};
use crate::model::{Classifier, LanguageLoss, ModelError};

/// Target value that `cross_entropy_loss` leaves out; no class has it.
const IGNORE_NOTHING: i64 = -100;

/// What the examples of a step count together, those of all micro-batches and of all ranks: sums of
/// losses are divided by it once, so that no mean of means comes about.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Normalizer {
    /// Examples, each by the weight of its class.
    pub examples: f64,
    /// Tokens to be guessed.
    pub masked: f64,
}

impl Normalizer {
    /// A micro-batch's share of the loss of its step, 0-d: `sum` is over its examples.
    pub(super) fn share(&self, sum: &Tensor) -> Result<Tensor, ModelError> {
        Ok(sum.f_mul_scalar(reciprocal(self.examples))?)
    }

    /// The same of a language model: masked tokens and pairs of texts each have a mean of their own,
    /// and the two are added.
    pub(super) fn language_share(&self, losses: &LanguageLoss) -> Result<Tensor, ModelError> {
        let masked = losses.masked.as_ref();
        let masked =
            masked.map(|part| part.sum.f_mul_scalar(reciprocal(self.masked))).transpose()?;
        let pairs = losses.next_sentence.as_ref();
        let pairs = pairs.map(|part| self.share(&part.sum)).transpose()?;
        match (masked, pairs) {
            (Some(masked), Some(pairs)) => Ok(masked.f_add(&pairs)?),
            (masked, pairs) => Ok(masked.or(pairs).unwrap_or_default()),
        }
    }
}

/// 0 where there is nothing to divide: a sum over nothing is no loss.
fn reciprocal(count: f64) -> f64 {
    if count > 0.0 { count.recip() } else { 0.0 }
}

/// The loss of classes in a trial.
#[derive(Debug)]
pub struct Loss {
    smoothing: f64,
    /// What an example of each class counts; empty: all the same.
    weights: Vec<f64>,
    /// The same on the device, `[C]`.
    table: Option<Tensor>,
}

impl Loss {
    /// Every example counts the same, and nothing is smoothed.
    pub(super) fn plain() -> Self {
        Self { smoothing: 0.0, weights: Vec::new(), table: None }
    }

    /// For classes called `names`, of which `counts` training examples exist each. `smoothing` is the
    /// share of the target spread evenly over all classes.
    pub fn new(
        choice: &ClassWeights,
        smoothing: f64,
        names: &[String],
        counts: &[u64],
        device: Device,
    ) -> Result<Self, TrainError> {
        let weights = match choice {
            ClassWeights::Equal => Vec::new(),
            ClassWeights::Balanced => balanced(counts),
            ClassWeights::Given(given) => {
                let known: BTreeSet<&String> = names.iter().collect();
                if given.keys().collect::<BTreeSet<_>>() != known {
                    let list = |names: Vec<&String>| {
                        names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>()
                    };
                    let (given, classes) =
                        (list(given.keys().collect()), list(names.iter().collect()));
                    let (given, classes) = (given.join(", "), classes.join(", "));
                    return Err(TrainError::ClassWeights { given, classes });
                }
                names.iter().filter_map(|name| given.get(name).copied()).collect()
            }
        };
        let table = if weights.is_empty() {
            None
        } else {
            Some(Tensor::f_from_slice(&weights)?.f_to_kind(Kind::Float)?.f_to_device(device)?)
        };
        Ok(Self { smoothing, weights, table })
    }

    /// What the examples with these classes count together; the mean loss of a step is the sum of its
    /// losses divided by this.
    pub fn normalizer(&self, labels: impl Iterator<Item = u32>) -> f64 {
        let weight = |label: u32| self.weights.get(label as usize).copied().unwrap_or(1.0);
        labels.map(weight).sum()
    }

    /// Sum over a batch, 0-d, 32-bit: `logits` are `[B, C]`, `labels` are `[B]`.
    pub fn sum(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, ModelError> {
        let logits = logits.f_to_kind(Kind::Float)?;
        let (table, smoothing) = (self.table.as_ref(), self.smoothing);
        Ok(logits.f_cross_entropy_loss(labels, table, Reduction::Sum, IGNORE_NOTHING, smoothing)?)
    }
}

/// `n / (c * k)` for a class with `k` of `n` examples of `c` classes, as `compute_class_weight` of
/// scikit-learn; 1 for a class without examples.
fn balanced(counts: &[u64]) -> Vec<f64> {
    let total: u64 = counts.iter().sum();
    let even = total as f64 / counts.len().max(1) as f64;
    counts.iter().map(|count| if *count == 0 { 1.0 } else { even / *count as f64 }).collect()
}

/// The loss of a classifier, balanced over its training examples where that is wanted.
pub(super) fn loss_of(
    plan: &TrialPlan,
    model: &Classifier,
    examples: &Examples<'_>,
) -> Result<Loss, TrainError> {
    let mut counts = vec![0u64; model.labels().len()];
    for index in (0..).take(examples.len()) {
        if let Some(count) = counts.get_mut(examples.label(index) as usize) {
            *count += 1;
        }
    }
    let (weights, smoothing) = (&plan.training.class_weights, plan.settings.label_smoothing);
    Loss::new(weights, smoothing, model.labels(), &counts, model.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::TrainingSettings;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    /// Made by `tests/golden/train/generate.py`.
    const LOSSES: &str = include_str!("../../../tests/golden/train/losses.json");
    /// Made by `tests/golden/sklearn/generate.py`.
    const WEIGHTS: &str = include_str!("../../../tests/golden/sklearn/scores.json");

    #[derive(Deserialize)]
    struct Losses {
        cases: Vec<LossCase>,
    }

    #[derive(Deserialize)]
    struct LossCase {
        logits: Vec<Vec<f32>>,
        labels: Vec<i64>,
        weights: Option<Vec<f64>>,
        smoothing: f64,
        loss: f64,
        gradient: Vec<Vec<f64>>,
    }

    #[derive(Deserialize)]
    struct Weights {
        weights: Vec<WeightCase>,
    }

    #[derive(Deserialize)]
    struct WeightCase {
        counts: Vec<u64>,
        balanced: Vec<f64>,
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    #[test]
    fn losses_and_gradients_equal_those_of_torch() {
        let golden: Losses = serde_json::from_str(LOSSES).unwrap();
        assert_eq!(golden.cases.len(), 6);
        for case in golden.cases {
            let names = names(3);
            let choice = case.weights.map_or(ClassWeights::Equal, |weights| {
                ClassWeights::Given(names.iter().cloned().zip(weights).collect())
            });
            let loss = Loss::new(&choice, case.smoothing, &names, &[0; 3], Device::Cpu).unwrap();
            let flat = case.logits.concat();
            let logits = Tensor::from_slice(&flat).view([-1, 3]).set_requires_grad(true);
            // In two parts of unequal size: the sum over both, divided once.
            let labels: Vec<u32> = case.labels.iter().map(|l| u32::try_from(*l).unwrap()).collect();
            let share = loss.normalizer(labels.into_iter()).recip();
            let mut total = 0.0;
            for (start, count) in [(0, 5), (5, 2)] {
                let labels = Tensor::from_slice(&case.labels).narrow(0, start, count);
                let part = loss.sum(&logits.narrow(0, start, count), &labels).unwrap() * share;
                part.backward();
                total += part.double_value(&[]);
            }
            assert!((total - case.loss).abs() < 1e-6, "{total} instead of {}", case.loss);
            let found = Vec::<f32>::try_from(logits.grad().view([-1])).unwrap();
            for (found, wanted) in found.into_iter().zip(case.gradient.concat()) {
                assert!((f64::from(found) - wanted).abs() < 1e-6, "{found} instead of {wanted}");
            }
        }
    }

    #[test]
    fn balanced_weights_equal_those_of_scikit_learn() {
        let golden: Weights = serde_json::from_str(WEIGHTS).unwrap();
        assert!(!golden.weights.is_empty());
        for WeightCase { counts, balanced: wanted } in golden.weights {
            for (found, wanted) in balanced(&counts).into_iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-12, "{found} instead of {wanted}");
            }
        }
        assert_eq!(balanced(&[4, 0]), [0.5, 1.0]);
    }

    #[test]
    fn weights_that_do_not_fit_the_classes_are_refused() {
        let given = BTreeMap::from([("class 0".to_owned(), 1.0), ("klass 1".to_owned(), 2.0)]);
        let choice = ClassWeights::Given(given);
        let error = Loss::new(&choice, 0.0, &names(2), &[1, 1], Device::Cpu).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("`klass 1`"), "{error}");
        let training = TrainingSettings { class_weights: choice, ..TrainingSettings::default() };
        assert!(crate::train::check(&training, &names(2), Device::Cpu).is_err());
        let training = TrainingSettings::default();
        assert!(crate::train::check(&training, &names(2), Device::Cpu).is_ok());
    }
}
