use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Oracle {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    f: usize,
    rows: Vec<Vec<f64>>,
    mean: Vec<f64>,
    median: Vec<f64>,
    trimmed_mean: Vec<f64>,
    weiszfeld_3: Vec<f64>,
    weiszfeld_8: Vec<f64>,
    krum: Vec<f64>,
    multi_krum: Vec<f64>,
    mda: Vec<f64>,
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{what}: found {found}, expected {expected}");
    }
}

fn column(values: &[f64]) -> Vec<Vec<f64>> {
    values.iter().map(|&value| vec![value]).collect()
}

#[test]
fn agrees_with_byzfl() {
    let oracle: Oracle = serde_json::from_str(include_str!("../../../tests/vectors/robust/byzfl.json"))
        .expect("a valid vector file");
    assert_eq!(oracle.cases.len(), 6);
    for case in oracle.cases {
        let Case { name, f, rows, .. } = case;
        let n = rows.len();
        for (rule, expected) in [
            (Rule::Mean, &case.mean),
            (Rule::Median, &case.median),
            (Rule::TrimmedMean, &case.trimmed_mean),
            (Rule::Mda, &case.mda),
        ] {
            let found = rule.aggregate(&rows, f).unwrap().vector;
            assert_close(&found, expected, 1e-12, &format!("{rule}, {name}"));
        }
        // byzfl starts at zero, fixes the smoothing and the number of iterations, and lets Krum count one
        // neighbour more than the paper.
        for (iterations, expected) in [(3, &case.weiszfeld_3), (8, &case.weiszfeld_8)] {
            let found = geometric_median::weiszfeld(&rows, vec![0.0; rows[0].len()], 0.1, 0.0, iterations);
            assert_close(&found, expected, 1e-12, &format!("{iterations} Weiszfeld iterations, {name}"));
        }
        for (keep, expected) in [(1, &case.krum), (n - f, &case.multi_krum)] {
            let found = krum::select(&rows, n - f - 1, keep).vector;
            assert_close(&found, expected, 1e-12, &format!("Krum keeping {keep}, {name}"));
        }
    }
}

#[test]
fn krum_counts_the_neighbours_of_the_paper() {
    // n = 5, f = 1: two neighbours each. With three, as byzfl has it, row 2 would win (9 + 4 + 16 = 29 < 41).
    let rows = column(&[0.0, 1.0, 3.0, 7.0, 100.0]);
    let scores = vec![1.0 + 9.0, 1.0 + 4.0, 4.0 + 9.0, 16.0 + 36.0, 93.0 * 93.0 + 97.0 * 97.0];

    let krum = Rule::Krum.aggregate(&rows, 1).unwrap();
    assert_eq!(krum, Aggregate { vector: vec![1.0], kept: vec![1], scores: scores.clone() });

    let multi_krum = Rule::MultiKrum.aggregate(&rows, 1).unwrap();
    assert_eq!(multi_krum, Aggregate { vector: vec![2.75], kept: vec![0, 1, 2, 3], scores });
}

#[test]
fn krum_breaks_ties_by_index() {
    let rows = column(&[4.0, 4.0, -4.0, -4.0, 0.0, 4.0, -4.0]);
    // Three of each sign tie at 0 + 0 + 16 (three neighbours); the lone zero is next to no one.
    assert_eq!(Rule::Krum.aggregate(&rows, 2).unwrap().kept, [0]);
    assert_eq!(Rule::MultiKrum.aggregate(&rows, 2).unwrap().kept, [0, 1, 2, 3, 5]);
    assert_eq!(krum::select(&rows, 3, 4).kept, [0, 1, 2, 3]);
}

#[test]
fn mda_keeps_the_least_diameter() {
    // Of four neighbours, 3 to 6 span 3, every other choice more.
    let rows = column(&[9.0, 5.0, 3.0, 6.0, -2.0, 3.5]);
    assert_eq!(
        Rule::Mda.aggregate(&rows, 2).unwrap(),
        Aggregate {
            vector: vec![4.375],
            kept: vec![1, 2, 3, 5],
            scores: vec![4.625, 0.625, 1.375, 1.625, 6.375, 0.875]
        }
    );
}

