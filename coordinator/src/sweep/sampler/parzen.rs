//! Parzen estimators: mixtures of one kernel per observation and a wide one for what is not known.
//!
//! Bergstra, Bardenet, Bengio, Kegl 2011, "Algorithms for Hyper-Parameter Optimization", section 4;
//! bandwidths and weights as in Watanabe 2023, "Tree-Structured Parzen Estimator" (arXiv
//! 2304.11127), sections 3.2 and 3.3. Symbols: kernel `k` has weight `w_k`, mean `mu_k` and width
//! `sigma_k`, cut to the interval `[low, high]`.

use std::f64::consts::{PI, SQRT_2};

use muster_common::seed::Draws;

use super::axis::Axis;

/// The newest observations weigh fully, older ones ever less.
const FULL_WEIGHT: usize = 25;
/// Weight of the wide kernel, in observations.
const PRIOR_WEIGHT: f64 = 1.0;
/// No kernel is narrower than the interval over this.
const NARROWEST: f64 = 100.0;
/// Beyond so many widths a kernel adds nothing that a float could hold.
const REACH: f64 = 9.0;
/// A draw that misses the interval so often is put at its mean.
const MISSES_MAX: u32 = 200;

/// One dimension of all kernels.
#[derive(Debug)]
enum Kernels {
    /// `log_scale[k]` is `-ln(sigma_k sqrt(2 pi) (Phi(high) - Phi(low)))`.
    Interval { low: f64, high: f64, mu: Vec<f64>, sigma: Vec<f64>, log_scale: Vec<f64> },
    /// `share[k][c]`: of kernel `k`, for choice `c`.
    Choice { share: Vec<Vec<f64>> },
}

/// A density over some axes.
#[derive(Debug)]
pub(super) struct Parzen {
    log_weight: Vec<f64>,
    cumulated: Vec<f64>,
    dimensions: Vec<Kernels>,
}

impl Parzen {
    /// From the positions of observations on each axis, oldest first; without weights for them the newest
    /// weigh most.
    pub(super) fn new(axes: &[&Axis], observations: &[Vec<f64>], given: Option<&[f64]>) -> Self {
        let weight: Vec<f64> = match given {
            Some(given) => given.iter().copied().chain([PRIOR_WEIGHT]).collect(),
            None => weights(observations.len()),
        };
        let total: f64 = weight.iter().sum();
        let log_weight = weight.iter().map(|weight| (weight / total).ln()).collect();
        let cumulated = weight
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            })
            .collect();
        let dimensions = axes
            .iter()
            .enumerate()
            .map(|(dimension, axis)| {
                let at = |observation: &Vec<f64>| observation.get(dimension).copied();
                let positions: Vec<f64> = observations.iter().filter_map(at).collect();
                Kernels::new(axis, &positions)
            })
            .collect();
        Self { log_weight, cumulated, dimensions }
    }

    /// A point of the density: position on each axis.
    pub(super) fn draw(&self, draws: &mut Draws) -> Vec<f64> {
        let unit = draws.unit();
        let last = self.cumulated.len().saturating_sub(1);
        let kernel = self.cumulated.partition_point(|sum| *sum < unit).min(last);
        self.dimensions.iter().map(|kernels| kernels.draw(kernel, draws)).collect()
    }

    /// Logarithm of the density at a point.
    pub(super) fn log_density(&self, point: &[f64], scratch: &mut Vec<f64>) -> f64 {
        scratch.clear();
        scratch.extend_from_slice(&self.log_weight);
        for (kernels, position) in self.dimensions.iter().zip(point) {
            kernels.add_log_density(*position, scratch);
        }
        log_sum(scratch)
    }
}

