//! A simulation as its user writes it down, and what it means.
//!
//! ```text
//! scenario file ─► Spec ─► Spec::plan ─► Planned: the task plan that the cores run, its terms
//!                    └───► Fleet::new ─► who holds which data, who is poisoned, who vanishes when
//! ```
//!
//! A [`Spec`] is complete: each key has a default, and what is left open (sizes of groups, noise for an ε) follows
//! from the rest by rules that are written here and nowhere else. Everything random in a scenario comes from its seed,
//! by streams that are named by purpose, round and client, so that no draw shifts another.
//!
//! Absent on purpose: files and folders. The command reads scenarios and data, and writes runs.

mod fleet;
mod measure;
mod plan;
mod sections;
#[cfg(test)]
mod tests;

pub use fleet::Fleet;
pub use measure::{Measure, Measured};
pub use plan::Planned;
pub use sections::{
    AggregationSection, AlgorithmSection, AttackersSection, EvaluationSection, ModelSection,
    PopulationSection, PrivacySection, RobustnessSection, Spec, TrainingSection,
};

use std::fmt;

/// Why a scenario cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// A key has a value that it does not take.
    #[error("{key} is {found}, accepted is {accepted}")]
    Key {
        /// Dotted path of the key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it takes.
        accepted: String,
    },
    /// A section does not go with the data, or with another section.
    #[error("{section}: {reason}")]
    Section {
        /// The section.
        section: &'static str,
        /// Why.
        reason: String,
    },
    /// Values do not fit one another.
    #[error("{0}")]
    Inconsistent(String),
}

impl ScenarioError {
    fn section(section: &'static str, reason: impl fmt::Display) -> Self {
        Self::Section { section, reason: reason.to_string() }
    }

    fn key(key: &'static str, found: impl fmt::Display, accepted: impl fmt::Display) -> Self {
        Self::Key { key, found: found.to_string(), accepted: accepted.to_string() }
    }
}
