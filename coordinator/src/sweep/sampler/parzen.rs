//! Parzen estimators: mixtures of one kernel per observation and a wide one for what is not known.
//!
//! Bergstra, Bardenet, Bengio, Kegl 2011, "Algorithms for Hyper-Parameter Optimization", section 4;
//! bandwidths and weights as in Watanabe 2023, "Tree-Structured Parzen Estimator" (arXiv
//! 2304.11127), sections 3.2 and 3.3. Symbols: kernel `k` has weight `w_k`, mean `mu_k` and width
//! `sigma_k`, cut to the interval `[low, high]`.

use std::f64::consts::{PI, SQRT_2};

use muster_common::elementary::Elementary;
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
/// The logarithm of how much less that is than at its middle.
const FAR: f64 = 0.5 * REACH * REACH;
/// Terms of a sum that are computed at a time.
const LANES: usize = 8;
/// A draw that misses the interval so often is put at its mean.
const MISSES_MAX: u32 = 200;

/// One dimension of all kernels.
#[derive(Debug)]
enum Kernels {
    Interval(Intervals),
    /// `share[k][c]`: of kernel `k`, for choice `c`, and their logarithms.
    Choice {
        share: Vec<Vec<f64>>,
        log_share: Vec<Vec<f64>>,
    },
}

/// Normal distributions that are cut to an interval.
#[derive(Debug)]
struct Intervals {
    low: f64,
    high: f64,
    mu: Vec<f64>,
    sigma: Vec<f64>,
    /// `1 / sigma_k`: a division costs more than all the rest of a kernel.
    inverse: Vec<f64>,
    /// `log_scale[k]` is `-ln(sigma_k sqrt(2 pi) (Phi(high) - Phi(low)))`.
    log_scale: Vec<f64>,
}

/// A density over some axes.
#[derive(Debug)]
pub(super) struct Parzen {
    log_weight: Vec<f64>,
    cumulated: Vec<f64>,
    dimensions: Vec<Kernels>,
    functions: Elementary,
}

impl Parzen {
    /// From the positions of observations on each axis, oldest first; without weights for them the newest
    /// weigh most.
    pub(super) fn new(
        axes: &[&Axis],
        columns: &[Vec<f64>],
        given: Option<&[f64]>,
        functions: Elementary,
    ) -> Self {
        let weight: Vec<f64> = match given {
            Some(given) => given.iter().copied().chain([PRIOR_WEIGHT]).collect(),
            None => weights(columns.first().map_or(0, Vec::len)),
        };
        let total: f64 = weight.iter().sum();
        let log_weight = weight.iter().map(|weight| functions.ln(weight / total)).collect();
        let cumulated = weight
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            })
            .collect();
        let dimensions = axes
            .iter()
            .zip(columns)
            .map(|(axis, positions)| Kernels::new(axis, positions, functions))
            .collect();
        Self { log_weight, cumulated, dimensions, functions }
    }

    /// A point of the density: position on each axis.
    pub(super) fn draw(&self, draws: &mut Draws) -> Vec<f64> {
        let unit = draws.unit();
        let last = self.cumulated.len().saturating_sub(1);
        let kernel = self.cumulated.partition_point(|sum| *sum < unit).min(last);
        let drawn = |kernels: &Kernels| kernels.draw(kernel, draws, self.functions);
        self.dimensions.iter().map(drawn).collect()
    }

    /// Logarithm of the density at a point.
    pub(super) fn log_density(&self, point: &[f64], scratch: &mut Vec<f64>) -> f64 {
        scratch.clear();
        scratch.extend_from_slice(&self.log_weight);
        for (kernels, position) in self.dimensions.iter().zip(point) {
            kernels.add_log_density(*position, scratch, self.functions);
        }
        log_sum(scratch, self.functions)
    }
}

impl Kernels {
    fn new(axis: &Axis, positions: &[f64], functions: Elementary) -> Self {
        match axis {
            Axis::Interval { low, high, .. } => {
                Self::Interval(Intervals::new((*low, *high), positions, functions))
            }
            Axis::Choice { values } => {
                let num_kernels = positions.len() + 1;
                let base = PRIOR_WEIGHT / num_kernels as f64;
                let total = 1.0 + base * values.len() as f64;
                let (hit, miss) = ((1.0 + base) / total, base / total);
                let even = 1.0 / values.len().max(1) as f64;
                let shares = |hit: f64, miss: f64, even: f64| -> Vec<Vec<f64>> {
                    let kernel = |position: &f64| {
                        let is_hit = |choice: usize| (choice as f64 - position).abs() < 0.5;
                        let share = |choice| if is_hit(choice) { hit } else { miss };
                        (0..values.len()).map(share).collect()
                    };
                    let wide = vec![even; values.len()];
                    positions.iter().map(kernel).chain([wide]).collect()
                };
                // There are no more than three different ones.
                let [log_hit, log_miss, log_even] = [hit, miss, even].map(|x| functions.ln(x));
                Self::Choice {
                    share: shares(hit, miss, even),
                    log_share: shares(log_hit, log_miss, log_even),
                }
            }
        }
    }

