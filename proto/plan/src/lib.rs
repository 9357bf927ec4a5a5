//! The task plan: what a coordinator asks of its clients, signed once and checked by every client.
//!
//! A plan travels as a DSSE envelope around JSON; the bytes that were signed are the bytes that are parsed, and
//! [`SignedPlan`] keeps them together. [`TaskPlan::check`] turns a plan into its [`Terms`]: group sizes, the privacy
//! guarantee, the ring width, what a malicious coordinator would need. Coordinator and client call the same function on
//! the same bytes, so a client never takes the coordinator's word for what a round costs.
//!
//! This crate stands above the leaves because a plan draws its consequences from `aggregation`, `privacy` and
//! `provenance` at once, and both cores need them. It knows nothing of rounds in progress, peers or time.

mod gate;
mod plain;

use ed25519_dalek::{SigningKey, VerifyingKey};
use fedveil_aggregation::optimizer::{Adaptive, ServerOptimizer};
use fedveil_aggregation::robust::grouping::{chance_of_more, most_attackers};
use fedveil_aggregation::robust::{Kind, RULES, Rule, RuleSpec, SEED};
use fedveil_aggregation::secagg::parameters::{Population, ServerModel};
use fedveil_aggregation::secagg::{Prg, ProtocolKind, SessionConfig, SessionParameters};
use fedveil_privacy::{
    self as privacy, AdaptiveClip, ClipNorm, Delta, Epsilon, ExampleGuarantee, ExampleLevel, Guarantee,
    Mechanism, NoiseKind, NoiseMultiplier, ParamError, Placement, SamplingRate,
};
use fedveil_provenance::{Candidate, Digest, Envelope, NO_NOISE, PrivacyClaim, null_is_infinite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

pub use gate::{FederatedEvaluation, Gate, MAX_REJECTIONS, Measured};

/// DSSE payload type of a task plan.
pub const PAYLOAD_TYPE: &str = "application/vnd.fedveil.task-plan.v1+json";
/// The plan format that this code reads and writes.
pub const VERSION: u32 = 3;
/// Most bytes of a signed plan that a client reads.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most parameters of a model, all tensors together.
pub const MAX_PARAMETERS: u32 = 1 << 22;
/// Most updates among which a rule chooses one by one, in mode `insecure_plain`: a manifest says what became of each.
pub const MAX_ROWS: u32 = 2_000;
/// Most steps of example-level training in one round.
const MAX_STEPS: f64 = 1e6;
/// Most pre-aggregators before a rule.
pub const MAX_PRE: usize = 4;
/// Most clients in one round.
pub const MAX_CLIENTS: u32 = 20_000;
/// The probability, for one round, with which [`Terms::borne_mostly`] attackers may poison too many groups.
pub const ACCEPTED_CHANCE: f64 = 1e-3;

/// A task, as its coordinator announces it. Every field is binding: it enters the transcript hash of every round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPlan {
    /// Plan format, [`VERSION`].
    pub version: u32,
    /// Name for people.
    pub task: String,
    /// Random identity of the task: two tasks never share a transcript.
    pub id: Digest,
    /// Aggregation mode: `secagg`, or `insecure_plain` or `insecure_ideal`, in which the coordinator sees every update by
    /// itself.
    pub mode: String,
    /// Rounds that the task runs at most.
    pub rounds: u32,
    /// Seconds that a client has for each phase of a round.
    pub phase_seconds: u32,
    /// The model.
    pub model: Model,
    /// Who takes part in a round.
    pub cohort: Cohort,
    /// Local training.
    pub training: Training,
    /// Differential privacy.
    pub privacy: Privacy,
    /// Secure aggregation; [`Aggregation::none`] in mode `insecure_plain`.
    pub aggregation: Aggregation,
    /// What the coordinator does with the group sums.
    pub server: Server,
}

/// The model's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Architecture, such as `softmax:64x10`.
    pub architecture: String,
    /// Number of parameters, the length of every update.
    pub parameters: u32,
}

/// Who takes part in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// Clients that a round plans for; divisions use this number.
    pub clients: u32,
    /// Clients without which a round does not start.
    pub minimum: u32,
    /// Colluding clients that the privacy claim assumes, in the whole population.
    pub assumed_malicious: u32,
    /// Clients out of which cohorts are drawn, each by a coin of its own that falls for it with probability
    /// `clients / population`. In central placement alone; without it, cohorts are drawn as large as they can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub population: Option<u32>,
}

/// Local training at the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Passes over the client's own data.
    pub epochs: u32,
    /// Examples per step; 0 takes all of them in one step.
    pub batch_size: u32,
    /// Step size of SGD.
    pub learning_rate: f64,
    /// Heavy-ball momentum of SGD, from 0, below 1; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// FedProx's μ: μ · (w − global model) is added to every gradient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proximal: Option<f64>,
    /// FedNova: an update is scaled as if this number of steps had led to it, whatever number did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_steps: Option<u32>,
    /// DP-SGD: privacy of each of a client's examples, beside that of the client as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example_privacy: Option<ExamplePrivacy>,
}

impl Training {
    /// Plain SGD.
    pub const fn sgd(epochs: u32, batch_size: u32, learning_rate: f64) -> Self {
        Self {
            epochs,
            batch_size,
            learning_rate,
            momentum: None,
            proximal: None,
            planned_steps: None,
            example_privacy: None,
        }
    }
}

/// Example-level differential privacy inside a client: clipped gradients and noise in every step of its training.
///
/// A client takes ⌈epochs / sampling_rate⌉ steps in a round. Each example is in each step with the sampling rate,
/// independently of all others, and the noised sum of a step is divided by `batch_size`, whoever was drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExamplePrivacy {
    /// L2 bound on the gradient of one example.
    pub clip_norm: f64,
    /// Standard deviation of the noise in the sum of a step, over the clip norm.
    pub noise_multiplier: f64,
    /// Probability with which an example takes part in a step.
    pub sampling_rate: f64,
    /// The ε that the whole task may spend on an example; a plan that would pass it is refused.
    pub epsilon: f64,
    /// The δ of that ε.
    pub delta: f64,
}

