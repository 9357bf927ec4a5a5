//! `fedveil verify`: the offline check of a run folder on disk.
//!
//! The checks are [`verify_run`] and, where the group sums are in the folder, [`replay`], which closes every round again;
//! here are the folder that they read and the words in which they report. Whoever made the folder may be an adversary:
//! symbolic links are not followed, files and folders are read up to a limit, and no byte of a name reaches the terminal
//! as a control character.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use fedveil_coordinator::store::{STATE_FILE, SqliteStore};
use fedveil_coordinator_core::{Event, ReplayError, ReplayedRound, Store, StoreError, replay};
use fedveil_provenance::run::{KEY_FILE, manifest_path, parse_key};
use fedveil_provenance::{Digest, Files, Manifest, PartResult, RunReport, Signer, VerifyingKey, verify_run};
use serde_json::json;

use crate::exit::{Exit, Failure};

/// Most bytes of one file. The largest model that there can be takes a quarter of it.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most bytes of a key file.
const MAX_KEY_BYTES: u64 = 1 << 10;
/// Most files and folders below a run folder.
const MAX_ENTRIES: usize = 1_000_000;
/// Most folders inside one another.
const MAX_DEPTH: usize = 16;

/// Checks the run folder at `path`, writes what was found of each part to `out`, and fails if any part failed.
///
/// Without `trusted_key`, a file with the signer's public key, the folder is checked with the key that it brings
/// itself, and the report says so. With `json` the report is one JSON object, also where the check fails.
pub(crate) fn verify(
    path: &Path,
    trusted_key: Option<&Path>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let folder = Folder::open(path)?;
    let trusted = trusted_key.map(read_key).transpose()?;
    let mut report = verify_run(&folder, trusted.as_ref());
    let replay = folder.replay(&report, trusted.as_ref());
    if let Ok(parts) = &replay {
        report.parts.extend_from_slice(parts);
    }
    let skipped = replay.as_ref().err().map(String::as_str);
    let text = if json { as_json(&report, skipped) } else { as_table(path, &report, skipped) };
    out.write_all(text.as_bytes())
        .map_err(|error| Failure::new(Exit::General, format!("cannot print the report: {error}")))?;
    if report.ok() { Ok(()) } else { Err(Failure::new(Exit::General, failed_parts(&report))) }
}

fn read_key(path: &Path) -> Result<VerifyingKey, Failure> {
    let failure = |detail: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("trusted key {}: {detail}", path.display()))
    };
    let file = fs::File::open(path).map_err(|error| failure(&error))?;
    let text = read_limited(file, MAX_KEY_BYTES).map_err(|error| failure(&error))?;
    parse_key(&text).map_err(|error| failure(&error))
}

fn as_table(path: &Path, report: &RunReport, skipped: Option<&str>) -> String {
    let mut text = String::new();
    let width = report.parts.iter().map(|part| plain(&part.name).chars().count()).max().unwrap_or(0);
    let mut line =
        |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string can be written to");
    for part in &report.parts {
        let mark = if part.ok { "ok" } else { "FAILED" };
        line(format_args!("{mark:<6}  {:<width$}  {}", plain(&part.name), plain(&part.detail)));
    }
    match &report.signer {
        Some(Signer::Trusted(key)) => line(format_args!("signer: {key}, trusted")),
        Some(Signer::SelfAsserted(key)) => line(format_args!(
            "signer: {key}, self-asserted: the key comes from the folder itself; pass --trusted-key FILE to check it"
        )),
        None => line(format_args!("signer: cannot be told")),
    }
    if let Some(round) = report.newest.as_ref().map(|manifest| &manifest.round) {
        let privacy = &round.privacy;
        line(format_args!(
            "newest model: round {}, epsilon {} of {} spent at delta {}{}",
            round.round,
            privacy.epsilon_spent,
            privacy.epsilon_budget,
            privacy.delta,
            if privacy.private { "" } else { " by a simulation, whose noise is no secret" }
        ));
        line(format_args!(
            "privacy: unit {}, neighbours {}, accountant {}, sampling {}; {} noise, {}, noise multiplier {}, clip norm {}",
            privacy.unit,
            privacy.neighbours,
            privacy.accountant,
            privacy.sampling,
            privacy.placement,
            privacy.mechanism,
            privacy.noise_multiplier,
            privacy.clip_norm
        ));
    }
    if let Some(reason) = skipped {
        line(format_args!("decisions: not compared with group sums: {}", plain(reason)));
    }
    let verdict = if report.ok() { "verified" } else { "NOT verified" };
    line(format_args!("{}: {verdict}, {} parts", path.display(), report.parts.len()));
    text
}

