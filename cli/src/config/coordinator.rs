//! The coordinator's file: where it listens and writes, and the task that it runs.
//!
//! Its sections are those of the plan where they can be; `keys` says what each key means.

mod keys;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use fedveil_aggregation::secagg::ProtocolKind;
use fedveil_coordinator_core::{Quarantine, QuarantineMode};
use fedveil_learning::ModelSpec;
use fedveil_privacy::{Delta, Limit};
use fedveil_proto_plan::{
    Aggregation, Cohort, ExamplePrivacy, MAX_CLIENTS, Mode, Model, PlanError, Privacy, Server, TaskPlan,
    Training, VERSION,
};
use fedveil_provenance::{Digest, NO_NOISE};
use serde::{Deserialize, Serialize};

use super::{Config, Invalid, Key};

/// The protocol that the plan's model makes the cheaper one.
const AUTO: &str = "auto";
/// The examples inside the binary.
const DIGITS: &str = "digits";

/// The configuration of `fedveil coordinator`; [`Config::KEYS`] says what each key means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoordinatorConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) names: Vec<String>,
    pub(crate) out: PathBuf,
    pub(crate) keys: PathBuf,
    tokens: u32,
    pub(crate) tokens_dir: PathBuf,
    pub(crate) task: TaskSection,
    pub(crate) model: ModelSection,
    pub(crate) cohort: Cohort,
    pub(crate) training: TrainingSection,
    pub(crate) privacy: Privacy,
    pub(crate) aggregation: Aggregation,
    pub(crate) server: Server,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold_out: Option<HoldOutSection>,
    population: PopulationSection,
    quarantine: QuarantineSection,
}

/// The task by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskSection {
    pub(crate) name: String,
    pub(crate) mode: String,
    pub(crate) rounds: u32,
    pub(crate) phase_seconds: u32,
}

/// The model; the number of its parameters follows from its architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelSection {
    pub(crate) architecture: String,
}

/// The coordinator's own examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldOutSection {
    pub(crate) examples: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) triggers: Option<PathBuf>,
    #[serde(default = "first_seed")]
    pub(crate) seed: u64,
}

fn first_seed() -> u64 {
    1
}

impl HoldOutSection {
    /// Whether the examples are those inside the binary.
    pub(crate) fn is_digits(&self) -> bool {
        self.examples == Path::new(DIGITS)
    }
}

/// What clients may spend over all tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PopulationSection {
    epsilon: f64,
    delta: f64,
}

/// What is done about suspicious clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuarantineSection {
    mode: String,
    false_alarm: f64,
    minimum_rounds: u32,
    contact: String,
}

/// Training; example-level privacy is off unless it has noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingSection {
    pub(crate) epochs: u32,
    pub(crate) batch_size: u32,
    pub(crate) learning_rate: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    momentum: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proximal: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    planned_steps: Option<u32>,
    pub(crate) example_privacy: ExamplePrivacy,
}

