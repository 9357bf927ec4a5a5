//! One history for the tests: a key, a log, and the publications and files that come from them.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use crate::{
    Checkpoint, Decision, Digest, Explanation, Files, GroupDecision, Influence, Log, Manifest, Pins,
    PrivacyClaim, Publication, RoundPredicate, build_index,
    manifest::MODEL_FILE,
    run::{INDEX_FILE, KEY_FILE, MANIFEST_FILE, checkpoint_path, encode_key, manifest_path},
};

pub(crate) const ORIGIN: &str = "fedveil.example/digits";

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn task() -> Digest {
    Digest::of("task")
}

pub(crate) fn pins() -> Pins {
    Pins {
        signers: vec![key(1).verifying_key()],
        threshold: 1,
        origin: ORIGIN.to_owned(),
        task_digest: task(),
        privacy: claim(0.0),
    }
}

/// The task's claim after so much was spent.
pub(crate) fn claim(epsilon_spent: f64) -> PrivacyClaim {
    PrivacyClaim {
        epsilon_spent,
        epsilon_budget: 15.0,
        delta: 1e-5,
        unit: "user".to_owned(),
        neighbours: "zero-out".to_owned(),
        accountant: "rdp".to_owned(),
        sampling: "none".to_owned(),
        placement: "distributed".to_owned(),
        mechanism: "discrete-gaussian".to_owned(),
        noise_multiplier: 1.12,
        clip_norm: 0.5,
        adaptive_clip: false,
        private: true,
    }
}

pub(crate) fn model(round: u32) -> Vec<u8> {
    format!("model of round {round}").into_bytes()
}

/// A manifest of `round` after `parent`.
pub(crate) fn manifest(round: u32, parent: Option<Digest>) -> Manifest {
    let group = GroupDecision {
        index: 0,
        members: 18,
        survivors: 16,
        decision: Decision::Kept,
        reason: String::new(),
        score: Some(0.1),
        explanation: Some(Explanation {
            distance: 0.1,
            cosine: Some(0.5),
            norm: 0.7,
            z_score: -0.3,
            influence: Influence::Moves(0.1),
        }),
    };
    let withheld = GroupDecision {
        index: 1,
        survivors: 9,
        decision: Decision::Withheld,
        reason: "9 survivors, 14 needed".to_owned(),
        score: None,
        explanation: None,
        ..group.clone()
    };
    Manifest {
        model: Digest::of(model(round)),
        round: RoundPredicate {
            round,
            parent,
            task_digest: task(),
            cohort_commitment: Digest::of("cohort"),
            groups: if round == 0 { vec![] } else { vec![group, withheld] },
            rejected: Vec::new(),
            rule: "multi-krum".to_owned(),
            privacy: claim(f64::from(round) * 0.7),
            software: "fedveil 0.1.0".to_owned(),
            files: vec![],
        },
    }
}

/// A log of manifests, each the parent of the next.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) key: SigningKey,
    pub(crate) log: Log,
    pub(crate) checkpoints: Vec<String>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { key: key(1), log: Log::new(), checkpoints: vec![] }
    }

    /// Rounds 0 to `rounds`.
    pub(crate) fn of(rounds: u32) -> Self {
        let mut history = Self::new();
        for round in 0..=rounds {
            history.push(round);
        }
        history
    }

    /// Digest of the newest manifest.
    pub(crate) fn tip(&self) -> Option<Digest> {
        self.log.size().checked_sub(1).map(|leaf| Digest::of(self.log.leaf(leaf).unwrap()))
    }

    /// Appends the manifest of `round` after the newest one.
    pub(crate) fn push(&mut self, round: u32) {
        self.push_manifest(&manifest(round, self.tip()));
    }

    pub(crate) fn push_manifest(&mut self, manifest: &Manifest) {
        self.log.append(manifest.sign(&[&self.key]).unwrap());
        self.checkpoints.push(self.checkpoint());
    }

    pub(crate) fn checkpoint(&self) -> String {
        Checkpoint::sign(ORIGIN, &self.log.head(), &self.key).unwrap()
    }

    /// The publication of leaf `leaf` under the newest checkpoint.
    pub(crate) fn publication(&self, leaf: u64, known_size: u64) -> Publication {
        Publication::new(&self.log, self.checkpoint(), leaf, known_size).unwrap()
    }

    /// The newest publication, encoded.
    pub(crate) fn newest(&self, known_size: u64) -> Vec<u8> {
        self.publication(self.log.size() - 1, known_size).to_bytes()
    }

    /// The run folder of this history, which holds rounds 0 to its length.
    pub(crate) fn folder(&self) -> Folder {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (leaf, checkpoint) in (0..).zip(&self.checkpoints) {
            files.insert(manifest_path(leaf), self.log.leaf(leaf).unwrap().to_vec());
            files.insert(checkpoint_path(leaf), checkpoint.clone().into_bytes());
        }
        let newest = self.log.size() - 1;
        files.insert(MANIFEST_FILE.to_owned(), files[&manifest_path(newest)].clone());
        files.insert(MODEL_FILE.to_owned(), model(newest as u32));
        files.insert(KEY_FILE.to_owned(), encode_key(&self.key.verifying_key()).into_bytes());
        files.insert("rounds.jsonl".to_owned(), b"{\"round\":1}\n".to_vec());
        files.insert("summary.json".to_owned(), b"{}\n".to_vec());
        files.insert("report.html".to_owned(), b"<!doctype html>\n".to_vec());
        let mut folder = Folder(files);
        folder.index(&self.key);
        folder
    }
}

/// A run folder in memory.
#[derive(Clone)]
pub(crate) struct Folder(pub(crate) BTreeMap<String, Vec<u8>>);

impl Folder {
    /// Writes the index of what is in the folder.
    pub(crate) fn index(&mut self, key: &SigningKey) {
        self.0.remove(INDEX_FILE);
        let files: Vec<_> = self.0.iter().map(|(path, bytes)| (path.clone(), Digest::of(bytes))).collect();
        self.0.insert(INDEX_FILE.to_owned(), build_index(&files, key).unwrap());
    }
}

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self) -> Result<Vec<String>, String> {
        Ok(self.0.keys().cloned().collect())
    }
}

/// The formats that leave a process, as files: who changes one of them changes its version too.
#[test]
fn formats_are_those_on_file() {
    let history = History::of(2);
    let folder = history.folder();
    let golden = [
        ("manifest", &include_bytes!("../tests/vectors/v2/manifest.dsse.json")[..], &folder.0[MANIFEST_FILE]),
        ("checkpoint", include_bytes!("../tests/vectors/v2/log.checkpoint"), &folder.0[&checkpoint_path(2)]),
        ("index", include_bytes!("../tests/vectors/v2/index.dsse.json"), &folder.0[INDEX_FILE]),
        ("publication", include_bytes!("../tests/vectors/v2/publication.json"), &history.newest(2)),
    ];
    for (name, expected, made) in golden {
        assert_eq!(String::from_utf8_lossy(made), String::from_utf8_lossy(expected), "{name}");
    }
}
