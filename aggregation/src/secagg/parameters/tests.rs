//! The published table, minimality, and every bound against simulated cohorts.

use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};

use super::*;

const MALICIOUS: ServerModel = ServerModel::Malicious;
const SEMI_HONEST: ServerModel = ServerModel::SemiHonest;

fn groups_of(size: usize, clients: usize, malicious: f64, dropout: f64) -> GraphRequirements {
    GraphRequirements { group_size: Some(size), ..GraphRequirements::new(clients, malicious, dropout) }
}

#[test]
fn one_group_of_all_gets_the_published_degrees_and_thresholds() {
    let cohorts = [50, 100, 200, 500, 1000, 10_000];
    let table = [
        (SEMI_HONEST, 0.05, 0.05, [(6, 3), (12, 6), (20, 11), (28, 16), (30, 17), (34, 20)]),
        (SEMI_HONEST, 0.10, 0.10, [(12, 6), (22, 11), (34, 19), (42, 24), (48, 27), (54, 31)]),
        (SEMI_HONEST, 0.33, 0.10, [(22, 17), (42, 32), (66, 47), (90, 64), (102, 72), (126, 88)]),
        (MALICIOUS, 0.05, 0.05, [(8, 6), (16, 11), (30, 21), (44, 31), (52, 37), (62, 44)]),
        (MALICIOUS, 0.10, 0.10, [(16, 11), (32, 22), (56, 39), (82, 57), (96, 67), (122, 85)]),
        (MALICIOUS, 0.20, 0.10, [(22, 17), (42, 32), (76, 57), (116, 86), (140, 104), (184, 136)]),
    ];
    for (server, malicious, dropout, cells) in table {
        for (clients, cell) in cohorts.into_iter().zip(cells) {
            let requirements =
                GraphRequirements { server, ..GraphRequirements::new(clients, malicious, dropout) };
            let found = find(&requirements).unwrap();
            assert_eq!((found.degree, found.threshold), cell, "{requirements:?}");
            assert!(found.break_probability_log2 <= -40.0, "{found:?}");
            assert!(found.failure_probability_log2 <= -20.0, "{found:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_numbers_are_judged_without_a_panic(
        numbers in prop::array::uniform8(prop_oneof![0_usize..40, Just(MAX_COHORT), Just(u32::MAX as usize)])
    ) {
        let [clients, colluders, dropouts, group_size, rounds, withheld, degree, threshold] = numbers;
        let withheld_reveals = withheld.min(100);
        for server in [MALICIOUS, SEMI_HONEST] {
            let population = Population {
                clients, colluders, dropouts, group_size, server, rounds: rounds as u64, withheld_reveals,
            };
            let found = population.parameters(degree, threshold);
            let bounds = [
                found.break_probability_log2, found.split_probability_log2, found.failure_probability_log2,
            ];
            prop_assert!(bounds.iter().all(|&bound| bound <= 0.0), "{found:?}");
        }
    }
}

/// No smaller degree will do, no smaller threshold, and the thresholds up to the largest correct one would.
#[test]
fn what_is_found_is_the_smallest() {
    for requirements in [
        GraphRequirements::new(300, 0.1, 0.05),
        groups_of(150, 600, 0.05, 0.05),
        groups_of(20, 200, 0.02, 0.02),
    ] {
        let found = find(&requirements).unwrap();
        let population = requirements.population();
        let good = |degree, threshold| {
            population.exposure_log2(degree, threshold) <= -41.0
                && population.disconnection_log2(degree) <= -41.0
                && population.failure_probability_log2(degree, threshold) <= -20.0
        };
        assert!(good(found.degree, found.threshold));
        assert!(!good(found.degree, found.threshold - 1));
        for degree in (2..found.degree).step_by(2) {
            assert!(!(2..=degree).any(|threshold| good(degree, threshold)), "{degree}");
        }
    }
}

#[test]
fn small_groups_get_the_best_that_is_correct_and_its_bound() {
    let requirements = GraphRequirements { correctness: 10, ..groups_of(20, 200, 0.08, 0.05) };
    let found = find(&requirements).unwrap();
    let population = requirements.population();
    assert_eq!((found.degree, population.groups(), population.largest_group()), (19, 10, 20));
    assert!(found.break_probability_log2 > -40.0 && found.break_probability_log2 < 0.0, "{found:?}");
    assert!(found.failure_probability_log2 <= -10.0);
    assert!(population.failure_probability_log2(19, found.threshold + 1) > -10.0);
    assert_eq!(found.colluders_to_break, 2 * found.threshold - 19);
    for degree in 2..=19 {
        for threshold in 2..=degree {
            if population.failure_probability_log2(degree, threshold) <= -10.0 {
                let bound = population.break_probability_log2(degree, threshold);
                assert!(bound >= found.break_probability_log2, "{degree} {threshold} {bound}");
            }
        }
    }
}

#[test]
fn colluders_who_cannot_fill_the_seats_break_nothing() {
    let found = find(&groups_of(20, 200, 0.02, 0.01)).unwrap();
    assert!(found.colluders_to_break > 4, "{found:?}");
    assert_eq!(found.break_probability_log2, f64::NEG_INFINITY);
    let alone = find(&GraphRequirements::new(10, 0.1, 0.1)).unwrap();
    assert_eq!(alone.break_probability_log2, f64::NEG_INFINITY, "{alone:?}");
}

#[test]
fn rounds_and_withheld_reveals_come_off_the_bound() {
    let requirements = groups_of(20, 200, 0.08, 0.05);
    let bound = |change: fn(&mut Population)| {
        let mut population = requirements.population();
        change(&mut population);
        population.break_probability_log2(22, 16)
    };
    let plain = bound(|_| ());
    assert!((bound(|p| p.rounds = 8) - plain - 3.0).abs() < 1e-9);
    // The one whose reveal is withheld is missing among the honest, and of 199 clients nine groups are made.
    let withheld = bound(|p| p.withheld_reveals = 1);
    assert!(withheld - plain > f64::log2(201.0), "{withheld} after {plain}");
    let orders = |w| Population { withheld_reveals: w, ..requirements.population() }.attempts_log2();
    assert!((orders(2) - f64::log2(1.0 + 200.0 + 19_900.0)).abs() < 1e-9);
    let grown = Population { withheld_reveals: 1, ..requirements.population() };
    assert_eq!((grown.groups(), grown.largest_group()), (10, 23));
}

#[test]
fn a_complete_graph_neither_falls_apart_nor_is_cut() {
    let found = find(&groups_of(20, 200, 0.04, 0.05)).unwrap();
    assert_eq!((found.degree, found.split_probability_log2), (19, f64::NEG_INFINITY));
    let ring = find(&GraphRequirements::new(1000, 0.1, 0.1)).unwrap();
    // 1000 · 903 / 2 pairs of runs, where a client is one of 1000; the rest is the same tail.
    let population = GraphRequirements::new(1000, 0.1, 0.1).population();
    let exposure = population.exposure_log2(ring.degree, ring.threshold);
    assert!((ring.split_probability_log2 - exposure - f64::log2(903.0 / 2.0)).abs() < 1e-9);
}

/// Shuffled cohorts on rings, counted, against each of the bounds: never above, and not far below.
#[test]
fn bounds_hold_in_simulated_cohorts() {
    const TRIALS: usize = 40_000;
    let population = Population {
        clients: 60,
        colluders: 9,
        dropouts: 9,
        group_size: 30,
        server: MALICIOUS,
        rounds: 1,
        withheld_reveals: 0,
    };
    // Degree 6 has rings, 29 complete graphs.
    let (mut exposed, mut apart, mut cut, mut failed) = ([0; 2], 0, 0, [0; 2]);
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for _ in 0..TRIALS {
        let mut order: Vec<usize> = (0..60).collect();
        for i in (1..60).rev() {
            order.swap(i, rng.next_u64() as usize % (i + 1));
        }
        let colludes = |group: usize, place: usize| order[group * 30 + place % 30] < 9;
        let drops = |group: usize, place: usize| (9..18).contains(&order[group * 30 + place % 30]);
        let any_group = |event: &dyn Fn(usize) -> bool| usize::from((0..2).any(event));
        let ring = |place: usize| (place + 27..place + 30).chain(place + 1..place + 4);
        let run = |group, place: usize| (place..place + 3).filter(|&at| colludes(group, at)).count();

        // t = 5: 2t − k = 4.
        exposed[0] += any_group(&|group| {
            (0..30).any(|at| !colludes(group, at) && ring(at).filter(|&at| colludes(group, at)).count() >= 4)
        });
        failed[0] +=
            any_group(&|group| (0..30).any(|at| ring(at).filter(|&at| drops(group, at)).count() >= 2));
        apart += any_group(&|group| {
            let stays: Vec<usize> = (0..30).filter(|&at| !colludes(group, at) && !drops(group, at)).collect();
            let mut reached = vec![stays[0]];
            let mut next = 0;
            while let Some(&from) = reached.get(next) {
                let near = ring(from).map(|at| at % 30).filter(|at| stays.contains(at));
                let new: Vec<usize> = near.filter(|at| !reached.contains(at)).collect();
                reached.extend(new);
                next += 1;
            }
            reached.len() < stays.len()
        });
        cut += any_group(&|group| {
            (0..30).any(|first| {
                (first + 4..first + 27).any(|second| run(group, first) + run(group, second) >= 4)
            })
        });
        // t = 18: 2t − k = 7; t = 23: 24 of 30 have to survive.
        exposed[1] += any_group(&|group| (0..30).filter(|&at| colludes(group, at)).count() >= 7);
        failed[1] += any_group(&|group| (0..30).filter(|&at| drops(group, at)).count() >= 7);
    }
    for (what, count, bound) in [
        ("exposed", exposed[0], population.exposure_log2(6, 5)),
        ("exposed, complete", exposed[1], population.exposure_log2(29, 18)),
        ("fallen apart", apart, population.disconnection_log2(6)),
        ("cut", cut, population.split_probability_log2(6, 5)),
        ("failed", failed[0], population.failure_probability_log2(6, 5)),
        ("failed, complete", failed[1], population.failure_probability_log2(29, 23)),
    ] {
        let (found, bound) = (count as f64 / TRIALS as f64, bound.exp2());
        let noise = 4.0 * (bound.min(1.0) / TRIALS as f64).sqrt();
        assert!(found <= bound + noise, "{what}: {found} of at most {bound}");
        assert!(found >= bound / 8.0, "{what}: {found} where {bound} is stated");
    }
}

#[test]
fn requirements_out_of_range_are_refused_by_name() {
    let message = |change: fn(&mut GraphRequirements)| {
        let mut requirements = groups_of(20, 200, 0.1, 0.1);
        change(&mut requirements);
        find(&requirements).unwrap_err().to_string()
    };
    for (change, expected) in [
        ((|r| r.clients = 2) as fn(&mut GraphRequirements), "clients is 2, accepted are 3 to 65536"),
        (|r| r.clients = 65_537, "clients is 65537, accepted are 3 to 65536"),
        (|r| r.group_size = Some(2), "group_size is 2, accepted are 3 to 200"),
        (|r| r.group_size = Some(201), "group_size is 201, accepted are 3 to 200"),
        (|r| (r.group_size, r.withheld_reveals) = (Some(200), 1), "group_size is 200, accepted are 3 to 199"),
        (|r| r.withheld_reveals = 198, "withheld_reveals is 198, accepted are 0 to 197"),
        (|r| r.malicious = 1.0, "malicious is 1, accepted are shares from 0 to below 1"),
        (|r| r.malicious = -0.1, "malicious is -0.1, accepted"),
        (|r| r.dropout = f64::NAN, "dropout is NaN, accepted"),
        (|r| r.security = 0, "security is 0, accepted are 1 to 256"),
        (|r| r.correctness = 257, "correctness is 257, accepted are 1 to 256"),
        (|r| r.rounds = 0, "rounds is 0, accepted are 1 and above"),
        (|r| r.dropout = 0.6, "no threshold loses fewer than one round in 2^20 to drop-outs"),
    ] {
        let found = message(change);
        assert!(found.starts_with(expected), "{found}, expected {expected}");
    }
}
