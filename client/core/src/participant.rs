//! One client in one task, from the plan to the last model.

use crate::memo::{Agreed, Announced, Memo};
use crate::policy::{Policy, PolicyRefusal, TotalExceeded};
use crate::record::{Contribution, Record, TaskRecord};
use bytes::Bytes;
use chacha20::ChaCha20Rng;
use ed25519_dalek::{SigningKey, VerifyingKey};
use fedveil_aggregation::plain::{self, Values};
use fedveil_aggregation::secagg::Limits;
use fedveil_aggregation::secagg::client::{
    self as secagg, AwaitDelivery, AwaitInput, AwaitReveals, AwaitRoster, AwaitSignatures, AwaitSurvivors,
};
use fedveil_privacy::{
    AdaptiveClip, ClipNorm, ClipStep, Evaluation, INDICATOR_BOUND, Noise, NonFinite, Placement, Rotation,
    Sampling, clip_l2,
};
use fedveil_proto::Kind;
use fedveil_proto_plan::{Mode, PlanError, SignedPlan, Terms};
use fedveil_provenance::candidate::MAX_CANDIDATE_BYTES;
use fedveil_provenance::{
    self as provenance, Accepted, Candidate, CandidateError, Digest, Head, Lineage, Pins, Publication,
};
use rand_core::{CryptoRng, SeedableRng};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Who the client is, and whom it trusts. The identity key never leaves the value.
pub struct Credentials {
    /// Ed25519 identity key.
    pub identity: SigningKey,
    /// The enrolment authority's certificate for that key.
    pub certificate: Vec<u8>,
    /// The enrolment authority, pinned at enrolment.
    pub authority: VerifyingKey,
    /// The signer of plans and models, pinned at enrolment.
    pub signer: VerifyingKey,
}

/// What happened, as far as the client is concerned.
pub enum Input {
    /// A message arrived.
    Message(Kind, Bytes),
    /// Local training ended with this update: new parameters minus old, in model file order.
    Trained(Vec<f32>),
    /// The new model was judged: its accuracy on examples of the client's own, less that of the model in use.
    Judged(f64),
    /// Local training, or judging, gave nothing, for this reason.
    TrainingFailed(String),
    /// Values that enter the sum as they are, neither clipped, rotated nor noised, as a poisoned client would send. No
    /// honest shell has a use for it: it exists so that demonstrations and tests attack through the real protocol.
    DangerUnbounded(Vec<i64>),
}

/// What the shell has to do, in the order given.
#[derive(Debug)]
pub enum Effect {
    /// Make the record durable before anything that follows.
    Persist(Record),
    /// Send a message to the coordinator.
    Send(Kind, Vec<u8>),
    /// What is sent from here on belongs to this round.
    Entered {
        /// The round.
        round: u32,
    },
    /// Train on the adopted model and come back with [`Input::Trained`] or [`Input::TrainingFailed`].
    Train {
        /// The round.
        round: u32,
    },
    /// Compare a new model with the one in use, on examples of the client's own, and come back with [`Input::Judged`] or
    /// [`Input::TrainingFailed`]. It is nobody's model yet, and is to be forgotten.
    Judge {
        /// The round that made it.
        round: u32,
        /// The model file.
        model: Bytes,
    },
    /// A verified model replaces the one in use.
    Adopted {
        /// The round that made it.
        round: u32,
        /// The model file, the bytes that came in.
        model: Bytes,
    },
    /// The round is over for this client; the model in use stays.
    RoundOver {
        /// Why, in the coordinator's or the client's words.
        reason: String,
    },
    /// The task is over.
    Finished {
        /// Why, in the coordinator's words.
        reason: String,
    },
}

