//! What an ε is about, in words that a manifest may carry.

use std::fmt;

use crate::Sampling;

/// What an ε is about. Every part has a name, which a manifest may carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Whose data is protected.
    pub unit: Unit,
    /// Between which inputs it is hard to tell.
    pub adjacency: Adjacency,
    /// How losses are added up.
    pub accounting: Accounting,
    /// The sampling that is credited. [`Sampling::Full`]: none, and ε counts a client's own participations; otherwise it
    /// counts every round.
    pub sampling: Sampling,
}

/// Whose data is protected. Written `user`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Nobody's.
    None,
    /// Everything that one client holds.
    User,
}

/// Which inputs are neighbours. Written `zero-out`, `add-remove`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adjacency {
    /// None: any two can be told apart.
    None,
    /// One client's updates, or zeros in their place, with the same clients taking part.
    ZeroOut,
    /// One client is in the population or not.
    AddRemove,
}

/// How losses are added up over rounds. Written `zcdp`, `rdp`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accounting {
    /// Not at all: one participation loses everything.
    None,
    /// Zero-concentrated differential privacy: one ρ for each round.
    Zcdp,
    /// Bounds on the Rényi divergence at many orders.
    Rdp,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::User => "user",
        })
    }
}

impl fmt::Display for Adjacency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ZeroOut => "zero-out",
            Self::AddRemove => "add-remove",
        })
    }
}

impl fmt::Display for Accounting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Zcdp => "zcdp",
            Self::Rdp => "rdp",
        })
    }
}
