//! Covariance matrix adaptation on the unit cube.
//!
//! Hansen 2016, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772), with its default
//! parameters, table 1, negative weights included. Symbols: `lambda` points of a generation are drawn
//! from a normal distribution with mean `m`, step size `sigma` and covariance `C`; `mu_eff` is the
//! variance-effective number of those that are selected; `p_sigma` and `p_c` are the evolution paths.
//!
//! The trials of a generation are those with consecutive numbers. Nothing is remembered between
//! proposals: the distribution follows anew from the trials of all generations that are over, each
//! placed where its hyperparameters lie. So a trial of the next generation may be proposed while this
//! one is at work, from the distribution of before.

use muster_common::elementary::{Elementary, power};
use muster_common::goal::Goal;
use muster_common::manifest::{Assignment, CmaEsSettings};
use muster_common::seed::Draws;

use super::linear::{dot, eigen};
use super::parzen::normal;
use super::units::Units;
use super::{Observation, Proposal, fresh, is_taken, random};

/// Draws that miss the cube before one is moved to its surface.
const MISSES_MAX: usize = 100;
/// Draws that were tried before, at most.
const REDRAWS_MAX: usize = 32;
/// The step size stays within these.
const SIGMA: (f64, f64) = (1e-12, 1.0);

pub(super) fn point(settings: &CmaEsSettings, proposal: &Proposal<'_>) -> Assignment {
    let Proposal { space, goal, seed, number, history } = *proposal;
    let units = Units::new(space, proposal.functions());
    let num = units.len();
    if num == 0 {
        return fresh(proposal, |draw| random::point(proposal, draw));
    }
    let constants = Constants::new(num, settings.population);
    let (prior, own): (Vec<_>, Vec<_>) = history.iter().partition(|seen| seen.is_prior);
    let start = start(&units, &prior, goal);
    let mut distribution = Distribution::new(settings, start, proposal.functions());
    for generation in own.chunks(constants.lambda) {
        if generation.len() < constants.lambda || !generation.iter().all(|seen| seen.is_over) {
            break;
        }
        // Where nothing came out there is nothing to rank: the cloud stays as it is.
        let is_finite = |seen: &&Observation<'_>| seen.last().is_finite();
        if !generation.iter().any(is_finite) {
            continue;
        }
        let mut ranked = generation.to_vec();
        // Those that came further are better, then the better result at the same rung.
        ranked.sort_by(|a, b| {
            let rung = |seen: &Observation<'_>| {
                if seen.last().is_finite() { seen.first_rung + seen.merits.len() } else { 0 }
            };
            rung(b).cmp(&rung(a)).then_with(|| goal.standing(&a.last(), &b.last()))
        });
        let points: Option<Vec<Vec<f64>>> =
            ranked.iter().map(|seen| units.position(seen.assignment)).collect();
        let Some(points) = points else { break };
        distribution.update(&constants, &units, &points);
    }
    let mut draws = seed.child("cmaes", u64::from(number)).draws();
    let roots = distribution.roots();
    let drawn = || units.assignment(&distribution.draw(&roots, &mut draws));
    let mut drawn: Vec<Assignment> = std::iter::repeat_with(drawn).take(REDRAWS_MAX).collect();
    match drawn.iter().position(|found| !is_taken(history, found)) {
        Some(index) => drawn.swap_remove(index),
        None => fresh(proposal, |draw| random::point(proposal, draw)),
    }
}

/// The middle of the cube, or the best of earlier experiments.
fn start(units: &Units<'_>, prior: &[&Observation<'_>], goal: &Goal) -> Vec<f64> {
    let finite = prior.iter().filter(|seen| seen.last().is_finite());
    let best = finite.min_by(|a, b| goal.standing(&a.last(), &b.last()));
    let place = best.and_then(|seen| units.position(seen.assignment));
    place.unwrap_or_else(|| vec![0.5; units.len()])
}

/// What depends on nothing but the number of dimensions and the population.
struct Constants {
    lambda: usize,
    /// Recombination weights, best first; the later ones are negative.
    weights: Vec<f64>,
    mu_eff: f64,
    c_sigma: f64,
    d_sigma: f64,
    c_c: f64,
    c_1: f64,
    c_mu: f64,
    /// Expected length of a standard normal vector.
    chi: f64,
}

