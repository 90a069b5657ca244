//! Maximisation by gradient within bounds.
//!
//! Igel, Huesken 2003, "Empirical evaluation of the improved Rprop learning algorithms": iRprop-, which
//! looks at signs only and needs no line search; Blum, Riedmiller 2013 recommend it for the
//! hyperparameters of Gaussian processes.

/// Factors of a step whose direction stays and of one that turns.
const GROWTH: f64 = 1.2;
const SHRINKAGE: f64 = 0.5;

/// Steps of a climb.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    /// First step in every dimension.
    pub(super) first: f64,
    /// Largest step.
    pub(super) longest: f64,
    /// When all are shorter, it is over.
    pub(super) shortest: f64,
    /// Evaluations at most.
    pub(super) evaluations: usize,
}

/// The best point found from `start` and its value. `rate` gives value and gradient; where it cannot,
/// the climb ends.
pub(super) fn climb(
    start: Vec<f64>,
    bounds: &[(f64, f64)],
    steps: Steps,
    rate: impl Fn(&[f64]) -> Option<(f64, Vec<f64>)>,
) -> Option<(Vec<f64>, f64)> {
    let mut point = start;
    let mut lengths = vec![steps.first; point.len()];
    let mut before = vec![0.0; point.len()];
    let mut best: Option<(Vec<f64>, f64)> = None;
    for _ in 0..steps.evaluations {
        let Some((value, gradient)) = rate(&point).filter(|(value, _)| value.is_finite()) else {
            break;
        };
        if best.as_ref().is_none_or(|(_, found)| value > *found) {
            best = Some((point.clone(), value));
        }
        for dimension in 0..point.len() {
            let (slope, last) = (gradient[dimension], before[dimension]);
            let turned = slope * last;
            let length = &mut lengths[dimension];
            before[dimension] = slope;
            if turned > 0.0 {
                *length = (*length * GROWTH).min(steps.longest);
            } else if turned < 0.0 {
                *length *= SHRINKAGE;
                before[dimension] = 0.0;
                continue;
            }
            if slope != 0.0 && slope.is_finite() {
                let (low, high) = bounds[dimension];
                point[dimension] = (point[dimension] + slope.signum() * *length).clamp(low, high);
            }
        }
        if lengths.iter().all(|length| *length < steps.shortest) {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Steps = Steps { first: 0.1, longest: 1.0, shortest: 1e-9, evaluations: 300 };

    #[test]
    fn a_top_is_found_inside_and_at_the_bounds() {
        let rate = |x: &[f64]| {
            let (a, b) = (x[0] - 0.3, x[1] - 2.0);
            Some((-a * a - 5.0 * b * b - a * b, vec![-2.0 * a - b, -10.0 * b - a]))
        };
        let (top, _) = climb(vec![0.9, 0.1], &[(-1.0, 1.0), (-3.0, 3.0)], STEPS, rate).unwrap();
        assert!((top[0] - 0.3).abs() < 1e-6 && (top[1] - 2.0).abs() < 1e-6, "{top:?}");
        let (top, _) = climb(vec![0.9, 0.1], &[(0.0, 1.0), (0.0, 1.0)], STEPS, rate).unwrap();
        // On the edge b = -1 the best a solves 2 a = 1.
        assert!((top[0] - 0.8).abs() < 1e-6 && (top[1] - 1.0).abs() < 1e-12, "{top:?}");
        assert!(climb(vec![0.0], &[(0.0, 1.0)], STEPS, |_| None).is_none());
    }
}
