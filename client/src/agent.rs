//! The agent: one participant, its connection, its memory and its owner's code for training.
//!
//! ```text
//! connect ─► stream ─► message ─► Participant::handle ─► effects, in order: persist, send, train, adopt
//!    ▲                                                        │
//!    └───────── back-off ◄──── stream lost ◄──────────────────┘ finished / refused for good
//! ```
//!
//! The work of a message (cryptography, training) runs on a blocking thread; a shared [`Semaphore`] bounds how many
//! agents of one process work at once.

use crate::keystore::Enrolled;
use crate::record::{RecordError, RecordFile};
use crate::tls::{ConnectError, connect};
use fedveil_client_core::{Credentials, Effect, Input, MessageLimits, Participant, Policy, Refusal};
use fedveil_proto::limits::{MAX_DECLINE, MAX_GRPC_MESSAGE, PROTOCOL_VERSION};
use fedveil_proto::v1::{Frame, training_client::TrainingClient};
use fedveil_proto::{Assembler, ErrorCode, Kind, frames, hello};
use fedveil_proto_plan::TaskPlan;
use rand_core::SeedableRng;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;

/// Frames that may wait to be sent.
const OUTGOING_FRAMES: usize = 8;
/// Pause before the second attempt to connect; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the owner of the device provides: the data and the training on it.
pub trait Behavior: Send + 'static {
    /// The client's contribution to a round: an update of the given model, which is a safetensors file.
    fn contribute(&mut self, round: u32, model: &[u8], plan: &TaskPlan) -> Result<Contribution, String>;

    /// How much better a new model does on the device's own examples than the model in use: the difference of their
    /// accuracies. Both are safetensors files; the new one is nobody's yet. Those who cannot say decline.
    fn judge(&mut self, _round: u32, _model: &[u8], _new: &[u8], _plan: &TaskPlan) -> Result<f64, String> {
        Err("this device judges no models".to_owned())
    }

    /// Whether the client vanishes from this round in place of sending this message. Devices do; code that asks
    /// for it is a simulation of them.
    fn vanishes(&mut self, _round: u32, _before: Kind) -> bool {
        false
    }
}

/// What enters the sum.
pub enum Contribution {
    /// New parameters minus old, in file order. It is clipped, rotated, rounded and noised.
    Update(Vec<f32>),
    /// Grid values of the rotated update that enter as they are, as a poisoned client would send them. For
    /// demonstrations and tests.
    DangerUnbounded(Vec<i64>),
}

/// How an agent runs.
pub struct AgentOptions {
    /// `https://HOST:PORT` of the coordinator.
    pub url: String,
    /// What the owner allows.
    pub policy: Policy,
    /// Where the client's memory is kept.
    pub record: RecordFile,
    /// Bounds how many agents of this process work at once.
    pub workers: Arc<Semaphore>,
    /// How long to go on trying to reach a coordinator that does not answer.
    pub patience: Duration,
}

/// How a task ended for the client.
#[derive(Debug)]
pub struct Finished {
    /// The coordinator's words.
    pub reason: String,
    /// The last verified model, a safetensors file, and its round.
    pub model: Option<(u32, Vec<u8>)>,
    /// ε that the client charged itself, by its own accounting.
    pub epsilon: f64,
}

