//! Expected improvement over a Gaussian process (Jones, Schonlau, Welch 1998, "Efficient Global
//! Optimization of Expensive Black-Box Functions"), as a logarithm, which keeps its slope where the
//! improvement itself is too small for a float (Ament et al. 2023, "Unexpected Improvements to Expected
//! Improvement").
//!
//! Trials at work are taken to come out as expected, so that workers at the same time try different
//! things. The highest rung that has enough results decides, as for TPE; trials that have not reached
//! it count with their last result. What has diverged counts like the worst.

use muster_common::goal::{Goal, Merit};
use muster_common::manifest::{Assignment, GpSettings};
use muster_common::seed::{Draws, Seed};

use super::climb::{Steps, climb};
use super::process::{Kernel, Process};
use super::scalar;
use super::units::Units;
use super::{Observation, Proposal, is_taken, model_rung, spread};

/// Observations that are learned from at most, half of them the best and half the newest: the work
/// grows with their third power.
const OBSERVATIONS_MAX: usize = 256;
/// Points that are looked at, and the best of them that are climbed from.
const CANDIDATES: usize = 1024;
const CLIMBS: usize = 6;
/// Points near the best ones among the candidates.
const NEIGHBORS: usize = 256;
/// Choices of a side that are all looked at.
const CHOICES_MAX: usize = 12;
/// Times that continuous and discrete sides take turns.
const ROUNDS: usize = 3;
const CLIMB: Steps = Steps { first: 0.02, longest: 0.2, shortest: 1e-7, evaluations: 80 };

pub(super) fn point(settings: GpSettings, proposal: &Proposal<'_>) -> Assignment {
    let Proposal { space, goal, seed, number, history } = *proposal;
    let startup = usize::try_from(settings.startup_trials).unwrap_or(usize::MAX).max(1);
    let units = Units::new(space, proposal.functions());
    let Some(rung) = model_rung(history, startup) else { return spread(proposal) };
    let seed = seed.child("gp", u64::from(number));
    let known = known(&units, history, rung, (goal, seed));
    let mut draws = seed.draws();
    let search = Search::new(&units, known);
    let found = search.and_then(|search| search.best(history, &mut draws));
    found.unwrap_or_else(|| spread(proposal))
}

/// Where trials lie and what they gave.
struct Known {
    /// Points with their costs, smaller ones better; not finite: diverged.
    seen: Vec<(Vec<f64>, f64)>,
    /// Points that are being tried.
    pending: Vec<Vec<f64>>,
}

