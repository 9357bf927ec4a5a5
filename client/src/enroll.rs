//! Enrolment: a join token becomes keys and certificates.
//!
//! The keys are made here and stay here. Nothing in the coordinator's answer is taken on its word: its certificate
//! authority, its model signer and its enrolment authority must be the ones whose digests the token carries, and the
//! certificates must be for this client's keys.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::{Signer as _, SigningKey};
use fedveil_proto::{
    ErrorCode, JoinToken,
    enrollment::identity_proof_message,
    limits::{MAX_CERTIFICATE, NameError, PROTOCOL_VERSION, check_name},
    v1::{EnrollRequest, EnrollResponse, enrollment_client::EnrollmentClient},
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::time::timeout;
use tonic::Status;
use zeroize::Zeroizing;

use crate::{
    keystore::{CredentialError, Enrolled, Keystore, KeystoreError, Parts},
    tls::{ConnectError, client_config, connect},
};

/// Time for the coordinator's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer: three certificates and two keys.
const MAX_RESPONSE: usize = 4 * MAX_CERTIFICATE;

/// Enrols at the coordinator at `url` (`https://HOST:PORT`) under `name`, and keeps the outcome in `keystore`.
///
/// The token is spent if the coordinator admits the client. A name or a keystore that will not do is found before.
pub async fn enroll(
    url: &str,
    token: &JoinToken,
    name: &str,
    keystore: &Keystore,
) -> Result<Enrolled, EnrollError> {
    check_name(name)?;
    keystore.prepare()?;
    let keys = Keys::generate()?;
    let channel = connect(url, client_config(token.pins().ca, None)?).await?;
    let mut client = EnrollmentClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
    let request = keys.request(token, name)?;
    let response = timeout(ANSWER_TIMEOUT, client.enroll(request))
        .await
        .map_err(|_| EnrollError::Timeout)?
        .map_err(EnrollError::from_status)?
        .into_inner();
    let enrolled = Enrolled::verify(keys.complete(token, response)?, unix_now())?;
    keystore.save(&enrolled)?;
    Ok(enrolled)
}

/// Why a client is not enrolled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrollError {
    /// The name cannot name a client.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The coordinator cannot be reached, or is not the one that issued the token.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator does not know the token.
    #[error("coordinator refuses the join token: {0}")]
    InvalidToken(String),
    /// The token admitted a client before.
    #[error("coordinator refuses the join token: {0}")]
    TokenAlreadyUsed(String),
    /// The coordinator speaks another version of the protocol.
    #[error("coordinator refuses the protocol version: {0}")]
    ProtocolVersion(String),
    /// The coordinator refuses for another reason.
    #[error("coordinator refuses to enrol: {message} ({code})")]
    Refused {
        /// The coordinator's code.
        code: ErrorCode,
        /// The coordinator's message.
        message: String,
    },
    /// The call failed before the coordinator's enrolment could answer it.
    #[error("failed to call the coordinator")]
    Call(#[source] Box<Status>),
    /// No answer came.
    #[error("coordinator did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// The answer has something else than the token pins.
    #[error(
        "coordinator shows another {part} than the join token pins: its SHA-256 is {found}, pinned is {pinned}"
    )]
    Pin {
        /// What differs.
        part: &'static str,
        /// Digest of what the coordinator shows, hexadecimal.
        found: String,
        /// Digest in the token, hexadecimal.
        pinned: String,
    },
    /// A key in the answer has another length.
    #[error("coordinator shows a {part} of {found} bytes; accepted are 32")]
    KeyLength {
        /// Which key.
        part: &'static str,
        /// Its length.
        found: usize,
    },
    /// The certificates in the answer are not this client's.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The outcome cannot be kept.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// A key or a certificate request cannot be made.
    #[error("failed to make the TLS key")]
    Key(#[from] rcgen::Error),
    /// TLS cannot be configured.
    #[error("failed to configure TLS")]
    Tls(#[from] rustls::Error),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random(#[from] getrandom::Error),
}

impl EnrollError {
    fn from_status(status: Status) -> Self {
        let Some(code) = ErrorCode::of(&status) else { return Self::Call(Box::new(status)) };
        let message = status.message().to_owned();
        match code {
            ErrorCode::InvalidToken => Self::InvalidToken(message),
            ErrorCode::TokenAlreadyUsed => Self::TokenAlreadyUsed(message),
            ErrorCode::ProtocolVersion => Self::ProtocolVersion(message),
            code => Self::Refused { code, message },
        }
    }
}

/// The client's two private keys, and the request for certificates of both.
struct Keys {
    tls: Zeroizing<KeyPair>,
    identity: SigningKey,
}

impl Keys {
    fn generate() -> Result<Self, EnrollError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())?;
        Ok(Self { tls: Zeroizing::new(KeyPair::generate()?), identity: SigningKey::from_bytes(&seed) })
    }

    fn request(&self, token: &JoinToken, name: &str) -> Result<EnrollRequest, EnrollError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        let csr_der = params.serialize_request(&*self.tls)?.der().to_vec();
        let proof = self.identity.sign(&identity_proof_message(token.secret(), &csr_der));
        Ok(EnrollRequest {
            protocol_version: PROTOCOL_VERSION,
            token_secret: token.secret().to_vec(),
            name: name.to_owned(),
            csr_der,
            identity_key: self.identity.verifying_key().to_bytes().to_vec(),
            identity_proof: proof.to_bytes().to_vec(),
        })
    }

    /// The keys with the answer to their request, after what it shows is what the token pins.
    fn complete(self, token: &JoinToken, response: EnrollResponse) -> Result<Parts, EnrollError> {
        let pins = token.pins();
        for (part, bytes, pinned) in [
            ("certificate authority", &response.ca_der, pins.ca),
            ("model signing key", &response.signing_key, pins.signer),
            ("enrolment authority", &response.authority_key, pins.authority),
        ] {
            let found = Sha256::digest(bytes);
            if found[..] != pinned {
                return Err(EnrollError::Pin {
                    part,
                    found: hex::encode(found),
                    pinned: hex::encode(pinned),
                });
            }
        }
        Ok(Parts {
            tls_key: Zeroizing::new(self.tls.serialize_der()),
            identity_key: self.identity,
            certificate: response.certificate_der,
            ca: response.ca_der,
            identity_certificate: response.identity_certificate,
            authority_key: key("enrolment authority", &response.authority_key)?,
            signing_key: key("model signing key", &response.signing_key)?,
        })
    }
}

