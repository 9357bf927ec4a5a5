//! Why a row was kept or set aside, in numbers that mean the same under every rule.
//!
//! Of rows `X = x₁ … xₙ` and their aggregate `a = F(X)`, each row `x` has
//!
//! ```text
//! distance   |x − a|
//! cosine     ⟨x, a⟩ / (|x| |a|)        nothing where x or a is zero
//! norm       |x|
//! z-score    (distance − m) / s        m is the median of all distances
//! influence  |F(X) − F(X without x)|   F with the same f, options and seed
//! ```
//!
//! The spread `s` is 1.4826 times the median of `|distance − m|`, which is the standard deviation where distances are
//! normal. Where more than half of the distances are equal that is zero, and `s` is 1.2533 times the mean of
//! `|distance − m|`; where all are equal, every z-score is 0 (Iglewicz, Hoaglin: "How to Detect and Handle Outliers",
//! 1993). Medians of an even number are midpoints. A z-score stays within ±[`MAX_Z_SCORE`].
//!
//! Rows are those that came in, before any pre-aggregator. What influence costs is bounded by
//! [`MAX_INFLUENCE_WORK`], or by what the caller of [`Rule::explain_within`] says; where there is none, [`NoInfluence`]
//! says why.

use super::options::Kind;
use super::rows::Rows;
use super::runner::Serial;
use super::{Aggregate, Rule, RuleError, Scalar};
use std::fmt;

/// Z-scores are cut to this magnitude, so that one is finite however narrow the spread.
pub const MAX_Z_SCORE: f64 = 1e6;

/// Most work that influence may take: the rule runs once for each of `n` rows, which is taken to cost
/// `n · (n² d + (1 + s) n³)` for dimension `d` and a rule that searches `s` subsets. At this limit it takes seconds.
pub const MAX_INFLUENCE_WORK: u64 = 1 << 32;

/// The median of absolute deviations of a normal variable, as a multiple that makes it the standard deviation.
const MEDIAN_TO_SIGMA: f64 = 1.4826;
/// The same for the mean of absolute deviations: √(π/2).
const MEAN_TO_SIGMA: f64 = 1.253_314;

/// What speaks for and against one row. All numbers are finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Explanation {
    /// Euclidean distance to the aggregate, in the unit of the rows.
    pub distance: f64,
    /// Cosine of the angle to the aggregate; none where one of the two is zero.
    pub cosine: Option<f64>,
    /// Euclidean norm, in the unit of the rows.
    pub norm: f64,
    /// By how many deviations `distance` is above the median of all rows' distances.
    pub z_score: f64,
    /// How far the aggregate would have been from where it is, had the row not been there.
    pub influence: Result<f64, NoInfluence>,
}

/// Why no influence was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoInfluence {
    /// With one row less the rule gives no guarantee for its f, and is not applied.
    TooFewRows,
    /// It would take more than [`MAX_INFLUENCE_WORK`], or than the caller allows.
    TooCostly,
    /// An option of the rule names rows by their index, which means another row when one is left out.
    RowsByIndex,
}

impl Rule {
    /// What speaks for and against each of `rows`, of which this rule made `aggregate` with the same `f`.
    ///
    /// # Panics
    /// If `aggregate` has another dimension than the rows.
    pub fn explain<S: Scalar>(
        &self,
        rows: Vec<Vec<S>>,
        f: usize,
        aggregate: &Aggregate,
    ) -> Result<Vec<Explanation>, RuleError> {
        self.explain_within(rows, f, aggregate, MAX_INFLUENCE_WORK)
    }

    /// The same, with influence only where it takes no more work than this, in the measure of [`MAX_INFLUENCE_WORK`];
    /// 0 is never.
    ///
    /// # Panics
    /// If `aggregate` has another dimension than the rows.
    pub fn explain_within<S: Scalar>(
        &self,
        rows: Vec<Vec<S>>,
        f: usize,
        aggregate: &Aggregate,
        most_work: u64,
    ) -> Result<Vec<Explanation>, RuleError> {
        let target = &aggregate.vector;
        let checked = Rows::check(&rows, &Serial)?;
        assert_eq!(checked.dimension(), target.len(), "the aggregate has the rows' dimension");
        let length = target.iter().map(|value| value * value).sum::<f64>().sqrt();
        let (distances, norms) = (checked.distances_to(target), checked.norms());
        let products = checked.products_with(target);
        let z_scores = z_scores(&distances);
        let influences = self.influences(rows, f, target, most_work);
        let numbers = distances.into_iter().zip(norms).zip(products).zip(z_scores).zip(influences);
        let explain = |((((distance, norm), product), z_score), influence)| Explanation {
            distance,
            cosine: cosine(product, norm * length),
            norm,
            z_score,
            influence,
        };
        Ok(numbers.map(explain).collect())
    }

