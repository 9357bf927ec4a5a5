//! The task: who is there, which round runs, what is spent, what is published.

use crate::command::{Closed, Command, Computed, Outcome, Reject, Rejected, Upload};
use crate::effect::Effect;
use crate::event::{Client, Event, Hex, Millis};
use crate::gate::{HoldOut, Proposed};
use crate::job::{CloseJob, Job};
use crate::quarantine::{MAX_REASON, Quarantine, Suspicion};
use crate::round::Round;
use crate::updates::{Total, Updates};
use ed25519_dalek::VerifyingKey;
use fedveil_aggregation::optimizer::ServerStep;
use fedveil_aggregation::plain::{self, Values};
use fedveil_aggregation::secagg::{Accumulator, MAX_CERTIFICATE_LEN, MaskedInput, SessionConfig};
use fedveil_privacy::{
    ClipNorm, Ledger, Overdrawn, Participation, Placement, Sampling, SamplingRate, l2_norm,
};
use fedveil_proto::{Kind, limits::MAX_DECLINE};
use fedveil_proto_plan::{Gate, Mode, PlanError, SignedPlan, TaskPlan, Terms};
use fedveil_provenance::{Candidate, Digest, Log, Publication, RejectedRound};
use rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Seconds that a new round waits for a full cohort once enough clients are there.
const JOIN_WINDOW_SECONDS: u32 = 10;

/// What a coordinator is started with; everything else follows from events.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The signed plan.
    pub plan: SignedPlan,
    /// The enrolment authority, which signs every client's identity.
    pub authority: VerifyingKey,
    /// What a plan's gate judges models on, where it needs examples.
    pub hold_out: Option<Arc<dyn HoldOut>>,
    /// What is done about clients that the rounds make suspicious.
    pub quarantine: Quarantine,
}

/// The coordinator's state. See the crate documentation for the contract of its methods.
pub struct Coordinator {
    pub(crate) settings: Settings,
    /// The signed plan, as it is sent to every client.
    plan: Arc<[u8]>,
    pub(crate) terms: Terms,
    opened: bool,
    closed: Option<String>,
    connected: BTreeSet<Client>,
    /// Ready clients, and the log size that each has verified.
    pub(crate) joined: BTreeMap<Client, u64>,
    idle_since: Millis,
    pub(crate) last_round: u32,
    /// With correlated noise: the last round in which a client took part, and the number of them.
    participated: BTreeMap<Client, (u32, u32)>,
    round: Option<Round>,
    pub(crate) suspicion: Suspicion,
    pub(crate) ledger: Ledger,
    model: Option<Digest>,
    momentum: Option<Digest>,
    /// The published model of the highest accuracy on the hold-out, and that accuracy.
    best: Option<(f64, Digest)>,
    /// Rounds whose models the gate rejected since the last that was published.
    rejected: Vec<RejectedRound>,
    /// The clip norm of the round in progress or the next.
    clip: ClipNorm,
    log: Log,
    checkpoint: String,
    /// The publication that was made last: of which leaf, for whom has verified how many of how many.
    publication: Option<(LeafAndSizes, Arc<[u8]>)>,
    effects: VecDeque<Effect>,
    server_step: Arc<dyn ServerStep>,
}

/// A leaf of the log, and two sizes of it.
type LeafAndSizes = (u64, u64, u64);

impl Coordinator {
    /// A coordinator for a plan whose terms hold, with the examples that its gate needs.
    pub fn new(settings: Settings) -> Result<Self, PlanError> {
        let terms = settings.plan.plan().check()?;
        if terms.mode == Mode::Secagg {
            terms.session(&settings.plan, &settings.authority, 0, &Digest([0; 32]))?;
        }
        if terms.guarantee.evaluation.is_some() {
            let none = Digest([0; 32]);
            let candidate = Candidate { task: settings.plan.digest(), round: 0, parent: none, model: none };
            terms.evaluation_session(&settings.plan, &settings.authority, &candidate)?;
        }
        let gate = settings.plan.plan().server.gate.as_ref();
        if gate.is_some_and(Gate::needs_hold_out) && settings.hold_out.is_none() {
            return Err(PlanError::Inconsistent(
                "server.gate bounds what a model does on the coordinator's own hold-out (max_accuracy_drop, \
                 max_trigger_success), and this coordinator has none"
                    .to_owned(),
            ));
        }
        let ledger = new_ledger(settings.plan.plan(), &terms)?;
        let clip = terms.guarantee.grid.clip();
        let suspicion = Suspicion::new(&settings.quarantine, settings.plan.plan(), &terms)?;
        let server_step = Arc::new(terms.optimizer);
        Ok(Self {
            plan: settings.plan.bytes().into(),
            settings,
            terms,
            server_step,
            opened: false,
            closed: None,
            connected: BTreeSet::new(),
            joined: BTreeMap::new(),
            idle_since: Millis(0),
            last_round: 0,
            participated: BTreeMap::new(),
            round: None,
            suspicion,
            ledger,
            model: None,
            momentum: None,
            best: None,
            rejected: Vec::new(),
            clip,
            log: Log::new(),
            checkpoint: String::new(),
            publication: None,
            effects: VecDeque::new(),
        })
    }

