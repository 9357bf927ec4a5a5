//! `fedveil simulate`, as a person or a script uses it.

use crate::support::{failure, fedveil, files, json, run};
use std::path::{Path, PathBuf};
use std::process::Output;

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn simulate(scenario: &Path, arguments: &[&str]) -> Output {
    run(fedveil().arg("simulate").arg(scenario).args(arguments))
}

/// A quick start that is quicker: two rounds of 40 clients.
const SMALL: [&str; 11] = [
    "--set",
    "rounds=2",
    "--set",
    "evaluation.clients=10",
    "--set",
    "population.clients=40",
    "--set",
    "robustness.assumed_byzantine=0",
    "--set",
    "robustness.rule=mean",
    "--json",
];

fn small(out: &Path, more: &[&str]) -> Output {
    let out = ["--out", out.to_str().unwrap()];
    simulate(&scenarios().join("quickstart.toml"), &[&SMALL, &out[..], more].concat())
}

#[test]
fn the_quick_start_runs_whole_learns_and_verifies() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("run");
    let output = simulate(&scenarios().join("quickstart.toml"), &["--out", out.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{:?}", failure(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary, json(&out.join("summary.json")));
    assert_eq!((&summary["rounds"], &summary["private"]), (&8.into(), &false.into()));
    // The demo's tables say 0.886 to 0.942 of ten seeds; the scenario is the same task.
    assert!(summary["test_accuracy"].as_f64().unwrap() > 0.85, "{summary}");
    let epsilon = summary["epsilon"].as_f64().unwrap();
    assert!(epsilon > 14.0 && epsilon <= 15.0, "{epsilon}");
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    assert_eq!(rounds.lines().count(), 8);
    for line in rounds.lines() {
        let round: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(round["client_accuracy"]["clients"], 50, "{round}");
    }
    let verified = run(fedveil().arg("verify").arg(&out));
    assert!(verified.status.success(), "{:?}", failure(&verified));
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(said.contains("by a simulation, whose noise is no secret"), "{said}");
    for line in rounds.lines() {
        assert!(line.contains("\"private\":false"), "{line}");
    }
}

#[test]
fn a_run_follows_from_its_scenario_bit_by_bit() {
    let temporary = tempfile::tempdir().unwrap();
    let [first, second, other] = ["first", "second", "other"].map(|name| temporary.path().join(name));
    for (out, more) in [(&first, &[][..]), (&second, &[]), (&other, &["--set", "seed=2"])] {
        let output = small(out, more);
        assert!(output.status.success(), "{:?}", failure(&output));
    }
    are_equal(&first, &second);
    let timing = |run: &Path| std::fs::read(run.join("timing.json")).unwrap();
    assert_ne!(timing(&first), timing(&second));
    let model = |run: &Path| std::fs::read(run.join("model.safetensors")).unwrap();
    assert_ne!(model(&first), model(&other));
}

#[test]
fn every_scenario_in_the_folder_is_explained_and_checked() {
    let mut checked = 0;
    for entry in std::fs::read_dir(scenarios()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(path.extension().unwrap(), "toml", "{}", path.display());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} begins with what it shows", path.display());
        let output = simulate(&path, &["--check"]);
        if !text.contains("kind = \"digits\"") && std::env::var_os("FEDVEIL_DATA").is_none() {
            // Its keys are right; only its data is not here.
            assert!(failure(&output).1.starts_with("error: no folder of data"), "{:?}", failure(&output));
            continue;
        }
        assert!(output.status.success(), "{}: {:?}", path.display(), failure(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("estimate: "), "{}", path.display());
        checked += 1;
    }
    assert!(checked >= 1);
}

#[test]
fn a_wrong_scenario_is_refused_before_anything_is_written() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("wrong.toml");
    let out = temporary.path().join("run");
    for (text, arguments, expected) in [
        (
            "[training]\nepoch = 1\n",
            &[][..],
            "wrong.toml:2: unknown key training.epoch, did you mean epochs?",
        ),
        ("rounds = 0\n", &[], "wrong.toml:1: rounds is 0, accepted is"),
        ("", &["--set", "rounds=many"], "rounds is \"many\" (string), accepted is a whole number"),
        (
            "[data]\nkind = \"faces\"\n",
            &[],
            "wrong.toml:2: data.kind is \"faces\" (string), accepted is digits, mnist",
        ),
        ("", &["--set", "attackers.attack=rumour"], "attackers: unknown attack \"rumour\""),
        (
            "[partition]\nkind = \"natural\"\n",
            &[],
            "partition: the partition \"natural\" goes by the clients",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = simulate(&file, &[&["--out", out.to_str().unwrap()], arguments].concat());
        let (code, error) = failure(&output);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(expected), "{error}, expected: {expected}");
        assert!(!out.exists(), "{expected}");
    }
}

