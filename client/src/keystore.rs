//! What enrolment gives a client, and the directory where it stays.
//!
//! The two private keys are made on the device and never leave it: the coordinator sees a certificate request and a
//! public key. On disk each item is a file of its own in `DIR/enrollment`, mode 0600 (on Unix). The files are written
//! into a folder beside it that is renamed when it is complete, so an enrolment is there as a whole or not at all.
//!
//! Nothing is believed because it is on the disk: whatever makes an [`Enrolled`], the network or a directory, passes
//! the same checks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ed25519_dalek::{SigningKey, VerifyingKey};
use fedveil_aggregation::secagg::{ClientId, IdentityCertificate, IdentityError};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    server::WebPkiClientVerifier,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::tls::client_config;

/// An enrolled client: its keys, and what the federation has certified and shown it.
///
/// Verified on creation: the certificate is for the TLS key and chains to the authority's; the identity certificate is
/// for the identity key and signed by the enrolment authority.
pub struct Enrolled {
    parts: Parts,
    identity: IdentityCertificate,
    authority_key: VerifyingKey,
    signing_key: VerifyingKey,
}

/// The same, as bytes: what is sent and stored.
pub(crate) struct Parts {
    /// TLS private key, PKCS #8.
    pub(crate) tls_key: Zeroizing<Vec<u8>>,
    /// Identity private key.
    pub(crate) identity_key: SigningKey,
    /// TLS certificate, DER.
    pub(crate) certificate: Vec<u8>,
    /// Certificate authority's certificate, DER.
    pub(crate) ca: Vec<u8>,
    /// Identity certificate.
    pub(crate) identity_certificate: Vec<u8>,
    /// Enrolment authority's Ed25519 public key.
    pub(crate) authority_key: [u8; 32],
    /// Ed25519 public key that signs models.
    pub(crate) signing_key: [u8; 32],
}

impl Enrolled {
    /// Checks everything that can be checked without the network, at `now` (unix seconds).
    pub(crate) fn verify(parts: Parts, now: u64) -> Result<Self, CredentialError> {
        let authority_key = public_key("enrolment authority", &parts.authority_key)?;
        let signing_key = public_key("model signer", &parts.signing_key)?;
        let identity = IdentityCertificate::verify(&parts.identity_certificate, &authority_key, now)?;
        if *identity.public_key() != parts.identity_key.verifying_key() {
            return Err(IdentityError::OtherKey.into());
        }
        let enrolled = Self { parts, identity, authority_key, signing_key };
        enrolled.verify_certificate(now)?;
        enrolled.tls()?;
        Ok(enrolled)
    }

    fn verify_certificate(&self, now: u64) -> Result<(), CredentialError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.parts.ca.as_slice().into())?;
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_client_cert(
                &self.parts.certificate.as_slice().into(),
                &[],
                UnixTime::since_unix_epoch(Duration::from_secs(now)),
            )
            .map_err(|error| match error {
                rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                    CredentialError::Expired { not_after: not_after.as_secs(), now }
                }
                error => error.into(),
            })?;
        Ok(())
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let key = PrivatePkcs8KeyDer::from(self.parts.tls_key.to_vec());
        let certificate = CertificateDer::from(self.parts.certificate.clone());
        client_config(Sha256::digest(&self.parts.ca).into(), Some((certificate, PrivateKeyDer::Pkcs8(key))))
    }

    /// The TLS configuration to [`connect`](crate::tls::connect) with; an error if a certificate has expired at `now`
    /// (unix seconds), which would otherwise show as a connection that the server closes.
    pub fn client_config(&self, now: u64) -> Result<Arc<ClientConfig>, CredentialError> {
        self.verify_certificate(now)?;
        let not_after = self.identity.not_after();
        if now > not_after {
            return Err(IdentityError::Expired { not_after, now }.into());
        }
        Ok(self.tls()?)
    }

    /// The private key of the client's identity.
    pub fn identity_key(&self) -> &SigningKey {
        &self.parts.identity_key
    }

    /// The identity certificate, as the authority signed it.
    pub fn identity_certificate(&self) -> &[u8] {
        &self.parts.identity_certificate
    }

    /// The client's identifier.
    pub fn client_id(&self) -> ClientId {
        self.identity.client_id()
    }

    /// The name that the client enrolled under; it identifies nothing.
    pub fn name(&self) -> &str {
        self.identity.name()
    }

    /// The key that signs every client's identity.
    pub fn authority_key(&self) -> &VerifyingKey {
        &self.authority_key
    }

    /// The key that signs plans, manifests and checkpoints.
    pub fn signing_key(&self) -> &VerifyingKey {
        &self.signing_key
    }
}

