//! The enrolment service: a join token is spent, two certificates come back.
//!
//! A request passes, in this order: protocol version, sizes and name, proof of possession of the TLS key (the
//! request's own signature), proof of possession of the identity key, the token. Both certificates are made before the
//! token is redeemed, so that a failure of ours costs no token, and leave only after it is.
//!
//! Whoever keeps sending requests that are refused is turned away for a while, by source address, before anything
//! costly is computed. It is a guard for the processor, not for the tokens: their 256 bits need none.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use ed25519_dalek::{Signature, VerifyingKey};
use fedveil_proto::{
    ErrorCode, JoinToken, Pins,
    enrollment::identity_proof_message,
    limits::{MAX_CSR, PROTOCOL_VERSION, check_name},
    v1::{
        EnrollRequest, EnrollResponse,
        enrollment_server::{Enrollment, EnrollmentServer},
    },
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tonic::{Request, Response, Status};
use tracing::{error, info};

use crate::{
    authority::{AuthorityError, CertificateAuthority, CertificateRequest, EnrollmentAuthority, Validity},
    tls::Peer,
};

/// Largest enrolment request; twice what its fields may hold.
const MAX_REQUEST: usize = 2 * MAX_CSR;

/// Refused requests after which a source address is turned away, and for how long they count.
const MAX_REFUSALS: u32 = 32;
const REFUSAL_WINDOW: Duration = Duration::from_mins(1);

/// Source addresses whose refusals are counted at one time.
const MAX_SOURCES: usize = 4096;

/// The registry of join tokens. It knows secrets by their digest only.
pub trait TokenStore: Send + Sync {
    /// Spends the token whose secret has this SHA-256 digest on the client with this identifier.
    ///
    /// Exactly one call for a token succeeds, whatever happens to the process meanwhile: the spending is durable
    /// before this returns. May block.
    fn redeem(&self, secret_sha256: [u8; 32], client_id: [u8; 32]) -> Result<(), TokenError>;
}

/// Why a token is not redeemed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// No such token was issued.
    #[error("join token is unknown to this coordinator")]
    Unknown,
    /// The token was redeemed before.
    #[error("join token has been used; a token admits one client, once")]
    AlreadyUsed,
    /// The registry failed.
    #[error("failed to use the token registry")]
    Store(#[source] Box<dyn StdError + Send + Sync>),
}

/// A registry that lasts as long as the process.
#[derive(Default)]
pub struct MemoryTokenStore {
    /// By digest of the secret: the client that has redeemed it.
    tokens: Mutex<BTreeMap<[u8; 32], Option<[u8; 32]>>>,
}

impl MemoryTokenStore {
    /// Registers a token by the SHA-256 digest of its secret; a known one stays as it is.
    pub fn add(&self, secret_sha256: [u8; 32]) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).entry(secret_sha256).or_default();
    }
}

impl TokenStore for MemoryTokenStore {
    fn redeem(&self, secret_sha256: [u8; 32], client_id: [u8; 32]) -> Result<(), TokenError> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.get_mut(&secret_sha256) {
            None => Err(TokenError::Unknown),
            Some(Some(_)) => Err(TokenError::AlreadyUsed),
            Some(free) => {
                *free = Some(client_id);
                Ok(())
            }
        }
    }
}

/// A fresh token, its secret from the operating system. The caller registers [`JoinToken::secret_digest`].
pub fn new_join_token(pins: Pins) -> Result<JoinToken, getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let token = JoinToken::new(secret, pins);
    zeroize::Zeroize::zeroize(&mut secret);
    Ok(token)
}

/// The gRPC service `Enrollment`.
pub struct EnrollmentService {
    desk: Arc<Desk>,
    refusals: Refusals,
}

/// What admission needs; shared with the threads that it runs on.
struct Desk {
    ca: Arc<CertificateAuthority>,
    authority: EnrollmentAuthority,
    signing_key: [u8; 32],
    tokens: Arc<dyn TokenStore>,
    lifetime: Duration,
}

impl EnrollmentService {
    /// A service that admits clients for `lifetime`, into the federation whose models `signing_key` (Ed25519 public
    /// key) signs. Fails if `lifetime` is longer than a certificate may live.
    pub fn new(
        ca: Arc<CertificateAuthority>,
        authority: EnrollmentAuthority,
        signing_key: [u8; 32],
        tokens: Arc<dyn TokenStore>,
        lifetime: Duration,
    ) -> Result<Self, AuthorityError> {
        Validity::from_now(SystemTime::now(), lifetime)?;
        Ok(Self {
            desk: Arc::new(Desk { ca, authority, signing_key, tokens, lifetime }),
            refusals: Refusals::default(),
        })
    }

