//! A plan and its signature: the bytes that were signed are the bytes that are parsed.

use ed25519_dalek::{SigningKey, VerifyingKey};
use fedveil_provenance::{Digest, Envelope};

use crate::{PlanError, TaskPlan};

/// DSSE payload type of a task plan.
pub const PAYLOAD_TYPE: &str = "application/vnd.fedveil.task-plan.v1+json";
/// Most bytes of a signed plan that a client reads.
pub const MAX_BYTES: usize = 64 * 1024;

/// A plan together with the signed bytes it came in.
#[derive(Debug, Clone)]
pub struct SignedPlan {
    bytes: Vec<u8>,
    digest: Digest,
    plan: TaskPlan,
}

impl SignedPlan {
    /// Signs a plan.
    pub fn sign(plan: TaskPlan, key: &SigningKey) -> Result<Self, PlanError> {
        let payload = serde_json::to_vec(&plan).map_err(|error| PlanError::Malformed(error.to_string()))?;
        let bytes = Envelope::sign(PAYLOAD_TYPE, payload, &[key]).to_json();
        Ok(Self { digest: Digest::of(&bytes), bytes, plan })
    }

    /// Reads a signed plan and refuses any signer but `signer`. The plan's terms are not checked here.
    pub fn verify(bytes: &[u8], signer: &VerifyingKey) -> Result<Self, PlanError> {
        if bytes.len() > MAX_BYTES {
            return Err(PlanError::Malformed(format!(
                "{} bytes, accepted are up to {MAX_BYTES}",
                bytes.len()
            )));
        }
        let envelope = Envelope::parse(bytes).map_err(|error| PlanError::Signature(error.to_string()))?;
        let payload = envelope
            .verify(PAYLOAD_TYPE, std::slice::from_ref(signer), 1)
            .map_err(|error| PlanError::Signature(error.to_string()))?;
        let plan =
            serde_json::from_slice(payload).map_err(|error| PlanError::Malformed(error.to_string()))?;
        Ok(Self { bytes: bytes.to_vec(), digest: Digest::of(bytes), plan })
    }

    /// The signed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the signed bytes; it names the task everywhere.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Name of the task's log in its checkpoints.
    pub fn origin(&self) -> String {
        format!("fedveil/{}", self.digest)
    }

    /// The plan.
    pub fn plan(&self) -> &TaskPlan {
        &self.plan
    }
}
