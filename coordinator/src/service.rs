//! The training stream: one gRPC stream per client session, authenticated twice.
//!
//! TLS says that the peer holds a certificate of this coordinator's CA; the `Hello` message brings the identity that the
//! enrolment authority signed, and both must name the same client. After that the stream carries opaque messages; the
//! core judges them.
//!
//! Most messages are small and passed on whole. An input is as large as the model, so it is decoded frame by frame, only
//! where the core awaits it, and only [`UPLOADS`] at a time: whoever comes later waits on its own side of the connection.
//! What uploads take of this server's memory is thus bounded by the model, not by clients × model. (Where the plan's mode
//! is `insecure_plain`, the core itself keeps every update until the round is closed.)

use crate::server::{Inbound, Outgoing, Upload};
use crate::tls::peer_certificate;
use ed25519_dalek::VerifyingKey;
use fedveil_aggregation::secagg::{ClientId, IdentityCertificate};
use fedveil_coordinator_core::{self as core, Client, Command, Reject};
use fedveil_proto::limits::PROTOCOL_VERSION;
use fedveil_proto::v1::{Frame, training_server::Training};
use fedveil_proto::{Chunk, Deframer, ErrorCode, Kind, frames};
use fedveil_provenance::Digest;
use prost::bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Messages that may wait for one client before it is taken for gone.
const OUTGOING_QUEUE: usize = 64;
/// Inputs that are decoded at the same time.
pub(crate) const UPLOADS: usize = 64;
/// Bytes per second that a client must reach with its input, after a grace of ten seconds.
const SLOWEST_UPLOAD: usize = 32 << 10;
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
    /// Permits to decode an input, [`UPLOADS`] of them.
    pub(crate) uploads: Arc<Semaphore>,
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
            deframer: Deframer::new(Box::new(move |kind| limits(kind)) as Box<dyn Fn(Kind) -> usize + Send>),
            partial: Vec::new(),
            traffic: self.traffic.clone(),
        };
        let hello = tokio::time::timeout(HELLO_TIMEOUT, messages.next())
            .await
            .map_err(|_| ErrorCode::InvalidRequest.status("no hello message in time"))??;
        let client = self.authenticate(hello, certificate.client)?;

        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel::<Outgoing>(OUTGOING_QUEUE);
        let connect = Inbound::Connect { client, session, sender };
        self.inbound.send(connect).await.map_err(|_| stopping())?;
        let largest_input = (self.limits)(Kind::Input).max((self.limits)(Kind::PlainInput));
        let receiver_of_messages = Receiver {
            client,
            messages,
            inbound: self.inbound.clone(),
            uploads: self.uploads.clone(),
            upload_time: Duration::from_secs(10 + (largest_input / SLOWEST_UPLOAD) as u64),
        };
        tokio::spawn(receiver_of_messages.run(session));

        // One frame waits at most: a slow client fills its queue of messages, not the memory.
        let (frame_sender, frame_receiver) = mpsc::channel(1);
        tokio::spawn(transmit(receiver, frame_sender, self.traffic.clone()));
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(frame_receiver))))
    }
}

impl TrainingService {
    fn authenticate(&self, hello: Option<Received>, certified: ClientId) -> Result<Client, Status> {
        let Some(Received::Message(Kind::Hello, bytes)) = hello else {
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

/// What a client's stream brings.
enum Received {
    /// A whole message.
    Message(Kind, Vec<u8>),
    /// A piece of an input.
    Input(Chunk),
}

/// The messages of one stream, put together from its frames.
struct Messages {
    frames: Streaming<Frame>,
    deframer: Deframer<Box<dyn Fn(Kind) -> usize + Send>>,
    /// Data of a message that has begun.
    partial: Vec<u8>,
    traffic: Arc<Traffic>,
}

impl Messages {
    async fn next(&mut self) -> Result<Option<Received>, Status> {
        while let Some(frame) = self.frames.message().await? {
            self.traffic.up.fetch_add(frame.data.len() as u64, Ordering::Relaxed);
            let chunk = self
                .deframer
                .push(frame)
                .map_err(|error| ErrorCode::InvalidRequest.status(error.to_string()))?;
            if matches!(chunk.kind, Kind::Input | Kind::PlainInput) {
                return Ok(Some(Received::Input(chunk)));
            }
            self.partial.extend_from_slice(&chunk.data);
            if chunk.last {
                return Ok(Some(Received::Message(chunk.kind, std::mem::take(&mut self.partial))));
            }
        }
        Ok(None)
    }
}

/// Passes one client's messages on to the core.
struct Receiver {
    client: Client,
    messages: Messages,
    inbound: mpsc::Sender<Inbound>,
    uploads: Arc<Semaphore>,
    /// Time that an input may take once it is being decoded.
    upload_time: Duration,
}

impl Receiver {
    /// Goes on until the stream ends or breaks a rule.
    async fn run(mut self, session: u64) {
        if let Err(status) = self.receive().await {
            tracing::debug!(client = %self.client, %status, "session broke");
        }
        // If the coordinator is gone, there is nobody left to tell.
        let _ = self.inbound.send(Inbound::Disconnect { client: self.client, session }).await;
    }

    async fn receive(&mut self) -> Result<(), Status> {
        while let Some(received) = self.messages.next().await? {
            let inbound = match received {
                Received::Message(kind, bytes) if kind.is_from_client() => {
                    Inbound::Command(Command::Message { client: self.client, kind, bytes })
                }
                Received::Message(kind, _) => {
                    let reason = format!("a client does not send messages of kind {kind:?}");
                    return Err(ErrorCode::InvalidRequest.status(reason));
                }
                Received::Input(chunk) => Inbound::Input(self.receive_input(chunk).await?),
            };
            self.inbound.send(inbound).await.map_err(|_| stopping())?;
        }
        Ok(())
    }

    /// Decodes an input to its end. One that the core does not await, or that is malformed, is skipped and takes
    /// no memory; the core is told why.
    async fn receive_input(&mut self, first: Chunk) -> Result<Upload, Status> {
        let (reply, answer) = oneshot::channel();
        let begin = Inbound::BeginInput { client: self.client, kind: first.kind, reply };
        self.inbound.send(begin).await.map_err(|_| stopping())?;
        let begun = answer.await.map_err(|_| stopping())?;
        let slot = match begun {
            Ok(_) => Some(self.uploads.clone().acquire_owned().await.map_err(|_| stopping())?),
            Err(_) => None,
        };
        let input = tokio::time::timeout(self.upload_time, self.decode(begun, first))
            .await
            .map_err(|_| ErrorCode::InvalidRequest.status("the input comes too slowly"))??;
        Ok(Upload { command: Command::Input { client: self.client, input }, slot })
    }

    async fn decode(
        &mut self,
        mut upload: Result<core::Upload, Reject>,
        first: Chunk,
    ) -> Result<Result<core::Input, Reject>, Status> {
        let mut chunk = first;
        loop {
            upload = upload.and_then(|mut upload| {
                upload.push(&chunk.data)?;
                Ok(upload)
            });
            if chunk.last {
                return Ok(upload.and_then(core::Upload::finish));
            }
            chunk = match self.messages.next().await? {
                Some(Received::Input(chunk)) => chunk,
                _ => return Err(ErrorCode::InvalidRequest.status("the input is cut off")),
            };
        }
    }
}

fn stopping() -> Status {
    ErrorCode::Unavailable.status("the coordinator is stopping")
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
