//! Commands: which events a command makes, or why it is refused. Reads only.

use crate::command::{Closed, Command, Computed, Outcome, Reject, Rejected};
use crate::coordinator::{Coordinator, printable};
use crate::event::{Client, Event, Hex, Millis};
use crate::gate::Proposed;
use crate::round::Round;
use fedveil_proto::Kind;

impl Coordinator {
    /// Judges a command. Reads only.
    pub fn decide(&self, command: &Command, now: Millis) -> Result<Vec<Event>, Reject> {
        match command {
            Command::Open { model } if !self.opened => {
                let plan = Hex(self.settings.plan.bytes().to_vec());
                Ok(vec![Event::TaskOpened { plan, model: *model }])
            }
            Command::Open { .. } | Command::Tick => Ok(Vec::new()),
            Command::Connect { client } => {
                if self.closed.is_some() {
                    return Err(Reject::ignore("the task is closed"));
                }
                if self.connected.contains(client) {
                    return Err(Reject::ignore("this identity has a session already"));
                }
                Ok(vec![Event::ClientConnected { client: *client }])
            }
            Command::Disconnect { client } => {
                if !self.connected.contains(client) {
                    return Ok(Vec::new());
                }
                let mut events = self.drop_client(client, "the session ended");
                events.push(Event::ClientLeft { client: *client });
                Ok(events)
            }
            Command::Message { client, kind, bytes } => self.decide_message(client, *kind, bytes, now),
            Command::Input { client, input } => {
                let round = self.round_of_input(client)?;
                round.decide_input(self, client, input.as_ref().map_err(Reject::clone)?)
            }
            Command::Computed(computed) => Ok(self.decide_computed(computed, now)),
            Command::Recover => {
                let mut events: Vec<Event> =
                    self.connected.iter().map(|client| Event::ClientLeft { client: *client }).collect();
                if let Some(round) = &self.round {
                    let reason = "the coordinator restarted".to_owned();
                    events.push(Event::RoundAborted { round: round.number(), at: now, reason });
                }
                Ok(events)
            }
            Command::Quarantine { client, reason } => self.decide_quarantine(client, reason),
            Command::Release { client, reason } => self.decide_release(client, reason),
            Command::Stop { reason } => {
                if self.closed.is_some() {
                    return Ok(Vec::new());
                }
                let aborted = self.round.as_ref().map(|round| Event::RoundAborted {
                    round: round.number(),
                    at: now,
                    reason: reason.clone(),
                });
                Ok(aborted.into_iter().chain([Event::TaskClosed { reason: reason.clone() }]).collect())
            }
        }
    }

    /// Events that take a client out of the round in progress, if it is in it.
    pub(crate) fn drop_client(&self, client: &Client, reason: &str) -> Vec<Event> {
        match &self.round {
            Some(round) if round.is_live(client) => {
                vec![Event::ClientDropped { client: *client, reason: reason.to_owned() }]
            }
            _ => Vec::new(),
        }
    }

    fn decide_message(
        &self,
        client: &Client,
        kind: Kind,
        bytes: &[u8],
        now: Millis,
    ) -> Result<Vec<Event>, Reject> {
        if !self.connected.contains(client) {
            return Err(Reject::ignore("no session"));
        }
        match (kind, &self.round) {
            (Kind::Join, _) if self.joined.contains_key(client) => Err(Reject::ignore("joined already")),
            (Kind::Join, _) => {
                let size = bytes.try_into().map(u64::from_be_bytes).map_err(|_| {
                    Reject::ignore(format!("a log size has 8 bytes, the message has {}", bytes.len()))
                })?;
                if size > self.log.size() {
                    return Err(Reject::ignore(format!(
                        "the client has verified {size} log entries, and this log has {}",
                        self.log.size()
                    )));
                }
                Ok(vec![Event::ClientJoined { client: *client, log_size: size }])
            }
            (Kind::Decline, Some(round)) if round.is_live(client) => {
                let reason = format!("declined: {}", printable(bytes));
                Ok(vec![Event::ClientDropped { client: *client, reason }])
            }
            (Kind::Decline, _) => Err(Reject::ignore("nothing to decline")),
            (_, Some(round)) if round.is_live(client) => round.decide_message(client, kind, bytes, now),
            _ => Err(too_late()),
        }
    }

