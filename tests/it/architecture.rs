//! What ARCHITECTURE.md and docs/threat-model.md claim about the repository, held against the repository.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Crates that do I/O or bring it in. A name ending in `*` stands for all that begin so.
const IO_CRATES: [&str; 8] =
    ["tokio*", "tonic*", "hyper*", "rustls*", "ureq", "getrandom", "rand", "rusqlite"];

/// Paths of the standard library that a crate without I/O does not use.
const IO_PATHS: [&str; 7] = ["fs::", "net::", "env::", "process::", "thread::", "SystemTime", "Instant"];

/// One row of the dependency table.
#[derive(Debug, Clone, Default)]
struct Row {
    does_io: bool,
    may_depend_on: BTreeSet<String>,
}

/// One crate of the workspace, as cargo sees it.
#[derive(Debug, Clone, Default)]
struct Package {
    folder: PathBuf,
    /// What it is built from.
    dependencies: BTreeSet<String>,
    /// What only its tests are built from.
    dev_dependencies: BTreeSet<String>,
}

#[test]
fn dependencies_are_those_of_the_table() {
    let faults = faults(&table(&read("ARCHITECTURE.md")), &workspace());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_kind_of_fault_is_found() {
    let text = "| crate | I/O | may depend on |\n|---|---|---|\n\
                | `leaf` | no | |\n| `core` | no | `leaf` |\n| `gone` | yes | |\n\nafter the table";
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let package = |dependencies: &[&str], dev_dependencies: &[&str]| Package {
        dependencies: names(dependencies),
        dev_dependencies: names(dev_dependencies),
        ..Package::default()
    };
    let packages = BTreeMap::from([
        ("leaf".to_owned(), package(&["serde", "getrandom"], &["core", "tokio"])),
        ("core".to_owned(), package(&["leaf", "tokio-util"], &[])),
        ("new".to_owned(), package(&[], &[])),
    ]);
    assert_eq!(
        faults(&table(text), &packages),
        [
            "`gone` has a row in the table of ARCHITECTURE.md, and there is no such crate",
            "`core` does no I/O, and depends on `tokio-util`",
            "`leaf` depends on `core`, which its row does not have",
            "`leaf` does no I/O, and depends on `getrandom`",
            "`new` has no row in the table of ARCHITECTURE.md",
        ]
    );
}

#[test]
fn crates_without_io_do_not_reach_for_it() {
    let table = table(&read("ARCHITECTURE.md"));
    let mut faults = Vec::new();
    let mut files = 0;
    for (name, package) in workspace() {
        if table.get(&name).is_none_or(|row| row.does_io) {
            continue;
        }
        for file in sources(&package.folder.join("src")) {
            files += 1;
            let text = fs::read_to_string(&file).unwrap();
            // Tests come last in a file, and may do what they like.
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for (number, line) in (1..).zip(code.lines()) {
                let used = IO_PATHS.iter().find(|path| uses(line, path));
                faults.extend(used.map(|path| format!("{}:{number} uses {path}", file.display())));
            }
        }
    }
    assert!(files > 50, "only {files} files found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn tests_that_documents_name_exist() {
    let mut named = 0;
    let mut faults = Vec::new();
    for document in ["ARCHITECTURE.md", "docs/threat-model.md"] {
        for (number, line) in (1..).zip(read(document).lines()) {
            let mut file = None;
            for item in tests_named_in(line) {
                if item.contains('/') {
                    file = Some(item);
                    continue;
                }
                named += 1;
                let function = format!("fn {item}(");
                let text = file.map(|file| fs::read_to_string(root().join(file)).unwrap_or_default());
                if text.is_none_or(|text| !text.contains(&function)) {
                    faults.push(format!(
                        "{document}:{number}: no test `{item}` in {}",
                        file.unwrap_or("no file")
                    ));
                }
            }
        }
    }
    assert!(named > 50, "only {named} tests found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_names_a_place_on_a_machine() {
    // Put together here, so that this file does not name them.
    let places = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    let files = tracked_files();
    assert!(files.len() > 100, "only {} files found", files.len());
    for file in files {
        // A file that is tracked may be gone from the working tree.
        let Ok(bytes) = fs::read(root().join(&file)) else { continue };
        for place in &places {
            let found = bytes.windows(place.len()).any(|window| window == place.as_bytes());
            assert!(!found, "{} names {place}", file.display());
        }
    }
}

/// What is wrong with the workspace, given the table.
fn faults(table: &BTreeMap<String, Row>, packages: &BTreeMap<String, Package>) -> Vec<String> {
    let mut faults: Vec<String> = table
        .keys()
        .filter(|name| !packages.contains_key(*name))
        .map(|name| format!("`{name}` has a row in the table of ARCHITECTURE.md, and there is no such crate"))
        .collect();
    for (name, package) in packages {
        let Some(row) = table.get(name) else {
            faults.push(format!("`{name}` has no row in the table of ARCHITECTURE.md"));
            continue;
        };
        let edges = package.dependencies.union(&package.dev_dependencies);
        let strangers =
            edges.filter(|edge| packages.contains_key(*edge) && !row.may_depend_on.contains(*edge));
        faults.extend(
            strangers.map(|edge| format!("`{name}` depends on `{edge}`, which its row does not have")),
        );
        if !row.does_io {
            let io = package.dependencies.iter().filter(|edge| is_io(edge) && !is_generated_code(name, edge));
            faults.extend(io.map(|edge| format!("`{name}` does no I/O, and depends on `{edge}`")));
        }
    }
    faults
}

fn is_io(dependency: &str) -> bool {
    IO_CRATES.iter().any(|name| match name.strip_suffix('*') {
        Some(start) => dependency.starts_with(start),
        None => dependency == *name,
    })
}

/// The wire contract holds generated gRPC code, whose types are tonic's. It opens no connection.
fn is_generated_code(name: &str, dependency: &str) -> bool {
    name == "fedveil-proto" && ["tonic", "tonic-prost"].contains(&dependency)
}

/// The rows of the table `crate | I/O | may depend on`.
fn table(text: &str) -> BTreeMap<String, Row> {
    let rows = text.lines().skip_while(|line| *line != "| crate | I/O | may depend on |").skip(2);
    let rows: BTreeMap<_, _> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, io, allowed] = cells[..] else { panic!("a row of three cells, found {line:?}") };
            let does_io = match io {
                "yes" => true,
                "no" => false,
                other => panic!("I/O is yes or no, found {other:?}"),
            };
            let may_depend_on = quoted(allowed).map(str::to_owned).collect();
            (
                quoted(name).next().expect("a row begins with a crate").to_owned(),
                Row { does_io, may_depend_on },
            )
        })
        .collect();
    assert!(!rows.is_empty(), "no dependency table found");
    rows
}

