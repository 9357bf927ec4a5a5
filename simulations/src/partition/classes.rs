//! Partitions by label.

use chacha20::ChaCha20Rng;
use fedveil_learning::permutation;

use super::sizes::{deal, even};
use super::{PartitionError, by_class, positive};
use crate::sampling::class_mix;

/// Draws of a Dirichlet split before it is given up.
const TRIES: usize = 1000;

/// Every class is divided by a draw from Dir(α, …, α) over clients, until all have `min_size` rows.
pub(super) fn dirichlet(
    labels: &[u32],
    classes: usize,
    clients: usize,
    alpha: f64,
    min_size: usize,
    rng: &mut ChaCha20Rng,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    positive(alpha)?;
    let least = min_size.max(1);
    if clients.checked_mul(least).is_none_or(|all| all > labels.len()) {
        return Err(PartitionError::Setting {
            name: "min_size",
            found: min_size.to_string(),
            expected: format!(
                "at most {}: {} rows over {clients} clients",
                labels.len() / clients,
                labels.len()
            ),
        });
    }
    let rows = by_class(labels, classes)?;
    for _ in 0..TRIES {
        // Where each client's part of each class ends.
        let cuts: Vec<Vec<usize>> = rows.iter().map(|rows| cuts(rows.len(), clients, alpha, rng)).collect();
        let size = |client: usize| {
            cuts.iter()
                .map(|cuts| cuts[client] - client.checked_sub(1).map_or(0, |before| cuts[before]))
                .sum()
        };
        if (0..clients).map(size).min().is_none_or(|smallest: usize| smallest < least) {
            continue;
        }
        let mut shards = vec![Vec::new(); clients];
        for (rows, cuts) in rows.iter().zip(cuts) {
            let order = permutation(rows.len(), rng);
            let mut start = 0;
            for (shard, end) in shards.iter_mut().zip(cuts) {
                shard.extend(order[start..end].iter().map(|&at| rows[at]));
                start = end;
            }
        }
        return Ok(shards);
    }
    Err(PartitionError::Uneven { tries: TRIES, clients, min_size: least })
}

/// Where the parts of `rows` end that a Dirichlet draw gives to the clients; the last is `rows`.
fn cuts(rows: usize, clients: usize, alpha: f64, rng: &mut ChaCha20Rng) -> Vec<usize> {
    let shares = class_mix(&vec![alpha; clients], rng);
    let total: f64 = shares.iter().sum();
    let mut sum = 0.0;
    let mut cuts: Vec<usize> = shares
        .iter()
        .map(|share| {
            sum += share;
            ((sum / total * rows as f64) as usize).min(rows)
        })
        .collect();
    cuts[clients - 1] = rows;
    cuts
}

/// Rows sorted by label, in random order within a label, cut into equal shards, which are dealt at random.
pub(super) fn shards(
    labels: &[u32],
    clients: usize,
    per_client: usize,
    rng: &mut ChaCha20Rng,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    let shards = clients.checked_mul(per_client).filter(|shards| (1..=labels.len()).contains(shards));
    let Some(shards) = shards else {
        let expected =
            format!("1 to {}: {} rows over {clients} clients", labels.len() / clients, labels.len());
        return Err(PartitionError::Setting { name: "per_client", found: per_client.to_string(), expected });
    };
    let sorted = sorted_by_label(labels, rng);
    let sizes = even(labels.len(), shards);
    let mut start = 0;
    let cut: Vec<&[u32]> = sizes
        .iter()
        .map(|size| {
            start += size;
            &sorted[start - size..start]
        })
        .collect();
    let order = permutation(shards, rng);
    Ok(order
        .chunks_exact(per_client)
        .map(|own| own.iter().flat_map(|&at| cut[at]).copied().collect())
        .collect())
}

/// Every client is given `each` classes of those that occur, every class to as many clients but for one, and an equal
/// part of the rows of each.
pub(super) fn pathological(
    labels: &[u32],
    classes: usize,
    clients: usize,
    each: usize,
    rng: &mut ChaCha20Rng,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    let mut rows = by_class(labels, classes)?;
    rows.retain(|rows| !rows.is_empty());
    let occur = rows.len();
    let setting =
        |expected: String| PartitionError::Setting { name: "classes", found: each.to_string(), expected };
    if !(1..=occur).contains(&each) {
        return Err(setting(format!("1 to {occur}, the classes that occur")));
    }
    if clients.saturating_mul(each) < occur {
        let least = occur.div_ceil(clients);
        return Err(setting(format!("at least {least}: {clients} clients are to hold {occur} classes")));
    }

    // Classes are dealt from shuffled decks. What a client has already goes back under the next deck.
    let mut holders = vec![Vec::new(); occur];
    let mut deck: Vec<usize> = Vec::new();
    for client in permutation(clients, rng) {
        let mut hand: Vec<usize> = Vec::with_capacity(each);
        while hand.len() < each {
            let Some(at) = deck.iter().rposition(|class| !hand.contains(class)) else {
                let mut next = permutation(occur, rng);
                next.append(&mut deck);
                deck = next;
                continue;
            };
            hand.push(deck.remove(at));
        }
        for class in hand {
            holders[class].push(client);
        }
    }

    let mut shards = vec![Vec::new(); clients];
    for (rows, holders) in rows.iter().zip(&holders) {
        if rows.len() < holders.len() {
            let found = format!("{} clients that share a class of {} rows", holders.len(), rows.len());
            let expected = "at least a row for each: fewer clients or classes".to_owned();
            return Err(PartitionError::Setting { name: "classes", found, expected });
        }
        for (dealt, &client) in deal(rows.len(), &even(rows.len(), holders.len()), rng).iter().zip(holders) {
            shards[client].extend(dealt.iter().map(|&at| rows[at as usize]));
        }
    }
    Ok(shards)
}

/// The share `gamma` of the rows, drawn at random, dealt evenly; the rest sorted by label and cut into equal parts.
pub(super) fn similarity(
    labels: &[u32],
    clients: usize,
    gamma: f64,
    rng: &mut ChaCha20Rng,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    if !(0.0..=1.0).contains(&gamma) {
        let (found, expected) = (gamma.to_string(), "0 to 1".to_owned());
        return Err(PartitionError::Setting { name: "gamma", found, expected });
    }
    let mut order: Vec<u32> = permutation(labels.len(), rng).into_iter().map(|row| row as u32).collect();
    let mut rest = order.split_off((gamma * labels.len() as f64).round() as usize);
    rest.sort_by_key(|&row| labels[row as usize]);
    // Whom the even part leaves a row short gets one more of the rest: sizes in all are even.
    let mut starts = (0, 0);
    let (alike, sorted) = (even(order.len(), clients), even(labels.len(), clients));
    Ok((0..clients)
        .map(|client| {
            let own = &order[starts.0..starts.0 + alike[client]];
            let more = sorted[client] - alike[client];
            let shard = own.iter().chain(&rest[starts.1..starts.1 + more]).copied().collect();
            starts = (starts.0 + alike[client], starts.1 + more);
            shard
        })
        .collect())
}

fn sorted_by_label(labels: &[u32], rng: &mut ChaCha20Rng) -> Vec<u32> {
    let mut rows: Vec<u32> = permutation(labels.len(), rng).into_iter().map(|row| row as u32).collect();
    rows.sort_by_key(|&row| labels[row as usize]);
    rows
}
