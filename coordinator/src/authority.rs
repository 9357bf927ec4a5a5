//! Who belongs to the federation: the certificate authority of its TLS, and the enrolment authority of its identities.
//!
//! They are two keys on purpose. A TLS certificate opens a connection; an identity certificate gives a vote in
//! every threshold of secure aggregation. Clients pin both, and an operator can keep the enrolment authority on another
//! machine than the coordinator.
//!
//! A client's certificate holds what this module says, never what the client's request asks for: of the request only
//! the public key is taken over, after its signature has shown that the client holds the private one. Certificates are
//! for client authentication alone, so none can pose as the server.
//!
//! Absent: revocation, because certificates are short-lived; intermediate authorities.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use fedveil_aggregation::secagg::{ClientId, IdentityCertificate, IdentityError};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, string::PrintableString,
};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::{KeyDirectory, KeyError};

const CA_KEY: &str = "ca-key.der";
const CA_CERTIFICATE: &str = "ca.der";

/// How long the certificate authority's own certificate lasts.
const CA_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// Certificates begin this long before they are issued, for peers whose clocks are slow.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// X.520 serialNumber: the attribute that tells apart subjects of one name. Holds a client's identifier.
pub(crate) const OID_SUBJECT_SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Validity {
    /// Longest lifetime that a certificate gets.
    pub const MAX_LIFETIME: Duration = CA_LIFETIME;

    /// From shortly before `now`, for clocks that are slow, to `now + lifetime`.
    pub fn from_now(now: SystemTime, lifetime: Duration) -> Result<Self, AuthorityError> {
        if lifetime > Self::MAX_LIFETIME {
            return Err(AuthorityError::Lifetime(lifetime));
        }
        Ok(Self { not_before: now - CLOCK_SKEW, not_after: now + lifetime })
    }

    /// Last second of validity, unix time.
    pub fn not_after_unix(&self) -> u64 {
        self.not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn params(
        &self,
        names: Vec<String>,
        subject: DistinguishedName,
    ) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
        params.distinguished_name = subject;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// The federation's own certificate authority. Its key is in memory, or in a [`KeyDirectory`].
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl CertificateAuthority {
    /// A new authority whose key exists in memory only, and ends with the process.
    pub fn create(now: SystemTime) -> Result<Self, AuthorityError> {
        Self::from_key(KeyPair::generate()?, now)
    }

    /// The authority kept in `keys`; a new one, which is then kept there, if there is none.
    pub fn open(keys: &KeyDirectory, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = keys.read_or_create(CA_KEY, || Ok(Zeroizing::new(KeyPair::generate()?.serialize_der())))?;
        let damaged = |file: &str, error: &dyn std::error::Error| KeyError::Damaged {
            path: keys.path_of(file),
            reason: format!("does not hold what it should: {error}"),
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_slice()));
        let pair = KeyPair::try_from(&key).map_err(|error| damaged(CA_KEY, &error))?;
        let Some(certificate) = keys.read(CA_CERTIFICATE)? else {
            let created = Self::from_key(pair, now)?;
            keys.write(CA_CERTIFICATE, &created.certificate)?;
            return Ok(created);
        };
        let certificate = CertificateDer::from(certificate.to_vec());
        CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &ring::default_provider())
            .map_err(|error| damaged(CA_CERTIFICATE, &error))?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, pair).map_err(|error| damaged(CA_CERTIFICATE, &error))?;
        Ok(Self { issuer, certificate })
    }

    fn from_key(key: KeyPair, now: SystemTime) -> Result<Self, AuthorityError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "Fedveil federation");
        let mut params = Validity::from_now(now, CA_LIFETIME)?.params(Vec::new(), subject)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.into();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate: what clients pin.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }

    /// A fresh key and a certificate for a server that is reached by `names`: host names, IP addresses, or both.
    pub fn server_identity(
        &self,
        names: &[&str],
        validity: Validity,
    ) -> Result<ServerIdentity, AuthorityError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "Fedveil coordinator");
        let mut params = validity.params(names.iter().map(ToString::to_string).collect(), subject)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.into();
        Ok(ServerIdentity { chain: vec![certificate, self.certificate.clone()], key: key.into() })
    }

    /// A certificate for the key of `request`. The subject is `name` and the client's identifier.
    pub fn sign_request(
        &self,
        request: &CertificateRequest,
        name: &str,
        client: ClientId,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        let identifier: PrintableString =
            hex::encode(client.0).try_into().expect("hexadecimal digits are printable");
        subject.push(
            DnType::CustomDnType(OID_SUBJECT_SERIAL_NUMBER.to_vec()),
            DnValue::PrintableString(identifier),
        );
        let mut params = validity.params(Vec::new(), subject)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&request.public_key, &self.issuer)?.into())
    }
}

/// What a TLS server shows and holds.
pub struct ServerIdentity {
    /// The server's certificate, then the authority's, which clients look for by its digest.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
}

/// A client's public TLS key, from a request whose signature shows that the client holds the private one.
pub struct CertificateRequest {
    public_key: rcgen::PublicKey,
}

impl CertificateRequest {
    /// Parses a PKCS #10 request (RFC 2986) and checks its signature. Everything in it but the key is dropped.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateRequestError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|error| CertificateRequestError(error.to_string()))?;
        Ok(Self { public_key: request.public_key })
    }
}

/// A certificate request is malformed, or its signature is wrong.
#[derive(Debug, Error)]
#[error("certificate request is refused: {0}")]
pub struct CertificateRequestError(String);

