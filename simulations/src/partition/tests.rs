//! Each partition does what its row of the table says, and does the same again.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// 2,000 rows of ten classes, equally often.
fn labels() -> Vec<u32> {
    (0..2000).map(|row| row % 10).collect()
}

fn split(partitioner: &Partitioner, clients: usize, seed: u64) -> Result<Split, PartitionError> {
    let labels = labels();
    Split::of(&labels, 10, &[], labels.len(), partitioner, clients, seed)
}

/// Rows of each class at each client.
fn counts(split: &Split) -> Vec<[usize; 10]> {
    let of = |client| {
        let mut counts = [0; 10];
        split.rows_of(client).iter().for_each(|row| counts[(row % 10) as usize] += 1);
        counts
    };
    (0..split.clients()).map(of).collect()
}

fn sizes(split: &Split) -> Vec<usize> {
    (0..split.clients()).map(|client| split.size_of(client)).collect()
}

/// Partitions that promise every row to exactly one client.
fn exact() -> Vec<Partitioner> {
    vec![
        Partitioner::Iid {},
        Partitioner::Dirichlet { alpha: 0.5, min_size: 1 },
        Partitioner::EvenDirichlet { alpha: 0.5 },
        Partitioner::SizeDirichlet { alpha: 0.5, min_size: 2 },
        Partitioner::PowerLaw { exponent: 1.0, min_size: 1 },
        Partitioner::Shards { per_client: 2 },
        Partitioner::Pathological { classes: 3 },
        Partitioner::Similarity { gamma: 0.3 },
        Partitioner::LabelSort {},
    ]
}

#[test]
fn every_row_falls_to_one_client_and_the_seed_decides() {
    for partitioner in exact() {
        let found = split(&partitioner, 20, 1).unwrap();
        let mut rows: Vec<u32> = (0..20).flat_map(|client| found.rows_of(client).into_owned()).collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..2000).collect::<Vec<_>>(), "{partitioner:?}");
        let again = split(&partitioner, 20, 1).unwrap();
        let other = split(&partitioner, 20, 2).unwrap();
        let all =
            |split: &Split| (0..20).map(|client| split.rows_of(client).into_owned()).collect::<Vec<_>>();
        assert_eq!(all(&found), all(&again), "{partitioner:?}");
        assert_ne!(all(&found), all(&other), "{partitioner:?}");
        assert!(!found.repeats());
    }
}

#[test]
fn iid_is_even_and_mixed() {
    let found = split(&Partitioner::Iid {}, 15, 1).unwrap();
    assert!(sizes(&found).iter().all(|size| (133..=134).contains(size)));
    // 13.3 of each class with deviation 3.5.
    assert!(counts(&found).concat().iter().all(|count| (1..30).contains(count)));
}

#[test]
fn dirichlet_follows_alpha_and_keeps_the_minimum() {
    let skew = |alpha| {
        let found = split(&Partitioner::Dirichlet { alpha, min_size: 10 }, 20, 1).unwrap();
        assert!(sizes(&found).iter().all(|size| *size >= 10));
        let share =
            |counts: &[usize; 10]| *counts.iter().max().unwrap() as f64 / counts.iter().sum::<usize>() as f64;
        counts(&found).iter().map(share).sum::<f64>() / 20.0
    };
    let (tight, loose) = (skew(0.1), skew(100.0));
    assert!(tight > 0.45 && loose < 0.16, "{tight} {loose}");
    // Variance of a client's share of a class: (n − 1)/(n² (n α + 1)), here with n = 20 and α = 1.
    let found: Vec<f64> = (0..50)
        .flat_map(|seed| {
            let found = split(&Partitioner::Dirichlet { alpha: 1.0, min_size: 1 }, 20, seed).unwrap();
            counts(&found).concat()
        })
        .map(|count| (count as f64 / 200.0 - 0.05).powi(2))
        .collect();
    let (variance, expected) = (found.iter().sum::<f64>() / found.len() as f64, 19.0 / (400.0 * 21.0));
    assert!((variance / expected - 1.0).abs() < 0.08, "{variance}, expected {expected}");
}

