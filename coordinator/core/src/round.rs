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

use crate::command::{Input, Reject, Upload};
use crate::coordinator::Coordinator;
use crate::event::{Client, Event, GroupStage, Hex, Millis};
use crate::gate::Proposed;
use crate::job::{Answers, CloseJob, Given, GroupResult, Job};
use crate::updates::{Total, Updates};
use fedveil_aggregation::plain;
use fedveil_aggregation::secagg::{
    Abort, Accumulator, ClientId, Cohort, GroupServer, MaskedInput, Nonce, Roster, SessionConfig, Unmasking,
    random_groups,
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

    /// Judges a message of a client that is in the round.
    pub(crate) fn decide_message(
        &self,
        client: &Client,
        kind: Kind,
        bytes: &[u8],
        now: Millis,
    ) -> Result<Vec<Event>, Reject> {
        let from = ClientId(client.0);
        let client = *client;
        let message = || Hex(bytes.to_vec());
        let event = match (&self.stage, kind) {
            (Stage::Advertising { cohort, .. }, Kind::Advertise) => {
                let advertisement =
                    cohort.check_advertise(bytes, now.unix_seconds()).map_err(Reject::fault)?;
                if advertisement.client_id() != from {
                    return Err(Reject::fault("the advertisement names another client"));
                }
                Event::Advertised { client, message: message() }
            }
            (Stage::Revealing { config, roster, reveals }, Kind::Reveal) => {
                if reveals.contains_key(&from) {
                    return Err(Reject::fault("message was already accepted from this client"));
                }
                roster.check_reveal(config, from, bytes).map_err(Reject::fault)?;
                Event::Revealed { client, message: message() }
            }
            (Stage::Grouped { groups, group_of, .. }, _) => {
                let group =
                    group_of.get(&client).ok_or_else(|| Reject::fault("the client is in no group"))?;
                let server = groups[*group].server.as_ref().ok_or_else(|| self.misplaced(kind))?;
                match kind {
                    Kind::Shares => {
                        server.check_shares(from, bytes).map_err(Reject::fault)?;
                        Event::Shared { client, message: message() }
                    }
                    Kind::Consistency => {
                        server.check_consistency(from, bytes).map_err(Reject::fault)?;
                        Event::Signed { client, message: message() }
                    }
                    Kind::Unmask => {
                        server.check_unmask(from, bytes).map_err(Reject::fault)?;
                        Event::Unmasked { client, message: message() }
                    }
                    _ => return Err(self.misplaced(kind)),
                }
            }
            _ => return Err(self.misplaced(kind)),
        };
        Ok(vec![event])
    }

    /// Refuses an input that is not awaited.
    pub(crate) fn begin_input(
        &self,
        coordinator: &Coordinator,
        client: &Client,
        kind: Kind,
    ) -> Result<Upload, Reject> {
        match (&self.stage, kind) {
            (Stage::Grouped { config: None, .. }, Kind::PlainInput) => {
                self.expects_steps(client)?;
                Ok(Upload::Plain(plain::Upload::steps(coordinator.terms().guarantee.input_length())))
            }
            (Stage::Grouped { config: Some(config), .. }, Kind::Input) => {
                self.server_of(client)?.expects_input(ClientId(client.0)).map_err(Reject::fault)?;
                Ok(Upload::Masked(config.upload()))
            }
            (Stage::Plain { updated, closing: false, .. }, Kind::PlainInput) => {
                expects_update(updated, client)?;
                let parameters = coordinator.plan().plan().model.parameters as usize;
                let upload = if coordinator.terms().guarantee.has_noise() {
                    plain::Upload::steps(parameters)
                } else {
                    plain::Upload::reals(parameters)
                };
                Ok(Upload::Plain(upload))
            }
            _ => Err(self.misplaced(kind)),
        }
    }

    /// Judges an input of a client that is in the round.
    pub(crate) fn decide_input(
        &self,
        coordinator: &Coordinator,
        client: &Client,
        input: &Input,
    ) -> Result<Vec<Event>, Reject> {
        let client = *client;
        match (&self.stage, input) {
            (Stage::Grouped { config: None, .. }, Input::Plain(update)) => {
                self.check_round(update)?;
                self.expects_steps(&client)?;
                Ok(vec![Event::UpdateAccepted { client }])
            }
            (Stage::Grouped { config: Some(_), .. }, Input::Masked(input)) => {
                self.server_of(&client)?
                    .check_masked_input(ClientId(client.0), input)
                    .map_err(Reject::fault)?;
                Ok(vec![Event::InputAccepted { client, digest: Digest(*input.digest()) }])
            }
            (Stage::Plain { updated, closing: false, .. }, Input::Plain(update)) => {
                self.check_round(update)?;
                expects_update(updated, &client)?;
                coordinator.check_update(&update.values)?;
                Ok(vec![Event::UpdateAccepted { client }])
            }
            (_, Input::Masked(_)) => Err(self.misplaced(Kind::Input)),
            (_, Input::Plain(_)) => Err(self.misplaced(Kind::PlainInput)),
        }
    }

    fn check_round(&self, update: &plain::Update) -> Result<(), Reject> {
        let (found, expected) = (update.round, self.number);
        if found != expected {
            return Err(Reject::ignore(format!("too late: an update of round {found} in round {expected}")));
        }
        Ok(())
    }

    /// The number of a client's group.
    pub(crate) fn group_of(&self, client: &Client) -> Option<u32> {
        let Stage::Grouped { group_of, .. } = &self.stage else { return None };
        group_of.get(client).map(|&group| group as u32)
    }

    /// Whether an update is awaited of this client, in a group without masks.
    fn expects_steps(&self, client: &Client) -> Result<(), Reject> {
        let group = self.group_of(client).and_then(|group| self.group(group));
        let group = group.ok_or_else(|| Reject::fault("the client is in no group"))?;
        expects_update(&group.survivors, client)?;
        match group.progress {
            Progress::In(_) => Ok(()),
            _ => Err(Reject::fault("input comes after its sender was declared dropped")),
        }
    }

    fn server_of(&self, client: &Client) -> Result<&GroupServer, Reject> {
        let Stage::Grouped { groups, group_of, .. } = &self.stage else {
            return Err(self.misplaced(Kind::Input));
        };
        let group = group_of.get(client).ok_or_else(|| Reject::fault("the client is in no group"))?;
        groups[*group].server.as_ref().ok_or_else(|| self.misplaced(Kind::Input))
    }

    /// Transitions that are due.
    pub(crate) fn advance(&self, coordinator: &Coordinator, now: Millis) -> Vec<Event> {
        let next = coordinator.phase_deadline(now);
        match &self.stage {
            Stage::Advertising { cohort, .. } => {
                if !self.awaited.is_empty() && now < self.deadline {
                    return Vec::new();
                }
                let mut events = dropped(&self.awaited, "sent no keys in time");
                match cohort.clone().seal() {
                    Ok(roster) => {
                        events.push(Event::RosterSealed { root: Digest(*roster.root()), deadline: next });
                    }
                    Err(abort) => events.push(self.aborted(now, &abort)),
                }
                events
            }
            Stage::Revealing { config, roster, reveals } => {
                if !self.awaited.is_empty() && now < self.deadline {
                    return Vec::new();
                }
                let mut events = dropped(&self.awaited, "revealed no nonce in time");
                match roster.form_groups(config, reveals) {
                    Ok((_, groups)) => events.push(Event::GroupsFormed {
                        groups: groups.len() as u32,
                        members: reveals.len() as u32,
                        deadline: next,
                    }),
                    Err(abort) => events.push(self.aborted(now, &abort)),
                }
                events
            }
            Stage::Grouped { closing: true, .. } | Stage::Plain { closing: true, .. } => Vec::new(),
            Stage::Plain { updated, .. } => self.advance_plain(coordinator, updated, now),
            Stage::Grouped { groups, .. } => {
                let due = |(index, group): (usize, &Group)| match &group.server {
                    Some(server) => self.advance_group(index as u32, group, server, now, next),
                    None => Self::advance_ideal(coordinator, index as u32, group, now),
                };
                let events: Vec<Event> = groups.iter().enumerate().flat_map(due).collect();
                let done = groups
                    .iter()
                    .all(|group| matches!(group.progress, Progress::Summed(_) | Progress::Withheld(_)));
                if !events.is_empty() || !done {
                    return events;
                }
                let sums = groups.iter().filter(|group| matches!(group.progress, Progress::Summed(_))).count()
                    as u32;
                let (minimum, user) = if self.proposed.is_some() {
                    (coordinator.plan().plan().minimum_answers(), "the evaluation".to_owned())
                } else {
                    let terms = coordinator.terms();
                    (terms.minimum_rows, format!("the rule {}", terms.rule))
                };
                if sums >= minimum {
                    return vec![Event::AggregationStarted];
                }
                let reason = format!("{sums} of {} groups gave a sum, {user} needs {minimum}", groups.len());
                vec![self.aborted(now, &reason)]
            }
        }
    }

    /// Takes note of an event of this round.
    pub(crate) fn apply(&mut self, coordinator: &mut Coordinator, event: &Event) {
        match event {
            Event::ClientDropped { client, .. } => {
                self.live.remove(client);
                self.answered(client);
            }
            Event::Advertised { client, message } => {
                // Expiry was judged when the message came in; time 0 lets every certificate pass.
                if let Stage::Advertising { cohort, .. } = &mut self.stage
                    && let Ok(advertisement) = cohort.check_advertise(&message.0, 0)
                {
                    cohort.apply_advertise(advertisement);
                    self.awaited.remove(client);
                }
            }
            Event::RosterSealed { deadline, .. } => self.seal_roster(coordinator, *deadline),
            Event::Revealed { client, message } => {
                if let Stage::Revealing { config, roster, reveals } = &mut self.stage
                    && let Ok(nonce) = roster.check_reveal(config, ClientId(client.0), &message.0)
                {
                    reveals.insert(ClientId(client.0), nonce);
                    self.awaited.remove(client);
                }
            }
            Event::GroupsFormed { deadline, .. } => self.form_groups(coordinator, *deadline),
            Event::Shared { client, message } => self.with_server(client, |server, from| {
                if let Ok(shares) = server.check_shares(from, &message.0) {
                    server.apply_shares(from, shares);
                }
            }),
            Event::InputAccepted { client, digest } => self.with_server(client, |server, from| {
                server.apply_masked_input(from, digest.0);
            }),
            Event::UpdateAccepted { client } => {
                match &mut self.stage {
                    Stage::Plain { updated, .. } => drop(updated.insert(*client)),
                    Stage::Grouped { groups, group_of, .. } => {
                        if let Some(&group) = group_of.get(client) {
                            groups[group].survivors.insert(*client);
                        }
                    }
                    _ => {}
                }
                self.answered(client);
            }
            Event::Signed { client, message } => self.with_server(client, |server, from| {
                if let Ok(signature) = server.check_consistency(from, &message.0) {
                    server.apply_consistency(from, signature);
                }
            }),
            Event::Unmasked { client, message } => self.with_server(client, |server, from| {
                if let Ok(shares) = server.check_unmask(from, &message.0) {
                    server.apply_unmask(from, shares);
                }
            }),
            Event::GroupAdvanced { group, stage, deadline } => {
                self.advance_to(coordinator, *group, *stage, *deadline);
            }
            Event::UnmaskStarted { group } => {
                if let Some(group) = self.group_mut(*group) {
                    let server = group.server.as_mut();
                    let unmasking = server.and_then(|server| server.close_unmasking().ok()).map(Box::new);
                    group.progress = Progress::Computing(unmasking);
                }
            }
            Event::PrivacyCharged { clients, .. } => self.charged.extend(clients),
            Event::GroupSummed { group, sum } => self.settle(*group, Progress::Summed(*sum)),
            Event::GroupWithheld { group, reason } => self.settle(*group, Progress::Withheld(reason.clone())),
            Event::AggregationStarted => self.start_closing(coordinator),
            _ => {}
        }
    }

    /// Adds an input, already accepted, to its group's sum.
    pub(crate) fn accumulate(
        &self,
        client: &Client,
        input: &MaskedInput,
        sums: &mut BTreeMap<u32, Accumulator>,
    ) {
        let Stage::Grouped { groups, group_of, .. } = &self.stage else { return };
        let Some(&index) = group_of.get(client) else { return };
        let Some(server) = &groups[index].server else { return };
        let sum = sums.entry(index as u32).or_insert_with(|| server.accumulator());
        // An input that was accepted and is not in the sum makes unmasking fail, which withholds the group.
        if let Err(error) = sum.add(ClientId(client.0), input) {
            tracing::error!(%client, %error, "accepted input is not in the sum");
        }
    }

    /// The job that takes the masks off a group's sum.
    pub(crate) fn unmask_job(&mut self, index: u32, sum: Accumulator) -> Option<Job> {
        let round = self.number;
        let Stage::Grouped { config: Some(config), .. } = &self.stage else { return None };
        let ring_bits = config.parameters().ring_bits;
        let Progress::Computing(unmasking) = &mut self.group_mut(index)?.progress else { return None };
        Some(Job::Unmask { round, group: index, unmasking: unmasking.take()?, sum, ring_bits })
    }

    /// The sum of a group without masks, once it is asked for.
    pub(crate) fn sum(&mut self, index: u32, sum: Total) -> Option<Vec<i64>> {
        match (&self.group(index)?.progress, sum) {
            (Progress::Computing(_), Total::Steps(sum)) => Some(sum),
            _ => None,
        }
    }

    /// The job that closes a round of single updates.
    pub(crate) fn close_job(&self, coordinator: &Coordinator, updates: Updates) -> Option<Job> {
        let Stage::Plain { cohort, updated, closing: true } = &self.stage else { return None };
        // What was accepted and is not there would be missing in silence.
        if !updates.clients().eq(updated) {
            tracing::error!("accepted updates are not those at hand");
            return None;
        }
        let cohort = cohort.iter().copied().collect();
        let updates = Given::Clients { cohort, updates };
        Some(Job::Close(CloseJob::new(coordinator, self.number, self.model, updates, Digest::of(b""))))
    }

    /// Ends the wait for updates, and charges for them before anything is computed of them.
    fn advance_plain(
        &self,
        coordinator: &Coordinator,
        updated: &BTreeSet<Client>,
        now: Millis,
    ) -> Vec<Event> {
        // Where it must not be known who was drawn, how long a round takes must not tell.
        let waits = !self.awaited.is_empty() || coordinator.sampling_rate().is_some();
        if waits && now < self.deadline {
            return Vec::new();
        }
        let mut events = dropped(&self.awaited, "sent no update in time");
        let minimum = coordinator.terms().minimum_rows;
        if (updated.len() as u32) < minimum {
            let reason = format!(
                "{} clients sent an update, the rule {} needs {minimum}",
                updated.len(),
                coordinator.terms().rule.name()
            );
            events.push(self.aborted(now, &reason));
            return events;
        }
        // With coins, everyone was charged when the round was opened.
        if coordinator.sampling_rate().is_none() {
            let pays = |client: &&Client| coordinator.pays(client);
            let clients = updated.iter().filter(pays).copied().collect();
            events.push(Event::PrivacyCharged { group: 0, clients });
        }
        events.push(Event::AggregationStarted);
        events
    }

    /// Ends the wait for the updates of a group without masks, and charges for them before their sum is known.
    fn advance_ideal(coordinator: &Coordinator, index: u32, group: &Group, now: Millis) -> Vec<Event> {
        let is_waiting = matches!(group.progress, Progress::In(_));
        if !is_waiting || (!group.awaited.is_empty() && now < group.deadline) {
            return Vec::new();
        }
        let mut events = dropped(&group.awaited, "did not answer in time (collecting)");
        let (found, min) =
            (group.survivors.len(), coordinator.plan().plan().aggregation.min_survivors as usize);
        if found < min {
            let reason = Abort::TooFewSurvivors { found, min }.to_string();
            events.push(Event::GroupWithheld { group: index, reason });
            return events;
        }
        let clients = group.survivors.iter().copied().collect();
        events.push(Event::PrivacyCharged { group: index, clients });
        events.push(Event::UnmaskStarted { group: index });
        events
    }

    fn advance_group(
        &self,
        index: u32,
        group: &Group,
        server: &GroupServer,
        now: Millis,
        next: Millis,
    ) -> Vec<Event> {
        let Progress::In(stage) = group.progress else { return Vec::new() };
        if !group.awaited.is_empty() && now < group.deadline {
            return Vec::new();
        }
        let mut events = dropped(&group.awaited, &format!("did not answer in time ({})", stage.name()));
        // What closing the phase would give is tried on a copy; the state itself moves when the event is applied.
        let mut server = server.clone();
        let (closed, following) = match stage {
            GroupStage::Sharing => (server.close_sharing().map(drop), Some(GroupStage::Collecting)),
            GroupStage::Collecting => (server.close_collecting().map(drop), Some(GroupStage::Consistency)),
            GroupStage::Consistency => (server.close_consistency().map(drop), Some(GroupStage::Unmasking)),
            GroupStage::Unmasking => (server.close_unmasking().map(drop), None),
        };
        match (closed, following) {
            (Err(abort), _) => events.push(Event::GroupWithheld { group: index, reason: abort.to_string() }),
            (Ok(()), Some(stage)) => {
                // Answers about a model were charged with the updates of their round.
                if stage == GroupStage::Unmasking && self.proposed.is_none() {
                    let clients = group.survivors.iter().copied().collect();
                    events.push(Event::PrivacyCharged { group: index, clients });
                }
                events.push(Event::GroupAdvanced { group: index, stage, deadline: next });
            }
            (Ok(()), None) => events.push(Event::UnmaskStarted { group: index }),
        }
        events
    }

    fn seal_roster(&mut self, coordinator: &mut Coordinator, deadline: Millis) {
        let Stage::Advertising { config, cohort } = &self.stage else { return };
        let Ok(roster) = cohort.clone().seal() else { return };
        let members: Vec<Client> =
            roster.members().iter().map(|member| Digest(member.client_id().0)).collect();
        coordinator.send_all(&members, Kind::Roster, roster.message());
        self.deadline = deadline;
        self.awaited = members.iter().filter(|member| self.live.contains(member)).copied().collect();
        self.stage = Stage::Revealing { config: config.clone(), roster, reveals: BTreeMap::new() };
    }

    fn form_groups(&mut self, coordinator: &mut Coordinator, deadline: Millis) {
        let Stage::Revealing { config, roster, reveals } = &self.stage else { return };
        let Ok((message, formed)) = roster.form_groups(config, reveals) else { return };
        let mut group_of = BTreeMap::new();
        let mut groups = Vec::new();
        for (index, group) in formed.iter().enumerate() {
            let server = GroupServer::new(config, roster, group);
            let members: Vec<Client> = server.members().map(|id| Digest(id.0)).collect();
            group_of.extend(members.iter().map(|client| (*client, index)));
            let progress = Progress::In(GroupStage::Sharing);
            let awaited = awaited(&server, &self.live);
            let server = Some(server);
            groups.push(Group { server, members, awaited, survivors: BTreeSet::new(), deadline, progress });
        }
        let members: Vec<Client> = group_of.keys().copied().collect();
        coordinator.send_all(&members, Kind::Reveals, &message);
        let (config, root) = (Some(config.clone()), Digest(*roster.root()));
        self.stage = Stage::Grouped { config, root, groups, group_of, closing: false };
    }

    /// Closes the group's phase and sends what opens the next one.
    fn advance_to(&mut self, coordinator: &mut Coordinator, index: u32, stage: GroupStage, deadline: Millis) {
        let Self { live, stage: Stage::Grouped { groups, .. }, .. } = self else { return };
        let Some(group) = groups.get_mut(index as usize) else { return };
        let Some(server) = &mut group.server else { return };
        let sent = match stage {
            GroupStage::Sharing => return,
            GroupStage::Collecting => server.close_sharing().map(|deliveries| {
                for (id, delivery) in deliveries {
                    coordinator.send(Digest(id.0), Kind::Delivery, delivery.into());
                }
            }),
            GroupStage::Consistency => {
                group.survivors = server.received().iter().map(|id| Digest(id.0)).collect();
                let survivors: Vec<Client> = group.survivors.intersection(live).copied().collect();
                server.close_collecting().map(|set| coordinator.send_all(&survivors, Kind::Survivors, &set))
            }
            GroupStage::Unmasking => {
                let survivors: Vec<Client> = group.survivors.intersection(live).copied().collect();
                server.close_consistency().map(|messages| {
                    for (id, signatures) in messages {
                        let client = Digest(id.0);
                        if survivors.contains(&client) {
                            coordinator.send(client, Kind::Signatures, signatures.into());
                        }
                    }
                })
            }
        };
        debug_assert!(sent.is_ok(), "closing was tried when the event was decided");
        group.awaited = awaited(server, live);
        group.deadline = deadline;
        group.progress = Progress::In(stage);
    }

    /// Asks for the job that closes the round; where that needs the updates, it is the driver who has them and asks.
    fn start_closing(&mut self, coordinator: &mut Coordinator) {
        let (root, groups) = match &mut self.stage {
            Stage::Grouped { root, groups, closing, .. } => {
                *closing = true;
                (root, groups)
            }
            Stage::Plain { closing, .. } => {
                *closing = true;
                return;
            }
            _ => return,
        };
        let results: Vec<GroupResult> = groups
            .iter()
            .map(|group| GroupResult {
                members: group.members.len() as u32,
                survivors: group.survivors.len() as u32,
                sum: match &group.progress {
                    Progress::Summed(sum) => Ok(*sum),
                    Progress::Withheld(reason) => Err(reason.clone()),
                    Progress::In(_) | Progress::Computing(_) => Err("unfinished".to_owned()),
                },
            })
            .collect();
        let plan = coordinator.plan().plan();
        if let Some(proposed) = self.proposed.take() {
            let sums = results.into_iter().filter_map(|group| group.sum.ok()).collect();
            let answers = Answers { proposed, sums, planned_size: plan.aggregation.group_size };
            let job = CloseJob::judge(coordinator, self.number, self.model, answers);
            coordinator.compute(Job::Close(job));
            return;
        }
        let updates = Given::groups(coordinator, self.number, &self.model, results);
        let job = CloseJob::new(coordinator, self.number, self.model, updates, *root);
        coordinator.compute(Job::Close(job));
    }

    fn settle(&mut self, index: u32, progress: Progress) {
        if let Some(group) = self.group_mut(index) {
            group.progress = progress;
        }
    }

    fn with_server(&mut self, client: &Client, act: impl FnOnce(&mut GroupServer, ClientId)) {
        if let Stage::Grouped { groups, group_of, .. } = &mut self.stage
            && let Some(&index) = group_of.get(client)
        {
            if let Some(server) = &mut groups[index].server {
                act(server, ClientId(client.0));
            }
            groups[index].awaited.remove(client);
        }
    }

    /// Nothing is awaited of this client in this phase.
    fn answered(&mut self, client: &Client) {
        self.awaited.remove(client);
        if let Stage::Grouped { groups, group_of, .. } = &mut self.stage
            && let Some(&index) = group_of.get(client)
        {
            groups[index].awaited.remove(client);
        }
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

/// Members that are still in the round and have not answered.
fn awaited(server: &GroupServer, live: &BTreeSet<Client>) -> BTreeSet<Client> {
    server.awaited().iter().map(|id| Digest(id.0)).filter(|client| live.contains(client)).collect()
}

fn dropped(clients: &BTreeSet<Client>, reason: &str) -> Vec<Event> {
    let reason = reason.to_owned();
    clients.iter().map(|client| Event::ClientDropped { client: *client, reason: reason.clone() }).collect()
}

fn expects_update(updated: &BTreeSet<Client>, client: &Client) -> Result<(), Reject> {
    if updated.contains(client) {
        return Err(Reject::fault("message was already accepted from this client"));
    }
    Ok(())
}
