//! Signed heads of the log: C2SP tlog-checkpoint in a C2SP signed note (c2sp.org/tlog-checkpoint, c2sp.org/signed-note).
//!
//! ```text
//! fedveil.example/digits                          origin: which log
//! 13                                              leaves
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    root
//!
//! — fedveil.example/digits Az3grl…                key id (4 bytes) and Ed25519 signature of the lines above
//! ```
//!
//! The key is named by the origin. Lines by other keys (witnesses) are passed over. Absent: extension lines, which
//! no checkpoint of this project has, and cosignatures.

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::{
    digest::Digest,
    excerpt,
    merkle::{MAX_SIZE, TreeHead},
};

/// The largest checkpoint that is read, in bytes.
pub const MAX_CHECKPOINT_BYTES: usize = 8 << 10;

/// The signature type of Ed25519 in a signed note.
const ED25519: u8 = 1;

/// A head of the log that its key has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How long it is, and its root.
    pub head: TreeHead,
}

/// Why a checkpoint was not made, or not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// An origin names the key too, so it is a key name of a signed note.
    #[error("a log origin is not empty and has no space, control character or plus sign, found {0:?}")]
    Origin(String),
    /// Not a signed note, or not one that is a checkpoint.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// A checkpoint of another log.
    #[error("checkpoint of log {found:?}, expected {expected:?}")]
    OtherLog {
        /// The origin that the caller wants.
        expected: String,
        /// The origin in the checkpoint.
        found: String,
    },
    /// No signature line is by this key.
    #[error("the checkpoint is not signed by the log's key")]
    UnknownSigner,
    /// The signature line of this key is wrong.
    #[error("the signature of the checkpoint does not verify")]
    BadSignature,
}

impl Checkpoint {
    /// Signs the head of the log `origin`.
    pub fn sign(origin: &str, head: &TreeHead, key: &SigningKey) -> Result<String, CheckpointError> {
        check_origin(origin)?;
        let body = format!("{origin}\n{}\n{}\n", head.size, BASE64_STANDARD.encode(head.root.0));
        Ok(sign_note(&body, origin, key))
    }

    /// Reads a checkpoint of the log `origin` that `key` signed.
    pub fn verify(text: &str, origin: &str, key: &VerifyingKey) -> Result<Self, CheckpointError> {
        check_origin(origin)?;
        if text.len() > MAX_CHECKPOINT_BYTES {
            return Err(CheckpointError::Malformed("too long"));
        }
        let found = danger_unverified_origin(text)?;
        if found != origin {
            return Err(CheckpointError::OtherLog { expected: origin.to_owned(), found: excerpt(found) });
        }
        let body = open_note(text, origin, key)?;
        let head =
            parse_head(body).ok_or(CheckpointError::Malformed("its lines are not origin, size and root"))?;
        Ok(Self { origin: origin.to_owned(), head })
    }
}

/// The log that a checkpoint claims to be of, before any check.
pub(crate) fn danger_unverified_origin(text: &str) -> Result<&str, CheckpointError> {
    text.split_once('\n').map(|(origin, _)| origin).ok_or(CheckpointError::Malformed("it has no lines"))
}

fn check_origin(origin: &str) -> Result<(), CheckpointError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if origin.is_empty() || origin.contains(bad) {
        return Err(CheckpointError::Origin(excerpt(origin)));
    }
    Ok(())
}

/// Size and root from the verified lines of a checkpoint.
fn parse_head(body: &str) -> Option<TreeHead> {
    let mut lines = body.strip_suffix('\n')?.split('\n').skip(1);
    let (size_text, root, None) = (lines.next()?, lines.next()?, lines.next()) else { return None };
    let size: u64 = size_text.parse().ok().filter(|size| *size <= MAX_SIZE)?;
    // A number has one spelling: no sign, no leading zero.
    if size.to_string() != size_text {
        return None;
    }
    let root = BASE64_STANDARD.decode(root).ok()?.try_into().ok()?;
    Some(TreeHead { size, root: Digest(root) })
}

/// A signed note over `body`, which ends with a newline.
fn sign_note(body: &str, name: &str, key: &SigningKey) -> String {
    let mut signature = note_key_id(name, &key.verifying_key()).to_vec();
    signature.extend_from_slice(&key.sign(body.as_bytes()).to_bytes());
    format!("{body}\n— {name} {}\n", BASE64_STANDARD.encode(signature))
}

/// The body of a signed note, with its final newline, if the key of this name signed it.
fn open_note<'a>(text: &'a str, name: &str, key: &VerifyingKey) -> Result<&'a str, CheckpointError> {
    let end = text.rfind("\n\n").ok_or(CheckpointError::Malformed("it has no signatures"))?;
    let body = &text[..=end];
    let lines =
        text[end + 2..].strip_suffix('\n').ok_or(CheckpointError::Malformed("its last line has no end"))?;
    let id = note_key_id(name, key);
    let mut signed = false;
    for line in lines.split('\n') {
        let (signer, signature) = line
            .strip_prefix("— ")
            .and_then(|line| line.split_once(' '))
            .ok_or(CheckpointError::Malformed("a signature line is not a dash, a name and base64"))?;
        let bytes = BASE64_STANDARD
            .decode(signature)
            .map_err(|_| CheckpointError::Malformed("a signature is not base64"))?;
        let Some(signature) = bytes.strip_prefix(&id).filter(|_| signer == name) else { continue };
        let verified =
            Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(body.as_bytes(), &s).is_ok());
        if !verified {
            return Err(CheckpointError::BadSignature);
        }
        signed = true;
    }
    if signed { Ok(body) } else { Err(CheckpointError::UnknownSigner) }
}

/// The first four bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key).
fn note_key_id(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let named = [name.as_bytes(), b"\n", &[ED25519], key.as_bytes()].concat();
    let [a, b, c, d, ..] = Digest::of(named).0;
    [a, b, c, d]
}
