//! The task plan: what a coordinator asks of its clients, signed once and checked by every client.
//!
//! A plan travels as a DSSE envelope around JSON; the bytes that were signed are the bytes that are parsed, and
//! [`SignedPlan`] keeps them together. [`TaskPlan::check`] turns a plan into its [`Terms`]: group sizes, the privacy
//! guarantee, the ring width, what a malicious coordinator would need. Coordinator and client call the same function on
//! the same bytes, so a client never takes the coordinator's word for what a round costs.
//!
//! This crate stands above the leaves because a plan draws its consequences from `aggregation`, `privacy` and
//! `provenance` at once, and both cores need them. It knows nothing of rounds in progress, peers or time.

mod check;
mod error;
mod example;
mod gate;
mod groups;
mod plain;
mod sections;
mod session;
mod signed;
mod terms;

pub use error::PlanError;
pub use example::ExampleTerms;
pub use gate::{FederatedEvaluation, Gate, MAX_REJECTIONS, Measured};
pub use groups::ACCEPTED_CHANCE;
pub use sections::{
    AdaptiveClipping, AdaptiveOptimizer, Aggregation, Cohort, CorrelatedNoise, ExamplePrivacy, Model,
    Privacy, Server, Setting, TaskPlan, Training,
};
pub use signed::{MAX_BYTES, PAYLOAD_TYPE, SignedPlan};
pub use terms::{Mode, Terms};

/// The plan format that this code reads and writes.
pub const VERSION: u32 = 3;
/// Most parameters of a model, all tensors together.
pub const MAX_PARAMETERS: u32 = 1 << 22;
/// Most updates among which a rule chooses one by one, in mode `insecure_plain`: a manifest says what became of each.
pub const MAX_ROWS: u32 = 2_000;
/// Most pre-aggregators before a rule.
pub const MAX_PRE: usize = 4;
/// Most clients in one round.
pub const MAX_CLIENTS: u32 = 20_000;

#[cfg(test)]
mod tests;
