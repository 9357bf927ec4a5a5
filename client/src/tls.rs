//! The client's end of the connection: TLS 1.3 to a server whose certificate authority is pinned by digest.
//!
//! No public certificate authority is trusted and no system store is read. The server sends its authority's
//! certificate along; the verifier here looks for the one with the pinned digest and leaves everything else
//! (signatures, names, times, purposes) to rustls' own verifier with that one certificate as its root. So a client
//! that knows 32 bytes is safe on its first connection.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    version::TLS13,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// Time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Pings on an idle connection: one behind a router that forgot it is noticed, and not waited for.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A client certificate and its private key.
pub type TlsIdentity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A configuration that trusts the server whose authority's certificate has the SHA-256 digest `ca`, and shows
/// `identity` if there is one. Fails if the identity's certificate is not for its key.
pub fn client_config(
    ca: [u8; 32],
    identity: Option<TlsIdentity>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(PinnedCa { pin: ca, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Connects to the coordinator at `url`, `https://HOST:PORT`.
///
/// A server that refuses the client's certificate says so after this has returned, as is TLS 1.3's way: the first
/// call on the channel fails, and the chain of its error names the alert.
pub async fn connect(url: &str, config: Arc<ClientConfig>) -> Result<Channel, ConnectError> {
    let address = Address::parse(url)?;
    let connector = tower::service_fn(move |_: Uri| {
        let (address, connector) = (address.clone(), TlsConnector::from(config.clone()));
        async move {
            let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
            tcp.set_nodelay(true)?;
            connector.connect(address.name, tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_shared(url.to_owned())
        .map_err(|_| ConnectError::Url { url: url.to_owned() })?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| ConnectError::from_transport(url, error))
}

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not one of a coordinator.
    #[error("coordinator address {url:?} is not accepted; accepted is https://HOST:PORT")]
    Url {
        /// The address.
        url: String,
    },
    /// Another certificate authority than the pinned one vouches for the server.
    #[error("{0}")]
    WrongAuthority(#[from] WrongAuthority),
    /// The server's certificate is wrong in another way: its time, its name, its signature.
    #[error("certificate of the server at {url} is refused: {reason}")]
    Certificate {
        /// The address.
        url: String,
        /// What rustls found.
        reason: CertificateError,
    },
    /// The server is not there, or does not speak as a coordinator does.
    #[error("failed to connect to {url}")]
    Unreachable {
        /// The address.
        url: String,
        /// What the transport reports.
        source: tonic::transport::Error,
    },
}

/// The server shows no certificate authority with the pinned digest: it is not the coordinator that issued the pin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "server is not of this federation: none of its certificates has the pinned SHA-256 {}",
    hex::encode(.pin)
)]
pub struct WrongAuthority {
    /// The digest that was looked for.
    pub pin: [u8; 32],
}

impl ConnectError {
    /// Finds the certificate error, if there is one, under what the layers above TLS made of it.
    fn from_transport(url: &str, error: tonic::transport::Error) -> Self {
        let url = url.to_owned();
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(current) = cause {
            if let Some(rustls::Error::InvalidCertificate(reason)) = tls_error(current) {
                return match reason {
                    CertificateError::Other(OtherError(other)) if other.is::<WrongAuthority>() => {
                        other.downcast_ref::<WrongAuthority>().expect("just checked").clone().into()
                    }
                    reason => Self::Certificate { url, reason: reason.clone() },
                };
            }
            cause = current.source();
        }
        Self::Unreachable { url, source: error }
    }
}

/// tokio-rustls wraps the error of rustls into one of I/O, whose `source` skips over it.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

/// Where a coordinator is.
#[derive(Clone)]
struct Address {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Address {
    fn parse(url: &str) -> Result<Self, ConnectError> {
        let refused = || ConnectError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let (Some("https"), Some(host), Some(port)) = (uri.scheme_str(), uri.host(), uri.port_u16()) else {
            return Err(refused());
        };
        let with_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || with_user {
            return Err(refused());
        }
        // An IPv6 address stands in brackets in an address of the web, and without them everywhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| refused())?;
        Ok(Self { host, port, name })
    }
}

/// Accepts the server whose chain holds the certificate with this digest, and verifies under that one.
#[derive(Debug)]
struct PinnedCa {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(ca) = intermediates.iter().find(|certificate| Sha256::digest(certificate)[..] == self.pin)
        else {
            let error = OtherError(Arc::new(WrongAuthority { pin: self.pin }));
            return Err(CertificateError::Other(error).into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = |url| Address::parse(url).map(|address| (address.host, address.port)).ok();
        assert_eq!(address("https://127.0.0.1:7443"), Some(("127.0.0.1".into(), 7443)));
        assert_eq!(address("https://coordinator.example:1/"), Some(("coordinator.example".into(), 1)));
        assert_eq!(address("https://[::1]:7443"), Some(("::1".into(), 7443)));
        for url in [
            "",
            "127.0.0.1:7443",
            "http://127.0.0.1:7443",
            "https://127.0.0.1",
            "https://127.0.0.1:7443/rounds",
            "https://127.0.0.1:7443?x=1",
            "https://me@127.0.0.1:7443",
            "https://127.0.0.1:70000",
            "https://a b:1",
        ] {
            assert_eq!(address(url), None, "{url}");
        }
        assert_eq!(
            Address::parse("localhost").err().unwrap().to_string(),
            "coordinator address \"localhost\" is not accepted; accepted is https://HOST:PORT"
        );
    }
}
