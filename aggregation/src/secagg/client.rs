//! The client's side: one type for each message it waits for, consumed by the message.
//!
//! A step either yields the next state and the reply, or a [`Refusal`]; in both cases the old state is gone, its
//! secrets erased. So a client answers one roster, one list of reveals, one delivery, one survivor set and one list of
//! signatures per session, whatever a coordinator sends twice. A lost reply is repeated by the transport from its own
//! copy, never computed again. After a crash the client is a drop-out: no state can be stored.
//!
//! These checks are what a client's privacy rests on; the coordinator is trusted with none of them.

use ed25519_dalek::{SigningKey, VerifyingKey};
use rand_core::CryptoRng;

use super::agreement::{GroupTranscript, Route, Secret, open, pairwise_mask_key, seal, self_mask_key};
use super::codec::{CodecError, Kind, Writer};
use super::config::SessionConfig;
use super::groups::{Group, Roster, RosterError, form_groups};
use super::identity::{IdentityCertificate, IdentityError};
use super::messages::{
    Consistency, Delivery, MemberSet, Nonce, Offer, SealedBox, Shares, Survivors, Unmask, decode_reveals,
    decode_signatures, nonce_commitment, seed_commitment,
};
use super::prg::Sign;
use super::ring::{element_mask, pack};
use super::shamir::{SHARE_LEN, Share, split};

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
    /// A signer is no survivor, or signed other survivors, another session, or nothing.
    #[error("signature of group position {signer} on the survivor set is not valid")]
    BadSignature {
        /// Position of the supposed signer.
        signer: usize,
    },
    /// Too few members saw the same survivors.
    #[error("{found} members signed the survivor set, at least {min} must")]
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
    /// Checks the roster, every entry of it, at time `now` (unix seconds). The reply reveals the nonce, for this roster
    /// and no other.
    pub fn on_roster(self, message: &[u8], now: u64) -> Result<(AwaitReveals, Vec<u8>), Refusal> {
        let roster = Roster::verify(message, &self.config, now)?;
        let own = roster.members().iter().position(|member| member.bytes() == self.advertisement);
        let index = own.ok_or(Refusal::NotInRoster)?;
        let reply = self.nonce.encode();
        let Self { config, key, nonce, secrets, .. } = self;
        Ok((AwaitReveals { config, key, roster, index, nonce, secrets }, reply))
    }
}

/// Has revealed its nonce; waits for those of the others.
pub struct AwaitReveals {
    config: SessionConfig,
    key: SigningKey,
    roster: Roster,
    index: usize,
    nonce: Nonce,
    secrets: Secrets,
}

impl AwaitReveals {
    /// Checks the nonces and works out its group. The reply has the shares of its secrets, sealed for each other member.
    pub fn on_reveals(
        self,
        message: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(AwaitDelivery, Vec<u8>), Refusal> {
        let Self { config, key, roster, index, nonce, secrets } = self;
        let reveals = decode_reveals(message, roster.members().len())?;
        if !reveals.contains(&(index, nonce)) {
            return Err(Refusal::NotRevealed);
        }
        for (index, nonce) in &reveals {
            if !roster.members()[*index].commits_to_nonce(&config, nonce) {
                return Err(Refusal::AlteredReveal { index: *index });
            }
        }
        let missing = roster.members().len() - reveals.len();
        let max = config.parameters().max_missing_reveals;
        if missing > max {
            return Err(Refusal::MissingReveals { missing, max });
        }

        let group = form_groups(&config, &roster, message, &reveals)
            .into_iter()
            .find(|group| group.members().contains(&index))
            .expect("every member that revealed is in a group");
        let member = Member::new(config, key, &roster, &group, index);

        let threshold = member.config.parameters().threshold;
        let mut mask_shares = split(secrets.masks.as_bytes(), threshold, 0..member.peers.len(), rng);
        let mut seed_shares = split(secrets.seed.as_bytes(), threshold, 0..member.peers.len(), rng);
        let reply = Shares::encode(member.others().map(|(recipient, peer)| {
            let plaintext = [mask_shares[recipient].encode(), seed_shares[recipient].encode()];
            let plaintext = zeroize::Zeroizing::new(plaintext.each_ref().map(|share| **share));
            let route = Route { transcript: &member.transcript, sender: member.position, recipient };
            seal(&secrets.boxes, &peer.box_key, route, plaintext.as_flattened())
        }));
        let own = HeldShares {
            mask: mask_shares.swap_remove(member.position),
            seed: seed_shares.swap_remove(member.position),
        };
        Ok((AwaitDelivery { member, secrets, own }, reply))
    }
}

/// A client's place in its group.
struct Member {
    config: SessionConfig,
    key: SigningKey,
    group_index: usize,
    transcript: GroupTranscript,
    position: usize,
    /// By position, this client included.
    peers: Vec<Peer>,
}

struct Peer {
    box_key: [u8; 32],
    mask_key: [u8; 32],
    identity: VerifyingKey,
}

impl Member {
    fn new(config: SessionConfig, key: SigningKey, roster: &Roster, group: &Group, index: usize) -> Self {
        let peer = |&index: &usize| {
            let entry = &roster.members()[index];
            let identity = *entry.identity().public_key();
            Peer { box_key: entry.box_key, mask_key: entry.mask_key, identity }
        };
        let position = group.members().binary_search(&index).expect("the group was chosen by this index");
        Self {
            config,
            key,
            group_index: group.index(),
            transcript: *group.transcript(),
            position,
            peers: group.members().iter().map(peer).collect(),
        }
    }

