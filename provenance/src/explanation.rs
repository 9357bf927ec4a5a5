//! The numbers behind a decision of the robust rule, as they are signed.
//!
//! They are computed of what the coordinator saw: the noised sums of groups, or single updates that their clients had
//! noised. Where noise is added to the sum of all there is no decision about one of them, and none of these numbers.

use crate::manifest::ManifestError;
use serde::{Deserialize, Serialize};

/// What speaks for and against one row of the robust rule, each number to [`SIGNIFICANT_DIGITS`].
///
/// A row is the mean of a group, or a client's update in mode `insecure_plain`. Lengths are in the unit of the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// Euclidean distance to what the rule made of all rows.
    pub distance: f64,
    /// Cosine of the angle to it; none where one of the two is zero.
    pub cosine: Option<f64>,
    /// Euclidean norm.
    pub norm: f64,
    /// By how many robust standard deviations the distance is above the median of all rows' distances.
    pub z_score: f64,
    /// How far what the rule made would have been from where it is without the row.
    pub influence: Influence,
}

/// The influence of a row, a number, or in one word why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Influence {
    /// Euclidean distance.
    Moves(f64),
    /// Not computed.
    Unknown(NoInfluence),
}

/// Why the influence of a row was not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoInfluence {
    /// With one row less there would be too few for the rule.
    TooFewRows,
    /// The rule would have to run too often on too much.
    TooCostly,
    /// An option of the rule names rows by their index.
    RowsByIndex,
}

/// Digits that are kept of a number: enough to see why, and few enough for a manifest of many decisions.
pub const SIGNIFICANT_DIGITS: usize = 4;

/// The nearest number of [`SIGNIFICANT_DIGITS`] decimal digits.
pub fn significant(value: f64) -> f64 {
    format!("{value:.*e}", SIGNIFICANT_DIGITS - 1).parse().expect("a number reads back")
}

impl Explanation {
    /// With every number rounded by [`significant`].
    #[must_use]
    pub fn rounded(self) -> Self {
        Self {
            distance: significant(self.distance),
            cosine: self.cosine.map(significant),
            norm: significant(self.norm),
            z_score: significant(self.z_score),
            influence: match self.influence {
                Influence::Moves(distance) => Influence::Moves(significant(distance)),
                unknown @ Influence::Unknown(_) => unknown,
            },
        }
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let length = "a finite number, 0 or more";
        let moved = match self.influence {
            Influence::Moves(distance) => distance,
            Influence::Unknown(_) => 0.0,
        };
        let numbers = [
            ("distance", self.distance, 0.0, f64::MAX, length),
            ("norm", self.norm, 0.0, f64::MAX, length),
            ("influence", moved, 0.0, f64::MAX, length),
            ("cosine", self.cosine.unwrap_or(0.0), -1.0, 1.0, "-1 to 1"),
            ("z_score", self.z_score, f64::MIN, f64::MAX, "a finite number"),
        ];
        for (field, value, least, most, expected) in numbers {
            if !(least..=most).contains(&value) {
                return Err(ManifestError::Number { field, value, expected });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explanation() -> Explanation {
        Explanation {
            distance: 0.123_456,
            cosine: Some(-0.999_96),
            norm: 12_345.6,
            z_score: -1.0,
            influence: Influence::Moves(0.0),
        }
    }

    #[test]
    fn numbers_are_kept_to_four_digits_and_read_back() {
        let rounded = explanation().rounded();
        let text = serde_json::to_string(&rounded).unwrap();
        assert_eq!(
            text,
            r#"{"distance":0.1235,"cosine":-1.0,"norm":12350.0,"z_score":-1.0,"influence":0.0}"#
        );
        assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), rounded);
        for value in [0.0, 9.9996, 1.0 / 3.0, 1e-300, -7.123_456e250] {
            assert_eq!(significant(significant(value)), significant(value), "{value}");
            assert!((significant(value) - value).abs() <= 5e-4 * value.abs(), "{value}");
        }
    }

    #[test]
    fn an_influence_is_a_number_or_a_word() {
        let none = Explanation {
            influence: Influence::Unknown(NoInfluence::TooFewRows),
            cosine: None,
            ..explanation()
        };
        let text = serde_json::to_string(&none).unwrap();
        assert!(
            text.ends_with(r#""influence":"too-few-rows"}"#) && text.contains(r#""cosine":null"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), none);
        for other in ["\"none\"", "null", "{}", "[1]"] {
            let text = text.replace("\"too-few-rows\"", other);
            assert!(serde_json::from_str::<Explanation>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_ranges() {
        type Change = fn(&mut Explanation);
        assert_eq!(explanation().check(), Ok(()));
        let changes: [(Change, &str); 8] = [
            (|e| e.distance = f64::INFINITY, "distance"),
            (|e| e.distance = -0.1, "distance"),
            (|e| e.norm = f64::NAN, "norm"),
            (|e| e.cosine = Some(1.01), "cosine"),
            (|e| e.cosine = Some(f64::NAN), "cosine"),
            (|e| e.z_score = f64::NEG_INFINITY, "z_score"),
            (|e| e.influence = Influence::Moves(-1.0), "influence"),
            (|e| e.influence = Influence::Moves(f64::NAN), "influence"),
        ];
        for (change, expected) in changes {
            let mut made = explanation();
            change(&mut made);
            let found = made.check();
            assert!(
                matches!(found, Err(ManifestError::Number { field, .. }) if field == expected),
                "{expected}: {found:?}"
            );
        }
    }
}
