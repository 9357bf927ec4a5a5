//! The scenario file of `fedveil simulate`: what its keys mean.

use fedveil_aggregation::robust::GROUP_RULE_NAMES;
use fedveil_simulations::scenario::{ScenarioError, Spec};

use super::{Config, Invalid, Key, key, optional, optional_section, section};

/// What a number that differs between clients accepts.
const SPREAD: &str =
    "a number for all from 0 to 1e9, or { median = M, sigma = S } for a log-normal draw for each client";
/// Names of [`fedveil_simulations::algorithm::REGISTRY`].
const ALGORITHM_NAMES: &str = "fedsgd, fedavg, fedavgm, fedprox, fednova, scaffold, fedadagrad, fedadam, fedyogi, qfedavg, \
ditto, fedbn, fedper or fedbuff";

impl Config for Spec {
    const TITLE: &'static str = "A scenario for `fedveil simulate`.";
    const KEYS: &'static [Key] = &[
        key("name", "Name for people.", "1 to 64 bytes of text"),
        key(
            "seed",
            "Source of everything random: data split, attackers, drop-outs, training, keys, masks, noise.",
            "a whole number from 0 up",
        ),
        key(
            "rounds",
            "Rounds to run at most; fewer where the epsilon budget ends before.",
            "a whole number, 1 to 100000",
        ),
        key(
            "phase_seconds",
            "Virtual seconds that a client has for each phase of a round.",
            "a whole number, 1 to 86400",
        ),
        optional(
            "sweep",
            "Keys to go through, each with its values, as in \"privacy.epsilon\" = [1, 2, 4]; every combination is one run. A name \
             that is no key goes through settings, as in rule = [{ name = \"median\", \"robustness.rule\" = \"median\" }].",
            "a table of dotted keys in quotes, each with a list of values, and of names, each with a list of settings",
        ),
        section("population", "Who there is, and who takes part in a round."),
        key("population.clients", "Clients that there are.", "a whole number from 2 up"),
        optional(
            "population.cohort",
            "Clients of a round, drawn anew for each. Left out: all of them.",
            "a whole number, 2 to population.clients and at most 20000",
        ),
        optional(
            "population.minimum",
            "Clients without which a round does not start. Left out: nine in ten of the cohort, and as many as the robust \
             rule needs; half of the cohort in mode insecure_plain.",
            "a whole number, 2 to the cohort",
        ),
        optional(
            "population.check_in",
            "Clients that connect before a round, drawn from those who are there; its cohort is drawn from them. Left out: as \
             many as the cohort. More than that is over-selection.",
            "a whole number, the cohort to population.clients",
        ),
        key(
            "population.sampling",
            "How a cohort is drawn: as large as it can be (fixed), or each client by a coin of its own (poisson), which \
             amplifies privacy against readers of the models and wants privacy.placement = central.",
            "fixed or poisson",
        ),
        key(
            "population.assumed_malicious",
            "Colluding clients in the whole population that the privacy claim bears.",
            "a whole number, 0 to less than population.minimum",
        ),
        section("data", "The data. Which keys there are depends on its kind."),
        key(
            "data.kind",
            "Which data. The UCI digits are inside the program; the others are looked for in the folder of data.",
            "digits, mnist, fashion-mnist, emnist, cifar-10, shakespeare, idx, csv, leaf or text",
        ),
        key(
            "data.spectrum",
            "Of digits: 25 low frequencies of each image in place of its 64 pixels. Fewer parameters need less noise.",
            "true or false",
        ),
        key(
            "data.test_share",
            "Of digits, csv, text and shakespeare: share of the rows that no client holds, to measure with.",
            "a number above 0, below 1",
        ),
        optional(
            "data.split",
            "Of emnist: which of its parts.",
            "byclass, bymerge, balanced, letters, digits or mnist",
        ),
        optional(
            "data.sequence",
            "Of text and shakespeare: characters of a sequence.",
            "a whole number, 1 to 4096",
        ),
        optional(
            "data.folder",
            "Of idx and leaf: the folder that holds the files.",
            "a path below the folder of data",
        ),
        optional("data.classes", "Of idx: number of classes.", "a whole number, 2 to 256"),
        optional("data.mean", "Of idx: pixels become (byte / 255 - mean) / deviation.", "a finite number"),
        optional("data.deviation", "Of idx: see data.mean.", "a number above 0"),
        optional("data.path", "Of csv and text: the file.", "a path below the folder of data"),
        optional(
            "data.test",
            "Of csv: a file of rows to test with. Left out: data.test_share of the first one's rows.",
            "a path below the folder of data",
        ),
        optional("data.header", "Of csv: whether the first line names the columns.", "true or false"),
        optional(
            "data.label",
            "Of csv: the column of labels. Left out: the last one.",
            "the name of a column; its number from 1 where there is no header",
        ),
        optional("data.client", "Of csv: the column that says whose row it is.", "the name of a column"),
        optional(
            "data.standardise",
            "Of csv: bring every feature to mean 0 and variance 1, by all rows at once.",
            "true or false",
        ),
        optional(
            "data.speakers",
            "Of text: whether it is a play whose speakers are clients.",
            "true or false",
        ),
        section("partition", "How rows fall to clients. Which keys there are depends on its kind."),
        key(
            "partition.kind",
            "How: iid deals evenly; dirichlet, even-dirichlet and size-dirichlet draw classes or sizes; shards, pathological, \
             similarity and label-sort give each client few classes; power-law gives few clients most rows; natural asks the \
             data; draw lets every client draw its rows, for populations larger than the data.",
            "iid, dirichlet, even-dirichlet, size-dirichlet, power-law, shards, pathological, similarity, label-sort, \
             natural or draw",
        ),
        key(
            "partition.alpha",
            "Concentration of a Dirichlet draw: 0.1 gives most clients one or two classes, 100 is close to even.",
            "a number above 0",
        ),
        optional(
            "partition.min_size",
            "Least rows of a client, where sizes are drawn or natural.",
            "a whole number",
        ),
        optional(
            "partition.exponent",
            "Of power-law: sizes fall as rank to this power.",
            "a number from 0 up",
        ),
        optional("partition.per_client", "Of shards: shards of each client.", "a whole number from 1 up"),
        optional("partition.classes", "Of pathological: classes of each client.", "a whole number from 1 up"),
        optional(
            "partition.gamma",
            "Of similarity: share of the rows that is dealt evenly.",
            "a number from 0 to 1",
        ),
        optional("partition.rows", "Of draw: rows of each client.", "a whole number, 1 to all rows"),
        optional_section("shift", "How features differ between clients, whatever rows they hold."),
        optional(
            "shift.rotation",
            "Images are turned by an angle of up to so many degrees.",
            "a number, 0 to 180",
        ),
        optional(
            "shift.brightness",
            "A number of up to this is added to every feature of a client.",
            "a number, 0 to 100",
        ),
        optional("shift.noise", "Noise of up to this deviation is added to features.", "a number, 0 to 100"),
        optional_section(
            "hierarchy",
            "Regions between clients and a cloud: every region is a federation of its own, and a round of the cloud is some \
             rounds of each region. All other sections are about a region's rounds, but for rounds, which are the cloud's.",
        ),
        optional(
            "hierarchy.regions",
            "Regions, among which the clients are divided.",
            "a whole number, 2 to population.clients",
        ),
        optional(
            "hierarchy.rounds",
            "Rounds of a region in one round of the cloud.",
            "a whole number from 1 up",
        ),
        optional(
            "hierarchy.weights",
            "What a region counts for: as much as any other, or as many clients as are in it.",
            "uniform or clients",
        ),
        optional(
            "hierarchy.conditions",
            "The world between regions and the cloud. Left out: a perfect one.",
            "a table of network, compute, availability and faults, with the keys of these sections",
        ),
        section("model", "The model."),
        key(
            "model.architecture",
            "Kind and layer sizes: inputs, hidden units, classes.",
            "softmax, mlp, cnn, cnn-norm, resnet, gru, lstm or lora with its sizes, as in mlp:784x200x10, with at most 4194304 \
             parameters",
        ),
        section("training", "Training at the client, by SGD on its own data."),
        key("training.epochs", "Passes over the client's data in one round.", "a whole number, 1 to 1000"),
        key("training.batch_size", "Examples in one step.", "a whole number, 1 to 65536"),
        key("training.learning_rate", "Step size.", "a number above 0, up to 1000"),
        optional(
            "training.momentum",
            "Share of the last step's direction that stays, within one training.",
            "a number above 0, below 1",
        ),
        section(
            "algorithm",
            "What clients compute, and what becomes of it. docs/algorithms.md explains each.",
        ),
        key("algorithm.name", "The algorithm.", ALGORITHM_NAMES),
        optional(
            "algorithm.options",
            "Its options, as in { mu = 0.01 }. Those that are left out have their defaults.",
            "a table of names and values of docs/algorithms.md",
        ),
        section("aggregation", "Who sees what of an update."),
        key(
            "aggregation.mode",
            "secagg: the full cryptography, and the coordinator sees sums of groups. insecure_ideal: the same groups and noise, \
             summed in the clear, for large sweeps. insecure_plain: it sees every update, and the other keys of the section \
             say nothing.",
            "secagg, insecure_ideal or insecure_plain",
        ),
        key(
            "aggregation.protocol",
            "What is masked: the update itself, or the key under which it is encrypted; auto takes the cheaper one.",
            "auto, pairwise-mask or rlwe-two-layer",
        ),
        key(
            "aggregation.group_size",
            "Smallest size of a group when groups are formed.",
            "a whole number, 3 to the cohort",
        ),
        optional(
            "aggregation.degree",
            "Clients of its group with which each client shares masks. Left out: all of them.",
            "an even number, or one that makes every client of a group a neighbour of every other",
        ),
        optional(
            "aggregation.threshold",
            "Shamir threshold: neighbours that must help to recover a client's masks. Left out: two thirds of the group.",
            "a whole number, more than half of the neighbours, below aggregation.min_survivors",
        ),
        optional(
            "aggregation.min_survivors",
            "Clients whose update must be in a group's sum; the sum of a smaller group is withheld. Left out: five in six.",
            "a whole number, 3 to aggregation.group_size",
        ),
        optional(
            "aggregation.max_missing_reveals",
            "Clients that may leave while groups are drawn without the round being refused. Left out: up to 2, if there are \
             clients to spare.",
            "a whole number, 0 to a tenth of population.minimum",
        ),
        key("aggregation.masks", "Generator of the masks.", "aes-256-ctr or chacha20"),
        key(
            "aggregation.break_probability",
            "Accepted probability that the coordinator and population.assumed_malicious clients see anyone's update.",
            "a number from 0, below 1; 0 where chance must not decide",
        ),
        section("privacy", "Differential privacy of each client's whole data."),
        key(
            "privacy.placement",
            "Who adds the noise: the clients of a group together (distributed, mode secagg), each all of it (local), or the \
             coordinator, to the sum (central, mode insecure_plain), or nobody (insecure_none, mode insecure_plain).",
            "distributed, local, central or insecure_none",
        ),
        key("privacy.mechanism", "Distribution of the noise.", "discrete-gaussian or skellam"),
        key(
            "privacy.clip_norm",
            "L2 bound on a client's update, in units of the model's parameters.",
            "a number above 0, or \"infinite\" where there is no noise",
        ),
        key(
            "privacy.resolution",
            "Integer steps in one clip norm: how finely updates are rounded.",
            "a whole number above 0, as far as a group sum fits 32 bits",
        ),
        key(
            "privacy.epsilon",
            "Epsilon at which the task stops; the noise is sized so that all rounds together cost no more. Infinite: no noise.",
            "a number above 0, or \"infinite\"",
        ),
        key(
            "privacy.delta",
            "Delta of that epsilon.",
            "a number above 0, at most one in the number of clients",
        ),
        optional(
            "privacy.noise_multiplier",
            "Standard deviation of the noise that is counted in one sum, in clip norms. Left out: what privacy.epsilon asks for.",
            "a number from 0.001 to 1e6",
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
        optional_section(
            "privacy.correlated_noise",
            "Noise that later rounds partly take back (DP-FTRL), with privacy.placement = central.",
        ),
        optional(
            "privacy.correlated_noise.matrix",
            "How the noise of a round depends on that of earlier ones.",
            "toeplitz, or banded-toeplitz with privacy.correlated_noise.bands",
        ),
        optional(
            "privacy.correlated_noise.bands",
            "Diagonals of the banded matrix; min_separation is a good number.",
            "a whole number, 1 to rounds; nothing with toeplitz",
        ),
        optional(
            "privacy.correlated_noise.min_separation",
            "Least difference between the numbers of two rounds that a client takes part in.",
            "a whole number, 1 to rounds",
        ),
        optional(
            "privacy.correlated_noise.max_participations",
            "Most rounds that a client takes part in.",
            "a whole number, 1 to rounds",
        ),
        section("robustness", "The Byzantine-robust rule, over group means or single updates."),
        key("robustness.rule", "The rule; `fedveil robust list` explains them.", GROUP_RULE_NAMES),
        key(
            "robustness.pre",
            "Pre-aggregators, which make rows of rows before the rule, in order.",
            "a list of names of `fedveil robust list`, as in [\"clip\", \"nnm\"]",
        ),
        optional(
            "robustness.options",
            "Options of the rule and the pre-aggregators, as in { c = 1.5 }; \"clip.c\" where several have the option.",
            "a table of names and values of `fedveil robust list`, but for seeds, which each round draws",
        ),
        key(
            "robustness.assumed_byzantine",
            "Poisoned groups, or poisoned clients in mode insecure_plain, that the rule is set to bear.",
            "a whole number, as far as there are rows: most rules want 2f + 1, see `fedveil robust list`",
        ),
        key(
            "robustness.influence",
            "Whether the coordinator says of each row how far the aggregate would have been without it. In mode insecure_plain \
             that runs the rule once more for each client, and may be left out.",
            "true; or false in mode insecure_plain",
        ),
        section("attackers", "Poisoned clients: they ignore the clip and send what they like."),
        key(
            "attackers.clients",
            "How many clients of the population are poisoned.",
            "a whole number from 0 up",
        ),
        key(
            "attackers.attack",
            "What they send; `fedveil robust attacks` explains it.",
            "a name of `fedveil robust attacks`",
        ),
        optional(
            "attackers.strength",
            "How strong the attack is, in its own measure. Left out: as published, or loud.",
            "a finite number above 0, for attacks that have a strength",
        ),
        key(
            "attackers.knowledge",
            "Whose updates the poisoned know: those that they would have sent themselves (fellows), or what every honest client \
             of the round sends (all, mode insecure_plain), which is what the tables of many papers assume.",
            "fellows or all",
        ),
        key(
            "attackers.data",
            "Whose rows the poisoned hold: their part of the partition, or rows that are drawn from all (sample), while the \
             partition is over the honest.",
            "partition or sample",
        ),
        section("network", "What lies between clients and the coordinator, in virtual time."),
        key("network.latency_ms", "Time that a message takes besides its length.", SPREAD),
        key("network.up_kbit_per_second", "What a client sends in a second; 0 is no bound.", SPREAD),
        key("network.down_kbit_per_second", "What a client receives in a second; 0 is no bound.", SPREAD),
        key(
            "network.loss",
            "Probability with which a message is lost; who waits for it waits to the end of the phase.",
            "a number from 0 to 1",
        ),
        section("compute", "How fast clients are, in virtual time."),
        key("compute.training_ms", "Milliseconds that a client trains in a round.", SPREAD),
        key(
            "compute.variation",
            "How much one client's time varies between rounds: the standard deviation of its logarithm.",
            "a number from 0 to 10",
        ),
        key("compute.stragglers", "Share of the clients that are slower.", "a number from 0 to 1"),
        key("compute.slowdown", "How many times slower they are.", "a number from 1 to 1e6"),
        section("availability", "Who is there when. A client connects for a round if each of these says so."),
        key(
            "availability.probability",
            "Probability with which a client is there, drawn anew for each client and slot of time.",
            "a number from 0 to 1",
        ),
        key("availability.slot_minutes", "Minutes of a slot.", "a whole number, 1 to 1440"),
        optional(
            "availability.diurnal",
            "How that probability follows the day: it is multiplied by 1 at the peak and by 1 - amplitude twelve hours from it.",
            "a table, as in { amplitude = 0.8, peak_hour = 3.0, zones_hours = 6.0 }",
        ),
        optional(
            "availability.trace",
            "File of the times at which clients are there: a line for each client, of intervals from-to in seconds.",
            "a path, from the scenario's folder",
        ),
        section("faults", "What breaks."),
        key(
            "faults.client_crash",
            "Probability with which an honest client of a round vanishes in it, before a message drawn at random.",
            "a number from 0 to 1",
        ),
        key(
            "faults.coordinator_crashes",
            "Virtual seconds at which the coordinator crashes and starts again from its events.",
            "a list of numbers from 0 up",
        ),
        section("evaluation", "What is measured when, outside of the protocol."),
        key(
            "evaluation.every",
            "Rounds from one measurement of the global model to the next; the last round is always measured.",
            "a whole number from 1 up",
        ),
        key(
            "evaluation.clients",
            "Honest clients whose own data the model is measured on besides, for the spread and the worst tenth.",
            "a whole number, 0 to population.clients",
        ),
    ];

    fn check(&self) -> Result<(), Invalid> {
        self.plan().map(drop).map_err(|error| match error {
            ScenarioError::Key { key, found, accepted } => Invalid::value(key, found, accepted),
            ScenarioError::Section { section, reason } => Invalid::of(section, reason),
            other => Invalid::inconsistent(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedveil_simulations::algorithm::REGISTRY;

    #[test]
    fn every_algorithm_is_named() {
        let names: Vec<&str> =
            ALGORITHM_NAMES.split([',', ' ']).filter(|word| !["", "or"].contains(word)).collect();
        let mut registered = REGISTRY.map(|algorithm| algorithm.name);
        let mut listed = names.clone();
        registered.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, registered);
    }
}
