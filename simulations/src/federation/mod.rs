//! A whole federation in virtual time: the real coordinator core, the real participants, and a network that is a queue.
//!
//! ```text
//!  Driver<Archive> ──effects──► route ──► queue by (time, order) ──► Participant, on a pool of threads
//!        ▲                                     │  ▲                     │ train: Scenario::contribute, on the pool
//!        └─────────── commands ◄───────────────┘  └────── route ◄───────┘
//! ```
//!
//! How to build a simulation: a [`Setup`] says what the federation is (plan, clients, seed, who connects when, threads,
//! what is kept), a [`Scenario`] says everything that is not the protocol (data and training, attacks, faults, the
//! network). [`Federation::new`] binds the two; [`run_round`](Federation::run_round) goes on to the end of the next round
//! and tells of it, [`model`](Federation::model) is the newest model file.
//!
//! ```ignore
//! let mut federation = Federation::new(Setup::new(plan, 1_000, policy, seed), scenario)?;
//! while let Some(round) = federation.run_round() {
//!     println!("round {}: {} inputs, {} bytes up", round.round, round.inputs, round.bytes_up);
//! }
//! ```
//!
//! [`Federation::step`] takes what is next in the queue or, if a deadline comes before it, lets virtual time pass to the
//! deadline. All that is due at one instant for distinct clients is one step, and is computed in parallel; what follows
//! from it is merged in the order of the queue. A training's end is known before it is computed, so that trainings are
//! computed together whatever their ends.
//!
//! Devices are made from the seed and their number when they connect. With [`Attendance::CheckIn`] they are dropped when
//! their round is over, and two numbers are kept of each that ever took part: memory does not grow with the population,
//! nor with the rounds. With [`Attendance::Buffered`] clients train between rounds, from the model that there was when they
//! started, and those that have finished check in: a client that trains is an entry in a list, and no device.
//!
//! Invariants
//! - One seed, one history: equal setups and equal scenarios give equal events, byte for byte, and equal models, on any
//!   number of threads. Every random stream is named by seed, purpose, client and round ([`stream`]), so that no draw
//!   shifts another.
//! - No clock, socket or randomness of the operating system.
//! - Messages of one session arrive in the order in which they were sent, unless the scenario routes them otherwise;
//!   what is under way when a session ends is lost.
//!
//! Keys, masks and noise come from the seed. Whoever has it can unmask every sum, so no output of this module is
//! private: it is for tests and simulations on data that is nobody's secret.
//!
//! Absent on purpose: frames and their size limits, TLS, enrolment. They belong to the shells.

mod archive;
mod attendance;
mod conditions;
mod device;
mod draws;
mod journal;
mod pool;
mod progress;
mod queue;
mod regions;
mod setup;
#[cfg(test)]
mod tests;
mod work;

pub use archive::{Archive, Keep};
pub use conditions::{
    Availability, Compute, ConditionError, Conditions, Diurnal, Faults, Network, Spread, Trace, TraceError,
    World,
};
pub use device::Device;
pub use draws::{fraction, stream};
pub use journal::Events;
pub use progress::{RoundOutcome, RoundSummary};
pub use regions::{Hierarchy, HierarchyError, Regions, Weights};
pub use setup::{
    Attendance, Contribution, Direction, Message, Part, Scenario, Setup, SetupError, Trained, Work,
};

use attendance::Flight;
use bytes::Bytes;
use device::Kept;
use ed25519_dalek::{SigningKey, VerifyingKey};
use fedveil_aggregation::optimizer::ServerStep;
use fedveil_client_core::{Effect as Reaction, Input, Memo, Policy, Refusal, TaskRecord};
use fedveil_coordinator_core::{
    Client, Command, Coordinator, Driver, Effect, Event, MemoryPopulation, Millis, Quarantine, Secrets,
    Settings, Store, StoreError,
};
use fedveil_proto::Kind;
use fedveil_proto_plan::{Mode, PlanError, SignedPlan};
use fedveil_provenance::Digest;
use progress::Progress;
use queue::{Next, Pending, Queue};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Values of all inputs that are worked on at one time. It bounds memory, and belongs to the history: it may not depend
/// on the number of threads.
const VALUES_AT_ONCE: usize = 1 << 22;