#[test]
fn mda_breaks_ties_by_index() {
    let kept = |values: &[f64], f| Rule::Mda.aggregate(&column(values), f).unwrap().kept;
    // Without either end the rest spans 3.
    assert_eq!(kept(&[1.0, 2.0, 3.0, 4.0, 0.0], 1), [0, 1, 2, 3]);
    assert_eq!(kept(&[0.0, 4.0, 3.0, 2.0, 1.0], 1), [0, 2, 3, 4]);
    // Nothing to choose by: the last rows go.
    assert_eq!(kept(&[7.0; 7], 3), [0, 1, 2, 3]);
    // The row 2 has to go whatever the tie between 0 and 1 is decided by.
    assert_eq!(kept(&[0.0, 4.0, 100.0, 1.0, 2.0, 3.0], 2), [0, 3, 4, 5]);
}

#[test]
fn mda_refuses_an_f_beyond_its_search() {
    let rows = column(&[0.0; 43]);
    let found = Rule::Mda.aggregate(&rows, 20).unwrap();
    assert_eq!(found.kept, (0..23).collect::<Vec<_>>());
    assert_eq!(
        Rule::Mda.aggregate(&rows, 21).unwrap_err().to_string(),
        "mda with f = 21 Byzantine rows would search up to 2^21 branches; f may be at most 20"
    );
    assert_eq!(Rule::Median.check_counts(43, 21), Ok(()));
}

#[test]
fn coordinate_rules_by_hand() {
    let rows = column(&[9.0, 1.0, 2.0, -50.0, 4.0]);
    assert_eq!(Rule::Mean.aggregate(&rows, 2).unwrap().vector, [-6.8]);
    assert_eq!(Rule::Median.aggregate(&rows, 2).unwrap().vector, [2.0]);
    assert_eq!(Rule::TrimmedMean.aggregate(&rows, 1).unwrap().vector, [7.0 / 3.0]);
    let four = Rule::Median.aggregate(&rows[..4], 1).unwrap();
    assert_eq!(
        four,
        Aggregate { vector: vec![1.5], kept: vec![0, 1, 2, 3], scores: vec![7.5, 0.5, 0.5, 51.5] }
    );
}

#[test]
fn geometric_median_of_triangles() {
    let of = |rows: [[f64; 2]; 3]| {
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| row.to_vec()).collect();
        Rule::GeometricMedian.aggregate(&rows, 1).unwrap().vector
    };
    // Every angle below 120°: the Fermat point, for an equilateral triangle its centre.
    let height = 3f64.sqrt();
    assert_close(&of([[-1.0, 0.0], [1.0, 0.0], [0.0, height]]), &[0.0, height / 3.0], 1e-7, "equilateral");
    // Right isosceles: the point sees every side under 120°, at 1 − 1/√3 above the long side's middle.
    let fermat = 1.0 / 3f64.sqrt();
    assert_close(&of([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), &[0.0, fermat], 1e-7, "right isosceles");
    // An angle above 120°: its vertex.
    assert_close(&of([[-9.0, 0.0], [9.0, 0.0], [0.0, 1.0]]), &[0.0, 1.0], 1e-4, "obtuse");
}

#[test]
fn geometric_median_of_coinciding_rows_is_that_row() {
    let rows = [vec![3.0, -1.0], vec![3.0, -1.0], vec![1e9, 1e9], vec![3.0, -1.0], vec![-1e9, 0.0]];
    assert_eq!(Rule::GeometricMedian.aggregate(&rows, 2).unwrap().vector, [3.0, -1.0]);
}

#[test]
fn f_outliers_do_not_move_a_robust_rule() {
    let honest = [[1.2, 0.9, 1.1], [0.8, 1.1, 0.9], [1.0, 1.3, 1.0], [1.1, 0.8, 0.7], [0.9, 1.0, 1.2]]
        .map(|row| row.to_vec());
    let together = [vec![1e8; 3], vec![1e8; 3]];
    let apart = [vec![-1e8, 1e8, 0.0], vec![1e3, 1e3, -1e3]];
    for outliers in [together, apart] {
        let rows: Vec<Vec<f64>> = outliers.into_iter().chain(honest.clone()).collect();
        for rule in Rule::ALL {
            let Aggregate { vector, scores, .. } = rule.aggregate(&rows, 2).unwrap();
            let distance = squared_distance(&vector, &[1.0; 3]).sqrt();
            if rule == Rule::Mean {
                assert!(distance > 1e6, "the mean stayed at {vector:?}");
                continue;
            }
            assert!(distance < 1.0, "{rule} was moved to {vector:?}");
            let least_suspicious_outlier = scores[0].min(scores[1]);
            assert!(scores[2..].iter().all(|&score| score < least_suspicious_outlier), "{rule}: {scores:?}");
        }
    }
}