fn as_json(report: &RunReport, skipped: Option<&str>) -> String {
    let signer = report.signer.map(|signer| match signer {
        Signer::Trusted(key) => json!({ "key": key, "trusted": true }),
        Signer::SelfAsserted(key) => json!({ "key": key, "trusted": false }),
    });
    let newest = report.newest.as_ref().map(|manifest| {
        let round = &manifest.round;
        json!({
            "round": round.round,
            "model": manifest.model,
            "privacy": round.privacy,
        })
    });
    let parts: Vec<_> = report
        .parts
        .iter()
        .map(|part| json!({ "name": part.name, "ok": part.ok, "detail": part.detail }))
        .collect();
    let report = json!({
        "ok": report.ok(),
        "signer": signer,
        "newest": newest,
        "parts": parts,
        "replay_skipped": skipped,
    });
    format!("{report:#}\n")
}

fn failed_parts(report: &RunReport) -> String {
    let failures: Vec<_> = report.failures().collect();
    let mut text = format!("verification failed in {} of {} parts", failures.len(), report.parts.len());
    for part in failures {
        text = text + "\n  " + &plain(&part.name) + ": " + &plain(&part.detail);
    }
    text
}

/// A text from the folder with its control characters written out.
fn plain(text: &str) -> String {
    text.chars().fold(String::new(), |mut plain, c| {
        if c.is_control() {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
        plain
    })
}

/// A run folder on disk.
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let failure = |detail: &str| Failure::new(Exit::Usage, format!("{}: {detail}", path.display()));
        // The folder that the user names may be a link; those inside are another matter.
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(Self { root: path.to_owned() }),
            Ok(_) => Err(failure("a file, expected the folder of a run")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(failure("there is no such folder, expected the folder of a run"))
            }
            Err(error) => Err(failure(&error.to_string())),
        }
    }

    /// Closes the published rounds of a folder that holds again, from the group sums in it: a part for each round, or why
    /// there is none.
    fn replay(&self, report: &RunReport, trusted: Option<&VerifyingKey>) -> Result<Vec<PartResult>, String> {
        if !report.ok() {
            return Err("the folder does not hold".to_owned());
        }
        let read = |path: &str| self.read(path)?.ok_or_else(|| format!("there is no {path} in the folder"));
        read(STATE_FILE)?;
        let key = trusted.map_or_else(|| parse_key(&read(KEY_FILE)?), |key| Ok(*key))?;
        let manifest = |leaf| {
            Manifest::verify(&read(&manifest_path(leaf))?, &[key], 1).map_err(|error| error.to_string())
        };
        let manifests = (0..report.manifests).map(manifest).collect::<Result<Vec<_>, _>>()?;
        let failed = |name: String, error: &dyn std::fmt::Display| PartResult {
            name,
            ok: false,
            detail: error.to_string(),
        };
        let events = match SqliteStore::read(&self.root) {
            Ok(events) => events,
            Err(error) => return Ok(vec![failed(STATE_FILE.to_owned(), &error)]),
        };
        match replay(&key, &manifests, &events, &Blobs(self)) {
            Ok(rounds) => {
                let part = |ReplayedRound { round, outcome }| {
                    let name = format!("replay of round {round}");
                    match outcome {
                        Ok(groups) => {
                            let detail = format!(
                                "{groups} decisions, their numbers and the model follow from the sums"
                            );
                            PartResult { name, ok: true, detail }
                        }
                        Err(error) => failed(name, &error),
                    }
                };
                Ok(rounds.into_iter().map(part).collect())
            }
            Err(error @ ReplayError::NoSums) => Err(error.to_string()),
            Err(error) => Ok(vec![failed(STATE_FILE.to_owned(), &error)]),
        }
    }

    /// Adds the paths of the files below `folder`, itself at the relative path `prefix`.
    fn collect(&self, prefix: &str, depth: usize, paths: &mut Vec<String>) -> Result<(), String> {
        let failure = |error: io::Error| format!("cannot list {:?}: {error}", plain(prefix));
        if depth > MAX_DEPTH {
            return Err(format!("folders inside one another: more than {MAX_DEPTH}"));
        }
        for entry in fs::read_dir(self.root.join(prefix)).map_err(failure)? {
            let entry = entry.map_err(failure)?;
            let name = entry.file_name();
            // A name made readable could be taken for that of a listed file.
            let name =
                name.to_str().ok_or_else(|| format!("a file name is not UTF-8: {}", name.display()))?;
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            if entry.file_type().map_err(failure)?.is_dir() {
                self.collect(&path, depth + 1, paths)?;
            } else {
                paths.push(path);
            }
            if paths.len() > MAX_ENTRIES {
                return Err(format!("more than {MAX_ENTRIES} files"));
            }
        }
        Ok(())
    }
}

