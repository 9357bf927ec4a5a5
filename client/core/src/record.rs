//! What a client remembers between rounds and across restarts. No secret is in it.

use fedveil_provenance::{Digest, Head};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format of the record file.
pub(crate) const VERSION: u32 = 1;

/// The client's memory, one entry for each task it has joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Format, [`VERSION`].
    pub version: u32,
    /// Tasks by the digest of their signed plan.
    pub tasks: BTreeMap<Digest, TaskRecord>,
}

impl Default for Record {
    fn default() -> Self {
        Self { version: VERSION, tasks: BTreeMap::new() }
    }
}

/// What a client remembers of one task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskRecord {
    /// The last round in which this client said anything; it takes part in later ones only.
    pub last_round: u32,
    /// Rounds that this client has charged to its privacy budget.
    pub participations: u32,
    /// The place in the log up to which this client has verified the history.
    pub head: Option<Head>,
    /// Digest of the newest model that it has verified.
    pub model: Option<Digest>,
}
