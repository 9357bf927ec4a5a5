//! The geometric median by smoothed Weiszfeld iteration (Pillutla, Kakade, Harchaoui: "Robust Aggregation for
//! Federated Learning", IEEE Transactions on Signal Processing 2022, algorithm 2).
//!
//! Each step replaces the estimate `z` by the mean of the rows weighted with `1 / max(‖x_i − z‖, ν)`. The
//! smoothing ν keeps the weight finite where the estimate meets a row.
//!
//! The paper leaves start, ν and the number of steps to the caller, and published code takes constants: a start at
//! zero, a few steps, ν = 0.1 (byzfl) or 10⁻⁶. Results then depend on the unit and the origin of the rows, and rows
//! shorter than ν are simply averaged. So `geometric-median` runs to convergence unless it is told otherwise: from
//! the coordinate-wise median, which `f < n/2` rows cannot carry away, with ν and the last step as fractions of the
//! median distance of the rows to it.

use super::median::median;
use crate::robust::Aggregate;
use crate::robust::options::{Fallback, OptionSpec};
use crate::robust::registry::{About, Call, Needs, RuleSpec, value};
use crate::robust::rows::Rows;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "geometric-median",
        summary: "point with the least sum of distances to the rows; with an option set, as published, from zero",
        options: &[
            OptionSpec::number(
                "nu",
                Fallback::Computed("10^-6 of the rows' median distance; 0.1 where iterations is set"),
                "smoothing, in the unit of the rows",
            ),
            OptionSpec::count(
                "iterations",
                1,
                Fallback::Computed("until it converges; 3 where nu is set"),
                "steps, counted from zero",
            ),
        ],
        cost: "n d a step",
        source: "Pillutla, Kakade, Harchaoui, IEEE TSP 2022",
    },
    breakdown: "f < n/2",
    needs: Needs::COMMON,
    run: |Call { rows, options, .. }| {
        let vector = match (options.number_if_set("nu"), options.count_if_set("iterations")) {
            (None, None) => converged(rows),
            (nu, iterations) => from_zero(rows, nu.unwrap_or(0.1), iterations.unwrap_or(3)),
        };
        Aggregate::of_every_row(rows, vector)
    },
};

pub(in crate::robust) const RFA: RuleSpec = RuleSpec {
    about: About {
        name: "rfa",
        summary: "geometric median as its authors run it: a few steps from zero, which is the current model",
        options: &[
            OptionSpec::number("nu", value("1e-6"), "smoothing, in the unit of the rows"),
            OptionSpec::count("iterations", 1, value("3"), "steps"),
        ],
        ..SPEC.about
    },
    run: |Call { rows, options, .. }| {
        let vector = from_zero(rows, options.number("nu"), options.count("iterations"));
        Aggregate::of_every_row(rows, vector)
    },
    ..SPEC
};

/// ν as a fraction of the median distance to the start: far below the spread of honest rows.
const RELATIVE_SMOOTHING: f64 = 1e-6;
/// The iteration stops after a step shorter than this fraction of the median distance to the start.
const RELATIVE_STEP: f64 = 1e-9;
/// A bound on the work. A few dozen iterations are usual; where the minimum lies at or close to a row, or the rows
/// nearly on a line, the last digits of the estimate take many more, for less than 1e-3 of the sum of distances.
const MAX_ITERATIONS: usize = 500;

/// The point with the least sum of Euclidean distances to the rows.
pub(in crate::robust) fn converged(rows: &Rows) -> Vec<f64> {
    let start = median(rows);
    let mut distances = rows.distances_to(&start);
    distances.sort_unstable_by(f64::total_cmp);
    let scale = distances[(rows.count() - 1) / 2];
    // At least half of the rows lie on the start, which makes it a minimiser.
    if scale == 0.0 {
        return start;
    }
    weiszfeld(rows, start, RELATIVE_SMOOTHING * scale, RELATIVE_STEP * scale, MAX_ITERATIONS)
}

fn from_zero(rows: &Rows, smoothing: f64, iterations: usize) -> Vec<f64> {
    weiszfeld(rows, vec![0.0; rows.dimension()], smoothing, 0.0, iterations)
}

/// Smoothed Weiszfeld iteration from `estimate`, until a step is at most `least_step` long or `iterations` are
/// done.
fn weiszfeld(
    rows: &Rows,
    mut estimate: Vec<f64>,
    smoothing: f64,
    least_step: f64,
    iterations: usize,
) -> Vec<f64> {
    for _ in 0..iterations {
        let mut weights: Vec<_> = rows
            .distances_to(&estimate)
            .into_iter()
            .map(|distance| distance.max(smoothing).recip())
            .collect();
        let total: f64 = weights.iter().sum();
        for weight in &mut weights {
            *weight /= total;
        }
        let next = rows.combine(&weights.into_iter().enumerate().collect::<Vec<_>>());
        let step = next.iter().zip(&estimate).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
        estimate = next;
        if step <= least_step {
            break;
        }
    }
    estimate
}
