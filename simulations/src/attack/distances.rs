//! Min-max and min-sum: as far against the mean as the honest are from one another.
//!
//! Both go from the mean of the honest against its direction, by the largest γ that their constraint allows. The
//! authors halve intervals; squared distances are quadratic in γ, so that the largest γ is a root.

use super::knowledge::{Craft, Others, Scene};
use super::registry::{AttackSpec, Sends, Strength};
use super::statistics::{along, dot, mean, squared_distance, with_norm};

const MULTIPLE: Strength = Strength { default: "1", meaning: "multiple of the largest γ" };

pub(super) const MIN_MAX: AttackSpec = AttackSpec {
    name: "min-max",
    summary: "against the mean, no farther from any honest row than two of those are from each other",
    formula: "m - γ m/|m|, m = mean(x), γ largest with max |t - x_i| <= max |x_i - x_j|",
    source: "Shejwalkar, Houmansadr, NDSS 2021, §IV-C, with its unit vector",
    strength: Some(MULTIPLE),
    poison: None,
    sends: Sends::GroupMean,
    craft: Craft::Together(|others, strength| against_the_mean(others, strength, largest_by_maximum)),
};

pub(super) const MIN_SUM: AttackSpec = AttackSpec {
    name: "min-sum",
    summary: "against the mean, with no larger a sum of squared distances than the worst honest row has",
    formula: "m - γ m/|m|, m = mean(x), γ largest with Σ |t - x_i|² <= max_i Σ_j |x_i - x_j|²",
    source: "Shejwalkar, Houmansadr, NDSS 2021, §IV-C, with its unit vector",
    strength: Some(MULTIPLE),
    poison: None,
    sends: Sends::GroupMean,
    craft: Craft::Together(|others, strength| against_the_mean(others, strength, largest_by_sum)),
};

/// The mean of the honest moved against its own direction, by the γ that holds in every scene.
fn against_the_mean(
    others: &Others,
    strength: Option<f64>,
    largest: fn(&Scene, &[f64], &[f64]) -> f64,
) -> Vec<f64> {
    let centre = mean(&others.honest());
    let Some(direction) = with_norm(&centre, -1.0) else { return centre };
    let gammas = others.scenes.iter().map(|scene| largest(scene, &centre, &direction));
    let gamma = gammas.fold(f64::INFINITY, f64::min);
    along(&centre, gamma * strength.unwrap_or(1.0), &direction)
}

/// The largest γ with no forged row farther from an honest one than the two honest rows farthest from each other.
fn largest_by_maximum(scene: &Scene, centre: &[f64], direction: &[f64]) -> f64 {
    let bound = pairs(scene).map(|(one, two)| squared_distance(one, two)).fold(0.0, f64::max);
    let gammas = scene.veils.iter().flat_map(|veil| {
        let forged = along(centre, 1.0, veil);
        scene.honest.iter().map(move |row| {
            let away = along(&forged, -1.0, row);
            larger_root(1.0, dot(&away, direction), dot(&away, &away) - bound)
        })
    });
    gammas.fold(f64::INFINITY, f64::min)
}

/// The largest γ with no forged row's sum of squared distances above the largest such sum of an honest row.
fn largest_by_sum(scene: &Scene, centre: &[f64], direction: &[f64]) -> f64 {
    let sum = |row: &[f64]| scene.honest.iter().map(|other| squared_distance(row, other)).sum::<f64>();
    let bound = scene.honest.iter().map(|row| sum(row)).fold(0.0, f64::max);
    let gammas = scene.veils.iter().map(|veil| {
        let forged = along(centre, 1.0, veil);
        let slope = scene.honest.iter().map(|row| dot(&along(&forged, -1.0, row), direction)).sum();
        larger_root(scene.honest.len() as f64, slope, sum(&forged) - bound)
    });
    gammas.fold(f64::INFINITY, f64::min)
}

/// The larger γ with `a` γ² + 2 `b` γ + `c` = 0; 0 where the constraint is broken before any step (`c` > 0).
fn larger_root(a: f64, b: f64, c: f64) -> f64 {
    if c > 0.0 {
        return 0.0;
    }
    let root = (b * b - a * c).sqrt();
    // The form without cancellation.
    if b > 0.0 { -c / (b + root) } else { (root - b) / a }
}

fn pairs(scene: &Scene) -> impl Iterator<Item = (&[f64], &[f64])> {
    scene.honest.iter().flat_map(|one| scene.honest.iter().map(move |two| (one.as_slice(), two.as_slice())))
}
