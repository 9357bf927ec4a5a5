//! Wire contract of Fedveil: gRPC services, generated code, limits, framing, join tokens.
//!
//! The services are defined, and documented, in `fedveil/v1/fedveil.proto`; [`v1`] is generated from it and checked
//! in. Everything that both ends must agree on before a message means anything is here:
//!
//! - [`Kind`] and [`Assembler`]: how a message of any length becomes frames and back;
//! - [`limits`]: what a peer may at most send;
//! - [`JoinToken`]: what admits a device, and pins what it will trust;
//! - [`enrollment`]: the signed text that binds an identity key to one enrolment;
//! - [`ErrorCode`]: why a call was refused, on the wire and back.
//!
//! What a message says is not here: messages are bytes that the crates above parse. Nothing in this crate opens a
//! connection, reads a clock or draws randomness.

pub mod enrollment;
pub mod framing;
pub mod hello;
pub mod kind;
pub mod limits;
pub mod status;
pub mod token;

pub use framing::{Assembler, Chunk, Deframer, FrameError, frames};
pub use kind::{Kind, UnknownKind};
pub use status::ErrorCode;
pub use token::{JoinToken, Pins, TokenParseError};

/// Messages, clients and servers of package `fedveil.v1`.
///
/// Generated from `fedveil/v1/fedveil.proto`; the test `generated` says how, and fails when they differ.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    include!("gen/fedveil.v1.rs");
}
