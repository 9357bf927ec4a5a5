//! A run computed again: whether decisions and models are what the rule makes of the group sums that were stored.
//!
//! ```text
//! events ─► sums, roster, charges of each round ─┐
//! blobs  ─► the sums, the model before ──────────┴─► CloseJob ─► decisions, numbers, model ──?──► signed manifest
//! ```
//!
//! The round is closed by the very job that closed it first, which is a function of its inputs to the bit. What it shows:
//! the rule was run as the plan says, on these sums, and the model is what follows. What it does not show is that the sums
//! are those of the clients' masked inputs: a sum is believed. Nor does it show that the gate was asked. Rounds of mode
//! `insecure_plain` leave nothing to replay, because no single update is kept.
//!
//! Events and blobs may come from an adversary. Only what is decoded here is used of them; no client's message is.

use crate::coordinator::{Coordinator, Settings};
use crate::driver::Store;
use crate::event::Event;
use crate::gate::{Evaluation, HoldOut};
use crate::job::{CloseJob, GroupResult, JobError, Replayed};
use crate::quarantine::Quarantine;
use ed25519_dalek::VerifyingKey;
use fedveil_proto_plan::{Mode, PlanError, SignedPlan};
use fedveil_provenance::{Decision, Digest, Explanation, GroupDecision, Influence, Manifest, RoundPredicate};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A published round that was closed again.
#[derive(Debug)]
pub struct ReplayedRound {
    /// The round.
    pub round: u32,
    /// The number of its decisions, where the manifest says what its sums say.
    pub outcome: Result<usize, ReplayError>,
}

/// Why a run was not replayed, or what its replay gave otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// There is no plan to replay.
    #[error("no task was opened in it")]
    NoTask,
    /// The plan is not one that rounds are run under.
    #[error("plan: {0}")]
    Plan(#[from] PlanError),
    /// The rounds have no sums.
    #[error("mode insecure_plain keeps no update")]
    NoSums,
    /// Manifests and events are not of the same rounds.
    #[error("{manifests} manifests are there, and {published} models were published")]
    Published {
        /// Manifests given.
        manifests: usize,
        /// Events of publication, the initial model's among them.
        published: usize,
    },
    /// The round cannot be closed again.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The round is told otherwise.
    #[error("round {round}: {member} is signed as {signed}, and is {replayed} by its sums")]
    Round {
        /// The round.
        round: u32,
        /// What differs.
        member: &'static str,
        /// As signed.
        signed: String,
        /// As it follows from the sums.
        replayed: String,
    },
    /// A decision is not the rule's.
    #[error("round {round}, group {group}: {member} is signed as {signed}, and is {replayed} by its sums")]
    Group {
        /// The round.
        round: u32,
        /// Index of the group.
        group: u32,
        /// What differs.
        member: &'static str,
        /// As signed.
        signed: String,
        /// As it follows from the sums.
        replayed: String,
    },
}

/// Replays every published round of a run. `manifests` are those of its log, in order; `signer` signed its plan; `store`
/// has the blobs that `events` name.
///
/// The outer error is about the run as a whole.
pub fn replay(
    signer: &VerifyingKey,
    manifests: &[Manifest],
    events: &[Event],
    store: &dyn Store,
) -> Result<Vec<ReplayedRound>, ReplayError> {
    let plan = events.iter().find_map(|event| match event {
        Event::TaskOpened { plan, .. } => Some(SignedPlan::verify(&plan.0, signer)),
        _ => None,
    });
    // It signs the identities of clients, and none is looked at here.
    let authority = *signer;
    let plan = plan.ok_or(ReplayError::NoTask)??;
    let settings = Settings {
        plan,
        authority,
        hold_out: Some(Arc::new(NobodysExamples)),
        quarantine: Quarantine::off(),
    };
    let mut coordinator = Coordinator::new(settings)?;
    if coordinator.terms().mode != Mode::Secagg {
        return Err(ReplayError::NoSums);
    }
    let published = events.iter().filter(|event| matches!(event, Event::Published { .. })).count();
    if published != manifests.len() {
        return Err(ReplayError::Published { manifests: manifests.len(), published });
    }
    let mut manifests = manifests.iter();
    let mut rounds = Vec::new();
    let mut evidence = Evidence::default();
    for event in events {
        evidence.note(event);
        match event {
            Event::Published { round, momentum, clip_norm, groups, .. } => {
                let manifest = manifests.next().expect("there are as many as publications");
                if *round > 0 {
                    let stored = (groups.as_slice(), *momentum, *clip_norm);
                    let outcome = evidence.compare(*round, manifest, stored, &coordinator, store);
                    rounds.push(ReplayedRound { round: *round, outcome });
                }
            }
            Event::TaskOpened { .. } | Event::PrivacyCharged { .. } | Event::ModelRejected { .. } => {}
            // Clients and their messages have no part in what follows from the sums.
            _ => continue,
        }
        coordinator.apply(event);
        while coordinator.poll_effect().is_some() {}
    }
    Ok(rounds)
}

/// What a gate looked at is the operator's, so that its verdicts are not replayed.
#[derive(Debug)]
struct NobodysExamples;

impl HoldOut for NobodysExamples {
    fn evaluate(&self, _model: &[u8]) -> Result<Evaluation, String> {
        Err("a replay has no examples".to_owned())
    }
}

/// What the events of one round say of its groups.
#[derive(Default)]
struct Evidence {
    root: Option<Digest>,
    groups: u32,
    members: u32,
    survivors: BTreeMap<u32, u32>,
    sums: BTreeMap<u32, Result<Digest, String>>,
    /// Groups that follow judge the model that was made of these.
    complete: bool,
}

