//! The client's side: one type for each message it waits for, consumed by the message.
//!
//! A step either yields the next state and the reply, or a [`Refusal`]; in both cases the old state is gone, its
//! secrets erased. So a client answers one roster, one list of reveals, one delivery, one survivor set and one list of
//! signatures per session, whatever a coordinator sends twice. A lost reply is repeated by the transport from its own
//! copy, never computed again. After a crash the client is a drop-out: no state can be stored.
//!
//! These checks are what a client's privacy rests on; the coordinator is trusted with none of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::agreement::{Agreed, Route, Secret, open, pairwise_mask_key, seal, self_mask_key};
use super::announced::AnnouncedGroups;
use super::codec::CodecError;
use super::config::SessionConfig;
use super::graph::Graph;
use super::groups::{ClaimedRoster, Group, RosterError};
use super::identity::{IdentityCertificate, IdentityError};
use super::messages::{
    Advertisement, Claim, Consistency, Delivery, MemberSet, Nonce, Offer, SealedBox, Shares, Survivors,
    Unmask, decode_signatures, nonce_commitment, seed_commitment, survivors_digest,
};
use super::prg::Sign;
use super::protocol::GroupTranscript;
use super::ring::element_mask;
use super::shamir::{SHARE_LEN, Share, split};
use super::signature::{Signed, all_valid};
use super::upload::encode_upload;

