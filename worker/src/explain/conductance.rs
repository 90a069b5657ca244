//! What of the difference between text and baseline flows through which layer: Dhamdhere, Sundararajan, Yan 2018, "How
//! Important Is a Neuron?", arXiv 1805.12233, equation 1.
//!
//! The conductance of a neuron `h` is the integral of `df/dh * dh/da` over the way `a` from baseline to text. The
//! way is cut into steps, and a step counts `(h(a + s) - h(a))` times the mean of `df/dh` at its two ends: unlike a
//! sum over left ends its error falls with the square of the step. Over all neurons of a layer the conductance is
//! the difference of the scores.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::attribution::Completeness;
use super::subject::{Subject, doubles};
use crate::model::ModelError;

/// Conductance through the output of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerConductance {
    /// 0 is what the first layer reads, `n` the output of layer `n`.
    pub layer: usize,
    /// Summed over the neurons of each token.
    pub tokens: Vec<f64>,
    /// Whether the tokens add up to the difference of the scores.
    pub completeness: Completeness,
}

/// Values at one place of the way: states and gradients of every layer, each `[1, L, D]`.
struct Place {
    states: Vec<Tensor>,
    gradients: Vec<Tensor>,
}

/// Of every layer, in order; by so many steps, which must be at least one.
pub fn layer_conductance(
    subject: &Subject<'_>,
    steps: u32,
) -> Result<Vec<LayerConductance>, ModelError> {
    let places: Vec<f64> = (0..=steps).map(|step| f64::from(step) / f64::from(steps)).collect();
    let num_states = subject.num_layers() + 1;
    let mut sums = vec![vec![0.0; subject.length()]; num_states];
    let mut last: Option<Place> = None;
    for places in places.chunks(subject.sequences_per_pass()) {
        let (_words, pass) = subject.watched(&subject.between(places)?)?;
        let inputs: Vec<&Tensor> = pass.states.iter().collect();
        let gradients = subject.gradients(&pass, &inputs)?;
        let mut next = Place { states: Vec::new(), gradients: Vec::new() };
        for (index, (states, gradients)) in pass.states.iter().zip(&gradients).enumerate() {
            let (mut states, mut gradients) = (states.f_detach()?, gradients.shallow_clone());
            if let Some(last) = &last
                && let (Some(state), Some(gradient)) =
                    (last.states.get(index), last.gradients.get(index))
            {
                states = Tensor::f_cat(&[state, &states], 0)?;
                gradients = Tensor::f_cat(&[gradient, &gradients], 0)?;
            }
            if let Some(sum) = sums.get_mut(index) {
                for (sum, value) in sum.iter_mut().zip(steps_of(&states, &gradients)?) {
                    *sum += value;
                }
            }
            let end = states.size().first().copied().unwrap_or(1) - 1;
            next.states.push(states.f_narrow_copy(0, end, 1)?);
            next.gradients.push(gradients.f_narrow_copy(0, end, 1)?);
        }
        last = Some(next);
    }
    let ends = subject.ends()?;
    let layer = |(layer, tokens): (usize, Vec<f64>)| {
        let completeness = Completeness::of(ends, tokens.iter().sum());
        LayerConductance { layer, tokens, completeness }
    };
    Ok(sums.into_iter().enumerate().map(layer).collect())
}

/// Sum over the steps between the places of `[P, L, D]`, and over the embedding: one value per token.
fn steps_of(states: &Tensor, gradients: &Tensor) -> Result<Vec<f64>, ModelError> {
    let steps = states.size().first().copied().unwrap_or(1) - 1;
    let length = states.size().get(1).copied().unwrap_or(0);
    if steps == 0 {
        return Ok(vec![0.0; usize::try_from(length).unwrap_or(0)]);
    }
    let pair = |x: &Tensor| -> Result<[Tensor; 2], ModelError> {
        Ok([x.f_narrow(0, 0, steps)?, x.f_narrow(0, 1, steps)?])
    };
    let ([from, to], [left, right]) = (pair(states)?, pair(gradients)?);
    let mean = left.f_add(&right)?.f_mul_scalar(0.5)?;
    let product = to.f_sub(&from)?.f_mul(&mean)?; // [S, L, D]
    doubles(&product.f_sum_dim_intlist([0i64, 2].as_slice(), false, Kind::Double)?)
}
