//! What a coordinator of a simulation has stored.

use fedveil_coordinator_core::{Event, Store, StoreError};
use fedveil_provenance::Digest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a simulation keeps of its past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keep {
    /// All events and all blobs, in memory: for tests, and for runs of some rounds.
    #[default]
    Everything,
    /// No event, and the blobs of the newest model alone: memory is flat over rounds, and the coordinator cannot crash.
    Nothing,
}

/// The store of a simulated coordinator.
pub struct Archive(Mutex<Contents>);

struct Contents {
    /// None: events are not kept.
    events: Option<Vec<Event>>,
    /// Events that there were.
    count: u64,
    blobs: BTreeMap<Digest, Arc<[u8]>>,
    /// Blobs of the newest batch that had any.
    newest: Vec<Digest>,
}

impl Archive {
    pub(super) fn new(keep: &Keep) -> Self {
        let events = match keep {
            Keep::Everything => Some(Vec::new()),
            Keep::Nothing => None,
        };
        Self(Mutex::new(Contents { events, count: 0, blobs: BTreeMap::new(), newest: Vec::new() }))
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
            blobs: contents.blobs.clone(),
            newest: Vec::new(),
        }))
    }

    /// A round is over: unless everything is kept, forgets all blobs but these and those that came last.
    pub(super) fn forget_but(&self, named: &[Digest]) {
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
        if let Some(kept) = &mut contents.events {
            kept.extend_from_slice(events);
        }
        Ok(())
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError> {
        self.lock().blobs.get(digest).cloned().ok_or_else(|| StoreError(format!("no blob {digest}")))
    }

    fn events(&self) -> Result<Vec<Event>, StoreError> {
        let contents = self.lock();
        match &contents.events {
            None if contents.count == 0 => Ok(Vec::new()),
            events => events
                .clone()
                .ok_or_else(|| StoreError("the events of this simulation are not kept".to_owned())),
        }
    }
}
