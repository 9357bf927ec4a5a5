//! The loop around the core: decide, persist, apply, release effects, in that order.

use crate::command::{Command, Computed, Input, Outcome, Reject};
use crate::coordinator::Coordinator;
use crate::effect::Effect;
use crate::event::{Client, Event, Millis};
use crate::population::Population;
use crate::updates::Updates;
use fedveil_aggregation::secagg::Accumulator;
use fedveil_provenance::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Durable storage of events and blobs. One call of `append` is one transaction.
pub trait Store: Send + Sync {
    /// Makes blobs and events durable, blobs first, events all or none.
    fn append(&self, events: &[Event], blobs: &[Vec<u8>]) -> Result<(), StoreError>;
    /// Reads a blob.
    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError>;
    /// All events in order, for recovery.
    fn events(&self) -> Result<Vec<Event>, StoreError>;
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn append(&self, events: &[Event], blobs: &[Vec<u8>]) -> Result<(), StoreError> {
        (**self).append(events, blobs)
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError> {
        (**self).blob(digest)
    }

    fn events(&self) -> Result<Vec<Event>, StoreError> {
        (**self).events()
    }
}

/// Time after which a round is tried again that could not open for what is under way in other tasks.
const RETRY_SECONDS: u32 = 5;

/// The store failed; the coordinator must stop, since what it decided is not durable.
#[derive(Debug, thiserror::Error)]
#[error("store: {0}")]
pub struct StoreError(pub String);

/// The core, its store and what is summed in progress.
///
/// Events of one batch are applied before they are durable, but no effect is handed out until they are; when the store
/// fails the driver is poisoned and hands out nothing more.
pub struct Driver<S> {
    core: Coordinator,
    store: S,
    sums: BTreeMap<u32, Accumulator>,
    /// Updates in the clear, of the round in progress, in plans of mode `insecure_plain` alone.
    updates: Updates,
    effects: Vec<Effect>,
    pending: Vec<Event>,
    now: Millis,
    population: Option<Arc<dyn Population>>,
    /// Charges that the population has not heard of, by round.
    charges: Vec<(u32, Vec<Client>)>,
    /// The core may hold fewer reservations than the population.
    releases: bool,
    retry_at: Option<Millis>,
    /// No round opens, and the task does not end.
    held: bool,
    /// The store failed once.
    failed: bool,
}

/// What a batch of commands led to.
#[derive(Default)]
pub struct Outcomes {
    /// The events, all durable.
    pub events: Vec<Event>,
    /// What the shell has to do.
    pub effects: Vec<Effect>,
    /// Peers that were told no.
    pub rejects: Vec<(Client, Reject)>,
}

impl<S: Store> Driver<S> {
    /// Rebuilds the core from the store's events. Call with [`Command::Recover`] next if there were any.
    pub fn new(mut core: Coordinator, store: S) -> Result<Self, StoreError> {
        let mut charges = Vec::new();
        let mut effects = Vec::new();
        for event in store.events()? {
            charges.extend(charge(&core, &event));
            core.apply(&event);
            // Sessions are gone. A round in progress is aborted, and its jobs with it; nobody repeats the signing of the
            // initial model.
            while let Some(effect) = core.poll_effect() {
                if matches!(effect, Effect::Compute(_)) {
                    effects.push(effect);
                }
            }
            if core.log().size() > 0 {
                effects.clear();
            }
        }
        Ok(Self {
            core,
            store,
            sums: BTreeMap::new(),
            updates: Updates::default(),
            effects,
            pending: Vec::new(),
            now: Millis(0),
            population: None,
            charges,
            releases: true,
            retry_at: None,
            held: false,
            failed: false,
        })
    }

    /// Binds the task to what its clients have spent elsewhere: no round opens that they cannot pay for, and what this
    /// run has charged before is charged there, should it have been lost.
    pub fn bind(&mut self, population: Arc<dyn Population>) -> Result<(), StoreError> {
        self.population = Some(population);
        self.charge_population()?;
        self.release_population()
    }

