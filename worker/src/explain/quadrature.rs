//! Points and weights of integrals from 0 to 1.

/// One point of a rule: where the integrand is taken, and how much it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Node {
    /// Between 0 and 1.
    pub(super) at: f64,
    /// All weights of a rule sum to 1.
    pub(super) weight: f64,
}

/// The rule of Gauss and Legendre with `count` points, which is exact for polynomials of degree `2 * count - 1`. Nodes
/// are the roots of the Legendre polynomial, found by Newton's method from the estimate of Tricomi.
pub(super) fn gauss_legendre(count: u32) -> Vec<Node> {
    /// Newton's method doubles the right digits each time; the estimates begin with two or more.
    const ROUNDS: usize = 8;
    let n = f64::from(count);
    let node = |index: u32| {
        let mut x = (std::f64::consts::PI * (f64::from(index) + 0.75) / (n + 0.5)).cos();
        for _ in 0..ROUNDS {
            let (value, slope) = legendre(count, x);
            x -= value / slope;
        }
        let (_, slope) = legendre(count, x);
        Node { at: f64::midpoint(1.0, -x), weight: 1.0 / ((1.0 - x * x) * slope * slope) }
    };
    (0..count).map(node).collect()
}

/// The Legendre polynomial of degree `degree`, and its derivative, inside -1 and 1.
fn legendre(degree: u32, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    if degree == 0 {
        return (1.0, 0.0);
    }
    for k in 2..=degree {
        let k = f64::from(k);
        (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
    }
    (value, f64::from(degree) * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_exact_for_polynomials() {
        for count in [1, 2, 3, 10, 51] {
            let nodes = gauss_legendre(count);
            assert!(nodes.is_sorted_by(|a, b| a.at < b.at));
            for degree in 0..(2 * count).min(30) {
                let degree = i32::try_from(degree).unwrap();
                let sum: f64 = nodes.iter().map(|node| node.weight * node.at.powi(degree)).sum();
                let exact = 1.0 / f64::from(degree + 1);
                assert!((sum - exact).abs() < 1e-12, "{count} points, degree {degree}: {sum}");
            }
        }
    }
}
