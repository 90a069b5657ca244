//! How well each layer's states tell the classes apart: a linear classifier is trained on the states of some texts and
//! asked about others (Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes", arXiv
//! 1610.01644). Multinomial logistic regression on standardized states, with a small penalty on its weights; texts are
//! divided into five parts, and each part is asked about by a probe of the other four.
//!
//! Shapes: `N` texts, `D` hidden, `C` classes.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::subject::doubles;
use crate::model::{ModelError, extent};

/// Parts that texts are divided into.
const PARTS: usize = 5;
/// Steps of the optimizer. The problem is convex, and the step size fits the curvature.
const STEPS: usize = 300;
/// Weight of the penalty, half the sum of squares, beside the mean loss.
const PENALTY: f64 = 1e-3;

/// Share of texts whose class the states of a layer tell, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProbeAccuracy {
    /// 0 is what the first layer reads, `n` the output of layer `n`.
    pub layer: usize,
    /// From the state of the first token, which the model's own head reads.
    pub first_token: f64,
    /// From the mean over all tokens.
    pub mean_token: f64,
}

/// Share of right answers about texts that the probe has not seen; `states` is `[N, D]`, and there are as many
/// `classes`.
pub(super) fn probe(
    states: &Tensor,
    classes: &[usize],
    num_classes: usize,
) -> Result<f64, ModelError> {
    let parts = parts_of(classes);
    let states = states.f_to_kind(Kind::Float)?;
    let mut right = 0usize;
    for part in 0..PARTS {
        let (asked, seen): (Vec<usize>, Vec<usize>) =
            (0..classes.len()).partition(|index| parts.get(*index) == Some(&part));
        if asked.is_empty() || seen.is_empty() {
            continue;
        }
        let rows = |indices: &[usize]| -> Result<Tensor, ModelError> {
            let indices: Vec<i64> = indices.iter().map(|index| extent(*index)).collect();
            let indices = Tensor::f_from_slice(&indices)?.f_to_device(states.device())?;
            Ok(states.f_index_select(0, &indices)?)
        };
        let truth = |indices: &[usize]| -> Vec<i64> {
            indices
                .iter()
                .filter_map(|index| classes.get(*index))
                .map(|class| extent(*class))
                .collect()
        };
        let (x, standard) = standardized(&rows(&seen)?)?;
        let y = Tensor::f_from_slice(&truth(&seen))?.f_to_device(x.device())?;
        let weights = tch::no_grad(|| fit(&x, &y, extent(num_classes)))?;
        let scores = with_constant(&standard.apply(&rows(&asked)?)?)?.f_matmul(&weights)?;
        let found =
            Vec::<i64>::try_from(&scores.f_argmax(-1, false)?.f_to_device(tch::Device::Cpu)?)?;
        right += found.iter().zip(truth(&asked)).filter(|(found, truth)| *found == truth).count();
    }
    Ok(right as f64 / classes.len().max(1) as f64)
}

/// Shift and scale of every column.
struct Standard {
    mean: Tensor,  // [1, D]
    scale: Tensor, // [1, D]
}

impl Standard {
    fn apply(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_sub(&self.mean)?.f_mul(&self.scale)?)
    }
}

/// Columns with mean 0 and variance 1; those that never change become 0.
fn standardized(x: &Tensor) -> Result<(Tensor, Standard), ModelError> {
    let mean = x.f_mean_dim(0i64, true, Kind::Float)?;
    let apart = x.f_sub(&mean)?;
    let variance = apart.f_mul(&apart)?.f_mean_dim(0i64, true, Kind::Float)?;
    let varies = variance.f_gt(1e-12)?.f_to_kind(Kind::Float)?;
    let scale = variance.f_clamp_min(1e-12)?.f_rsqrt()?.f_mul(&varies)?;
    let standard = Standard { mean, scale };
    Ok((standard.apply(x)?, standard))
}

/// `[N, D]` to `[N, D + 1]`.
fn with_constant(x: &Tensor) -> Result<Tensor, ModelError> {
    let ones = Tensor::f_ones([x.size2()?.0, 1], (x.kind(), x.device()))?;
    Ok(Tensor::f_cat(&[x, &ones], 1)?)
}

