//! Why a plan is refused: by its field, with what was found and what is accepted.

/// Why a plan is not acceptable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The envelope or its signature is wrong.
    #[error("task plan signature: {0}")]
    Signature(String),
    /// The payload is not a plan.
    #[error("task plan: {0}")]
    Malformed(String),
    /// One field has a value that no plan may have.
    #[error("task plan: {field} is {found}, accepted is {accepted}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// Value found.
        found: String,
        /// What is accepted.
        accepted: String,
    },
    /// Fields do not fit one another.
    #[error("task plan: {0}")]
    Inconsistent(String),
}

pub(crate) fn at_least(name: &'static str, value: u32, low: u32, high: u32) -> Result<(), PlanError> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(field(name, value, format!("{low} to {high}"))) }
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass literals and numbers as they are")]
pub(crate) fn field(field: &'static str, found: impl ToString, accepted: impl ToString) -> PlanError {
    PlanError::Field { field, found: found.to_string(), accepted: accepted.to_string() }
}
