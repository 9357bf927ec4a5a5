//! The client's agent

pub mod enroll;
pub mod keystore;
pub mod tls;
