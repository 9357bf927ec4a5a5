//! Running the command, and reading what it leaves.

use serde_json::Value;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The command under test.
pub(crate) fn fedveil() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedveil"));
    command.env_remove("FEDVEIL_LOG").stdin(Stdio::null());
    command
}

/// Runs to the end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

/// Starts with both outputs captured.
pub(crate) fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts")
}

/// Exit code and standard error, for messages of assertions too.
pub(crate) fn failure(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A demo of 36 clients in four groups of nine, one of them poisoned.
pub(crate) fn small_demo(out: &Path) -> Command {
    let mut command = fedveil();
    command.args(["demo", "--clients", "36", "--group-size", "9", "--assumed-byzantine", "1"]);
    command.args(["--byzantine", "1", "--rounds", "2", "--epsilon", "40"]).arg("--out").arg(out);
    command
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the file is there")).expect("the file is JSON")
}

/// Every file below a folder, by its path in it.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).expect("it is below").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Reads lines until one begins with `start`; gives all that was read.
pub(crate) fn await_line(lines: &mut impl BufRead, start: &str) -> String {
    let mut said = String::new();
    loop {
        let before = said.len();
        assert_ne!(lines.read_line(&mut said).expect("the output is text"), 0, "no line {start:?} in {said}");
        if said[before..].starts_with(start) {
            return said;
        }
    }
}
