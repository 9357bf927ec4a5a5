//! The coordinator's server
