//! The client's check: is this the next model of the one history that I follow?
//!
//! A [`Publication`] is what the coordinator pushes after a round. [`Lineage::accept`] reads, [`Lineage::apply`]
//! moves. What a client keeps between runs is its [`Head`]: the log head and manifest it accepted last.
//!
//! | a publication that | is refused as |
//! |---|---|
//! | no pinned key signed | [`Refusal::UnknownSigner`] |
//! | was changed after it was signed | [`Refusal::BadSignature`] |
//! | belongs to another task or log | [`Refusal::OtherTask`], [`Refusal::OtherLog`] |
//! | names an earlier round, or a shorter log | [`Refusal::Rollback`] |
//! | does not follow the manifest the client holds | [`Refusal::WrongParent`], [`Refusal::MissingParent`] |
//! | shows a log that does not continue the one the client saw | [`Refusal::Fork`] |
//! | is not in the log it shows | [`Refusal::NotIncluded`] |
//! | claims another privacy than the task's plan | [`Refusal::Privacy`] |
//! | says that less was spent than before | [`Refusal::EpsilonFell`] |
//! | comes with another model | [`Refusal::ModelMismatch`] |
//!
//! A client that joins late has no head yet. It accepts the first publication that a pinned key signed and that is
//! included in a checkpoint by a pinned key: trust on first use, pinned by the signing key. The history before that
//! publication is unchecked, and a signer that shows two newcomers two histories is found out only when their
//! checkpoints are compared. A client that missed rounds is caught up with the publications between, in order; it
//! needs no model but the last.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{Checkpoint, CheckpointError, MAX_CHECKPOINT_BYTES},
    digest::Digest,
    dsse::DsseError,
    excerpt,
    manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError, RoundPredicate, StatementError},
    merkle::{self, Log, MerkleError, TreeHead},
    privacy::{Conflict, PrivacyClaim},
};

/// The largest encoded publication, in bytes: a manifest in base64, a checkpoint and two proofs, under 1 MiB.
pub const MAX_PUBLICATION_BYTES: usize = MAX_MANIFEST_BYTES / 3 * 4 + MAX_CHECKPOINT_BYTES + (16 << 10);

/// A new model as the coordinator announces it, without the model itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// The manifest's DSSE envelope, as signed.
    #[serde(with = "crate::base64_bytes")]
    pub manifest: Vec<u8>,
    /// A signed head of the log that holds the manifest.
    pub checkpoint: String,
    /// Where in the log it is, from 0.
    pub leaf_index: u64,
    /// Proof of that, at the checkpoint's size.
    pub inclusion: Vec<Digest>,
    /// Proof that the checkpoint continues the log of the size that the client saw last; empty for a newcomer.
    pub consistency: Vec<Digest>,
}

/// What a client is told out of band and never takes from the coordinator.
#[derive(Clone, Debug)]
pub struct Pins {
    /// Keys that sign manifests; each of them may sign checkpoints.
    pub signers: Vec<VerifyingKey>,
    /// How many of them must have signed a manifest.
    pub threshold: usize,
    /// Origin line of the log.
    pub origin: String,
    /// Digest of the task's signed plan.
    pub task_digest: Digest,
    /// What that plan means for privacy; the ε spent is the manifests' to say.
    pub privacy: PrivacyClaim,
}

/// The last accepted place in the history, kept by the client between runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The log when it was last seen.
    pub log: TreeHead,
    /// Digest of the last manifest's envelope bytes.
    pub manifest: Digest,
    /// Its round.
    pub round: u32,
    /// ε that it says was spent.
    #[serde(deserialize_with = "crate::null_is_infinite")]
    pub epsilon_spent: f64,
}

/// The history that one client follows.
#[derive(Clone, Debug)]
pub struct Lineage {
    pins: Pins,
    head: Option<Head>,
}

/// A publication that passed every check but the model's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Where the client stands after [`Lineage::apply`].
    pub head: Head,
    /// What the manifest says about the round.
    pub round: RoundPredicate,
    /// Digest of the model file.
    pub model: Digest,
}

/// What got smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollback {
    /// The round number.
    Round,
    /// The number of leaves in the log.
    LogSize,
}