/// Differential privacy, user level, zero-out adjacency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// Who adds the noise: `distributed` (the clients, a share each), `local` (every client all of it), `central`
    /// (the coordinator, to the sum), or `insecure_none` (nobody: see [`Privacy::none`]).
    pub placement: String,
    /// The distribution of the noise: `discrete-gaussian`, `skellam`, or `none`.
    pub mechanism: String,
    /// L2 bound on a client's update, in model units. Infinite, in JSON `null`, where nothing is clipped; that takes a
    /// plan without noise.
    #[serde(deserialize_with = "null_is_infinite")]
    pub clip_norm: f64,
    /// Standard deviation of the noise that is counted in one group sum, over the clip norm.
    pub noise_multiplier: f64,
    /// Integer steps per clip norm.
    pub resolution: u32,
    /// The ε at which the task stops. Infinite, in JSON `null`, in plans without noise.
    #[serde(deserialize_with = "null_is_infinite")]
    pub epsilon: f64,
    /// The δ of that ε.
    pub delta: f64,
    /// How the clip norm follows the updates; without it, it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<AdaptiveClipping>,
    /// Noise that later rounds partly take back. In placement `central` alone; without it, rounds are independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlated_noise: Option<CorrelatedNoise>,
}

/// A clip norm that follows a quantile of the updates' norms, from `privacy.clip_norm` on. See
/// [`AdaptiveClip`](privacy::AdaptiveClip).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveClipping {
    /// The fraction of updates that should stay unclipped.
    pub quantile: f64,
    /// How far the logarithm of the clip norm moves for a fraction that is off by 1.
    pub learning_rate: f64,
    /// Standard deviation of the noise in one group's sum of indicators, over what one client adds to it.
    pub noise_multiplier: f64,
    /// The clip norm never falls below this.
    pub minimum: f64,
    /// The clip norm never rises above this.
    pub maximum: f64,
}

/// A matrix mechanism (DP-FTRL): noise that is correlated over the rounds of the task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrelatedNoise {
    /// `toeplitz`, the square root of the matrix of running sums, or `banded-toeplitz`, its first diagonals.
    pub matrix: String,
    /// Diagonals of a banded matrix, from 1 to `rounds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bands: Option<u32>,
    /// Least difference between the numbers of two rounds that a client takes part in.
    pub min_separation: u32,
    /// Most rounds that a client takes part in.
    pub max_participations: u32,
}

/// Secure aggregation inside random groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregation {
    /// What is masked: `pairwise-mask` or `rlwe-two-layer`.
    pub protocol: String,
    /// Smallest size of a group when groups are formed.
    pub group_size: u32,
    /// Neighbours k of each client in its group's graph of masks. A group of at most k + 1 is a complete graph.
    pub degree: u32,
    /// Shamir threshold t: neighbours that must help to recover a client's masks.
    pub threshold: u32,
    /// Clients whose input must be in a group's sum, or the group is withheld.
    pub min_survivors: u32,
    /// Nonces that may stay unrevealed without the round being refused.
    pub max_missing_reveals: u32,
    /// Mask generator: `aes-256-ctr` or `chacha20`.
    pub masks: String,
    /// Accepted probability that a malicious coordinator has enough colluders around any client, in all rounds
    /// together. 0 asks for a plan that the assumed colluders cannot break wherever chance puts them.
    pub break_probability: f64,
}

/// What the coordinator does with the group sums.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Byzantine-robust rule over group means, or over updates in mode `insecure_plain`.
    pub rule: String,
    /// Pre-aggregators before the rule, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre: Vec<String>,
    /// Options of the rule and of its pre-aggregators; `step.option` where several have the option.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, Setting>,
    /// Poisoned groups f that the rule is set to bear; poisoned clients in mode `insecure_plain`.
    pub assumed_byzantine: u32,
    /// Step size of the server optimiser.
    pub learning_rate: f64,
    /// Momentum of the server optimiser.
    pub momentum: f64,
    /// What a new model must pass before it is published; without it, every one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// A server optimiser with a step size of its own for each parameter; without it, all have the learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<AdaptiveOptimizer>,
}

/// FedAdagrad, FedAdam or FedYogi: see [`optimizer`](fedveil_aggregation::optimizer). Its step size is that of the section
/// around it, which has no momentum then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveOptimizer {
    /// `adagrad`, `adam` or `yogi`.
    pub name: String,
    /// Share of the mean of updates that stays from one round to the next, from 0, below 1.
    #[serde(default = "AdaptiveOptimizer::beta1")]
    pub beta1: f64,
    /// Share of the mean of squares that stays, from 0, below 1; `adagrad` forgets nothing, whatever it is.
    #[serde(default = "AdaptiveOptimizer::beta2")]
    pub beta2: f64,
    /// τ, above 0: what bounds the step sizes. A small one adapts more.
    #[serde(default = "AdaptiveOptimizer::tau")]
    pub tau: f64,
}

impl AdaptiveOptimizer {
    /// With the constants that the paper settles on.
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), beta1: Self::beta1(), beta2: Self::beta2(), tau: Self::tau() }
    }

    fn beta1() -> f64 {
        0.9
    }

    fn beta2() -> f64 {
        0.99
    }

    fn tau() -> f64 {
        1e-3
    }
}

impl Server {
    /// The names of the pre-aggregators and the rule in their order, as in `clip+nnm+trimmed-mean`.
    pub fn steps(&self) -> String {
        let names: Vec<&str> = self.pre.iter().chain([&self.rule]).map(String::as_str).collect();
        names.join("+")
    }

