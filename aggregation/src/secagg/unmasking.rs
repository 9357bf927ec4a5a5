//! Adding masked vectors, and taking the masks off the sum.

use std::collections::{BTreeMap, BTreeSet};

use super::agreement::{GroupTranscript, Secret, pairwise_mask_key, self_mask_key};
use super::client::pairwise_sign;
use super::codec::{CodecError, Kind, Reader};
use super::config::SessionConfig;
use super::identity::ClientId;
use super::messages::{Advertisement, Survivors, Unmask};
use super::prg::Sign;
use super::ring::{element_mask, unpack};
use super::server::Abort;
use super::shamir::Interpolation;

/// A member's masked vector, checked for shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedInput {
    from: ClientId,
    transcript: GroupTranscript,
    values: Vec<u32>,
}

impl MaskedInput {
    pub(super) fn decode(
        message: &[u8],
        config: &SessionConfig,
        transcript: GroupTranscript,
        from: ClientId,
    ) -> Result<Self, CodecError> {
        let packed = Reader::new(message, Kind::MaskedInput)?.rest();
        let values = unpack(packed, config.parameters().length, config.parameters().ring_bits)?;
        Ok(Self { from, transcript, values })
    }
}

/// The sum of masked vectors of one group: `length` elements, whoever many went in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accumulator {
    transcript: GroupTranscript,
    contributors: BTreeSet<ClientId>,
    /// Mod 2^32, hence right mod 2^b.
    sum: Vec<u32>,
}

/// Why a vector cannot be added: each would spoil the sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccumulateError {
    /// The input is of another group or session.
    #[error("input belongs to another group")]
    OtherGroup,
    /// The client's input is in the sum.
    #[error("input of client {0} was already added")]
    Repeated(ClientId),
}

impl Accumulator {
    pub(super) fn new(transcript: GroupTranscript, length: usize) -> Self {
        Self { transcript, contributors: BTreeSet::new(), sum: vec![0; length] }
    }

    /// Adds one input.
    pub fn add(&mut self, input: &MaskedInput) -> Result<(), AccumulateError> {
        if input.transcript != self.transcript {
            return Err(AccumulateError::OtherGroup);
        }
        if !self.contributors.insert(input.from) {
            return Err(AccumulateError::Repeated(input.from));
        }
        self.add_vector(&input.values);
        Ok(())
    }

    /// Adds the inputs of another accumulator of the same group.
    pub fn merge(&mut self, other: &Self) -> Result<(), AccumulateError> {
        if other.transcript != self.transcript {
            return Err(AccumulateError::OtherGroup);
        }
        if let Some(&both) = self.contributors.intersection(&other.contributors).next() {
            return Err(AccumulateError::Repeated(both));
        }
        self.contributors.extend(&other.contributors);
        self.add_vector(&other.sum);
        Ok(())
    }

    /// Whose inputs are in the sum.
    pub fn contributors(&self) -> &BTreeSet<ClientId> {
        &self.contributors
    }

    fn add_vector(&mut self, values: &[u32]) {
        self.sum.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
    }
}

/// A group whose survivors have answered: recovers the masks' secrets and takes the masks off the sum.
#[derive(Clone)]
pub struct Unmasking {
    pub(super) config: SessionConfig,
    pub(super) transcript: GroupTranscript,
    pub(super) members: Vec<Advertisement>,
    pub(super) survivors: Survivors,
    /// Exactly t.
    pub(super) answers: BTreeMap<usize, Unmask>,
}

impl Unmasking {
    /// Whose inputs are summed.
    pub fn survivors(&self) -> Vec<ClientId> {
        self.survivors.submitters.iter().map(|position| self.members[position].client_id()).collect()
    }

    /// Σ x over the survivors, mod 2^ring_bits, `length` elements.
    ///
    /// Takes |U2| + |U1∖U2| · |U2| expansions of the vector's length and as many key agreements: work for a thread of
    /// its own. Yields nothing unless every secret recovered is the one its owner committed to.
    pub fn sum(&self, inputs: &Accumulator) -> Result<Vec<u32>, Abort> {
        let Survivors { sharers, submitters } = &self.survivors;
        let survivors: BTreeSet<ClientId> = self.survivors().into_iter().collect();
        if inputs.transcript != self.transcript || inputs.contributors != survivors {
            return Err(Abort::OtherInputs);
        }

        let parameters = self.config.parameters();
        let interpolation = Interpolation::new(self.answers.keys().copied());
        let mut sum = inputs.sum.clone();
        for (nth, position) in sharers.iter().enumerate() {
            let owner = &self.members[position];
            let shares: Vec<_> = self.answers.values().map(|answer| &answer.shares[nth]).collect();
            let bad = || Abort::BadShares { owner: owner.client_id() };
            let secret = Secret::from_bytes(&*interpolation.recover(&shares).ok_or_else(bad)?);
            if submitters.contains(position) {
                if !owner.commits_to_seed(&self.config, secret.as_bytes()) {
                    return Err(bad());
                }
                let key = self_mask_key(&self.transcript, secret.as_bytes(), position);
                parameters.prg.apply(&key, Sign::Minus, &mut sum);
            } else {
                if secret.public_key() != owner.mask_key {
                    return Err(bad());
                }
                for survivor in submitters.iter() {
                    let theirs = &self.members[survivor].mask_key;
                    let key = pairwise_mask_key(&self.transcript, &secret, position, theirs, survivor);
                    // The survivor applied the mask with its own sign; the dropped member's is the opposite.
                    parameters.prg.apply(&key, pairwise_sign(position, survivor), &mut sum);
                }
            }
        }
        let mask = element_mask(parameters.ring_bits);
        for value in &mut sum {
            *value &= mask;
        }
        Ok(sum)
    }
}
