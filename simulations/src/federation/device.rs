//! One client's end: the participant and what its agent keeps around it.

use super::{signing_key, stream};
use ed25519_dalek::{SigningKey, VerifyingKey};
use fedveil_aggregation::secagg::IdentityCertificate;
use fedveil_client_core::{Credentials, Effect, Input, Participant, Policy, Record, Refusal};
use fedveil_coordinator_core::{Client, Millis};
use fedveil_proto_plan::TaskPlan;
use fedveil_provenance::Digest;

/// A client of a [`Federation`](super::Federation).
pub struct Device {
    id: Client,
    participant: Participant,
    rng: chacha20::ChaCha20Rng,
    record: Record,
    round: u32,
    model: Option<(u32, Vec<u8>)>,
    refusals: Vec<Refusal>,
    finished: Option<String>,
    /// Number of the session in progress.
    pub(super) session: Option<u64>,
}

impl Device {
    pub(super) fn enrol(
        seed: u64,
        index: usize,
        authority: &SigningKey,
        signer: VerifyingKey,
        policy: Policy,
    ) -> Self {
        let identity = signing_key(seed, "identity", index);
        let public = identity.verifying_key().to_bytes();
        let certificate =
            IdentityCertificate::issue(authority, &public, &format!("client {index}"), u64::MAX)
                .expect("the name is short and the key was generated");
        let authority = authority.verifying_key();
        let id = IdentityCertificate::verify(&certificate, &authority, 0)
            .expect("the authority has just signed it")
            .client_id();
        let credentials = Credentials { identity, certificate, authority, signer };
        Self {
            id: Digest(id.0),
            participant: Participant::new(credentials, policy, Record::default()),
            rng: stream(seed, "participant", index),
            record: Record::default(),
            round: 0,
            model: None,
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

    /// What the client has made durable.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The last round that it entered; 0 before the first.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The last model that it adopted, a safetensors file, and the round that made it.
    pub fn model(&self) -> Option<(u32, &[u8])> {
        self.model.as_ref().map(|(round, model)| (*round, model.as_slice()))
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

    /// What there is to train.
    pub(super) fn task(&self) -> Option<(&[u8], &TaskPlan)> {
        let (_, model) = self.model()?;
        Some((model, self.participant.plan()?.plan()))
    }

    pub(super) fn handle(&mut self, input: Input, now: Millis) -> Result<Vec<Effect>, Refusal> {
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

    /// Takes note of an effect that concerns nobody else.
    pub(super) fn note(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(record) => self.record = record,
            Effect::Entered { round } => self.round = round,
            Effect::Adopted { round, model } => self.model = Some((round, model)),
            Effect::Send(..) | Effect::Train { .. } | Effect::RoundOver { .. } | Effect::Finished { .. } => {}
        }
    }

    pub(super) fn lose_session(&mut self) {
        self.session = None;
        self.participant.disconnected();
    }
}
