//! `fedveil secagg parameters`: what it finds, says and refuses.

use crate::support::{failure, fedveil, run};
use serde_json::Value;

/// Runs the finder, and gives its standard output.
fn parameters(arguments: &str) -> String {
    let output = run(fedveil().args(["secagg", "parameters"]).args(arguments.split_whitespace()));
    assert!(output.status.success(), "{:?}", failure(&output));
    assert!(output.stderr.is_empty(), "{:?}", failure(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn one_group_of_a_thousand() {
    let arguments = "--clients 1000 --malicious 0.1 --dropout 0.1";
    let found: Value = serde_json::from_str(&parameters(&format!("{arguments} --json"))).unwrap();
    assert_eq!((&found["degree"], &found["threshold"]), (&96.into(), &67.into()));
    assert_eq!(found["colluders_to_break"], 2 * 67 - 96);
    assert_eq!(found["secure_as_required"], true);
    let bound = found["break_probability_log2"].as_f64().unwrap();
    assert!(bound <= -40.0, "{bound}");
    assert!((found["break_probability"].as_f64().unwrap().log2() - bound).abs() < 1e-9);
    assert!(found["failure_probability_log2"].as_f64().unwrap() <= -20.0);

    let text = parameters(arguments);
    for part in ["degree        96", "threshold     67", "colluders     38", "2^-43.", "as required (2^-40)"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let semi_honest = parameters("--clients 1000 --malicious 0.1 --dropout 0.1 --server semi-honest");
    assert!(
        semi_honest.contains("degree        48") && semi_honest.contains("threshold     27"),
        "{semi_honest}"
    );
}

#[test]
fn small_groups_are_told_what_they_reach() {
    let arguments = "--clients 200 --group-size 20 --malicious 0.05 --dropout 0.05 --correctness 10";
    let text = parameters(arguments);
    assert!(text.contains("10 groups of 20") && text.contains("NOT the 2^-40 required"), "{text}");
    let bound = |more: &str| {
        let found: Value = serde_json::from_str(&parameters(&format!("{arguments} --json {more}"))).unwrap();
        assert_eq!((&found["degree"], &found["secure_as_required"]), (&19.into(), &false.into()));
        found["break_probability_log2"].as_f64().unwrap()
    };
    assert!((bound("--rounds 8") - bound("") - 3.0).abs() < 1e-9);
    assert_eq!(bound("--security 60"), bound(""));
}

#[test]
fn colluders_who_are_too_few_are_no_chance() {
    let arguments = "--clients 200 --group-size 20 --malicious 0.02 --dropout 0.02";
    let found: Value = serde_json::from_str(&parameters(&format!("{arguments} --json"))).unwrap();
    assert!(found["colluders_to_break"].as_u64().unwrap() > found["colluders"].as_u64().unwrap());
    assert_eq!((&found["break_probability"], &found["break_probability_log2"]), (&0.0.into(), &Value::Null));
    assert!(parameters(arguments).contains("A client is exposed      never"));
}

#[test]
fn requirements_that_are_none_or_that_nothing_meets() {
    for (arguments, part) in [
        ("--clients 2 --malicious 0.1 --dropout 0.1", "clients is 2, accepted are 3 to"),
        (
            "--clients 200 --group-size 201 --malicious 0.1 --dropout 0.1",
            "group_size is 201, accepted are 3 to 200",
        ),
        ("--clients 200 --malicious 1 --dropout 0.1", "malicious is 1, accepted are shares from 0"),
        ("--clients 200 --malicious 0.1 --dropout nan", "dropout is NaN"),
        ("--clients 200 --malicious 0.1 --dropout 0.1 --rounds 0", "rounds is 0"),
        ("--clients 200 --malicious 0.1 --dropout 0.6", "no threshold"),
        ("--clients 200 --malicious 0.1 --dropout 0.1 --server honest", "semi-honest"),
        ("--clients many --malicious 0.1 --dropout 0.1", "many"),
        ("--clients 200 --dropout 0.1", "--malicious"),
    ] {
        let output = run(fedveil().args(["secagg", "parameters"]).args(arguments.split_whitespace()));
        let (code, error) = failure(&output);
        assert_eq!(code, 2, "{arguments}: {error}");
        assert!(error.contains(part), "{part} is missing in {error}");
        assert!(output.stdout.is_empty(), "{arguments}");
    }
}