    fn optimizer(&self) -> Result<ServerOptimizer, PlanError> {
        let Self { learning_rate, momentum, .. } = *self;
        let Some(AdaptiveOptimizer { name, beta1, beta2, tau }) = &self.optimizer else {
            return Ok(ServerOptimizer::Sgd { learning_rate, momentum });
        };
        let rule = Adaptive::ALL.into_iter().find(|rule| rule.name() == name).ok_or_else(|| {
            field("server.optimizer.name", name, Adaptive::ALL.map(Adaptive::name).join(", "))
        })?;
        if momentum != 0.0 {
            return Err(field(
                "server.momentum",
                momentum,
                "0 with server.optimizer, whose momentum is beta1",
            ));
        }
        let optimizer =
            ServerOptimizer::Adaptive { rule, learning_rate, beta1: *beta1, beta2: *beta2, tau: *tau };
        optimizer.check().map_err(|error| {
            let name = match error.name {
                "beta1" => "server.optimizer.beta1",
                "beta2" => "server.optimizer.beta2",
                "tau" => "server.optimizer.tau",
                _ => "server.learning_rate",
            };
            field(name, error.found, error.accepted)
        })?;
        Ok(optimizer)
    }
}

/// The value of a rule's option.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// A number.
    Number(f64),
    /// One of the option's words.
    Word(String),
}

impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(out),
            Self::Word(word) => word.fmt(out),
        }
    }
}

/// Why a plan is not acceptable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The envelope or its signature is wrong.
    #[error("task plan signature: {0}")]
    Signature(String),
    /// The payload is not a plan.
    #[error("task plan: {0}")]
    Malformed(String),
    /// One field has a value that no plan may have.
    #[error("task plan: {field} is {found}, accepted is {accepted}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// Value found.
        found: String,
        /// What is accepted.
        accepted: String,
    },
    /// Fields do not fit one another.
    #[error("task plan: {0}")]
    Inconsistent(String),
}

/// Who sees what of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The coordinator sees sums of groups.
    Secagg,
    /// The coordinator sees every update by itself.
    InsecurePlain,
    /// Like `secagg` in all but the cryptography: the coordinator sees every update by itself, and sums groups of them in
    /// the clear. For simulations.
    InsecureIdeal,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Secagg, Self::InsecurePlain, Self::InsecureIdeal];

    /// The name in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secagg => "secagg",
            Self::InsecurePlain => "insecure_plain",
            Self::InsecureIdeal => "insecure_ideal",
        }
    }

    /// Whether sums are taken of groups, with or without masks.
    pub fn has_groups(self) -> bool {
        self != Self::InsecurePlain
    }
}

/// What a plan means, computed from its fields alone.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who sees what.
    pub mode: Mode,
    /// Privacy guarantee of one round and of the whole task.
    pub guarantee: Guarantee,
    /// Groups in a full cohort; none in mode `insecure_plain`.
    pub groups: u32,
    /// Groups that must yield a sum, or clients that must send an update, or the round is aborted. 0 where nothing may
    /// depend on who was drawn.
    pub minimum_rows: u32,
    /// Largest group that any admissible cohort produces; 1 in mode `insecure_plain`.
    pub largest_group: u32,
    /// Colluders among a client's neighbours that a malicious coordinator would need to see its update; none in mode
    /// `insecure_plain`.
    pub colluders_to_break: u32,
    /// Base-2 logarithm of a bound on the probability that, in any round of the task, it has them around any client or
    /// can cut a group's graph in two; −∞ where the assumed colluders are too few, 0 in mode `insecure_plain`.
    pub break_probability_log2: f64,
    /// Rounds that the ε budget pays for, at most `rounds`.
    pub affordable_rounds: u32,
    /// Privacy of single examples, where the plan asks for it.
    pub example: Option<ExampleTerms>,
    /// The robust rule with its pre-aggregators and options.
    pub rule: Rule,
    /// Poisoning clients that the rule bears wherever they are, in every cohort that the plan admits; none for the mean.
    pub borne: u32,
    /// Poisoning clients of a full cohort that in one round poison no more rows than the rule is set to bear, but for a
    /// probability of [`ACCEPTED_CHANCE`]: some share a group. At least `borne`.
    pub borne_mostly: u32,
    /// Bound on the probability that in one round of a full cohort `cohort.assumed_malicious` clients poison more rows
    /// than the rule is set to bear. As many as `borne` never do.
    pub too_many_poisoned: f64,
    /// The server optimiser.
    pub optimizer: ServerOptimizer,
    /// What masks, and with what; nothing in mode `insecure_plain`.
    masking: Option<(ProtocolKind, Prg)>,
}

/// What a mode makes of a plan's cohort.
struct Shape {
    placement: Placement,
    groups: u32,
    minimum_rows: u32,
    largest_group: u32,
    colluders_to_break: u32,
    break_probability_log2: f64,
    masking: Option<(ProtocolKind, Prg)>,
}

/// What a plan means for a single example of a client.
#[derive(Debug, Clone)]
pub struct ExampleTerms {
    /// Noise of one step, and what steps cost.
    pub guarantee: ExampleGuarantee,
    /// Steps that a client takes in one round.
    pub steps_per_round: u32,
    /// ε of an example, at the section's δ, after all affordable rounds.
    pub epsilon: f64,
}

