//! How much each token has to do with the score of a class.
//!
//! Integrated gradients: Sundararajan, Taly, Yan 2017, "Axiomatic Attribution for Deep Networks", arXiv 1703.01365,
//! equation 1, over word embeddings. Gradient x input: Shrikumar et al. 2016, arXiv 1605.01713. Occlusion: Zeiler and
//! Fergus 2014, arXiv 1311.2901, with whole tokens as the window.
//!
//! Symbols: `x` word embeddings of the text, `x'` of the baseline, `f` the logit of the class.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::quadrature::gauss_legendre;
use super::subject::{Subject, doubles};
use crate::model::ModelError;

/// Whether an attribution adds up to what it explains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Completeness {
    /// Score (logit) of the text.
    pub score: f64,
    /// Score of the baseline.
    pub baseline_score: f64,
    /// Sum over all tokens; should be the difference of the two scores.
    pub sum: f64,
    /// The sum less the difference of scores.
    pub error: f64,
}

impl Completeness {
    /// Of an attribution that sums to `sum` between these ends.
    pub(super) fn of([score, baseline_score]: [f64; 2], sum: f64) -> Self {
        Self { score, baseline_score, sum, error: sum - (score - baseline_score) }
    }

    /// Size of the error as a share of the difference of scores; infinite where that is zero and the error is not.
    pub fn relative(&self) -> f64 {
        let difference = (self.score - self.baseline_score).abs();
        if self.error == 0.0 { 0.0 } else { self.error.abs() / difference }
    }
}

/// `(x - x') * integral of df/dx from x' to x`, summed over the embedding, one value per token; by `steps` points.
pub fn integrated_gradients(
    subject: &Subject<'_>,
    steps: u32,
) -> Result<(Vec<f64>, Completeness), ModelError> {
    let nodes = gauss_legendre(steps);
    let mut integral: Option<Tensor> = None; // [1, L, D]
    for nodes in nodes.chunks(subject.sequences_per_pass()) {
        let places: Vec<f64> = nodes.iter().map(|node| node.at).collect();
        let weights: Vec<f64> = nodes.iter().map(|node| node.weight).collect();
        let (words, pass) = subject.watched(&subject.between(&places)?)?;
        let gradients = subject.gradients(&pass, &[&words])?;
        let Some(gradient) = gradients.first() else { continue };
        let weights = Tensor::f_from_slice(&weights)?.f_view([-1, 1, 1])?;
        let weights = weights.f_to_kind(gradient.kind())?.f_to_device(gradient.device())?;
        let part = gradient.f_mul(&weights)?.f_sum_dim_intlist(0i64, true, Kind::Float)?;
        integral = Some(match integral {
            Some(sum) => sum.f_add(&part)?,
            None => part,
        });
    }
    let attributions = match integral {
        Some(integral) => per_token(&subject.difference()?.f_mul(&integral)?)?,
        None => vec![0.0; subject.length()],
    };
    let completeness = Completeness::of(subject.ends()?, attributions.iter().sum());
    Ok((attributions, completeness))
}

/// `x * df/dx` at the text, summed over the embedding, one value per token.
pub fn gradient_times_input(subject: &Subject<'_>) -> Result<Vec<f64>, ModelError> {
    let (words, pass) = subject.watched(subject.words())?;
    let gradients = subject.gradients(&pass, &[&words])?;
    match gradients.first() {
        Some(gradient) => per_token(&gradient.f_mul(subject.words())?),
        None => Ok(vec![0.0; subject.length()]),
    }
}

/// By how much the score falls when the tokens of a group are those of the baseline; one value per group.
pub fn occlusion(subject: &Subject<'_>, groups: &[Vec<usize>]) -> Result<Vec<f64>, ModelError> {
    let [score, _] = subject.ends()?;
    let masks: Vec<Vec<bool>> = groups.iter().map(|group| mask(subject.length(), group)).collect();
    let scores = subject.scores_without(&masks)?;
    Ok(scores.into_iter().map(|without| score - without).collect())
}

/// Every token of the text as a group of its own, and none of the special ones.
pub fn single_tokens(subject: &Subject<'_>) -> Vec<Vec<usize>> {
    let ordinary = subject.ordinary().iter().enumerate().filter(|(_, is_ordinary)| **is_ordinary);
    ordinary.map(|(at, _)| vec![at]).collect()
}

/// Marks the tokens of a group.
pub(super) fn mask(length: usize, group: &[usize]) -> Vec<bool> {
    let mut mask = vec![false; length];
    for at in group {
        if let Some(mark) = mask.get_mut(*at) {
            *mark = true;
        }
    }
    mask
}

/// `[1, L, D]` to `L` sums.
fn per_token(values: &Tensor) -> Result<Vec<f64>, ModelError> {
    doubles(&values.f_sum_dim_intlist(-1i64, false, Kind::Double)?)
}
