//! `fedveil demo` and `fedveil verify`, as a person or a script uses them.

use crate::support::{await_line, failure, fedveil, files, json, run, small_demo, spawn};
use std::io::BufReader;
use std::path::Path;
use std::process::Output;

const SUMMARY_KEYS: [&str; 19] = [
    "rounds",
    "clients",
    "byzantine",
    "dropout",
    "dataset",
    "rule",
    "aggregation_mode",
    "test_accuracy",
    "initial_accuracy",
    "epsilon",
    "delta",
    "noise_multiplier",
    "clip_norm",
    "groups_dropped",
    "bytes_up_per_client_round",
    "bytes_down_per_client_round",
    "model_parameters",
    "wall_seconds",
    "seed",
];

fn verify(folder: &Path) -> Output {
    run(fedveil().arg("verify").arg(folder))
}

#[test]
fn json_is_the_summary_alone_and_the_folder_verifies() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let output = run(small_demo(&out).arg("--json"));
    assert!(output.status.success(), "{:?}", failure(&output));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in SUMMARY_KEYS {
        assert!(!summary[key].is_null(), "{key} is missing in {summary}");
    }
    assert_eq!(summary, json(&out.join("summary.json")));
    assert_eq!(
        (&summary["rounds"], &summary["clients"], &summary["byzantine"]),
        (&2.into(), &36.into(), &1.into())
    );
    assert!(summary["epsilon"].as_f64().unwrap() > 0.0);
    assert!(summary["bytes_up_per_client_round"].as_u64().unwrap() > 500);

    for file in [
        "model.safetensors",
        "manifest.dsse.json",
        "rounds.jsonl",
        "split.json",
        "report.html",
        "state.sqlite",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    assert_eq!(rounds.lines().count(), 2);
    let verified = verify(&out);
    assert!(verified.status.success(), "{:?}", failure(&verified));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("self-asserted"));
    suspects_of_a_run(&out, &summary);
    let trusted =
        run(fedveil().arg("verify").arg(&out).arg("--trusted-key").arg(out.join("signing-key.pub")));
    assert!(trusted.status.success() && !String::from_utf8_lossy(&trusted.stdout).contains("self-asserted"));
}

/// Two rounds are too few to name anyone, and what is signed takes no orders.
fn suspects_of_a_run(out: &Path, summary: &serde_json::Value) {
    let suspicion = &summary["suspicion"];
    assert_eq!(
        (&suspicion["suspects"], &suspicion["recall"]),
        (&serde_json::json!([]), &0.0.into()),
        "{suspicion}"
    );
    let printed = run(fedveil().args(["robust", "suspects", "--json"]).arg(out));
    assert!(printed.status.success(), "{:?}", failure(&printed));
    let suspects: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let clients = suspects["clients"].as_array().unwrap();
    // Whoever dropped out of both rounds had a part in none.
    assert!((30..=36).contains(&clients.len()), "{suspects}");
    for client in clients {
        let evidence = &client["evidence"];
        assert!((1..=2).contains(&evidence["rounds"].as_u64().unwrap()), "{client}");
        assert!(evidence["p_value"].as_f64().unwrap() <= evidence["p_framed"].as_f64().unwrap(), "{client}");
        assert_eq!(client["named"], false, "{client}");
    }
    let table = run(fedveil().args(["robust", "suspects", "--all"]).arg(out));
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let told = format!("0 of {} clients are named at a false-alarm rate of 0.01", clients.len());
    assert!(table.contains(&told), "{table}");
    let client = clients[0]["client"].as_str().unwrap();
    for order in ["quarantine", "release"] {
        let refused = run(fedveil().args(["robust", order]).arg(out).args([client, "--reason", "none"]));
        let (code, error) = failure(&refused);
        assert!(code == 2 && error.contains("its task is over and signed"), "{code}: {error}");
    }
    let (code, error) =
        failure(&run(fedveil().args(["robust", "suspects", "--false-alarm", "0.9"]).arg(out)));
    assert!(
        code == 2 && error.contains("quarantine.false_alarm is 0.9, accepted is a number above 0"),
        "{error}"
    );
}

