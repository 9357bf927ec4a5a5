//! What is kept of a run: one [`RoundRecord`] a line in `rounds.jsonl`, one [`Summary`] in `summary.json`, and
//! both together in `report.html`.
//!
//! Field names are the format: they are read by other programs and signed with the run. Digests are
//! lower-case hexadecimal SHA-256. Where a field holds a number of bytes, it counts protocol messages, both
//! headers and payload, before TLS. An epsilon that is infinite is `null`, and so is a clip norm that clips nothing.

use fedveil_coordinator_core::Evidence;
use fedveil_proto_plan::Measured;
use fedveil_provenance::{Explanation, null_is_infinite};
use serde::{Deserialize, Serialize};

/// What became of a group's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupStatus {
    /// It entered the new model.
    Kept,
    /// The robust rule or the range check left it out.
    Dropped,
    /// It was never unmasked, since too few of the group's clients were left.
    Withheld,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundOutcome {
    /// A new global model was signed, logged and pushed.
    Published,
    /// The global model stayed as it was.
    Aborted,
    /// A new model was made and did not pass the gate; the global model stayed as it was.
    Rejected,
}

/// One group of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Index of the group in its round, from 0.
    pub index: u32,
    /// Clients drawn into the group.
    pub size: u32,
    /// Clients of the group whose update is in its sum.
    pub survivors: u32,
    /// What became of its sum.
    pub status: GroupStatus,
    /// Why, in words; empty where it was kept.
    pub reason: String,
    /// The robust rule's score, larger is more suspicious; none where the sum was not scored.
    pub score: Option<f64>,
    /// The numbers behind the decision, where the rule made one about this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

/// What was decided about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientStatus {
    /// The rounds make it suspicious, and nothing was done.
    Suspected,
    /// It is not drawn any more.
    Quarantined,
    /// It would be in quarantine, but too many others are, or too few clients would be left.
    Waived,
    /// Its quarantine was lifted.
    Released,
}

/// One decision about one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientDecision {
    /// Its identity.
    pub client: String,
    /// What was decided.
    pub status: ClientStatus,
    /// Why, in words; empty where the evidence says it.
    pub reason: String,
    /// What the rounds said about it; none where the operator decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// One round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// Number of the round, from 1; the model before round 1 is the initial one.
    pub round: u32,
    /// How the round ended.
    pub outcome: RoundOutcome,
    /// Why it was aborted, or its model rejected.
    pub reason: Option<String>,
    /// Clients in the roster.
    pub clients_joined: u32,
    /// Clients of the roster that went missing before their update was in a sum.
    pub clients_dropped: u32,
    /// The groups, by index.
    pub groups: Vec<GroupRecord>,
    /// Groups that entered the model.
    pub groups_kept: u32,
    /// Groups that were left out.
    pub groups_dropped: u32,
    /// Groups that were never unmasked.
    pub groups_withheld: u32,
    /// What the gate measured of the new model, where the plan has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// What was decided about clients since the end of the round before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientDecision>,
    /// Accuracy of the new model on the test set, from 0 to 1.
    pub test_accuracy: Option<f64>,
    /// Mean cross-entropy of the new model on the test set, in nats.
    pub test_loss: Option<f64>,
    /// How well the new model does on the data of single clients, where that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_accuracy: Option<ClientAccuracy>,
    /// Where the attack is a backdoor and it is measured: share of its examples that the new model labels as the
    /// attacker wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_success: Option<f64>,
    /// Epsilon spent up to and with this round by the client that was charged most.
    #[serde(deserialize_with = "null_is_infinite")]
    pub epsilon: f64,
    /// Bytes that all clients together sent.
    pub bytes_up: u64,
    /// Bytes that all clients together received.
    pub bytes_down: u64,
    /// Wall-clock seconds; virtual seconds in a simulation.
    pub seconds: f64,
    /// Digest of the global model after the round.
    pub model_digest: String,
    /// Digest of that model's manifest.
    pub manifest_digest: String,
    /// Leaves in the provenance log after the round.
    pub log_size: u64,
    /// Whether keys and noise were nobody's to know; see [`Summary::private`].
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub private: bool,
}