    fn draw(&self, kernel: usize, draws: &mut Draws, functions: Elementary) -> f64 {
        match self {
            Self::Interval(Intervals { low, high, mu, sigma, .. }) => {
                let (Some(mu), Some(sigma)) = (mu.get(kernel), sigma.get(kernel)) else {
                    return *low;
                };
                (0..MISSES_MAX)
                    .map(|_| mu + sigma * normal(draws, functions))
                    .find(|position| (*low..=*high).contains(position))
                    .unwrap_or(*mu)
            }
            Self::Choice { share, .. } => {
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
    fn add_log_density(&self, position: f64, sums: &mut [f64], functions: Elementary) {
        match self {
            Self::Interval(intervals) => intervals.add_log_density(position, sums, functions),
            Self::Choice { log_share, .. } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the index of a choice"
                )]
                let choice = position as usize;
                for (sum, logs) in sums.iter_mut().zip(log_share) {
                    let log = logs.get(choice).copied();
                    *sum += log.unwrap_or_else(|| functions.ln(f64::MIN_POSITIVE));
                }
            }
        }
    }
}

impl Intervals {
    fn new((low, high): (f64, f64), positions: &[f64], functions: Elementary) -> Self {
        let range = high - low;
        // The wide kernel counts among the kernels, not among the neighbors.
        let narrowest = range / NARROWEST.min(2.0 + positions.len() as f64);
        let mut sigma = neighbor_distances(positions, (low, high), functions);
        for width in &mut sigma {
            *width = width.clamp(narrowest, range);
        }
        let mut mu = positions.to_vec();
        mu.push(f64::midpoint(low, high));
        sigma.push(range);
        let log_scale = |sigma: f64, inside: f64| {
            -functions.ln(sigma * (2.0 * PI).sqrt() * inside.max(f64::MIN_POSITIVE))
        };
        let mut whole = (f64::NAN, f64::NAN);
        let scale = |(mu, sigma): (&f64, &f64)| {
            let (left, right) = ((low - mu) / sigma, (high - mu) / sigma);
            if -left > REACH && right > REACH {
                // Most kernels lie well inside, where nothing of them is cut off, and are as narrow as can be.
                if whole.0.total_cmp(sigma).is_ne() {
                    whole = (*sigma, log_scale(*sigma, 1.0));
                }
                return whole.1;
            }
            log_scale(*sigma, normal_below(right) - normal_below(left))
        };
        let log_scale = mu.iter().zip(&sigma).map(scale).collect();
        let inverse = sigma.iter().map(|sigma| 1.0 / sigma).collect();
        Self { low, high, mu, sigma, inverse, log_scale }
    }

