//! What a simulation is made of.

use super::Keep;
use bytes::Bytes;
use fedveil_aggregation::optimizer::ServerStep;
use fedveil_client_core::Policy;
use fedveil_coordinator_core::{HoldOut, Millis, Quarantine, StoreError};
use fedveil_learning::{LearningError, ModelSpec, model_file};
use fedveil_proto::Kind;
use fedveil_proto_plan::{Cohort, Model, PlanError, TaskPlan};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// What a federation consists of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The task.
    pub plan: TaskPlan,
    /// Clients there are, numbered from 0.
    pub clients: usize,
    /// What every client's owner allows.
    pub policy: Policy,
    /// Source of all keys, masks, noise and choices, and of the initial model.
    pub seed: u64,
    /// Threads that compute for clients, and jobs of the coordinator. What happens does not depend on it.
    pub threads: NonZeroUsize,
    /// Who connects when.
    pub attendance: Attendance,
    /// What is kept of the past.
    pub keep: Keep,
    /// What the coordinator judges models on, where the plan's gate needs examples.
    pub hold_out: Option<Arc<dyn HoldOut>>,
    /// What the coordinator makes of clients that it suspects.
    pub quarantine: Quarantine,
    /// The global state that the task starts from, a safetensors file of `model.parameters` values: of an algorithm that
    /// keeps more than the model's parameters, or of a task before. Without it, what the architecture starts from.
    pub initial: Option<Bytes>,
    /// The step of the server, where the plan's optimiser is not all of it.
    pub server_step: Option<Arc<dyn ServerStep>>,
    /// Whether decisions about single clients come with their influence, for which the rule runs once for each client and
    /// round. Decisions about groups always do.
    pub influence: bool,
}

/// Who connects when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attendance {
    /// Everyone connects at the start and stays: for populations of some thousands at most.
    #[default]
    Connected,
    /// Before each round, so many of those who are [available](Scenario::available), drawn at random. Where they are too
    /// few for a round, more of them a minute later. All sessions end with the round.
    CheckIn {
        /// Clients that connect; a round opens at once if they are as many as the plan's cohort.
        clients: usize,
    },
    /// Asynchronous, with a buffer of the plan's cohort (FedBuff; Nguyen et al. 2022, arXiv:2106.06639): at any time so many
    /// clients train, each from the model that was the newest when it started, for its
    /// [training time](Scenario::training_time). When as many have finished as are in a cohort, these check in, and contribute
    /// what they made of [their models](Work::staleness); after the round, others who are available start in their places.
    /// For plans whose `cohort.minimum` is `cohort.clients`.
    ///
    /// What has checked in when a round is aborted is lost. Who has passed its privacy budget does not start.
    Buffered {
        /// Clients that train at a time, or have finished and wait.
        concurrency: usize,
        /// A client whose model has more newer ones than this is given up, and its place is another's.
        max_staleness: u32,
    },
}

impl Setup {
    /// Everyone connected, one thread, and everything kept.
    pub fn new(plan: TaskPlan, clients: usize, policy: Policy, seed: u64) -> Self {
        Self {
            plan,
            clients,
            policy,
            seed,
            threads: NonZeroUsize::MIN,
            attendance: Attendance::default(),
            keep: Keep::default(),
            hold_out: None,
            quarantine: Quarantine::off(),
            initial: None,
            server_step: None,
            influence: true,
        }
    }

    pub(super) fn initial_model(&self) -> Result<Vec<u8>, SetupError> {
        if let Some(initial) = &self.initial {
            return Ok(initial.to_vec());
        }
        let Model { architecture, parameters } = &self.plan.model;
        let spec: ModelSpec = architecture.parse()?;
        if spec.parameters() != *parameters as usize {
            let (architecture, expected) = (architecture.clone(), spec.parameters());
            return Err(SetupError::Parameters { architecture, found: *parameters, expected });
        }
        Ok(model_file::to_safetensors(&spec, &spec.initial(self.seed))?)
    }

