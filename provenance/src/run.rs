//! The offline check of a run folder, and the signed index that makes it possible.
//!
//! ```text
//! index.dsse.json                signed statement that names every other file with its digest
//! signing-key.pub                one line: the Ed25519 public key in hex
//! model.safetensors              the last model
//! manifest.dsse.json             its manifest, the same bytes as the last of manifests/
//! manifests/00000.dsse.json …    leaf 0, 1, … of the log
//! checkpoints/00000.checkpoint … the log when it ended with that leaf
//! rounds.jsonl  summary.json  report.html  …   whatever else the index lists
//! ```
//!
//! All leaves are present, so the log is not checked by proofs: it is rebuilt, and every checkpoint must have signed
//! the root of the leaves so far. That implies the inclusion of every manifest and the consistency of every two
//! checkpoints.
//!
//! Invariants: the folder passes only if every part passes. A part is a file; damage to one file fails that part and
//! no other, and a part whose check needs a damaged file says what could not be compared. Where the index or the key
//! does not hold, nothing else is reported, because nothing else can be believed.

use std::collections::BTreeMap;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{self, Checkpoint},
    digest::{Digest, parse_hex},
    dsse::{DsseError, Envelope, key_id},
    excerpt,
    manifest::{FileEntry, MODEL_FILE, Manifest, ManifestError, check_path},
    merkle::Log,
    statement::{self, StatementError},
};

/// The signed index.
pub const INDEX_FILE: &str = "index.dsse.json";
/// The public key that signed the run.
pub const KEY_FILE: &str = "signing-key.pub";
/// The newest manifest.
pub const MANIFEST_FILE: &str = "manifest.dsse.json";

/// The predicate type of a run index.
pub const RUN_PREDICATE_TYPE: &str = "urn:fedveil:run:v1";

const MANIFESTS: &str = "manifests/";
const CHECKPOINTS: &str = "checkpoints/";

/// The file of the manifest that is leaf `leaf` of the log.
pub fn manifest_path(leaf: u64) -> String {
    format!("{MANIFESTS}{leaf:05}.dsse.json")
}

/// The file of the checkpoint of the log that ends with leaf `leaf`.
pub fn checkpoint_path(leaf: u64) -> String {
    format!("{CHECKPOINTS}{leaf:05}.checkpoint")
}

/// The content of [`KEY_FILE`].
pub fn encode_key(key: &VerifyingKey) -> String {
    format!("{}\n", hex::encode(key.as_bytes()))
}

/// Reads a public key: 64 lower-case hex digits, with or without a newline.
pub fn parse_key(text: &[u8]) -> Result<VerifyingKey, String> {
    let text = std::str::from_utf8(text).map_err(|_| "not text; a public key is 64 hex digits".to_owned())?;
    let bytes = parse_hex(text.strip_suffix('\n').unwrap_or(text))
        .map_err(|error| format!("not an Ed25519 public key: {error}"))?;
    let key = VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak());
    key.ok_or_else(|| "not an Ed25519 public key: no point of the curve, or one of small order".to_owned())
}

/// A run folder, wherever it is.
pub trait Files {
    /// The bytes of a file; `None` where there is none; an error in words where it cannot be read.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String>;

    /// The paths of all files in the folder and below it, relative, with `/` between their parts.
    fn list(&self) -> Result<Vec<String>, String>;
}

/// Why an index was not made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A path outside the folder.
    #[error(transparent)]
    Path(#[from] ManifestError),
    /// An index cannot list itself.
    #[error("{INDEX_FILE} cannot be listed in itself")]
    Itself,
    /// One path, two files.
    #[error("\"{0}\" is listed twice")]
    Twice(String),
    /// A file without which a run cannot be verified, or one too many in a numbered series.
    #[error("{0}")]
    Layout(String),
}

/// What was found about a run folder.
#[derive(Clone, Debug, PartialEq)]
pub struct RunReport {
    /// Who signed it; `None` where that cannot be told.
    pub signer: Option<Signer>,
    /// Every file with what was found about it: the index first, then the files that it lists, then unlisted ones.
    pub parts: Vec<PartResult>,
    /// The newest manifest, where it holds.
    pub newest: Option<Manifest>,
    /// Manifests in the index, the initial model's among them.
    pub manifests: u64,
}

/// Who signed a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The key that the caller trusts.
    Trusted(Digest),
    /// The key that the folder itself names: whoever made the folder may have made it too.
    SelfAsserted(Digest),
}

