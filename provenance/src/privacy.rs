//! What a manifest says about privacy: the loss so far, and what the number means.
//!
//! ε says nothing by itself. Whose data it protects, against which change of it, by whose noise and by which accountant
//! it was computed belong to it, so a manifest carries all of that, in the words of the task's plan. Whoever holds the
//! plan can tell what every member but the ε spent must be; the ε spent never falls and never passes the budget.
//!
//! Where the placement is [`NO_NOISE`], nothing is private: ε and its budget are infinite, and the clip norm may be. JSON
//! has no infinity, so `null` stands for it, there and wherever else ε is written; no other placement may have it.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{excerpt, manifest::ManifestError};

/// The longest word of a claim, in bytes.
const MAX_WORD: usize = 64;

/// The placement of plans in which nobody adds noise.
pub const NO_NOISE: &str = "insecure_none";

/// Reads a number for which `null` stands for infinity, as serde_json writes it. For `#[serde(deserialize_with)]`.
pub fn null_is_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// The `privacy` object of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyClaim {
    /// ε of the client that was charged most, until and with this round, at `delta`.
    #[serde(deserialize_with = "null_is_infinite")]
    pub epsilon_spent: f64,
    /// ε at which the task stops.
    #[serde(deserialize_with = "null_is_infinite")]
    pub epsilon_budget: f64,
    /// δ of both.
    pub delta: f64,
    /// Whose data is protected as a whole, such as `user`.
    pub unit: String,
    /// Which inputs are hard to tell apart, such as `zero-out`.
    pub neighbours: String,
    /// How ε is computed from the noise, such as `rdp`.
    pub accountant: String,
    /// The sampling of clients that ε is credited with, such as `none`.
    pub sampling: String,
    /// Who adds the noise, such as `distributed`.
    pub placement: String,
    /// Which noise it is, such as `discrete-gaussian`.
    pub mechanism: String,
    /// Standard deviation of the noise in one released sum, in clip norms.
    pub noise_multiplier: f64,
    /// L2 bound on what one client adds to the next sum, in units of the model's parameters.
    #[serde(deserialize_with = "null_is_infinite")]
    pub clip_norm: f64,
    /// Whether the clip norm follows the updates; not written where it stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adaptive_clip: bool,
    /// Whether keys and noise are nobody's to know. Not in a simulation, where they follow from a seed: written there alone.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub private: bool,
}

fn yes() -> bool {
    true
}

/// Two claims that cannot be about one task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} is {found}, expected {expected}")]
pub struct Conflict {
    /// The first member in which they differ.
    pub member: &'static str,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl PrivacyClaim {
    /// Whether a claim is about the same task as this one: every member is equal but the ε spent, and the clip norm where
    /// it is adaptive. How far that may go is not known here.
    pub fn agrees_with(&self, claim: &Self) -> Result<(), Conflict> {
        let numbers = |claim: &Self| {
            [
                ("epsilon_budget", claim.epsilon_budget),
                ("delta", claim.delta),
                ("noise_multiplier", claim.noise_multiplier),
                ("clip_norm", claim.clip_norm),
            ]
        };
        for ((member, expected), (_, found)) in self.words().into_iter().zip(claim.words()) {
            if expected != found {
                return Err(Conflict { member, expected: excerpt(expected), found: excerpt(found) });
            }
        }
        let truths = |claim: &Self| [("adaptive_clip", claim.adaptive_clip), ("private", claim.private)];
        for ((member, expected), (_, found)) in truths(self).into_iter().zip(truths(claim)) {
            if expected != found {
                let [expected, found] = [expected, found].map(|truth| truth.to_string());
                return Err(Conflict { member, expected, found });
            }
        }
        for ((member, expected), (_, found)) in numbers(self).into_iter().zip(numbers(claim)) {
            if expected != found && !(member == "clip_norm" && self.adaptive_clip) {
                return Err(Conflict { member, expected: expected.to_string(), found: found.to_string() });
            }
        }
        Ok(())
    }

    fn words(&self) -> [(&'static str, &str); 6] {
        [
            ("unit", &self.unit),
            ("neighbours", &self.neighbours),
            ("accountant", &self.accountant),
            ("sampling", &self.sampling),
            ("placement", &self.placement),
            ("mechanism", &self.mechanism),
        ]
    }

    /// Refuses numbers out of range, words that are none, and more spent than there was.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let number = |field, value: f64, ok: bool, expected| {
            ok.then_some(()).ok_or(ManifestError::Number { field, value, expected })
        };
        let no_noise = self.placement == NO_NOISE;
        for (field, value, may_be_infinite) in [
            ("epsilon_spent", self.epsilon_spent, no_noise),
            ("epsilon_budget", self.epsilon_budget, no_noise),
            ("noise_multiplier", self.noise_multiplier, false),
            ("clip_norm", self.clip_norm, no_noise),
        ] {
            let finite = value.is_finite() || may_be_infinite;
            number(field, value, value >= 0.0 && finite, "a finite number from 0 up")?;
        }
        if no_noise {
            let nothing = self.epsilon_spent == 0.0 || self.epsilon_spent == f64::INFINITY;
            number("epsilon_spent", self.epsilon_spent, nothing, "0 or infinite, as there is no noise")?;
            let (budget, noise) = (self.epsilon_budget, self.noise_multiplier);
            number("epsilon_budget", budget, budget == f64::INFINITY, "infinite, as there is no noise")?;
            number("noise_multiplier", noise, noise == 0.0, "0, as there is no noise")?;
        }
        number("delta", self.delta, (0.0..1.0).contains(&self.delta), "0 ≤ δ < 1")?;
        if self.epsilon_spent > self.epsilon_budget {
            return Err(ManifestError::Overspent { spent: self.epsilon_spent, budget: self.epsilon_budget });
        }
        for (field, word) in self.words() {
            if word.is_empty() || word.len() > MAX_WORD || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ManifestError::Word { field, found: excerpt(word) });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::claim;

