//! What each key of the coordinator's file means, and which values it accepts.

use fedveil_aggregation::robust::GROUP_RULE_NAMES;

use crate::config::{Key, key, optional, optional_section, section};

pub(super) const KEYS: &[Key] = &[
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
    optional("training.momentum", "Momentum of the client's steps.", "nothing, or a number from 0, below 1"),
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
    section("privacy", "Differential privacy of each client's whole data (user level, zero-out adjacency)."),
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
    key("privacy.delta", "Delta of that epsilon.", "a number above 0, at most one in the number of clients"),
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