/// The blobs of a run folder, for reading.
struct Blobs<'a>(&'a Folder);

impl Store for Blobs<'_> {
    fn append(&self, _events: &[Event], _blobs: &[Vec<u8>]) -> Result<(), StoreError> {
        Err(StoreError("a run folder is only read".to_owned()))
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError> {
        match self.0.read(&format!("blobs/{digest}")) {
            Ok(Some(bytes)) if Digest::of(&bytes) == *digest => Ok(bytes.into()),
            Ok(Some(_)) => Err(StoreError(format!("the content of blob {digest} does not match its name"))),
            Ok(None) => Err(StoreError(format!("there is no blob {digest}"))),
            Err(error) => Err(StoreError(format!("blob {digest}: {error}"))),
        }
    }

    fn events(&self) -> Result<Vec<Event>, StoreError> {
        SqliteStore::read(&self.0.root)
    }
}

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let inside = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', ':']);
        if !path.split('/').all(inside) {
            return Err("not a path inside the folder".to_owned());
        }
        let mut full = self.root.clone();
        let mut is_file = false;
        for part in path.split('/') {
            full.push(part);
            let kind = match fs::symlink_metadata(&full) {
                Ok(found) => found.file_type(),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(None);
                }
                Err(error) => return Err(error.to_string()),
            };
            if kind.is_symlink() {
                return Err("a symbolic link, which is not followed".to_owned());
            }
            is_file = kind.is_file();
        }
        if !is_file {
            return Err("not a regular file".to_owned());
        }
        let file = fs::File::open(&full).map_err(|error| error.to_string())?;
        read_limited(file, MAX_FILE_BYTES).map(Some).map_err(|error| error.to_string())
    }

    fn list(&self) -> Result<Vec<String>, String> {
        let mut paths = Vec::new();
        self.collect("", 0, &mut paths)?;
        paths.sort();
        Ok(paths)
    }
}