    fn others(&self) -> impl Iterator<Item = (usize, &Peer)> {
        self.peers.iter().enumerate().filter(|(position, _)| *position != self.position)
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
    secrets: Secrets,
    own: HeldShares,
}

impl AwaitDelivery {
    /// Index of this client's group in the cohort.
    pub fn group_index(&self) -> usize {
        self.member.group_index
    }

    /// Members of this client's group, itself included.
    pub fn group_len(&self) -> usize {
        self.member.peers.len()
    }

    /// Checks who shared, and opens every box.
    pub fn on_delivery(self, message: &[u8]) -> Result<AwaitInput, Refusal> {
        let Self { member, secrets, own } = self;
        let Delivery { sharers, boxes } = Delivery::decode(message, member.peers.len(), member.position)?;
        if !sharers.contains(member.position) {
            return Err(Refusal::NotASharer);
        }
        let (found, min) = (sharers.len(), member.config.parameters().min_survivors);
        if found < min {
            return Err(Refusal::TooFewSharers { found, min });
        }
        let mut held = Vec::with_capacity(found);
        let mut boxes = boxes.iter();
        let mut own = Some(own);
        for sender in sharers.iter() {
            held.push(if sender == member.position {
                own.take().expect("positions are distinct")
            } else {
                let sealed = boxes.next().expect("a delivery has a box of every other sharer");
                open_shares(&member, &secrets.boxes, sender, sealed).ok_or(Refusal::BadBox { sender })?
            });
        }
        let Secrets { masks, seed, .. } = secrets;
        Ok(AwaitInput { held: Held { member, sharers, shares: held }, masks, seed })
    }
}

fn open_shares(member: &Member, key: &Secret, sender: usize, sealed: &SealedBox) -> Option<HeldShares> {
    let route = Route { transcript: &member.transcript, sender, recipient: member.position };
    let plaintext = open(key, &member.peers[sender].box_key, route, sealed)?;
    let (shares, _) = plaintext.as_chunks::<SHARE_LEN>();
    let [mask, seed] = shares else { return None };
    Some(HeldShares { mask: Share::decode(mask)?, seed: Share::decode(seed)? })
}

/// What a client holds of the others until it is asked for it.
struct Held {
    member: Member,
    /// U1
    sharers: MemberSet,
    /// By ascending position of the sharers.
    shares: Vec<HeldShares>,
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

    /// Masks `values` (`length` elements below 2^ring_bits) into the message for the coordinator.
    pub fn submit(self, values: &[u32]) -> Result<(AwaitSurvivors, Vec<u8>), Refusal> {
        let Self { held, masks, seed } = self;
        let member = &held.member;
        let parameters = member.config.parameters();
        if values.len() != parameters.length {
            return Err(Refusal::InputLength { found: values.len(), expected: parameters.length });
        }
        let (bits, mask) = (parameters.ring_bits, element_mask(parameters.ring_bits));
        if let Some(index) = values.iter().position(|&value| value > mask) {
            return Err(Refusal::InputRange { index, bits });
        }

        let mut masked = values.to_vec();
        let own_key = self_mask_key(&member.transcript, seed.as_bytes(), member.position);
        parameters.prg.apply(&own_key, Sign::Plus, &mut masked);
        for (position, peer) in member.others().filter(|(position, _)| held.sharers.contains(*position)) {
            let key =
                pairwise_mask_key(&member.transcript, &masks, member.position, &peer.mask_key, position);
            parameters.prg.apply(&key, pairwise_sign(member.position, position), &mut masked);
        }
        for value in &mut masked {
            *value &= mask;
        }

        let mut packed = Vec::new();
        pack(&masked, bits, &mut packed);
        Ok((AwaitSurvivors { held }, Writer::new(Kind::MaskedInput).bytes(&packed).finish()))
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
        let survivors = Survivors::decode(message, member.peers.len())?;
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
    /// Checks that at least t survivors signed the very same set. The reply has one share for each member that shared:
    /// of its self-mask seed where its input is in the sum, of its mask key where it dropped out.
    pub fn on_signatures(self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let Self { held, survivors, message: signed } = self;
        let member = &held.member;
        let signatures = decode_signatures(message, member.peers.len())?;
        for (signer, signature) in &signatures {
            let key = &member.peers[*signer].identity;
            if !survivors.submitters.contains(*signer)
                || !signature.is_valid(&member.transcript, &signed, key)
            {
                return Err(Refusal::BadSignature { signer: *signer });
            }
        }
        let (found, min) = (signatures.len(), member.config.parameters().threshold);
        if found < min {
            return Err(Refusal::TooFewSignatures { found, min });
        }
        let one_kind = held.sharers.iter().zip(&held.shares).map(|(position, shares)| {
            if survivors.submitters.contains(position) { &shares.seed } else { &shares.mask }
        });
        Ok(Unmask::encode(one_kind))
    }
}
