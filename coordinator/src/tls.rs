//! The server's end of the connection: TLS 1.3 with client certificates, handed to tonic connection by connection.
//!
//! A client may come without a certificate, because enrolment is how it gets one; a certificate that it does show must
//! chain to the federation's authority and be in its time, or there is no connection. Every service but enrolment
//! starts with [`peer_certificate`].
//!
//! - Each handshake is a task of its own with a deadline, and their number is bounded: a slow peer delays nobody.
//! - Sessions are not resumed: each connection shows its certificate anew, so an expired one cannot live on in a ticket.
//! - After a refused handshake the rest of what the peer sends is read and dropped for a moment, because a reset would
//!   overtake the alert that tells the peer why.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use fedveil_aggregation::secagg::ClientId;
use fedveil_proto::ErrorCode;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Status, transport::server::Connected};
use tracing::{debug, warn};
use x509_parser::{
    oid_registry::OID_X509_SERIALNUMBER,
    prelude::{FromDer as _, X509Certificate},
};

use crate::authority::{CertificateAuthority, ServerIdentity};

/// Handshakes under way at one time; further connections wait to be accepted.
const MAX_HANDSHAKES: usize = 1024;

/// How long, and for how many bytes, a refused peer is listened to so that it can read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 << 10;

/// The configuration for a server of the federation of `ca`.
pub fn server_config(
    ca: &CertificateAuthority,
    identity: ServerIdentity,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The TLS connections made to `listener`, each after its handshake, for
/// `tonic::transport::Server::serve_with_incoming_shutdown`. A handshake has `deadline` to finish.
///
/// Accepting ends when the stream is dropped. The stream yields no error: what goes wrong with one connection is
/// logged and concerns no other.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    deadline: Duration,
) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin + 'static {
    let (connections, stream) = mpsc::channel(16);
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = connections.closed() => break,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most often too many open files: others must end before accepting can go on.
                    warn!(%error, "failed to accept a connection");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (acceptor, connections) = (acceptor.clone(), connections.clone());
            tokio::spawn(async move {
                match timeout(deadline, handshake(acceptor, tcp)).await {
                    // Without a receiver the server is stopping, and the connection closes.
                    Ok(Ok(tls)) => drop(connections.send(Ok(Connection::new(tls, peer))).await),
                    Ok(Err(error)) => debug!(%peer, %error, "TLS handshake refused"),
                    Err(_) => debug!(%peer, ?deadline, "TLS handshake took too long"),
                }
                drop(slot);
            });
        }
    });
    ReceiverStream::new(stream)
}

async fn handshake(acceptor: TlsAcceptor, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    match acceptor.accept(tcp).into_fallible().await {
        Ok(tls) => Ok(tls),
        Err((error, mut tcp)) => {
            let linger = async {
                tcp.shutdown().await?;
                tokio::io::copy(&mut tcp.take(LINGER_BYTES), &mut tokio::io::sink()).await
            };
            // Whatever comes of it, the handshake's own error is the one to report.
            drop(timeout(LINGER, linger).await);
            Err(error)
        }
    }
}

/// A TLS connection after its handshake.
pub struct Connection {
    tls: TlsStream<TcpStream>,
    peer: Peer,
}

/// Who is at the other end of a [`Connection`]; in the extensions of every request that comes over it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// The certificate that it showed; the handshake has verified it.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Connection {
    fn new(tls: TlsStream<TcpStream>, address: SocketAddr) -> Self {
        let chain = tls.get_ref().1.peer_certificates();
        let certificate = chain.and_then(|chain| chain.first()).cloned();
        Self { tls, peer: Peer { address, certificate } }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// The client at the other end of a connection, as its certificate says. The handshake has verified the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of the certificate.
    pub digest: [u8; 32],
    /// The identity that was certified together with it.
    pub client: ClientId,
    /// The client's name; it identifies nothing.
    pub name: String,
    /// Last second of validity, unix time.
    pub not_after: u64,
}

/// The certificate that the connection of `request` was opened with; the refusal to answer with if there was none, or
/// if it has expired at `now` (unix seconds), for a connection can outlive it.
pub fn peer_certificate<T>(request: &Request<T>, now: u64) -> Result<PeerCertificate, Status> {
    let Some(certificate) = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.as_ref())
    else {
        return Err(ErrorCode::NotEnrolled.status("this call needs a client certificate; enrol first"));
    };
    let peer = PeerCertificate::parse(certificate)
        .ok_or_else(|| ErrorCode::NotEnrolled.status("the client certificate names no client"))?;
    if now > peer.not_after {
        return Err(ErrorCode::CertificateExpired.status(format!(
            "the client certificate of {} expired at {} (unix seconds)",
            peer.name, peer.not_after
        )));
    }
    Ok(peer)
}

impl PeerCertificate {
    /// None for a certificate that `CertificateAuthority::sign_request` did not make, such as a server's.
    fn parse(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let identifier = certificate.subject().iter_by_oid(&OID_X509_SERIALNUMBER).next()?.as_str().ok()?;
        let mut client = [0; 32];
        hex::decode_to_slice(identifier, &mut client).ok()?;
        let not_after = certificate.validity().not_after.timestamp().try_into().ok()?;
        Some(Self { digest: Sha256::digest(der).into(), client: ClientId(client), name, not_after })
    }
}

/// Why a TLS configuration cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Certificate and key do not make a server.
    #[error("failed to configure TLS")]
    Config(#[from] rustls::Error),
    /// The authority's certificate cannot verify clients.
    #[error("failed to configure the verification of clients")]
    Verifier(#[from] VerifierBuilderError),
}
