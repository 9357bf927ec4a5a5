//! Smallest maximum eigenvalue averaging (Allouah, Guerraoui, Gupta, Pinot, Stephan: "On the
//! Privacy-Robustness-Utility Trilemma in Distributed Learning", ICML 2023): the mean of the `n − f` rows whose largest
//! variance in any direction is least.
//!
//! byzfl judges a subset by a single step of a power iteration with a random start, and so takes a wrong one now and
//! then. Here every subset is judged exactly, but few are looked at: the scatter matrix about the mean of a set only
//! grows with the set, so a set that scatters more than the best subset so far is in no better one.

use crate::robust::Aggregate;
use crate::robust::registry::{About, Call, Needs, RuleSpec};
use crate::robust::rows::Distances;
use crate::robust::spectral::{Symmetric, centred_gram};

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "smea",
        summary: "mean of the n-f rows whose largest variance in any direction is least",
        options: &[],
        cost: "n² d + (n choose f) n³ at worst",
        source: "Allouah et al., ICML 2023",
    },
    breakdown: "f < n/2, n choose f at most 2^20",
    needs: Needs { search: subsets, ..Needs::COMMON },
    run: |&Call { rows, f, .. }| Aggregate::of_selected(&rows, select(&rows.distances(), f)),
};

/// Eigenvalues that differ by less are equal: of subsets that tie, the lexicographically first is taken.
const TOLERANCE: f64 = 1e-12;

/// `n` choose `f`, or the largest number where that does not fit.
fn subsets(n: usize, f: usize) -> u64 {
    // After each factor the product is a binomial coefficient, so that the division is exact.
    (0..f as u64)
        .try_fold(1_u64, |chosen, i| Some(chosen.checked_mul((n as u64).checked_sub(i)?)? / (i + 1)))
        .unwrap_or(u64::MAX)
}

/// Indices, ascending, of the `n − f` rows with the least largest eigenvalue of their scatter matrix.
fn select(distances: &Distances, f: usize) -> Vec<usize> {
    let greedy = greedy(distances, f);
    let bound = largest_scatter(distances, &greedy) * (1.0 + TOLERANCE);
    let mut search = Search { distances, size: distances.count() - f, bound, best: greedy };
    // Nothing is better than no scatter, and no bound below it could be met.
    if bound > 0.0 {
        search.extend(&mut Vec::new(), 0);
    }
    search.best
}

/// A subset to begin with: drops, `f` times, the row without which the rest scatters least.
fn greedy(distances: &Distances, f: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..distances.count()).collect();
    for _ in 0..f {
        let without = |at: usize| {
            let mut rest = left.clone();
            rest.remove(at);
            largest_scatter(distances, &rest)
        };
        // Of equals the last goes.
        let drop = (0..left.len()).rev().map(|at| (at, without(at))).min_by(|a, b| a.1.total_cmp(&b.1));
        left.remove(drop.expect("fewer than half of the rows are dropped").0);
    }
    left
}

/// Depth-first search through the subsets of `size` rows in lexicographic order.
struct Search<'a> {
    distances: &'a Distances,
    size: usize,
    /// What a subset must stay below.
    bound: f64,
    best: Vec<usize>,
}

impl Search<'_> {
    fn extend(&mut self, chosen: &mut Vec<usize>, next: usize) {
        if chosen.len() == self.size {
            self.best.clone_from(chosen);
            self.bound = largest_scatter(self.distances, chosen) * (1.0 - TOLERANCE);
            return;
        }
        let missing = self.size - chosen.len();
        for row in next..=self.distances.count() - missing {
            chosen.push(row);
            if !scatter(self.distances, chosen).reaches(self.bound) {
                self.extend(chosen, row + 1);
            }
            chosen.pop();
        }
    }
}

fn largest_scatter(distances: &Distances, members: &[usize]) -> f64 {
    scatter(distances, members).dominant().value
}

/// The Gram matrix of rows about their mean, which has the eigenvalues of their scatter matrix.
fn scatter(distances: &Distances, members: &[usize]) -> Symmetric {
    centred_gram(distances, members, &vec![1.0 / members.len() as f64; members.len()])
}
