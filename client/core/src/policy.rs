//! What a client's owner allows, checked against what a plan means.

use crate::record::Record;
use fedveil_privacy::Delta;
use fedveil_proto_plan::{Mode, TaskPlan, Terms};
use fedveil_provenance::Digest;
use serde::{Deserialize, Serialize};

/// Limits that a plan must keep. A client refuses a plan that is weaker in any of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Largest ε that a task may spend on this client, over all its rounds.
    pub max_epsilon: f64,
    /// Largest δ of that ε.
    pub max_delta: f64,
    /// Largest ε of everything that ever leaves this client, over all tasks.
    pub max_total_epsilon: f64,
    /// The δ of that ε.
    pub max_total_delta: f64,
    /// Largest probability that the coordinator, with as many colluders as the plan assumes, sees this client's update.
    pub max_break_probability: f64,
    /// Largest ε that a task may spend on one of this client's examples. Unless infinite, a plan must train with
    /// example-level privacy.
    pub max_example_epsilon: f64,
    /// Fewest clients whose updates are summed before anything is seen.
    pub min_survivors: u32,
    /// Fewest colluders among a client's neighbours that the coordinator must have to see its update.
    pub min_colluders_to_break: u32,
    /// Whether a plan may let the coordinator see every update by itself. Where it does, the two limits above say
    /// nothing.
    pub allow_insecure_plain: bool,
    /// Whether a plan may have no noise at all (`privacy.placement` `insecure_none`). Where it does, limits on ε say nothing
    /// of that plan; what it costs is infinite, so that no plan with noise fits a finite `max_total_epsilon` after it.
    pub allow_insecure_no_noise: bool,
    /// Whether a plan may be a simulation, whose keys and noise follow from a seed that others may know.
    pub allow_insecure_simulated: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_epsilon: 16.0,
            max_delta: 1e-5,
            // Three tasks of the default plan are about 29, and no fourth fits.
            max_total_epsilon: 32.0,
            max_total_delta: 1e-5,
            // A tenth of δ: what is also the most that chance may take off the noise.
            max_break_probability: 1e-6,
            max_example_epsilon: f64::INFINITY,
            min_survivors: 8,
            min_colluders_to_break: 3,
            allow_insecure_plain: false,
            allow_insecure_no_noise: false,
            allow_insecure_simulated: false,
        }
    }
}

/// A plan is outside of the owner's limits.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyRefusal {
    /// A number is beyond its limit.
    #[error("this client's policy allows {limit} {allowed}, the plan wants {found}")]
    Limit {
        /// Name of the limit.
        limit: &'static str,
        /// What the policy says.
        allowed: f64,
        /// What the plan says.
        found: f64,
    },
    /// The coordinator would see the client's update.
    #[error(
        "this client's policy has allow_insecure_plain = false, and in the plan's mode, insecure_plain, the coordinator \
         sees every update by itself"
    )]
    InsecurePlain,
    /// The same, in a simulation of secure aggregation.
    #[error(
        "this client's policy has allow_insecure_plain = false, and in the plan's mode, insecure_ideal, the coordinator sees every update by itself"
    )]
    InsecureIdeal,
    /// Nobody would add noise.
    #[error(
        "this client's policy has allow_insecure_no_noise = false, and in the plan's placement, insecure_none, nobody adds \
         noise: epsilon is infinite"
    )]
    InsecureNoNoise,
    /// Nothing that is sent would be private.
    #[error(
        "this client's policy has allow_insecure_simulated = false, and the plan is a simulation: keys and noise follow \
         from a seed"
    )]
    InsecureSimulated,
}

/// One plan more, or one round more, would be too much in all.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "this client's policy allows max_total_epsilon {allowed} at delta {delta} over all tasks; {spent:.4} is spent, \
     and {rounds} more rounds of this task would bring it to {after:.4}"
)]
pub struct TotalExceeded {
    /// ε that the policy allows.
    pub allowed: f64,
    /// δ of all three.
    pub delta: f64,
    /// ε of all that has left this client.
    pub spent: f64,
    /// Rounds of the task that were asked for.
    pub rounds: u32,
    /// ε after them.
    pub after: f64,
}

impl Policy {
    /// Checks a plan whose terms the client has computed itself.
    pub fn check(&self, plan: &TaskPlan, terms: &Terms) -> Result<(), PolicyRefusal> {
        if plan.simulated && !self.allow_insecure_simulated {
            return Err(PolicyRefusal::InsecureSimulated);
        }
        if terms.guarantee.has_noise() {
            let epsilon = terms.guarantee.epsilon(terms.affordable_rounds);
            at_most("max_epsilon", self.max_epsilon, epsilon)?;
        } else if !self.allow_insecure_no_noise {
            return Err(PolicyRefusal::InsecureNoNoise);
        }
        at_most("max_delta", self.max_delta, plan.privacy.delta)?;
        match terms.mode {
            Mode::Secagg => {}
            _ if self.allow_insecure_plain => return Ok(()),
            Mode::InsecurePlain => return Err(PolicyRefusal::InsecurePlain),
            Mode::InsecureIdeal => return Err(PolicyRefusal::InsecureIdeal),
        }
        let break_probability = terms.break_probability_log2.exp2();
        at_most("max_break_probability", self.max_break_probability, break_probability)?;
        let example_epsilon = terms.example.as_ref().map_or(f64::INFINITY, |example| example.epsilon);
        at_most("max_example_epsilon", self.max_example_epsilon, example_epsilon)?;
        at_least("min_survivors", self.min_survivors, plan.aggregation.min_survivors)?;
        at_least("min_colluders_to_break", self.min_colluders_to_break, terms.colluders_to_break)
    }

    /// Checks that so many more rounds of a task that the record knows fit what the client allows in all.
    pub fn check_total(&self, record: &Record, task: &Digest, rounds: u32) -> Result<(), TotalExceeded> {
        // A δ that is none allows nothing.
        let epsilon = |rounds| match Delta::new(self.max_total_delta) {
            Ok(delta) => record.epsilon_after(task, rounds, delta),
            Err(_) => f64::INFINITY,
        };
        let after = epsilon(rounds);
        if after <= self.max_total_epsilon {
            return Ok(());
        }
        let (allowed, delta) = (self.max_total_epsilon, self.max_total_delta);
        Err(TotalExceeded { allowed, delta, spent: epsilon(0), rounds, after })
    }
}

fn at_most(limit: &'static str, allowed: f64, found: f64) -> Result<(), PolicyRefusal> {
    if found <= allowed { Ok(()) } else { Err(PolicyRefusal::Limit { limit, allowed, found }) }
}

fn at_least(limit: &'static str, allowed: u32, found: u32) -> Result<(), PolicyRefusal> {
    if found >= allowed {
        Ok(())
    } else {
        Err(PolicyRefusal::Limit { limit, allowed: f64::from(allowed), found: f64::from(found) })
    }
}
