//! What of the difference between text and baseline flows through which layer: Dhamdhere, Sundararajan, Yan 2018, "How
//! Important Is a Neuron?", arXiv 1805.12233, equation 1.
//!
//! The conductance of a neuron `h` is the integral of `df/dh * dh/da` over the way `a` from baseline to text; over
//! all neurons of a layer it is the difference of the scores. Both factors are smooth, so that the rule of Gauss and
//! Legendre needs few points; `dh/da` is the derivative of the polynomial through `h` at all points. Sums over
//! differences of neighbours, as Captum has them, come to the same with thousands of points.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::attribution::Completeness;
use super::quadrature::{Node, differentiation, gauss_legendre};
use super::subject::{Subject, doubles};
use crate::model::{ModelError, extent};

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

/// States of a layer, and gradients of the score with respect to them, at some points: each `[N, L, D]`.
#[derive(Debug, Default)]
struct Course {
    states: Vec<Tensor>,
    gradients: Vec<Tensor>,
}

/// Of every layer, in order; by so many points, which must be at least one.
pub fn layer_conductance(
    subject: &Subject<'_>,
    steps: u32,
) -> Result<Vec<LayerConductance>, ModelError> {
    let nodes = gauss_legendre(steps);
    let mut courses: Vec<Course> = Vec::new();
    courses.resize_with(subject.num_layers() + 1, Course::default);
    for nodes in nodes.chunks(subject.sequences_per_pass()) {
        let places: Vec<f64> = nodes.iter().map(|node| node.at).collect();
        let (_words, pass) = subject.watched(&subject.between(&places)?)?;
        let inputs: Vec<&Tensor> = pass.states.iter().collect();
        let gradients = subject.gradients(&pass, &inputs)?;
        for (course, (state, gradient)) in courses.iter_mut().zip(pass.states.iter().zip(gradients))
        {
            course.states.push(state.f_detach()?);
            course.gradients.push(gradient);
        }
    }
    let weighted = weighted_differentiation(&nodes, subject.words())?;
    let ends = subject.ends()?;
    let of_layer = |(layer, course): (usize, Course)| {
        let tokens = course.integral(&weighted)?;
        let completeness = Completeness::of(ends, tokens.iter().sum());
        Ok(LayerConductance { layer, tokens, completeness })
    };
    courses.into_iter().enumerate().map(of_layer).collect()
}

impl Course {
    /// Sum over points `i` of the gradient there times `weighted[i]` times all states; over the embedding too.
    fn integral(&self, weighted: &Tensor) -> Result<Vec<f64>, ModelError> {
        let states = Tensor::f_cat(&self.states, 0)?; // [N, L, D]
        let gradients = Tensor::f_cat(&self.gradients, 0)?;
        let shape = states.size();
        let count = shape.first().copied().unwrap_or(0);
        let slopes =
            weighted.f_matmul(&states.f_reshape([count, -1])?)?.f_view(shape.as_slice())?;
        let products = slopes.f_mul(&gradients)?;
        doubles(&products.f_sum_dim_intlist([0i64, 2].as_slice(), false, Kind::Double)?)
    }
}

/// Derivatives at every point, times the point's weight: `[N, N]`, of the kind and on the device of `like`.
fn weighted_differentiation(nodes: &[Node], like: &Tensor) -> Result<Tensor, ModelError> {
    let rows = nodes.iter().zip(differentiation(nodes));
    let flat: Vec<f64> =
        rows.flat_map(|(node, row)| row.into_iter().map(|value| value * node.weight)).collect();
    let count = extent(nodes.len());
    let matrix = Tensor::f_from_slice(&flat)?.f_view([count, count])?;
    Ok(matrix.f_to_kind(like.kind())?.f_to_device(like.device())?)
}