#[test]
fn impossible_minima_are_refused() {
    assert_eq!(
        split(&Partitioner::Dirichlet { alpha: 0.001, min_size: 90 }, 20, 1).unwrap_err().to_string(),
        "1000 draws, and none gave every one of 20 clients 90 rows: expected a larger alpha, a smaller min_size or fewer clients"
    );
    for partitioner in [
        Partitioner::Dirichlet { alpha: 1.0, min_size: 101 },
        Partitioner::SizeDirichlet { alpha: 1.0, min_size: 101 },
        Partitioner::PowerLaw { exponent: 1.0, min_size: 101 },
        Partitioner::PowerLaw { exponent: 1.0, min_size: usize::MAX },
    ] {
        let error = split(&partitioner, 20, 1).unwrap_err().to_string();
        assert!(error.contains("expected at most 100: 2000 rows over 20 clients"), "{error}");
    }
}

#[test]
fn sizes_follow_their_laws() {
    let mut power = sizes(&split(&Partitioner::PowerLaw { exponent: 1.0, min_size: 1 }, 10, 1).unwrap());
    let unsorted = power.clone();
    power.sort_unstable_by(|a, b| b.cmp(a));
    assert_ne!(power, unsorted);
    // 1,990 rows beyond the minimum, over H(10) = 2.929 harmonic parts.
    for (rank, size) in power.iter().enumerate() {
        let expected = 1.0 + 1990.0 / 2.928_968 / (rank + 1) as f64;
        assert!((*size as f64 - expected).abs() <= 1.0, "rank {rank}: {size}, expected {expected}");
    }
    let even = sizes(&split(&Partitioner::PowerLaw { exponent: 0.0, min_size: 1 }, 10, 1).unwrap());
    assert_eq!(even, [200; 10]);
    let spread = |alpha| {
        let sizes = sizes(&split(&Partitioner::SizeDirichlet { alpha, min_size: 1 }, 50, 1).unwrap());
        (*sizes.iter().max().unwrap(), *sizes.iter().min().unwrap())
    };
    assert!(
        spread(0.2).0 > 150 && spread(1e4).0 < 45 && spread(1e4).1 > 35,
        "{:?} {:?}",
        spread(0.2),
        spread(1e4)
    );
}

#[test]
fn shards_give_few_classes_and_equal_sizes() {
    let found = split(&Partitioner::Shards { per_client: 2 }, 100, 1).unwrap();
    assert_eq!(sizes(&found), [20; 100]);
    let classes = |counts: &[usize; 10]| counts.iter().filter(|count| **count > 0).count();
    // 200 shards of ten rows, 20 a class: no shard has two classes.
    assert!(counts(&found).iter().all(|counts| classes(counts) <= 2));
    assert!(counts(&found).iter().any(|counts| classes(counts) == 1));
    assert!(split(&Partitioner::Shards { per_client: 0 }, 100, 1).is_err());
    let error = split(&Partitioner::Shards { per_client: 21 }, 100, 1).unwrap_err().to_string();
    assert_eq!(error, "per_client 21: expected 1 to 20: 2000 rows over 100 clients");
}

#[test]
fn pathological_gives_exactly_so_many_classes() {
    for (clients, each) in [(20, 3), (7, 10), (10, 1), (33, 7)] {
        let found = split(&Partitioner::Pathological { classes: each }, clients, 5).unwrap();
        let counts = counts(&found);
        assert!(counts.iter().all(|counts| counts.iter().filter(|count| **count > 0).count() == each));
        // Every class has as many holders as another, or one or two more.
        let holders: Vec<usize> =
            (0..10).map(|class| counts.iter().filter(|counts| counts[class] > 0).count()).collect();
        let (least, most) = (holders.iter().min().unwrap(), holders.iter().max().unwrap());
        assert!(most - least <= 2, "{clients} clients of {each}: {holders:?}");
    }
    let refusal =
        |classes, clients| split(&Partitioner::Pathological { classes }, clients, 5).unwrap_err().to_string();
    assert_eq!(refusal(11, 20), "classes 11: expected 1 to 10, the classes that occur");
    assert_eq!(refusal(2, 4), "classes 2: expected at least 3: 4 clients are to hold 10 classes");
    assert!(refusal(10, 500).contains("500 clients that share a class of 200 rows"));
}

#[test]
fn similarity_runs_from_sorted_to_even() {
    let classes = |gamma| {
        let found = split(&Partitioner::Similarity { gamma }, 20, 1).unwrap();
        assert_eq!(sizes(&found), [100; 20]);
        counts(&found).iter().map(|counts| *counts.iter().max().unwrap()).sum::<usize>() / 20
    };
    assert_eq!(classes(0.0), 100);
    assert!((50..70).contains(&classes(0.5)), "{}", classes(0.5));
    assert!(classes(1.0) < 20);
    let sorted = split(&Partitioner::LabelSort {}, 10, 1).unwrap();
    assert!(counts(&sorted).iter().enumerate().all(|(client, counts)| counts[client] == 200));
    for gamma in [-0.1, 1.1, f64::NAN] {
        assert!(split(&Partitioner::Similarity { gamma }, 20, 1).is_err());
    }
}