    fn influences<S: Scalar>(
        &self,
        mut rows: Vec<Vec<S>>,
        f: usize,
        target: &[f64],
        most_work: u64,
    ) -> Vec<Result<f64, NoInfluence>> {
        let n = rows.len();
        if let Some(reason) = self.no_influence(n, target.len(), f, most_work) {
            return vec![Err(reason); n];
        }
        let without = |row: usize| {
            let left_out = rows.remove(row);
            let aggregate = self.aggregate(&rows, f);
            rows.insert(row, left_out);
            // What an option asks of the number of rows is the one thing that is not checked before.
            let Aggregate { vector, .. } = aggregate.map_err(|_| NoInfluence::TooFewRows)?;
            let squares = vector.iter().zip(target).map(|(one, other)| (one - other) * (one - other));
            Ok(squares.sum::<f64>().sqrt())
        };
        (0..n).map(without).collect()
    }

    fn no_influence(&self, n: usize, dimension: usize, f: usize, most_work: u64) -> Option<NoInfluence> {
        let names_rows = self.spec.about.options.iter().any(|option| match option.kind {
            Kind::Index => self.options.count_if_set(option.key).is_some(),
            Kind::Rows => self.options.rows(option.key).is_some(),
            _ => false,
        });
        if names_rows {
            return Some(NoInfluence::RowsByIndex);
        }
        if n <= self.minimum_rows(f) {
            return Some(NoInfluence::TooFewRows);
        }
        let subsets = (self.spec.needs.search)(n, f).saturating_add(1);
        let (n, d) = (n as u64, dimension as u64);
        let squared = n.saturating_mul(n);
        let search = subsets.saturating_mul(squared).saturating_mul(n);
        let run = squared.saturating_mul(d).saturating_add(search);
        (run.saturating_mul(n) > most_work).then_some(NoInfluence::TooCostly)
    }
}

impl Explanation {
    /// Why a row was set aside, as a sentence without a full stop: `rows` of them, which are called `noun`, as in
    /// "groups".
    pub fn reason(&self, rows: usize, noun: &str) -> String {
        let (distance, deviations) = (shown(self.distance), shown(self.z_score.abs()));
        let side = if self.z_score < 0.0 { "below" } else { "above" };
        format!("distance {distance} is {deviations} deviations {side} the median of {rows} {noun}")
    }
}

impl fmt::Display for NoInfluence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooFewRows => "with one row less there would be too few for the rule",
            Self::TooCostly => "the rule would have to run too often on too much",
            Self::RowsByIndex => "an option of the rule names rows by their index",
        })
    }
}

/// See the module documentation.
fn z_scores(distances: &[f64]) -> Vec<f64> {
    let centre = median(distances.to_vec());
    let deviations: Vec<f64> = distances.iter().map(|distance| (distance - centre).abs()).collect();
    let mean = deviations.iter().sum::<f64>() / deviations.len() as f64;
    let spread = match median(deviations) {
        0.0 => MEAN_TO_SIGMA * mean,
        median => MEDIAN_TO_SIGMA * median,
    };
    let z_score = |distance: &f64| match distance - centre {
        0.0 => 0.0,
        above => (above / spread).clamp(-MAX_Z_SCORE, MAX_Z_SCORE),
    };
    distances.iter().map(z_score).collect()
}

/// The middle value, or the midpoint of the two in the middle; `values` are not empty.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

/// None where the lengths are zero, or so small that their product is.
fn cosine(product: f64, lengths: f64) -> Option<f64> {
    lengths.is_normal().then(|| (product / lengths).clamp(-1.0, 1.0))
}

