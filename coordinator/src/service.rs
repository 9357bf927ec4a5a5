//! The training stream: one gRPC stream per client session, authenticated twice.
//!
//! TLS says that the peer holds a certificate of this coordinator's CA; the `Hello` message brings the identity that the
//! enrolment authority signed, and both must name the same client. After that the stream carries opaque messages; the
//! core judges them.

use crate::server::{Inbound, Outgoing};
use crate::tls::peer_certificate;
use ed25519_dalek::VerifyingKey;
use fedveil_aggregation::secagg::{ClientId, IdentityCertificate};
use fedveil_coordinator_core::{Client, Command};
use fedveil_proto::limits::PROTOCOL_VERSION;
use fedveil_proto::v1::{Frame, training_server::Training};
use fedveil_proto::{Assembler, ErrorCode, Kind, frames};
use fedveil_provenance::Digest;
use prost::bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Messages that may wait for one client before it is taken for gone.
const OUTGOING_QUEUE: usize = 64;
/// Time that a client has for its first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of message data that went through the training stream, all clients together.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From clients.
    pub up: AtomicU64,
    /// To clients.
    pub down: AtomicU64,
}

/// The gRPC service.
pub(crate) struct TrainingService {
    pub(crate) authority: VerifyingKey,
    pub(crate) inbound: mpsc::Sender<Inbound>,
    pub(crate) limits: Arc<dyn Fn(Kind) -> usize + Send + Sync>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) sessions: AtomicU64,
}

#[tonic::async_trait]
impl Training for TrainingService {
    type ParticipateStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn participate(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ParticipateStream>, Status> {
        let certificate = peer_certificate(&request, unix_seconds())?;
        let limits = self.limits.clone();
        let mut messages = Messages {
            frames: request.into_inner(),
            assembler: Assembler::new(Box::new(move |kind| limits(kind)) as Box<dyn Fn(Kind) -> usize + Send>),
            traffic: self.traffic.clone(),
        };
        let hello = tokio::time::timeout(HELLO_TIMEOUT, messages.next())
            .await
            .map_err(|_| ErrorCode::InvalidRequest.status("no hello message in time"))??;
        let client = self.authenticate(hello, certificate.client)?;

        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel::<Outgoing>(OUTGOING_QUEUE);
        let connect = Inbound::Connect { client, session, sender };
        self.inbound
            .send(connect)
            .await
            .map_err(|_| ErrorCode::Unavailable.status("the coordinator is stopping"))?;
        tokio::spawn(receive(client, session, messages, self.inbound.clone()));

        // One frame waits at most: a slow client fills its queue of messages, not the memory.
        let (frame_sender, frame_receiver) = mpsc::channel(1);
        tokio::spawn(transmit(receiver, frame_sender, self.traffic.clone()));
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(frame_receiver))))
    }
}

impl TrainingService {
    fn authenticate(&self, hello: Option<(Kind, Vec<u8>)>, certified: ClientId) -> Result<Client, Status> {
        let Some((Kind::Hello, bytes)) = hello else {
            return Err(ErrorCode::InvalidRequest.status("the first message is not a hello"));
        };
        let (version, identity) = fedveil_proto::hello::decode(&bytes)
            .ok_or_else(|| ErrorCode::InvalidRequest.status("the hello message is too short"))?;
        if version != PROTOCOL_VERSION {
            return Err(ErrorCode::ProtocolVersion.status(format!(
                "the client speaks protocol version {version}, this coordinator speaks {PROTOCOL_VERSION}"
            )));
        }
        let identity = IdentityCertificate::verify(identity, &self.authority, unix_seconds())
            .map_err(|error| ErrorCode::NotEnrolled.status(error.to_string()))?;
        if identity.client_id() != certified {
            return Err(
                ErrorCode::NotEnrolled.status("the TLS certificate and the identity name two clients")
            );
        }
        Ok(Digest(certified.0))
    }
}

/// The messages of one stream, assembled from its frames.
struct Messages {
    frames: Streaming<Frame>,
    assembler: Assembler<Box<dyn Fn(Kind) -> usize + Send>>,
    traffic: Arc<Traffic>,
}

impl Messages {
    async fn next(&mut self) -> Result<Option<(Kind, Vec<u8>)>, Status> {
        while let Some(frame) = self.frames.message().await? {
            self.traffic.up.fetch_add(frame.data.len() as u64, Ordering::Relaxed);
            let message = self
                .assembler
                .push(frame)
                .map_err(|error| ErrorCode::InvalidRequest.status(error.to_string()))?;
            if message.is_some() {
                return Ok(message);
            }
        }
        Ok(None)
    }
}

/// Passes a client's messages on until its stream ends or breaks a rule.
async fn receive(client: Client, session: u64, mut messages: Messages, inbound: mpsc::Sender<Inbound>) {
    loop {
        match messages.next().await {
            Ok(Some((kind, bytes))) if kind.is_from_client() => {
                let command = Command::Message { client, kind, bytes };
                if inbound.send(Inbound::Command(command)).await.is_err() {
                    return;
                }
            }
            Ok(Some((kind, _))) => {
                tracing::warn!(%client, ?kind, "client sent a coordinator's message; closing its session");
                break;
            }
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%client, %status, "session broke");
                break;
            }
        }
    }
    // If the coordinator is gone, there is nobody left to tell.
    let _ = inbound.send(Inbound::Disconnect { client, session }).await;
}

/// Cuts waiting messages into frames, one message after the other.
async fn transmit(
    mut messages: mpsc::Receiver<Outgoing>,
    frame_sender: mpsc::Sender<Result<Frame, Status>>,
    traffic: Arc<Traffic>,
) {
    while let Some((kind, bytes)) = messages.recv().await {
        traffic.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        for frame in frames(kind, Bytes::from_owner(bytes)) {
            if frame_sender.send(Ok(frame)).await.is_err() {
                return;
            }
        }
    }
}

fn unix_seconds() -> u64 {
    crate::server::now().unix_seconds()
}
