//! `fedveil privacy`: the published numbers, and what is refused.

use crate::support::{failure, fedveil, json, run, small_demo};
use serde_json::Value;
use tempfile::TempDir;

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
    let cohort =
        ["privacy", "epsilon", "--sampling=fixed-size", "--cohort=10", "--population=100", "--delta=0.02"];
    let rest = ["--neighbours=replace-one", "--noise-multiplier=1", "--rounds=1"];
    let (code, error) = failure(&run(fedveil().args(cohort).args(rest)));
    let range = "--delta is 0.02, accepted is a number above 0, at most 1/100 (one in --population)";
    assert!(code == 2 && error.contains(range), "{error}");
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

/// What `privacy plan` makes of a file with this text.
fn planned(folder: &TempDir, text: &str, more: &[&str]) -> std::process::Output {
    let file = folder.path().join("task.toml");
    std::fs::write(&file, text).unwrap();
    run(fedveil().args(["privacy", "plan"]).arg(file).args(more))
}

#[test]
fn a_plan_says_what_it_spends_before_anything_starts() {
    let folder = TempDir::new().unwrap();
    let drawing = folder.path().join("epsilon.svg");
    let output = planned(&folder, "task.rounds = 12\n", &["--json", "--svg", drawing.to_str().unwrap()]);
    assert!(output.status.success(), "{}", failure(&output).1);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, expected) in [
        ("unit", "user"),
        ("neighbours", "zero-out"),
        ("accountant", "zcdp"),
        ("sampling", "full"),
        ("placement", "distributed"),
        ("mechanism", "discrete-gaussian"),
    ] {
        assert_eq!(plan[name], expected, "{plan}");
    }
    // The defaults: groups of 18 of which 3 may leave, 4 colluders that may all be in one, 11 honest shares.
    for (name, expected) in [
        ("rounds", 12),
        ("affordable_rounds", 8),
        ("group_size", 18),
        ("may_drop_out_of_a_group", 3),
        ("min_survivors", 15),
        ("assumed_malicious", 4),
        ("colluders_in_a_group", 4),
        ("shares_counted", 11),
        ("ring_bits", 16),
    ] {
        assert_eq!(plan[name], expected, "{name} in {plan}");
    }
    assert!(number(&plan["wrap_probability"]) <= 2f64.powi(-40) && number(&plan["wrap_probability"]) > 0.0);
    assert!((number(&plan["epsilon_in_all"]) - 14.31).abs() < 0.01, "{plan}");
    let epsilons = plan["epsilon"].as_array().unwrap();
    assert_eq!(epsilons.len(), 12);
    assert!(epsilons.iter().map(|row| number(&row["epsilon"])).is_sorted_by(|a, b| a < b));
    assert!(epsilons.iter().enumerate().all(|(at, row)| row["affordable"] == (at < 8)), "{plan}");
    assert_eq!(plan["epsilon_of_one_round"], epsilons[0]["epsilon"]);
    assert_eq!(plan["epsilon_in_all"], epsilons[7]["epsilon"]);
    let second_opinion = number(&plan["epsilon_in_all_by_opendp"]);
    assert!((0.99..=1.0).contains(&(second_opinion / number(&plan["epsilon_in_all"]))), "{plan}");

    let svg = std::fs::read_to_string(&drawing).unwrap();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>"), "{svg}");
    for part in
        ["paid for", "refused", "budget", "after 8 participations: ε = 14.32", "after 9 participations"]
    {
        assert!(svg.contains(part), "{part} is missing in {svg}");
    }

    let text = String::from_utf8(planned(&folder, "privacy.placement = \"local\"\n", &[]).stdout).unwrap();
    assert!(text.contains("placement local") && text.contains("who trusts nobody"), "{text}");
    let refused = planned(&folder, "task.rounds = 9\n", &[]);
    let text = String::from_utf8(refused.stdout).unwrap();
    assert!(
        text.contains("pays for 8 of 9 rounds") && text.contains("  refused: beyond the budget"),
        "{text}"
    );
}

#[test]
fn a_long_plan_is_told_in_few_lines() {
    let folder = TempDir::new().unwrap();
    let text = "task.rounds = 100000\nprivacy.epsilon = 5\nprivacy.noise_multiplier = 40\n";
    let output = planned(&folder, text, &["--json"]);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let affordable = &plan["affordable_rounds"];
    let rows = plan["epsilon"].as_array().unwrap();
    assert!(rows.len() < 25 && rows.iter().any(|row| row["participations"] == *affordable), "{plan}");
}

