//! A whole federation in one thread: the real coordinator core, the real participants, and a network that is a queue.
//!
//! ```text
//!  Driver<MemoryStore> ──effects──► route ──► queue by (arrival, order) ──► Participant
//!        ▲                                        │  ▲                          │ train
//!        └──────────── commands ◄─────────────────┘  └──────── route ◄──────────┘ Scenario::contribute
//! ```
//!
//! A [`Scenario`] says what clients contribute, when they vanish and what the network does to a message; everything
//! else is what runs in production. [`Federation::step`] takes what is next in the queue or, if a deadline comes
//! before it, lets virtual time pass to the deadline.
//!
//! Invariants
//! - One seed, one history: equal setups and equal scenarios give equal events, byte for byte, and equal models. Every
//!   random stream is derived from seed, purpose and client, so one client's draws never shift another's.
//! - No thread, clock, socket, file or randomness of the operating system.
//! - Messages of one session arrive in the order in which they were sent, unless the scenario routes them otherwise;
//!   what is under way when a session ends is lost.
//!
//! Keys, masks and noise come from the seed. Whoever has it can unmask every sum, so no output of this module is
//! private: it is for tests and simulations on data that is nobody's secret.
//!
//! Absent on purpose: frames and their size limits, TLS, enrolment, batches of commands. They belong to the shells.

mod device;
#[cfg(test)]
mod tests;

pub use device::Device;

use ed25519_dalek::SigningKey;
use fedveil_client_core::{Effect as Reaction, Input, Policy};
use fedveil_coordinator_core::{
    Client, Command, Coordinator, Driver, Effect, Event, HoldOut, Job, MemoryPopulation, MemoryStore, Millis,
    NoiseKey, Quarantine, Secrets, Settings, Store,
};
use fedveil_learning::{LearningError, ModelSpec, model_file};
use fedveil_proto::Kind;
use fedveil_proto_plan::{PlanError, SignedPlan, TaskPlan};
use fedveil_provenance::Digest;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a federation consists of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The task.
    pub plan: TaskPlan,
    /// Enrolled clients, numbered from 0.
    pub clients: usize,
    /// What every client's owner allows.
    pub policy: Policy,
    /// Source of all keys, masks, noise and choices, and of the initial model.
    pub seed: u64,
    /// What the coordinator judges models on, where the plan's gate needs examples.
    pub hold_out: Option<Arc<dyn HoldOut>>,
}

/// Everything that is not the protocol: data, faults, attacks, the network.
pub trait Scenario {
    /// The contribution of `client` to `round`, given the global model (a safetensors file). An error makes the client
    /// decline the round.
    fn contribute(
        &mut self,
        client: usize,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
    ) -> Result<Contribution, String>;

    /// Whether the client loses its session in place of sending this message; it connects again at once. `round` is
    /// the last one that the client entered, 0 before the first.
    fn vanishes(&mut self, _client: usize, _round: u32, _before: Kind) -> bool {
        false
    }

    /// What becomes of a message that was sent at `now`: the messages that arrive, and when. None: it is lost. An
    /// arrival in the past is an arrival at `now`.
    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        vec![(now, message)]
    }
}

/// What a client gives to a round.
#[derive(Debug, Clone, PartialEq)]
pub enum Contribution {
    /// New parameters minus old, in file order. It is clipped, rotated, rounded and noised.
    Update(Vec<f32>),
    /// Grid values of the rotated update that enter the sum as they are, unclipped and without noise, as a poisoned
    /// client would send them.
    DangerUnbounded(Vec<i64>),
}

/// A message between a client and the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Number of the client, whichever end it is.
    pub client: usize,
    /// Who receives it.
    pub direction: Direction,
    /// Kind of message.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client to the coordinator.
    Up,
    /// From the coordinator to a client.
    Down,
}