/// One coordinator, its clients, and the messages between them.
pub struct Federation<S> {
    seed: u64,
    threads: usize,
    population_size: usize,
    attendance: Attendance,
    settings: Settings,
    server_step: Option<Arc<dyn ServerStep>>,
    influence: bool,
    secrets: Secrets,
    scenario: S,
    store: Arc<Archive>,
    driver: Driver<Arc<Archive>>,
    population: Option<MemoryPopulation>,
    initial_model: Digest,
    enrolment: Enrolment,
    devices: BTreeMap<usize, Box<Device>>,
    index_of: BTreeMap<Client, usize>,
    /// What is left of devices that are gone.
    kept: BTreeMap<u32, Kept>,
    memories: BTreeMap<u32, Bytes>,
    /// With [`Attendance::Buffered`], who trains or has finished, and has not checked in.
    flights: BTreeSet<Flight>,
    /// Of those who are gone, who has left since the last checkpoint, and whether with a memory.
    unsaved: BTreeMap<u32, bool>,
    /// Rounds between two checkpoints, in a run that is kept in a folder.
    every: Option<u32>,
    now: Millis,
    /// The newest crash of the coordinator.
    crashed: Millis,
    queue: Queue,
    /// Inputs that are worked on at one time.
    at_once: usize,
    progress: Progress,
    /// The newest round that is over, until it is told of.
    summary: Option<RoundSummary>,
    /// Check-ins for the round to come.
    check_ins: u32,
    /// The seed of the cohort to come, and its round.
    cohort: (u32, [u8; 32]),
    failure: Option<StoreError>,
}

/// What every device is made with.
struct Enrolment {
    seed: u64,
    authority: SigningKey,
    signer: VerifyingKey,
    policy: Policy,
    /// Digest of the signed plan.
    task: Digest,
    /// The task in the record of a device that comes back.
    template: TaskRecord,
    /// Whether the session asks for certificates.
    certified: bool,
    /// Whether devices have keys of their own: with groups, with masks or without, the same ones.
    keyed: bool,
    /// The key of devices that have none.
    nobody: SigningKey,
    /// What devices verify together: a thousand of them are sent the same bytes.
    memo: Arc<Memo>,
}

impl<S: Scenario> Federation<S> {
    /// Opens the task; clients connect at once, or with [`Attendance::CheckIn`] when the initial model is signed. Nothing
    /// is delivered before the first [`step`](Self::step).
    pub fn new(setup: Setup, scenario: S) -> Result<Self, SetupError> {
        Self::open(setup, scenario, false)
    }

    /// Goes on with a run that is kept in a [folder](Keep::Folder), from the last round that was over at a checkpoint; the
    /// outcome is the one that it would have had. That round is told of again, in case nobody noted it. In a folder without
    /// a checkpoint it begins. [`Coordinator::last_round`] tells where it stands.
    pub fn resume(setup: Setup, scenario: S) -> Result<Self, SetupError> {
        Self::open(setup, scenario, true)
    }