impl Constants {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    fn new(num: usize, population: Option<u32>) -> Self {
        let n = num as f64;
        let lambda = match population {
            Some(population) => population as usize,
            None => 4 + (3.0 * libm::log(n)) as usize,
        };
        let half = f64::midpoint(lambda as f64, 1.0);
        let raw: Vec<f64> = (1..=lambda).map(|i| libm::log(half) - libm::log(i as f64)).collect();
        let mu = lambda / 2;
        let effective = |weights: &[f64]| {
            let sum: f64 = weights.iter().sum();
            sum * sum / weights.iter().map(|w| w * w).sum::<f64>()
        };
        let (good, bad) = raw.split_at(mu);
        let (mu_eff, mu_eff_bad) = (effective(good), effective(bad));
        let c_c = (4.0 + mu_eff / n) / (n + 4.0 + 2.0 * mu_eff / n);
        let c_1 = 2.0 / (power(n + 1.3, 2) + mu_eff);
        let c_mu = (2.0 * (0.25 + mu_eff + 1.0 / mu_eff - 2.0) / (power(n + 2.0, 2) + mu_eff))
            .min(1.0 - c_1);
        let alpha = (1.0 + c_1 / c_mu)
            .min(1.0 + 2.0 * mu_eff_bad / (mu_eff + 2.0))
            .min((1.0 - c_1 - c_mu) / (n * c_mu));
        let good_sum: f64 = good.iter().sum();
        let bad_sum: f64 = bad.iter().map(|w| w.abs()).sum();
        let weight = |w: &f64| {
            if *w >= 0.0 { w / good_sum } else { alpha * w / bad_sum.max(f64::MIN_POSITIVE) }
        };
        let c_sigma = (mu_eff + 2.0) / (n + mu_eff + 5.0);
        Self {
            lambda,
            weights: raw.iter().map(weight).collect(),
            mu_eff,
            c_sigma,
            d_sigma: 1.0 + 2.0 * (((mu_eff - 1.0) / (n + 1.0)).sqrt() - 1.0).max(0.0) + c_sigma,
            c_c,
            c_1,
            c_mu,
            chi: n.sqrt() * (1.0 - 1.0 / (4.0 * n) + 1.0 / (21.0 * n * n)),
        }
    }
}

/// Where the next points are drawn from.
struct Distribution {
    num: usize,
    functions: Elementary,
    generation: u32,
    mean: Vec<f64>,
    sigma: f64,
    covariance: Vec<f64>,
    path_sigma: Vec<f64>,
    path_c: Vec<f64>,
}

/// Square roots of the eigenvalues of `C`, and its eigenvectors.
struct Roots {
    scales: Vec<f64>,
    vectors: Vec<f64>,
}

impl Distribution {
    fn new(settings: &CmaEsSettings, mean: Vec<f64>, functions: Elementary) -> Self {
        let num = mean.len();
        let mut covariance = vec![0.0; num * num];
        for row in 0..num {
            covariance[row * num + row] = 1.0;
        }
        Self {
            num,
            functions,
            generation: 0,
            mean,
            sigma: settings.sigma,
            covariance,
            path_sigma: vec![0.0; num],
            path_c: vec![0.0; num],
        }
    }

    fn roots(&self) -> Roots {
        let (values, vectors) = eigen(self.covariance.clone(), self.num);
        Roots { scales: values.iter().map(|value| value.max(1e-20).sqrt()).collect(), vectors }
    }

    /// A point of the cube.
    fn draw(&self, roots: &Roots, draws: &mut Draws) -> Vec<f64> {
        let mut point = Vec::new();
        for _ in 0..MISSES_MAX {
            let drawn = |scale: &f64| scale * normal(draws, self.functions);
            let scaled: Vec<f64> = roots.scales.iter().map(drawn).collect();
            let step = |row: usize| {
                self.sigma * dot(&roots.vectors[row * self.num..(row + 1) * self.num], &scaled)
            };
            point = self.mean.iter().enumerate().map(|(row, mean)| mean + step(row)).collect();
            if point.iter().all(|place| (0.0..=1.0).contains(place)) {
                break;
            }
        }
        point.iter().map(|place| place.clamp(0.0, 1.0)).collect()
    }

    /// `C^-1/2` times a vector.
    fn whiten(&self, roots: &Roots, vector: &[f64]) -> Vec<f64> {
        let num = self.num;
        let along: Vec<f64> = (0..num)
            .map(|k| {
                let sum: f64 = (0..num).map(|row| roots.vectors[row * num + k] * vector[row]).sum();
                sum / roots.scales[k]
            })
            .collect();
        (0..num).map(|row| dot(&roots.vectors[row * num..(row + 1) * num], &along)).collect()
    }

