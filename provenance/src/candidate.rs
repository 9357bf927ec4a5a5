//! A model that is shown to clients to be judged, before it is anybody's.
//!
//! The statement says what a model follows and which round made it. Its payload type is its own, so that no client takes
//! it for a manifest: a candidate is in no log, and nothing in this crate adopts one.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::DsseError, dsse::Envelope, excerpt};

/// DSSE payload type of a candidate.
pub const CANDIDATE_PAYLOAD_TYPE: &str = "application/vnd.fedveil.candidate.v1+json";

/// Most bytes of a signed candidate.
pub const MAX_CANDIDATE_BYTES: usize = 4096;

/// What a coordinator signs about a model that it asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Digest of the task's signed plan.
    pub task: Digest,
    /// The round that made the model.
    pub round: u32,
    /// Digest of the envelope of the manifest that the model follows.
    pub parent: Digest,
    /// Digest of the model file.
    pub model: Digest,
}

/// Why a candidate is not looked at.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CandidateError {
    /// Refused before parsing.
    #[error("candidate of {0} bytes, at most {MAX_CANDIDATE_BYTES} are accepted")]
    TooLarge(usize),
    /// The envelope or its signatures.
    #[error("candidate: {0}")]
    Envelope(#[from] DsseError),
    /// The payload.
    #[error("candidate: {0}")]
    Malformed(String),
}

impl Candidate {
    /// Signs the statement.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let payload = serde_json::to_vec(self).expect("a candidate holds only strings and numbers");
        Envelope::sign(CANDIDATE_PAYLOAD_TYPE, payload, &[key]).to_json()
    }

    /// Reads a statement that `signer` signed.
    pub fn verify(bytes: &[u8], signer: &VerifyingKey) -> Result<Self, CandidateError> {
        if bytes.len() > MAX_CANDIDATE_BYTES {
            return Err(CandidateError::TooLarge(bytes.len()));
        }
        let envelope = Envelope::parse(bytes)?;
        let payload = envelope.verify(CANDIDATE_PAYLOAD_TYPE, std::slice::from_ref(signer), 1)?;
        serde_json::from_slice(payload)
            .map_err(|error| CandidateError::Malformed(excerpt(&error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;
    use crate::fixtures::{key, manifest};

    fn candidate() -> Candidate {
        let [task, parent, model] = ["task", "parent", "model"].map(Digest::of);
        Candidate { task, round: 3, parent, model }
    }

    #[test]
    fn a_signed_candidate_reads_back_and_no_byte_of_it_can_change() {
        let signed = candidate().sign(&key(1));
        let signer = key(1).verifying_key();
        assert_eq!(Candidate::verify(&signed, &signer), Ok(candidate()));
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert!(Candidate::verify(&changed, &signer).is_err(), "byte {at}");
        }
        let long = vec![b' '; MAX_CANDIDATE_BYTES + 1];
        assert_eq!(Candidate::verify(&long, &signer), Err(CandidateError::TooLarge(long.len())));
        assert!(Candidate::verify(&signed, &key(2).verifying_key()).is_err());
    }

    #[test]
    fn a_candidate_is_no_manifest_and_a_manifest_no_candidate() {
        let signer = key(1).verifying_key();
        assert!(Manifest::verify(&candidate().sign(&key(1)), &[signer], 1).is_err());
        assert!(Candidate::verify(&manifest(0, None).sign(&[&key(1)]).unwrap(), &signer).is_err());
    }
}
