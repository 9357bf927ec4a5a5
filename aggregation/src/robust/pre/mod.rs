//! Pre-aggregators: rows made of rows, for a rule to aggregate.

pub(super) mod arc;
pub(super) mod bucketing;
pub(super) mod clip;
pub(super) mod nnm;
