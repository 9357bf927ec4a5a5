//! Minimum diameter averaging (Rousseeuw, "Multivariate estimation with high breakdown point", 1985; El Mhamdi,
//! Guerraoui, Rouault: "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018): keep the
//! `n − f` rows whose largest pairwise distance is least.
//!
//! The search is exact. It does not visit subsets but drops rows: as long as both ends of the farthest pair are
//! there, the diameter is their distance, so one of the two has to go. Each of the `f` drops thus has two branches.
//!
//! Subsets of equal diameter are common, since whole families share their farthest pair. The lexicographically
//! first one is kept: where either row of a pair could go, the later one goes.

use super::squared_distance;

/// The largest `f` searched, `2^20` branches at most.
pub(super) const MAX_F: usize = 20;

/// Two rows and their squared distance.
struct Pair {
    rows: [usize; 2],
    distance: f64,
}

/// Indices, ascending, of the lexicographically first of the `rows.len() − f` rows with the least diameter.
/// `f < rows.len()`, `f ≤ MAX_F`.
pub(super) fn select(rows: &[Vec<f64>], f: usize) -> Vec<usize> {
    let pairs = farthest_first(rows);
    let mut dropped = vec![false; rows.len()];
    let diameter = least_diameter(&pairs, &mut dropped, f);

    // No two kept rows may form one of these pairs. Each row in turn is kept if the rest can still be made to fit.
    let too_far = &pairs[..pairs.partition_point(|pair| pair.distance > diameter)];
    let mut may_drop = f;
    for row in 0..rows.len() {
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
    (0..rows.len()).filter(|&row| !dropped[row]).take(rows.len() - f).collect()
}

/// Every pair of rows, the farthest first.
fn farthest_first(rows: &[Vec<f64>]) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(rows.len() * (rows.len() - 1) / 2);
    for (i, row) in rows.iter().enumerate() {
        for (j, other) in rows.iter().enumerate().skip(i + 1) {
            pairs.push(Pair { rows: [i, j], distance: squared_distance(row, other) });
        }
    }
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
