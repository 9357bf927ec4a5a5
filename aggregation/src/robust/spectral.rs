//! Directions of largest variance, from the distances of the rows alone.
//!
//! The covariance of `n` rows of dimension `d` has the same non-zero eigenvalues as their centred Gram matrix, which
//! is `n × n` and follows from the squared distances (Torgerson 1952). It is solved exactly by Jacobi rotations
//! (Golub, Van Loan, Matrix Computations §8.5), so that a result depends on no random start.

use super::rows::Distances;

/// A bound on the work; rotations converge quadratically, in fewer than ten sweeps.
const MAX_SWEEPS: usize = 60;
/// An entry off the diagonal that is smaller than this part of the largest entry counts as zero.
const NEGLIGIBLE: f64 = 1e-19;

/// A symmetric matrix, by rows.
#[derive(Clone)]
pub(super) struct Symmetric {
    size: usize,
    entries: Vec<f64>,
}

/// An eigenvalue and its unit eigenvector.
pub(super) struct Eigenpair {
    pub(super) value: f64,
    pub(super) vector: Vec<f64>,
}

impl Symmetric {
    pub(super) fn from_fn(size: usize, entry: impl Fn(usize, usize) -> f64) -> Self {
        let entries = (0..size * size).map(|at| entry(at / size, at % size)).collect();
        Self { size, entries }
    }

    pub(super) fn at(&self, i: usize, j: usize) -> f64 {
        self.entries[i * self.size + j]
    }

    /// The largest eigenvalue; of several equal ones, any vector of theirs, but always the same for the same matrix.
    pub(super) fn dominant(&self) -> Eigenpair {
        let n = self.size;
        let mut matrix = self.clone();
        let mut vectors = Self::from_fn(n, |i, j| f64::from(u8::from(i == j)));
        let largest = matrix.entries.iter().fold(0.0, |most: f64, entry| most.max(entry.abs()));
        for _ in 0..MAX_SWEEPS {
            if !matrix.sweep(&mut vectors, NEGLIGIBLE * largest) {
                break;
            }
        }
        // The first of equals: max_by would take the last.
        let mut top = 0;
        for i in 1..n {
            if matrix.at(i, i) > matrix.at(top, top) {
                top = i;
            }
        }
        Eigenpair { value: matrix.at(top, top), vector: (0..n).map(|i| vectors.at(top, i)).collect() }
    }

    /// One rotation for each pair of axes whose entry is more than `negligible`, noted in the rows of `vectors`. Whether any was needed.
    fn sweep(&mut self, vectors: &mut Self, negligible: f64) -> bool {
        let n = self.size;
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                let (off, low, high) = (self.at(p, q), self.at(p, p), self.at(q, q));
                if off.abs() <= negligible {
                    continue;
                }
                rotated = true;
                let theta = (high - low) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = t.hypot(1.0).recip();
                let s = t * c;
                for k in 0..n {
                    let (a, b) = (self.at(k, p), self.at(k, q));
                    self.entries[k * n + p] = c * a - s * b;
                    self.entries[k * n + q] = s * a + c * b;
                }
                for k in 0..n {
                    let (a, b) = (self.at(p, k), self.at(q, k));
                    self.entries[p * n + k] = c * a - s * b;
                    self.entries[q * n + k] = s * a + c * b;
                    let (a, b) = (vectors.at(p, k), vectors.at(q, k));
                    vectors.entries[p * n + k] = c * a - s * b;
                    vectors.entries[q * n + k] = s * a + c * b;
                }
                self.entries[p * n + q] = 0.0;
                self.entries[q * n + p] = 0.0;
            }
        }
        rotated
    }

    /// Whether some eigenvalue is `bound` or more: whether `bound · 1 − self` has no Cholesky factor.
    pub(super) fn reaches(&self, bound: f64) -> bool {
        let n = self.size;
        let mut factor = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let own = if i == j { bound } else { 0.0 } - self.at(i, j);
                let left = own - (0..j).map(|k| factor[i * n + k] * factor[j * n + k]).sum::<f64>();
                if i > j {
                    factor[i * n + j] = left / factor[j * n + j];
                } else if left > 0.0 {
                    factor[i * n + i] = left.sqrt();
                } else {
                    return true;
                }
            }
        }
        false
    }
}

/// Scalar products of the rows at `members` about their mean weighted with `weights`, which add up to one.
pub(super) fn centred_gram(distances: &Distances, members: &[usize], weights: &[f64]) -> Symmetric {
    let squared = |i: usize, j: usize| distances.squared(members[i], members[j]);
    let to_mean: Vec<f64> = (0..members.len())
        .map(|i| weights.iter().enumerate().map(|(j, weight)| weight * squared(i, j)).sum())
        .collect();
    let spread: f64 = to_mean.iter().zip(weights).map(|(distance, weight)| weight * distance).sum();
    Symmetric::from_fn(members.len(), |i, j| (to_mean[i] + to_mean[j] - squared(i, j) - spread) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[&[f64]]) -> Symmetric {
        Symmetric::from_fn(rows.len(), |i, j| rows[i][j])
    }

    #[test]
    fn eigenpairs_by_hand() {
        // Eigenvalues 1 and 3, the latter along (1, 1).
        let two = matrix(&[&[2.0, 1.0], &[1.0, 2.0]]).dominant();
        assert!((two.value - 3.0).abs() < 1e-15);
        assert!((two.vector[0] - two.vector[1]).abs() < 1e-15);
        // The path of three: 2 + √2 along (1, −√2, 1).
        let path = matrix(&[&[2.0, -1.0, 0.0], &[-1.0, 2.0, -1.0], &[0.0, -1.0, 2.0]]).dominant();
        assert!((path.value - 2.0 - 2f64.sqrt()).abs() < 1e-14, "{}", path.value);
        assert!((path.vector[1] / path.vector[0] + 2f64.sqrt()).abs() < 1e-14);
        assert_eq!(matrix(&[&[0.0, 0.0], &[0.0, 0.0]]).dominant().value, 0.0);
        assert_eq!(matrix(&[&[5.0]]).dominant().vector, [1.0]);
    }

    #[test]
    fn dominant_pairs_satisfy_their_equation() {
        let n = 30;
        let root = |i: usize, j: usize| ((i * 37 + j * 101 + i * j * 13) % 97) as f64 / 97.0 - 0.5;
        let gram = Symmetric::from_fn(n, |i, j| (0..n).map(|k| root(i, k) * root(j, k)).sum());
        let Eigenpair { value, vector } = gram.dominant();
        for i in 0..n {
            let image: f64 = (0..n).map(|j| gram.at(i, j) * vector[j]).sum();
            assert!((image - value * vector[i]).abs() < 1e-13, "{image} is not {value} times {}", vector[i]);
        }
        assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-14);
        assert!(gram.reaches(value * (1.0 - 1e-12)) && !gram.reaches(value * (1.0 + 1e-12)));
    }
}