impl Kernels {
    fn new(axis: &Axis, positions: &[f64]) -> Self {
        match axis {
            Axis::Interval { low, high, .. } => {
                let range = high - low;
                // The wide kernel counts among the kernels, not among the neighbors.
                let narrowest = range / NARROWEST.min(2.0 + positions.len() as f64);
                let mut sigma = neighbor_distances(positions, *low, *high);
                for width in &mut sigma {
                    *width = width.clamp(narrowest, range);
                }
                let mut mu = positions.to_vec();
                mu.push(f64::midpoint(*low, *high));
                sigma.push(range);
                let scale = |(mu, sigma): (&f64, &f64)| {
                    let (left, right) = ((low - mu) / sigma, (high - mu) / sigma);
                    // Most kernels are narrow and lie well inside: nothing of them is cut off.
                    let inside = if -left > REACH && right > REACH {
                        1.0
                    } else {
                        normal_below(right) - normal_below(left)
                    };
                    -(sigma * (2.0 * PI).sqrt() * inside.max(f64::MIN_POSITIVE)).ln()
                };
                let log_scale = mu.iter().zip(&sigma).map(scale).collect();
                Self::Interval { low: *low, high: *high, mu, sigma, log_scale }
            }
            Axis::Choice { values } => {
                let num_kernels = positions.len() + 1;
                let base = PRIOR_WEIGHT / num_kernels as f64;
                let total = 1.0 + base * values.len() as f64;
                let kernel = |position: &f64| {
                    (0..values.len())
                        .map(|choice| {
                            let hit =
                                if (choice as f64 - position).abs() < 0.5 { 1.0 } else { 0.0 };
                            (hit + base) / total
                        })
                        .collect()
                };
                let mut share: Vec<Vec<f64>> = positions.iter().map(kernel).collect();
                share.push(vec![1.0 / values.len().max(1) as f64; values.len()]);
                Self::Choice { share }
            }
        }
    }

    fn draw(&self, kernel: usize, draws: &mut Draws) -> f64 {
        match self {
            Self::Interval { low, high, mu, sigma, .. } => {
                let (Some(mu), Some(sigma)) = (mu.get(kernel), sigma.get(kernel)) else {
                    return *low;
                };
                (0..MISSES_MAX)
                    .map(|_| mu + sigma * normal(draws))
                    .find(|position| (*low..=*high).contains(position))
                    .unwrap_or(*mu)
            }
            Self::Choice { share } => {
                let mut unit = draws.unit();
                let shares = share.get(kernel).map_or(&[][..], Vec::as_slice);
                for (choice, share) in shares.iter().enumerate() {
                    unit -= share;
                    if unit < 0.0 {
                        return choice as f64;
                    }
                }
                shares.len().saturating_sub(1) as f64
            }
        }
    }

    /// Adds the log density of every kernel at `position` to `sums`.
    fn add_log_density(&self, position: f64, sums: &mut [f64]) {
        match self {
            Self::Interval { mu, sigma, log_scale, .. } => {
                let kernels = mu.iter().zip(sigma).zip(log_scale);
                for (sum, ((mu, sigma), log_scale)) in sums.iter_mut().zip(kernels) {
                    let distance = (position - mu) / sigma;
                    *sum += log_scale - 0.5 * distance * distance;
                }
            }
            Self::Choice { share } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the index of a choice"
                )]
                let choice = position as usize;
                for (sum, shares) in sums.iter_mut().zip(share) {
                    *sum += shares.get(choice).copied().unwrap_or(f64::MIN_POSITIVE).ln();
                }
            }
        }
    }
}

/// Of observations, oldest first, and of the wide kernel behind them.
fn weights(num: usize) -> Vec<f64> {
    let num_old = num.saturating_sub(FULL_WEIGHT);
    let old = (0..num_old).map(|index| {
        let lowest = 1.0 / num as f64;
        lowest + (1.0 - lowest) * index as f64 / (num_old.max(2) - 1) as f64
    });
    old.chain((num_old..num).map(|_| 1.0)).chain([PRIOR_WEIGHT]).collect()
}

