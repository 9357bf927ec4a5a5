//! What defines an attack, on inputs of many seeds.

use fedveil_aggregation::robust::Rule;

use super::*;
use crate::attack::adaptive::fallback;
use crate::attack::alie::{published_z, shifted};
use crate::attack::flips::{harm, reversed};
use crate::attack::knowledge::{Defence, Others, Scene};
use crate::attack::search::LARGEST;
use crate::attack::statistics::{along, deviations, mean, squared_distance, with_norm};

const SHAPES: [(usize, usize, usize); 4] = [(7, 4, 3), (8, 3, 5), (10, 1, 12), (15, 5, 2)];

fn others(honest: &[Vec<f64>], byzantine: usize) -> Others {
    Knowledge::of_honest(honest, byzantine).others.expect("an omniscient attacker sees others")
}

fn centre(rows: &[Vec<f64>]) -> Vec<f64> {
    mean(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[test]
fn the_published_z_leaves_a_majority_to_the_forged() {
    // The example of the paper: 50 workers, 24 of them corrupted, need 2 supporters, so that Φ(z) = 24/26.
    assert!((published_z(50, 24) - 1.426_076_872_272_848).abs() < 1e-12, "{}", published_z(50, 24));
    // More attackers may go farther, and none of seven reaches the median alone.
    assert!(published_z(7, 1).abs() < 1e-15);
    assert!((1..24).all(|byzantine| published_z(50, byzantine) < published_z(50, byzantine + 1)));

    let rows = honest(26, 9, 3);
    let vector = attack("alie").craft(&Knowledge::of_honest(&rows, 24), &mut rng()).unwrap();
    let honest: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    let expected = along(&mean(&honest), published_z(50, 24), &deviations(&honest));
    assert_eq!(vector, expected);
}

#[test]
fn optimised_factors_are_the_best_of_a_fine_grid() {
    let rules = [("trimmed-mean", &["nnm"][..]), ("krum", &[]), ("mda", &[]), ("geometric-median", &["arc"])];
    for seed in 0..6 {
        for (rule, pre) in rules {
            let rule = Rule::new(rule, pre, &[]).unwrap();
            let rows = honest(9, 4, seed);
            let (others, defence) = (others(&rows, 3), Defence { rule: &rule, byzantine: 3 });
            let knowledge = Knowledge::of_honest(&rows, 3).with_rule(&rule, 3);
            for (name, craft) in
                [("opt-ipm", reversed as fn(&_, f64) -> Vec<f64>), ("opt-alie", shifted as fn(&_, f64) -> _)]
            {
                let found = attack(name).craft(&knowledge, &mut rng()).unwrap();
                let found = harm(&others, &defence, &found);
                let grid = (0..=2000).map(|at| LARGEST * (f64::from(at) / 2000.0).powi(3));
                let best = grid.map(|factor| harm(&others, &defence, &craft(&others, factor)));
                let best = best.fold(f64::NEG_INFINITY, f64::max);
                assert!(found >= 0.98 * best, "{name} on {rule}, seed {seed}: {found}, on the grid {best}");
            }
        }
    }
}

#[test]
fn the_adaptive_attack_turns_the_aggregate_back_furthest() {
    for seed in 0..6 {
        for name in ["mda", "median", "trimmed-mean", "multi-krum"] {
            let rule: Rule = name.parse().unwrap();
            let rows = honest(9, 6, seed);
            let (others, defence) = (others(&rows, 3), Defence { rule: &rule, byzantine: 3 });
            let centre = centre(&rows);
            let forward = with_norm(&centre, 1.0).unwrap();
            let knowledge = Knowledge::of_honest(&rows, 3).with_rule(&rule, 3);
            let found = attack("adaptive").craft(&knowledge, &mut rng()).unwrap();
            let found = fallback(&others, &defence, &found, &forward);
            // Nobody along its own direction, nor any attack that does not know the rule, does better.
            let grid =
                (0..=1000).map(|at| along(&centre, -30.0 * (f64::from(at) / 1000.0).powi(3), &forward));
            let blind = ["ipm", "alie", "min-max", "min-sum", "mimic"]
                .map(|name| attack(name).craft(&knowledge, &mut rng()).unwrap());
            let best = grid.chain(blind).map(|target| fallback(&others, &defence, &target, &forward));
            let best = best.fold(f64::NEG_INFINITY, f64::max);
            assert!(found >= 0.97 * best, "{name}, seed {seed}: {found}, others {best}");
        }
    }
}

#[test]
fn min_max_is_as_far_from_some_honest_row_as_two_honest_are_apart() {
    for (rows, byzantine, d) in SHAPES {
        for seed in 0..10 {
            let rows = honest(rows, d, seed);
            let found = attack("min-max").craft(&Knowledge::of_honest(&rows, byzantine), &mut rng()).unwrap();
            let farthest =
                |from: &[f64]| rows.iter().map(|row| squared_distance(from, row)).fold(0.0, f64::max);
            let diameter = rows.iter().map(|row| farthest(row)).fold(0.0, f64::max);
            assert!((farthest(&found) / diameter - 1.0).abs() < 1e-12, "{} {diameter}", farthest(&found));
            assert_is_backwards(&found, &rows);
        }
    }
}

#[test]
fn min_sum_has_the_largest_sum_that_an_honest_row_has() {
    for (rows, byzantine, d) in SHAPES {
        for seed in 0..10 {
            let rows = honest(rows, d, seed);
            let found = attack("min-sum").craft(&Knowledge::of_honest(&rows, byzantine), &mut rng()).unwrap();
            let sum = |from: &[f64]| rows.iter().map(|row| squared_distance(from, row)).sum::<f64>();
            let largest = rows.iter().map(|row| sum(row)).fold(0.0, f64::max);
            assert!((sum(&found) / largest - 1.0).abs() < 1e-12, "{} {largest}", sum(&found));
            assert_is_backwards(&found, &rows);
        }
    }
}

/// It lies on the line from the mean to zero and beyond, past the mean.
fn assert_is_backwards(found: &[f64], rows: &[Vec<f64>]) {
    let centre = centre(rows);
    let moved = along(found, -1.0, &centre);
    assert!((dot(&moved, &centre) / norm(&moved) / norm(&centre) + 1.0).abs() < 1e-12);
}

#[test]
fn distances_hold_for_what_arrives_veiled() {
    let rows = honest(7, 40, 5);
    let veils: Vec<Vec<f64>> = honest(3, 40, 6).iter().map(|row| along(row, -1.0, &centre(&rows))).collect();
    let small: Vec<Vec<f64>> =
        veils.iter().map(|veil| veil.iter().map(|value| value / 3.0).collect()).collect();
    let craft = |veils: &[Vec<f64>], name| {
        let scene = Scene { honest: rows.clone(), veils: veils.to_vec() };
        let knowledge = Knowledge::alone(&rows[0]).with_others(rows[0].clone(), vec![scene]);
        attack(name).craft(&knowledge, &mut rng()).unwrap()
    };
    let farthest = |from: &[f64]| rows.iter().map(|row| squared_distance(from, row)).fold(0.0, f64::max);
    let diameter = rows.iter().map(|row| farthest(row)).fold(0.0, f64::max);
    let target = craft(&small, "min-max");
    let arriving = small.iter().map(|veil| farthest(&along(&target, 1.0, veil))).fold(0.0, f64::max);
    assert!((arriving / diameter - 1.0).abs() < 1e-12, "{arriving} {diameter}");
    // Where the veil alone is too long, nothing is added to it.
    let long: Vec<Vec<f64>> =
        veils.iter().map(|veil| veil.iter().map(|value| value * 30.0).collect()).collect();
    for name in ["min-max", "min-sum"] {
        assert_eq!(craft(&long, name), centre(&rows));
    }
}

#[test]
fn honest_rows_that_are_all_zero_leave_no_direction() {
    let rows = vec![vec![0.0; 4]; 7];
    let rule = "median".parse().unwrap();
    for spec in ATTACKS.iter().filter(|spec| spec.needs() != Needs::Nothing) {
        let knowledge = Knowledge::of_honest(&rows, 2).with_rule(&rule, 2);
        let found = attack(spec.name).craft(&knowledge, &mut rng()).unwrap();
        assert!(found.iter().all(|value| *value == 0.0), "{}: {found:?}", spec.name);
    }
}
