//! Rules by hand, and what they refuse.

mod oracle;
mod properties;

use super::*;

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

#[track_caller]
fn rule(name: &str) -> Rule {
    set(name, &[])
}

#[track_caller]
fn set(name: &str, settings: &[(&str, &str)]) -> Rule {
    Rule::new(name, &[], settings).unwrap()
}

/// Whether distances of pairs of rows have a part in it, whose sums begin in single precision where rows are stored so.
pub(super) fn compares_pairs(rule: &Rule) -> bool {
    let comparing = ["krum", "multi-krum", "bulyan", "mda", "caf", "smea", "dnc", "nnm"];
    rule.to_string().split('+').any(|step| comparing.contains(&step))
}

fn rule_error(name: &str) -> String {
    set_error(name, &[])
}

fn set_error(name: &str, settings: &[(&str, &str)]) -> String {
    Rule::new(name, &[], settings).unwrap_err().to_string()
}

/// Every rule that needs nothing set.
fn rules() -> Vec<Rule> {
    let rules: Vec<Rule> = RULES.iter().filter_map(|spec| spec.about.name.parse().ok()).collect();
    assert_eq!(rules.len(), RULES.len() - 1, "all but FLTrust");
    rules
}

#[test]
fn krum_counts_the_neighbours_of_the_paper() {
    // n = 5, f = 1: two neighbours each. With three, as byzfl has it, row 2 would win (9 + 4 + 16 = 29 < 41).
    let rows = column(&[0.0, 1.0, 3.0, 7.0, 100.0]);
    let scores = vec![1.0 + 9.0, 1.0 + 4.0, 4.0 + 9.0, 16.0 + 36.0, 93.0 * 93.0 + 97.0 * 97.0];

    let krum = rule("krum").aggregate(&rows, 1).unwrap();
    assert_eq!(krum, Aggregate { vector: vec![1.0], kept: vec![1], scores: scores.clone() });

    let multi_krum = rule("multi-krum").aggregate(&rows, 1).unwrap();
    assert_eq!(multi_krum, Aggregate { vector: vec![2.75], kept: vec![0, 1, 2, 3], scores });
}

#[test]
fn krum_breaks_ties_by_index() {
    let rows = column(&[4.0, 4.0, -4.0, -4.0, 0.0, 4.0, -4.0]);
    // Three of each sign tie at 0 + 0 + 16 (three neighbours); the lone zero is next to no one.
    assert_eq!(rule("krum").aggregate(&rows, 2).unwrap().kept, [0]);
    assert_eq!(rule("multi-krum").aggregate(&rows, 2).unwrap().kept, [0, 1, 2, 3, 5]);
}

#[test]
fn mda_keeps_the_least_diameter() {
    // Of four neighbours, 3 to 6 span 3, every other choice more.
    let rows = column(&[9.0, 5.0, 3.0, 6.0, -2.0, 3.5]);
    assert_eq!(
        rule("mda").aggregate(&rows, 2).unwrap(),
        Aggregate {
            vector: vec![4.375],
            kept: vec![1, 2, 3, 5],
            scores: vec![4.625, 0.625, 1.375, 1.625, 6.375, 0.875]
        }
    );
}

#[test]
fn mda_breaks_ties_by_index() {
    let kept = |values: &[f64], f| rule("mda").aggregate(&column(values), f).unwrap().kept;
    // Without either end the rest spans 3.
    assert_eq!(kept(&[1.0, 2.0, 3.0, 4.0, 0.0], 1), [0, 1, 2, 3]);
    assert_eq!(kept(&[0.0, 4.0, 3.0, 2.0, 1.0], 1), [0, 2, 3, 4]);
    // Nothing to choose by: the last rows go.
    assert_eq!(kept(&[7.0; 7], 3), [0, 1, 2, 3]);
    // The row 2 has to go whatever the tie between 0 and 1 is decided by.
    assert_eq!(kept(&[0.0, 4.0, 100.0, 1.0, 2.0, 3.0], 2), [0, 3, 4, 5]);
}

