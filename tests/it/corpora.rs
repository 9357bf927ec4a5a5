//! What the fuzzers start from and what they found, through the functions that they call.
//!
//! After a change to a format, `FEDVEIL_REGENERATE=1 cargo test --release -p fedveil-cli --test it corpora` writes the
//! seeds anew. What a fuzzer found stays as it is.

use std::{
    collections::BTreeMap,
    fs, panic,
    path::{Path, PathBuf},
    sync::Once,
};

#[allow(unreachable_pub, reason = "the fuzzers' library, of which it is a part too, is used from outside")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use targets::{TARGETS, Target};

#[test]
fn what_is_in_the_corpora_is_accepted_or_refused_as_its_name_says() {
    let mut wrong = Vec::new();
    for target in TARGETS {
        for (name, input) in corpus(target) {
            let outcome = match panic::catch_unwind(|| (target.run)(&input)) {
                Ok(true) => "accepted",
                Ok(false) => "refused",
                Err(_) => "broke a promise",
            };
            let expected = name.split('-').next().filter(|_| is_seed(&name)).unwrap_or(outcome);
            if outcome != expected || outcome == "broke a promise" {
                wrong.push(format!("{}/{name}: {outcome}", target.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn seeds_are_current() {
    for target in TARGETS {
        let made: BTreeMap<String, Vec<u8>> = (target.seeds)().into_iter().collect();
        let mut found = corpus(target);
        found.retain(|name, _| is_seed(name));
        assert!(
            found == made,
            "{} has other seeds than its target makes; to write them anew:\n    \
             FEDVEIL_REGENERATE=1 cargo test --release -p fedveil-cli --test it corpora",
            folder(target).display()
        );
    }
}

#[test]
fn every_target_has_a_fuzzer_and_a_corpus() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let entries = |path: &str| {
        let entries = fs::read_dir(root().join(path)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(entries("fuzz_targets"), names);
    assert_eq!(entries("corpus"), names);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "no fuzzer {name}");
    }
}

/// Whether a file is a target's own, which says in its name what becomes of it.
fn is_seed(name: &str) -> bool {
    ["accepted", "refused"].iter().any(|outcome| name.starts_with(outcome))
}

/// The corpus of a target by the names of its files.
fn corpus(target: &Target) -> BTreeMap<String, Vec<u8>> {
    static SEEDS: Once = Once::new();
    SEEDS.call_once(|| {
        if std::env::var_os("FEDVEIL_REGENERATE").is_some() {
            TARGETS.iter().for_each(regenerate);
        }
    });
    files(&folder(target))
}

fn regenerate(target: &Target) {
    let folder = folder(target);
    fs::create_dir_all(&folder).unwrap();
    for name in files(&folder).keys().filter(|name| is_seed(name)) {
        fs::remove_file(folder.join(name)).unwrap();
    }
    for (name, input) in (target.seeds)() {
        fs::write(folder.join(name), input).unwrap();
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap();
    let file =
        |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
    entries.map(|entry| file(entry.unwrap().path())).collect()
}

fn folder(target: &Target) -> PathBuf {
    root().join("corpus").join(target.name)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}
