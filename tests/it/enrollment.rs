//! Enrolment and TLS between the real client and the real coordinator, over loopback.
//!
//! The server is tonic over this repository's TLS, with the enrolment service and a `Training` service that answers
//! with the name in the client's certificate, so that a test sees who was let in and as whom.

use std::{
    error::Error as StdError,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fedveil_aggregation::secagg::ClientId;
use fedveil_client::{
    enroll::{EnrollError, enroll},
    keystore::{Enrolled, Keystore},
    tls::{ConnectError, client_config, connect},
};
use fedveil_coordinator::{
    authority::{CertificateAuthority, CertificateRequest, EnrollmentAuthority, Validity},
    enrollment::{EnrollmentService, MemoryTokenStore, new_join_token},
    tls::{incoming, peer_certificate, server_config},
};
use fedveil_proto::{
    Assembler, ErrorCode, JoinToken, Kind, Pins, frames,
    v1::{
        EnrollRequest, Frame,
        enrollment_client::EnrollmentClient,
        training_client::TrainingClient,
        training_server::{Training, TrainingServer},
    },
};
use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming, transport::Server};

const DAY: Duration = Duration::from_hours(24);
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Long past what any of this takes; a test that meets it has hung.
const PATIENCE: Duration = Duration::from_secs(30);

struct WhoAmI;

