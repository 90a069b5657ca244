//! Points and weights of integrals from 0 to 1, and derivatives at these points.

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

/// The matrix that makes derivatives at `nodes` of the values there: those of the polynomial through all values. Rows
/// are where the derivative is, columns where the value is. (Berrut and Trefethen 2004, "Barycentric Lagrange
/// Interpolation", equations 9.4 and 9.5, with the weights that Wang and Xiang 2012 give for these nodes.)
pub(super) fn differentiation(nodes: &[Node]) -> Vec<Vec<f64>> {
    let barycentric: Vec<f64> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let size = (node.at * (1.0 - node.at) * node.weight).sqrt();
            if index % 2 == 0 { size } else { -size }
        })
        .collect();
    let weighted = || nodes.iter().zip(&barycentric).enumerate();
    let row = |(i, (here, own)): (usize, (&Node, &f64))| {
        let other = |(j, (there, other)): (usize, (&Node, &f64))| {
            if i == j { 0.0 } else { other / own / (here.at - there.at) }
        };
        let mut row: Vec<f64> = weighted().map(other).collect();
        // The derivative of a constant is zero.
        let sum: f64 = row.iter().sum();
        if let Some(diagonal) = row.get_mut(i) {
            *diagonal = -sum;
        }
        row
    };
    weighted().map(row).collect()
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

    #[test]
    fn derivatives_of_polynomials_are_exact() {
        for count in [1, 2, 5, 50] {
            let nodes = gauss_legendre(count);
            let matrix = differentiation(&nodes);
            for degree in 0..i32::try_from(count).unwrap().min(12) {
                for (node, row) in nodes.iter().zip(&matrix) {
                    let values = nodes.iter().map(|node| node.at.powi(degree));
                    let found: f64 = row.iter().zip(values).map(|(a, b)| a * b).sum();
                    let exact = if degree == 0 {
                        0.0
                    } else {
                        f64::from(degree) * node.at.powi(degree - 1)
                    };
                    assert!((found - exact).abs() < 1e-9, "{count}, {degree}: {found}, {exact}");
                }
            }
        }
    }
}