/// All bytes of a file, if there are no more than `limit`.
fn read_limited(file: fs::File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ed25519_dalek::SigningKey;
    use fedveil_provenance::run::{
        INDEX_FILE, KEY_FILE, MANIFEST_FILE, checkpoint_path, encode_key, manifest_path,
    };
    use fedveil_provenance::{Checkpoint, Digest, Log, Manifest, PrivacyClaim, RoundPredicate, build_index};
    use tempfile::TempDir;

    use super::*;

    fn signing_key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    /// A valid run folder with one manifest, a summary, and whatever `extra` has.
    fn run_folder(extra: &[(&str, &[u8])]) -> TempDir {
        let key = signing_key();
        let model = b"weights".to_vec();
        let round = RoundPredicate {
            round: 0,
            parent: None,
            task_digest: Digest::of(b"task"),
            cohort_commitment: Digest::of(b"cohort"),
            groups: Vec::new(),
            rejected: Vec::new(),
            rule: "multi-krum".to_owned(),
            privacy: PrivacyClaim {
                epsilon_spent: 2.5,
                epsilon_budget: 15.0,
                delta: 1e-5,
                unit: "user".to_owned(),
                neighbours: "zero-out".to_owned(),
                accountant: "zcdp".to_owned(),
                sampling: "full".to_owned(),
                placement: "distributed".to_owned(),
                mechanism: "discrete-gaussian".to_owned(),
                noise_multiplier: 1.12,
                clip_norm: 0.5,
                adaptive_clip: false,
                private: true,
            },
            software: "fedveil test".to_owned(),
            files: Vec::new(),
        };
        let manifest = Manifest { model: Digest::of(&model), round }.sign(&[&key]).unwrap();
        let mut log = Log::new();
        log.append(manifest.clone());
        let checkpoint = Checkpoint::sign("fedveil.test/run", &log.head(), &key).unwrap();
        let mut files = BTreeMap::from([
            (KEY_FILE.to_owned(), encode_key(&key.verifying_key()).into_bytes()),
            ("model.safetensors".to_owned(), model),
            (MANIFEST_FILE.to_owned(), manifest.clone()),
            (manifest_path(0), manifest),
            (checkpoint_path(0), checkpoint.into_bytes()),
            ("summary.json".to_owned(), b"{}".to_vec()),
        ]);
        files.extend(extra.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())));
        let digests: Vec<_> = files.iter().map(|(path, bytes)| (path.clone(), Digest::of(bytes))).collect();
        files.insert(INDEX_FILE.to_owned(), build_index(&digests, &key).unwrap());

        let folder = TempDir::new().unwrap();
        for (path, bytes) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    /// The report, and the failure if the check failed.
    fn check(folder: &Path, key: Option<&Path>, json: bool) -> (String, Option<Failure>) {
        let mut out = Vec::new();
        let failure = verify(folder, key, json, &mut out).err();
        (String::from_utf8(out).unwrap(), failure)
    }

    #[test]
    fn valid_folder_is_self_asserted_without_a_key() {
        let folder = run_folder(&[]);
        let (text, failure) = check(folder.path(), None, false);
        assert_eq!(failure, None, "{text}");
        assert!(
            text.contains("self-asserted: the key comes from the folder itself; pass --trusted-key"),
            "{text}"
        );
        assert!(text.contains("newest model: round 0, epsilon 2.5 of 15 spent at delta 0.00001"), "{text}");
        assert!(
            text.contains(
                "privacy: unit user, neighbours zero-out, accountant zcdp, sampling full; distributed noise, \
                 discrete-gaussian, noise multiplier 1.12, clip norm 0.5\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("not compared with group sums: there is no state.sqlite in the folder\n"),
            "{text}"
        );
        assert!(text.ends_with(": verified, 7 parts\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), 7, "{text}");
    }

    #[test]
    fn trusted_key_is_compared() {
        let folder = run_folder(&[]);
        let keys = TempDir::new().unwrap();
        let [right, wrong] = [("right", 7), ("wrong", 8)].map(|(name, seed)| {
            let path = keys.path().join(name);
            fs::write(&path, encode_key(&SigningKey::from_bytes(&[seed; 32]).verifying_key())).unwrap();
            path
        });
        let (text, failure) = check(folder.path(), Some(&right), false);
        assert!(
            failure.is_none() && text.contains(", trusted\n") && !text.contains("self-asserted"),
            "{text}"
        );
        let (text, failure) = check(folder.path(), Some(&wrong), false);
        let failure = failure.expect("another signer is refused");
        assert_eq!(failure.exit, Exit::General);
        assert!(failure.message.contains(INDEX_FILE), "{failure}");
        assert!(text.contains("signer: cannot be told") && text.contains("NOT verified"), "{text}");
    }

    #[test]
    fn unusable_trusted_key_is_a_usage_error() {
        let folder = run_folder(&[]);
        let key = folder.path().join("summary.json");
        let failure = check(folder.path(), Some(&key), false).1.unwrap();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("summary.json: not an Ed25519 public key"), "{failure}");
        let missing = check(folder.path(), Some(&folder.path().join("none")), false).1.unwrap();
        assert_eq!(missing.exit, Exit::Usage);
        fs::write(&key, vec![b'0'; 2000]).unwrap();
        let long = check(folder.path(), Some(&key), false).1.unwrap();
        assert!(long.message.ends_with("larger than 1024 bytes"), "{long}");
    }

    #[test]
    fn one_flipped_byte_of_any_file_fails_and_is_named() {
        let folder = run_folder(&[("notes/run.txt", b"text")]);
        let paths = Folder { root: folder.path().to_owned() }.list().unwrap();
        assert_eq!(paths.len(), 8);
        for path in paths {
            let file = folder.path().join(&path);
            let intact = fs::read(&file).unwrap();
            let mut damaged = intact.clone();
            damaged[intact.len() / 2] ^= 1;
            fs::write(&file, damaged).unwrap();
            let (text, failure) = check(folder.path(), None, false);
            let failure = failure.unwrap_or_else(|| panic!("{path} was changed\n{text}"));
            assert_eq!(failure.exit, Exit::General);
            assert!(failure.message.contains(&format!("\n  {path}: ")), "{path}: {failure}");
            assert!(text.lines().any(|line| line.starts_with("FAILED") && line.contains(&path)), "{text}");
            fs::write(&file, intact).unwrap();
        }
        assert_eq!(check(folder.path(), None, false).1, None);
    }

    #[test]
    fn missing_and_unlisted_files_are_named() {
        let folder = run_folder(&[]);
        fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        fs::write(folder.path().join("more\u{1b}[2J.txt"), "text").unwrap();
        let (text, failure) = check(folder.path(), None, false);
        let message = failure.unwrap().message;
        assert!(message.starts_with("verification failed in 2 of 8 parts\n"), "{message}");
        assert!(message.contains("\n  model.safetensors: missing"), "{message}");
        assert!(message.contains("\n  more\\u{1b}[2J.txt: not listed"), "{message}");
        assert!(
            !text.contains('\u{1b}') && !message.contains('\u{1b}'),
            "control characters are written out"
        );
    }

    #[test]
    fn json_report_is_printed_in_either_case() {
        let folder = run_folder(&[]);
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (text, failure) = check(folder.path(), None, true);
        let report = parse(&text);
        assert_eq!(failure, None);
        assert_eq!((&report["ok"], &report["signer"]["trusted"]), (&json!(true), &json!(false)));
        assert_eq!(report["newest"]["privacy"]["epsilon_spent"], 2.5);
        assert_eq!(report["parts"].as_array().unwrap().len(), 7);

        fs::write(folder.path().join("summary.json"), "{ }").unwrap();
        let (text, failure) = check(folder.path(), None, true);
        let report = parse(&text);
        assert_eq!((failure.unwrap().exit, &report["ok"]), (Exit::General, &json!(false)));
        let failed: Vec<_> =
            report["parts"].as_array().unwrap().iter().filter(|part| part["ok"] == false).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0]["name"], "summary.json");
    }

    #[test]
    fn what_is_no_folder_is_a_usage_error() {
        let folder = run_folder(&[]);
        for (path, detail) in
            [("none", "there is no such folder"), ("summary.json", "a file, expected the folder")]
        {
            let (text, failure) = check(&folder.path().join(path), None, false);
            let failure = failure.unwrap();
            assert_eq!((text.as_str(), failure.exit), ("", Exit::Usage));
            assert!(failure.message.contains(detail) && failure.message.contains(path), "{failure}");
        }
        let empty = TempDir::new().unwrap();
        let (_, failure) = check(empty.path(), None, false);
        let failure = failure.expect("an empty folder is no run");
        assert_eq!(failure.exit, Exit::General);
        assert!(failure.message.contains("signing-key.pub: missing"), "{failure}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        use std::os::unix::fs::symlink;
        let folder = run_folder(&[("notes/run.txt", b"text")]);
        let outside = TempDir::new().unwrap();
        fs::write(outside.path().join("run.txt"), "text").unwrap();
        fs::remove_dir_all(folder.path().join("notes")).unwrap();
        symlink(outside.path(), folder.path().join("notes")).unwrap();
        let message = check(folder.path(), None, false).1.unwrap().message;
        assert!(message.contains("\n  notes/run.txt: a symbolic link, which is not followed"), "{message}");
        assert!(message.contains("\n  notes: not listed"), "{message}");

        fs::remove_file(folder.path().join("notes")).unwrap();
        fs::create_dir(folder.path().join("notes")).unwrap();
        symlink(outside.path().join("run.txt"), folder.path().join("notes/run.txt")).unwrap();
        let message = check(folder.path(), None, false).1.unwrap().message;
        assert!(message.contains("\n  notes/run.txt: a symbolic link"), "{message}");
    }

    #[test]
    fn paths_stay_inside_the_folder() {
        let folder = run_folder(&[]);
        let files = Folder { root: folder.path().join("manifests") };
        for path in ["../summary.json", "/etc/hostname", "", ".", "a//b", "..\\summary.json"] {
            assert!(files.read(path).is_err(), "{path:?}");
        }
        assert_eq!(files.read("none.json"), Ok(None));
        assert!(files.read("00000.dsse.json").unwrap().is_some());
    }

    #[test]
    fn limits_hold() {
        let folder = TempDir::new().unwrap();
        let long = folder.path().join("long");
        fs::write(&long, [0; 11]).unwrap();
        assert!(read_limited(fs::File::open(&long).unwrap(), 10).is_err());
        assert_eq!(read_limited(fs::File::open(&long).unwrap(), 11).unwrap().len(), 11);
        let deep = folder.path().join(vec!["d"; MAX_DEPTH + 1].join("/"));
        fs::create_dir_all(deep).unwrap();
        let error = Folder { root: folder.path().to_owned() }.list().unwrap_err();
        assert_eq!(error, "folders inside one another: more than 16");
    }
}
