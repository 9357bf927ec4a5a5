//! Options of rules and pre-aggregators: what each accepts, and the values that were set.
//!
//! Values arrive as text, from a command line or a configuration. [`Options`] holds them parsed and checked, so that a
//! rule reads numbers and never a string.

use super::rows::Rows;
use super::{MAX_MAGNITUDE, RuleError};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most characters of a value that an error message repeats.
const EXCERPT: usize = 60;

/// One option of a rule or pre-aggregator.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The name, as in `--set name=value`.
    pub key: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// What holds where it is not set.
    pub default: Fallback,
    /// What it does, in a few words.
    pub meaning: &'static str,
}

/// What an option accepts.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number above one bound, up to another.
    Number {
        /// The bound that it must exceed.
        above: f64,
        /// The largest value.
        most: f64,
    },
    /// A whole number between two bounds.
    Count {
        /// The smallest value.
        least: u64,
        /// The largest value.
        most: u64,
    },
    /// One of a few words.
    Word(&'static [&'static str]),
    /// The index of a row.
    Index,
    /// A number of rows, at least one.
    RowCount,
    /// A vector of the rows' dimension, or one of a few words.
    Vector(&'static [&'static str]),
    /// One vector for each row.
    Rows,
}

/// What holds where an option is not set.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// This value.
    Value(&'static str),
    /// Something that depends on the input, in words.
    Computed(&'static str),
    /// Nothing: it must be set.
    Required,
}

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// None of the steps has such an option.
    #[error("{steps} has no option {found:?}; accepted are {accepted}")]
    Unknown {
        /// The rule and pre-aggregators that were asked for.
        steps: String,
        /// The key found.
        found: String,
        /// Their keys.
        accepted: String,
    },
    /// Several of the steps have that option.
    #[error("option {found:?} belongs to more than one step; write {accepted}")]
    Ambiguous {
        /// The key found.
        found: String,
        /// The keys with their steps.
        accepted: String,
    },
    /// The option was set before.
    #[error("option {key:?} of {step} is set twice")]
    Twice {
        /// The rule or pre-aggregator.
        step: &'static str,
        /// The key.
        key: &'static str,
    },
    /// The option must be set.
    #[error("{step} needs the option {key}: {meaning}")]
    Missing {
        /// The rule or pre-aggregator.
        step: &'static str,
        /// The key.
        key: &'static str,
        /// What it is.
        meaning: &'static str,
    },
    /// The value is not accepted.
    #[error("option {key} of {step} is {found:?}, accepted is {accepted}")]
    Value {
        /// The rule or pre-aggregator.
        step: &'static str,
        /// The key.
        key: &'static str,
        /// The value found, cut where it is long.
        found: String,
        /// What is accepted.
        accepted: String,
    },
}

/// Checked values of the options of one rule or pre-aggregator. An option that is not set and has no fixed default is
/// absent.
#[derive(Clone, Debug)]
pub(super) struct Options {
    values: BTreeMap<&'static str, Value>,
    /// Those that do not hold a default.
    set: BTreeSet<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(f64),
    Count(u64),
    Word(&'static str),
    Rows(Vec<Vec<f64>>),
}

impl OptionSpec {
    pub(super) const fn number(key: &'static str, default: Fallback, meaning: &'static str) -> Self {
        Self { key, kind: Kind::Number { above: 0.0, most: MAX_MAGNITUDE }, default, meaning }
    }

    pub(super) const fn count(
        key: &'static str,
        least: u64,
        default: Fallback,
        meaning: &'static str,
    ) -> Self {
        Self { key, kind: Kind::Count { least, most: u32::MAX as u64 }, default, meaning }
    }

    pub(super) const fn word(
        key: &'static str,
        words: &'static [&'static str],
        meaning: &'static str,
    ) -> Self {
        Self { key, kind: Kind::Word(words), default: Fallback::Value(words[0]), meaning }
    }
}