/// Why a client does not take a publication or a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a publication.
    #[error("not a publication: {0}")]
    Malformed(String),
    /// No pinned key signed the manifest or the checkpoint.
    #[error("the {0} is signed by no pinned key")]
    UnknownSigner(Signed),
    /// A pinned key's signature does not verify.
    #[error("the signature of the {0} does not verify")]
    BadSignature(Signed),
    /// Fewer pinned keys signed the manifest than must.
    #[error("the manifest is signed by {valid} pinned keys, {threshold} are needed")]
    TooFewSigners {
        /// Distinct pinned keys with a valid signature.
        valid: usize,
        /// How many are needed.
        threshold: usize,
    },
    /// A signed manifest that does not make sense.
    #[error("the manifest is not valid: {0}")]
    Manifest(ManifestError),
    /// A signed checkpoint that does not make sense.
    #[error("the checkpoint is not valid: {0}")]
    Checkpoint(CheckpointError),
    /// A manifest of another task.
    #[error("the manifest is of task {offered}, this client follows task {pinned}")]
    OtherTask {
        /// The task that the client follows.
        pinned: Digest,
        /// The task in the manifest.
        offered: Digest,
    },
    /// A checkpoint of another log.
    #[error("the checkpoint is of log \"{offered}\", this client follows log \"{pinned}\"")]
    OtherLog {
        /// Origin of the log that the client follows.
        pinned: String,
        /// Origin in the checkpoint.
        offered: String,
    },
    /// The manifest that the client holds, once more. Harmless: a coordinator may repeat its last publication.
    #[error("round {round} is already accepted")]
    AlreadyAccepted {
        /// Its round.
        round: u32,
    },
    /// A step back in the history.
    #[error("rollback: the offered {what} is {offered}, this client already accepted {held}")]
    Rollback {
        /// What got smaller.
        what: Rollback,
        /// What the client holds.
        held: u64,
        /// What it was offered.
        offered: u64,
    },
    /// A manifest without a parent that is not the first of its history.
    #[error("the manifest of round {round} names no parent")]
    MissingParent {
        /// Its round.
        round: u32,
    },
    /// A manifest that follows another one than the client's.
    #[error("the manifest of round {round} follows {offered}, expected {}", name(.held.as_ref()))]
    WrongParent {
        /// Its round.
        round: u32,
        /// The manifest that the client holds; `None` where it holds none and round 0 names a parent.
        held: Option<Digest>,
        /// The parent it names.
        offered: Digest,
    },
    /// A manifest that says something else about privacy than the task's plan.
    #[error("the manifest's privacy is not that of the plan: {0}")]
    Privacy(Conflict),
    /// What was spent cannot have become less.
    #[error("the manifest says that epsilon {offered} was spent, the one before it said {held}")]
    EpsilonFell {
        /// ε of the manifest that the client holds.
        held: f64,
        /// ε of the offered one.
        offered: f64,
    },
    /// A log that does not continue the one the client saw: two histories under one key.
    #[error(
        "fork: the offered log of {offered} leaves does not continue the log of {held} leaves that this client saw"
    )]
    Fork {
        /// Leaves of the log that the client saw.
        held: u64,
        /// Leaves of the log it was offered.
        offered: u64,
    },
    /// The manifest is not where the publication says, in the log that it shows.
    #[error("the manifest is not leaf {index} of the offered log of {size} leaves")]
    NotIncluded {
        /// The place it names.
        index: u64,
        /// Leaves of the log.
        size: u64,
    },
    /// The model's bytes are not those that the manifest names.
    #[error("the model's digest is {found}, the manifest says {expected}")]
    ModelMismatch {
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
}

/// One of the two signed parts of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// The manifest.
    Manifest,
    /// The checkpoint.
    Checkpoint,
}

impl Publication {
    /// Leaf `leaf_index` of `log`, for a client that saw the log last at `known_size` leaves (0: never).
    /// `checkpoint` is the signed head of `log` as it is.
    pub fn new(log: &Log, checkpoint: String, leaf_index: u64, known_size: u64) -> Result<Self, MerkleError> {
        Ok(Self {
            manifest: log.leaf(leaf_index)?.to_vec(),
            checkpoint,
            leaf_index,
            inclusion: log.inclusion_proof(leaf_index)?,
            consistency: log.consistency_proof(known_size)?,
        })
    }