    pub(super) fn check(&self) -> Result<(), SetupError> {
        if u32::try_from(self.clients).is_err() {
            return Err(SetupError::Clients { found: self.clients });
        }
        let minimum = self.plan.cohort.minimum as usize;
        if let (Keep::Folder { .. }, Attendance::Connected) = (&self.keep, self.attendance) {
            return Err(SetupError::NoBoundary);
        }
        let Cohort { clients: buffer, population, .. } = self.plan.cohort;
        match self.attendance {
            Attendance::CheckIn { clients } if clients < minimum || clients > self.clients => {
                Err(SetupError::CheckIn { found: clients, minimum, clients: self.clients })
            }
            Attendance::Buffered { .. } if population.is_some() => Err(SetupError::BufferedSampling),
            Attendance::Buffered { .. } if minimum != buffer as usize => {
                Err(SetupError::Buffer { minimum, buffer })
            }
            Attendance::Buffered { concurrency, .. }
                if !(buffer as usize..=self.clients).contains(&concurrency) =>
            {
                Err(SetupError::Concurrency { found: concurrency, buffer, clients: self.clients })
            }
            _ => Ok(()),
        }
    }
}

/// Everything that is not the protocol: data, faults, attacks, the network.
///
/// What it answers should follow from its own seed and the arguments alone ([`stream`](super::stream) draws by name): then
/// one setup has one history, on any number of threads, with devices that come and go, and over a resumption.
pub trait Scenario: Sync {
    /// What a client's training gives, on any thread. An error makes the client decline the round.
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String>;

    /// How much better a new model does on the client's own examples than the global one: the difference of their
    /// accuracies. An error makes the client decline.
    fn judge(&self, _work: &Work<'_>, _new: &[u8]) -> Result<f64, String> {
        Err("this client judges no models".to_owned())
    }

    /// Whether what the client contributes follows from what others do. It is computed at the virtual time at which its
    /// training ends, when all is there that others have computed by then, and never ahead of it.
    fn looks_at_others(&self, _client: usize) -> bool {
        false
    }

    /// How long the client trains in this round, in milliseconds of virtual time; with [`Attendance::Buffered`], if it starts
    /// before this round.
    fn training_time(&self, _client: usize, _round: u32) -> u64 {
        0
    }

    /// How much longer than its [training time](Self::training_time) the client has trained in this round, in milliseconds
    /// of virtual time, where computing it has told: of clients that are simulations themselves. It is asked once, when
    /// [`contribute`](Self::contribute) has answered.
    fn took(&self, _client: usize, _round: u32) -> u64 {
        0
    }

    /// Whether the client may connect at this time, for [`Attendance::CheckIn`], or start, for [`Attendance::Buffered`].
    fn available(&self, _client: usize, _now: Millis) -> bool {
        true
    }

    /// All sessions have ended with a round, unless everyone [stays](Attendance::Connected): what was under way is lost.
    fn sessions_over(&mut self) {}

    /// When the coordinator crashes next after this time. It starts again at once, from what is kept.
    fn next_crash(&self, _after: Millis) -> Option<Millis> {
        None
    }

    /// Whether the client loses its session in place of sending this message; with [`Attendance::Connected`] it connects
    /// again at once. `round` is the last one that the client entered, 0 before the first.
    fn vanishes(&mut self, _client: usize, _round: u32, _before: Kind) -> bool {
        false
    }

    /// Does a piece of the engine's work, on any thread: for measurements, which put a clock around it.
    fn measured<T>(&self, _part: Part, work: impl FnOnce() -> T) -> T
    where
        Self: Sized,
    {
        work()
    }

    /// What becomes of a message that was sent at `now`: the messages that arrive, and when. None: it is lost. An
    /// arrival in the past is an arrival at `now`.
    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        vec![(now, message)]
    }
}

