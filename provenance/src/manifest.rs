//! The manifest: what the coordinator signs about one global model.
//!
//! An in-toto statement whose one subject is the model file and whose predicate tells the round that made it: its
//! parent, the task, the cohort, the groups kept and dropped, and the privacy spent. Round 0 is the initial model and
//! has no parent. A manifest is identified by the digest of its envelope's bytes, as signed and sent.
//!
//! A signature says that the signer stands by these numbers, not that they are true: nobody can check from a manifest
//! that the robust rule was run honestly.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

pub use crate::statement::StatementError;
use crate::{digest::Digest, excerpt, statement};

/// The predicate type of a manifest.
pub const ROUND_PREDICATE_TYPE: &str = "urn:fedveil:round:v1";

/// The name of the model file: the subject of every manifest.
pub const MODEL_FILE: &str = "model.safetensors";

/// The largest manifest envelope that is written or read, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 512 << 10;

/// One global model and the round that made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Digest of the model file.
    pub model: Digest,
    /// The round.
    pub round: RoundPredicate,
}

/// The predicate of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundPredicate {
    /// The round that made the model; 0 is the initial model. Grows along the chain, with gaps where rounds failed.
    pub round: u32,
    /// Digest of the parent manifest's envelope bytes; `None` in round 0 alone.
    pub parent: Option<Digest>,
    /// Digest of the task's signed plan.
    pub task_digest: Digest,
    /// Commitment to the members of the cohort.
    pub cohort_commitment: Digest,
    /// What became of each group, by index.
    pub groups: Vec<GroupDecision>,
    /// The Byzantine-robust rule, as the plan names it.
    pub rule: String,
    /// ε charged to the task until and with this round.
    pub epsilon_spent: f64,
    /// ε at which the task stops.
    pub epsilon_budget: f64,
    /// δ of both.
    pub delta: f64,
    /// Name and version of the software that ran the round.
    pub software: String,
    /// Other files of the round.
    pub files: Vec<FileEntry>,
}

/// What became of one group in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupDecision {
    /// Index of the group in the round.
    pub index: u32,
    /// Clients drawn into it.
    pub members: u32,
    /// Clients whose update is in its sum.
    pub survivors: u32,
    /// What was done with its sum.
    pub decision: Decision,
    /// Why, in words.
    pub reason: String,
    /// The rule's score of its mean, where the rule gives one.
    pub score: Option<f64>,
}

/// What was done with a group's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It is part of the new model.
    Kept,
    /// The rule left it out.
    Dropped,
    /// It was never unmasked: too few survivors for its noise.
    Withheld,
}

/// A file by its path in the run folder and its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative, with `/` between its parts; no part is empty, `.` or `..`.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// Why a manifest was not made, or not believed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Refused before parsing, or before it is published.
    #[error("manifest of {0} bytes, at most {MAX_MANIFEST_BYTES} are accepted")]
    TooLarge(usize),
    /// The envelope, its signatures or its statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Not about exactly one model file.
    #[error("the subject of a manifest is one {MODEL_FILE}, found {0}")]
    Subject(String),
    /// A number outside its range.
    #[error("{field} is {value}, expected {expected}")]
    Number {
        /// Member of the predicate.
        field: &'static str,
        /// What it says.
        value: f64,
        /// What it can be.
        expected: &'static str,
    },
    /// More survivors than members.
    #[error("group {index} has {survivors} survivors of {members} members")]
    Survivors {
        /// Index of the group.
        index: u32,
        /// Members it names.
        members: u32,
        /// Survivors it names.
        survivors: u32,
    },
    /// A path that could lead out of the run folder.
    #[error("{0:?} is not a relative path inside the run folder")]
    Path(String),
}

impl Manifest {
    /// Signs the manifest; the bytes are what is hashed, logged, stored and sent.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<Vec<u8>, ManifestError> {
        self.round.check()?;
        let subject = FileEntry { path: MODEL_FILE.to_owned(), digest: self.model };
        let envelope = statement::sign(ROUND_PREDICATE_TYPE, [subject], &self.round, keys);
        check_size(&envelope)?;
        Ok(envelope)
    }

    /// Reads a manifest that at least `threshold` of the `trusted` keys signed.
    pub fn verify(
        envelope: &[u8],
        trusted: &[VerifyingKey],
        threshold: usize,
    ) -> Result<Self, ManifestError> {
        check_size(envelope)?;
        let (subject, round): (_, RoundPredicate) =
            statement::verify(envelope, ROUND_PREDICATE_TYPE, trusted, threshold)?;
        let model = match subject.as_slice() {
            [file] if file.path == MODEL_FILE => file.digest,
            [file] => return Err(ManifestError::Subject(excerpt(&file.path))),
            files => return Err(ManifestError::Subject(format!("{} files", files.len()))),
        };
        round.check()?;
        Ok(Self { model, round })
    }
}

impl RoundPredicate {
    fn check(&self) -> Result<(), ManifestError> {
        let non_negative = |field, value: f64| {
            let ok = value.is_finite() && value >= 0.0;
            ok.then_some(()).ok_or(ManifestError::Number {
                field,
                value,
                expected: "a finite number from 0 up",
            })
        };
        non_negative("epsilon_spent", self.epsilon_spent)?;
        non_negative("epsilon_budget", self.epsilon_budget)?;
        if !(0.0..1.0).contains(&self.delta) {
            return Err(ManifestError::Number {
                field: "delta", value: self.delta, expected: "0 ≤ δ < 1"
            });
        }
        for group in &self.groups {
            if group.survivors > group.members {
                let GroupDecision { index, members, survivors, .. } = *group;
                return Err(ManifestError::Survivors { index, members, survivors });
            }
            if let Some(value) = group.score.filter(|score| !score.is_finite()) {
                return Err(ManifestError::Number { field: "score", value, expected: "a finite number" });
            }
        }
        self.files.iter().try_for_each(|file| check_path(&file.path))
    }
}

/// Refuses a path that is not plainly inside the folder it is relative to, on any operating system.
pub(crate) fn check_path(path: &str) -> Result<(), ManifestError> {
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control() || c == '\\' || c == ':')
    };
    if path.split('/').all(plain) { Ok(()) } else { Err(ManifestError::Path(excerpt(path))) }
}

fn check_size(envelope: &[u8]) -> Result<(), ManifestError> {
    if envelope.len() > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge(envelope.len()));
    }
    Ok(())
}
