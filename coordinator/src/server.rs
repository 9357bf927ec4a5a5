//! The running coordinator: one thread that owns the core, one gRPC server, one pool for jobs.
//!
//! ```text
//! gRPC streams ──Inbound──► core thread: Driver::handle (batch = one transaction) ──► client queues
//!                                 ▲                 │
//!                                 └── Computed ◄── job thread(s)
//! ```

use crate::authority::{AuthorityError, CertificateAuthority, EnrollmentAuthority, Validity};
use crate::enrollment::{EnrollmentService, TokenError, TokenStore, new_join_token};
use crate::keys::{KeyDirectory, KeyError};
use crate::population::{POPULATION_FILE, PopulationLedger};
use crate::service::{Traffic, TrainingService, UPLOADS};
use crate::store::{Order, SqliteStore};
use crate::tls::{TlsError, incoming, server_config};
use ed25519_dalek::{SigningKey, VerifyingKey};
use fedveil_coordinator_core::{
    Client, Command, Coordinator, Driver, Effect, Event, HoldOut, Millis, NoiseKey, Outcomes, Quarantine,
    Reject, Secrets, Settings, Store, StoreError,
};
use fedveil_privacy::Limit;
use fedveil_proto::limits::MAX_GRPC_MESSAGE;
use fedveil_proto::v1::training_server::TrainingServer;
use fedveil_proto::{JoinToken, Kind};
use fedveil_proto_plan::{PlanError, SignedPlan, TaskPlan};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

/// A message on its way to a client.
pub(crate) type Outgoing = (Kind, Arc<[u8]>);

/// What reaches the core thread.
pub(crate) enum Inbound {
    Connect {
        client: Client,
        session: u64,
        sender: mpsc::Sender<Outgoing>,
    },
    Disconnect {
        client: Client,
        session: u64,
    },
    Command(Command),
    /// Asks whether the core awaits an input of this kind, and for what decodes it.
    BeginInput {
        client: Client,
        kind: Kind,
        reply: oneshot::Sender<Result<fedveil_coordinator_core::Upload, Reject>>,
    },
    Input(Upload),
}

/// An input, decoded, with the permit for the memory that it takes.
pub(crate) struct Upload {
    pub(crate) command: Command,
    pub(crate) slot: Option<OwnedSemaphorePermit>,
}

/// Most commands that share one transaction.
const BATCH: usize = 256;

/// The coordinator's keys. They stay with this value and in the key folder, never in the run folder.
pub struct Keys {
    /// Signs plans, manifests, checkpoints and the run's index.
    pub signing: SigningKey,
    /// The coordinator's own noise is drawn from it, in plans whose placement is `central`.
    pub noise: NoiseKey,
    /// Signs client identities.
    pub enrollment: EnrollmentAuthority,
    /// Signs TLS certificates.
    pub ca: CertificateAuthority,
    /// The ledger of everyone whom the enrolment authority certifies; without a file it ends with the process.
    pub population: Option<std::path::PathBuf>,
}

impl Keys {
    /// Keys that live as long as the process.
    pub fn ephemeral() -> Result<Self, ServerError> {
        let secret = || {
            let mut seed = zeroize::Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut()).map_err(|error| ServerError::Random(error.to_string()))?;
            Ok::<_, ServerError>(seed)
        };
        Ok(Self {
            signing: SigningKey::from_bytes(&*secret()?),
            noise: NoiseKey::new(secret()?),
            enrollment: EnrollmentAuthority::create()?,
            ca: CertificateAuthority::create(SystemTime::now())?,
            population: None,
        })
    }

    /// Keys from a folder, created where they are missing. The folder must not be inside `published`.
    pub fn open(folder: &std::path::Path, published: &std::path::Path) -> Result<Self, ServerError> {
        let keys = KeyDirectory::open(folder, published)?;
        Ok(Self {
            signing: keys.signing_key("models")?,
            noise: NoiseKey::new(keys.secret("noise")?),
            enrollment: EnrollmentAuthority::open(&keys)?,
            ca: CertificateAuthority::open(&keys, SystemTime::now())?,
            population: Some(keys.private_file(POPULATION_FILE)?),
        })
    }
}

/// What a coordinator is started with.
pub struct ServerConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names and addresses that clients use, for the server's certificate.
    pub names: Vec<String>,
    /// Run folder; it exists and is writable.
    pub out: std::path::PathBuf,
    /// The task. A run folder that already holds one goes on with that one.
    pub plan: TaskPlan,
    /// The initial model file.
    pub initial_model: Vec<u8>,
    /// Join tokens to issue.
    pub tokens: u32,
    /// What a client may spend over all tasks of these keys.
    pub population: Limit,
    /// What a plan's gate judges models on, where it needs examples.
    pub hold_out: Option<Arc<dyn HoldOut>>,
    /// What is done about clients that the rounds make suspicious.
    pub quarantine: Quarantine,
}

