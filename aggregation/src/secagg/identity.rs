//! Client identities: who may take part at all.
//!
//! An enrolment authority, whose key every client pins, signs each client's Ed25519 key. The coordinator holds no such
//! key: one that could mint identities could fill every group with its own and outvote any threshold.
//!
//! Absent on purpose: revocation (certificates are short-lived) and chains (one authority, one signature).

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::codec::{CodecError, HEADER_LEN, Kind, Reader, Writer};
use super::signature::Signed;
use super::transcript::digest;

/// Longest name in a certificate, in bytes of UTF-8.
pub const MAX_NAME_LEN: usize = 64;

/// Longest certificate in bytes.
pub const MAX_CERTIFICATE_LEN: usize = HEADER_LEN + 32 + 8 + 4 + MAX_NAME_LEN + 64;

/// A client's identifier: the digest of its identity key. Rosters are ordered by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub [u8; 32]);

impl ClientId {
    /// Of the client with this Ed25519 public key.
    pub fn of(public_key: &[u8; 32]) -> Self {
        Self(digest("client id", &[public_key]))
    }
}

impl fmt::Display for ClientId {
    /// The first eight bytes in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

/// A client's public key and name, vouched for by the enrolment authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityCertificate {
    public_key: VerifyingKey,
    name: String,
    not_after: u64,
}

/// Why a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The bytes are not a certificate.
    #[error("identity certificate: {0}")]
    Malformed(#[from] CodecError),
    /// The name is too long or not UTF-8.
    #[error("identity name is not UTF-8 of at most {MAX_NAME_LEN} bytes")]
    Name,
    /// The public key is not a point of the curve, or one of small order.
    #[error("identity key is not a valid Ed25519 public key")]
    PublicKey,
    /// The authority did not sign these bytes.
    #[error("identity is not signed by the enrolment authority")]
    Forged,
    /// The certificate's time is over.
    #[error("identity certificate expired at {not_after}, the time is {now} (unix seconds)")]
    Expired {
        /// Last second of validity, unix time.
        not_after: u64,
        /// Time of the check, unix time.
        now: u64,
    },
    /// The certificate is for another key than the one used with it.
    #[error("identity certificate is for another key than the client's")]
    OtherKey,
}

impl IdentityCertificate {
    /// Signs `public_key` (Ed25519, 32 bytes) and `name` as valid up to and including second `not_after` (unix time).
    /// Returns the certificate's bytes. Fails on a name over [`MAX_NAME_LEN`] bytes and on a key that
    /// [`verify`](Self::verify) would refuse.
    pub fn issue(
        authority: &SigningKey,
        public_key: &[u8; 32],
        name: &str,
        not_after: u64,
    ) -> Result<Vec<u8>, IdentityError> {
        if name.len() > MAX_NAME_LEN {
            return Err(IdentityError::Name);
        }
        strong_key(public_key)?;
        let signed = Writer::new(Kind::Identity)
            .bytes(public_key)
            .bytes(&not_after.to_le_bytes())
            .u32(name.len())
            .bytes(name.as_bytes());
        let body = signed.finish();
        let signature = authority.sign(&signed_digest(&body));
        Ok([body.as_slice(), &signature.to_bytes()].concat())
    }

    /// Parses a certificate and checks key, signature (strictly: no small-order keys, canonical scalars) and expiry
    /// against `now` (unix seconds).
    pub fn verify(bytes: &[u8], authority: &VerifyingKey, now: u64) -> Result<Self, IdentityError> {
        let claim = Claim::parse(bytes)?;
        if !claim.signed(authority).is_valid() {
            return Err(IdentityError::Forged);
        }
        claim.check(now)
    }

    /// [`verify`](Self::verify) but for the signature, which is left to the caller.
    pub(super) fn verify_unsigned(
        bytes: &[u8],
        authority: &VerifyingKey,
        now: u64,
    ) -> Result<(Self, Signed), IdentityError> {
        let claim = Claim::parse(bytes)?;
        let signed = claim.signed(authority);
        Ok((claim.check(now)?, signed))
    }

    /// Whom a certificate speaks of, true or not.
    pub(super) fn claimed_id(bytes: &[u8]) -> Result<ClientId, IdentityError> {
        Ok(ClientId::of(&Claim::parse(bytes)?.public_key))
    }