#[test]
fn exact_searches_refuse_what_takes_too_long() {
    let rows = column(&[0.0; 43]);
    let found = rule("mda").aggregate(&rows, 20).unwrap();
    assert_eq!(found.kept, (0..23).collect::<Vec<_>>());
    assert_eq!(
        rule("mda").aggregate(&rows, 21).unwrap_err().to_string(),
        "mda with f = 21 Byzantine rows of 43 may search 2097152 subsets, accepted are 1048576"
    );
    assert_eq!(rule("median").check_counts(43, 21), Ok(()));
    // 50 choose 10, and beyond every number.
    for (rows, f, found) in [(50, 10, 10_272_278_170), (1000, 400, u64::MAX)] {
        let error = RuleError::SearchTooLarge { rule: "smea".to_owned(), f, rows, found };
        assert_eq!(rule("smea").check_counts(rows, f), Err(error));
    }
    assert_eq!(rule("smea").check_counts(25, 5), Ok(()));
}

#[test]
fn coordinate_rules_by_hand() {
    let rows = column(&[9.0, 1.0, 2.0, -50.0, 4.0]);
    assert_eq!(rule("mean").aggregate(&rows, 2).unwrap().vector, [-6.8]);
    assert_eq!(rule("median").aggregate(&rows, 2).unwrap().vector, [2.0]);
    assert_eq!(rule("trimmed-mean").aggregate(&rows, 1).unwrap().vector, [7.0 / 3.0]);
    let four = rule("median").aggregate(&rows[..4], 1).unwrap();
    assert_eq!(
        four,
        Aggregate { vector: vec![1.5], kept: vec![0, 1, 2, 3], scores: vec![7.5, 0.5, 0.5, 51.5] }
    );
}

#[test]
fn geometric_median_of_triangles() {
    let of = |rows: [[f64; 2]; 3]| {
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| row.to_vec()).collect();
        rule("geometric-median").aggregate(&rows, 1).unwrap().vector
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
    assert_eq!(rule("geometric-median").aggregate(&rows, 2).unwrap().vector, [3.0, -1.0]);
}