/// Why a coordinator did not start or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be had.
    #[error("listen address {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The plan does not hold.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The run folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system gives no randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(String),
    /// The run folder holds a task that has ended, for this reason.
    #[error(
        "the task in this run folder is over ({0}); accepted is a new folder, or one whose task was cut off"
    )]
    Over(String),
    /// A part of the server ended without being told to.
    #[error("{0}")]
    Ended(String),
}

/// An event and what the core knew right after it.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The event; it is durable.
    pub event: Event,
    /// When it was handled.
    pub at: Millis,
    /// ε spent so far by the client that took part most often.
    pub epsilon: f64,
    /// Message bytes from clients so far.
    pub bytes_up: u64,
    /// Message bytes to clients so far.
    pub bytes_down: u64,
}

/// A coordinator that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Unused join tokens.
    pub tokens: Vec<JoinToken>,
    /// The signed plan in force.
    pub plan: SignedPlan,
    /// Everything that happens, in order. It ends when the task is over.
    pub events: mpsc::UnboundedReceiver<Observed>,
    inbound: mpsc::Sender<Inbound>,
    shutdown: Option<oneshot::Sender<()>>,
    core: JoinHandle<Result<Arc<SqliteStore>, ServerError>>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Longest time that a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Lifetime of a client's certificates.
const ENROLLMENT_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// How often the operator's orders are looked for.
const ORDERS: Duration = Duration::from_secs(2);
/// Time that clients have to take the last messages when the task is over.
const GOODBYE: Duration = Duration::from_secs(5);