fn known(
    units: &Units<'_>,
    history: &[Observation<'_>],
    rung: usize,
    (goal, seed): (&Goal, Seed),
) -> Known {
    let (mut points, mut results, mut pending) = (Vec::new(), Vec::new(), Vec::new());
    for observation in history {
        let Some(point) = units.position(observation.assignment) else { continue };
        let merit = observation.merit_at(rung).or_else(|| observation.merits.last().copied());
        if merit.is_none() && !observation.is_over {
            pending.push(point);
            continue;
        }
        points.push(point);
        results.push(merit);
    }
    let merits: Vec<Merit> = results.iter().map(|merit| merit.unwrap_or(Merit::NONE)).collect();
    let costs = scalar::costs(goal, &merits, seed).into_iter().zip(&results);
    let costs = costs.map(|(cost, result)| if result.is_some() { cost } else { f64::NAN });
    Known { seen: thinned(points.into_iter().zip(costs).collect()), pending }
}

/// The best half and the newest of the others, in their order.
fn thinned(seen: Vec<(Vec<f64>, f64)>) -> Vec<(Vec<f64>, f64)> {
    if seen.len() <= OBSERVATIONS_MAX {
        return seen;
    }
    let mut by_cost: Vec<usize> = (0..seen.len()).collect();
    by_cost.sort_by(|a, b| {
        let (a_cost, b_cost) = (seen[*a].1, seen[*b].1);
        b_cost.is_finite().cmp(&a_cost.is_finite()).then(a_cost.total_cmp(&b_cost)).then(a.cmp(b))
    });
    let mut kept: Vec<usize> = by_cost.iter().copied().take(OBSERVATIONS_MAX / 2).collect();
    let mut others: Vec<usize> = by_cost.into_iter().skip(OBSERVATIONS_MAX / 2).collect();
    others.sort_unstable_by(|a, b| b.cmp(a));
    kept.extend(others.into_iter().take(OBSERVATIONS_MAX / 2));
    kept.sort_unstable();
    let is_kept = |(index, pair)| kept.binary_search(&index).is_ok().then_some(pair);
    seen.into_iter().enumerate().filter_map(is_kept).collect()
}

/// Costs with mean 0 and variance 1. What is much worse than the middle is drawn nearer: a wall of bad
/// results says where not to go, not how steep the valley is.
fn standardised(costs: &[f64]) -> Option<Vec<f64>> {
    let mut finite: Vec<f64> = costs.iter().copied().filter(|cost| cost.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let (best, middle) = (*finite.first()?, *finite.get(finite.len() / 2)?);
    let spread = middle - best;
    let soft = |cost: f64| {
        if cost > middle && spread > 0.0 {
            middle + spread * libm::log1p((cost - middle) / spread)
        } else {
            cost
        }
    };
    let worst = soft(*finite.last()?);
    let soft: Vec<f64> =
        costs.iter().map(|cost| if cost.is_finite() { soft(*cost) } else { worst }).collect();
    let num = soft.len() as f64;
    let mean = soft.iter().sum::<f64>() / num;
    let deviation = (soft.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / num).sqrt();
    let scale = if deviation > 0.0 { deviation } else { 1.0 };
    Some(soft.iter().map(|y| (y - mean) / scale).collect())
}

/// A process and what has to be beaten.
struct Search<'a> {
    units: &'a Units<'a>,
    process: Process,
    best: f64,
    /// Points from the best on.
    ranked: Vec<Vec<f64>>,
}

impl<'a> Search<'a> {
    fn new(units: &'a Units<'a>, known: Known) -> Option<Self> {
        let Known { seen, pending } = known;
        let costs: Vec<f64> = seen.iter().map(|(_, cost)| *cost).collect();
        let mut values = standardised(&costs)?;
        let mut points: Vec<Vec<f64>> = seen.into_iter().map(|(point, _)| point).collect();
        let best = values.iter().copied().fold(f64::INFINITY, f64::min);
        let mut order: Vec<usize> = (0..points.len()).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]).then(a.cmp(b)));
        let ranked = order.into_iter().map(|index| points[index].clone()).collect();
        let kernel = Kernel::fit(&points, &values);
        let mut process = Process::new(kernel.clone(), points.clone(), &values)?;
        if !pending.is_empty() {
            let expected: Vec<f64> = pending.iter().map(|point| process.mean(point)).collect();
            values.extend(expected);
            points.extend(pending);
            process = Process::new(kernel, points, &values)?;
        }
        Some(Self { units, process, best, ranked })
    }

    /// Logarithm of the expected improvement, and its gradient if wanted.
    fn gain(&self, point: &[f64], with_gradient: bool) -> (f64, Vec<f64>) {
        let expected = self.process.expect(point, with_gradient);
        let z = (self.best - expected.mean) / expected.deviation;
        let (log, slope) = log_improvement(z);
        let slopes = expected.mean_gradient.iter().zip(&expected.deviation_gradient);
        let gradient = slopes
            .map(|(mean, deviation)| {
                (slope * (-mean - z * deviation) + deviation) / expected.deviation
            })
            .collect();
        (log + libm::log(expected.deviation), gradient)
    }

    /// The most promising assignment that was not tried.
    fn best(&self, history: &[Observation<'_>], draws: &mut Draws) -> Option<Assignment> {
        let mut scored: Vec<(f64, Vec<f64>)> = self
            .candidates(draws)
            .into_iter()
            .map(|point| (self.gain(&point, false).0, point))
            .collect();
        let by_gain = |(a, _): &(f64, Vec<f64>), (b, _): &(f64, Vec<f64>)| b.total_cmp(a);
        scored.sort_by(by_gain);
        let starts: Vec<Vec<f64>> =
            scored.iter().take(CLIMBS).map(|(_, point)| point.clone()).collect();
        let mut climbed: Vec<(f64, Vec<f64>)> =
            starts.into_iter().map(|start| self.improve(start)).collect();
        climbed.sort_by(by_gain);
        climbed
            .iter()
            .chain(&scored)
            .map(|(_, point)| self.units.assignment(point))
            .find(|assignment| !is_taken(history, assignment))
    }

    /// Points all over the cube and near the best ones.
    fn candidates(&self, draws: &mut Draws) -> Vec<Vec<f64>> {
        let mut points: Vec<Vec<f64>> = (0..CANDIDATES)
            .map(|_| (0..self.units.len()).map(|_| draws.unit()).collect())
            .collect();
        for index in 0..NEIGHBORS {
            let Some(near) = self.ranked.get(index % self.ranked.len().clamp(1, 4)) else { break };
            let width = if index % 2 == 0 { 0.1 } else { 0.01 };
            let moved = near.iter().map(|place| {
                let step = (draws.unit() + draws.unit() + draws.unit() - 1.5) * 2.0 * width;
                (place + step).clamp(0.0, 1.0)
            });
            points.push(moved.collect());
        }
        for point in &mut points {
            self.units.snap(point);
        }
        points
    }

    /// Climbs on continuous sides and tries neighbors on the others, in turns.
    fn improve(&self, start: Vec<f64>) -> (f64, Vec<f64>) {
        let mut point = start;
        let mut value = self.gain(&point, false).0;
        let free: Vec<bool> =
            (0..self.units.len()).map(|side| self.units.num_points(side).is_none()).collect();
        let bounds = vec![(0.0, 1.0); point.len()];
        for _ in 0..ROUNDS {
            let before = value;
            let rate = |point: &[f64]| {
                let (value, mut gradient) = self.gain(point, true);
                for (slope, is_free) in gradient.iter_mut().zip(&free) {
                    if !is_free {
                        *slope = 0.0;
                    }
                }
                Some((value, gradient))
            };
            if free.contains(&true)
                && let Some((mut top, _)) = climb(point.clone(), &bounds, CLIMB, rate)
            {
                self.units.snap(&mut top);
                let gain = self.gain(&top, false).0;
                if gain > value {
                    (point, value) = (top, gain);
                }
            }
            for side in (0..free.len()).filter(|side| !free[*side]) {
                for place in self.neighbors(side, point[side]) {
                    let mut moved = point.clone();
                    moved[side] = place;
                    self.units.snap(&mut moved);
                    let gain = self.gain(&moved, false).0;
                    if gain > value {
                        (point, value) = (moved, gain);
                    }
                }
            }
            if value - before < 1e-9 || !free.contains(&false) {
                break;
            }
        }
        (value, point)
    }

    /// Other places of a side with few points: all, or those one and an eighth of them away; of one that is a word's,
    /// where it is that word.
    fn neighbors(&self, side: usize, place: f64) -> Vec<f64> {
        if self.units.is_word(side) {
            return vec![1.0];
        }
        let num = self.units.num_points(side).unwrap_or(1).max(1);
        let width = 1.0 / num as f64;
        if num <= CHOICES_MAX {
            return (0..num).map(|index| (index as f64 + 0.5) * width).collect();
        }
        let steps = [width, -width, 0.125, -0.125];
        steps.iter().map(|step| (place + step).clamp(0.0, 1.0)).collect()
    }
}