/// Why there can be no such federation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The plan does not hold.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan's architecture is no model.
    #[error("model.architecture: {0}")]
    Architecture(#[from] LearningError),
    /// The plan's vectors have another length than its model.
    #[error("model.parameters is {found}, {architecture} has {expected}")]
    Parameters {
        /// The plan's architecture.
        architecture: String,
        /// The plan's number.
        found: u32,
        /// What the architecture has.
        expected: usize,
    },
}

/// One coordinator, its clients, and the messages between them.
pub struct Federation<S> {
    seed: u64,
    settings: Settings,
    secrets: Secrets,
    scenario: S,
    store: Arc<MemoryStore>,
    driver: Driver<Arc<MemoryStore>>,
    population: Option<MemoryPopulation>,
    cohorts: chacha20::ChaCha20Rng,
    initial_model: Digest,
    devices: Vec<Device>,
    index_of: BTreeMap<Client, usize>,
    now: Millis,
    queue: BTreeMap<(Millis, u64), Pending>,
    /// Numbers queue entries and sessions, so that no two are alike.
    counter: u64,
}

/// What waits in the queue.
enum Pending {
    Message { session: u64, message: Message },
    Job(Box<Job>),
}

impl<S: Scenario> Federation<S> {
    /// Opens the task and connects every client. Nothing is delivered before the first [`step`](Self::step).
    pub fn new(setup: Setup, scenario: S) -> Result<Self, SetupError> {
        let Setup { plan, clients, policy, seed, hold_out } = setup;
        let spec: ModelSpec = plan.model.architecture.parse()?;
        if spec.parameters() != plan.model.parameters as usize {
            return Err(SetupError::Parameters {
                architecture: plan.model.architecture,
                found: plan.model.parameters,
                expected: spec.parameters(),
            });
        }
        let initial_model = model_file::to_safetensors(&spec, &spec.initial(seed))?;
        let authority = signing_key(seed, "enrolment authority", 0);
        let signer = signing_key(seed, "signer", 0);
        let settings = Settings {
            plan: SignedPlan::sign(plan, &signer)?,
            authority: authority.verifying_key(),
            hold_out,
            quarantine: Quarantine::off(),
        };
        let store = Arc::new(MemoryStore::default());
        let devices: Vec<Device> = (0..clients)
            .map(|index| Device::enrol(seed, index, &authority, signer.verifying_key(), policy.clone()))
            .collect();
        let mut federation = Self {
            seed,
            driver: driver(&settings, &store)?,
            population: None,
            settings,
            secrets: Secrets { signing: signer, noise: noise_key(seed) },
            scenario,
            initial_model: Digest::of(&initial_model),
            cohorts: stream(seed, "cohorts", 0),
            index_of: devices.iter().enumerate().map(|(index, device)| (device.id(), index)).collect(),
            devices,
            store,
            now: Millis(0),
            queue: BTreeMap::new(),
            counter: 0,
        };
        federation.driver.put_blob(initial_model).expect(STORE);
        federation.start();
        Ok(federation)
    }

    /// Decides about suspicious clients from here on: the coordinator is started again, with these settings.
    pub fn with_quarantine(mut self, quarantine: Quarantine) -> Result<Self, SetupError> {
        self.settings.quarantine = quarantine;
        driver(&self.settings, &self.store)?;
        self.crash();
        Ok(self)
    }

    /// Binds the task to a population's ledger, from here on. Other federations of the same seed have the same clients.
    pub fn bind(&mut self, population: &MemoryPopulation) {
        self.population = Some(population.clone());
        let loss = self.coordinator().terms().guarantee.task_loss();
        let task = population.of_task(self.settings.plan.digest(), loss);
        self.driver.bind(Arc::new(task)).expect(STORE);
    }