#[test]
fn f_outliers_do_not_move_a_robust_rule() {
    let honest = [
        [1.2, 0.9, 1.1],
        [0.8, 1.1, 0.9],
        [1.0, 1.3, 1.0],
        [1.1, 0.8, 0.7],
        [0.9, 1.0, 1.2],
        [1.0, 1.0, 1.1],
        [1.1, 1.1, 0.9],
        [0.9, 0.9, 0.8],
        [1.0, 0.8, 1.2],
    ]
    .map(|row| row.to_vec());
    let together = [vec![1e8; 3], vec![1e8; 3]];
    let apart = [vec![-1e8, 1e8, 0.0], vec![1e3, -1e3, -1e3]];
    for outliers in [together, apart] {
        let rows: Vec<Vec<f64>> = outliers.into_iter().chain(honest.clone()).collect();
        for rule in rules() {
            // MoNNA trusts row 0 by default, which is an outlier here.
            let rule = if rule.name() == "monna" { set("monna", &[("index", "2")]) } else { rule };
            let Aggregate { vector, scores, .. } = rule.aggregate(&rows, 2).unwrap();
            let distance = vector.iter().map(|value| (value - 1.0).powi(2)).sum::<f64>().sqrt();
            match rule.name() {
                "mean" => assert!(distance > 1e6, "the mean stayed at {vector:?}"),
                // They bound what an outlier does in other ways, tested below.
                "norm-bound" | "centered-clipping" | "robust-learning-rate" | "foolsgold" => {}
                _ => {
                    assert!(distance < 1.0, "{rule} was moved to {vector:?}");
                    let least_suspicious_outlier = scores[0].min(scores[1]);
                    assert!(
                        scores[2..].iter().all(|&score| score < least_suspicious_outlier),
                        "{rule}: {scores:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn norm_bound_limits_what_a_row_does() {
    let rows = column(&[1.0, -1.0, 1e9]);
    assert_eq!(set("norm-bound", &[("c", "3")]).aggregate(&rows, 1).unwrap().vector, [1.0]);
}

#[test]
fn centered_clipping_starts_where_it_is_told() {
    let rows = [vec![10.0, 0.0], vec![12.0, 0.0], vec![1e9, 0.0]];
    let from = |start| {
        set("centered-clipping", &[("start", start), ("tau", "3")]).aggregate(&rows, 1).unwrap().vector
    };
    assert_eq!(from("zero"), [3.0, 0.0]);
    // Differences −2, 0 and one cut to 3.
    assert_eq!(from("median"), [12.0 + 1.0 / 3.0, 0.0]);
    assert_eq!(from("10, 0"), [10.0 + 5.0 / 3.0, 0.0]);
    let steps = set("centered-clipping", &[("tau", "3"), ("iterations", "4")]);
    // 3, 6, 9, and then differences 1, 3, 3.
    assert_close(&steps.aggregate(&rows, 1).unwrap().vector, &[9.0 + 7.0 / 3.0, 0.0], 1e-12, "four steps");
    let error = set("centered-clipping", &[("start", "1,2,3")]).aggregate(&rows, 1).unwrap_err();
    assert_eq!(error.to_string(), "option start is a vector of dimension 3, accepted is dimension 2");
}

#[test]
fn robust_learning_rate_turns_where_rows_disagree() {
    let rows = [vec![1.0, 5.0, 2.0], vec![2.0, -1.0, 0.0], vec![3.0, -1.0, 1.0]];
    // Signs add up to 3, −1 and 2.
    assert_eq!(rule("robust-learning-rate").aggregate(&rows, 1).unwrap().vector, [2.0, -1.0, 1.0]);
    let strict = set("robust-learning-rate", &[("threshold", "3")]);
    assert_eq!(strict.aggregate(&rows, 1).unwrap().vector, [2.0, -1.0, -1.0]);
    let error = set("robust-learning-rate", &[("threshold", "4")]).aggregate(&rows, 1).unwrap_err();
    assert_eq!(error.to_string(), "option threshold is 4, accepted is 1 to 3");
}

#[test]
fn foolsgold_drops_rows_that_are_alike() {
    let rows = [vec![3.0, 0.0], vec![0.0, 1.0], vec![0.0, 2.0]];
    let found = rule("foolsgold").aggregate(&rows, 2).unwrap();
    assert_eq!((found.vector, found.kept), (vec![3.0, 0.0], vec![0]));
    // What counts are the updates so far.
    let history = set("foolsgold", &[("history", "1,1;1,1;1,-1")]).aggregate(&rows, 2).unwrap();
    assert_eq!((history.vector, history.kept), (vec![0.0, 2.0], vec![2]));
    let alike = rule("foolsgold").aggregate(&column(&[1.0, 2.0]), 1).unwrap();
    assert_eq!(alike, Aggregate { vector: vec![0.0], kept: vec![], scores: vec![1.0, 1.0] });
    let error = set("foolsgold", &[("history", "1,1;1,1")]).aggregate(&rows, 2).unwrap_err();
    assert_eq!(error.to_string(), "option history is 2 rows, accepted is 3 rows");
}

#[test]
fn fltrust_follows_its_reference() {
    let rows = [vec![0.0, 8.0], vec![1.0, 0.0], vec![-5.0, 0.0], vec![0.0, 0.0]];
    let found = set("fltrust", &[("reference", "0.5,0")]).aggregate(&rows, 3).unwrap();
    assert_eq!(found, Aggregate { vector: vec![0.5, 0.0], kept: vec![1], scores: vec![1.0, 0.0, 2.0, 1.0] });
    // Nobody agrees with it.
    let found = set("fltrust", &[("reference", "0,-1")]).aggregate(&rows, 3).unwrap();
    assert_eq!((found.vector, found.kept), (vec![0.0, 0.0], vec![]));
}

#[test]
fn sign_guard_keeps_the_largest_cluster_of_signs() {
    let rows = [
        vec![1.0, 1.0, 1.0, 1.0],
        vec![-1.0, -1.0, -1.0, -1.0],
        vec![1.0, 1.0, 1.0, -1.0],
        vec![2.0, 2.0, 2.0, 2.0],
        vec![50.0, 50.0, 50.0, 50.0],
        vec![0.01, 0.01, 0.01, 0.01],
        vec![1.0, 1.0, -1.0, 1.0],
    ];
    let found = rule("sign-guard").aggregate(&rows, 3).unwrap();
    // One row is turned, one too long, one too short; the median norm is 2, to which row 3 is clipped.
    assert_eq!((found.vector, found.kept), (vec![1.0, 1.0, 0.5, 0.5], vec![0, 2, 3, 6]));
}

#[test]
fn bulyan_selects_and_then_takes_the_middle() {
    let rows = column(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e6]);
    let found = rule("bulyan").aggregate(&rows, 1).unwrap();
    assert_eq!((found.vector, found.kept), (vec![3.0], vec![0, 1, 2, 3, 4]));
    assert_eq!(found.scores[6], [5, 4, 3, 2].iter().map(|i| (1e6 - f64::from(i + 1)).powi(2)).sum::<f64>());
}

#[test]
fn dnc_drops_what_any_subset_of_the_coordinates_drops() {
    let mut rows: Vec<Vec<f64>> =
        (0..9).map(|i| (0..40).map(|j| f64::from((i * 7 + j * 3) % 5)).collect()).collect();
    for value in &mut rows[4] {
        *value += 100.0;
    }
    let settings = [("iterations", "3"), ("b", "10"), ("c", "1"), ("seed", "7")];
    let found = set("dnc", &settings).aggregate(&rows, 2).unwrap();
    assert!(!found.kept.contains(&4) && (3..=7).contains(&found.kept.len()), "{:?}", found.kept);
    assert_eq!(set("dnc", &settings).aggregate(&rows, 2).unwrap(), found);
    assert_ne!(set("dnc", &[("b", "10"), ("seed", "8")]).aggregate(&rows, 2).unwrap().scores, found.scores);
    assert_eq!(set("dnc", &settings).minimum_rows(2), 7);
}

#[test]
fn caf_survives_an_outlier_that_dwarfs_the_others() {
    let mut rows = column(&[1.0, 1.1, 0.9, 1.05, 0.95, 50.0]);
    rows.push(vec![MAX_MAGNITUDE]);
    let found = rule("caf").aggregate(&rows, 2).unwrap();
    assert!((found.vector[0] - 1.0).abs() < 0.1 && !found.kept.contains(&6), "{found:?}");
    // Nothing stands out where all coincide.
    assert_eq!(rule("caf").aggregate(&column(&[4.0; 8]), 3).unwrap().vector, [4.0]);
}

#[test]
fn buckets_are_kept_or_dropped_whole() {
    let rows = column(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e6]);
    let bucketed = |rule, seed| Rule::new(rule, &["bucketing"], &[("size", "2"), ("seed", seed)]).unwrap();
    let mean = bucketed("mean", "1").aggregate(&rows, 0).unwrap();
    assert_eq!(mean.kept, [0, 1, 2, 3, 4, 5, 6]);
    let mda = bucketed("mda", "1");
    let found = mda.aggregate(&rows, 1).unwrap();
    assert!(found.vector[0] <= 6.0, "{found:?}");
    // Rows of one bucket share its score and its fate.
    let dropped: Vec<usize> = (0..7).filter(|row| !found.kept.contains(row)).collect();
    assert!(dropped.contains(&6) && dropped.len() <= 2, "{dropped:?}");
    assert!(dropped.iter().all(|&row| found.scores[row] == found.scores[6]));
    assert_ne!(
        bucketed("mean", "1").aggregate(&rows, 0).unwrap().scores,
        bucketed("mean", "2").aggregate(&rows, 0).unwrap().scores
    );
    // Seven buckets for Krum with f = 2 take thirteen rows of two to a bucket.
    assert_eq!(bucketed("krum", "1").minimum_rows(2), 13);
    assert_eq!(
        bucketed("krum", "1").check_counts(12, 2).unwrap_err().to_string(),
        "bucketing+krum with f = 2 Byzantine rows needs at least 13 rows, found 12"
    );
    assert_eq!(bucketed("mean", "1").minimum_rows(3), 7, "a bucket without a Byzantine row");
}

#[test]
fn multi_krum_drops_the_outliers_and_averages_the_rest() {
    let rows = column(&[5.0, 1e9, 6.0, 7.0, -1e9, 8.0, 9.0]);
    let Aggregate { vector, kept, .. } = rule("multi-krum").aggregate(&rows, 2).unwrap();
    assert_eq!((vector, kept), (vec![7.0], vec![0, 2, 3, 5, 6]));
}

#[test]
fn bad_rows_are_refused_by_every_rule() {
    let good = vec![1.0, 2.0];
    for rule in rules() {
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
        rule("mean").aggregate(&[good, vec![0.0, f64::NAN]], 0).unwrap_err().to_string(),
        "row 1 holds NaN at coordinate 1; values must be finite, of magnitude at most 1e100"
    );
}

#[test]
fn the_largest_values_do_not_overflow() {
    for rule in rules().into_iter().chain([set("krum", &[("variant", "epfml")])]) {
        let rows: Vec<Vec<f64>> =
            (0..15).map(|row| vec![if row % 2 == 0 { MAX_MAGNITUDE } else { -MAX_MAGNITUDE }; 2]).collect();
        let Aggregate { vector, scores, .. } = rule.aggregate(&rows, 3).unwrap();
        assert!(vector.iter().chain(&scores).all(|value| value.is_finite()), "{rule}");
    }
}

#[test]
fn too_few_rows_are_refused_with_the_bound() {
    for rule in rules() {
        for f in 0..4 {
            let minimum = rule.minimum_rows(f);
            let rows = vec![vec![1.0, 2.0]; minimum];
            assert!(rule.aggregate(&rows, f).is_ok(), "{rule} with {minimum} rows, f = {f}");
            if minimum > 1 {
                let error = RuleError::TooFewRows { rule: rule.to_string(), f, minimum, found: minimum - 1 };
                assert_eq!(rule.aggregate(&rows[1..], f).unwrap_err(), error);
            }
        }
        assert!(rule.name() == "mean" || rule.aggregate(&[vec![1.0, 2.0]], usize::MAX).is_err());
    }
    for (name, settings, minimum) in [
        ("median", &[][..], 7),
        ("krum", &[], 9),
        ("krum", &[("variant", "byzfl")], 7),
        ("bulyan", &[], 15),
        ("fltrust", &[("reference", "1,1")], 4),
        ("mean", &[], 1),
    ] {
        assert_eq!(set(name, settings).minimum_rows(3), minimum, "{name}");
    }
    assert_eq!(
        rule("multi-krum").aggregate(&[vec![0.0], vec![0.0]], 1).unwrap_err().to_string(),
        "multi-krum with f = 1 Byzantine rows needs at least 5 rows, found 2"
    );
}

#[test]
fn the_registry_is_complete() {
    for spec in &RULES {
        assert!(spec.takes_group_means() == GROUP_RULE_NAMES.split(", ").any(|name| name == spec.about.name));
        if let Ok(rule) = spec.about.name.parse::<Rule>() {
            assert_eq!((rule.name(), rule.to_string()), (spec.about.name, spec.about.name.to_owned()));
            assert_eq!(rule.minimum_rows(3), spec.bound().unwrap().rows(3));
        } else {
            assert!(!spec.takes_group_means(), "a plan gives {} no options", spec.about.name);
        }
    }
    let mut names: Vec<_> = RULES.iter().map(|spec| spec.about.name).collect();
    names.extend(PRE_AGGREGATORS.iter().map(|spec| spec.about.name));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name is taken twice");
}

#[test]
fn settings_find_their_step() {
    let clipped = |settings: &[(&str, &str)]| Rule::new("norm-bound", &["clip", "bucketing"], settings);
    assert_eq!(
        clipped(&[("clip.c", "1"), ("norm-bound.c", "3"), ("size", "4")]).unwrap().to_string(),
        "clip+bucketing+norm-bound"
    );
    assert_ne!(clipped(&[("clip.c", "1")]).unwrap(), clipped(&[("norm-bound.c", "1")]).unwrap());
    assert_eq!(clipped(&[("clip.c", "2")]).unwrap(), clipped(&[]).unwrap());
    let refused = |settings: &[(&str, &str)]| clipped(settings).unwrap_err().to_string();
    assert_eq!(
        refused(&[("c", "1")]),
        "option \"c\" belongs to more than one step; write clip.c or norm-bound.c"
    );
    assert_eq!(
        refused(&[("tau", "1")]),
        "clip + bucketing + norm-bound has no option \"tau\"; accepted are c, size, seed, c"
    );
    assert_eq!(
        refused(&[("size", "2"), ("bucketing.size", "2")]),
        "option \"size\" of bucketing is set twice"
    );
    for (key, value, accepted) in [
        ("size", "0", "a whole number, 1 or more"),
        ("size", "two", "a whole number, 1 or more"),
        ("clip.c", "0", "a number above 0"),
        ("clip.c", "NaN", "a number above 0"),
        ("clip.c", "inf", "a number above 0"),
    ] {
        let (step, option) = key.split_once('.').unwrap_or(("bucketing", key));
        assert_eq!(
            refused(&[(key, value)]),
            format!("option {option} of {step} is {value:?}, accepted is {accepted}")
        );
    }
    for (name, settings, expected) in [
        ("krum", ("variant", "blades"), "accepted is paper, byzfl, flower, garfield, epfml"),
        ("sign-guard", ("lower", "2"), "accepted is a number above 0, up to 1"),
        (
            "centered-clipping",
            ("start", "1,,2"),
            "accepted is zero, median, or numbers with commas between them",
        ),
        ("fltrust", ("reference", "1e200"), "accepted is numbers with commas between them"),
        (
            "foolsgold",
            ("history", "1,2;x"),
            "accepted is rows of numbers, with commas inside and semicolons between them",
        ),
        ("mean", ("f", "2"), "mean has no option \"f\"; accepted are none"),
    ] {
        let error = Rule::new(name, &[], &[settings]).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    assert_eq!(
        rule_error("fltrust"),
        "fltrust needs the option reference: the server's own update, of the rows' dimension"
    );
    let long = "1".repeat(200) + "x";
    assert!(set_error("krum", &[("variant", &long)]).len() < 200);
}

#[test]
fn unknown_names_are_refused() {
    let error = rule_error("Krum");
    assert!(error.starts_with("unknown rule \"Krum\"; accepted are mean, median, trimmed-mean, "), "{error}");
    assert_eq!(
        Rule::new("mean", &["nmm"], &[]).unwrap_err().to_string(),
        "unknown pre-aggregator \"nmm\"; accepted are clip, arc, nnm, bucketing"
    );
}

#[test]
fn monna_wants_a_row_that_there_is() {
    let error = set("monna", &[("index", "3")]).aggregate(&column(&[1.0, 2.0, 3.0]), 1).unwrap_err();
    assert_eq!(error.to_string(), "option index is 3, accepted is 0 to 2");
    // Ties go to the lower index, and the trusted row stays.
    let last = set("monna", &[("index", "4")]).aggregate(&column(&[1.0; 5]), 2).unwrap();
    assert_eq!(last.kept, [0, 1, 4]);
}

#[test]
fn rounds_bring_their_seed_and_their_memory() {
    let rows: Vec<Vec<f64>> = (0..9).map(|row| vec![f64::from(row * row), f64::from(row)]).collect();
    let bucketing = Rule::new("median", &["bucketing"], &[]).unwrap();
    let in_round = |rule: &Rule, seed| rule.in_round(seed, None).aggregate(&rows, 1).unwrap();
    let seeded = Rule::new("median", &["bucketing"], &[("seed", "7")]).unwrap();
    assert_eq!(in_round(&bucketing, 7), seeded.aggregate(&rows, 1).unwrap());
    assert!((0..8).any(|seed| in_round(&bucketing, seed) != in_round(&bucketing, 7)));
    assert_eq!(in_round(&seeded, 3), in_round(&seeded, 4));

    let clipping = set("centered-clipping", &[("tau", "1")]);
    assert!(clipping.remembers() && !rule("median").remembers());
    let first = clipping.in_round(1, None).aggregate(&rows, 1).unwrap();
    assert_eq!(first, clipping.aggregate(&rows, 1).unwrap());
    let second = clipping.in_round(2, Some(&first.vector)).aggregate(&rows, 1).unwrap();
    let start = first.vector.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    assert_eq!(
        second,
        set("centered-clipping", &[("tau", "1"), ("start", &start)]).aggregate(&rows, 1).unwrap()
    );
    assert_ne!(second.vector, first.vector);
    // Whoever asks for a start gets it in every round.
    let median = set("centered-clipping", &[("start", "median")]);
    assert!(!median.remembers() && median == median.in_round(1, Some(&[1.0, 2.0])));
}