/// A client that the rounds made suspicious.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its identity.
    pub client: String,
    /// Whether it was in quarantine in the end.
    pub quarantined: bool,
    /// What all rounds say about it; none for one that had a part in no round since it was released, or in none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// Who is behind the suspicious groups, by the test of `fedveil robust suspects`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspicion {
    /// Accepted probability that any honest client is ever named.
    pub false_alarm: f64,
    /// Clients over which that is counted.
    pub clients: u32,
    /// Rounds after which a client can be named whose group is always among the most suspicious; none: never.
    pub fewest_rounds: Option<u32>,
    /// The named, and those in quarantine, the most suspicious first.
    pub suspects: Vec<Suspect>,
    /// Where it is known who was poisoned: share of the suspects that were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Share of the poisoned that are suspects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
}

/// The run as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Rounds that published a model.
    pub rounds: u32,
    /// Enrolled clients.
    pub clients: u32,
    /// Clients among them that were made Byzantine.
    pub byzantine: u32,
    /// Share of the clients made to drop out of a round, from 0 to 1.
    pub dropout: f64,
    /// What the Byzantine clients do.
    pub attack: String,
    /// Name of the data.
    pub dataset: String,
    /// Name of the robust rule.
    pub rule: String,
    /// `secagg` or `insecure_plain`.
    pub aggregation_mode: String,
    /// Accuracy of the published model on the test set, from 0 to 1.
    pub test_accuracy: Option<f64>,
    /// Accuracy of the model before round 1.
    pub initial_accuracy: Option<f64>,
    /// Where the attack is a backdoor: share of its examples, made of the test set, that the published model labels
    /// as the attacker wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_success: Option<f64>,
    /// Epsilon spent by the client that was charged most, at `delta`.
    #[serde(deserialize_with = "null_is_infinite")]
    pub epsilon: f64,
    /// Epsilon at which the task stops.
    #[serde(deserialize_with = "null_is_infinite")]
    pub epsilon_budget: f64,
    /// The delta that both epsilons belong to.
    pub delta: f64,
    /// Whose data these numbers protect, such as `user`.
    pub unit: String,
    /// Between which inputs they make it hard to tell, such as `zero-out`.
    pub neighbours: String,
    /// How epsilon was computed, such as `rdp`.
    pub accountant: String,
    /// The sampling of clients that epsilon is credited with; `full` is none.
    pub sampling: String,
    /// Who added the noise, such as `distributed`.
    pub placement: String,
    /// Which noise it was, such as `discrete-gaussian`.
    pub mechanism: String,
    /// Standard deviation of the noise on a group sum, in clip norms.
    pub noise_multiplier: f64,
    /// L2 bound on a client's update.
    #[serde(deserialize_with = "null_is_infinite")]
    pub clip_norm: f64,
    /// Groups left out over the whole run.
    pub groups_dropped: u32,
    /// Groups never unmasked over the whole run.
    pub groups_withheld: u32,
    /// Who is behind the suspicious groups, where that was asked and groups are random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<Suspicion>,
    /// Rounds that made no model.
    pub rounds_aborted: u32,
    /// Rounds whose model did not pass the gate.
    #[serde(default)]
    pub rounds_rejected: u32,
    /// Mean bytes that a client sent in a round.
    pub bytes_up_per_client_round: u64,
    /// Mean bytes that a client received in a round.
    pub bytes_down_per_client_round: u64,
    /// Parameters of the model.
    pub model_parameters: u32,
    /// Wall-clock seconds of the run; virtual seconds in a simulation.
    pub wall_seconds: f64,
    /// Seed of data split, initial model, attackers and drop-outs.
    pub seed: u64,
    /// Why no further round was run: a lower-case fragment that completes "stopped because".
    pub stopped_because: String,
    /// Version of the software.
    pub version: String,
    /// Whether keys and noise were nobody's to know. Not in a simulation, where they follow from the seed: written there
    /// alone, as `false`.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub private: bool,
}

fn yes() -> bool {
    true
}

/// Accuracies of a model on the data of single clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientAccuracy {
    /// Clients that it was measured on.
    pub clients: u32,
    /// Mean over them.
    pub mean: f64,
    /// Mean over the worst tenth of them, one at least.
    pub worst_tenth: f64,
    /// The least, the lower quartile, the median, the upper quartile and the greatest.
    pub quantiles: [f64; 5],
}

impl ClientAccuracy {
    /// Of accuracies, one for each client; none of none. A quantile is an accuracy that occurs: of two, the lower.
    pub fn of(accuracies: &[f64]) -> Option<Self> {
        let mut sorted = accuracies.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        Some(Self {
            clients: sorted.len() as u32,
            mean: mean(&sorted),
            worst_tenth: mean(&sorted[..(sorted.len() / 10).max(1)]),
            quantiles: [0, 1, 2, 3, 4].map(|quarter| sorted[last * quarter / 4]),
        })
    }
}