#[test]
fn natural_clients_keep_their_rows() {
    let owners = [2, 0, 2, 1, 2, 0];
    let natural = |clients, min_size| {
        Split::of(&[], 5, &owners, 6, &Partitioner::Natural { min_size }, clients, 1).map(|split| {
            (0..split.clients()).map(|client| split.rows_of(client).into_owned()).collect::<Vec<_>>()
        })
    };
    assert_eq!(natural(3, 1).unwrap(), [vec![1, 5], vec![3], vec![0, 2, 4]]);
    assert_eq!(natural(2, 2).unwrap(), [vec![1, 5], vec![0, 2, 4]]);
    assert!(natural(3, 1).unwrap().contains(&natural(1, 1).unwrap()[0]));
    assert_eq!(
        natural(3, 2).unwrap_err().to_string(),
        "3 clients by nature: expected 1 to 2, which have at least 2 rows"
    );
    let none = Split::of(&[], 5, &[], 6, &Partitioner::Natural { min_size: 1 }, 3, 1);
    assert_eq!(none.unwrap_err(), PartitionError::NoOwners);
}

#[test]
fn draws_are_each_clients_own() {
    let drawn = |alpha| split(&Partitioner::Draw { rows: 50, alpha }, 1_000_000, 1).unwrap();
    for found in [drawn(None), drawn(Some(0.05))] {
        assert!(found.repeats());
        for client in [0, 1, 999_999] {
            let rows = found.rows_of(client);
            assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), 50);
            assert!(rows.iter().all(|row| *row < 2000) && rows.is_sorted());
            assert_eq!(rows, found.rows_of(client));
        }
        assert_ne!(found.rows_of(0), found.rows_of(1));
    }
    let commonest = |split: &Split| {
        let most = |client| {
            let rows = split.rows_of(client);
            (0..10).map(|class| rows.iter().filter(|row| **row % 10 == class).count()).max().unwrap()
        };
        (0..200).map(most).sum::<usize>() / 200
    };
    assert!(commonest(&drawn(None)) < 12 && commonest(&drawn(Some(0.05))) > 30);
}

#[test]
fn a_draw_that_empties_its_classes_takes_the_others() {
    for alpha in [None, Some(1e-9), Some(1.0)] {
        let found = split(&Partitioner::Draw { rows: 2000, alpha }, 3, 1).unwrap();
        assert_eq!(found.rows_of(1).into_owned(), (0..2000).collect::<Vec<_>>());
    }
    let error = split(&Partitioner::Draw { rows: 2001, alpha: None }, 3, 1).unwrap_err().to_string();
    assert_eq!(error, "rows 2001: expected 1 to 2000, as many as there are");
    assert!(split(&Partitioner::Draw { rows: 0, alpha: None }, 3, 1).is_err());
}

#[test]
fn what_cannot_be_dealt_is_refused() {
    for partitioner in exact() {
        assert_eq!(
            split(&partitioner, 0, 1).unwrap_err(),
            PartitionError::Clients { clients: 0, rows: 2000 }
        );
        assert!(split(&partitioner, 2001, 1).is_err());
        let unlabelled = Split::of(&[], 65, &[], 2000, &partitioner, 20, 1);
        assert_eq!(unlabelled.is_err(), partitioner.needs_labels(), "{partitioner:?}");
    }
    let unlabelled = Split::of(&[], 65, &[], 2000, &Partitioner::Draw { rows: 5, alpha: Some(1.0) }, 20, 1);
    assert!(matches!(unlabelled, Err(PartitionError::NoLabels { kind: "draw" })));
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        for partitioner in [
            Partitioner::Dirichlet { alpha, min_size: 1 },
            Partitioner::EvenDirichlet { alpha },
            Partitioner::SizeDirichlet { alpha, min_size: 1 },
            Partitioner::Draw { rows: 5, alpha: Some(alpha) },
        ] {
            let error = split(&partitioner, 20, 1).unwrap_err().to_string();
            assert!(error.ends_with("expected a number above 0"), "{error}");
        }
    }
    for exponent in [-1.0, 11.0, f64::NAN] {
        assert!(split(&Partitioner::PowerLaw { exponent, min_size: 1 }, 20, 1).is_err());
    }
}