    pub(super) fn round_of_input(&self, client: &Client) -> Result<&Round, Reject> {
        if !self.connected.contains(client) {
            return Err(Reject::ignore("no session"));
        }
        self.round.as_ref().filter(|round| round.is_live(client)).ok_or_else(too_late)
    }

    fn decide_computed(&self, computed: &Computed, now: Millis) -> Vec<Event> {
        match &computed.outcome {
            Outcome::Closed { round: 0, result } if self.log.size() == 0 && self.closed.is_none() => {
                match result {
                    Ok(closed) => vec![published(0, now, closed)],
                    Err(reason) => vec![Event::TaskClosed { reason: reason.clone() }],
                }
            }
            Outcome::Summed { round, group, sum, blamed } => match &self.round {
                Some(current) if current.number() == *round && current.is_computing(*group) => match sum {
                    Ok(sum) => {
                        let blame = |&client| Event::ClientBlamed { group: *group, client };
                        let summed = Event::GroupSummed { group: *group, sum: *sum };
                        blamed.iter().map(blame).chain([summed]).collect()
                    }
                    Err(reason) => vec![Event::GroupWithheld { group: *group, reason: reason.clone() }],
                },
                _ => Vec::new(),
            },
            Outcome::Closed { round, result } => match &self.round {
                Some(current) if current.number() == *round && current.is_closing() => match result {
                    Ok(closed) => {
                        let mut events = self.suspicion.decide(*round, &closed.groups, self.spare());
                        events.push(published(*round, now, closed));
                        events
                    }
                    Err(reason) => {
                        vec![Event::RoundAborted { round: *round, at: now, reason: reason.clone() }]
                    }
                },
                _ => Vec::new(),
            },
            Outcome::Proposed { round, proposed } => match &self.round {
                Some(current) if current.number() == *round && current.is_closing() => {
                    vec![self.open_evaluation(current, proposed, now)]
                }
                _ => Vec::new(),
            },
            Outcome::Rejected { round, rejected } => match &self.round {
                Some(current) if current.number() == *round && current.is_closing() => {
                    let Rejected { model, reason, measured, groups } = rejected;
                    let (round, reason, groups) = (*round, reason.clone(), groups.clone());
                    let aborted = format!("the gate rejected the model: {reason}");
                    let mut events = self.suspicion.decide(round, &groups, self.spare());
                    events.extend([
                        Event::ModelRejected { round, model: *model, reason, measured: *measured, groups },
                        Event::RoundAborted { round, at: now, reason: aborted },
                    ]);
                    events
                }
                _ => Vec::new(),
            },
        }
    }

    /// Asks everyone about a new model whom the round has charged for that, if there are enough of them.
    fn open_evaluation(&self, round: &Round, proposed: &Proposed, now: Millis) -> Event {
        let is_there = |client: &&Client| self.joined.contains_key(*client);
        let cohort: Vec<Client> = round.charged().iter().filter(is_there).copied().collect();
        let minimum = self.settings.plan.plan().cohort.minimum as usize;
        if cohort.len() < minimum {
            let reason = format!(
                "{} of the round's clients are there to judge its model, and cohort.minimum is {minimum}",
                cohort.len()
            );
            return Event::RoundAborted { round: round.number(), at: now, reason };
        }
        let (deadline, proposed) = (self.phase_deadline(now), Box::new(proposed.clone()));
        Event::EvaluationOpened { round: round.number(), cohort, deadline, proposed }
    }
}

fn too_late() -> Reject {
    Reject::ignore("too late: the client is not in a round in progress")
}

fn published(round: u32, at: Millis, closed: &Closed) -> Event {
    Event::Published {
        round,
        at,
        model: closed.model,
        momentum: closed.momentum,
        clip_norm: closed.clip_norm,
        manifest: Hex(closed.manifest.clone()),
        checkpoint: closed.checkpoint.clone(),
        groups: closed.groups.clone(),
        measured: closed.measured,
    }
}
