//! Against byzfl's attacks.

use std::collections::BTreeMap;

use fedveil_aggregation::robust::Rule;
use serde::Deserialize;

use super::*;
use crate::attack::knowledge::Defence;
use crate::attack::search::{line_search, maximise};
use crate::attack::{alie, flips};

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    f: usize,
    attack: String,
    #[serde(rename = "H")]
    honest: Vec<Vec<f64>>,
    out: BTreeMap<String, serde_json::Value>,
}

fn cases() -> Vec<Case> {
    let vectors: Vectors = serde_json::from_str(include_str!("../../../../tests/vectors/robust/byzfl.json"))
        .expect("a valid vector file");
    assert_eq!(vectors.cases.len(), 6);
    vectors.cases
}

fn assert_agrees(found: &[f64], case: &Case, name: &str) {
    let expected: Vec<f64> = serde_json::from_value(case.out[name].clone()).expect("a vector");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let tolerance = 1e-12 * expected.abs().max(1.0);
        assert!((found - expected).abs() <= tolerance, "{name} on {}: {found}, {expected}", case.attack);
    }
}

#[test]
fn attacks_agree_with_byzfl() {
    for case in cases() {
        let honest: Vec<&[f64]> = case.honest.iter().map(Vec::as_slice).collect();
        let mean = statistics::mean(&honest);
        let knowledge = Knowledge::of_honest(&case.honest, case.f);
        let craft = |name, strength, knowledge: &Knowledge| {
            Attack::new(name, strength).unwrap().craft(knowledge, &mut rng()).unwrap()
        };
        // byzfl reverses the mean of the honest; the published attack reverses what the attacker computed itself.
        assert_agrees(&craft("sign-flip", None, &Knowledge::alone(&mean)), &case, "attack:SignFlipping");
        assert_agrees(&craft("ipm", None, &knowledge), &case, "attack:IPM(2)");
        assert_agrees(&craft("alie", Some(1.5), &knowledge), &case, "attack:ALIE(1.5)");
    }
}

#[test]
fn the_line_search_agrees_with_byzfl_and_ours_does_more_harm() {
    let rule = Rule::new("trimmed-mean", &["nnm"], &[]).unwrap();
    for case in cases().into_iter().filter(|case| case.f > 0) {
        let Knowledge { others: Some(others), .. } = Knowledge::of_honest(&case.honest, case.f) else {
            unreachable!("an omniscient attacker sees others")
        };
        let defence = Defence { rule: &rule, byzantine: case.f };
        for (name, craft) in [
            ("attack:OptIPM(TrMean,[NNM])", flips::reversed as fn(&_, f64) -> Vec<f64>),
            ("attack:OptALIE(TrMean,[NNM])", alie::shifted),
        ] {
            let harm = |factor| flips::harm(&others, &defence, &craft(&others, factor));
            let published = line_search(harm);
            assert_agrees(&craft(&others, published), &case, name);
            assert!(harm(maximise(harm)) >= harm(published));
        }
    }
}

#[test]
fn no_attack_of_byzfl_is_left_out() {
    let compared = [
        "attack:SignFlipping",
        "attack:IPM(2)",
        "attack:ALIE(1.5)",
        "attack:OptIPM(TrMean,[NNM])",
        "attack:OptALIE(TrMean,[NNM])",
    ];
    for case in cases() {
        let names: Vec<&String> = case.out.keys().filter(|name| name.starts_with("attack:")).collect();
        // Without a Byzantine row there is nothing to optimise.
        assert_eq!(names.len(), if case.f > 0 { compared.len() } else { 3 });
        assert!(names.iter().all(|name| compared.contains(&name.as_str())), "{names:?}");
    }
}