impl TaskPlan {
    /// Checks every field and computes what follows from them.
    pub fn check(&self) -> Result<Terms, PlanError> {
        let mode = Mode::ALL
            .into_iter()
            .find(|mode| mode.name() == self.mode)
            .ok_or_else(|| field("mode", &self.mode, Mode::ALL.map(Mode::name).join(", ")))?;
        self.check_ranges()?;
        if self.privacy.adaptive_clip.is_some() && !mode.has_groups() {
            return Err(field("privacy.adaptive_clip", "a section", "nothing but in mode secagg"));
        }
        if self.evaluation().is_some() && mode != Mode::Secagg {
            return Err(field("server.gate.evaluation", "a section", "nothing but in mode secagg"));
        }
        let (rule, shape) = match mode {
            Mode::Secagg | Mode::InsecureIdeal => self.in_groups()?,
            Mode::InsecurePlain => self.in_the_clear()?,
        };
        let guarantee = match shape.placement {
            Placement::InsecureNone => self.without_noise()?,
            placement => self.mechanism(placement)?.guarantee().map_err(|e| self.no_guarantee(e))?,
        };
        let budget = self.budget()?;
        let affordable_rounds = guarantee.participations_within(budget).min(self.rounds);
        let example = self.example_terms(affordable_rounds)?;
        let optimizer = self.server.optimizer()?;
        let borne = if rule.is_mean() { 0 } else { self.server.assumed_byzantine };
        let (borne_mostly, too_many_poisoned) = self.poisoned_rows(mode, shape.groups, borne);
        Ok(Terms {
            mode,
            guarantee,
            groups: shape.groups,
            minimum_rows: shape.minimum_rows,
            largest_group: shape.largest_group,
            colluders_to_break: shape.colluders_to_break,
            break_probability_log2: shape.break_probability_log2,
            affordable_rounds,
            example,
            rule,
            borne,
            borne_mostly,
            too_many_poisoned,
            optimizer,
            masking: shape.masking,
        })
    }

    /// Mode `secagg`.
    fn in_groups(&self) -> Result<(Rule, Shape), PlanError> {
        self.check_aggregation()?;
        self.refuse_correlated_noise()?;
        if self.cohort.population.is_some() {
            return Err(PlanError::Inconsistent(
                "cohort.population amplifies privacy only where nobody is told who was drawn; in mode secagg the roster \
                 is known to all, so leave it out"
                    .to_owned(),
            ));
        }
        let rule = self.rule(RuleSpec::takes_group_means)?;
        let masks = match self.aggregation.masks.as_str() {
            "aes-256-ctr" => Prg::Aes256Ctr,
            "chacha20" => Prg::ChaCha20,
            other => return Err(field("aggregation.masks", other, "aes-256-ctr, chacha20")),
        };
        let protocol = self.aggregation.protocol.parse().map_err(|_| {
            let names = ProtocolKind::ALL.map(ProtocolKind::name);
            field("aggregation.protocol", &self.aggregation.protocol, names.join(", "))
        })?;
        let (groups, fewest_groups, largest_group) = self.group_shape()?;
        let minimum_rows = rule.minimum_rows(self.server.assumed_byzantine as usize) as u32;
        if fewest_groups < minimum_rows {
            return Err(PlanError::Inconsistent(format!(
                "server.rule {rule} bears {} poisoned groups only among {minimum_rows} or more, and \
                 cohort.minimum {} makes {fewest_groups} groups of aggregation.group_size {}",
                self.server.assumed_byzantine, self.cohort.minimum, self.aggregation.group_size
            )));
        }
        rule.check_counts(fewest_groups as usize, self.server.assumed_byzantine as usize)
            .map_err(|error| PlanError::Inconsistent(format!("server.assumed_byzantine: {error}")))?;
        if self.evaluation().is_some() && fewest_groups < self.minimum_answers() {
            return Err(PlanError::Inconsistent(format!(
                "server.gate.evaluation bears {} poisoned groups only among {} or more, and cohort.minimum {} makes \
                 {fewest_groups}",
                self.server.assumed_byzantine,
                self.minimum_answers(),
                self.cohort.minimum
            )));
        }
        let (colluders_to_break, break_probability_log2) = self.collusion(largest_group)?;
        let placement = match self.privacy.placement.as_str() {
            "distributed" => Placement::Distributed {
                // The smallest cohort bounds best how many colluders meet in a group. One that forms a single group can
                // be smaller than the largest single group; then every colluder is in it, in both.
                clients: (self.cohort.minimum - self.aggregation.max_missing_reveals).max(largest_group),
                malicious: self.cohort.assumed_malicious,
                groups,
                group_size: largest_group,
                min_survivors: self.aggregation.min_survivors,
            },
            "local" => Placement::Local { group_size: largest_group },
            NO_NOISE => {
                let accepted = "distributed, local (insecure_none wants mode insecure_plain: masks around a sum that \
                                has no noise would promise what nobody keeps)";
                return Err(field("privacy.placement", NO_NOISE, accepted));
            }
            "central" => {
                let accepted = "distributed, local (central wants mode insecure_plain: a coordinator that is not \
                                trusted with updates is not trusted with their noise)";
                return Err(field("privacy.placement", "central", accepted));
            }
            other => return Err(field("privacy.placement", other, "distributed, local")),
        };
        let shape = Shape {
            placement,
            groups,
            minimum_rows,
            largest_group,
            colluders_to_break,
            break_probability_log2,
            masking: Some((protocol, masks)),
        };
        Ok((rule, shape))
    }

    /// The most clients that with little chance poison more than `borne` rows, and a bound on the probability that the
    /// assumed malicious ones do.
    fn poisoned_rows(&self, mode: Mode, groups: u32, borne: u32) -> (u32, f64) {
        let malicious = self.cohort.assumed_malicious;
        match mode {
            Mode::Secagg | Mode::InsecureIdeal => {
                let [clients, groups, most] =
                    [self.cohort.clients, groups, borne].map(|count| count as usize);
                let attackers = most_attackers(clients, groups, most, ACCEPTED_CHANCE);
                (attackers as u32, chance_of_more(clients, groups, malicious as usize, most))
            }
            Mode::InsecurePlain => (borne, f64::from(u8::from(malicious > borne))),
        }
    }