    type Change = fn(&mut PrivacyClaim);

    #[test]
    fn every_member_but_the_epsilon_spent_is_the_tasks() {
        assert_eq!(claim(0.0).agrees_with(&claim(3.0)), Ok(()));
        let adaptive = |clip_norm| PrivacyClaim { adaptive_clip: true, clip_norm, ..claim(0.0) };
        assert_eq!(adaptive(0.5).agrees_with(&adaptive(0.7)), Ok(()));
        let simulated = PrivacyClaim { private: false, ..claim(0.0) };
        let conflict = simulated.agrees_with(&claim(0.0)).unwrap_err();
        assert_eq!(
            conflict.to_string(),
            "private is true, expected false",
            "a simulation cannot hide that it is one"
        );
        let other = claim(0.0).agrees_with(&adaptive(0.5)).unwrap_err();
        assert_eq!(other.to_string(), "adaptive_clip is true, expected false");
        let changes: [(Change, &str); 10] = [
            (|claim| claim.epsilon_budget = 16.0, "epsilon_budget is 16, expected 15"),
            (|claim| claim.delta = 1e-6, "delta is 0.000001, expected 0.00001"),
            (|claim| claim.unit = "example".to_owned(), "unit is example, expected user"),
            (
                |claim| claim.neighbours = "add-remove".to_owned(),
                "neighbours is add-remove, expected zero-out",
            ),
            (|claim| claim.accountant = "pld".to_owned(), "accountant is pld, expected rdp"),
            (|claim| claim.sampling = "poisson".to_owned(), "sampling is poisson, expected none"),
            (|claim| claim.placement = "central".to_owned(), "placement is central, expected distributed"),
            (|claim| claim.mechanism = "none".to_owned(), "mechanism is none, expected discrete-gaussian"),
            (|claim| claim.noise_multiplier = 2.0, "noise_multiplier is 2, expected 1.12"),
            (|claim| claim.clip_norm = 2.0, "clip_norm is 2, expected 0.5"),
        ];
        for (change, expected) in changes {
            let mut other = claim(1.0);
            change(&mut other);
            assert_eq!(claim(1.0).agrees_with(&other).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn claims_that_cannot_be_are_refused() {
        assert_eq!(claim(15.0).check(), Ok(()), "a budget can be spent to its end");
        let changes: [(Change, &str); 10] = [
            (|claim| claim.epsilon_spent = 15.001, "epsilon_spent is 15.001, more than epsilon_budget 15"),
            (|claim| claim.epsilon_spent = f64::NAN, "epsilon_spent is NaN"),
            (|claim| claim.epsilon_spent = -0.1, "epsilon_spent is -0.1"),
            (|claim| claim.epsilon_budget = f64::INFINITY, "epsilon_budget is inf"),
            (|claim| claim.delta = 1.0, "delta is 1"),
            (|claim| claim.delta = f64::NAN, "delta is NaN"),
            (|claim| claim.noise_multiplier = f64::NAN, "noise_multiplier is NaN"),
            (|claim| claim.clip_norm = -1.0, "clip_norm is -1"),
            (|claim| claim.unit.clear(), "unit is \"\""),
            (|claim| claim.mechanism = "a\u{1b}[2J".to_owned(), "mechanism is \"a\\u{1b}[2J\""),
        ];
        for (change, expected) in changes {
            let mut claim = claim(1.0);
            change(&mut claim);
            let error = claim.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}, expected: {expected}");
        }
    }

    /// The claim of a task in which nobody adds noise.
    fn without_noise() -> PrivacyClaim {
        let none = || "none".to_owned();
        PrivacyClaim {
            epsilon_spent: f64::INFINITY,
            epsilon_budget: f64::INFINITY,
            unit: none(),
            neighbours: none(),
            accountant: none(),
            placement: NO_NOISE.to_owned(),
            mechanism: none(),
            noise_multiplier: 0.0,
            clip_norm: f64::INFINITY,
            ..claim(0.0)
        }
    }

    #[test]
    fn without_noise_epsilon_is_infinite_and_written_as_null() {
        type Change = fn(&mut PrivacyClaim);

        let claim = without_noise();
        claim.check().unwrap();
        // Golden.
        let text = r#"{"epsilon_spent":null,"epsilon_budget":null,"delta":0.00001,"unit":"none","neighbours":"none","accountant":"none","sampling":"none","placement":"insecure_none","mechanism":"none","noise_multiplier":0.0,"clip_norm":null}"#;
        assert_eq!(serde_json::to_string(&claim).unwrap(), text);
        assert_eq!(serde_json::from_str::<PrivacyClaim>(text).unwrap(), claim);
        assert_eq!(claim.agrees_with(&PrivacyClaim { epsilon_spent: 0.0, ..without_noise() }), Ok(()));

        let changes: [(Change, &str); 5] = [
            (|claim| claim.epsilon_spent = 3.0, "epsilon_spent is 3"),
            (|claim| claim.epsilon_spent = f64::NAN, "epsilon_spent is NaN"),
            (|claim| claim.epsilon_budget = 15.0, "epsilon_budget is 15"),
            (|claim| claim.noise_multiplier = 1.0, "noise_multiplier is 1"),
            (|claim| claim.placement = "central".to_owned(), "epsilon_spent is inf"),
        ];
        for (change, expected) in changes {
            let mut claim = without_noise();
            change(&mut claim);
            let error = claim.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}, expected: {expected}");
        }
    }
}
