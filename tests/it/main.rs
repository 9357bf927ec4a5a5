//! End-to-end tests: the command as a person uses it, real processes over real TLS, hostile peers.

#![allow(clippy::unwrap_used, reason = "what a test cannot go on without is its failure")]

mod architecture;
mod bad_input;
mod corpora;
mod data;
mod demo;
mod enrollment;
mod federation;
mod hostile;
mod privacy;
mod robust;
mod secagg;
mod simulate;
mod support;
