//! One client's end: the participant and what its agent keeps around it.

use super::Enrolment;
use super::draws::{bytes, signing_key, stream};
use bytes::Bytes;
use fedveil_aggregation::secagg::{ClientId, IdentityCertificate};
use fedveil_client_core::{Credentials, Effect, Input, Participant, Record, Refusal, TaskRecord};
use fedveil_coordinator_core::{Client, Millis};
use fedveil_proto::Kind;
use fedveil_proto_plan::TaskPlan;
use fedveil_provenance::Digest;

/// How often something left a client, of which a device says when; more would grow with the rounds.
const REMEMBERED: usize = 8;

/// A client of a [`Federation`](super::Federation), made from its seed and its number when it connects.
pub struct Device {
    id: Client,
    seed: u64,
    index: usize,
    participant: Participant,
    rng: chacha20::ChaCha20Rng,
    round: u32,
    model: Option<(u32, Bytes)>,
    memory: Option<Bytes>,
    /// The model that it has trained, and how many newer ones there are, where it had finished before it connected.
    started: Option<(Bytes, u32)>,
    refusals: Vec<Refusal>,
    finished: Option<String>,
    /// Number of the session in progress.
    pub(super) session: Option<u64>,
}

/// What is left of a device that is gone, beside what its trainer keeps: its own account of the task.
///
/// Its place in the log is not: it comes back as a newcomer, who trusts the pinned key, verifies the newest manifest and
/// takes the newest model. A device that kept it would verify the manifests of all rounds between, of which there are as
/// many as the population is larger than a cohort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) last_round: u32,
    pub(super) participations: u32,
}

impl Device {
    /// `known` and `memory` are what a device of that number has left, if there was one.
    pub(super) fn enrol(
        enrolment: &Enrolment,
        index: usize,
        known: Option<Kept>,
        memory: Option<Bytes>,
    ) -> Self {
        let Enrolment { seed, authority, signer, policy, task, template, certified, keyed, nobody, memo } =
            enrolment;
        let (identity, id) = if *keyed {
            let identity = signing_key(*seed, "identity", index);
            let id = ClientId::of(&identity.verifying_key().to_bytes());
            (identity, Digest(id.0))
        } else {
            // Nobody signs anything, and a key for each would take longer than all else that makes a device.
            (nobody.clone(), Digest(bytes(*seed, "identity", index, 0)))
        };
        let certificate = if *certified {
            let public = identity.verifying_key().to_bytes();
            IdentityCertificate::issue(authority, &public, &format!("client {index}"), u64::MAX)
                .expect("the name is short and the key was generated")
        } else {
            Vec::new()
        };
        let mut record = Record::default();
        if let Some(kept) = known {
            let entry = TaskRecord {
                last_round: kept.last_round,
                participations: kept.participations,
                ..template.clone()
            };
            record.tasks.insert(*task, entry);
        }
        let authority = authority.verifying_key();
        let credentials = Credentials { identity, certificate, authority, signer: *signer };
        Self {
            id,
            seed: *seed,
            index,
            participant: Participant::new(credentials, policy.clone(), record).sharing(memo.clone()),
            rng: stream(*seed, "participant", index, 0),
            round: 0,
            model: None,
            memory,
            started: None,
            refusals: Vec::new(),
            finished: None,
            session: None,
        }
    }

    /// The client's identity.
    pub fn id(&self) -> Client {
        self.id
    }

    /// The participant.
    pub fn participant(&self) -> &Participant {
        &self.participant
    }

    /// What the client has made durable, but for the list of what left it.
    pub fn record(&self) -> &Record {
        self.participant.record()
    }

    /// The last round that it entered; 0 before the first.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The last model that it adopted, a safetensors file, and the round that made it.
    pub fn model(&self) -> Option<(u32, &[u8])> {
        self.model.as_ref().map(|(round, model)| (*round, model.as_ref()))
    }

    /// What its trainer has kept for its next participation.
    pub fn memory(&self) -> Option<&[u8]> {
        self.memory.as_deref()
    }

    /// Everything that it refused, in order.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Why it is through with the task, if it is: the coordinator's reason, or what it refused for good.
    pub fn finished(&self) -> Option<&str> {
        self.finished.as_deref()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.is_some()
    }

    /// What is left of it when it is gone: nothing, if it never took part.
    pub(super) fn leave(&mut self, task: &Digest) -> (Option<Kept>, Option<Bytes>) {
        let record = self.record().tasks.get(task).filter(|record| record.last_round > 0);
        let kept = record
            .map(|record| Kept { last_round: record.last_round, participations: record.participations });
        (kept, self.memory.take())
    }

    /// What there is to train.
    pub(super) fn task(&self) -> Option<(&[u8], &TaskPlan)> {
        let (_, model) = self.model()?;
        Some((model, self.participant.plan()?.plan()))
    }

    /// It comes with what it made of this model, of which there are so many newer ones.
    pub(super) fn start_from(&mut self, model: Bytes, staleness: u32) {
        self.started = Some((model, staleness));
    }

    pub(super) fn started(&self) -> Option<(&[u8], u32)> {
        self.started.as_ref().map(|(model, staleness)| (model.as_ref(), *staleness))
    }

    pub(super) fn handle(&mut self, input: Input, now: Millis) -> Result<Vec<Effect>, Refusal> {
        // What a client draws in a round is of that round, whichever it took part in before.
        if let Input::Message(Kind::RoundOpen, round) = &input
            && let Ok(round) = round.as_ref().try_into()
        {
            self.rng = stream(self.seed, "participant", self.index, u32::from_be_bytes(round));
        }
        self.participant.handle(input, now.unix_seconds(), &mut self.rng)
    }

    /// Takes note of a refusal; says whether it ends the task for this client.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> bool {
        let is_final = refusal.is_final();
        if is_final {
            self.finished = Some(refusal.to_string());
        }
        self.refusals.push(refusal);
        is_final
    }

    pub(super) fn finish(&mut self, reason: String) {
        self.finished = Some(reason);
    }

    pub(super) fn remember(&mut self, memory: Bytes) {
        self.memory = Some(memory);
    }

    /// Takes note of an effect that concerns nobody else.
    pub(super) fn note(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(_) => self.participant.forget_contributions(REMEMBERED),
            Effect::Entered { round } => self.round = round,
            Effect::Adopted { round, model } => self.model = Some((round, model)),
            Effect::Send(..)
            | Effect::Train { .. }
            | Effect::Judge { .. }
            | Effect::RoundOver { .. }
            | Effect::Finished { .. } => {}
        }
    }

    pub(super) fn lose_session(&mut self) {
        self.session = None;
        self.participant.disconnected();
    }
}