    /// The robust rule, of those that `fits`, with options that a plan may set: seeds are drawn for each round, and vectors
    /// have no place in a plan.
    fn rule(&self, fits: fn(&RuleSpec) -> bool) -> Result<Rule, PlanError> {
        let Server { rule, pre, options, .. } = &self.server;
        let spec = RULES.iter().find(|spec| spec.about.name == rule && fits(spec)).ok_or_else(|| {
            let names: Vec<&str> =
                RULES.iter().filter(|spec| fits(spec)).map(|spec| spec.about.name).collect();
            field("server.rule", rule, names.join(", "))
        })?;
        let texts: Vec<(&str, String)> =
            options.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
        let settings: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (*key, text.as_str())).collect();
        let pre: Vec<&str> = pre.iter().map(String::as_str).collect();
        if pre.len() > MAX_PRE {
            return Err(field("server.pre", format!("{} names", pre.len()), format!("up to {MAX_PRE}")));
        }
        let made = Rule::new(rule, &pre, &settings)
            .map_err(|error| PlanError::Inconsistent(format!("server: {error}")))?;
        for &(key, text) in &settings {
            let name = key.rsplit('.').next().unwrap_or(key);
            if name == SEED {
                let accepted = "no value: it is drawn anew for each round";
                return Err(field("server.options", format!("{key} = {text}"), accepted));
            }
            let words: Option<&[&str]> = spec.about.options.iter().find_map(|option| match option.kind {
                Kind::Vector(words) if option.key == name => Some(words),
                Kind::Rows if option.key == name => Some(&[]),
                _ => None,
            });
            if let Some(words) = words.filter(|words| !words.contains(&text)) {
                let accepted =
                    if words.is_empty() { "no value in a plan".to_owned() } else { words.join(", ") };
                return Err(field("server.options", format!("{key} = {text}"), accepted));
            }
        }
        Ok(made)
    }

    fn check_ranges(&self) -> Result<(), PlanError> {
        let positive = |name, value: f64, high: f64| {
            if value > 0.0 && value <= high {
                Ok(())
            } else {
                Err(field(name, value, format!("more than 0, up to {high}")))
            }
        };
        at_least("version", self.version, VERSION, VERSION)?;
        if self.task.is_empty() || self.task.len() > 64 {
            return Err(field("task", &self.task, "a name of 1 to 64 bytes"));
        }
        at_least("rounds", self.rounds, 1, 100_000)?;
        at_least("phase_seconds", self.phase_seconds, 1, 86_400)?;
        at_least("model.parameters", self.model.parameters, 1, MAX_PARAMETERS)?;
        at_least("cohort.clients", self.cohort.clients, 2, MAX_CLIENTS)?;
        at_least("cohort.minimum", self.cohort.minimum, 2, self.cohort.clients)?;
        at_least("cohort.assumed_malicious", self.cohort.assumed_malicious, 0, self.cohort.minimum - 1)?;
        at_least("training.epochs", self.training.epochs, 1, 1_000)?;
        at_least("training.batch_size", self.training.batch_size, 0, 65_536)?;
        positive("training.learning_rate", self.training.learning_rate, 1e3)?;
        if let Some(momentum) = self.training.momentum
            && !(0.0..1.0).contains(&momentum)
        {
            return Err(field("training.momentum", momentum, "0 or more, below 1"));
        }
        if let Some(proximal) = self.training.proximal {
            positive("training.proximal", proximal, 1e3)?;
        }
        if let Some(steps) = self.training.planned_steps {
            at_least("training.planned_steps", steps, 1, 1_000_000)?;
        }
        at_least("server.assumed_byzantine", self.server.assumed_byzantine, 0, self.cohort.clients)?;
        positive("server.learning_rate", self.server.learning_rate, 1e3)?;
        if !(0.0..1.0).contains(&self.server.momentum) {
            return Err(field("server.momentum", self.server.momentum, "0 or more, below 1"));
        }
        self.server.gate.as_ref().map_or(Ok(()), Gate::check)
    }

    fn check_aggregation(&self) -> Result<(), PlanError> {
        at_least("aggregation.group_size", self.aggregation.group_size, 3, self.cohort.minimum)?;
        at_least("aggregation.degree", self.aggregation.degree, 2, MAX_CLIENTS)?;
        at_least(
            "aggregation.min_survivors",
            self.aggregation.min_survivors,
            3,
            self.aggregation.group_size,
        )?;
        // Among min_survivors of a complete graph, each has one neighbour fewer than that.
        let neighbours = self.aggregation.degree.min(self.aggregation.min_survivors - 1);
        at_least("aggregation.threshold", self.aggregation.threshold, 2, neighbours)?;
        if !(0.0..1.0).contains(&self.aggregation.break_probability) {
            return Err(field(
                "aggregation.break_probability",
                self.aggregation.break_probability,
                "0 or more, below 1",
            ));
        }
        at_least(
            "aggregation.max_missing_reveals",
            self.aggregation.max_missing_reveals,
            0,
            self.cohort.minimum / 10,
        )
    }

    fn example_terms(&self, rounds: u32) -> Result<Option<ExampleTerms>, PlanError> {
        let Some(section) = &self.training.example_privacy else { return Ok(None) };
        at_least("training.batch_size", self.training.batch_size, 1, 65_536)?;
        for (name, is_set) in [
            ("momentum", self.training.momentum.is_some()),
            ("proximal", self.training.proximal.is_some()),
            ("planned_steps", self.training.planned_steps.is_some()),
        ] {
            if is_set {
                return Err(PlanError::Inconsistent(format!(
                    "training.{name} is for training without training.example_privacy, whose steps are noised as they are"
                )));
            }
        }
        let out_of_range = |name| move |error: ParamError| field(name, error.found, error.accepted);
        let sampling_rate = SamplingRate::new(section.sampling_rate)
            .map_err(out_of_range("training.example_privacy.sampling_rate"))?;
        let steps_per_round = (f64::from(self.training.epochs) / sampling_rate.get()).ceil();
        if steps_per_round > MAX_STEPS {
            return Err(field(
                "training.example_privacy.sampling_rate",
                section.sampling_rate,
                format!(
                    "at least {}, which makes {MAX_STEPS} steps a round",
                    f64::from(self.training.epochs) / MAX_STEPS
                ),
            ));
        }
        let budget =
            Epsilon::new(section.epsilon).map_err(out_of_range("training.example_privacy.epsilon"))?;
        let noise = "training.example_privacy.noise_multiplier";
        let guarantee = ExampleLevel {
            clip: ClipNorm::new(section.clip_norm)
                .map_err(out_of_range("training.example_privacy.clip_norm"))?,
            dimension: self.model.parameters,
            noise_multiplier: NoiseMultiplier::new(section.noise_multiplier).map_err(out_of_range(noise))?,
            sampling_rate,
            delta: Delta::new(section.delta).map_err(out_of_range("training.example_privacy.delta"))?,
        }
        .guarantee()
        .map_err(|_| field(noise, section.noise_multiplier, "a number from 0.001 to 250"))?;
        let epsilon = guarantee.epsilon(steps_per_round as u64 * u64::from(rounds));
        if epsilon > budget.get() {
            return Err(PlanError::Inconsistent(format!(
                "training.example_privacy: {rounds} rounds of {steps_per_round} steps spend epsilon {epsilon:.4} on an \
                 example, and its epsilon accepts {budget}"
            )));
        }
        Ok(Some(ExampleTerms { guarantee, steps_per_round: steps_per_round as u32, epsilon }))
    }

    /// Groups of a full cohort, fewest groups of any admissible one, and the largest group of any.
    fn group_shape(&self) -> Result<(u32, u32, u32), PlanError> {
        let size = self.aggregation.group_size;
        let fewest_members =
            self.cohort.minimum - self.aggregation.max_missing_reveals.min(self.cohort.minimum);
        let fewest_groups = fewest_members / size;
        if fewest_groups == 0 {
            return Err(field("aggregation.group_size", size, format!("up to {fewest_members}")));
        }
        let largest =
            (fewest_members..=self.cohort.clients).map(|n| n.div_ceil(n / size)).max().unwrap_or(size);
        Ok((self.cohort.clients / size, fewest_groups, largest))
    }

    /// Groups whose answers about a model make a median that bears the poisoned ones.
    pub fn minimum_answers(&self) -> u32 {
        self.server.assumed_byzantine.saturating_mul(2).saturating_add(1)
    }

    /// Colluders among a client's neighbours that break it, and log2 of the probability that any client has as many.
    fn collusion(&self, largest_group: u32) -> Result<(u32, f64), PlanError> {
        let Aggregation { degree, threshold, break_probability, .. } = self.aggregation;
        if degree % 2 == 1 && degree + 1 < largest_group {
            let complete = largest_group - 1;
            return Err(field(
                "aggregation.degree",
                degree,
                format!("an even number, or {complete} and above"),
            ));
        }
        let neighbours = degree.min(largest_group - 1);
        if 2 * threshold <= neighbours {
            return Err(field("aggregation.threshold", threshold, format!("more than {}", neighbours / 2)));
        }
        // Two survivor sets that differ in the victim need `threshold` answers each, and an honest neighbour answers
        // once.
        let colluders_to_break = 2 * threshold - neighbours;
        let probability_log2 = self.break_probability_log2();
        if probability_log2.exp2() > break_probability {
            return Err(PlanError::Inconsistent(format!(
                "aggregation.threshold {threshold} among {neighbours} neighbours falls to {colluders_to_break} \
                 colluders; with cohort.assumed_malicious {} that happens with probability up to {:.2e}, and \
                 aggregation.break_probability accepts {break_probability:e}",
                self.cohort.assumed_malicious,
                probability_log2.exp2()
            )));
        }
        Ok((colluders_to_break, probability_log2))
    }

    /// The worst over all admissible cohorts. Of those with equally large groups the smallest is the worst: more
    /// clients thin the colluders out faster than they add groups.
    fn break_probability_log2(&self) -> f64 {
        let Aggregation { group_size, degree, threshold, max_missing_reveals, .. } = self.aggregation;
        let (mut worst, mut largest) = (f64::NEG_INFINITY, 0);
        for clients in self.cohort.minimum..=self.cohort.clients {
            let population = Population {
                clients: clients as usize,
                colluders: self.cohort.assumed_malicious as usize,
                dropouts: 0,
                group_size: group_size as usize,
                server: ServerModel::Malicious,
                // Groups are drawn anew to evaluate a model.
                rounds: u64::from(self.rounds) * (1 + u64::from(self.evaluation().is_some())),
                withheld_reveals: max_missing_reveals as usize,
            };
            if population.largest_group() > largest {
                largest = population.largest_group();
                let (degree, threshold) = (degree as usize, threshold as usize);
                // A group that is cut in two gives two sums, and neither has the noise of the whole.
                let probability = population.break_probability_log2(degree, threshold).exp2()
                    + population.split_probability_log2(degree, threshold).exp2();
                worst = worst.max(probability.log2());
            }
        }
        worst
    }

    /// What clients are asked about each new model, if they are.
    pub fn evaluation(&self) -> Option<&FederatedEvaluation> {
        self.server.gate.as_ref()?.evaluation.as_ref()
    }

    fn mechanism(&self, placement: Placement) -> Result<Mechanism, PlanError> {
        let privacy = &self.privacy;
        Ok(Mechanism {
            clip: ClipNorm::new(privacy.clip_norm)
                .map_err(|error| field("privacy.clip_norm", error.found, error.accepted))?,
            resolution: privacy.resolution,
            dimension: self.model.parameters,
            noise: privacy.mechanism.parse().map_err(|_| {
                let names = [NoiseKind::DiscreteGaussian, NoiseKind::Skellam].map(|kind| kind.to_string());
                field("privacy.mechanism", &privacy.mechanism, names.join(", "))
            })?,
            noise_multiplier: NoiseMultiplier::new(privacy.noise_multiplier)
                .map_err(|error| field("privacy.noise_multiplier", error.found, error.accepted))?,
            placement,
            adaptive_clip: privacy.adaptive_clip.as_ref().map(AdaptiveClipping::check).transpose()?,
            evaluation: self.evaluation().map(FederatedEvaluation::noise).transpose()?,
            rounds: self.rounds,
            delta: self.delta()?,
        })
    }

    /// The ε at which the task stops: a number, and in plans without noise infinite.
    pub fn budget(&self) -> Result<Epsilon, PlanError> {
        if self.privacy.placement == NO_NOISE && self.privacy.epsilon == f64::INFINITY {
            return Ok(Epsilon::INFINITE);
        }
        Epsilon::new(self.privacy.epsilon)
            .map_err(|error| field("privacy.epsilon", error.found, error.accepted))
    }

    /// δ is a probability with which everything about some client may come out: of n clients, with 1/n it may be one
    /// whole client each time. n is the population, or the cohort, of which a population has at least as many.
    fn delta(&self) -> Result<Delta, PlanError> {
        let delta = Delta::new(self.privacy.delta)
            .map_err(|error| field("privacy.delta", error.found, error.accepted))?;
        let (name, clients) = match self.cohort.population {
            Some(population) => ("cohort.population", population),
            None => ("cohort.clients", self.cohort.clients),
        };
        if delta.get() * f64::from(clients) > 1.0 {
            let accepted = format!("a number above 0, at most 1/{clients} (one in {name})");
            return Err(field("privacy.delta", delta, accepted));
        }
        Ok(delta)
    }

    /// Says in the fields of the plan why it gives no guarantee.
    fn no_guarantee(&self, error: privacy::PlanError) -> PlanError {
        match error {
            privacy::PlanError::Param(error) if error.name == "resolution" => {
                field("privacy.resolution", error.found, error.accepted)
            }
            privacy::PlanError::Param(error) if error.name == "clip norm" => {
                field("privacy.clip_norm", error.found, error.accepted)
            }
            privacy::PlanError::Param(error) => field(
                "privacy.noise_multiplier",
                self.privacy.noise_multiplier,
                format!(
                    "one that at privacy.resolution {} makes the {} {}, not {:e}",
                    self.privacy.resolution, error.name, error.accepted, error.found
                ),
            ),
            privacy::PlanError::Count { field: "min_survivors", found, accepted } => {
                field("aggregation.min_survivors", found, accepted)
            }
            other => PlanError::Inconsistent(format!("privacy: {other}")),
        }
    }

    /// The seed of the rotation in one round, for [`Rotation::new`](privacy::Rotation::new) on both sides. It depends on
    /// nothing that is not bound into the round's session: the task, the round, the model that is trained on. It is
    /// public, and no update can be chosen before the model is.
    pub fn rotation_seed(&self, round: u32, model: &Digest) -> [u8; 32] {
        let mut bound = b"fedveil/rotation/v1".to_vec();
        bound.extend_from_slice(&self.id.0);
        bound.extend_from_slice(&round.to_be_bytes());
        bound.extend_from_slice(&model.0);
        Digest::of(&bound).0
    }
}