/// Starts a coordinator: its core on a thread of its own, its gRPC server on the current runtime.
pub async fn start(config: ServerConfig, keys: Keys) -> Result<Running, ServerError> {
    let store = Arc::new(SqliteStore::open(&config.out)?);
    let authority = VerifyingKey::from_bytes(&keys.enrollment.public_key())
        .map_err(|error| ServerError::Ended(format!("enrolment key: {error}")))?;
    let plan = task_plan(&*store, config.plan, &keys.signing)?;
    let (hold_out, quarantine) = (config.hold_out, config.quarantine);
    let core = Coordinator::new(Settings { plan: plan.clone(), authority, hold_out, quarantine })?;
    let limits = core.message_limits();
    let (digest, name, loss) = (plan.digest(), &plan.plan().task, core.terms().guarantee.task_loss());
    let population = match &keys.population {
        Some(path) => PopulationLedger::open(path, config.population, digest, name, &loss)?,
        None => PopulationLedger::in_memory(config.population, digest, name, &loss)?,
    };
    let mut driver = Driver::new(core, store.clone())?;
    driver.bind(Arc::new(population))?;

    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .map_err(|source| ServerError::Listen { address: config.listen, source })?;
    let address =
        listener.local_addr().map_err(|source| ServerError::Listen { address: config.listen, source })?;

    let names: Vec<&str> = config.names.iter().map(String::as_str).collect();
    let identity =
        keys.ca.server_identity(&names, Validity::from_now(SystemTime::now(), ENROLLMENT_LIFETIME)?)?;
    let tls = server_config(&keys.ca, identity)?;
    let enrollment = EnrollmentService::new(
        Arc::new(keys.ca),
        keys.enrollment,
        keys.signing.verifying_key().to_bytes(),
        store.clone(),
        ENROLLMENT_LIFETIME,
    )?;
    let tokens = (0..config.tokens)
        .map(|_| new_join_token(enrollment.pins()).map_err(|error| ServerError::Random(error.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    store.add_tokens(&tokens.iter().map(JoinToken::secret_digest).collect::<Vec<_>>())?;

    let (inbound, commands) = mpsc::channel(4 * BATCH);
    let (observed, events) = mpsc::unbounded_channel();
    let traffic = Arc::new(Traffic::default());
    let training = TrainingService {
        authority,
        inbound: inbound.clone(),
        limits: Arc::new(limits),
        traffic: traffic.clone(),
        sessions: std::sync::atomic::AtomicU64::new(0),
        uploads: Arc::new(Semaphore::new(UPLOADS)),
    };
    let (shutdown, stopped) = oneshot::channel::<()>();
    let server = tonic::transport::Server::builder()
        .add_service(enrollment.into_server())
        .add_service(
            TrainingServer::new(training)
                .max_decoding_message_size(MAX_GRPC_MESSAGE)
                .max_encoding_message_size(MAX_GRPC_MESSAGE),
        )
        .serve_with_incoming_shutdown(incoming(listener, tls, HANDSHAKE), async {
            // An error means that the sender is gone: the coordinator was dropped.
            let _ = stopped.await;
        });
    let server = tokio::spawn(server);

    let core = CoreThread {
        driver,
        store,
        secrets: Arc::new(Secrets { signing: keys.signing, noise: keys.noise }),
        initial_model: config.initial_model,
        sessions: BTreeMap::new(),
        inbound: inbound.clone(),
        observed,
        traffic,
        runtime: tokio::runtime::Handle::current(),
    };
    let core = tokio::task::spawn_blocking(move || core.run(commands));
    Ok(Running { address, tokens, plan, events, inbound, shutdown: Some(shutdown), core, server })
}

impl Running {
    /// A handle that ends the task from elsewhere, on Ctrl-C for instance.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.inbound.clone())
    }

    /// Waits until the task is over and the clients have been told, and gives the store, sealed.
    pub async fn finish(mut self) -> Result<Arc<SqliteStore>, ServerError> {
        let store =
            self.core.await.map_err(|error| ServerError::Ended(format!("core thread: {error}")))??;
        if let Some(shutdown) = self.shutdown.take() {
            // The server may have ended first.
            let _ = shutdown.send(());
        }
        match tokio::time::timeout(GOODBYE, &mut self.server).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => return Err(ServerError::Ended(format!("gRPC server: {error}"))),
            Ok(Err(error)) => return Err(ServerError::Ended(format!("gRPC server: {error}"))),
            Err(_) => self.server.abort(),
        }
        store.seal()?;
        Ok(store)
    }
}

/// Ends a task from outside.
#[derive(Clone)]
pub struct Stopper(mpsc::Sender<Inbound>);

impl Stopper {
    /// Asks the coordinator to end the task for this reason. The round in progress is aborted.
    pub async fn stop(&self, reason: &str) {
        // If the coordinator is gone already, it has stopped.
        let _ = self.0.send(Inbound::Command(Command::Stop { reason: reason.to_owned() })).await;
    }
}

/// The time, as the core wants it.
pub fn now() -> Millis {
    Millis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

/// The plan in force: the one that the store's task was opened with, or a new one.
fn task_plan(store: &dyn Store, plan: TaskPlan, key: &SigningKey) -> Result<SignedPlan, ServerError> {
    match store.events()?.first() {
        Some(Event::TaskOpened { plan, .. }) => Ok(SignedPlan::verify(&plan.0, &key.verifying_key())?),
        Some(_) => Err(StoreError("the first event does not open a task".into()).into()),
        None => Ok(SignedPlan::sign(plan, key)?),
    }
}

/// The thread that owns the core.
struct CoreThread {
    driver: Driver<Arc<SqliteStore>>,
    store: Arc<SqliteStore>,
    secrets: Arc<Secrets>,
    initial_model: Vec<u8>,
    /// Connected clients; the number tells a session from an older one of the same client.
    sessions: BTreeMap<Client, (u64, mpsc::Sender<Outgoing>)>,
    inbound: mpsc::Sender<Inbound>,
    observed: mpsc::UnboundedSender<Observed>,
    traffic: Arc<Traffic>,
    runtime: tokio::runtime::Handle,
}

impl CoreThread {
    fn run(mut self, mut inbound: mpsc::Receiver<Inbound>) -> Result<Arc<SqliteStore>, ServerError> {
        let model = self.driver.put_blob(std::mem::take(&mut self.initial_model))?;
        self.handle(vec![Command::Recover, Command::Open { model }])?;
        let mut looked = None;
        while self.driver.core().closed().is_none() {
            if looked.is_none_or(|at: Instant| at.elapsed() >= ORDERS) {
                looked = Some(Instant::now());
                self.obey()?;
            }
            let wait = self
                .driver
                .poll_timeout()
                .map_or(ORDERS, |at| Duration::from_millis(at.0.saturating_sub(now().0)).min(ORDERS));
            let runtime = self.runtime.clone();
            let first = runtime.block_on(async { tokio::time::timeout(wait, inbound.recv()).await });
            let mut commands = Vec::new();
            // Held until the inputs of the batch are in their sums.
            let mut slots = Vec::new();
            match first {
                Ok(Some(input)) => self.admit(input, &mut commands, &mut slots),
                Ok(None) => return Err(ServerError::Ended("all handles of the coordinator are gone".into())),
                Err(_) => commands.push(Command::Tick),
            }
            while commands.len() < BATCH
                && let Ok(input) = inbound.try_recv()
            {
                self.admit(input, &mut commands, &mut slots);
            }
            self.handle(commands)?;
        }
        Ok(self.store)
    }

    /// Does what the operator ordered. Orders are forgotten once their events are durable; one that is repeated after a
    /// crash changes nothing.
    fn obey(&mut self) -> Result<(), ServerError> {
        let orders = self.store.orders()?;
        let Some(last) = orders.last().map(|(number, _)| *number) else { return Ok(()) };
        let command = |(_, order): (i64, Order)| match order {
            Order { client, release: true, reason } => Command::Release { client, reason },
            Order { client, release: false, reason } => Command::Quarantine { client, reason },
        };
        self.handle(orders.into_iter().map(command).collect())?;
        Ok(self.store.forget_orders(last)?)
    }

    /// Turns what arrived into commands and keeps the table of sessions.
    fn admit(&mut self, input: Inbound, commands: &mut Vec<Command>, slots: &mut Vec<OwnedSemaphorePermit>) {
        match input {
            Inbound::Connect { client, session, sender } => {
                if self.sessions.insert(client, (session, sender)).is_some() {
                    commands.push(Command::Disconnect { client });
                }
                commands.push(Command::Connect { client });
            }
            Inbound::Disconnect { client, session } => {
                if self.sessions.get(&client).is_some_and(|(current, _)| *current == session) {
                    self.sessions.remove(&client);
                    commands.push(Command::Disconnect { client });
                }
            }
            Inbound::Command(command) => commands.push(command),
            Inbound::BeginInput { client, kind, reply } => {
                // Without a receiver the stream has ended meanwhile.
                let _ = reply.send(self.driver.core().begin_input(&client, kind));
            }
            Inbound::Input(Upload { command, slot }) => {
                commands.push(command);
                slots.extend(slot);
            }
        }
    }

    fn handle(&mut self, commands: Vec<Command>) -> Result<(), ServerError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| ServerError::Random(error.to_string()))?;
        let at = now();
        let Outcomes { events, effects, rejects } = self.driver.handle(commands, at, seed)?;
        let epsilon = self.driver.core().epsilon_spent();
        for event in events {
            let bytes_up = self.traffic.up.load(std::sync::atomic::Ordering::Relaxed);
            let bytes_down = self.traffic.down.load(std::sync::atomic::Ordering::Relaxed);
            // Nobody has to watch.
            let _ = self.observed.send(Observed { event, at, epsilon, bytes_up, bytes_down });
        }
        for effect in effects {
            match effect {
                Effect::Send { client, kind, bytes } => self.send(client, kind, bytes),
                Effect::SendBlob { client, kind, digest } => {
                    let bytes = self.store.blob(&digest)?;
                    self.send(client, kind, bytes);
                }
                Effect::Compute(job) => {
                    let (store, secrets, inbound) =
                        (self.store.clone(), self.secrets.clone(), self.inbound.clone());
                    self.runtime.spawn_blocking(move || {
                        let computed = job.run(&*store, &secrets);
                        // If the core is gone, so is the round.
                        let _ = inbound.blocking_send(Inbound::Command(Command::Computed(computed)));
                    });
                }
                Effect::Close { client } => {
                    self.sessions.remove(&client);
                }
            }
        }
        // After the effects: a client hears of its plan before it hears what was wrong with its next message.
        for (client, reject) in rejects {
            tracing::info!(%client, %reject, "rejected");
            self.send(client, Kind::Reject, reject.reason.into_bytes().into());
        }
        Ok(())
    }

    /// Queues a message. A client that does not take its messages is taken for gone.
    fn send(&mut self, client: Client, kind: Kind, bytes: Arc<[u8]>) {
        let Some((session, sender)) = self.sessions.get(&client) else { return };
        if sender.try_send((kind, bytes)).is_err() {
            let (session, inbound) = (*session, self.inbound.clone());
            self.runtime.spawn(async move {
                // If the core is gone, there is nothing to tell.
                let _ = inbound.send(Inbound::Disconnect { client, session }).await;
            });
        }
    }
}

impl TokenStore for SqliteStore {
    fn redeem(&self, secret_sha256: [u8; 32], client_id: [u8; 32]) -> Result<(), TokenError> {
        match self.redeem_token(secret_sha256, client_id) {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(TokenError::AlreadyUsed),
            Ok(None) => Err(TokenError::Unknown),
            Err(error) => Err(TokenError::Store(Box::new(error))),
        }
    }
}
