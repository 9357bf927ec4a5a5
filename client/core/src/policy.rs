//! What a client's owner allows, checked against what a plan means.

use fedveil_proto_plan::{TaskPlan, Terms};
use serde::{Deserialize, Serialize};

/// Limits that a plan must keep. A client refuses a plan that is weaker in any of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Largest ε that a task may spend on this client, over all its rounds.
    pub max_epsilon: f64,
    /// Largest δ of that ε.
    pub max_delta: f64,
    /// Fewest clients whose updates are summed before anything is seen.
    pub min_survivors: u32,
    /// Fewest colluders among a client's neighbours that the coordinator must have to see its update.
    pub min_colluders_to_break: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_epsilon: 16.0, max_delta: 1e-5, min_survivors: 8, min_colluders_to_break: 3 }
    }
}

/// A plan is outside of the owner's limits.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("this client's policy allows {limit} {allowed}, the plan wants {found}")]
pub struct PolicyRefusal {
    /// Name of the limit.
    pub limit: &'static str,
    /// What the policy says.
    pub allowed: f64,
    /// What the plan says.
    pub found: f64,
}

impl Policy {
    /// Checks a plan whose terms the client has computed itself.
    pub fn check(&self, plan: &TaskPlan, terms: &Terms) -> Result<(), PolicyRefusal> {
        let epsilon = terms.guarantee.epsilon(terms.affordable_rounds);
        at_most("max_epsilon", self.max_epsilon, epsilon)?;
        at_most("max_delta", self.max_delta, plan.privacy.delta)?;
        at_least("min_survivors", self.min_survivors, plan.aggregation.min_survivors)?;
        at_least("min_colluders_to_break", self.min_colluders_to_break, terms.colluders_to_break)
    }
}

fn at_most(limit: &'static str, allowed: f64, found: f64) -> Result<(), PolicyRefusal> {
    if found <= allowed { Ok(()) } else { Err(PolicyRefusal { limit, allowed, found }) }
}

fn at_least(limit: &'static str, allowed: u32, found: u32) -> Result<(), PolicyRefusal> {
    if found >= allowed {
        Ok(())
    } else {
        Err(PolicyRefusal { limit, allowed: f64::from(allowed), found: f64::from(found) })
    }
}
