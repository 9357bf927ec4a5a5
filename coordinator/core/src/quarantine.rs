//! Clients that the rounds make suspicious, and what becomes of them.
//!
//! ```text
//! groups and scores of every round ──► Decoder ──► ClientSuspected       named, if attackers aim at nobody
//!                                        │
//!                                        └───────► ClientQuarantined     named even if all attackers aimed at it
//!                                                  QuarantineWaived      too few clients would be left
//! the operator ──► Command::Quarantine, Command::Release ──► ClientQuarantined, ClientReleased
//! ```
//!
//! Whoever is in quarantine is drawn into no round, but stays connected, is told why and whom to ask, and is given every
//! model. What is known follows from the events alone ([`Suspicion::note`]), so that a finished run tells the same as the
//! coordinator knew. See [`fedveil_aggregation::robust::suspects`] for the test and what it assumes.
//!
//! Invariants: nobody is put in quarantine without an event that says why; on its own a coordinator holds no more clients
//! in quarantine than the plan assumes to be malicious, and never so many that too few for a round are left.

use crate::command::Reject;
use crate::coordinator::{Coordinator, printable};
use crate::event::{Client, Event, Evidence};
use fedveil_aggregation::robust::suspects::{self, Decoder, Design, DesignError, ScoredGroup};
use fedveil_proto::Kind;
use fedveil_proto_plan::{Mode, PlanError, TaskPlan, Terms};
use std::collections::{BTreeMap, BTreeSet};

/// Longest contact or reason, in bytes: it is told to clients.
pub const MAX_REASON: usize = 200;

/// What a coordinator does about suspicious clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantine {
    /// What is done.
    pub mode: QuarantineMode,
    /// Accepted probability that any honest client is ever named.
    pub false_alarm: f64,
    /// Clients that may ever take part, over which false alarms are counted.
    pub clients: u32,
    /// Rounds that a client must have had a part in before it is named.
    pub minimum_rounds: u32,
    /// Whom a client in quarantine should turn to.
    pub contact: String,
}

/// What is done about suspicious clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineMode {
    /// Nothing is computed.
    Off,
    /// They are named in the records.
    Report,
    /// And drawn into no round, once the evidence could not have been staged by attackers.
    Automatic,
}

impl QuarantineMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Off, Self::Report, Self::Automatic];

    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Automatic => "automatic",
        }
    }
}

impl Quarantine {
    /// Nothing is computed, and nobody is named.
    pub fn off() -> Self {
        Self {
            mode: QuarantineMode::Off,
            false_alarm: 0.01,
            clients: 1,
            minimum_rounds: 1,
            contact: String::new(),
        }
    }

    /// The decoder for a plan; none where it is off or rows are single clients, which nobody draws.
    pub fn decoder(&self, plan: &TaskPlan, terms: &Terms) -> Result<Option<Decoder<Client>>, PlanError> {
        let [clients, minimum] = [self.clients, plan.cohort.minimum];
        let field = |field, found: String, accepted: String| PlanError::Field { field, found, accepted };
        if !(1..=1000).contains(&self.minimum_rounds) {
            let (found, accepted) = (self.minimum_rounds.to_string(), "1 to 1000".to_owned());
            return Err(field("quarantine.minimum_rounds", found, accepted));
        }
        let is_text = self.contact.chars().all(|c| !c.is_control());
        if self.contact.len() > MAX_REASON || !is_text {
            let accepted = format!("a line of at most {MAX_REASON} bytes");
            return Err(field("quarantine.contact", format!("{:?}", self.contact), accepted));
        }
        let design = Design {
            clients: clients as usize,
            false_alarm: self.false_alarm,
            attackers: plan.cohort.assumed_malicious.max(plan.server.assumed_byzantine) as usize,
            poisoned_groups: plan.server.assumed_byzantine as usize,
        };
        let decoder = Decoder::new(design).map_err(|error| match error {
            DesignError::FalseAlarm(found) => {
                field("quarantine.false_alarm", found.to_string(), "a number above 0, at most 0.5".to_owned())
            }
            other => PlanError::Inconsistent(format!("quarantine: {other}")),
        })?;
        if self.mode == QuarantineMode::Off {
            return Ok(None);
        }
        let is_automatic = self.mode == QuarantineMode::Automatic;
        if terms.mode == Mode::InsecurePlain {
            if is_automatic {
                let accepted = "off, report (in mode insecure_plain a row is one client and no random group, so that \
                                nothing is known of what scores are by chance)";
                return Err(field("quarantine.mode", "automatic".to_owned(), accepted.to_owned()));
            }
            return Ok(None);
        }
        let malicious = plan.cohort.assumed_malicious;
        if is_automatic && malicious == 0 {
            let accepted = "1 or more with quarantine.mode automatic, which holds no more clients than that";
            return Err(field("cohort.assumed_malicious", "0".to_owned(), accepted.to_owned()));
        }
        if is_automatic && clients.saturating_sub(malicious) < minimum {
            return Err(PlanError::Inconsistent(format!(
                "quarantine.mode automatic may take cohort.assumed_malicious {malicious} of {clients} clients away, and \
                 cohort.minimum {minimum} would never be there"
            )));
        }
        let sizes = group_sizes(plan.cohort.clients, terms.groups);
        if is_automatic && decoder.fewest_rounds(&sizes)[1].is_none() {
            return Err(PlanError::Inconsistent(format!(
                "quarantine.mode automatic would never name anyone: in {} groups, {} attackers can frame whom they like; \
                 accepted are smaller groups, or quarantine.mode report",
                terms.groups, design.attackers
            )));
        }
        Ok(Some(decoder))
    }

