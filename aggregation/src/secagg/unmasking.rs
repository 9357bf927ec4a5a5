//! Adding masked vectors, and taking the masks off the sum.

use std::collections::{BTreeMap, BTreeSet};

use super::agreement::{Secret, pairwise_mask_key, self_mask_key};
use super::client::pairwise_sign;
use super::config::SessionConfig;
use super::correction::{Corrected, correct};
use super::graph::Graph;
use super::identity::ClientId;
use super::messages::{Advertisement, Survivors, Unmask};
use super::prg::{Mask, Sign};
use super::protocol::{BODY_MODULUS, GroupTranscript, Layers, Shape};
use super::server::Abort;
use super::shamir::{Interpolation, Share};
use super::upload::MaskedInput;

/// The sum of masked vectors of one group: the size of one of them, however many went in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accumulator {
    transcript: GroupTranscript,
    contributors: BTreeSet<ClientId>,
    layers: Layers,
}

/// Why a vector cannot be added: each would spoil the sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccumulateError {
    /// The inputs are of another group or session.
    #[error("inputs belong to another group")]
    OtherGroup,
    /// The input's layers are of another session's lengths.
    #[error("input has layers of {found:?} elements, this group's have {expected:?}")]
    OtherShape {
        /// Elements of its masked layer and of its body.
        found: (usize, usize),
        /// Elements of this group's.
        expected: (usize, usize),
    },
    /// The client's input is in the sum.
    #[error("input of client {0} was already added")]
    Repeated(ClientId),
}

impl Accumulator {
    pub(super) fn new(transcript: GroupTranscript, shape: &Shape) -> Self {
        let layers = Layers { masked: vec![0; shape.masked], body: vec![0; shape.body] };
        Self { transcript, contributors: BTreeSet::new(), layers }
    }

    /// Adds the input of one client.
    pub fn add(&mut self, from: ClientId, input: &MaskedInput) -> Result<(), AccumulateError> {
        let lengths = |layers: &Layers| (layers.masked.len(), layers.body.len());
        let (found, expected) = (lengths(&input.layers), lengths(&self.layers));
        if found != expected {
            return Err(AccumulateError::OtherShape { found, expected });
        }
        if !self.contributors.insert(from) {
            return Err(AccumulateError::Repeated(from));
        }
        add_layers(&mut self.layers, &input.layers);
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
        add_layers(&mut self.layers, &other.layers);
        Ok(())
    }

    /// Whose inputs are in the sum.
    pub fn contributors(&self) -> &BTreeSet<ClientId> {
        &self.contributors
    }
}

/// The masked layer mod 2^32, the body mod q; without branches on the values.
fn add_layers(sum: &mut Layers, other: &Layers) {
    for (sum, value) in sum.masked.iter_mut().zip(&other.masked) {
        *sum = sum.wrapping_add(*value);
    }
    for (sum, value) in sum.body.iter_mut().zip(&other.body) {
        // sum + value − q, and q again where that is negative: all residues are below q.
        let (reduced, negative) = sum.overflowing_sub(BODY_MODULUS - value);
        *sum = reduced.wrapping_add(BODY_MODULUS & u64::from(negative).wrapping_neg());
    }
}

/// The result of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Σ x over the survivors, mod 2^ring_bits, `length` elements.
    pub values: Vec<u32>,
    /// Clients that are proved to have dealt or revealed false shares, ascending. The sum is right all the same.
    pub blamed: Vec<ClientId>,
}

/// A group whose survivors have answered: recovers the masks' secrets and takes the masks off the sum.
#[derive(Clone)]
pub struct Unmasking {
    pub(super) config: SessionConfig,
    pub(super) transcript: GroupTranscript,
    pub(super) graph: Graph,
    pub(super) members: Vec<Advertisement>,
    pub(super) survivors: Survivors,
    /// At least t by the neighbours of every member that shared.
    pub(super) answers: BTreeMap<usize, Unmask>,
}

impl Unmasking {
    /// Whose inputs are summed.
    pub fn survivors(&self) -> Vec<ClientId> {
        self.survivors.submitters.iter().map(|position| self.members[position].client_id()).collect()
    }

    /// Σ x over the survivors.
    ///
    /// Takes |U2| + |U1∖U2| · k expansions of the masked layer's length at most, and |U1∖U2| · k key agreements: work
    /// for a thread of its own. Yields nothing unless every secret recovered is the one its owner committed to.
    pub fn sum(&self, inputs: &Accumulator) -> Result<Sum, Abort> {
        let survivors: BTreeSet<ClientId> = self.survivors().into_iter().collect();
        if inputs.transcript != self.transcript || inputs.contributors != survivors {
            return Err(Abort::OtherInputs);
        }
        let Recovered { secrets, wrong } = self.recover()?;
        let mut layers = inputs.layers.clone();
        let masks = secrets.iter().flat_map(|(&position, secret)| self.masks(position, secret));
        self.config.parameters().prg.apply(masks, &mut layers.masked);
        let values = self.config.protocol().decode(&self.transcript, layers);
        Ok(Sum { values, blamed: self.blame(&wrong) })
    }

