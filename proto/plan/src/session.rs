//! What the rounds of a task are bound to: the sessions of secure aggregation, and the seed of a rotation.

use ed25519_dalek::VerifyingKey;
use fedveil_aggregation::secagg::{Prg, ProtocolKind, SessionConfig, SessionParameters};
use fedveil_provenance::{Candidate, Digest};

use crate::{PlanError, SignedPlan, TaskPlan, Terms};

impl TaskPlan {
    /// The seed of the rotation in one round, for [`Rotation::new`](fedveil_privacy::Rotation::new) on both sides. It
    /// depends on nothing that is not bound into the round's session: the task, the round, the model that is trained on.
    /// It is public, and no update can be chosen before the model is.
    pub fn rotation_seed(&self, round: u32, model: &Digest) -> [u8; 32] {
        let mut bound = b"fedveil/rotation/v1".to_vec();
        bound.extend_from_slice(&self.id.0);
        bound.extend_from_slice(&round.to_be_bytes());
        bound.extend_from_slice(&model.0);
        Digest::of(&bound).0
    }
}
impl Terms {
    /// The secure-aggregation session of one round: bound to the plan's bytes, the round and the model. There is none in
    /// mode `insecure_plain`.
    pub fn session(
        &self,
        plan: &SignedPlan,
        authority: &VerifyingKey,
        round: u32,
        model: &Digest,
    ) -> Result<SessionConfig, PlanError> {
        let (protocol, prg) = self.masking.ok_or_else(no_session)?;
        let mut context = b"fedveil/round/v1".to_vec();
        context.extend_from_slice(&plan.digest().0);
        context.extend_from_slice(&round.to_be_bytes());
        context.extend_from_slice(&model.0);
        SessionConfig::new(SessionParameters {
            context: Digest::of(&context).0,
            ring_bits: self.guarantee.ring_bits,
            length: self.guarantee.input_length(),
            protocol,
            ..Self::seats(plan, authority, prg)
        })
        .map_err(|error| PlanError::Inconsistent(error.to_string()))
    }

    /// The session in which a round's new model is judged: bound to the model before and to the new one besides. An answer
    /// is one number, which is cheapest to mask itself.
    pub fn evaluation_session(
        &self,
        plan: &SignedPlan,
        authority: &VerifyingKey,
        candidate: &Candidate,
    ) -> Result<SessionConfig, PlanError> {
        let (_, prg) = self.masking.ok_or_else(no_session)?;
        let evaluation = self.guarantee.evaluation.as_ref().ok_or_else(no_session)?;
        let mut context = b"fedveil/evaluation/v1".to_vec();
        context.extend_from_slice(&plan.digest().0);
        context.extend_from_slice(&candidate.round.to_be_bytes());
        context.extend_from_slice(&candidate.parent.0);
        context.extend_from_slice(&candidate.model.0);
        SessionConfig::new(SessionParameters {
            context: Digest::of(&context).0,
            ring_bits: evaluation.ring_bits,
            length: 1,
            protocol: ProtocolKind::PairwiseMask,
            ..Self::seats(plan, authority, prg)
        })
        .map_err(|error| PlanError::Inconsistent(error.to_string()))
    }

    /// What all sessions of a task have in common.
    fn seats(plan: &SignedPlan, authority: &VerifyingKey, prg: Prg) -> SessionParameters {
        SessionParameters {
            context: [0; 32],
            authority: authority.to_bytes(),
            ring_bits: 8,
            length: 1,
            protocol: ProtocolKind::PairwiseMask,
            group_size: plan.plan().aggregation.group_size as usize,
            degree: plan.plan().aggregation.degree as usize,
            threshold: plan.plan().aggregation.threshold as usize,
            min_survivors: plan.plan().aggregation.min_survivors as usize,
            min_cohort: plan.plan().cohort.minimum as usize,
            max_cohort: plan.plan().cohort.clients as usize,
            max_missing_reveals: plan.plan().aggregation.max_missing_reveals as usize,
            prg,
        }
    }
}

fn no_session() -> PlanError {
    PlanError::Inconsistent("mode insecure_plain has no session of secure aggregation, and no other has one that its plan does not ask for".to_owned())
}