impl TrainingSection {
    fn plan(&self) -> Training {
        let Self { epochs, batch_size, learning_rate, momentum, proximal, planned_steps, .. } = *self;
        let has_noise = self.example_privacy.noise_multiplier != 0.0;
        let example_privacy = has_noise.then(|| self.example_privacy.clone());
        Training { epochs, batch_size, learning_rate, momentum, proximal, planned_steps, example_privacy }
    }
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7443)),
            names: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
            out: "runs/coordinator".into(),
            keys: "keys".into(),
            tokens: 0,
            tokens_dir: "tokens".into(),
            task: TaskSection {
                name: "digits".to_owned(),
                mode: Mode::Secagg.name().to_owned(),
                rounds: 8,
                phase_seconds: 60,
            },
            model: ModelSection { architecture: "softmax:25x10".to_owned() },
            cohort: Cohort { clients: 200, minimum: 180, assumed_malicious: 4, population: None },
            training: TrainingSection {
                epochs: 5,
                batch_size: 64,
                learning_rate: 0.6,
                momentum: None,
                proximal: None,
                planned_steps: None,
                example_privacy: ExamplePrivacy {
                    clip_norm: 1.0,
                    noise_multiplier: 0.0,
                    sampling_rate: 0.1,
                    epsilon: 8.0,
                    delta: 1e-5,
                },
            },
            privacy: Privacy {
                placement: "distributed".to_owned(),
                mechanism: "discrete-gaussian".to_owned(),
                clip_norm: 0.5,
                noise_multiplier: 1.12,
                resolution: 1024,
                epsilon: 15.0,
                delta: 1e-5,
                correlated_noise: None,
                adaptive_clip: None,
            },
            aggregation: Aggregation {
                protocol: AUTO.to_owned(),
                group_size: 18,
                degree: 64,
                threshold: 13,
                min_survivors: 15,
                max_missing_reveals: 2,
                masks: "aes-256-ctr".to_owned(),
                break_probability: 0.0,
            },
            server: Server {
                rule: "mda".to_owned(),
                pre: Vec::new(),
                options: BTreeMap::new(),
                assumed_byzantine: 4,
                learning_rate: 4.0,
                momentum: 0.5,
                gate: None,
                optimizer: None,
            },
            hold_out: None,
            population: PopulationSection { epsilon: f64::INFINITY, delta: 1e-5 },
            quarantine: QuarantineSection {
                mode: QuarantineMode::Report.name().to_owned(),
                false_alarm: 0.01,
                minimum_rounds: 3,
                contact: String::new(),
            },
        }
    }
}

impl CoordinatorConfig {
    /// Join tokens to write, one for each client that may enrol.
    pub(crate) fn tokens(&self) -> u32 {
        if self.tokens == 0 { self.cohort.clients } else { self.tokens }
    }

    /// What a client may spend over all tasks.
    pub(crate) fn population(&self) -> Result<Limit, Invalid> {
        let PopulationSection { epsilon, delta } = self.population;
        if epsilon.is_nan() || epsilon <= 0.0 {
            return Err(Self::refused("population.epsilon", epsilon));
        }
        let delta = Delta::new(delta).map_err(|_| Self::refused("population.delta", delta))?;
        Ok(Limit { epsilon, delta })
    }

    /// What is done about suspicious clients.
    pub(crate) fn quarantine(&self) -> Result<Quarantine, Invalid> {
        let QuarantineSection { mode, false_alarm, minimum_rounds, contact } = &self.quarantine;
        let mode = QuarantineMode::ALL
            .into_iter()
            .find(|known| known.name() == mode)
            .ok_or_else(|| Self::refused("quarantine.mode", mode))?;
        Ok(Quarantine {
            mode,
            false_alarm: *false_alarm,
            clients: self.tokens().max(self.cohort.clients),
            minimum_rounds: *minimum_rounds,
            contact: contact.clone(),
        })
    }

    /// The plan to announce, for a model of `parameters` parameters.
    pub(crate) fn plan(&self, id: Digest, parameters: u32) -> TaskPlan {
        let is_plain = self.task.mode == Mode::InsecurePlain.name();
        let mut aggregation = if is_plain { Aggregation::none() } else { self.aggregation.clone() };
        if aggregation.protocol == AUTO {
            let neighbours = aggregation.degree.min(aggregation.group_size.saturating_sub(1));
            let cheapest = ProtocolKind::cheapest(parameters as usize, neighbours as usize);
            cheapest.name().clone_into(&mut aggregation.protocol);
        }
        let privacy = match self.privacy.placement.as_str() {
            NO_NOISE => Privacy { delta: self.privacy.delta, ..Privacy::none(self.privacy.clip_norm) },
            _ => self.privacy.clone(),
        };
        TaskPlan {
            version: VERSION,
            task: self.task.name.clone(),
            id,
            mode: self.task.mode.clone(),
            rounds: self.task.rounds,
            phase_seconds: self.task.phase_seconds,
            model: Model { architecture: self.model.architecture.clone(), parameters },
            cohort: self.cohort.clone(),
            training: self.training.plan(),
            privacy,
            aggregation,
            server: self.server.clone(),
            simulated: false,
        }
    }
}

