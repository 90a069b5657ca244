//! A Gaussian process with a Matern 5/2 kernel and a length scale of its own for every dimension.
//!
//! Rasmussen, Williams 2006, "Gaussian Processes for Machine Learning", equations 2.25, 2.26, 4.17 and
//! 5.9. Symbols: `K` is the kernel matrix of the observed points with noise on its diagonal, `alpha` is
//! `K^-1 y`, `w_j` the inverse squared length scale of dimension `j`, `s2` the scale of the kernel. The
//! hyperparameters are those of the largest posterior density; the priors are those of Optuna's
//! `GPSampler`: gentle pulls towards 1 for `w_j` and `s2`, and towards little noise.

use super::climb::{Steps, climb};
use super::linear::{Cholesky, dot};

/// Least noise, relative to the variance of the values: keeps `K` well conditioned.
const NOISE_MIN: f64 = 1e-6;
/// Bounds of the logarithms of `w_j`, of `s2` and of the noise.
const LOG_WEIGHT: (f64, f64) = (-9.0, 9.0);
const LOG_SCALE: (f64, f64) = (-6.0, 6.0);
const LOG_NOISE: (f64, f64) = (-13.8, 0.0);
/// Where the climb to the hyperparameters begins.
const LOG_NOISE_START: f64 = -6.0;
const FIT: Steps = Steps { first: 0.3, longest: 1.5, shortest: 1e-2, evaluations: 60 };

/// Hyperparameters, as logarithms: `w_j` by dimension, then `s2`, then the noise.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kernel {
    log: Vec<f64>,
}

/// A process that has seen points.
#[derive(Debug)]
pub(super) struct Process {
    kernel: Kernel,
    points: Vec<Vec<f64>>,
    cholesky: Cholesky,
    alpha: Vec<f64>,
}

/// What a process expects at a point.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expectation {
    /// Mean.
    pub(super) mean: f64,
    /// Standard deviation, without noise.
    pub(super) deviation: f64,
    /// Gradient of the mean.
    pub(super) mean_gradient: Vec<f64>,
    /// Gradient of the standard deviation.
    pub(super) deviation_gradient: Vec<f64>,
}

impl Kernel {
    fn weights(&self) -> Vec<f64> {
        let num = self.log.len() - 2;
        self.log[..num].iter().map(|log| libm::exp(*log)).collect()
    }

    fn scale(&self) -> f64 {
        libm::exp(self.log[self.log.len() - 2])
    }

    fn noise(&self) -> f64 {
        libm::exp(self.log[self.log.len() - 1]).max(NOISE_MIN)
    }

    /// The hyperparameters of the largest posterior density for these points and values, which have
    /// mean 0 and variance 1.
    pub(super) fn fit(points: &[Vec<f64>], values: &[f64]) -> Self {
        let num_dimensions = points.first().map_or(0, Vec::len);
        let mut start = vec![0.0; num_dimensions + 2];
        start[num_dimensions + 1] = LOG_NOISE_START;
        let mut bounds = vec![LOG_WEIGHT; num_dimensions];
        bounds.extend([LOG_SCALE, LOG_NOISE]);
        let squares = squared_differences(points);
        let rate = |log: &[f64]| Self { log: log.to_vec() }.log_posterior(&squares, values);
        let found = climb(start.clone(), &bounds, FIT, rate);
        Self { log: found.map_or(start, |(log, _)| log) }
    }

