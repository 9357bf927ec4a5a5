//! The gate: what a new model must pass before anyone is given it.
//!
//! A robust rule compares updates with one another. Where most of them are poisoned, or a few of them cleverly, it has
//! nothing to compare with; the gate looks at what came of them. Its bounds are part of the plan, so that everybody knows
//! them. The data is the operator's, and nobody else's.
//!
//! Absent: the measuring. [`Gate::judge`] is a function of numbers, which whoever has them can repeat.

use serde::{Deserialize, Serialize};

use crate::{PlanError, at_least, field};

/// Most rejections in a row that a plan may bear.
pub const MAX_REJECTIONS: u32 = 100;

/// Bounds on a new model. One that breaks any of them is not published, and the round ends as if it had given none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Largest L2 norm of the step from the model before, in units of its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_step_norm: Option<f64>,
    /// Most accuracy, from 0 to 1, that a model may lose on the hold-out against the best model published so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_accuracy_drop: Option<f64>,
    /// Largest share of the hold-out's examples with a trigger that a model may label as the trigger asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_trigger_success: Option<f64>,
    /// Rejections without a published model between them, after which the task ends.
    #[serde(default = "three")]
    pub max_rejections: u32,
}

/// What was measured of a new model. What the gate has no bound on may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// L2 norm of the step from the model before.
    pub step_norm: f64,
    /// Accuracy on the hold-out, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// On the same examples, that of the best model published so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_accuracy: Option<f64>,
    /// Share of the examples with a trigger that are labelled as it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_success: Option<f64>,
}

impl Gate {
    /// Whether the bounds are on examples that the coordinator must have.
    pub fn needs_hold_out(&self) -> bool {
        self.max_accuracy_drop.is_some() || self.max_trigger_success.is_some()
    }

    /// Says why a model does not pass. What is bounded and was not measured does not pass.
    pub fn judge(&self, measured: &Measured) -> Result<(), String> {
        if let Some(most) = self.max_step_norm {
            let found = measured.step_norm;
            at_most(found, most, || format!("its step has norm {found:.4}, accepted is up to {most}"))?;
        }
        if let Some(most) = self.max_accuracy_drop {
            let (Some(found), Some(best)) = (measured.accuracy, measured.best_accuracy) else {
                return Err("its accuracy was not measured".to_owned());
            };
            at_most(best - found, most, || {
                format!(
                    "its accuracy {found:.4} is {:.4} below {best:.4}, the best so far, and accepted is up to {most}",
                    best - found
                )
            })?;
        }
        if let Some(most) = self.max_trigger_success {
            let found = measured.trigger_success.ok_or("its answers to triggers were not measured")?;
            at_most(found, most, || {
                format!(
                    "it labels {found:.4} of the examples with a trigger as that asks, accepted is up to {most}"
                )
            })?;
        }
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        let Self { max_step_norm, max_accuracy_drop, max_trigger_success, max_rejections } = *self;
        if max_step_norm.is_none() && !self.needs_hold_out() {
            let accepted = "one with max_step_norm, max_accuracy_drop or max_trigger_success";
            return Err(field("server.gate", "a section that bounds nothing", accepted));
        }
        if let Some(norm) = max_step_norm.filter(|norm| !(*norm > 0.0 && norm.is_finite())) {
            return Err(field("server.gate.max_step_norm", norm, "a finite number above 0"));
        }
        for (name, share) in [
            ("server.gate.max_accuracy_drop", max_accuracy_drop),
            ("server.gate.max_trigger_success", max_trigger_success),
        ] {
            if let Some(share) = share.filter(|share| !(0.0..1.0).contains(share)) {
                return Err(field(name, share, "0 or more, below 1"));
            }
        }
        at_least("server.gate.max_rejections", max_rejections, 1, MAX_REJECTIONS)
    }
}

/// Rejections that a plan bears which does not say.
fn three() -> u32 {
    3
}