/// Two significant digits, or all of a whole number below a million.
fn shown(value: f64) -> String {
    let rounded: f64 = format!("{value:.1e}").parse().expect("a number reads back");
    match value {
        10.0..1e6 => format!("{value:.0}"),
        0.001..10.0 | 0.0 => rounded.to_string(),
        _ => format!("{rounded:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::robust::{PRE_AGGREGATORS, RULES};

    fn rule(name: &str) -> Rule {
        name.parse().unwrap()
    }

    fn explained(rule: &Rule, rows: &[Vec<f64>], f: usize) -> Vec<Explanation> {
        rule.explain(rows.to_vec(), f, &rule.aggregate(rows, f).unwrap()).unwrap()
    }

    /// Five rows around (1, 0), one far off.
    fn rows() -> Vec<Vec<f64>> {
        [[1.0, 0.0], [1.0, 0.5], [1.0, -0.5], [2.0, 0.0], [0.0, 0.0], [-3.0, 4.0]].map(Vec::from).into()
    }

    #[test]
    fn numbers_are_those_of_their_definitions() {
        let found = explained(&rule("mda"), &rows(), 1);
        // The first five rows are kept, and their mean is (1, 0); without row i, all others but the last.
        let distances = [0.0, 0.5, 0.5, 1.0, 1.0, f64::hypot(4.0, 4.0)];
        // Of the distances the median is 0.75, and of what they are off by 0.25: it is 0.75, 0.25, 0.25, 0.25, 0.25, 4.9.
        let z_scores = distances.map(|distance| (distance - 0.75) / (1.4826 * 0.25));
        let influences = [0.0, 0.125, 0.125, 0.25, 0.25];
        for (row, found) in found.iter().enumerate() {
            assert!((found.distance - distances[row]).abs() < 1e-12, "{row}: {found:?}");
            assert!((found.z_score - z_scores[row]).abs() < 1e-9, "{row}: {found:?}");
            let norm = f64::hypot(rows()[row][0], rows()[row][1]);
            assert!((found.norm - norm).abs() < 1e-12, "{row}: {found:?}");
            let cosine = (row != 4).then(|| rows()[row][0] / norm);
            assert_eq!(found.cosine.map(|c| (c * 1e9).round()), cosine.map(|c| (c * 1e9).round()), "{row}");
            if let Some(expected) = influences.get(row) {
                assert!((found.influence.unwrap() - expected).abs() < 1e-12, "{row}: {found:?}");
            }
        }
        // Without the one far off MDA drops one of the five: (2, 0) and (0, 0) are farthest apart, and the later goes.
        assert!((found[5].influence.unwrap() - 0.25).abs() < 1e-12);
    }

    #[test]
    fn a_reason_tells_distance_and_deviations() {
        let found = explained(&rule("mda"), &rows(), 1);
        assert_eq!(
            found[5].reason(6, "groups"),
            "distance 5.7 is 13 deviations above the median of 6 groups"
        );
        assert_eq!(found[0].reason(6, "clients"), "distance 0 is 2 deviations below the median of 6 clients");
        for (value, text) in [
            (0.0, "0"),
            (0.0421, "0.042"),
            (9.96, "10"),
            (10.4, "10"),
            (1234.5, "1234"),
            (1e6, "1e6"),
            (1.26e-7, "1.3e-7"),
        ] {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn deviations_are_counted_where_most_distances_are_equal() {
        assert_eq!(z_scores(&[2.0; 5]), [0.0; 5]);
        // Four of five are equal: the mean deviation is 1, and not the median, which is zero.
        let found = z_scores(&[3.0, 3.0, 3.0, 8.0, 3.0]);
        assert_eq!(found, [0.0, 0.0, 0.0, 5.0 / 1.253_314, 0.0]);
        assert_eq!(z_scores(&[7.0]), [0.0]);
        let narrow = z_scores(&[1.0, 1.0 + 1e-15, 1.0 - 1e-15, 1e100, -1e100]);
        assert_eq!((narrow[3], narrow[4]), (MAX_Z_SCORE, -MAX_Z_SCORE));
    }

    #[test]
    fn what_has_no_direction_has_no_cosine() {
        let found = explained(&rule("mean"), &[vec![1.0], vec![-1.0], vec![0.0]], 0);
        assert!(found.iter().all(|row| row.cosine.is_none()), "the aggregate is zero");
        let tiny = explained(&rule("mean"), &[vec![1e-200], vec![1e-200]], 0);
        assert!(tiny.iter().all(|row| row.cosine.is_none() && row.distance == 0.0), "{tiny:?}");
    }

    #[test]
    fn where_there_is_no_influence_the_reason_is_told() {
        let line = |n: usize| (0..n).map(|value| vec![value as f64]).collect::<Vec<_>>();
        let influences = |rule: &Rule, rows: &[Vec<f64>], f| {
            explained(rule, rows, f).iter().map(|row| row.influence).collect::<Vec<_>>()
        };
        // 2f + 1 rows are just enough, and one more is needed to leave one out.
        assert_eq!(influences(&rule("mda"), &line(5), 2), [Err(NoInfluence::TooFewRows); 5]);
        assert!(influences(&rule("mda"), &line(6), 2).iter().all(Result::is_ok));
        assert_eq!(influences(&rule("mean"), &line(1), 0), [Err(NoInfluence::TooFewRows)]);
        let all_agree = Rule::new("robust-learning-rate", &[], &[("threshold", "5")]).unwrap();
        assert_eq!(influences(&all_agree, &line(5), 1), [Err(NoInfluence::TooFewRows); 5]);
        assert_eq!(influences(&rule("monna"), &line(5), 1), [Err(NoInfluence::RowsByIndex); 5]);
        let history = Rule::new("foolsgold", &[], &[("history", "1;2;3")]).unwrap();
        assert_eq!(influences(&history, &line(3), 0), [Err(NoInfluence::RowsByIndex); 3]);
        // A subset search of 2^20 for each of 41 rows.
        let most = MAX_INFLUENCE_WORK;
        assert_eq!(rule("mda").no_influence(42, 1, 20, most), Some(NoInfluence::TooCostly));
        assert_eq!(rule("mean").no_influence(2_000, 100, 0, most), Some(NoInfluence::TooCostly));
        assert_eq!(rule("mda").no_influence(11, 1_000_000, 4, most), None);
        assert_eq!(rule("mean").no_influence(3, 1, 0, 0), Some(NoInfluence::TooCostly), "none is allowed");
        assert_eq!(
            rule("mda").no_influence(usize::MAX >> 44, usize::MAX, 1, most),
            Some(NoInfluence::TooCostly)
        );
    }

    #[test]
    fn every_rule_and_pre_aggregator_is_explained_in_finite_numbers() {
        let mut rules: Vec<Rule> = RULES.iter().filter_map(|spec| spec.about.name.parse().ok()).collect();
        rules.extend(PRE_AGGREGATORS.iter().map(|pre| Rule::new("median", &[pre.about.name], &[]).unwrap()));
        let large: Vec<Vec<f64>> = (0..9).map(|row| vec![1e100, 1e100 / f64::from(row + 1)]).collect();
        let tied: Vec<Vec<f64>> = (0..9).map(|row| vec![0.0, if row == 3 { 1.0 } else { 0.0 }]).collect();
        for rule in rules {
            for rows in [&large, &tied] {
                for (index, row) in explained(&rule, rows, 1).iter().enumerate() {
                    let numbers = [row.distance, row.norm, row.z_score, row.cosine.unwrap_or(0.0)];
                    assert!(numbers.iter().all(|number| number.is_finite()), "{rule} {index}: {row:?}");
                    assert!(
                        row.influence.is_ok_and(f64::is_finite) || rule.name() == "monna",
                        "{rule} {index}: {row:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_that_no_rule_takes_are_refused() {
        let rule = rule("mean");
        let aggregate = rule.aggregate(&[vec![0.0]], 0).unwrap();
        assert_eq!(rule.explain(Vec::<Vec<f64>>::new(), 0, &aggregate), Err(RuleError::NoRows));
        assert!(matches!(
            rule.explain(vec![vec![f64::NAN]], 0, &aggregate),
            Err(RuleError::OutOfRange { row: 0, .. })
        ));
    }
}
