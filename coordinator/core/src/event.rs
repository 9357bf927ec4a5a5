//! What happened, in the order in which it happened. Events are the coordinator's only durable state.

use crate::gate::Proposed;
use fedveil_proto_plan::Measured;
use fedveil_provenance::{Digest, GroupDecision};
use serde::{Deserialize, Serialize};

/// A client's identity: the digest of its identity key, as `secagg::ClientId`.
pub type Client = Digest;

/// Milliseconds since the Unix epoch, as the shell tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// This time and `seconds` more.
    pub fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(u64::from(seconds) * 1000))
    }

    /// Whole seconds since the Unix epoch.
    pub fn unix_seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Bytes that read as hexadecimal in the stored events.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hex(#[serde(with = "hex::serde")] pub Vec<u8>);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Phases of a group, after groups are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupStage {
    /// Waiting for sealed shares.
    Sharing,
    /// Waiting for masked inputs.
    Collecting,
    /// Waiting for signatures on the survivor set.
    Consistency,
    /// Waiting for one share per peer.
    Unmasking,
}

impl GroupStage {
    /// The name of the phase.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sharing => "sharing",
            Self::Collecting => "collecting",
            Self::Consistency => "consistency",
            Self::Unmasking => "unmasking",
        }
    }
}

/// What the rounds say about one client, as when it was decided on. See `robust::suspects::Evidence`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Rounds in which it had a part in a scored group.
    pub rounds: u32,
    /// Of these, rounds in which its group was among the most suspicious.
    pub suspicious: f64,
    /// How many that would be by chance.
    pub expected: f64,
    /// Bound on the probability that any honest client ever looks this suspicious, if attackers aim at nobody.
    pub p_value: f64,
    /// The same bound, if all attackers aim at one client.
    pub p_framed: f64,
}

/// One fact. Message bytes are kept as received; vectors are named by digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "an event is documented as a whole; its fields say what they are")]
pub enum Event {
    /// The task began with this signed plan and this initial model.
    TaskOpened { plan: Hex, model: Digest },
    /// A known identity opened a session.
    ClientConnected { client: Client },
    /// The client accepted the plan, has verified the log up to `log_size` and is ready for rounds.
    ClientJoined { client: Client, log_size: u64 },
    /// The client's session ended.
    ClientLeft { client: Client },
    /// A round began. One participation of each client of the cohort is reserved in the ledger, until it is charged, its
    /// group is withheld, or the round is over.
    RoundOpened { round: u32, cohort: Vec<Client>, deadline: Millis },
    /// A client advertised its keys.
    Advertised { client: Client, message: Hex },
    /// The roster is closed.
    RosterSealed { root: Digest, deadline: Millis },
    /// A client revealed its nonce.
    Revealed { client: Client, message: Hex },
    /// The beacon is known and groups are formed.
    GroupsFormed { groups: u32, members: u32, deadline: Millis },
    /// A client's sealed shares arrived.
    Shared { client: Client, message: Hex },
    /// A client's masked input was added to its group's sum.
    InputAccepted { client: Client, digest: Digest },
    /// A client's update in the clear was taken. The event says nothing of what is in it.
    UpdateAccepted { client: Client },
    /// A client signed its group's survivor set.
    Signed { client: Client, message: Hex },
    /// A client sent its unmasking shares.
    Unmasked { client: Client, message: Hex },
    /// A group moved on.
    GroupAdvanced { group: u32, stage: GroupStage, deadline: Millis },
    /// Privacy spent by these clients, durable before the group is asked to unmask. Without groups (group 0) it is durable
    /// before anything is computed of single updates, or, where cohorts are drawn by coins, before anyone is asked for one.
    PrivacyCharged { group: u32, clients: Vec<Client> },
    /// All shares are there; the group's sum is being computed.
    UnmaskStarted { group: u32 },
    /// The group's noised sum is known.
    GroupSummed { group: u32, sum: Digest },
    /// A client's shares were proved false; the others' corrected them.
    ClientBlamed { group: u32, client: Client },
    /// The group yields nothing.
    GroupWithheld { group: u32, reason: String },
    /// A client is out of this round.
    ClientDropped { client: Client, reason: String },
    /// The robust rule and the new model are being computed.
    AggregationStarted,
    /// A signed model entered the log. Round 0 is the initial model.
    Published {
        round: u32,
        at: Millis,
        model: Digest,
        momentum: Option<Digest>,
        /// The clip norm of the next round, where it is adaptive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
        manifest: Hex,
        checkpoint: String,
        groups: Vec<GroupDecision>,
        /// What the gate measured, where the plan has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        measured: Option<Measured>,
    },
    /// Clients of the round, all of them charged in it, are asked about its new model. The round goes through its phases
    /// once more, for the sums of their answers.
    EvaluationOpened { round: u32, cohort: Vec<Client>, deadline: Millis, proposed: Box<Proposed> },
    /// The round's model did not pass the gate: nobody is given it, and the one before stays. The round is aborted with
    /// it, in the same transaction.
    ModelRejected {
        round: u32,
        model: Digest,
        reason: String,
        measured: Measured,
        groups: Vec<GroupDecision>,
    },
    /// The round yields no model; what it charged stays charged.
    RoundAborted { round: u32, at: Millis, reason: String },
    /// The rounds make this client suspicious; nothing is done by that. This and what follows from it come before the end
    /// of the round that decided it.
    ClientSuspected { client: Client, round: u32, evidence: Evidence },
    /// The client is not drawn any more. Without evidence it is the operator who wants it.
    ClientQuarantined { client: Client, round: u32, reason: String, evidence: Option<Evidence> },
    /// The client would be in quarantine, and why it is not.
    QuarantineWaived { client: Client, round: u32, reason: String },
    /// The operator lifts a client's quarantine; evidence about it begins anew.
    ClientReleased { client: Client, reason: String },
    /// The task is over.
    TaskClosed { reason: String },
}
