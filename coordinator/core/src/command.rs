//! What the outside may ask of the core, and how it is told no.

use crate::event::Client;
use crate::gate::Proposed;
use fedveil_aggregation::plain::{self, LengthError};
use fedveil_aggregation::secagg::{self, CodecError, MaskedInput};
use fedveil_proto::Kind;
use fedveil_proto_plan::Measured;
use fedveil_provenance::{Digest, GroupDecision};

/// One input. Everything that can happen to a coordinator is one of these.
#[derive(Debug)]
pub enum Command {
    /// Begin the task; the initial model is stored under this digest.
    Open {
        /// Digest of the initial model file.
        model: Digest,
    },
    /// A session opened whose identity the shell has authenticated.
    Connect {
        /// Who.
        client: Client,
    },
    /// The session ended, for whatever reason.
    Disconnect {
        /// Who.
        client: Client,
    },
    /// A message from a connected client.
    Message {
        /// Who.
        client: Client,
        /// Kind of message.
        kind: Kind,
        /// Received bytes.
        bytes: Vec<u8>,
    },
    /// An input of a connected client, decoded while it arrived (`Coordinator::begin_input`), or why it is none.
    Input {
        /// Who.
        client: Client,
        /// What came.
        input: Result<Input, Reject>,
    },
    /// Time passed.
    Tick,
    /// A job ended.
    Computed(Computed),
    /// The coordinator restarted: sessions are gone, so a round in progress is aborted.
    Recover,
    /// Draw this client into no round any more.
    Quarantine {
        /// Whom.
        client: Client,
        /// Why, for the log and the client.
        reason: String,
    },
    /// Lift a client's quarantine.
    Release {
        /// Whose.
        client: Client,
        /// Why, for the log and the client.
        reason: String,
    },
    /// End the task.
    Stop {
        /// Why, for the log and the clients.
        reason: String,
    },
}

/// A client's part in a sum, as large as the model.
#[derive(Debug)]
pub enum Input {
    /// Under masks.
    Masked(MaskedInput),
    /// In the clear.
    Plain(plain::Update),
}

/// Takes an input in pieces of any size.
pub enum Upload {
    /// Of a masked input.
    Masked(secagg::Upload),
    /// Of an update in the clear.
    Plain(plain::Upload),
}

impl Upload {
    /// Takes the next bytes of the message. What failed once fails always.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        match self {
            Self::Masked(upload) => Ok(upload.push(bytes)?),
            Self::Plain(upload) => Ok(upload.push(bytes)?),
        }
    }

    /// Ends the message; fails unless all of it was there.
    pub fn finish(self) -> Result<Input, Reject> {
        Ok(match self {
            Self::Masked(upload) => Input::Masked(upload.finish()?),
            Self::Plain(upload) => Input::Plain(upload.finish()?),
        })
    }
}

/// Result of a job, with the blobs that its events name.
#[derive(Debug)]
pub struct Computed {
    pub(crate) outcome: Outcome,
    pub(crate) blobs: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Summed { round: u32, group: u32, sum: Result<Digest, String>, blamed: Vec<Client> },
    Closed { round: u32, result: Result<Closed, String> },
    Rejected { round: u32, rejected: Rejected },
    Proposed { round: u32, proposed: Box<Proposed> },
}

#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) model: Digest,
    pub(crate) momentum: Option<Digest>,
    pub(crate) clip_norm: Option<f64>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) checkpoint: String,
    pub(crate) groups: Vec<GroupDecision>,
    pub(crate) measured: Option<Measured>,
}

/// A model that did not pass the gate.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) model: Digest,
    pub(crate) reason: String,
    pub(crate) measured: Measured,
    pub(crate) groups: Vec<GroupDecision>,
}

/// A peer's fault: the command changes nothing, the peer is told, and the round goes on without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Reject {
    /// What was wrong, without anything the peer should not learn.
    pub reason: String,
    /// Whether the client leaves the current round for it.
    pub drops: bool,
}

impl From<CodecError> for Reject {
    fn from(error: CodecError) -> Self {
        Self::fault(error)
    }
}

impl From<LengthError> for Reject {
    fn from(error: LengthError) -> Self {
        Self::fault(error)
    }
}

impl Reject {
    #[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
    pub(crate) fn fault(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), drops: true }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
    pub(crate) fn ignore(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), drops: false }
    }
}
