//! What a client remembers between rounds and across restarts: its own ledger. No secret is in it.
//!
//! A task is known by the digest of its signed plan. The plan holds a random identity of the task, so two tasks never
//! share a digest, and one task cannot be had under two.

use fedveil_privacy::{Account, Delta, TaskLoss};
use fedveil_provenance::{Digest, Head};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format of the record.
pub const VERSION: u32 = 2;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRecord {
    /// The plan's name of the task, for people.
    pub name: String,
    /// The δ at which the plan states its ε.
    pub delta: f64,
    /// What a participation costs, by the client's own computation from the plan.
    pub loss: TaskLoss,
    /// The last round in which this client said anything; it takes part in later ones only.
    pub last_round: u32,
    /// The last round for which an update left it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_update: u32,
    /// The last round whose new model it was asked to judge; it judges those of later ones only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_judged: u32,
    /// Rounds that this client has charged to its privacy budget.
    pub participations: u32,
    /// What left the client, oldest first.
    pub contributions: Vec<Contribution>,
    /// The place in the log up to which this client has verified the history.
    pub head: Option<Head>,
    /// Digest of the newest model that it has verified.
    pub model: Option<Digest>,
}

/// One update, or one answer about a new model, that left the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contribution {
    /// The round.
    pub round: u32,
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// Whether it was an answer about the round's new model. What it costs is charged with the round's update.
    #[serde(default, skip_serializing_if = "is_false")]
    pub judged: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Record {
    /// ε of everything that has left this client, over all tasks.
    pub fn epsilon(&self, delta: Delta) -> f64 {
        self.account(|_, task| task.participations).epsilon(delta)
    }

    /// The same after so many more participations in a task. One that is not in the record costs infinitely.
    pub fn epsilon_after(&self, task: &Digest, participations: u32, delta: Delta) -> f64 {
        if !self.tasks.contains_key(task) {
            return f64::INFINITY;
        }
        let more = |digest: &Digest| if digest == task { participations } else { 0 };
        self.account(|digest, task| task.participations.saturating_add(more(digest))).epsilon(delta)
    }

    /// Forgets when what left the client, but for the `newest` times of each task.
    pub fn forget_contributions(&mut self, newest: usize) {
        for task in self.tasks.values_mut() {
            let older = task.contributions.len().saturating_sub(newest);
            task.contributions.drain(..older);
        }
    }

    fn account(&self, participations: impl Fn(&Digest, &TaskRecord) -> u32) -> Account {
        let mut account = Account::default();
        for (digest, task) in &self.tasks {
            account.add(&task.loss, participations(digest, task));
        }
        account
    }
}

impl TaskRecord {
    /// ε that the client has spent in the task, at the task's δ.
    pub fn epsilon(&self) -> f64 {
        let mut account = Account::default();
        account.add(&self.loss, self.participations);
        Delta::new(self.delta).map_or(f64::INFINITY, |delta| account.epsilon(delta))
    }
}
