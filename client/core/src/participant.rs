//! One client in one task, from the plan to the last model.
//!
//! The state is here, with what drives it. `interface` is what goes in and comes out, `limits` how long messages may be,
//! `task` what the client makes of plans and models, `session` of rounds, and `contribution` the only path from an update
//! to a sum.

pub(crate) mod contribution;
mod interface;
mod limits;
mod session;
mod task;

pub use interface::{Credentials, Effect, Input, Refusal};
pub use limits::MessageLimits;

use crate::memo::Memo;
use crate::policy::Policy;
use crate::record::{Record, TaskRecord};
use bytes::Bytes;
use contribution::Samplers;
use fedveil_aggregation::secagg::client::{
    AwaitDelivery, AwaitInput, AwaitReveals, AwaitRoster, AwaitSignatures, AwaitSurvivors,
};
use fedveil_privacy::{ClipNorm, Placement, Sampling};
use fedveil_proto::Kind;
use fedveil_proto_plan::{SignedPlan, Terms};
use fedveil_provenance::{Accepted, Candidate, Digest, Lineage};
use rand_core::CryptoRng;
use std::sync::Arc;

/// The participant's state.
pub struct Participant {
    credentials: Credentials,
    pub(crate) policy: Policy,
    record: Arc<Record>,
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
    noise: Arc<Samplers>,
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

impl Participant {
    /// A participant that has not yet heard of a task.
    pub fn new(credentials: Credentials, policy: Policy, record: Record) -> Self {
        Self {
            credentials,
            policy,
            record: record.into(),
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
        if self.record.tasks.values().any(|task| task.contributions.len() > newest) {
            Arc::make_mut(&mut self.record).forget_contributions(newest);
        }
    }

    /// The client's own ledger: what was last to be made durable.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The plan that the client accepted.
    pub fn plan(&self) -> Option<&SignedPlan> {
        self.task.as_ref().map(|task| task.plan.as_ref())
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
        Arc::make_mut(&mut self.record).tasks.get_mut(&task.plan.digest()).expect(ENTERED)
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

fn unexpected(kind: Kind, state: &'static str) -> Refusal {
    Refusal::Unexpected { kind, state }
}
