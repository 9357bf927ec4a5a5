//! What the shell is asked to do.

use crate::event::Client;
use crate::job::Job;
use fedveil_proto::Kind;
use std::sync::Arc;

/// One request to the shell. Effects leave only after the events behind them are durable.
pub enum Effect {
    /// Send a message to a connected client.
    Send {
        /// To whom.
        client: Client,
        /// Kind of message.
        kind: Kind,
        /// Message bytes, shared between recipients.
        bytes: Arc<[u8]>,
    },
    /// Send the blob of that digest (the model) to a connected client.
    SendBlob {
        /// To whom.
        client: Client,
        /// Kind of message.
        kind: Kind,
        /// Which blob.
        digest: fedveil_provenance::Digest,
    },
    /// Run a job and bring its result back as `Command::Computed`.
    Compute(Box<Job>),
    /// End the client's session.
    Close {
        /// Whose.
        client: Client,
    },
}
