//! Datasets, partitions, attacks and the deterministic runner over the two cores

pub mod algorithm;
pub mod attack;
pub mod canary;
pub mod datasets;
pub mod federation;
pub mod hold_out;
#[cfg(test)]
mod inversion;
pub mod output;
pub mod partition;
pub mod record;
pub mod report;
mod sampling;
pub mod scenario;
pub mod training;
