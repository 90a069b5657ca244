//! Averages of the weights over the steps: what is evaluated and exported in place of the weights of
//! the last step.

use std::collections::BTreeMap;

use muster_common::manifest::WeightAverage;
use tch::Tensor;

use super::TrainError;
use crate::checkpoint::Snapshot;
use crate::ffi;
use crate::model::{ModelError, NamedTensors, TaskModel, duplicate};

/// The average of one trial.
#[derive(Debug)]
pub(super) enum Average {
    /// None: the weights themselves count.
    Off,
    /// Exponential, over every step (Polyak, Juditsky 1992; the form of `torch.optim.swa_utils`).
    Ema {
        /// What stays at each step.
        decay: f64,
        /// Empty before the first step.
        weights: NamedTensors,
    },
    /// Of the weights at the last few moments (Izmailov et al. 2018).
    Checkpoints {
        /// Moments kept at most.
        last: usize,
        /// Steps from one to the next.
        every_steps: u64,
        /// The weights by their step.
        moments: BTreeMap<u64, NamedTensors>,
    },
}

/// Copies of the trained weights.
pub(super) fn copies(model: &TaskModel) -> Result<NamedTensors, ModelError> {
    model.trained().map(|(name, tensor)| Ok((name.to_owned(), duplicate(tensor)?))).collect()
}

impl Average {
    /// Nothing averaged yet; `every_steps` are those of [`WeightAverage::Checkpoints`].
    pub(super) fn new(choice: WeightAverage, every_steps: u64) -> Self {
        match choice {
            WeightAverage::Off => Self::Off,
            WeightAverage::Ema { decay } => Self::Ema { decay, weights: NamedTensors::new() },
            WeightAverage::Checkpoints { last, .. } => Self::Checkpoints {
                last: usize::try_from(last).unwrap_or(usize::MAX).max(1),
                every_steps: every_steps.max(1),
                moments: BTreeMap::new(),
            },
        }
    }

    /// Takes in the weights after `step` updates.
    pub(super) fn observe(&mut self, step: u64, model: &TaskModel) -> Result<(), ModelError> {
        match self {
            Self::Off => {}
            Self::Ema { weights, .. } if weights.is_empty() => *weights = copies(model)?,
            Self::Ema { decay, weights } => {
                // Both are in the order of the names.
                let averages: Vec<Tensor> = weights.values().map(Tensor::shallow_clone).collect();
                let current: Vec<Tensor> =
                    model.trained().map(|(_, tensor)| tensor.shallow_clone()).collect();
                ffi::lerp(&averages, &current, *decay)?;
            }
            Self::Checkpoints { last, every_steps, moments } => {
                if step.is_multiple_of(*every_steps) {
                    moments.insert(step, copies(model)?);
                    while moments.len() > *last {
                        moments.pop_first();
                    }
                }
            }
        }
        Ok(())
    }

    /// The averaged weights; `None` where the weights themselves count.
    pub(super) fn weights(&self) -> Result<Option<NamedTensors>, ModelError> {
        match self {
            Self::Off => Ok(None),
            Self::Ema { weights, .. } if weights.is_empty() => Ok(None),
            Self::Ema { weights, .. } => {
                let copies = weights.iter();
                let copies = copies.map(|(name, tensor)| Ok((name.clone(), duplicate(tensor)?)));
                copies.collect::<Result<_, ModelError>>().map(Some)
            }
            Self::Checkpoints { moments, .. } => mean(moments),
        }
    }

    /// Its state, for a checkpoint.
    pub(super) fn named(&self) -> NamedTensors {
        let mut state = NamedTensors::new();
        let mut put = |prefix: &str, tensors: &NamedTensors| {
            for (name, tensor) in tensors {
                state.insert(format!("{prefix}{name}"), tensor.shallow_clone());
            }
        };
        match self {
            Self::Off => {}
            Self::Ema { weights, .. } => put("", weights),
            Self::Checkpoints { moments, .. } => {
                for (step, weights) in moments {
                    put(&format!("{step}/"), weights);
                }
            }
        }
        state
    }