impl AdaptiveClipping {
    fn check(&self) -> Result<AdaptiveClip, PlanError> {
        let wrong = |name, error: ParamError| field(name, error.found, error.accepted);
        let noise = NoiseMultiplier::new(self.noise_multiplier)
            .map_err(|error| wrong("privacy.adaptive_clip.noise_multiplier", error))?;
        let minimum =
            ClipNorm::new(self.minimum).map_err(|error| wrong("privacy.adaptive_clip.minimum", error))?;
        let maximum =
            ClipNorm::new(self.maximum).map_err(|error| wrong("privacy.adaptive_clip.maximum", error))?;
        AdaptiveClip::new(self.quantile, self.learning_rate, noise, minimum, maximum).map_err(|error| {
            let name = match error.name {
                "quantile" => "privacy.adaptive_clip.quantile",
                "maximum clip norm" => "privacy.adaptive_clip.maximum",
                _ => "privacy.adaptive_clip.learning_rate",
            };
            wrong(name, error)
        })
    }
}

impl Terms {
    /// What a manifest of the task says about privacy once this ε is spent. An adaptive clip norm is that of the
    /// first round here.
    pub fn privacy_claim(&self, plan: &TaskPlan, epsilon_spent: f64) -> PrivacyClaim {
        let claim = self.guarantee.claim;
        PrivacyClaim {
            epsilon_spent,
            epsilon_budget: plan.privacy.epsilon,
            delta: plan.privacy.delta,
            unit: claim.unit.to_string(),
            neighbours: claim.adjacency.to_string(),
            accountant: claim.accounting.to_string(),
            sampling: claim.sampling.to_string(),
            placement: self.guarantee.placement.to_string(),
            mechanism: self.guarantee.mechanism(),
            noise_multiplier: plan.privacy.noise_multiplier,
            clip_norm: plan.privacy.clip_norm,
            adaptive_clip: self.guarantee.indicator.is_some(),
        }
    }

