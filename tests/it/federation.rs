//! A federation by hand: a coordinator and clients as processes, from configuration files and join tokens.

use crate::support::{await_line, failure, fedveil, json, run, spawn};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command};

const CLIENTS: u32 = 6;

struct Federation {
    folder: Option<tempfile::TempDir>,
    coordinator: Child,
    lines: BufReader<ChildStderr>,
    url: String,
}

impl Federation {
    fn start(rounds: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, rounds, "127.0.0.1:0")
    }

    fn start_in(folder: tempfile::TempDir, rounds: u32, listen: &str) -> Self {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "listen = \"{listen}\"\nout = \"{}\"\nkeys = \"{}\"\ntokens_dir = \"{}\"\n\
             [task]\nrounds = {rounds}\n[cohort]\nclients = {CLIENTS}\nminimum = {CLIENTS}\nassumed_malicious = 0\n\
             [privacy]\nepsilon = 40.0\n\
             [aggregation]\ngroup_size = {CLIENTS}\nthreshold = 4\nmin_survivors = 5\nmax_missing_reveals = 0\n\
             [server]\nrule = \"mean\"\nassumed_byzantine = 0\n",
            path("out"),
            path("coordinator-keys"),
            path("tokens"),
        );
        let file = folder.path().join("coordinator.toml");
        std::fs::write(&file, config).unwrap();
        let mut coordinator = spawn(fedveil().args(["coordinator", "--config"]).arg(file));
        let mut lines = BufReader::new(coordinator.stderr.take().unwrap());
        let said = await_line(&mut lines, "coordinator on ");
        let line = said.lines().next_back().unwrap();
        let address = line["coordinator on ".len()..].split(',').next().unwrap();
        let url = format!("https://{address}");
        Self { folder: Some(folder), coordinator, lines, url }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    fn token(&self, number: u32) -> PathBuf {
        self.path(&format!("tokens/{number}.token"))
    }

    fn client(&self, number: u32, token: &Path) -> Command {
        let mut command = fedveil();
        command.args(["client", "--join", &self.url, "--name", &format!("device-{number}")]);
        command.arg("--token-file").arg(token).arg("--keys").arg(self.path(&format!("keys-{number}")));
        command.args(["--data", &format!("{}/{CLIENTS}", number - 1)]);
        command
    }

    fn finish(mut self) -> (i32, String, tempfile::TempDir) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.lines, &mut rest).unwrap();
        let status = self.coordinator.wait().unwrap();
        (status.code().unwrap_or(-1), rest, self.folder.take().unwrap())
    }

    fn kill(&mut self) {
        self.coordinator.kill().unwrap();
        self.coordinator.wait().unwrap();
    }
}

/// A test that fails leaves no process behind.
impl Drop for Federation {
    fn drop(&mut self) {
        // Both fail where the coordinator has ended, which is what is wanted.
        let _ = self.coordinator.kill();
        let _ = self.coordinator.wait();
    }
}

/// Policy of a client that takes part in so small a federation.
const LENIENT: &str = "[policy]\nmax_epsilon = 40.0\nmin_survivors = 5\nmin_colluders_to_break = 1\n";

fn lenient(federation: &Federation, number: u32) -> Command {
    let file = federation.path(&format!("client-{number}.toml"));
    std::fs::write(&file, LENIENT).unwrap();
    let mut command = federation.client(number, &federation.token(number));
    command.arg("--config").arg(file);
    command
}

#[test]
fn two_terminals_run_a_federation() {
    let federation = Federation::start(2);
    let clients: Vec<Child> = (1..=CLIENTS).map(|number| spawn(&mut lenient(&federation, number))).collect();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", failure(&output));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("last verified model is of round 2"), "{said}");
    }
    let (code, lines, folder) = federation.finish();
    assert_eq!(code, 0, "{lines}");
    let out = folder.path().join("out");
    let verified = run(fedveil().arg("verify").arg(&out));
    assert!(verified.status.success(), "{:?}", failure(&verified));
    assert_eq!(json(&out.join("summary.json"))["rounds"], 2);

    // A folder whose task is over is not touched again.
    let again = run(fedveil().args(["coordinator", "--config"]).arg(folder.path().join("coordinator.toml")));
    let (code, error) = failure(&again);
    assert_eq!(code, 8, "{error}");
    assert!(error.contains("over and signed"), "{error}");
    assert!(run(fedveil().arg("verify").arg(&out)).status.success());
}

#[test]
fn a_killed_coordinator_goes_on_where_it_was_and_keeps_its_charges() {
    let mut federation = Federation::start(3);
    let address = federation.url.trim_start_matches("https://").to_owned();
    let clients: Vec<Child> = (1..=CLIENTS).map(|number| spawn(&mut lenient(&federation, number))).collect();
    // The second round is under way as soon as the first is published.
    await_line(&mut federation.lines, "round  1/");
    federation.kill();
    let folder = federation.folder.take().unwrap();
    let federation = Federation::start_in(folder, 3, &address);
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", failure(&output));
    }
    let (code, lines, folder) = federation.finish();
    assert_eq!(code, 0, "{lines}");
    let verified = run(fedveil().arg("verify").arg(folder.path().join("out")));
    assert!(verified.status.success(), "{:?}", failure(&verified));
    // The round that was cut off gave nothing, and the one after it went on from the last signed model.
    let summary = json(&folder.path().join("out/summary.json"));
    assert!(lines.contains("round  3/3"), "{lines}");
    assert_eq!(summary["stopped_because"], "all 3 rounds are done");
    assert_eq!((&summary["rounds"], &summary["rounds_aborted"]), (&2.into(), &1.into()));
}

#[test]
fn a_client_refuses_a_plan_that_its_policy_does_not_allow() {
    let mut federation = Federation::start(2);
    let output = run(&mut federation.client(1, &federation.token(1)));
    let (code, error) = failure(&output);
    assert_eq!(code, 7, "{error}");
    assert!(error.contains("policy") && error.contains("min_survivors 8"), "{error}");
    federation.kill();
}

#[test]
fn wrong_and_reused_tokens_are_refused() {
    let mut federation = Federation::start(2);
    let garbage = federation.path("garbage.token");
    std::fs::write(&garbage, "fedveil-join-v1.nothing").unwrap();
    let (code, error) = failure(&run(&mut federation.client(1, &garbage)));
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("garbage.token"), "{error}");

    // The first client enrols, then refuses the plan; its token is spent all the same.
    let spent = federation.token(1);
    assert_eq!(failure(&run(&mut federation.client(1, &spent))).0, 7);
    let (code, error) = failure(&run(&mut federation.client(2, &spent)));
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("has been used"), "{error}");

    // A token of another federation pins another authority.
    let mut other = Federation::start(2);
    let (code, error) = failure(&run(&mut federation.client(3, &other.token(1))));
    assert_eq!(code, 5, "{error}");
    federation.kill();
    other.kill();
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("coordinator.toml");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (out, keys, tokens) = (path("out"), path("keys"), path("tokens"));
    std::fs::write(
        &file,
        format!("listen = \"{address}\"\nout = \"{out}\"\nkeys = \"{keys}\"\ntokens_dir = \"{tokens}\"\n"),
    )
    .unwrap();
    let (code, error) = failure(&run(fedveil().args(["coordinator", "--config"]).arg(file)));
    assert_eq!(code, 3, "{error}");
    assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
}