    /// Every secret that one of the two kinds of shares was revealed of.
    fn recover(&self) -> Result<Recovered, Abort> {
        let sharers = &self.survivors.sharers;
        let mut shares: BTreeMap<usize, Vec<(usize, &Share)>> =
            sharers.iter().map(|owner| (owner, Vec::new())).collect();
        for (&holder, answer) in &self.answers {
            for (owner, share) in sharers.among(&self.graph.neighbours(holder)).zip(&answer.shares) {
                shares.entry(owner).or_default().push((holder, share));
            }
        }
        let mut recovered = Recovered { secrets: BTreeMap::new(), wrong: BTreeMap::new() };
        for (owner, shares) in shares {
            let secret = self.interpolate(owner, &shares).or_else(|| {
                let Corrected { secret, wrong } = correct(&shares, self.config.parameters().threshold)?;
                recovered.wrong.insert(owner, wrong);
                self.committed(owner, &secret)
            });
            let bad = || Abort::BadShares { owner: self.members[owner].client_id() };
            recovered.secrets.insert(owner, secret.ok_or_else(bad)?);
        }
        Ok(recovered)
    }

    /// The secret behind the first t shares, if that is what its owner committed to.
    fn interpolate(&self, owner: usize, shares: &[(usize, &Share)]) -> Option<Secret> {
        let (positions, shares): (Vec<usize>, Vec<&Share>) =
            shares.iter().take(self.config.parameters().threshold).copied().unzip();
        let secret = Interpolation::new(positions.into_iter()).recover(&shares)?;
        self.committed(owner, &secret)
    }

    /// A recovered secret, if it is the one that its owner committed to.
    fn committed(&self, owner: usize, secret: &[u8; 32]) -> Option<Secret> {
        let (entry, secret) = (&self.members[owner], Secret::from_bytes(secret));
        let right = if self.survivors.submitters.contains(owner) {
            entry.commits_to_seed(&self.config, secret.as_bytes())
        } else {
            secret.public_key() == *entry.mask_key()
        };
        right.then_some(secret)
    }

    /// What takes off the masks that are in the sum because of a member: its self mask if it survived, else its
    /// surviving neighbours' halves of the masks with it.
    fn masks(&self, position: usize, secret: &Secret) -> Vec<Mask> {
        let submitters = &self.survivors.submitters;
        if submitters.contains(position) {
            return vec![(self_mask_key(&self.transcript, secret.as_bytes(), position), Sign::Minus)];
        }
        let neighbours = self.graph.neighbours(position);
        let mask = |survivor: usize| {
            let theirs = self.members[survivor].mask_key();
            let key = pairwise_mask_key(&self.transcript, secret, position, theirs, survivor);
            // The survivor applied the mask with its own sign; the dropped member's is the opposite.
            (key, pairwise_sign(position, survivor))
        };
        submitters.among(&neighbours).map(mask).collect()
    }

    /// Who is proved to be at fault for wrong shares, given the positions of those who revealed them by owner. A single
    /// one may be its holder's doing or its dealer's, and as many as may collude can frame anyone; more cannot.
    fn blame(&self, wrong: &BTreeMap<usize, Vec<usize>>) -> Vec<ClientId> {
        let colluders = self.config.colluders_to_break(self.members.len()) - 1;
        let mut by_holder: BTreeMap<usize, usize> = BTreeMap::new();
        for &holder in wrong.values().flatten() {
            *by_holder.entry(holder).or_default() += 1;
        }
        let by_dealer = wrong.iter().map(|(&dealer, holders)| (dealer, holders.len()));
        let proved = by_dealer.chain(by_holder).filter(|(_, times)| *times > colluders);
        let blamed: BTreeSet<ClientId> =
            proved.map(|(position, _)| self.members[position].client_id()).collect();
        blamed.into_iter().collect()
    }
}

/// Secrets by their owners' positions.
struct Recovered {
    secrets: BTreeMap<usize, Secret>,
    /// Positions of those who revealed a wrong share.
    wrong: BTreeMap<usize, Vec<usize>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn layers_are_added_in_their_rings(
            elements in prop::collection::vec(any::<[u32; 2]>(), 0..9),
            coefficients in prop::collection::vec([0..BODY_MODULUS, 0..BODY_MODULUS], 0..9),
        ) {
            let layers = |which: usize| Layers {
                masked: elements.iter().map(|pair| pair[which]).collect(),
                body: coefficients.iter().map(|pair| pair[which]).collect(),
            };
            let mut sum = layers(0);
            add_layers(&mut sum, &layers(1));
            let masked: Vec<u32> = elements.iter().map(|[a, b]| (u64::from(*a) + u64::from(*b)) as u32).collect();
            let residue = |[a, b]: &[u64; 2]| ((u128::from(*a) + u128::from(*b)) % u128::from(BODY_MODULUS)) as u64;
            prop_assert_eq!(sum.masked, masked);
            prop_assert_eq!(sum.body, coefficients.iter().map(residue).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn the_ends_of_the_field_are_added() {
        for (a, b, sum) in
            [(0, 0, 0), (1, BODY_MODULUS - 1, 0), (BODY_MODULUS - 1, BODY_MODULUS - 1, BODY_MODULUS - 2)]
        {
            let layers = |coefficient| Layers { masked: Vec::new(), body: vec![coefficient] };
            let mut added = layers(a);
            add_layers(&mut added, &layers(b));
            assert_eq!(added.body, [sum]);
        }
    }
}
