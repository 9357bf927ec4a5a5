//! The coordinator's file: where it listens and writes, and the task that it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use fedveil_aggregation::robust::GROUP_RULE_NAMES;
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

use super::{Config, Invalid, Key, key, optional, optional_section, section};

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
    const KEYS: &'static [Key] = &[
        key(
            "listen",
            "Address to listen on; port 0 takes a free port.",
            "an IP address and a port, as in 127.0.0.1:7443 or [::]:7443",
        ),
        key(
            "names",
            "Names under which clients reach this coordinator; they go into its certificate.",
            "a list of one or more DNS names and IP addresses",
        ),
        key(
            "out",
            "Folder for models, manifests, logs and reports. It may be published: no secret is in it.",
            "a folder that can be written",
        ),
        key("keys", "Folder of the private keys, made at the first start.", "a folder outside of out"),
        key(
            "tokens",
            "Join tokens to write, one for each client that may enrol; 0 means as many as cohort.clients.",
            "a whole number, 0 to 20000",
        ),
        key("tokens_dir", "Folder of the join tokens, one file for each.", "a folder outside of out"),
        section("task", "The task."),
        key("task.name", "Name for people.", "1 to 64 bytes of text"),
        key(
            "task.mode",
            "secagg: the coordinator sees sums of groups. insecure_plain: it sees every client's update by itself, [aggregation] \
             says nothing, and clients refuse unless their policy.allow_insecure_plain is true. insecure_ideal: as secagg but \
             without masks, for simulations; clients refuse it like insecure_plain.",
            "secagg, insecure_plain or insecure_ideal",
        ),
        key(
            "task.rounds",
            "Rounds to run at most; fewer where the epsilon budget ends before.",
            "a whole number, 1 to 100000",
        ),
        key(
            "task.phase_seconds",
            "Time that a client has for each phase of a round, in seconds.",
            "a whole number, 1 to 86400",
        ),
        section("model", "The model."),
        key(
            "model.architecture",
            "Kind and sizes, as docs/models.md explains them.",
            "softmax:INPUTSxCLASSES, mlp:INPUTSxHIDDEN[xHIDDEN...]xCLASSES, \
             cnn:HEIGHTxWIDTHxCHANNELSxFILTERSxFILTERSxHIDDENxCLASSES, \
             cnn-norm:HEIGHTxWIDTHxCHANNELSxFILTERSxFILTERSxCLASSES, \
             resnet:HEIGHTxWIDTHxCHANNELSxFILTERSxBLOCKSxCLASSES, gru:VOCABULARYxEMBEDDINGxHIDDEN[xHIDDEN...], \
             lstm:VOCABULARYxEMBEDDINGxHIDDEN[xHIDDEN...] or lora:RANK:SEED:MODEL, with at most 4194304 parameters",
        ),
        section("cohort", "Who takes part in a round."),
        key("cohort.clients", "Clients that a round plans for.", "a whole number, 2 to 20000"),
        key(
            "cohort.minimum",
            "Clients without which a round does not start.",
            "a whole number, 2 to cohort.clients",
        ),
        key(
            "cohort.assumed_malicious",
            "Colluding clients in the whole population that the privacy claim bears.",
            "a whole number, 0 to less than cohort.minimum",
        ),
        optional(
            "cohort.population",
            "Clients out of which every round draws, each by a coin of its own, cohort.clients on average. Amplifies privacy \
             against readers of the models; the run folder's state.sqlite names who was drawn, so keep that. A round then \
             lasts for all of task.phase_seconds, and one that draws nobody is released like any other.",
            "nothing, or with privacy.placement = central a whole number, cohort.clients to 20000",
        ),
        section("training", "Training at the client, by SGD on its own data."),
        key("training.epochs", "Passes over the client's data in one round.", "a whole number, 1 to 1000"),
        key(
            "training.batch_size",
            "Examples in one step; 0 takes all of a client's in one.",
            "a whole number, 0 to 65536",
        ),
        key("training.learning_rate", "Step size.", "a number above 0, up to 1000"),
        optional(
            "training.momentum",
            "Momentum of the client's steps.",
            "nothing, or a number from 0, below 1",
        ),
        optional(
            "training.proximal",
            "FedProx: how strongly a client's steps are pulled back to the global model.",
            "nothing, or a number above 0, up to 1000",
        ),
        optional(
            "training.planned_steps",
            "FedNova: an update counts for so many steps, however many led to it.",
            "nothing, or a whole number, 1 to 1000000",
        ),
        section(
            "training.example_privacy",
            "DP-SGD at the client: privacy of each single example too, in epochs / sampling_rate steps a round.",
        ),
        key(
            "training.example_privacy.clip_norm",
            "L2 bound on the gradient of one example.",
            "a number from 1e-12 to 1e12",
        ),
        key(
            "training.example_privacy.noise_multiplier",
            "Standard deviation of the noise in the sum of a step, in clip norms; 0 trains without.",
            "0, or a number from 0.001 to 250",
        ),
        key(
            "training.example_privacy.sampling_rate",
            "Probability with which an example takes part in a step; training.batch_size is what sums are divided by.",
            "a number above 0, at most 1",
        ),
        key(
            "training.example_privacy.epsilon",
            "Epsilon that the whole task may spend on an example; a task that would pass it is refused.",
            "a number above 0",
        ),
        key("training.example_privacy.delta", "Delta of that epsilon.", "a number above 0, below 1"),
        section(
            "privacy",
            "Differential privacy of each client's whole data (user level, zero-out adjacency).",
        ),
        key(
            "privacy.placement",
            "Who adds the noise: the clients of a group together; with local each one all of it, trusting nobody; \
             with central the coordinator, to the sum (task.mode = insecure_plain only, where distributed is not). \
             insecure_none, there too: nobody, epsilon is infinite and nothing private, which clients must allow by name \
             (policy.allow_insecure_no_noise); of this section clip_norm alone says something then.",
            "distributed, local, central or insecure_none",
        ),
        key(
            "privacy.mechanism",
            "Distribution of the noise. Sums of Skellam noise are Skellam again, which pays where resolution is low.",
            "discrete-gaussian or skellam",
        ),
        key(
            "privacy.clip_norm",
            "L2 bound on a client's update, in units of the model's parameters; inf clips nothing, with placement \
             insecure_none.",
            "a number above 0",
        ),
        key(
            "privacy.noise_multiplier",
            "Standard deviation of the noise that is counted in one group sum, in clip norms.",
            "a number from 0.001 to 1e6",
        ),
        key(
            "privacy.resolution",
            "Integer steps in one clip norm: how finely updates are rounded.",
            "a whole number above 0, as far as a group sum fits 32 bits",
        ),
        key("privacy.epsilon", "Epsilon at which the task stops.", "a number above 0"),
        key(
            "privacy.delta",
            "Delta of that epsilon.",
            "a number above 0, at most one in the number of clients",
        ),
        optional_section(
            "privacy.correlated_noise",
            "Noise that later rounds partly take back (DP-FTRL), with privacy.placement = central: one epsilon for the whole \
             task, for clients that take part as seldom as said here, which the coordinator enforces.",
        ),
        optional(
            "privacy.correlated_noise.matrix",
            "How the noise of a round depends on that of earlier ones.",
            "toeplitz, or banded-toeplitz with privacy.correlated_noise.bands",
        ),
        optional(
            "privacy.correlated_noise.bands",
            "Diagonals of the banded matrix; min_separation is a good number.",
            "a whole number, 1 to task.rounds; nothing with toeplitz",
        ),
        optional(
            "privacy.correlated_noise.min_separation",
            "Least difference between the numbers of two rounds that a client takes part in.",
            "a whole number, 1 to task.rounds",
        ),
        optional(
            "privacy.correlated_noise.max_participations",
            "Most rounds that a client takes part in.",
            "a whole number, 1 to task.rounds",
        ),
        optional_section(
            "privacy.adaptive_clip",
            "A clip norm that follows the updates, from privacy.clip_norm on (mode secagg, noise from the clients).",
        ),
        optional(
            "privacy.adaptive_clip.quantile",
            "Fraction of the updates that should stay unclipped.",
            "a number above 0 and below 1",
        ),
        optional(
            "privacy.adaptive_clip.learning_rate",
            "How far the logarithm of the clip norm moves in a round for a fraction that is off by 1.",
            "a number above 0, at most 2",
        ),
        optional(
            "privacy.adaptive_clip.noise_multiplier",
            "Standard deviation of the noise in one group's sum of indicators, in half clients. It has its own charge.",
            "a number from 0.001 to 1e6",
        ),
        optional("privacy.adaptive_clip.minimum", "Least clip norm.", "a number above 0"),
        optional(
            "privacy.adaptive_clip.maximum",
            "Largest clip norm.",
            "a number that is not below privacy.adaptive_clip.minimum",
        ),
        section("aggregation", "Secure aggregation inside random groups (mode secagg)."),
        key(
            "aggregation.protocol",
            "What is masked: the update itself, or the key under which it is encrypted; auto takes the cheaper one.",
            "auto, pairwise-mask or rlwe-two-layer",
        ),
        key(
            "aggregation.group_size",
            "Smallest size of a group when groups are formed.",
            "a whole number, 2 to cohort.minimum",
        ),
        key(
            "aggregation.degree",
            "Clients of its group with which each client shares masks; `fedveil secagg parameters` finds a number.",
            "an even number, or one that makes every client of a group a neighbour of every other",
        ),
        key(
            "aggregation.threshold",
            "Shamir threshold: neighbours that must help to recover a client's masks.",
            "a whole number, more than half of the neighbours, below aggregation.min_survivors",
        ),
        key(
            "aggregation.min_survivors",
            "Clients whose update must be in a group's sum; the sum of a smaller group is withheld.",
            "a whole number, 3 to aggregation.group_size",
        ),
        key(
            "aggregation.max_missing_reveals",
            "Clients that may leave while groups are drawn without the round being refused.",
            "a whole number, 0 to a tenth of cohort.minimum",
        ),
        key("aggregation.masks", "Generator of the masks.", "aes-256-ctr or chacha20"),
        key(
            "aggregation.break_probability",
            "Accepted probability that the coordinator and cohort.assumed_malicious clients see anyone's update.",
            "a number from 0, below 1; 0 where chance must not decide",
        ),
        section("server", "What becomes of the group sums."),
        key("server.rule", "Byzantine-robust rule over the group means.", GROUP_RULE_NAMES),
        optional(
            "server.pre",
            "Pre-aggregators, which make rows of rows before the rule, in order.",
            "a list of names of `fedveil robust list`, as in [\"clip\", \"nnm\"]",
        ),
        optional(
            "server.options",
            "Options of the rule and the pre-aggregators, as in { c = 1.5 }; \"clip.c\" where several have the option.",
            "a table of names and values of `fedveil robust list`, but for seeds, which each round draws",
        ),
        key(
            "server.assumed_byzantine",
            "Poisoned groups f that the rule is set to bear.",
            "a whole number, as far as there are groups: most rules want 2f + 1, see `fedveil robust list`",
        ),
        key("server.learning_rate", "Step size of the server optimiser.", "a number above 0, up to 1000"),
        key("server.momentum", "Momentum of the server optimiser.", "a number from 0, below 1"),
        optional_section(
            "server.optimizer",
            "A server optimiser with a step size of its own for each parameter: FedAdagrad, FedAdam or FedYogi, of step size \
             server.learning_rate, with server.momentum = 0.",
        ),
        optional("server.optimizer.name", "How step sizes follow the updates.", "adagrad, adam or yogi"),
        optional(
            "server.optimizer.beta1",
            "Share of the mean of updates that stays from one round to the next.",
            "a number from 0, below 1",
        ),
        optional(
            "server.optimizer.beta2",
            "Share of the mean of squares that stays; adagrad forgets nothing.",
            "a number from 0, below 1",
        ),
        optional(
            "server.optimizer.tau",
            "What bounds the step sizes; a small one adapts more.",
            "a number above 0",
        ),
        optional_section(
            "server.gate",
            "What a new model must pass, or it is not published: the round is lost, and the next goes on from the last model.",
        ),
        optional(
            "server.gate.max_step_norm",
            "Largest L2 norm of the step from the model before, in units of its parameters.",
            "a number above 0",
        ),
        optional(
            "server.gate.max_accuracy_drop",
            "Most accuracy that a model may lose on [hold_out] against the best model published so far.",
            "a number from 0, below 1",
        ),
        optional(
            "server.gate.max_trigger_success",
            "Largest share of the examples with a trigger that a model may label as the trigger asks.",
            "a number from 0, below 1",
        ),
        optional(
            "server.gate.max_rejections",
            "Rejected models in a row after which the task ends, 3 where nothing is said. Each has spent privacy for nothing.",
            "a whole number, 1 to 100",
        ),
        optional_section(
            "server.gate.evaluation",
            "What the round's clients say of its new model, each on examples of its own, where the coordinator has none.",
        ),
        optional(
            "server.gate.evaluation.max_accuracy_drop",
            "Most accuracy that a model may lose against the one before, as the median group says.",
            "a number from 0, below 1",
        ),
        optional(
            "server.gate.evaluation.noise_multiplier",
            "Standard deviation of the noise in one group's sum of answers, in clients. Every participation is charged for it.",
            "a number from 0.001 to 1e6",
        ),
        optional(
            "server.gate.evaluation.confidence",
            "Standard deviations of the noise by which a drop must pass the bound to count.",
            "a number from 0 to 10",
        ),
        optional_section(
            "hold_out",
            "The coordinator's own examples, of which no client has any, for [server.gate].",
        ),
        optional(
            "hold_out.examples",
            "A file with a row for each example, the model's inputs and the label; or the digits that no client trains on.",
            "a file, CSV or .npy, or digits",
        ),
        optional(
            "hold_out.triggers",
            "A file like that, whose inputs carry a backdoor's trigger and whose labels are what it asks for; \
             with digits it is the trigger of the attack `backdoor`.",
            "a file, CSV or .npy",
        ),
        optional(
            "hold_out.seed",
            "With digits: data.seed of the clients, 1 where nothing is said.",
            "a whole number from 0",
        ),
        section(
            "population",
            "Everyone who ever enrolled with the keys in this folder, over all tasks, also those at the same time.",
        ),
        key(
            "population.epsilon",
            "Largest epsilon of all that a client gives to any task; who would pass it is not drawn. inf: count only.",
            "a number above 0, or inf",
        ),
        key("population.delta", "Delta of that epsilon.", "a number above 0, below 1"),
        section(
            "quarantine",
            "Clients that are in suspicious groups too often to be there by chance; see docs/robustness.md.",
        ),
        key(
            "quarantine.mode",
            "off, report: name them in the records; automatic: and draw them into no round, once the evidence holds even if \
             cohort.assumed_malicious clients aimed at one. Mode insecure_plain has no random groups and names nobody.",
            "off, report or automatic",
        ),
        key(
            "quarantine.false_alarm",
            "Accepted probability that any honest client is ever named.",
            "a number above 0, at most 0.5",
        ),
        key(
            "quarantine.minimum_rounds",
            "Rounds that a client must have had a part in before it is named.",
            "a whole number, 1 to 1000",
        ),
        key(
            "quarantine.contact",
            "Whom a client in quarantine is told to turn to, such as an address.",
            "a line of at most 200 bytes",
        ),
    ];

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
mod tests {
    use super::*;
    use fedveil_proto_plan::Gate;

