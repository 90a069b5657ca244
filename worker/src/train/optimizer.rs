//! AdamW over flat lists of parameters, sorted by name.

use muster_common::manifest::TrialSettings;
use tch::Tensor;

use crate::ffi::{self, AdamW};
use crate::model::{Classifier, ModelError, NameList, NamedTensors, duplicate, is_layer_norm};

const FIRST_MOMENT: &str = "exp_avg";
const SECOND_MOMENT: &str = "exp_avg_sq";

/// Parameters that share their weight decay.
#[derive(Debug)]
struct Group {
    weight_decay: f64,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    first_moments: Vec<Tensor>,
    second_moments: Vec<Tensor>,
}

/// The optimizer of one trial.
#[derive(Debug)]
pub struct Optimizer {
    /// Matrices decay, biases and LayerNorm do not.
    groups: [Group; 2],
    parameters: Vec<Tensor>,
    update: AdamW,
    max_grad_norm: Option<f64>,
}

/// Whether weight decay applies to the parameter called `name`.
fn decays(name: &str) -> bool {
    name.rsplit('.').next() != Some("bias") && !is_layer_norm(name)
}

impl Optimizer {
    /// For the trained parameters of `model`, with moments of zero.
    pub fn new(model: &Classifier, settings: &TrialSettings) -> Result<Self, ModelError> {
        let mut groups = [settings.weight_decay, 0.0].map(|weight_decay| Group {
            weight_decay,
            names: Vec::new(),
            parameters: Vec::new(),
            first_moments: Vec::new(),
            second_moments: Vec::new(),
        });
        let mut parameters = Vec::new();
        let [decaying, plain] = &mut groups;
        for (name, parameter) in model.trained() {
            let group = if decays(name) { &mut *decaying } else { &mut *plain };
            group.names.push(name.to_owned());
            group.parameters.push(parameter.shallow_clone());
            let zeros =
                || Tensor::f_zeros(parameter.size(), (parameter.kind(), parameter.device()));
            group.first_moments.push(zeros()?);
            group.second_moments.push(zeros()?);
            parameters.push(parameter.shallow_clone());
        }
        let update = AdamW {
            step: 0,
            learning_rate: 0.0,
            beta1: settings.adam_beta1,
            beta2: settings.adam_beta2,
            weight_decay: 0.0,
            epsilon: settings.adam_epsilon,
        };
        Ok(Self { groups, parameters, update, max_grad_norm: settings.max_grad_norm })
    }

    /// Clips, updates and clears the gradients. `step` counts from 1. Returns the norm of the
    /// gradients before clipping, a 0-d tensor that has not been waited for.
    pub fn step(&self, step: u64, learning_rate: f64) -> Result<Tensor, ModelError> {
        let norm = ffi::clip_gradients(&self.parameters, self.max_grad_norm)?;
        for group in &self.groups {
            let weight_decay = group.weight_decay;
            let update = AdamW { step, learning_rate, weight_decay, ..self.update };
            ffi::adamw(&group.parameters, &group.first_moments, &group.second_moments, &update)?;
        }
        ffi::clear_gradients(&self.parameters)?;
        Ok(norm)
    }

    /// Copies of both moments, named `exp_avg.PARAMETER` and `exp_avg_sq.PARAMETER`.
    pub fn moments(&self) -> Result<NamedTensors, ModelError> {
        self.named().map(|(name, tensor)| Ok((name, duplicate(tensor)?))).collect()
    }

    /// Overwrites both moments; `values` must hold exactly those of [`Optimizer::moments`].
    pub fn restore(&mut self, mut values: NamedTensors) -> Result<(), ModelError> {
        let mut missing = Vec::new();
        for (name, tensor) in self.named() {
            let Some(value) = values.remove(&name) else {
                missing.push(name);
                continue;
            };
            let (wanted, found) = (tensor.size(), value.size());
            if wanted != found {
                return Err(ModelError::Shape { name, wanted, found });
            }
            tensor.shallow_clone().f_copy_(&value)?;
        }
        if missing.is_empty() && values.is_empty() {
            return Ok(());
        }
        Err(ModelError::Names {
            path: "the checkpoint's optimizer part".to_owned(),
            missing: NameList(missing),
            unexpected: NameList(values.into_keys().collect()),
        })
    }

    fn named(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.groups.iter().flat_map(|group| {
            let named = |moment: &'static str, tensors| {
                let both = group.names.iter().zip(tensors);
                both.map(move |(name, tensor)| (format!("{moment}.{name}"), tensor))
            };
            named(FIRST_MOMENT, &group.first_moments)
                .chain(named(SECOND_MOMENT, &group.second_moments))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::decays;

    #[test]
    fn biases_and_layer_norms_do_not_decay() {
        assert!(decays("bert.encoder.layer.0.output.dense.weight"));
        assert!(decays("classifier.weight"));
        assert!(!decays("classifier.bias"));
        assert!(!decays("bert.encoder.layer.0.output.LayerNorm.weight"));
        assert!(!decays("distilbert.transformer.layer.0.sa_layer_norm.weight"));
        assert!(!decays("lm_head.layer_norm.weight"));
    }
}