    /// Handles commands as one transaction.
    ///
    /// `seed` must be fresh for every call; the core draws cohorts from it.
    pub fn handle(
        &mut self,
        commands: Vec<Command>,
        now: Millis,
        seed: [u8; 32],
    ) -> Result<Outcomes, StoreError> {
        if self.failed {
            return Err(StoreError("an earlier batch is not durable; start again from the store".to_owned()));
        }
        self.now = now;
        let mut rejects = Vec::new();
        self.transact(commands, now, seed, &mut rejects).inspect_err(|_| self.failed = true)?;
        Ok(Outcomes {
            events: std::mem::take(&mut self.pending),
            effects: std::mem::take(&mut self.effects),
            rejects,
        })
    }

    /// Between two rounds: while they are held, no round opens and the task does not end. For shells in which clients
    /// come and go with a round; they let go when the next clients are there.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Stores a blob outside of any event and gives its digest.
    pub fn put_blob(&mut self, blob: Vec<u8>) -> Result<Digest, StoreError> {
        let digest = Digest::of(&blob);
        self.store.append(&[], &[blob])?;
        Ok(digest)
    }

    /// When to call [`handle`](Self::handle) with [`Command::Tick`] at the latest. A time that has passed is not
    /// repeated: what was due at it has been done.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let times = self.core.poll_timeout().into_iter().chain(self.retry_at);
        times.filter(|&time| time > self.now).min()
    }

