//! `fedveil robust` as a person or a script uses it.

use crate::support::{failure, fedveil, run};
use serde_json::Value;
use std::{fs, path::Path, process::Output};

fn aggregate(file: &Path, arguments: &[&str]) -> Output {
    run(fedveil().args(["robust", "aggregate"]).args(arguments).arg(file))
}

fn printed(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).unwrap()
}

fn object(output: &Output) -> Value {
    serde_json::from_str(printed(output)).unwrap()
}

/// The numbers of a JSON array.
fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn write_csv(path: &Path, rows: &[Vec<f64>]) {
    let line = |row: &Vec<f64>| row.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    fs::write(path, rows.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap();
}

fn write_npy(path: &Path, rows: &[Vec<f64>]) {
    let shape = (rows.len(), rows[0].len());
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape:?}, }}");
    // numpy pads so that the data begin at a multiple of 64.
    header.extend(std::iter::repeat_n(' ', 63 - (10 + header.len()) % 64));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    fs::write(path, file).unwrap();
}

#[test]
fn published_vectors_come_out_of_both_file_formats() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, npy) = (folder.path().join("rows.csv"), folder.path().join("rows.npy"));
    let vectors: Value = serde_json::from_str(include_str!("../vectors/robust/byzfl.json")).unwrap();
    let mut compared = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let rows: Vec<Vec<f64>> = case["X"].as_array().unwrap().iter().map(numbers).collect();
        write_csv(&csv, &rows);
        write_npy(&npy, &rows);
        let f = case["f"].to_string();
        for (name, arguments) in [
            ("Krum", &["--rule", "krum", "--set", "variant=byzfl"][..]),
            (
                "GeometricMedian(nu=.1,T=8)",
                &["--rule", "geometric-median", "--set", "nu=0.1", "--set", "iterations=8"],
            ),
            ("NNM+TrMean", &["--rule", "trimmed-mean", "--pre", "nnm"]),
            (
                "CenteredClipping(L=3,tau=1)",
                &["--rule", "centered-clipping", "--set", "tau=1", "--set", "iterations=3"],
            ),
        ] {
            let arguments = [arguments, &["--byzantine", &f, "--json"]].concat();
            let found = object(&aggregate(&csv, &arguments));
            assert_eq!(object(&aggregate(&npy, &arguments)), found);
            let (found, expected) = (numbers(&found["aggregate"]), numbers(&case["out"][name]));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-12, "{name}: found {found}, expected {expected}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 4 * (5 + 8 + 4 + 3 + 6 + 4));
}

