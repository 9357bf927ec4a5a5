//! Transitions that are due, by what has come or by the time: phases end, groups go on or are withheld. Reads only.

use crate::coordinator::Coordinator;
use crate::event::{Client, Event, GroupStage, Millis};
use crate::round::{Group, Progress, Round, Stage};
use fedveil_aggregation::secagg::{Abort, GroupServer};
use fedveil_provenance::Digest;
use std::collections::BTreeSet;

impl Round {
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
}

fn dropped(clients: &BTreeSet<Client>, reason: &str) -> Vec<Event> {
    let reason = reason.to_owned();
    clients.iter().map(|client| Event::ClientDropped { client: *client, reason: reason.clone() }).collect()
}