/// Why a client leaves the session. Whatever it had not sent by then stays with it, and is erased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The client's own certificate would not be accepted by others.
    #[error("own identity: {0}")]
    OwnIdentity(#[source] IdentityError),
    /// Not the expected message.
    #[error("coordinator's message: {0}")]
    Malformed(#[from] CodecError),
    /// The roster is not one to take part in.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// The roster shows another entry for this client than the one it sent, or none.
    #[error("own advertisement is missing from the roster or altered")]
    NotInRoster,
    /// The reveals show another nonce for this client, or none.
    #[error("own nonce is missing from the reveals or altered")]
    NotRevealed,
    /// A nonce is not the one that was committed to.
    #[error("nonce of roster entry {index} is not the committed one")]
    AlteredReveal {
        /// Roster index.
        index: usize,
    },
    /// More nonces were left out than agreed, so the coordinator may have chosen the groups.
    #[error("{missing} reveals are missing, {max} were agreed on")]
    MissingReveals {
        /// Nonces left out.
        missing: usize,
        /// Agreed maximum.
        max: usize,
    },
    /// The delivery leaves this client out of those who shared.
    #[error("own shares are not among the delivered")]
    NotASharer,
    /// Too few members shared.
    #[error("{found} group members shared their secrets, at least {min} must survive")]
    TooFewSharers {
        /// |U1|
        found: usize,
        /// u_min
        min: usize,
    },
    /// Too few of those with whom this client shares masks and secrets are left.
    #[error("{found} neighbours shared their secrets, at least {min} must")]
    TooFewNeighbours {
        /// Neighbours in U1.
        found: usize,
        /// t
        min: usize,
    },
    /// A box was not sealed by that member for this client in this group.
    #[error("box from group position {sender} does not open")]
    BadBox {
        /// Position of the supposed sender.
        sender: usize,
    },
    /// The caller's vector is of the wrong length.
    #[error("input has {found} elements, the session's vectors have {expected}")]
    InputLength {
        /// Elements given.
        found: usize,
        /// Elements of the session's vectors.
        expected: usize,
    },
    /// The caller's vector leaves the ring.
    #[error("input element {index} is not below 2^{bits}")]
    InputRange {
        /// First offending element.
        index: usize,
        /// Ring width.
        bits: u32,
    },
    /// The survivor set names other sharers than the delivery did.
    #[error("survivor set disagrees with the delivery on who shared")]
    OtherSharers,
    /// A survivor never shared.
    #[error("survivor set has a member that never shared")]
    UnknownSurvivor,
    /// This client submitted and is declared dropped.
    #[error("own input is left out of the survivor set")]
    NotASurvivor,
    /// The sum would hide this client among too few.
    #[error("{found} survivors, at least {min} were agreed on")]
    TooFewSurvivors {
        /// |U2|
        found: usize,
        /// u_min
        min: usize,
    },
    /// A signer is no surviving neighbour, or signed other survivors, another session, or nothing.
    #[error("signature of group position {signer} on the survivor set is not valid")]
    BadSignature {
        /// Position of the supposed signer.
        signer: usize,
    },
    /// Too few neighbours saw the same survivors.
    #[error("{found} neighbours signed the survivor set, at least {min} must")]
    TooFewSignatures {
        /// Valid signatures.
        found: usize,
        /// t
        min: usize,
    },
}

/// Starts a session: fresh keys, and the opening message for the coordinator. `key` is the client's identity key and
/// `certificate` what the authority issued for it; `now` is unix seconds.
pub fn advertise(
    config: SessionConfig,
    key: &SigningKey,
    certificate: &[u8],
    now: u64,
    rng: &mut impl CryptoRng,
) -> Result<(AwaitRoster, Vec<u8>), Refusal> {
    let identity =
        IdentityCertificate::verify(certificate, config.authority(), now).map_err(Refusal::OwnIdentity)?;
    if identity.public_key() != &key.verifying_key() {
        return Err(Refusal::OwnIdentity(IdentityError::OtherKey));
    }
    let [boxes, masks, seed, nonce] = [(); 4].map(|()| Secret::random(rng));
    let nonce = Nonce(*nonce.as_bytes());
    let id = identity.client_id();
    let offer = Offer {
        certificate,
        box_key: boxes.public_key(),
        mask_key: masks.public_key(),
        nonce_commitment: nonce_commitment(&config, &id, &nonce.0),
        seed_commitment: seed_commitment(&config, &id, seed.as_bytes()),
    };
    let message = offer.sign(&config, key);
    let state = AwaitRoster {
        config,
        key: key.clone(),
        advertisement: message.clone(),
        nonce,
        secrets: Secrets { boxes, masks, seed },
    };
    Ok((state, message))
}

/// A client's secrets of one session.
struct Secrets {
    /// X25519, for sealed boxes.
    boxes: Secret,
    /// X25519, for pairwise masks; shared.
    masks: Secret,
    /// b, for the self mask; shared.
    seed: Secret,
}

/// Has advertised; waits for the roster.
pub struct AwaitRoster {
    config: SessionConfig,
    key: SigningKey,
    advertisement: Vec<u8>,
    nonce: Nonce,
    secrets: Secrets,
}

impl AwaitRoster {
    /// Checks that the roster is well-formed, of an agreed size, and has this client's entry. The reply reveals the
    /// nonce, for this roster and no other.
    pub fn on_roster(self, message: &[u8]) -> Result<(AwaitReveals, Vec<u8>), Refusal> {
        let roster = self.read(message)?;
        self.on_claimed(roster.into())
    }

    /// The first half of [`on_roster`](Self::on_roster), which is the same for all clients of the session.
    pub fn read(&self, message: &[u8]) -> Result<ClaimedRoster, Refusal> {
        Ok(ClaimedRoster::parse(message, &self.config)?)
    }

    /// The other half, with a roster that this client, or another one of its session, has read.
    pub fn on_claimed(self, roster: Arc<ClaimedRoster>) -> Result<(AwaitReveals, Vec<u8>), Refusal> {
        let is_own = |claim: &Claim| claim.bytes() == self.advertisement;
        let own = roster.claims().iter().position(is_own).filter(|_| roster.is_of(&self.config));
        let index = own.ok_or(Refusal::NotInRoster)?;
        let reply = self.nonce.encode();
        let Self { config, key, nonce, secrets, .. } = self;
        Ok((AwaitReveals { config, key, roster, index, nonce, secrets }, reply))
    }

    /// The session.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }
}

/// Has revealed its nonce; waits for those of the others.
pub struct AwaitReveals {
    config: SessionConfig,
    key: SigningKey,
    roster: Arc<ClaimedRoster>,
    index: usize,
    nonce: Nonce,
    secrets: Secrets,
}

impl AwaitReveals {
    /// Checks the nonces, works out its group, and checks the roster's entry of every member of that group at time `now`
    /// (unix seconds). The reply has the shares of its secrets, sealed for each of its neighbours.
    pub fn on_reveals(
        self,
        message: &[u8],
        now: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<(AwaitDelivery, Vec<u8>), Refusal> {
        let groups = self.read(message, now)?;
        self.on_announced(&groups, rng)
    }

    /// The roster.
    pub fn roster(&self) -> &ClaimedRoster {
        &self.roster
    }

    /// The first half of [`on_reveals`](Self::on_reveals), which is the same for all clients of the session.
    pub fn read(&self, message: &[u8], now: u64) -> Result<AnnouncedGroups, Refusal> {
        AnnouncedGroups::read(self.roster.clone(), &self.config, message, now)
    }

    /// The other half, with groups that this client, or another one of its session, has read.
    pub fn on_announced(
        self,
        groups: &AnnouncedGroups,
        rng: &mut impl CryptoRng,
    ) -> Result<(AwaitDelivery, Vec<u8>), Refusal> {
        let Self { config, key, roster, index, nonce, secrets } = self;
        if !groups.are_of(&roster) || !groups.has_revealed(index, &nonce) {
            return Err(Refusal::NotRevealed);
        }
        let (group, position, members) = groups.group_of(index, &config)?;
        let Secrets { boxes, masks, seed } = secrets;
        let member = Member::new(config, key, group, position, members, &boxes);

        let threshold = member.config.parameters().threshold;
        let holders = || member.neighbours.keys().copied();
        let mask_shares = split(masks.as_bytes(), threshold, holders(), rng);
        let seed_shares = split(seed.as_bytes(), threshold, holders(), rng);
        let shares = mask_shares.iter().zip(&seed_shares);
        let reply =
            Shares::encode(member.neighbours.iter().zip(shares).map(|((&recipient, peer), shares)| {
                let mut plaintext = Zeroizing::new([[0; SHARE_LEN]; 2]);
                *plaintext = [*shares.0.encode(), *shares.1.encode()];
                let route = Route { transcript: &member.transcript, sender: position, recipient };
                seal(&peer.boxes, route, plaintext.as_flattened())
            }));
        Ok((AwaitDelivery { member, masks, seed }, reply))
    }
}

/// A client's place in its group.
struct Member {
    config: SessionConfig,
    key: SigningKey,
    group_index: usize,
    transcript: GroupTranscript,
    graph: Graph,
    position: usize,
    /// By position.
    neighbours: BTreeMap<usize, Neighbour>,
}

struct Neighbour {
    identity: VerifyingKey,
    mask_key: [u8; 32],
    boxes: Agreed,
}

impl Member {
    fn new(
        config: SessionConfig,
        key: SigningKey,
        group: &Group,
        position: usize,
        members: &[Advertisement],
        boxes: &Secret,
    ) -> Self {
        let graph = Graph::new(members.len(), config.parameters().degree);
        let neighbour = |position: usize| {
            let entry = &members[position];
            let neighbour = Neighbour {
                identity: *entry.identity().public_key(),
                mask_key: *entry.mask_key(),
                boxes: boxes.agree(entry.box_key()),
            };
            (position, neighbour)
        };
        let neighbours = graph.neighbours(position).into_iter().map(neighbour).collect();
        let (group_index, transcript) = (group.index(), *group.transcript());
        Self { config, key, group_index, transcript, graph, position, neighbours }
    }
}

/// One member's shares in another's hands.
struct HeldShares {
    mask: Share,
    seed: Share,
}

/// Has shared its secrets; waits for the others' shares.
pub struct AwaitDelivery {
    member: Member,
    masks: Secret,
    seed: Secret,
}

impl AwaitDelivery {
    /// Index of this client's group in the cohort.
    pub fn group_index(&self) -> usize {
        self.member.group_index
    }

    /// Members of this client's group, itself included.
    pub fn group_len(&self) -> usize {
        self.member.graph.members()
    }

    /// Checks who shared, and opens every box.
    pub fn on_delivery(self, message: &[u8]) -> Result<AwaitInput, Refusal> {
        let Self { member, masks, seed } = self;
        let parameters = member.config.parameters();
        let neighbours = member.graph.neighbours(member.position);
        let Delivery { sharers, boxes } = Delivery::decode(message, member.graph.members(), &neighbours)?;
        if !sharers.contains(member.position) {
            return Err(Refusal::NotASharer);
        }
        let (found, min) = (sharers.len(), parameters.min_survivors);
        if found < min {
            return Err(Refusal::TooFewSharers { found, min });
        }
        let (found, min) = (boxes.len(), parameters.threshold);
        if found < min {
            return Err(Refusal::TooFewNeighbours { found, min });
        }
        let open = |(sender, sealed)| {
            let shares = open_shares(&member, sender, sealed).ok_or(Refusal::BadBox { sender })?;
            Ok((sender, shares))
        };
        let shares = sharers.among(&neighbours).zip(&boxes).map(open).collect::<Result<_, Refusal>>()?;
        Ok(AwaitInput { held: Held { member, sharers, shares }, masks, seed })
    }
}

fn open_shares(member: &Member, sender: usize, sealed: &SealedBox) -> Option<HeldShares> {
    let route = Route { transcript: &member.transcript, sender, recipient: member.position };
    let plaintext = open(&member.neighbours.get(&sender)?.boxes, route, sealed)?;
    let (shares, _) = plaintext.as_chunks::<SHARE_LEN>();
    let [mask, seed] = shares else { return None };
    Some(HeldShares { mask: Share::decode(mask)?, seed: Share::decode(seed)? })
}

/// What a client holds of the others until it is asked for it.
struct Held {
    member: Member,
    /// U1
    sharers: MemberSet,
    /// By position: of the neighbours in U1.
    shares: BTreeMap<usize, HeldShares>,
}

/// Is ready to mask one vector.
pub struct AwaitInput {
    held: Held,
    masks: Secret,
    seed: Secret,
}

impl AwaitInput {
    /// Members that can be in the sum, this client included: |U1|.
    pub fn sharers(&self) -> usize {
        self.held.sharers.len()
    }

    /// Encodes and masks `values` (`length` elements below 2^ring_bits) into the message for the coordinator.
    pub fn submit(
        self,
        values: &[u32],
        rng: &mut impl CryptoRng,
    ) -> Result<(AwaitSurvivors, Vec<u8>), Refusal> {
        let Self { held, masks, seed } = self;
        let Member { config, transcript, position, neighbours, .. } = &held.member;
        let parameters = config.parameters();
        if values.len() != parameters.length {
            return Err(Refusal::InputLength { found: values.len(), expected: parameters.length });
        }
        let (bits, mask) = (parameters.ring_bits, element_mask(parameters.ring_bits));
        if let Some(index) = values.iter().position(|&value| value > mask) {
            return Err(Refusal::InputRange { index, bits });
        }

        let secret = Secret::random(rng);
        let mut layers = config.protocol().encode(transcript, values, secret.as_bytes());
        let own = (self_mask_key(transcript, seed.as_bytes(), *position), Sign::Plus);
        let pairwise = held.shares.keys().map(|theirs| {
            let key = pairwise_mask_key(transcript, &masks, *position, &neighbours[theirs].mask_key, *theirs);
            (key, pairwise_sign(*position, *theirs))
        });
        parameters.prg.apply(std::iter::once(own).chain(pairwise), &mut layers.masked);
        let message = encode_upload(&config.shape(), &layers);
        Ok((AwaitSurvivors { held }, message))
    }
}

/// The sign with which the member at `ours` applies the mask that it shares with the one at `theirs`.
pub(super) fn pairwise_sign(ours: usize, theirs: usize) -> Sign {
    if ours < theirs { Sign::Plus } else { Sign::Minus }
}

/// Has submitted; waits to hear who else did.
pub struct AwaitSurvivors {
    held: Held,
}

impl AwaitSurvivors {
    /// Checks the survivor set. The reply is this client's signature on it, the only one it gives in the session.
    pub fn on_survivors(self, message: &[u8]) -> Result<(AwaitSignatures, Vec<u8>), Refusal> {
        let Self { held } = self;
        let member = &held.member;
        let survivors = Survivors::decode(message, member.graph.members())?;
        if survivors.sharers != held.sharers {
            return Err(Refusal::OtherSharers);
        }
        if !survivors.submitters.is_subset(&survivors.sharers) {
            return Err(Refusal::UnknownSurvivor);
        }
        if !survivors.submitters.contains(member.position) {
            return Err(Refusal::NotASurvivor);
        }
        let (found, min) = (survivors.submitters.len(), member.config.parameters().min_survivors);
        if found < min {
            return Err(Refusal::TooFewSurvivors { found, min });
        }
        let reply = Consistency::sign(&member.transcript, message, &member.key).encode();
        Ok((AwaitSignatures { held, survivors, message: message.to_vec() }, reply))
    }
}

/// Has signed the survivors; waits for proof that enough others signed the same.
pub struct AwaitSignatures {
    held: Held,
    survivors: Survivors,
    message: Vec<u8>,
}

impl AwaitSignatures {
    /// Checks that at least t surviving neighbours signed the very same set. The reply has one share for each neighbour
    /// that shared: of its self-mask seed where its input is in the sum, of its mask key where it dropped out.
    pub fn on_signatures(self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let Self { held, survivors, message: signed } = self;
        let member = &held.member;
        let signatures = decode_signatures(message, member.graph.members())?;
        let digest = survivors_digest(&member.transcript, &signed);
        let check = |(signer, signature): &(usize, Consistency)| {
            let neighbour = member.neighbours.get(signer).filter(|_| survivors.submitters.contains(*signer));
            neighbour.map(|peer| signature.signed(digest, &peer.identity))
        };
        let all: Option<Vec<Signed>> = signatures.iter().map(check).collect();
        if !all.is_some_and(|all| all_valid(&all)) {
            // Which one is it?
            let is_bad =
                |signed: &&(usize, Consistency)| !check(signed).is_some_and(|signed| signed.is_valid());
            if let Some((signer, _)) = signatures.iter().find(is_bad) {
                return Err(Refusal::BadSignature { signer: *signer });
            }
        }
        let (found, min) = (signatures.len(), member.config.parameters().threshold);
        if found < min {
            return Err(Refusal::TooFewSignatures { found, min });
        }
        let one_kind = held.shares.iter().map(|(position, shares)| {
            if survivors.submitters.contains(*position) { &shares.seed } else { &shares.mask }
        });
        Ok(Unmask::encode(one_kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::ZeroizeOnDrop;

    fn erased<T: ZeroizeOnDrop>(_: &T) {}

    fn secrets_erased(Secrets { boxes, masks, seed }: &Secrets) {
        erased(boxes);
        erased(masks);
        erased(seed);
    }

    fn member_erased(member: &Member) {
        let Member { key, neighbours, config: _, group_index: _, transcript: _, graph: _, position: _ } =
            member;
        erased(key);
        for Neighbour { boxes, identity: _, mask_key: _ } in neighbours.values() {
            erased(boxes);
        }
    }

    fn held_erased(Held { member, shares, sharers: _ }: &Held) {
        member_erased(member);
        for HeldShares { mask, seed } in shares.values() {
            erased(mask);
            erased(seed);
        }
    }

    /// Takes every state apart into types that erase themselves and fields that are no secrets. A field that is added
    /// does not compile until it is put with one or the other. Nonces are revealed in the step after they were drawn.
    #[test]
    fn every_state_erases_its_secrets() {
        let _: fn(&AwaitRoster) = |AwaitRoster { key, secrets, config: _, advertisement: _, nonce: _ }| {
            erased(key);
            secrets_erased(secrets);
        };
        let _: fn(&AwaitReveals) =
            |AwaitReveals { key, secrets, config: _, roster: _, index: _, nonce: _ }| {
                erased(key);
                secrets_erased(secrets);
            };
        let _: fn(&AwaitDelivery) = |AwaitDelivery { member, masks, seed }| {
            member_erased(member);
            erased(masks);
            erased(seed);
        };
        let _: fn(&AwaitInput) = |AwaitInput { held, masks, seed }| {
            held_erased(held);
            erased(masks);
            erased(seed);
        };
        let _: fn(&AwaitSurvivors) = |AwaitSurvivors { held }| held_erased(held);
        let _: fn(&AwaitSignatures) = |AwaitSignatures { held, survivors: _, message: _ }| held_erased(held);
    }
}
