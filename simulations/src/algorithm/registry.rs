//! The one list of algorithms. Configurations, help texts and docs/algorithms.md are made from it.

use super::options::{Choice, OptionError, OptionSpec, Options};
use super::{Algorithm, buffered, nova, personal, plain, scaffold, sgd, weighted};
use fedveil_proto_plan::{Mode, PlanError, TaskPlan, Terms};
use std::fmt::{self, Write};
use std::sync::Arc;

/// Every algorithm, the simplest first.
pub static REGISTRY: [AlgorithmSpec; 14] = [
    sgd::SPEC,
    plain::FEDAVG,
    plain::FEDAVGM,
    plain::FEDPROX,
    nova::SPEC,
    scaffold::SPEC,
    plain::FEDADAGRAD,
    plain::FEDADAM,
    plain::FEDYOGI,
    weighted::QFEDAVG,
    buffered::SPEC,
    personal::DITTO,
    personal::FEDBN,
    personal::FEDPER,
];

/// What there is to say of an algorithm. For one of your own, make another of these.
#[derive(Clone, Copy)]
pub struct AlgorithmSpec {
    /// The name in configurations.
    pub name: &'static str,
    /// The name in the paper.
    pub title: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// What the server must see, with these options.
    pub needs: fn(&Options) -> Needs,
    /// The privacy that a plan may claim with it.
    pub units: &'static [Unit],
    /// Why no other privacy may be claimed; empty where all may.
    pub why_not: &'static str,
    /// Its options.
    pub options: &'static [OptionSpec],
    /// What a client keeps between its rounds.
    pub client_keeps: &'static str,
    /// What the server keeps besides the model.
    pub server_keeps: &'static str,
    /// Makes it.
    pub build: fn(&Options) -> Arc<dyn Algorithm>,
}

/// What the server must see of the clients' vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Their mean, or what a robust rule makes of group means: valid in every mode.
    Sums,
    /// Every one of them, for this reason: for mode `insecure_plain` alone.
    EveryUpdate(&'static str),
}

/// Whose data a plan protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Nobody's: placement `insecure_none`.
    None,
    /// Everything that one client holds.
    User,
    /// Each single example: `training.example_privacy`.
    Example,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 3] = [Self::None, Self::User, Self::Example];

    /// The name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::User => "user",
            Self::Example => "example",
        }
    }
}

/// Why an algorithm is not for a plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such algorithm.
    #[error("unknown algorithm {found:?}; accepted are {accepted}")]
    Unknown {
        /// The name found.
        found: String,
        /// The names there are.
        accepted: String,
    },
    /// An option is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The plan does not hold by itself.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The mode hides what the algorithm needs.
    #[error("algorithm {algorithm} is for mode insecure_plain, not {mode}: {reason}")]
    Mode {
        /// The algorithm.
        algorithm: &'static str,
        /// The plan's mode.
        mode: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The plan claims a privacy that the algorithm does not keep.
    #[error("algorithm {algorithm} is not for privacy unit {unit}: {reason}")]
    Unit {
        /// The algorithm.
        algorithm: &'static str,
        /// The unit that the plan claims.
        unit: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// Weights and a clip norm, which would bound their product.
    #[error("algorithm {algorithm} wants an infinite privacy.clip_norm, not {found}: {reason}")]
    Clip {
        /// The algorithm.
        algorithm: &'static str,
        /// The plan's clip norm.
        found: f64,
        /// Why.
        reason: &'static str,
    },
    /// The plan counts on cohorts that are drawn by coins, and the algorithm's are not.
    #[error(
        "algorithm {algorithm} is not for a plan with cohort.population ({found}): its cohorts are whoever has finished, \
         which no coin decides, so that sampling amplifies nothing"
    )]
    Sampling {
        /// The algorithm.
        algorithm: &'static str,
        /// The plan's population.
        found: u32,
    },
    /// The model is not one for it.
    #[error("algorithm {algorithm}: {reason}")]
    Model {
        /// The algorithm.
        algorithm: &'static str,
        /// Why.
        reason: String,
    },
}

