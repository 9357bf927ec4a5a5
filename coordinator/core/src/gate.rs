//! What the gate of a plan looks at besides the parameters: the operator's own examples.

use fedveil_proto_plan::Measured;
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
    })
}