    /// What a client in quarantine is told.
    fn message(&self, reason: &str) -> String {
        let contact = match self.contact.as_str() {
            "" => "the operator of this coordinator".to_owned(),
            contact => contact.to_owned(),
        };
        format!(
            "in quarantine: {reason}. This client is not drawn into rounds until it is released; to appeal, turn to {contact} \
             with this client's identity"
        )
    }
}

/// What the events of a task say about its clients.
#[derive(Debug, Clone)]
pub struct Suspicion {
    settings: Quarantine,
    most: u32,
    decoder: Option<Decoder<Client>>,
    /// Of the round in progress: who is in the sum of each group.
    present: BTreeMap<u32, Vec<Client>>,
    /// Everyone who ever joined.
    seen: BTreeSet<Client>,
    suspected: BTreeSet<Client>,
    waived: BTreeSet<Client>,
    /// Why each client in quarantine is there.
    quarantined: BTreeMap<Client, String>,
}

impl Suspicion {
    /// Nothing has happened yet.
    pub fn new(settings: &Quarantine, plan: &TaskPlan, terms: &Terms) -> Result<Self, PlanError> {
        Ok(Self {
            settings: settings.clone(),
            most: plan.cohort.assumed_malicious,
            decoder: settings.decoder(plan, terms)?,
            present: BTreeMap::new(),
            seen: BTreeSet::new(),
            suspected: BTreeSet::new(),
            waived: BTreeSet::new(),
            quarantined: BTreeMap::new(),
        })
    }

    /// What the events of a run say.
    pub fn of(settings: &Quarantine, plan: &TaskPlan, events: &[Event]) -> Result<Self, PlanError> {
        let mut suspicion = Self::new(settings, plan, &plan.check()?)?;
        for event in events {
            suspicion.note(event);
        }
        Ok(suspicion)
    }

    /// Takes note of an event.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::ClientJoined { client, .. } => {
                self.seen.insert(*client);
            }
            Event::RoundOpened { .. } => self.present.clear(),
            Event::PrivacyCharged { group, clients } => {
                self.present.insert(*group, clients.clone());
            }
            Event::Published { groups, .. } | Event::ModelRejected { groups, .. } => self.observe(groups),
            Event::ClientSuspected { client, .. } => {
                self.suspected.insert(*client);
            }
            Event::QuarantineWaived { client, .. } => {
                self.waived.insert(*client);
            }
            Event::ClientQuarantined { client, reason, .. } => {
                self.quarantined.insert(*client, reason.clone());
            }
            Event::ClientReleased { client, .. } => {
                self.quarantined.remove(client);
                self.suspected.remove(client);
                self.waived.remove(client);
                if let Some(decoder) = &mut self.decoder {
                    decoder.forget(client);
                }
            }
            _ => {}
        }
    }

    /// The test behind it; none where it is off.
    pub fn decoder(&self) -> Option<&Decoder<Client>> {
        self.decoder.as_ref()
    }

    /// Whether the client ever joined.
    pub fn has_seen(&self, client: &Client) -> bool {
        self.seen.contains(client)
    }

    /// Whether a client with this evidence is named.
    pub fn names(&self, evidence: &suspects::Evidence) -> bool {
        let enough = evidence.rounds >= self.settings.minimum_rounds;
        enough && self.decoder.as_ref().is_some_and(|decoder| decoder.names(evidence))
    }

    /// Whether the client is in quarantine.
    pub fn is_quarantined(&self, client: &Client) -> bool {
        self.quarantined.contains_key(client)
    }

    /// Everyone in quarantine, and why.
    pub fn quarantined(&self) -> &BTreeMap<Client, String> {
        &self.quarantined
    }

    /// What a client in quarantine is told.
    pub(crate) fn told(&self, client: &Client) -> Option<String> {
        self.quarantined.get(client).map(|reason| self.settings.message(reason))
    }

    /// What follows from the groups of a round that is about to end. `spare` clients can be missed before too few for a
    /// round are left.
    pub(crate) fn decide(
        &self,
        round: u32,
        groups: &[fedveil_provenance::GroupDecision],
        spare: usize,
    ) -> Vec<Event> {
        let mut after = self.clone();
        after.observe(groups);
        let Some(decoder) = &after.decoder else { return Vec::new() };
        let mut events = Vec::new();
        let (mut held, mut spare) = (self.quarantined.len(), spare);
        for (client, found) in decoder.ranking() {
            if found.rounds < self.settings.minimum_rounds || self.is_quarantined(&client) {
                continue;
            }
            let evidence = Evidence::from(found);
            if decoder.names(&found) && !self.suspected.contains(&client) {
                events.push(Event::ClientSuspected { client, round, evidence });
            }
            if self.settings.mode != QuarantineMode::Automatic || !decoder.names_despite_framing(&found) {
                continue;
            }
            let waived = if held >= self.most as usize {
                Some(format!("{held} clients are in quarantine, as many as cohort.assumed_malicious"))
            } else if spare == 0 {
                Some("fewer than cohort.minimum clients would be left".to_owned())
            } else {
                None
            };
            match waived {
                None => {
                    let evidence = Some(evidence);
                    let reason = because(&found, decoder.design().poisoned_groups);
                    events.push(Event::ClientQuarantined { client, round, reason, evidence });
                    (held, spare) = (held + 1, spare - 1);
                }
                Some(reason) if !self.waived.contains(&client) => {
                    events.push(Event::QuarantineWaived { client, round, reason });
                }
                Some(_) => {}
            }
        }
        events
    }

    fn observe(&mut self, groups: &[fedveil_provenance::GroupDecision]) {
        let present = std::mem::take(&mut self.present);
        let Some(decoder) = &mut self.decoder else { return };
        let scored: Vec<ScoredGroup<Client>> = groups
            .iter()
            .map(|group| ScoredGroup {
                members: group.members as usize,
                present: present.get(&group.index).cloned().unwrap_or_default(),
                score: group.score,
            })
            .collect();
        decoder.observe(&scored);
    }
}