    /// Continues from what [`Average::named`] gave, on the device of `model`.
    pub(super) fn restore(
        &mut self,
        state: &NamedTensors,
        model: &TaskModel,
    ) -> Result<(), TrainError> {
        let own = |tensor: &Tensor| -> Result<Tensor, ModelError> {
            duplicate(&tensor.f_to_device(model.device())?)
        };
        match self {
            Self::Off => {}
            Self::Ema { weights, .. } => {
                weights.clear();
                for (name, tensor) in state {
                    weights.insert(name.clone(), own(tensor)?);
                }
            }
            Self::Checkpoints { moments, .. } => {
                moments.clear();
                for (name, tensor) in state {
                    let parts = name.split_once('/');
                    let parts = parts.and_then(|(step, name)| Some((step.parse().ok()?, name)));
                    let Some((step, name)) = parts else {
                        return Err(TrainError::Average { name: name.clone() });
                    };
                    let weights: &mut NamedTensors = moments.entry(step).or_default();
                    weights.insert(name.to_owned(), own(tensor)?);
                }
            }
        }
        Ok(())
    }
}

/// Mean of several sets of weights of the same names; `None` of none.
fn mean(moments: &BTreeMap<u64, NamedTensors>) -> Result<Option<NamedTensors>, ModelError> {
    let Some((_, first)) = moments.first_key_value() else { return Ok(None) };
    let mut sums = NamedTensors::new();
    for name in first.keys() {
        let values: Vec<&Tensor> =
            moments.values().filter_map(|weights| weights.get(name)).collect();
        let mean = Tensor::f_stack(&values, 0)?.f_mean_dim(0i64, false, None)?;
        sums.insert(name.clone(), mean);
    }
    Ok(Some(sums))
}

/// The weights of a checkpoint that were scored and are exported: the best of a trial that watches
/// for improvements, else the average, else those of the last step.
pub fn evaluated_weights(
    snapshot: Snapshot,
    model: &TaskModel,
) -> Result<NamedTensors, TrainError> {
    if !snapshot.best.is_empty() {
        return Ok(snapshot.best);
    }
    let mut average = Average::new(snapshot.progress.training.average, 1);
    average.restore(&snapshot.average, model)?;
    Ok(average.weights()?.unwrap_or(snapshot.model))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// Made by `tests/golden/train/generate.py`.
    const GOLDEN: &str = include_str!("../../../tests/golden/train/ema.json");

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        decay: f64,
        steps: Vec<Step>,
    }

    #[derive(Deserialize)]
    struct Step {
        weights: Vec<f32>,
        average: Vec<f32>,
    }

    #[test]
    fn moving_averages_equal_those_of_torch() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        for Case { decay, steps } in golden.cases {
            let average = Tensor::from_slice(&steps[0].weights);
            for (number, step) in steps.iter().enumerate() {
                if number > 0 {
                    let weights = [Tensor::from_slice(&step.weights)];
                    ffi::lerp(&[average.shallow_clone()], &weights, decay).unwrap();
                }
                let found = Vec::<f32>::try_from(&average).unwrap();
                for (found, wanted) in found.iter().zip(&step.average) {
                    assert!((found - wanted).abs() < 1e-6, "{decay}: {found}, not {wanted}");
                }
            }
        }
    }

    #[test]
    fn the_mean_is_over_all_moments() {
        let weights = |value: f32| {
            NamedTensors::from([("w".to_owned(), Tensor::from_slice(&[value, 2.0 * value]))])
        };
        let moments = BTreeMap::from([(1, weights(1.0)), (2, weights(2.0)), (3, weights(6.0))]);
        let mean = mean(&moments).unwrap().unwrap();
        assert_eq!(Vec::<f32>::try_from(&mean["w"]).unwrap(), [3.0, 6.0]);
        assert!(super::mean(&BTreeMap::new()).unwrap().is_none());
    }
}
