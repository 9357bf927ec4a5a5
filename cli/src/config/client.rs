//! The client's file: which coordinator it joins, where it keeps its keys, its data, and what its owner allows.

use std::path::PathBuf;

use fedveil_client_core::Policy;
use serde::{Deserialize, Serialize};

use super::{Config, CoordinatorConfig, Invalid, Key, key, section};

/// Names that the data inside the binary goes by.
const SOURCES: [&str; 1] = ["digits"];

/// The configuration of `fedveil client`; [`Config::KEYS`] says what each key means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientConfig {
    pub(crate) url: String,
    pub(crate) token_file: PathBuf,
    pub(crate) name: String,
    pub(crate) keys: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) data: DataSection,
    pub(crate) policy: Policy,
}

/// The client's own data: one shard of a dataset that is dealt to all clients by a Dirichlet distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataSection {
    pub(crate) source: String,
    pub(crate) clients: u32,
    pub(crate) index: u32,
    pub(crate) alpha: f64,
    pub(crate) seed: u64,
}

impl Default for ClientConfig {
    fn default() -> Self {
        let clients = CoordinatorConfig::default().cohort.clients;
        Self {
            url: "https://127.0.0.1:7443".to_owned(),
            token_file: "join.token".into(),
            name: "client".to_owned(),
            keys: "client/keys".into(),
            state: "client/record.json".into(),
            data: DataSection { source: SOURCES[0].to_owned(), clients, index: 0, alpha: 1.0, seed: 1 },
            policy: Policy::default(),
        }
    }
}