#[test]
fn bad_plans_are_refused_by_file_line_and_key() {
    let folder = TempDir::new().unwrap();
    for (text, part) in [
        ("privacy.epsilon = 0", "task.toml:1: privacy.epsilon is 0, accepted is a finite number above 0"),
        ("privacy.epsilon = nan", "task.toml:1: privacy.epsilon is NaN, accepted is"),
        (
            "\nprivacy.delta = 0.01",
            "task.toml:2: privacy.delta is 0.01, accepted is a number above 0, at most 1/200",
        ),
        ("privacy.noise_multiplier = 0", "task.toml:1: privacy.noise_multiplier is 0, accepted is"),
        ("privacy.clip_norm = -1", "task.toml:1: privacy.clip_norm is -1, accepted is"),
        (
            "privacy.resolution = 16777216\nprivacy.noise_multiplier = 10",
            "task.toml:2: privacy.noise_multiplier is 10, accepted is one that at privacy.resolution 16777216 makes",
        ),
        ("privacy.placement = \"local\"\nprivacy.noise = 1", "task.toml:2: unknown key privacy.noise"),
        (
            "privacy.mechanism = \"laplace\"",
            "privacy.mechanism is laplace, accepted is discrete-gaussian, skellam",
        ),
    ] {
        let (code, error) = failure(&planned(&folder, text, &[]));
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    let (code, error) = failure(&planned(&folder, "privacy.epsilon = 1", &[]));
    assert!(code == 9 && error.contains("privacy.epsilon is 1, and one round spends 4."), "{error}");
    let (code, error) = failure(&run(fedveil().args(["privacy", "plan", "nowhere.toml"])));
    assert!(code == 2 && error.contains("nowhere.toml"), "{error}");
    let (code, error) = failure(&planned(&folder, "", &["--svg", "/nowhere/epsilon.svg"]));
    assert!(code == 8 && error.contains("/nowhere/epsilon.svg"), "{error}");
}

#[test]
fn a_plan_with_example_privacy_says_what_its_steps_spend() {
    let folder = TempDir::new().unwrap();
    let section =
        "task.rounds = 4\ntraining.epochs = 2\n[training.example_privacy]\nnoise_multiplier = 2.0\n";
    let output = planned(&folder, section, &["--json"]);
    assert!(output.status.success(), "{}", failure(&output).1);
    let example = &serde_json::from_slice::<Value>(&output.stdout).unwrap()["example"];
    assert_eq!((&example["steps_per_round"], &example["sampling_rate"]), (&20.into(), &0.1.into()));
    let same =
        answer("epsilon --sampling-rate 0.1 --noise-multiplier 2 --rounds 80 --delta 1e-5 --accountant rdp");
    let ratio = number(&example["epsilon_in_all"]) / number(&same["epsilon"]);
    // Steps are charged at whole orders, and between them by chords.
    assert!(ratio > 1.0 - 1e-6 && ratio < 1.01, "{example} {same}");
    let text = String::from_utf8(planned(&folder, section, &[]).stdout).unwrap();
    assert!(text.contains("examples     20 steps a round on one in 10.0 by chance"), "{text}");
    let without = planned(&folder, "task.rounds = 4\n", &["--json"]);
    assert!(serde_json::from_slice::<Value>(&without.stdout).unwrap()["example"].is_null());
    let (code, error) = failure(&planned(&folder, &format!("{section}epsilon = 0.1\n"), &[]));
    assert!(code == 2 && error.contains("4 rounds of 20 steps spend epsilon"), "{error}");
}

#[test]
fn an_audit_holds_a_run_against_its_claim() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let output = run(small_demo(&out).args(["--rounds", "2", "--canaries", "12", "--json"]));
    assert!(output.status.success(), "{:?}", failure(&output));
    let canaries = json(&out.join("canaries.json"));
    assert_eq!(canaries["canaries"].as_array().unwrap().len(), 12, "{canaries}");
    assert!(run(fedveil().arg("verify").arg(&out)).status.success(), "the file of canaries is in the index");

    let audited = run(fedveil().args(["privacy", "audit"]).arg(&out).arg("--json"));
    assert!(audited.status.success(), "{:?}", failure(&audited));
    let report: Value = serde_json::from_slice(&audited.stdout).unwrap();
    let seen = number(&report["canaries"]) + number(&report["canaries_unseen"]);
    assert_eq!(
        (seen, &report["verdict"], &report["rounds"]),
        (12.0, &"consistent".into(), &2.into()),
        "{report}"
    );
    assert_eq!(report["claimed"]["epsilon"], json(&out.join("summary.json"))["epsilon"], "{report}");
    for bound in report["bounds"].as_array().unwrap() {
        assert!(number(&bound["epsilon"]) < number(&report["claimed"]["epsilon"]), "{report}");
    }
    let text = run(fedveil().args(["privacy", "audit"]).arg(&out));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("claimed      epsilon ") && text.contains("verdict      consistent"), "{text}");

    // Coins that were changed afterwards are not those of the run.
    let path = out.join("canaries.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, whole.replacen("number", "numbeR", 1)).unwrap();
    let (code, error) = failure(&run(fedveil().args(["privacy", "audit"]).arg(&out)));
    assert!(code == 1 && error.contains("it is not as it was signed"), "{error}");
}

#[test]
fn an_audit_refuses_what_it_cannot_audit() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let output = run(small_demo(&out).args(["--rounds", "1", "--json"]));
    assert!(output.status.success(), "{:?}", failure(&output));
    let refusal = |arguments: &[&str]| failure(&run(fedveil().args(["privacy", "audit"]).args(arguments)));
    let folder = out.to_str().unwrap();
    let (code, error) = refusal(&[folder]);
    assert!(
        code == 2 && error.contains("canaries.json is missing, accepted is a run with canaries"),
        "{error}"
    );
    let (code, error) = refusal(&[folder, "--confidence", "1"]);
    assert!(code == 2 && error.contains("--confidence is 1, accepted is more than 0.5, below 1"), "{error}");
    let (code, error) = refusal(&["nowhere"]);
    assert!(code == 2 && error.contains("there is no such folder"), "{error}");
    let demo = run(small_demo(&temporary.path().join("other")).args(["--canaries", "36"]));
    let (code, error) = failure(&demo);
    assert!(code == 2 && error.contains("--canaries is 36, accepted is 0 to 35"), "{error}");
}
