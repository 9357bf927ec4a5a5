//! Label skew by a Dirichlet distribution, sizes even.
//!
//! Hsu, Qi and Brown 2019 (arXiv:1909.06335, §3): each client has a class mix q ~ Dir(c · p), with p the class
//! shares of the whole dataset, and draws its rows by q without replacement. Here c = `alpha` × classes, so that on
//! balanced classes every component has parameter `alpha`: 1 makes all mixes equally likely, 0.1 gives most
//! clients one or two classes, 100 is close to an even split.
//!
//! Clients draw in turns, one row each, so that the classes that run out first run out for everybody and the last
//! client is no odd one. Sizes differ by at most one row: there is no skew of quantity.

use chacha20::ChaCha20Rng;
use fedveil_learning::permutation;
use rand_core::{Rng, SeedableRng};

use super::PartitionError;
use crate::sampling::{class_mix, uniform};

/// Deals the rows `0..labels.len()` to `clients`, every row to exactly one, ⌊rows/clients⌋ or one more to each.
///
/// `alpha` > 0 is the Dirichlet concentration per class (see the module); all randomness is ChaCha20 under `seed`.
pub fn dirichlet(
    labels: &[u32],
    classes: usize,
    clients: usize,
    alpha: f64,
    seed: u64,
) -> Result<Vec<Vec<usize>>, PartitionError> {
    let rows = labels.len();
    if clients == 0 || clients > rows {
        return Err(PartitionError::Clients { clients, rows });
    }
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(PartitionError::Alpha { found: alpha });
    }
    if let Some(row) = labels.iter().position(|label| *label as usize >= classes) {
        return Err(PartitionError::LabelOutOfRange { row, label: labels[row], classes });
    }

    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut remaining = vec![Vec::new(); classes];
    for row in permutation(rows, &mut rng) {
        remaining[labels[row] as usize].push(row);
    }
    let concentration: Vec<f64> = remaining
        .iter()
        .map(|class: &Vec<usize>| alpha * classes as f64 * class.len() as f64 / rows as f64)
        .collect();
    let mixes: Vec<Vec<f64>> = (0..clients).map(|_| class_mix(&concentration, &mut rng)).collect();

    let mut shards = vec![Vec::with_capacity(rows / clients + 1); clients];
    for turn in 0..rows {
        let client = turn % clients;
        let class = draw_class(&mixes[client], &remaining, &mut rng);
        shards[client].push(remaining[class].pop().expect("a drawn class has rows left"));
    }
    Ok(shards)
}

/// A class that has rows left, by `mix` among those that do.
fn draw_class(mix: &[f64], remaining: &[Vec<usize>], rng: &mut impl Rng) -> usize {
    let open = |class: &usize| !remaining[*class].is_empty();
    let total: f64 = (0..mix.len()).filter(open).map(|class| mix[class]).sum();
    let mut left = uniform(rng) * total;
    for class in (0..mix.len()).filter(open) {
        left -= mix[class];
        if mix[class] > 0.0 && left <= 0.0 {
            return class;
        }
    }
    // The mix gives nothing to the classes that are left (or a rounding error took the last bit of its sum):
    // the fullest class bears the loss of a row best.
    (0..mix.len()).max_by_key(|&class| remaining[class].len()).expect("a row has a class")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Mean, over clients, of the share of a client's commonest class.
    fn skew(labels: &[u32], shards: &[Vec<usize>]) -> f64 {
        let commonest = |shard: &Vec<usize>| {
            let count = |class| shard.iter().filter(|row| labels[**row] == class).count();
            (0..10).map(count).max().unwrap_or(0) as f64 / shard.len() as f64
        };
        shards.iter().map(commonest).sum::<f64>() / shards.len() as f64
    }

    #[test]
    fn alpha_sets_the_skew() {
        let labels: Vec<u32> = (0..20_000).map(|row| row % 10).collect();
        let [tight, plain, loose] =
            [0.05, 1.0, 1000.0].map(|alpha| skew(&labels, &dirichlet(&labels, 10, 200, alpha, 1).unwrap()));
        // The largest part of a uniform mix over ten classes is H(10)/10 = 0.29 on average; the commonest class of
        // 100 rows drawn evenly has a share of about 0.1 + 1.54 · 0.03 = 0.146 (the mean of the largest of ten
        // Gaussians is 1.54 deviations).
        assert!(tight > 0.6, "{tight}");
        assert!((0.27..0.33).contains(&plain), "{plain}");
        assert!((0.13..0.16).contains(&loose), "{loose}");
    }

    #[test]
    fn seed_decides_everything() {
        let labels: Vec<u32> = (0..100).map(|row| row % 10).collect();
        let deal = |seed| dirichlet(&labels, 10, 7, 0.5, seed).unwrap();
        assert_eq!(deal(3), deal(3));
        assert_ne!(deal(3), deal(4));
    }

    #[test]
    fn refuses_what_cannot_be_dealt() {
        let labels = [0, 1, 2];
        assert_eq!(dirichlet(&labels, 3, 0, 1.0, 0), Err(PartitionError::Clients { clients: 0, rows: 3 }));
        assert_eq!(dirichlet(&labels, 3, 4, 1.0, 0), Err(PartitionError::Clients { clients: 4, rows: 3 }));
        assert_eq!(dirichlet(&[], 3, 1, 1.0, 0), Err(PartitionError::Clients { clients: 1, rows: 0 }));
        assert_eq!(
            dirichlet(&labels, 2, 1, 1.0, 0),
            Err(PartitionError::LabelOutOfRange { row: 2, label: 2, classes: 2 })
        );
        for alpha in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(dirichlet(&labels, 3, 1, alpha, 0), Err(PartitionError::Alpha { found: alpha }));
        }
        assert!(dirichlet(&labels, 3, 1, f64::NAN, 0).is_err());
    }

    proptest! {
        #[test]
        fn every_row_falls_to_one_client_and_sizes_are_even(
            labels in prop::collection::vec(0_u32..6, 1..200),
            clients in 1_usize..60,
            ln_alpha in -14.0_f64..7.0,
            seed: u64,
        ) {
            prop_assume!(clients <= labels.len());
            let shards = dirichlet(&labels, 7, clients, ln_alpha.exp(), seed).unwrap();
            prop_assert_eq!(shards.len(), clients);
            let floor = labels.len() / clients;
            prop_assert!(shards.iter().all(|shard| shard.len() == floor || shard.len() == floor + 1));
            let mut rows = shards.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..labels.len()).collect::<Vec<_>>());
        }
    }
}
