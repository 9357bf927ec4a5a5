//! Events: what they change in the state, and what the shell has to do about them. Never fails.

use crate::coordinator::{Coordinator, ledger::note};
use crate::effect::Effect;
use crate::event::{Client, Event, Millis};
use crate::job::{CloseJob, Job};
use crate::round::Round;
use fedveil_privacy::ClipNorm;
use fedveil_proto::Kind;
use fedveil_provenance::{Publication, RejectedRound};
use std::sync::Arc;

impl Coordinator {
    /// Takes note of one event.
    pub fn apply(&mut self, event: &Event) {
        note(&mut self.ledger, event);
        self.suspicion.note(event);
        match event {
            Event::TaskOpened { model, .. } => {
                self.opened = true;
                self.model = Some(*model);
                let job = CloseJob::initial(self, *model);
                self.effects.push_back(Effect::Compute(Box::new(Job::Close(job))));
            }
            Event::ClientConnected { client } => {
                self.connected.insert(*client);
                let bytes = self.plan.clone();
                self.effects.push_back(Effect::Send { client: *client, kind: Kind::Plan, bytes });
            }
            Event::ClientJoined { client, log_size } => {
                self.joined.insert(*client, *log_size);
                if self.log.size() > 0 {
                    self.push_model(*client);
                }
                self.tell_quarantine(client);
            }
            Event::ClientLeft { client } => {
                self.connected.remove(client);
                self.joined.remove(client);
            }
            Event::ClientQuarantined { client, .. } => self.tell_quarantine(client),
            Event::ClientReleased { client, reason } => self.tell_release(client, reason),
            Event::RoundOpened { round, cohort, deadline } => {
                self.last_round = *round;
                let opened = Round::open(self, *round, cohort, *deadline);
                self.send_all(cohort, Kind::RoundOpen, &round.to_be_bytes());
                self.round = Some(opened);
            }
            Event::EvaluationOpened { cohort, deadline, proposed, .. } => {
                if let Some(round) = self.round.take() {
                    self.round = Some(round.evaluate(self, cohort, *deadline, proposed));
                    self.send_all(cohort, Kind::EvaluationOpen, &proposed.statement.0);
                    let ask =
                        |&client| Effect::SendBlob { client, kind: Kind::Candidate, digest: proposed.model };
                    self.effects
                        .extend(cohort.iter().filter(|client| self.connected.contains(client)).map(ask));
                }
            }
            Event::UpdateAccepted { client } => {
                if self.participation().is_some() {
                    let (last, count) = self.participated.entry(*client).or_default();
                    (*last, *count) = (self.last_round, *count + 1);
                }
                self.apply_to_round(event);
            }
            // Whoever of the group was not charged does not take part any more.
            Event::PrivacyCharged { group, .. } | Event::GroupWithheld { group, .. } => {
                self.release_group(*group);
                self.apply_to_round(event);
            }
            Event::ModelRejected { round, model, reason, .. } => {
                let (round, model, reason) = (*round, *model, reason.clone());
                self.rejected.push(RejectedRound { round, model, reason });
            }
            Event::Published { model, at, momentum, clip_norm, manifest, checkpoint, measured, .. } => {
                self.model = Some(*model);
                self.rejected.clear();
                if let Some(accuracy) = measured.and_then(|measured| measured.accuracy)
                    && self.best.is_none_or(|(best, _)| accuracy >= best)
                {
                    self.best = Some((accuracy, *model));
                }
                self.momentum = *momentum;
                self.clip = clip_norm.and_then(|norm| ClipNorm::new(norm).ok()).unwrap_or(self.clip);
                self.log.append(manifest.0.clone());
                self.checkpoint.clone_from(checkpoint);
                self.finish_round(*at);
                for client in self.joined.keys().copied().collect::<Vec<_>>() {
                    self.push_model(client);
                }
            }
            Event::RoundAborted { reason, at, .. } => {
                let clients: Vec<_> = self.joined.keys().copied().collect();
                self.send_all(&clients, Kind::RoundClosed, reason.as_bytes());
                self.finish_round(*at);
            }
            Event::TaskClosed { reason } => {
                self.closed = Some(reason.clone());
                let clients: Vec<_> = self.connected.iter().copied().collect();
                self.send_all(&clients, Kind::TaskClosed, reason.as_bytes());
                self.effects.extend(clients.into_iter().map(|client| Effect::Close { client }));
                self.round = None;
            }
            _ => self.apply_to_round(event),
        }
    }

    fn apply_to_round(&mut self, event: &Event) {
        if let Some(mut round) = self.round.take() {
            round.apply(self, event);
            self.round = Some(round);
        }
    }

    fn release_group(&mut self, group: u32) {
        let members = self.round.as_ref().map_or(&[][..], |round| round.members(group));
        for client in members {
            self.ledger.release(&client.0);
        }
    }

    fn finish_round(&mut self, at: Millis) {
        self.round = None;
        self.idle_since = at;
    }

    /// Sends a client what it has not verified yet, with the proofs that it needs, and the newest model. A newcomer
    /// starts with the newest manifest.
    fn push_model(&mut self, client: Client) {
        let Some(known) = self.joined.get_mut(&client) else { return };
        let size = self.log.size();
        let first = if *known == 0 { size.saturating_sub(1) } else { *known };
        for leaf in first..size {
            let of = (leaf, *known, size);
            let bytes = match &self.publication {
                Some((made, bytes)) if *made == of => bytes.clone(),
                _ => {
                    let publication = Publication::new(&self.log, self.checkpoint.clone(), leaf, *known)
                        .expect("the leaf is in the log and the client's size was checked when it joined");
                    publication.to_bytes().into()
                }
            };
            self.publication = Some((of, bytes.clone()));
            self.effects.push_back(Effect::Send { client, kind: Kind::Publication, bytes });
            *known = size;
        }
        if let Some(digest) = self.model {
            self.effects.push_back(Effect::SendBlob { client, kind: Kind::Model, digest });
        }
    }

    pub(crate) fn send(&mut self, client: Client, kind: Kind, bytes: Arc<[u8]>) {
        self.effects.push_back(Effect::Send { client, kind, bytes });
    }

    pub(crate) fn send_all(&mut self, clients: &[Client], kind: Kind, bytes: &[u8]) {
        let bytes: Arc<[u8]> = bytes.into();
        for client in clients {
            if self.connected.contains(client) {
                self.effects.push_back(Effect::Send { client: *client, kind, bytes: bytes.clone() });
            }
        }
    }

    pub(crate) fn compute(&mut self, job: Job) {
        self.effects.push_back(Effect::Compute(Box::new(job)));
    }
}
