//! One round, from its opening to the job that closes it. It has one of three shapes:
//!
//! ```text
//! secagg          advertising ─► revealing ─► groups, each on its own:                              ─► closing
//!                                             sharing ─► collecting ─► consistency ─► unmasking
//!                                                 └──────────┴─────────────┴─────────────┴─► withheld
//! insecure_plain  updates ─► closing
//! insecure_ideal  groups, each on its own: collecting ─► unmasking, which is adding up, or withheld ─► closing
//! ```
//!
//! Where the plan asks clients about new models, closing leads back to advertising once more, among clients that the round
//! has charged: what is summed then are answers, and closing ends with a verdict.
//!
//! A phase ends when everyone who can still answer has, or at its deadline. Who has not answered is out of the round;
//! what was learnt about the group so far decides whether it can go on without them.
//!
//! The state is here. `decide` judges what clients send, `advance` says which transitions are due, and `apply` takes note
//! of events and makes the jobs.

mod advance;
mod apply;
mod decide;

use crate::command::Reject;
use crate::coordinator::Coordinator;
use crate::event::{Client, Event, GroupStage, Millis};
use crate::gate::Proposed;
use fedveil_aggregation::secagg::{
    ClientId, Cohort, GroupServer, Nonce, Roster, SessionConfig, Unmasking, random_groups,
};
use fedveil_proto::Kind;
use fedveil_provenance::Digest;
use std::collections::{BTreeMap, BTreeSet};

/// The state of the round in progress.
pub(crate) struct Round {
    number: u32,
    model: Digest,
    /// Deadline of the phase; groups, once formed, have their own.
    deadline: Millis,
    /// Clients that are still in the round.
    live: BTreeSet<Client>,
    /// Of these, who has not answered in this phase. Once groups are formed, each has its own.
    awaited: BTreeSet<Client>,
    /// Clients that were charged for it.
    charged: BTreeSet<Client>,
    /// The new model, while clients are asked about it.
    proposed: Option<Box<Proposed>>,
    stage: Stage,
}

enum Stage {
    Advertising {
        config: SessionConfig,
        cohort: Box<Cohort>,
    },
    Revealing {
        config: SessionConfig,
        roster: Roster,
        reveals: BTreeMap<ClientId, Nonce>,
    },
    Grouped {
        /// None where nothing is masked.
        config: Option<SessionConfig>,
        root: Digest,
        groups: Vec<Group>,
        group_of: BTreeMap<Client, usize>,
        closing: bool,
    },
    /// Everyone's update by itself. The updates are with the driver.
    Plain {
        cohort: BTreeSet<Client>,
        updated: BTreeSet<Client>,
        closing: bool,
    },
}

struct Group {
    /// The session; none where nothing is masked.
    server: Option<GroupServer>,
    members: Vec<Client>,
    /// Members that can answer in this phase and have not.
    awaited: BTreeSet<Client>,
    /// Members whose input is in the sum.
    survivors: BTreeSet<Client>,
    deadline: Millis,
    progress: Progress,
}

enum Progress {
    In(GroupStage),
    Computing(Option<Box<Unmasking>>),
    Summed(Digest),
    Withheld(String),
}

impl Round {
    pub(crate) fn open(coordinator: &Coordinator, number: u32, cohort: &[Client], deadline: Millis) -> Self {
        let model = coordinator.model().unwrap_or(Digest([0; 32]));
        let live: BTreeSet<Client> = cohort.iter().copied().collect();
        let stage = match coordinator.session(number, &model) {
            Some(config) => Stage::Advertising { cohort: Box::new(Cohort::new(config.clone())), config },
            None if coordinator.terms().mode.has_groups() => {
                ideal(coordinator, number, &model, cohort, deadline)
            }
            None => Stage::Plain { cohort: live.clone(), updated: BTreeSet::new(), closing: false },
        };
        Self {
            number,
            model,
            deadline,
            awaited: live.clone(),
            live,
            charged: BTreeSet::new(),
            proposed: None,
            stage,
        }
    }

