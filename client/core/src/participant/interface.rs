//! What goes into a participant and what comes out of it.

use crate::policy::{PolicyRefusal, TotalExceeded};
use crate::record::Record;
use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use fedveil_aggregation::secagg::client as secagg;
use fedveil_privacy::ClipStep;
use fedveil_proto::Kind;
use fedveil_proto_plan::PlanError;
use fedveil_provenance::{self as provenance, CandidateError};
use std::sync::Arc;

/// Who the client is, and whom it trusts. The identity key never leaves the value.
pub struct Credentials {
    /// Ed25519 identity key.
    pub identity: SigningKey,
    /// The enrolment authority's certificate for that key.
    pub certificate: Vec<u8>,
    /// The enrolment authority, pinned at enrolment.
    pub authority: VerifyingKey,
    /// The signer of plans and models, pinned at enrolment.
    pub signer: VerifyingKey,
}

/// What happened, as far as the client is concerned.
pub enum Input {
    /// A message arrived.
    Message(Kind, Bytes),
    /// Local training ended with this update: new parameters minus old, in model file order.
    Trained(Vec<f32>),
    /// The new model was judged: its accuracy on examples of the client's own, less that of the model in use.
    Judged(f64),
    /// Local training, or judging, gave nothing, for this reason.
    TrainingFailed(String),
    /// Values that enter the sum as they are, neither clipped, rotated nor noised, as a poisoned client would send. No
    /// honest shell has a use for it: it exists so that demonstrations and tests attack through the real protocol.
    DangerUnbounded(Vec<i64>),
}

/// What the shell has to do, in the order given.
#[derive(Debug)]
pub enum Effect {
    /// Make the record durable before anything that follows.
    Persist(Arc<Record>),
    /// Send a message to the coordinator.
    Send(Kind, Vec<u8>),
    /// What is sent from here on belongs to this round.
    Entered {
        /// The round.
        round: u32,
    },
    /// Train on the adopted model and come back with [`Input::Trained`] or [`Input::TrainingFailed`].
    Train {
        /// The round.
        round: u32,
    },
    /// Compare a new model with the one in use, on examples of the client's own, and come back with [`Input::Judged`] or
    /// [`Input::TrainingFailed`]. It is nobody's model yet, and is to be forgotten.
    Judge {
        /// The round that made it.
        round: u32,
        /// The model file.
        model: Bytes,
    },
    /// A verified model replaces the one in use.
    Adopted {
        /// The round that made it.
        round: u32,
        /// The model file, the bytes that came in.
        model: Bytes,
    },
    /// The round is over for this client; the model in use stays.
    RoundOver {
        /// Why, in the coordinator's or the client's words.
        reason: String,
    },
    /// The task is over.
    Finished {
        /// Why, in the coordinator's words.
        reason: String,
    },
}

/// Why a client will not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The plan is not signed by the pinned key, or makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan is weaker than the owner allows.
    #[error(transparent)]
    Policy(#[from] PolicyRefusal),
    /// The plan would spend more than the owner allows over all tasks.
    #[error(transparent)]
    Total(#[from] TotalExceeded),
    /// A model or its place in the log is wrong.
    #[error("refused the published model: {0}")]
    Publication(#[from] provenance::Refusal),
    /// A manifest states a loss that the plan cannot have led to.
    #[error(
        "refused the published model: its manifest says that epsilon {claimed} was spent by round {round}, and by its \
         plan the task has spent what a whole number of participations costs, {least} of them or more and {round} at most"
    )]
    Spent {
        /// The manifest's ε.
        claimed: f64,
        /// The manifest's round.
        round: u32,
        /// Participations of this client that the coordinator must have charged.
        least: u32,
    },
    /// A clip norm that the coordinator cannot have come to by the plan.
    #[error("refused the published model: {0}")]
    Clip(#[from] ClipStep),
    /// The aggregation session is not what was agreed; its secrets are erased.
    #[error("refused the round: {0}")]
    Session(#[from] secagg::Refusal),
    /// What is said of a model to be judged is not signed by the pinned key, or makes no sense.
    #[error("declined to judge a model: {0}")]
    Candidate(#[from] CandidateError),
    /// The round is not one for this client.
    #[error("declined the round: {0}")]
    Round(String),
    /// A message that has no place here.
    #[error("unexpected {kind:?} message {state}")]
    Unexpected {
        /// What came.
        kind: Kind,
        /// Where the client stood.
        state: &'static str,
    },
    /// The update that local training brought is unusable.
    #[error("local update: {0}")]
    Update(String),
}

impl Refusal {
    /// Whether the client leaves the task. Otherwise it leaves the round and waits for the next.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Plan(_)
                | Self::Policy(_)
                | Self::Total(_)
                | Self::Publication(_)
                | Self::Spent { .. }
                | Self::Clip(_)
        )
    }
}
