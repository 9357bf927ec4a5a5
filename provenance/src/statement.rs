//! in-toto Statement v1: a typed predicate about files named by digest
//! (github.com/in-toto/attestation, `spec/v1/statement.md`), in a DSSE envelope.
//!
//! Manifests and run indexes are both statements; the predicate type keeps one from being taken for the other.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    digest::Digest,
    dsse::{DsseError, Envelope},
    excerpt,
    manifest::FileEntry,
};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Why an envelope is not the statement that the caller reads.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// The envelope or its signatures.
    #[error(transparent)]
    Envelope(#[from] DsseError),
    /// Not the JSON of the statement.
    #[error("not the expected statement: {0}")]
    Malformed(String),
    /// A statement of another type, or about another thing.
    #[error("{member} is \"{found}\", expected \"{expected}\"")]
    Type {
        /// The member of the statement.
        member: &'static str,
        /// What the caller reads.
        expected: &'static str,
        /// What it says.
        found: String,
    },
}

/// A signed envelope with a statement of `predicate_type` about `subject`.
pub(crate) fn sign<P: Serialize>(
    predicate_type: &str,
    subject: impl IntoIterator<Item = FileEntry>,
    predicate: &P,
    keys: &[&SigningKey],
) -> Vec<u8> {
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: subject.into_iter().map(Subject::from).collect(),
        predicate_type: predicate_type.to_owned(),
        predicate,
    };
    let payload = serde_json::to_vec(&statement).expect("statements hold only strings, numbers and lists");
    Envelope::sign(PAYLOAD_TYPE, payload, keys).to_json()
}

/// The subject and predicate of a statement that `threshold` of the `trusted` keys signed.
pub(crate) fn verify<P: DeserializeOwned>(
    envelope: &[u8],
    predicate_type: &'static str,
    trusted: &[VerifyingKey],
    threshold: usize,
) -> Result<(Vec<FileEntry>, P), StatementError> {
    parse(Envelope::parse(envelope)?.verify(PAYLOAD_TYPE, trusted, threshold)?, predicate_type)
}

/// The subject and predicate of a payload, which the caller has verified.
pub(crate) fn parse<P: DeserializeOwned>(
    payload: &[u8],
    predicate_type: &'static str,
) -> Result<(Vec<FileEntry>, P), StatementError> {
    let malformed = |error: serde_json::Error| StatementError::Malformed(excerpt(&error.to_string()));
    // The type first: a statement of another type would fail on whichever of its fields comes first.
    let types: Types = serde_json::from_slice(payload).map_err(malformed)?;
    for (member, expected, found) in
        [("_type", STATEMENT_TYPE, types.statement), ("predicateType", predicate_type, types.predicate)]
    {
        if found != expected {
            return Err(StatementError::Type { member, expected, found: excerpt(&found) });
        }
    }
    let statement: Statement<P> = serde_json::from_slice(payload).map_err(malformed)?;
    Ok((statement.subject.into_iter().map(FileEntry::from).collect(), statement.predicate))
}

#[derive(Deserialize)]
struct Types {
    #[serde(rename = "_type")]
    statement: String,
    #[serde(rename = "predicateType")]
    predicate: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement<P> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: P,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: DigestSet,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestSet {
    sha256: Digest,
}

impl From<FileEntry> for Subject {
    fn from(file: FileEntry) -> Self {
        Self { name: file.path, digest: DigestSet { sha256: file.digest } }
    }
}

impl From<Subject> for FileEntry {
    fn from(subject: Subject) -> Self {
        Self { path: subject.name, digest: subject.digest.sha256 }
    }
}