    /// Takes the next message or job, or lets time pass to the next deadline. `false`: nothing is left to happen.
    pub fn step(&mut self) -> bool {
        let arrival = self.queue.first_key_value().map(|(&(at, _), _)| at);
        match (arrival, self.driver.poll_timeout()) {
            (arrival, Some(deadline)) if arrival.is_none_or(|at| deadline < at) => {
                self.now = deadline;
                self.command(Command::Tick);
            }
            (Some(_), _) => {
                let ((at, _), pending) = self.queue.pop_first().expect("its first entry was just seen");
                self.now = self.now.max(at);
                match pending {
                    Pending::Message { session, message } => self.deliver(session, message),
                    Pending::Job(job) => {
                        let computed = job.run(&self.store, &self.secrets);
                        self.command(Command::Computed(computed));
                    }
                }
            }
            (None, _) => return false,
        }
        true
    }

    /// Steps until nothing is left to happen.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// Steps until `condition` holds, and says whether it does.
    pub fn run_until(&mut self, condition: impl Fn(&Self) -> bool) -> bool {
        while !condition(self) {
            if !self.step() {
                return false;
            }
        }
        true
    }

    /// Kills the coordinator and starts it again from its store. Sessions, messages under way and running jobs are
    /// lost; every client that still follows the task connects again.
    pub fn crash(&mut self) {
        self.queue.clear();
        self.driver = driver(&self.settings, &self.store).expect("the plan was accepted before");
        if let Some(population) = self.population.take() {
            self.bind(&population);
        }
        self.devices.iter_mut().for_each(Device::lose_session);
        self.start();
    }

    /// Ends a client's session, as when its network fails.
    pub fn disconnect(&mut self, client: usize) {
        self.devices[client].lose_session();
        let client = self.devices[client].id();
        self.command(Command::Disconnect { client });
    }

    /// Opens a session, unless the client has one or is through with the task.
    pub fn connect(&mut self, client: usize) {
        if self.devices[client].is_finished() || self.devices[client].session.is_some() {
            return;
        }
        self.devices[client].session = Some(self.next_number());
        let client = self.devices[client].id();
        self.command(Command::Connect { client });
    }

    /// Puts a message on the wire, past the scenario's routing, as if the other end had sent it at this moment. Without
    /// a session there is no wire, and it is lost.
    pub fn inject(&mut self, message: Message) {
        self.enqueue(self.now, message);
    }

    /// Gives the coordinator a command and does what follows from it.
    pub fn command(&mut self, command: Command) {
        let mut seed = [0; 32];
        self.cohorts.fill_bytes(&mut seed);
        let outcomes = self.driver.handle(vec![command], self.now, seed).expect(STORE);
        for (client, reject) in outcomes.rejects {
            self.send_to(client, Kind::Reject, reject.reason.into_bytes().into());
        }
        for effect in outcomes.effects {
            match effect {
                Effect::Send { client, kind, bytes } => self.send_to(client, kind, bytes),
                Effect::SendBlob { client, kind, digest } => {
                    let bytes = self.store.blob(&digest).expect(STORE);
                    self.send_to(client, kind, bytes);
                }
                Effect::Compute(job) => {
                    let order = self.next_number();
                    self.queue.insert((self.now, order), Pending::Job(job));
                }
                // A stream ends after what was sent on it; the client leaves when it has read that the task is closed.
                Effect::Close { .. } => {}
            }
        }
    }

    /// The coordinator's core.
    pub fn coordinator(&self) -> &Coordinator {
        self.driver.core()
    }

