//! Rounds: which ones a client enters, and each step of them, for updates and for answers about models.
//!
//! A round is marked as consumed before its first message, and charged before an input leaves.

use super::{Credentials, ENTERED, Effect, Participant, Refusal, Session, unexpected};
use crate::record::Contribution;
use bytes::Bytes;
use fedveil_aggregation::plain::{self, Values};
use fedveil_aggregation::secagg::client::{self as secagg, AwaitInput};
use fedveil_privacy::Evaluation;
use fedveil_proto::Kind;
use fedveil_proto_plan::Mode;
use fedveil_provenance::{Candidate, Digest};
use rand_core::CryptoRng;
use std::sync::Arc;

impl Participant {
    pub(super) fn on_round_open(
        &mut self,
        bytes: &[u8],
        now: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        self.leave_round();
        let round = bytes.try_into().map(u32::from_be_bytes).map_err(|_| {
            Refusal::Round(format!("a round number has 4 bytes, the message has {}", bytes.len()))
        })?;
        let task = self.task.as_ref().ok_or(unexpected(Kind::RoundOpen, "before a plan"))?;
        let model = task.model.ok_or(unexpected(Kind::RoundOpen, "before a model"))?;
        let record = self.record.tasks.get(&task.plan.digest()).expect(ENTERED);
        if round <= record.last_round || round > task.plan.plan().rounds {
            return Err(Refusal::Round(format!(
                "round {round} is not after round {}, the last one taken part in, or not one of {}",
                record.last_round,
                task.plan.plan().rounds
            )));
        }
        if task.charged_after(record, round) > task.terms.affordable_rounds {
            return Err(Refusal::Round(format!(
                "one more participation would pass the privacy budget epsilon {}",
                task.plan.plan().privacy.epsilon
            )));
        }
        let more = task.charged_after(record, round) - record.participations;
        if task.terms.guarantee.has_noise() {
            self.policy
                .check_total(&self.record, &task.plan.digest(), more)
                .map_err(|exceeded| Refusal::Round(exceeded.to_string()))?;
        }
        let (session, next) = match task.terms.mode {
            Mode::Secagg => {
                let Credentials { identity, certificate, authority, .. } = &self.credentials;
                let config = task.terms.session(&task.plan, authority, round, &model)?;
                let (session, message) = secagg::advertise(config, identity, certificate, now, rng)?;
                (Session::Roster(session), Effect::Send(Kind::Advertise, message))
            }
            Mode::InsecurePlain | Mode::InsecureIdeal => {
                let noise = self.draw_noise(rng)?;
                (Session::Training { input: None, noise }, Effect::Train { round })
            }
        };
        self.session = session;
        self.task_record().last_round = round;
        let record = Effect::Persist(self.record.clone());
        Ok(vec![Effect::Entered { round }, record, next])
    }

    /// A new model of the round is to be judged by those who took part in it. What it costs was charged with the update.
    pub(super) fn on_evaluation_open(&mut self, bytes: &[u8]) -> Result<Vec<Effect>, Refusal> {
        self.leave_round();
        let task = self.task.as_ref().ok_or(unexpected(Kind::EvaluationOpen, "before a plan"))?;
        if task.plan.plan().evaluation().is_none() {
            return Err(unexpected(Kind::EvaluationOpen, "in a task whose plan asks for no answers"));
        }
        let candidate = Candidate::verify(bytes, &self.credentials.signer)?;
        let record = self.record.tasks.get(&task.plan.digest()).expect(ENTERED);
        if candidate.task != task.plan.digest() {
            return Err(Refusal::Round(format!("the model to judge is of task {}", candidate.task)));
        }
        if record.head.map(|head| head.manifest) != Some(candidate.parent) {
            return Err(Refusal::Round("the model to judge does not follow the one in use".to_owned()));
        }
        let round = candidate.round;
        if round != record.last_update || round <= record.last_judged {
            return Err(Refusal::Round(format!(
                "this client judges a model once in each round that it took part in, and round {round} is not one"
            )));
        }
        self.offered = Some(candidate);
        Ok(Vec::new())
    }

    pub(super) fn on_candidate(
        &mut self,
        model: Bytes,
        now: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        let offered = self.offered.take();
        let candidate = offered.ok_or(unexpected(Kind::Candidate, "without a statement about it"))?;
        let found = Digest::of(&model);
        if found != candidate.model {
            return Err(Refusal::Round(format!(
                "the digest of the model to judge is {found}, the statement about it says {}",
                candidate.model
            )));
        }
        let task = self.task.as_ref().ok_or(unexpected(Kind::Candidate, "before a plan"))?;
        let Credentials { identity, certificate, authority, .. } = &self.credentials;
        let config = task.terms.evaluation_session(&task.plan, authority, &candidate)?;
        let (session, message) = secagg::advertise(config, identity, certificate, now, rng)?;
        self.session = Session::Roster(session);
        self.judging = Some(model);
        self.task_record().last_judged = candidate.round;
        Ok(vec![Effect::Persist(self.record.clone()), Effect::Send(Kind::Advertise, message)])
    }