    /// Logarithm of the posterior density, up to a constant, and its gradient.
    fn log_posterior(&self, squares: &[Vec<f64>], values: &[f64]) -> Option<(f64, Vec<f64>)> {
        let num = values.len();
        let (weights, scale, noise) = (self.weights(), self.scale(), self.noise());
        let mut matrix = vec![0.0; num * num];
        let mut slopes = vec![0.0; squares.len()];
        let mut pair = 0;
        for row in 0..num {
            matrix[row * num + row] = scale + noise;
            for column in 0..row {
                let distance = dot(&weights, &squares[pair]);
                let (value, slope) = matern(distance);
                matrix[row * num + column] = scale * value;
                matrix[column * num + row] = scale * value;
                slopes[pair] = scale * slope;
                pair += 1;
            }
        }
        let cholesky = Cholesky::new(&matrix, num)?;
        let mut alpha = values.to_vec();
        cholesky.solve(&mut alpha);
        let inverse = cholesky.inverse();
        let fit = -0.5 * (dot(values, &alpha) + cholesky.log_determinant());
        let mut gradient = vec![0.0; weights.len() + 2];
        let (mut by_scale, mut trace) = (0.0, 0.0);
        pair = 0;
        for row in 0..num {
            let own = alpha[row] * alpha[row] - inverse[row * num + row];
            trace += own;
            by_scale += 0.5 * own * scale;
            for column in 0..row {
                // Both halves of the symmetric matrix.
                let outer = alpha[row] * alpha[column] - inverse[row * num + column];
                by_scale += outer * matrix[row * num + column];
                let factor = outer * slopes[pair];
                for (sum, square) in gradient.iter_mut().zip(&squares[pair]) {
                    *sum += factor * square;
                }
                pair += 1;
            }
        }
        let mut prior = 0.0;
        for (sum, weight) in gradient.iter_mut().zip(&weights) {
            *sum *= weight;
            *sum += 0.1 / weight - 0.1 * weight;
            prior -= 0.1 / weight + 0.1 * weight;
        }
        prior += libm::log(scale) - scale + 0.1 * libm::log(noise) - 30.0 * noise;
        let last = gradient.len() - 2;
        gradient[last] = by_scale + 1.0 - scale;
        gradient[last + 1] = 0.5 * trace * noise + 0.1 - 30.0 * noise;
        Some((fit + prior, gradient))
    }
}

impl Process {
    /// The process that has seen these values; `None`: the matrix is not positive definite.
    pub(super) fn new(kernel: Kernel, points: Vec<Vec<f64>>, values: &[f64]) -> Option<Self> {
        let num = points.len();
        let (weights, scale) = (kernel.weights(), kernel.scale());
        let mut matrix = vec![0.0; num * num];
        for row in 0..num {
            matrix[row * num + row] = scale + kernel.noise();
            for column in 0..row {
                let distance = distance(&weights, &points[row], &points[column]);
                let value = scale * matern(distance).0;
                matrix[row * num + column] = value;
                matrix[column * num + row] = value;
            }
        }
        let cholesky = Cholesky::new(&matrix, num)?;
        let mut alpha = values.to_vec();
        cholesky.solve(&mut alpha);
        Some(Self { kernel, points, cholesky, alpha })
    }

    /// Mean at a point.
    pub(super) fn mean(&self, point: &[f64]) -> f64 {
        let (weights, scale) = (self.kernel.weights(), self.kernel.scale());
        let covariance = |other: &Vec<f64>| scale * matern(distance(&weights, point, other)).0;
        self.points.iter().map(covariance).zip(&self.alpha).map(|(k, alpha)| k * alpha).sum()
    }

    /// Mean and deviation at a point, with gradients if wanted.
    pub(super) fn expect(&self, point: &[f64], with_gradient: bool) -> Expectation {
        let (weights, scale) = (self.kernel.weights(), self.kernel.scale());
        let rated: Vec<(f64, f64)> = self
            .points
            .iter()
            .map(|other| matern(distance(&weights, point, other)))
            .map(|(value, slope)| (scale * value, scale * slope))
            .collect();
        let covariances: Vec<f64> = rated.iter().map(|(value, _)| *value).collect();
        let mean = dot(&covariances, &self.alpha);
        let mut solved = covariances.clone();
        let reduction = if with_gradient {
            self.cholesky.solve(&mut solved);
            dot(&covariances, &solved)
        } else {
            self.cholesky.solve_lower(&mut solved);
            dot(&solved, &solved)
        };
        let deviation = (scale - reduction).max(1e-12 * scale).sqrt();
        let num = if with_gradient { point.len() } else { 0 };
        let (mut mean_gradient, mut variance_gradient) = (vec![0.0; num], vec![0.0; num]);
        for dimension in 0..num {
            for (index, other) in self.points.iter().enumerate() {
                let apart = point[dimension] - other[dimension];
                let change = 2.0 * rated[index].1 * weights[dimension] * apart;
                mean_gradient[dimension] += self.alpha[index] * change;
                variance_gradient[dimension] -= 2.0 * solved[index] * change;
            }
        }
        let deviation_gradient =
            variance_gradient.iter().map(|slope| slope / (2.0 * deviation)).collect();
        Expectation { mean, deviation, mean_gradient, deviation_gradient }
    }
}