    /// The core, for reading.
    pub fn core(&self) -> &Coordinator {
        &self.core
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Commands, the transitions that they make due, and what of it has to be durable, in this order: charges in the
    /// population, events, releases in the population.
    fn transact(
        &mut self,
        commands: Vec<Command>,
        now: Millis,
        seed: [u8; 32],
        rejects: &mut Vec<(Client, Reject)>,
    ) -> Result<(), StoreError> {
        let mut blobs = Vec::new();
        for command in commands {
            self.handle_one(command, now, &mut blobs, rejects);
            self.advance(now, seed)?;
        }
        self.charge_population()?;
        if !self.pending.is_empty() || !blobs.is_empty() {
            self.store.append(&self.pending, &blobs)?;
        }
        self.release_population()
    }

    fn handle_one(
        &mut self,
        mut command: Command,
        now: Millis,
        blobs: &mut Vec<Vec<u8>>,
        rejects: &mut Vec<(Client, Reject)>,
    ) {
        if let Command::Computed(Computed { blobs: results, .. }) = &mut command {
            blobs.append(results);
        }
        let events = match self.core.decide(&command, now) {
            Ok(events) => events,
            Err(reject) => {
                let (Command::Message { client, .. }
                | Command::Input { client, .. }
                | Command::Connect { client, .. }) = command
                else {
                    tracing::warn!(%reject, "command ignored");
                    return;
                };
                let events =
                    if reject.drops { self.core.drop_client(&client, &reject.reason) } else { Vec::new() };
                rejects.push((client, reject));
                events
            }
        };
        if let (
            Some(Event::InputAccepted { .. } | Event::UpdateAccepted { .. }),
            Command::Input { client, input: Ok(input) },
        ) = (events.first(), command)
        {
            match input {
                Input::Masked(input) => self.core.accumulate(&client, &input, &mut self.sums),
                Input::Plain(update) => self.updates.add(client, update.values, self.core.sum_of(&client)),
            }
        }
        for event in events {
            self.apply(event);
        }
    }

    fn advance(&mut self, now: Millis, seed: [u8; 32]) -> Result<(), StoreError> {
        let mut overdrawn = BTreeMap::new();
        loop {
            if self.held && self.core.phase().is_none() {
                return Ok(());
            }
            let events = self.core.advance(now, seed, &overdrawn);
            if events.is_empty() {
                let is_idle = self.core.phase().is_none() && self.core.closed().is_none();
                self.retry_at = None;
                if let Some((client, reason)) = overdrawn.first_key_value().filter(|_| is_idle) {
                    tracing::info!(clients = overdrawn.len(), %client, %reason, "too few clients can pay for a round");
                    self.retry_at = Some(now.plus_seconds(RETRY_SECONDS));
                }
                return Ok(());
            }
            if let Some(population) = &self.population
                && let Some((round, mut payers)) = opening(&events)
            {
                payers.retain(|client| self.core.pays(client));
                let refused = population.reserve(round, &payers)?;
                if !refused.is_empty() {
                    overdrawn.extend(refused);
                    continue;
                }
            }
            for event in events {
                self.apply(event);
            }
        }
    }

    /// Before the charges' events are durable.
    fn charge_population(&mut self) -> Result<(), StoreError> {
        let charges = std::mem::take(&mut self.charges);
        let Some(population) = &self.population else { return Ok(()) };
        charges.iter().try_for_each(|(round, clients)| population.charge(*round, clients))
    }

    /// After the events are durable that release something.
    fn release_population(&mut self) -> Result<(), StoreError> {
        let releases = std::mem::take(&mut self.releases);
        match &self.population {
            Some(population) if releases => population.release_others(&self.core.reserved()),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, event: Event) {
        self.charges.extend(charge(&self.core, &event));
        self.releases |= matches!(
            event,
            Event::PrivacyCharged { .. }
                | Event::GroupWithheld { .. }
                | Event::RoundAborted { .. }
                | Event::Published { .. }
                | Event::TaskClosed { .. }
        );
        self.core.apply(&event);
        match &event {
            Event::UnmaskStarted { group } => {
                let job = match (self.sums.remove(group), self.updates.take(*group)) {
                    (Some(sum), _) => self.core.unmask_job(*group, sum),
                    (None, Some(sum)) => self.core.sum_job(*group, sum),
                    (None, None) => None,
                };
                self.effects.extend(job.map(|job| Effect::Compute(Box::new(job))));
            }
            Event::GroupWithheld { group, .. } => {
                self.updates.take(*group);
                self.sums.remove(group);
            }
            Event::AggregationStarted => {
                let updates = std::mem::take(&mut self.updates);
                let job = self.core.close_job(updates);
                self.effects.extend(job.map(|job| Effect::Compute(Box::new(job))));
            }
            Event::RoundAborted { .. } | Event::TaskClosed { .. } | Event::Published { .. } => {
                self.sums.clear();
                self.updates = Updates::default();
            }
            _ => {}
        }
        self.pending.push(event);
        while let Some(effect) = self.core.poll_effect() {
            self.effects.push(effect);
        }
    }
}

/// The round that these events open, and everyone who takes part in it or pays for it.
fn opening(events: &[Event]) -> Option<(u32, Vec<Client>)> {
    let round = events.iter().find_map(|event| match event {
        Event::RoundOpened { round, .. } => Some(*round),
        _ => None,
    })?;
    let payers: BTreeSet<Client> = events
        .iter()
        .flat_map(|event| match event {
            Event::RoundOpened { cohort: clients, .. } | Event::PrivacyCharged { clients, .. } => {
                clients.as_slice()
            }
            _ => &[],
        })
        .copied()
        .collect();
    Some((round, payers.into_iter().collect()))
}

/// What an event charges, and in which round, if it does.
fn charge(core: &Coordinator, event: &Event) -> Option<(u32, Vec<Client>)> {
    let Event::PrivacyCharged { clients, .. } = event else { return None };
    let (round, _) = core.phase()?;
    Some((round, clients.clone()))
}

impl Computed {
    /// The round that the job worked for.
    pub fn round(&self) -> u32 {
        match &self.outcome {
            Outcome::Summed { round, .. }
            | Outcome::Closed { round, .. }
            | Outcome::Rejected { round, .. }
            | Outcome::Proposed { round, .. } => *round,
        }
    }
}

/// A store in memory, for tests and simulations.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Stored>);

#[derive(Debug, Default)]
struct Stored {
    events: Vec<Event>,
    blobs: BTreeMap<Digest, Arc<[u8]>>,
}

impl MemoryStore {
    /// Digests of all blobs.
    pub fn blobs(&self) -> Vec<Digest> {
        self.lock().blobs.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn append(&self, events: &[Event], blobs: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut stored = self.lock();
        for blob in blobs {
            stored.blobs.insert(Digest::of(blob), blob.as_slice().into());
        }
        stored.events.extend_from_slice(events);
        Ok(())
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError> {
        self.lock().blobs.get(digest).cloned().ok_or_else(|| StoreError(format!("no blob {digest}")))
    }

    fn events(&self) -> Result<Vec<Event>, StoreError> {
        Ok(self.lock().events.clone())
    }
}