    /// The publication as one line of JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a publication holds only strings and numbers")
    }

    /// Reads a publication of at most [`MAX_PUBLICATION_BYTES`], without checking it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_PUBLICATION_BYTES {
            let found = bytes.len();
            return Err(Refusal::Malformed(format!(
                "{found} bytes, at most {MAX_PUBLICATION_BYTES} are accepted"
            )));
        }
        serde_json::from_slice(bytes).map_err(|error| Refusal::Malformed(excerpt(&error.to_string())))
    }
}

impl Lineage {
    /// The history under `pins`, from `head`, or from the first publication where there is none.
    pub fn new(pins: Pins, head: Option<Head>) -> Self {
        Self { pins, head }
    }

    /// The last accepted place; `None` before the first.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// How many leaves of the log this client has seen: what the coordinator makes its consistency proof from.
    pub fn known_size(&self) -> u64 {
        self.head.map_or(0, |head| head.log.size)
    }

    /// Checks an encoded [`Publication`] against the pins and the head. Changes nothing.
    pub fn accept(&self, publication: &[u8]) -> Result<Accepted, Refusal> {
        let publication = Publication::parse(publication)?;
        let Manifest { model, round } =
            Manifest::verify(&publication.manifest, &self.pins.signers, self.pins.threshold)
                .map_err(Refusal::from_manifest)?;
        let offered = Head {
            log: self.verify_checkpoint(&publication.checkpoint)?,
            manifest: Digest::of(&publication.manifest),
            round: round.round,
            epsilon_spent: round.privacy.epsilon_spent,
        };
        if round.task_digest != self.pins.task_digest {
            return Err(Refusal::OtherTask { pinned: self.pins.task_digest, offered: round.task_digest });
        }
        self.check_order(&offered)?;
        self.check_parent(&round)?;
        round.check_rejected(self.head.map_or(0, |head| head.round)).map_err(Refusal::Manifest)?;
        self.check_privacy(&round)?;
        self.check_log(&offered, &publication)?;
        Ok(Accepted { head: offered, round, model })
    }

    /// Moves to an accepted publication.
    ///
    /// Where the model is adopted, [`Accepted::check_model`] comes first; a client that only catches up needs no model.
    pub fn apply(&mut self, accepted: &Accepted) {
        self.head = Some(accepted.head);
    }

    fn verify_checkpoint(&self, text: &str) -> Result<TreeHead, Refusal> {
        for key in &self.pins.signers {
            match Checkpoint::verify(text, &self.pins.origin, key) {
                Ok(checkpoint) => return Ok(checkpoint.head),
                Err(CheckpointError::UnknownSigner) => {}
                Err(error) => return Err(Refusal::from_checkpoint(error)),
            }
        }
        Err(Refusal::UnknownSigner(Signed::Checkpoint))
    }

    fn check_order(&self, offered: &Head) -> Result<(), Refusal> {
        let Some(held) = self.head else { return Ok(()) };
        if offered.manifest == held.manifest {
            return Err(Refusal::AlreadyAccepted { round: held.round });
        }
        for (what, held, offered) in [
            (Rollback::Round, u64::from(held.round), u64::from(offered.round)),
            (Rollback::LogSize, held.log.size, offered.log.size),
        ] {
            if offered < held {
                return Err(Refusal::Rollback { what, held, offered });
            }
        }
        Ok(())
    }

    fn check_parent(&self, round: &RoundPredicate) -> Result<(), Refusal> {
        let held = self.head.map(|head| head.manifest);
        match (round.round, round.parent, held) {
            (0, None, None) => Ok(()),
            (round, None, _) => Err(Refusal::MissingParent { round }),
            (round, Some(offered), held) if round == 0 || held.is_some_and(|held| held != offered) => {
                Err(Refusal::WrongParent { round, held, offered })
            }
            (_, Some(_), _) => Ok(()),
        }
    }

    fn check_privacy(&self, round: &RoundPredicate) -> Result<(), Refusal> {
        self.pins.privacy.agrees_with(&round.privacy).map_err(Refusal::Privacy)?;
        let offered = round.privacy.epsilon_spent;
        match self.head.map(|head| head.epsilon_spent) {
            Some(held) if offered < held => Err(Refusal::EpsilonFell { held, offered }),
            _ => Ok(()),
        }
    }