#[test]
fn partitioners_read_as_a_scenario_writes_them() {
    let read = |text: &str| serde_json::from_str::<Partitioner>(text).map_err(|error| error.to_string());
    assert_eq!(read(r#"{"kind": "iid"}"#), Ok(Partitioner::Iid {}));
    assert_eq!(
        read(r#"{"kind": "dirichlet", "alpha": 1}"#),
        Ok(Partitioner::Dirichlet { alpha: 1.0, min_size: 1 })
    );
    assert_eq!(
        read(r#"{"kind": "draw", "rows": 20, "alpha": 0.5}"#),
        Ok(Partitioner::Draw { rows: 20, alpha: Some(0.5) })
    );
    assert!(read(r#"{"kind": "iid", "alpha": 1}"#).unwrap_err().contains("unknown field `alpha`"));
    assert!(read(r#"{"kind": "dirichlet", "beta": 1}"#).unwrap_err().contains("unknown field `beta`"));
    assert!(read(r#"{"kind": "dirichlet"}"#).unwrap_err().contains("missing field `alpha`"));
    assert!(read(r#"{"kind": "random"}"#).unwrap_err().contains("`even-dirichlet`"));
    for partitioner in exact() {
        let text = serde_json::to_string(&partitioner).unwrap();
        assert!(text.contains(partitioner.kind()) && read(&text) == Ok(partitioner), "{text}");
    }
}

proptest! {
    #[test]
    fn any_labels_fall_to_clients_once(
        labels in prop::collection::vec(0_u32..6, 1..120),
        clients in 1_usize..40,
        seed: u64,
    ) {
        for partitioner in exact() {
            let Ok(found) = Split::of(&labels, 7, &[], labels.len(), &partitioner, clients, seed) else {
                continue;
            };
            prop_assert_eq!(found.clients(), clients);
            let mut rows = Vec::new();
            for client in 0..clients {
                prop_assert!(found.size_of(client) > 0, "{:?}", partitioner);
                rows.extend_from_slice(&found.rows_of(client));
            }
            rows.sort_unstable();
            prop_assert_eq!(&rows, &(0..labels.len() as u32).collect::<Vec<_>>(), "{:?}", partitioner);
        }
        // What asks for nothing but a row for everybody is never refused.
        for partitioner in [Partitioner::Iid {}, Partitioner::LabelSort {}, Partitioner::EvenDirichlet { alpha: 1.0 }] {
            let accepted = Split::of(&labels, 7, &[], labels.len(), &partitioner, clients, seed).is_ok();
            prop_assert_eq!(accepted, clients <= labels.len());
        }
    }

    #[test]
    fn parts_in_proportion_add_up(total in 0_usize..5000, weights in prop::collection::vec(1e-9_f64..1.0, 1..50)) {
        let parts = sizes::proportional(total, &weights);
        prop_assert_eq!(parts.iter().sum::<usize>(), total);
        let sum: f64 = weights.iter().sum();
        for (part, weight) in parts.iter().zip(&weights) {
            prop_assert!((*part as f64 - weight / sum * total as f64).abs() <= 1.0 + 1e-6);
        }
    }
}

#[test]
fn whoever_is_beside_a_partition_takes_nothing_from_the_others() {
    let part = crate::datasets::DataSpec::Digits { spectrum: true, test_share: 0.2 };
    let part = part.load(&std::collections::BTreeMap::new(), 1).unwrap().train;
    let (beside, alone) = (
        Split::beside(&part, &Partitioner::LabelSort {}, 7, &[0, 4], 3).unwrap(),
        Split::new(&part, &Partitioner::LabelSort {}, 5, 3).unwrap(),
    );
    for (client, other) in [1, 2, 3, 5, 6].into_iter().enumerate() {
        assert_eq!(beside.rows_of(other), alone.rows_of(client));
    }
    for client in [0, 4] {
        let rows = beside.rows_of(client);
        assert_eq!(rows.len(), part.rows() / 5);
        let classes: BTreeSet<u32> = rows.iter().map(|&row| part.labels()[row as usize]).collect();
        assert_eq!(classes.len(), 10, "of all classes, where the others have two or three");
    }
    assert_ne!(beside.rows_of(0), beside.rows_of(4));
    assert!(beside.repeats() && !alone.repeats());
    let some = beside.dataset_of(&part, 1, Some(&[2, 0]), None).unwrap();
    assert_eq!(some, part.dataset(&[beside.rows_of(1)[2], beside.rows_of(1)[0]]).unwrap());
}
