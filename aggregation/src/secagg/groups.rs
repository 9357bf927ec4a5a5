//! The roster, the beacon and the groups: computed alike by every client and the coordinator.
//!
//! Nobody picks who is grouped with whom. Every client commits to a nonce before the roster is fixed and reveals it
//! after; the hash of roster and reveals seeds the shuffle. A coordinator that colludes with clients, or holds messages
//! back, can leave out at most `max_missing_reveals` of the nonces, hence choose among Σ_{i≤w} C(n, i) outcomes.
//!
//! A client checks the signatures of its own group's members only, once it knows which they are. The coordinator may
//! thus invent clients that land in other groups. It gains nothing: of a roster of n clients, c of them certified
//! colluders, the number of colluders among the s members of a group is hypergeometric with these three numbers,
//! whoever the other n − c are. An invented client takes a seat that a colluder or an honest client could have had, and
//! where it takes one in an honest client's group, that client leaves.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};

use super::codec::{CodecError, Kind, Reader, Writer};
use super::config::SessionConfig;
use super::identity::ClientId;
use super::messages::{Advertisement, AdvertisementError, Claim, Nonce};
use super::protocol::GroupTranscript;
use super::signature::all_valid;
use super::transcript::digest;

/// All accepted opening messages of a cohort, in ascending order of client identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    members: Vec<Advertisement>,
    message: Vec<u8>,
    root: [u8; 32],
}

/// Why a roster from the coordinator is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RosterError {
    /// The bytes are not a roster.
    #[error("roster: {0}")]
    Malformed(#[from] CodecError),
    /// Too few clients.
    #[error("cohort has {found} clients, at least {min} were agreed on")]
    TooSmall {
        /// Entries found.
        found: usize,
        /// Agreed minimum.
        min: usize,
    },
    /// An entry that its supposed sender did not make for this session.
    #[error("roster entry {index}: {source}")]
    Entry {
        /// Roster index.
        index: usize,
        /// What is wrong with it.
        source: AdvertisementError,
    },
    /// Two entries show the same X25519 key.
    #[error("two roster entries advertise the same key")]
    RepeatedKey,
}

impl Roster {
    /// Orders and encodes checked entries, each of another client.
    pub(super) fn assemble(config: &SessionConfig, mut members: Vec<Advertisement>) -> Self {
        members.sort_by_key(Advertisement::client_id);
        let mut writer = Writer::new(Kind::Roster).u32(members.len());
        for member in &members {
            writer = writer.u32(member.bytes().len()).bytes(member.bytes());
        }
        let message = writer.finish();
        let root = root(config, &message);
        Self { members, message, root }
    }

    /// The entries in roster order.
    pub fn members(&self) -> &[Advertisement] {
        &self.members
    }

    /// The message for every client of the cohort.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Digest of the configuration and the message.
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// Roster index of a client.
    pub fn index_of(&self, id: ClientId) -> Option<usize> {
        self.members.binary_search_by_key(&id, Advertisement::client_id).ok()
    }
}

fn root(config: &SessionConfig, message: &[u8]) -> [u8; 32] {
    digest("roster", &[config.digest(), message])
}

/// A roster as the coordinator shows it to a client: well-formed, but who made its entries is not checked.
pub struct ClaimedRoster {
    claims: Vec<Claim>,
    /// That of the configuration.
    session: [u8; 32],
    root: [u8; 32],
}

impl ClaimedRoster {
    /// Digest of the configuration under which it was read, and of the message.
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// Parses a roster and checks the structure of every entry, the order (hence that no identity is there twice), that
    /// no key is there twice, and the size.
    pub(super) fn parse(bytes: &[u8], config: &SessionConfig) -> Result<Self, RosterError> {
        let parameters = config.parameters();
        let mut reader = Reader::new(bytes, Kind::Roster)?;
        let count = reader.count(parameters.max_cohort, "number of clients")?;
        if count < parameters.min_cohort {
            return Err(RosterError::TooSmall { found: count, min: parameters.min_cohort });
        }
        let mut claims: Vec<Claim> = Vec::new();
        for index in 0..count {
            let len = reader.u32()?;
            let claim =
                Claim::parse(reader.bytes(len)?).map_err(|source| RosterError::Entry { index, source })?;
            if claims.last().is_some_and(|last| last.client_id() >= claim.client_id()) {
                return Err(CodecError::Order { field: "client identifiers" }.into());
            }
            claims.push(claim);
        }
        reader.finish()?;

        let mut keys: Vec<_> = claims.iter().flat_map(|claim| [claim.box_key, claim.mask_key]).collect();
        keys.sort_unstable();
        if keys.is_sorted_by(|a, b| a < b) {
            Ok(Self { claims, session: *config.digest(), root: root(config, bytes) })
        } else {
            Err(RosterError::RepeatedKey)
        }
    }

    /// The entries in roster order.
    pub(super) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Whether it was read under this configuration.
    pub(super) fn is_of(&self, config: &SessionConfig) -> bool {
        self.session == *config.digest()
    }

