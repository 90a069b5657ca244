//! The little linear algebra that the samplers need. Written here, in plain sums, because proposals are
//! computed again when a journal is replayed: libraries choose their kernels by the processor, and the
//! last bit of a sum with them.

/// Sweeps of Jacobi's method at most; it converges quadratically, in fewer than ten.
const SWEEPS_MAX: usize = 50;

/// Lower triangular factor of a symmetric positive definite matrix.
#[derive(Debug, Clone)]
pub(super) struct Cholesky {
    num: usize,
    /// Row by row; what lies above the diagonal is zero.
    factor: Vec<f64>,
}

impl Cholesky {
    /// Factor of a matrix of `num` rows, row by row; `None`: it is not positive definite.
    pub(super) fn new(matrix: &[f64], num: usize) -> Option<Self> {
        let mut factor = vec![0.0; num * num];
        for row in 0..num {
            for column in 0..=row {
                let (above, below) = factor.split_at_mut(row * num);
                let own = below.get_mut(..num)?;
                let other: &[f64] = if column == row {
                    &*own
                } else {
                    above.get(column * num..(column + 1) * num)?
                };
                let dot = dot(own.get(..column)?, other.get(..column)?);
                let rest = matrix.get(row * num + column)? - dot;
                own[column] = if column == row {
                    if !(rest > 0.0 && rest.is_finite()) {
                        return None;
                    }
                    rest.sqrt()
                } else {
                    rest / above[column * num + column]
                };
            }
        }
        Some(Self { num, factor })
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.factor[row * self.num..(row + 1) * self.num]
    }

    /// Logarithm of the determinant of the matrix.
    pub(super) fn log_determinant(&self) -> f64 {
        2.0 * (0..self.num).map(|row| libm::log(self.row(row)[row])).sum::<f64>()
    }

    /// Solves with the factor alone.
    pub(super) fn solve_lower(&self, right: &mut [f64]) {
        for row in 0..self.num {
            let line = self.row(row);
            right[row] = (right[row] - dot(&line[..row], &right[..row])) / line[row];
        }
    }

    /// Solves with the matrix.
    pub(super) fn solve(&self, right: &mut [f64]) {
        self.solve_lower(right);
        for row in (0..self.num).rev() {
            let line = self.row(row);
            right[row] /= line[row];
            let solved = right[row];
            for (value, factor) in right[..row].iter_mut().zip(line) {
                *value -= factor * solved;
            }
        }
    }

    /// The inverse of the matrix, row by row.
    pub(super) fn inverse(&self) -> Vec<f64> {
        let num = self.num;
        // Rows of the inverse of the factor's transpose: `inverted[column]` solves for a unit vector.
        let mut inverted = vec![0.0; num * num];
        for column in 0..num {
            let solution = &mut inverted[column * num..(column + 1) * num];
            solution[column] = 1.0;
            for row in column..num {
                let line = self.row(row);
                let sum = dot(&line[column..row], &solution[column..row]);
                solution[row] = (solution[row] - sum) / line[row];
            }
        }
        let mut inverse = vec![0.0; num * num];
        for row in 0..num {
            for column in 0..=row {
                let (a, b) = (&inverted[row * num..(row + 1) * num], &inverted[column * num..]);
                let sum = dot(&a[row..], &b[row..num]);
                inverse[row * num + column] = sum;
                inverse[column * num + row] = sum;
            }
        }
        inverse
    }
}

/// Sum of products, in four interleaved sums whose order does not depend on the processor.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a_parts, b_parts) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_parts.zip(b_parts) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// Eigenvalues and eigenvectors of a symmetric matrix of `num` rows by Jacobi's method (Golub, Van
/// Loan 2013, "Matrix Computations", section 8.5). Vector `k` is column `k` of the second result, which
/// is written row by row.
pub(super) fn eigen(mut matrix: Vec<f64>, num: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; num * num];
    for row in 0..num {
        vectors[row * num + row] = 1.0;
    }
    for _ in 0..SWEEPS_MAX {
        let off: f64 = (0..num)
            .flat_map(|row| (0..row).map(move |column| (row, column)))
            .map(|(row, column)| matrix[row * num + column] * matrix[row * num + column])
            .sum();
        let total: f64 = matrix.iter().map(|value| value * value).sum();
        if off <= 1e-30 * total {
            break;
        }
        for p in 0..num {
            for q in p + 1..num {
                rotate(&mut matrix, &mut vectors, num, (p, q));
            }
        }
    }
    ((0..num).map(|row| matrix[row * num + row]).collect(), vectors)
}

