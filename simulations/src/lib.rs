//! Datasets, partitions, attacks and the deterministic runner over the two cores

pub mod attack;
pub mod datasets;
pub mod federation;
pub mod partition;
pub mod record;
pub mod report;
mod sampling;