    /// How the message begins, and the change that it refuses.
    type Case = (&'static str, fn(&mut CoordinatorConfig));

    fn refusal(change: impl FnOnce(&mut CoordinatorConfig)) -> String {
        let mut config = CoordinatorConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_model_is_named() {
        let accepted =
            CoordinatorConfig::KEYS.iter().find(|key| key.path == "model.architecture").unwrap().accepted;
        for kind in fedveil_learning::models::KINDS {
            let form = format!("{}:{}", kind.name, kind.sizes);
            assert!(accepted.split([',', ' ']).any(|word| word == form), "{form}");
        }
    }

    #[test]
    fn defaults_are_an_acceptable_plan() {
        let config = CoordinatorConfig::default();
        config.check().unwrap();
        let id = Digest::of(b"id");
        let plan = config.plan(id, 650);
        assert_eq!((plan.version, plan.mode.as_str(), plan.id), (VERSION, "secagg", id));
        let CoordinatorConfig { task, model, cohort, training, privacy, aggregation, server, .. } = config;
        assert_eq!(
            (plan.task, plan.rounds, plan.phase_seconds),
            (task.name, task.rounds, task.phase_seconds)
        );
        assert_eq!(plan.model, Model { architecture: model.architecture, parameters: 650 });
        assert_eq!((plan.cohort, plan.training, plan.privacy), (cohort, training.plan(), privacy));
        let aggregation = Aggregation { protocol: "pairwise-mask".to_owned(), ..aggregation };
        assert_eq!(
            (plan.aggregation, plan.server),
            (aggregation, server),
            "so small a model is masked itself"
        );
    }

    #[test]
    fn every_listed_word_is_accepted_by_the_plan() {
        let words = |path: &str| {
            let key = CoordinatorConfig::KEYS.iter().find(|key| key.path == path).unwrap();
            key.accepted.replace(" or ", ", ").split(", ").map(str::to_owned).collect::<Vec<_>>()
        };
        for rule in words("server.rule") {
            let mut config = CoordinatorConfig::default();
            (config.server.rule, config.server.assumed_byzantine) = (rule, 0);
            config.check().unwrap();
        }
        for protocol in words("aggregation.protocol") {
            let mut config = CoordinatorConfig::default();
            config.aggregation.protocol = protocol;
            config.check().unwrap();
        }
        for placement in words("privacy.placement") {
            for mechanism in words("privacy.mechanism") {
                let mut config = CoordinatorConfig::default();
                if ["central", NO_NOISE].contains(&placement.as_str()) {
                    config.task.mode = "insecure_plain".to_owned();
                    config.server.rule = "mean".to_owned();
                }
                (config.privacy.placement, config.privacy.mechanism) = (placement.clone(), mechanism);
                config.check().unwrap();
            }
        }
        for masks in words("aggregation.masks") {
            let mut config = CoordinatorConfig::default();
            config.aggregation.masks = masks;
            config.check().unwrap();
        }
    }

    #[test]
    fn a_plan_in_the_clear_promises_no_groups() {
        let mut config = CoordinatorConfig::default();
        config.task.mode = "insecure_plain".to_owned();
        let error = refusal(|config| config.task.mode = "insecure_plain".to_owned());
        assert!(error.starts_with("privacy.placement is distributed, accepted is local, central"), "{error}");
        config.privacy.placement = "central".to_owned();
        config.server.rule = "mean".to_owned();
        config.check().unwrap();
        assert_eq!(config.plan(Digest::of([]), 650).aggregation, Aggregation::none());
        config.privacy.placement = NO_NOISE.to_owned();
        config.privacy.clip_norm = f64::INFINITY;
        config.check().unwrap();
        assert_eq!(config.plan(Digest::of([]), 650).privacy, Privacy::none(f64::INFINITY));
        config.privacy = Privacy { clip_norm: 0.5, placement: "central".to_owned(), ..config.privacy };
        config.cohort.population = Some(2_000);
        config.check().unwrap();
        let error = refusal(|config| config.task.mode = "open".to_owned());
        assert_eq!(error, "task.mode is open, accepted is secagg, insecure_plain, insecure_ideal");
    }

    #[test]
    fn a_gate_has_the_examples_that_it_looks_at() {
        let mut config = CoordinatorConfig::default();
        config.server.gate = Some(Gate {
            max_step_norm: Some(5.0),
            max_accuracy_drop: None,
            max_trigger_success: None,
            evaluation: None,
            max_rejections: 3,
        });
        config.check().unwrap();
        let gate = config.server.gate.as_mut().unwrap();
        (gate.max_accuracy_drop, gate.max_trigger_success) = (Some(0.1), Some(0.5));
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("server.gate is a section") && error.contains("[hold_out]"), "{error}");
        let mut hold_out = HoldOutSection { examples: "mine.csv".into(), triggers: None, seed: 1 };
        config.hold_out = Some(hold_out.clone());
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("server.gate.max_trigger_success is 0.5, accepted"), "{error}");
        hold_out.triggers = Some("triggers.csv".into());
        config.hold_out = Some(hold_out);
        config.check().unwrap();
        config.hold_out = Some(HoldOutSection { examples: DIGITS.into(), triggers: None, seed: 1 });
        config.check().unwrap();
        let error = refusal(|config| {
            config.server.gate = Some(Gate {
                max_step_norm: Some(-1.0),
                max_accuracy_drop: None,
                max_trigger_success: None,
                evaluation: None,
                max_rejections: 3,
            });
        });
        assert_eq!(error, "server.gate.max_step_norm is -1, accepted is a finite number above 0");
    }

