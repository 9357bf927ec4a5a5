//! Partitions that look at no label: how many rows each client has, and a shuffle dealt by it.

use chacha20::ChaCha20Rng;
use fedveil_learning::permutation;

use super::{PartitionError, positive};
use crate::sampling::class_mix;

/// ⌊rows / clients⌋ for each client, and one more for the first ones until none is left.
pub(super) fn even(rows: usize, clients: usize) -> Vec<usize> {
    (0..clients).map(|client| rows / clients + usize::from(client < rows % clients)).collect()
}

/// `min_size` rows for each client, the rest by a draw from Dir(α, …, α).
pub(super) fn dirichlet(
    rows: usize,
    clients: usize,
    alpha: f64,
    min_size: usize,
    rng: &mut ChaCha20Rng,
) -> Result<Vec<usize>, PartitionError> {
    positive(alpha)?;
    let rest = beyond_minimum(rows, clients, min_size)?;
    Ok(with_minimum(rest, &class_mix(&vec![alpha; clients], rng), min_size))
}

/// `min_size` rows for each client, the rest as rank^−exponent; ranks are a random order of the clients.
pub(super) fn power_law(
    rows: usize,
    clients: usize,
    exponent: f64,
    min_size: usize,
    rng: &mut ChaCha20Rng,
) -> Result<Vec<usize>, PartitionError> {
    if !(0.0..=10.0).contains(&exponent) {
        let (found, expected) = (exponent.to_string(), "0 to 10".to_owned());
        return Err(PartitionError::Setting { name: "exponent", found, expected });
    }
    let rest = beyond_minimum(rows, clients, min_size)?;
    let ranks = permutation(clients, rng);
    let weights: Vec<f64> = ranks.into_iter().map(|rank| ((rank + 1) as f64).powf(-exponent)).collect();
    Ok(with_minimum(rest, &weights, min_size))
}

/// A shuffle of `0..rows`, the first `sizes[0]` for the first client and so on.
pub(super) fn deal(rows: usize, sizes: &[usize], rng: &mut ChaCha20Rng) -> Vec<Vec<u32>> {
    let order = permutation(rows, rng);
    let mut start = 0;
    sizes
        .iter()
        .map(|size| {
            let dealt = order[start..start + size].iter().map(|&row| row as u32).collect();
            start += size;
            dealt
        })
        .collect()
}

/// `total` divided in proportion to `weights`, by largest remainders: the sum is exact, and each part is off by less
/// than one.
pub(super) fn proportional(total: usize, weights: &[f64]) -> Vec<usize> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| weight / sum * total as f64).collect();
    let mut parts: Vec<usize> = exact.iter().map(|part| part.floor() as usize).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    // Stable, so that equal remainders are settled by position.
    order.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())));
    let mut missing = total.saturating_sub(parts.iter().sum());
    for at in order.into_iter().cycle() {
        if missing == 0 {
            break;
        }
        parts[at] += 1;
        missing -= 1;
    }
    // Rounding of the sum may have given away a row too many.
    while parts.iter().sum::<usize>() > total {
        let largest = (0..parts.len()).max_by_key(|&at| parts[at]).expect("there is a part");
        parts[largest] -= 1;
    }
    parts
}

/// The rows that are left when everybody has the minimum.
fn beyond_minimum(rows: usize, clients: usize, min_size: usize) -> Result<usize, PartitionError> {
    let least = min_size.max(1);
    clients.checked_mul(least).and_then(|taken| rows.checked_sub(taken)).ok_or_else(|| {
        PartitionError::Setting {
            name: "min_size",
            found: min_size.to_string(),
            expected: format!("at most {}: {rows} rows over {clients} clients", rows / clients),
        }
    })
}

fn with_minimum(rest: usize, weights: &[f64], min_size: usize) -> Vec<usize> {
    proportional(rest, weights).into_iter().map(|part| part + min_size.max(1)).collect()
}