/// The larger of the distances to the neighbors on both sides; the outermost know one side only.
fn neighbor_distances(mu: &[f64], low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<(f64, usize)> = mu.iter().copied().zip(0..).collect();
    order.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut widths = vec![high - low; mu.len()];
    let mut before = None;
    for (place, (here, index)) in order.iter().enumerate() {
        let left = before.map(|other| here - other);
        let right = order.get(place + 1).map(|(other, _)| other - here);
        if let Some(width) = left.into_iter().chain(right).reduce(f64::max)
            && let Some(slot) = widths.get_mut(*index)
        {
            *slot = width;
        }
        before = Some(*here);
    }
    widths
}

/// `ln(sum(exp(x)))` without overflow; terms far below the largest are passed over.
fn log_sum(logs: &[f64]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = most - 0.5 * REACH * REACH;
    let sum: f64 = logs.iter().filter(|log| **log > least).map(|log| (log - most).exp()).sum();
    most + sum.ln()
}

/// Share of the standard normal distribution below `x`.
fn normal_below(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// A draw of the standard normal distribution (Box and Muller 1958).
pub(super) fn normal(draws: &mut Draws) -> f64 {
    // 1 - unit lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * (1.0 - draws.unit()).ln()).sqrt();
    radius * (2.0 * PI * draws.unit()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::{Domain, ParameterValue, Scale};
    use muster_common::seed::Seed;
    use proptest::prelude::*;

    fn interval() -> Axis {
        Axis::of(&Domain::Float { min: -1.0, max: 3.0, scale: Scale::Linear })
    }

    #[test]
    fn older_observations_weigh_less() {
        assert_eq!(weights(2), [1.0, 1.0, PRIOR_WEIGHT]);
        let many = weights(30);
        assert_eq!(many.len(), 31);
        assert!((many[0] - 1.0 / 30.0).abs() < 1e-12 && many[..5].is_sorted());
        assert!(many[5..].iter().all(|weight| (weight - 1.0).abs() < 1e-12));
    }

    proptest! {
        #[test]
        fn a_density_has_mass_one(
            positions in prop::collection::vec(-1.0f64..3.0, 0..40),
        ) {
            let axis = interval();
            let observations: Vec<Vec<f64>> = positions.iter().map(|x| vec![*x]).collect();
            let parzen = Parzen::new(&[&axis], &observations, None);
            let mut scratch = Vec::new();
            let cells = 4000;
            let width = 4.0 / f64::from(cells);
            let mass: f64 = (0..cells)
                .map(|cell| -1.0 + width * (f64::from(cell) + 0.5))
                .map(|x| parzen.log_density(&[x], &mut scratch).exp() * width)
                .sum();
            prop_assert!((mass - 1.0).abs() < 1e-3, "{}", mass);
        }

        #[test]
        fn choices_have_mass_one_and_draws_stay_inside(
            seen in prop::collection::vec(0usize..3, 0..30), seed: u64,
        ) {
            let values = [4, 8, 16].map(ParameterValue::Int).to_vec();
            let (choice, interval) = (Axis::of(&Domain::Values(values)), interval());
            let observations: Vec<Vec<f64>> =
                seen.iter().map(|index| vec![*index as f64, 0.5]).collect();
            let parzen = Parzen::new(&[&choice, &interval], &observations, None);
            let mut draws = Seed(seed).draws();
            for _ in 0..20 {
                let point = parzen.draw(&mut draws);
                prop_assert!([0.0, 1.0, 2.0].contains(&point[0]));
                prop_assert!((-1.0..=3.0).contains(&point[1]));
            }
            let alone = Parzen::new(&[&choice], &observations, None);
            let mut scratch = Vec::new();
            let mass: f64 =
                (0..3).map(|c| alone.log_density(&[f64::from(c)], &mut scratch).exp()).sum();
            prop_assert!((mass - 1.0).abs() < 1e-9);
        }
    }
}
