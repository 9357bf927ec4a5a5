//! Byzantine-robust aggregation: one vector out of many, some of which lie.
//!
//! A [`Rule`] maps `n` rows of equal dimension, at most `f` of them arbitrary, to one vector that stays near
//! the honest rows. In `secagg` mode a row is the noised mean of a group, in `insecure_plain` mode one client's
//! update; the rules do not know which.
//!
//! ```text
//!            ┌ empty, ragged, not finite, too large ┐
//! rows, f ──►│ too few for f, or f too large        │──► rule ──► Aggregate { vector, kept, scores }
//!            └────────── RuleError ─────────────────┘
//! ```
//!
//! Invariants: input is checked before any rule reads it; a rule is a pure function of `(rows, f)`; sums are in
//! `f64`; ties go to the lower index. Every rule commutes with translation and positive scaling, and up to
//! rounding and ties with a permutation of the rows.
//!
//! Deliberately absent: weights (a weight that a client reports is a lever for it), state between rounds, and
//! randomness.

mod coordinate;
mod geometric_median;
mod krum;
mod minimum_diameter;

use std::{fmt, str::FromStr};

/// The largest magnitude that a rule accepts in a coordinate.
///
/// No trained update comes near it, and below it neither a sum nor a squared distance overflows.
pub const MAX_MAGNITUDE: f64 = 1e100;

/// A robust aggregation rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Mean of all rows. Tolerates no Byzantine row; the baseline that robust rules are compared with.
    Mean,
    /// Coordinate-wise median; for an even number of rows, the mean of the two middle values
    /// (Yin et al., ICML 2018).
    Median,
    /// Coordinate-wise mean without the `f` smallest and the `f` largest values (Yin et al., ICML 2018).
    TrimmedMean,
    /// The point with the least sum of Euclidean distances to the rows, by smoothed Weiszfeld iteration
    /// (Pillutla et al., IEEE TSP 2022).
    GeometricMedian,
    /// The row with the least sum of squared distances to its `n − f − 2` nearest others
    /// (Blanchard et al., NeurIPS 2017).
    Krum,
    /// Mean of the `n − f` rows with the best Krum scores (Blanchard et al., NeurIPS 2017).
    MultiKrum,
    /// Minimum diameter averaging: mean of the `n − f` rows with the least largest pairwise distance
    /// (Rousseeuw 1985; El Mhamdi et al., ICML 2018). An exact search, exponential in `f`, which is at most 20.
    Mda,
}

/// What a rule made of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The aggregate, of the rows' dimension and unit.
    pub vector: Vec<f64>,
    /// Indices of the rows that entered `vector`, ascending. Every row for the mean, the coordinate-wise
    /// rules and the geometric median, which weigh values rather than drop rows.
    pub kept: Vec<usize>,
    /// One score a row, larger is more suspicious: the Krum score (a sum of squared distances) for
    /// [`Rule::Krum`] and [`Rule::MultiKrum`], the Euclidean distance to `vector` otherwise.
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
        rule: Rule,
        /// The assumed number of Byzantine rows.
        f: usize,
        /// [`Rule::minimum_rows`] for that `f`.
        minimum: usize,
        /// The number of rows given.
        found: usize,
    },
    /// The exact search that the rule makes would take too long.
    #[error(
        "{rule} with f = {f} Byzantine rows would search up to 2^{f} branches; f may be at most {maximum}"
    )]
    SearchTooLarge {
        /// The rule asked for.
        rule: Rule,
        /// The assumed number of Byzantine rows.
        f: usize,
        /// The largest number searched.
        maximum: usize,
    },
}

