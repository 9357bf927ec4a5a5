//! What is masked: the one place where the protocols differ.
//!
//! Identities, groups, graph, shares, survivors and the recovery of secrets are the session's, and the same for all. A
//! [`Protocol`] says, for both roles, how a vector becomes [`Layers`] (client) and how a sum of layers becomes a sum of
//! vectors (coordinator). The session masks the layer named `masked`, whatever it holds; `body` travels as it is, so a
//! protocol that uses it protects it with a secret that is in `masked`.
//!
//! ```text
//!  client       values ──encode──► Layers ──+ masks──► upload
//!  coordinator                                uploads ──Σ──► Layers ──− masks──decode──► Σ values mod 2^ring_bits
//! ```

use std::fmt;
use std::str::FromStr;

mod gaussian;
pub(super) mod ntt;
mod pairwise;
mod rlwe;

pub use pairwise::PairwiseMask;
pub use rlwe::{RlweError, RlweTwoLayer};

/// Binds configuration, roster, beacon and group: what all later messages of a group are derived from.
pub type GroupTranscript = [u8; 32];

/// The protocols to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolKind {
    /// [`PairwiseMask`]: the vector goes under the masks.
    PairwiseMask,
    /// [`RlweTwoLayer`]: the vector is encrypted under a fresh key, and only the key goes under the masks.
    RlweTwoLayer,
}

/// A name that is no protocol's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("protocol is {0}, accepted are pairwise-mask and rlwe-two-layer")]
pub struct UnknownProtocol(pub String);

impl ProtocolKind {
    /// Every protocol.
    pub const ALL: [Self; 2] = [Self::PairwiseMask, Self::RlweTwoLayer];

    /// The name in configurations and plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::PairwiseMask => "pairwise-mask",
            Self::RlweTwoLayer => "rlwe-two-layer",
        }
    }

    /// The protocol that costs clients and coordinator less for vectors of `length` elements and so many neighbours.
    /// Encryption takes as long for an element as 18 masks do, and leaves 4096 elements to mask; 24 are asked for,
    /// because it uploads half as much again. (Measured: docs/performance.md.)
    pub fn cheapest(length: usize, neighbours: usize) -> Self {
        let masks = neighbours.saturating_add(1);
        let spared = masks.saturating_mul(length.saturating_sub(4096));
        if spared > length.saturating_mul(24) { Self::RlweTwoLayer } else { Self::PairwiseMask }
    }
}

impl fmt::Display for ProtocolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ProtocolKind {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        let found = Self::ALL.into_iter().find(|protocol| protocol.name() == name);
        found.ok_or_else(|| UnknownProtocol(name.to_owned()))
    }
}

/// q = 2^64 − 2^32 + 1, the modulus of the body.
pub const BODY_MODULUS: u64 = ntt::Q;

/// Lengths of the two layers of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Elements of the masked layer.
    pub masked: usize,
    /// b: elements of the masked layer are in Z_{2^b}; 8 to 32.
    pub masked_bits: u32,
    /// Coefficients of the body, each in Z_q with q = 2^64 − 2^32 + 1.
    pub body: usize,
}

/// A protected vector, or a sum of such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Mod 2^32, hence right mod 2^b for every b ≤ 32.
    pub masked: Vec<u32>,
    /// Canonical residues modulo q.
    pub body: Vec<u64>,
}

/// How a vector travels under masks, and how the sum is read; both roles, without I/O.
pub trait Protocol {
    /// The layers that [`encode`](Self::encode) makes.
    fn shape(&self) -> Shape;

    /// Client: `values` (the session's `length` elements below 2^ring_bits) as layers that are still to be masked.
    /// `secret` is 256 fresh random bits, used in no other session.
    fn encode(&self, transcript: &GroupTranscript, values: &[u32], secret: &[u8; 32]) -> Layers;

    /// Coordinator: the sum of the values behind a sum of layers whose masks are off, mod 2^ring_bits.
    fn decode(&self, transcript: &GroupTranscript, sum: Layers) -> Vec<u32>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_pays_for_long_vectors_and_many_neighbours() {
        let rlwe =
            |length, neighbours| ProtocolKind::cheapest(length, neighbours) == ProtocolKind::RlweTwoLayer;
        assert!(rlwe(1 << 20, 96) && rlwe(1 << 20, 32) && rlwe(1 << 13, 96));
        assert!(!rlwe(1 << 20, 19) && !rlwe(1 << 12, usize::MAX) && !rlwe(260, 96) && !rlwe(usize::MAX, 2));
    }

    #[test]
    fn names_are_read_back_and_no_others() {
        for protocol in ProtocolKind::ALL {
            assert_eq!(protocol.name().parse(), Ok(protocol));
        }
        let unknown = "Pairwise-Mask".parse::<ProtocolKind>().unwrap_err();
        assert_eq!(unknown, UnknownProtocol("Pairwise-Mask".to_owned()));
    }
}
