//! The coordinator's server: storage, enrolment, TLS, the gRPC services and the thread that owns the core.

pub mod authority;
pub mod enrollment;
pub mod keys;
pub mod population;
pub mod server;
pub mod service;
pub mod store;
pub mod tls;