    /// A step of the server that no plan can name takes the place of the plan's, for research. It must be given again
    /// whenever the coordinator is made from its events.
    #[must_use]
    pub fn with_server_step(self, server_step: Arc<dyn ServerStep>) -> Self {
        Self { server_step, ..self }
    }

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

    /// Transitions that are due by the state itself. The shell calls it until it returns nothing.
    ///
    /// `overdrawn` are clients that cannot pay by the population's ledger. It is asked where a round is about to open:
    /// who can not is named here in the next call, and not drawn.
    pub fn advance(
        &self,
        now: Millis,
        seed: [u8; 32],
        overdrawn: &BTreeMap<Client, Overdrawn>,
    ) -> Vec<Event> {
        if !self.opened || self.closed.is_some() || self.model.is_none() || self.log.size() == 0 {
            return Vec::new();
        }
        if let Some(round) = &self.round {
            return round.advance(self, now);
        }
        if let Some(reason) = self.end_of_task(now, overdrawn) {
            return vec![Event::TaskClosed { reason }];
        }
        self.open_round(now, seed, overdrawn)
    }

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

    /// The next request to the shell.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`advance`](Self::advance) has to be called again at the latest.
    pub fn poll_timeout(&self) -> Option<Millis> {
        if self.closed.is_some() {
            return None;
        }
        match &self.round {
            Some(round) => round.poll_timeout(),
            None => Some(self.idle_since.plus_seconds(JOIN_WINDOW_SECONDS)),
        }
    }

    /// Why the task is over, if it is.
    pub fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// The plan.
    pub fn plan(&self) -> &SignedPlan {
        &self.settings.plan
    }

    /// What the plan means.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The transparency log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// ε spent so far by the client that took part most often.
    pub fn epsilon_spent(&self) -> f64 {
        self.ledger.max_spent()
    }

    /// Clients for whom a participation in the round in progress is set aside.
    pub fn reserved(&self) -> BTreeSet<Client> {
        self.ledger.reservations().copied().map(Digest).collect()
    }

    /// What the rounds say about the clients, and who is in quarantine.
    pub fn suspicion(&self) -> &Suspicion {
        &self.suspicion
    }

    /// Digest of the current model file.
    pub fn model(&self) -> Option<Digest> {
        self.model
    }

    /// The published model that the gate compares accuracies with: the best that it measured, or else the last.
    pub fn best(&self) -> Option<Digest> {
        self.best.map(|(_, model)| model).or(self.model)
    }

    pub(crate) fn hold_out(&self) -> Option<Arc<dyn HoldOut>> {
        self.settings.hold_out.clone()
    }

    /// Rounds whose models the gate rejected since the last that was published.
    pub fn rejected(&self) -> &[RejectedRound] {
        &self.rejected
    }

    /// The number of the round in progress and the name of its phase.
    pub fn phase(&self) -> Option<(u32, &'static str)> {
        self.round.as_ref().map(|round| (round.number(), round.phase()))
    }

