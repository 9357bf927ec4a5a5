//! The one list of rules and pre-aggregators. Names, help texts, configurations and documents are made from it.

use super::options::{Fallback, OptionSpec, Options};
use super::{Aggregate, pre, rows::Rows, rules};
use std::fmt;

/// Every rule, the plain ones first.
pub static RULES: [RuleSpec; 20] = [
    rules::mean::SPEC,
    rules::median::SPEC,
    rules::trimmed_mean::SPEC,
    rules::meamed::SPEC,
    rules::geometric_median::SPEC,
    rules::geometric_median::RFA,
    rules::krum::SPEC,
    rules::krum::MULTI,
    rules::bulyan::SPEC,
    rules::mda::SPEC,
    rules::monna::SPEC,
    rules::centered_clipping::SPEC,
    rules::caf::SPEC,
    rules::smea::SPEC,
    rules::dnc::SPEC,
    rules::sign_guard::SPEC,
    rules::norm_bound::SPEC,
    rules::robust_learning_rate::SPEC,
    rules::fltrust::SPEC,
    rules::foolsgold::SPEC,
];

/// Every pre-aggregator.
pub static PRE_AGGREGATORS: [PreSpec; 4] =
    [pre::clip::SPEC, pre::arc::SPEC, pre::nnm::SPEC, pre::bucketing::SPEC];

/// What there is to say of a rule or a pre-aggregator.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The name in configurations, on the command line and in reports.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Its options.
    pub options: &'static [OptionSpec],
    /// Time for `n` rows of dimension `d`.
    pub cost: &'static str,
    /// Where it was published.
    pub source: &'static str,
}

/// A rule of the registry.
#[derive(Clone, Copy)]
pub struct RuleSpec {
    /// Name, options, cost, source.
    pub about: About,
    /// The share of Byzantine rows that it withstands, and how far that is proven.
    pub breakdown: &'static str,
    pub(super) needs: Needs,
    pub(super) run: fn(&Call) -> Aggregate,
}

/// What a rule needs of its rows.
#[derive(Clone, Copy)]
pub(super) struct Needs {
    /// Rows may be means of random groups.
    pub(super) group_means: bool,
    /// Rows and `f` are all it needs. If not, it has an option that no plan sets.
    pub(super) rows_alone: bool,
    pub(super) bound: fn(&Options) -> Bound,
    /// Subsets of `n` rows, `f` of them Byzantine, that an exact search may have to look at.
    pub(super) search: fn(n: usize, f: usize) -> u64,
}

/// A pre-aggregator of the registry: makes rows of rows, which are then aggregated by a rule.
#[derive(Clone, Copy)]
pub struct PreSpec {
    /// Name, options, cost, source.
    pub about: About,
    /// Rows that become one.
    pub(super) merges: fn(&Options) -> usize,
    pub(super) run: fn(&Call) -> Prepared,
}

/// The least number of rows for which a rule withstands `f` Byzantine ones: `per_byzantine · f + more`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Rows for each Byzantine one.
    pub per_byzantine: usize,
    /// Rows besides.
    pub more: usize,
}

/// What a rule or pre-aggregator is called with. The rows are checked, enough for `f`, and the options fit them.
pub(super) struct Call<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) f: usize,
    pub(super) options: &'a Options,
}

/// What a pre-aggregator makes.
pub(super) struct Prepared {
    pub(super) rows: Vec<Vec<f64>>,
    /// For each row that came in, the index of the one that it went into.
    pub(super) became: Vec<usize>,
}

impl Needs {
    /// A majority of honest rows, of whatever origin, and no search.
    pub(super) const COMMON: Self = Self {
        group_means: true,
        rows_alone: true,
        bound: |_| Bound { per_byzantine: 2, more: 1 },
        search: |_, _| 0,
    };
}

impl RuleSpec {
    /// Whether rows may be means of random groups. If not, the rule must know which client a row is from, or has an
    /// option that no plan sets.
    pub const fn takes_group_means(&self) -> bool {
        self.needs.group_means
    }

    /// Whether rows may be updates of clients, with no more than them to go by.
    pub const fn takes_client_updates(&self) -> bool {
        self.needs.rows_alone
    }

    /// The least number of rows with the options' defaults.
    pub fn bound(&self) -> Option<Bound> {
        Some((self.needs.bound)(&Options::new(self.about.name, self.about.options, &[]).ok()?))
    }
}

impl Bound {
    /// The least number of rows for `f` Byzantine ones.
    pub fn rows(self, f: usize) -> usize {
        self.per_byzantine.saturating_mul(f).saturating_add(self.more)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per_byzantine {
            0 => write!(out, "{}", self.more),
            1 => write!(out, "f + {}", self.more),
            many => write!(out, "{many}f + {}", self.more),
        }
    }
}

/// The names of the rules that take group means, with commas between them, as a text for constants.
pub const GROUP_RULE_NAMES: &str = {
    const LENGTH: usize = join(&mut [0; MAX_NAMES]);
    const BYTES: [u8; LENGTH] = {
        let mut long = [0; MAX_NAMES];
        join(&mut long);
        let (bytes, _) = long.split_first_chunk().expect("the names fit");
        *bytes
    };
    match std::str::from_utf8(&BYTES) {
        Ok(names) => names,
        Err(_) => panic!("names are ASCII"),
    }
};

const MAX_NAMES: usize = 1000;

/// Writes the names and returns their length together.
const fn join(into: &mut [u8; MAX_NAMES]) -> usize {
    let (mut rule, mut at) = (0, 0);
    while rule < RULES.len() {
        if RULES[rule].takes_group_means() {
            let separator = if at == 0 { "" } else { ", " };
            at = copy(separator.as_bytes(), into, at);
            at = copy(RULES[rule].about.name.as_bytes(), into, at);
        }
        rule += 1;
    }
    at
}

const fn copy(from: &[u8], into: &mut [u8; MAX_NAMES], at: usize) -> usize {
    let mut index = 0;
    while index < from.len() {
        into[at + index] = from[index];
        index += 1;
    }
    at + from.len()
}

pub(super) const fn value(text: &'static str) -> Fallback {
    Fallback::Value(text)
}
