//! Ed25519 signatures (RFC 8032) of one's group, checked together.

use ed25519_dalek::{Signature, VerifyingKey, verify_batch};

/// A digest and a signature that is claimed to be on it.
pub(super) struct Signed {
    pub(super) key: VerifyingKey,
    pub(super) digest: [u8; 32],
    pub(super) signature: Signature,
}

impl Signed {
    /// Strict: no small-order points, canonical scalars.
    pub(super) fn is_valid(&self) -> bool {
        self.key.verify_strict(&self.digest, &self.signature).is_ok()
    }
}

/// Whether all signatures are valid, in a third of the time that it takes one by one.
///
/// What is [valid](Signed::is_valid) by itself is valid here. The other way round, a signature may pass whose point has
/// a component of small order; it takes the secret key to make one, so it is no forgery.
pub(super) fn all_valid(signed: &[Signed]) -> bool {
    let digests: Vec<&[u8]> = signed.iter().map(|signed| signed.digest.as_slice()).collect();
    let signatures: Vec<Signature> = signed.iter().map(|signed| signed.signature).collect();
    let keys: Vec<VerifyingKey> = signed.iter().map(|signed| signed.key).collect();
    verify_batch(&digests, &signatures, &keys).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    #[test]
    fn one_false_signature_among_many_is_noticed() {
        let signed = |number: u8| {
            let (key, digest) = (SigningKey::from_bytes(&[number; 32]), [number ^ 0x55; 32]);
            Signed { key: key.verifying_key(), digest, signature: key.sign(&digest) }
        };
        let all = || (1..=40).map(signed).collect::<Vec<_>>();
        assert!(all_valid(&all()) && all().iter().all(Signed::is_valid));
        for wrong in [0, 17, 39] {
            let mut other_digest = all();
            other_digest[wrong].digest[31] ^= 1;
            let mut other_signature = all();
            other_signature[wrong].signature = all()[(wrong + 1) % 40].signature;
            let mut other_key = all();
            other_key[wrong].key = all()[(wrong + 1) % 40].key;
            for spoilt in [other_digest, other_signature, other_key] {
                assert!(!all_valid(&spoilt));
                assert_eq!(spoilt.iter().position(|signed| !signed.is_valid()), Some(wrong));
            }
        }
    }
}