    /// What the clients of this federation trust: the part of every join token that is not secret.
    pub fn pins(&self) -> Pins {
        Pins {
            ca: self.desk.ca.digest(),
            signer: Sha256::digest(self.desk.signing_key).into(),
            authority: Sha256::digest(self.desk.authority.public_key()).into(),
        }
    }

    /// The service as a tonic server adds it, with its message limits.
    pub fn into_server(self) -> EnrollmentServer<Self> {
        EnrollmentServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let version = request.get_ref().protocol_version;
        if version != PROTOCOL_VERSION {
            return Err(ErrorCode::ProtocolVersion.status(format!(
                "client speaks protocol version {version}; accepted is version {PROTOCOL_VERSION}"
            )));
        }
        let source = request.extensions().get::<Peer>().map(|peer| Source::from(peer.address.ip()));
        if source.is_some_and(|source| self.refusals.exhausted(source, Instant::now())) {
            return Err(ErrorCode::LimitExceeded.status(format!(
                "{MAX_REFUSALS} enrolment requests from this address were refused; try again in {} s",
                REFUSAL_WINDOW.as_secs()
            )));
        }
        let desk = self.desk.clone();
        let request = request.into_inner();
        // Signatures take a millisecond of processor, the registry a write to disk.
        let outcome = tokio::task::spawn_blocking(move || desk.admit(&request, SystemTime::now()))
            .await
            .map_err(|error| internal(&error))?;
        if let (Err(status), Some(source)) = (&outcome, source)
            && ErrorCode::of(status) != Some(ErrorCode::Internal)
        {
            self.refusals.count(source, Instant::now());
        }
        outcome.map(Response::new)
    }
}

impl Desk {
    fn admit(&self, request: &EnrollRequest, now: SystemTime) -> Result<EnrollResponse, Status> {
        let invalid = |message: String| ErrorCode::InvalidRequest.status(message);
        let secret: &[u8; 32] = field("token_secret", &request.token_secret)?;
        let identity_key: &[u8; 32] = field("identity_key", &request.identity_key)?;
        let proof: &[u8; 64] = field("identity_proof", &request.identity_proof)?;
        check_name(&request.name).map_err(|error| invalid(error.to_string()))?;
        if request.csr_der.len() > MAX_CSR {
            return Err(ErrorCode::LimitExceeded.status(format!(
                "csr_der has {} bytes; accepted are up to {MAX_CSR}",
                request.csr_der.len()
            )));
        }
        let csr = CertificateRequest::parse(&request.csr_der).map_err(|error| invalid(error.to_string()))?;
        VerifyingKey::from_bytes(identity_key)
            .and_then(|key| {
                let message = identity_proof_message(secret, &request.csr_der);
                key.verify_strict(&message, &Signature::from_bytes(proof))
            })
            .map_err(|_| {
                invalid("identity_proof is not a signature of this request by identity_key".into())
            })?;

        let validity = Validity::from_now(now, self.lifetime).map_err(|error| internal(&error))?;
        let (client, identity_certificate) = self
            .authority
            .certify(identity_key, &request.name, validity.not_after_unix())
            .map_err(|error| invalid(error.to_string()))?;
        let certificate =
            self.ca.sign_request(&csr, &request.name, client, validity).map_err(|error| internal(&error))?;

        self.tokens.redeem(Sha256::digest(secret).into(), client.0).map_err(|error| match error {
            TokenError::Unknown => ErrorCode::InvalidToken.status(error.to_string()),
            TokenError::AlreadyUsed => ErrorCode::TokenAlreadyUsed.status(error.to_string()),
            TokenError::Store(_) => internal(&error),
        })?;
        info!(name = request.name, %client, "client enrolled");
        Ok(EnrollResponse {
            certificate_der: certificate.to_vec(),
            ca_der: self.ca.certificate().to_vec(),
            identity_certificate,
            authority_key: self.authority.public_key().to_vec(),
            signing_key: self.signing_key.to_vec(),
        })
    }
}