/// Matern 5/2 of a squared distance, and its derivative by that.
fn matern(squared: f64) -> (f64, f64) {
    let root = (5.0 * squared).sqrt();
    let fall = libm::exp(-root);
    ((1.0 + root + 5.0 / 3.0 * squared) * fall, -5.0 / 6.0 * (1.0 + root) * fall)
}

fn distance(weights: &[f64], a: &[f64], b: &[f64]) -> f64 {
    weights.iter().zip(a.iter().zip(b)).map(|(w, (a, b))| w * (a - b) * (a - b)).sum()
}

/// Squared differences by dimension of every pair: row by row of the lower triangle.
fn squared_differences(points: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut squares = Vec::with_capacity(points.len() * points.len() / 2);
    for (row, point) in points.iter().enumerate() {
        for other in &points[..row] {
            squares.push(point.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).collect());
        }
    }
    squares
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::seed::Seed;

    fn points(num: usize, num_dimensions: usize) -> Vec<Vec<f64>> {
        let mut draws = Seed(11).draws();
        (0..num).map(|_| (0..num_dimensions).map(|_| draws.unit()).collect()).collect()
    }

    #[test]
    fn gradients_are_those_of_small_differences() {
        let points = points(9, 2);
        let values: Vec<f64> = points.iter().map(|x| (5.0 * x[0]).sin() + x[1]).collect();
        let squares = squared_differences(&points);
        let log = vec![0.7, -0.4, 0.3, -3.0];
        let at = |log: Vec<f64>| Kernel { log }.log_posterior(&squares, &values).unwrap();
        let (_, gradient) = at(log.clone());
        for dimension in 0..log.len() {
            let shifted = |by: f64| {
                let mut log = log.clone();
                log[dimension] += by;
                at(log).0
            };
            let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            let slope = gradient[dimension];
            assert!(
                (numeric - slope).abs() < 1e-5 * (1.0 + slope.abs()),
                "{dimension}: {numeric} {slope}"
            );
        }
        let process = Process::new(Kernel { log }, points, &values).unwrap();
        let expected = process.expect(&[0.4, 0.7], true);
        assert!((process.mean(&[0.4, 0.7]) - expected.mean).abs() < 1e-12);
        let plain = process.expect(&[0.4, 0.7], false);
        assert!((plain.deviation - expected.deviation).abs() < 1e-9);
        for dimension in 0..2 {
            let shifted = |by: f64| {
                let mut point = [0.4, 0.7];
                point[dimension] += by;
                process.expect(&point, false)
            };
            let (up, down) = (shifted(1e-5), shifted(-1e-5));
            let mean = (up.mean - down.mean) / 2e-5;
            let deviation = (up.deviation - down.deviation) / 2e-5;
            assert!((mean - expected.mean_gradient[dimension]).abs() < 1e-5);
            assert!((deviation - expected.deviation_gradient[dimension]).abs() < 1e-5);
        }
    }

    #[test]
    fn what_was_seen_is_expected_and_what_matters_is_found() {
        let points = points(25, 2);
        let raw: Vec<f64> = points.iter().map(|x| (6.0 * x[0]).sin()).collect();
        let mean = raw.iter().sum::<f64>() / 25.0;
        let variance = raw.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / 25.0;
        let values: Vec<f64> = raw.iter().map(|y| (y - mean) / variance.sqrt()).collect();
        let kernel = Kernel::fit(&points, &values);
        let weights = kernel.weights();
        assert!(weights[0] > 10.0 * weights[1], "{weights:?}");
        let process = Process::new(kernel, points.clone(), &values).unwrap();
        for (point, value) in points.iter().zip(&values) {
            assert!((process.mean(point) - value).abs() < 0.05);
        }
        let unseen = process.mean(&[0.5, 0.5]) * variance.sqrt() + mean;
        assert!((unseen - 3f64.sin()).abs() < 0.1, "{unseen}");
    }

    #[test]
    fn the_kernel_is_matern_five_halves() {
        // 1 at no distance; at distance 1: (1 + sqrt 5 + 5/3) exp(-sqrt 5).
        assert!((matern(0.0).0 - 1.0).abs() < 1e-15);
        assert!((matern(1.0).0 - 0.523_994_108_8).abs() < 1e-9, "{}", matern(1.0).0);
    }
}
