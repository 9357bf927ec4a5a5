//! From the coordinator's events to what is kept of a run and what a watching person sees.

use crate::progress::{Progress, Standing};
use fedveil_coordinator::server::Observed;
use fedveil_coordinator_core::{Event, Millis};
use fedveil_proto_plan::Measured;
use fedveil_provenance::{Decision, Digest, GroupDecision};
use fedveil_simulations::record::{
    ClientDecision, ClientStatus, GroupRecord, GroupStatus, RoundOutcome, RoundRecord,
};
use std::collections::BTreeMap;

/// Accuracy and loss of a model file on held-out examples.
pub(crate) type Evaluate = Box<dyn Fn(&Digest) -> Result<(f64, f64), String> + Send>;

/// Follows one task.
pub(crate) struct Watch {
    progress: Progress,
    evaluate: Option<Evaluate>,
    /// What is to be seen right now.
    standing: Standing,
    /// Finished rounds.
    pub(crate) rounds: Vec<RoundRecord>,
    /// Accuracy of the initial model.
    pub(crate) initial_accuracy: Option<f64>,
    /// The last published model.
    pub(crate) model: Option<Digest>,
    /// Why the task is over.
    pub(crate) closed: Option<String>,
    /// When the round in progress was opened, if this process saw it.
    opened_at: Option<Millis>,
    bytes_before: (u64, u64),
    log_size: u64,
    /// Groups of the round in progress that gave nothing, or a sum that was not used.
    settled: BTreeMap<u32, (GroupStatus, String)>,
    /// What the gate rejected in the round in progress: why, what it measured, and the groups of the model.
    rejected: Option<(String, Measured, Vec<GroupDecision>)>,
    /// What was decided about clients since the last round ended.
    clients: Vec<ClientDecision>,
    /// Whether clients are being asked about the round's new model.
    is_judged: bool,
}

impl Watch {
    pub(crate) fn new(
        progress: Progress,
        rounds: u32,
        epsilon_budget: f64,
        evaluate: Option<Evaluate>,
    ) -> Self {
        Self {
            progress,
            evaluate,
            standing: Standing { rounds, epsilon_budget, ..Standing::default() },
            rounds: Vec::new(),
            initial_accuracy: None,
            model: None,
            closed: None,
            opened_at: None,
            bytes_before: (0, 0),
            log_size: 0,
            settled: BTreeMap::new(),
            rejected: None,
            clients: Vec::new(),
            is_judged: false,
        }
    }

    /// Goes on from the rounds of an earlier process.
    pub(crate) fn resume(&mut self, rounds: Vec<RoundRecord>) {
        self.log_size = rounds.last().map_or(0, |round| round.log_size);
        self.rounds = rounds;
    }

    /// Takes note of an event; gives the record of a round that it ends.
    pub(crate) fn note(&mut self, observed: &Observed) -> Result<Option<&RoundRecord>, String> {
        self.clients.extend(decision(&observed.event));
        let standing = &mut self.standing;
        standing.epsilon = observed.epsilon;
        standing.bytes = (observed.bytes_up, observed.bytes_down);
        let mut ended = None;
        match &observed.event {
            Event::ClientJoined { .. } => standing.connected += 1,
            Event::ClientLeft { .. } => standing.connected = standing.connected.saturating_sub(1),
            Event::RoundOpened { round, cohort, .. } => {
                self.opened_at = Some(observed.at);
                self.bytes_before = (observed.bytes_up, observed.bytes_down);
                self.settled.clear();
                self.is_judged = false;
                *standing = Standing {
                    round: *round,
                    clients: cohort.len() as u32,
                    phase: "keys",
                    dropped: 0,
                    groups: 0,
                    withheld: 0,
                    ..standing.clone()
                };
            }
            Event::EvaluationOpened { .. } => (self.is_judged, standing.phase) = (true, "evaluation"),
            // The phases of a round again, for answers and not for updates.
            Event::RosterSealed { .. }
            | Event::GroupsFormed { .. }
            | Event::GroupAdvanced { .. }
            | Event::ClientDropped { .. }
            | Event::GroupSummed { .. }
            | Event::GroupWithheld { .. }
            | Event::AggregationStarted
                if self.is_judged => {}
            Event::RosterSealed { .. } => standing.phase = "beacon",
            Event::GroupsFormed { groups, .. } => (standing.groups, standing.phase) = (*groups, "sharing"),
            Event::GroupAdvanced { stage, .. } => standing.phase = stage.name(),
            Event::UpdateAccepted { .. } => standing.phase = "updates",
            Event::ClientDropped { .. } => standing.dropped += 1,
            Event::GroupSummed { group, .. } => {
                let unused = "the round gave no model".to_owned();
                self.settled.insert(*group, (GroupStatus::Dropped, unused));
            }
            Event::GroupWithheld { group, reason } => {
                standing.withheld += 1;
                self.settled.insert(*group, (GroupStatus::Withheld, reason.clone()));
            }
            Event::AggregationStarted => standing.phase = "aggregating",
            Event::Published { round, model, manifest, groups, measured, .. } => {
                self.log_size += 1;
                self.model = Some(*model);
                let metrics = self.evaluate.as_ref().map(|evaluate| evaluate(model)).transpose()?;
                standing.accuracy = metrics.map(|(accuracy, _)| accuracy);
                if *round == 0 {
                    self.initial_accuracy = standing.accuracy;
                } else {
                    let mut record = self.record(observed, *round, RoundOutcome::Published, None);
                    record.groups = groups.iter().map(decided).collect();
                    record.measured = *measured;
                    (record.test_accuracy, record.test_loss) = metrics.unzip();
                    record.model_digest = model.to_string();
                    record.manifest_digest = Digest::of(&manifest.0).to_string();
                    ended = Some(record);
                }
            }
            Event::ModelRejected { reason, measured, groups, .. } => {
                self.rejected = Some((reason.clone(), *measured, groups.clone()));
            }
            Event::RoundAborted { round, reason, .. } => {
                let record = if let Some((reason, measured, groups)) = self.rejected.take() {
                    let mut record = self.record(observed, *round, RoundOutcome::Rejected, Some(reason));
                    record.groups = groups.iter().map(decided).collect();
                    record.measured = Some(measured);
                    record
                } else {
                    let reason = Some(reason.clone());
                    let mut record = self.record(observed, *round, RoundOutcome::Aborted, reason);
                    let settled = self.settled.iter();
                    record.groups =
                        settled.map(|(&index, (status, reason))| undecided(index, *status, reason)).collect();
                    record
                };
                ended = Some(record);
            }
            Event::TaskClosed { reason } => self.closed = Some(reason.clone()),
            _ => {}
        }
        let is_over = ended.is_some();
        if let Some(mut record) = ended {
            let count = |status| record.groups.iter().filter(|group| group.status == status).count() as u32;
            record.groups_kept = count(GroupStatus::Kept);
            record.groups_dropped = count(GroupStatus::Dropped);
            record.groups_withheld = count(GroupStatus::Withheld);
            record.clients = std::mem::take(&mut self.clients);
            self.rounds.push(record);
        }
        self.progress.show(&self.standing);
        Ok(self.rounds.last().filter(|_| is_over))
    }