/// What was found about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartResult {
    /// Path of the file.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
    /// What was checked, or what is wrong.
    pub detail: String,
}

impl RunReport {
    /// Whether every part passed.
    pub fn ok(&self) -> bool {
        self.signer.is_some() && self.parts.iter().all(|part| part.ok)
    }

    /// The parts that did not pass.
    pub fn failures(&self) -> impl Iterator<Item = &PartResult> {
        self.parts.iter().filter(|part| !part.ok)
    }
}

/// The signed index of `files`, the content of [`INDEX_FILE`].
///
/// It lists every other file of the folder, [`KEY_FILE`] included, and is written last.
pub fn build_index(files: &[(String, Digest)], key: &SigningKey) -> Result<Vec<u8>, IndexError> {
    let entries = files.iter().map(|(path, digest)| FileEntry { path: path.clone(), digest: *digest });
    let listed = check_index(entries)?;
    let subject = listed.into_iter().map(|(path, digest)| FileEntry { path, digest });
    Ok(statement::sign(RUN_PREDICATE_TYPE, subject, &RunPredicate {}, &[key]))
}

/// Checks a run folder, with the key that the caller trusts, or with the one that the folder names.
pub fn verify_run(files: &dyn Files, trusted: Option<&VerifyingKey>) -> RunReport {
    let (key, signer) = match trusted {
        Some(key) => (*key, Signer::Trusted(key_id(key))),
        None => match read(files, KEY_FILE).and_then(|text| parse_key(&text)) {
            Ok(key) => (key, Signer::SelfAsserted(key_id(&key))),
            Err(detail) => return RunReport::only_failure(KEY_FILE, detail),
        },
    };
    let listed = match read_index(files, &key, trusted.is_some()) {
        Ok(listed) => listed,
        Err((name, detail)) => return RunReport::only_failure(name, detail),
    };
    let manifests = count(&listed, MANIFESTS);
    let mut check = Check { key, listed, parts: BTreeMap::new(), intact: BTreeMap::new() };
    check.digests(files);
    check.key_file();
    let newest = check.history(manifests);
    check.newest(manifests, newest.as_ref());

    let index = (INDEX_FILE.to_owned(), Ok(format!("signature, {} listed files", check.listed.len())));
    let unlisted = unlisted(files, &check.listed);
    let parts = [index].into_iter().chain(check.parts).chain(unlisted).map(PartResult::from).collect();
    RunReport { signer: Some(signer), parts, newest, manifests }
}

type Verdict = Result<String, String>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunPredicate {}

/// The state of one check: verdicts by path, and the bytes of the key, manifests and checkpoints whose digests match.
struct Check {
    key: VerifyingKey,
    listed: BTreeMap<String, Digest>,
    parts: BTreeMap<String, Verdict>,
    intact: BTreeMap<String, Vec<u8>>,
}

impl Check {
    /// Compares every listed file with its digest.
    fn digests(&mut self, files: &dyn Files) {
        for (path, expected) in &self.listed {
            let verdict = read(files, path).and_then(|bytes| {
                let found = Digest::of(&bytes);
                if found != *expected {
                    return Err(format!("its digest is {found}, the index says {expected}"));
                }
                if path == KEY_FILE || path.starts_with(MANIFESTS) || path.starts_with(CHECKPOINTS) {
                    self.intact.insert(path.clone(), bytes);
                }
                Ok("digest".to_owned())
            });
            self.parts.insert(path.clone(), verdict);
        }
    }

    /// The folder names the key that signed it, not another one.
    fn key_file(&mut self) {
        let Some(text) = self.intact.remove(KEY_FILE) else { return };
        let verdict = match parse_key(&text) {
            Ok(key) if key == self.key => Ok("the key that signed the index".to_owned()),
            Ok(key) => {
                Err(format!("names key {}, the index is signed by {}", key_id(&key), key_id(&self.key)))
            }
            Err(error) => Err(error),
        };
        self.refine(KEY_FILE, verdict);
    }