/// Not a number is too much.
fn at_most(found: f64, most: f64, refusal: impl Fn() -> String) -> Result<(), String> {
    if found.is_nan() || found > most { Err(refusal()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate {
            max_step_norm: Some(2.0),
            max_accuracy_drop: Some(0.1),
            max_trigger_success: Some(0.3),
            max_rejections: 3,
        }
    }

    fn measured() -> Measured {
        Measured {
            step_norm: 2.0,
            accuracy: Some(0.75),
            best_accuracy: Some(0.8125),
            trigger_success: Some(0.3),
        }
    }

    #[test]
    fn each_bound_is_one_by_itself() {
        assert_eq!(gate().judge(&measured()), Ok(()));
        let above = f64::from_bits(2_f64.to_bits() + 1);
        for (found, expected) in [
            (Measured { step_norm: above, ..measured() }, "its step has norm 2.0000, accepted is up to 2"),
            (Measured { step_norm: f64::NAN, ..measured() }, "its step has norm NaN"),
            (
                Measured { accuracy: Some(0.5), ..measured() },
                "its accuracy 0.5000 is 0.3125 below 0.8125, the best so far, and accepted is up to 0.1",
            ),
            (Measured { accuracy: Some(f64::NAN), ..measured() }, "its accuracy NaN"),
            (Measured { accuracy: None, ..measured() }, "its accuracy was not measured"),
            (Measured { best_accuracy: None, ..measured() }, "its accuracy was not measured"),
            (Measured { trigger_success: Some(0.31), ..measured() }, "it labels 0.3100 of the examples"),
            (Measured { trigger_success: None, ..measured() }, "its answers to triggers were not measured"),
        ] {
            let reason = gate().judge(&found).unwrap_err();
            assert!(reason.starts_with(expected), "{reason}");
        }
        // What is not bounded is not looked at.
        let bounds_step = Gate { max_accuracy_drop: None, max_trigger_success: None, ..gate() };
        assert_eq!(bounds_step.judge(&Measured { step_norm: 1.0, ..Measured::default() }), Ok(()));
        let better = Measured { accuracy: Some(1.0), ..measured() };
        assert_eq!(gate().judge(&better), Ok(()));
    }

    #[test]
    fn bad_bounds_are_refused_by_name() {
        assert_eq!(gate().check(), Ok(()));
        let cases: [(fn(&mut Gate), &str); 8] = [
            (|gate| gate.max_step_norm = Some(0.0), "server.gate.max_step_norm is 0, accepted is a finite"),
            (|gate| gate.max_step_norm = Some(f64::INFINITY), "server.gate.max_step_norm is inf"),
            (|gate| gate.max_accuracy_drop = Some(1.0), "server.gate.max_accuracy_drop is 1, accepted is 0"),
            (|gate| gate.max_accuracy_drop = Some(f64::NAN), "server.gate.max_accuracy_drop is NaN"),
            (|gate| gate.max_trigger_success = Some(-0.1), "server.gate.max_trigger_success is -0.1"),
            (|gate| gate.max_rejections = 0, "server.gate.max_rejections is 0, accepted is 1 to 100"),
            (|gate| gate.max_rejections = 101, "server.gate.max_rejections is 101"),
            (
                |gate| {
                    (gate.max_step_norm, gate.max_accuracy_drop, gate.max_trigger_success) =
                        (None, None, None);
                },
                "server.gate is a section that bounds nothing",
            ),
        ];
        for (change, expected) in cases {
            let mut gate = gate();
            change(&mut gate);
            let error = gate.check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("task plan: {expected}")), "{error}");
        }
    }

    #[test]
    fn a_gate_says_how_many_rejections_it_bears() {
        let gate: Gate = serde_json::from_str(r#"{"max_step_norm":2.0}"#).unwrap();
        assert_eq!(serde_json::to_string(&gate).unwrap(), r#"{"max_step_norm":2.0,"max_rejections":3}"#);
        assert!(serde_json::from_str::<Gate>(r#"{"max_norm":2.0}"#).is_err());
    }
}