    /// The same round, once more from its beginning: the cohort is asked about the new model. It was charged for its answers
    /// with its updates.
    pub(crate) fn evaluate(
        self,
        coordinator: &Coordinator,
        cohort: &[Client],
        deadline: Millis,
        proposed: &Proposed,
    ) -> Self {
        let candidate = coordinator.candidate(self.number, proposed.model);
        let config = coordinator.evaluation_session(&candidate);
        let stage = Stage::Advertising { cohort: Box::new(Cohort::new(config.clone())), config };
        let live: BTreeSet<Client> = cohort.iter().copied().collect();
        let proposed = Some(Box::new(proposed.clone()));
        Self { deadline, awaited: live.clone(), live, proposed, stage, ..self }
    }

    /// Clients that were charged for it.
    pub(crate) fn charged(&self) -> &BTreeSet<Client> {
        &self.charged
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn is_live(&self, client: &Client) -> bool {
        self.live.contains(client)
    }

    /// The phase of the round, that of its slowest group.
    pub(crate) fn phase(&self) -> &'static str {
        match &self.stage {
            Stage::Advertising { .. } => "keys",
            Stage::Revealing { .. } => "beacon",
            Stage::Grouped { groups, .. } => {
                let stages = groups.iter().filter_map(|group| match group.progress {
                    Progress::In(stage) => Some(stage),
                    _ => None,
                });
                stages.min().map_or("closing", GroupStage::name)
            }
            Stage::Plain { closing: false, .. } => "updates",
            Stage::Plain { closing: true, .. } => "closing",
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        match &self.stage {
            Stage::Grouped { groups, .. } => {
                let waiting = groups.iter().filter(|group| matches!(group.progress, Progress::In(_)));
                waiting.map(|group| group.deadline).min()
            }
            Stage::Plain { closing: true, .. } => None,
            _ => Some(self.deadline),
        }
    }

    pub(crate) fn is_computing(&self, group: u32) -> bool {
        matches!(self.group(group).map(|group| &group.progress), Some(Progress::Computing(_)))
    }

    /// The members of a group; none before groups are formed.
    pub(crate) fn members(&self, group: u32) -> &[Client] {
        self.group(group).map_or(&[], |group| &group.members)
    }

    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Grouped { closing: true, .. } | Stage::Plain { closing: true, .. })
    }

    /// The number of a client's group.
    pub(crate) fn group_of(&self, client: &Client) -> Option<u32> {
        let Stage::Grouped { group_of, .. } = &self.stage else { return None };
        group_of.get(client).map(|&group| group as u32)
    }

    fn group(&self, index: u32) -> Option<&Group> {
        let Stage::Grouped { groups, .. } = &self.stage else { return None };
        groups.get(index as usize)
    }

    fn group_mut(&mut self, index: u32) -> Option<&mut Group> {
        let Stage::Grouped { groups, .. } = &mut self.stage else { return None };
        groups.get_mut(index as usize)
    }

    fn aborted(&self, now: Millis, reason: &dyn std::fmt::Display) -> Event {
        Event::RoundAborted { round: self.number, at: now, reason: reason.to_string() }
    }

    fn misplaced(&self, kind: Kind) -> Reject {
        Reject::fault(format!("{kind:?} message in the phase {}", self.phase()))
    }
}

/// The groups of a round without masks: those of a beacon that everyone could compute, of the sizes of a session's.
fn ideal(
    coordinator: &Coordinator,
    number: u32,
    model: &Digest,
    cohort: &[Client],
    deadline: Millis,
) -> Stage {
    let mut bytes = b"fedveil/ideal/v1".to_vec();
    bytes.extend_from_slice(&coordinator.plan().digest().0);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&model.0);
    for client in cohort {
        bytes.extend_from_slice(&client.0);
    }
    let root = Digest::of(&bytes);
    let group_size = coordinator.plan().plan().aggregation.group_size as usize;
    let mut group_of = BTreeMap::new();
    let mut groups = Vec::new();
    for (index, members) in random_groups(&root.0, cohort.len(), group_size).into_iter().enumerate() {
        let members: Vec<Client> = members.into_iter().map(|member| cohort[member]).collect();
        group_of.extend(members.iter().map(|client| (*client, index)));
        groups.push(Group {
            server: None,
            awaited: members.iter().copied().collect(),
            members,
            survivors: BTreeSet::new(),
            deadline,
            progress: Progress::In(GroupStage::Collecting),
        });
    }
    Stage::Grouped { config: None, root, groups, group_of, closing: false }
}