    fn check_log(&self, offered: &Head, publication: &Publication) -> Result<(), Refusal> {
        match &self.head {
            Some(held) => {
                merkle::verify_consistency(&held.log, &offered.log, &publication.consistency)
                    .map_err(|_| Refusal::Fork { held: held.log.size, offered: offered.log.size })?;
            }
            None if publication.consistency.is_empty() => {}
            None => {
                return Err(Refusal::Malformed(
                    "a consistency proof from a log this client never saw".into(),
                ));
            }
        }
        let index = publication.leaf_index;
        merkle::verify_inclusion(&offered.log, &publication.manifest, index, &publication.inclusion)
            .map_err(|_| Refusal::NotIncluded { index, size: offered.log.size })
    }
}

impl Accepted {
    /// Checks that `model` is the file that the manifest is about.
    pub fn check_model(&self, model: &[u8]) -> Result<(), Refusal> {
        self.check_digest(Digest::of(model))
    }

    /// The same for a file of that digest.
    pub fn check_digest(&self, found: Digest) -> Result<(), Refusal> {
        if found != self.model {
            return Err(Refusal::ModelMismatch { expected: self.model, found });
        }
        Ok(())
    }
}

impl Refusal {
    fn from_manifest(error: ManifestError) -> Self {
        match error {
            ManifestError::Statement(StatementError::Envelope(error)) => match error {
                DsseError::UnknownSigner { .. } => Self::UnknownSigner(Signed::Manifest),
                DsseError::BadSignature { .. } => Self::BadSignature(Signed::Manifest),
                DsseError::Threshold { valid, threshold } => Self::TooFewSigners { valid, threshold },
                other => Self::Malformed(other.to_string()),
            },
            other => Self::Manifest(other),
        }
    }

    fn from_checkpoint(error: CheckpointError) -> Self {
        match error {
            CheckpointError::OtherLog { expected, found } => {
                Self::OtherLog { pinned: expected, offered: found }
            }
            CheckpointError::BadSignature => Self::BadSignature(Signed::Checkpoint),
            other => Self::Checkpoint(other),
        }
    }
}

