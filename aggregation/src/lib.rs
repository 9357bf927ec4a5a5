//! Secure and Byzantine-robust aggregation

pub mod optimizer;
pub mod plain;
pub mod robust;
pub mod secagg;
