//! Checks whose results the participants of one process share.
//!
//! A simulation holds a thousand participants, and each of them is sent the same plan, the same publication and the same
//! model. A check is a function of the bytes, of what is pinned and of where the client stands; whoever asks with the very
//! same gets the very same answer, so that computing it once computes it for all. Entries are found by the bytes
//! themselves, not by a digest of them, and by all that the check depends on.
//!
//! A client in production is alone and has no use for it.

use crate::participant::contribution::Samplers;
use crate::policy::{Policy, PolicyRefusal};
use bytes::Bytes;
use fedveil_aggregation::secagg::{self, AnnouncedGroups, ClaimedRoster};
use fedveil_proto_plan::{PlanError, SignedPlan, Terms};
use fedveil_provenance::{self as provenance, Accepted, Digest, Head};
use std::sync::{Arc, Mutex, PoisonError};

/// The task, the digest of a publication, and the head that it was checked against.
type Publication = (Digest, [u8; 32], Option<Head>);

/// Results of the newest checks.
#[derive(Default)]
pub struct Memo {
    pub(crate) plans: Cell<([u8; 32], Policy), Result<Agreed, PlanError>>,
    pub(crate) publications: Cell<Publication, Result<Announced, provenance::Refusal>>,
    pub(crate) digests: Cell<(), Digest>,
    /// By the digest of a session's configuration.
    pub(crate) rosters: Cell<[u8; 32], Result<Arc<ClaimedRoster>, secagg::Refusal>, SESSIONS>,
    /// By the root of a roster and the time.
    pub(crate) groups: Cell<([u8; 32], u64), Result<Arc<AnnouncedGroups>, secagg::Refusal>, SESSIONS>,
}

/// A plan by the pinned signer, and whether the owner's policy allows it.
#[derive(Clone)]
pub(crate) struct Agreed {
    pub(crate) plan: Arc<SignedPlan>,
    pub(crate) terms: Arc<Terms>,
    pub(crate) noise: Arc<Samplers>,
    pub(crate) allowed: Result<(), PolicyRefusal>,
}

/// A publication that follows from what the client holds.
#[derive(Clone)]
pub(crate) struct Announced {
    pub(crate) accepted: Accepted,
    pub(crate) leaf_index: u64,
    /// Whether the plan can have led to the ε that its manifest states.
    pub(crate) is_possible: bool,
}

/// Results of one kind of check.
pub(crate) struct Cell<K, V, const ENTRIES: usize = 8>(Mutex<Vec<(K, Bytes, V)>>);

/// Sessions that are remembered: one runs at a time, and one before it may have messages under way.
const SESSIONS: usize = 2;

impl<K, V, const ENTRIES: usize> Default for Cell<K, V, ENTRIES> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<K: PartialEq, V: Clone, const ENTRIES: usize> Cell<K, V, ENTRIES> {
    /// The result of `check`, which must be a function of `key` and `bytes`. Who asks while it is computed waits for it.
    pub(crate) fn get(&self, key: K, bytes: &Bytes, check: impl FnOnce() -> V) -> V {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Mostly they are one piece of memory; comparing two takes longer than all else.
        let find = |same: fn(&Bytes, &Bytes) -> bool| {
            entries.iter().find(|(of, checked, _)| *of == key && same(checked, bytes))
        };
        let found = find(are_one).or_else(|| find(|one, other| one == other));
        if let Some((_, _, result)) = found {
            return result.clone();
        }
        let result = check();
        if entries.len() >= ENTRIES {
            entries.remove(0);
        }
        entries.push((key, bytes.clone(), result.clone()));
        result
    }
}

fn are_one(one: &Bytes, other: &Bytes) -> bool {
    one.as_ptr() == other.as_ptr() && one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_made_once_for_each_key_and_bytes() {
        let cell: Cell<u32, (u32, usize)> = Cell::default();
        let mut checks = 0;
        let mut ask = |key: u32, bytes: &'static [u8]| {
            cell.get(key, &Bytes::copy_from_slice(bytes), || {
                checks += 1;
                (key, bytes.len())
            })
        };
        for _ in 0..3 {
            assert_eq!(ask(1, b"one"), (1, 3));
            assert_eq!(ask(2, b"one"), (2, 3));
            assert_eq!(ask(1, b"onf"), (1, 3));
        }
        assert_eq!(checks, 3);
    }

    #[test]
    fn the_oldest_entry_makes_room() {
        let cell: Cell<usize, u32, 3> = Cell::default();
        let bytes = Bytes::new();
        for key in 0..=3 {
            cell.get(key, &bytes, || 1);
        }
        assert_eq!(cell.get(1, &bytes, || 2), 1);
        assert_eq!(cell.get(0, &bytes, || 2), 2, "it was checked anew");
    }
}
