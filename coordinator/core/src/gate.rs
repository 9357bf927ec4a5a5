//! What the gate of a plan looks at besides the parameters: the operator's own examples.

use crate::event::Hex;
use fedveil_proto_plan::Measured;
use fedveil_provenance::{Digest, GroupDecision};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Examples of the coordinator's own that no client trains on. The core knows nothing of them but what a model makes of
/// them; a job asks, on whatever thread it runs.
pub trait HoldOut: fmt::Debug + Send + Sync {
    /// Evaluates a model file, or says why it cannot.
    fn evaluate(&self, model: &[u8]) -> Result<Evaluation, String>;
}

/// What a model makes of held-out examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Share of them that are labelled right, from 0 to 1.
    pub accuracy: f64,
    /// Share of those with a trigger that are labelled as it asks, where there are any.
    pub trigger_success: Option<f64>,
}

/// A new model that passed what the coordinator itself measures, and is to be judged by clients: signed as a candidate,
/// in no log, with everything that its manifest will need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposed {
    /// Digest of the model file.
    pub model: Digest,
    /// What its round leaves to the next.
    pub momentum: Digest,
    /// The clip norm of the next round, where it is adaptive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// What was measured so far.
    pub measured: Measured,
    /// What became of each group of updates.
    pub groups: Vec<GroupDecision>,
    /// Commitment to the round's cohort.
    pub cohort_commitment: Digest,
    /// The signed [`Candidate`](fedveil_provenance::Candidate).
    pub statement: Hex,
}

/// Measures a candidate on the hold-out beside the best model published so far.
pub(crate) fn measure(
    hold_out: &dyn HoldOut,
    step_norm: f64,
    candidate: &[u8],
    best: &[u8],
) -> Result<Measured, String> {
    let found = hold_out.evaluate(candidate)?;
    let best = hold_out.evaluate(best)?;
    Ok(Measured {
        step_norm,
        accuracy: Some(found.accuracy),
        best_accuracy: Some(best.accuracy),
        trigger_success: found.trigger_success,
        ..Measured::default()
    })
}