    /// The identifier that stands for this identity everywhere.
    pub fn client_id(&self) -> ClientId {
        ClientId::of(self.public_key.as_bytes())
    }

    /// The client's Ed25519 public key.
    pub fn public_key(&self) -> &VerifyingKey {
        &self.public_key
    }

    /// Human-readable name; it identifies nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Last second of validity, unix time.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }
}

/// A certificate taken apart, nothing but its structure checked.
struct Claim<'a> {
    public_key: [u8; 32],
    not_after: u64,
    name: &'a [u8],
    /// What the signature is on.
    signed: &'a [u8],
    signature: Signature,
}

impl<'a> Claim<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, IdentityError> {
        let mut reader = Reader::new(bytes, Kind::Identity)?;
        let public_key = reader.array()?;
        let not_after = u64::from_le_bytes(reader.array()?);
        let name_len = reader.u32()?;
        if name_len > MAX_NAME_LEN {
            return Err(IdentityError::Name);
        }
        let name = reader.bytes(name_len)?;
        let signature = Signature::from_bytes(&reader.array()?);
        reader.finish()?;
        let signed = &bytes[..bytes.len() - Signature::BYTE_SIZE];
        Ok(Self { public_key, not_after, name, signed, signature })
    }

    fn signed(&self, authority: &VerifyingKey) -> Signed {
        Signed { key: *authority, digest: signed_digest(self.signed), signature: self.signature }
    }

    /// Everything but the signature.
    fn check(self, now: u64) -> Result<IdentityCertificate, IdentityError> {
        let Self { public_key, not_after, name, .. } = self;
        if now > not_after {
            return Err(IdentityError::Expired { not_after, now });
        }
        let name = str::from_utf8(name).map_err(|_| IdentityError::Name)?.to_owned();
        Ok(IdentityCertificate { public_key: strong_key(&public_key)?, name, not_after })
    }
}

fn signed_digest(body: &[u8]) -> [u8; 32] {
    digest("identity", &[body])
}

fn strong_key(bytes: &[u8; 32]) -> Result<VerifyingKey, IdentityError> {
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).ok_or(IdentityError::PublicKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn certificate() -> Vec<u8> {
        let key = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        IdentityCertificate::issue(&authority(), &key, "phone 1", 100).unwrap()
    }

    fn verify(bytes: &[u8], now: u64) -> Result<IdentityCertificate, IdentityError> {
        IdentityCertificate::verify(bytes, &authority().verifying_key(), now)
    }

    #[test]
    fn an_issued_certificate_verifies_until_it_expires() {
        let identity = verify(&certificate(), 100).unwrap();
        assert_eq!((identity.name(), identity.not_after()), ("phone 1", 100));
        assert_eq!(verify(&certificate(), 101), Err(IdentityError::Expired { not_after: 100, now: 101 }));
    }

    #[test]
    fn no_bit_can_be_changed() {
        let certificate = certificate();
        for bit in 0..certificate.len() * 8 {
            let mut changed = certificate.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&changed, 0).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_authority_is_a_forgery() {
        let key = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        let forged = IdentityCertificate::issue(&SigningKey::from_bytes(&[9; 32]), &key, "x", 100).unwrap();
        assert_eq!(verify(&forged, 0), Err(IdentityError::Forged));
    }

    #[test]
    fn lengths_are_exact() {
        let certificate = certificate();
        for len in 0..certificate.len() {
            assert!(
                matches!(verify(&certificate[..len], 0), Err(IdentityError::Malformed(_))),
                "length {len}"
            );
        }
        let longer = [certificate.as_slice(), &[0]].concat();
        assert_eq!(verify(&longer, 0), Err(CodecError::Trailing { extra: 1 }.into()));
        let name = "é".repeat(MAX_NAME_LEN / 2);
        let key = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        let longest = IdentityCertificate::issue(&authority(), &key, &name, 1).unwrap();
        assert_eq!(longest.len(), MAX_CERTIFICATE_LEN);
        let too_long = IdentityCertificate::issue(&authority(), &key, &format!("{name}x"), 1);
        assert_eq!(too_long, Err(IdentityError::Name));
    }

    #[test]
    fn a_small_order_key_is_not_certified() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let issued = IdentityCertificate::issue(&authority(), &neutral, "x", 1);
        assert_eq!(issued, Err(IdentityError::PublicKey));
    }
}
