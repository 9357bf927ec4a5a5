//! The attack that knows the rule and tries its updates on it.

use super::knowledge::{Craft, Defence, Others};
use super::registry::{AttackSpec, Sends};
use super::search::maximise;
use super::statistics::{along, deviations, dot, mean, squared_distance, with_norm};

pub(super) const ADAPTIVE: AttackSpec = AttackSpec {
    name: "adaptive",
    summary: "knows the rule: the direction and distance that turn the aggregate back furthest",
    formula: "m + γ p, p of -m, -std(x) with m's signs, -sign(m); γ and p maximise how far the aggregate falls back \
              along m",
    source: "Shejwalkar, Houmansadr, NDSS 2021, §IV-B; objective of Fang, Cao, Jia, Gong, USENIX Security 2020, §3",
    strength: None,
    poison: None,
    sends: Sends::GroupMean,
    craft: Craft::KnowingRule(craft),
};

fn craft(others: &Others, defence: &Defence) -> Vec<f64> {
    let honest = others.honest();
    let centre = mean(&honest);
    let squares = honest.iter().map(|row| squared_distance(row, &centre)).sum::<f64>();
    let spread = (squares / honest.len() as f64).sqrt();
    let Some(forward) = with_norm(&centre, 1.0) else { return centre };
    let fallback = |target: &[f64]| fallback(others, defence, target, &forward);

    let signs: Vec<f64> =
        centre.iter().map(|value| if *value == 0.0 { 0.0 } else { value.signum() }).collect();
    let signed: Vec<f64> = deviations(&honest).iter().zip(&signs).map(|(by, sign)| by * sign).collect();
    // Backwards, at the honest rows' own distance from their mean: 1 is the natural unit of the factor.
    let unit = if spread > 0.0 { spread } else { 1.0 };
    let directions = [&centre, &signed, &signs].into_iter().filter_map(|way| with_norm(way, -unit));
    let targets = directions.map(|way| {
        let target = along(&centre, maximise(|factor| fallback(&along(&centre, factor, &way))), &way);
        (fallback(&target), target)
    });
    let none = (f64::NEG_INFINITY, centre.clone());
    targets.fold(none, |best, next| if next.0 > best.0 { next } else { best }).1
}

/// How much less far the aggregate goes `forward` than the honest mean, on average over the scenes.
pub(super) fn fallback(others: &Others, defence: &Defence, target: &[f64], forward: &[f64]) -> f64 {
    let parts =
        others.scenes.iter().map(|scene| scene.deviation(defence, target).map(|by| -dot(&by, forward)));
    parts.sum::<Option<f64>>().map_or(f64::NEG_INFINITY, |sum| sum / others.scenes.len() as f64)
}