#[test]
fn what_is_printed_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    let rows = [[0.1, 1.0 / 3.0], [0.2, 0.4], [1e9, -1e9], [0.3, 0.5], [0.25, 0.45]].map(Vec::from);
    write_csv(&file, &rows);
    let output = aggregate(&file, &["--rule", "mda", "--byzantine", "1"]);
    let json = object(&aggregate(&file, &["--rule", "mda", "--byzantine", "1", "--json"]));
    let line: Vec<f64> = printed(&output).trim().split(',').map(|number| number.parse().unwrap()).collect();
    assert_eq!(line, numbers(&json["aggregate"]));
    assert_eq!(json["kept"], serde_json::json!([0, 1, 3, 4]));
    assert_eq!(numbers(&json["scores"]).len(), 5);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("mda kept 4 of 5 rows\ndropped row 2, score "), "{said}");

    // The state of centred clipping goes from one run to the next.
    let state = folder.path().join("state.csv");
    fs::write(&state, printed(&output)).unwrap();
    let start = format!("start=@{}", state.display());
    let clipping =
        ["--rule", "centered-clipping", "--byzantine", "1", "--set", "tau=0.01", "--set", &start, "--json"];
    let next = numbers(&object(&aggregate(&file, &clipping))["aggregate"]);
    let moved: f64 = next.iter().zip(&line).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    assert!(moved > 0.0 && moved <= 0.01, "moved by {moved}");
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    let name = file.display().to_string();
    fs::write(&file, "1,2\n3,4\n5,6\n").unwrap();
    let median = ["--rule", "median", "--byzantine", "1"];
    for (arguments, code, expected) in [
        (
            &["--rule", "medain", "--byzantine", "1"][..],
            2,
            "unknown rule \"medain\"; accepted are mean, median",
        ),
        (
            &["--rule", "median", "--byzantine", "1", "--pre", "nmm"],
            2,
            "unknown pre-aggregator \"nmm\"; accepted are clip",
        ),
        (&["--rule", "median", "--byzantine", "-1"], 2, "--byzantine"),
        (&["--rule", "median"], 2, "--byzantine"),
        (
            &["--rule", "krum", "--byzantine", "0", "--set", "variant"],
            2,
            "--set is \"variant\", accepted is KEY=VALUE",
        ),
        (
            &["--rule", "krum", "--byzantine", "0", "--set", "variant=blades"],
            2,
            "option variant of krum is \"blades\", accepted is paper, byzfl, flower, garfield, epfml",
        ),
        (
            &["--rule", "krum", "--byzantine", "0", "--set", "tau=1"],
            2,
            "krum has no option \"tau\"; accepted are variant",
        ),
        (&["--rule", "fltrust", "--byzantine", "0"], 2, "fltrust needs the option reference"),
        (
            &["--rule", "fltrust", "--byzantine", "0", "--set", "reference=@nowhere.csv"],
            2,
            "cannot read nowhere.csv",
        ),
        (
            &["--rule", "monna", "--byzantine", "0", "--set", "index=3"],
            2,
            "option index is 3, accepted is 0 to 2",
        ),
        (
            &["--rule", "median", "--byzantine", "2"],
            9,
            "median with f = 2 Byzantine rows needs at least 5 rows, found 3",
        ),
        (
            &["--rule", "krum", "--byzantine", "1", "--pre", "bucketing"],
            9,
            "bucketing+krum with f = 1 Byzantine rows needs at least 9 rows, found 3",
        ),
    ] {
        let (found, error) = failure(&aggregate(&file, arguments));
        assert_eq!(found, code, "{error}");
        assert!(error.contains(expected), "{error}");
    }
    for (text, expected) in [
        ("1,2\n3,NaN\n5,6\n", ":2: value 2 is \"NaN\", accepted is a finite number"),
        ("1,2\n3\n5,6\n", ":2: 1 values, line 1 has 2"),
        ("x,y\n1,2\n", ":1: value 1 is \"x\", accepted is a finite number"),
        ("", ": no rows; accepted are CSV"),
        ("\u{93}NUMPY", ":1: value 1 is"),
    ] {
        fs::write(&file, text).unwrap();
        let (code, error) = failure(&aggregate(&file, &median));
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(&format!("{name}{expected}")), "{error}");
    }
    write_npy(&file, &[vec![1.0, 2.0], vec![3.0, f64::INFINITY], vec![5.0, 6.0]]);
    let (code, error) = failure(&aggregate(&file, &median));
    assert_eq!(code, 2, "{error}");
    assert!(
        error.contains(&format!("{name}: row 1 holds inf at coordinate 1; values must be finite")),
        "{error}"
    );
    fs::write(&file, b"\x93NUMPY\x01\x00").unwrap();
    let (code, error) = failure(&aggregate(&file, &median));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains(&format!("{name}: .npy header is cut off")), "{error}");
}

#[test]
fn the_list_in_the_documents_is_the_list_of_the_program() {
    let output = run(fedveil().args(["robust", "list"]));
    let list = printed(&output);
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/robustness.md");
    let text = fs::read_to_string(document).unwrap();
    assert!(
        text.contains(&format!("```text\n{list}```\n")),
        "docs/robustness.md does not have this list:\n{list}"
    );
    let help = run(fedveil().args(["robust", "aggregate", "--help"]));
    let names = list
        .lines()
        .filter(|line| !line.starts_with([' ', 'R', 'P']))
        .filter_map(|line| line.split_once(':'));
    let mut count = 0;
    for (name, _) in names {
        assert!(printed(&help).contains(name), "{name} is not in the help text");
        count += 1;
    }
    assert_eq!(count, 24);
}

fn plan(arguments: &[&str]) -> Output {
    run(fedveil().args(["robust", "plan"]).args(arguments))
}

