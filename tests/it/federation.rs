//! A federation by hand: a coordinator and clients as processes, from configuration files and join tokens.

use crate::support::{await_line, failure, fedveil, files, json, run, spawn};
use ed25519_dalek::SigningKey;
use fedveil_provenance::run::{INDEX_FILE, MANIFEST_FILE, checkpoint_path, manifest_path};
use fedveil_provenance::{Checkpoint, Decision, Digest, Log, Manifest, build_index};
use std::collections::BTreeMap;
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
        Self::start_with(folder, rounds, listen, "out", "inf")
    }

    /// In the same folder, with the same keys, and a limit for the population; the run goes to `out`.
    fn start_with(
        folder: tempfile::TempDir,
        rounds: u32,
        listen: &str,
        out: &str,
        population_epsilon: &str,
    ) -> Self {
        let task = format!(
            "[task]\nrounds = {rounds}\n[cohort]\nclients = {CLIENTS}\nminimum = {CLIENTS}\nassumed_malicious = 0\n\
             [privacy]\nepsilon = 40.0\n\
             [aggregation]\ngroup_size = {CLIENTS}\nthreshold = 4\nmin_survivors = 5\nmax_missing_reveals = 0\n\
             [server]\nrule = \"mean\"\nassumed_byzantine = 0\n\
             [population]\nepsilon = {population_epsilon}\n",
        );
        Self::start_task(folder, &task, listen, out)
    }

    fn start_task(folder: tempfile::TempDir, task: &str, listen: &str, out: &str) -> Self {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "listen = \"{listen}\"\nout = \"{}\"\nkeys = \"{}\"\ntokens_dir = \"{}\"\n{task}",
            path(out),
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
const LENIENT: &str =
    "[policy]\nmax_epsilon = 40.0\nmax_total_epsilon = 40.0\nmin_survivors = 5\nmin_colluders_to_break = 1\n";

fn lenient(federation: &Federation, number: u32) -> Command {
    let file = federation.path(&format!("client-{number}.toml"));
    std::fs::write(&file, LENIENT).unwrap();
    let mut command = federation.client(number, &federation.token(number));
    command.arg("--config").arg(file);
    command
}

/// Copies a run folder, and has its coordinator sign that group 0 was dropped in the last round, and everything that
/// follows from it, with its own key.
fn sign_another_decision(out: &Path, lying: &Path, keys: &Path) {
    let seed = std::fs::read(keys.join("models.key")).unwrap();
    let key = SigningKey::from_bytes(&seed.try_into().unwrap());
    let mut files: BTreeMap<String, Vec<u8>> = files(out)
        .into_iter()
        .map(|file| (file.to_str().unwrap().to_owned(), std::fs::read(out.join(&file)).unwrap()))
        .collect();
    let path = manifest_path(2);
    let mut manifest = Manifest::verify(&files[&path], &[key.verifying_key()], 1).unwrap();
    assert_eq!(manifest.round.groups[0].decision, Decision::Kept);
    manifest.round.groups[0].decision = Decision::Dropped;
    let manifest = manifest.sign(&[&key]).unwrap();
    let mut log = Log::new();
    for leaf in [&files[&manifest_path(0)], &files[&manifest_path(1)], &manifest] {
        log.append(leaf.clone());
    }
    let text = std::str::from_utf8(&files[&checkpoint_path(2)]).unwrap();
    let checkpoint = Checkpoint::sign(text.lines().next().unwrap(), &log.head(), &key).unwrap();
    files.insert(checkpoint_path(2), checkpoint.into_bytes());
    for path in [path, MANIFEST_FILE.to_owned()] {
        files.insert(path, manifest.clone());
    }
    files.remove(INDEX_FILE);
    let digests: Vec<_> = files.iter().map(|(path, bytes)| (path.clone(), Digest::of(bytes))).collect();
    files.insert(INDEX_FILE.to_owned(), build_index(&digests, &key).unwrap());
    for (path, bytes) in files {
        let path = lying.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
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
    let said = String::from_utf8_lossy(&verified.stdout);
    let replayed = said.lines().filter(|line| line.starts_with("ok") && line.contains("replay of round"));
    assert_eq!(replayed.count(), 2, "{said}");
    assert_eq!(json(&out.join("summary.json"))["rounds"], 2);
    let lying = folder.path().join("lying");
    sign_another_decision(&out, &lying, &folder.path().join("coordinator-keys"));
    let (code, error) = failure(&run(fedveil().arg("verify").arg(&lying)));
    assert_eq!(code, 1, "{error}");
    let told =
        "replay of round 2: round 2, group 0: the decision is signed as dropped, and is kept by its sums";
    assert!(error.contains("failed in 1 of ") && error.contains(told), "{error}");

    // A folder whose task is over is not touched again.
    let again = run(fedveil().args(["coordinator", "--config"]).arg(folder.path().join("coordinator.toml")));
    let (code, error) = failure(&again);
    assert_eq!(code, 8, "{error}");
    assert!(error.contains("over and signed"), "{error}");
    assert!(run(fedveil().arg("verify").arg(&out)).status.success());
}

#[test]
fn orders_of_the_operator_reach_a_running_coordinator() {
    let task = "[task]\nrounds = 400\n[cohort]\nclients = 6\nminimum = 5\nassumed_malicious = 0\n\
                [privacy]\nepsilon = 40.0\nnoise_multiplier = 60.0\n\
                [aggregation]\ngroup_size = 5\nthreshold = 4\nmin_survivors = 5\nmax_missing_reveals = 0\n\
                [server]\nrule = \"mean\"\nassumed_byzantine = 0\n\
                [quarantine]\ncontact = \"ops@example.org\"\n";
    let mut federation = Federation::start_task(tempfile::tempdir().unwrap(), task, "127.0.0.1:0", "out");
    let clients: Vec<Child> = (1..=CLIENTS).map(|number| spawn(&mut lenient(&federation, number))).collect();
    let out = federation.path("out");
    await_line(&mut federation.lines, "round  1/400");
    let suspects = run(fedveil().args(["robust", "suspects", "--json"]).arg(&out));
    let suspects: serde_json::Value = serde_json::from_slice(&suspects.stdout).unwrap();
    let client = suspects["clients"][0]["client"].as_str().unwrap().to_owned();
    let order = |name: &str, client: &str, reason: &str| {
        run(fedveil().args(["robust", name]).arg(&out).args([client, "--reason", reason]))
    };
    for (output, expected) in [
        (order("release", &client, "too early"), "is not in quarantine"),
        (order("quarantine", &"ab".repeat(32), "unknown"), "ever took part"),
        (order("quarantine", &client, "two\nlines"), "accepted is a line of 1 to 200"),
    ] {
        let (code, error) = failure(&output);
        assert!(code == 2 && error.contains(expected), "{code}: {error}");
    }
    assert!(order("quarantine", &client, "its owner asked").status.success());
    let held = format!("client {client} is put in quarantine: its owner asked");
    await_line(&mut federation.lines, &held);
    assert!(order("release", &client, "its owner came back").status.success());
    let released = format!("client {client} is released from quarantine: its owner came back");
    await_line(&mut federation.lines, &released);
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let decided = |line: &str| {
        let round: serde_json::Value = serde_json::from_str(line).unwrap();
        round["clients"].as_array().cloned().unwrap_or_default()
    };
    let decisions: Vec<_> = rounds.lines().flat_map(decided).collect();
    let [held, released] = &decisions[..] else { panic!("{decisions:?}") };
    assert_eq!((&held["client"], &held["status"]), (&client.as_str().into(), &"quarantined".into()));
    assert_eq!(
        (&released["status"], &released["reason"]),
        (&"released".into(), &"its owner came back".into())
    );
    federation.kill();
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
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

/// What `fedveil privacy ledger` prints, as JSON.
fn ledger(path: &Path) -> serde_json::Value {
    let output = run(fedveil().args(["privacy", "ledger", "--json"]).arg(path));
    assert!(output.status.success(), "{:?}", failure(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_second_task_refuses_clients_that_have_spent_all_in_the_first() {
    // Two rounds cost 6.2, a third would bring it to 7.9.
    let folder = tempfile::tempdir().unwrap();
    let federation = Federation::start_with(folder, 2, "127.0.0.1:0", "out", "7.0");
    let clients: Vec<Child> = (1..=CLIENTS).map(|number| spawn(&mut lenient(&federation, number))).collect();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", failure(&output));
    }
    let (code, lines, folder) = federation.finish();
    assert_eq!(code, 0, "{lines}");

    let population = ledger(&folder.path().join("coordinator-keys"));
    assert_eq!((&population["ledger"], &population["epsilon_limit"]), (&"population".into(), &7.0.into()));
    let rows = population["clients"].as_array().unwrap();
    assert_eq!(rows.len(), CLIENTS as usize);
    for row in rows {
        assert_eq!((&row["tasks"][0]["charged"], &row["tasks"][0]["reserved"]), (&2.into(), &0.into()));
        let (spent, left) = (row["epsilon_spent"].as_f64().unwrap(), row["epsilon_left"].as_f64().unwrap());
        assert!((spent - 6.2).abs() < 0.05 && (spent + left - 7.0).abs() < 1e-9, "{row}");
    }
    let of_run = ledger(&folder.path().join("out"));
    assert_eq!((&of_run["ledger"], &of_run["clients"][5]["charged"]), (&"run".into(), &2.into()));

    // The same devices and keys, another task: its first round is one too many.
    let federation = Federation::start_with(folder, 2, "127.0.0.1:0", "second", "7.0");
    let clients: Vec<Child> = (1..=CLIENTS).map(|number| spawn(&mut lenient(&federation, number))).collect();
    let refusal = "population.epsilon is 7 at delta 0.00001 over all tasks; 6.";
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", failure(&output));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("6 of 6 clients cannot pay for one more round") && said.contains(refusal),
            "{said}"
        );
        assert!(said.contains("one more participation would bring it to 7.8"), "{said}");
    }
    let (code, lines, folder) = federation.finish();
    assert_eq!(code, 0, "{lines}");
    let summary = json(&folder.path().join("second/summary.json"));
    assert!(summary["stopped_because"].as_str().unwrap().contains(refusal), "{summary}");
    assert_eq!(summary["rounds"], 0);

    // What the device itself says, in numbers and in words.
    let device = ledger(&folder.path().join("keys-1"));
    assert_eq!((&device["ledger"], &device["participations"]), (&"device".into(), &2.into()));
    let tasks = device["tasks"].as_array().unwrap();
    let rounds = |task: &serde_json::Value| {
        let contributions = task["contributions"].as_array().unwrap();
        contributions.iter().map(|given| given["round"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let mut given: Vec<Vec<u64>> = tasks.iter().map(rounds).collect();
    given.sort();
    assert_eq!(given, [vec![], vec![1, 2]]);
    assert!((device["epsilon"].as_f64().unwrap() - 6.2).abs() < 0.05, "{device}");
    let output = run(fedveil().args(["privacy", "ledger"]).arg(folder.path().join("keys-1/record.json")));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("what has left this device") && said.contains("in all: 2 updates in 2 tasks"),
        "{said}"
    );

    let (code, error) =
        failure(&run(fedveil().args(["privacy", "ledger"]).arg(folder.path().join("tokens"))));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("it holds no ledger; accepted are a client's record file"), "{error}");
}

#[test]
fn a_client_refuses_a_plan_that_would_pass_its_owners_total() {
    let mut federation = Federation::start(2);
    let file = federation.path("strict.toml");
    std::fs::write(&file, LENIENT.replace("max_total_epsilon = 40.0", "max_total_epsilon = 5.0")).unwrap();
    let output = run(federation.client(1, &federation.token(1)).arg("--config").arg(file));
    let (code, error) = failure(&output);
    assert_eq!(code, 7, "{error}");
    let expected =
        "allows max_total_epsilon 5 at delta 0.00001 over all tasks; 0.0000 is spent, and 2 more rounds";
    assert!(error.contains(expected), "{error}");
    federation.kill();
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

/// Updates in the clear, noise of the coordinator, cohorts by coins that all fall: the whole way over the real programs.
#[test]
fn a_coordinator_that_is_trusted_adds_the_noise() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_clear = "[task]\nmode = \"insecure_plain\"\nrounds = 2\nphase_seconds = 3\n\
                        [cohort]\nclients = 6\nminimum = 6\nassumed_malicious = 0\npopulation = 6\n\
                        [privacy]\nplacement = \"central\"\nepsilon = 40.0\n\
                        [server]\nrule = \"mean\"\nassumed_byzantine = 0\n";
    let federation = Federation::start_task(folder, in_the_clear, "127.0.0.1:0", "out");
    // Whose owner said nothing of it does not take part.
    let (code, error) = failure(&run(&mut lenient(&federation, 1)));
    assert_eq!(code, 7, "{error}");
    assert!(error.contains("allow_insecure_plain = false"), "{error}");

    let clients: Vec<Child> = (1..=CLIENTS)
        .map(|number| {
            let mut command = lenient(&federation, number);
            let file = federation.path(&format!("client-{number}.toml"));
            std::fs::write(&file, format!("{LENIENT}allow_insecure_plain = true\n")).unwrap();
            spawn(&mut command)
        })
        .collect();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", failure(&output));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("last verified model is of round 2"), "{said}");
    }
    let (code, lines, folder) = federation.finish();
    assert_eq!(code, 0, "{lines}");
    assert!(lines.contains("INSECURE: mode insecure_plain"), "{lines}");
    let out = folder.path().join("out");
    let verified = run(fedveil().arg("verify").arg(&out));
    assert!(verified.status.success(), "{:?}", failure(&verified));
    let summary = json(&out.join("summary.json"));
    assert_eq!((&summary["rounds"], &summary["aggregation_mode"]), (&2.into(), &"insecure_plain".into()));
    assert!(
        std::fs::read_to_string(out.join("report.html")).unwrap().contains("INSECURE: mode insecure_plain")
    );
    // The secret behind the noise is with the other keys, and nowhere in what may be published.
    let noise = std::fs::read(folder.path().join("coordinator-keys/noise.key")).unwrap();
    assert_eq!(noise.len(), 32);
    for file in files(&out) {
        let bytes = std::fs::read(out.join(&file)).unwrap();
        assert!(!bytes.windows(32).any(|window| window == noise), "{}", file.display());
    }
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
