//! The coordinator's side: it forwards, counts and adds, and is trusted with none of the clients' checks.
//!
//! ```text
//!  Cohort ──seal──► Roster ──form_groups──► GroupServer, one per group
//!                                           Sharing ──close_sharing──► Collecting ──close_collecting──► Consistency
//!                                             │ too few left: Over                   ──close_consistency──► Unmasking
//!                                             ▼                                        ──close_unmasking──► Over
//!                                           Abort                                                  │
//!                                 inputs ──► Accumulator ─────────────────────────► Unmasking::sum ◄┘
//! ```
//!
//! `check_*` reads and judges a client's message; `apply_*` records what was checked and cannot fail; `close_*` ends a
//! phase. All are deterministic, so replaying checked messages and closings rebuilds the state. A phase is left once,
//! hence a group yields one survivor set, one list of signatures for each survivor and one sum. Vectors are never in a
//! [`GroupServer`]; an [`Upload`](super::Upload) decodes them and an [`Accumulator`] adds them as they come, so a group
//! costs the memory of one vector.
//!
//! Every phase is closed only if each member that shared has t neighbours left: with fewer, its secret could not be
//! recovered and the group would fail at the end, after shares had been revealed.

use std::collections::{BTreeMap, BTreeSet};

use super::codec::CodecError;
use super::config::SessionConfig;
use super::graph::Graph;
use super::groups::{Group, Roster, form_groups};
use super::identity::ClientId;
use super::messages::{
    Advertisement, AdvertisementError, Consistency, Delivery, MemberSet, Nonce, Shares, Survivors, Unmask,
    encode_reveals, encode_signatures,
};
use super::protocol::GroupTranscript;
use super::unmasking::{Accumulator, Unmasking};
use super::upload::MaskedInput;

/// Why a client's message is not accepted. It changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are not the expected message.
    #[error("message: {0}")]
    Malformed(#[from] CodecError),
    /// The opening message is not acceptable.
    #[error(transparent)]
    Advertisement(#[from] AdvertisementError),
    /// Another client advertised this key.
    #[error("advertised key belongs to another client's advertisement")]
    RepeatedKey,
    /// The roster is full.
    #[error("cohort is full at {max} clients")]
    CohortFull {
        /// max_cohort
        max: usize,
    },
    /// The client sent this message before.
    #[error("message was already accepted from this client")]
    Repeated,
    /// Another member's input, or one with its beginning: whoever copies an input knows nothing of its own.
    #[error("input is the same as another member's")]
    Copied,
    /// The sender is not on the roster, or not in this group.
    #[error("sender is not a member")]
    NotAMember,
    /// The nonce is not the one committed to.
    #[error("revealed nonce is not the committed one")]
    AlteredReveal,
    /// The message belongs to another phase.
    #[error("group is in the phase {phase:?}, not in {expected:?}")]
    Phase {
        /// The group's phase.
        phase: Phase,
        /// The phase that takes such a message.
        expected: Phase,
    },
    /// An input by a client that is declared dropped: its mask key may already be known, so it is not even kept.
    #[error("input comes after its sender was declared dropped")]
    LateInput,
    /// An input by a client that did not share its secrets.
    #[error("sender did not share its secrets, so its masks could not be removed")]
    NotASharer,
    /// A signature or shares by a client whose input is not in the sum, or shares by one that was not asked.
    #[error("sender is not among the survivors")]
    NotASurvivor,
    /// The signature is not on this group's survivor set.
    #[error("signature is not the sender's on this survivor set")]
    BadSignature,
}

/// Why a cohort or a group ends without a sum. Other groups go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Abort {
    /// Too few clients advertised.
    #[error("cohort has {found} clients, it takes {min}")]
    CohortTooSmall {
        /// Clients on the roster.
        found: usize,
        /// min_cohort
        min: usize,
    },
    /// Clients would refuse the beacon.
    #[error("{missing} reveals are missing, clients accept {max}")]
    MissingReveals {
        /// Clients that did not reveal.
        missing: usize,
        /// max_missing_reveals
        max: usize,
    },
    /// Too few members shared.
    #[error("{found} members shared their secrets, it takes {min}")]
    TooFewSharers {
        /// |U1|
        found: usize,
        /// u_min
        min: usize,
    },
    /// Too few members submitted.
    #[error("{found} members submitted, it takes {min}")]
    TooFewSurvivors {
        /// |U2|
        found: usize,
        /// u_min
        min: usize,
    },
    /// Too few are left who could recover a member's secret.
    #[error("client {owner} has {found} neighbours left, it takes {min}")]
    TooFewNeighbours {
        /// Whose secret it is; it may itself be among the survivors.
        owner: ClientId,
        /// Its neighbours that submitted, can answer, or answered.
        found: usize,
        /// t
        min: usize,
    },
    /// The shares of a member's secret give something else than what it committed to, and too many of them are wrong
    /// to tell which.
    #[error("shares of client {owner}'s secret do not recover it")]
    BadShares {
        /// Whose secret it is; who falsified shares is not known.
        owner: ClientId,
    },
    /// The accumulator holds other inputs than the survivors' of this group.
    #[error("accumulated inputs are not those of the survivors")]
    OtherInputs,
    /// The caller closed another phase than the current one.
    #[error("group is in the phase {phase:?}, not in {expected:?}")]
    OutOfOrder {
        /// The group's phase, which it stays in.
        phase: Phase,
        /// The phase to close.
        expected: Phase,
    },
}