    /// The entries of a group, checked at time `now` (unix seconds).
    pub(super) fn verify(
        &self,
        group: &Group,
        config: &SessionConfig,
        now: u64,
    ) -> Result<Vec<Advertisement>, RosterError> {
        let claims = || group.members().iter().map(|&index| (index, self.claims[index].clone()));
        let (mut members, mut signatures) = (Vec::new(), Vec::new());
        for (index, claim) in claims() {
            let checked = claim.verify_unsigned(config, now);
            let (member, signed) = checked.map_err(|source| RosterError::Entry { index, source })?;
            members.push(member);
            signatures.extend(signed);
        }
        if all_valid(&signatures) {
            return Ok(members);
        }
        // Which one is it?
        let verify = |(index, claim): (usize, Claim)| {
            claim.verify(config, now).map_err(|source| RosterError::Entry { index, source })
        };
        claims().map(verify).collect()
    }
}

/// One group of a cohort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    index: usize,
    members: Vec<usize>,
    transcript: GroupTranscript,
}

impl Group {
    /// Index of the group in its cohort.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Roster indices in the order of the beacon's shuffle; a member's place here is its position on the ring.
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// Digest of configuration, roster, beacon and group index: what all later messages of the group are bound to.
    pub fn transcript(&self) -> &[u8; 32] {
        &self.transcript
    }
}

/// Splits the members that revealed into groups. `root` is the roster's; `message` is the message of reveals that
/// `reveals` are from, at least `group_size` of them.
pub(super) fn form_groups(
    config: &SessionConfig,
    root: &[u8; 32],
    message: &[u8],
    reveals: &[(usize, Nonce)],
) -> Vec<Group> {
    let beacon = digest("beacon", &[root, message]);
    let mut members: Vec<usize> = reveals.iter().map(|(index, _)| *index).collect();
    Shuffler::new(&beacon).shuffle(&mut members);
    let mut rest = members.as_slice();
    let sizes = group_sizes(members.len(), config.parameters().group_size);
    sizes
        .into_iter()
        .enumerate()
        .map(|(index, size)| {
            let (head, tail) = rest.split_at(size);
            rest = tail;
            let parts: [&[u8]; 4] = [config.digest(), root, &beacon, &(index as u64).to_le_bytes()];
            Group { index, members: head.to_vec(), transcript: digest("group", &parts) }
        })
        .collect()
}

/// The numbers `0..cohort` in groups as [`form_groups`] would make them of this beacon: for simulations that leave the
/// cryptography out. `cohort` is at least `group_size`.
pub fn random_groups(beacon: &[u8; 32], cohort: usize, group_size: usize) -> Vec<Vec<usize>> {
    let mut members: Vec<usize> = (0..cohort).collect();
    Shuffler::new(beacon).shuffle(&mut members);
    let mut rest = members.into_iter();
    let sizes = group_sizes(cohort, group_size);
    sizes.into_iter().map(|size| rest.by_ref().take(size).collect()).collect()
}

/// ⌊cohort / group_size⌋ sizes that sum to `cohort`, the larger ones first.
pub(super) fn group_sizes(cohort: usize, group_size: usize) -> Vec<usize> {
    let groups = cohort / group_size;
    (0..groups).map(|index| cohort / groups + usize::from(index < cohort % groups)).collect()
}

/// Fisher–Yates over the ChaCha20 key stream (RFC 8439, zero nonce) of the beacon.
struct Shuffler(ChaCha20);

impl Shuffler {
    fn new(beacon: &[u8; 32]) -> Self {
        Self(ChaCha20::new(beacon.into(), &[0; 12].into()))
    }

    fn shuffle(&mut self, items: &mut [usize]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }

    /// Uniform below `bound`: the first 2^32 mod `bound` draws are thrown away, the rest is a multiple of `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        let incomplete = bound.wrapping_neg() % bound;
        loop {
            let mut word = [0; 4];
            self.0.apply_keystream(&mut word);
            let draw = u32::from_le_bytes(word);
            if draw >= incomplete {
                return draw % bound;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by hand from the key stream of RFC 8439 appendix A.1, vector 1.
    #[test]
    fn the_shuffle_is_pinned() {
        let mut items: Vec<usize> = (0..10).collect();
        Shuffler::new(&[0; 32]).shuffle(&mut items);
        assert_eq!(items, [6, 8, 2, 7, 9, 5, 1, 0, 3, 4]);
    }

    /// χ² of the 24 orders of four items over 24,000 beacons; the 99.99 % quantile for 23 degrees of freedom is 58.6.
    #[test]
    fn all_orders_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for trial in 0..24_000_u32 {
            let mut items: Vec<usize> = (0..4).collect();
            Shuffler::new(&digest("test", &[&trial.to_le_bytes()])).shuffle(&mut items);
            *counts.entry(items).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        let chi_squared: f64 =
            counts.values().map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi_squared < 58.6, "χ² = {chi_squared}");
    }

    #[test]
    fn sizes_differ_by_at_most_one() {
        assert_eq!(group_sizes(20, 6), [7, 7, 6]);
        assert_eq!(group_sizes(18, 6), [6, 6, 6]);
        assert_eq!(group_sizes(11, 6), [11]);
        let groups = random_groups(&[0; 32], 10, 4);
        assert_eq!(groups, [vec![6, 8, 2, 7, 9], vec![5, 1, 0, 3, 4]], "the pinned shuffle, cut");
    }
}