/// Makes one pair of entries off the diagonal zero.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], num: usize, (p, q): (usize, usize)) {
    let off = matrix[p * num + q];
    if off == 0.0 {
        return;
    }
    let tau = (matrix[q * num + q] - matrix[p * num + p]) / (2.0 * off);
    let tangent = tau.signum() / (tau.abs() + (1.0 + tau * tau).sqrt());
    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
    let sine = tangent * cosine;
    for k in 0..num {
        let (a, b) = (matrix[k * num + p], matrix[k * num + q]);
        matrix[k * num + p] = cosine * a - sine * b;
        matrix[k * num + q] = sine * a + cosine * b;
    }
    for k in 0..num {
        let (a, b) = (matrix[p * num + k], matrix[q * num + k]);
        matrix[p * num + k] = cosine * a - sine * b;
        matrix[q * num + k] = sine * a + cosine * b;
        let (a, b) = (vectors[k * num + p], vectors[k * num + q]);
        vectors[k * num + p] = cosine * a - sine * b;
        vectors[k * num + q] = sine * a + cosine * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::seed::Seed;

    fn random(num: usize, seed: u64) -> Vec<f64> {
        let mut draws = Seed(seed).draws();
        (0..num * num).map(|_| draws.unit() - 0.5).collect()
    }

    fn product(a: &[f64], b: &[f64], num: usize) -> Vec<f64> {
        let entry = |index: usize| -> f64 {
            (0..num).map(|k| a[index / num * num + k] * b[k * num + index % num]).sum()
        };
        (0..num * num).map(entry).collect()
    }

    fn transposed(a: &[f64], num: usize) -> Vec<f64> {
        (0..num * num).map(|index| a[index % num * num + index / num]).collect()
    }

    fn far(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    fn identity(num: usize) -> Vec<f64> {
        (0..num * num).map(|index| if index / num == index % num { 1.0 } else { 0.0 }).collect()
    }

    #[test]
    fn factors_solve_and_invert() {
        for num in [1, 2, 7, 13] {
            let root = random(num, 3);
            let mut matrix = product(&root, &transposed(&root, num), num);
            for row in 0..num {
                matrix[row * num + row] += 0.1;
            }
            let cholesky = Cholesky::new(&matrix, num).unwrap();
            let factor = &cholesky.factor;
            assert!(far(&product(factor, &transposed(factor, num), num), &matrix) < 1e-12);
            assert!(far(&product(&cholesky.inverse(), &matrix, num), &identity(num)) < 1e-9);
            let right: Vec<f64> = random(num, 4).into_iter().take(num).collect();
            let mut solution = right.clone();
            cholesky.solve(&mut solution);
            let back: Vec<f64> =
                (0..num).map(|row| dot(&matrix[row * num..(row + 1) * num], &solution)).collect();
            assert!(far(&back, &right) < 1e-9);
            let (values, _) = eigen(matrix, num);
            let log_determinant: f64 = values.iter().map(|value| value.ln()).sum();
            assert!((cholesky.log_determinant() - log_determinant).abs() < 1e-9);
        }
        assert!(Cholesky::new(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
    }

    #[test]
    fn eigenvectors_give_the_matrix_back() {
        for num in [1, 2, 5, 12] {
            let root = random(num, 5);
            let other = transposed(&root, num);
            let matrix: Vec<f64> = root.iter().zip(&other).map(|(a, b)| a + b).collect();
            let (values, vectors) = eigen(matrix.clone(), num);
            let scaled: Vec<f64> =
                vectors.iter().enumerate().map(|(i, v)| v * values[i % num]).collect();
            assert!(far(&product(&scaled, &transposed(&vectors, num), num), &matrix) < 1e-12);
            assert!(
                far(&product(&vectors, &transposed(&vectors, num), num), &identity(num)) < 1e-12
            );
        }
    }
}
