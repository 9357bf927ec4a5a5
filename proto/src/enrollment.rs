//! The text that a client signs with its identity key to enrol.
//!
//! The signature shows that the client holds the identity key, and binds that key to this token and this TLS key: a
//! request cannot be put together from parts of others.

use sha2::{Digest, Sha256};

const DOMAIN: &[u8] = b"fedveil.v1 enrollment identity proof\0";

/// The bytes to sign, from the token's secret and the certificate request in DER.
pub fn identity_proof_message(token_secret: &[u8; 32], csr_der: &[u8]) -> Vec<u8> {
    [DOMAIN, &Sha256::digest(token_secret), &Sha256::digest(csr_der)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let message = identity_proof_message(&[9; 32], b"request");
        assert_eq!(message.len(), 37 + 64);
        assert!(message.starts_with(b"fedveil.v1 enrollment identity proof\0"));
        assert_eq!(message[37..69], Sha256::digest([9; 32])[..]);
        assert_eq!(message[69..], Sha256::digest(b"request")[..]);
    }
}
