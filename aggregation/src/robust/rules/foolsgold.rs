//! FoolsGold (Fung, Yoon, Beschastnikh: "The Limitations of Federated Learning in Sybil Settings", RAID 2020): clients
//! whose updates point the same way too well lose weight, since honest ones differ.
//!
//! It compares what each client sent over all rounds, so it must know which client a row is from, and cannot stand
//! behind secure aggregation. Weights are scaled to add up to one, where the authors' program adds the weighted rows.

use crate::robust::Aggregate;
use crate::robust::options::{Fallback, Kind, OptionSpec};
use crate::robust::registry::{About, Bound, Call, Needs, RuleSpec};
use crate::robust::rows::Rows;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "foolsgold",
        summary: "mean weighted against rows that are alike; for single clients in mode insecure_plain only",
        options: &[OptionSpec {
            key: "history",
            kind: Kind::Rows,
            default: Fallback::Computed("the rows themselves"),
            meaning: "for each client, the sum of its updates so far",
        }],
        cost: "n² d",
        source: "Fung, Yoon, Beschastnikh, RAID 2020",
    },
    breakdown: "any f < n that act alike; none that act apart",
    needs: Needs { group_means: false, bound: |_| Bound { per_byzantine: 1, more: 1 }, ..Needs::COMMON },
    run,
};

/// Below one, so that the logit of the best row's weight is finite.
const ALMOST_ONE: f64 = 0.99;

/// If all rows are alike, the result is zero and no row is kept. Scores are one minus the weight before scaling.
fn run(&Call { rows, options, .. }: &Call) -> Aggregate {
    let weights =
        options.rows("history").map_or_else(|| weights(&rows), |history| weights(&rows.made(history)));
    let total: f64 = weights.iter().sum();
    let kept: Vec<usize> = (0..rows.count()).filter(|&row| weights[row] > 0.0).collect();
    let shares: Vec<_> = kept.iter().map(|&row| (row, weights[row] / total)).collect();
    let scores = weights.iter().map(|weight| 1.0 - weight).collect();
    Aggregate { vector: rows.combine(&shares), kept, scores }
}

/// Weights from 0 to 1: algorithm 1 of the paper.
fn weights(history: &Rows) -> Vec<f64> {
    let n = history.count();
    let norms = history.norms();
    let products = history.products();
    let cosines: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let cosine = |j: usize| {
                let norm = norms[i] * norms[j];
                if i == j || norm == 0.0 { 0.0 } else { products[i * n + j] / norm }
            };
            (0..n).map(cosine).collect()
        })
        .collect();
    let largest = |cosines: &[f64]| cosines.iter().copied().fold(0.0, f64::max);
    let most: Vec<f64> = cosines.iter().map(|cosines| largest(cosines)).collect();
    // Pardoning: who merely resembles a row that resembles others more is forgiven in proportion.
    let pardoned = (0..n).map(|i| {
        let pardon = |j: usize| if most[i] < most[j] { most[i] / most[j] } else { 1.0 };
        1.0 - largest(&(0..n).map(|j| cosines[i][j] * pardon(j)).collect::<Vec<_>>())
    });
    let pardoned: Vec<f64> = pardoned.map(|weight| weight.clamp(0.0, 1.0)).collect();
    let best = largest(&pardoned);
    if best == 0.0 {
        return pardoned;
    }
    let logit = |weight: f64| {
        let weight = (weight / best).min(ALMOST_ONE);
        ((weight / (1.0 - weight)).ln() + 0.5).clamp(0.0, 1.0)
    };
    pardoned.into_iter().map(logit).collect()
}
