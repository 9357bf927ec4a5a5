//! What a coordinator of a simulation has stored.

use super::attendance::Flight;
use super::device::Kept;
use super::journal::{Events, Journal, Restored};
use super::progress::RoundSummary;
use fedveil_coordinator_core::{Event, Millis, Store, StoreError};
use fedveil_provenance::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a simulation keeps of its past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keep {
    /// All events and all blobs, in memory: for tests, and for runs of some rounds.
    #[default]
    Everything,
    /// No event, and the blobs of the newest model alone: memory is flat over rounds, and the coordinator cannot crash.
    Nothing,
    /// What a run needs to go on from the last round that was over, in a folder; memory is flat over rounds. With
    /// [`Attendance::CheckIn`](super::Attendance::CheckIn) and [`Attendance::Buffered`](super::Attendance::Buffered) alone,
    /// where rounds have a boundary.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Which events are written there.
        events: Events,
        /// Rounds between two checkpoints, 1 or more.
        every: u32,
    },
}

/// The store of a simulated coordinator.
pub struct Archive(Mutex<Contents>);

struct Contents {
    /// None: events are not kept in memory, and blobs are forgotten.
    events: Option<Vec<Event>>,
    journal: Option<Journal>,
    /// Events that there were.
    count: u64,
    blobs: BTreeMap<Digest, Arc<[u8]>>,
    /// Blobs of the newest batch that had any.
    newest: Vec<Digest>,
}

impl Archive {
    /// `setup` is the digest of what the run is made of. Where it goes on, also what it goes on with.
    pub(super) fn open(
        keep: &Keep,
        setup: Digest,
        resume: bool,
    ) -> Result<(Self, Option<Restored>), StoreError> {
        let Keep::Folder { path, events, .. } = keep else { return Ok((Self::new(keep), None)) };
        let (journal, mut restored) = if resume {
            Journal::resume(path, setup, *events)?
        } else {
            (Journal::create(path, setup, *events)?, None)
        };
        let archive = Self::new(keep);
        if let Some(restored) = &mut restored {
            archive.append(&[], &std::mem::take(&mut restored.blobs))?;
        }
        archive.lock().journal = Some(journal);
        Ok((archive, restored))
    }

    pub(super) fn new(keep: &Keep) -> Self {
        let events = matches!(keep, Keep::Everything).then(Vec::new);
        Self(Mutex::new(Contents {
            events,
            journal: None,
            count: 0,
            blobs: BTreeMap::new(),
            newest: Vec::new(),
        }))
    }

    /// Digests of all blobs.
    pub fn blobs(&self) -> Vec<Digest> {
        self.lock().blobs.keys().copied().collect()
    }

    /// What was stored when there were so many events, as a crash might leave it; blobs are all there.
    #[cfg(test)]
    pub(super) fn after(&self, events: usize) -> Self {
        let contents = self.lock();
        let events = contents.events.as_ref().map(|kept| kept[..events].to_vec());
        Self(Mutex::new(Contents {
            count: events.iter().flatten().count() as u64,
            events,
            journal: None,
            blobs: contents.blobs.clone(),
            newest: Vec::new(),
        }))
    }

    /// SHA-256 of the events that are kept, as lines of JSON; none where they are not.
    pub fn digest(&self) -> Option<Digest> {
        let contents = self.lock();
        if let Some(journal) = &contents.journal {
            return Some(journal.digest());
        }
        let mut hash = Sha256::new();
        for event in contents.events.as_ref()? {
            hash.update(serde_json::to_vec(event).ok()?);
            hash.update(b"\n");
        }
        Some(Digest(hash.finalize().into()))
    }

    /// Makes durable where a run in a folder stands.
    pub(super) fn checkpoint<'a>(
        &self,
        round: u32,
        now: Millis,
        summary: Option<&RoundSummary>,
        flights: &BTreeSet<Flight>,
        gone: impl Iterator<Item = (u32, Kept, Option<&'a [u8]>)>,
    ) -> Result<(), StoreError> {
        let Contents { journal, blobs, .. } = &mut *self.lock();
        let Some(journal) = journal else { return Ok(()) };
        journal.checkpoint(round, now, summary, flights, blobs, gone)
    }

    /// A round is over: unless everything is kept, forgets all blobs but these and those that came last.
    pub(super) fn forget_but(&self, named: &BTreeSet<Digest>) {
        let mut contents = self.lock();
        if contents.events.is_none() {
            let newest = std::mem::take(&mut contents.newest);
            contents.blobs.retain(|digest, _| named.contains(digest) || newest.contains(digest));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Archive {
    fn append(&self, events: &[Event], blobs: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut contents = self.lock();
        if !blobs.is_empty() {
            contents.newest.clear();
        }
        for blob in blobs {
            let digest = Digest::of(blob);
            contents.blobs.insert(digest, blob.as_slice().into());
            contents.newest.push(digest);
        }
        contents.count += events.len() as u64;
        if let Some(journal) = &mut contents.journal {
            journal.append(events)?;
        }
        if let Some(kept) = &mut contents.events {
            kept.extend_from_slice(events);
        }
        Ok(())
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError> {
        self.lock().blobs.get(digest).cloned().ok_or_else(|| StoreError(format!("no blob {digest}")))
    }

    fn events(&self) -> Result<Vec<Event>, StoreError> {
        let mut contents = self.lock();
        if let Some(journal) = &mut contents.journal {
            return journal.events();
        }
        match &contents.events {
            None if contents.count == 0 => Ok(Vec::new()),
            events => events
                .clone()
                .ok_or_else(|| StoreError("the events of this simulation are not kept".to_owned())),
        }
    }
}
