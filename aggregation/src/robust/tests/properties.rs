//! What holds for all rows: equivariance, optimality, agreement with exhaustive search.

use super::*;
use proptest::prelude::*;

/// Rules that commute with a translation of the rows, with what makes them do so.
fn translated() -> Vec<Rule> {
    let mut rules: Vec<Rule> = [
        "mean",
        "median",
        "trimmed-mean",
        "meamed",
        "geometric-median",
        "krum",
        "multi-krum",
        "bulyan",
        "mda",
        "monna",
        "caf",
        "smea",
        "dnc",
    ]
    .map(rule)
    .into();
    rules.push(Rule::new("centered-clipping", &[], &[("start", "median"), ("tau", "1e9")]).unwrap());
    for variant in ["byzfl", "garfield", "epfml"] {
        rules.push(Rule::new("multi-krum", &[], &[("variant", variant)]).unwrap());
    }
    rules.push(Rule::new("bulyan", &[], &[("variant", "flower")]).unwrap());
    rules.push(Rule::new("trimmed-mean", &["nnm"], &[]).unwrap());
    rules.push(Rule::new("median", &["bucketing"], &[]).unwrap());
    rules
}

/// Rules that commute with positive scaling.
fn scaled() -> Vec<Rule> {
    let mut rules = translated();
    rules.extend(["sign-guard", "robust-learning-rate", "foolsgold"].map(rule));
    rules.push(Rule::new("median", &["arc"], &[]).unwrap());
    rules
}

/// Rules for which the order of the rows means nothing.
///
/// Not so Bulyan, whose last selections see as many neighbours as rows and tie, MoNNA, which trusts a row by its index,
/// bucketing, which fills buckets in an order drawn before, and MDA, for which see below.
fn unordered() -> Vec<Rule> {
    let mut rules = scaled();
    rules.retain(|rule| {
        !["monna", "mda"].contains(&rule.name())
            && *rule != self::rule("bulyan")
            && !rule.to_string().contains("bucketing")
    });
    // Its shares of signs tie on few coordinates.
    rules.retain(|rule| rule.name() != "sign-guard");
    rules.extend([rule("norm-bound"), rule("rfa"), rule("centered-clipping")]);
    rules.push(Rule::new("trimmed-mean", &["clip", "nnm"], &[("c", "100")]).unwrap());
    rules
}