fn name(manifest: Option<&Digest>) -> String {
    manifest.map_or_else(|| "no parent".to_owned(), Digest::to_string)
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Round => "round",
            Self::LogSize => "log size",
        })
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Checkpoint => "checkpoint",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RejectedRound;
    use crate::fixtures::{History, ORIGIN, key, manifest, model, pins, task};

    /// A client that followed `history` to its end.
    fn follower(history: &History) -> Lineage {
        let mut lineage = Lineage::new(pins(), None);
        for leaf in 0..history.log.size() {
            follow(&mut lineage, history, leaf);
        }
        lineage
    }

    fn follow(lineage: &mut Lineage, history: &History, leaf: u64) {
        let publication = history.publication(leaf, lineage.known_size()).to_bytes();
        let accepted = lineage.accept(&publication).unwrap();
        lineage.apply(&accepted);
    }

    /// What a client that followed rounds 0 to 2 says about the newest publication of `history`.
    fn offer(history: &History) -> Result<Accepted, Refusal> {
        let lineage = follower(&History::of(2));
        lineage.accept(&history.newest(lineage.known_size().min(history.log.size())))
    }

    #[test]
    fn a_client_follows_the_rounds_and_keeps_its_place() {
        let mut history = History::new();
        let mut lineage = Lineage::new(pins(), None);
        for round in [0, 1, 2, 5] {
            history.push(round);
            let accepted = lineage.accept(&history.newest(lineage.known_size())).unwrap();
            assert_eq!(accepted.round.round, round);
            assert_eq!(accepted.check_model(&model(round)), Ok(()));
            lineage.apply(&accepted);
            assert_eq!(lineage.head().unwrap().log, history.log.head());
            let kept = serde_json::to_string(lineage.head().unwrap()).unwrap();
            lineage = Lineage::new(pins(), Some(serde_json::from_str(&kept).unwrap()));
        }
    }

    #[test]
    fn a_client_that_missed_rounds_catches_up_in_order() {
        let mut history = History::of(1);
        let mut lineage = follower(&history);
        (2..=5).for_each(|round| history.push(round));
        let skipping = lineage.accept(&history.publication(5, 2).to_bytes());
        assert!(matches!(skipping, Err(Refusal::WrongParent { round: 5, .. })));
        (2..=5).for_each(|leaf| follow(&mut lineage, &history, leaf));
        assert_eq!(lineage.head().unwrap().round, 5);
    }

    #[test]
    fn a_newcomer_trusts_its_first_publication_by_the_key() {
        let history = History::of(4);
        let lineage = Lineage::new(pins(), None);
        assert_eq!(lineage.accept(&history.newest(0)).unwrap().head.log, history.log.head());
        assert!(matches!(lineage.accept(&history.newest(2)), Err(Refusal::Malformed(_))));
        let mut other = History { key: key(2), ..History::new() };
        other.push(0);
        assert_eq!(lineage.accept(&other.newest(0)), Err(Refusal::UnknownSigner(Signed::Manifest)));
    }

    #[test]
    fn a_repeated_publication_is_told_from_a_rollback() {
        assert_eq!(offer(&History::of(2)), Err(Refusal::AlreadyAccepted { round: 2 }));
    }

    #[test]
    fn an_unknown_signer_is_refused() {
        let mut history = History::of(2);
        history.key = key(2);
        history.push(3);
        assert_eq!(offer(&history), Err(Refusal::UnknownSigner(Signed::Manifest)));

        let history = History::of(3);
        let mut publication = history.publication(3, 3);
        publication.checkpoint = Checkpoint::sign(ORIGIN, &history.log.head(), &key(2)).unwrap();
        let lineage = follower(&History::of(2));
        assert_eq!(lineage.accept(&publication.to_bytes()), Err(Refusal::UnknownSigner(Signed::Checkpoint)));
    }

    #[test]
    fn a_changed_manifest_or_checkpoint_is_refused() {
        let lineage = follower(&History::of(2));
        let publication = History::of(3).publication(3, 3);

        let mut changed = publication.clone();
        let payload = changed.manifest.iter().position(|byte| *byte == b'e').unwrap();
        changed.manifest[payload + 20] ^= 1;
        assert_eq!(lineage.accept(&changed.to_bytes()), Err(Refusal::BadSignature(Signed::Manifest)));

        let mut changed = publication;
        changed.checkpoint = changed.checkpoint.replace("\n4\n", "\n5\n");
        assert_eq!(lineage.accept(&changed.to_bytes()), Err(Refusal::BadSignature(Signed::Checkpoint)));
    }

    #[test]
    fn no_byte_of_a_publication_can_change() {
        let lineage = follower(&History::of(2));
        let publication = History::of(3).newest(3);
        assert!(lineage.accept(&publication).is_ok());
        for at in 0..publication.len() {
            let mut changed = publication.clone();
            changed[at] ^= 1;
            assert!(lineage.accept(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn too_few_signers_are_refused() {
        let envelope = |keys: &[u8]| {
            let keys: Vec<_> = keys.iter().map(|seed| key(*seed)).collect();
            manifest(0, None).sign(&keys.iter().collect::<Vec<_>>()).unwrap()
        };
        let signers = [1, 2, 3].map(|seed| key(seed).verifying_key()).to_vec();
        let lineage = Lineage::new(Pins { signers, threshold: 2, ..pins() }, None);
        for (keys, expected) in [
            (&[1][..], Some(Refusal::TooFewSigners { valid: 1, threshold: 2 })),
            (&[1, 1], Some(Refusal::TooFewSigners { valid: 1, threshold: 2 })),
            (&[1, 4], Some(Refusal::TooFewSigners { valid: 1, threshold: 2 })),
            (&[4, 5], Some(Refusal::UnknownSigner(Signed::Manifest))),
            (&[1, 3], None),
        ] {
            let mut history = History { key: key(2), ..History::new() };
            history.log.append(envelope(keys));
            assert_eq!(lineage.accept(&history.newest(0)).err(), expected, "{keys:?}");
        }
    }

    #[test]
    fn another_task_is_refused() {
        let mut history = History::of(2);
        let mut other = manifest(3, history.tip());
        other.round.task_digest = Digest::of("other task");
        history.push_manifest(&other);
        let expected = Refusal::OtherTask { pinned: task(), offered: Digest::of("other task") };
        assert_eq!(offer(&history), Err(expected));
    }

    #[test]
    fn another_log_is_refused() {
        let history = History::of(3);
        let mut publication = history.publication(3, 3);
        publication.checkpoint =
            Checkpoint::sign("other.example", &history.log.head(), &history.key).unwrap();
        let expected = Refusal::OtherLog { pinned: ORIGIN.to_owned(), offered: "other.example".to_owned() };
        assert_eq!(follower(&History::of(2)).accept(&publication.to_bytes()), Err(expected));
    }

    #[test]
    fn rollback_to_an_older_round_is_refused() {
        let history = History::of(4);
        let expected = Refusal::Rollback { what: Rollback::Round, held: 4, offered: 3 };
        let lineage = follower(&history);
        assert_eq!(lineage.accept(&history.publication(3, 5).to_bytes()), Err(expected.clone()));
        // The publication as it was made then, with the log as it was.
        assert_eq!(lineage.accept(&History::of(3).newest(4)), Err(expected));
    }

    #[test]
    fn rollback_to_a_shorter_log_is_refused() {
        let mut short = History::of(0);
        short.push_manifest(&manifest(3, History::of(2).tip()));
        assert_eq!(offer(&short), Err(Refusal::Rollback { what: Rollback::LogSize, held: 3, offered: 2 }));
    }

    /// The signer drops round 1 from the log and puts the next model on top: the parent is right, the log is not.
    #[test]
    fn fork_of_the_log_is_refused() {
        let mut fork = History::of(0);
        fork.push(7);
        fork.push(8);
        fork.push_manifest(&manifest(9, History::of(2).tip()));
        assert_eq!(offer(&fork), Err(Refusal::Fork { held: 3, offered: 4 }));
    }

    /// Two logs of one size, each with a history of its own.
    #[test]
    fn fork_at_the_same_size_is_refused() {
        let mut fork = History::of(1);
        fork.push_manifest(&manifest(3, History::of(2).tip()));
        assert_eq!(offer(&fork), Err(Refusal::Fork { held: 3, offered: 3 }));
    }

    /// A second manifest of round 2 for some clients alone, in the log for everyone to see.
    #[test]
    fn two_models_of_one_round_are_refused() {
        let mut history = History::of(2);
        let mut twin = manifest(2, History::of(1).tip());
        twin.model = Digest::of("another model");
        history.push_manifest(&twin);
        assert!(matches!(offer(&history), Err(Refusal::WrongParent { round: 2, .. })));
    }

    #[test]
    fn wrong_parent_is_refused() {
        let mut history = History::of(2);
        let stranger = Digest::of("stranger");
        history.push_manifest(&manifest(3, Some(stranger)));
        let held = History::of(2).tip();
        assert_eq!(offer(&history), Err(Refusal::WrongParent { round: 3, held, offered: stranger }));

        let mut history = History::new();
        history.push_manifest(&manifest(0, Some(stranger)));
        let newcomer = Lineage::new(pins(), None).accept(&history.newest(0));
        assert_eq!(newcomer, Err(Refusal::WrongParent { round: 0, held: None, offered: stranger }));
    }

    #[test]
    fn missing_parent_is_refused() {
        let mut history = History::of(2);
        history.push_manifest(&manifest(3, None));
        assert_eq!(offer(&history), Err(Refusal::MissingParent { round: 3 }));
        let newcomer = Lineage::new(pins(), None).accept(&history.newest(0));
        assert_eq!(newcomer, Err(Refusal::MissingParent { round: 3 }));
    }

    #[test]
    fn another_privacy_than_the_plans_is_refused() {
        type Change = fn(&mut PrivacyClaim);
        let changes: [(Change, &str); 3] = [
            (|claim| claim.delta = 1e-9, "delta"),
            (|claim| claim.epsilon_budget = 99.0, "epsilon_budget"),
            (|claim| claim.unit = "example".to_owned(), "unit"),
        ];
        for (change, member) in changes {
            for (mut history, lineage) in
                [(History::of(2), follower(&History::of(2))), (History::new(), Lineage::new(pins(), None))]
            {
                let round = history.log.size() as u32;
                let mut next = manifest(round, history.tip());
                change(&mut next.round.privacy);
                history.push_manifest(&next);
                let refusal = lineage.accept(&history.newest(lineage.known_size())).unwrap_err();
                assert!(
                    matches!(&refusal, Refusal::Privacy(conflict) if conflict.member == member),
                    "{refusal}"
                );
            }
        }
    }

    #[test]
    fn rejected_rounds_before_the_held_one_are_refused() {
        let listing = |rejected: u32| {
            let mut history = History::of(2);
            let mut next = manifest(5, history.tip());
            let (model, reason) = (Digest::of("rejected"), "its step is too long".to_owned());
            next.round.rejected = vec![RejectedRound { round: rejected, model, reason }];
            history.push_manifest(&next);
            offer(&history)
        };
        assert_eq!(listing(3).unwrap().round.rejected[0].round, 3);
        let refusal = listing(2).unwrap_err();
        assert_eq!(refusal, Refusal::Manifest(ManifestError::Rejected { found: 2, after: 2, before: 5 }));
    }

    #[test]
    fn what_was_spent_never_falls() {
        for (offered, falls) in [(1.4, false), (1.399, true), (0.0, true)] {
            let mut history = History::of(2);
            let mut next = manifest(3, history.tip());
            next.round.privacy.epsilon_spent = offered;
            history.push_manifest(&next);
            let expected = falls.then_some(Refusal::EpsilonFell { held: 1.4, offered });
            assert_eq!(offer(&history).err(), expected, "{offered}");
        }
        // A newcomer has nothing to compare with.
        let mut history = History::new();
        history.push_manifest(&manifest(0, None));
        assert!(Lineage::new(pins(), None).accept(&history.newest(0)).is_ok());
    }

    /// Signed, with the right parent and a consistent log, but never logged.
    #[test]
    fn a_manifest_outside_the_log_is_refused() {
        let lineage = follower(&History::of(2));
        let mut publication = History::of(3).publication(3, 3);
        let mut secret = manifest(3, History::of(2).tip());
        secret.model = Digest::of("secret model");
        publication.manifest = secret.sign(&[&key(1)]).unwrap();
        assert_eq!(lineage.accept(&publication.to_bytes()), Err(Refusal::NotIncluded { index: 3, size: 4 }));
        publication.leaf_index = u64::MAX;
        assert_eq!(
            lineage.accept(&publication.to_bytes()),
            Err(Refusal::NotIncluded { index: u64::MAX, size: 4 })
        );
    }

    #[test]
    fn another_model_is_refused() {
        let accepted = offer(&History::of(3)).unwrap();
        assert_eq!(accepted.check_model(&model(3)), Ok(()));
        let expected = Refusal::ModelMismatch { expected: accepted.model, found: Digest::of(model(2)) };
        assert_eq!(accepted.check_model(&model(2)), Err(expected));
    }

    #[test]
    fn bytes_that_are_no_publication_are_refused() {
        let lineage = Lineage::new(pins(), None);
        for bytes in [&b""[..], b"{}", b"null", b"\xff\xfe", &[b'['; 1000]] {
            assert!(matches!(lineage.accept(bytes), Err(Refusal::Malformed(_))));
        }
        let long = vec![b' '; MAX_PUBLICATION_BYTES + 1];
        assert!(matches!(lineage.accept(&long), Err(Refusal::Malformed(text)) if text.contains("at most")));
        const { assert!(MAX_PUBLICATION_BYTES < 2 << 20) };
    }

    /// The largest manifest that can be signed can be published.
    #[test]
    fn limits_fit_each_other() {
        let mut large = manifest(0, None);
        let base = large.sign(&[&key(1)]).unwrap().len();
        large.round.rule = "x".repeat((MAX_MANIFEST_BYTES - base) / 4 * 3 - 8);
        let mut history = History::new();
        history.push_manifest(&large);
        assert!(history.log.leaf(0).unwrap().len() > MAX_MANIFEST_BYTES - 32);
        assert!(Lineage::new(pins(), None).accept(&history.newest(0)).is_ok());
    }
}
