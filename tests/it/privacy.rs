//! `fedveil privacy`: the published numbers, and what is refused.

use crate::support::{failure, fedveil, run};
use serde_json::Value;

/// The JSON that a question is answered with.
fn answer(arguments: &str) -> Value {
    let output = run(fedveil().arg("privacy").args(arguments.split(' ')).arg("--json"));
    assert!(output.status.success(), "{arguments}: {}", failure(&output).1);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn published_epsilons() {
    // dp-accounting 0.6.0. Ours may be lower by a little with rdp, and a ten-thousandth off with pld.
    let rounds = "epsilon --sampling-rate 0.01 --noise-multiplier 1 --rounds 1000 --delta 1e-5";
    let (rdp, pld) = (answer(&format!("{rounds} --accountant rdp")), answer(rounds));
    assert!((number(&rdp["epsilon"]) / 2.101_367 - 1.0).abs() < 1e-5, "{rdp}");
    assert!((number(&pld["epsilon"]) / 1.828_244 - 1.0).abs() < 2e-4, "{pld}");
    assert!(number(&pld["epsilon_at_least"]) < 1.828_3, "{pld}");
    assert_eq!((&rdp["accountant"], &pld["accountant"]), (&"rdp".into(), &"pld".into()));
    assert_eq!((&pld["sampling"]["scheme"], &pld["neighbours"]), (&"poisson".into(), &"add-remove".into()));

    let full = answer("epsilon --noise-multiplier 10 --rounds 100 --delta 1e-5");
    assert!((number(&full["epsilon"]) / 4.377_179 - 1.0).abs() < 1e-6, "{full}");
    let replace = answer(
        "epsilon --sampling-rate 0.01 --noise-multiplier 2 --rounds 1000 --delta 1e-5 --neighbours replace-one",
    );
    assert!((number(&replace["epsilon"]) / 1.205_21 - 1.0).abs() < 2e-4, "{replace}");
    let fixed = answer(
        "epsilon --sampling fixed-size --cohort 10 --population 1000 --neighbours replace-one \
         --noise-multiplier 4 --rounds 1000 --delta 1e-5 --accountant rdp",
    );
    assert!(number(&fixed["epsilon"]) < 1.445_298, "{fixed}");
}

#[test]
fn calibration_is_spent_to_the_last_digit() {
    let noise = answer("calibrate --epsilon 2 --sampling-rate 0.01 --rounds 1000 --delta 1e-5");
    assert!((number(&noise["noise_multiplier"]) / 0.959_102_9 - 1.0).abs() < 2e-4, "{noise}");
    assert!(number(&noise["epsilon"]) <= 2.0 && number(&noise["epsilon"]) > 1.9999, "{noise}");
    let rounds = answer("calibrate --epsilon 2 --noise-multiplier 5 --delta 1e-5 --accountant rdp");
    let (spent, count) = (number(&rounds["epsilon"]), number(&rounds["rounds"]));
    let next = answer(&format!(
        "epsilon --noise-multiplier 5 --rounds {} --delta 1e-5 --accountant rdp",
        count as u32 + 1
    ));
    assert!(spent <= 2.0 && number(&next["epsilon"]) > 2.0, "{rounds} {next}");
}

#[test]
fn text_names_what_was_asked() {
    let output = run(fedveil()
        .args(["privacy", "epsilon", "--noise-multiplier", "10"])
        .args(["--rounds", "100", "--delta", "1e-5"]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("epsilon 4.3771"), "{text}");
    assert!(text.contains("delta 0.00001 over 100 rounds"), "{text}");
}

#[test]
fn help_teaches() {
    for (command, part) in [("epsilon", "leave --sampling-rate out"), ("calibrate", "the most rounds")] {
        let output = run(fedveil().args(["privacy", command, "--help"]));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Example") && text.contains(part), "{text}");
    }
}

#[test]
fn bad_values_are_refused_by_option_value_and_range() {
    let good =
        [("--noise-multiplier", "1"), ("--rounds", "10"), ("--delta", "1e-5"), ("--sampling-rate", "0.1")];
    let refuse = |command: &str, option: &str, value: &str, more: &[&str]| {
        let mut arguments = vec!["privacy".to_owned(), command.to_owned()];
        for (name, usual) in good {
            if command == "epsilon" || name != "--rounds" {
                arguments.push(format!("{name}={}", if name == option { value } else { usual }));
            }
        }
        arguments.extend(more.iter().map(ToString::to_string));
        let (code, error) = failure(&run(fedveil().args(&arguments)));
        assert_eq!(code, 2, "{option} {value}: {error}");
        error
    };
    for (option, values, range) in [
        ("--delta", ["0", "1", "-0.1", "NaN"], "above 0 and below 1"),
        ("--noise-multiplier", ["0", "-1", "inf", "NaN"], "0.001 to 1e6"),
        ("--sampling-rate", ["0", "1.01", "-1", "NaN"], "above 0, at most 1"),
    ] {
        for value in values {
            let error = refuse("epsilon", option, value, &[]);
            assert!(
                error.contains(&format!("{option} is {value}, accepted is")) && error.contains(range),
                "{error}"
            );
        }
    }
    for value in ["0", "-2", "inf", "NaN"] {
        let error = refuse("calibrate", "--epsilon", value, &[&format!("--epsilon={value}")]);
        assert!(
            error.contains(&format!("--epsilon is {value}, accepted is a finite number above 0")),
            "{error}"
        );
    }
    let error = refuse("epsilon", "--rounds", "0", &[]);
    assert!(error.contains("--rounds") && error.contains("1.."), "{error}");
}

#[test]
fn combinations_that_do_not_fit_are_refused() {
    let usual = ["--noise-multiplier", "1", "--rounds", "10", "--delta", "1e-5"];
    for (more, part) in [
        ("--sampling fixed-size", "--cohort and --population"),
        ("--sampling fixed-size --sampling-rate 0.1", "--cohort and --population"),
        ("--cohort 10 --population 100", "--sampling is poisson"),
        ("--cohort 10", "--population"),
        ("--sampling fixed-size --cohort 10 --population 100", "--neighbours is add-remove"),
        (
            "--sampling fixed-size --cohort 101 --population 100 --neighbours replace-one",
            "--cohort is 101, accepted is 1 to 100",
        ),
    ] {
        let command = &mut fedveil();
        let (code, error) =
            failure(&run(command.args(["privacy", "epsilon"]).args(usual).args(more.split(' '))));
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    // Budgets that nothing can keep are not mistakes in the options.
    for unreachable in [
        "--epsilon 1e-9 --delta 1e-12 --rounds 4294967295",
        "--epsilon 0.1 --delta 1e-12 --noise-multiplier 1",
    ] {
        let command = &mut fedveil();
        let (code, error) =
            failure(&run(command.args(["privacy", "calibrate"]).args(unreachable.split(' '))));
        assert_eq!(code, 9, "{error}");
        assert!(error.contains("--epsilon is"), "{error}");
    }
}