/// By what holds, however it came to hold.
impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl Options {
    /// The options of `step`, which has those of `specs`, with `settings` laid over the defaults.
    pub(super) fn new(
        step: &'static str,
        specs: &'static [OptionSpec],
        settings: &[(&str, &str)],
    ) -> Result<Self, OptionError> {
        let mut values = BTreeMap::new();
        for &(key, text) in settings {
            let spec = specs.iter().find(|spec| spec.key == key).ok_or_else(|| OptionError::Unknown {
                steps: step.to_owned(),
                found: key.to_owned(),
                accepted: keys(specs),
            })?;
            let value = spec.kind.parse(text).ok_or_else(|| OptionError::Value {
                step,
                key: spec.key,
                found: excerpt(text),
                accepted: spec.kind.to_string(),
            })?;
            if values.insert(spec.key, value).is_some() {
                return Err(OptionError::Twice { step, key: spec.key });
            }
        }
        let set = values.keys().copied().collect();
        for spec in specs.iter().filter(|spec| !values.contains_key(spec.key)).collect::<Vec<_>>() {
            match spec.default {
                Fallback::Value(text) => {
                    values
                        .insert(spec.key, spec.kind.parse(text).expect("a default is of its option's kind"));
                }
                Fallback::Computed(_) => {}
                Fallback::Required => {
                    return Err(OptionError::Missing { step, key: spec.key, meaning: spec.meaning });
                }
            }
        }
        Ok(Self { values, set })
    }

    /// Whether the option is there, at its default.
    pub(super) fn has_default(&self, key: &str) -> bool {
        self.values.contains_key(key) && !self.set.contains(key)
    }

    /// Lays a whole number over an option's default.
    pub(super) fn put_count(&mut self, key: &'static str, count: u64) {
        self.values.insert(key, Value::Count(count));
    }

    /// Lays a vector over an option's default.
    pub(super) fn put_vector(&mut self, key: &'static str, vector: Vec<f64>) {
        self.values.insert(key, Value::Rows(vec![vector]));
    }

    /// Refuses what no rows would have told: an index or a vector that does not fit these.
    pub(super) fn fit(&self, specs: &[OptionSpec], rows: Rows) -> Result<(), RuleError> {
        let (n, d) = (rows.count(), rows.dimension());
        for OptionSpec { key, kind, .. } in specs {
            let (found, accepted) = match (kind, self.values.get(key)) {
                (Kind::Index, Some(Value::Count(index))) if *index >= n as u64 => {
                    (index.to_string(), format!("0 to {}", n - 1))
                }
                (Kind::RowCount, Some(Value::Count(count))) if *count > n as u64 => {
                    (count.to_string(), format!("1 to {n}"))
                }
                (Kind::Vector(_), Some(Value::Rows(vector))) if vector[0].len() != d => {
                    (format!("a vector of dimension {}", vector[0].len()), format!("dimension {d}"))
                }
                (Kind::Rows, Some(Value::Rows(rows))) if rows.len() != n => {
                    (format!("{} rows", rows.len()), format!("{n} rows"))
                }
                (Kind::Rows, Some(Value::Rows(rows))) => match rows.iter().find(|row| row.len() != d) {
                    Some(row) => (format!("a row of dimension {}", row.len()), format!("dimension {d}")),
                    None => continue,
                },
                _ => continue,
            };
            return Err(RuleError::Option { key, found, accepted });
        }
        Ok(())
    }

    /// A number that is set or has a fixed default.
    pub(super) fn number(&self, key: &str) -> f64 {
        self.number_if_set(key).expect("the option is a number with a default")
    }

    pub(super) fn number_if_set(&self, key: &str) -> Option<f64> {
        match self.values.get(key) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A whole number that is set or has a fixed default.
    pub(super) fn count(&self, key: &str) -> usize {
        self.count_if_set(key).expect("the option is a whole number with a default")
    }

    pub(super) fn count_if_set(&self, key: &str) -> Option<usize> {
        match self.values.get(key) {
            Some(Value::Count(count)) => Some(*count as usize),
            _ => None,
        }
    }

    /// A word that is set or the default, or the word in a vector's place.
    pub(super) fn word(&self, key: &str) -> Option<&'static str> {
        match self.values.get(key) {
            Some(Value::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// The vectors of [`Kind::Vector`], which has one, or [`Kind::Rows`].
    pub(super) fn rows(&self, key: &str) -> Option<&[Vec<f64>]> {
        match self.values.get(key) {
            Some(Value::Rows(rows)) => Some(rows),
            _ => None,
        }
    }
}

impl Kind {
    fn parse(self, text: &str) -> Option<Value> {
        let text = text.trim();
        let word = |words: &[&'static str]| words.iter().copied().find(|word| *word == text).map(Value::Word);
        match self {
            Self::Number { above, most } => {
                let number: f64 = text.parse().ok()?;
                (number > above && number <= most).then_some(Value::Number(number))
            }
            Self::Count { least, most } => {
                let count: u64 = text.parse().ok()?;
                (least..=most).contains(&count).then_some(Value::Count(count))
            }
            Self::Index => text.parse().ok().map(Value::Count),
            Self::RowCount => text.parse().ok().filter(|count| *count > 0).map(Value::Count),
            Self::Word(words) => word(words),
            Self::Vector(words) => word(words).or_else(|| Some(Value::Rows(vec![vector(text)?]))),
            Self::Rows => Some(Value::Rows(text.split(';').map(vector).collect::<Option<_>>()?)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { above, most } if *most == MAX_MAGNITUDE => {
                write!(out, "a number above {above}")
            }
            Self::Number { above, most } => write!(out, "a number above {above}, up to {most}"),
            Self::Count { least, most } if *most == u64::from(u32::MAX) => {
                write!(out, "a whole number, {least} or more")
            }
            Self::Count { least, most } => write!(out, "a whole number, {least} to {most}"),
            Self::Index => write!(out, "the index of a row, counted from 0"),
            Self::RowCount => write!(out, "a number of rows, 1 or more"),
            Self::Word(words) => write!(out, "{}", words.join(", ")),
            Self::Vector([]) => write!(out, "numbers with commas between them"),
            Self::Vector(words) => write!(out, "{}, or numbers with commas between them", words.join(", ")),
            Self::Rows => write!(out, "rows of numbers, with commas inside and semicolons between them"),
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(text) | Self::Computed(text) => out.pad(text),
            Self::Required => out.pad("must be set"),
        }
    }
}

/// The names of options, with commas between them.
pub(super) fn keys(specs: &[OptionSpec]) -> String {
    if specs.is_empty() {
        return "none".to_owned();
    }
    specs.iter().map(|spec| spec.key).collect::<Vec<_>>().join(", ")
}

/// Finite numbers with commas between them.
fn vector(text: &str) -> Option<Vec<f64>> {
    let number = |text: &str| text.trim().parse().ok().filter(|value: &f64| value.abs() <= MAX_MAGNITUDE);
    text.split(',').map(number).collect()
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
