//! The loop around the core: decide, persist, apply, release effects, in that order.

use crate::command::{Command, Computed, Outcome, Reject};
use crate::coordinator::Coordinator;
use crate::effect::Effect;
use crate::event::{Client, Event, Millis};
use fedveil_aggregation::secagg::Accumulator;
use fedveil_provenance::Digest;
use std::collections::BTreeMap;
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

/// The store failed; the coordinator must stop, since what it decided is not durable.
#[derive(Debug, thiserror::Error)]
#[error("store: {0}")]
pub struct StoreError(pub String);

/// The core, its store and the sums in progress.
///
/// Events of one batch are applied before they are durable, but no effect is handed out until they are; when the store
/// fails the driver is poisoned and hands out nothing more.
pub struct Driver<S> {
    core: Coordinator,
    store: S,
    sums: BTreeMap<u32, Accumulator>,
    effects: Vec<Effect>,
    pending: Vec<Event>,
    now: Millis,
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
        for event in store.events()? {
            core.apply(&event);
        }
        let mut effects = Vec::new();
        while let Some(effect) = core.poll_effect() {
            // A round in progress is aborted, and its jobs with it; nobody repeats the signing of the initial model.
            if matches!(effect, Effect::Compute(_)) && core.log().size() == 0 {
                effects.push(effect);
            }
        }
        Ok(Self {
            core,
            store,
            sums: BTreeMap::new(),
            effects,
            pending: Vec::new(),
            now: Millis(0),
            failed: false,
        })
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
        let mut blobs = Vec::new();
        let mut rejects = Vec::new();
        for command in commands {
            self.handle_one(command, now, &mut blobs, &mut rejects);
            self.advance(now, seed);
        }
        if !self.pending.is_empty() || !blobs.is_empty() {
            self.store.append(&self.pending, &blobs).inspect_err(|_| self.failed = true)?;
        }
        Ok(Outcomes {
            events: std::mem::take(&mut self.pending),
            effects: std::mem::take(&mut self.effects),
            rejects,
        })
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
        self.core.poll_timeout().filter(|&time| time > self.now)
    }

    /// The core, for reading.
    pub fn core(&self) -> &Coordinator {
        &self.core
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
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
                    tracing::debug!(%reject, "command ignored");
                    return;
                };
                let events =
                    if reject.drops { self.core.drop_client(&client, &reject.reason) } else { Vec::new() };
                rejects.push((client, reject));
                events
            }
        };
        for event in events {
            if let (Event::InputAccepted { .. }, Command::Input { client, input: Ok(input) }) =
                (&event, &command)
            {
                self.core.accumulate(client, input, &mut self.sums);
            }
            self.apply(event);
        }
    }

    fn advance(&mut self, now: Millis, seed: [u8; 32]) {
        loop {
            let events = self.core.advance(now, seed);
            if events.is_empty() {
                return;
            }
            for event in events {
                self.apply(event);
            }
        }
    }

    fn apply(&mut self, event: Event) {
        self.core.apply(&event);
        match &event {
            Event::UnmaskStarted { group } => {
                let sum = self.sums.remove(group);
                let job = sum.and_then(|sum| self.core.unmask_job(*group, sum));
                self.effects.extend(job.map(|job| Effect::Compute(Box::new(job))));
            }
            Event::GroupWithheld { group, .. } => {
                self.sums.remove(group);
            }
            Event::RoundAborted { .. } | Event::TaskClosed { .. } | Event::Published { .. } => {
                self.sums.clear();
            }
            _ => {}
        }
        self.pending.push(event);
        while let Some(effect) = self.core.poll_effect() {
            self.effects.push(effect);
        }
    }
}

impl Computed {
    /// The round that the job worked for.
    pub fn round(&self) -> u32 {
        match &self.outcome {
            Outcome::Summed { round, .. } | Outcome::Closed { round, .. } => *round,
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
