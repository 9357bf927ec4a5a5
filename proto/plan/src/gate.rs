//! The gate: what a new model must pass before anyone is given it.
//!
//! A robust rule compares updates with one another. Where most of them are poisoned, or a few of them cleverly, it has
//! nothing to compare with; the gate looks at what came of them. Its bounds are part of the plan, so that everybody knows
//! them. The data is the operator's, and nobody else's.
//!
//! Absent: the measuring. [`Gate::judge`] is a function of numbers, which whoever has them can repeat.

use serde::{Deserialize, Serialize};

use crate::PlanError;
use crate::error::{at_least, field};
use fedveil_privacy::{Estimate, NoiseMultiplier};

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
    /// What clients say of a model, in mode `secagg`; without it, they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<FederatedEvaluation>,
    /// Rejections without a published model between them, after which the task ends.
    #[serde(default = "three")]
    pub max_rejections: u32,
}

/// A judgement by those who took part in the round: each compares the new model with the one before on examples of its
/// own. Their answers are summed in groups like updates, with noise of their own, and every participation is charged for
/// both. See [`Evaluation`](fedveil_privacy::Evaluation).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederatedEvaluation {
    /// Most accuracy, from 0 to 1, that a model may lose against the one before.
    pub max_accuracy_drop: f64,
    /// Standard deviation of the noise in one group's sum of answers, over what one client can change it by.
    pub noise_multiplier: f64,
    /// Standard deviations of the noise in the estimate by which a drop must pass the bound to count.
    pub confidence: f64,
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
    /// What clients say that its accuracy is above that of the model before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// Standard deviation of the noise in that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
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

    /// Says why a model does not pass by what clients say of it.
    pub fn judge_answers(&self, estimate: Option<Estimate>) -> Result<(), String> {
        let Some(section) = &self.evaluation else { return Ok(()) };
        let Estimate { difference, deviation } = estimate.ok_or("no group has answered")?;
        let FederatedEvaluation { max_accuracy_drop, confidence, .. } = *section;
        at_most(-difference, max_accuracy_drop + confidence * deviation, || {
            format!(
                "clients say that it loses {:.4} of accuracy, with noise of deviation {deviation:.4}, and accepted is up to \
                 {max_accuracy_drop} and {confidence} deviations",
                -difference
            )
        })
    }

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        let Self { max_step_norm, max_accuracy_drop, max_trigger_success, max_rejections, .. } = *self;
        if let Some(evaluation) = &self.evaluation {
            evaluation.check()?;
        } else if max_step_norm.is_none() && !self.needs_hold_out() {
            let accepted = "one with max_step_norm, max_accuracy_drop, max_trigger_success or [evaluation]";
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

impl FederatedEvaluation {
    fn check(&self) -> Result<(), PlanError> {
        let Self { max_accuracy_drop, confidence, .. } = *self;
        if !(0.0..1.0).contains(&max_accuracy_drop) {
            let name = "server.gate.evaluation.max_accuracy_drop";
            return Err(field(name, max_accuracy_drop, "0 or more, below 1"));
        }
        if !(0.0..=10.0).contains(&confidence) {
            return Err(field("server.gate.evaluation.confidence", confidence, "a number from 0 to 10"));
        }
        self.noise().map(drop)
    }

    /// The noise multiplier.
    pub(crate) fn noise(&self) -> Result<NoiseMultiplier, PlanError> {
        NoiseMultiplier::new(self.noise_multiplier)
            .map_err(|error| field("server.gate.evaluation.noise_multiplier", error.found, error.accepted))
    }
}

/// Rejections that a plan bears which does not say.
fn three() -> u32 {
    3
}

/// Not a number is too much.
fn at_most(found: f64, most: f64, refusal: impl Fn() -> String) -> Result<(), String> {
    if found <= most { Ok(()) } else { Err(refusal()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate {
            max_step_norm: Some(2.0),
            max_accuracy_drop: Some(0.1),
            max_trigger_success: Some(0.3),
            evaluation: None,
            max_rejections: 3,
        }
    }

    fn measured() -> Measured {
        Measured {
            step_norm: 2.0,
            accuracy: Some(0.75),
            best_accuracy: Some(0.8125),
            trigger_success: Some(0.3),
            ..Measured::default()
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
        type Case = (fn(&mut Gate), &'static str);

        assert_eq!(gate().check(), Ok(()));
        let cases: [Case; 8] = [
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

    fn evaluation() -> FederatedEvaluation {
        FederatedEvaluation { max_accuracy_drop: 0.125, noise_multiplier: 2.0, confidence: 2.0 }
    }

    #[test]
    fn answers_count_beyond_their_noise() {
        let asking = Gate { evaluation: Some(evaluation()), ..gate() };
        let judge = |difference, deviation| asking.judge_answers(Some(Estimate { difference, deviation }));
        assert_eq!(judge(0.5, 0.0625), Ok(()));
        assert_eq!(judge(-0.25, 0.0625), Ok(()), "the bound and two deviations");
        let reason = judge(-0.26, 0.0625).unwrap_err();
        assert!(reason.starts_with("clients say that it loses 0.2600 of accuracy, with noise"), "{reason}");
        assert!(judge(f64::NAN, 0.0625).is_err() && judge(-0.1, f64::NAN).is_err());
        assert_eq!(asking.judge_answers(None).unwrap_err(), "no group has answered");
        assert_eq!(gate().judge_answers(None), Ok(()), "nobody was asked");
    }

    #[test]
    fn bad_evaluations_are_refused_by_name() {
        let only = Gate { max_step_norm: None, max_accuracy_drop: None, max_trigger_success: None, ..gate() };
        let asking = |evaluation| Gate { evaluation: Some(evaluation), ..only.clone() };
        assert_eq!(asking(evaluation()).check(), Ok(()));
        assert!(!asking(evaluation()).needs_hold_out());
        for (section, expected) in [
            (
                FederatedEvaluation { max_accuracy_drop: 1.0, ..evaluation() },
                "max_accuracy_drop is 1, accepted",
            ),
            (FederatedEvaluation { confidence: -1.0, ..evaluation() }, "confidence is -1, accepted"),
            (FederatedEvaluation { confidence: f64::NAN, ..evaluation() }, "confidence is NaN"),
            (
                FederatedEvaluation { noise_multiplier: 0.0, ..evaluation() },
                "noise_multiplier is 0, accepted",
            ),
        ] {
            let error = asking(section).check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("task plan: server.gate.evaluation.{expected}")), "{error}");
        }
    }

    #[test]
    fn a_gate_says_how_many_rejections_it_bears() {
        let gate: Gate = serde_json::from_str(r#"{"max_step_norm":2.0}"#).unwrap();
        assert_eq!(serde_json::to_string(&gate).unwrap(), r#"{"max_step_norm":2.0,"max_rejections":3}"#);
        assert!(serde_json::from_str::<Gate>(r#"{"max_norm":2.0}"#).is_err());
    }
}