/// Logarithm of `phi(z) + z Phi(z)`, which is the expected improvement in units of the deviation, and
/// its derivative.
fn log_improvement(z: f64) -> (f64, f64) {
    const LOG_ROOT_TWO_PI: f64 = 0.918_938_533_204_672_8;
    let log_density = -0.5 * z * z - LOG_ROOT_TWO_PI;
    if z > -25.0 {
        let below = 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
        let improvement = libm::exp(log_density) + z * below;
        return (libm::log(improvement), below / improvement);
    }
    // Mills' ratio by its asymptotic series: Phi(z) = phi(z) / |z| (1 - 1/z^2 + 3/z^4 - 15/z^6 ...).
    let inverse = 1.0 / (z * z);
    let series = 1.0 - inverse * (3.0 - inverse * (15.0 - inverse * (105.0 - inverse * 945.0)));
    let below = (1.0 - inverse * (1.0 - inverse * (3.0 - inverse * (15.0 - inverse * 105.0)))) / -z;
    (log_density + libm::log(inverse * series), below / (inverse * series))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn improvements_are_smooth_down_to_where_floats_end() {
        // z, log(norm.pdf(z) + z * norm.cdf(z)) by scipy.
        for (z, expected) in [
            (1.0, 0.080_026_218_8),
            (0.0, -0.918_938_533_2),
            (-2.0, -4.768_783_523_9),
            (-5.0, -16.744_301_162_7),
        ] {
            let (log, _) = log_improvement(z);
            assert!((log - expected).abs() < 1e-6, "{z}: {log}");
        }
        let (above, below) = (log_improvement(-24.999_999), log_improvement(-25.000_001));
        assert!((above.0 - below.0).abs() < 1e-4, "{above:?} {below:?}");
        assert!((above.1 / below.1 - 1.0).abs() < 1e-3);
        for z in [1.5, -0.3, -4.0, -20.0, -200.0] {
            let numeric = (log_improvement(z + 1e-5).0 - log_improvement(z - 1e-5).0) / 2e-5;
            let slope = log_improvement(z).1;
            assert!((numeric / slope - 1.0).abs() < 1e-4, "{z}: {numeric} {slope}");
        }
    }

    #[test]
    fn bad_results_are_drawn_nearer_and_diverged_ones_are_the_worst() {
        let found = standardised(&[1.0, 2.0, 3.0, 1e9, f64::NAN]).unwrap();
        assert!(found[3] < 6.0 && (found[3] - found[4]).abs() < 1e-12, "{found:?}");
        assert!(found.windows(2).take(3).all(|pair| pair[0] < pair[1]));
        assert_eq!(standardised(&[f64::NAN]), None);
        assert_eq!(standardised(&[2.0, 2.0]), Some(vec![0.0, 0.0]));
    }

    #[test]
    fn of_many_observations_the_best_and_the_newest_stay() {
        let all: Vec<(Vec<f64>, f64)> = (0..1000).map(|n| (vec![], f64::from(n))).collect();
        let kept = thinned(all);
        assert_eq!(kept.len(), OBSERVATIONS_MAX);
        let half = OBSERVATIONS_MAX / 2;
        assert!((kept[half - 1].1 - 127.0).abs() < 1e-9 && (kept[half].1 - 872.0).abs() < 1e-9);
    }
}