    #[test]
    fn example_privacy_is_on_where_it_has_noise() {
        let mut config = CoordinatorConfig::default();
        assert_eq!(config.plan(Digest::of([]), 650).training.example_privacy, None);
        let section = &mut config.training.example_privacy;
        (section.noise_multiplier, section.epsilon) = (2.0, 20.0);
        config.check().unwrap();
        let planned = config.plan(Digest::of([]), 650).training.example_privacy;
        assert_eq!(planned.as_ref(), Some(&config.training.example_privacy));
        let error = refusal(|config| {
            (config.training.example_privacy.noise_multiplier, config.training.example_privacy.epsilon) =
                (1.0, 1.0);
        });
        assert!(error.contains("rounds of 50 steps spend epsilon"), "{error}");
        let error = refusal(|config| config.training.example_privacy.noise_multiplier = -1.0);
        assert!(error.starts_with("training.example_privacy.noise_multiplier is -1, accepted is"), "{error}");
    }

    #[test]
    fn one_token_for_each_client_unless_told_otherwise() {
        let mut config = CoordinatorConfig::default();
        config.cohort.clients = 250;
        assert_eq!(config.tokens(), 250);
        config.tokens = 3;
        assert_eq!(config.tokens(), 3);
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        let cases: [Case; 22] = [
            ("population.epsilon is 0, accepted is a number above 0, or inf", |config| {
                config.population.epsilon = 0.0;
            }),
            ("population.epsilon is NaN, accepted", |config| config.population.epsilon = f64::NAN),
            ("population.delta is 1, accepted is a number above 0, below 1", |config| {
                config.population.delta = 1.0;
            }),
            ("names is empty, accepted is a list", |config| config.names.clear()),
            ("names is a list with \"a b\", accepted", |config| config.names.push("a b".to_owned())),
            ("tokens is 20001, accepted", |config| config.tokens = 20_001),
            ("model.architecture is \"resnet\", accepted is softmax:", |config| {
                config.model.architecture = "resnet".to_owned();
            }),
            ("model.architecture is 10000010, accepted is", |config| {
                config.model.architecture = "softmax:1000000x10".to_owned();
            }),
            ("task.name is , accepted is a name", |config| config.task.name.clear()),
            ("task.rounds is 0, accepted is 1 to", |config| config.task.rounds = 0),
            ("task.phase_seconds is 0, accepted is 1 to", |config| config.task.phase_seconds = 0),
            ("cohort.minimum is 1, accepted is 2 to", |config| config.cohort.minimum = 1),
            ("privacy.epsilon is NaN, accepted is", |config| config.privacy.epsilon = f64::NAN),
            ("privacy.epsilon is 0, accepted is a finite number above 0", |config| {
                config.privacy.epsilon = 0.0;
            }),
            ("privacy.clip_norm is 0, accepted is", |config| config.privacy.clip_norm = 0.0),
            ("privacy.noise_multiplier is 0, accepted is", |config| config.privacy.noise_multiplier = 0.0),
            ("privacy.resolution is 0, accepted is", |config| config.privacy.resolution = 0),
            ("privacy.placement is here, accepted is", |config| config.privacy.placement = "here".to_owned()),
            ("privacy.mechanism is loud, accepted is", |config| config.privacy.mechanism = "loud".to_owned()),
            ("privacy.delta is 1, accepted is a number above 0", |config| config.privacy.delta = 1.0),
            (
                "privacy.delta is 0.006, accepted is a number above 0, at most 1/200 (one in cohort.clients)",
                |config| {
                    config.privacy.delta = 0.006;
                },
            ),
            (
                "privacy.delta is 0.004, accepted is a number above 0, at most 1/300 (one in tokens)",
                |config| {
                    (config.privacy.delta, config.tokens) = (0.004, 300);
                },
            ),
        ];
        for (expected, change) in cases {
            let error = refusal(change);
            assert!(error.starts_with(expected), "{error}");
        }
        let error = refusal(|config| config.server.assumed_byzantine = 5_000);
        assert!(error.starts_with("server.assumed_byzantine is 5000, accepted is 0 to"), "{error}");
    }

