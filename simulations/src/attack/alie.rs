//! A Little Is Enough: the mean, shifted by so little of the standard deviation that it passes for honest.

use super::flips::harm;
use super::knowledge::{Craft, Others};
use super::registry::{AttackSpec, Sends, Strength};
use super::search::maximise;
use super::statistics::{along, deviations, mean, normal_quantile};

pub(super) const ALIE: AttackSpec = AttackSpec {
    name: "alie",
    summary: "a little is enough: the mean, shifted by z standard deviations in every coordinate",
    formula: "mean(x) + z std(x), z = Φ⁻¹((n - f - s) / (n - f)), s = ⌊n/2⌋ + 1 - f",
    source: "Baruch, Baruch, Goldberg, NeurIPS 2019, §3",
    strength: Some(Strength { default: "as published, from n and f", meaning: "z" }),
    poison: None,
    sends: Sends::GroupMean,
    craft: Craft::Together(|others, strength| {
        shifted(others, strength.unwrap_or_else(|| published_z(others.rows(), others.byzantine())))
    }),
};

pub(super) const OPTIMAL_ALIE: AttackSpec = AttackSpec {
    name: "opt-alie",
    summary: "a little is enough with the factor that moves the rule furthest",
    formula: "mean(x) + z std(x), z maximising the distance of the aggregate to mean(x)",
    source: "Allouah et al., AISTATS 2023, §6; search of byzfl, then a finer one",
    strength: None,
    poison: None,
    sends: Sends::GroupMean,
    craft: Craft::KnowingRule(|others, defence| {
        shifted(others, maximise(|factor| harm(others, defence, &shifted(others, factor))))
    }),
};

/// The mean plus `factor` standard deviations (with n − 1 in the denominator, as in byzfl's code).
pub(super) fn shifted(others: &Others, factor: f64) -> Vec<f64> {
    let honest = others.honest();
    along(&mean(&honest), factor, &deviations(&honest))
}

/// The largest z at which enough honest rows are expected to lie farther out than the forged, that these with them
/// are a majority.
pub(super) fn published_z(rows: usize, byzantine: usize) -> f64 {
    let honest = rows.saturating_sub(byzantine).max(1);
    let supporters = (rows / 2 + 1).saturating_sub(byzantine);
    normal_quantile(honest.saturating_sub(supporters) as f64 / honest as f64)
}