#[test]
fn one_flipped_byte_in_any_file_is_found_and_named() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let output = run(small_demo(&out).args(["--rounds", "1", "--json"]));
    assert!(output.status.success(), "{:?}", failure(&output));
    let files = files(&out);
    assert!(files.len() > 12, "{files:?}");
    for file in files {
        let path = out.join(&file);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let verified = verify(&out);
        let (code, error) = failure(&verified);
        assert_eq!(code, 1, "{}: {error}", file.display());
        assert!(error.contains(&file.display().to_string()), "{}: {error}", file.display());
        std::fs::write(&path, whole).unwrap();
    }
    assert!(verify(&out).status.success());
}

#[test]
fn another_signer_is_not_trusted() {
    let temporary = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| temporary.path().join(name));
    for out in [&first, &second] {
        let output = run(small_demo(out).args(["--rounds", "1", "--json"]));
        assert!(output.status.success(), "{:?}", failure(&output));
    }
    let verified =
        run(fedveil().arg("verify").arg(&first).arg("--trusted-key").arg(second.join("signing-key.pub")));
    assert_eq!(failure(&verified).0, 1);
    // Two runs of one seed differ in keys, masks and noise, and so in their models.
    assert_ne!(
        std::fs::read(first.join("model.safetensors")).unwrap(),
        std::fs::read(second.join("model.safetensors")).unwrap()
    );
}

#[test]
fn no_private_key_is_in_the_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let output = run(small_demo(&out).args(["--rounds", "1", "--json"]));
    assert!(output.status.success(), "{:?}", failure(&output));
    // PKCS #8 keys of the kinds in use begin with these object identifiers (RFC 8410, RFC 5915) or with a PEM label.
    let marks: [&[u8]; 3] =
        [b"PRIVATE KEY", &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04], b"fedveil-join-v1."];
    let known = ["blobs", "manifests", "checkpoints"];
    for file in files(&out) {
        let bytes = std::fs::read(out.join(&file)).unwrap();
        for mark in marks {
            assert!(!bytes.windows(mark.len()).any(|window| window == mark), "{}", file.display());
        }
        if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            assert!(known.contains(&parent.to_str().unwrap()), "{}", file.display());
        }
    }
}

#[test]
fn clients_as_processes_and_loud_attacks() {
    let temporary = tempfile::tempdir().unwrap();
    for attack in ["sign-flip", "gaussian", "scale", "label-flip", "infinity", "backdoor"] {
        let out = temporary.path().join(attack);
        let mut demo = small_demo(&out);
        demo.args(["--rounds", "1", "--json", "--attack", attack]);
        if attack == "sign-flip" {
            demo.args(["--processes", "--attack-strength", "41"]);
        }
        let output = run(&mut demo);
        assert!(output.status.success(), "{attack}: {:?}", failure(&output));
        assert!(verify(&out).status.success());
        // The poisoned group is the odd one out, whatever the attack.
        let round: serde_json::Value =
            serde_json::from_str(std::fs::read_to_string(out.join("rounds.jsonl")).unwrap().trim()).unwrap();
        assert_eq!(round["groups_dropped"], 1, "{round}");
        let summary = json(&out.join("summary.json"));
        let named = if attack == "sign-flip" { "sign-flip, strength 41" } else { attack };
        assert_eq!(summary["attack"], named);
        // Only a backdoor has a success of its own, and a dropped group gives it none.
        assert_eq!(summary["attack_success"].is_null(), attack != "backdoor", "{summary}");
        if attack == "backdoor" {
            assert!(summary["attack_success"].as_f64().unwrap() < 0.5, "{summary}");
        }
    }
}

#[test]
fn a_plain_mean_lets_a_backdoor_in_and_the_table_says_so() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let mut demo = small_demo(&out);
    // Nobody drops out: a group that is withheld could be the poisoned one.
    let output = run(demo.args(["--attack", "backdoor", "--rule", "mean", "--no-gate", "--dropout", "0"]));
    assert!(output.status.success(), "{:?}", failure(&output));
    let success = json(&out.join("summary.json"))["attack_success"].as_f64().unwrap();
    assert!(success > 0.5, "{success}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("of its examples succeed"));
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("Backdoor success"));
}

