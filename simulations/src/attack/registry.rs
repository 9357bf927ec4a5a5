//! The one list of attacks. Names, help texts and documents are made from it.

use std::fmt;

use super::knowledge::{Craft, Needs};
use super::poison::Poison;
use super::{adaptive, alie, distances, flips, noise, poison};

/// Every attack, the plain ones first.
pub static ATTACKS: [AttackSpec; 16] = [
    flips::SIGN_FLIP,
    noise::GAUSSIAN,
    noise::INFINITY,
    noise::LAZY,
    flips::IPM,
    flips::OPTIMAL_IPM,
    alie::ALIE,
    alie::OPTIMAL_ALIE,
    noise::MIMIC,
    distances::MIN_MAX,
    distances::MIN_SUM,
    adaptive::ADAPTIVE,
    poison::LABEL_FLIP,
    poison::SCALE,
    poison::BACKDOOR,
    poison::EDGE_CASE,
];

/// L2 norm of a loud update, in clip norms: one attacker outweighs that many honest clients of its group.
///
/// At 40, four clients of 200 that flip signs or labels take a plain mean from 0.9 accuracy on the digits to about
/// 0.5.
pub(super) const LOUD: f64 = 40.0;

/// An attack of the registry.
#[derive(Clone, Copy)]
pub struct AttackSpec {
    /// The name on the command line and in reports.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// The vector: u the client's own update; x the honest rows, n with the f Byzantine ones; w the published models.
    pub formula: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// What its strength is, if it has one.
    pub strength: Option<Strength>,
    /// What is done to the data that u is trained on.
    pub poison: Option<Poison>,
    /// How the vector becomes a client's input inside secure aggregation.
    pub sends: Sends,
    pub(super) craft: Craft,
}

/// The one number that says how strong an attack is.
#[derive(Clone, Copy, Debug)]
pub struct Strength {
    /// What holds where it is not set.
    pub default: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

/// How a vector becomes the input of one client whose group's sum alone is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sends {
    /// The vector at an L2 norm, in clip norms, unless the strength says otherwise.
    OfNorm(f64),
    /// Group size × vector − the rest of the group as the fellows' updates let expect it: the group's mean becomes
    /// the vector.
    GroupMean,
    /// The vector times clients over poisoned clients, so that the mean of all becomes the vector of each, unless the
    /// strength says otherwise.
    Replacing,
    /// The vector.
    AsItIs,
}

impl AttackSpec {
    /// What it needs to know.
    pub const fn needs(&self) -> Needs {
        self.craft.needs()
    }
}

impl fmt::Display for Sends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OfNorm(_) => "the vector at the norm that is its strength",
            Self::GroupMean => "what is to move its group's mean to the vector",
            Self::Replacing | Self::AsItIs => "the vector",
        })
    }
}

impl Strength {
    /// Of the loud attacks.
    pub(super) const NORM: Self = Self { default: "40", meaning: "L2 norm of what is sent, in clip norms" };
}
