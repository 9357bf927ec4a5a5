//! The sections of a plan, as they are signed.
//!
//! Every field is binding, and unknown ones are refused. What is optional is left out of the JSON where it is not set, so
//! that a plan has one way to be written. Which values are accepted is not said here: [`TaskPlan::check`] does.

use std::collections::BTreeMap;
use std::fmt;

use fedveil_provenance::{Digest, null_is_infinite};
use serde::{Deserialize, Serialize};

use crate::Gate;

/// A task, as its coordinator announces it. Every field is binding: it enters the transcript hash of every round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPlan {
    /// Plan format, [`VERSION`](crate::VERSION).
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
    /// A simulation: all keys and noise follow from a seed, and whoever has it can take them off. Not written where they do
    /// not, which is to say in every task with anyone's data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
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
/// [`AdaptiveClip`](fedveil_privacy::AdaptiveClip).
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
    /// The mean of all sums or updates, added to the model as it is.
    pub fn mean() -> Self {
        Self {
            rule: "mean".to_owned(),
            pre: Vec::new(),
            options: BTreeMap::new(),
            assumed_byzantine: 0,
            learning_rate: 1.0,
            momentum: 0.0,
            gate: None,
            optimizer: None,
        }
    }

    /// The names of the pre-aggregators and the rule in their order, as in `clip+nnm+trimmed-mean`.
    pub fn steps(&self) -> String {
        let names: Vec<&str> = self.pre.iter().chain([&self.rule]).map(String::as_str).collect();
        names.join("+")
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
