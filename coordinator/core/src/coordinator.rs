//! The task: who is there, which round runs, what is spent, what is published.
//!
//! The state is here, with what may be asked of it. What happens to it is in the parts, one for each step of the
//! contract: `decide` judges commands, `draw` opens rounds and ends the task, `apply` takes note of events. `inputs`
//! says what a round makes of clients' inputs, and `ledger` what events cost. Only `apply` changes what lasts.

mod apply;
mod decide;
mod draw;
mod inputs;
mod ledger;

pub use ledger::ledger_of;

use crate::effect::Effect;
use crate::event::{Client, Event, Millis};
use crate::gate::HoldOut;
use crate::quarantine::{MAX_REASON, Quarantine, Suspicion};
use crate::round::Round;
use ed25519_dalek::VerifyingKey;
use fedveil_aggregation::optimizer::ServerStep;
use fedveil_aggregation::robust::MAX_INFLUENCE_WORK;
use fedveil_privacy::{ClipNorm, Ledger, Overdrawn};
use fedveil_proto_plan::{Gate, Mode, PlanError, SignedPlan, Terms};
use fedveil_provenance::{Candidate, Digest, Log, RejectedRound};
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
    influence: bool,
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
        let ledger = ledger::new_ledger(settings.plan.plan(), &terms)?;
        let clip = terms.guarantee.grid.clip();
        let suspicion = Suspicion::new(&settings.quarantine, settings.plan.plan(), &terms)?;
        let server_step = Arc::new(terms.optimizer);
        Ok(Self {
            plan: settings.plan.bytes().into(),
            settings,
            terms,
            server_step,
            influence: true,
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

    /// Decisions about single clients are explained without influence, for which the rule runs once more for each of them:
    /// for research with many rounds. Rounds with groups keep theirs, so that whoever replays them finds the same.
    #[must_use]
    pub fn without_influence(self) -> Self {
        Self { influence: false, ..self }
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

    /// What is said of a new model of that round.
    pub(crate) fn candidate(&self, round: u32, model: Digest) -> Candidate {
        let parent = self.newest_leaf().unwrap_or(Digest([0; 32]));
        Candidate { task: self.settings.plan.digest(), round, parent, model }
    }

    /// The most work that the influence of each row may take.
    pub(crate) fn influence_work(&self) -> u64 {
        if self.influence || self.terms.mode.has_groups() { MAX_INFLUENCE_WORK } else { 0 }
    }

    /// Digest of the log's last leaf.
    pub(crate) fn newest_leaf(&self) -> Option<Digest> {
        self.log.size().checked_sub(1).and_then(|last| self.log.leaf(last).ok()).map(Digest::of)
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
}

/// Someone's text, fit for a log: printable ASCII, of limited length.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(MAX_REASON)
        .map(|&byte| if (32..127).contains(&byte) { byte as char } else { '?' })
        .collect()
}
