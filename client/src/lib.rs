//! The client's agent: enrolment, keys, transport and the loop that runs a participant.

pub mod agent;
pub mod enroll;
pub mod keystore;
pub mod record;
pub mod tls;