#[test]
fn multi_krum_drops_the_outliers_and_averages_the_rest() {
    let rows = column(&[5.0, 1e9, 6.0, 7.0, -1e9, 8.0, 9.0]);
    let Aggregate { vector, kept, .. } = Rule::MultiKrum.aggregate(&rows, 2).unwrap();
    assert_eq!((vector, kept), (vec![7.0], vec![0, 2, 3, 5, 6]));
}

#[test]
fn bad_rows_are_refused_by_every_rule() {
    let good = vec![1.0, 2.0];
    for rule in Rule::ALL {
        let refuse = |rows: &[Vec<f64>]| rule.aggregate(rows, 0).unwrap_err();
        assert_eq!(refuse(&[]), RuleError::NoRows);
        assert_eq!(refuse(&[vec![], vec![]]), RuleError::NoCoordinates);
        assert_eq!(
            refuse(&[good.clone(), good.clone(), vec![1.0]]),
            RuleError::Ragged { row: 2, found: 1, expected: 2 }
        );
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.01 * MAX_MAGNITUDE] {
            let error = refuse(&[good.clone(), vec![0.0, value], good.clone()]);
            assert!(matches!(error, RuleError::OutOfRange { row: 1, coordinate: 1, .. }), "{error:?}");
        }
    }
    assert_eq!(
        Rule::Mean.aggregate(&[good, vec![0.0, f64::NAN]], 0).unwrap_err().to_string(),
        "row 1 holds NaN at coordinate 1; values must be finite, of magnitude at most 1e100"
    );
}

#[test]
fn the_largest_values_do_not_overflow() {
    for rule in Rule::ALL {
        let rows: Vec<Vec<f64>> =
            (0..9).map(|row| vec![if row % 2 == 0 { MAX_MAGNITUDE } else { -MAX_MAGNITUDE }; 50]).collect();
        let Aggregate { vector, scores, .. } = rule.aggregate(&rows, 3).unwrap();
        assert!(vector.iter().chain(&scores).all(|value| value.is_finite()), "{rule}");
    }
}

#[test]
fn too_few_rows_are_refused_with_the_bound() {
    for rule in Rule::ALL {
        for f in 0..4 {
            let minimum = rule.minimum_rows(f);
            let rows = vec![vec![1.0]; minimum];
            assert!(rule.aggregate(&rows, f).is_ok(), "{rule} with {minimum} rows, f = {f}");
            if rule != Rule::Mean && minimum > 1 {
                assert_eq!(
                    rule.aggregate(&rows[1..], f).unwrap_err(),
                    RuleError::TooFewRows { rule, f, minimum, found: minimum - 1 }
                );
            }
        }
        assert!(rule == Rule::Mean || rule.aggregate(&[vec![1.0]], usize::MAX).is_err());
    }
    assert_eq!(
        Rule::MultiKrum.aggregate(&[vec![0.0], vec![0.0]], 1).unwrap_err().to_string(),
        "multi-krum with f = 1 Byzantine rows needs at least 5 rows, found 2"
    );
}

#[test]
fn names_round_trip_and_unknown_ones_are_refused() {
    for rule in Rule::ALL {
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
    assert_eq!(
        "Krum".parse::<Rule>().unwrap_err().to_string(),
        "unknown rule \"Krum\"; accepted are mean, median, trimmed-mean, geometric-median, krum, multi-krum, mda"
    );
}

fn squared_diameter(rows: &[Vec<f64>], of: &[usize]) -> f64 {
    of.iter().flat_map(|&i| of.iter().map(move |&j| squared_distance(&rows[i], &rows[j]))).fold(0.0, f64::max)
}

/// The subsets of `0..n` with `k` members, in lexicographic order.
fn subsets(n: usize, k: usize) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = (0..1_u32 << n)
        .filter(|bits| bits.count_ones() as usize == k)
        .map(|bits| (0..n).filter(|i| bits >> i & 1 == 1).collect())
        .collect();
    found.sort_unstable();
    found
}

