//! Options of algorithms: what each accepts, and the values that were set.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// An algorithm by its name, and its options: `{ name = "fedprox", mu = 0.01 }` in a configuration.
///
/// Which keys there are depends on the name, so they are checked by the registry, not by serde; an unknown one is
/// refused with those that are accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Name in the registry.
    pub name: String,
    /// Options that are set; the others have their defaults.
    #[serde(flatten)]
    pub options: BTreeMap<String, Setting>,
}

impl Choice {
    /// The algorithm with all its defaults.
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), options: BTreeMap::new() }
    }

    /// The same with one option set.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Setting>) -> Self {
        self.options.insert(key.to_owned(), value.into());
        self
    }
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// A number; whole ones need no decimal point.
    Number(f64),
    /// One of the option's words.
    Word(String),
}

impl From<f64> for Setting {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Setting {
    fn from(value: &str) -> Self {
        Self::Word(value.to_owned())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => write!(f, "{word:?}"),
        }
    }
}

/// One option of an algorithm.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The key.
    pub key: &'static str,
    /// What it accepts, and what holds where it is not set.
    pub kind: Kind,
    /// What it does, in a few words.
    pub meaning: &'static str,
}

/// What an option accepts.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A finite number.
    Number {
        /// The least.
        least: f64,
        /// The greatest.
        most: f64,
        /// Where it is not set.
        default: f64,
    },
    /// A number as above, and not the least one.
    Above {
        /// What it must exceed.
        bound: f64,
        /// The greatest.
        most: f64,
        /// Where it is not set.
        default: f64,
    },
    /// A whole number.
    Count {
        /// The least.
        least: u32,
        /// The greatest.
        most: u32,
        /// Where it is not set.
        default: u32,
    },
    /// One of a few words, the first where it is not set.
    Word(&'static [&'static str]),
}

impl Kind {
    /// What is accepted, in words.
    pub fn accepted(self) -> String {
        match self {
            Self::Number { least, most, .. } => format!("a number from {least} to {most}"),
            Self::Above { bound, most, .. } => format!("a number above {bound}, up to {most}"),
            Self::Count { least, most, .. } => format!("a whole number from {least} to {most}"),
            Self::Word(words) => words.join(" or "),
        }
    }

    /// What holds where it is not set.
    pub fn default(self) -> String {
        match self {
            Self::Number { default, .. } | Self::Above { default, .. } => default.to_string(),
            Self::Count { default, .. } => default.to_string(),
            Self::Word(words) => words[0].to_owned(),
        }
    }

    fn takes(self, setting: &Setting) -> bool {
        match (self, setting) {
            (Self::Number { least, most, .. }, Setting::Number(value)) => (least..=most).contains(value),
            (Self::Above { bound, most, .. }, Setting::Number(value)) => *value > bound && *value <= most,
            (Self::Count { least, most, .. }, Setting::Number(value)) => {
                value.fract() == 0.0 && (f64::from(least)..=f64::from(most)).contains(value)
            }
            (Self::Word(words), Setting::Word(value)) => words.contains(&value.as_str()),
            _ => false,
        }
    }
}

/// Why an option was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// There is no such option.
    #[error("{algorithm} has no option {found:?}; accepted are {accepted}")]
    Unknown {
        /// The algorithm.
        algorithm: &'static str,
        /// The key found.
        found: String,
        /// Its keys.
        accepted: String,
    },
    /// The value is not accepted.
    #[error("option {key} of {algorithm} is {found}, accepted is {accepted}")]
    Value {
        /// The algorithm.
        algorithm: &'static str,
        /// The key.
        key: &'static str,
        /// The value.
        found: String,
        /// What it may be.
        accepted: String,
    },
}

/// Checked values of all options of an algorithm.
#[derive(Clone, Debug)]
pub struct Options {
    specs: &'static [OptionSpec],
    set: BTreeMap<&'static str, Setting>,
}

impl Options {
    /// Checks what is set against what there is.
    pub fn new(
        algorithm: &'static str,
        specs: &'static [OptionSpec],
        settings: &BTreeMap<String, Setting>,
    ) -> Result<Self, OptionError> {
        let mut set = BTreeMap::new();
        for (key, setting) in settings {
            let spec = specs.iter().find(|spec| spec.key == key).ok_or_else(|| {
                let keys: Vec<&str> = specs.iter().map(|spec| spec.key).collect();
                let accepted = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
                OptionError::Unknown { algorithm, found: key.clone(), accepted }
            })?;
            if !spec.kind.takes(setting) {
                let (found, accepted) = (setting.to_string(), spec.kind.accepted());
                return Err(OptionError::Value { algorithm, key: spec.key, found, accepted });
            }
            set.insert(spec.key, setting.clone());
        }
        Ok(Self { specs, set })
    }

    /// A number.
    ///
    /// # Panics
    /// Where the algorithm has no such option, or it is a word.
    pub fn number(&self, key: &str) -> f64 {
        match (self.set.get(key), self.spec(key).kind) {
            (Some(Setting::Number(value)), _) => *value,
            (_, Kind::Number { default, .. } | Kind::Above { default, .. }) => default,
            (_, Kind::Count { default, .. }) => f64::from(default),
            (_, Kind::Word(_)) => panic!("{key} is a word"),
        }
    }

    /// A whole number.
    ///
    /// # Panics
    /// Where the algorithm has no such option, or it is no count.
    pub fn count(&self, key: &str) -> u32 {
        assert!(matches!(self.spec(key).kind, Kind::Count { .. }), "{key} is no count");
        self.number(key) as u32
    }

    /// A word.
    ///
    /// # Panics
    /// Where the algorithm has no such option, or it is a number.
    pub fn word(&self, key: &str) -> &str {
        match (self.set.get(key), self.spec(key).kind) {
            (Some(Setting::Word(word)), _) => word,
            (_, Kind::Word(words)) => words[0],
            _ => panic!("{key} is a number"),
        }
    }

    fn spec(&self, key: &str) -> &'static OptionSpec {
        let spec = self.specs.iter().find(|spec| spec.key == key);
        spec.expect("an algorithm reads options that it has")
    }
}
