//! Events of the round: what they change, what is sent because of them, and the jobs that they lead to. Never fails.

use crate::coordinator::Coordinator;
use crate::event::{Client, Event, GroupStage, Millis};
use crate::job::{Answers, CloseJob, Given, GroupResult, Job};
use crate::round::{Group, Progress, Round, Stage};
use crate::updates::{Total, Updates};
use fedveil_aggregation::secagg::{Accumulator, ClientId, GroupServer, MaskedInput};
use fedveil_proto::Kind;
use fedveil_provenance::Digest;
use std::collections::{BTreeMap, BTreeSet};

impl Round {
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
}

/// Members that are still in the round and have not answered.
fn awaited(server: &GroupServer, live: &BTreeSet<Client>) -> BTreeSet<Client> {
    server.awaited().iter().map(|id| Digest(id.0)).filter(|client| live.contains(client)).collect()
}
