//! Signed envelopes: DSSE v1 (github.com/secure-systems-lab/dsse, `protocol.md` and `envelope.md`) with Ed25519.
//!
//! The signature covers the payload bytes and their type through the pre-authentication encoding, never the JSON
//! around them. A key id is the SHA-256 of the 32 bytes of the public key; it selects the key to check with and
//! proves nothing itself.
//!
//! Absent: any other algorithm, certificates, and the URL-safe base64 that the specification lets a reader accept:
//! an envelope has few spellings, and this crate writes one of them.

use std::collections::BTreeSet;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, excerpt};

/// The largest envelope that [`Envelope::parse`] reads, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = 16 << 20;

/// The most signatures that one envelope may carry.
pub const MAX_SIGNATURES: usize = 32;

/// A payload with its type and signatures, verified or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    #[serde(with = "crate::base64_bytes")]
    payload: Vec<u8>,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    keyid: Digest,
    #[serde(with = "crate::base64_bytes")]
    sig: Vec<u8>,
}

/// Why an envelope was not read, or its payload not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DsseError {
    /// Refused before parsing.
    #[error("envelope of {0} bytes, at most {MAX_ENVELOPE_BYTES} are accepted")]
    TooLarge(usize),
    /// Not the JSON of a DSSE envelope.
    #[error("not a DSSE envelope: {0}")]
    Malformed(String),
    /// More signatures than anyone needs.
    #[error("envelope with {0} signatures, at most {MAX_SIGNATURES} are accepted")]
    TooManySignatures(usize),
    /// The payload is of another kind than the caller reads.
    #[error("payload type is {found}, expected {expected}")]
    PayloadType {
        /// What the caller reads.
        expected: String,
        /// What the envelope says.
        found: String,
    },
    /// No signature names a trusted key.
    #[error("signed by no trusted key (signers: {})", list(.signers))]
    UnknownSigner {
        /// Key ids that the envelope names, unverified.
        signers: Vec<Digest>,
    },
    /// Too few valid signatures, and this trusted key's is a wrong one.
    #[error("the signature by key {key} does not verify")]
    BadSignature {
        /// Id of the trusted key.
        key: Digest,
    },
    /// All signatures by trusted keys are valid, but there are too few of them.
    #[error("signed by {valid} trusted keys, {threshold} are needed")]
    Threshold {
        /// Distinct trusted keys with a valid signature.
        valid: usize,
        /// How many are needed.
        threshold: usize,
    },
}

impl Envelope {
    /// Signs `payload` as a `payload_type` with every one of `keys`.
    pub fn sign(payload_type: &str, payload: Vec<u8>, keys: &[&SigningKey]) -> Self {
        let message = pre_authentication_encoding(payload_type, &payload);
        let signatures = keys
            .iter()
            .map(|key| EnvelopeSignature {
                keyid: key_id(&key.verifying_key()),
                sig: key.sign(&message).to_vec(),
            })
            .collect();
        Self { payload, payload_type: payload_type.to_owned(), signatures }
    }

    /// The envelope as one line of JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope holds only strings")
    }

    /// Reads an envelope of at most [`MAX_ENVELOPE_BYTES`], without checking a signature.
    pub fn parse(json: &[u8]) -> Result<Self, DsseError> {
        if json.len() > MAX_ENVELOPE_BYTES {
            return Err(DsseError::TooLarge(json.len()));
        }
        let envelope: Self = serde_json::from_slice(json)
            .map_err(|error| DsseError::Malformed(excerpt(&error.to_string())))?;
        if envelope.signatures.len() > MAX_SIGNATURES {
            return Err(DsseError::TooManySignatures(envelope.signatures.len()));
        }
        Ok(envelope)
    }

    /// The payload, if it is a `payload_type` that at least `threshold` distinct keys of `trusted` signed.
    ///
    /// A threshold of 0 counts as 1. Signatures by other keys are passed over, as the specification asks.
    pub fn verify(
        &self,
        payload_type: &str,
        trusted: &[VerifyingKey],
        threshold: usize,
    ) -> Result<&[u8], DsseError> {
        if self.payload_type != payload_type {
            return Err(DsseError::PayloadType {
                expected: payload_type.to_owned(),
                found: excerpt(&self.payload_type),
            });
        }
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        let threshold = threshold.max(1);
        let mut valid = BTreeSet::new();
        let mut invalid = None;
        for signature in &self.signatures {
            let Some(key) = trusted.iter().find(|key| key_id(key) == signature.keyid) else { continue };
            let verified = Signature::from_slice(&signature.sig)
                .is_ok_and(|sig| key.verify_strict(&message, &sig).is_ok());
            if verified {
                valid.insert(signature.keyid);
            } else {
                invalid = Some(signature.keyid);
            }
        }
        match (valid.len(), invalid) {
            (enough, _) if enough >= threshold => Ok(&self.payload),
            (_, Some(key)) => Err(DsseError::BadSignature { key }),
            (0, None) => Err(DsseError::UnknownSigner { signers: self.danger_unverified_signers() }),
            (valid, None) => Err(DsseError::Threshold { valid, threshold }),
        }
    }

    /// The payload, whoever wrote it. For diagnosis only: nothing may be believed or done because of it.
    pub fn danger_unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The key ids that the envelope names. They say who claims to have signed, no more.
    pub fn danger_unverified_signers(&self) -> Vec<Digest> {
        self.signatures.iter().map(|signature| signature.keyid).collect()
    }
}