    /// Equations 38 to 47 of the tutorial; `points` are ordered, best first.
    fn update(&mut self, constants: &Constants, units: &Units<'_>, points: &[Vec<f64>]) {
        let (num, n) = (self.num, self.num as f64);
        self.generation += 1;
        let roots = self.roots();
        let steps: Vec<Vec<f64>> = points
            .iter()
            .map(|point| point.iter().zip(&self.mean).map(|(x, m)| (x - m) / self.sigma).collect())
            .collect();
        let chosen = || steps.iter().zip(&constants.weights).filter(|(_, weight)| **weight > 0.0);
        let step: Vec<f64> = (0..num)
            .map(|dimension| chosen().map(|(step, weight)| weight * step[dimension]).sum())
            .collect();
        for (mean, step) in self.mean.iter_mut().zip(&step) {
            *mean = (*mean + self.sigma * step).clamp(0.0, 1.0);
        }
        let Constants { c_sigma, c_c, c_1, c_mu, mu_eff, .. } = *constants;
        let whitened = self.whiten(&roots, &step);
        let push = (c_sigma * (2.0 - c_sigma) * mu_eff).sqrt();
        for (path, step) in self.path_sigma.iter_mut().zip(&whitened) {
            *path = (1.0 - c_sigma) * *path + push * step;
        }
        let length = dot(&self.path_sigma, &self.path_sigma).sqrt();
        let warm = (1.0 - power(1.0 - c_sigma, 2 * self.generation)).sqrt();
        let is_steady = length / warm < (1.4 + 2.0 / (n + 1.0)) * constants.chi;
        let push = if is_steady { (c_c * (2.0 - c_c) * mu_eff).sqrt() } else { 0.0 };
        for (path, step) in self.path_c.iter_mut().zip(&step) {
            *path = (1.0 - c_c) * *path + push * step;
        }
        let lost = if is_steady { 0.0 } else { c_1 * c_c * (2.0 - c_c) };
        let sum: f64 = constants.weights.iter().sum();
        let kept = 1.0 + lost - c_1 - c_mu * sum;
        let weights: Vec<f64> = steps
            .iter()
            .zip(&constants.weights)
            .map(|(step, weight)| {
                if *weight >= 0.0 {
                    return *weight;
                }
                let whitened = self.whiten(&roots, step);
                weight * n / dot(&whitened, &whitened).max(1e-12)
            })
            .collect();
        for row in 0..num {
            for column in 0..=row {
                let rank_mu: f64 = steps
                    .iter()
                    .zip(&weights)
                    .map(|(step, weight)| weight * step[row] * step[column])
                    .sum();
                let rank_one = self.path_c[row] * self.path_c[column];
                let old = self.covariance[row * num + column];
                let value = kept * old + c_1 * rank_one + c_mu * rank_mu;
                self.covariance[row * num + column] = value;
                self.covariance[column * num + row] = value;
            }
        }
        let growth = c_sigma / constants.d_sigma * (length / constants.chi - 1.0);
        self.sigma = (self.sigma * libm::exp(growth.min(1.0))).clamp(SIGMA.0, SIGMA.1);
        self.keep_moving(units);
    }

    /// Sides of few points keep a deviation that reaches the next one now and then: rounding would else
    /// end the search there (as Hamano et al. 2022 keep a margin).
    fn keep_moving(&mut self, units: &Units<'_>) {
        for side in 0..self.num {
            let Some(num_points) = units.num_points(side) else { continue };
            let least = 0.2 / num_points.max(1) as f64;
            let variance = &mut self.covariance[side * self.num + side];
            *variance = variance.max(power(least / self.sigma, 2).min(1e10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::{Domain, Scale, SearchSpace};
    use muster_common::seed::Seed;

    #[test]
    fn constants_are_those_of_the_tutorial() {
        // Table 1 for ten dimensions, worked out by hand.
        let constants = Constants::new(10, None);
        assert_eq!(constants.lambda, 10);
        for (found, expected) in [
            (constants.mu_eff, 3.1673),
            (constants.c_sigma, 0.2844),
            (constants.c_c, 0.2950),
            (constants.c_1, 0.015_284),
            (constants.c_mu, 0.023_552),
        ] {
            assert!((found / expected - 1.0).abs() < 2e-3, "{found} {expected}");
        }
        let good: f64 = constants.weights.iter().filter(|weight| **weight > 0.0).sum();
        assert!((good - 1.0).abs() < 1e-12);
    }

    /// Rotated and badly scaled: hopeless without the covariance.
    #[test]
    fn a_narrow_valley_is_followed() {
        let side = Domain::Float { min: 0.0, max: 1.0, scale: Scale::Linear };
        let space: SearchSpace = (0..3).map(|d| (format!("x{d}"), side.clone())).collect();
        let units = Units::new(&space, Elementary::Portable);
        let value = |x: &[f64]| {
            let (a, b) = (x[0] + x[1] - 0.9, x[0] - x[1] - 0.1);
            a * a + 1000.0 * b * b + 30.0 * (x[2] - 0.6).powi(2)
        };
        let settings = CmaEsSettings { population: None, sigma: 0.2 };
        let constants = Constants::new(3, None);
        let mut distribution = Distribution::new(&settings, vec![0.5; 3], Elementary::Portable);
        let mut draws = Seed(1).draws();
        for _ in 0..120 {
            let roots = distribution.roots();
            let mut points: Vec<Vec<f64>> =
                (0..constants.lambda).map(|_| distribution.draw(&roots, &mut draws)).collect();
            points.sort_by(|a, b| value(a).total_cmp(&value(b)));
            distribution.update(&constants, &units, &points);
        }
        assert!(value(&distribution.mean) < 1e-10, "{}", value(&distribution.mean));
        assert!(distribution.sigma < 1e-3);
    }
}