/// Clients that advertised, until the roster is sealed.
#[derive(Debug, Clone)]
pub struct Cohort {
    config: SessionConfig,
    members: BTreeMap<ClientId, Advertisement>,
    keys: BTreeSet<[u8; 32]>,
}

impl Cohort {
    /// An empty cohort.
    pub fn new(config: SessionConfig) -> Self {
        Self { config, members: BTreeMap::new(), keys: BTreeSet::new() }
    }

    /// Clients so far.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether this client has advertised.
    pub fn contains(&self, client: &ClientId) -> bool {
        self.members.contains_key(client)
    }

    /// Whether nobody advertised yet.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Judges an opening message at time `now` (unix seconds). The caller compares
    /// [`client_id`](Advertisement::client_id) with who the transport says is speaking.
    pub fn check_advertise(&self, message: &[u8], now: u64) -> Result<Advertisement, Fault> {
        let max = self.config.parameters().max_cohort;
        if self.members.len() >= max {
            return Err(Fault::CohortFull { max });
        }
        let advertisement = Advertisement::verify(message, &self.config, now)?;
        if self.members.contains_key(&advertisement.client_id()) {
            return Err(Fault::Repeated);
        }
        if [advertisement.box_key(), advertisement.mask_key()].iter().any(|key| self.keys.contains(*key)) {
            return Err(Fault::RepeatedKey);
        }
        Ok(advertisement)
    }

    /// Records a checked opening message.
    pub fn apply_advertise(&mut self, advertisement: Advertisement) {
        self.keys.extend([advertisement.box_key(), advertisement.mask_key()]);
        self.members.insert(advertisement.client_id(), advertisement);
    }

    /// Fixes the roster.
    pub fn seal(self) -> Result<Roster, Abort> {
        let (found, min) = (self.members.len(), self.config.parameters().min_cohort);
        if found < min {
            return Err(Abort::CohortTooSmall { found, min });
        }
        Ok(Roster::assemble(&self.config, self.members.into_values().collect()))
    }
}

impl Roster {
    /// Judges a revealed nonce.
    pub fn check_reveal(
        &self,
        config: &SessionConfig,
        from: ClientId,
        message: &[u8],
    ) -> Result<Nonce, Fault> {
        let index = self.index_of(from).ok_or(Fault::NotAMember)?;
        let nonce = Nonce::decode(message)?;
        if self.members()[index].commits_to_nonce(config, &nonce) {
            Ok(nonce)
        } else {
            Err(Fault::AlteredReveal)
        }
    }

    /// Ends the reveals: the message for every client of the cohort, and the groups that all compute from it. Entries
    /// of `reveals` that [`check_reveal`](Self::check_reveal) did not yield are left out.
    pub fn form_groups(
        &self,
        config: &SessionConfig,
        reveals: &BTreeMap<ClientId, Nonce>,
    ) -> Result<(Vec<u8>, Vec<Group>), Abort> {
        let reveals: Vec<(usize, Nonce)> = self
            .members()
            .iter()
            .enumerate()
            .filter_map(|(index, member)| Some((index, *reveals.get(&member.client_id())?)))
            .collect();
        let (missing, max) = (self.members().len() - reveals.len(), config.parameters().max_missing_reveals);
        if missing > max {
            return Err(Abort::MissingReveals { missing, max });
        }
        let message = encode_reveals(&reveals);
        let groups = form_groups(config, self.root(), &message, &reveals);
        Ok((message, groups))
    }
}

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Takes sealed shares.
    Sharing,
    /// Takes masked inputs.
    Collecting,
    /// Takes signatures on the survivor set.
    Consistency,
    /// Takes the survivors' shares.
    Unmasking,
    /// Takes nothing: the sum can be computed, or the group was given up.
    Over,
}

