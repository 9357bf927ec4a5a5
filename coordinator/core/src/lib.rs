//! Sans-IO core of the coordinator: the task and its rounds as an event-sourced state machine.
//!
//! ```text
//! Command ──decide──► [Event] ──append──► store ──apply──► state ──poll_effect──► [Effect]
//!    ▲                   ▲                                   │
//!    │                   └──────────── advance(now) ◄────────┘ poll_timeout
//!    └── messages, joins, ticks, results of jobs
//! ```
//!
//! - [`Coordinator::decide`] reads and judges one command; a peer's fault is a [`Reject`], never an error or a panic.
//! - [`Coordinator::advance`] says which transitions the state itself makes due (a phase is complete, a deadline passed).
//! - [`Coordinator::apply`] mutates, never fails, computes nothing heavy. Replaying the events rebuilds the state.
//! - [`Driver`] binds the three to a [`Store`]: events are durable before any effect of theirs leaves. It is also where
//!   the [`Population`] is asked, the ledger over all tasks that outlives the run.
//! - Heavy work is a [`Job`]: a value that any thread may run and whose result comes back as a command.
//! - [`replay()`] closes the rounds of a finished run again, from the group sums that it stored.
//!
//! Absent on purpose: clocks, sockets, files, threads, randomness. Time is [`Millis`], randomness a seed. Model vectors
//! never enter events; an event names the digest of a blob.

mod command;
mod coordinator;
mod driver;
mod effect;
mod event;
mod gate;
mod job;
mod model_file;
mod noise;
mod population;
mod quarantine;
mod replay;
mod round;
mod updates;

pub use command::{Command, Computed, Input, Reject, Upload};
pub use coordinator::{Coordinator, Settings, ledger_of};
pub use driver::{Driver, MemoryStore, Outcomes, Store, StoreError};
pub use effect::Effect;
pub use event::{Client, Event, Evidence, GroupStage, Hex, Millis};
pub use gate::{Evaluation, HoldOut, Proposed};
pub use job::{Job, JobError, Secrets};
pub use model_file::{ModelFileError, parameters, with_parameters};
pub use noise::NoiseKey;
pub use population::{MemoryPopulation, MemoryPopulationTask, Population};
pub use quarantine::{MAX_REASON, Quarantine, QuarantineMode, Suspicion, group_sizes};
pub use replay::{ReplayError, ReplayedRound, replay};

#[cfg(test)]
mod tests;
