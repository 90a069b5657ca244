//! Named tensors, sorted by name: the order of everything that walks over parameters.

use std::collections::{BTreeMap, BTreeSet};

use muster_common::seed::{Draws, Seed};
use tch::{Device, Tensor};

use super::{ModelError, NameList};

/// Tensors by their Hugging Face name.
pub type NamedTensors = BTreeMap<String, Tensor>;

/// A path into [`NamedTensors`], so that constructors read like the checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'a> {
    tensors: &'a NamedTensors,
    path: String,
}

impl<'a> Scope<'a> {
    pub(crate) fn root(tensors: &'a NamedTensors) -> Self {
        Self { tensors, path: String::new() }
    }

    pub(crate) fn child(&self, name: &str) -> Self {
        Self { tensors: self.tensors, path: self.name_of(name) }
    }

    fn name_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The tensor called `name` here, which must have `shape`. Shares its memory.
    pub(crate) fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let name = self.name_of(name);
        let Some(tensor) = self.tensors.get(&name) else {
            return Err(ModelError::MissingParameter { name });
        };
        let found = tensor.size();
        if found != shape {
            return Err(ModelError::Shape { name, wanted: shape.to_vec(), found });
        }
        Ok(tensor.shallow_clone())
    }
}

/// The parameters of a model, and which of them are not trained.
#[derive(Debug)]
pub(crate) struct ParameterSet {
    tensors: NamedTensors,
    frozen: BTreeSet<String>,
}

impl ParameterSet {
    /// Those outside `frozen` are trained.
    pub(crate) fn new(tensors: NamedTensors, frozen: BTreeSet<String>) -> Self {
        Self { tensors, frozen }
    }

    /// Every parameter by its name.
    pub(crate) fn all(&self) -> &NamedTensors {
        &self.tensors
    }

    /// The parameters that are trained, in the order of their names.
    pub(crate) fn trained(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let trained = self.tensors.iter().filter(|(name, _)| !self.frozen.contains(*name));
        trained.map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Overwrites the trained parameters; `values` must hold exactly those.
    pub(crate) fn restore(&self, values: &NamedTensors) -> Result<(), ModelError> {
        let names: BTreeSet<&str> = self.trained().map(|(name, _)| name).collect();
        let unexpected = values.keys().filter(|name| !names.contains(name.as_str()));
        let missing = names.iter().filter(|name| !values.contains_key(**name));
        let unexpected: Vec<String> = unexpected.cloned().collect();
        let missing: Vec<String> = missing.map(|name| (*name).to_owned()).collect();
        if !unexpected.is_empty() || !missing.is_empty() {
            return Err(ModelError::Names {
                path: "the checkpoint".to_owned(),
                missing: NameList(missing),
                unexpected: NameList(unexpected),
            });
        }
        tch::no_grad(|| {
            for (name, value) in values {
                let Some(tensor) = self.tensors.get(name) else { continue };
                let (wanted, found) = (tensor.size(), value.size());
                if wanted != found {
                    return Err(ModelError::Shape { name: name.clone(), wanted, found });
                }
                tensor.shallow_clone().f_copy_(value)?;
            }
            Ok(())
        })
    }
}

/// A copy in memory of its own, outside any graph.
pub(crate) fn duplicate(tensor: &Tensor) -> Result<Tensor, ModelError> {
    let source = tensor.f_detach()?;
    let mut copy = Tensor::f_empty(source.size(), (source.kind(), source.device()))?;
    copy.f_copy_(&source)?;
    Ok(copy)
}

/// A `[rows, columns]` tensor of draws from a normal distribution around 0 (Box and Muller 1958).
/// The draws come from the seed tree, so they do not depend on libtorch's generator.
pub(crate) fn normal(
    seed: Seed,
    shape: [i64; 2],
    deviation: f64,
    device: Device,
) -> Result<Tensor, ModelError> {
    let count = usize::try_from(shape[0] * shape[1]).unwrap_or(0);
    let mut draws = seed.draws();
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (a, b) = normal_pair(&mut draws);
        values.push(a * deviation);
        values.push(b * deviation);
    }
    values.truncate(count);
    let tensor = Tensor::f_from_slice(&values)?.f_to_kind(tch::Kind::Float)?;
    Ok(tensor.f_view(shape)?.f_to_device(device)?)
}

fn normal_pair(draws: &mut Draws) -> (f64, f64) {
    // 1 - unit lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * (1.0 - draws.unit()).ln()).sqrt();
    let angle = std::f64::consts::TAU * draws.unit();
    (radius * angle.cos(), radius * angle.sin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_normal_and_repeatable() {
        let draw = || normal(Seed(5), [100, 101], 0.02, Device::Cpu).unwrap();
        let tensor = draw();
        assert_eq!(tensor, draw());
        assert_eq!(tensor.size(), [100, 101]);
        let (mean, deviation) = (tensor.mean(None), tensor.std(true));
        assert!(mean.double_value(&[]).abs() < 1e-3);
        assert!((deviation.double_value(&[]) - 0.02).abs() < 1e-3);
    }

    #[test]
    fn a_wrong_shape_is_named() {
        let mut tensors = NamedTensors::new();
        tensors.insert("a.b".to_owned(), Tensor::from_slice(&[1.0f32, 2.0]));
        let scope = Scope::root(&tensors).child("a");
        assert!(scope.tensor("b", &[2]).is_ok());
        assert!(scope.tensor("b", &[3]).unwrap_err().to_string().contains("a.b"));
        assert!(scope.tensor("c", &[3]).unwrap_err().to_string().contains("a.c"));
    }
}