    fn add_log_density(&self, position: f64, sums: &mut [f64], functions: Elementary) {
        let kernels = sums.iter_mut().zip(&self.mu).zip(&self.log_scale);
        match functions {
            Elementary::Platform => {
                for (((sum, mu), log_scale), sigma) in kernels.zip(&self.sigma) {
                    let distance = (position - mu) / sigma;
                    *sum += log_scale - 0.5 * distance * distance;
                }
            }
            Elementary::Portable | Elementary::Lanes => {
                for (((sum, mu), log_scale), inverse) in kernels.zip(&self.inverse) {
                    let distance = (position - mu) * inverse;
                    *sum += log_scale - 0.5 * distance * distance;
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
fn neighbor_distances(mu: &[f64], (low, high): (f64, f64), functions: Elementary) -> Vec<f64> {
    let mut order: Vec<(f64, usize)> = mu.iter().copied().zip(0..).collect();
    match functions {
        // Which of equals comes first is up to the standard library.
        Elementary::Platform => order.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b)),
        Elementary::Portable | Elementary::Lanes => order.sort_by(|(a, _), (b, _)| a.total_cmp(b)),
    }
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
fn log_sum(logs: &[f64], functions: Elementary) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = match functions {
        Elementary::Platform | Elementary::Portable => {
            let near = logs.iter().filter(|log| **log > most - FAR);
            near.map(|log| functions.exp(log - most)).sum()
        }
        Elementary::Lanes => sum_exp(logs, most),
    };
    most + functions.ln(sum)
}

/// `sum(exp(x - most))` of terms that are not [`FAR`] below. Several at a time, which is most of the speed of a
/// proposal; added up in the same order on every machine.
fn sum_exp(logs: &[f64], most: f64) -> f64 {
    let term = |log: f64| if log - most > -FAR { exp_below_one(log - most) } else { 0.0 };
    let mut sums = [0.0; LANES];
    let (chunks, rest) = logs.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, log) in sums.iter_mut().zip(chunk) {
            *sum += term(*log);
        }
    }
    for (sum, log) in sums.iter_mut().zip(rest) {
        *sum += term(*log);
    }
    sums.iter().sum()
}

/// The exponential of a number between `-700` and 0, to 12 digits, of exact operations only and without a branch:
/// `2^k e^r` with the nearest whole `k`, and the series of `e^r`.
#[inline]
fn exp_below_one(x: f64) -> f64 {
    /// Added to a small number, it leaves the nearest whole number in the last bits.
    const WHOLE: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    /// The upper bits of `ln 2`, so that their product with `k` is exact, and the rest (as in fdlibm's `e_exp.c`).
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    /// `1 / n!`, of the largest power first.
    const SERIES: [f64; 11] = [
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
        1.0,
        1.0,
    ];
    let shifted = x * std::f64::consts::LOG2_E + WHOLE;
    let k = shifted - WHOLE;
    let r = (x - k * LN_2[0]) - k * LN_2[1];
    let series = SERIES.iter().fold(0.0, |sum, factor| sum * r + factor);
    // The exponent of a double stands above its 52 bits, and 1023 is that of 1.
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    series * power
}

/// Share of the standard normal distribution below `x`.
fn normal_below(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// A draw of the standard normal distribution (Box and Muller 1958).
pub(super) fn normal(draws: &mut Draws, functions: Elementary) -> f64 {
    // 1 - unit lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * functions.ln(1.0 - draws.unit())).sqrt();
    radius * functions.cos(2.0 * PI * draws.unit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::{Domain, ParameterValue, Scale};
    use muster_common::seed::Seed;
    use proptest::prelude::*;

    const PORTABLE: Elementary = Elementary::Portable;

    fn interval() -> Axis {
        Axis::of(&Domain::Float { min: -1.0, max: 3.0, scale: Scale::Linear }, PORTABLE)
    }

    #[test]
    fn sums_of_exponentials_are_those_of_the_library() {
        let mut draws = Seed(3).draws();
        for num in [1, 7, 8, 9, 1001] {
            let logs: Vec<f64> = (0..num).map(|_| 30.0 - 80.0 * draws.unit()).collect();
            let [ours, theirs] = [Elementary::Lanes, PORTABLE].map(|f| log_sum(&logs, f));
            assert!((ours - theirs).abs() < 1e-12, "{ours} {theirs}");
        }
        for x in [0.0, -1e-300, -0.3, -0.34657, -0.34658, -1.0, -17.25, -40.5] {
            let (ours, theirs) = (exp_below_one(x), x.exp());
            assert!((ours / theirs - 1.0).abs() < 1e-12, "{x}: {ours} {theirs}");
        }
        assert_eq!(exp_below_one(0.0).to_bits(), 1.0f64.to_bits());
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
            let parzen = Parzen::new(&[&axis], &[positions], None, PORTABLE);
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
            let (choice, interval) = (Axis::of(&Domain::Values(values), PORTABLE), interval());
            let columns = [seen.iter().map(|index| *index as f64).collect(), vec![0.5; seen.len()]];
            let parzen = Parzen::new(&[&choice, &interval], &columns, None, PORTABLE);
            let mut draws = Seed(seed).draws();
            for _ in 0..20 {
                let point = parzen.draw(&mut draws);
                prop_assert!([0.0, 1.0, 2.0].contains(&point[0]));
                prop_assert!((-1.0..=3.0).contains(&point[1]));
            }
            let alone = Parzen::new(&[&choice], &columns[..1], None, PORTABLE);
            let mut scratch = Vec::new();
            let mass: f64 =
                (0..3).map(|c| alone.log_density(&[f64::from(c)], &mut scratch).exp()).sum();
            prop_assert!((mass - 1.0).abs() < 1e-9);
        }
    }
}
