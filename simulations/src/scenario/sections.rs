//! The sections of a scenario file. What each key means and takes is told by the command that reads files.

use std::collections::BTreeMap;

use fedveil_proto_plan::{AdaptiveClipping, CorrelatedNoise, Setting};
use serde::{Deserialize, Serialize};

use crate::datasets::{DataSpec, TEST_SHARE};
use crate::partition::{Partitioner, Shift};

/// A scenario: one simulation, but for its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name for people; it is the name of the task.
    pub name: String,
    /// Source of everything random.
    pub seed: u64,
    /// Rounds at most; a privacy budget may end the task earlier.
    pub rounds: u32,
    /// Who there is, and who takes part in a round.
    pub population: PopulationSection,
    /// The data.
    pub data: DataSpec,
    /// How its rows fall to clients.
    pub partition: Partitioner,
    /// How features differ between clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Shift>,
    /// The model.
    pub model: ModelSection,
    /// Training at a client.
    pub training: TrainingSection,
    /// What becomes of what clients send.
    pub algorithm: AlgorithmSection,
    /// Who sees what of an update.
    pub aggregation: AggregationSection,
    /// Differential privacy.
    pub privacy: PrivacySection,
    /// The robust rule.
    pub robustness: RobustnessSection,
    /// Poisoned clients.
    pub attackers: AttackersSection,
    /// Who is there when.
    pub availability: AvailabilitySection,
    /// How fast they are.
    pub devices: DevicesSection,
    /// What lies between them and the coordinator.
    pub network: NetworkSection,
    /// What is measured when.
    pub evaluation: EvaluationSection,
}

/// Who there is, and who takes part in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PopulationSection {
    /// Clients that there are.
    pub clients: u32,
    /// Clients of a round; all where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<u32>,
    /// Clients without which no round starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<u32>,
    /// Clients that connect before a round, of whom its cohort is drawn; as many as the cohort where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_in: Option<u32>,
    /// How a cohort is drawn: `fixed` or `poisson`.
    pub sampling: String,
    /// Colluding clients that the privacy claim assumes.
    pub assumed_malicious: u32,
}

/// The model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Architecture, such as `softmax:25x10`.
    pub architecture: String,
}

/// Training at a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSection {
    /// Passes over the client's data in a round.
    pub epochs: u32,
    /// Examples in one step.
    pub batch_size: u32,
    /// Step size.
    pub learning_rate: f64,
}

/// What becomes of what clients send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmSection {
    /// Step size of the server optimiser.
    pub server_learning_rate: f64,
    /// Momentum of the server optimiser.
    pub server_momentum: f64,
}

/// Who sees what of an update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregationSection {
    /// `secagg` or `insecure_plain`.
    pub mode: String,
    /// What is masked: `auto`, `pairwise-mask` or `rlwe-two-layer`.
    pub protocol: String,
    /// Smallest size of a group.
    pub group_size: u32,
    /// Neighbours of a client in its group; all where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degree: Option<u32>,
    /// Neighbours that must help to recover a client's masks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
    /// Clients whose input must be in a group's sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_survivors: Option<u32>,
    /// Nonces that may stay unrevealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_missing_reveals: Option<u32>,
    /// Mask generator.
    pub masks: String,
    /// Accepted probability of a break.
    pub break_probability: f64,
}

/// Differential privacy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacySection {
    /// Who adds the noise.
    pub placement: String,
    /// Distribution of the noise.
    pub mechanism: String,
    /// L2 bound on an update; infinite where nothing is clipped.
    #[serde(with = "extended")]
    pub clip_norm: f64,
    /// Steps in one clip norm.
    pub resolution: u32,
    /// The ε at which the task stops, and for which the noise is sized where its multiplier is left out. Infinite: no
    /// noise at all.
    #[serde(with = "extended")]
    pub epsilon: f64,
    /// The δ of that ε.
    pub delta: f64,
    /// Standard deviation of the noise in one sum, in clip norms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_multiplier: Option<f64>,
    /// A clip norm that follows the updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<AdaptiveClipping>,
    /// Noise that later rounds partly take back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlated_noise: Option<CorrelatedNoise>,
}

/// The robust rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustnessSection {
    /// The rule.
    pub rule: String,
    /// Pre-aggregators before it, in order.
    pub pre: Vec<String>,
    /// Options of the rule and its pre-aggregators.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, Setting>,
    /// Poisoned rows that the rule is set to bear.
    pub assumed_byzantine: u32,
}