    /// Whether the plan can have spent this ε by the end of that round: it is what some number of participations costs,
    /// one a round at most. Floating point may differ between machines; a millionth is forgiven.
    pub fn can_have_spent(&self, epsilon: f64, rounds: u32) -> bool {
        if !self.guarantee.has_noise() {
            return epsilon == 0.0 || epsilon == f64::INFINITY && rounds > 0;
        }
        let close = |participations| {
            let cost = self.guarantee.epsilon(participations);
            (epsilon - cost).abs() <= 1e-6 * cost
        };
        let most = Epsilon::new(epsilon * (1.0 + 1e-6))
            .map_or(0, |epsilon| self.guarantee.participations_within(epsilon));
        close(most.min(rounds))
    }

    /// What one client is charged for at most, in participations of the guarantee: one, where that pays for the task.
    pub fn most_charges(&self) -> u32 {
        match self.guarantee.placement {
            Placement::Correlated { .. } => self.affordable_rounds.min(1),
            _ => self.affordable_rounds,
        }
    }

    /// The secure-aggregation session of one round: bound to the plan's bytes, the round and the model. There is none in
    /// mode `insecure_plain`.
    pub fn session(
        &self,
        plan: &SignedPlan,
        authority: &VerifyingKey,
        round: u32,
        model: &Digest,
    ) -> Result<SessionConfig, PlanError> {
        let (protocol, prg) = self.masking.ok_or_else(no_session)?;
        let mut context = b"fedveil/round/v1".to_vec();
        context.extend_from_slice(&plan.digest().0);
        context.extend_from_slice(&round.to_be_bytes());
        context.extend_from_slice(&model.0);
        SessionConfig::new(SessionParameters {
            context: Digest::of(&context).0,
            ring_bits: self.guarantee.ring_bits,
            length: self.guarantee.input_length(),
            protocol,
            ..Self::seats(plan, authority, prg)
        })
        .map_err(|error| PlanError::Inconsistent(error.to_string()))
    }

