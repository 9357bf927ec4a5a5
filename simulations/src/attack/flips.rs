//! Reversed updates: sign flip, and inner-product manipulation with a fixed or an optimised factor.

use super::knowledge::{Craft, Defence, Others};
use super::registry::{AttackSpec, Sends, Strength};
use super::search::maximise;
use super::statistics::{mean, norm};

pub(super) const SIGN_FLIP: AttackSpec = AttackSpec {
    name: "sign-flip",
    summary: "the client's own update, reversed",
    formula: "-u",
    source: "Li, Xu, Chen, Giannakis, Ling, AAAI 2019 (RSA), §5",
    strength: Some(Strength::NORM),
    poison: None,
    sends: Sends::OfNorm(super::registry::LOUD),
    craft: Craft::Alone(|own, _, _| own.update.iter().map(|value| -value).collect()),
};

pub(super) const IPM: AttackSpec = AttackSpec {
    name: "ipm",
    summary: "inner-product manipulation: the mean of the others, reversed and scaled",
    formula: "-τ mean(x)",
    source: "Xie, Koyejo, Gupta, UAI 2019, §4; τ as in byzfl",
    strength: Some(Strength { default: "2", meaning: "τ" }),
    poison: None,
    sends: Sends::GroupMean,
    craft: Craft::Together(|others, strength| reversed(others, strength.unwrap_or(2.0))),
};

pub(super) const OPTIMAL_IPM: AttackSpec = AttackSpec {
    name: "opt-ipm",
    summary: "inner-product manipulation with the factor that moves the rule furthest",
    formula: "-τ mean(x), τ maximising the distance of the aggregate to mean(x)",
    source: "Allouah et al., AISTATS 2023, §6; search of byzfl, then a finer one",
    strength: None,
    poison: None,
    sends: Sends::GroupMean,
    craft: Craft::KnowingRule(|others, defence| {
        reversed(others, maximise(|factor| harm(others, defence, &reversed(others, factor))))
    }),
};

/// −`factor` times the mean of the honest rows.
pub(super) fn reversed(others: &Others, factor: f64) -> Vec<f64> {
    mean(&others.honest()).iter().map(|value| -factor * value).collect()
}

/// How far the aggregate comes to lie from the mean of the honest rows, on average over the scenes.
pub(super) fn harm(others: &Others, defence: &Defence, target: &[f64]) -> f64 {
    let distances = others.scenes.iter().map(|scene| scene.deviation(defence, target).map(|by| norm(&by)));
    // A target that the rule refuses does no harm at all.
    distances.sum::<Option<f64>>().map_or(f64::NEG_INFINITY, |sum| sum / others.scenes.len() as f64)
}