/// Runs on a folder of its own until `is_far` and kills the process.
fn cut_off(command: &mut std::process::Command, is_far: impl Fn() -> bool) {
    let mut child = crate::support::spawn(command);
    let patience = std::time::Instant::now();
    while !is_far() {
        assert!(
            patience.elapsed().as_secs() < 120 && child.try_wait().unwrap().is_none(),
            "it never came so far"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Whether two run folders hold the same, but for how long it took.
fn are_equal(first: &Path, second: &Path) {
    assert_eq!(files(first), files(second));
    for file in files(first) {
        // How long it took here is the one thing that does not follow, and the index lists the file that says so.
        let follows = !["timing.json", "index.dsse.json"].iter().any(|name| file.ends_with(name));
        let same = std::fs::read(first.join(&file)).unwrap() == std::fs::read(second.join(&file)).unwrap();
        assert!(same || !follows, "{}", file.display());
    }
}

#[test]
fn killed_in_the_middle_and_resumed_a_run_goes_on_and_ends_as_if_nothing_had_happened() {
    let temporary = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| temporary.path().join(name));
    // Clients that keep something, over a network, with a coordinator that crashes by itself besides.
    let more = [
        "--set",
        "rounds=12",
        "--set",
        "algorithm.name=ditto",
        "--set",
        "attackers.clients=0",
        "--set",
        "network.latency_ms=20",
        "--set",
        "faults.coordinator_crashes=[7]",
        "--checkpoint-every",
        "3",
    ];
    let more = [&more[..], &["--set", "algorithm.options={ lambda = 0.5 }"]].concat();
    assert!(small(&whole, &more).status.success());
    let mut command = fedveil();
    command.arg("simulate").arg(scenarios().join("quickstart.toml")).args(SMALL).args(&more);
    let rounds = |folder: &Path| {
        std::fs::read_to_string(folder.join("rounds.jsonl")).unwrap_or_default().lines().count()
    };
    cut_off(command.arg("--out").arg(&cut), || rounds(&cut) >= 5);
    assert!(!cut.join("report.html").exists());
    let resumed = small(&cut, &[&more[..], &["--resume"]].concat());
    assert!(resumed.status.success(), "{:?}", failure(&resumed));
    assert_eq!(json(&cut.join("timing.json"))["resumed"], true);
    are_equal(&whole, &cut);
    let verified = run(fedveil().arg("verify").arg(&cut));
    assert!(verified.status.success(), "{:?}", failure(&verified));
}

#[test]
fn killed_in_the_middle_and_resumed_a_sweep_ends_as_if_nothing_had_happened() {
    let temporary = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| temporary.path().join(name));
    let axis = ["--set", "seed=[1,2,3]"];
    assert!(small(&whole, &axis).status.success());
    let mut command = fedveil();
    command
        .arg("simulate")
        .arg(scenarios().join("quickstart.toml"))
        .args(SMALL)
        .args(axis)
        .arg("--out")
        .arg(&cut);
    // The second point has begun to write models.
    let begun = cut.join("seed=2").join("model.safetensors");
    cut_off(&mut command, || begun.exists());
    assert!(!cut.join("report.html").exists());
    let refused = small(&cut, &axis);
    assert_eq!(failure(&refused).0, 8, "{:?}", failure(&refused));
    let resumed = small(&cut, &[&axis[..], &["--resume"]].concat());
    assert!(resumed.status.success(), "{:?}", failure(&resumed));
    are_equal(&whole, &cut);
    // Another sweep does not go on in this folder, and a finished run is not run again.
    let other = small(&cut, &["--set", "seed=[1,2]", "--resume"]);
    assert!(failure(&other).1.contains("lists other points"), "{:?}", failure(&other));
    let timing = std::fs::read(cut.join("seed=3/timing.json")).unwrap();
    assert!(small(&cut, &[&axis[..], &["--resume"]].concat()).status.success());
    assert_eq!(timing, std::fs::read(cut.join("seed=3/timing.json")).unwrap());

    let report = temporary.path().join("comparison.html");
    let compared = run(fedveil().arg("report").arg(&cut).args(["--json", "--out"]).arg(&report));
    assert!(compared.status.success(), "{:?}", failure(&compared));
    let runs: serde_json::Value = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 3);
    assert_eq!(runs[1]["point"]["seed"], "2");
    assert!(std::fs::read_to_string(&report).unwrap().contains("seed=3"));
}

#[test]
fn a_hierarchy_runs_and_counts_the_rounds_of_its_regions() {
    let temporary = tempfile::tempdir().unwrap();
    let [one, many] = ["one", "many"].map(|name| temporary.path().join(name));
    for (out, threads) in [(&one, "1"), (&many, "3")] {
        let arguments = ["--out", out.to_str().unwrap(), "--threads", threads, "--json"];
        let smaller = ["--set", "hierarchy.regions=3", "--set", "hierarchy.rounds=2", "--set", "rounds=2"];
        let output = simulate(&scenarios().join("hierarchy.toml"), &[&arguments[..], &smaller].concat());
        assert!(output.status.success(), "{:?}", failure(&output));
    }
    let summary = json(&one.join("summary.json"));
    assert!(summary["test_accuracy"].as_f64().unwrap() > summary["initial_accuracy"].as_f64().unwrap() + 0.2);
    // Noise is sized for the four rounds of a region, and all of them are spent.
    let epsilon = summary["epsilon"].as_f64().unwrap();
    assert!(epsilon > 39.0 && epsilon <= 40.0, "{epsilon}");
    for file in ["model.safetensors", "rounds.jsonl", "summary.json", "manifest.dsse.json"] {
        assert!(
            std::fs::read(one.join(file)).unwrap() == std::fs::read(many.join(file)).unwrap(),
            "{file} depends on threads"
        );
    }
    assert!(run(fedveil().arg("verify").arg(&one)).status.success());
}

#[test]
fn threads_change_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let [one, many] = ["one", "many"].map(|name| temporary.path().join(name));
    assert!(small(&one, &["--threads", "1"]).status.success());
    assert!(small(&many, &["--threads", "5"]).status.success());
    for file in [
        "model.safetensors",
        "events.jsonl",
        "rounds.jsonl",
        "summary.json",
        "report.html",
        "manifest.dsse.json",
    ] {
        let [one, many] = [&one, &many].map(|run| std::fs::read(run.join(file)).unwrap());
        assert!(one == many, "{file}");
    }
}