    /// The round in progress or the last one; 0 before the first.
    pub fn last_round(&self) -> u32 {
        self.last_round
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

    /// What decodes a client's input while it arrives, a message of this kind. Where none is awaited it is refused before
    /// its bytes are read; either way the shell says how it went with [`Command::Input`].
    pub fn begin_input(&self, client: &Client, kind: Kind) -> Result<Upload, Reject> {
        self.round_of_input(client)?.begin_input(self, client, kind)
    }

    /// An input that arrived whole.
    pub fn whole_input(&self, client: Client, kind: Kind, bytes: &[u8]) -> Command {
        let decode = |mut upload: Upload| {
            upload.push(bytes)?;
            upload.finish()
        };
        Command::Input { client, input: self.begin_input(&client, kind).and_then(decode) }
    }

    /// Refuses an update that no honest client sends, where the guarantee depends on it, or nothing else bounds it.
    pub(crate) fn check_update(&self, values: &Values) -> Result<(), Reject> {
        let grid = &self.terms.guarantee.grid;
        match (self.terms.guarantee.placement, values) {
            (Placement::Central { .. } | Placement::Correlated { .. }, Values::Steps(steps))
                if !grid.admits(steps) =>
            {
                Err(Reject::fault(format!(
                    "the update's norm is beyond {:.1} steps, what the noise is sized for",
                    grid.norm_bound()
                )))
            }
            (_, Values::Reals(reals)) => {
                let norm = l2_norm(reals);
                if norm <= self.clip.get() && norm.is_finite() {
                    return Ok(());
                }
                let bound = if norm.is_finite() { self.clip.to_string() } else { "any number".to_owned() };
                Err(Reject::fault(format!("the update's norm is {norm}, beyond {bound}")))
            }
            _ => Ok(()),
        }
    }

    /// The probability with which each client is drawn, where that is what the guarantee counts on.
    pub(crate) fn sampling_rate(&self) -> Option<SamplingRate> {
        match self.terms.guarantee.placement {
            Placement::Central { sampling: Sampling::Poisson(rate) } => Some(rate),
            _ => None,
        }
    }

    /// Adds an accepted input to its group's sum.
    pub(crate) fn accumulate(
        &self,
        client: &Client,
        input: &MaskedInput,
        sums: &mut BTreeMap<u32, Accumulator>,
    ) {
        if let Some(round) = &self.round {
            round.accumulate(client, input, sums);
        }
    }

    /// The job that closes a round of single updates.
    pub(crate) fn close_job(&self, updates: Updates) -> Option<Job> {
        self.round.as_ref()?.close_job(self, updates)
    }

    /// The sum that a client's update belongs to, where nothing is asked of updates but their sums.
    pub(crate) fn sum_of(&self, client: &Client) -> Option<u32> {
        match self.terms.mode {
            Mode::InsecurePlain => self.terms.rule.is_mean().then_some(0),
            Mode::Secagg | Mode::InsecureIdeal => self.round.as_ref()?.group_of(client),
        }
    }

    /// The job that makes a group's sum known where nothing is masked.
    pub(crate) fn sum_job(&mut self, group: u32, sum: Total) -> Option<Job> {
        let ring_bits = self.terms.guarantee.ring_bits;
        Some(Job::Sum {
            round: self.last_round,
            group,
            sum: self.round.as_mut()?.sum(group, sum)?,
            ring_bits,
        })
    }

    /// The job that unmasks a group's sum.
    pub(crate) fn unmask_job(&mut self, group: u32, sum: Accumulator) -> Option<Job> {
        self.round.as_mut()?.unmask_job(group, sum)
    }

    /// Longest message of each kind that a client may send, for the transport.
    pub fn message_limits(&self) -> impl Fn(Kind) -> usize + Send + Sync + use<> {
        let session = self.session(0, &Digest([0; 32])).map(|session| session.limits());
        let update = plain::message_len(self.terms.guarantee.input_length());
        move |kind| match (kind, &session) {
            (Kind::Hello, _) => 4 + MAX_CERTIFICATE_LEN,
            (Kind::Join, _) => 8,
            (Kind::Decline, _) => MAX_DECLINE,
            (Kind::Advertise, Some(limits)) => limits.advertise,
            (Kind::Reveal, Some(limits)) => limits.reveal,
            (Kind::Shares, Some(limits)) => limits.shares,
            (Kind::Input, Some(limits)) => limits.masked_input,
            (Kind::Consistency, Some(limits)) => limits.consistency,
            (Kind::Unmask, Some(limits)) => limits.unmask,
            (Kind::PlainInput, None) => update,
            _ => 0,
        }
    }

    /// The session of secure aggregation of a round, in plans that have one.
    pub(crate) fn session(&self, round: u32, model: &Digest) -> Option<SessionConfig> {
        let Settings { plan, authority, .. } = &self.settings;
        (self.terms.mode == Mode::Secagg).then(|| {
            self.terms.session(plan, authority, round, model).expect(
                "the session parameters were checked when the coordinator was made, and no round changes them",
            )
        })
    }

    /// The session in which clients judge a new model, in plans that ask them.
    pub(crate) fn evaluation_session(&self, candidate: &Candidate) -> SessionConfig {
        let Settings { plan, authority, .. } = &self.settings;
        self.terms.evaluation_session(plan, authority, candidate).expect(
            "the session parameters were checked when the coordinator was made, and no candidate changes them",
        )
    }

    /// What is said of a new model of that round.
    pub(crate) fn candidate(&self, round: u32, model: Digest) -> Candidate {
        let last = self.log.size().checked_sub(1).and_then(|last| self.log.leaf(last).ok());
        let parent = last.map_or(Digest([0; 32]), Digest::of);
        Candidate { task: self.settings.plan.digest(), round, parent, model }
    }

    /// How often a client may take part, where the guarantee counts on that.
    fn participation(&self) -> Option<Participation> {
        match self.terms.guarantee.placement {
            Placement::Correlated { participation, .. } => Some(participation),
            _ => None,
        }
    }

    /// Whether a participation costs this client anything: with correlated noise, the first one has paid for all.
    pub(crate) fn pays(&self, client: &Client) -> bool {
        self.participation().is_none() || self.ledger.participations(&client.0) == 0
    }

    /// Whether the guarantee lets the client take part in this round.
    fn may_take_part(&self, client: &Client, round: u32) -> bool {
        match (self.participation(), self.participated.get(client)) {
            (Some(Participation { min_separation, max_participations }), Some(&(last, count))) => {
                round - last >= min_separation && count < max_participations
            }
            _ => true,
        }
    }

    pub(crate) fn server_step(&self) -> Arc<dyn ServerStep> {
        self.server_step.clone()
    }

    /// Digest of what the optimiser keeps for the next round.
    pub fn momentum(&self) -> Option<Digest> {
        self.momentum
    }

    /// The L2 bound on updates in the round in progress, or the next: the plan's, where it is not adaptive.
    pub fn clip(&self) -> ClipNorm {
        self.clip
    }

    pub(crate) fn phase_deadline(&self, now: Millis) -> Millis {
        now.plus_seconds(self.settings.plan.plan().phase_seconds)
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

    fn round_of_input(&self, client: &Client) -> Result<&Round, Reject> {
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

    fn end_of_task(&self, now: Millis, overdrawn: &BTreeMap<Client, Overdrawn>) -> Option<String> {
        let rounds = self.settings.plan.plan().rounds;
        if self.last_round >= rounds {
            return Some(format!("all {rounds} rounds are done"));
        }
        if let (Some(gate), Some(last)) = (&self.settings.plan.plan().server.gate, self.rejected.last())
            && self.rejected.len() >= gate.max_rejections as usize
        {
            let count = self.rejected.len();
            return Some(format!("the gate rejected {count} models in a row; of the last, {}", last.reason));
        }
        let affordable = self.terms.affordable_rounds;
        let minimum = self.settings.plan.plan().cohort.minimum as usize;
        // Counting is for when there may be enough: it is asked after every message.
        let enough_are_there =
            self.joined.len() >= self.wanted(now) && self.drawable().count() >= self.wanted(now);
        let paying = || self.drawable().filter(|client| self.can_pay(client)).count();
        // Enough clients are there, and too few of them can pay.
        if self.last_round >= affordable && enough_are_there && paying() < minimum {
            return Some(format!(
                "one more round would pass the privacy budget epsilon {} (spent {:.2} in {affordable} rounds)",
                self.settings.plan.plan().privacy.epsilon,
                self.epsilon_spent()
            ));
        }
        // The same, for what they have spent elsewhere. What is under way elsewhere may come to nothing.
        let can_never_pay = |client: &&Client| {
            !self.can_pay(client) || overdrawn.get(client).is_some_and(|found| found.for_good)
        };
        let least = overdrawn.iter().min_by(|(_, one), (_, other)| one.asked.total_cmp(&other.asked));
        let counted = || (self.drawable().count(), self.drawable().filter(can_never_pay).count());
        match least.map(|least| (least, counted())) {
            Some(((client, found), (there, spent))) if enough_are_there && there - spent < minimum => {
                Some(format!(
                    "{spent} of {there} clients cannot pay for one more round, and cohort.minimum is {minimum}; \
                     for client {client}, {found}"
                ))
            }
            _ => None,
        }
    }

    /// Clients without which no round begins at this time.
    fn wanted(&self, now: Millis) -> usize {
        let cohort = &self.settings.plan.plan().cohort;
        let waited = now >= self.idle_since.plus_seconds(JOIN_WINDOW_SECONDS);
        let everyone = cohort.population.unwrap_or(cohort.clients);
        let held = self.suspicion.quarantined().len() as u32;
        (if waited { cohort.minimum } else { everyone.saturating_sub(held).max(cohort.minimum) }) as usize
    }

    fn can_pay(&self, client: &Client) -> bool {
        self.ledger.check(&client.0).is_ok()
    }

    fn open_round(&self, now: Millis, seed: [u8; 32], overdrawn: &BTreeMap<Client, Overdrawn>) -> Vec<Event> {
        let wanted = self.wanted(now);
        if self.joined.len() < wanted {
            return Vec::new();
        }
        let mut ready: Vec<Client> = self.drawable().filter(|client| self.can_pay(client)).copied().collect();
        ready.retain(|client| !overdrawn.contains_key(client));
        if ready.len() < wanted {
            return Vec::new();
        }
        let mut rng = chacha20::ChaCha20Rng::from_seed(seed);
        let round = self.last_round + 1;
        let deadline = self.phase_deadline(now);
        if let Some(rate) = self.sampling_rate() {
            let cohort = ready.iter().filter(|_| coin(&mut rng, rate)).copied().collect();
            // Everyone who could have been drawn pays, and at once: what happens in the round tells who was.
            return vec![
                Event::RoundOpened { round, cohort, deadline },
                Event::PrivacyCharged { group: 0, clients: ready },
            ];
        }
        // There may be none: noise that is correlated goes on whoever is there.
        let free = ready.into_iter().filter(|client| self.may_take_part(client, round)).collect();
        let cohort = drawn(free, self.settings.plan.plan().cohort.clients as usize, &mut rng);
        vec![Event::RoundOpened { round, cohort, deadline }]
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

/// The ledger of a run, from its plan and its events. Of a round that is not over, everyone of the cohort who is not
/// charged counts as reserved.
pub fn ledger_of(plan: &TaskPlan, events: &[Event]) -> Result<Ledger, PlanError> {
    let mut ledger = new_ledger(plan, &plan.check()?)?;
    for event in events {
        note(&mut ledger, event);
    }
    Ok(ledger)
}

fn new_ledger(plan: &TaskPlan, terms: &Terms) -> Result<Ledger, PlanError> {
    Ok(Ledger::new(terms.guarantee.clone(), plan.budget()?))
}

/// What an event by itself says to the ledger.
fn note(ledger: &mut Ledger, event: &Event) {
    match event {
        Event::RoundOpened { cohort, .. } => cohort.iter().for_each(|client| ledger.reserve(client.0)),
        Event::PrivacyCharged { clients, .. } => clients.iter().for_each(|client| ledger.charge(client.0)),
        Event::Published { .. } | Event::RoundAborted { .. } | Event::TaskClosed { .. } => {
            ledger.release_all();
        }
        _ => {}
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

/// A uniformly random set of at most `places` clients, sorted.
fn drawn(mut ready: Vec<Client>, places: usize, rng: &mut impl Rng) -> Vec<Client> {
    let places = ready.len().min(places);
    for place in 0..places {
        let rest = (ready.len() - place) as u64;
        ready.swap(place, place + uniform(rng, rest) as usize);
    }
    ready.truncate(places);
    ready.sort_unstable();
    ready
}

/// True with this probability, or less by at most 2^-53.
fn coin(rng: &mut impl Rng, rate: SamplingRate) -> bool {
    // A rate has 53 significant bits, so that its product with 2^64 is a whole number, or rounded down to one.
    let most = (rate.get() * 2f64.powi(64)) as u128;
    u128::from(rng.next_u64()) < most
}

/// A number in `0..bound` without bias, by rejection; `bound` is not 0.
fn uniform(rng: &mut impl Rng, bound: u64) -> u64 {
    let zone = u64::MAX - u64::MAX % bound;
    loop {
        let draw = rng.next_u64();
        if draw < zone {
            return draw % bound;
        }
    }
}

/// Someone's text, fit for a log: printable ASCII, of limited length.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(MAX_REASON)
        .map(|&byte| if (32..127).contains(&byte) { byte as char } else { '?' })
        .collect()
}