    /// Rounds an answer about a new model, adds its noise and sends it.
    pub(super) fn answer(
        &mut self,
        difference: f64,
        now: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        let (input, noise) = match self.take_session() {
            Session::Judging { input, noise } => (input, noise),
            other => {
                self.session = other;
                return Ok(Vec::new());
            }
        };
        let task = self.task.as_ref().ok_or(unexpected(Kind::Input, "before a plan"))?;
        let bits = task.terms.guarantee.evaluation.as_ref().map_or(1, |evaluation| evaluation.ring_bits);
        let value = Evaluation::answer(difference).wrapping_add(noise) as u32 & (u32::MAX >> (32 - bits));
        let (next, message) = input.submit(&[value], rng)?;
        self.session = Session::Survivors(next);
        let record = self.task_record();
        record.contributions.push(Contribution { round: record.last_judged, at: now, judged: true });
        Ok(vec![Effect::Persist(self.record.clone()), Effect::Send(Kind::Input, message)])
    }

    pub(super) fn on_session_message(
        &mut self,
        kind: Kind,
        bytes: &Bytes,
        now: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        let (session, message) = match (self.take_session(), kind) {
            (Session::Roster(state), Kind::Roster) => {
                let read = || state.read(bytes).map(Arc::new);
                let roster = match &self.memo {
                    Some(memo) => memo.rosters.get(*state.config().digest(), bytes, read),
                    None => read(),
                }?;
                let (next, reveal) = state.on_claimed(roster)?;
                (Session::Reveals(next), Effect::Send(Kind::Reveal, reveal))
            }
            (Session::Reveals(state), Kind::Reveals) => {
                let read = || state.read(bytes, now).map(Arc::new);
                let groups = match &self.memo {
                    Some(memo) => memo.groups.get((*state.roster().root(), now), bytes, read),
                    None => read(),
                }?;
                let (next, shares) = state.on_announced(&groups, rng)?;
                (Session::Delivery(next), Effect::Send(Kind::Shares, shares))
            }
            (Session::Delivery(state), Kind::Delivery) => {
                let input = state.on_delivery(bytes)?;
                if let Some(model) = self.judging.clone() {
                    let noise = self.draw_answer_noise(rng)?;
                    self.session = Session::Judging { input, noise };
                    return Ok(vec![Effect::Judge { round: self.task_record().last_judged, model }]);
                }
                // Noise is drawn before the data is touched, so that its sampling time tells nothing of the data.
                let noise = self.draw_noise(rng)?;
                let round = self.task_record().last_round;
                (Session::Training { input: Some(input), noise }, Effect::Train { round })
            }
            (Session::Survivors(state), Kind::Survivors) => {
                let (next, signature) = state.on_survivors(bytes)?;
                (Session::Signatures(next), Effect::Send(Kind::Consistency, signature))
            }
            (Session::Signatures(state), Kind::Signatures) => {
                let shares = state.on_signatures(bytes)?;
                // An answer is charged with the update of its round.
                if let Some(task) = self.task.as_mut().filter(|_| self.judging.is_none()) {
                    task.unmasked += 1;
                }
                (Session::Idle, Effect::Send(Kind::Unmask, shares))
            }
            (session, kind) => return Err(unexpected(kind, session.name())),
        };
        self.session = session;
        Ok(vec![message])
    }

    pub(super) fn submit(
        &mut self,
        input: Option<AwaitInput>,
        values: Values,
        now: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        let task = self.task.as_ref().ok_or(unexpected(Kind::Input, "before a plan"))?;
        let record = self.record.tasks.get(&task.plan.digest()).expect(ENTERED);
        let charged = task.charged_after(record, record.last_round);
        let (session, message) = match (input, values) {
            (Some(input), Values::Steps(steps)) => {
                let mask = u32::MAX >> (32 - task.terms.guarantee.ring_bits);
                let values: Vec<u32> = steps.iter().map(|&step| step as u32 & mask).collect();
                let (next, message) = input.submit(&values, rng)?;
                (Session::Survivors(next), Effect::Send(Kind::Input, message))
            }
            (Some(_), Values::Reals(_)) => {
                return Err(Refusal::Update("masks are for steps of a grid".to_owned()));
            }
            (None, values) => {
                let message = plain::encode(record.last_round, &values);
                (Session::Idle, Effect::Send(Kind::PlainInput, message))
            }
        };
        let record = self.task_record();
        record.participations = charged;
        record.last_update = record.last_round;
        record.contributions.push(Contribution { round: record.last_round, at: now, judged: false });
        self.session = session;
        Ok(vec![Effect::Persist(self.record.clone()), message])
    }
}
