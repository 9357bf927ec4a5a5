//! The covariance-bound agnostic filter (Allouah et al.: "Towards Trustworthy Federated Learning with Untrusted
//! Participants", ICML 2025).
//!
//! Rows begin with weight one. While more than `n − 2f` of it is left, each row loses weight by how far it lies from
//! the weighted mean along the direction of largest variance. The mean whose largest variance was least is the result.
//!
//! byzfl takes the direction from a single step of a power iteration with a random start, so that its results differ
//! from run to run; here it is the exact eigenvector. The row that loses all its weight is the farthest one that has
//! any left. Were it the farthest of all, as in byzfl, an outlier that was removed before could hold up the others
//! for ever.

use crate::robust::Aggregate;
use crate::robust::registry::{About, Call, Needs, RuleSpec};
use crate::robust::spectral::{Eigenpair, Symmetric, centred_gram};

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "caf",
        summary: "mean after rows lost weight along the directions of largest variance",
        options: &[],
        cost: "n² d + f n³",
        source: "Allouah et al., ICML 2025 (arXiv 2505.01874)",
    },
    breakdown: "f < n/2",
    needs: Needs::COMMON,
    run,
};

fn run(&Call { rows, f, .. }: &Call) -> Aggregate {
    let n = rows.count();
    let distances = rows.distances();
    let all: Vec<usize> = (0..n).collect();
    let mut weights = vec![1.0; n];
    let (mut least, mut best) = (f64::INFINITY, weights.clone());
    loop {
        let total: f64 = weights.iter().sum();
        if total <= (n - 2 * f) as f64 {
            break;
        }
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let gram = centred_gram(&distances, &all, &shares);
        let covariance = Symmetric::from_fn(n, |i, j| (shares[i] * shares[j]).sqrt() * gram.at(i, j));
        let Eigenpair { value, vector } = covariance.dominant();
        if value < least {
            (least, best) = (value, weights.clone());
        }
        // How far the rows lie from the mean along the direction of largest variance, but for a common factor.
        let along =
            |&i: &usize| all.iter().map(|&j| gram.at(i, j) * shares[j].sqrt() * vector[j]).sum::<f64>().abs();
        let lengths: Vec<f64> = all.iter().map(along).collect();
        let farthest = all.iter().filter(|&&i| weights[i] > 0.0).map(|&i| lengths[i]).fold(0.0, f64::max);
        // The rows that are left coincide.
        if farthest == 0.0 {
            break;
        }
        for (weight, length) in weights.iter_mut().zip(lengths) {
            *weight *= (1.0 - (length / farthest).powi(2)).max(0.0);
        }
    }
    let total: f64 = best.iter().sum();
    let entering: Vec<_> = best.into_iter().enumerate().filter(|(_, weight)| *weight > 0.0).collect();
    let shares: Vec<_> = entering.iter().map(|(row, weight)| (*row, weight / total)).collect();
    let vector = rows.combine(&shares);
    let kept = entering.into_iter().map(|(row, _)| row).collect();
    Aggregate { scores: rows.distances_to(&vector), vector, kept }
}
