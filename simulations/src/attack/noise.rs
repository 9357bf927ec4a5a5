//! Updates that carry nothing: noise, infinity, another's update, the round before.

use crate::sampling::standard_normal;

use super::knowledge::Craft;
use super::registry::{AttackSpec, LOUD, Sends, Strength};

pub(super) const GAUSSIAN: AttackSpec = AttackSpec {
    name: "gaussian",
    summary: "a uniformly random direction",
    formula: "N(0, 1) in every coordinate",
    source: "Blanchard et al., NeurIPS 2017, §5",
    strength: Some(Strength::NORM),
    poison: None,
    sends: Sends::OfNorm(LOUD),
    craft: Craft::Alone(|own, _, mut rng| own.update.iter().map(|_| standard_normal(&mut rng)).collect()),
};

pub(super) const INFINITY: AttackSpec = AttackSpec {
    name: "infinity",
    summary: "infinity in every coordinate; a ring has none, so its largest value",
    formula: "∞; 2^(b-1) - 1 steps of the grid in a ring of b bits",
    source: "byzfl 0.0.11",
    strength: None,
    poison: None,
    sends: Sends::AsItIs,
    craft: Craft::Alone(|own, _, _| vec![f64::INFINITY; own.update.len()]),
};

pub(super) const MIMIC: AttackSpec = AttackSpec {
    name: "mimic",
    summary: "all copy one honest client, whose data then counts too much",
    formula: "x_0",
    source: "Karimireddy, He, Jaggi, ICLR 2022, §3.2; the copied one is fixed, as in byzfl",
    strength: None,
    poison: None,
    sends: Sends::GroupMean,
    craft: Craft::Together(|others, _| others.first.clone()),
};

pub(super) const LAZY: AttackSpec = AttackSpec {
    name: "lazy",
    summary: "trains nothing: sends the last step of the published model, zero before there is one",
    formula: "w_t - w_(t-1)",
    source: "Lin, Du, Liu 2019 (arXiv 1911.12560), §III (delta weights)",
    strength: None,
    poison: None,
    sends: Sends::AsItIs,
    craft: Craft::Alone(|own, _, _| {
        own.last_step.map_or_else(|| vec![0.0; own.update.len()], <[f64]>::to_vec)
    }),
};
