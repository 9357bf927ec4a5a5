//! Centred clipping (Karimireddy, He, Jaggi: "Learning from History for Byzantine Robust Optimization", ICML 2021).
//!
//! `v ← v + mean((x_i − v) · min(1, τ / ‖x_i − v‖))`, a few times. The `v` to start from is the memory of the rule:
//! the authors pass on each round's result to the next. Here it is an option, so that the rule has no state.

use super::median::median;
use crate::robust::Aggregate;
use crate::robust::options::{Kind, OptionSpec};
use crate::robust::registry::{About, Call, Needs, RuleSpec, value};

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "centered-clipping",
        summary: "start, moved by the mean of the rows' differences to it, each clipped to norm tau",
        options: &[
            OptionSpec::number("tau", value("100"), "clip norm, in the unit of the rows"),
            OptionSpec::count("iterations", 1, value("1"), "steps"),
            OptionSpec {
                key: "start",
                kind: Kind::Vector(&["zero", "median"]),
                default: value("zero"),
                meaning: "where to start: the aggregate of the round before, zero, or the coordinate-wise median",
            },
        ],
        cost: "n d a step",
        source: "Karimireddy, He, Jaggi, ICML 2021",
    },
    breakdown: "f < n/2; proven for f up to n/10, a good start and a tau that fits the spread",
    needs: Needs::COMMON,
    run,
};

fn run(&Call { rows, options, .. }: &Call) -> Aggregate {
    let tau = options.number("tau");
    let mut center = match (options.rows("start"), options.word("start")) {
        (Some(start), _) => start[0].clone(),
        (None, Some("median")) => median(&rows),
        (None, _) => vec![0.0; rows.dimension()],
    };
    for _ in 0..options.count("iterations") {
        // v + Σ w (x − v) = (1 − Σ w) v + Σ w x would cancel where v is far away, so v is moved by differences.
        let weights = rows.distances_to(&center).into_iter().map(|distance| clip_factor(distance, tau));
        let weights: Vec<_> = weights.map(|weight| weight / rows.count() as f64).enumerate().collect();
        let moved = rows.combine_differences(&weights, &center);
        for (value, moved) in center.iter_mut().zip(moved) {
            *value += moved;
        }
    }
    Aggregate::of_every_row(&rows, center)
}

/// What a vector of norm `norm` is multiplied with to be at most `bound` long.
pub(in crate::robust) fn clip_factor(norm: f64, bound: f64) -> f64 {
    if norm > bound { bound / norm } else { 1.0 }
}