fn tolerance(rule: &Rule) -> f64 {
    if rule.name() == "geometric-median" { 1e-3 } else { 1e-6 }
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
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

/// Rows and an `f` for which there are enough, whatever the rule. Ties are unlikely.
fn rows_and_f() -> impl Strategy<Value = (Vec<Vec<f64>>, usize)> {
    (5..14usize, 2..6usize).prop_flat_map(|(n, d)| {
        let row = proptest::collection::vec(-1000.0..1000.0, d);
        (proptest::collection::vec(row, n), 0..=(n - 3) / 4)
    })
}

proptest! {
    #[test]
    fn commutes_with_permutation((rows, f) in rows_and_f(), rotation in 1..14usize) {
        let n = rows.len();
        let order: Vec<usize> = (0..n).rev().map(|i| (i + rotation) % n).collect();
        let permuted: Vec<Vec<f64>> = order.iter().map(|&i| rows[i].clone()).collect();
        for rule in unordered() {
            let (a, b) = (rule.aggregate(&rows, f).unwrap(), rule.aggregate(&permuted, f).unwrap());
            assert_close(&b.vector, &a.vector, tolerance(&rule), &rule.to_string());
            // Fourth powers of distances are as large as 1e14.
            let scores: Vec<f64> = order.iter().map(|&i| a.scores[i]).collect();
            let largest = scores.iter().copied().fold(1.0, f64::max);
            assert_close(&b.scores, &scores, tolerance(&rule).max(1e-9 * largest), &rule.to_string());
            let mut kept: Vec<usize> = b.kept.iter().map(|&i| order[i]).collect();
            kept.sort_unstable();
            prop_assert_eq!(kept, a.kept, "{}", rule);
        }
        // Subsets often share their diameter; which one is kept depends on the order.
        let kept = |rows: &[Vec<f64>]| squared_diameter(rows, &rule("mda").aggregate(rows, f).unwrap().kept);
        prop_assert_eq!(kept(&rows), kept(&permuted));
    }

    #[test]
    fn commutes_with_translation((rows, f) in rows_and_f(), shift in -5000.0..5000.0) {
        let moved: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|value| value + shift).collect()).collect();
        for rule in translated() {
            let (a, b) = (rule.aggregate(&rows, f).unwrap(), rule.aggregate(&moved, f).unwrap());
            let expected: Vec<f64> = a.vector.iter().map(|value| value + shift).collect();
            assert_close(&b.vector, &expected, tolerance(&rule), &rule.to_string());
            prop_assert_eq!(a.kept, b.kept, "{}", rule);
        }
    }

    #[test]
    fn commutes_with_scale((rows, f) in rows_and_f(), scale in 1e-3..1e3) {
        let moved: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|value| scale * value).collect()).collect();
        for rule in scaled() {
            let (a, b) = (rule.aggregate(&rows, f).unwrap(), rule.aggregate(&moved, f).unwrap());
            let expected: Vec<f64> = a.vector.iter().map(|value| scale * value).collect();
            assert_close(&b.vector, &expected, scale * tolerance(&rule), &rule.to_string());
            prop_assert_eq!(a.kept, b.kept, "{}", rule);
        }
    }

    #[test]
    fn single_precision_is_read_as_it_is((rows, f) in rows_and_f()) {
        let single: Vec<Vec<f32>> =
            rows.iter().map(|row| row.iter().map(|value| *value as f32).collect()).collect();
        let double: Vec<Vec<f64>> =
            single.iter().map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect();
        for rule in unordered() {
            let (single, double) = (rule.aggregate(&single, f).unwrap(), rule.aggregate(&double, f).unwrap());
            // What compares rows pair by pair sums in single precision first, and may choose another of equals.
            if !compares_pairs(&rule) {
                prop_assert_eq!(single, double);
            } else if single.kept == double.kept {
                let largest = double.vector.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
                assert_close(&single.vector, &double.vector, 1e-5 * largest, &rule.to_string());
            }
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
        prop_assert_eq!(&rule("mda").aggregate(&rows, f).unwrap().kept, &all[first]);
    }

    /// The first of the subsets with the least largest variance, by looking at every one. In one dimension there is
    /// one variance, so that it takes no eigenvalues to know it; small integers make for ties.
    #[test]
    fn smea_agrees_with_exhaustive_search(
        values in proptest::collection::vec((-9..=9i32).prop_map(f64::from), 1..11),
        f in 0..5usize,
    ) {
        let f = f.min((values.len() - 1) / 2);
        let all = subsets(values.len(), values.len() - f);
        let scatter = |subset: &Vec<usize>| {
            // k² times the variance of k integers is an integer, so that ties are exact.
            let (k, sum) = (subset.len() as f64, subset.iter().map(|&i| values[i]).sum::<f64>());
            k * subset.iter().map(|&i| values[i] * values[i]).sum::<f64>() - sum * sum
        };
        let scatters: Vec<f64> = all.iter().map(scatter).collect();
        let least = scatters.iter().copied().fold(f64::INFINITY, f64::min);
        let first = scatters.iter().position(|&scatter| scatter == least).unwrap();
        prop_assert_eq!(&rule("smea").aggregate(&column(&values), f).unwrap().kept, &all[first]);
    }

    /// Neither a row nor a point near by has a smaller sum of distances; the sum is convex, so that it has no
    /// other minimum.
    #[test]
    fn the_geometric_median_is_a_minimum((rows, _) in rows_and_f()) {
        let sum_of_distances = |z: &[f64]| rows.iter().map(|row| squared_distance(row, z).sqrt()).sum::<f64>();
        let found = rule("geometric-median").aggregate(&rows, 0).unwrap().vector;
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
