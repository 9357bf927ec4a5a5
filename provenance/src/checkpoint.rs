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
    #[error("a log origin is not empty and has no space, control character or plus sign, found \"{0}\"")]
    Origin(String),
    /// Not a signed note, or not one that is a checkpoint.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// A checkpoint of another log.
    #[error("checkpoint of log \"{found}\", expected \"{expected}\"")]
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

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "fedveil.example/digits";

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn head() -> TreeHead {
        TreeHead { size: 13, root: Digest::of("root") }
    }

    /// A signed checkpoint with this body.
    fn note(body: &str) -> String {
        sign_note(body, ORIGIN, &key())
    }

    fn verify(text: &str) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::verify(text, ORIGIN, &key().verifying_key())
    }

    /// The key and note of golang.org/x/mod/sumdb/note, `note_test.go`.
    #[test]
    fn the_note_of_the_reference_implementation() {
        const NAME: &str = "PeterNeumann";
        const SECRET: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        const PUBLIC: &str = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        const BODY: &str = "If you think cryptography is the answer to your problem,\n\
                            then you don't know what your problem is.\n";
        const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
                            then you don't know what your problem is.\n\n\
                            — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let material = |text: &str| -> [u8; 32] {
            let bytes = BASE64_STANDARD.decode(text).unwrap();
            assert_eq!(bytes[0], ED25519);
            bytes[1..].try_into().unwrap()
        };
        let key = SigningKey::from_bytes(&material(SECRET));
        assert_eq!(key.verifying_key().to_bytes(), material(PUBLIC));
        assert_eq!(note_key_id(NAME, &key.verifying_key()), [0xc7, 0x4f, 0x20, 0xa3]);
        assert_eq!(sign_note(BODY, NAME, &key), NOTE);
        assert_eq!(open_note(NOTE, NAME, &key.verifying_key()), Ok(BODY));
        // A good note that is no checkpoint.
        assert_eq!(
            Checkpoint::verify(
                &sign_note(&format!("{NAME}\n{BODY}"), NAME, &key),
                NAME,
                &key.verifying_key()
            ),
            Err(CheckpointError::Malformed("its lines are not origin, size and root"))
        );
    }

    #[test]
    fn a_signed_head_verifies() {
        let text = Checkpoint::sign(ORIGIN, &head(), &key()).unwrap();
        assert_eq!(verify(&text), Ok(Checkpoint { origin: ORIGIN.to_owned(), head: head() }));
    }

    #[test]
    fn every_byte_is_covered() {
        let text = Checkpoint::sign(ORIGIN, &head(), &key()).unwrap();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                assert!(verify(text).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn another_log_and_another_key_are_refused() {
        let text = Checkpoint::sign("other.example/log", &head(), &key()).unwrap();
        assert_eq!(
            verify(&text),
            Err(CheckpointError::OtherLog {
                expected: ORIGIN.to_owned(),
                found: "other.example/log".to_owned()
            })
        );
        let text = Checkpoint::sign(ORIGIN, &head(), &SigningKey::from_bytes(&[8; 32])).unwrap();
        assert_eq!(verify(&text), Err(CheckpointError::UnknownSigner));
        let root = BASE64_STANDARD.encode(head().root.0);
        let text = note(&format!("{ORIGIN}\n13\n{root}\n")).replace("\n13\n", "\n12\n");
        assert_eq!(verify(&text), Err(CheckpointError::BadSignature));
    }

    #[test]
    fn a_witness_line_is_passed_over() {
        let signed = Checkpoint::sign(ORIGIN, &head(), &key()).unwrap();
        let text = format!("{signed}— witness.example {}\n", BASE64_STANDARD.encode([1; 76]));
        assert_eq!(verify(&text).map(|checkpoint| checkpoint.head), Ok(head()));
    }

    #[test]
    fn signed_lines_have_one_spelling() {
        let root = BASE64_STANDARD.encode(head().root.0);
        assert!(verify(&note(&format!("{ORIGIN}\n13\n{root}\n"))).is_ok());
        for lines in [
            format!("+13\n{root}\n"),
            format!("013\n{root}\n"),
            format!("13 \n{root}\n"),
            format!("-1\n{root}\n"),
            format!("281474976710657\n{root}\n"),
            format!("99999999999999999999\n{root}\n"),
            format!("13\n{}\n", &root[..43]),
            format!("13\n{}\n", BASE64_STANDARD.encode([0; 33])),
            format!("13\n{root}\nextension\n"),
            "13\n".to_owned(),
        ] {
            let verified = verify(&note(&format!("{ORIGIN}\n{lines}")));
            assert!(matches!(verified, Err(CheckpointError::Malformed(_))), "{lines:?}: {verified:?}");
        }
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let good = Checkpoint::sign(ORIGIN, &head(), &key()).unwrap();
        for bad in [
            String::new(),
            "\n".to_owned(),
            good.replace("\n\n", "\n"),
            good.trim_end().to_owned(),
            good.replace('—', "--"),
            good.replace("— ", "—"),
            format!("{good}\n"),
            format!("{good}— x !\n"),
        ] {
            assert!(verify(&bad).is_err(), "{bad:?}");
        }
        let long = format!("{ORIGIN}\n{}", "x".repeat(MAX_CHECKPOINT_BYTES));
        assert_eq!(verify(&long), Err(CheckpointError::Malformed("too long")));
    }

    #[test]
    fn an_origin_is_a_key_name() {
        for origin in ["", "a b", "a+b", "a\nb", "a\u{a0}b", "a\0b"] {
            assert!(
                matches!(Checkpoint::sign(origin, &head(), &key()), Err(CheckpointError::Origin(_))),
                "{origin:?}"
            );
        }
    }
}
