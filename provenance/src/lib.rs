//! Signed manifests and the append-only log of models, for both sides of the wire.
//!
//! ```text
//!  coordinator                                        client                      anyone, offline
//!  Manifest::sign ─► Log::append ─► Checkpoint::sign
//!        └────────────── Publication ───────────────► Lineage::accept ─► apply
//!        └── run folder ── build_index ──────────────────────────────────────────► verify_run
//! ```
//!
//! - [`digest`]: SHA-256 digests.
//! - [`dsse`]: signed envelopes (DSSE v1, Ed25519).
//! - [`manifest`]: what an envelope says about one model (in-toto Statement v1).
//! - [`explanation`]: the numbers behind a decision about one of its groups.
//! - [`merkle`]: the log (RFC 6962) and its proofs.
//! - [`checkpoint`]: a signed head of the log (C2SP tlog-checkpoint).
//! - [`lineage`]: the client's check of every publication.
//! - [`run`]: the offline check of a run folder, and the index that makes it possible.
//!
//! Invariants: a signature is checked over the bytes that were received, a digest is taken over the bytes that
//! were received, and no payload is reachable before its signatures are checked, except by a name that starts
//! with `danger_`. Nothing here reads a file, a clock or randomness; every input has a size limit.
//!
//! Absent: key storage and rotation, witnesses of the log, the transport.

pub mod candidate;
pub mod checkpoint;
pub mod digest;
pub mod dsse;
pub mod explanation;
#[cfg(test)]
mod fixtures;
pub mod lineage;
pub mod manifest;
pub mod merkle;
mod privacy;
pub mod run;
mod statement;

/// The key types of the API.
pub use ed25519_dalek::{SigningKey, VerifyingKey};

pub use candidate::{Candidate, CandidateError};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use digest::{Digest, ParseDigestError};
pub use dsse::{DsseError, Envelope, key_id};
pub use explanation::{Explanation, Influence, NoInfluence};
pub use lineage::{Accepted, Head, Lineage, Pins, Publication, Refusal};
pub use manifest::{
    Decision, FileEntry, GroupDecision, Manifest, ManifestError, RejectedRound, RoundPredicate,
};
pub use merkle::{Frontier, Log, MerkleError, TreeHead};
pub use privacy::{Conflict, NO_NOISE, PrivacyClaim, null_is_infinite};
pub use run::{Files, IndexError, PartResult, RunReport, Signer, build_index, verify_run};

/// A bounded, printable piece of text that a peer wrote, for error messages.
fn excerpt(text: &str) -> String {
    const CHARS: usize = 160;
    let mut shown: String = text.chars().take(CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Bytes as a string of standard, padded base64, for serde.
mod base64_bytes {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}
