//! Peers that break the protocol on the training stream of a real coordinator, over real TLS.

use fedveil_client::enroll::enroll;
use fedveil_client::keystore::{Enrolled, Keystore};
use fedveil_client::tls::connect;
use fedveil_coordinator::server::{Keys, Running, ServerConfig, start};
use fedveil_learning::{ModelSpec, model_file};
use fedveil_proto::limits::{FRAME, PROTOCOL_VERSION};
use fedveil_proto::v1::{Frame, training_client::TrainingClient};
use fedveil_proto::{Assembler, ErrorCode, Kind, frames, hello};
use fedveil_proto_plan::{Aggregation, Cohort, Model, Privacy, Server, TaskPlan, Training, VERSION};
use fedveil_provenance::Digest;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Long past what any of this takes; a test that meets it has hung.
const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    running: Running,
    url: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spec: ModelSpec = "softmax:4x3".parse().unwrap();
        let plan = TaskPlan {
            version: VERSION,
            task: "hostile".to_owned(),
            id: Digest([7; 32]),
            mode: "secagg".to_owned(),
            rounds: 1,
            phase_seconds: 60,
            model: Model { architecture: spec.to_string(), parameters: spec.parameters() as u32 },
            cohort: Cohort { clients: 6, minimum: 6, assumed_malicious: 0, population: None },
            training: Training::sgd(1, 1, 0.1),
            privacy: Privacy {
                placement: "distributed".to_owned(),
                mechanism: "discrete-gaussian".to_owned(),
                clip_norm: 1.0,
                noise_multiplier: 1.0,
                resolution: 1024,
                epsilon: 20.0,
                delta: 1e-5,
                correlated_noise: None,
                adaptive_clip: None,
            },
            aggregation: Aggregation {
                protocol: "pairwise-mask".to_owned(),
                group_size: 6,
                degree: 64,
                threshold: 4,
                min_survivors: 5,
                max_missing_reveals: 0,
                masks: "chacha20".to_owned(),
                break_probability: 0.0,
            },
            server: Server::mean(),
            simulated: false,
        };
        let config = ServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            names: vec!["127.0.0.1".to_owned()],
            out: folder.path().to_owned(),
            plan,
            initial_model: model_file::to_safetensors(&spec, &spec.initial(0)).unwrap(),
            population: fedveil_privacy::Limit {
                epsilon: f64::INFINITY,
                delta: fedveil_privacy::Delta::new(1e-5).unwrap(),
            },
            tokens: 3,
            hold_out: None,
            quarantine: fedveil_coordinator_core::Quarantine::off(),
        };
        let running = start(config, Keys::ephemeral().unwrap()).await.unwrap();
        let url = format!("https://{}", running.address);
        Self { running, url, _folder: folder }
    }

    async fn enrolled(&mut self, name: &str) -> Enrolled {
        let token = self.running.tokens.pop().unwrap();
        enroll(&self.url, &token, name, &Keystore::Memory).await.unwrap()
    }

    /// Opens the training stream with these frames; the sending side stays open as long as the sender lives.
    async fn participate(&self, client: &Enrolled, sent: Vec<Frame>) -> Result<Session, Status> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let channel = connect(&self.url, client.client_config(now).unwrap()).await.unwrap();
        let (sender, frames) = mpsc::channel(sent.len().max(1));
        for frame in sent {
            sender.try_send(frame).unwrap();
        }
        let mut client = TrainingClient::new(channel);
        let response = timeout(PATIENCE, client.participate(ReceiverStream::new(frames))).await.unwrap();
        response.map(|response| Session { stream: response.into_inner(), _sender: sender })
    }

    /// An honest client gets the plan: whatever was tried, the coordinator still serves.
    async fn still_serves(mut self) {
        let honest = self.enrolled("honest").await;
        let mut session = self.participate(&honest, greeting(&honest)).await.unwrap();
        assert_eq!(session.next().await.unwrap().0, Kind::Plan);
        drop(session);
        self.running.stopper().stop("the test is over").await;
        self.running.finish().await.unwrap();
    }
}

fn greeting(client: &Enrolled) -> Vec<Frame> {
    frames(Kind::Hello, hello::encode(PROTOCOL_VERSION, client.identity_certificate())).collect()
}

struct Session {
    stream: Streaming<Frame>,
    _sender: mpsc::Sender<Frame>,
}

impl Session {
    /// The next message; `None` when the coordinator ended the stream.
    async fn next(&mut self) -> Option<(Kind, Vec<u8>)> {
        let mut assembler = Assembler::new(|_| 1 << 20);
        loop {
            let frame = timeout(PATIENCE, self.stream.message()).await.unwrap().ok().flatten()?;
            if let Some(message) = assembler.push(frame).unwrap() {
                return Some(message);
            }
        }
    }
}