/// Rows of small integers, so that distances and Krum scores are exact, and an `f` that every rule accepts.
fn rows_and_f() -> impl Strategy<Value = (Vec<Vec<f64>>, usize)> {
    (3..12usize, 2..5usize).prop_flat_map(|(n, d)| {
        let row = proptest::collection::vec((-1000..1000i32).prop_map(f64::from), d);
        (proptest::collection::vec(row, n), 0..=(n - 3) / 2)
    })
}

proptest! {
    #[test]
    fn commutes_with_permutation((rows, f) in rows_and_f(), rotation in 1..12usize) {
        let n = rows.len();
        let order: Vec<usize> = (0..n).rev().map(|i| (i + rotation) % n).collect();
        let permuted: Vec<Vec<f64>> = order.iter().map(|&i| rows[i].clone()).collect();
        for rule in Rule::ALL {
            let (a, b) = (rule.aggregate(&rows, f).unwrap(), rule.aggregate(&permuted, f).unwrap());
            if rule == Rule::Mda {
                // Subsets often share their diameter; which one is kept, and with it every score, depends on the order.
                prop_assert_eq!(squared_diameter(&rows, &a.kept), squared_diameter(&permuted, &b.kept));
                continue;
            }
            let scores: Vec<f64> = order.iter().map(|&i| a.scores[i]).collect();
            assert_close(&b.scores, &scores, 1e-3, rule.name());
            let mut sorted = scores.clone();
            sorted.sort_by(f64::total_cmp);
            // Which of two rows with equal scores is kept depends on their order, by design.
            if matches!(rule, Rule::Krum | Rule::MultiKrum) && sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                continue;
            }
            assert_close(&b.vector, &a.vector, 1e-3, rule.name());
            let mut kept: Vec<usize> = b.kept.iter().map(|&i| order[i]).collect();
            kept.sort_unstable();
            prop_assert_eq!(kept, a.kept, "{}", rule);
        }
    }

    /// The first of the subsets with the least diameter, by looking at every one. The coordinates are few, so that
    /// ties are many.
    #[test]
    fn mda_agrees_with_exhaustive_search(
        rows in (1..11usize, 1..4usize, 1..9i32).prop_flat_map(|(n, d, spread)| {
            let row = proptest::collection::vec((-spread..=spread).prop_map(f64::from), d);
            proptest::collection::vec(row, n)
        }),
        f in 0..5usize,
    ) {
        let f = f.min((rows.len() - 1) / 2);
        let all = subsets(rows.len(), rows.len() - f);
        let diameters: Vec<f64> = all.iter().map(|subset| squared_diameter(&rows, subset)).collect();
        let least = diameters.iter().copied().fold(f64::INFINITY, f64::min);
        let first = diameters.iter().position(|&diameter| diameter == least).unwrap();
        prop_assert_eq!(&Rule::Mda.aggregate(&rows, f).unwrap().kept, &all[first]);
    }

    #[test]
    fn commutes_with_translation_and_scale(
        (rows, f) in rows_and_f(),
        shift in -5000..5000i32,
        scale in 1..100i32,
    ) {
        let (shift, scale) = (f64::from(shift), f64::from(scale));
        let moved: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|value| scale * value + shift).collect()).collect();
        for rule in Rule::ALL {
            let (a, b) = (rule.aggregate(&rows, f).unwrap(), rule.aggregate(&moved, f).unwrap());
            let expected: Vec<f64> = a.vector.iter().map(|value| scale * value + shift).collect();
            assert_close(&b.vector, &expected, 1e-3 * scale, rule.name());
            prop_assert_eq!(a.kept, b.kept, "{}", rule);
        }
    }

    /// Neither a row nor a point near by has a smaller sum of distances; the sum is convex, so that it has no
    /// other minimum.
    #[test]
    fn the_geometric_median_is_a_minimum((rows, _) in rows_and_f()) {
        let sum_of_distances = |z: &[f64]| rows.iter().map(|row| squared_distance(row, z).sqrt()).sum::<f64>();
        let found = geometric_median::geometric_median(&rows);
        let mut probes = rows.clone();
        for coordinate in 0..found.len() {
            for step in [-100.0, -1.0, -0.1, 0.1, 1.0, 100.0] {
                let mut probe = found.clone();
                probe[coordinate] += step;
                probes.push(probe);
            }
        }
        let least = sum_of_distances(&found);
        for probe in &probes {
            prop_assert!(sum_of_distances(probe) >= least * (1.0 - 1e-3), "{probe:?} is better than {found:?}");
        }
    }
}