impl CoordinatorConfig {
    /// The plan as far as it can be told before its task has an identity, on which no check and no number bears.
    pub(crate) fn announced(&self) -> Result<TaskPlan, Invalid> {
        let architecture = &self.model.architecture;
        let model: ModelSpec = architecture
            .parse()
            .map_err(|_| Self::refused("model.architecture", format!("{architecture:?}")))?;
        let parameters = u32::try_from(model.parameters()).unwrap_or(u32::MAX);
        Ok(self.plan(Digest::of([]), parameters))
    }
}

impl Config for CoordinatorConfig {
    const TITLE: &'static str = "Configuration of `fedveil coordinator`.";
    const KEYS: &'static [Key] = keys::KEYS;

    fn check(&self) -> Result<(), Invalid> {
        if self.names.is_empty() {
            return Err(Self::refused("names", "empty"));
        }
        if let Some(name) = self.names.iter().find(|name| !is_host(name)) {
            return Err(Self::refused("names", format!("a list with {name:?}")));
        }
        if self.tokens > MAX_CLIENTS {
            return Err(Self::refused("tokens", self.tokens));
        }
        let out = resolve(&self.out);
        for (name, folder) in [("keys", &self.keys), ("tokens_dir", &self.tokens_dir)] {
            if resolve(folder).starts_with(&out) {
                let found = format!("{}, which is in {}", folder.display(), self.out.display());
                return Err(Self::refused(name, found));
            }
        }
        self.population()?;
        let plan = self.announced()?;
        let terms = plan.check().map_err(invalid_plan)?;
        self.quarantine()?.decoder(&plan, &terms).map_err(invalid_plan)?;
        if let Some(gate) = self.server.gate.as_ref().filter(|gate| gate.needs_hold_out()) {
            let Some(hold_out) = &self.hold_out else {
                let found = "a section that bounds what a model does on examples";
                return Err(Invalid::value("server.gate", found, "one with [hold_out] beside it"));
            };
            let has_triggers = hold_out.is_digits() || hold_out.triggers.is_some();
            if let Some(most) = gate.max_trigger_success.filter(|_| !has_triggers) {
                let accepted = "a number only with hold_out.triggers";
                return Err(Invalid::value("server.gate.max_trigger_success", most, accepted));
            }
        }
        let (delta, tokens) = (self.privacy.delta, self.tokens());
        if delta * f64::from(tokens) > 1.0 {
            let accepted = format!("a number above 0, at most 1/{tokens} (one in tokens)");
            return Err(Invalid::value("privacy.delta", delta, accepted));
        }
        Ok(())
    }
}

/// Says in the words of the file what is wrong with its plan.
fn invalid_plan(error: PlanError) -> Invalid {
    match error {
        PlanError::Field { field, found, accepted } => {
            let key = match field {
                "task" => "task.name",
                "mode" => "task.mode",
                "rounds" => "task.rounds",
                "phase_seconds" => "task.phase_seconds",
                "model.parameters" => "model.architecture",
                same => same,
            };
            Invalid::value(key, found, accepted)
        }
        other => Invalid::inconsistent(other),
    }
}

/// Whether a text can be a name in a certificate.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(is_label))
}

/// An absolute path without `..` and, as far as it exists, without symbolic links.
fn resolve(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut resolved = PathBuf::new();
    for part in absolute.components() {
        match part {
            std::path::Component::ParentDir => drop(resolved.pop()),
            part => resolved.push(part),
        }
        resolved = resolved.canonicalize().unwrap_or(resolved);
    }
    resolved
}

#[cfg(test)]
mod tests;