    fn open(setup: Setup, scenario: S, resume: bool) -> Result<Self, SetupError> {
        setup.check()?;
        if setup.keep == Keep::Nothing && scenario.next_crash(Millis(0)).is_some() {
            return Err(SetupError::NoEvents);
        }
        let initial_model = setup.initial_model()?;
        let Setup { plan, clients, policy, seed, threads, attendance, keep, hold_out, quarantine, .. } =
            setup;
        let (server_step, influence) = (setup.server_step, setup.influence);
        let authority = draws::signing_key(seed, "enrolment authority", 0);
        let signer = draws::signing_key(seed, "signer", 0);
        let settings = Settings {
            plan: SignedPlan::sign(plan, &signer)?,
            authority: authority.verifying_key(),
            hold_out,
            quarantine,
        };
        let plan = settings.plan.digest();
        let made_of = (plan, Digest::of(&initial_model), clients, seed, &policy, format!("{attendance:?}"));
        let made_of = serde_json::to_vec(&made_of).map_err(|error| StoreError(error.to_string()))?;
        let (store, restored) = Archive::open(&keep, Digest::of(made_of), resume)?;
        let store = Arc::new(store);
        let driver = Driver::new(core(&settings, server_step.as_ref(), influence)?, store.clone())?;
        let terms = driver.core().terms();
        let template = TaskRecord {
            name: settings.plan.plan().task.clone(),
            delta: settings.plan.plan().privacy.delta,
            loss: terms.guarantee.task_loss(),
            last_round: 0,
            participations: 0,
            last_update: 0,
            last_judged: 0,
            contributions: Vec::new(),
            head: None,
            model: None,
        };
        let enrolment = Enrolment {
            seed,
            authority,
            signer: signer.verifying_key(),
            policy,
            task: settings.plan.digest(),
            template,
            certified: terms.mode == Mode::Secagg,
            keyed: terms.mode.has_groups(),
            nobody: draws::signing_key(seed, "nobody", 0),
            memo: Arc::default(),
        };
        let at_once = (VALUES_AT_ONCE / terms.guarantee.input_length()).clamp(16, 1024);
        let mut federation = Self {
            seed,
            threads: threads.get(),
            population_size: clients,
            attendance,
            driver,
            population: None,
            settings,
            server_step,
            influence,
            secrets: Secrets { signing: signer, noise: draws::noise_key(seed) },
            scenario,
            initial_model: Digest::of(&initial_model),
            enrolment,
            devices: BTreeMap::new(),
            index_of: BTreeMap::new(),
            kept: BTreeMap::new(),
            memories: BTreeMap::new(),
            flights: BTreeSet::new(),
            unsaved: BTreeMap::new(),
            every: match keep {
                Keep::Folder { every, .. } => Some(every.max(1)),
                _ => None,
            },
            store,
            now: Millis(0),
            crashed: Millis(0),
            queue: Queue::default(),
            at_once,
            progress: Progress::default(),
            summary: None,
            check_ins: 0,
            cohort: (0, [0; 32]),
            failure: None,
        };
        match restored {
            None => drop(federation.driver.put_blob(initial_model)?),
            Some(restored) => {
                (federation.now, federation.crashed) = (restored.now, restored.now);
                federation.kept = restored.kept;
                federation.flights = restored.flights.into_iter().collect();
                federation.summary = restored.summary;
                let memories = restored.memories.into_iter();
                federation.memories = memories.map(|(client, memory)| (client, memory.into())).collect();
            }
        }
        federation.start();
        Ok(federation)
    }

    /// Decides about suspicious clients from here on: the coordinator is started again, with these settings.
    pub fn with_quarantine(mut self, quarantine: Quarantine) -> Result<Self, SetupError> {
        self.settings.quarantine = quarantine;
        Coordinator::new(self.settings.clone())?;
        self.crash();
        Ok(self)
    }

    /// Binds the task to a population's ledger, from here on. Other federations of the same seed have the same clients, where
    /// both take sums of groups or neither does.
    pub fn bind(&mut self, population: &MemoryPopulation) {
        self.population = Some(population.clone());
        let loss = self.coordinator().terms().guarantee.task_loss();
        let task = population.of_task(self.settings.plan.digest(), loss);
        let bound = self.driver.bind(Arc::new(task));
        self.failed(bound);
    }