/// Why an agent gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The client's own certificates do not serve.
    #[error(transparent)]
    Credential(#[from] crate::keystore::CredentialError),
    /// The coordinator refused the session.
    #[error("the coordinator refused the session ({}): {}", .0.as_str(), .1)]
    Rejected(ErrorCode, String),
    /// The stream broke and could not be had again in time.
    #[error("the connection to the coordinator was lost: {0}")]
    Lost(String),
    /// The client refused what the coordinator sent, for good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The client's memory cannot be kept.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The operating system gives no randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(getrandom::Error),
    /// The owner's training code panicked.
    #[error("training failed: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Takes part in the coordinator's task until it is over.
pub async fn run(
    enrolled: &Enrolled,
    behavior: Box<dyn Behavior>,
    options: AgentOptions,
) -> Result<Finished, AgentError> {
    let credentials = Credentials {
        identity: enrolled.identity_key().clone(),
        certificate: enrolled.identity_certificate().to_vec(),
        authority: *enrolled.authority_key(),
        signer: *enrolled.signing_key(),
    };
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(AgentError::Random)?;
    let AgentOptions { url, policy, record, workers, patience } = options;
    let _lock = record.lock()?;
    let mut worker = Some(Box::new(Worker {
        participant: Participant::new(credentials, policy, record.load()?),
        behavior,
        record,
        rng: chacha20::ChaCha20Rng::from_seed(*seed),
        round: 0,
        model: None,
    }));
    let mut pause = FIRST_PAUSE;
    let mut failing_since = SystemTime::now();
    loop {
        let mut session = Session { worker: &mut worker, workers: &workers };
        let lost = match session.run(&url, enrolled).await {
            Ok(End::Finished(finished)) => return Ok(finished),
            Ok(End::Vanished) => {
                failing_since = SystemTime::now();
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(End::Lost { reason, was_working }) => {
                if was_working {
                    failing_since = SystemTime::now();
                    pause = FIRST_PAUSE;
                }
                AgentError::Lost(reason)
            }
            Err(error @ AgentError::Connect(ConnectError::Unreachable { .. })) => error,
            Err(AgentError::Rejected(ErrorCode::Unavailable, reason)) => AgentError::Lost(reason),
            Err(error) => return Err(error),
        };
        if failing_since.elapsed().unwrap_or_default() > patience {
            return Err(lost);
        }
        tracing::info!(error = %lost, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How one session ended.
enum End {
    Finished(Finished),
    /// The behaviour chose to vanish; the client comes back at once.
    Vanished,
    Lost {
        reason: String,
        was_working: bool,
    },
}

struct Session<'a> {
    worker: &'a mut Option<Box<Worker>>,
    workers: &'a Arc<Semaphore>,
}

impl Session<'_> {
    async fn run(&mut self, url: &str, enrolled: &Enrolled) -> Result<End, AgentError> {
        let channel = connect(url, enrolled.client_config(unix_seconds())?).await?;
        let mut client = TrainingClient::new(channel)
            .max_decoding_message_size(MAX_GRPC_MESSAGE)
            .max_encoding_message_size(MAX_GRPC_MESSAGE);
        let (outgoing, stream) = mpsc::channel::<Frame>(OUTGOING_FRAMES);
        let greeting = hello::encode(PROTOCOL_VERSION, enrolled.identity_certificate());
        send(&outgoing, Kind::Hello, greeting).await;
        let mut incoming = match client.participate(tokio_stream::wrappers::ReceiverStream::new(stream)).await
        {
            Ok(response) => response.into_inner(),
            Err(status) => return refused(&status),
        };
        let limits = Arc::new(OnceLock::<MessageLimits>::new());
        let known = limits.clone();
        let mut assembler = Assembler::new(move |kind| {
            known.get().map_or_else(|| MessageLimits::before_plan(kind), |limits| limits.of(kind))
        });
        let mut was_working = false;
        loop {
            let frame = match incoming.message().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(self.lost("the coordinator ended the stream", was_working)),
                Err(status) => return Ok(self.lost(status.message(), was_working)),
            };
            let message = match assembler.push(frame) {
                Ok(None) => continue,
                Ok(Some(message)) => message,
                Err(error) => return Ok(self.lost(&error.to_string(), was_working)),
            };
            was_working = true;
            let outcome = self.work(message).await??;
            if limits.get().is_none()
                && let Some(accepted) =
                    self.worker.as_ref().and_then(|worker| worker.participant.message_limits())
            {
                // Nobody else sets it.
                let _ = limits.set(accepted);
            }
            for (kind, bytes) in outcome.messages {
                send(&outgoing, kind, bytes).await;
            }
            if outcome.vanished {
                self.disconnected();
                return Ok(End::Vanished);
            }
            if let Some(finished) = outcome.finished {
                return Ok(End::Finished(finished));
            }
        }
    }

    /// Handles a message on a blocking thread.
    async fn work(
        &mut self,
        (kind, bytes): (Kind, Vec<u8>),
    ) -> Result<Result<Outcome, AgentError>, AgentError> {
        let _permit = self.workers.acquire().await;
        let mut worker = self.worker.take().expect("the worker is back whenever no message is being handled");
        let (worker, outcome) = tokio::task::spawn_blocking(move || {
            let outcome = worker.handle(Input::Message(kind, bytes.into()));
            (worker, outcome)
        })
        .await?;
        *self.worker = Some(worker);
        Ok(outcome)
    }

    fn lost(&mut self, reason: &str, was_working: bool) -> End {
        self.disconnected();
        End::Lost { reason: reason.to_owned(), was_working }
    }

    fn disconnected(&mut self) {
        if let Some(worker) = self.worker.as_mut() {
            worker.participant.disconnected();
        }
    }
}

/// The participant and all that its effects touch.
struct Worker {
    participant: Participant,
    behavior: Box<dyn Behavior>,
    record: RecordFile,
    rng: chacha20::ChaCha20Rng,
    round: u32,
    model: Option<(u32, Vec<u8>)>,
}

/// What a message led to.
#[derive(Default)]
struct Outcome {
    messages: Vec<(Kind, Vec<u8>)>,
    vanished: bool,
    finished: Option<Finished>,
}

impl Worker {
    fn handle(&mut self, input: Input) -> Result<Outcome, AgentError> {
        let mut outcome = Outcome::default();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let effects = match self.participant.handle(input, unix_seconds(), &mut self.rng) {
                Ok(effects) => effects,
                Err(refusal) if refusal.is_final() => return Err(refusal.into()),
                Err(refusal) => {
                    tracing::warn!(%refusal, "declined");
                    let mut reason = refusal.to_string().into_bytes();
                    reason.truncate(MAX_DECLINE);
                    outcome.messages.push((Kind::Decline, reason));
                    continue;
                }
            };
            for effect in effects {
                match effect {
                    Effect::Persist(record) => self.record.save(&record)?,
                    Effect::Send(kind, bytes) => {
                        if self.behavior.vanishes(self.round, kind) {
                            outcome.vanished = true;
                            return Ok(outcome);
                        }
                        outcome.messages.push((kind, bytes));
                    }
                    Effect::Entered { round } => self.round = round,
                    Effect::Train { round } => inputs.push(self.train(round)),
                    Effect::Judge { round, model } => inputs.push(self.judge(round, &model)),
                    Effect::Adopted { round, model } => {
                        tracing::info!(
                            round,
                            epsilon = self.participant.epsilon_spent(),
                            "adopted a verified model"
                        );
                        self.model = Some((round, model.into()));
                    }
                    Effect::RoundOver { reason } => tracing::info!(%reason, "round over"),
                    Effect::Finished { reason } => {
                        let epsilon = self.participant.epsilon_spent();
                        outcome.finished = Some(Finished { reason, model: self.model.take(), epsilon });
                    }
                }
            }
        }
        Ok(outcome)
    }

    fn judge(&mut self, round: u32, new: &[u8]) -> Input {
        let judged = match (&self.model, self.participant.plan()) {
            (Some((_, model)), Some(plan)) => self.behavior.judge(round, model, new, plan.plan()),
            _ => Err("there is no model to compare with".to_owned()),
        };
        judged.map_or_else(Input::TrainingFailed, Input::Judged)
    }

    fn train(&mut self, round: u32) -> Input {
        let contribution = match (&self.model, self.participant.plan()) {
            (Some((_, model)), Some(plan)) => self.behavior.contribute(round, model, plan.plan()),
            _ => Err("there is no model to train".to_owned()),
        };
        match contribution {
            Ok(Contribution::Update(update)) => Input::Trained(update),
            Ok(Contribution::DangerUnbounded(values)) => Input::DangerUnbounded(values),
            Err(reason) => Input::TrainingFailed(reason),
        }
    }
}

async fn send(outgoing: &mpsc::Sender<Frame>, kind: Kind, bytes: Vec<u8>) {
    for frame in frames(kind, bytes) {
        if outgoing.send(frame).await.is_err() {
            // The stream is gone; reading it tells why.
            return;
        }
    }
}

/// What a refused call means: another attempt may help, or not.
fn refused(status: &Status) -> Result<End, AgentError> {
    match ErrorCode::of(status) {
        Some(code) => Err(AgentError::Rejected(code, status.message().to_owned())),
        None => Ok(End::Lost { reason: status.to_string(), was_working: false }),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
