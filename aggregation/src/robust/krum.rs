//! Krum and Multi-Krum (Blanchard, El Mhamdi, Guerraoui, Stainer: "Machine Learning with Adversaries", NeurIPS
//! 2017): keep rows by how close they are to their nearest others.
//!
//! Implementations differ in the number of neighbours. Here it is the paper's `n − f − 2` others; byzfl, for
//! one, takes `n − f − 1`.

use super::{Aggregate, coordinate, squared_distance};

/// Mean of the `keep` rows with the least sum of squared distances to their `neighbours` nearest others; equal
/// scores are taken in the order of the rows. `neighbours < rows.len()`, `1 ≤ keep ≤ rows.len()`.
pub(super) fn select(rows: &[Vec<f64>], neighbours: usize, keep: usize) -> Aggregate {
    let scores = scores(rows, neighbours);
    let mut kept: Vec<usize> = (0..rows.len()).collect();
    kept.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    kept.truncate(keep);
    kept.sort_unstable();
    Aggregate { vector: coordinate::mean_of(rows, kept.iter().copied()), kept, scores }
}

fn scores(rows: &[Vec<f64>], neighbours: usize) -> Vec<f64> {
    // Differences, not a Gram matrix: distances between near rows far from the origin keep their precision.
    let mut distances = vec![Vec::with_capacity(rows.len() - 1); rows.len()];
    for (i, row) in rows.iter().enumerate() {
        for (j, other) in rows.iter().enumerate().skip(i + 1) {
            let distance = squared_distance(row, other);
            distances[i].push(distance);
            distances[j].push(distance);
        }
    }
    distances
        .into_iter()
        .map(|mut to_others| {
            to_others.sort_unstable_by(f64::total_cmp);
            to_others[..neighbours].iter().sum()
        })
        .collect()
}