#[tokio::test]
async fn another_protocol_version_is_told_apart() {
    let mut stage = Stage::set().await;
    let client = stage.enrolled("old").await;
    let hello =
        frames(Kind::Hello, hello::encode(PROTOCOL_VERSION + 1, client.identity_certificate())).collect();
    let status = stage.participate(&client, hello).await.err().unwrap();
    assert_eq!(ErrorCode::of(&status), Some(ErrorCode::ProtocolVersion));
    assert!(status.message().contains(&format!("version {}", PROTOCOL_VERSION + 1)), "{status}");
    stage.still_serves().await;
}

#[tokio::test]
async fn an_identity_of_another_client_is_refused() {
    let mut stage = Stage::set().await;
    let [mallory, victim] = [stage.enrolled("mallory").await, stage.enrolled("victim").await];
    let status = stage.participate(&mallory, greeting(&victim)).await.err().unwrap();
    assert_eq!(ErrorCode::of(&status), Some(ErrorCode::NotEnrolled));
    let mut forged = mallory.identity_certificate().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let hello = frames(Kind::Hello, hello::encode(PROTOCOL_VERSION, &forged)).collect();
    let status = stage.participate(&mallory, hello).await.err().unwrap();
    assert_eq!(ErrorCode::of(&status), Some(ErrorCode::NotEnrolled));
    stage.still_serves().await;
}

#[tokio::test]
async fn what_is_not_a_hello_opens_no_session() {
    for opening in [
        frames(Kind::Join, vec![0; 8]).collect(),
        frames(Kind::Hello, vec![0; 3]).collect(),
        frames(Kind::Hello, vec![0; 100_000]).collect(),
        vec![Frame { kind: 99, last: true, data: vec![0; 8].into() }],
        vec![Frame { kind: Kind::Hello.into(), last: false, data: Vec::new().into() }],
    ] {
        let mut stage = Stage::set().await;
        let client = stage.enrolled("garbled").await;
        let status = stage.participate(&client, opening).await.err().unwrap();
        assert_eq!(ErrorCode::of(&status), Some(ErrorCode::InvalidRequest), "{status}");
        stage.still_serves().await;
    }
}

#[tokio::test]
async fn messages_that_have_no_place_end_in_a_rejection_or_in_the_end_of_the_stream() {
    let oversized = vec![Frame { kind: Kind::Input.into(), last: false, data: vec![0; FRAME].into() }];
    for (sent, closes) in [
        (frames(Kind::Input, vec![1; 8]).collect(), false),
        (frames(Kind::Unmask, vec![1; 64]).collect(), false),
        (frames(Kind::Join, vec![0; 7]).collect(), false),
        (frames(Kind::Join, u64::MAX.to_be_bytes().to_vec()).collect(), false),
        (frames(Kind::Signatures, vec![1; 64]).collect::<Vec<_>>(), true),
        (oversized, true),
    ] {
        let mut stage = Stage::set().await;
        let client = stage.enrolled("hostile").await;
        let opening = greeting(&client).into_iter().chain(sent).collect();
        let mut session = stage.participate(&client, opening).await.unwrap();
        let mut answers = Vec::new();
        while let Some((kind, bytes)) = session.next().await {
            answers.push(kind);
            if kind == Kind::Reject {
                assert!(!bytes.is_empty());
                break;
            }
        }
        if closes {
            // The plan may have been on its way when the stream was closed.
            assert!(answers.is_empty() || answers == [Kind::Plan], "{answers:?}");
        } else {
            assert_eq!(answers, [Kind::Plan, Kind::Reject]);
        }
        drop(session);
        stage.still_serves().await;
    }
}

#[tokio::test]
async fn an_input_that_nobody_awaits_is_skipped_and_its_session_goes_on() {
    let mut stage = Stage::set().await;
    let client = stage.enrolled("early").await;
    let input = frames(Kind::Input, vec![1; 8]);
    let joins = frames(Kind::Join, u64::MAX.to_be_bytes().to_vec());
    let opening = greeting(&client).into_iter().chain(input).chain(joins).collect();
    let mut session = stage.participate(&client, opening).await.unwrap();
    assert_eq!(session.next().await.unwrap().0, Kind::Plan);
    for reason in ["too late: the client is not in a round in progress", "the client has verified"] {
        let (kind, bytes) = session.next().await.unwrap();
        assert_eq!(kind, Kind::Reject);
        assert!(String::from_utf8(bytes).unwrap().starts_with(reason));
    }
    drop(session);
    stage.still_serves().await;
}
