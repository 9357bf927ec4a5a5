//! What poisoned clients send: the attacks of the field, each with no more knowledge than its threat model gives it.
//!
//! ```text
//! data ─► Poison ─► training ─► own update ┐
//!            fellows' or honest updates ───┼─► Knowledge ─► Attack::craft ─► vector ─► Sends ─► the client's input
//!            rule of the plan ─────────────┘                                          (groups)
//! ```
//!
//! An attacker follows the protocol (it has keys, shares secrets, masks) but sends the update it likes: unclipped and
//! without noise. Every attack is one entry of the registry, [`ATTACKS`]: name, formula, source, strength, and a
//! function whose arguments are all that it can know.
//!
//! - Alone: the client's own update and the published models.
//! - Together: updates of others. As published, those of every honest client (omniscient). Inside secure aggregation
//!   nobody has them: there the colluders take what they would have sent themselves for a sample of the honest
//!   (partial knowledge). [`Conspiracy::contribute`] gives partial knowledge alone; [`Conspiracy::contribute_seeing`] the
//!   other, in mode `insecure_plain`.
//! - Knowing the rule: the robust rule besides, with its f. Plans are public, so that colluders have it too.
//!
//! Invariants: an attack that needs more than it is given is refused ([`AttackError::Knowledge`]), never run on less;
//! an attack is a pure function of knowledge, strength and random stream.
//!
//! Absent on purpose: choosing one's group, lying about neighbours, dropping out to harm (those are attacks on the
//! protocol, and tested with it), and attacks over many rounds beyond what a round's model gives away.

mod adaptive;
mod alie;
mod distances;
mod flips;
mod groups;
mod knowledge;
mod noise;
mod poison;
mod registry;
mod search;
mod statistics;

use std::fmt;

use fedveil_aggregation::robust::RuleError;
use fedveil_learning::{Dataset, LearningError};
use fedveil_proto_plan::PlanError;
use rand_core::Rng;

pub use groups::{Conspiracy, Member};
pub use knowledge::{Knowledge, Needs};
pub use poison::Poison;
pub use registry::{ATTACKS, AttackSpec, Sends, Strength};

use crate::algorithm::AlgorithmError;
use crate::training::TrainingError;
use knowledge::Craft;

/// An attack of the registry, as strong as it is published or as it is told to be.
#[derive(Clone, Copy)]
pub struct Attack {
    spec: &'static AttackSpec,
    strength: Option<f64>,
}

/// Why there is no such attack, or no forged update.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttackError {
    /// A name that no attack has.
    #[error("unknown attack {found:?}; accepted are {}", ATTACKS.each_ref().map(|attack| attack.name).join(", "))]
    Unknown {
        /// The text.
        found: String,
    },
    /// A strength for an attack that has none, or no number above 0.
    #[error("attack {attack} with strength {found}: accepted is {accepted}")]
    Strength {
        /// The attack.
        attack: &'static str,
        /// The strength given.
        found: f64,
        /// What it takes.
        accepted: &'static str,
    },
    /// The attack's threat model knows more than it was given.
    #[error("attack {attack} needs {needs}, which it is not given")]
    Knowledge {
        /// The attack.
        attack: &'static str,
        /// What is missing.
        needs: Needs,
    },
    /// The rule that the attack tries its updates on does not take so many rows.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// Nobody sees a single update in a mode with groups.
    #[error(
        "in mode {mode} nobody sees what an honest client sends; attackers who do are for insecure_plain"
    )]
    Hidden {
        /// The plan's mode.
        mode: &'static str,
    },
    /// No honest client of the round has sent anything.
    #[error("there is no honest update in the round that attackers could see")]
    NobodySeen,
    /// The algorithm gives no update of the colluders' data.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
    /// The data cannot be poisoned, or not be trained on.
    #[error(transparent)]
    Learning(#[from] LearningError),
    /// The model or the plan does not fit the data.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// The plan does not hold.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Images of another size than the poison is painted on.
    #[error("examples of {found} inputs: {poison} is for images of 8 × 8 pixels")]
    Images {
        /// The poison.
        poison: Poison,
        /// Inputs of an example.
        found: usize,
    },
}

impl Attack {
    /// The attack of that name.
    ///
    /// `strength` is a number above 0, of the meaning that [`AttackSpec::strength`] states; none takes the default.
    pub fn new(name: &str, strength: Option<f64>) -> Result<Self, AttackError> {
        let spec = ATTACKS
            .iter()
            .find(|spec| spec.name == name)
            .ok_or_else(|| AttackError::Unknown { found: name.to_owned() })?;
        if let Some(found) = strength {
            let accepted = spec.strength.map_or("none", |_| "a finite number above 0");
            if spec.strength.is_none() || !(found > 0.0 && found.is_finite()) {
                return Err(AttackError::Strength { attack: spec.name, found, accepted });
            }
        }
        Ok(Self { spec, strength })
    }

    /// The attack's entry in the registry.
    pub fn spec(&self) -> &'static AttackSpec {
        self.spec
    }

    /// The strength that was asked for.
    pub fn strength(&self) -> Option<f64> {
        self.strength
    }

    /// The vector that the attack's formula gives, of the knowledge's dimension and unit.
    pub fn craft(&self, knowledge: &Knowledge, rng: &mut impl Rng) -> Result<Vec<f64>, AttackError> {
        let lacking = |needs| AttackError::Knowledge { attack: self.spec.name, needs };
        let own = &knowledge.own;
        let others = || knowledge.others.as_ref().ok_or_else(|| lacking(Needs::Others));
        Ok(match self.spec.craft {
            Craft::Alone(craft) => craft(own, self.strength, rng),
            Craft::Together(craft) => craft(others()?, self.strength),
            Craft::KnowingRule(craft) => {
                let others = others()?;
                let defence = knowledge.defence.as_ref().ok_or_else(|| lacking(Needs::Rule))?;
                defence.rule.check_counts(others.rows(), defence.byzantine)?;
                craft(others, defence)
            }
        })
    }

    /// The examples on which a backdoor shows, labelled as the attacker wants them, made of `images` (8 × 8 pixels)
    /// that honest clients have never seen. None for attacks without a backdoor.
    ///
    /// The share of them that a model labels so is the attack's success rate.
    pub fn success_set(&self, images: &Dataset) -> Result<Option<Dataset>, AttackError> {
        self.spec.poison.filter(|poison| poison.is_backdoor()).map(|poison| poison.bait(images)).transpose()
    }
}

/// By name and strength.
impl PartialEq for Attack {
    fn eq(&self, other: &Self) -> bool {
        (self.spec.name, self.strength) == (other.spec.name, other.strength)
    }
}

impl fmt::Debug for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attack({self})")
    }
}

/// The name, and the strength where it is not the default.
impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.strength {
            None => f.pad(self.spec.name),
            Some(strength) => f.pad(&format!("{}, strength {strength}", self.spec.name)),
        }
    }
}

#[cfg(test)]
mod tests;