    /// The coordinator's store.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.store.events().expect(STORE)
    }

    /// The clients, by number.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Number of the client of that identity.
    pub fn index_of(&self, client: &Client) -> Option<usize> {
        self.index_of.get(client).copied()
    }

    /// The scenario.
    pub fn scenario(&mut self) -> &mut S {
        &mut self.scenario
    }

    /// The virtual time; it starts at 0.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The seed that gives the same history again.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn start(&mut self) {
        self.command(Command::Recover);
        self.command(Command::Open { model: self.initial_model });
        (0..self.devices.len()).for_each(|client| self.connect(client));
    }

    fn deliver(&mut self, session: u64, message: Message) {
        let Message { client, direction, kind, bytes } = message;
        if self.devices[client].session != Some(session) {
            return;
        }
        match direction {
            Direction::Up => {
                let client = self.devices[client].id();
                self.command(match kind {
                    Kind::Input | Kind::PlainInput => self.driver.core().whole_input(client, kind, &bytes),
                    _ => Command::Message { client, kind, bytes: bytes.to_vec() },
                });
            }
            Direction::Down => self.react(client, Input::Message(kind, bytes.to_vec())),
        }
    }

    /// What the agent does around the participant: the effects in order, a refusal as a message or as the end.
    fn react(&mut self, client: usize, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let reactions = match self.devices[client].handle(input, self.now) {
                Ok(reactions) => reactions,
                Err(refusal) => {
                    let decline = refusal.to_string().into_bytes();
                    if self.devices[client].refuse(refusal) {
                        self.disconnect(client);
                        return;
                    }
                    self.send_up(client, Kind::Decline, decline.into());
                    continue;
                }
            };
            for reaction in reactions {
                match reaction {
                    Reaction::Send(kind, bytes) => {
                        if self.scenario.vanishes(client, self.devices[client].round(), kind) {
                            self.disconnect(client);
                            self.connect(client);
                            return;
                        }
                        self.send_up(client, kind, bytes.into());
                    }
                    Reaction::Train { round } => {
                        let contribution = self.devices[client]
                            .task()
                            .ok_or_else(|| "no model to train".to_owned())
                            .and_then(|(model, plan)| self.scenario.contribute(client, round, model, plan));
                        inputs.push(match contribution {
                            Ok(Contribution::Update(update)) => Input::Trained(update),
                            Ok(Contribution::DangerUnbounded(values)) => Input::DangerUnbounded(values),
                            Err(reason) => Input::TrainingFailed(reason),
                        });
                    }
                    Reaction::Finished { reason } => {
                        self.devices[client].finish(reason);
                        self.disconnect(client);
                        return;
                    }
                    reaction => self.devices[client].note(reaction),
                }
            }
        }
    }

    fn send_to(&mut self, client: Client, kind: Kind, bytes: Arc<[u8]>) {
        let Some(client) = self.index_of(&client) else { return };
        self.send(Message { client, direction: Direction::Down, kind, bytes });
    }

    fn send_up(&mut self, client: usize, kind: Kind, bytes: Arc<[u8]>) {
        self.send(Message { client, direction: Direction::Up, kind, bytes });
    }

    fn send(&mut self, message: Message) {
        for (arrival, message) in self.scenario.route(self.now, message) {
            self.enqueue(arrival, message);
        }
    }

    fn enqueue(&mut self, arrival: Millis, message: Message) {
        let Some(session) = self.devices.get(message.client).and_then(|device| device.session) else {
            return;
        };
        let key = (arrival.max(self.now), self.next_number());
        self.queue.insert(key, Pending::Message { session, message });
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

const STORE: &str = "a store in memory keeps what it is given, and the core names nothing else";

fn driver(settings: &Settings, store: &Arc<MemoryStore>) -> Result<Driver<Arc<MemoryStore>>, PlanError> {
    Ok(Driver::new(Coordinator::new(settings.clone())?, store.clone()).expect(STORE))
}

/// The random stream for one purpose of one client (0 for the coordinator's own).
fn stream(seed: u64, purpose: &str, client: usize) -> chacha20::ChaCha20Rng {
    let name = format!("fedveil/federation/v1\n{seed}\n{purpose}\n{client}");
    chacha20::ChaCha20Rng::from_seed(Digest::of(name).0)
}

fn signing_key(seed: u64, purpose: &str, client: usize) -> SigningKey {
    let mut bytes = [0; 32];
    stream(seed, purpose, client).fill_bytes(&mut bytes);
    SigningKey::from_bytes(&bytes)
}

fn noise_key(seed: u64) -> NoiseKey {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    stream(seed, "noise key", 0).fill_bytes(bytes.as_mut());
    NoiseKey::new(bytes)
}