    /// The session in which a round's new model is judged: bound to the model before and to the new one besides. An answer
    /// is one number, which is cheapest to mask itself.
    pub fn evaluation_session(
        &self,
        plan: &SignedPlan,
        authority: &VerifyingKey,
        candidate: &Candidate,
    ) -> Result<SessionConfig, PlanError> {
        let (_, prg) = self.masking.ok_or_else(no_session)?;
        let evaluation = self.guarantee.evaluation.as_ref().ok_or_else(no_session)?;
        let mut context = b"fedveil/evaluation/v1".to_vec();
        context.extend_from_slice(&plan.digest().0);
        context.extend_from_slice(&candidate.round.to_be_bytes());
        context.extend_from_slice(&candidate.parent.0);
        context.extend_from_slice(&candidate.model.0);
        SessionConfig::new(SessionParameters {
            context: Digest::of(&context).0,
            ring_bits: evaluation.ring_bits,
            length: 1,
            protocol: ProtocolKind::PairwiseMask,
            ..Self::seats(plan, authority, prg)
        })
        .map_err(|error| PlanError::Inconsistent(error.to_string()))
    }

    /// What all sessions of a task have in common.
    fn seats(plan: &SignedPlan, authority: &VerifyingKey, prg: Prg) -> SessionParameters {
        SessionParameters {
            context: [0; 32],
            authority: authority.to_bytes(),
            ring_bits: 8,
            length: 1,
            protocol: ProtocolKind::PairwiseMask,
            group_size: plan.plan().aggregation.group_size as usize,
            degree: plan.plan().aggregation.degree as usize,
            threshold: plan.plan().aggregation.threshold as usize,
            min_survivors: plan.plan().aggregation.min_survivors as usize,
            min_cohort: plan.plan().cohort.minimum as usize,
            max_cohort: plan.plan().cohort.clients as usize,
            max_missing_reveals: plan.plan().aggregation.max_missing_reveals as usize,
            prg,
        }
    }
}

/// A plan together with the signed bytes it came in.
#[derive(Debug, Clone)]
pub struct SignedPlan {
    bytes: Vec<u8>,
    digest: Digest,
    plan: TaskPlan,
}

impl SignedPlan {
    /// Signs a plan.
    pub fn sign(plan: TaskPlan, key: &SigningKey) -> Result<Self, PlanError> {
        let payload = serde_json::to_vec(&plan).map_err(|error| PlanError::Malformed(error.to_string()))?;
        let bytes = Envelope::sign(PAYLOAD_TYPE, payload, &[key]).to_json();
        Ok(Self { digest: Digest::of(&bytes), bytes, plan })
    }

    /// Reads a signed plan and refuses any signer but `signer`. The plan's terms are not checked here.
    pub fn verify(bytes: &[u8], signer: &VerifyingKey) -> Result<Self, PlanError> {
        if bytes.len() > MAX_BYTES {
            return Err(PlanError::Malformed(format!(
                "{} bytes, accepted are up to {MAX_BYTES}",
                bytes.len()
            )));
        }
        let envelope = Envelope::parse(bytes).map_err(|error| PlanError::Signature(error.to_string()))?;
        let payload = envelope
            .verify(PAYLOAD_TYPE, std::slice::from_ref(signer), 1)
            .map_err(|error| PlanError::Signature(error.to_string()))?;
        let plan =
            serde_json::from_slice(payload).map_err(|error| PlanError::Malformed(error.to_string()))?;
        Ok(Self { bytes: bytes.to_vec(), digest: Digest::of(bytes), plan })
    }

    /// The signed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the signed bytes; it names the task everywhere.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Name of the task's log in its checkpoints.
    pub fn origin(&self) -> String {
        format!("fedveil/{}", self.digest)
    }

    /// The plan.
    pub fn plan(&self) -> &TaskPlan {
        &self.plan
    }
}

fn no_session() -> PlanError {
    PlanError::Inconsistent("mode insecure_plain has no session of secure aggregation, and no other has one that its plan does not ask for".to_owned())
}

fn at_least(name: &'static str, value: u32, low: u32, high: u32) -> Result<(), PlanError> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(field(name, value, format!("{low} to {high}"))) }
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass literals and numbers as they are")]
fn field(field: &'static str, found: impl ToString, accepted: impl ToString) -> PlanError {
    PlanError::Field { field, found: found.to_string(), accepted: accepted.to_string() }
}

#[cfg(test)]
mod tests;