/// The id of a public key: SHA-256 of its 32 bytes.
pub fn key_id(key: &VerifyingKey) -> Digest {
    Digest::of(key.as_bytes())
}

/// DSSE `PAE(type, body)`: the bytes that are signed.
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

fn list(ids: &[Digest]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "http://example.com/HelloWorld";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn hello(keys: &[&SigningKey]) -> Envelope {
        Envelope::sign(TYPE, b"hello world".to_vec(), keys)
    }

    /// The example of DSSE `protocol.md`.
    #[test]
    fn pre_authentication_encoding_of_the_specification() {
        assert_eq!(
            pre_authentication_encoding(TYPE, b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pre_authentication_encoding("é", b""), "DSSEv1 2 é 0 ".as_bytes());
    }

    #[test]
    fn json_has_the_members_of_the_specification() {
        let json: serde_json::Value = serde_json::from_slice(&hello(&[&key(1)]).to_json()).unwrap();
        assert_eq!(json["payload"], "aGVsbG8gd29ybGQ=");
        assert_eq!(json["payloadType"], TYPE);
        assert_eq!(
            json["signatures"][0]["keyid"],
            hex::encode(Digest::of(key(1).verifying_key().as_bytes()).0)
        );
        assert_eq!(json["signatures"][0]["sig"].as_str().unwrap().len(), 88);
    }

    #[test]
    fn a_payload_needs_its_threshold_of_distinct_trusted_keys() {
        let [a, b, c] = [key(1), key(2), key(3)];
        let trusted = [a.verifying_key(), b.verifying_key(), a.verifying_key()];
        let both = Envelope::parse(&hello(&[&a, &c, &b]).to_json()).unwrap();
        assert_eq!(both.verify(TYPE, &trusted, 2), Ok(&b"hello world"[..]));
        assert_eq!(
            hello(&[&a, &a, &c]).verify(TYPE, &trusted, 2),
            Err(DsseError::Threshold { valid: 1, threshold: 2 })
        );
        assert_eq!(
            hello(&[&c]).verify(TYPE, &trusted, 0),
            Err(DsseError::UnknownSigner { signers: vec![key_id(&c.verifying_key())] })
        );
        assert_eq!(hello(&[]).verify(TYPE, &trusted, 0), Err(DsseError::UnknownSigner { signers: vec![] }));
        assert_eq!(hello(&[&a]).verify(TYPE, &[], 1), hello(&[&a]).verify(TYPE, &[c.verifying_key()], 1));
    }

    #[test]
    fn a_signature_binds_payload_type_and_payload() {
        let a = key(1);
        let trusted = [a.verifying_key()];
        let bad = Err(DsseError::BadSignature { key: key_id(&trusted[0]) });

        let mut other = hello(&[&a]);
        other.payload.push(b'!');
        assert_eq!(other.verify(TYPE, &trusted, 1), bad);

        let mut other = hello(&[&a]);
        other.payload_type = "text/plain".to_owned();
        assert_eq!(other.verify("text/plain", &trusted, 1), bad);
        assert!(matches!(other.verify(TYPE, &trusted, 1), Err(DsseError::PayloadType { .. })));

        let mut other = hello(&[&a]);
        other.signatures[0].sig.pop();
        assert_eq!(other.verify(TYPE, &trusted, 1), bad);
    }

    /// A second, junk signature that names a trusted key does not undo the valid ones.
    #[test]
    fn junk_beside_enough_signatures_is_passed_over() {
        let [a, b] = [key(1), key(2)];
        let mut envelope = hello(&[&a, &b]);
        envelope.signatures[1].sig = vec![0; 64];
        let trusted = [a.verifying_key(), b.verifying_key()];
        assert!(envelope.verify(TYPE, &trusted, 1).is_ok());
        assert_eq!(
            envelope.verify(TYPE, &trusted, 2),
            Err(DsseError::BadSignature { key: key_id(&b.verifying_key()) })
        );
    }

    #[test]
    fn bad_vectors_are_not_read() {
        let good = String::from_utf8(hello(&[&key(1)]).to_json()).unwrap();
        assert!(Envelope::parse(good.as_bytes()).is_ok());
        for (from, to) in [
            ("\"payload\"", "\"extra\":1,\"payload\""),
            ("\"payload\"", "\"payloadType\":\"x\",\"payload\""),
            ("aGVsbG8gd29ybGQ=", "aGVsbG8gd29ybGR="), // trailing bits that are not zero
            ("aGVsbG8gd29ybGQ=", "aGVsbG8gd29ybGQ"),
            ("aGVsbG8gd29ybGQ=", "aGVsbG8g d29ybGQ="),
            ("\"keyid\":\"", "\"keyid\":\"0"),
            ("\"sig\"", "\"signature\""),
            ("[{", "[1,{"),
            ("}]}", "}]"),
            ("}]}", "}]}{"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(matches!(Envelope::parse(bad.as_bytes()), Err(DsseError::Malformed(_))), "{bad}");
        }
        let many = Envelope { signatures: vec![hello(&[&key(1)]).signatures[0].clone(); 33], ..hello(&[]) };
        assert_eq!(Envelope::parse(&many.to_json()), Err(DsseError::TooManySignatures(33)));
        let long = vec![b' '; MAX_ENVELOPE_BYTES + 1];
        assert_eq!(Envelope::parse(&long), Err(DsseError::TooLarge(MAX_ENVELOPE_BYTES + 1)));
    }
}
