//! The coordinator's server

pub mod authority;
pub mod enrollment;
pub mod keys;
pub mod tls;
