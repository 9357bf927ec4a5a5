//! The ledger of a population: what clients have spent over all tasks, beyond the run of one.
//!
//! ```text
//! about to open a round ── reserve ─► durable ─► RoundOpened durable ─► sent
//! about to unmask        ── charge ──► durable ─► PrivacyCharged durable ─► sent
//! group or round over    ── durable ─► release what the core no longer holds
//! ```
//!
//! The population is always written before the event that it is for, and released after: a crash in between leaves it
//! with more than was spent, never with less. What a run has reserved is derived from its events; the population only
//! mirrors it, and is told again after a restart.

use crate::driver::StoreError;
use crate::event::Client;
use fedveil_privacy::{Limit, Overdrawn, Participations, TaskLoss};
use fedveil_provenance::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The population's ledger, as one task sees it. Each call is durable when it returns, and atomic against other tasks.
pub trait Population: Send + Sync {
    /// Sets one participation in `round` aside for each client; or for none, if some cannot pay, who are returned. Asking
    /// twice for the same round is asking once.
    fn reserve(&self, round: u32, clients: &[Client]) -> Result<BTreeMap<Client, Overdrawn>, StoreError>;
    /// Charges one participation in `round` to each client, reserved or not, allowed or not. Twice is once.
    fn charge(&self, round: u32, clients: &[Client]) -> Result<(), StoreError>;
    /// Gives back what the task has reserved for anyone else than these clients.
    fn release_others(&self, holding: &BTreeSet<Client>) -> Result<(), StoreError>;
}

/// A population in memory, for tests and simulations. One value is shared by all tasks.
#[derive(Debug, Clone)]
pub struct MemoryPopulation(Arc<Mutex<Entries>>);

#[derive(Debug)]
struct Entries {
    limit: Limit,
    tasks: BTreeMap<Digest, TaskLoss>,
    /// Whether it is charged; otherwise it is reserved.
    charged: BTreeMap<(Client, Digest, u32), bool>,
}

/// A population in memory, as one task sees it.
#[derive(Debug, Clone)]
pub struct MemoryPopulationTask {
    population: MemoryPopulation,
    task: Digest,
}

impl MemoryPopulation {
    /// A population that has spent nothing.
    pub fn new(limit: Limit) -> Self {
        let entries = Entries { limit, tasks: BTreeMap::new(), charged: BTreeMap::new() };
        Self(Arc::new(Mutex::new(entries)))
    }

    /// The population as this task sees it.
    pub fn of_task(&self, task: Digest, loss: TaskLoss) -> MemoryPopulationTask {
        self.with(|entries| entries.tasks.insert(task, loss));
        MemoryPopulationTask { population: self.clone(), task }
    }

    /// The client's participations by task.
    pub fn participations(&self, client: &Client) -> BTreeMap<Digest, Participations> {
        self.with(|entries| entries.of(client, None))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Entries) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entries {
    /// Participations by task, without those in `but`.
    fn of(&self, client: &Client, but: Option<(Digest, u32)>) -> BTreeMap<Digest, Participations> {
        let mut found: BTreeMap<Digest, Participations> = BTreeMap::new();
        let (first, last) = ((*client, Digest([0; 32]), 0), (*client, Digest([0xff; 32]), u32::MAX));
        for (&(_, task, round), &is_charged) in self.charged.range(first..=last) {
            if but == Some((task, round)) {
                continue;
            }
            let entry = found.entry(task).or_default();
            *(if is_charged { &mut entry.charged } else { &mut entry.reserved }) += 1;
        }
        found
    }
}

impl Population for MemoryPopulationTask {
    fn reserve(&self, round: u32, clients: &[Client]) -> Result<BTreeMap<Client, Overdrawn>, StoreError> {
        let task = self.task;
        Ok(self.population.with(|entries| {
            let check = |client: &Client| {
                let spent = entries.of(client, Some((task, round)));
                Some((*client, entries.limit.check(&entries.tasks, &spent, &task).err()?))
            };
            let overdrawn: BTreeMap<Client, Overdrawn> = clients.iter().filter_map(check).collect();
            if overdrawn.is_empty() {
                for client in clients {
                    entries.charged.entry((*client, task, round)).or_insert(false);
                }
            }
            overdrawn
        }))
    }

    fn charge(&self, round: u32, clients: &[Client]) -> Result<(), StoreError> {
        self.population.with(|entries| {
            entries.charged.extend(clients.iter().map(|client| ((*client, self.task, round), true)));
        });
        Ok(())
    }

    fn release_others(&self, holding: &BTreeSet<Client>) -> Result<(), StoreError> {
        self.population.with(|entries| {
            entries.charged.retain(|(client, task, _), is_charged| {
                *is_charged || *task != self.task || holding.contains(client)
            });
        });
        Ok(())
    }
}