/// The workspace, from `cargo metadata`.
fn workspace() -> BTreeMap<String, Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = |package: &Value| {
        let name = package["name"].as_str().unwrap().to_owned();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let mut found = Package { folder: manifest.parent().unwrap().to_owned(), ..Package::default() };
        for dependency in package["dependencies"].as_array().unwrap() {
            let edges = match dependency["kind"].as_str() {
                Some("dev") => &mut found.dev_dependencies,
                _ => &mut found.dependencies,
            };
            edges.insert(dependency["name"].as_str().unwrap().to_owned());
        }
        (name, found)
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

/// The source files below a folder, but for those that are tests as a whole.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            found.append(&mut sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Whether a line of code, not of comment, has the path, not as the end of a longer name.
fn uses(line: &str, path: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(path).any(|(at, _)| {
        !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '"')
    })
}

/// The files and functions named in the last cell of a table's row, or after the word `Tests:`.
fn tests_named_in(line: &str) -> impl Iterator<Item = &str> {
    let named = if line.starts_with('|') {
        line.trim_end_matches('|').rsplit('|').next().filter(|cell| cell.contains(".rs`"))
    } else {
        line.split_once("Tests: ").map(|(_, named)| named)
    };
    quoted(named.unwrap_or_default())
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Everything in the repository; all files of the folder where it is no repository.
fn tracked_files() -> Vec<PathBuf> {
    let git = Command::new("git")
        // Whoever owns the checkout: listing it runs nothing.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root())
        .output();
    match git {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8(output.stdout).unwrap();
            names.split_terminator('\0').map(PathBuf::from).collect()
        }
        _ => all_files(&root()),
    }
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !["target", "runs", ".git"].iter().any(|name| path.ends_with(name)) {
            found.append(&mut all_files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate that runs this is a folder of the workspace")
        .to_owned()
}