    /// Takes what happens next, or lets time pass to the next deadline. `false`: nothing is left to happen, or the store
    /// has [failed](Self::failure).
    pub fn step(&mut self) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let next = self.queue.next_at().into_iter().chain(self.driver.poll_timeout()).min();
        if let (Some(crash), Some(next)) = (self.scenario.next_crash(self.crashed), next)
            && crash <= next
        {
            (self.crashed, self.now) = (crash, self.now.max(crash));
            self.crash();
            return true;
        }
        match (self.queue.next_at(), self.driver.poll_timeout()) {
            (arrival, Some(deadline)) if arrival.is_none_or(|at| deadline < at) => {
                self.now = deadline;
                self.command(Command::Tick);
            }
            (Some(at), _) => {
                self.now = self.now.max(at);
                match self.queue.pop(self.at_once) {
                    Some(Next::One(pending)) => self.one(pending),
                    Some(Next::Jobs(jobs)) => self.compute(jobs),
                    Some(Next::Clients(pending)) => self.clients(pending),
                    None => {}
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

    /// Steps until a round is over. `None`: the task is, or the store has [failed](Self::failure).
    pub fn run_round(&mut self) -> Option<RoundSummary> {
        while self.summary.is_none() && self.step() {}
        self.summary.take()
    }

    /// The round that is over and that [`run_round`](Self::run_round) tells of next.
    pub fn untold(&self) -> Option<&RoundSummary> {
        self.summary.as_ref()
    }

    /// Why the simulation cannot go on, if it cannot: what happens is not kept.
    pub fn failure(&self) -> Option<&StoreError> {
        self.failure.as_ref()
    }

    /// Kills the coordinator and starts it again from its store. Sessions, messages under way and running jobs are
    /// lost; every client that still follows the task connects again.
    pub fn crash(&mut self) {
        self.queue.clear();
        let driver = core(&self.settings, self.server_step.as_ref(), self.influence)
            .map_err(|error| StoreError(error.to_string()))
            .and_then(|core| Driver::new(core, self.store.clone()));
        match driver {
            Ok(driver) => self.driver = driver,
            Err(error) => return self.failed(Err(error)),
        }
        if let Some(population) = self.population.take() {
            self.bind(&population);
        }
        if self.attendance == Attendance::Connected {
            self.devices.values_mut().for_each(|device| device.lose_session());
        } else {
            self.let_go();
        }
        self.start();
    }

    /// Ends a client's session, as when its network fails. A client that is not there has none.
    pub fn disconnect(&mut self, client: usize) {
        let Some(device) = self.devices.get_mut(&client) else { return };
        device.lose_session();
        let client = device.id();
        self.command(Command::Disconnect { client });
    }

    /// Opens a session, unless the client has one, is through with the task, or does not exist.
    pub fn connect(&mut self, client: usize) {
        if client < self.population_size {
            self.connect_all(vec![client]);
        }
    }

    /// Puts a message on the wire, past the scenario's routing, as if the other end had sent it at this moment. Without
    /// a session there is no wire, and it is lost.
    pub fn inject(&mut self, message: Message) {
        self.enqueue(self.now, message);
    }

    /// Gives the coordinator a command and does what follows from it.
    pub fn command(&mut self, command: Command) {
        self.commands(vec![command]);
    }

    /// The coordinator's core.
    pub fn coordinator(&self) -> &Coordinator {
        self.driver.core()
    }

    /// The coordinator's store.
    pub fn store(&self) -> &Archive {
        &self.store
    }

    /// All events so far; none where they are not [kept](Keep).
    pub fn events(&self) -> Vec<Event> {
        self.store.events().unwrap_or_default()
    }

    /// The newest model, a safetensors file.
    pub fn model(&self) -> Option<Arc<[u8]>> {
        self.store.blob(&self.coordinator().model()?).ok()
    }

    /// The devices there are, in the order of their numbers: everyone, or with [`Attendance::CheckIn`] those of the round.
    pub fn devices(&self) -> Vec<&Device> {
        self.devices.values().map(Box::as_ref).collect()
    }

    /// Number of the client of that identity, among the devices there are.
    pub fn index_of(&self, client: &Client) -> Option<usize> {
        self.index_of.get(client).copied()
    }

    /// What a client's trainer keeps.
    pub fn memory_of(&self, client: usize) -> Option<&[u8]> {
        let device = self.devices.get(&client).and_then(|device| device.memory());
        device.or_else(|| self.memories.get(&(client as u32)).map(AsRef::as_ref))
    }

    /// Clients that have taken part and are gone, and what this takes of memory in bytes, but for what trainers keep.
    pub fn remembered(&self) -> (usize, usize) {
        let clients = self.kept.len();
        (clients, clients * size_of::<(u32, Kept)>())
    }

    /// The key that signs models and plans; it follows from the seed.
    pub fn signing_key(&self) -> &SigningKey {
        &self.secrets.signing
    }

    /// The scenario.
    pub fn scenario(&self) -> &S {
        &self.scenario
    }

    /// The scenario, to change it.
    pub fn scenario_mut(&mut self) -> &mut S {
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
        if self.attendance == Attendance::Connected {
            self.connect_all((0..self.population_size).collect());
        } else if self.coordinator().log().size() > 0 && self.queue.next_at().is_none() {
            // Otherwise they come when the initial model is signed, or have come when a round was aborted.
            self.check_in();
        }
    }

    fn one(&mut self, pending: Pending) {
        match pending {
            Pending::Message { session, message: Message { client, kind, bytes, .. } } => {
                let Some(client) = self.with_session(client, session).map(Device::id) else { return };
                let core = self.driver.core();
                let command = match kind {
                    Kind::Input | Kind::PlainInput => {
                        let decode = || core.whole_input(client, kind, &bytes);
                        self.scenario.measured(Part::Decoding, decode)
                    }
                    _ => Command::Message { client, kind, bytes: bytes.into() },
                };
                self.command(command);
            }
            Pending::CheckIn if self.coordinator().phase().is_none() => self.check_in(),
            Pending::CheckIn | Pending::Job(_) | Pending::Training { .. } => {}
        }
    }

    /// What the agent does around the participant: the effects in order, a refusal as a message or as the end.
    fn follow(&mut self, client: usize, session: u64, outcome: Result<Vec<Reaction>, Refusal>) {
        let Some(device) = self.devices.get_mut(&client).filter(|device| device.session == Some(session))
        else {
            return;
        };
        let reactions = match outcome {
            Ok(reactions) => reactions,
            Err(refusal) => {
                let decline = refusal.to_string().into_bytes();
                if device.refuse(refusal) {
                    self.disconnect(client);
                } else {
                    self.send(client, Direction::Up, Kind::Decline, decline.into());
                }
                return;
            }
        };
        for reaction in reactions {
            let Some(device) = self.devices.get_mut(&client) else { return };
            match reaction {
                Reaction::Send(kind, bytes) => {
                    let round = device.round();
                    if self.scenario.vanishes(client, round, kind) {
                        self.disconnect(client);
                        if self.attendance == Attendance::Connected {
                            self.connect(client);
                        }
                        return;
                    }
                    self.send(client, Direction::Up, kind, bytes.into());
                }
                Reaction::Train { round } => {
                    // Who checks in with what it has finished trains no longer.
                    let time =
                        device.started().map_or_else(|| self.scenario.training_time(client, round), |_| 0);
                    let end = Millis(self.now.0.saturating_add(time));
                    self.queue.push(end, Pending::Training { session, client, round, result: None });
                }
                Reaction::Judge { round, model: new } => {
                    let judged = device.task().ok_or_else(|| "no model to compare with".to_owned());
                    let judged = judged.and_then(|(model, plan)| {
                        let work = Work { client, round, model, staleness: 0, plan, memory: None };
                        self.scenario.judge(&work, &new)
                    });
                    let outcome =
                        device.handle(judged.map_or_else(Input::TrainingFailed, Input::Judged), self.now);
                    return self.follow(client, session, outcome);
                }
                Reaction::Finished { reason } => {
                    device.finish(reason);
                    self.disconnect(client);
                    return;
                }
                reaction => device.note(reaction),
            }
        }
    }

    /// Gives the coordinator commands and does what follows from them.
    fn commands(&mut self, commands: Vec<Command>) {
        let round = self.coordinator().last_round() + 1;
        if self.cohort.0 != round {
            self.cohort = (round, draws::bytes(self.seed, "cohort", 0, round));
        }
        let part = Part::Coordinator(match commands.as_slice() {
            [Command::Message { kind, .. }, ..] => Some(*kind),
            [Command::Input { .. }, ..] => Some(Kind::Input),
            _ => None,
        });
        let (driver, now, seed) = (&mut self.driver, self.now, self.cohort.1);
        let outcomes = match self.scenario.measured(part, || driver.handle(commands, now, seed)) {
            Ok(outcomes) => outcomes,
            Err(error) => return self.failed(Err(error)),
        };
        let mut is_over = false;
        for event in &outcomes.events {
            is_over |= matches!(event, Event::Published { .. } | Event::RoundAborted { .. });
            if let Event::RoundOpened { .. } = event {
                self.check_ins = 0;
                self.driver.hold(self.attendance != Attendance::Connected);
            }
            if let Some(summary) = self.progress.note(event, self.now) {
                self.summary = Some(summary);
            }
        }
        if is_over {
            let core = self.driver.core();
            let named = [core.model(), core.momentum(), core.best()].into_iter().flatten();
            self.store.forget_but(&named.chain(self.flights.iter().map(Flight::model)).collect());
        }
        if is_over && self.attendance != Attendance::Connected {
            // Whoever is told the end of a round is gone with it.
            return self.end_sessions();
        }
        for (client, reject) in outcomes.rejects {
            self.send_to(client, Kind::Reject, reject.reason.into());
        }
        for effect in outcomes.effects {
            match effect {
                Effect::Send { client, kind, bytes } => self.send_to(client, kind, Bytes::from_owner(bytes)),
                Effect::SendBlob { client, kind, digest } => match self.store.blob(&digest) {
                    Ok(bytes) => self.send_to(client, kind, Bytes::from_owner(bytes)),
                    Err(error) => return self.failed(Err(error)),
                },
                Effect::Compute(job) => self.queue.push(self.now, Pending::Job(job)),
                // A stream ends after what was sent on it; the client leaves when it has read that the task is closed.
                Effect::Close { .. } => {}
            }
        }
    }

    /// A round is over, and with it everyone's session; others come for the next one.
    fn end_sessions(&mut self) {
        self.queue.clear();
        let commands = self.let_go();
        self.scenario.sessions_over();
        // Nothing follows from them: rounds are held.
        self.driver.hold(true);
        if let Err(error) = self.driver.handle(commands, self.now, self.cohort.1) {
            return self.failed(Err(error));
        }
        if self.every.is_some_and(|every| self.coordinator().last_round().is_multiple_of(every)) {
            self.checkpoint();
        }
        self.driver.hold(false);
        self.check_ins = 0;
        // With nobody there, no round opens; the task ends if it has to.
        self.command(Command::Tick);
        if self.coordinator().closed().is_some() {
            return self.checkpoint();
        }
        self.check_in();
    }

    /// Lets all devices go, and gives what the coordinator has to be told of it.
    fn let_go(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (index, mut device) in std::mem::take(&mut self.devices) {
            self.keep(index as u32, &mut device);
            commands.push(Command::Disconnect { client: device.id() });
        }
        self.index_of.clear();
        commands
    }

    /// Makes durable where the run stands, in a run that is kept in a folder. No session is open.
    fn checkpoint(&mut self) {
        if self.every.is_none() {
            return;
        }
        let (kept, memories) = (&self.kept, &self.memories);
        let gone = self.unsaved.iter().filter_map(|(index, has_memory)| {
            let memory = memories.get(index).filter(|_| *has_memory).map(AsRef::as_ref);
            Some((*index, *kept.get(index)?, memory))
        });
        let (round, summary) = (self.driver.core().last_round(), self.summary.as_ref());
        let saved = self.store.checkpoint(round, self.now, summary, &self.flights, gone);
        self.unsaved.clear();
        self.failed(saved);
    }

    /// Keeps what is left of a device that goes.
    fn keep(&mut self, index: u32, device: &mut Device) {
        let (kept, memory) = device.leave(&self.enrolment.task);
        if let (Some(_), Some(_)) = (self.every, kept) {
            let is_new = memory.is_some() && self.memories.get(&index) != memory.as_ref();
            *self.unsaved.entry(index).or_default() |= is_new;
        }
        self.kept.extend(kept.map(|kept| (index, kept)));
        self.memories.extend(memory.map(|memory| (index, memory)));
    }

    /// Opens sessions for those who have none.
    fn connect_all(&mut self, clients: Vec<usize>) {
        let new = clients.iter().filter(|client| !self.devices.contains_key(client)).map(|&client| {
            let index = client as u32;
            (client, self.kept.get(&index).copied(), self.memories.get(&index).cloned())
        });
        let enrolment = &self.enrolment;
        // Making keys is worth a thread.
        let threads = if enrolment.keyed { self.threads } else { 1 };
        let made = pool::map(threads, new.collect(), |(client, kept, memory)| {
            (client, Box::new(Device::enrol(enrolment, client, kept, memory)))
        });
        for (client, device) in made {
            self.index_of.insert(device.id(), client);
            self.devices.insert(client, device);
        }
        let mut commands = Vec::new();
        for client in clients {
            let Some(device) = self.devices.get_mut(&client) else { continue };
            if !device.is_finished() && device.session.is_none() {
                device.session = Some(self.queue.number());
                commands.push(Command::Connect { client: device.id() });
            }
        }
        self.commands(commands);
    }

    fn with_session(&self, client: usize, session: u64) -> Option<&Device> {
        self.devices.get(&client).map(Box::as_ref).filter(|device| device.session == Some(session))
    }

    fn send_to(&mut self, client: Client, kind: Kind, bytes: Bytes) {
        let Some(client) = self.index_of(&client) else { return };
        self.send(client, Direction::Down, kind, bytes);
    }

    fn send(&mut self, client: usize, direction: Direction, kind: Kind, bytes: Bytes) {
        match direction {
            Direction::Up => self.progress.bytes_up += bytes.len() as u64,
            Direction::Down => self.progress.bytes_down += bytes.len() as u64,
        }
        let message = Message { client, direction, kind, bytes };
        for (arrival, message) in self.scenario.route(self.now, message) {
            self.enqueue(arrival, message);
        }
    }

    fn enqueue(&mut self, arrival: Millis, message: Message) {
        let Some(session) = self.devices.get(&message.client).and_then(|device| device.session) else {
            return;
        };
        self.queue.push(arrival.max(self.now), Pending::Message { session, message });
    }

    fn failed(&mut self, outcome: Result<(), StoreError>) {
        if let Err(error) = outcome {
            self.failure.get_or_insert(error);
        }
    }
}

/// The coordinator's core, with the step of the server that the plan cannot name, if there is one.
fn core(
    settings: &Settings,
    server_step: Option<&Arc<dyn ServerStep>>,
    influence: bool,
) -> Result<Coordinator, PlanError> {
    let core = Coordinator::new(settings.clone())?;
    let core = if influence { core } else { core.without_influence() };
    Ok(match server_step {
        Some(step) => core.with_server_step(step.clone()),
        None => core,
    })
}