fn public_key(owner: &'static str, bytes: &[u8; 32]) -> Result<VerifyingKey, CredentialError> {
    VerifyingKey::from_bytes(bytes)
        .ok()
        .filter(|key| !key.is_weak())
        .ok_or(CredentialError::PublicKey { owner })
}

/// Why keys and certificates do not make an enrolled client.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The TLS certificate has expired.
    #[error(
        "client certificate expired at {not_after}, the time is {now} (unix seconds); enrol again with a new token"
    )]
    Expired {
        /// Last second of validity, unix time.
        not_after: u64,
        /// Time of the check, unix time.
        now: u64,
    },
    /// The TLS certificate is not for the TLS key, or not by the federation's authority.
    #[error("client certificate is refused")]
    Certificate(#[from] rustls::Error),
    /// The identity certificate is not for the identity key, not by the enrolment authority, or has expired.
    #[error("identity certificate is refused")]
    Identity(#[from] IdentityError),
    /// A public key is none.
    #[error("public key of the {owner} is not a valid Ed25519 key")]
    PublicKey {
        /// Whose key it is.
        owner: &'static str,
    },
}

/// Where an enrolment is kept.
#[derive(Debug, Clone)]
pub enum Keystore {
    /// Nowhere: it ends with the process. For clients that are tasks of one.
    Memory,
    /// In this directory; made by [`Keystore::open`].
    Directory(PathBuf),
}

const COMPLETE: &str = "enrollment";
const PARTIAL: &str = "enrollment.partial";

const TLS_KEY: &str = "tls-key.der";
const IDENTITY_KEY: &str = "identity-key.bin";
const CERTIFICATE: &str = "certificate.der";
const CA: &str = "ca.der";
const IDENTITY_CERTIFICATE: &str = "identity-certificate.bin";
const AUTHORITY_KEY: &str = "authority-key.bin";
const SIGNING_KEY: &str = "signing-key.bin";

impl Keystore {
    /// The keystore in the directory at `path`, which is created with mode 0700 if needed.
    pub fn open(path: &Path) -> Result<Self, KeystoreError> {
        create_directory(path, true).map_err(at(path))?;
        Ok(Self::Directory(path.to_owned()))
    }

    /// The enrolment kept here, checked at `now` (unix seconds); none if there is none.
    pub fn load(&self, now: u64) -> Result<Option<Enrolled>, KeystoreError> {
        let Self::Directory(directory) = self else { return Ok(None) };
        let folder = directory.join(COMPLETE);
        if !folder.try_exists().map_err(at(&folder))? {
            return Ok(None);
        }
        let read = |file: &str| read_private(&folder.join(file));
        let seed = Zeroizing::new(read_key(&folder.join(IDENTITY_KEY))?);
        let parts = Parts {
            tls_key: read(TLS_KEY)?,
            identity_key: SigningKey::from_bytes(&seed),
            certificate: read(CERTIFICATE)?.to_vec(),
            ca: read(CA)?.to_vec(),
            identity_certificate: read(IDENTITY_CERTIFICATE)?.to_vec(),
            authority_key: read_key(&folder.join(AUTHORITY_KEY))?,
            signing_key: read_key(&folder.join(SIGNING_KEY))?,
        };
        Enrolled::verify(parts, now).map(Some).map_err(|source| KeystoreError::Credentials { folder, source })
    }

    /// Makes sure that an enrolment can be kept, before a token is spent on it; none must be kept already.
    pub(crate) fn prepare(&self) -> Result<(), KeystoreError> {
        let Self::Directory(directory) = self else { return Ok(()) };
        let folder = directory.join(COMPLETE);
        if folder.try_exists().map_err(at(&folder))? {
            return Err(KeystoreError::Occupied { folder });
        }
        let partial = directory.join(PARTIAL);
        // Left behind by a process that ended while it enrolled.
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&partial)(error)),
            _ => {}
        }
        create_directory(&partial, false).map_err(at(&partial))
    }

    /// Keeps an enrolment, in the place that [`Keystore::prepare`] made for it.
    pub(crate) fn save(&self, enrolled: &Enrolled) -> Result<(), KeystoreError> {
        let Self::Directory(directory) = self else { return Ok(()) };
        let (partial, folder) = (directory.join(PARTIAL), directory.join(COMPLETE));
        let Parts {
            tls_key,
            identity_key,
            certificate,
            ca,
            identity_certificate,
            authority_key,
            signing_key,
        } = &enrolled.parts;
        for (file, bytes) in [
            (TLS_KEY, tls_key.as_slice()),
            (IDENTITY_KEY, identity_key.as_bytes()),
            (CERTIFICATE, certificate),
            (CA, ca),
            (IDENTITY_CERTIFICATE, identity_certificate),
            (AUTHORITY_KEY, authority_key),
            (SIGNING_KEY, signing_key),
        ] {
            let path = partial.join(file);
            write_private(&path, bytes).map_err(at(&path))?;
        }
        fs::rename(&partial, &folder).map_err(at(&folder))
    }
}