#[tonic::async_trait]
impl Training for WhoAmI {
    type ParticipateStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn participate(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ParticipateStream>, Status> {
        let peer = peer_certificate(&request, unix(SystemTime::now()))?;
        let answer = format!("{} {}", peer.name, peer.client).into_bytes();
        Ok(Response::new(Box::pin(tokio_stream::iter(frames(Kind::Plan, answer).map(Ok)))))
    }
}

/// A federation whose server runs until this is dropped.
struct Federation {
    ca: Arc<CertificateAuthority>,
    tokens: Arc<MemoryTokenStore>,
    pins: Pins,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Federation {
    async fn start() -> Self {
        Self::start_with("127.0.0.1", SystemTime::now(), HANDSHAKE_DEADLINE).await
    }

    /// A federation whose server's certificate is for `name`, made at the time `made`.
    async fn start_with(name: &str, made: SystemTime, deadline: Duration) -> Self {
        let ca = Arc::new(CertificateAuthority::create(made).unwrap());
        let tokens = Arc::new(MemoryTokenStore::default());
        let authority = EnrollmentAuthority::create().unwrap();
        let signing_key = EnrollmentAuthority::create().unwrap().public_key();
        let enrollment =
            EnrollmentService::new(ca.clone(), authority, signing_key, tokens.clone(), DAY).unwrap();
        let pins = enrollment.pins();
        let identity = ca.server_identity(&[name], Validity::from_now(made, DAY).unwrap()).unwrap();
        let config = server_config(&ca, identity).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = Server::builder()
            .add_service(enrollment.into_server())
            .add_service(TrainingServer::new(WhoAmI))
            .serve_with_incoming_shutdown(incoming(listener, config, deadline), async {
                // A dropped sender stops the server as well.
                drop(stopped.await);
            });
        Self { ca, tokens, pins, address, stop: Some(stop), server: tokio::spawn(server) }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn token(&self) -> JoinToken {
        let token = new_join_token(self.pins).unwrap();
        self.tokens.add(token.secret_digest());
        token
    }

    async fn enroll(&self, token: &JoinToken) -> Result<Enrolled, EnrollError> {
        timeout(PATIENCE, enroll(&self.url(), token, "phone-1", &Keystore::Memory)).await.unwrap()
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What the server takes the owner of this configuration for.
async fn who_am_i(
    federation: &Federation,
    config: Arc<rustls::ClientConfig>,
) -> Result<String, Box<dyn StdError>> {
    let call = async {
        let channel = connect(&federation.url(), config).await?;
        let mut client = TrainingClient::new(channel);
        let mut answer = client.participate(tokio_stream::empty()).await?.into_inner();
        let mut assembler = Assembler::new(|_| 1024);
        while let Some(frame) = answer.next().await {
            if let Some((Kind::Plan, message)) = assembler.push(frame?)? {
                return Ok(String::from_utf8(message)?);
            }
        }
        Err("the stream ended without an answer".into())
    };
    timeout(PATIENCE, call).await.unwrap()
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tokio::test]
async fn a_client_enrols_and_is_known() {
    let federation = Federation::start().await;
    let root = tempfile::tempdir().unwrap();
    let keystore = Keystore::open(root.path()).unwrap();
    let token = federation.token();
    let enrolled = enroll(&federation.url(), &token, "phone-1", &keystore).await.unwrap();
    let expected = format!("phone-1 {}", enrolled.client_id());
    let now = unix(SystemTime::now());
    assert_eq!(who_am_i(&federation, enrolled.client_config(now).unwrap()).await.unwrap(), expected);

    // After a restart of the device.
    let restarted = keystore.load(now).unwrap().unwrap();
    assert_eq!(who_am_i(&federation, restarted.client_config(now).unwrap()).await.unwrap(), expected);

    // Every certificate has its time.
    let later = now + DAY.as_secs() + 1;
    let error = restarted.client_config(later).unwrap_err();
    assert!(error.to_string().starts_with("client certificate expired at "), "{error}");
    assert!(keystore.load(later).is_err());

    // A second enrolment into the same keystore is refused before it costs a token.
    let second = federation.token();
    let error = enroll(&federation.url(), &second, "phone-1", &keystore).await.err().unwrap();
    assert!(matches!(error, EnrollError::Keystore(_)), "{error}");
    assert!(federation.enroll(&second).await.is_ok());
}

#[tokio::test]
async fn a_server_of_another_federation_is_refused() {
    let (ours, theirs) = (Federation::start().await, Federation::start().await);
    let token = ours.token();
    let error = theirs.enroll(&token).await.err().unwrap();
    assert!(matches!(error, EnrollError::Connect(ConnectError::WrongAuthority(_))), "{error}");
    assert!(error.to_string().starts_with("server is not of this federation: "), "{error}");
    // The other server has learnt nothing: the token is still good where it belongs.
    assert!(ours.enroll(&token).await.is_ok());
}

#[tokio::test]
async fn another_signer_or_authority_than_pinned_is_refused() {
    let federation = Federation::start().await;
    for (part, pins) in [
        ("model signing key", Pins { signer: [0; 32], ..federation.pins }),
        ("enrolment authority", Pins { authority: [0; 32], ..federation.pins }),
    ] {
        let token = new_join_token(pins).unwrap();
        federation.tokens.add(token.secret_digest());
        match federation.enroll(&token).await {
            Err(EnrollError::Pin { part: found, .. }) => assert_eq!(found, part),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("another {part} is accepted"),
        }
    }
}

#[tokio::test]
async fn a_used_token_is_refused() {
    let federation = Federation::start().await;
    let token = federation.token();
    federation.enroll(&token).await.unwrap();
    let error = federation.enroll(&token).await.err().unwrap();
    assert!(matches!(error, EnrollError::TokenAlreadyUsed(_)), "{error}");
    assert_eq!(
        error.to_string(),
        "coordinator refuses the join token: join token has been used; a token admits one client, once"
    );
}

#[tokio::test]
async fn of_many_who_share_a_token_one_enrols() {
    let federation = Federation::start().await;
    let token = federation.token();
    let (mut admitted, mut refused) = (0, 0);
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let (url, text) = (federation.url(), token.to_text());
            tokio::spawn(async move {
                enroll(&url, &text.parse().unwrap(), "phone-1", &Keystore::Memory).await.map(drop)
            })
        })
        .collect();
    for attempt in attempts {
        match timeout(PATIENCE, attempt).await.unwrap().unwrap() {
            Ok(()) => admitted += 1,
            Err(EnrollError::TokenAlreadyUsed(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((admitted, refused), (1, 7));
}

#[tokio::test]
async fn an_unknown_token_is_refused() {
    let federation = Federation::start().await;
    let error = federation.enroll(&new_join_token(federation.pins).unwrap()).await.err().unwrap();
    assert!(matches!(error, EnrollError::InvalidToken(_)), "{error}");
    assert_eq!(
        error.to_string(),
        "coordinator refuses the join token: join token is unknown to this coordinator"
    );
}

#[tokio::test]
async fn an_address_that_keeps_failing_is_turned_away() {
    let federation = Federation::start().await;
    let channel = connect(&federation.url(), client_config(federation.pins.ca, None).unwrap()).await.unwrap();
    let mut client = EnrollmentClient::new(channel);
    let guess = EnrollRequest { protocol_version: 1, ..EnrollRequest::default() };
    for _ in 0..32 {
        let status = client.enroll(guess.clone()).await.unwrap_err();
        assert_eq!(ErrorCode::of(&status), Some(ErrorCode::InvalidRequest), "{status}");
    }
    let status = client.enroll(guess).await.unwrap_err();
    assert_eq!(ErrorCode::of(&status), Some(ErrorCode::LimitExceeded), "{status}");
    let error = federation.enroll(&federation.token()).await.err().unwrap();
    assert!(matches!(error, EnrollError::Refused { code: ErrorCode::LimitExceeded, .. }), "{error}");
}

#[tokio::test]
async fn another_protocol_version_is_refused() {
    let federation = Federation::start().await;
    let channel = connect(&federation.url(), client_config(federation.pins.ca, None).unwrap()).await.unwrap();
    let request = EnrollRequest { protocol_version: 2, ..EnrollRequest::default() };
    let status = EnrollmentClient::new(channel).enroll(request).await.unwrap_err();
    assert_eq!(ErrorCode::of(&status), Some(ErrorCode::ProtocolVersion));
    assert_eq!(status.message(), "client speaks protocol version 2; accepted is version 1");
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused_unread() {
    let federation = Federation::start().await;
    let channel = connect(&federation.url(), client_config(federation.pins.ca, None).unwrap()).await.unwrap();
    let request =
        EnrollRequest { protocol_version: 1, csr_der: vec![0; 100_000], ..EnrollRequest::default() };
    let status = EnrollmentClient::new(channel).enroll(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn training_needs_a_client_certificate() {
    let federation = Federation::start().await;
    let error = who_am_i(&federation, client_config(federation.pins.ca, None).unwrap()).await.unwrap_err();
    let status = error.downcast_ref::<Status>().unwrap();
    assert_eq!(ErrorCode::of(status), Some(ErrorCode::NotEnrolled));
    assert_eq!(status.message(), "this call needs a client certificate; enrol first");
}

/// A configuration with a certificate by `ca` that was made at `made`, for a day.
fn certified_at(
    ca: &CertificateAuthority,
    trusted: &CertificateAuthority,
    made: SystemTime,
) -> Arc<rustls::ClientConfig> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap();
    let request = CertificateRequest::parse(request.der()).unwrap();
    let validity = Validity::from_now(made, DAY).unwrap();
    let certificate = ca.sign_request(&request, "phone-9", ClientId([9; 32]), validity).unwrap();
    client_config(trusted.digest(), Some((certificate, key.into()))).unwrap()
}

#[tokio::test]
async fn an_expired_client_certificate_is_refused_with_its_reason() {
    let federation = Federation::start().await;
    let now = SystemTime::now();
    let fresh = certified_at(&federation.ca, &federation.ca, now - DAY / 2);
    assert_eq!(who_am_i(&federation, fresh).await.unwrap(), format!("phone-9 {}", ClientId([9; 32])));
    let expired = certified_at(&federation.ca, &federation.ca, now - 2 * DAY);
    let error = who_am_i(&federation, expired).await.unwrap_err();
    assert!(chain(&*error).contains("CertificateExpired"), "{}", chain(&*error));
}

#[tokio::test]
async fn a_client_of_another_federation_is_refused() {
    let federation = Federation::start().await;
    let stranger = CertificateAuthority::create(SystemTime::now()).unwrap();
    let config = certified_at(&stranger, &federation.ca, SystemTime::now());
    let error = who_am_i(&federation, config).await.unwrap_err();
    // Both authorities have one name, so it is the signature that does not fit.
    assert!(chain(&*error).contains("received fatal alert"), "{}", chain(&*error));
}

#[tokio::test]
async fn a_client_cannot_pose_as_the_server() {
    let federation = Federation::start().await;
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().serialize_request(&key).unwrap();
    let request = CertificateRequest::parse(request.der()).unwrap();
    let validity = Validity::from_now(SystemTime::now(), DAY).unwrap();
    let certificate = federation.ca.sign_request(&request, "127.0.0.1", ClientId([9; 32]), validity).unwrap();
    let identity = fedveil_coordinator::authority::ServerIdentity {
        chain: vec![certificate, federation.ca.certificate().clone()],
        key: key.into(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let config = server_config(&federation.ca, identity).unwrap();
    let _connections = incoming(listener, config, HANDSHAKE_DEADLINE);
    let error = enroll(&url, &federation.token(), "phone-1", &Keystore::Memory).await.err().unwrap();
    assert!(matches!(error, EnrollError::Connect(ConnectError::Certificate { .. })), "{error}");
}

#[tokio::test]
async fn a_server_certificate_for_another_name_or_time_is_refused() {
    let now = SystemTime::now();
    for (name, made, expected) in [
        ("coordinator.example", now, "not valid for name"),
        ("127.0.0.1", now - 2 * DAY, "certificate expired"),
    ] {
        let federation = Federation::start_with(name, made, HANDSHAKE_DEADLINE).await;
        let error = federation.enroll(&federation.token()).await.err().unwrap();
        let EnrollError::Connect(ConnectError::Certificate { .. }) = &error else { panic!("{error}") };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn who_does_not_answer_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error =
        connect(&format!("https://{address}"), client_config([0; 32], None).unwrap()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(chain(&error).contains(&address.to_string()), "{}", chain(&error));
}

#[tokio::test]
async fn peers_that_never_speak_delay_nobody_and_are_let_go() {
    let deadline = Duration::from_millis(500);
    let federation = Federation::start_with("127.0.0.1", SystemTime::now(), deadline).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(federation.address).await.unwrap());
    }
    federation.enroll(&federation.token()).await.unwrap();
    for mut peer in silent {
        let end = timeout(PATIENCE, peer.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "the server has something to say to silence");
    }
}

#[tokio::test]
async fn the_server_stops_when_told_to() {
    let mut federation = Federation::start().await;
    federation.enroll(&federation.token()).await.unwrap();
    federation.stop.take().unwrap().send(()).unwrap();
    timeout(PATIENCE, &mut federation.server).await.unwrap().unwrap().unwrap();
    let refused = federation.enroll(&federation.token()).await.err().unwrap();
    assert!(matches!(refused, EnrollError::Connect(ConnectError::Unreachable { .. })), "{refused}");
}