/// A piece of the engine's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A client takes a message of this kind.
    Client(Kind),
    /// A client trains.
    Training,
    /// A client makes an input of what training gave.
    Contribution,
    /// An input is decoded.
    Decoding,
    /// The coordinator takes a message of this kind, an input that was decoded, or anything else, and does what follows.
    Coordinator(Option<Kind>),
    /// A job of the coordinator's: `unmask`, `sum` or `close`.
    Job(&'static str),
}

/// What a client trains on.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Number of the client.
    pub client: usize,
    /// The round.
    pub round: u32,
    /// The global model, a safetensors file: the newest, or with [`Attendance::Buffered`] that from which the client started.
    pub model: &'a [u8],
    /// τ: how many models there are that are newer than this one.
    pub staleness: u32,
    /// The task.
    pub plan: &'a TaskPlan,
    /// What the client kept when it trained last.
    pub memory: Option<&'a [u8]>,
}

/// What training gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// What the client gives to the round.
    pub contribution: Contribution,
    /// What it keeps for its next training, in place of what it has: layers of its own, control variates.
    pub memory: Option<Bytes>,
}

impl From<Contribution> for Trained {
    fn from(contribution: Contribution) -> Self {
        Self { contribution, memory: None }
    }
}

/// What a client gives to a round.
#[derive(Debug, Clone, PartialEq)]
pub enum Contribution {
    /// New parameters minus old, in file order. It is clipped, rotated, rounded and noised.
    Update(Vec<f32>),
    /// Grid values of the rotated update that enter the sum as they are, unclipped and without noise, as a poisoned
    /// client would send them.
    DangerUnbounded(Vec<i64>),
}

/// A message between a client and the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Number of the client, whichever end it is.
    pub client: usize,
    /// Who receives it.
    pub direction: Direction,
    /// Kind of message.
    pub kind: Kind,
    /// Its bytes, shared by all copies.
    pub bytes: Bytes,
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client to the coordinator.
    Up,
    /// From the coordinator to a client.
    Down,
}

/// Why there can be no such federation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The plan does not hold.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan's architecture is no model.
    #[error("model.architecture: {0}")]
    Architecture(#[from] LearningError),
    /// The plan's vectors have another length than its model.
    #[error("model.parameters is {found}, {architecture} has {expected}")]
    Parameters {
        /// The plan's architecture.
        architecture: String,
        /// The plan's number.
        found: u32,
        /// What the architecture has.
        expected: usize,
    },
    /// More clients than can be numbered.
    #[error("{found} clients, accepted are up to 4294967295")]
    Clients {
        /// Clients asked for.
        found: usize,
    },
    /// Not that many clients can check in.
    #[error(
        "{found} clients check in for a round; accepted are {minimum} (cohort.minimum of the plan) to {clients} (all there are)"
    )]
    CheckIn {
        /// Clients that were to check in.
        found: usize,
        /// Clients that a round takes.
        minimum: usize,
        /// All clients.
        clients: usize,
    },
    /// A buffer that may be filled in part.
    #[error(
        "cohort.minimum is {minimum}; with buffered attendance the cohort is the buffer, and {buffer} (cohort.clients) is \
         accepted"
    )]
    Buffer {
        /// The plan's minimum.
        minimum: usize,
        /// The plan's cohort.
        buffer: u32,
    },
    /// Not that many clients can train at a time.
    #[error(
        "{found} clients train at a time; accepted are {buffer} (cohort.clients of the plan) to {clients} (all there are)"
    )]
    Concurrency {
        /// Clients that were to train.
        found: usize,
        /// Clients that a round takes.
        buffer: u32,
        /// All clients.
        clients: usize,
    },
    /// Coins that nobody tosses.
    #[error(
        "cohort.population amplifies privacy by coins, and with buffered attendance a cohort is whoever has finished; leave \
         it out"
    )]
    BufferedSampling,
    /// A run that is kept in a folder goes on from a boundary between rounds.
    #[error("a run is kept in a folder only where clients check in for each round")]
    NoBoundary,
    /// A coordinator that crashes starts again from its events.
    #[error("the coordinator is to crash, and no event is kept from which it could start again")]
    NoEvents,
    /// What happens cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}
