//! Differential privacy for sums that nobody sees in parts.
//!
//! A client's update goes through this crate on its way into secure aggregation:
//!
//! ```text
//! f32 update ─ clip_l2 ─► norm ≤ clip ─ Rotation::forward ─ Grid::round ─► i32 steps, integer norm ≤ bound ─┐
//!                                                              Noise::sample_vec ─► i32 noise ───────────┴─► mod 2^b
//! ```
//!
//! [`Mechanism`] is what a task plan says about privacy. [`Mechanism::guarantee`] turns it into a [`Guarantee`]: the
//! noise that is added and by whom, the ring the sums need, the ε that any number of participations costs, and what that
//! ε is a claim about. Coordinator and clients compute it separately from the same plan, and each keeps a [`Ledger`] of
//! what was spent.
//!
//! Invariants
//! - Floats appear before rounding only. The sensitivity that is accounted for is the integer L2 norm, checked after
//!   rounding, and the noise is sampled in integers from the exact distribution.
//! - Adjacency of a guarantee is zero-out (one client's update replaced by zero) and the unit is the user. Neither
//!   sampling of cohorts nor grouping is credited with any amplification, but for Poisson sampling where the noise is
//!   added centrally; a [`Composition`] of rounds credits exactly the [`Sampling`] that it is told.
//! - Every number that bounds a loss is rounded towards more loss.
//!
//! Absent on purpose: clocks, files, the operating system's randomness (callers pass a
//! [`CryptoRng`](rand_core::CryptoRng)), and any notion of a protocol message.

mod account;
mod accounting;
mod adaptive;
pub mod audit;
mod clip;
mod evaluation;
mod example;
mod grid;
mod ledger;
mod matrix;
mod noise;
mod params;
mod plan;
mod population;
mod ring;
mod rotation;
mod sizing;
mod zcdp;

pub use account::{Account, TaskLoss};
pub use accounting::{
    Accountant, Bracket, Composition, EpsilonAtOrder, Neighbours, RdpCurve, Sampling, SamplingError,
    distributed_discrete_gaussian_rho, distributed_skellam,
};
pub use adaptive::{AdaptiveClip, ClipStep, INDICATOR_BOUND};
pub use clip::{Clipped, NonFinite, clip_l2, l2_norm};
pub use evaluation::{ANSWER_BOUND, Estimate, Evaluation};
pub use example::{ExampleGuarantee, ExampleLevel, GradientSum};
pub use grid::Grid;
pub use ledger::{BudgetExceeded, ClientId, Ledger};
pub use matrix::{MatrixKind, MatrixMechanism, MatrixNoise, Participation};
pub use noise::{Noise, NoiseKind, UnknownNoise, Variance};
pub use params::{ClipNorm, Delta, Epsilon, NoiseMultiplier, ParamError, SamplingRate, Significance};
pub use plan::{Accounting, Adjacency, Claim, Guarantee, Indicator, Mechanism, Placement, PlanError, Unit};
pub use population::{Limit, Overdrawn, Participations};
pub use rotation::Rotation;
pub use sizing::{ColluderBound, colluder_bound, hypergeometric_tail};
pub use zcdp::{gaussian_rho, zcdp_epsilon};