#[test]
fn the_gate_keeps_a_backdoor_out_that_a_plain_mean_lets_in() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let mut demo = small_demo(&out);
    // An attack in every round (nobody drops out, so that no group is withheld): nothing is ever published, and that
    // is what the demo says.
    let output = run(demo.args([
        "--attack",
        "backdoor",
        "--rule",
        "mean",
        "--rounds",
        "9",
        "--epsilon",
        "99",
        "--dropout",
        "0",
    ]));
    let (code, error) = failure(&output);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("model rejected: it labels "), "{error}");
    assert!(error.contains("no model was published: the gate rejected 3 models in a row"), "{error}");
    let summary = json(&out.join("summary.json"));
    assert_eq!((&summary["rounds"], &summary["rounds_rejected"]), (&0.into(), &3.into()));
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    for line in rounds.lines() {
        let round: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(round["outcome"], "rejected");
        assert!(round["measured"]["trigger_success"].as_f64().unwrap() > 0.5, "{round}");
    }
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("Triggers that succeed"));
    assert!(verify(&out).status.success(), "what was rejected is part of a valid record");
}

#[test]
fn clients_judge_each_new_model_where_the_plan_asks_them() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let output = run(small_demo(&out).args([
        "--dropout",
        "0",
        "--evaluation-noise",
        "1",
        "--epsilon",
        "99",
        "--json",
    ]));
    assert!(output.status.success(), "{:?}", failure(&output));
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let rounds: Vec<serde_json::Value> =
        rounds.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rounds.iter().all(|round| round["outcome"] == "published"), "{rounds:?}");
    let measured = &rounds[0]["measured"];
    // The first model is far better than one that knows nothing; the noise has a deviation of about a tenth.
    assert!(measured["difference"].as_f64().unwrap() > 0.0, "{measured}");
    assert!((0.02..0.3).contains(&measured["deviation"].as_f64().unwrap()), "{measured}");
    assert!(verify(&out).status.success());
    let (first, second) = (rounds[0]["epsilon"].as_f64().unwrap(), rounds[1]["epsilon"].as_f64().unwrap());
    let without = run(small_demo(&temporary.path().join("without")).args([
        "--dropout",
        "0",
        "--epsilon",
        "99",
        "--json",
    ]));
    let without: serde_json::Value = serde_json::from_slice(&without.stdout).unwrap();
    assert!(first < second && second > without["epsilon"].as_f64().unwrap() * 1.2, "answers are charged");
}

#[test]
fn without_a_terminal_there_is_a_line_for_each_round_and_a_table() {
    let temporary = tempfile::tempdir().unwrap();
    let output = run(&mut small_demo(&temporary.path().join("run")));
    let (code, lines) = failure(&output);
    assert_eq!(code, 0, "{lines}");
    assert!(!lines.contains('\x1b'), "{lines}");
    for part in ["round  1/2", "round  2/2", "clients", "kept", "accuracy", "epsilon", "up ", "down "] {
        assert!(lines.contains(part), "{part} is missing in {lines}");
    }
    let table = String::from_utf8_lossy(&output.stdout);
    for part in ["test accuracy", "weak promise", "larger cohorts would spend", "fedveil verify"] {
        assert!(table.contains(part), "{part} is missing in {table}");
    }
}

#[test]
fn the_privacy_budget_ends_the_task_before_it_is_passed() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let output = run(small_demo(&out).args(["--rounds", "8", "--epsilon", "8", "--json"]));
    assert!(output.status.success(), "{:?}", failure(&output));
    let summary = json(&out.join("summary.json"));
    assert!(summary["rounds"].as_u64().unwrap() < 8, "{summary}");
    assert!(summary["epsilon"].as_f64().unwrap() <= 8.0, "{summary}");
    assert!(summary["stopped_because"].as_str().unwrap().contains("privacy budget"), "{summary}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_a_valid_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let mut child = spawn(small_demo(&out).args(["--rounds", "500", "--epsilon", "1000"]));
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = await_line(&mut lines, "round  1/500");
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    std::io::Read::read_to_string(&mut lines, &mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("error: interrupted"), "{said}");
    let verified = verify(&out);
    assert!(verified.status.success(), "{:?}", failure(&verified));
    assert_eq!(json(&out.join("summary.json"))["stopped_because"], "interrupted");
}
