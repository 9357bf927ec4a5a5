//! What a person types wrong: each mistake has its message and its exit code.

use crate::support::{failure, fedveil, run, small_demo};

#[test]
fn unknown_and_ill_typed_configuration_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("federation.toml");
    let cases = [
        ("[cohort]\ncliens = 10\n", ["cohort.cliens", "clients", "federation.toml:2"]),
        ("[privacy]\nepsilon = \"small\"\n", ["privacy.epsilon", "small", "federation.toml:2"]),
        ("[server]\nrule = \"median-of-means\"\n", ["server.rule", "median-of-means", "multi-krum"]),
        ("rounds = \n", ["not TOML", "federation.toml", "1"]),
    ];
    for (text, parts) in cases {
        std::fs::write(&file, text).unwrap();
        let (code, error) = failure(&run(fedveil().args(["coordinator", "--config"]).arg(&file)));
        assert_eq!(code, 2, "{error}");
        for part in parts {
            assert!(error.contains(part), "{part} is missing in {error}");
        }
    }
    let (code, error) = failure(&run(fedveil().args(["client", "--config", "nowhere.toml"])));
    assert_eq!(code, 2);
    assert!(error.contains("nowhere.toml"), "{error}");
}

#[test]
fn printed_configurations_are_read_back() {
    for command in ["coordinator", "client"] {
        let printed = run(fedveil().args([command, "--print-config"]));
        assert!(printed.status.success());
        let text = String::from_utf8(printed.stdout).unwrap();
        assert!(text.lines().filter(|line| line.starts_with('#')).count() > 10, "{text}");
    }
}

#[test]
fn more_poisoned_clients_than_the_groups_tolerate() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (code, error) = failure(&run(fedveil().args(["demo", "--byzantine", "5", "--out"]).arg(&out)));
    assert_eq!(code, 9, "{error}");
    assert!(error.contains("--byzantine 5") && error.contains("--assumed-byzantine is 4"), "{error}");
    assert!(!out.exists(), "nothing is done before the plan is checked");
    let (code, error) = failure(&run(fedveil()
        .args(["demo", "--assumed-byzantine", "6", "--byzantine", "6", "--out"])
        .arg(&out)));
    assert_eq!(code, 9, "{error}");
    assert!(error.contains("13 groups"), "{error}");
}

#[test]
fn a_budget_that_pays_for_no_round() {
    let folder = tempfile::tempdir().unwrap();
    let (code, error) = failure(&run(small_demo(&folder.path().join("run")).args(["--epsilon", "0.5"])));
    assert_eq!(code, 9, "{error}");
    assert!(error.contains("0.5") && error.contains("one round"), "{error}");
    let file = folder.path().join("federation.toml");
    std::fs::write(&file, "privacy.epsilon = 0.5").unwrap();
    let (code, error) = failure(&run(fedveil().args(["coordinator", "--config"]).arg(&file)));
    assert!(code == 9 && error.contains("privacy.epsilon is 0.5, and one round spends 4."), "{error}");
}

#[test]
fn folders_that_cannot_take_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let (code, error) = failure(&run(&mut small_demo(&file.join("run"))));
    assert_eq!(code, 8, "{error}");
    assert!(error.contains("file"), "{error}");
    let (code, error) = failure(&run(&mut small_demo(folder.path())));
    assert_eq!(code, 8, "{error}");
    assert!(error.contains("not empty"), "{error}");
}

#[test]
fn misspelt_options_and_values() {
    for (arguments, part) in [
        (["demo", "--attack", "sing-flip"], "sign-flip"),
        (["demo", "--attack-strength", "0"], "above 0"),
        (["demo", "--rule", "medain"], "median"),
        (["demo", "--dropout", "0.9"], "0.5"),
        (["demo", "--group-size", "2"], "3 to"),
        (["verify", "--trusted-key", "nowhere.pub"], "PATH"),
    ] {
        let (code, error) = failure(&run(fedveil().args(arguments)));
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    let (code, error) = failure(&run(fedveil().args(["verify", "nowhere"])));
    assert_eq!(code, 2);
    assert!(error.contains("nowhere"), "{error}");
}