/// Signs the identity of every admitted client, with a key of its own.
pub struct EnrollmentAuthority {
    key: SigningKey,
}

impl EnrollmentAuthority {
    /// A new authority whose key exists in memory only.
    pub fn create() -> Result<Self, AuthorityError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())?;
        Ok(Self { key: SigningKey::from_bytes(&seed) })
    }

    /// The authority kept in `keys`; a new one, which is then kept there, if there is none.
    pub fn open(keys: &KeyDirectory) -> Result<Self, AuthorityError> {
        Ok(Self { key: keys.signing_key("enrollment")? })
    }

    /// Its public key, which every client pins by SHA-256.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Certifies `identity_key` (Ed25519, 32 bytes) under `name` until `not_after` (unix seconds). Gives the client's
    /// identifier and the certificate's bytes. Fails on a key that is no key, or a weak one.
    pub fn certify(
        &self,
        identity_key: &[u8; 32],
        name: &str,
        not_after: u64,
    ) -> Result<(ClientId, Vec<u8>), IdentityError> {
        let bytes = IdentityCertificate::issue(&self.key, identity_key, name, not_after)?;
        let certificate = IdentityCertificate::verify(&bytes, &self.key.verifying_key(), 0)?;
        Ok((certificate.client_id(), bytes))
    }
}

/// Why an authority cannot do what it was asked to. Never a client's fault.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A certificate cannot be made.
    #[error("failed to make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The lifetime is too long.
    #[error("certificate lifetime of {} days is too long; accepted are up to {} days", .0.as_secs() / 86_400, Validity::MAX_LIFETIME.as_secs() / 86_400)]
    Lifetime(Duration),
    /// A private key cannot be read or kept.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random(#[from] getrandom::Error),
}

#[cfg(test)]
mod tests {
    use rcgen::{CustomExtension, SanType};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    fn now() -> SystemTime {
        SystemTime::now()
    }

    fn day() -> Validity {
        Validity::from_now(now(), Duration::from_hours(24)).unwrap()
    }

    #[test]
    fn of_a_request_only_the_key_is_taken_over() {
        let ca = CertificateAuthority::create(now()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut wishes = CertificateParams::new(vec!["coordinator.example".to_owned()]).unwrap();
        wishes.distinguished_name.push(DnType::CommonName, "somebody else");
        wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wishes.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        wishes.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
        let request = wishes.serialize_request(&key).unwrap();

        let request = CertificateRequest::parse(request.der()).unwrap();
        let der = ca.sign_request(&request, "phone-1", ClientId([7; 32]), day()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(
            certificate.subject().to_string(),
            format!("CN=phone-1, serialNumber={}", "07".repeat(32))
        );
        assert!(!certificate.is_ca());
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty());
        let key_usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(key_usage.digital_signature() && !key_usage.key_cert_sign());
        assert_eq!(&*certificate.public_key().subject_public_key.data, key.public_key_raw());
        assert_eq!(certificate.validity().not_after.timestamp(), day().not_after_unix() as i64);
    }

    #[test]
    fn requests_that_prove_nothing_are_refused() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        let good = params.serialize_request(&key).unwrap().der().to_vec();
        assert!(CertificateRequest::parse(&good).is_ok());
        // The last byte is inside the signature.
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        for bad in [&forged[..], &good[..good.len() - 1], &[], b"request"] {
            assert!(CertificateRequest::parse(bad).is_err());
        }
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
        let strange = params.serialize_request(&key).unwrap();
        assert!(CertificateRequest::parse(strange.der()).is_err());
    }

    #[test]
    fn authorities_in_a_directory_outlive_the_process() {
        let root = tempfile::tempdir().unwrap();
        let (run, path) = (root.path().join("run"), root.path().join("keys"));
        std::fs::create_dir(&run).unwrap();
        let keys = KeyDirectory::open(&path, &run).unwrap();
        let ca = CertificateAuthority::open(&keys, now()).unwrap();
        let authority = EnrollmentAuthority::open(&keys).unwrap();

        let later = now() + Duration::from_hours(1);
        assert_eq!(CertificateAuthority::open(&keys, later).unwrap().digest(), ca.digest());
        assert_eq!(EnrollmentAuthority::open(&keys).unwrap().public_key(), authority.public_key());

        let other = CertificateAuthority::create(now()).unwrap();
        keys.write(CA_CERTIFICATE, other.certificate()).unwrap();
        let error = CertificateAuthority::open(&keys, now()).err().unwrap();
        assert!(matches!(error, AuthorityError::Keys(KeyError::Damaged { .. })), "{error}");
    }

    #[test]
    fn identities_are_certified_by_the_enrolment_authority() {
        let authority = EnrollmentAuthority::create().unwrap();
        let client = SigningKey::from_bytes(&[3; 32]).verifying_key();
        let (id, bytes) = authority.certify(client.as_bytes(), "phone-1", 100).unwrap();
        let pinned = ed25519_dalek::VerifyingKey::from_bytes(&authority.public_key()).unwrap();
        let certificate = IdentityCertificate::verify(&bytes, &pinned, 100).unwrap();
        assert_eq!((certificate.client_id(), certificate.public_key()), (id, &client));
        assert!(authority.certify(&[2; 32], "phone-1", 100).is_err());
    }

    #[test]
    fn an_absurd_lifetime_is_an_error() {
        assert!(matches!(
            Validity::from_now(now(), Duration::from_secs(u64::MAX)),
            Err(AuthorityError::Lifetime(_))
        ));
    }
}
