//! The client's agent