/// Weights `[D + 1, C]` of multinomial logistic regression, by Nesterov's accelerated gradient descent.
fn fit(x: &Tensor, y: &Tensor, num_classes: i64) -> Result<Tensor, ModelError> {
    let x = with_constant(x)?;
    let (count, width) = x.size2()?;
    let truth = y.f_one_hot(num_classes)?.f_to_kind(Kind::Float)?; // [N, C]
    // The curvature is at most half the largest eigenvalue of x'x/N, which the trace and power iteration bound.
    let curvature = 0.5 * largest_eigenvalue(&x)? + PENALTY;
    let mut weights = Tensor::f_zeros([width, num_classes], (Kind::Float, x.device()))?;
    let mut ahead = weights.shallow_clone();
    for step in 0..STEPS {
        let wrong = x.f_matmul(&ahead)?.f_softmax(-1, Kind::Float)?.f_sub(&truth)?;
        let slope = x.f_transpose(0, 1)?.f_matmul(&wrong)?.f_div_scalar(count as f64)?;
        let slope = slope.f_add(&ahead.f_mul_scalar(PENALTY)?)?;
        let next = ahead.f_sub(&slope.f_div_scalar(curvature)?)?;
        let momentum = step as f64 / (step as f64 + 3.0);
        ahead = next.f_add(&next.f_sub(&weights)?.f_mul_scalar(momentum)?)?;
        weights = next;
    }
    Ok(weights)
}

/// Of `x'x / N`, a little too large rather than too small.
fn largest_eigenvalue(x: &Tensor) -> Result<f64, ModelError> {
    const ROUNDS: usize = 30;
    let (count, width) = x.size2()?;
    let mut direction = Tensor::f_ones([width, 1], (Kind::Float, x.device()))?;
    let mut value = 0.0;
    for _ in 0..ROUNDS {
        let norm = direction.f_norm()?.f_clamp_min(1e-20)?;
        direction = direction.f_div(&norm)?;
        let image = x.f_transpose(0, 1)?.f_matmul(&x.f_matmul(&direction)?)?;
        direction = image.f_div_scalar(count as f64)?;
        value = doubles(&direction.f_norm()?)?.first().copied().unwrap_or(0.0);
    }
    // Power iteration comes from below.
    Ok(1.2 * value + 1e-6)
}

/// The part of every text: those of a class are dealt out in turn, so that every part has its share of each class.
fn parts_of(classes: &[usize]) -> Vec<usize> {
    let mut dealt: Vec<usize> = Vec::new();
    let part = |class: &usize| {
        if dealt.len() <= *class {
            dealt.resize(class + 1, 0);
        }
        let Some(count) = dealt.get_mut(*class) else { return 0 };
        *count += 1;
        (*count - 1) % PARTS
    };
    classes.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::seed::Seed;

    /// `count` states of `width` columns of noise, of which the first says the class of three where `telling`.
    fn sample(count: usize, width: usize, telling: bool) -> (Tensor, Vec<usize>) {
        let mut draws = Seed(3).draws();
        let classes: Vec<usize> = (0..count).map(|index| index % 3).collect();
        let mut values = Vec::new();
        for class in &classes {
            for column in 0..width {
                let told = if telling && column < 3 {
                    f64::from(u8::from(column == *class)) * 4.0
                } else {
                    0.0
                };
                values.push(draws.unit() - 0.5 + told);
            }
        }
        (Tensor::from_slice(&values).view([extent(count), extent(width)]), classes)
    }

    #[test]
    fn what_states_tell_is_found_and_noise_is_not() {
        let (states, classes) = sample(150, 20, true);
        assert!(probe(&states, &classes, 3).unwrap() > 0.98);
        let (states, classes) = sample(300, 20, false);
        let accuracy = probe(&states, &classes, 3).unwrap();
        // Chance is 1/3, and three standard errors are 0.08.
        assert!((accuracy - 1.0 / 3.0).abs() < 0.09, "{accuracy}");
    }

    #[test]
    fn columns_that_never_change_do_no_harm() {
        let (states, classes) = sample(60, 4, true);
        let constant = Tensor::ones([60, 2], (Kind::Double, states.device())) * 7.0;
        let states = Tensor::cat(&[states, constant], 1);
        assert!(probe(&states, &classes, 3).unwrap() > 0.95);
        assert!(probe(&states.narrow(0, 0, 1), &[0], 3).unwrap() < 0.5);
    }
}
