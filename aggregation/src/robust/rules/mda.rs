//! Minimum diameter averaging (Rousseeuw, "Multivariate estimation with high breakdown point", 1985; El Mhamdi,
//! Guerraoui, Rouault: "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018): keep the
//! `n − f` rows whose largest pairwise distance is least.
//!
//! The search is exact. It does not visit subsets but drops rows: as long as both ends of the farthest pair are
//! there, the diameter is their distance, so one of the two has to go. Each of the `f` drops thus has two branches.
//!
//! Subsets of equal diameter are common, since whole families share their farthest pair. The lexicographically
//! first one is kept: where either row of a pair could go, the later one goes.

use crate::robust::Aggregate;
use crate::robust::registry::{About, Call, Needs, RuleSpec};
use crate::robust::rows::Distances;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "mda",
        summary: "mean of the n-f rows with the least diameter (largest pairwise distance)",
        options: &[],
        cost: "n² d + 2^f n² at worst",
        source: "Rousseeuw 1985; El Mhamdi, Guerraoui, Rouault, ICML 2018",
    },
    breakdown: "f < n/2, f at most 20",
    needs: Needs {
        search: |_, f| 1_u64.checked_shl(f.try_into().unwrap_or(u32::MAX)).unwrap_or(u64::MAX),
        ..Needs::COMMON
    },
    run: |&Call { rows, f, .. }| Aggregate::of_selected(&rows, select(&rows.distances(), f)),
};

/// Two rows and their squared distance.
struct Pair {
    rows: [usize; 2],
    distance: f64,
}

/// Indices, ascending, of the lexicographically first of the `n − f` rows with the least diameter.
fn select(distances: &Distances, f: usize) -> Vec<usize> {
    let n = distances.count();
    let pairs = farthest_first(distances);
    let mut dropped = vec![false; n];
    let diameter = least_diameter(&pairs, &mut dropped, f);

    // No two kept rows may form one of these pairs. Each row in turn is kept if the rest can still be made to fit.
    let too_far = &pairs[..pairs.partition_point(|pair| pair.distance > diameter)];
    let mut may_drop = f;
    for row in 0..n {
        let conflicts = conflicts_of(row, too_far, &dropped);
        if dropped[row] || conflicts.is_empty() {
            continue;
        }
        if conflicts.len() <= may_drop {
            mark(&mut dropped, &conflicts, true);
            if least_diameter(too_far, &mut dropped, may_drop - conflicts.len()) <= diameter {
                may_drop -= conflicts.len();
                continue;
            }
            mark(&mut dropped, &conflicts, false);
        }
        dropped[row] = true;
        may_drop -= 1;
    }
    (0..n).filter(|&row| !dropped[row]).take(n - f).collect()
}

/// Every pair of rows, the farthest first.
fn farthest_first(distances: &Distances) -> Vec<Pair> {
    let n = distances.count();
    let mut pairs: Vec<Pair> = (0..n)
        .flat_map(|i| (i + 1..n).map(move |j| Pair { rows: [i, j], distance: distances.squared(i, j) }))
        .collect();
    pairs.sort_by(|a, b| b.distance.total_cmp(&a.distance));
    pairs
}

/// The least squared diameter, as far as `pairs` tell (0 without a pair), after `may_drop` more rows are dropped.
/// Leaves `dropped` as it was.
fn least_diameter(pairs: &[Pair], dropped: &mut [bool], may_drop: usize) -> f64 {
    let Some(at) = pairs.iter().position(|pair| pair.rows.iter().all(|&row| !dropped[row])) else {
        return 0.0;
    };
    let Pair { rows: [a, b], distance } = pairs[at];
    if may_drop == 0 {
        return distance;
    }
    let mut without = |row: usize| {
        dropped[row] = true;
        let least = least_diameter(&pairs[at + 1..], dropped, may_drop - 1);
        dropped[row] = false;
        least
    };
    without(a).min(without(b))
}

/// The rows left that form one of `pairs` with `row`.
fn conflicts_of(row: usize, pairs: &[Pair], dropped: &[bool]) -> Vec<usize> {
    pairs
        .iter()
        .filter_map(|&Pair { rows: [a, b], .. }| match row {
            _ if row == a => Some(b),
            _ if row == b => Some(a),
            _ => None,
        })
        .filter(|&other| !dropped[other])
        .collect()
}

fn mark(dropped: &mut [bool], rows: &[usize], value: bool) {
    for &row in rows {
        dropped[row] = value;
    }
}