/// One group, from the groups' formation to its sum.
#[derive(Clone)]
pub struct GroupServer {
    config: SessionConfig,
    transcript: GroupTranscript,
    graph: Graph,
    /// By position.
    members: Vec<Advertisement>,
    positions: BTreeMap<ClientId, usize>,
    state: State,
}

#[derive(Clone)]
enum State {
    Sharing {
        shares: BTreeMap<usize, Shares>,
    },
    Collecting {
        sharers: MemberSet,
        /// Of the inputs that are part of the sum.
        digests: BTreeMap<usize, [u8; 32]>,
    },
    Consistency {
        survivors: Survivors,
        message: Vec<u8>,
        signatures: BTreeMap<usize, Consistency>,
    },
    Unmasking {
        survivors: Survivors,
        /// Who got enough signatures to answer.
        asked: MemberSet,
        answers: BTreeMap<usize, Unmask>,
    },
    Over,
}

impl GroupServer {
    /// A group that waits for shares.
    pub fn new(config: &SessionConfig, roster: &Roster, group: &Group) -> Self {
        let members: Vec<Advertisement> =
            group.members().iter().map(|&index| roster.members()[index].clone()).collect();
        let positions = members.iter().map(Advertisement::client_id).zip(0..).collect();
        Self {
            config: config.clone(),
            transcript: *group.transcript(),
            graph: Graph::new(members.len(), config.parameters().degree),
            members,
            positions,
            state: State::Sharing { shares: BTreeMap::new() },
        }
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Sharing { .. } => Phase::Sharing,
            State::Collecting { .. } => Phase::Collecting,
            State::Consistency { .. } => Phase::Consistency,
            State::Unmasking { .. } => Phase::Unmasking,
            State::Over => Phase::Over,
        }
    }

    /// All members, by position.
    pub fn members(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.members.iter().map(Advertisement::client_id)
    }

    /// Members whose message this phase accepted.
    pub fn received(&self) -> Vec<ClientId> {
        self.ids(|position| self.has_answered(position))
    }

    /// Members whose message this phase can still accept; once there are none, nothing is gained by waiting.
    pub fn awaited(&self) -> Vec<ClientId> {
        self.ids(|position| self.may_answer(position) && !self.has_answered(position))
    }

    /// Judges a member's sealed shares.
    pub fn check_shares(&self, from: ClientId, message: &[u8]) -> Result<Shares, Fault> {
        self.check_sender(from, Phase::Sharing)?;
        Ok(Shares::decode(message, self.graph.degree())?)
    }

    /// Records checked shares.
    pub fn apply_shares(&mut self, from: ClientId, message: Shares) {
        if let (Some(position), State::Sharing { shares }) = (self.answering(from), &mut self.state) {
            shares.insert(position, message);
        }
    }

    /// Ends the sharing: for each member that shared, the boxes for it. Members of whose neighbours fewer than t shared
    /// are left out as if they had not shared either, for they would refuse. Too few: the group is over.
    pub fn close_sharing(&mut self) -> Result<BTreeMap<ClientId, Vec<u8>>, Abort> {
        let State::Sharing { shares } = self.leave(Phase::Sharing)? else { unreachable!("left that phase") };
        let neighbours: Vec<Vec<usize>> =
            (0..self.members.len()).map(|position| self.graph.neighbours(position)).collect();
        let parameters = self.config.parameters();
        let mut sharers = MemberSet::of(self.members.len(), shares.keys().copied());
        let lonely = |sharers: &MemberSet| {
            let few = |at: &usize| sharers.among(&neighbours[*at]).count() < parameters.threshold;
            sharers.iter().find(few)
        };
        while let Some(position) = lonely(&sharers) {
            sharers.remove(position);
        }
        let (found, min) = (sharers.len(), parameters.min_survivors);
        if found < min {
            return Err(Abort::TooFewSharers { found, min });
        }
        let boxed = |sender: usize, recipient: usize| {
            let nth = neighbours[sender].binary_search(&recipient).expect("neighbours are so mutually");
            &shares[&sender].boxes[nth]
        };
        let delivery = |recipient: usize| {
            let senders = sharers.among(&neighbours[recipient]);
            Delivery::encode(&sharers, senders.map(|sender| boxed(sender, recipient)))
        };
        let deliveries =
            sharers.iter().map(|position| (self.members[position].client_id(), delivery(position))).collect();
        self.state = State::Collecting { sharers, digests: BTreeMap::new() };
        Ok(deliveries)
    }

    /// Whether an input from this client would be accepted, before its bytes are read.
    pub fn expects_input(&self, from: ClientId) -> Result<(), Fault> {
        self.check_sender(from, Phase::Collecting).map(|_| ())
    }

    /// Judges a member's masked vector. An accepted one goes into the group's [`Accumulator`].
    pub fn check_masked_input(&self, from: ClientId, input: &MaskedInput) -> Result<(), Fault> {
        self.expects_input(from)?;
        let shape = self.config.shape();
        match &self.state {
            // Shorter inputs may well be the same by chance.
            State::Collecting { digests, .. } if shape.masked * shape.masked_bits as usize >= 48 => {
                let copied = digests.values().any(|digest| digest == input.digest());
                if copied { Err(Fault::Copied) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// Records that a checked input is part of the sum; `digest` is the input's.
    pub fn apply_masked_input(&mut self, from: ClientId, digest: [u8; 32]) {
        if let (Some(position), State::Collecting { digests, .. }) = (self.answering(from), &mut self.state) {
            digests.insert(position, digest);
        }
    }

    /// An empty sum for this group's inputs.
    pub fn accumulator(&self) -> Accumulator {
        Accumulator::new(self.transcript, &self.config.shape())
    }

    /// Ends the collection: the survivor set, the same message for every survivor. Too few: the group is over.
    pub fn close_collecting(&mut self) -> Result<Vec<u8>, Abort> {
        let State::Collecting { sharers, digests } = self.leave(Phase::Collecting)? else {
            unreachable!("left that phase")
        };
        let (found, min) = (digests.len(), self.config.parameters().min_survivors);
        if found < min {
            return Err(Abort::TooFewSurvivors { found, min });
        }
        let submitters = MemberSet::of(self.members.len(), digests.into_keys());
        self.check_neighbours(&sharers, &submitters)?;
        let survivors = Survivors { sharers, submitters };
        let message = survivors.encode();
        self.state = State::Consistency { survivors, message: message.clone(), signatures: BTreeMap::new() };
        Ok(message)
    }

    /// Judges a survivor's signature on the survivor set.
    pub fn check_consistency(&self, from: ClientId, message: &[u8]) -> Result<Consistency, Fault> {
        let position = self.check_sender(from, Phase::Consistency)?;
        let consistency = Consistency::decode(message)?;
        let key = self.members[position].identity().public_key();
        match &self.state {
            State::Consistency { message, .. } if consistency.is_valid(&self.transcript, message, key) => {
                Ok(consistency)
            }
            _ => Err(Fault::BadSignature),
        }
    }

    /// Records a checked signature.
    pub fn apply_consistency(&mut self, from: ClientId, consistency: Consistency) {
        if let (Some(position), State::Consistency { signatures, .. }) =
            (self.answering(from), &mut self.state)
        {
            signatures.insert(position, consistency);
        }
    }

    /// Ends the consistency round: for each signer, the signatures of its neighbours. Signers with fewer than t of them
    /// would refuse, so they get none and are not asked. The messages ask for the shares, so whatever must be durable
    /// before a sum is known must be so before they are sent. Too few: the group is over.
    pub fn close_consistency(&mut self) -> Result<BTreeMap<ClientId, Vec<u8>>, Abort> {
        let State::Consistency { survivors, signatures, .. } = self.leave(Phase::Consistency)? else {
            unreachable!("left that phase")
        };
        let mut asked = MemberSet::empty(self.members.len());
        let mut messages = BTreeMap::new();
        for &signer in signatures.keys() {
            let neighbours = self.graph.neighbours(signer);
            let theirs = neighbours.iter().filter_map(|other| Some((*other, *signatures.get(other)?)));
            let theirs: Vec<(usize, Consistency)> = theirs.collect();
            if theirs.len() >= self.config.parameters().threshold {
                asked.insert(signer);
                messages.insert(self.members[signer].client_id(), encode_signatures(&theirs));
            }
        }
        self.check_neighbours(&survivors.sharers, &asked)?;
        self.state = State::Unmasking { survivors, asked, answers: BTreeMap::new() };
        Ok(messages)
    }

    /// Judges a survivor's shares, as far as shares can be judged one by one.
    pub fn check_unmask(&self, from: ClientId, message: &[u8]) -> Result<Unmask, Fault> {
        let position = self.check_sender(from, Phase::Unmasking)?;
        let owners = match &self.state {
            State::Unmasking { survivors, .. } => {
                survivors.sharers.among(&self.graph.neighbours(position)).count()
            }
            _ => 0,
        };
        Ok(Unmask::decode(message, owners)?)
    }

    /// Records checked shares.
    pub fn apply_unmask(&mut self, from: ClientId, message: Unmask) {
        if let (Some(position), State::Unmasking { answers, .. }) = (self.answering(from), &mut self.state) {
            answers.insert(position, message);
        }
    }

    /// Ends the group: what it takes to compute the sum. Too few answers: the group is over.
    pub fn close_unmasking(&mut self) -> Result<Unmasking, Abort> {
        let State::Unmasking { survivors, answers, .. } = self.leave(Phase::Unmasking)? else {
            unreachable!("left that phase")
        };
        let answered = MemberSet::of(self.members.len(), answers.keys().copied());
        self.check_neighbours(&survivors.sharers, &answered)?;
        Ok(Unmasking {
            config: self.config.clone(),
            transcript: self.transcript,
            graph: self.graph,
            members: self.members.clone(),
            survivors,
            answers,
        })
    }

    #[cfg(test)]
    pub(super) fn transcript(&self) -> &GroupTranscript {
        &self.transcript
    }

    #[cfg(test)]
    pub(super) fn advertisements(&self) -> &[Advertisement] {
        &self.members
    }

    /// Takes the state out, for `close_*` to put the next one in; what is left is [`Phase::Over`].
    fn leave(&mut self, expected: Phase) -> Result<State, Abort> {
        let phase = self.phase();
        if phase == expected {
            Ok(std::mem::replace(&mut self.state, State::Over))
        } else {
            Err(Abort::OutOfOrder { phase, expected })
        }
    }

    /// Whether each owner of a secret has enough neighbours among those that are left.
    fn check_neighbours(&self, owners: &MemberSet, left: &MemberSet) -> Result<(), Abort> {
        let min = self.config.parameters().threshold;
        owners.iter().try_for_each(|owner| {
            let found = left.among(&self.graph.neighbours(owner)).count();
            let owner = self.members[owner].client_id();
            if found < min { Err(Abort::TooFewNeighbours { owner, found, min }) } else { Ok(()) }
        })
    }

    /// Position of a sender from whom this phase takes a message now.
    fn check_sender(&self, from: ClientId, expected: Phase) -> Result<usize, Fault> {
        let position = self.position(from).ok_or(Fault::NotAMember)?;
        let phase = self.phase();
        if phase != expected {
            let late = expected == Phase::Collecting && phase != Phase::Sharing;
            return Err(if late { Fault::LateInput } else { Fault::Phase { phase, expected } });
        }
        if !self.may_answer(position) {
            let not_shared = expected == Phase::Collecting;
            return Err(if not_shared { Fault::NotASharer } else { Fault::NotASurvivor });
        }
        if self.has_answered(position) { Err(Fault::Repeated) } else { Ok(position) }
    }

    /// Position of a sender whose message `apply_*` may record.
    fn answering(&self, from: ClientId) -> Option<usize> {
        self.position(from).filter(|&position| self.may_answer(position))
    }

    fn may_answer(&self, position: usize) -> bool {
        match &self.state {
            State::Sharing { .. } => true,
            State::Collecting { sharers, .. } => sharers.contains(position),
            State::Consistency { survivors, .. } => survivors.submitters.contains(position),
            State::Unmasking { asked, .. } => asked.contains(position),
            State::Over => false,
        }
    }

    fn has_answered(&self, position: usize) -> bool {
        match &self.state {
            State::Sharing { shares } => shares.contains_key(&position),
            State::Collecting { digests, .. } => digests.contains_key(&position),
            State::Consistency { signatures, .. } => signatures.contains_key(&position),
            State::Unmasking { answers, .. } => answers.contains_key(&position),
            State::Over => false,
        }
    }

    fn position(&self, id: ClientId) -> Option<usize> {
        self.positions.get(&id).copied()
    }

    fn ids(&self, of: impl Fn(usize) -> bool) -> Vec<ClientId> {
        self.members().enumerate().filter(|(position, _)| of(*position)).map(|(_, id)| id).collect()
    }
}