/// 200 clients, 4 malicious, 5 % dropping out: what the defaults of a coordinator are.
const DEMO: [&str; 6] = ["--clients", "200", "--malicious", "4", "--dropout", "0.05"];

#[test]
fn a_plan_for_the_demo_is_the_demo() {
    let found = object(&plan(&[&DEMO[..], &["--noise-multiplier", "1.12", "--json"]].concat()));
    assert_eq!([&found["malicious"], &found["dropouts"], &found["least_noise_group_size"]], [4, 10, 18]);
    let first = &found["choices"][0];
    for (key, expected) in [
        ("group_size", 18),
        ("groups", 11),
        ("groups_left", 9),
        ("min_survivors", 15),
        ("threshold", 13),
        ("assumed_byzantine", 4),
        ("colluders_to_break", 8),
    ] {
        assert_eq!(first[key], expected, "{key}");
    }
    assert_eq!(first["suggested_rule"], "mda");
    assert_eq!(first["chance_of_more"], 0.0);
    // 1.12 clip norms in each of five means of 18.
    let noise = first["noise_in_clip_norms"].as_f64().unwrap();
    assert!((noise - 1.12 / 18.0 / 5f64.sqrt()).abs() < 1e-12, "{noise}");
    let borne: Vec<_> =
        first["tolerances"].as_array().unwrap().iter().map(|one| one["largest_f"].clone()).collect();
    assert_eq!(borne, [4, 3, 1]);
    // Smaller groups let Krum bear them, and cost more noise.
    let krum =
        found["choices"].as_array().unwrap().iter().find(|choice| choice["tolerances"][1]["bears"] == true);
    let krum = krum.unwrap();
    assert!(krum["groups_left"].as_u64().unwrap() >= 11);
    assert!(krum["relative_noise"].as_f64() > first["relative_noise"].as_f64());

    let output = plan(&DEMO);
    let text = printed(&output);
    assert!(text.starts_with("200 clients, 4 of them malicious, up to 10 dropping out\n"), "{text}");
    let row: Vec<_> = text.lines().nth(3).unwrap().split_whitespace().collect();
    assert_eq!(row, ["18", "11", "9", "4", "never", "4", "-", "-", "4", "2.0%", "4.97", "8"]);
    assert!(
        text.contains(
            "aggregation.group_size = 18, min_survivors = 15, threshold = 13, server.rule = \"mda\""
        )
    );
}

#[test]
fn plans_that_cannot_be_are_refused() {
    for (arguments, code, expected) in [
        (&["--clients", "30", "--malicious", "0.5"][..], 9, "no group size bears 15 malicious of 30 clients"),
        (
            &["--clients", "30", "--malicious", "1.5"],
            2,
            "--malicious is 1.5, accepted is a share from 0 to below 1",
        ),
        (&["--clients", "30", "--malicious", "31"], 2, "--malicious is 31, accepted is"),
        (&["--clients", "30", "--malicious", "1", "--dropout", "NaN"], 2, "--dropout is NaN, accepted is"),
        (&["--clients", "2", "--malicious", "0"], 2, "clients is 2, accepted are 4 to 20000"),
        (
            &["--clients", "30", "--malicious", "1", "--chance", "1"],
            2,
            "the accepted chance is 1, accepted are",
        ),
        (
            &["--clients", "30", "--malicious", "1", "--noise-multiplier=-1"],
            2,
            "--noise-multiplier is -1, accepted is a number, 0 or more",
        ),
    ] {
        let (found, error) = failure(&plan(arguments));
        assert_eq!(found, code, "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_attacks_in_the_documents_and_the_help_are_those_of_the_program() {
    let output = run(fedveil().args(["robust", "attacks"]));
    let list = printed(&output);
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/robustness.md");
    let text = fs::read_to_string(document).unwrap();
    assert!(
        text.contains(&format!("```text\n{list}```\n")),
        "docs/robustness.md does not have this list:\n{list}"
    );
    let output = run(fedveil().args(["demo", "--help"]));
    let help = printed(&output);
    let heads = list.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with(' '));
    let mut count = 0;
    for head in heads {
        let (name, _) = head.split_once(": ").unwrap();
        assert!(help.contains(&format!("- {name}:")), "{name} is not in the help text");
        count += 1;
    }
    assert_eq!(count, 16);
}