    #[test]
    fn a_quarantine_that_could_not_work_is_refused() {
        let cases: [Case; 9] = [
            (
                "cohort.assumed_malicious is 0, accepted is 1 or more with quarantine.mode automatic",
                |config| {
                    (config.quarantine.mode, config.cohort.assumed_malicious) = ("automatic".to_owned(), 0);
                },
            ),
            ("quarantine.mode is on, accepted is off, report or automatic", |config| {
                config.quarantine.mode = "on".to_owned();
            }),
            ("quarantine.false_alarm is 0, accepted is a number above 0, at most 0.5", |config| {
                config.quarantine.false_alarm = 0.0;
            }),
            ("quarantine.false_alarm is NaN, accepted", |config| config.quarantine.false_alarm = f64::NAN),
            ("quarantine.minimum_rounds is 0, accepted is 1 to 1000", |config| {
                config.quarantine.minimum_rounds = 0;
            }),
            ("quarantine.contact is ", |config| config.quarantine.contact = "a\nb".to_owned()),
            (
                "task plan: quarantine.mode automatic may take cohort.assumed_malicious 4 of 200 clients away, and \
                 cohort.minimum 198 would never be there",
                |config| {
                    (config.quarantine.mode, config.cohort.minimum) = ("automatic".to_owned(), 198);
                },
            ),
            (
                "task plan: quarantine.mode automatic would never name anyone: in 3 groups, 4 attackers can frame",
                |config| {
                    config.quarantine.mode = "automatic".to_owned();
                    let Aggregation { group_size, degree, threshold, min_survivors, .. } =
                        &mut config.aggregation;
                    (*group_size, *degree, *threshold, *min_survivors) = (59, 100, 40, 50);
                    config.server.assumed_byzantine = 1;
                },
            ),
            ("quarantine.mode is automatic, accepted is off, report (in mode insecure_plain", |config| {
                (config.task.mode, config.quarantine.mode) =
                    ("insecure_plain".to_owned(), "automatic".to_owned());
                (config.privacy.placement, config.server.rule) = ("local".to_owned(), "mda".to_owned());
            }),
        ];
        for (expected, change) in cases {
            let error = refusal(change);
            assert!(error.starts_with(expected), "{error}");
        }
        let mut config = CoordinatorConfig::default();
        config.quarantine.mode = "automatic".to_owned();
        config.check().unwrap();
    }

