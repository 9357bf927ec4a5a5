//! How long a coordinator's messages may be.

use super::Participant;
use fedveil_aggregation::secagg::Limits;
use fedveil_proto::Kind;
use fedveil_proto_plan::Mode;
use fedveil_provenance::candidate::MAX_CANDIDATE_BYTES;
use fedveil_provenance::{Digest, lineage::MAX_PUBLICATION_BYTES};

/// Longest messages from a coordinator.
#[derive(Debug, Clone, Copy)]
pub struct MessageLimits {
    /// None in mode `insecure_plain`.
    session: Option<Limits>,
    parameters: usize,
}

impl MessageLimits {
    /// The limit before a plan is known: a plan, or a few words.
    pub fn before_plan(kind: Kind) -> usize {
        match kind {
            Kind::Plan => fedveil_proto_plan::MAX_BYTES,
            Kind::Reject | Kind::TaskClosed => MAX_TEXT,
            _ => 0,
        }
    }

    /// The limit under the plan.
    pub fn of(&self, kind: Kind) -> usize {
        match (kind, &self.session) {
            (Kind::RoundOpen, _) => 4,
            (Kind::Roster, Some(session)) => session.roster,
            (Kind::Reveals, Some(session)) => session.reveals,
            (Kind::Delivery, Some(session)) => session.delivery,
            (Kind::Survivors, Some(session)) => session.survivors,
            (Kind::Signatures, Some(session)) => session.signatures,
            (Kind::EvaluationOpen, Some(_)) => MAX_CANDIDATE_BYTES,
            (Kind::Publication, _) => MAX_PUBLICATION_BYTES,
            (Kind::Candidate, Some(_)) | (Kind::Model, _) => 4 * self.parameters + MAX_MODEL_HEADER,
            (Kind::RoundClosed, _) => MAX_TEXT,
            _ => Self::before_plan(kind),
        }
    }
}

/// Longest reason that a coordinator may give, in bytes.
const MAX_TEXT: usize = 4096;
/// Room for the header of a model file, in bytes.
const MAX_MODEL_HEADER: usize = 64 << 10;

impl Participant {
    /// Longest message of each kind that a coordinator may send under the accepted plan, for the transport.
    pub fn message_limits(&self) -> Option<MessageLimits> {
        let task = self.task.as_ref()?;
        let session = match task.terms.mode {
            Mode::Secagg => {
                let authority = &self.credentials.authority;
                Some(task.terms.session(&task.plan, authority, 0, &Digest([0; 32])).ok()?.limits())
            }
            Mode::InsecurePlain | Mode::InsecureIdeal => None,
        };
        Some(MessageLimits { session, parameters: task.plan.plan().model.parameters as usize })
    }
}
