//! Domain-separated hashing and key derivation.
//!
//! Every hash, signature and derived key names its purpose and length-prefixes its parts, so no value made for one
//! purpose can be taken for another, and no two lists of parts hash alike.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// `SHA-256(len(tag) ‖ tag ‖ len(part₁) ‖ part₁ ‖ …)`.
pub(super) fn digest(purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut absorb = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    absorb(tag(purpose).as_bytes());
    for part in parts {
        absorb(part);
    }
    hash.finalize().into()
}

/// A 256-bit key from `secret` by HKDF-SHA256 (RFC 5869), salted with the group transcript.
pub(super) fn derive_key(
    purpose: &str,
    salt: &[u8; 32],
    secret: &[u8; 32],
    parts: &[&[u8]],
) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(&digest(purpose, parts), key.as_mut())
        .expect("32 bytes are within the 255 · 32 that HKDF-SHA256 can expand to");
    key
}

fn tag(purpose: &str) -> String {
    format!("fedveil/secagg/v{}/{purpose}", super::codec::VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_part_boundaries_separate() {
        let base = digest("a", &[b"xy", b"z"]);
        assert_eq!(base, digest("a", &[b"xy", b"z"]));
        assert_ne!(base, digest("b", &[b"xy", b"z"]));
        assert_ne!(base, digest("a", &[b"x", b"yz"]));
        assert_ne!(base, digest("a", &[b"xy", b"z", b""]));
    }
}
