//! Byzantine-robust aggregation: one vector out of many, some of which lie.
//!
//! A [`Rule`] maps `n` rows of equal dimension, at most `f` of them arbitrary, to one vector that stays near
//! the honest rows. In `secagg` mode a row is the noised mean of a group, in `insecure_plain` mode one client's
//! update. Pre-aggregators, of which a rule has any number, make rows of rows before it.
//!
//! ```text
//!            ┌ empty, ragged, not finite, too large ┐
//! rows, f ──►│ too few for f, or a search too large │──► pre ─► … ─► rule ──► Aggregate { vector, kept, scores }
//!            └────────── RuleError ─────────────────┘
//! ```
//!
//! Every rule and pre-aggregator is one file under `rules` or `pre` with its entry for the registry ([`RULES`],
//! [`PRE_AGGREGATORS`]): name, options, bound, cost, source. There is no other list.
//!
//! Invariants: input is checked before any rule reads it; a rule is a pure function of rows, `f` and options, which
//! hold the seed where it draws; sums are in `f64`; ties go to the lower index, or to the lower value where a rule
//! looks at the values of one coordinate.
//!
//! Deliberately absent: weights (a weight that a client reports is a lever for it) and state between rounds. A rule
//! with a memory takes it as an option.

mod explain;
pub mod grouping;
mod lanes;
mod options;
mod pre;
mod registry;
mod rows;
mod rules;
mod runner;
mod sampling;
mod sorting;
mod spectral;
pub mod suspects;

use std::{fmt, str::FromStr};

pub use explain::{Explanation, MAX_INFLUENCE_WORK, MAX_Z_SCORE, NoInfluence};
pub use options::{Fallback, Kind, OptionError, OptionSpec};
use options::{Options, keys};
use registry::Call;
pub use registry::{About, Bound, GROUP_RULE_NAMES, PRE_AGGREGATORS, PreSpec, RULES, RuleSpec};
pub use rows::Scalar;
use rows::{Rows, Statistic};
pub use runner::{Runner, Serial, Task};

/// The largest magnitude that a rule accepts in a coordinate.
///
/// No trained update comes near it, and below it neither a sum nor a squared distance overflows.
pub const MAX_MAGNITUDE: f64 = 1e100;

/// Subsets that an exact search may have to look at, at most.
pub const MAX_SEARCH: u64 = 1 << 20;

/// The option of steps that draw: what they draw from.
pub const SEED: &str = "seed";
/// The option of rules with a memory: what they start from.
const START: &str = "start";

/// A rule of the registry with its options, and the pre-aggregators before it.
#[derive(Clone)]
pub struct Rule {
    pre: Vec<(&'static PreSpec, Options)>,
    spec: &'static RuleSpec,
    options: Options,
}

/// What a rule made of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The aggregate, of the rows' dimension and unit.
    pub vector: Vec<f64>,
    /// Indices of the rows that entered `vector`, ascending. Every row for rules that weigh values rather than drop
    /// rows. A row that bucketing merged into another is kept with it.
    pub kept: Vec<usize>,
    /// One score a row, larger is more suspicious: what the rule itself sorts by, such as the Krum score, or the
    /// Euclidean distance to `vector` where a rule has no score of its own.
    pub scores: Vec<f64>,
}

/// Why a rule was not applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// There is nothing to aggregate.
    #[error("no rows to aggregate")]
    NoRows,
    /// The rows have dimension zero.
    #[error("rows have no coordinates")]
    NoCoordinates,
    /// A row has another dimension than the first one.
    #[error("row {row} has {found} coordinates, row 0 has {expected}")]
    Ragged {
        /// Index of the row.
        row: usize,
        /// Its dimension.
        found: usize,
        /// The dimension of row 0.
        expected: usize,
    },
    /// A value is NaN, infinite or beyond [`MAX_MAGNITUDE`].
    #[error(
        "row {row} holds {value} at coordinate {coordinate}; values must be finite, of magnitude at most {MAX_MAGNITUDE:e}"
    )]
    OutOfRange {
        /// Index of the row.
        row: usize,
        /// Index inside the row.
        coordinate: usize,
        /// The value found there.
        value: f64,
    },
    /// The rule gives no guarantee for so few rows.
    #[error("{rule} with f = {f} Byzantine rows needs at least {minimum} rows, found {found}")]
    TooFewRows {
        /// The rule asked for.
        rule: String,
        /// The assumed number of Byzantine rows.
        f: usize,
        /// [`Rule::minimum_rows`] for that `f`.
        minimum: usize,
        /// The number of rows given.
        found: usize,
    },
    /// The exact search that the rule makes would take too long.
    #[error(
        "{rule} with f = {f} Byzantine rows of {rows} may search {found} subsets, accepted are {MAX_SEARCH}"
    )]
    SearchTooLarge {
        /// The rule asked for.
        rule: String,
        /// The assumed number of Byzantine rows.
        f: usize,
        /// The number of rows.
        rows: usize,
        /// Subsets to search, at worst.
        found: u64,
    },
    /// An option does not fit the rows.
    #[error("option {key} is {found}, accepted is {accepted}")]
    Option {
        /// The option.
        key: &'static str,
        /// What it is.
        found: String,
        /// What fits.
        accepted: String,
    },
}

