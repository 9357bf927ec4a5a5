//! The geometric median by smoothed Weiszfeld iteration (Pillutla, Kakade, Harchaoui: "Robust Aggregation for
//! Federated Learning", IEEE Transactions on Signal Processing 2022, algorithm 2).
//!
//! Each step replaces the estimate `z` by the mean of the rows weighted with `1 / max(‖x_i − z‖, ν)`. The
//! smoothing ν keeps the weight finite where the estimate meets a row.
//!
//! The paper leaves start and ν to the caller. Here the iteration starts at the coordinate-wise median, which
//! `f < n/2` rows cannot carry away, and ν and the stopping step are fractions of the median distance of
//! the rows to it, so that the result does not depend on the unit or the origin of the updates.

use super::{coordinate, squared_distance};

/// ν as a fraction of the median distance to the start: far below the spread of honest rows.
const RELATIVE_SMOOTHING: f64 = 1e-6;
/// The iteration stops after a step shorter than this fraction of the median distance to the start.
const RELATIVE_STEP: f64 = 1e-9;
/// A bound on the work. A few dozen iterations are usual; where the minimum lies at or close to a row, or the rows
/// nearly on a line, the last digits of the estimate take many more, for less than 1e-3 of the sum of distances.
const MAX_ITERATIONS: usize = 500;

/// The point with the least sum of Euclidean distances to the rows.
pub(super) fn geometric_median(rows: &[Vec<f64>]) -> Vec<f64> {
    let start = coordinate::median(rows);
    let mut distances: Vec<f64> = rows.iter().map(|row| squared_distance(row, &start).sqrt()).collect();
    distances.sort_unstable_by(f64::total_cmp);
    let scale = distances[(rows.len() - 1) / 2];
    // At least half of the rows lie on the start, which makes it a minimiser.
    if scale == 0.0 {
        return start;
    }
    weiszfeld(rows, start, RELATIVE_SMOOTHING * scale, RELATIVE_STEP * scale, MAX_ITERATIONS)
}

/// Smoothed Weiszfeld iteration from `estimate`, until a step is at most `least_step` long or `iterations` are
/// done.
pub(super) fn weiszfeld(
    rows: &[Vec<f64>],
    mut estimate: Vec<f64>,
    smoothing: f64,
    least_step: f64,
    iterations: usize,
) -> Vec<f64> {
    let mut next = vec![0.0; estimate.len()];
    for _ in 0..iterations {
        next.fill(0.0);
        let mut total_weight = 0.0;
        for row in rows {
            let weight = squared_distance(row, &estimate).sqrt().max(smoothing).recip();
            total_weight += weight;
            for (sum, value) in next.iter_mut().zip(row) {
                *sum += weight * value;
            }
        }
        for sum in &mut next {
            *sum /= total_weight;
        }
        let step = squared_distance(&next, &estimate).sqrt();
        std::mem::swap(&mut estimate, &mut next);
        if step <= least_step {
            break;
        }
    }
    estimate
}