    /// Checks manifests and checkpoints in the order of the log; returns the newest manifest, if it holds.
    fn history(&mut self, manifests: u64) -> Option<Manifest> {
        let mut log = Log::new();
        let mut damaged: Option<String> = None;
        let mut origin: Option<String> = None;
        let mut previous: Option<Manifest> = None;
        for leaf in 0..manifests {
            let path = manifest_path(leaf);
            let parent = leaf.checked_sub(1).map(|leaf| self.listed[&manifest_path(leaf)]);
            if let Some(bytes) = self.intact.remove(&path) {
                let manifest = self.manifest(&bytes, parent, previous.as_ref());
                let verdict = manifest.as_ref().map(|_| "signature, parent, round, task, privacy".to_owned());
                self.refine(&path, verdict.map_err(String::clone));
                previous = manifest.ok();
                log.append(bytes);
            } else {
                previous = None;
                damaged.get_or_insert(path);
            }
            let path = checkpoint_path(leaf);
            if let Some(text) = self.intact.remove(&path) {
                let log = damaged.as_deref().map_or(Ok(&log), Err);
                let verdict = self.checkpoint(&text, &mut origin, leaf, log);
                self.refine(&path, verdict);
            }
        }
        previous
    }

    fn manifest(
        &self,
        bytes: &[u8],
        parent: Option<Digest>,
        previous: Option<&Manifest>,
    ) -> Result<Manifest, String> {
        let manifest = Manifest::verify(bytes, &[self.key], 1).map_err(|error| error.to_string())?;
        let round = &manifest.round;
        if round.parent != parent {
            let name = |digest: Option<Digest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
            return Err(format!("its parent is {}, expected {}", name(round.parent), name(parent)));
        }
        if (round.round == 0) != parent.is_none() {
            return Err(format!("round {} at this place of the history", round.round));
        }
        if let Some(previous) = previous.map(|previous| &previous.round) {
            if round.round <= previous.round {
                return Err(format!("round {} follows round {}", round.round, previous.round));
            }
            round.check_rejected(previous.round).map_err(|error| error.to_string())?;
            if round.task_digest != previous.task_digest {
                return Err(format!("task {} follows task {}", round.task_digest, previous.task_digest));
            }
            previous
                .privacy
                .agrees_with(&round.privacy)
                .map_err(|conflict| format!("its privacy is not that of the manifest before: {conflict}"))?;
            let (before, spent) = (previous.privacy.epsilon_spent, round.privacy.epsilon_spent);
            if spent < before {
                return Err(format!("epsilon_spent falls from {before} to {spent}"));
            }
        }
        Ok(manifest)
    }

    /// `log`: the log so far, or the path of the damaged manifest that keeps it from being rebuilt.
    fn checkpoint(
        &self,
        text: &[u8],
        origin: &mut Option<String>,
        leaf: u64,
        log: Result<&Log, &str>,
    ) -> Verdict {
        let text = std::str::from_utf8(text).map_err(|_| "not text".to_owned())?;
        let claimed = checkpoint::danger_unverified_origin(text).map_err(|error| error.to_string())?;
        let origin = origin.get_or_insert_with(|| claimed.to_owned());
        let head = Checkpoint::verify(text, origin, &self.key).map_err(|error| error.to_string())?.head;
        if head.size != leaf + 1 {
            return Err(format!("the log has {} leaves in it, expected {}", head.size, leaf + 1));
        }
        match log {
            Ok(log) if log.root() == head.root => {
                Ok("signature, size, root of the manifests until here".to_owned())
            }
            Ok(log) => Err(format!("its root is {}, that of the manifests is {}", head.root, log.root())),
            Err(damaged) => Ok(format!("signature, size (root not compared: {damaged} is damaged)")),
        }
    }

    /// Compares the top-level manifest and the model with the newest manifest of the history.
    fn newest(&mut self, manifests: u64, newest: Option<&Manifest>) {
        let last = manifest_path(manifests - 1);
        let verdict = if self.listed[MANIFEST_FILE] == self.listed[&last] {
            Ok(format!("same as {last}"))
        } else {
            Err(format!("not the same as {last}"))
        };
        self.refine(MANIFEST_FILE, verdict);
        let verdict = match newest {
            Some(manifest) if manifest.model == self.listed[MODEL_FILE] => Ok(format!("subject of {last}")),
            Some(manifest) => Err(format!("{last} is about the model {}", manifest.model)),
            None => Ok(format!("not compared: {last} does not hold")),
        };
        self.refine(MODEL_FILE, verdict);
    }

