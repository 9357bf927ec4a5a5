//! End-to-end tests.

#![allow(clippy::unwrap_used, reason = "what a test cannot go on without is its failure")]

mod architecture;
mod enrollment;