impl Coordinator {
    /// Judges the operator's order to draw a client no more.
    pub(crate) fn decide_quarantine(&self, client: &Client, reason: &str) -> Result<Vec<Event>, Reject> {
        if self.closed().is_some() {
            return Err(Reject::ignore("the task is closed"));
        }
        if self.suspicion.is_quarantined(client) {
            return Err(Reject::ignore(format!("client {client} is in quarantine already")));
        }
        if !self.suspicion.has_seen(client) {
            return Err(Reject::ignore(format!("client {client} never joined")));
        }
        if self.joined.contains_key(client) && self.spare() == 0 {
            return Err(Reject::ignore(format!(
                "without client {client}, fewer than cohort.minimum {} clients would be left",
                self.plan().plan().cohort.minimum
            )));
        }
        let mut events = self.drop_client(client, "put in quarantine");
        let (round, reason) = (self.last_round, printable(reason.as_bytes()));
        events.push(Event::ClientQuarantined { client: *client, round, reason, evidence: None });
        Ok(events)
    }

    /// Judges the operator's order to lift a quarantine.
    pub(crate) fn decide_release(&self, client: &Client, reason: &str) -> Result<Vec<Event>, Reject> {
        if self.closed().is_some() {
            return Err(Reject::ignore("the task is closed"));
        }
        if !self.suspicion.is_quarantined(client) {
            return Err(Reject::ignore(format!("client {client} is not in quarantine")));
        }
        Ok(vec![Event::ClientReleased { client: *client, reason: printable(reason.as_bytes()) }])
    }

    /// Tells a client that is connected and in quarantine why, and whom to ask.
    pub(crate) fn tell_quarantine(&mut self, client: &Client) {
        if let Some(text) = self.suspicion.told(client) {
            self.send_all(&[*client], Kind::Reject, text.as_bytes());
        }
    }

    pub(crate) fn tell_release(&mut self, client: &Client, reason: &str) {
        let text = format!("released from quarantine: {reason}");
        self.send_all(&[*client], Kind::Reject, text.as_bytes());
    }

    /// Ready clients that are not in quarantine.
    pub(crate) fn drawable(&self) -> impl Iterator<Item = &Client> {
        self.joined.keys().filter(|client| !self.suspicion.is_quarantined(client))
    }

    /// Clients that can be missed before too few for a round are left.
    pub(crate) fn spare(&self) -> usize {
        self.drawable().count().saturating_sub(self.plan().plan().cohort.minimum as usize)
    }
}

impl From<suspects::Evidence> for Evidence {
    fn from(found: suspects::Evidence) -> Self {
        let suspects::Evidence { rounds, suspicious, expected, p_value, p_framed } = found;
        Self { rounds, suspicious, expected, p_value, p_framed }
    }
}

/// Sizes of the groups that so many clients are split into.
pub fn group_sizes(clients: u32, groups: u32) -> Vec<usize> {
    (0..groups).map(|group| (clients / groups + u32::from(group < clients % groups)) as usize).collect()
}

/// Why a client is in quarantine, in words.
fn because(found: &suspects::Evidence, most: usize) -> String {
    format!(
        "its group was among the {most} most suspicious in {:.0} of {} rounds, where chance gives {:.1}; with probability \
         {:.1e} at most would any honest client look like it, even if attackers aimed at one",
        found.suspicious, found.rounds, found.expected, found.p_framed
    )
}
