//! Against numbers that other programs computed.

use super::*;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Vectors<C> {
    cases: Vec<C>,
}

#[derive(Deserialize)]
struct Byzfl {
    f: usize,
    attack: String,
    #[serde(rename = "X")]
    rows: Vec<Vec<f64>>,
    /// A vector of a rule, or the rows of a pre-aggregator.
    out: BTreeMap<String, Output>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Output {
    Vector(Vec<f64>),
    Rows(Vec<Vec<f64>>),
}

#[derive(Deserialize)]
struct Reference {
    bulyan_f: usize,
    krum_f: usize,
    /// For FLTrust.
    #[serde(rename = "reference")]
    trusted: Vec<f64>,
    history: Vec<Vec<f64>>,
    out: BTreeMap<String, Vec<f64>>,
}

fn byzfl() -> Vec<Byzfl> {
    let vectors: Vectors<Byzfl> =
        serde_json::from_str(include_str!("../../../../tests/vectors/robust/byzfl.json"))
            .expect("a valid vector file");
    assert_eq!(vectors.cases.len(), 6);
    vectors.cases
}

/// What byzfl names a result, and how to get it here.
type Equivalent =
    (&'static str, &'static [&'static str], &'static str, &'static [(&'static str, &'static str)]);

const RULES_OF_BYZFL: [Equivalent; 14] = [
    ("Average", &[], "mean", &[]),
    ("Median", &[], "median", &[]),
    ("TrMean", &[], "trimmed-mean", &[]),
    ("GeometricMedian(nu=.1,T=3)", &[], "geometric-median", &[("nu", "0.1"), ("iterations", "3")]),
    ("GeometricMedian(nu=.1,T=8)", &[], "rfa", &[("nu", "0.1"), ("iterations", "8")]),
    ("Krum", &[], "krum", &[("variant", "byzfl")]),
    ("MultiKrum", &[], "multi-krum", &[("variant", "byzfl")]),
    ("CenteredClipping(L=1,tau=100)", &[], "centered-clipping", &[]),
    ("CenteredClipping(L=3,tau=1)", &[], "centered-clipping", &[("iterations", "3"), ("tau", "1")]),
    ("MDA", &[], "mda", &[]),
    ("MoNNA(idx=0)", &[], "monna", &[("index", "0")]),
    ("Meamed", &[], "meamed", &[]),
    ("NNM+TrMean", &["nnm"], "trimmed-mean", &[]),
    ("ARC+NNM+GeometricMedian", &["arc", "nnm"], "geometric-median", &[("nu", "0.1")]),
];

#[test]
fn rules_agree_with_byzfl() {
    for case in byzfl() {
        for (name, pre, rule, settings) in RULES_OF_BYZFL {
            let Output::Vector(expected) = &case.out[name] else { panic!("{name} is a vector") };
            let rule = Rule::new(rule, pre, settings).unwrap();
            let found = rule.aggregate(&case.rows, case.f).unwrap().vector;
            assert_close(&found, expected, 1e-12, &format!("{name}, attack {}", case.attack));
        }
    }
}

#[test]
fn pre_aggregators_agree_with_byzfl() {
    for case in byzfl() {
        for (name, pre, settings) in [
            ("NNM", pre::nnm::SPEC, &[][..]),
            ("ARC", pre::arc::SPEC, &[]),
            ("Clipping(c=1)", pre::clip::SPEC, &[("c", "1")]),
        ] {
            let Output::Rows(expected) = &case.out[name] else { panic!("{name} makes rows") };
            let options = Options::new(pre.about.name, pre.about.options, settings).unwrap();
            let call = Call { rows: Rows::check(&case.rows, &Serial).unwrap(), f: case.f, options: &options };
            let found = (pre.run)(&call);
            assert_eq!(found.rows.len(), expected.len());
            for (found, expected) in found.rows.iter().zip(expected) {
                assert_close(found, expected, 1e-12, &format!("{name}, attack {}", case.attack));
            }
        }
    }
}

/// Every result of byzfl is compared above, but for those of its attacks.
#[test]
fn no_result_of_byzfl_is_left_out() {
    for case in byzfl() {
        let compared: Vec<&str> = RULES_OF_BYZFL
            .iter()
            .map(|equivalent| equivalent.0)
            .chain(["NNM", "ARC", "Clipping(c=1)"])
            .collect();
        let names: Vec<&String> = case.out.keys().filter(|name| !name.starts_with("attack:")).collect();
        assert_eq!(names.len(), compared.len());
        assert!(names.iter().all(|name| compared.contains(&name.as_str())), "{names:?}");
    }
}

#[test]
fn rules_agree_with_their_definitions_in_numpy() {
    let references: Vectors<Reference> =
        serde_json::from_str(include_str!("../../../../tests/vectors/robust/reference.json"))
            .expect("a valid vector file");
    let text = |row: &Vec<f64>| row.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    for (given, case) in byzfl().into_iter().zip(references.cases) {
        let reference = text(&case.trusted);
        let history = case.history.iter().map(text).collect::<Vec<_>>().join(";");
        for (name, expected) in &case.out {
            let (rule, f, settings) = match name.split_once(' ') {
                None if name == "fltrust" => {
                    (name.as_str(), given.f, vec![("reference", reference.as_str())])
                }
                None if name == "norm-bound" => (name.as_str(), given.f, vec![("c", "1.25")]),
                None => (name.as_str(), given.f, vec![]),
                Some(("bulyan", variant)) => ("bulyan", case.bulyan_f, vec![("variant", variant)]),
                Some(("dnc", c)) => ("dnc", given.f, vec![("c", c)]),
                Some(("foolsgold", _)) => ("foolsgold", given.f, vec![("history", history.as_str())]),
                Some((krum, variant)) => (krum, case.krum_f, vec![("variant", variant)]),
            };
            let found = Rule::new(rule, &[], &settings).unwrap().aggregate(&given.rows, f).unwrap().vector;
            assert_close(&found, expected, 1e-12, &format!("{name}, attack {}", given.attack));
        }
        assert_eq!(case.out.len(), 19);
    }
}