fn key(part: &'static str, bytes: &[u8]) -> Result<[u8; 32], EnrollError> {
    bytes.try_into().map_err(|_| EnrollError::KeyLength { part, found: bytes.len() })
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use fedveil_proto::Pins;

    use super::*;

    fn response() -> EnrollResponse {
        EnrollResponse {
            certificate_der: b"certificate".to_vec(),
            ca_der: b"ca".to_vec(),
            identity_certificate: b"identity".to_vec(),
            authority_key: vec![1; 32],
            signing_key: vec![2; 32],
        }
    }

    fn token(response: &EnrollResponse) -> JoinToken {
        let digest = |bytes: &[u8]| Sha256::digest(bytes).into();
        let pins = Pins {
            ca: digest(&response.ca_der),
            signer: digest(&response.signing_key),
            authority: digest(&response.authority_key),
        };
        JoinToken::new([9; 32], pins)
    }

    #[test]
    fn what_the_token_pins_is_what_is_accepted() {
        let complete = |response| Keys::generate().unwrap().complete(&token(&self::response()), response);
        assert!(complete(response()).is_ok());
        for (expected, answer) in [
            ("certificate authority", EnrollResponse { ca_der: b"other".to_vec(), ..response() }),
            ("model signing key", EnrollResponse { signing_key: vec![3; 32], ..response() }),
            ("enrolment authority", EnrollResponse { authority_key: Vec::new(), ..response() }),
        ] {
            match complete(answer) {
                Err(EnrollError::Pin { part, .. }) => assert_eq!(part, expected),
                _ => panic!("another {expected} is accepted"),
            }
        }
    }

    #[test]
    fn a_pinned_key_of_another_length_is_no_key() {
        let short = EnrollResponse { signing_key: vec![2; 31], ..response() };
        let outcome = Keys::generate().unwrap().complete(&token(&short), short);
        assert!(matches!(outcome, Err(EnrollError::KeyLength { part: "model signing key", found: 31 })));
    }

    #[test]
    fn the_request_proves_both_keys() {
        let keys = Keys::generate().unwrap();
        let token = token(&response());
        let request = keys.request(&token, "phone-1").unwrap();
        let message = identity_proof_message(token.secret(), &request.csr_der);
        let proof = request.identity_proof.as_slice().try_into().unwrap();
        assert!(keys.identity.verifying_key().verify_strict(&message, &proof).is_ok());
        let public = rcgen::PublicKeyData::der_bytes(&*keys.tls).to_vec();
        assert!(request.csr_der.windows(public.len()).any(|window| window == public));
    }

    #[test]
    fn refusals_keep_their_meaning() {
        let from = |code: ErrorCode| EnrollError::from_status(code.status("why"));
        assert!(matches!(from(ErrorCode::InvalidToken), EnrollError::InvalidToken(why) if why == "why"));
        assert!(matches!(from(ErrorCode::TokenAlreadyUsed), EnrollError::TokenAlreadyUsed(_)));
        assert!(matches!(from(ErrorCode::ProtocolVersion), EnrollError::ProtocolVersion(_)));
        assert_eq!(
            from(ErrorCode::LimitExceeded).to_string(),
            "coordinator refuses to enrol: why (limit-exceeded)"
        );
        let foreign = EnrollError::from_status(Status::unavailable("gone"));
        assert!(matches!(foreign, EnrollError::Call(status) if status.message() == "gone"));
    }
}
