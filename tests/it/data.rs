//! `fedveil data`: what is known by name, how a set falls to clients, and what is refused. Nothing here has a network.

use crate::support::{failure, fedveil, run};
use serde_json::Value;
use std::process::Output;

fn data(arguments: &[&str]) -> Output {
    run(fedveil().env_remove("FEDVEIL_DATA").arg("data").args(arguments))
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", failure(output).1);
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_list_tells_source_and_licence() {
    let list = text(&data(&["list"]));
    for name in ["digits", "mnist", "fashion-mnist", "cifar-10", "shakespeare", "emnist"] {
        assert!(list.contains(&format!("{name}\n  ")), "{name} is missing in {list}");
    }
    assert_eq!(list.matches("licence: ").count(), list.matches("source: ").count());
}

#[test]
fn what_is_inside_is_shown_without_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let [csv, html, svg] = ["split.csv", "split.html", "split.svg"].map(|name| folder.path().join(name));
    let output = run(fedveil()
        .env_remove("FEDVEIL_DATA")
        .args(["data", "show", "digits", "--clients", "30", "--partition", "pathological,classes=2"])
        .arg("--csv")
        .arg(&csv)
        .arg("--html")
        .arg(&html)
        .arg("--svg")
        .arg(&svg));
    let table = text(&output);
    assert!(
        table.contains("digits: 1438 rows to train, 359 to test, 64 inputs a row, 10 classes"),
        "{table}"
    );
    assert!(table.contains("classes of a client: 2 to 2"), "{table}");
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 31);
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("digits over 30 clients") && page.contains("client 29, class"), "{page}");
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
}

#[test]
fn splits_as_json_are_the_same_for_the_same_seed() {
    let split = |seed| {
        let arguments = [
            "show",
            "digits,spectrum=true",
            "--clients",
            "5",
            "--partition",
            "dirichlet,alpha=0.3",
            "--seed",
            seed,
        ];
        let json: Value =
            serde_json::from_str(&text(&data(&[&arguments[..], &["--json"]].concat()))).unwrap();
        json
    };
    let first = split("1");
    assert_eq!((&first["inputs"], &first["partition"]["alpha"]), (&25.into(), &0.3.into()));
    assert_eq!(first, split("1"));
    assert_ne!(first["split"]["shown"], split("2")["split"]["shown"]);
}

#[test]
fn files_are_read_from_the_folder_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.csv"), "a,who,y\n1,x,0\n2,x,1\n3,z,0\n4,z,1\n5,z,0\n").unwrap();
    let show = |spec: &str, more: &[&str]| {
        run(fedveil().env("FEDVEIL_DATA", folder.path()).args(["data", "show", spec]).args(more))
    };
    let table = text(&show("csv,path=t.csv,client=who", &["--partition", "natural"]));
    assert!(table.contains("t.csv: 4 rows to train, 1 to test, 1 inputs a row, 2 classes"), "{table}");
    let (code, error) = failure(&show("csv,path=u.csv", &[]));
    assert!(code == 2 && error.contains("there is no u.csv in the folder of data"), "{error}");
    assert!(error.contains(&folder.path().display().to_string()), "{error}");
    std::fs::write(folder.path().join("u.csv"), "a,y\n1,0\nx,1\n").unwrap();
    let (code, error) = failure(&show("csv,path=u.csv", &[]));
    assert!(
        code == 2 && error.contains("u.csv, line 3, column a: found \"x\", expected a finite number"),
        "{error}"
    );
}

#[test]
fn mistakes_are_refused_by_what_is_accepted() {
    for (arguments, part) in [
        (&["show", "mnist"][..], "--data DIR, or the environment variable FEDVEIL_DATA"),
        (&["show", "mnits"], "unknown variant `mnits`"),
        (&["show", "digits,pixels=3"], "unknown field `pixels`"),
        (&["show", "digits", "--partition", "shards"], "missing field `per_client`"),
        (&["show", "digits", "--partition", "dirichlet,alpha=0"], "alpha 0: expected a number above 0"),
        (&["show", "digits", "--partition", "natural"], "these data name none"),
        (&["show", "digits", "--clients", "2000"], "2000 clients for 1438 rows: expected 1 to 1438"),
        (&["fetch", "imagenet", "--data", "x"], "accepted is digits, mnist"),
        (&["fetch", "mnist"], "--data DIR, or the environment variable FEDVEIL_DATA"),
    ] {
        let (code, error) = failure(&data(arguments));
        assert!(code == 2 && error.contains(part), "{part} is missing in {code} {error}");
    }
    assert!(text(&data(&["fetch", "digits"])).contains("there is nothing to fetch"));
}
