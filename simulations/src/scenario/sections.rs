//! The sections of a scenario file. What each key means and takes is told by the command that reads files.

use std::collections::BTreeMap;

use fedveil_proto_plan::{AdaptiveClipping, CorrelatedNoise, Setting};
use serde::{Deserialize, Serialize};

use crate::algorithm::{self, Choice};
use crate::datasets::{DataSpec, TEST_SHARE};
use crate::federation::{Availability, Compute, Conditions, Faults, Hierarchy, Network};
use crate::partition::{Partitioner, Shift};

/// Attackers know what they would have sent themselves.
pub(super) const FELLOWS: &str = "fellows";
/// Attackers know what every honest client of the round sends.
pub(super) const ALL: &str = "all";
/// Attackers hold their part of the partition.
pub(super) const PARTITION: &str = "partition";
/// Attackers hold rows that were drawn from all.
pub(super) const SAMPLE: &str = "sample";

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
    /// Virtual seconds that a client has for each phase of a round.
    pub phase_seconds: u32,
    /// Who there is, and who takes part in a round.
    pub population: PopulationSection,
    /// The data.
    pub data: DataSpec,
    /// How its rows fall to clients.
    pub partition: Partitioner,
    /// How features differ between clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Shift>,
    /// Regions between clients and the cloud. Everything else is said of the rounds of a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hierarchy: Option<Hierarchy>,
    /// The model.
    pub model: ModelSection,
    /// Training at a client.
    pub training: TrainingSection,
    /// What clients compute, and what becomes of it.
    pub algorithm: AlgorithmSection,
    /// Who sees what of an update.
    pub aggregation: AggregationSection,
    /// Differential privacy.
    pub privacy: PrivacySection,
    /// The robust rule.
    pub robustness: RobustnessSection,
    /// Poisoned clients.
    pub attackers: AttackersSection,
    /// What lies between clients and the coordinator.
    pub network: Network,
    /// How fast clients are.
    pub compute: Compute,
    /// Who is there when.
    pub availability: Availability,
    /// What breaks.
    pub faults: Faults,
    /// What is measured when.
    pub evaluation: EvaluationSection,
}

impl Spec {
    /// The world around the federation.
    pub fn conditions(&self) -> Conditions {
        let (network, compute) = (self.network.clone(), self.compute.clone());
        Conditions { network, compute, availability: self.availability.clone(), faults: self.faults.clone() }
    }
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
    /// Share of the last step's direction that stays, within one training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
}

/// What clients compute, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmSection {
    /// Name in the registry of algorithms.
    pub name: String,
    /// Its options, where they are not the defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, algorithm::Setting>,
}

impl AlgorithmSection {
    /// As the registry takes it.
    pub fn choice(&self) -> Choice {
        Choice { name: self.name.clone(), options: self.options.clone() }
    }
}

/// Who sees what of an update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregationSection {
    /// `secagg`, `insecure_ideal` or `insecure_plain`.
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
    /// Whether the coordinator says of each row how far the aggregate would have been without it.
    pub influence: bool,
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
    /// Whose updates they know: their `fellows`', or those of `all` clients of the round.
    pub knowledge: String,
    /// Whose rows they hold: their part of the `partition`, or a `sample` of all, beside a partition over the honest.
    pub data: String,
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
    /// FedAvg on digits over 200 clients, secure aggregation, nobody poisoned.
    fn default() -> Self {
        Self {
            name: "scenario".to_owned(),
            seed: 1,
            rounds: 8,
            phase_seconds: 120,
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
            hierarchy: None,
            model: ModelSection { architecture: "softmax:25x10".to_owned() },
            training: TrainingSection { epochs: 5, batch_size: 64, learning_rate: 0.6, momentum: None },
            algorithm: AlgorithmSection { name: "fedavg".to_owned(), options: BTreeMap::new() },
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
                influence: true,
            },
            attackers: AttackersSection {
                clients: 0,
                attack: "sign-flip".to_owned(),
                strength: None,
                knowledge: FELLOWS.to_owned(),
                data: PARTITION.to_owned(),
            },
            network: Network::default(),
            compute: Compute::default(),
            availability: Availability::default(),
            faults: Faults::default(),
            evaluation: EvaluationSection { every: 1, clients: 0 },
        }
    }
}