/// Poisoned clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackersSection {
    /// How many clients of the population are poisoned.
    pub clients: u32,
    /// What they send.
    pub attack: String,
    /// How strong the attack is, in its own measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
}

/// Who is there when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvailabilitySection {
    /// Probability with which a client vanishes in the middle of a round.
    pub dropout: f64,
    /// Share of the clients that can be reached at a time, on average over the day.
    pub online: f64,
    /// How much that share swings over a client's day, as a part of it.
    pub daily_swing: f64,
    /// Virtual seconds that a client has for each phase of a round.
    pub phase_seconds: u32,
}

/// How fast clients are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicesSection {
    /// Virtual time of training on one example once.
    pub milliseconds_per_example: f64,
    /// Share of the clients that are slower.
    pub straggler_share: f64,
    /// How many times slower they are.
    pub straggler_factor: f64,
}

/// What lies between clients and the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSection {
    /// Mean virtual time of a message, besides its length.
    pub latency_ms: f64,
    /// What a client sends in a second; 0 is no bound.
    pub up_kbit_per_second: f64,
    /// What a client receives in a second; 0 is no bound.
    pub down_kbit_per_second: f64,
    /// Probability with which a message is lost.
    pub loss: f64,
}

/// What is measured when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSection {
    /// Rounds from one measurement to the next; the last round is always measured.
    pub every: u32,
    /// Clients whose own data the model is measured on besides, drawn once.
    pub clients: u32,
}

/// A number, or the word `infinite`.
mod extended {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const INFINITE: &str = "infinite";

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Word(String),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if *value == f64::INFINITY {
            serializer.serialize_str(INFINITE)
        } else {
            serializer.serialize_f64(*value)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer) {
            Ok(Written::Number(number)) => Ok(number),
            Ok(Written::Word(word)) if word == INFINITE => Ok(f64::INFINITY),
            _ => Err(D::Error::custom("not a number, and not \"infinite\"")),
        }
    }
}

impl Default for Spec {
    /// The quick start: digits over 200 clients, secure aggregation, nobody poisoned.
    fn default() -> Self {
        Self {
            name: "scenario".to_owned(),
            seed: 1,
            rounds: 8,
            population: PopulationSection {
                clients: 200,
                cohort: None,
                minimum: None,
                check_in: None,
                sampling: "fixed".to_owned(),
                assumed_malicious: 0,
            },
            data: DataSpec::Digits { spectrum: true, test_share: TEST_SHARE },
            partition: Partitioner::EvenDirichlet { alpha: 1.0 },
            shift: None,
            model: ModelSection { architecture: "softmax:25x10".to_owned() },
            training: TrainingSection { epochs: 5, batch_size: 64, learning_rate: 0.6 },
            algorithm: AlgorithmSection { server_learning_rate: 4.0, server_momentum: 0.5 },
            aggregation: AggregationSection {
                mode: "secagg".to_owned(),
                protocol: "auto".to_owned(),
                group_size: 18,
                degree: None,
                threshold: None,
                min_survivors: None,
                max_missing_reveals: None,
                masks: "aes-256-ctr".to_owned(),
                break_probability: 0.0,
            },
            privacy: PrivacySection {
                placement: "distributed".to_owned(),
                mechanism: "discrete-gaussian".to_owned(),
                clip_norm: 0.5,
                resolution: 1024,
                epsilon: 15.0,
                delta: 1e-5,
                noise_multiplier: None,
                adaptive_clip: None,
                correlated_noise: None,
            },
            robustness: RobustnessSection {
                rule: "mean".to_owned(),
                pre: Vec::new(),
                options: BTreeMap::new(),
                assumed_byzantine: 0,
            },
            attackers: AttackersSection { clients: 0, attack: "sign-flip".to_owned(), strength: None },
            availability: AvailabilitySection {
                dropout: 0.0,
                online: 1.0,
                daily_swing: 0.0,
                phase_seconds: 120,
            },
            devices: DevicesSection {
                milliseconds_per_example: 0.0,
                straggler_share: 0.0,
                straggler_factor: 10.0,
            },
            network: NetworkSection {
                latency_ms: 0.0,
                up_kbit_per_second: 0.0,
                down_kbit_per_second: 0.0,
                loss: 0.0,
            },
            evaluation: EvaluationSection { every: 1, clients: 0 },
        }
    }
}