/// Why a client will not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The plan is not signed by the pinned key, or makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan is weaker than the owner allows.
    #[error(transparent)]
    Policy(#[from] PolicyRefusal),
    /// The plan would spend more than the owner allows over all tasks.
    #[error(transparent)]
    Total(#[from] TotalExceeded),
    /// A model or its place in the log is wrong.
    #[error("refused the published model: {0}")]
    Publication(#[from] provenance::Refusal),
    /// A manifest states a loss that the plan cannot have led to.
    #[error(
        "refused the published model: its manifest says that epsilon {claimed} was spent by round {round}, and by its \
         plan the task has spent what a whole number of participations costs, {least} of them or more and {round} at most"
    )]
    Spent {
        /// The manifest's ε.
        claimed: f64,
        /// The manifest's round.
        round: u32,
        /// Participations of this client that the coordinator must have charged.
        least: u32,
    },
    /// A clip norm that the coordinator cannot have come to by the plan.
    #[error("refused the published model: {0}")]
    Clip(#[from] ClipStep),
    /// The aggregation session is not what was agreed; its secrets are erased.
    #[error("refused the round: {0}")]
    Session(#[from] secagg::Refusal),
    /// What is said of a model to be judged is not signed by the pinned key, or makes no sense.
    #[error("declined to judge a model: {0}")]
    Candidate(#[from] CandidateError),
    /// The round is not one for this client.
    #[error("declined the round: {0}")]
    Round(String),
    /// A message that has no place here.
    #[error("unexpected {kind:?} message {state}")]
    Unexpected {
        /// What came.
        kind: Kind,
        /// Where the client stood.
        state: &'static str,
    },
    /// The update that local training brought is unusable.
    #[error("local update: {0}")]
    Update(String),
}

impl Refusal {
    /// Whether the client leaves the task. Otherwise it leaves the round and waits for the next.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Plan(_)
                | Self::Policy(_)
                | Self::Total(_)
                | Self::Publication(_)
                | Self::Spent { .. }
                | Self::Clip(_)
        )
    }
}

/// The participant's state.
pub struct Participant {
    credentials: Credentials,
    pub(crate) policy: Policy,
    record: Record,
    /// Checks that are shared with other participants of the process.
    memo: Option<Arc<Memo>>,
    task: Option<Task>,
    session: Session,
    /// A model to judge whose file is to come.
    offered: Option<Candidate>,
    /// The file of the model that the session in progress is about, where it is one to judge a model.
    judging: Option<Bytes>,
}

struct Task {
    plan: Arc<SignedPlan>,
    terms: Arc<Terms>,
    lineage: Lineage,
    incoming: Option<Accepted>,
    model: Option<Digest>,
    /// The clip norm, and the round whose manifest gave it.
    clip: (u32, ClipNorm),
    /// Rounds of this session whose sums the client helped to unmask: it was charged for each of them before.
    unmasked: u32,
}

impl Task {
    /// What is charged once the client has taken part in this round, in participations of the guarantee.
    fn charged_after(&self, record: &TaskRecord, round: u32) -> u32 {
        match self.terms.guarantee.placement {
            // It cannot know of all rounds in which it might have been drawn.
            Placement::Central { sampling: Sampling::Poisson(_) } => record.participations.max(round),
            // The first participation pays for all.
            Placement::Correlated { .. } => 1,
            _ => record.participations + 1,
        }
    }
}

/// Where the client stands in a round. Every step consumes the one before and its secrets.
enum Session {
    Idle,
    Roster(AwaitRoster),
    Reveals(AwaitReveals),
    Delivery(AwaitDelivery),
    /// Without an input to mask, the update leaves in the clear.
    Training {
        input: Option<AwaitInput>,
        noise: Vec<i32>,
    },
    Judging {
        input: AwaitInput,
        noise: i32,
    },
    Survivors(AwaitSurvivors),
    Signatures(AwaitSignatures),
}

/// Longest messages from a coordinator.
#[derive(Debug, Clone, Copy)]
pub struct MessageLimits {
    /// None in mode `insecure_plain`.
    session: Option<Limits>,
    parameters: usize,
}

impl MessageLimits {
    /// The limit before a plan is known: a plan, or a few words.
    pub fn before_plan(kind: Kind) -> usize {
        match kind {
            Kind::Plan => fedveil_proto_plan::MAX_BYTES,
            Kind::Reject | Kind::TaskClosed => MAX_TEXT,
            _ => 0,
        }
    }

    /// The limit under the plan.
    pub fn of(&self, kind: Kind) -> usize {
        match (kind, &self.session) {
            (Kind::RoundOpen, _) => 4,
            (Kind::Roster, Some(session)) => session.roster,
            (Kind::Reveals, Some(session)) => session.reveals,
            (Kind::Delivery, Some(session)) => session.delivery,
            (Kind::Survivors, Some(session)) => session.survivors,
            (Kind::Signatures, Some(session)) => session.signatures,
            (Kind::EvaluationOpen, Some(_)) => MAX_CANDIDATE_BYTES,
            (Kind::Publication, _) => provenance::lineage::MAX_PUBLICATION_BYTES,
            (Kind::Candidate, Some(_)) | (Kind::Model, _) => 4 * self.parameters + MAX_MODEL_HEADER,
            (Kind::RoundClosed, _) => MAX_TEXT,
            _ => Self::before_plan(kind),
        }
    }
}

/// Longest reason that a coordinator may give, in bytes.
const MAX_TEXT: usize = 4096;
/// Room for the header of a model file, in bytes.
const MAX_MODEL_HEADER: usize = 64 << 10;

impl Participant {
    /// A participant that has not yet heard of a task.
    pub fn new(credentials: Credentials, policy: Policy, record: Record) -> Self {
        Self {
            credentials,
            policy,
            record,
            memo: None,
            task: None,
            session: Session::Idle,
            offered: None,
            judging: None,
        }
    }

    /// The same participant, which takes the results of checks from others of its process that made them. For simulations.
    #[must_use]
    pub fn sharing(mut self, memo: Arc<Memo>) -> Self {
        self.memo = Some(memo);
        self
    }

    /// Forgets when what left the client, but for the `newest` times of each task, and not how often. For simulations,
    /// whose devices have no owner to show it to.
    pub fn forget_contributions(&mut self, newest: usize) {
        self.record.forget_contributions(newest);
    }

    /// The plan that the client accepted.
    pub fn plan(&self) -> Option<&SignedPlan> {
        self.task.as_ref().map(|task| task.plan.as_ref())
    }

    /// Longest message of each kind that a coordinator may send under the accepted plan, for the transport.
    pub fn message_limits(&self) -> Option<MessageLimits> {
        let task = self.task.as_ref()?;
        let session = match task.terms.mode {
            Mode::Secagg => {
                let authority = &self.credentials.authority;
                Some(task.terms.session(&task.plan, authority, 0, &Digest([0; 32])).ok()?.limits())
            }
            Mode::InsecurePlain | Mode::InsecureIdeal => None,
        };
        Some(MessageLimits { session, parameters: task.plan.plan().model.parameters as usize })
    }

    /// ε that this client has charged itself in the task, by its own accounting.
    pub fn epsilon_spent(&self) -> f64 {
        self.task.as_ref().map_or(0.0, |task| {
            let spent = self.record.tasks.get(&task.plan.digest()).map_or(0, |record| record.participations);
            task.terms.guarantee.epsilon(spent)
        })
    }

    /// The connection is gone: the session in progress is over and its secrets are erased.
    pub fn disconnected(&mut self) {
        self.leave_round();
        if let Some(task) = &mut self.task {
            task.incoming = None;
        }
    }

    /// Takes one input. A refusal erases the session's secrets; one that [is final](Refusal::is_final) ends the task,
    /// and only another plan is listened to.
    pub fn handle(
        &mut self,
        input: Input,
        now_unix_seconds: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        let result = self.on_input(input, now_unix_seconds, rng);
        if let Err(refusal) = &result {
            self.leave_round();
            if refusal.is_final() {
                self.task = None;
            }
        }
        result
    }

    fn on_input(
        &mut self,
        input: Input,
        now_unix_seconds: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        match input {
            Input::Message(kind, bytes) => self.on_message(kind, bytes, now_unix_seconds, rng),
            Input::Trained(update) => {
                let Some((input, noise)) = self.take_training() else { return Ok(Vec::new()) };
                let values = self.contribution(update, &noise, rng)?;
                self.submit(input, values, now_unix_seconds, rng)
            }
            Input::Judged(difference) => self.answer(difference, now_unix_seconds, rng),
            Input::TrainingFailed(reason) => match self.session {
                Session::Training { .. } | Session::Judging { .. } => Err(Refusal::Update(reason)),
                _ => Ok(Vec::new()),
            },
            Input::DangerUnbounded(values) => {
                let Some((input, _)) = self.take_training() else { return Ok(Vec::new()) };
                let values = self.unbounded(&values);
                self.submit(input, values, now_unix_seconds, rng)
            }
        }
    }

    /// An attacker's steps as they travel.
    fn unbounded(&self, steps: &[i64]) -> Values {
        if let Some(task) = self.task.as_ref().filter(|task| !task.terms.guarantee.has_noise()) {
            let real = task.terms.guarantee.grid.to_real(steps);
            return Values::Reals(real.into_iter().map(|value| value as f32).collect());
        }
        let mut steps: Vec<i32> = steps.iter().map(|&step| step as i32).collect();
        // Who attacks the sum of updates may leave the indicator alone.
        if steps.len() + 1 == self.input_length() {
            steps.push(INDICATOR_BOUND as i32);
        }
        Values::Steps(steps)
    }

    fn on_message(
        &mut self,
        kind: Kind,
        bytes: Bytes,
        now: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        match kind {
            Kind::Plan => self.on_plan(&bytes),
            Kind::Publication => self.on_publication(&bytes),
            Kind::Model => self.on_model(bytes),
            Kind::RoundOpen => self.on_round_open(&bytes, now, rng),
            Kind::EvaluationOpen => self.on_evaluation_open(&bytes),
            Kind::Candidate => self.on_candidate(bytes, now, rng),
            Kind::RoundClosed | Kind::Reject => {
                self.leave_round();
                Ok(vec![Effect::RoundOver { reason: words(&bytes) }])
            }
            Kind::TaskClosed => {
                self.leave_round();
                Ok(vec![Effect::Finished { reason: words(&bytes) }])
            }
            _ => self.on_session_message(kind, &bytes, now, rng),
        }
    }

    fn on_plan(&mut self, bytes: &Bytes) -> Result<Vec<Effect>, Refusal> {
        let (signer, policy) = (&self.credentials.signer, &self.policy);
        let check = || {
            let plan = SignedPlan::verify(bytes, signer)?;
            let terms = plan.plan().check()?;
            let allowed = policy.check(plan.plan(), &terms);
            Ok(Agreed { plan: plan.into(), terms: terms.into(), allowed })
        };
        let Agreed { plan, terms, allowed } = match &self.memo {
            Some(memo) => memo.plans.get((signer.to_bytes(), policy.clone()), bytes, check),
            None => check(),
        }?;
        allowed?;
        let digest = plan.digest();
        let head = self.enter(&plan, &terms)?;
        let pins = Pins {
            signers: vec![self.credentials.signer],
            threshold: 1,
            origin: plan.origin(),
            task_digest: digest,
            privacy: terms.privacy_claim(plan.plan(), 0.0),
        };
        let lineage = Lineage::new(pins, head);
        let join = lineage.known_size().to_be_bytes().to_vec();
        let clip = (0, terms.guarantee.grid.clip());
        self.task = Some(Task { plan, terms, lineage, incoming: None, model: None, clip, unmasked: 0 });
        self.leave_round();
        Ok(vec![Effect::Persist(self.record.clone()), Effect::Send(Kind::Join, join)])
    }

    /// Makes the task one of the record's, if the rest of it fits what the owner allows in all. Gives the place in the
    /// log up to which the client has verified its history.
    fn enter(&mut self, plan: &SignedPlan, terms: &Terms) -> Result<Option<Head>, TotalExceeded> {
        let digest = plan.digest();
        let known = self.record.tasks.get(&digest);
        let entry = TaskRecord {
            name: plan.plan().task.clone(),
            delta: plan.plan().privacy.delta,
            loss: terms.guarantee.task_loss(),
            last_round: known.map_or(0, |task| task.last_round),
            last_update: known.map_or(0, |task| task.last_update),
            last_judged: known.map_or(0, |task| task.last_judged),
            participations: known.map_or(0, |task| task.participations),
            contributions: known.map_or(Vec::new(), |task| task.contributions.clone()),
            head: known.and_then(|task| task.head),
            model: known.and_then(|task| task.model),
        };
        let (head, done) = (entry.head, entry.participations);
        let mut record = self.record.clone();
        record.tasks.insert(digest, entry);
        // A plan without noise was allowed by name, whatever the limits on ε.
        if terms.guarantee.has_noise() {
            self.policy.check_total(&record, &digest, terms.most_charges().saturating_sub(done))?;
        }
        self.record = record;
        Ok(head)
    }

    /// A publication waits for its model, unless newer ones follow it.
    fn on_publication(&mut self, bytes: &Bytes) -> Result<Vec<Effect>, Refusal> {
        let task = self.task.as_mut().ok_or(unexpected(Kind::Publication, "before a plan"))?;
        if task.incoming.is_some() {
            return Err(unexpected(Kind::Publication, "before the model of the one before"));
        }
        let (lineage, terms) = (&task.lineage, &task.terms);
        let check = || {
            let accepted = lineage.accept(bytes)?;
            let Publication { leaf_index, .. } = Publication::parse(bytes)?;
            let is_possible =
                terms.can_have_spent(accepted.round.privacy.epsilon_spent, accepted.round.round);
            Ok::<_, provenance::Refusal>(Announced { accepted, leaf_index, is_possible })
        };
        let Announced { accepted, leaf_index, is_possible } = match &self.memo {
            Some(memo) => {
                let signer = self.credentials.signer.to_bytes();
                let key = (task.plan.digest(), signer, lineage.head().copied());
                memo.publications.get(key, bytes, check)
            }
            None => check(),
        }?;
        let (claimed, round) = (accepted.round.privacy.epsilon_spent, accepted.round.round);
        let is_charged =
            task.unmasked == 0 || claimed >= task.terms.guarantee.epsilon(task.unmasked) * (1.0 - 1e-6);
        if !(is_possible && is_charged) {
            return Err(Refusal::Spent { claimed, round, least: task.unmasked });
        }
        if let Some(indicator) = &task.terms.guarantee.indicator {
            let (since, before) = task.clip;
            let found = accepted.round.privacy.clip_norm;
            task.clip = (round, indicator.clip.check_step(before, found, round.saturating_sub(since))?);
        }
        if leaf_index + 1 < accepted.head.log.size {
            task.lineage.apply(&accepted);
        } else {
            task.incoming = Some(accepted);
        }
        Ok(Vec::new())
    }

    /// A new model ends the round, whatever the client was doing in it. Without a publication it can only be the one
    /// that the client has verified before.
    fn on_model(&mut self, model: Bytes) -> Result<Vec<Effect>, Refusal> {
        self.leave_round();
        let task = self.task.as_mut().ok_or(unexpected(Kind::Model, "before a plan"))?;
        let record = self.record.tasks.get_mut(&task.plan.digest()).expect(ENTERED);
        let digest = match &self.memo {
            Some(memo) => memo.digests.get((), &model, || Digest::of(&model)),
            None => Digest::of(&model),
        };
        match task.incoming.take() {
            Some(accepted) => {
                accepted.check_digest(digest)?;
                task.lineage.apply(&accepted);
                record.head = task.lineage.head().copied();
                record.model = Some(digest);
            }
            None if record.model == Some(digest) => {}
            None => return Err(unexpected(Kind::Model, "without its publication")),
        }
        task.model = Some(digest);
        let round = record.head.map_or(0, |head| head.round);
        if task.terms.guarantee.claim.sampling != Sampling::Full {
            record.participations = task.charged_after(record, round);
        }
        Ok(vec![Effect::Persist(self.record.clone()), Effect::Adopted { round, model }])
    }

    fn on_round_open(
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
    fn on_evaluation_open(&mut self, bytes: &[u8]) -> Result<Vec<Effect>, Refusal> {
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

    fn on_candidate(
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
    fn answer(
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

    fn on_session_message(
        &mut self,
        kind: Kind,
        bytes: &[u8],
        now: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Effect>, Refusal> {
        let (session, message) = match (self.take_session(), kind) {
            (Session::Roster(state), Kind::Roster) => {
                let (next, reveal) = state.on_roster(bytes)?;
                (Session::Reveals(next), Effect::Send(Kind::Reveal, reveal))
            }
            (Session::Reveals(state), Kind::Reveals) => {
                let (next, shares) = state.on_reveals(bytes, now, rng)?;
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

    /// The client's part of the noise: none where the coordinator adds it.
    fn draw_noise(&self, rng: &mut impl CryptoRng) -> Result<Vec<i32>, Refusal> {
        let task = self.task.as_ref().ok_or(unexpected(Kind::Delivery, "before a plan"))?;
        let length = task.plan.plan().model.parameters as usize;
        let guarantee = &task.terms.guarantee;
        let mut noise = match guarantee.placement {
            Placement::Distributed { .. } | Placement::Local { .. } => {
                Noise::new(guarantee.noise, guarantee.share).sample_vec(length, &mut stream(rng))
            }
            Placement::Central { .. } | Placement::Correlated { .. } => vec![0; length],
            Placement::InsecureNone => Vec::new(),
        };
        if let Some(indicator) = &guarantee.indicator {
            noise.extend(Noise::new(guarantee.noise, indicator.share).sample_vec(1, &mut stream(rng)));
        }
        Ok(noise)
    }

    /// The client's part of the noise in a sum of answers.
    fn draw_answer_noise(&self, rng: &mut impl CryptoRng) -> Result<i32, Refusal> {
        let guarantee = self.task.as_ref().map(|task| &task.terms.guarantee);
        let evaluation =
            guarantee.and_then(|guarantee| Some((guarantee.noise, guarantee.evaluation.as_ref()?)));
        let (noise, evaluation) =
            evaluation.ok_or(unexpected(Kind::Delivery, "in a task whose plan asks for no answers"))?;
        let drawn = Noise::new(noise, evaluation.share).sample_vec(1, &mut stream(rng));
        Ok(drawn.first().copied().expect("one was asked for"))
    }

    /// Clip, rotate, round, add noise: the only path from an honest update to the sum. Without noise, clipping is all.
    fn contribution(
        &self,
        mut update: Vec<f32>,
        noise: &[i32],
        rng: &mut impl CryptoRng,
    ) -> Result<Values, Refusal> {
        let task = self.task.as_ref().ok_or(unexpected(Kind::Input, "before a plan"))?;
        let model = task.model.ok_or(unexpected(Kind::Input, "before a model"))?;
        let grid = task.terms.guarantee.grid.with_clip(task.clip.1);
        if update.len() != grid.dimension() {
            return Err(Refusal::Update(format!(
                "{} values, the model has {}",
                update.len(),
                grid.dimension()
            )));
        }
        let unusable = |error: NonFinite| Refusal::Update(error.to_string());
        let clipped = clip_l2(&mut update, grid.clip()).map_err(unusable)?;
        if !task.terms.guarantee.has_noise() {
            return Ok(Values::Reals(update));
        }
        // A rotation keeps a sum inside a narrow ring; an update in the clear is in none.
        if task.terms.mode.has_groups() {
            let round = self.record.tasks.get(&task.plan.digest()).map_or(0, |record| record.last_round);
            let seed = task.plan.plan().rotation_seed(round, &model);
            Rotation::new(&seed, update.len()).forward(&mut update);
            // What rounding in f32 may have added to the norm comes off again.
            clip_l2(&mut update, grid.clip()).map_err(unusable)?;
        }
        let mut steps = grid.round(&update, &mut stream(rng));
        if task.terms.guarantee.indicator.is_some() {
            steps.push(AdaptiveClip::indicator(clipped.norm_before, grid.clip()));
        }
        // Both are residues modulo 2^32, which every ring divides.
        Ok(Values::Steps(steps.iter().zip(noise).map(|(&step, &noise)| step.wrapping_add(noise)).collect()))
    }

    /// Values of an input, once there is a plan.
    fn input_length(&self) -> usize {
        self.task.as_ref().map_or(0, |task| task.terms.guarantee.input_length())
    }

    fn submit(
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

    /// What waits for the result of training. Where nothing does, the round it was for is over, and the session that may
    /// be in progress is left alone.
    fn take_training(&mut self) -> Option<(Option<AwaitInput>, Vec<i32>)> {
        match self.take_session() {
            Session::Training { input, noise } => Some((input, noise)),
            other => {
                self.session = other;
                None
            }
        }
    }

    /// Ends the session in progress and erases its secrets.
    fn leave_round(&mut self) {
        self.session = Session::Idle;
        (self.offered, self.judging) = (None, None);
    }

    fn take_session(&mut self) -> Session {
        std::mem::replace(&mut self.session, Session::Idle)
    }

    /// The entry of the task in progress; only while there is one.
    fn task_record(&mut self) -> &mut TaskRecord {
        let task = self.task.as_ref().expect("rounds are of a task");
        self.record.tasks.get_mut(&task.plan.digest()).expect(ENTERED)
    }
}

const ENTERED: &str = "a plan is accepted with its entry in the record, which is never removed";

impl Session {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "outside of a round",
            Self::Roster(_) => "while waiting for the roster",
            Self::Reveals(_) => "while waiting for the reveals",
            Self::Delivery(_) => "while waiting for shares",
            Self::Training { .. } => "while training",
            Self::Judging { .. } => "while judging a model",
            Self::Survivors(_) => "while waiting for the survivors",
            Self::Signatures(_) => "while waiting for signatures",
        }
    }
}

/// A coordinator's words, without what a terminal would obey.
fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|character| !character.is_control()).collect()
}

/// A generator for one purpose in one round: its seed is of `rng`, and nothing else is drawn from it.
fn stream(rng: &mut impl CryptoRng) -> ChaCha20Rng {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(seed.as_mut());
    ChaCha20Rng::from_seed(*seed)
}

fn unexpected(kind: Kind, state: &'static str) -> Refusal {
    Refusal::Unexpected { kind, state }
}
