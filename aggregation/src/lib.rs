//! Secure and Byzantine-robust aggregation