fn field<'a, const N: usize>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8; N], Status> {
    bytes.try_into().map_err(|_| {
        ErrorCode::InvalidRequest.status(format!("{name} has {} bytes; accepted are {N}", bytes.len()))
    })
}

/// Our fault: the log gets the whole reason, the peer gets none of it.
fn internal(reason: &(dyn StdError + 'static)) -> Status {
    error!(error = reason, "enrolment failed");
    ErrorCode::Internal.status("the coordinator failed to enrol the client; its log says why")
}

/// Where requests come from: an IPv4 address, or the /64 network that one IPv6 subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Source(u64);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            // Below 2^32, where no IPv6 network that is routed lies.
            IpAddr::V4(address) => Self(u64::from(address.to_bits())),
            IpAddr::V6(address) => Self((address.to_bits() >> 64) as u64),
        }
    }
}

/// Refused requests by source, each counted from the first of a window.
#[derive(Default)]
struct Refusals {
    windows: Mutex<BTreeMap<Source, (Instant, u32)>>,
}

impl Refusals {
    fn exhausted(&self, source: Source, now: Instant) -> bool {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.get(&source).is_some_and(|&(begun, count)| {
            now.duration_since(begun) < REFUSAL_WINDOW && count >= MAX_REFUSALS
        })
    }

    fn count(&self, source: Source, now: Instant) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_SOURCES && !windows.contains_key(&source) {
            let oldest = windows.iter().min_by_key(|(_, (begun, _))| *begun).map(|(&source, _)| source);
            windows.remove(&oldest.expect("a full table has an oldest entry"));
        }
        let (begun, count) = windows.entry(source).or_insert((now, 0));
        if now.duration_since(*begun) >= REFUSAL_WINDOW {
            (*begun, *count) = (now, 0);
        }
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Federation {
        service: EnrollmentService,
        tokens: Arc<MemoryTokenStore>,
    }

    impl Federation {
        fn new() -> Self {
            let ca = Arc::new(CertificateAuthority::create(SystemTime::now()).unwrap());
            let authority = EnrollmentAuthority::create().unwrap();
            let tokens = Arc::new(MemoryTokenStore::default());
            let day = Duration::from_hours(24);
            let service = EnrollmentService::new(ca, authority, [5; 32], tokens.clone(), day).unwrap();
            Self { service, tokens }
        }

        fn token(&self) -> JoinToken {
            let token = new_join_token(self.service.pins()).unwrap();
            self.tokens.add(token.secret_digest());
            token
        }

        async fn enroll(&self, request: EnrollRequest) -> Result<EnrollResponse, (ErrorCode, String)> {
            match self.service.enroll(Request::new(request)).await {
                Ok(response) => Ok(response.into_inner()),
                Err(status) => Err((ErrorCode::of(&status).unwrap(), status.message().to_owned())),
            }
        }
    }

    fn request(token: &JoinToken) -> EnrollRequest {
        let csr = CertificateParams::new(Vec::new())
            .unwrap()
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap();
        let identity = SigningKey::from_bytes(&[8; 32]);
        let proof = identity.sign(&identity_proof_message(token.secret(), csr.der()));
        EnrollRequest {
            protocol_version: PROTOCOL_VERSION,
            token_secret: token.secret().to_vec(),
            name: "phone-1".into(),
            csr_der: csr.der().to_vec(),
            identity_key: identity.verifying_key().to_bytes().to_vec(),
            identity_proof: proof.to_bytes().to_vec(),
        }
    }

    #[tokio::test]
    async fn a_token_admits_once() {
        let federation = Federation::new();
        let token = federation.token();
        let response = federation.enroll(request(&token)).await.unwrap();
        assert_eq!(Sha256::digest(&response.ca_der)[..], token.pins().ca);
        assert_eq!(Sha256::digest(&response.signing_key)[..], token.pins().signer);
        assert_eq!(Sha256::digest(&response.authority_key)[..], token.pins().authority);
        let (code, message) = federation.enroll(request(&token)).await.unwrap_err();
        assert_eq!(code, ErrorCode::TokenAlreadyUsed);
        assert_eq!(message, "join token has been used; a token admits one client, once");
    }