impl Evidence {
    fn note(&mut self, event: &Event) {
        match event {
            Event::RoundOpened { .. } => *self = Self::default(),
            _ if self.complete => {}
            Event::EvaluationOpened { .. } => self.complete = true,
            Event::RosterSealed { root, .. } => self.root = Some(*root),
            Event::GroupsFormed { groups, members, .. } => (self.groups, self.members) = (*groups, *members),
            Event::PrivacyCharged { group, clients } => {
                self.survivors.insert(*group, clients.len() as u32);
            }
            Event::GroupSummed { group, sum } => {
                self.sums.insert(*group, Ok(*sum));
            }
            Event::GroupWithheld { group, reason } => {
                self.sums.insert(*group, Err(reason.clone()));
            }
            _ => {}
        }
    }

    /// `stored`: decisions, memory and next clip norm as the coordinator went on with them.
    fn compare(
        &self,
        number: u32,
        Manifest { model, round }: &Manifest,
        stored: (&[GroupDecision], Option<Digest>, Option<f64>),
        coordinator: &Coordinator,
        store: &dyn Store,
    ) -> Result<usize, ReplayError> {
        let (stored, stored_momentum, stored_clip) = stored;
        for (member, found) in [
            ("the number of decisions", round.groups.len()),
            ("the number of stored decisions", stored.len()),
        ] {
            if found as u64 != u64::from(self.groups) {
                let (signed, replayed) = (found.to_string(), self.groups.to_string());
                return Err(ReplayError::Round { round: number, member, signed, replayed });
            }
        }
        let replayed = self.close(number, round, coordinator, store)?;
        for decisions in [&round.groups, stored] {
            for (group, (signed, found)) in (0..).zip(decisions.iter().zip(&replayed.groups)) {
                let differs = members(signed).into_iter().zip(members(found)).find(|(a, b)| a != b);
                if let Some(((member, signed), (_, replayed))) = differs {
                    return Err(ReplayError::Group { round: number, group, member, signed, replayed });
                }
            }
        }
        let clients: u64 = round.groups.iter().map(|group| u64::from(group.members)).sum();
        let optional = |digest: Option<Digest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
        let members = [
            ("its number", round.round.to_string(), number.to_string()),
            ("the number of clients", clients.to_string(), self.members.to_string()),
            ("the task", round.task_digest.to_string(), coordinator.plan().digest().to_string()),
            ("the cohort", round.cohort_commitment.to_string(), optional(self.root)),
            ("the rule", round.rule.clone(), coordinator.terms().rule.to_string()),
            ("the rejected rounds", format!("{:?}", round.rejected), format!("{:?}", coordinator.rejected())),
            ("the model", model.to_string(), replayed.model.to_string()),
            ("the memory", optional(stored_momentum), optional(replayed.momentum)),
            ("the next clip norm", format!("{stored_clip:?}"), format!("{:?}", replayed.clip_norm)),
        ];
        match members.into_iter().find(|(_, signed, replayed)| signed != replayed) {
            Some((member, signed, replayed)) => {
                Err(ReplayError::Round { round: number, member, signed, replayed })
            }
            None => Ok(replayed.groups.len()),
        }
    }

    /// Closes the round again. How many clients are in a group that has no sum is taken from the manifest.
    fn close(
        &self,
        number: u32,
        round: &RoundPredicate,
        coordinator: &Coordinator,
        store: &dyn Store,
    ) -> Result<Replayed, ReplayError> {
        let result = |(index, signed): (u32, &GroupDecision)| {
            let sum = self.sums.get(&index).cloned().unwrap_or_else(|| Err("unfinished".to_owned()));
            let survivors = match &sum {
                Ok(_) => self.survivors.get(&index).copied().unwrap_or(0),
                Err(_) => signed.survivors,
            };
            GroupResult { members: signed.members, survivors, sum }
        };
        let results = (0..).zip(&round.groups).map(result).collect();
        let root = self.root.unwrap_or(Digest([0; 32]));
        let job = CloseJob::of_groups_again(coordinator, number, results, root);
        Ok(job.ok_or(JobError::NoModel)?.replay(store)?)
    }
}

/// What is compared of a decision, by name.
fn members(group: &GroupDecision) -> Vec<(&'static str, String)> {
    let GroupDecision { index, members, survivors, decision, reason, score, explanation } = group;
    let decision = match decision {
        Decision::Kept => "kept",
        Decision::Dropped => "dropped",
        Decision::Withheld => "withheld",
    };
    let optional = |number: Option<f64>| number.map_or("none".to_owned(), |number| number.to_string());
    let number = |of: fn(&Explanation) -> f64| optional(explanation.as_ref().map(of));
    let influence = explanation.as_ref().map(|explanation| match explanation.influence {
        Influence::Moves(distance) => distance.to_string(),
        Influence::Unknown(reason) => format!("{reason:?}"),
    });
    vec![
        ("the decision", decision.to_owned()),
        ("distance", number(|explanation| explanation.distance)),
        ("cosine", optional(explanation.and_then(|explanation| explanation.cosine))),
        ("norm", number(|explanation| explanation.norm)),
        ("z_score", number(|explanation| explanation.z_score)),
        ("influence", influence.unwrap_or_else(|| "none".to_owned())),
        ("score", optional(*score)),
        ("reason", format!("{reason:?}")),
        ("index", index.to_string()),
        ("the number of clients", members.to_string()),
        ("the number of survivors", survivors.to_string()),
    ]
}