/// Why a rule with pre-aggregators and options cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// A name that is no rule's.
    #[error("unknown rule {found:?}; accepted are {}", RULES.each_ref().map(|rule| rule.about.name).join(", "))]
    Rule {
        /// The name given.
        found: String,
    },
    /// A name that is no pre-aggregator's.
    #[error("unknown pre-aggregator {found:?}; accepted are {}", PRE_AGGREGATORS.each_ref().map(|pre| pre.about.name).join(", "))]
    PreAggregator {
        /// The name given.
        found: String,
    },
    /// A setting is not accepted.
    #[error(transparent)]
    Option(#[from] OptionError),
}

impl Rule {
    /// The rule named `rule` after the pre-aggregators named `pre`, in their order, with `settings`.
    ///
    /// A setting is a key and a value. The key is an option's name, with the name of its step and a point before it
    /// (`clip.c`) where several steps have such an option.
    pub fn new(rule: &str, pre: &[&str], settings: &[(&str, &str)]) -> Result<Self, ChoiceError> {
        let spec = RULES
            .iter()
            .find(|spec| spec.about.name == rule)
            .ok_or_else(|| ChoiceError::Rule { found: rule.to_owned() })?;
        let pre = pre
            .iter()
            .map(|&name| {
                PRE_AGGREGATORS
                    .iter()
                    .find(|spec| spec.about.name == name)
                    .ok_or_else(|| ChoiceError::PreAggregator { found: name.to_owned() })
            })
            .collect::<Result<Vec<_>, _>>()?;

        let mut steps: Vec<About> = pre.iter().map(|pre| pre.about).collect();
        steps.push(spec.about);
        let owners = settings.iter().map(|(key, _)| owner(&steps, key)).collect::<Result<Vec<_>, _>>()?;
        let options_of = |about: &About| {
            let own = owners.iter().zip(settings).filter(|((step, _), _)| *step == about.name);
            let own: Vec<_> = own.map(|((_, key), (_, value))| (*key, *value)).collect();
            Options::new(about.name, about.options, &own)
        };
        let options = options_of(&spec.about)?;
        let pre = pre
            .into_iter()
            .map(|pre| Ok((pre, options_of(&pre.about)?)))
            .collect::<Result<_, OptionError>>()?;
        Ok(Self { pre, spec, options })
    }

    /// Whether the rule starts from its aggregate of the round before, which [`in_round`](Self::in_round) then wants.
    pub fn remembers(&self) -> bool {
        self.options.has_default(START)
    }

    /// The rule as it is in one of many rounds. Steps that draw do so from `seed`, which should be new and nobody's
    /// choice; a rule that [`remembers`](Self::remembers) starts from `last`, the aggregate of the round before, and in
    /// the first round as without it. What a setting fixed stays as it is.
    pub fn in_round(&self, seed: u64, last: Option<&[f64]>) -> Self {
        let mut rule = self.clone();
        let options = rule.pre.iter_mut().map(|(_, options)| options).chain([&mut rule.options]);
        for options in options.filter(|options| options.has_default(SEED)) {
            options.put_count(SEED, seed);
        }
        if let Some(last) = last.filter(|_| self.remembers()) {
            rule.options.put_vector(START, last.to_vec());
        }
        rule
    }