fn read_key(path: &Path) -> Result<[u8; 32], KeystoreError> {
    let bytes = read_private(path)?;
    bytes
        .as_slice()
        .try_into()
        .map_err(|_| KeystoreError::Length { path: path.to_owned(), found: bytes.len() })
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    if let Some(mode) = mode_open_to_others(&fs::metadata(path).map_err(at(path))?) {
        return Err(KeystoreError::Exposed { path: path.to_owned(), mode });
    }
    fs::read(path).map(Zeroizing::new).map_err(at(path))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_private(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn create_directory(path: &Path, recursive: bool) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(recursive).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_directory(path: &Path, recursive: bool) -> io::Result<()> {
    fs::DirBuilder::new().recursive(recursive).create(path)
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// The permission bits, if they let anyone but the owner at the file.
#[cfg(unix)]
fn mode_open_to_others(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn mode_open_to_others(_: &fs::Metadata) -> Option<u32> {
    None
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> KeystoreError {
    let path = path.to_owned();
    move |source| KeystoreError::Io { path, source }
}

/// Why an enrolment cannot be read or kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// Another enrolment is kept here.
    #[error("{folder} holds an enrolment already; to enrol again, remove it or name another keystore", folder = folder.display())]
    Occupied {
        /// The folder of that enrolment.
        folder: PathBuf,
    },
    /// Others than the owner have access to a file.
    #[error("{path} has mode {mode:04o}; accepted is 0600", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that holds an Ed25519 key has another length.
    #[error("{path} has {found} bytes; accepted are 32", path = path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: usize,
    },
    /// The files are not the enrolment that was written, or it has expired.
    #[error("enrolment in {folder} is not accepted", folder = folder.display())]
    Credentials {
        /// The folder of the enrolment.
        folder: PathBuf,
        /// What is wrong with it.
        source: CredentialError,
    },
    /// A file or directory cannot be read or written.
    #[error("failed to use {path}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    };

    use super::*;

    const AUTHORITY: [u8; 32] = [4; 32];

    /// A time at which everything here is valid, and the last second of identities; unix seconds.
    const NOW: u64 = 1_800_000_000;
    const END: u64 = NOW + 100;

    fn ca() -> (Vec<u8>, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.self_signed(&key).unwrap().der().to_vec(), Issuer::new(params, key))
    }

    /// A consistent enrolment; the TLS certificate ends with the year 4095, the identity at `not_after`.
    fn parts(not_after: u64) -> Parts {
        let (ca, issuer) = ca();
        let tls = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&tls, &issuer).unwrap().der().to_vec();
        let identity_key = SigningKey::from_bytes(&[3; 32]);
        let authority = SigningKey::from_bytes(&AUTHORITY);
        let public = identity_key.verifying_key().to_bytes();
        Parts {
            tls_key: Zeroizing::new(tls.serialize_der()),
            identity_certificate: IdentityCertificate::issue(&authority, &public, "phone-1", not_after)
                .unwrap(),
            identity_key,
            certificate,
            ca,
            authority_key: authority.verifying_key().to_bytes(),
            signing_key: SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes(),
        }
    }

    fn refused(parts: Parts, now: u64) -> CredentialError {
        Enrolled::verify(parts, now).err().expect("the credentials are refused")
    }

    #[test]
    fn consistent_credentials_are_accepted() {
        let enrolled = Enrolled::verify(parts(END), END).unwrap();
        assert_eq!(enrolled.name(), "phone-1");
        assert!(enrolled.client_config(END).is_ok());
        assert!(matches!(
            enrolled.client_config(END + 1),
            Err(CredentialError::Identity(IdentityError::Expired { not_after: END, .. }))
        ));
    }

    #[test]
    fn parts_of_two_enrolments_do_not_mix() {
        // The TLS certificate of another client.
        let mut mixed = parts(END);
        mixed.tls_key = parts(END).tls_key;
        assert!(matches!(
            refused(mixed, NOW),
            CredentialError::Certificate(rustls::Error::InconsistentKeys(_))
        ));
        // Of another federation.
        let mut mixed = parts(END);
        mixed.ca = parts(END).ca;
        assert!(matches!(
            refused(mixed, NOW),
            CredentialError::Certificate(rustls::Error::InvalidCertificate(_))
        ));
        // The identity of another client.
        let mut mixed = parts(END);
        mixed.identity_key = SigningKey::from_bytes(&[6; 32]);
        assert!(matches!(refused(mixed, NOW), CredentialError::Identity(IdentityError::OtherKey)));
        // By another enrolment authority.
        let mut mixed = parts(END);
        mixed.authority_key = SigningKey::from_bytes(&[6; 32]).verifying_key().to_bytes();
        assert!(matches!(refused(mixed, NOW), CredentialError::Identity(IdentityError::Forged)));
        // A signer that anyone could sign for: the neutral point.
        let mut weak = parts(END);
        weak.signing_key = [0; 32];
        weak.signing_key[0] = 1;
        assert!(matches!(refused(weak, NOW), CredentialError::PublicKey { owner: "model signer" }));
    }

    #[test]
    fn expired_certificates_are_named() {
        let year_5000 = 95_617_584_000;
        let error = refused(parts(u64::MAX), year_5000);
        let CredentialError::Expired { not_after, now } = error else { panic!("{error}") };
        assert_eq!((now, not_after), (year_5000, 67_090_118_400), "1 January 4096");
        assert!(matches!(
            refused(parts(END), END + 1),
            CredentialError::Identity(IdentityError::Expired { not_after: END, .. })
        ));
    }

    #[test]
    fn an_enrolment_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let keystore = Keystore::open(&root.path().join("keys/client")).unwrap();
        assert!(keystore.load(NOW).unwrap().is_none());
        let enrolled = Enrolled::verify(parts(END), NOW).unwrap();
        keystore.prepare().unwrap();
        // An interrupted enrolment leaves nothing that the next one trips over.
        fs::write(root.path().join("keys/client/enrollment.partial/ca.der"), b"half").unwrap();
        assert!(keystore.load(NOW).unwrap().is_none());
        keystore.prepare().unwrap();
        keystore.save(&enrolled).unwrap();

        let loaded = keystore.load(NOW).unwrap().unwrap();
        assert_eq!(loaded.client_id(), enrolled.client_id());
        assert_eq!(loaded.identity_certificate(), enrolled.identity_certificate());
        assert_eq!(loaded.signing_key(), enrolled.signing_key());
        assert_eq!(loaded.authority_key(), enrolled.authority_key());
        assert_eq!(*loaded.parts.tls_key, *enrolled.parts.tls_key);
        assert!(matches!(keystore.prepare(), Err(KeystoreError::Occupied { .. })));
        let error = keystore.load(END + 1).err().unwrap();
        assert!(matches!(
            error,
            KeystoreError::Credentials {
                source: CredentialError::Identity(IdentityError::Expired { .. }),
                ..
            }
        ));
    }

    #[test]
    fn memory_keeps_nothing() {
        let enrolled = Enrolled::verify(parts(END), NOW).unwrap();
        Keystore::Memory.prepare().unwrap();
        Keystore::Memory.save(&enrolled).unwrap();
        assert!(Keystore::Memory.load(NOW).unwrap().is_none());
    }

    #[test]
    fn damaged_files_are_named() {
        let root = tempfile::tempdir().unwrap();
        let keystore = Keystore::open(root.path()).unwrap();
        keystore.prepare().unwrap();
        keystore.save(&Enrolled::verify(parts(END), NOW).unwrap()).unwrap();
        let file = root.path().join("enrollment").join(SIGNING_KEY);
        fs::write(&file, [0; 31]).unwrap();
        assert!(matches!(keystore.load(NOW), Err(KeystoreError::Length { found: 31, .. })));
        fs::remove_file(&file).unwrap();
        assert!(matches!(keystore.load(NOW), Err(KeystoreError::Io { path, .. }) if path == file));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("client");
        let keystore = Keystore::open(&directory).unwrap();
        keystore.prepare().unwrap();
        keystore.save(&Enrolled::verify(parts(END), NOW).unwrap()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("enrollment"))), (0o700, 0o700));
        for entry in fs::read_dir(directory.join("enrollment")).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        let file = directory.join("enrollment").join(TLS_KEY);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(keystore.load(NOW), Err(KeystoreError::Exposed { mode: 0o644, .. })));
    }
}