/// The algorithm of that name.
pub fn find(name: &str) -> Result<&'static AlgorithmSpec, Refused> {
    REGISTRY.iter().find(|spec| spec.name == name).ok_or_else(|| Refused::Unknown {
        found: name.to_owned(),
        accepted: REGISTRY.map(|spec| spec.name).join(", "),
    })
}

impl Choice {
    /// The algorithm that was chosen.
    pub fn spec(&self) -> Result<&'static AlgorithmSpec, Refused> {
        find(&self.name)
    }
}

impl AlgorithmSpec {
    /// Checks options that were set.
    pub fn options(&self, choice: &Choice) -> Result<Options, Refused> {
        Ok(Options::new(self.name, self.options, &choice.options)?)
    }

    /// Refuses a plan whose mode or privacy the algorithm is not valid with, with the reason.
    pub fn check(&self, options: &Options, plan: &TaskPlan, terms: &Terms) -> Result<(), Refused> {
        let algorithm = self.name;
        if let Needs::EveryUpdate(reason) = (self.needs)(options) {
            if terms.mode != Mode::InsecurePlain {
                return Err(Refused::Mode { algorithm, mode: terms.mode.name(), reason });
            }
            if terms.guarantee.has_noise() {
                let reason =
                    "noise is sized for updates that are bounded, not for weights that clients report";
                return Err(Refused::Unit { algorithm, unit: Unit::User.name(), reason });
            }
            if plan.privacy.clip_norm.is_finite() {
                let reason =
                    "what is sent is an update times a weight, and clipping would bound the two as one";
                return Err(Refused::Clip { algorithm, found: plan.privacy.clip_norm, reason });
            }
        }
        let mut claimed = vec![if terms.guarantee.has_noise() { Unit::User } else { Unit::None }];
        claimed.extend(terms.example.is_some().then_some(Unit::Example));
        match claimed.into_iter().find(|unit| !self.units.contains(unit)) {
            Some(unit) => Err(Refused::Unit { algorithm, unit: unit.name(), reason: self.why_not }),
            None => Ok(()),
        }
    }

    /// The modes and units that it is valid with, in words.
    pub fn validity(&self) -> String {
        let needs =
            |choice: &Choice| self.options(choice).map_or(Needs::Sums, |options| (self.needs)(&options));
        let modes = match needs(&Choice::of(self.name)) {
            Needs::EveryUpdate(_) => "insecure_plain".to_owned(),
            Needs::Sums => {
                let words = self.options.iter().filter_map(|option| match option.kind {
                    super::Kind::Word(words) => Some((option.key, words)),
                    _ => None,
                });
                let narrower = words
                    .flat_map(|(key, words)| words.iter().map(move |word| (key, *word)))
                    .find(|(key, word)| needs(&Choice::of(self.name).with(key, *word)) != Needs::Sums);
                match narrower {
                    Some((key, word)) => format!("all; with {key} = {word} insecure_plain"),
                    None => "all".to_owned(),
                }
            }
        };
        let units: Vec<&str> = self.units.iter().map(|unit| unit.name()).collect();
        format!("{modes} | {}", units.join(", "))
    }
}

impl fmt::Debug for AlgorithmSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlgorithmSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The tables of docs/algorithms.md.
pub fn document() -> String {
    let mut text = String::from(
        "| name | algorithm | modes | privacy units | a client keeps | the server keeps | published in |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for spec in &REGISTRY {
        let AlgorithmSpec { name, title, paper, summary, client_keeps, server_keeps, .. } = spec;
        let validity = spec.validity();
        writeln!(
            text,
            "| `{name}` | {title}: {summary} | {validity} | {client_keeps} | {server_keeps} | {paper} |"
        )
        .expect("a string takes all");
    }
    text += "\n| algorithm | option | accepted | default | meaning |\n|---|---|---|---|---|\n";
    for spec in &REGISTRY {
        for option in spec.options {
            let (accepted, default) = (option.kind.accepted(), option.kind.default());
            let (name, key, meaning) = (spec.name, option.key, option.meaning);
            writeln!(text, "| `{name}` | `{key}` | {accepted} | {default} | {meaning} |")
                .expect("a string takes all");
        }
    }
    text
}