    /// The name of the rule alone.
    pub fn name(&self) -> &'static str {
        self.spec.about.name
    }

    /// Whether it is the plain mean, with nothing before it.
    pub fn is_mean(&self) -> bool {
        self.pre.is_empty() && self.name() == rules::mean::SPEC.about.name
    }

    /// The rule's entry in the registry.
    pub fn spec(&self) -> &'static RuleSpec {
        self.spec
    }

    /// The least number of rows for which the rule withstands `f` Byzantine ones.
    ///
    /// For most `2f + 1`, which is a bare majority; 1 for the mean, which withstands none, whatever `f` says.
    pub fn minimum_rows(&self, f: usize) -> usize {
        let needed = (self.spec.needs.bound)(&self.options).rows(f);
        self.pre.iter().rev().fold(needed, |needed, (pre, options)| {
            // Whatever the rule says, a pre-aggregator wants an honest row.
            needed
                .max(f.saturating_add(1))
                .saturating_sub(1)
                .saturating_mul((pre.merges)(options))
                .saturating_add(1)
        })
    }

    /// Refuses what [`aggregate`](Self::aggregate) refuses whatever the rows hold: too few of them, or an `f` beyond
    /// an exact search.
    pub fn check_counts(&self, rows: usize, f: usize) -> Result<(), RuleError> {
        let minimum = self.minimum_rows(f);
        if rows < minimum {
            return Err(RuleError::TooFewRows { rule: self.to_string(), f, minimum, found: rows });
        }
        let merged = self.pre.iter().fold(rows, |rows, (pre, options)| rows.div_ceil((pre.merges)(options)));
        let found = (self.spec.needs.search)(merged, f);
        if found > MAX_SEARCH {
            return Err(RuleError::SearchTooLarge { rule: self.to_string(), f, rows: merged, found });
        }
        Ok(())
    }

    /// Aggregates `rows`, of `f32` or `f64`, of which at most `f` are assumed Byzantine, on this thread.
    pub fn aggregate<S: Scalar>(&self, rows: &[Vec<S>], f: usize) -> Result<Aggregate, RuleError> {
        self.aggregate_on(&Serial, rows, f)
    }

    /// The same, on the threads of `runner`, which have no part in the result.
    pub fn aggregate_on<S: Scalar>(
        &self,
        runner: &dyn Runner,
        rows: &[Vec<S>],
        f: usize,
    ) -> Result<Aggregate, RuleError> {
        let rows = Rows::check(rows, runner)?;
        self.check_counts(rows.count(), f)?;
        let mut prepared: Option<Vec<Vec<f64>>> = None;
        let mut became: Vec<usize> = (0..rows.count()).collect();
        for (pre, options) in &self.pre {
            let rows = prepared.as_deref().map_or(rows, |prepared| rows.made(prepared));
            let step = (pre.run)(&Call { rows, f, options });
            for row in &mut became {
                *row = step.became[*row];
            }
            prepared = Some(step.rows);
        }
        let last = prepared.as_deref().map_or(rows, |prepared| rows.made(prepared));
        self.options.fit(self.spec.about.options, last)?;
        let Aggregate { vector, kept, scores } =
            (self.spec.run)(&Call { rows: last, f, options: &self.options });
        Ok(Aggregate {
            vector,
            kept: (0..rows.count()).filter(|&row| kept.binary_search(&became[row]).is_ok()).collect(),
            scores: became.iter().map(|&row| scores[row]).collect(),
        })
    }
}

/// The name of the step that an option belongs to, and the option's name.
fn owner<'a>(steps: &[About], key: &'a str) -> Result<(&'static str, &'a str), OptionError> {
    let has = |step: &&About, key: &str| step.options.iter().any(|option| option.key == key);
    if let Some((name, key)) = key.split_once('.')
        && let Some(step) = steps.iter().find(|step| step.name == name && has(step, key))
    {
        return Ok((step.name, key));
    }
    let mut names: Vec<_> = steps.iter().filter(|step| has(step, key)).map(|step| step.name).collect();
    names.dedup();
    match names[..] {
        [name] => Ok((name, key)),
        [] => Err(OptionError::Unknown {
            steps: steps.iter().map(|step| step.name).collect::<Vec<_>>().join(" + "),
            found: key.to_owned(),
            accepted: keys(&steps.iter().flat_map(|step| step.options).copied().collect::<Vec<_>>()),
        }),
        _ => Err(OptionError::Ambiguous {
            found: key.to_owned(),
            accepted: names.iter().map(|name| format!("{name}.{key}")).collect::<Vec<_>>().join(" or "),
        }),
    }
}

/// By names and options.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        let names = |rule: &Self| rule.to_string();
        let options = |rule: &Self| rule.pre.iter().map(|(_, options)| options.clone()).collect::<Vec<_>>();
        names(self) == names(other) && options(self) == options(other) && self.options == other.options
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self} ({:?}", self.options)?;
        self.pre.iter().try_for_each(|(_, options)| write!(out, ", {options:?}"))?;
        write!(out, ")")
    }
}

/// The names of the pre-aggregators and the rule in their order, as in `clip+nnm+trimmed-mean`.
impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.pre.iter().map(|(pre, _)| pre.about.name).chain([self.name()]);
        out.pad(&names.collect::<Vec<_>>().join("+"))
    }
}

/// A rule by its name, without pre-aggregators, its options at their defaults.
impl FromStr for Rule {
    type Err = ChoiceError;

    fn from_str(name: &str) -> Result<Self, ChoiceError> {
        Self::new(name, &[], &[])
    }
}

impl Aggregate {
    /// A vector that every row has a part in, scored by distance to it.
    fn of_every_row(rows: &Rows, vector: Vec<f64>) -> Self {
        Self { kept: (0..rows.count()).collect(), scores: rows.distances_to(&vector), vector }
    }

    /// A number for each coordinate, made of its values in ascending order; rows are scored by distance to them.
    fn of_columns(rows: &Rows, statistic: &impl Statistic) -> Self {
        let (vector, scores) = rows.per_column_with_distances(statistic);
        Self { kept: (0..rows.count()).collect(), scores, vector }
    }

    /// The mean of some rows, scored by distance to it.
    fn of_selected(rows: &Rows, kept: Vec<usize>) -> Self {
        let vector = rows.mean(&kept);
        Self { scores: rows.distances_to(&vector), vector, kept }
    }
}

#[cfg(test)]
mod tests;