    #[tokio::test]
    async fn refused_requests_leave_the_token_unspent() {
        let federation = Federation::new();
        let token = federation.token();
        let good = request(&token);
        let cases: [(&str, ErrorCode, EnrollRequest); 8] = [
            (
                "protocol version 9",
                ErrorCode::ProtocolVersion,
                EnrollRequest {
                    // Everything else is wrong as well: the version is what the answer is about.
                    protocol_version: 9,
                    ..EnrollRequest::default()
                },
            ),
            (
                "token_secret has 31 bytes",
                ErrorCode::InvalidRequest,
                EnrollRequest { token_secret: vec![0; 31], ..good.clone() },
            ),
            (
                "identity_proof has 0 bytes",
                ErrorCode::InvalidRequest,
                EnrollRequest { identity_proof: Vec::new(), ..good.clone() },
            ),
            (
                "client name holds ' '",
                ErrorCode::InvalidRequest,
                EnrollRequest { name: "my phone".into(), ..good.clone() },
            ),
            (
                "csr_der has 4097 bytes",
                ErrorCode::LimitExceeded,
                EnrollRequest { csr_der: vec![0; MAX_CSR + 1], ..good.clone() },
            ),
            (
                "certificate request is refused",
                ErrorCode::InvalidRequest,
                EnrollRequest { csr_der: b"request".to_vec(), ..good.clone() },
            ),
            // A proof for another certificate request: parts of two requests do not make one.
            (
                "identity_proof is not",
                ErrorCode::InvalidRequest,
                EnrollRequest { csr_der: request(&token).csr_der, ..good.clone() },
            ),
            (
                "identity_proof is not",
                ErrorCode::InvalidRequest,
                EnrollRequest {
                    identity_key: SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes().to_vec(),
                    ..good.clone()
                },
            ),
        ];
        for (expected, code, request) in cases {
            let (found, message) = federation.enroll(request).await.unwrap_err();
            assert_eq!(found, code, "{message}");
            assert!(message.contains(expected), "{message}");
        }
        assert!(federation.enroll(good).await.is_ok());
    }

    #[tokio::test]
    async fn an_unknown_token_is_refused() {
        let federation = Federation::new();
        let stranger = new_join_token(federation.service.pins()).unwrap();
        let (code, message) = federation.enroll(request(&stranger)).await.unwrap_err();
        assert_eq!(
            (code, message.as_str()),
            (ErrorCode::InvalidToken, "join token is unknown to this coordinator")
        );
    }

    #[tokio::test]
    async fn a_failing_registry_tells_the_client_nothing() {
        struct Broken;
        impl TokenStore for Broken {
            fn redeem(&self, _: [u8; 32], _: [u8; 32]) -> Result<(), TokenError> {
                Err(TokenError::Store("disk of host db-7 is full".into()))
            }
        }
        let mut federation = Federation::new();
        let token = federation.token();
        Arc::get_mut(&mut federation.service.desk).unwrap().tokens = Arc::new(Broken);
        let (code, message) = federation.enroll(request(&token)).await.unwrap_err();
        assert_eq!(code, ErrorCode::Internal);
        assert!(!message.contains("db-7"), "{message}");
    }

    #[test]
    fn refusals_are_counted_by_source_and_window() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|ip| Source::from(ip.parse::<IpAddr>().unwrap()));
        for _ in 0..MAX_REFUSALS {
            assert!(!refusals.exhausted(a, start));
            refusals.count(a, start);
        }
        assert!(refusals.exhausted(a, start + REFUSAL_WINDOW / 2));
        assert!(!refusals.exhausted(b, start));
        assert!(!refusals.exhausted(a, start + REFUSAL_WINDOW));
        refusals.count(a, start + REFUSAL_WINDOW);
        assert!(!refusals.exhausted(a, start + REFUSAL_WINDOW));
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for source in 0..2 * MAX_SOURCES as u64 {
            refusals.count(Source(source), start + Duration::from_nanos(source));
        }
        let windows = refusals.windows.lock().unwrap();
        assert_eq!(windows.len(), MAX_SOURCES);
        assert_eq!(windows.keys().next(), Some(&Source(MAX_SOURCES as u64)));
    }

    #[test]
    fn sources() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert!(source("2001:db8::1") == source("2001:db8::2"));
        assert!(source("2001:db8::1") != source("2001:db8:0:1::1"));
        assert!(source("10.0.0.1") == source("::ffff:10.0.0.1"));
        assert!(source("10.0.0.1") != source("10.0.0.2"));
    }
}