    /// Shows the round that ended last. To be called once its record is kept: who reads of a round finds it.
    pub(crate) fn show_round(&self) {
        if let Some(record) = self.rounds.last() {
            self.progress.round(record, &self.standing);
            for decision in &record.clients {
                self.progress.say(&told(decision));
            }
        }
    }

    /// Ends the display.
    pub(crate) fn finish(&self) {
        self.progress.finish();
    }

    fn record(
        &self,
        observed: &Observed,
        round: u32,
        outcome: RoundOutcome,
        reason: Option<String>,
    ) -> RoundRecord {
        RoundRecord {
            round,
            outcome,
            reason,
            clients_joined: self.standing.clients,
            clients_dropped: self.standing.dropped,
            groups: Vec::new(),
            groups_kept: 0,
            groups_dropped: 0,
            groups_withheld: 0,
            measured: None,
            clients: Vec::new(),
            test_accuracy: None,
            test_loss: None,
            client_accuracy: None,
            attack_success: None,
            epsilon: observed.epsilon,
            bytes_up: observed.bytes_up - self.bytes_before.0,
            bytes_down: observed.bytes_down - self.bytes_before.1,
            seconds: self.opened_at.map_or(0, |opened| observed.at.0.saturating_sub(opened.0)) as f64
                / 1000.0,
            model_digest: String::new(),
            manifest_digest: String::new(),
            log_size: self.log_size,
            private: true,
        }
    }
}

/// A decision about a client, in one line.
fn told(decision: &ClientDecision) -> String {
    let ClientDecision { client, status, reason, evidence } = decision;
    let what = match status {
        ClientStatus::Suspected => "is suspected",
        ClientStatus::Quarantined => "is put in quarantine",
        ClientStatus::Waived => "is not put in quarantine, as the evidence would have it",
        ClientStatus::Released => "is released from quarantine",
    };
    let why = match evidence {
        Some(evidence) if reason.is_empty() => format!(
            "its group was among the most suspicious in {:.0} of {} rounds, where chance gives {:.1}",
            evidence.suspicious, evidence.rounds, evidence.expected
        ),
        _ => reason.clone(),
    };
    format!("client {client} {what}: {why}")
}

/// What an event decides about a client.
fn decision(event: &Event) -> Option<ClientDecision> {
    let (client, status, reason, evidence) = match event {
        Event::ClientSuspected { client, evidence, .. } => {
            (client, ClientStatus::Suspected, String::new(), Some(*evidence))
        }
        Event::ClientQuarantined { client, reason, evidence, .. } => {
            (client, ClientStatus::Quarantined, reason.clone(), *evidence)
        }
        Event::QuarantineWaived { client, reason, .. } => {
            (client, ClientStatus::Waived, reason.clone(), None)
        }
        Event::ClientReleased { client, reason } => (client, ClientStatus::Released, reason.clone(), None),
        _ => return None,
    };
    Some(ClientDecision { client: client.to_string(), status, reason, evidence })
}

pub(crate) fn decided(group: &GroupDecision) -> GroupRecord {
    let status = match group.decision {
        Decision::Kept => GroupStatus::Kept,
        Decision::Dropped => GroupStatus::Dropped,
        Decision::Withheld => GroupStatus::Withheld,
    };
    GroupRecord {
        index: group.index,
        size: group.members,
        survivors: group.survivors,
        status,
        reason: group.reason.clone(),
        score: group.score,
        explanation: group.explanation,
    }
}

fn undecided(index: u32, status: GroupStatus, reason: &str) -> GroupRecord {
    let reason = reason.to_owned();
    GroupRecord { index, size: 0, survivors: 0, status, reason, score: None, explanation: None }
}