impl Config for ClientConfig {
    const TITLE: &'static str = "Configuration of `fedveil client`.";
    const KEYS: &'static [Key] = &[
        key("url", "Address of the coordinator.", "a URL, https://HOST:PORT"),
        key(
            "token_file",
            "File with the join token; read at the first start only, to enrol.",
            "a file with one token of the coordinator",
        ),
        key("name", "Name of this client in the coordinator's registry.", "1 to 64 bytes of text"),
        key("keys", "Folder of the private keys; they never leave it.", "a folder that can be written"),
        key(
            "state",
            "File that remembers what was joined, spent and verified.",
            "a file in a folder that can be written",
        ),
        section("data", "This client's data: one shard of a dataset inside the binary, by label skew."),
        key("data.source", "The dataset.", "digits"),
        key("data.clients", "Shards that the dataset is dealt to.", "a whole number above 0"),
        key("data.index", "The shard of this client.", "a whole number, 0 to less than data.clients"),
        key(
            "data.alpha",
            "Concentration of the Dirichlet distribution: 0.1 gives a client few classes, 100 an even mix.",
            "a number above 0",
        ),
        key("data.seed", "Seed of the deal, the same for all clients.", "a whole number from 0"),
        section("policy", "What the owner of this client allows; a plan beyond it is refused."),
        key(
            "policy.max_epsilon",
            "Largest epsilon that a task may spend on this client, over all its rounds.",
            "a number above 0",
        ),
        key("policy.max_delta", "Largest delta of that epsilon.", "a number above 0, below 1"),
        key(
            "policy.max_total_epsilon",
            "Largest epsilon of all that ever leaves this client, in every task; one of 14.3 twice is 23.7, not 28.6.",
            "a number above 0; the smallest ones take part in nothing",
        ),
        key("policy.max_total_delta", "The delta of that epsilon.", "a number above 0, below 1"),
        key(
            "policy.max_break_probability",
            "Largest probability that the coordinator and as many colluders as a plan assumes see this client's update.",
            "a number from 0, below 1; 0 where chance must not decide",
        ),
        key(
            "policy.max_example_epsilon",
            "Largest epsilon that a task may spend on one of this client's examples; inf asks for no such privacy.",
            "a number above 0, or inf",
        ),
        key(
            "policy.min_survivors",
            "Fewest clients whose updates are summed before anyone sees anything.",
            "a whole number from 2",
        ),
        key(
            "policy.min_colluders_to_break",
            "Fewest neighbours of a client that would have to collude with the coordinator to see its update.",
            "a whole number from 1",
        ),
        key(
            "policy.allow_insecure_plain",
            "Whether the coordinator may see this client's updates by themselves (plans of mode insecure_plain). Then the two \
             limits above say nothing.",
            "true or false",
        ),
        key(
            "policy.allow_insecure_no_noise",
            "Whether a plan may have no noise at all (privacy.placement = insecure_none). Then no limit on epsilon holds for \
             such a plan, and after it no plan with noise fits a finite policy.max_total_epsilon: epsilon is infinite.",
            "true or false",
        ),
        key(
            "policy.allow_insecure_simulated",
            "Whether a plan may be a simulation, whose keys and noise follow from a seed that others may know. Then nothing that \
             this client sends is private.",
            "true or false",
        ),
    ];

    fn check(&self) -> Result<(), Invalid> {
        let Self { url, name, data, policy, .. } = self;
        let authority = url.strip_prefix("https://").unwrap_or_default();
        let values = [
            ("url", format!("{url:?}"), !authority.is_empty() && !authority.contains(char::is_whitespace)),
            ("name", format!("{name:?}"), (1..=64).contains(&name.len())),
            ("data.source", format!("{:?}", data.source), SOURCES.contains(&data.source.as_str())),
            ("data.clients", data.clients.to_string(), data.clients > 0),
            ("data.index", data.index.to_string(), data.index < data.clients),
            ("data.alpha", data.alpha.to_string(), data.alpha > 0.0 && data.alpha.is_finite()),
            ("policy.max_epsilon", policy.max_epsilon.to_string(), policy.max_epsilon > 0.0),
            (
                "policy.max_delta",
                policy.max_delta.to_string(),
                policy.max_delta > 0.0 && policy.max_delta < 1.0,
            ),
            (
                "policy.max_total_epsilon",
                policy.max_total_epsilon.to_string(),
                policy.max_total_epsilon > 0.0,
            ),
            (
                "policy.max_total_delta",
                policy.max_total_delta.to_string(),
                policy.max_total_delta > 0.0 && policy.max_total_delta < 1.0,
            ),
            (
                "policy.max_break_probability",
                policy.max_break_probability.to_string(),
                (0.0..1.0).contains(&policy.max_break_probability),
            ),
            (
                "policy.max_example_epsilon",
                policy.max_example_epsilon.to_string(),
                policy.max_example_epsilon > 0.0,
            ),
            ("policy.min_survivors", policy.min_survivors.to_string(), policy.min_survivors >= 2),
            (
                "policy.min_colluders_to_break",
                policy.min_colluders_to_break.to_string(),
                policy.min_colluders_to_break >= 1,
            ),
        ];
        for (path, found, holds) in values {
            if !holds {
                return Err(Self::refused(path, found));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How the message begins, and the change that it refuses.
    type Case = (&'static str, fn(&mut ClientConfig));

    #[test]
    fn defaults_fit_the_coordinators() {
        let config = ClientConfig::default();
        config.check().unwrap();
        let coordinator = CoordinatorConfig::default();
        assert_eq!(config.url, format!("https://{}", coordinator.listen));
        assert!(config.policy.max_epsilon >= coordinator.privacy.epsilon);
        assert!(config.policy.max_delta >= coordinator.privacy.delta);
        assert!(config.policy.max_total_epsilon >= config.policy.max_epsilon);
        assert!(config.policy.max_break_probability >= coordinator.aggregation.break_probability);
        assert!(config.policy.min_survivors <= coordinator.aggregation.min_survivors);
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        let cases: [Case; 14] = [
            ("url is \"http://a\", accepted is a URL, https://", |config| config.url = "http://a".to_owned()),
            ("url is \"https://\", accepted", |config| config.url = "https://".to_owned()),
            ("name is \"\", accepted is 1 to 64", |config| config.name.clear()),
            ("data.source is \"faces\", accepted is digits", |config| {
                config.data.source = "faces".to_owned();
            }),
            ("data.clients is 0, accepted", |config| config.data.clients = 0),
            ("data.index is 200, accepted is a whole number, 0 to less", |config| config.data.index = 200),
            ("data.alpha is NaN, accepted is a number above 0", |config| config.data.alpha = f64::NAN),
            ("policy.max_epsilon is 0, accepted is a number above 0", |config| {
                config.policy.max_epsilon = 0.0;
            }),
            ("policy.max_delta is 1, accepted is a number above 0, below 1", |config| {
                config.policy.max_delta = 1.0;
            }),
            ("policy.max_total_epsilon is 0, accepted is a number above 0", |config| {
                config.policy.max_total_epsilon = 0.0;
            }),
            ("policy.max_total_delta is NaN, accepted is a number above 0, below 1", |config| {
                config.policy.max_total_delta = f64::NAN;
            }),
            ("policy.max_break_probability is 1, accepted is a number from 0, below 1", |config| {
                config.policy.max_break_probability = 1.0;
            }),
            ("policy.max_example_epsilon is NaN, accepted is a number above 0, or inf", |config| {
                config.policy.max_example_epsilon = f64::NAN;
            }),
            ("policy.min_survivors is 1, accepted is a whole number from 2", |config| {
                config.policy.min_survivors = 1;
            }),
        ];
        for (expected, change) in cases {
            let mut config = ClientConfig::default();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