    /// Adds a finding about a file to what was found before; the first failure stands.
    fn refine(&mut self, path: &str, finding: Verdict) {
        let verdict = self.parts.get_mut(path).expect("findings are about listed files");
        if let Ok(detail) = verdict {
            *verdict = finding.map(|more| format!("{detail}, {more}"));
        }
    }
}

/// The files that the index lists, or the name of the part that fails and why.
fn read_index(
    files: &dyn Files,
    key: &VerifyingKey,
    trusted: bool,
) -> Result<BTreeMap<String, Digest>, (&'static str, String)> {
    let bytes = read(files, INDEX_FILE).map_err(|detail| (INDEX_FILE, detail))?;
    match statement::verify::<RunPredicate>(&bytes, RUN_PREDICATE_TYPE, &[*key], 1) {
        Ok((subject, RunPredicate {})) => {
            check_index(subject).map_err(|error| (INDEX_FILE, error.to_string()))
        }
        Err(StatementError::Envelope(DsseError::UnknownSigner { .. }))
            if !trusted && key_is_damaged(files, &bytes) =>
        {
            Err((KEY_FILE, "not the key that signed the index".to_owned()))
        }
        Err(error) => Err((INDEX_FILE, error.to_string())),
    }
}

/// Where index and key do not fit: whether the index, if it is to be believed, says that the key is the damaged one.
/// It only names the part; either way the folder does not pass.
fn key_is_damaged(files: &dyn Files, index: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(index) else { return false };
    let payload = envelope.danger_unverified_payload();
    let Ok((subject, RunPredicate {})) = statement::parse(payload, RUN_PREDICATE_TYPE) else { return false };
    let Ok(key) = read(files, KEY_FILE) else { return false };
    let listed = subject.iter().find(|file| file.path == KEY_FILE);
    listed.is_some_and(|file| file.digest != Digest::of(&key))
}

/// The listed files by path, if the list has what a run consists of.
fn check_index(files: impl IntoIterator<Item = FileEntry>) -> Result<BTreeMap<String, Digest>, IndexError> {
    let mut listed = BTreeMap::new();
    for FileEntry { path, digest } in files {
        check_path(&path)?;
        if path == INDEX_FILE {
            return Err(IndexError::Itself);
        }
        if let Some(path) = listed.insert(path.clone(), digest).map(|_| path) {
            return Err(IndexError::Twice(excerpt(&path)));
        }
    }
    let manifests = count(&listed, MANIFESTS);
    let numbered = (0..manifests.max(1)).flat_map(|leaf| [manifest_path(leaf), checkpoint_path(leaf)]);
    let single = [KEY_FILE, MODEL_FILE, MANIFEST_FILE].map(str::to_owned);
    if let Some(missing) = single.into_iter().chain(numbered).find(|path| !listed.contains_key(path)) {
        return Err(IndexError::Layout(format!("{missing} is not listed in {INDEX_FILE}")));
    }
    let checkpoints = count(&listed, CHECKPOINTS);
    if checkpoints != manifests {
        return Err(IndexError::Layout(format!(
            "{checkpoints} checkpoints are listed for {manifests} manifests"
        )));
    }
    Ok(listed)
}

/// How many listed files are in the folder `prefix`.
fn count(listed: &BTreeMap<String, Digest>, prefix: &str) -> u64 {
    listed.keys().filter(|path| path.starts_with(prefix)).count() as u64
}

/// Failures for the files of the folder that the index does not list.
fn unlisted(files: &dyn Files, listed: &BTreeMap<String, Digest>) -> BTreeMap<String, Verdict> {
    match files.list() {
        Ok(present) => present
            .into_iter()
            .filter(|path| path != INDEX_FILE && !listed.contains_key(path))
            .map(|path| (path, Err(format!("not listed in {INDEX_FILE}"))))
            .collect(),
        Err(error) => BTreeMap::from([(".".to_owned(), Err(error))]),
    }
}

fn read(files: &dyn Files, path: &str) -> Result<Vec<u8>, String> {
    files.read(path)?.ok_or_else(|| "missing".to_owned())
}

impl RunReport {
    fn only_failure(name: &str, detail: String) -> Self {
        let part = PartResult { name: name.to_owned(), ok: false, detail };
        Self { signer: None, parts: vec![part], newest: None, manifests: 0 }
    }
}

