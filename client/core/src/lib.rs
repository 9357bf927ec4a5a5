//! Sans-IO core of the client: what a participant does, and above all what it refuses.
//!
//! ```text
//!            Plan            Publication, Model           RoundOpen           Roster … Signatures
//! connected ──────► planned ───────────────────► ready ────────────► in a round ────────────────► ready
//!     │ plan refused   │ publication refused       │ stale round, budget     │ any refusal
//!     ▼                ▼                           ▼                         ▼
//!   finished         finished                   declined                  declined, secrets erased
//! ```
//!
//! [`Participant::handle`] takes one input and returns what the shell has to do, in order. [`Effect::Persist`] comes
//! before every message that depends on it: a client marks a round as consumed before its first word in it, and charges
//! itself before its input leaves, so that a crash makes it a drop-out and never a repetition.
//!
//! Absent on purpose: sockets, files, clocks, models, data. No secret of a round ever reaches an effect.

mod memo;
mod participant;
mod policy;
mod record;

pub use memo::Memo;
pub use participant::{Credentials, Effect, Input, MessageLimits, Participant, Refusal};
pub use policy::{Policy, PolicyRefusal, TotalExceeded};
pub use record::{Contribution, Record, TaskRecord, VERSION as RECORD_VERSION};

#[cfg(test)]
mod tests;
