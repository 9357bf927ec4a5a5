//! Federated algorithms: what a client computes from the global state, and how the server moves that state.
//!
//! ```text
//!  global state  [x | control] ─► Algorithm::client(Task, memory) ─► vector [x | control], new memory
//!        ▲                                                              │ clipped and noised, masked or not, as planned
//!        └──── ServerStep (the plan's, or Algorithm::server) ◄── aggregate of the vectors ◄──┘
//! ```
//!
//! An [`Algorithm`] is a value behind one trait; `examples/own_algorithm.rs` adds one in a file. [`REGISTRY`] is the one
//! list of those that are inside: names, papers, options, what each is valid with. Configurations, help texts and
//! docs/algorithms.md are made from it. [`Runner`] binds an algorithm to a model for a
//! [`Scenario`](crate::federation::Scenario).
//!
//! What the plan can say (steps of local training, the server's optimiser) an algorithm writes into the plan, so that it
//! is signed, and devices outside of a simulation do it too. The rest of an algorithm is agreed on beside the plan.
//!
//! Invariants
//! - A vector is as long as the global state, and everything that leaves a client is in it: it is clipped as one.
//! - The server sees the aggregate alone. An algorithm that wants more, or in which clients report weights, is for mode
//!   `insecure_plain`, and [`AlgorithmSpec::check`] refuses it elsewhere.
//! - A client's step is a function of its arguments. What a client keeps is its memory, which the engine stores.
//!
//! Absent: rounds, messages, noise. They are the cores'.

mod buffered;
mod nova;
mod options;
mod personal;
mod plain;
mod registry;
mod runner;
mod scaffold;
mod sgd;
#[cfg(test)]
mod tests;
mod weighted;

pub use options::{Choice, Kind, OptionError, OptionSpec, Options, Setting};
pub use registry::{AlgorithmSpec, Needs, REGISTRY, Refused, Unit, document, find};
pub use runner::Runner;

use crate::federation::Attendance;
use crate::training::TrainingError;
use fedveil_aggregation::optimizer::{ServerOptimizer, ServerStep};
use fedveil_learning::{Dataset, LearningError, ModelSpec};
use fedveil_proto_plan::TaskPlan;
use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// What one client has before it in one round.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// The plan, with the settings of local training.
    pub plan: &'a TaskPlan,
    /// x: the global parameters; with an [attendance](Algorithm::attendance) that is buffered, those that the client started
    /// from.
    pub global: &'a [f32],
    /// What the global state holds besides them.
    pub control: &'a [f32],
    /// τ: how many global states there are that are newer.
    pub staleness: u32,
    /// The client's data.
    pub data: &'a Dataset,
    /// The round, from 1.
    pub round: u32,
    /// N: all clients, those that take part now and then.
    pub clients: u32,
    /// Seed of the client's draws in this round.
    pub seed: u64,
}

/// What a client's step gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// What the client contributes: as long as the global state, "after minus before" where it is of parameters.
    pub vector: Vec<f32>,
    /// What it keeps for its next step, in place of what it has. `None`: it keeps what it has.
    pub memory: Option<Vec<f32>>,
}

impl From<Vec<f32>> for Given {
    fn from(vector: Vec<f32>) -> Self {
        Self { vector, memory: None }
    }
}

/// Why a client's step gives nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AlgorithmError {
    /// The plan's training cannot be done.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// Training fails.
    #[error(transparent)]
    Learning(#[from] LearningError),
    /// A vector of another length than the algorithm's.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// Which vector.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that it must have.
        expected: usize,
    },
    /// Bytes that are no model, or no memory.
    #[error("{0}")]
    Malformed(String),
}

/// A federated algorithm.
pub trait Algorithm: Debug + Send + Sync {
    /// Values of the global state besides the parameters; they are 0 at the start.
    fn control(&self, _parameters: usize) -> usize {
        0
    }

    /// Writes into the plan what the algorithm asks of local training and of the server's optimiser.
    fn plan(&self, _plan: &mut TaskPlan) {}

    /// Rows that one step looks at, drawn anew for each; none: all that the client has. Where it has more, the
    /// [`Runner`] draws, and [`client`](Self::client) is given no others.
    fn batch(&self) -> Option<NonZeroUsize> {
        None
    }

    /// One client's step. `memory` is what it kept of its last one.
    fn client(&self, task: &Task<'_>, memory: Option<&[f32]>) -> Result<Given, AlgorithmError>;

    /// Who has to connect when, if the algorithm needs its own way.
    fn attendance(&self) -> Option<Attendance> {
        None
    }

    /// How the server moves the global state by the aggregate, if not by the plan's optimiser alone.
    fn server(&self, _planned: ServerOptimizer) -> Option<Arc<dyn ServerStep>> {
        None
    }

    /// The parameters that a client with this memory uses itself, of the model's length: the global ones, if it has no
    /// personal ones.
    fn personal(&self, _spec: &ModelSpec, global: &[f32], _memory: Option<&[f32]>) -> Vec<f32> {
        global.to_vec()
    }

    /// Why the algorithm makes no sense for this model, if it does not.
    fn refuses(&self, _spec: &ModelSpec) -> Option<String> {
        None
    }
}

/// The difference of two models.
fn difference(new: &[f32], old: &[f32]) -> Vec<f32> {
    new.iter().zip(old).map(|(new, old)| new - old).collect()
}

/// The memory, if it is as long as it must be.
fn checked(memory: Option<&[f32]>, expected: usize) -> Result<Option<&[f32]>, AlgorithmError> {
    match memory {
        Some(memory) if memory.len() != expected => {
            Err(AlgorithmError::Length { what: "a client's memory", found: memory.len(), expected })
        }
        memory => Ok(memory),
    }
}