impl From<(String, Verdict)> for PartResult {
    fn from((name, verdict): (String, Verdict)) -> Self {
        let ok = verdict.is_ok();
        let (Ok(detail) | Err(detail)) = verdict;
        Self { name, ok, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RejectedRound;
    use crate::{
        fixtures::{Folder, History, ORIGIN, key, manifest},
        merkle::TreeHead,
    };

    fn failures(report: &RunReport) -> Vec<&str> {
        report.failures().map(|part| part.name.as_str()).collect()
    }

    /// The parts that fail, with and without the trusted key, which must be the same.
    fn check(folder: &Folder) -> Vec<String> {
        let report = verify_run(folder, Some(&key(1).verifying_key()));
        let names = failures(&report);
        assert_eq!(failures(&verify_run(folder, None)), names);
        assert_eq!(report.ok(), names.is_empty());
        names.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_whole_run_passes() {
        let folder = History::of(3).folder();
        let key = key(1).verifying_key();
        let report = verify_run(&folder, Some(&key));
        assert!(report.ok(), "{:?}", report.failures().collect::<Vec<_>>());
        assert_eq!(report.signer, Some(Signer::Trusted(key_id(&key))));
        assert_eq!(report.manifests, 4);
        assert_eq!(report.newest.unwrap().round.round, 3);
        let names: Vec<_> = report.parts.iter().map(|part| &part.name).collect();
        assert_eq!(names[0], INDEX_FILE);
        assert_eq!(names.len(), folder.0.len());
        assert!(report.parts.iter().all(|part| !part.detail.contains("not compared")));
        assert_eq!(verify_run(&folder, None).signer, Some(Signer::SelfAsserted(key_id(&key))));
    }

    #[test]
    fn a_run_that_ended_before_its_first_round_passes() {
        assert_eq!(check(&History::of(0).folder()), Vec::<String>::new());
    }

    /// Every byte of every file, the index included.
    #[test]
    fn one_flipped_byte_fails_exactly_its_own_part() {
        let folder = History::of(2).folder();
        let trusted = key(1).verifying_key();
        for (path, bytes) in &folder.0 {
            for at in 0..bytes.len() {
                let mut damaged = folder.clone();
                damaged.0.get_mut(path).unwrap()[at] ^= 1 << (at / 2 % 8);
                // The two ways to verify take turns: each costs many signatures.
                let report = verify_run(&damaged, at.is_multiple_of(2).then_some(&trusted));
                assert_eq!(failures(&report), [path.as_str()], "byte {at} of {path}");
                assert!(!report.ok());
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = History::of(2).folder();
        for path in folder.0.keys().filter(|path| *path != KEY_FILE) {
            let mut damaged = folder.clone();
            damaged.0.remove(path);
            assert_eq!(check(&damaged), [path.as_str()]);
        }
        let mut damaged = folder;
        damaged.0.remove(KEY_FILE);
        assert_eq!(failures(&verify_run(&damaged, None)), [KEY_FILE]);
        assert_eq!(failures(&verify_run(&damaged, Some(&key(1).verifying_key()))), [KEY_FILE]);
    }

    #[test]
    fn an_extra_file_is_named() {
        let mut folder = History::of(1).folder();
        folder.0.insert("manifests/00002.dsse.json".to_owned(), b"{}".to_vec());
        folder.0.insert("notes.txt".to_owned(), vec![]);
        assert_eq!(check(&folder), ["manifests/00002.dsse.json", "notes.txt"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        struct Broken(Folder);
        impl Files for Broken {
            fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
                if path == MODEL_FILE { Err("permission denied".to_owned()) } else { self.0.read(path) }
            }
            fn list(&self) -> Result<Vec<String>, String> {
                Err("cannot be listed".to_owned())
            }
        }
        let report = verify_run(&Broken(History::of(1).folder()), None);
        assert_eq!(failures(&report), [MODEL_FILE, "."]);
        assert!(report.failures().any(|part| part.detail == "permission denied"));
    }

    #[test]
    fn another_signer_is_not_trusted() {
        let folder = (History { key: key(2), ..History::new() }).then_push().folder();
        assert!(verify_run(&folder, None).ok());
        let report = verify_run(&folder, Some(&key(1).verifying_key()));
        assert_eq!(failures(&report), [INDEX_FILE]);
        assert_eq!(report.signer, None);
    }

    impl History {
        fn then_push(mut self) -> Self {
            self.push(0);
            self
        }
    }

    /// The folder after `change`, indexed and signed anew by its own key: what a dishonest signer can make.
    fn resigned(history: &History, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Vec<String> {
        let mut folder = history.folder();
        change(&mut folder.0);
        folder.index(&key(1));
        check(&folder)
    }

    #[test]
    fn the_signer_cannot_exchange_the_model() {
        let names =
            resigned(&History::of(2), |files| drop(files.insert(MODEL_FILE.to_owned(), b"other".to_vec())));
        assert_eq!(names, [MODEL_FILE]);
    }

    #[test]
    fn the_signer_cannot_show_an_older_manifest() {
        let names = resigned(&History::of(2), |files| {
            files.insert(MANIFEST_FILE.to_owned(), files[&manifest_path(1)].clone());
        });
        assert_eq!(names, [MANIFEST_FILE]);
    }

    #[test]
    fn the_folder_names_the_key_that_signed_it() {
        let mut folder = History::of(1).folder();
        folder.0.insert(KEY_FILE.to_owned(), encode_key(&key(2).verifying_key()).into_bytes());
        folder.index(&key(1));
        assert_eq!(failures(&verify_run(&folder, Some(&key(1).verifying_key()))), [KEY_FILE]);
        assert_eq!(failures(&verify_run(&folder, None)), [INDEX_FILE]);
    }

    #[test]
    fn a_rewritten_history_does_not_match_its_checkpoints() {
        // Round 1 is replaced after the checkpoints were signed: every root from there on differs.
        let mut rewritten = History::of(0);
        let mut twin = manifest(1, rewritten.tip());
        twin.model = Digest::of("another model");
        rewritten.push_manifest(&twin);
        rewritten.push(2);
        rewritten.checkpoints = History::of(2).checkpoints;
        assert_eq!(check(&rewritten.folder()), [checkpoint_path(1), checkpoint_path(2)]);
    }

    #[test]
    fn a_broken_parent_chain_is_named() {
        let mut history = History::of(1);
        history.push_manifest(&manifest(2, Some(Digest::of("stranger"))));
        history.push(3);
        assert_eq!(check(&history.folder()), [manifest_path(2)]);
        let mut history = History::of(1);
        history.push_manifest(&manifest(2, None));
        assert_eq!(check(&history.folder()), [manifest_path(2)]);
    }

    #[test]
    fn rounds_grow_from_zero() {
        let mut history = History::of(2);
        history.push_manifest(&manifest(2, history.tip()));
        assert!(check(&history.folder()).contains(&manifest_path(3)));
        let mut history = History::new();
        history.push_manifest(&manifest(1, None));
        assert!(check(&history.folder()).contains(&manifest_path(0)));
        let mut history = History::of(0);
        history.push_manifest(&manifest(0, history.tip()));
        assert!(check(&history.folder()).contains(&manifest_path(1)));
    }

    #[test]
    fn a_run_is_one_task_and_one_log() {
        let mut history = History::of(1);
        let mut other = manifest(2, history.tip());
        other.round.task_digest = Digest::of("other task");
        history.push_manifest(&other);
        assert_eq!(check(&history.folder()), [manifest_path(2)]);

        let mut history = History::of(1);
        history.checkpoints[1] =
            Checkpoint::sign("other.example", &history.log.head(), &history.key).unwrap();
        assert_eq!(check(&history.folder()), [checkpoint_path(1)]);
        history.checkpoints[1] = history.checkpoints[0].clone();
        assert_eq!(check(&history.folder()), [checkpoint_path(1)]);
        let longer = TreeHead { size: 9, ..history.log.head() };
        history.checkpoints[1] = Checkpoint::sign(ORIGIN, &longer, &history.key).unwrap();
        assert_eq!(check(&history.folder()), [checkpoint_path(1)]);
    }

    #[test]
    fn a_run_has_one_meaning_of_privacy_and_its_loss_never_falls() {
        let detail = |change: fn(&mut Manifest)| {
            let mut history = History::of(1);
            let mut next = manifest(2, history.tip());
            change(&mut next);
            history.push_manifest(&next);
            let report = verify_run(&history.folder(), None);
            assert_eq!(failures(&report), [manifest_path(2)]);
            report.failures().next().unwrap().detail.clone()
        };
        assert_eq!(
            detail(|manifest| manifest.round.privacy.delta = 1e-7),
            "its privacy is not that of the manifest before: delta is 0.0000001, expected 0.00001"
        );
        assert_eq!(
            detail(|manifest| manifest.round.privacy.neighbours = "add-remove".to_owned()),
            "its privacy is not that of the manifest before: neighbours is add-remove, expected zero-out"
        );
        assert_eq!(
            detail(|manifest| manifest.round.privacy.epsilon_spent = 0.1),
            "epsilon_spent falls from 0.7 to 0.1"
        );
    }

    #[test]
    fn rejected_rounds_come_after_the_parents() {
        let details = |rejected: u32| {
            let mut history = History::of(1);
            history.push(2);
            let mut next = manifest(4, history.tip());
            let (model, reason) = (Digest::of("other"), "why".to_owned());
            next.round.rejected = vec![RejectedRound { round: rejected, model, reason }];
            history.push_manifest(&next);
            let parts = verify_run(&history.folder(), None).parts;
            parts.into_iter().find(|part| part.name == manifest_path(3)).unwrap().detail
        };
        assert_eq!(details(3), "digest, signature, parent, round, task, privacy");
        assert_eq!(details(2), "round 2 is listed as rejected, accepted are rounds after 2 and before 4");
    }

    #[test]
    fn manifests_and_checkpoints_are_by_the_key_of_the_run() {
        let mut history = History::of(1);
        history.key = key(2);
        history.push(2);
        history.key = key(1);
        assert_eq!(check(&history.folder()), [checkpoint_path(2), manifest_path(2)]);
    }

    #[test]
    fn an_index_lists_what_a_run_is_made_of() {
        let folder = History::of(1).folder();
        let listed: Vec<_> = folder.0.iter().map(|(path, bytes)| (path.clone(), Digest::of(bytes))).collect();
        let without =
            |name: &str| listed.iter().filter(|(path, _)| path != name).cloned().collect::<Vec<_>>();
        assert_eq!(build_index(&listed, &key(1)), Err(IndexError::Itself));
        let good = without(INDEX_FILE);
        assert_eq!(build_index(&good, &key(1)).as_ref(), Ok(&folder.0[INDEX_FILE]));

        let with =
            |path: &str| good.iter().cloned().chain([(path.to_owned(), Digest::of(""))]).collect::<Vec<_>>();
        assert!(matches!(build_index(&with("../a"), &key(1)), Err(IndexError::Path(_))));
        assert!(
            matches!(build_index(&with(MODEL_FILE), &key(1)), Err(IndexError::Twice(path)) if path == MODEL_FILE)
        );
        for extra in ["manifests/00003.dsse.json", "manifests/readme", "checkpoints/00002.checkpoint"] {
            assert!(matches!(build_index(&with(extra), &key(1)), Err(IndexError::Layout(_))), "{extra}");
        }
        for path in
            [KEY_FILE, MODEL_FILE, MANIFEST_FILE, "manifests/00000.dsse.json", "checkpoints/00001.checkpoint"]
        {
            let missing: Vec<_> = good.iter().filter(|(listed, _)| listed != path).cloned().collect();
            assert!(matches!(build_index(&missing, &key(1)), Err(IndexError::Layout(_))), "{path}");
        }
    }

    /// A signed index that does not list all of a run is no index.
    #[test]
    fn a_signed_index_with_gaps_fails_by_name() {
        let mut folder = History::of(1).folder();
        let subject = [FileEntry { path: KEY_FILE.to_owned(), digest: Digest::of(&folder.0[KEY_FILE]) }];
        let index = statement::sign(RUN_PREDICATE_TYPE, subject, &RunPredicate {}, &[&key(1)]);
        folder.0.insert(INDEX_FILE.to_owned(), index);
        assert_eq!(check(&folder), [INDEX_FILE]);
        folder.0.insert(INDEX_FILE.to_owned(), folder.0[MANIFEST_FILE].clone());
        assert_eq!(check(&folder), [INDEX_FILE]);
    }

    #[test]
    fn keys_have_one_spelling() {
        let public = key(1).verifying_key();
        let text = encode_key(&public);
        assert_eq!(parse_key(text.as_bytes()), Ok(public));
        assert_eq!(parse_key(text.trim_end().as_bytes()), Ok(public));
        let weak = format!("01{}\n", "0".repeat(62));
        for bad in ["", "zz", &text.to_uppercase(), &format!("{text}\n"), &format!(" {text}"), &weak] {
            assert!(parse_key(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse_key(&[0xff; 64]).is_err());
    }
}
