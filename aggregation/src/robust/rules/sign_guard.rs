//! Clustering of rows by their signs, after SignGuard (Xu, Huang, Song, Lan: "Byzantine-robust Federated Learning
//! through Collaborative Malicious Gradient Filtering", ICDCS 2022).
//!
//! Rows whose norm is far from the median norm are dropped. Of the others, those in the largest cluster by the shares
//! of positive, zero and negative coordinates are clipped to the median norm and averaged.
//!
//! "After", because the paper looks at a random tenth of the coordinates, clusters all rows and intersects. Here every
//! coordinate counts, which needs no randomness, and only rows of fit norm are clustered, so that some row is kept.

use super::centered_clipping::clip_factor;
use crate::robust::Aggregate;
use crate::robust::lanes::sum_of_each;
use crate::robust::options::{Kind, OptionSpec};
use crate::robust::registry::{About, Call, Needs, RuleSpec, value};

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "sign-guard",
        summary: "mean of the largest cluster of rows by their shares of signs, without rows of odd norm",
        options: &[
            OptionSpec {
                key: "lower",
                kind: Kind::Number { above: 0.0, most: 1.0 },
                default: value("0.1"),
                meaning: "least norm kept, as a multiple of the median norm",
            },
            OptionSpec {
                key: "upper",
                kind: Kind::Number { above: 1.0, most: crate::robust::MAX_MAGNITUDE },
                default: value("3"),
                meaning: "largest norm kept, as a multiple of the median norm",
            },
        ],
        cost: "n d + n³",
        source: "Xu, Huang, Song, Lan, ICDCS 2022",
    },
    breakdown: "f < n/2, not proven",
    needs: Needs::COMMON,
    run,
};

/// Shares of the coordinates that are positive and negative; the third share is what they leave.
type Signs = [f64; 2];

fn run(&Call { rows, options, .. }: &Call) -> Aggregate {
    let norms = rows.norms();
    let mut sorted = norms.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    // The lower of two middle ones: it is some row's, and that row is kept.
    let median = sorted[(rows.count() - 1) / 2];
    let fit = options.number("lower") * median..=options.number("upper") * median;
    let signs = signs_of(&rows);
    let mut kept: Vec<usize> = (0..rows.count()).filter(|&row| fit.contains(&norms[row])).collect();
    let cluster = largest_cluster(&kept.iter().map(|&row| signs[row]).collect::<Vec<_>>());
    kept = cluster.into_iter().map(|at| kept[at]).collect();
    let count = kept.len() as f64;
    let weights: Vec<_> = kept.iter().map(|&row| (row, clip_factor(norms[row], median) / count)).collect();
    let vector = rows.combine(&weights);
    Aggregate { scores: rows.distances_to(&vector), vector, kept }
}

fn signs_of(rows: &crate::robust::rows::Rows) -> Vec<Signs> {
    let one_if = |holds| f64::from(u8::from(holds));
    let counts = rows.sums(|_, values| {
        let positive = sum_of_each(values, |value| one_if(value > 0.0));
        let negative = sum_of_each(values, |value| one_if(value < 0.0));
        [positive, negative]
    });
    counts.into_iter().map(|counts| counts.map(|count| count / rows.dimension() as f64)).collect()
}

/// A bound on the work; a mean stops moving after a few steps.
const MAX_SHIFTS: usize = 300;

/// Places, ascending, of the points in the largest cluster that a mean shift with a flat kernel finds; of equally
/// large ones the one with the first point.
fn largest_cluster(points: &[Signs]) -> Vec<usize> {
    let bandwidth = bandwidth(points);
    let near = |center: &Signs| {
        points.iter().filter(|point| distance(point, center) <= bandwidth).collect::<Vec<_>>()
    };
    let mut centers: Vec<(Signs, usize)> = Vec::new();
    for start in points {
        let mut center = *start;
        let mut members = near(&center);
        for _ in 0..MAX_SHIFTS {
            let mean = [0, 1]
                .map(|axis| members.iter().map(|point| point[axis]).sum::<f64>() / members.len() as f64);
            let moved = distance(&mean, &center);
            let next = near(&mean);
            // Rounding may leave a mean beside points that coincide.
            if next.is_empty() {
                break;
            }
            (center, members) = (mean, next);
            if moved <= 1e-3 * bandwidth {
                break;
            }
        }
        centers.push((center, members.len()));
    }
    // Of centres within a bandwidth the one with most points stands for all.
    let mut order: Vec<usize> = (0..centers.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(centers[at].1));
    let mut modes: Vec<Signs> = Vec::new();
    for at in order {
        if modes.iter().all(|mode| distance(mode, &centers[at].0) > bandwidth) {
            modes.push(centers[at].0);
        }
    }
    let nearest = |point: &Signs| {
        let to = |mode: &usize| distance(&modes[*mode], point);
        (0..modes.len()).min_by(|a, b| to(a).total_cmp(&to(b))).expect("there is a mode for every point")
    };
    let labels: Vec<usize> = points.iter().map(nearest).collect();
    let size = |label: usize| labels.iter().filter(|other| **other == label).count();
    let mut largest = labels[0];
    for &label in &labels {
        if size(label) > size(largest) {
            largest = label;
        }
    }
    (0..points.len()).filter(|&at| labels[at] == largest).collect()
}

/// The mean distance of a point to the nearest half of all points: what reaches most of its own cluster.
fn bandwidth(points: &[Signs]) -> f64 {
    let reach = |point: &Signs| {
        let mut distances: Vec<f64> = points.iter().map(|other| distance(point, other)).collect();
        distances.sort_unstable_by(f64::total_cmp);
        distances[(points.len() - 1) / 2]
    };
    points.iter().map(reach).sum::<f64>() / points.len() as f64
}

/// In the space of the three shares.
fn distance(a: &Signs, b: &Signs) -> f64 {
    let (positive, negative) = (a[0] - b[0], a[1] - b[1]);
    let zero = positive + negative;
    (positive * positive + negative * negative + zero * zero).sqrt()
}