/// A name that is no rule's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown rule {found:?}; accepted are {}", Rule::ALL.map(Rule::name).join(", "))]
pub struct UnknownRule {
    /// The name given.
    pub found: String,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 7] = [
        Self::Mean,
        Self::Median,
        Self::TrimmedMean,
        Self::GeometricMedian,
        Self::Krum,
        Self::MultiKrum,
        Self::Mda,
    ];

    /// The name in configurations, on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Median => "median",
            Self::TrimmedMean => "trimmed-mean",
            Self::GeometricMedian => "geometric-median",
            Self::Krum => "krum",
            Self::MultiKrum => "multi-krum",
            Self::Mda => "mda",
        }
    }

    /// One line for help texts.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Mean => "mean of all rows; one Byzantine row can move it anywhere",
            Self::Median => "median of each coordinate",
            Self::TrimmedMean => "mean of each coordinate without its f smallest and f largest values",
            Self::GeometricMedian => "point with the least sum of distances to the rows",
            Self::Krum => "the one row that is closest to its n-f-2 nearest others",
            Self::MultiKrum => "mean of the n-f rows that are closest to their n-f-2 nearest others",
            Self::Mda => "mean of the n-f rows with the least diameter (largest pairwise distance)",
        }
    }

    /// The least number of rows for which the rule withstands `f` Byzantine ones: 1 for the mean (which
    /// withstands none, whatever `f` says), `2f + 3` for Krum and Multi-Krum, `2f + 1` for the others.
    pub fn minimum_rows(self, f: usize) -> usize {
        let beyond_majority = match self {
            Self::Mean => return 1,
            Self::Median | Self::TrimmedMean | Self::GeometricMedian | Self::Mda => 1,
            Self::Krum | Self::MultiKrum => 3,
        };
        f.saturating_mul(2).saturating_add(beyond_majority)
    }

    /// Refuses what [`aggregate`](Self::aggregate) refuses whatever the rows hold: too few of them, or an `f` beyond
    /// an exact search.
    pub fn check_counts(self, rows: usize, f: usize) -> Result<(), RuleError> {
        let minimum = self.minimum_rows(f);
        if rows < minimum {
            return Err(RuleError::TooFewRows { rule: self, f, minimum, found: rows });
        }
        if self == Self::Mda && f > minimum_diameter::MAX_F {
            return Err(RuleError::SearchTooLarge { rule: self, f, maximum: minimum_diameter::MAX_F });
        }
        Ok(())
    }

    /// Aggregates `rows`, of which at most `f` are assumed Byzantine.
    ///
    /// Cost for `n` rows of dimension `d`: `O(n² d)` for the Krum rules, `O(n d)` an iteration for the geometric
    /// median, `O(d · n log n)` for the coordinate-wise rules, `O(n² d + 2^f n²)` at worst for minimum diameter
    /// averaging.
    pub fn aggregate(self, rows: &[Vec<f64>], f: usize) -> Result<Aggregate, RuleError> {
        check(rows)?;
        self.check_counts(rows.len(), f)?;
        Ok(match self {
            Self::Mean => from_every_row(coordinate::mean(rows), rows),
            Self::Median => from_every_row(coordinate::median(rows), rows),
            Self::TrimmedMean => from_every_row(coordinate::trimmed_mean(rows, f), rows),
            Self::GeometricMedian => from_every_row(geometric_median::geometric_median(rows), rows),
            Self::Krum => krum::select(rows, rows.len() - f - 2, 1),
            Self::MultiKrum => krum::select(rows, rows.len() - f - 2, rows.len() - f),
            Self::Mda => {
                let kept = minimum_diameter::select(rows, f);
                let vector = coordinate::mean_of(rows, kept.iter().copied());
                Aggregate { kept, ..from_every_row(vector, rows) }
            }
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Self, UnknownRule> {
        Self::ALL
            .into_iter()
            .find(|rule| rule.name() == name)
            .ok_or_else(|| UnknownRule { found: name.to_owned() })
    }
}

fn check(rows: &[Vec<f64>]) -> Result<(), RuleError> {
    let expected = rows.first().ok_or(RuleError::NoRows)?.len();
    if expected == 0 {
        return Err(RuleError::NoCoordinates);
    }
    for (row, values) in rows.iter().enumerate() {
        if values.len() != expected {
            return Err(RuleError::Ragged { row, found: values.len(), expected });
        }
        // The comparison is false for NaN, so that NaN counts as out of range.
        let in_range = |value: &f64| value.abs() <= MAX_MAGNITUDE;
        if let Some(coordinate) = values.iter().position(|value| !in_range(value)) {
            return Err(RuleError::OutOfRange { row, coordinate, value: values[coordinate] });
        }
    }
    Ok(())
}

fn from_every_row(vector: Vec<f64>, rows: &[Vec<f64>]) -> Aggregate {
    let scores = rows.iter().map(|row| squared_distance(row, &vector).sqrt()).collect();
    Aggregate { vector, kept: (0..rows.len()).collect(), scores }
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

#[cfg(test)]
mod tests;