    #[test]
    fn errors_of_the_plan_name_the_line() {
        let text = "[cohort]\nclients = 200\nminimum = 201\n";
        let error = super::super::parse::<CoordinatorConfig>(Path::new("c.toml"), text).unwrap_err();
        assert_eq!(error.to_string(), "c.toml:3: cohort.minimum is 201, accepted is 2 to 200");
    }

    #[test]
    fn secrets_are_not_written_where_results_go() {
        let folder = tempfile::TempDir::new().unwrap();
        let config = |keys: &str, tokens: &str| CoordinatorConfig {
            out: folder.path().join("runs/one"),
            keys: folder.path().join(keys),
            tokens_dir: folder.path().join(tokens),
            ..CoordinatorConfig::default()
        };
        config("keys", "runs/one-tokens").check().unwrap();
        config("runs", "runs/two").check().unwrap();
        for inside in ["runs/one", "runs/one/keys", "runs/two/../one/keys", "./runs/./one/a/b"] {
            let error = config(inside, "tokens").check().unwrap_err().to_string();
            assert!(
                error.starts_with("keys is ") && error.ends_with("accepted is a folder outside of out"),
                "{error}"
            );
            assert!(config("keys", inside).check().unwrap_err().to_string().starts_with("tokens_dir is "));
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_into_the_output_folder_are_seen_through() {
        let folder = tempfile::TempDir::new().unwrap();
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        std::os::unix::fs::symlink(&out, folder.path().join("link")).unwrap();
        let keys = folder.path().join("link/keys");
        assert!(refusal(|config| (config.out, config.keys) = (out, keys)).starts_with("keys is "));
    }

    #[test]
    fn host_names() {
        for name in ["localhost", "127.0.0.1", "::1", "fl-1.example.org"] {
            assert!(is_host(name), "{name}");
        }
        for name in ["", "a..b", "a b", "https://a", "localhost:7443", "a_b"] {
            assert!(!is_host(name), "{name}");
        }
    }
}
